"""The gate's rules, one function each: what was found against what is required.

The rules on skill are always on and stand in `marketray.evaluation.gate`; those here can be turned off. One
that is on and finds no number to judge fails without a value: its evidence is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from marketray.settings import GateSettings

__all__ = ["Findings", "RuleResult", "guard_rules"]


@dataclass(frozen=True)
class Findings:
    """What is known of a candidate beside its forecasts of the OOT rows; None where it is not known.

    Attributes
    ----------
    test_rmse_pct, test_zero_rmse_pct:
        RMSE of its forecasts, and of the zero forecast, on the test rows, percent.
    coverage_80:
        Share of OOT labels inside its 80 % interval.
    drift_share:
        Share of its columns that are distributed otherwise on OOT than in training.
    latency_p99_ms:
        99th percentile of the time that a forecast of one row takes, milliseconds.
    """

    test_rmse_pct: float | None = None
    test_zero_rmse_pct: float | None = None
    coverage_80: float | None = None
    drift_share: float | None = None
    latency_p99_ms: float | None = None


@dataclass(frozen=True)
class RuleResult:
    """What one rule found.

    Attributes
    ----------
    name:
        As in the gate file.
    passed:
        None where the rule was not asked.
    value, threshold:
        The number found, None where there is none, and the bound it is held to.
    detail:
        Both in words.
    """

    name: str
    passed: bool | None
    value: float | None
    threshold: float
    detail: str


def guard_rules(
    gate: GateSettings, findings: Findings | None, oot_rmse_pct: float, oot_zero_rmse_pct: float
) -> list[RuleResult]:
    """The rules beside skill, in the order of the gate file.

    Parameters
    ----------
    findings:
        None where bare forecasts are judged, as in a simulation: then no rule here is asked.
    oot_rmse_pct, oot_zero_rmse_pct:
        RMSE of the candidate and of the zero forecast on OOT, percent.
    """
    found = findings or Findings()
    on_test = _ratio(found.test_rmse_pct, found.test_zero_rmse_pct)
    on_oot = _ratio(oot_rmse_pct, oot_zero_rmse_pct)
    miss = None if found.coverage_80 is None else abs(found.coverage_80 - 0.8)
    checks = (
        ("rmse_ratio", gate.rmse_ratio, _ratio(on_oot, on_test), gate.rmse_ratio.max_increase),
        ("oot_rmse", gate.oot_rmse, _ratio(oot_rmse_pct, found.test_rmse_pct), gate.oot_rmse.max_ratio),
        ("coverage", gate.coverage, miss, gate.coverage.tolerance),
        ("drift", gate.drift, found.drift_share, gate.drift.max_share),
        ("latency", gate.latency, found.latency_p99_ms, gate.latency.max_p99_ms),
    )
    return [
        _at_most(name, None if findings is None else rule.enabled, value, bound)
        for name, rule, value, bound in checks
    ]


_WORDS = {
    "rmse_ratio": "RMSE over the zero forecast's is {:.4f} times on OOT what it was on test",
    "oot_rmse": "RMSE on OOT is {:.4g} times that on test",
    "coverage": "the coverage of the 80 % interval on OOT is {:.4f} away from 0.8",
    "drift": "the share of drifted columns is {:.4g}",
    "latency": "the 99th percentile of a single-row forecast is {:.4g} ms",
}


def _at_most(name: str, enabled: bool | None, value: float | None, bound: float) -> RuleResult:
    """A rule that holds where the value is at most its bound; `enabled` None: not asked."""
    known = value if value is not None and math.isfinite(value) else None
    words = f"{name} is not known" if known is None else _WORDS[name].format(known)
    detail = f"{words}; required: at most {bound:g}"
    if enabled:
        return RuleResult(name, known is not None and known <= bound, known, bound, detail)
    return RuleResult(name, None, known, bound, f"{'not asked' if enabled is None else 'off'}: {detail}")


def _ratio(above: float | None, below: float | None) -> float | None:
    """`above` / `below`; None where one is not known or the quotient is not finite."""
    if above is None or below is None or below <= 0:
        return None
    return above / below
