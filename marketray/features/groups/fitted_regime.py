"""Where a value stands in the training history; fitted on training rows only, stored with the model."""

from __future__ import annotations

from marketray.features.fits import AboveMedian, BelowMedian, Fit, PercentileRank, QuantileCuts
from marketray.features.fitted import FittedFeature

__all__ = ["fitted_regime"]


def fitted_regime() -> list[FittedFeature]:
    """All fitted regime features."""
    rank = PercentileRank()
    return [
        _of(
            "realized_volatility_20", "volatility_regime", QuantileCuts((1 / 3, 2 / 3)), "volatility terciles"
        ),
        _of("realized_volatility_20", "volatility_high", AboveMedian(1.5), "volatility above its median"),
        _of("realized_volatility_20", "volatility_low", BelowMedian(0.7), "volatility below its median"),
        _of("realized_volatility_60", "volatility_rank", rank, "volatility rank"),
        _of("volume_ratio_20", "volume_rank", rank, "volume rank"),
        _of("range_1", "range_rank", rank, "range rank"),
    ]


def _of(of: str, name: str, fit: Fit, source: str) -> FittedFeature:
    return FittedFeature(name=name, group="regime", of=of, fit=fit, unit=fit.unit, source=source)
