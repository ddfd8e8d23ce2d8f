"""Feeding bars into the service's own route, from files and lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from marketray.errors import ServingError, SettingsError
from marketray.job import run_job
from marketray.serving.replay import OnlineResult, read_feed, run_online_inference
from marketray.settings import Settings
from tests.serving.local import TOKEN, Client
from tests.serving.market import INSTRUMENT, Market, bars_json, simulated_bars


@pytest.fixture
def next_bars(market: Market) -> pl.DataFrame:
    """The five minutes after the market's last bar, the first of them twice."""
    bars, _ = simulated_bars(8_005)
    new = bars.tail(5).drop("outlier")
    return pl.concat([new.head(1), new])


@pytest.fixture
def service_at(client: Client, monkeypatch: pytest.MonkeyPatch) -> str:
    def request(method: str, address: str, **more: Any) -> httpx.Response:
        del more["timeout"]
        return client(method, address.removeprefix("http://service"), token=None, **more)

    monkeypatch.setattr(httpx, "request", request)
    monkeypatch.setenv("MARKETRAY_TOKEN", TOKEN)
    return "http://service"


def test_a_forecast_after_each_bar(
    settings: Settings, service_at: str, next_bars: pl.DataFrame, tmp_path: Path
) -> None:
    broken = next_bars.with_columns(high=pl.when(pl.int_range(6) == 3).then(0.5).otherwise("high"))
    broken.write_parquet(tmp_path / "bars.parquet")
    told: list[Any] = []
    done = run_online_inference(settings, str(tmp_path / "bars.parquet"), url=service_at, tell=told.append)
    assert done == OnlineResult(sent=6, taken=4, known=1, refused=1, forecasts=5)
    assert [f["last_close"] for f in told] == broken.filter(pl.col("high") > 1)["close"].to_list()
    assert {f["instrument"] for f in told} == {INSTRUMENT}


def test_without_the_token_nothing_is_sent_on(
    settings: Settings,
    service_at: str,
    next_bars: pl.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MARKETRAY_TOKEN")
    next_bars.write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(ServingError, match="POST http://service/bars: 401"):
        run_online_inference(settings, str(tmp_path / "bars.parquet"), url=service_at)


def test_the_job_prints_a_line_a_forecast(
    settings: Settings,
    service_at: str,
    next_bars: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = "\n\n".join(map(json.dumps, bars_json(next_bars.tail(5).head(2))))
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    monkeypatch.setenv("MARKETRAY_INSTRUMENT", INSTRUMENT)
    run_job("online_inference", None, ["--url", service_at, "--pace-seconds", "0"])
    first, second, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["timestamp"] < second["timestamp"]
    assert result == {"sent": 2, "taken": 2, "known": 0, "refused": 0, "forecasts": 2}


def test_every_kind_of_file_reads_the_same(next_bars: pl.DataFrame, tmp_path: Path) -> None:
    expected = bars_json(next_bars)
    next_bars.with_columns(noise=pl.lit(1)).write_parquet(tmp_path / "a.parquet")
    stamped = next_bars.with_columns(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"))
    stamped.write_csv(tmp_path / "a.csv")
    stamped.write_ndjson(tmp_path / "a.ndjson")
    for kind in ("parquet", "csv", "ndjson"):
        assert list(read_feed(str(tmp_path / f"a.{kind}"))) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, r"--bars .*gone\.csv: .*; required: bars, as \.csv, \.parquet or \.ndjson"),
        ("gone.ndjson", None, r"--bars .*gone\.ndjson: .*No such file"),
        ("bad.parquet", b"no", r"--bars .*bad\.parquet: "),
        ("bad.ndjson", b'{"time": 1}\n{', "--bars line 2: "),
        ("list.ndjson", b"[1]", "--bars line 1: got a list; required: bars"),
    ],
)
def test_what_cannot_be_read(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        list(read_feed(str(tmp_path / name)))


def test_pace_is_a_number(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_job("online_inference", None, ["--pace-seconds", "slow"])
    assert ended.value.code == 2
    assert "--pace-seconds: got 'slow'; required: a number of seconds" in capsys.readouterr().err
