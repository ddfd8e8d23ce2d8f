"""The evidence gate: what a candidate must show on out-of-time rows to become champion.

Rules, in this order:

1. **Missing evidence refuses.** Too few rows, or figures that are not finite: verdict ``refused``, no alias.
2. **Skill over zero.** R²_oos > ``gate.min_r2_oos`` and the one-sided Diebold–Mariano p-value against the
   zero forecast is below α/2^k, k counting the openings of these OOT rows (their levels sum to α at most).
   For the direction task zero is P(up) = 0.5, which a constant can beat by the share of flat labels or by
   drift alone; the training share of ups must then be beaten at α/2^k as well.
3. **No champion yet.** Skill: ``promoted``. No skill: ``bootstrap`` where ``gate.bootstrap`` allows it, which
   gives the alias champion but never counts as a promotion; else ``refused`` with the alias challenger, so
   that a person can look at the version.
4. **A champion that can be scored** on these rows must also be beaten at α/2^k: ``promoted``, else
   ``challenger``. A champion whose fit overlaps these rows only makes that harder.
5. **A champion that cannot be scored** (other columns, horizon or task, or its files are gone): the
   comparison is missing, so ``challenger``; unless it came in by bootstrap and so claims no skill that would
   have to be beaten: then skill over zero decides.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.metrics import r2_oos, squared_errors
from marketray.evaluation.significance import diebold_mariano, minimum_detectable_r2
from marketray.settings import GateSettings

__all__ = ["Alias", "Champion", "Evidence", "Verdict", "decide", "level_of_opening"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Verdict = Literal["promoted", "bootstrap", "challenger", "refused"]
Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Champion:
    """The model that holds the alias champion now.

    Attributes
    ----------
    version:
        Its registered version.
    verdict:
        The verdict it came in with.
    prediction:
        Its forecasts of the same OOT rows, shape (n,); None where it cannot be scored.
    reason:
        Why it cannot be scored.
    """

    version: int
    verdict: str
    prediction: FloatArray | None
    reason: str = ""


@dataclass(frozen=True)
class Evidence:
    """The gate's answer with its numbers.

    Attributes
    ----------
    verdict, alias:
        See the module's rules; alias None leaves all aliases alone.
    r2_oos:
        1 − MSE / MSE of the zero forecast, on OOT; None where it could not be computed.
    p_value:
        One-sided HAC Diebold–Mariano p-value against the zero forecast.
    k, alpha:
        Which opening of these OOT rows this was, and the level α/2^k tested at.
    n, n_effective:
        OOT rows, and independent rows that would give the same standard error.
    minimum_detectable_r2:
        Smallest R² this test would have found with 80 % power.
    champion_version, champion_r2, champion_p_value:
        The champion compared with: its version, R² of the candidate over it, p-value of being better.
    reasons:
        The failed rules in words; empty where all passed.
    """

    verdict: Verdict
    alias: Alias | None
    r2_oos: float | None
    p_value: float | None
    k: int
    alpha: float
    n: int
    n_effective: float | None = None
    minimum_detectable_r2: float | None = None
    champion_version: int | None = None
    champion_r2: float | None = None
    champion_p_value: float | None = None
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Evidence:
        """The inverse of `to_json`."""
        return cls(**{**value, "reasons": tuple(value["reasons"])})


def level_of_opening(alpha: float, k: int) -> float:
    """α/2^k, the level of the k-th opening of the same OOT rows (k = 1 is the first).

    Raises
    ------
    DataError
        k is below 1.
    """
    if k < 1:
        msg = f"k={k}; required: the number of an opening, 1 for the first"
        raise DataError(msg, hint="take k from marketray.dataset.vault.open_vault")
    return float(alpha * 0.5**k)


def decide(
    y: FloatArray,
    prediction: FloatArray,
    decision_us: IntArray,
    horizon_minutes: int,
    *,
    gate: GateSettings,
    k: int,
    champion: Champion | None = None,
    base_rate: FloatArray | None = None,
) -> Evidence:
    """Judge a candidate on OOT rows by the module's rules.

    Parameters
    ----------
    y, prediction:
        Labels and forecasts of the OOT rows in the same units, shape (n,); the zero forecast is 0.
    decision_us, horizon_minutes:
        Decision times (microseconds, UTC), shape (n,), and label horizon.
    gate:
        Level, least skill, and whether a first model may come in without skill.
    k:
        Which opening of these rows this is.
    champion:
        The present champion, or None where there is none.
    base_rate:
        A constant forecast that must be beaten too, shape (n,); None: none.
    """
    alpha = level_of_opening(gate.alpha, k)
    version = champion.version if champion else None
    try:
        skill = r2_oos(y, prediction, np.zeros_like(y))
        test = diebold_mariano(squared_errors(y, prediction), y**2, decision_us, horizon_minutes)
        detectable = minimum_detectable_r2(y, prediction, decision_us, horizon_minutes, alpha=alpha)
    except DataError as e:
        reason = f"evidence is missing: {e.message}"
        return Evidence(
            "refused", None, None, None, k, alpha, len(y), champion_version=version, reasons=(reason,)
        )
    reasons = _skill_gaps(skill, test.p_value, alpha, gate.min_r2_oos)
    better: tuple[float | None, float | None] = (None, None)
    if champion is not None:
        gaps, better = _champion_gaps(y, prediction, decision_us, horizon_minutes, champion, alpha)
        reasons += gaps
    if base_rate is not None:
        name = "the training share of ups"
        reasons += _gaps_to(name, base_rate, y, prediction, decision_us, horizon_minutes, alpha)[0]
    verdict, alias = _verdict(champion, not reasons, gate.bootstrap)
    return Evidence(
        verdict,
        alias,
        skill,
        test.p_value,
        k,
        alpha,
        len(y),
        test.n_effective,
        detectable,
        version,
        *better,
        reasons=tuple(reasons),
    )


def _verdict(champion: Champion | None, passed: bool, bootstrap: str) -> tuple[Verdict, Alias]:
    if passed:
        return "promoted", "champion"
    if champion is not None:
        return "challenger", "challenger"
    return ("bootstrap", "champion") if bootstrap == "allow" else ("refused", "challenger")


def _skill_gaps(skill: float, p_value: float, alpha: float, least: float) -> list[str]:
    gaps = []
    if not skill > least:
        gaps.append(f"R² over zero is {skill:.6f}; required: above {least:g}")
    if not p_value < alpha:
        gaps.append(f"p-value against zero is {p_value:.4g}; required: below {alpha:g}")
    return gaps


def _champion_gaps(
    y: FloatArray,
    prediction: FloatArray,
    decision_us: IntArray,
    horizon_minutes: int,
    champion: Champion,
    alpha: float,
) -> tuple[list[str], tuple[float | None, float | None]]:
    """What is missing against the champion, and (R² over it, p-value of being better)."""
    name = f"champion version {champion.version}"
    if champion.prediction is None:
        if champion.verdict == "bootstrap":
            return [], (None, None)
        return [f"{name} cannot be scored on these rows: {champion.reason}"], (None, None)
    return _gaps_to(name, champion.prediction, y, prediction, decision_us, horizon_minutes, alpha)


def _gaps_to(
    name: str,
    rival: FloatArray,
    y: FloatArray,
    prediction: FloatArray,
    decision_us: IntArray,
    horizon_minutes: int,
    alpha: float,
) -> tuple[list[str], tuple[float | None, float | None]]:
    """What is missing against a rival forecast, and (R² over it, p-value of being better)."""
    try:
        skill = r2_oos(y, prediction, rival)
        loss, rival_loss = squared_errors(y, prediction), squared_errors(y, rival)
        test = diebold_mariano(loss, rival_loss, decision_us, horizon_minutes)
    except DataError as e:
        return [f"{name} cannot be compared: {e.message}"], (None, None)
    if skill > 0 and test.p_value < alpha:
        return [], (skill, test.p_value)
    gap = f"R² over {name} is {skill:.6f} with p-value {test.p_value:.4g}; required: above 0, below {alpha:g}"
    return [gap], (skill, test.p_value)
