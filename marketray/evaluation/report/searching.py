"""What the search itself explains: tests over all tried candidates, and how much the best owes to choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketray.evaluation.report.markup import (
    UNKNOWN,
    Markup,
    Row,
    between,
    count,
    details,
    fixed,
    note,
    p_text,
    percent,
    section,
    table,
    words,
)

__all__ = ["significance"]

_LEVEL = 0.05
_HEAD = ("question", "answer", "numbers")

_NOTE = (
    "The best of many tried candidates looks good by luck alone. These figures count what was tried. They "
    "promote nothing: the gate's rules above do."
)


def significance(value: Mapping[str, Any], _report: Mapping[str, Any]) -> Markup:
    """One row a question: the answer in words, and its numbers."""
    rows: list[Row] = []
    for key, line in _LINES.items():
        part = value.get(key)
        if isinstance(part, Mapping):
            why = part.get("missing") or part.get("reason")
            rows.append(("", [_QUESTIONS[key], "not computed", str(why)]) if why else line(part))
    power = ""
    if value.get("minimum_detectable_r2") is not None:
        power = note(
            f"Independent rows: {count(value.get('n_effective'))}; smallest R² found in 80 % of cases: "
            f"{percent(value['minimum_detectable_r2'], 2)} %."
        )
    body = table("Tests over all candidates", _HEAD, rows, prose=_HEAD)
    return section("significance", "Significance after the search", note(_NOTE), body, power, _set(value))


_QUESTIONS = {
    "trials": "How much was tried?",
    "spa": "Is the best of all candidates better than zero? (Hansen's SPA)",
    "mcs": "Which candidates cannot be told from the best? (model confidence set)",
    "overfitting": "How often is the best in one half below the median in the other? (CSCV)",
    "sharpe": "Does the Sharpe ratio survive the number of trials? (deflated Sharpe)",
    "clark_west": "Is there any signal before estimation noise? (Clark–West)",
}


def _trials(part: Mapping[str, Any]) -> Row:
    answer = f"{count(part.get('counted'))} different models"
    numbers = (
        f"{count(part.get('pruned'))} of them stopped early, {count(part.get('earlier'))} of earlier tunings"
    )
    return "", [_QUESTIONS["trials"], answer, numbers]


def _spa(part: Mapping[str, Any]) -> Row:
    p = part.get("p_value")
    answer = UNKNOWN if p is None else f"{'yes' if p < _LEVEL else 'no'}: p = {p_text(p)} at {_LEVEL:g}"
    numbers = (
        f"p between {p_text(part.get('p_lower'))} and {p_text(part.get('p_upper'))}; "
        f"{count(part.get('candidates'))} candidates, {count(part.get('sessions'))} sessions in blocks of "
        f"{count(part.get('block_sessions'))}, {count(part.get('repetitions'))} repetitions; "
        f"best: {part.get('best') or UNKNOWN}"
    )
    return "", [_QUESTIONS["spa"], answer, numbers]


def _mcs(part: Mapping[str, Any]) -> Row:
    kept, gone = part.get("included") or (), part.get("excluded") or ()
    answer = f"{len(kept)} of {len(kept) + len(gone)}"
    zero = "; zero is among them" if "zero" in kept else ""
    return "", [_QUESTIONS["mcs"], answer + zero, f"at {percent(part.get('level'), 0)} %; listed below"]


def _overfitting(part: Mapping[str, Any]) -> Row:
    numbers = f"{count(part.get('splits'))} blocks, median logit {fixed(part.get('logits_median'), 2)}"
    chance = "; 50 % is what choosing blindly gives"
    return "", [_QUESTIONS["overfitting"], f"{percent(part.get('probability'), 0)} %{chance}", numbers]


def _sharpe(part: Mapping[str, Any]) -> Row:
    deflated = part.get("deflated")
    answer = UNKNOWN
    if deflated is not None:
        sure = "yes" if deflated > 1 - _LEVEL else "no"
        answer = f"{sure}: probability {percent(deflated, 1)} %, needed above {100 * (1 - _LEVEL):.0f} %"
    numbers = (
        f"annual Sharpe {fixed(part.get('annual'), 2)} "
        f"({between(part.get('low'), part.get('high'), 2)}), the best of so many without skill would show "
        f"{fixed(part.get('expected_maximum'), 2)}; against 0: {percent(part.get('probabilistic'), 1)} %"
    )
    return "", [_QUESTIONS["sharpe"], answer, numbers]


def _clark_west(part: Mapping[str, Any]) -> Row:
    p = part.get("p_value")
    answer = UNKNOWN if p is None else f"{'yes' if p < _LEVEL else 'no'}: p = {p_text(p)} at {_LEVEL:g}"
    return "", [_QUESTIONS["clark_west"], answer, f"statistic {fixed(part.get('statistic'), 2)}"]


_LINES = {
    "trials": _trials,
    "spa": _spa,
    "mcs": _mcs,
    "overfitting": _overfitting,
    "sharpe": _sharpe,
    "clark_west": _clark_west,
}


def _set(value: Mapping[str, Any]) -> str:
    """The candidates of the model confidence set with their p-values."""
    part = value.get("mcs") or {}
    p_values = part.get("p_values") or {}
    kept = set(part.get("included") or ())
    lines = [
        ("", [words(name), "in" if name in kept else "out", p_text(p)])
        for name, p in sorted(p_values.items(), key=lambda item: (-(item[1] or 0.0), item[0]))
    ]
    if not lines:
        return ""
    listed = table("Model confidence set", ["candidate", "in the set", "p-value"], lines)
    return details("model confidence set: every candidate", listed)
