"""What is known of the winner beside its skill: intervals, drift, speed. Judged with it, stored with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.dataset.load import load_blocks, load_split
from marketray.evaluation.candidates import out_of_fold
from marketray.evaluation.drift import feature_drift
from marketray.evaluation.gate_rules import Findings
from marketray.evaluation.latency import predict_latency
from marketray.evaluation.metrics import rmse_pct
from marketray.evaluation.uncertainty import Uncertainty, fit_uncertainty
from marketray.evaluation.walked import Walked
from marketray.models import load_model

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.evaluation.forecasts import Forecasts

__all__ = ["Standing", "standing_of"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """The winner's intervals, drift and speed.

    Attributes
    ----------
    uncertainty:
        As of the end of the last OOT label; goes into the model's folder.
    walked:
        Intervals and probabilities on ``test`` and ``oot`` as they would have been served.
    scale:
        Volatility forecast of every OOT row, shape (n,), a fraction; None for the direction task, whose
        labels have no scale.
    drift, latency:
        See `feature_drift` (train against OOT) and `predict_latency`.
    findings:
        Their numbers, for the gate.
    """

    uncertainty: Uncertainty
    walked: Mapping[str, Walked]
    scale: FloatArray | None
    drift: dict[str, Any]
    latency: dict[str, Any]
    findings: Findings


def standing_of(forecasts: Forecasts, winner: str, oot: Block) -> Standing:
    """Learn the winner's uncertainty from its past, follow it through test and OOT, and measure the rest.

    Nothing is learned from OOT labels but the intervals' widths, each after it has ended.

    Parameters
    ----------
    winner:
        Its family.
    oot:
        The OOT rows, with all stored columns.

    Raises
    ------
    TuningError
        The winner's out-of-fold predictions are missing.
    DataError
        There are too few rows to learn intervals from.
    """
    settings, split = forecasts.settings, load_split(forecasts.settings)
    past, test = load_blocks(settings, ("train", "validation")), load_blocks(settings, ("test",))
    scored = past.take(slice(split.folds[0][1].start, split.folds[-1][1].stop))
    learned = fit_uncertainty(
        past,
        split.folds,
        out_of_fold(forecasts.tuned.candidates[winner], scored),
        task=settings.labels.task,
        horizon_minutes=settings.labels.horizon_minutes,
    )
    on_test, after_test = learned.walk(test, forecasts.answers(winner, test))
    on_oot, after_oot = after_test.walk(oot, forecasts.answers(winner, oot))
    model = load_model(forecasts.folders[winner])
    train = past.take(slice(0, split.blocks["train"].rows)).select(model.columns)
    drift = feature_drift(train.values, oot.select(model.columns).values, model.columns, settings.gate.drift)
    latency = predict_latency(model, train.values[-1000:], settings.gate.latency.sample_rows)
    rows = forecasts.rows(test)
    findings = Findings(
        test_rmse_pct=rmse_pct(rows.y, forecasts.of(winner, test)),
        test_zero_rmse_pct=rmse_pct(rows.y, np.zeros_like(rows.y)),
        coverage_80=float(on_oot.covered(0.8).mean()),
        drift_share=float(drift["share"]),
        latency_p99_ms=float(latency["p99_ms"]),
    )
    regression = settings.labels.task == "regression"
    scale = after_oot.scale.of(oot) if regression else None
    return Standing(after_oot, {"test": on_test, "oot": on_oot}, scale, drift, latency, findings)
