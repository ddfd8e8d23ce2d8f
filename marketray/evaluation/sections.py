"""What the report says beside the verdict and the comparison; read off, never judged by.

Every section is one function; one that cannot be computed on these rows becomes ``{"missing": reason}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.dataset.load import dataset_content, load_split
from marketray.errors import DataError, LakeError, SettingsError
from marketray.evaluation.backtest import backtest_section
from marketray.evaluation.breakdown import breakdown
from marketray.evaluation.data_quality import data_quality
from marketray.evaluation.multiple import confidence_set, session_sums, superior_ability
from marketray.evaluation.prices import missing_costs, read_bars
from marketray.evaluation.registration import code_revision
from marketray.evaluation.sharpe import probability_of_overfitting, sharpe_figures
from marketray.evaluation.significance import clark_west
from marketray.evaluation.walked import evaluate
from marketray.hashing import code_hash

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.evaluation.forecasts import Forecasts
    from marketray.evaluation.standing import Standing
    from marketray.evaluation.trials import Trials

__all__ = ["report_sections"]

FloatArray = npt.NDArray[np.float64]

_SHOWN = ("trial_id", "family", "stage", "number", "state", "score", "cv_rmse", "seconds", "params")
_YEAR_US = 365.25 * 86_400e6


def report_sections(
    forecasts: Forecasts, winner: str, standing: Standing, trials: Trials, later: Mapping[str, Block]
) -> dict[str, Any]:
    """The sections of report.json on the winner, JSON values.

    Parameters
    ----------
    winner:
        Its family.
    standing:
        Its intervals on test and OOT, drift and speed.
    trials:
        All that tuning tried.
    later:
        Rows of ``test``, ``oot`` and ``oot2``, in this order, with all stored columns.
    """
    answers = forecasts.answers(winner, later["oot2"])
    walked = {**standing.walked, "oot2": standing.uncertainty.walk(later["oot2"], answers)[0]}
    centred = {name: forecasts.of(winner, block) for name, block in later.items()}
    tuned = forecasts.tuned.candidates
    return {
        **evaluate(walked, standing.uncertainty.method),
        "breakdown": {
            name: breakdown(forecasts.rows(block), centred[name], walked[name].groups, walked[name].covered())
            for name, block in later.items()
        },
        "significance": _significance(forecasts, centred["oot"], later["oot"], trials),
        "backtest": _or_missing(lambda: _backtest(forecasts, later, centred)),
        "drift": standing.drift,
        "latency": standing.latency,
        "importance": {name: c.importance for name, c in tuned.items() if c.importance},
        "trials": [{key: getattr(record, key) for key in _SHOWN} for record in trials.records],
        "quality": data_quality(forecasts.settings),
        "lineage": _lineage(forecasts, winner),
    }


def _significance(forecasts: Forecasts, prediction: FloatArray, oot: Block, trials: Trials) -> dict[str, Any]:
    rows = forecasts.rows(oot)
    zero = np.zeros_like(rows.y)

    def nested() -> dict[str, Any]:
        found = clark_west(rows.y, zero, prediction, rows.decision_us, rows.horizon_minutes)
        return {"statistic": found.statistic, "p_value": found.p_value}

    def sharpe() -> dict[str, Any]:
        earned = session_sums(np.sign(prediction) * oot.y, oot.session_open_us)[1]
        years = (oot.decision_us[-1] - oot.decision_us[0]) / _YEAR_US
        return dict(
            sharpe_figures(earned, trials.returns, trials.counted, periods_per_year=len(earned) / years)
        )

    return {
        "clark_west": _or_missing(nested),
        "spa": _or_missing(lambda: superior_ability(trials.losses, trials.zero, trials.names)),
        "mcs": _or_missing(lambda: confidence_set(trials.losses, trials.names)),
        "trials": trials.counts,
        "sharpe": _or_missing(sharpe),
        "overfitting": _or_missing(lambda: dict(probability_of_overfitting(trials.returns))),
    }


def _backtest(
    forecasts: Forecasts, later: Mapping[str, Block], centred: Mapping[str, FloatArray]
) -> dict[str, Any]:
    settings = forecasts.settings
    first = min(int(block.decision_us[0]) for block in later.values())
    last = max(int(block.decision_us[-1]) for block in later.values())
    bars = read_bars(settings, first, last)
    unknown = missing_costs(settings, bars)
    if unknown is not None:
        return {"missing": unknown}
    given = {name: (block.decision_us, centred[name]) for name, block in later.items()}
    return backtest_section(settings, bars, given)


def _lineage(forecasts: Forecasts, winner: str) -> dict[str, Any]:
    settings, split = forecasts.settings, load_split(forecasts.settings)
    return {
        "data_hash": dataset_content(settings, ("train", "validation", "test")),
        "catalog_hash": split.detail["catalog_hash"],
        "tuning_key": forecasts.tuned.tuning_key,
        "trial_id": forecasts.tuned.candidates[winner].trial_id,
        "code_hash": code_hash("marketray"),
        "code_revision": code_revision(),
        "settings": settings.model_dump(mode="json", exclude={"tracking"}),
    }


def _or_missing(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The section, or why there is none: too few rows, sessions or trials, no bars, unknown costs."""
    try:
        return make()
    except (DataError, LakeError, SettingsError) as e:
        return {"missing": e.message}
