"""The gate file and the rules beside skill: bounds, missing numbers, rules that are off or not asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from marketray.errors import SettingsError
from marketray.evaluation.gate import Evidence, decide
from marketray.evaluation.gate_rules import Findings, RuleResult, guard_rules
from marketray.settings import load_settings
from marketray.settings_file import save_settings
from marketray.settings_gate import GateSettings

ROOT = Path(__file__).parents[2]
GOOD = Findings(
    test_rmse_pct=0.90, test_zero_rmse_pct=1.0, coverage_80=0.81, drift_share=0.5, latency_p99_ms=50.0
)
ALL_ON = GateSettings(oot_rmse={"enabled": True}, coverage={"enabled": True})  # type: ignore[arg-type]
NAMES = ["rmse_ratio", "oot_rmse", "coverage", "drift", "latency"]


def by_name(gate: GateSettings, findings: Findings | None, oot: float, zero: float) -> dict[str, RuleResult]:
    return {rule.name: rule for rule in guard_rules(gate, findings, oot, zero)}


def test_every_rule_computes_the_number_it_is_named_after() -> None:
    rules = by_name(ALL_ON, GOOD, 1.08, 1.19)
    assert list(rules) == NAMES
    values = [rule.value for rule in rules.values()]
    assert values == pytest.approx([1.08 / 1.19 / 0.9, 1.08 / 0.9, 0.01, 0.5, 50.0], rel=1e-12)
    assert [rule.threshold for rule in rules.values()] == [1.02, 1.2, 0.05, 0.5, 50.0]
    assert [rule.passed for rule in rules.values()] == [True] * 5
    assert rules["rmse_ratio"].detail.startswith("RMSE over the zero forecast's is 1.0084 times on OOT what")


@pytest.mark.parametrize(
    ("worse", "oot", "name"),
    [
        ({}, 1.11, "rmse_ratio"),
        ({}, 1.081, "oot_rmse"),
        ({"coverage_80": 0.7499}, 1.0, "coverage"),
        ({"coverage_80": 0.8501}, 1.0, "coverage"),
        ({"drift_share": 0.501}, 1.0, "drift"),
        ({"latency_p99_ms": 50.1}, 1.0, "latency"),
    ],
)
def test_a_number_past_its_bound_fails_its_rule(worse: dict[str, float], oot: float, name: str) -> None:
    assert by_name(ALL_ON, replace(GOOD, **worse), oot, 1.19)[name].passed is False


@pytest.mark.parametrize(
    ("gone", "names"),
    [
        ("test_rmse_pct", ["rmse_ratio", "oot_rmse"]),
        ("test_zero_rmse_pct", ["rmse_ratio"]),
        ("coverage_80", ["coverage"]),
        ("drift_share", ["drift"]),
        ("latency_p99_ms", ["latency"]),
    ],
)
@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_number_that_is_not_known_fails_without_a_value(
    gone: str, names: list[str], value: float | None
) -> None:
    rules = by_name(ALL_ON, replace(GOOD, **{gone: value}), 1.0, 1.19)
    failed = {name: rule for name, rule in rules.items() if rule.passed is False}
    assert list(failed) == names
    assert all(rule.value is None for rule in failed.values())
    assert failed[names[0]].detail.startswith(f"{names[0]} is not known; required: at most")


def test_rules_that_are_off_or_not_asked_say_so_and_decide_nothing() -> None:
    gate = GateSettings(coverage={"enabled": False})  # type: ignore[arg-type]
    off = by_name(gate, replace(GOOD, coverage_80=None), 2.0, 2.2)
    assert (off["oot_rmse"].passed, off["coverage"].passed) == (None, None)
    assert off["oot_rmse"].detail.startswith("off: RMSE on OOT is 2.222 times")
    assert off["coverage"].detail == "off: coverage is not known; required: at most 0.05"
    unasked = by_name(ALL_ON, None, 2.0, 2.2)
    assert {rule.passed for rule in unasked.values()} == {None}
    assert unasked["drift"].detail.startswith("not asked: ")


def test_a_failed_rule_stands_in_the_evidence_and_denies_the_promotion() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=4_000)
    forecast, times = 0.5 * y, np.arange(4_000, dtype=np.int64) * 60_000_000
    zero = 100 * float(np.sqrt(np.mean(y**2)))
    fine = Findings(0.5 * zero, zero, coverage_80=0.8, drift_share=0.1, latency_p99_ms=1.0)

    def judge(findings: Findings) -> Evidence:
        return decide(y, forecast, times, 30, gate=GateSettings(), k=1, findings=findings)

    good = judge(fine)
    assert (good.verdict, good.reasons) == ("promoted", ())
    assert [rule.name for rule in good.rules] == ["skill_over_zero", "skill_over_champion", *NAMES]
    assert good.rules[0].value == good.p_value
    assert good.rules[2].value == pytest.approx(1.0)
    assert Evidence.from_json(good.to_json()) == good
    drifted = judge(replace(fine, drift_share=0.6))
    assert (drifted.verdict, drifted.alias) == ("bootstrap", "champion")
    assert drifted.reasons == ("the share of drifted columns is 0.6; required: at most 0.5",)


def test_the_shown_gate_file_is_the_default(home: Path) -> None:
    path = ROOT / "configs" / "gate.yaml"
    assert load_settings(overrides={"gate": {"file": str(path)}}).gate == load_settings().gate
    shown = yaml.safe_load(path.read_text())
    assert shown == {k: v for k, v in GateSettings().model_dump(mode="json").items() if k != "file"}


def test_a_gate_file_travels_with_the_settings(home: Path) -> None:
    (home / "gate.yaml").write_text("bootstrap: refuse\ndrift: {max_share: 0.2}\n")
    settings = load_settings(overrides={"gate": {"file": "gate.yaml"}})
    assert (settings.gate.bootstrap, settings.gate.drift.max_share) == ("refuse", 0.2)
    assert settings.gate.latency == GateSettings().latency
    save_settings(settings, home / "saved.yaml")
    (home / "gate.yaml").unlink()
    assert load_settings(home / "saved.yaml").gate == settings.gate


def test_a_rule_can_be_set_by_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETRAY_GATE__LATENCY__MAX_P99_MS", "5")
    assert load_settings().gate.latency.max_p99_ms == 5.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skil: {}", r"gate.file .*gate.yaml: skil: unknown key"),
        ("drift: {max: 1}", r"drift\.max: unknown key"),
        ("drift: {max_share: 2}", r"drift\.max_share: .*less than or equal to 1 \(got 2\)"),
        ("file: other.yaml", "got the key 'file'; required: rules, not another file"),
        ("- drift", "gate.file .*gate.yaml: got a list; required: a mapping"),
        ("alpha: ${NOWHERE_SET}", r"gate.file .*gate.yaml: \$\{NOWHERE_SET\} is used but"),
    ],
)
def test_a_gate_file_with_an_unknown_rule_or_key_is_an_error(home: Path, text: str, message: str) -> None:
    (home / "gate.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        load_settings(overrides={"gate": {"file": "gate.yaml"}})


def test_a_gate_file_must_be_there_and_alone(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"gate.file .*absent.yaml: cannot be read"):
        load_settings(overrides={"gate": {"file": "absent.yaml"}})
    with pytest.raises(
        SettingsError, match=r"gate.file='a.yaml' stands beside gate.alpha, gate.drift; required"
    ):
        load_settings(overrides={"gate": {"file": "a.yaml", "alpha": 0.01, "drift": {"enabled": False}}})
