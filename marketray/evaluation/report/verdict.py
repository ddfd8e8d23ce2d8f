"""The top of the page: the verdict in words with its numbers, and the gate's rules one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketray.evaluation.outcome import SPLIT_ORDER
from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    count,
    facts,
    html,
    note,
    p_text,
    percent,
    table,
    words,
)
from marketray.evaluation.report.names import LABELS

__all__ = ["scaled_test", "verdict"]


def verdict(report: Mapping[str, Any]) -> Markup:
    """What was decided and on what numbers; good and bad news look alike but for a coloured edge.

    A promotion that did not move the alias has no edge of success.
    """
    evidence, selection = report["selection"]["evidence"], report["selection"]
    reasons = "".join(f"<li>{html(reason)}</li>" for reason in evidence["reasons"])
    failed = f"<p>Rules of the gate that did not hold:</p><ul>{reasons}</ul>" if reasons else ""
    chosen = f"Verdict: {report['verdict']}. Selected: {selection['selected_model']}."
    edge = "declined" if selection["alias_declined"] else report["verdict"]
    return Markup(
        f"<section id='verdict' class='verdict {html(edge)}' aria-labelledby='h-verdict'>"
        f"<h2 id='h-verdict'>{html(report['verdict_text'])}</h2><p>{html(chosen)}</p>"
        f"{_numbers(evidence, selection)}{failed}{_power(evidence)}{_rules(evidence)}</section>"
    )


def scaled_test(evidence: Mapping[str, Any]) -> bool:
    """Whether the gate tested errors in units of volatility, so that plain errors say something else."""
    plain = evidence.get("plain_p_value")
    return plain is not None and plain != evidence["p_value"]


def _p_values(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The one that the gate goes by, and where it is of scaled errors the plain one beside it."""
    judged = f"{p_text(evidence['p_value'])}, needed below {evidence['alpha']:.3g}"
    if not scaled_test(evidence):
        return [("p-value", judged)]
    plain = ("p-value on plain squared errors", p_text(evidence["plain_p_value"]))
    return [("p-value on errors in units of the volatility forecast", judged), plain]


def _numbers(evidence: Mapping[str, Any], selection: Mapping[str, Any]) -> Markup:
    r2 = percent(evidence["r2_oos"])
    others = " · ".join(
        f"{LABELS[name]} {percent(selection['r2_oos'][name]['zero'], 2)} %"
        for name in SPLIT_ORDER
        if name != "oot" and name in selection["r2_oos"]
    )
    return facts(
        [
            ("R² over zero on OOT", UNKNOWN if r2 == UNKNOWN else f"{r2} %"),
            *_p_values(evidence),
            ("R² over zero elsewhere", others or UNKNOWN),
            ("serves as", str(selection["alias"] or "nothing")),
        ]
    )


def _power(evidence: Mapping[str, Any]) -> Markup:
    """How small a skill the test could have seen: without it "no skill" says little."""
    least = evidence["minimum_detectable_r2"]
    if least is None:
        return note("The smallest R² that this test could detect is not known.")
    rows = f"{count(evidence['n'])} rows (worth about {count(evidence['n_effective'])} independent ones)"
    found = f"would have found an R² of {percent(least, 2)} % or more in 80 % of cases"
    return note(f"With these {rows} the test {found}; a smaller one could well go unseen.")


def _rules(evidence: Mapping[str, Any]) -> str:
    """Every rule of the gate; older evidence has none listed."""
    rules = evidence.get("rules") or ()
    if not rules:
        return ""
    lines = [
        (
            "failed" if rule["passed"] is False else "",
            [
                words(rule["name"]),
                _state(rule["passed"]),
                _figure(rule["value"]),
                _figure(rule["threshold"]),
                str(rule.get("detail") or ""),
            ],
        )
        for rule in rules
    ]
    head = ["rule", "result", "value", "threshold", "in words"]
    return table("Rules of the gate", head, lines, prose=("in words",))


def _state(passed: bool | None) -> str:
    return "not judged" if passed is None else "passed" if passed else "failed"


def _figure(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return UNKNOWN if value is None else str(value)
    return f"{value:.4g}".replace("-", "−")
