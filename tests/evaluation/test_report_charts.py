"""Scales, marks and numbers of the report's charts, against NumPy, pandas and by hand."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketray.evaluation.report.markup import Markup, between, count, fixed, html, p_text, percent, table
from marketray.evaluation.report.plot import Axis, Plot, linear_axis, share_bar, span_cell, time_axis
from marketray.evaluation.report.trials import best_so_far, scale_of


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5), st.integers(2, 8))
def test_a_linear_axis_holds_its_values_between_few_round_ticks(values: list[float], ticks: int) -> None:
    axis = linear_axis(values, "")
    rounding = 1e-6 * (axis.high - axis.low)
    assert axis.low <= min(values) + rounding
    assert axis.high >= max(values) - rounding
    at = np.array([value for value, _ in axis.ticks])
    assert 2 <= len(at) <= 8
    assert (at[0], at[-1]) == (axis.low, axis.high)
    steps = np.diff(at)
    assert steps == pytest.approx(np.full(len(steps), steps[0]), rel=1e-6)
    mantissa = steps[0] / 10 ** np.floor(np.log10(steps[0] * (1 + 1e-9)))
    assert np.min(np.abs(mantissa - [1, 2, 5])) < 1e-6
    assert len({text for _, text in axis.ticks}) == len(at)


def test_ticks_are_written_with_as_few_digits_as_they_need() -> None:
    assert [t for _, t in linear_axis([-0.013, 0.021], "").ticks] == [
        "−0.02",
        "−0.01",
        "0.00",
        "0.01",
        "0.02",
        "0.03",
    ]
    assert [t for _, t in linear_axis([0, 400], "", ticks=4).ticks] == ["0", "100", "200", "300", "400"]


@pytest.mark.parametrize(
    ("days", "rule", "form"),
    [
        (0.4, "3h", "%m-%d %H:%M"),
        (3.5, "24h", "%Y-%m-%d"),
        (20, "168h", None),
        (100, "MS", "%Y-%m"),
        (330, "QS", "%Y-%m"),
        (1_400, "YS", "%Y"),
    ],
)
def test_time_ticks_are_round_dates(days: float, rule: str, form: str | None) -> None:
    first = datetime(2019, 2, 11, 13, 37, tzinfo=UTC)
    last = first + timedelta(days=days)
    axis = time_axis(first, last, "")
    assert (axis.low, axis.high) == (first.timestamp(), last.timestamp())
    if form is None:  # weeks are counted from the first day
        wanted = pd.date_range(pd.Timestamp(first).floor("D"), last, freq=rule)
        form = "%Y-%m-%d"
    else:
        wanted = pd.date_range(pd.Timestamp(first).floor("D") - pd.Timedelta("370D"), last, freq=rule)
    wanted = wanted[wanted >= first]
    assert [text for _, text in axis.ticks] == [at.strftime(form) for at in wanted]
    assert [value for value, _ in axis.ticks] == [at.timestamp() for at in wanted]
    assert 1 <= len(axis.ticks) <= 5


def test_a_moment_has_an_axis_of_a_minute() -> None:
    at = datetime(2019, 1, 1, tzinfo=UTC)
    assert time_axis(at, at, "").high - at.timestamp() == 60


def test_marks_stand_where_numpy_puts_them_and_stay_in_the_frame() -> None:
    plot = Plot("a", Axis(0, 10), Axis(-1, 1))
    plot.line([0, 5, 20], [0, 0.5, -3], "x")
    plot.dot(2.5, -0.5, "x", title="here & <there>")
    page = plot.markup()
    points = [tuple(map(float, p.split())) for p in re.search(r"line x' d='M(.*?)'", page)[1].split("L")]
    wanted = zip(
        np.interp([0, 5, 20], [0, 10], [0, 1000]), np.interp([0, 0.5, -3], [-1, 1], [1000, 0]), strict=True
    )
    assert points == list(wanted)
    assert "dot x' d='M250.0 750.0h0'><title>here &amp; &lt;there&gt;</title>" in page
    plot.line([0, 10], [0, 1], "y", steps=True)
    assert "line y' d='M0.0 500.0H1000.0V0.0'" in plot.markup()


def test_a_turned_axis_counts_down() -> None:
    assert [Axis(3, -1).share(v) for v in (3, 1, -1)] == [0, 0.5, 1]


def test_cells_draw_the_interval_and_say_when_a_value_is_off_the_scale() -> None:
    axis = Axis(-1, 1)
    cell = span_cell(axis, -0.5, 0.0, 0.25, 0.0)
    assert "M250 500H625" in cell
    assert cell.count("M500 ") == 2  # the rule at 0 and the dot
    assert "off the scale" in span_cell(axis, None, -100.0, None, 0.0)
    assert span_cell(axis, None, None, None, 0.0) == ""
    assert "width:37.5%" in share_bar(0.375)
    assert "width:100.0%" in share_bar(7)


def test_best_so_far_is_the_running_minimum() -> None:
    scores = np.random.default_rng(3).normal(size=50)
    assert best_so_far(scores.tolist()) == np.minimum.accumulate(scores).tolist()
    assert best_so_far([None, 2.0, None, 3.0, 1.0]) == [None, 2.0, 2.0, 2.0, 1.0]


def test_scales_of_parameters() -> None:
    log = scale_of("rate", [0.001, 0.1, None, 0.01])
    assert log.log
    assert [log.share(v) for v in (None, 0.001, 0.01, 0.1)] == pytest.approx([0, 0.08, 0.54, 1])
    straight = scale_of("depth", [2, 10, 6])
    assert not straight.log
    assert [straight.share(v) for v in (2, 6, 10)] == pytest.approx([0.08, 0.54, 1])
    choice = scale_of("group", ["knee", None, "all", True])
    assert choice.options == ("True", "all", "knee")
    assert choice.share("all") == pytest.approx(0.08 + 0.92 / 2)
    groups = scale_of("group", ["knee", "10–25%", "all", "5–10%"])
    assert groups.options == ("5–10%", "10–25%", "all", "knee")
    assert scale_of("one", [5, 5]).share(5) == pytest.approx(0.54)
    assert scale_of("signed", [-1, 0, 1]).log is False


def test_numbers_in_words() -> None:
    assert [fixed(-0.5, 2), fixed(None, 2), percent(0.12345), percent(None)] == ["−0.50", "–", "12.345", "–"]
    assert [count(1234567), count(None), p_text(0.0412), p_text(3e-9), p_text(None)] == [
        "1,234,567",
        "–",
        "0.041",
        "< 0.0001",
        "–",
    ]
    assert [between(-1, 2.5, 1), between(None, 2.5, 1)] == ["−1.0 to 2.5", "–"]


def test_text_is_escaped_and_markup_is_not() -> None:
    assert html("<b>'\"&") == "&lt;b&gt;&#x27;&quot;&amp;"
    assert html(Markup("<b>")) == "<b>"
    made = table("a<b", ["n<", "v"], [("", ["<x>", Markup("<i></i>")])], prose=("v",))
    assert "aria-label='a&lt;b'" in made
    assert "<th scope='row'>&lt;x&gt;</th><td class='prose'><i></i></td>" in made
