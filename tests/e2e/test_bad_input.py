"""Every kind of bad input ends in one clear error, the right exit code, and nothing half-written."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import polars as pl
import pytest

from marketray.sessions import trading_sessions
from tests.e2e.conftest import in_process


@pytest.fixture(scope="module")
def good_bars() -> pl.DataFrame:
    """40 sessions of New York minutes with a random walk, naive local stamps of the bar's open."""
    sessions = trading_sessions("XNYS", date(2024, 1, 9), date(2024, 2, 29)).frame
    opens = pl.concat(
        [
            pl.datetime_range(a, b, "1m", closed="left", eager=True)
            for a, b in sessions.select("open_at", "close_at").rows()
        ]
    )
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 2e-4, len(opens))))
    opened = np.concatenate([[100.0], close[:-1]])
    spread = np.abs(rng.normal(0, 1e-2, (2, len(opens))))
    return pl.DataFrame(
        {
            "time": opens.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None),
            "open": opened,
            "high": np.maximum(opened, close) + spread[0],
            "low": np.minimum(opened, close) - spread[1],
            "close": close,
            "volume": rng.integers(1, 1000, len(opens)).astype(float),
        }
    )


def with_error(frame: pl.DataFrame, column: str, value: object, rows: int) -> pl.DataFrame:
    changed = pl.Series([value] * rows + frame[column].to_list()[rows:], dtype=frame[column].dtype)
    return frame.with_columns(changed.alias(column))


NEW_YORK = ["--timezone", "America/New_York", "--stamp", "open", "--calendar", "XNYS"]

CASES: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame] | None, list[str], str]] = {
    "missing file": (None, NEW_YORK, r"absent\.csv"),
    "missing column": (lambda f: f.drop("close"), NEW_YORK, "close"),
    "no time zone": (lambda f: f, ["--calendar", "XNYS"], "(?i)time ?zone"),
    "unknown time zone": (lambda f: f, ["--timezone", "Mars/Base"], "Mars/Base"),
    "unknown calendar": (lambda f: f, [*NEW_YORK[:4], "--calendar", "XXXX"], "XXXX"),
    "empty file": (lambda f: f.head(0), NEW_YORK, "(?i)row"),
    "too few rows": (lambda f: f.head(300), NEW_YORK, "300.*5,?000"),
    "mostly bad prices": (lambda f: with_error(f, "close", -1.0, 9000), NEW_YORK, "(?i)quarantin"),
    "descending": (lambda f: f.reverse(), NEW_YORK, "(?i)order"),
    "wrong calendar": (lambda f: f, [*NEW_YORK[:4], "--calendar", "XTKS"], "(?i)coverage"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_bars(ray_local, home, monkeypatch, capsys, good_bars, case: str) -> None:
    change, options, message = CASES[case]
    path = home / ("absent.csv" if change is None else "bars.csv")
    if change is not None:
        change(good_bars).write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    assert in_process(monkeypatch, "ingest", "--bars", str(path), *options) in (1, 2)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert printed.count("error: ") == 1
    assert re.search(message, printed), printed
    assert not list((home / "lake/bronze").rglob("*.parquet"))


def test_good_bars_pass_and_stale_ones_fail_against_the_system_clock(
    ray_local, home, monkeypatch, capsys, good_bars
) -> None:
    path = home / "bars.csv"
    good_bars.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    assert in_process(monkeypatch, "ingest", "--bars", str(path), *NEW_YORK, "--json") == 0
    assert f'"rows_out": {good_bars.height}' in capsys.readouterr().out
    monkeypatch.setenv("MARKETRAY_CLOCK", "system")
    assert in_process(monkeypatch, "ingest", "--bars", str(path), *NEW_YORK, "--instrument", "STALE") == 1
    assert re.search("freshness: .* days before the clock; required.* 7 ", capsys.readouterr().err)
    assert not list((home / "lake/bronze").rglob("instrument=STALE/**/*.parquet"))


@pytest.mark.parametrize("stage", ["features", "dataset", "tune", "select"])
def test_a_stage_without_its_input_says_which_stage_comes_first(
    ray_local, home, monkeypatch, capsys, stage: str
) -> None:
    assert in_process(monkeypatch, stage) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert re.search("Hint: .*(ingest|features|dataset|tune|stage)", printed)


def test_an_unreachable_tracking_server_ends_the_run_before_any_work(
    ray_local, home, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    started = time.monotonic()
    assert in_process(monkeypatch, "run") == 1
    assert time.monotonic() - started < 20
    assert re.search("error: .*127.0.0.1:9", capsys.readouterr().err)
    assert not (home / "lake").exists()


def test_a_missing_model_is_one_clear_error(home, monkeypatch, capsys) -> None:
    assert in_process(monkeypatch, "models", "show", "champion") == 1
    assert re.search("error: .*champion", capsys.readouterr().err)
    assert in_process(monkeypatch, "models", "list", "--json") == 0
    assert capsys.readouterr().out.strip() == "[]"


def test_a_home_that_cannot_be_written_is_named(ray_local, home, monkeypatch, capsys) -> None:
    blocked = home / "file"
    blocked.write_text("")
    monkeypatch.setenv("MARKETRAY_HOME", str(blocked / "below"))
    assert in_process(monkeypatch, "run") == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert str(blocked) in printed
