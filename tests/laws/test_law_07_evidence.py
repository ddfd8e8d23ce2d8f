"""Law 7, evidence: verdicts follow from numbers, missing evidence refuses, naive forecasts stand beside."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from marketray.errors import DataError
from marketray.evaluation.gate import Champion, Evidence, Findings, decide, level_of_opening
from marketray.evaluation.gate_rules import RuleResult
from marketray.evaluation.outcome import comparison, verdict_text
from marketray.evaluation.selection import Rows, compare
from marketray.evaluation.significance import diebold_mariano
from marketray.promotion import PROMOTABLE, forbidden
from marketray.registry import ModelVersion
from marketray.settings_gate import GateSettings, SkillRule

N, HORIZON = 6_000, 30
MINUTE = 60_000_000
RNG = np.random.default_rng(7)
INNOVATION = RNG.normal(size=N + HORIZON)
TRUTH = np.convolve(RNG.normal(size=N + 199), np.full(200, 200**-0.5), "valid") * 1e-4
Y = TRUTH + 1e-4 * np.array([INNOVATION[i : i + HORIZON].sum() for i in range(N)])
TIMES = np.arange(N, dtype=np.int64) * MINUTE
NOISE = RNG.normal(size=N) * 1e-4
SKILLED = Y * 0.5
GATE = GateSettings()


def judge(
    prediction: np.ndarray, champion: Champion | None = None, k: int = 1, gate: GateSettings = GATE
) -> Evidence:
    return decide(Y, prediction, TIMES, HORIZON, gate=gate, k=k, champion=champion)


def old(prediction: np.ndarray | None, verdict: str = "promoted") -> Champion:
    return Champion(3, verdict, prediction, "other columns")


@pytest.mark.parametrize(
    ("prediction", "champion", "bootstrap", "verdict", "alias"),
    [
        (SKILLED, None, "allow", "promoted", "champion"),
        (SKILLED, None, "refuse", "promoted", "champion"),
        (NOISE, None, "allow", "bootstrap", "champion"),
        (NOISE, None, "refuse", "refused", "challenger"),
        (SKILLED, old(NOISE), "allow", "promoted", "champion"),
        (NOISE, old(SKILLED), "allow", "challenger", "challenger"),
        (SKILLED, old(SKILLED), "allow", "challenger", "challenger"),  # no better than the champion
        (SKILLED, old(Y * 0.6), "allow", "challenger", "challenger"),
        (Y * 0.01, old(NOISE * 100), "allow", "promoted", "champion"),
        (NOISE, old(NOISE * 100), "allow", "challenger", "challenger"),  # beats it, but no skill over zero
        (SKILLED, old(None), "allow", "challenger", "challenger"),  # the comparison is missing
        (SKILLED, old(None, "bootstrap"), "allow", "promoted", "champion"),
        (NOISE, old(None, "bootstrap"), "allow", "challenger", "challenger"),
    ],
)
def test_verdicts(
    prediction: np.ndarray, champion: Champion | None, bootstrap: str, verdict: str, alias: str
) -> None:
    found = judge(prediction, champion, gate=GateSettings(bootstrap=bootstrap))  # type: ignore[arg-type]
    assert (found.verdict, found.alias) == (verdict, alias)
    assert (found.reasons == ()) == (verdict == "promoted")


def test_a_constant_that_only_knows_the_share_of_ups_is_not_promoted() -> None:
    up = np.where(RNG.random(N) < 0.3, 0.5, -0.5)
    constant, knowing = np.full(N, -0.2), np.where(up > 0, 0.1, -0.3)
    assert decide(up, constant, TIMES, HORIZON, gate=GATE, k=1).verdict == "promoted"
    found = decide(up, constant, TIMES, HORIZON, gate=GATE, k=1, base_rate=constant)
    assert (found.verdict, found.alias) == ("bootstrap", "champion")
    assert found.reasons[0].startswith("R² over the training share of ups is 0.0000 % with p-value 1 on")
    assert decide(up, knowing, TIMES, HORIZON, gate=GATE, k=1, base_rate=constant).verdict == "promoted"


@pytest.mark.parametrize("damage", ["nan", "few", "none", "no variation"])
@pytest.mark.parametrize("bootstrap", ["allow", "refuse"])
def test_missing_evidence_refuses_even_a_first_model(damage: str, bootstrap: str) -> None:
    y, prediction, times = Y, SKILLED.copy(), TIMES
    if damage == "nan":
        prediction[17] = np.nan
    elif damage == "no variation":
        y = np.zeros(N)
    else:
        rows = 60 if damage == "few" else 0
        y, prediction, times = y[:rows], prediction[:rows], times[:rows]
    gate = GateSettings(bootstrap=bootstrap)  # type: ignore[arg-type]
    found = decide(y, prediction, times, HORIZON, gate=gate, k=1)
    assert (found.verdict, found.alias, found.r2_oos, found.p_value) == ("refused", None, None, None)
    assert "evidence is missing" in found.reasons[0]
    assert verdict_text(found).startswith("Evidence is missing; refused.")


KNOWN = Findings(
    test_rmse_pct=0.5, test_zero_rmse_pct=1.0, coverage_80=0.8, drift_share=0.1, latency_p99_ms=1.0
)
"""Of the forecast SKILLED, whose RMSE is half the zero forecast's."""


GONE = ("test_rmse_pct", "test_zero_rmse_pct", "coverage_80", "drift_share", "latency_p99_ms")
WORSE = ({"test_rmse_pct": 0.4}, {"coverage_80": 0.7}, {"drift_share": 0.9}, {"latency_p99_ms": 900.0})


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("champion", [None, old(NOISE)])
def test_a_rule_whose_number_is_missing_refuses_whatever_the_skill(
    gone: str, champion: Champion | None
) -> None:
    findings = replace(KNOWN, **{gone: None})
    found = decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, champion=champion, findings=findings)
    assert (found.verdict, found.alias) == ("refused", None)
    assert found.reasons[0].startswith("evidence is missing: ")
    whole = decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, champion=champion, findings=KNOWN)
    assert (whole.verdict, whole.reasons) == ("promoted", ())


@pytest.mark.parametrize("worse", WORSE)
def test_skill_alone_is_not_enough_where_another_rule_fails(worse: dict[str, float]) -> None:
    findings = replace(KNOWN, **worse)
    first = decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, findings=findings)
    assert (first.verdict, first.alias, len(first.reasons)) == ("bootstrap", "champion", 1)
    second = decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, champion=old(NOISE), findings=findings)
    assert (second.verdict, second.alias) == ("challenger", "challenger")


def test_the_numbers_are_those_of_the_definitions() -> None:
    found = judge(SKILLED, old(NOISE))
    assert found.r2_oos == pytest.approx(0.75)
    loss = (Y - SKILLED) ** 2
    assert found.p_value == diebold_mariano(loss, Y**2, TIMES, HORIZON).p_value
    assert found.champion_p_value == diebold_mariano(loss, (Y - NOISE) ** 2, TIMES, HORIZON).p_value
    assert found.champion_r2 == pytest.approx(1 - loss.sum() / ((Y - NOISE) ** 2).sum())
    assert found.plain_p_value == found.p_value
    assert Evidence.from_json(found.to_json()) == found


def test_a_scale_changes_the_tests_and_not_the_skill() -> None:
    scale = np.exp(RNG.normal(size=N))
    found = decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, champion=old(NOISE), scale=scale)
    loss, weight = (Y - SKILLED) ** 2, scale**-2.0
    assert found.r2_oos == pytest.approx(0.75)
    assert found.plain_p_value == diebold_mariano(loss, Y**2, TIMES, HORIZON).p_value
    scaled = diebold_mariano(loss * weight, Y**2 * weight, TIMES, HORIZON).p_value
    assert found.p_value == pytest.approx(scaled, rel=1e-9)
    rival = diebold_mariano(loss * weight, (Y - NOISE) ** 2 * weight, TIMES, HORIZON).p_value
    assert found.champion_p_value == pytest.approx(rival, rel=1e-9)
    assert decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, scale=np.zeros(N)).verdict == "refused"


@pytest.mark.parametrize(
    ("verdict", "alias", "champion", "allowed"),
    [
        ("promoted", "champion", None, ("champion", "challenger", "shadow")),
        ("promoted", "champion", 3, ("champion", "challenger", "shadow")),
        ("promoted", "champion", 4, ("challenger", "shadow")),  # judged against another champion
        ("bootstrap", "champion", None, ("champion", "challenger", "shadow")),
        ("bootstrap", "champion", 3, ("challenger", "shadow")),
        ("challenger", "challenger", 3, ("challenger", "shadow")),
        ("refused", "challenger", None, ("challenger", "shadow")),
        ("refused", None, None, ()),  # missing evidence
    ],
)
def test_nobody_promotes_by_hand_what_the_verdict_forbids(
    verdict: str, alias: str | None, champion: int | None, allowed: tuple[str, ...]
) -> None:
    judged = champion if champion is None or verdict != "promoted" else 3
    evidence = {"verdict": verdict, "alias": alias, "champion_version": judged}
    found = ModelVersion("m", 9, (), "ar", verdict, evidence, "run", {})
    registry = SimpleNamespace(
        champion=lambda: None if champion is None else SimpleNamespace(version=champion)
    )
    got = tuple(name for name in PROMOTABLE if forbidden(registry, found, name) is None)  # type: ignore[arg-type]
    assert got == allowed


def test_every_opening_halves_the_level_and_later_openings_lose_what_the_first_would_win() -> None:
    assert [level_of_opening(0.05, k) for k in (1, 2, 3)] == [0.025, 0.0125, 0.00625]
    weak = Y * 0.01 + RNG.normal(size=N) * 3e-5
    p = judge(weak).p_value
    assert p is not None
    gate = GateSettings(alpha=min(0.9, 3 * p))  # p lies between alpha/4 and alpha/2
    first, second = judge(weak, k=1, gate=gate), judge(weak, k=2, gate=gate)
    assert 0 < p < 0.3
    assert (first.verdict, second.verdict) == ("promoted", "bootstrap")
    assert (first.k, second.k, second.alpha) == (1, 2, gate.alpha / 4)
    with pytest.raises(DataError, match="k=0; required: the number of an opening"):
        level_of_opening(0.05, 0)


def test_least_skill_is_a_strict_bound() -> None:
    r2 = judge(SKILLED).r2_oos
    assert r2 is not None
    for bound, verdict in ((r2, "bootstrap"), (r2 - 1e-9, "promoted")):
        gate = GateSettings(skill_over_zero=SkillRule(min_r2_oos=bound))
        assert judge(SKILLED, gate=gate).verdict == verdict
    over = judge(SKILLED, old(NOISE)).champion_r2
    assert over is not None
    for bound, verdict in ((over, "challenger"), (over - 1e-9, "promoted")):
        gate = GateSettings(skill_over_champion=SkillRule(min_r2_oos=bound))
        assert judge(SKILLED, old(NOISE), gate=gate).verdict == verdict


def told(passed: bool) -> tuple[RuleResult, ...]:
    return (RuleResult("skill_over_zero", passed, 0.0, 0.025, "in words"),)


def test_the_words_say_what_the_numbers_say() -> None:
    base = Evidence("bootstrap", "champion", -0.0003, 0.41, 1, 0.025, 900, 120.0, 0.02, rules=told(False))
    text = verdict_text(base)
    assert text.startswith(
        "No skill over zero: R² −0.030 %, p = 0.41 on plain squared errors (tested at 0.025, opening 1"
    )
    assert "not promoted" in text
    assert "not promoted" in verdict_text(replace(base, verdict="challenger"))
    good = replace(base, verdict="promoted", r2_oos=0.04, p_value=0.001, rules=told(True))
    assert verdict_text(good).startswith("Skill over zero: R² 4.000 %, p = 0.001 on plain")
    beaten = replace(good, verdict="challenger", champion_version=2, champion_r2=-0.01, champion_p_value=0.9)
    assert "Against champion version 2: R² −1.000 %, p = 0.9." in verdict_text(beaten)


def test_the_words_go_by_the_rule_and_name_the_loss() -> None:
    """R² above zero with a small p-value is no skill where the rule asks for more."""
    demanding = GateSettings(skill_over_zero=SkillRule(min_r2_oos=0.9))
    found = judge(SKILLED, gate=demanding)
    assert found.r2_oos is not None
    assert found.p_value is not None
    assert 0 < found.r2_oos < 0.9
    assert found.p_value < found.alpha
    assert verdict_text(found).startswith(f"No skill over zero: R² {100 * found.r2_oos:.3f} %, p = ")
    assert "on plain squared errors; required: above 90 %, below 0.025" in found.reasons[0]
    assert verdict_text(judge(SKILLED)).startswith("Skill over zero: ")
    scale = np.where(np.arange(N) % 2, 1.0, 3.0)
    scaled = decide(Y, SKILLED, TIMES, HORIZON, gate=GATE, k=1, scale=scale)
    assert " on errors in units of the volatility forecast (tested" in verdict_text(scaled)
    assert "on errors in units of the volatility forecast; required: above 0 %" in scaled.rules[0].detail


def test_every_comparison_has_the_naive_forecasts_and_the_detectable_skill() -> None:
    naive = {
        "zero": np.zeros(N),
        "training_mean": np.full(N, Y.mean()),
        "last_return": np.roll(Y, HORIZON),
    }
    tables = {"oot": compare(Rows(Y, naive, TIMES, HORIZON), {"ar": SKILLED}, alpha=0.025)}
    rows = comparison(tables, ["ar"], {"ar": 0.001})
    assert [r["model"] for r in rows] == ["ar", "zero", "training_mean", "last_return"]
    own, zero = tables["oot"]["ar"], tables["oot"]["zero"]
    assert own["r2_oos"] == pytest.approx(
        {name: 1 - ((Y - SKILLED) ** 2).sum() / ((Y - values) ** 2).sum() for name, values in naive.items()}
    )
    assert zero["r2_oos"]["zero"] == 0
    assert zero["rmse_pct"] == pytest.approx(100 * np.sqrt(np.mean(Y**2)))
    assert 0 < own["minimum_detectable_r2"] < 1
    assert rows[0]["minimum_detectable_r2"]["oot"] == own["minimum_detectable_r2"]
