"""The report page: one file, verdict first, the numbers of report.json, nothing from outside."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marketray.evaluation.charts import actual_by_prediction, cumulative_skill, split_timeline
from marketray.evaluation.gate import decide
from marketray.evaluation.outcome import (
    comparison,
    report_document,
    selection_document,
    verdict_text,
)
from marketray.evaluation.report import Series, render_report, write_report
from marketray.evaluation.selection import Rows, compare
from marketray.settings import GateSettings, Settings, load_settings

MINUTE = 60_000_000
N = 900
RNG = np.random.default_rng(11)
SPLITS = ("validation", "test", "oot", "oot2")


def one_split(position: int) -> tuple[Rows, np.ndarray]:
    y, times = RNG.normal(size=N) * 1e-3, (position * N + np.arange(N, dtype=np.int64)) * MINUTE
    naive = {"zero": np.zeros(N), "training_mean": np.full(N, 1e-6), "last_return": np.roll(y, 30)}
    return Rows(y, naive, times, 30), RNG.normal(size=N) * 1e-4


@pytest.fixture
def page(home: Path) -> tuple[dict[str, Any], dict[str, Series]]:
    data = {name: one_split(i) for i, name in enumerate(SPLITS)}
    tables = {name: compare(rows, {"<ar>": p}, alpha=0.025) for name, (rows, p) in data.items()}
    rows, prediction = data["oot"]
    evidence = decide(rows.y, prediction, rows.decision_us, 30, gate=GateSettings(), k=1)
    block = SimpleNamespace(
        rows=N,
        first_decision_at="2024-01-02T00:01:00+00:00",
        last_decision_at="2024-01-02T15:00:00+00:00",
        purged=29,
        embargoed=9,
    )
    split: Any = SimpleNamespace(
        blocks=dict.fromkeys(("train", *SPLITS), block), detail={"dropped": {"warm_up": 7}}
    )
    registered = {"name": "m", "version": 4, "alias": "champion"}
    openings = {"oot": 1, "oot2": 1}
    selection = selection_document("key", registered, "/m", ["<ar>"], tables, split, evidence, openings)
    settings: Settings = load_settings()
    compared = comparison(tables, ["<ar>"], {"<ar>": 0.001})
    report = report_document(settings, selection, compared, tables, split, evidence)
    assert report["verdict_text"] == verdict_text(evidence)
    series = {n: Series(r.decision_us, r.y, p) for n, (r, p) in data.items() if n in ("test", "oot", "oot2")}
    return report, series


def test_the_page_is_one_file_with_the_verdict_before_everything(
    page: tuple[dict[str, Any], dict[str, Series]], tmp_path: Path
) -> None:
    report, series = page
    write_report(tmp_path / "report.html", report, series)
    text = (tmp_path / "report.html").read_text()
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".db"] == ["report.html"]
    body = text[text.index("</head>") :]
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert text.count("plotly.js v") == 1
    assert body.index("No skill over zero: R²") < body.index("<table>")
    assert "not promoted" in body[: body.index("<table>")]
    assert "&lt;ar&gt;" in body  # escaped
    assert "<ar>" not in re.sub(r"<script.*?</script>", "", body, flags=re.DOTALL)
    assert body.count("class='baseline'") == 4 * 3
    rmse = report["figures"]["oot"]["zero"]["rmse_pct"]
    assert f"<td>{rmse:.5f}</td>" in body
    assert text == render_report(report, series)


def test_the_last_point_of_each_line_is_the_r2_of_the_split(
    page: tuple[dict[str, Any], dict[str, Series]],
) -> None:
    report, series = page
    ends = [trace.y[-1] for trace in cumulative_skill(series).data]
    wanted = [100 * report["figures"][name]["<ar>"]["r2_oos"]["zero"] for name in series]
    assert ends == pytest.approx(wanted)


def test_groups_by_forecast_hold_the_means_of_their_rows(
    page: tuple[dict[str, Any], dict[str, Series]],
) -> None:
    series = {"test": page[1]["test"]}
    trace = actual_by_prediction(series, 30).data[0]
    order = np.argsort(series["test"].prediction, kind="stable")
    assert trace.y == pytest.approx(1e4 * series["test"].y[order].reshape(20, -1).mean(axis=1))
    assert np.all(np.diff(trace.x) > 0)


def test_the_timeline_spans_the_dates(page: tuple[dict[str, Any], dict[str, Series]]) -> None:
    bars = split_timeline(page[0]["selection"]["splits"]).data
    assert [b.name for b in bars] == ["train", "validation", "test", "OOT", "OOT2"]
    assert bars[0].base == ("2024-01-02T00:01:00",)
    assert bars[0].x == ((14 * 60 + 59) * 60_000,)
