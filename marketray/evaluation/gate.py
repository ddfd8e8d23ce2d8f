"""The evidence gate: what a candidate must show on out-of-time rows to become champion.

Each rule compares a number with its threshold (`marketray.settings_gate`); they act in this order:

1. **Missing evidence refuses.** Too few rows, figures that are not finite, or a rule that is on and has no
   number to judge: verdict ``refused``, no alias.
2. **Skill over zero.** R²_oos > ``skill_over_zero.min_r2_oos`` and the one-sided Diebold–Mariano p-value
   against the zero forecast is below α/2^k, k counting the openings of these OOT rows (their levels sum to α
   at most). For the direction task zero is P(up) = 0.5, which a constant can beat by the share of flat labels
   or by drift alone; the training share of ups must then be beaten at α/2^k as well.
3. **The other rules** that are on: lasting skill, coverage, drift, latency; see `guard_rules`.
4. **No champion yet.** All rules hold: ``promoted``. One fails: ``bootstrap`` where ``gate.bootstrap`` allows
   it, which gives the alias champion but never counts as a promotion; else ``refused`` with the alias
   challenger, so that a person can look at the version.
5. **A champion that can be scored** on these rows must also be beaten at α/2^k: ``promoted``, else
   ``challenger``. A champion whose fit overlaps these rows only makes that harder.
6. **A champion that cannot be scored** (other columns, horizon or task): the comparison is missing, so
   ``challenger``; unless it came in by bootstrap and so claims no skill that would have to be beaten: then
   the other rules decide. Files that cannot be fetched are no evidence: the selection fails instead.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.gate_rules import Findings, RuleResult, guard_rules
from marketray.evaluation.metrics import r2_oos, rmse_pct, squared_errors
from marketray.evaluation.significance import (
    DMResult,
    diebold_mariano,
    minimum_detectable_r2,
    scaled_diebold_mariano,
)
from marketray.settings_gate import GateSettings, SkillRule

__all__ = ["Alias", "Champion", "Evidence", "Findings", "Verdict", "decide", "level_of_opening"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Verdict = Literal["promoted", "bootstrap", "challenger", "refused"]
Alias = Literal["champion", "challenger"]

_SKILL = "skill_over_zero"
_PLAIN = "plain squared errors"
_SCALED = "errors in units of the volatility forecast"


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
        One-sided HAC Diebold–Mariano p-value against the zero forecast, which the gate goes by.
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
    rules:
        Every rule, also those that were not asked.
    plain_p_value:
        As `p_value`, on squared errors as they are; the same where no scale divided them.
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
    rules: tuple[RuleResult, ...] = ()
    plain_p_value: float | None = None

    @property
    def skilled(self) -> bool:
        """Whether the rule on skill over zero passed."""
        return any(rule.name == _SKILL and rule.passed is True for rule in self.rules)

    @property
    def loss(self) -> str:
        """What the p-values are of, in words."""
        plain = self.plain_p_value is None or self.plain_p_value == self.p_value
        return _PLAIN if plain else _SCALED

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "reasons": list(self.reasons), "rules": [asdict(r) for r in self.rules]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Evidence:
        """The inverse of `to_json`."""
        rules = tuple(RuleResult(**rule) for rule in value["rules"])
        return cls(**{**value, "reasons": tuple(value["reasons"]), "rules": rules})


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
    findings: Findings | None = None,
    scale: FloatArray | None = None,
) -> Evidence:
    """Judge a candidate on OOT rows by the module's rules.

    Parameters
    ----------
    y, prediction:
        Labels and forecasts of the OOT rows in the same units, shape (n,); the zero forecast is 0.
    decision_us, horizon_minutes:
        Decision times (microseconds, UTC), shape (n,), and label horizon.
    gate:
        Rules with their thresholds, and whether a first model may come in without skill.
    k:
        Which opening of these rows this is.
    champion:
        The present champion, or None where there is none.
    base_rate:
        A constant forecast that must be beaten too, shape (n,); None: none.
    findings:
        What is known of the candidate beside these forecasts; None where bare forecasts are judged, which
        leaves the rules on it unasked.
    scale:
        Volatility of the label known at each decision, shape (n,): the Diebold–Mariano tests are then on
        losses divided by its square. R² stays unweighted. None: plain losses.
    """
    alpha = level_of_opening(gate.alpha, k)
    version = champion.version if champion else None
    duel = _Duel(y, prediction, decision_us, horizon_minutes, alpha, scale)
    try:
        zero, skill, test = duel.over(_SKILL, "zero", np.zeros_like(y), gate.skill_over_zero)
        plain = test if scale is None else replace(duel, scale=None).test(np.zeros_like(y))
        detectable = minimum_detectable_r2(
            y, prediction, decision_us, horizon_minutes, alpha=alpha, scale=scale
        )
    except DataError as e:
        reason = f"evidence is missing: {e.message}"
        return Evidence(
            "refused", None, None, None, k, alpha, len(y), champion_version=version, reasons=(reason,)
        )
    rival, better = _against_champion(duel, champion, gate.skill_over_champion)
    rules = [zero, rival]
    if base_rate is not None:
        name = "the training share of ups"
        rules.append(_or_failed(duel, "skill_over_base_rate", name, base_rate, SkillRule())[0])
    guards = guard_rules(gate, findings, rmse_pct(y, prediction), rmse_pct(y, np.zeros_like(y)))
    unknown = [rule for rule in guards if rule.passed is False and rule.value is None]
    rules += guards
    failed = [rule for rule in rules if rule.passed is False]
    verdict, alias = ("refused", None) if unknown else _verdict(champion, not failed, gate.bootstrap)
    reasons = [f"evidence is missing: {rule.detail}" for rule in unknown]
    reasons += [rule.detail for rule in failed if rule not in unknown]
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
        rules=tuple(rules),
        plain_p_value=plain.p_value,
    )


def _verdict(champion: Champion | None, passed: bool, bootstrap: str) -> tuple[Verdict, Alias | None]:
    if passed:
        return "promoted", "champion"
    if champion is not None:
        return "challenger", "challenger"
    return ("bootstrap", "champion") if bootstrap == "allow" else ("refused", "challenger")


@dataclass(frozen=True)
class _Duel:
    """The candidate's forecasts, to be compared with others of the same rows at one level."""

    y: FloatArray
    prediction: FloatArray
    decision_us: IntArray
    horizon_minutes: int
    alpha: float
    scale: FloatArray | None

    def over(
        self, rule: str, name: str, rival: FloatArray, bound: SkillRule
    ) -> tuple[RuleResult, float, DMResult]:
        """Whether the rival is beaten, with R² over it and the test.

        Raises
        ------
        DataError
            There are too few rows for a test, or figures that are not finite.
        """
        skill = r2_oos(self.y, self.prediction, rival)
        test = self.test(rival)
        passed = skill > bound.min_r2_oos and test.p_value < self.alpha
        required = f"required: above {100 * bound.min_r2_oos:g} %, below {self.alpha:g}"
        numbers = f"{100 * skill:.4f} % with p-value {test.p_value:.4g}"
        detail = f"R² over {name} is {numbers} on {_PLAIN if self.scale is None else _SCALED}; {required}"
        return RuleResult(rule, passed, test.p_value, self.alpha, detail), skill, test

    def test(self, rival: FloatArray) -> DMResult:
        """One-sided test of squared errors smaller than the rival's, in units of `scale` where given."""
        losses = squared_errors(self.y, self.prediction), squared_errors(self.y, rival)
        if self.scale is None:
            return diebold_mariano(*losses, self.decision_us, self.horizon_minutes)
        return scaled_diebold_mariano(*losses, self.scale, self.decision_us, self.horizon_minutes)


Better = tuple[float | None, float | None]
"""R² over the champion and p-value of being better than it."""


def _against_champion(duel: _Duel, champion: Champion | None, bound: SkillRule) -> tuple[RuleResult, Better]:
    rule = "skill_over_champion"
    if champion is None:
        return RuleResult(rule, None, None, duel.alpha, "not asked: there is no champion"), (None, None)
    name = f"champion version {champion.version}"
    if champion.prediction is not None:
        return _or_failed(duel, rule, name, champion.prediction, bound)
    detail = f"{name} cannot be scored on these rows: {champion.reason}"
    if champion.verdict == "bootstrap":
        return RuleResult(rule, None, None, duel.alpha, f"not asked: {detail}"), (None, None)
    return RuleResult(rule, False, None, duel.alpha, detail), (None, None)


def _or_failed(
    duel: _Duel, rule: str, name: str, rival: FloatArray, bound: SkillRule
) -> tuple[RuleResult, Better]:
    """As `_Duel.over`; a comparison that cannot be made is a failed one."""
    try:
        found, skill, test = duel.over(rule, name, rival, bound)
    except DataError as e:
        detail = f"{name} cannot be compared: {e.message}"
        return RuleResult(rule, False, None, duel.alpha, detail), (None, None)
    return found, (skill, test.p_value)
