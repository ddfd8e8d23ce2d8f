"""Volatility per bar, as standard deviations of log returns unless said otherwise; never annualised."""

from __future__ import annotations

import math

import polars as pl

from marketray.features.definition import Feature
from marketray.features.windows import decay_lookback, mean, standard_deviation

__all__ = ["volatility"]

_GROUP = "volatility"
_UNIT = "log return per bar"


def volatility() -> list[Feature]:
    """All volatility features."""
    return [
        *_close_to_close(),
        *_return_deviations(),
        *_semideviations(20),
        *_jumps(60),
        *_range_based(),
        _yang_zhang(20),
        *_ranges(),
    ]


def _close_to_close() -> list[Feature]:
    squared = pl.col("_log_return") ** 2
    realized = [
        Feature(
            name=f"realized_volatility_{n}",
            group=_GROUP,
            lookback=n + 1,
            expression=mean(squared, n).sqrt(),
            formula=f"sqrt(mean of ln(C / C[-1])^2 over {n} bars)",
            source="Andersen and Bollerslev 1998",
            unit=_UNIT,
        )
        for n in (5, 10, 20, 60, 120)
    ]
    short, long = pl.col("realized_volatility_10"), pl.col("realized_volatility_60")
    return [
        *realized,
        Feature(
            name="volatility_ratio_10_60",
            group=_GROUP,
            lookback=61,
            expression=pl.when(long > 0).then(short / long).when(long == 0).then(1.0),
            formula="realized_volatility_10 / realized_volatility_60; 1 where the latter is 0",
            source="volatility regime, causal",
            unit="ratio",
        ),
        Feature(
            name="ewma_volatility_20",
            group=_GROUP,
            lookback=2 * decay_lookback(2 / 21) + 1,
            expression=squared.ewm_mean(span=20, adjust=False, ignore_nulls=True).sqrt(),
            formula="sqrt(EMA20 of ln(C / C[-1])^2)",
            source="RiskMetrics 1996",
            unit=_UNIT,
        ),
    ]


def _return_deviations() -> list[Feature]:
    """Standard deviations of simple returns, their ratio, and how much the shorter one varies."""
    unit = "fraction per bar"
    deviations = [
        Feature(
            name=f"return_sd_{n}",
            group=_GROUP,
            lookback=n + 1,
            expression=standard_deviation(pl.col("_return_1"), n),
            formula=f"sample standard deviation of C / C[-1] - 1 over {n} bars",
            source="historical volatility",
            unit=unit,
        )
        for n in (20, 50)
    ]
    short, long = pl.col("return_sd_20"), pl.col("return_sd_50")
    return [
        *deviations,
        Feature(
            name="volatility_ratio_20_50",
            group=_GROUP,
            lookback=51,
            expression=pl.when(long > 0).then(short / long).when(long == 0).then(1.0),
            formula="return_sd_20 / return_sd_50; 1 where the latter is 0",
            source="volatility regime, causal",
            unit="ratio",
        ),
        Feature(
            name="volatility_of_volatility_20",
            group=_GROUP,
            lookback=40,
            expression=standard_deviation(short, 20),
            formula="sample standard deviation of return_sd_20 over 20 bars",
            source="volatility of volatility",
            unit=unit,
        ),
    ]


def _semideviations(window: int) -> list[Feature]:
    change = pl.col("_log_return")
    halves = {"down": change.clip(upper_bound=0), "up": change.clip(lower_bound=0)}
    return [
        Feature(
            name=f"{side}_volatility_{window}",
            group=_GROUP,
            lookback=window + 1,
            expression=mean(half**2, window).sqrt(),
            formula=f"sqrt(mean of {bound}(ln(C / C[-1]), 0)^2 over {window} bars)",
            source="Barndorff-Nielsen, Kinnebrock and Shephard 2010, realised semivariance",
            unit=_UNIT,
        )
        for (side, half), bound in zip(halves.items(), ("min", "max"), strict=True)
    ]


def _jumps(window: int) -> list[Feature]:
    """Bipower variation takes no account of single jumps; what it lacks of the variance is theirs.

    A window of n returns has n - 1 products of neighbours; both variances are means per bar.
    """
    size = pl.col("_log_return").abs()
    products = mean(size * size.shift(1), window - 1)
    smooth, total = pl.col(f"bipower_volatility_{window}"), pl.col(f"realized_volatility_{window}")
    source = "Barndorff-Nielsen and Shephard 2004"
    return [
        Feature(
            name=f"bipower_volatility_{window}",
            group=_GROUP,
            lookback=window + 1,
            expression=(math.pi / 2 * products).sqrt(),
            formula=f"sqrt(pi / 2 * mean of |r r[-1]|), r = ln(C / C[-1]), {window - 1} products",
            source=source,
            unit=_UNIT,
        ),
        Feature(
            name=f"jump_share_{window}",
            group=_GROUP,
            lookback=window + 1,
            expression=pl.when(total > 0)
            .then((1 - (smooth / total) ** 2).clip(lower_bound=0))
            .when(total == 0)
            .then(0.0),
            formula=f"max(0, 1 - bipower_volatility_{window}^2 / realized_volatility_{window}^2); "
            "0 where the latter is 0",
            source=source,
            unit="share of the variance",
        ),
    ]


def _range_based() -> list[Feature]:
    span, body = pl.col("_log_range"), pl.col("_log_body")
    garman = 0.5 * span**2 - (2 * math.log(2) - 1) * body**2
    return [
        *(
            Feature(
                name=f"parkinson_volatility_{n}",
                group=_GROUP,
                lookback=n,
                expression=(mean(span**2, n) / (4 * math.log(2))).sqrt(),
                formula=f"sqrt(mean of ln(H / L)^2 over {n} bars / (4 ln 2))",
                source="Parkinson 1980",
                unit=_UNIT,
            )
            for n in (20, 60)
        ),
        Feature(
            name="garman_klass_volatility_20",
            group=_GROUP,
            lookback=20,
            expression=mean(garman.clip(lower_bound=0), 20).sqrt(),
            formula="sqrt(mean of 0.5 ln(H / L)^2 - (2 ln 2 - 1) ln(C / O)^2 over 20 bars)",
            source="Garman and Klass 1980",
            unit=_UNIT,
        ),
        Feature(
            name="rogers_satchell_volatility_20",
            group=_GROUP,
            lookback=20,
            expression=mean(pl.col("_rogers_satchell"), 20).sqrt(),
            formula="sqrt(mean of ln(H / C) ln(H / O) + ln(L / C) ln(L / O) over 20 bars)",
            source="Rogers and Satchell 1991",
            unit=_UNIT,
        ),
    ]


def _yang_zhang(window: int) -> Feature:
    k = 0.34 / (1.34 + (window + 1) / (window - 1))
    gap = standard_deviation(pl.col("_log_gap"), window) ** 2
    body = standard_deviation(pl.col("_log_body"), window) ** 2
    drift_free = mean(pl.col("_rogers_satchell"), window)
    return Feature(
        name=f"yang_zhang_volatility_{window}",
        group=_GROUP,
        lookback=window + 1,
        expression=(gap + k * body + (1 - k) * drift_free).sqrt(),
        formula=f"sqrt(var ln(O / C[-1]) + k var ln(C / O) + (1 - k) RS^2) over {window} bars, "
        f"k = 0.34 / (1.34 + {window + 1} / {window - 1})",
        source="Yang and Zhang 2000",
        unit=_UNIT,
    )


def _ranges() -> list[Feature]:
    close = pl.col("close")
    return [
        Feature(
            name="atr_14",
            group=_GROUP,
            lookback=decay_lookback(1 / 14) + 1,
            expression=pl.col("_mean_range_14") / close,
            formula="Wilder mean over 14 bars of the true range / C",
            source="Wilder 1978; TA-Lib ATR(14), divided by the close",
        ),
        Feature(
            name="range_1",
            group=_GROUP,
            lookback=1,
            expression=(pl.col("high") - pl.col("low")) / close,
            formula="(H - L) / C",
            source="bar range",
            exact=True,
        ),
        Feature(
            name="range_mean_20",
            group=_GROUP,
            lookback=20,
            expression=mean(pl.col("range_1"), 20),
            formula="mean of (H - L) / C over 20 bars",
            source="bar range",
        ),
    ]
