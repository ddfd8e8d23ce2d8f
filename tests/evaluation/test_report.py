"""The report page: one file, verdict first, the numbers of report.json, nothing from outside."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marketray.evaluation.report import Series, render_report, write_report
from marketray.evaluation.report.curves import groups_by_forecast, saved_error
from marketray.settings import load_settings
from tests.evaluation.report_example import MODELS, full_report, plain_report

Page = tuple[dict[str, Any], dict[str, Series]]

OPTIONAL = {
    "significance": "Significance after the search",
    "breakdown": "By month, hour and volatility",
    "intervals": "Prediction intervals",
    "reliability": "Reliability of the probability of a rise",
    "backtest": "Backtest",
    "importance": "Feature importance",
    "ablation": "With and without the news",
    "trials": "Tuning: every trial of both stages",
    "drift": "Drift of the features",
    "latency": "Latency",
}


@pytest.fixture
def plain(home: Path) -> Page:
    return plain_report(load_settings())


@pytest.fixture
def full(home: Path) -> Page:
    return full_report(load_settings())


def text_of(page: str) -> str:
    """The page's words, without tags and style."""
    body = page[page.index("</head>") :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def headings(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page)


def test_the_page_is_one_file_with_the_verdict_before_everything(plain: Page, tmp_path: Path) -> None:
    report, series = plain
    write_report(tmp_path / "report.html", report, series)
    text = (tmp_path / "report.html").read_text()
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".db"] == ["report.html"]
    assert text == render_report(report, series)
    body = text[text.index("</head>") :]
    assert headings(text)[:2] == [report["verdict_text"], "Skill over zero"]
    assert "No skill over zero: R²" in body[: body.index("<table>")]
    assert "not promoted" in body[: body.index("<table>")]
    assert "&lt;ar&gt;" in body  # escaped
    assert "<ar>" not in body


@pytest.mark.parametrize("name", ["plain", "full"])
def test_nothing_comes_from_outside(name: str, request: pytest.FixtureRequest) -> None:
    page = render_report(*request.getfixturevalue(name))
    assert "<script" not in page
    assert "url(" not in page
    assert set(re.findall(r"(?:src|href)='([^'#][^']*)'", page)) == {"data:,"}
    assert "default-src 'none'" in page
    assert len(page) < 400_000


def test_every_forecast_stands_in_both_tables_of_each_split(plain: Page) -> None:
    report, series = plain
    page = render_report(report, series)
    assert page.count("<tr class='baseline'>") == 3 * 2 * 4
    assert page.count("<tr class='selected model'>") == 2 * 4
    for split, found in report["figures"].items():
        assert f"<td>{found['zero']['rmse_pct']:.5f}</td>" in page, split
        assert f"<td>{100 * found['<ar>']['r2_oos']['zero']:.3f}</td>".replace("-", "−") in page, split
    order = [page.index(f"<h3>{name}: 900 rows</h3>") for name in ("OOT", "OOT2", "test", "validation")]
    assert order == sorted(order)


def test_the_verdict_comes_with_its_level_power_and_rules(full: Page) -> None:
    report, series = full
    evidence = report["selection"]["evidence"]
    verdict = text_of(render_report(report, series)).split("Skill over zero ", 1)[0]
    assert f"{evidence['p_value']:.2g}, needed below 0.025" in verdict
    assert f"an R² of {100 * evidence['minimum_detectable_r2']:.2f} % or more in 80 % of cases" in verdict
    said = verdict[verdict.index("Rules of the gate that did not hold:") :]
    assert all(reason in said for reason in evidence["reasons"])
    rules = re.sub(r"\s+", " ", verdict[verdict.index("Rules of the gate") :])
    assert "skill over zero failed 0.41 0.025 p-value against zero is 0.41; required: below 0.025" in rules
    assert "coverage passed 0.803 0.02 80.3 % of the labels" in rules
    assert "latency not judged – 20 off" in rules


def test_missing_evidence_is_said_and_not_filled_in(plain: Page) -> None:
    report, series = plain
    evidence = report["selection"]["evidence"]
    unknown = ("r2_oos", "p_value", "plain_p_value", "minimum_detectable_r2", "n_effective")
    evidence.update(dict.fromkeys(unknown))
    verdict = text_of(render_report(report, series)).split("Skill over zero ", 1)[0]
    assert "R² over zero on OOT – p-value –, needed below 0.025" in verdict
    assert "The smallest R² that this test could detect is not known." in verdict


def test_absent_sections_are_one_line_each_with_the_reason(plain: Page) -> None:
    report, series = plain
    page = render_report({**report, "backtest": {"missing": "spread_bps is not set"}}, series)
    assert not set(OPTIONAL.values()) & set(headings(page))
    absent = text_of(page).split("Not in this report", 1)[1]
    assert "Backtest: not computed: spread_bps is not set." in absent
    assert absent.count("not computed in this run.") == len(OPTIONAL) - 1
    links = re.findall(r"<a href='#(.*?)'>", page)
    assert links == ["skill", "over-time", "splits", "quality", "lineage"]


def test_the_full_report_has_every_section_and_each_link_its_target(full: Page) -> None:
    page = render_report(*full)
    assert set(OPTIONAL.values()) <= set(headings(page))
    assert "Not in this report" not in page
    links, targets = re.findall(r"<a href='#(.*?)'>", page), re.findall(r"<section id='(.*?)'", page)
    assert set(OPTIONAL) <= set(links) <= set(targets)
    assert len(targets) == len(set(targets))


def test_key_numbers_of_the_sections_are_those_of_the_document(full: Page) -> None:
    report, series = full
    text = text_of(render_report(report, series))
    own = report["figures"]["oot"]["<ar>"]
    ends = f"{100 * own['r2_interval']['low']:.3f} to {100 * own['r2_interval']['high']:.3f}"
    parts = {
        f"{100 * own['r2_oos']['zero']:.3f} {ends}".replace("-", "−"): "skill interval",
        "no: p = 0.47 at 0.05": "SPA",
        "2 of 3; zero is among them": "MCS",
        "57 %; 50 % is what choosing blindly gives": "overfitting",
        "no: probability 1.2 %, needed above 95 %": "deflated Sharpe",
        "175 different models 87 of them stopped early, 25 of earlier tunings": "trials",
        "no: p = 0.11 at 0.05 statistic 1.23": "Clark–West",
        "OOT, 80 % 80.30 0.30 0.1600 0.4000 0.5000 0.02000 0.02500 0.000": "intervals",
        "validation: the 80 % interval covers": "range",
        "80.0 to 80.0 % by volatility.": "range by volatility",
        "OOT2 0.24991 0.25000 0.00710": "Brier",
        "test: strategy −1.37 −6.10 −0.52 −2.40 to 1.30 3.10 812 47.0": "backtest",
        "crash 2019-08-01 to 2019-08-14 10 −0.81": "stress",
        "threshold 1 round-trip costs": "threshold",
        "test 2019-07-01 13:31 2019-09-04 19:59 5,123 1,234 3": "decisions",
        "test: flat, OOT2: flat: there was no trade.": "reason",
        "p-value on errors in units of the volatility forecast 0.9": "the gate's p-value",
        "p-value on plain squared errors 0.83": "plain p-value",
        "The verdict&#x27;s p-value is of errors in units of the volatility": "scaled test",
        "2 more": "drift",
        "6.9 % (9 of 131 columns)": "drift",
        "median 0.412 ms 99th percentile 1.731 ms rows timed 500": "latency",
        "xgboost, stage 2 12 8 4": "trial counts",
        "kept 4,500 0.1480": "labels",
        "ingest high below low 10": "quarantine",
        "labels.horizon_minutes 30": "settings",
        "10 others (in report.json)": "importance",
        "OOT 1, OOT2 1": "openings",
    }
    assert [what for number, what in parts.items() if number not in re.sub(r"\s+", " ", text)] == []


def leaves(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all numbers in a JSON value."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*above, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield above


SKELETON = {"stage", "number", "n", "fold"}
"""Numbers that name or count a row; they are always known."""


@pytest.mark.parametrize("key", ["significance", "breakdown", "intervals", "backtest", "drift", "latency"])
def test_an_unknown_number_is_a_dash(key: str, full: Page) -> None:
    report, series = full
    unknown = copy.deepcopy(report[key])
    for path in leaves(report[key]):
        if path[-1] not in SKELETON:
            part = unknown
            for step in path[:-1]:
                part = part[step]
            part[path[-1]] = None
    page = render_report({**report, key: unknown}, series)
    body = page[page.index(f"<section id='{key}'") :]
    shown = body[: body.index("</section>")]
    assert "–" in shown
    assert "None" not in shown
    assert "nan" not in re.findall(r"\w+", shown)


def test_a_group_of_few_rows_says_so_in_place_of_an_interval(full: Page) -> None:
    report, series = full
    part = report["breakdown"]["oot"]["month"][0]
    part["hit_rate"] = {"rate": 0.515, "low": None, "high": None}
    assert "51.5 too few" in text_of(render_report(report, series))
    part["hit_rate"] = dict.fromkeys(("rate", "low", "high"))
    assert " too few" not in text_of(render_report(report, series))


def test_a_part_that_could_not_be_computed_says_why(full: Page) -> None:
    report, series = full
    report["significance"]["spa"] = {"missing": "12 sessions; required: 20"}
    text = text_of(render_report(report, series))
    assert re.search(r"Hansen&#x27;s SPA\) +not computed +12 sessions; required: 20", text)


def test_a_direction_report_speaks_of_probability(full: Page) -> None:
    report, series = full
    page = render_report({**report, "task": "direction"}, series)
    assert "RMSE and MAE in percentage points of probability" in page
    assert "Prediction against actual" not in headings(page)


def test_the_page_follows_from_the_file(full: Page) -> None:
    report, series = full
    stored = json.loads(json.dumps(report, sort_keys=True))
    assert render_report(stored, series) == render_report(report, series)


def test_the_last_point_of_each_line_is_the_r2_of_the_split(plain: Page) -> None:
    report, series = plain
    ends = [saved_error(s)[-1] for s in series.values()]
    wanted = [100 * report["figures"][name]["<ar>"]["r2_oos"]["zero"] for name in series]
    assert ends == pytest.approx(wanted)
    assert len(MODELS) == 2


def test_groups_by_forecast_hold_the_means_of_their_rows(plain: Page) -> None:
    series = plain[1]["test"]
    found = groups_by_forecast(series, 30)
    labels = series.y[np.argsort(series.prediction, kind="stable")].reshape(20, -1)
    assert found.actual == pytest.approx(1e4 * labels.mean(axis=1))
    assert found.half == pytest.approx(1e4 * 1.96 * labels.std(axis=1) / np.sqrt(45 / 30))
    assert np.all(np.diff(found.predicted) > 0)
