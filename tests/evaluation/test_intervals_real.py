"""The intervals on two years of real S&P 500 minutes, split as the dataset stage splits them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.dataset.labels import label_bars
from marketray.dataset.load import Block
from marketray.dataset.splits import Split, make_split
from marketray.evaluation.uncertainty import fit_uncertainty
from marketray.evaluation.volatility import SCALE_COLUMNS
from marketray.evaluation.walked import evaluate
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.sessions import trading_sessions
from marketray.settings import FeatureSettings, LabelSettings, SplitSettings

BREAKS = ("17:00-18:00 America/New_York",)


def real_rows(path: Path, every: int, volatilities: bool) -> tuple[Block, Split]:
    """Every n-th row with a label, and the split of these rows."""
    bars = pl.read_parquet(path, columns=["time", "open", "high", "low", "close"])
    bars = bars.with_columns(pl.col("time").dt.cast_time_unit("us").dt.convert_time_zone("UTC"))
    first, last = bars["time"][0].date(), bars["time"][-1].date()
    sessions = trading_sessions("CMES", first - timedelta(days=5), last + timedelta(days=5), BREAKS)
    group = build_catalog(FeatureSettings(groups=("volatility",)), bars.columns)
    unused = tuple(name for name in group.names if name not in SCALE_COLUMNS)
    catalog = build_catalog(FeatureSettings(groups=("volatility",), exclude=unused), bars.columns)
    features = compute(catalog, bars, sessions).select(catalog.names)
    rows = label_bars(bars, sessions, LabelSettings()).hstack(features)[catalog.lookback :]
    rows = rows.filter(pl.col("label_return").is_not_null()).gather_every(every)
    columns = catalog.names if volatilities else ()
    decision, opened, end = (
        rows[name].dt.epoch("us").to_numpy() for name in ("decision_at", "session_open_at", "label_end_at")
    )
    block = Block(
        row_ids=np.arange(len(rows)).astype(np.str_),
        decision_us=decision,
        session_open_us=opened,
        label_end_us=end,
        y=rows["label_return"].to_numpy(),
        close=rows["close"].to_numpy(),
        columns=columns,
        values=rows.select(columns).to_numpy().astype(np.float32).reshape(len(rows), len(columns)),
    )
    return block, make_split("SPX500_USD", decision, end, opened, SplitSettings())


@pytest.mark.parametrize(
    ("every", "volatilities"),
    [
        pytest.param(5, True, id="every-5th"),
        pytest.param(1, True, id="all", marks=pytest.mark.slow),
        pytest.param(1, False, id="all-time-only", marks=pytest.mark.slow),
    ],
)
def test_coverage_and_scores_on_real_bars(spx_path: Path, every: int, volatilities: bool) -> None:
    block, split = real_rows(spx_path, every, volatilities)
    ranges = {name: np.arange(b.start, b.stop) for name, b in split.blocks.items()}
    past = block.take(np.concatenate([ranges["train"], ranges["validation"]]))
    zeros = np.zeros(sum(score.stop - score.start for _, score in split.folds))
    state = fit_uncertainty(past, split.folds, zeros, task="regression", horizon_minutes=30)
    seen = {}
    for name in ("test", "oot", "oot2"):
        rows = block.take(ranges[name])
        seen[name], state = state.walk(rows, np.zeros(len(rows)))
    report = evaluate(seen, state.method)["intervals"]
    for name in ("test", "oot"):
        for level, found in report[name]["levels"].items():
            assert found["coverage"] == pytest.approx(float(level) / 100, abs=0.02), (name, level)
            assert found["winkler_pct"] < found["constant_winkler_pct"]
            assert found["pinball_pct"] < found["constant_pinball_pct"]
            assert found["infinite_share"] == 0
        for group in (*report[name]["by_hour"], *report[name]["by_volatility"]):
            assert group["n"] < 1_000 / every or abs(group["coverage_80"] - 0.8) <= 0.05, (name, group)
