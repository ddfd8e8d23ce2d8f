"""Law 2, sessions: no synthetic bars; a label never leaves its session; what is dropped is counted."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.dataset.labels import label_bars, label_report
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import LabelSettings

HALT = ("17:00-18:00 America/New_York",)
MINUTE = 60_000_000
START, END = date(2024, 11, 25), date(2024, 12, 2)  # Thanksgiving week: a holiday and a half day


def bars_of(sessions: Sessions, missing: float, seed: int = 2) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    spans = sessions.frame.filter(pl.col("session_date").is_between(START, END))
    times = pl.concat(
        [
            pl.datetime_range(a, b, "1m", closed="left", eager=True)
            for a, b in spans.select("open_at", "close_at").iter_rows()
        ]
    )
    times = times.filter(pl.Series(rng.random(len(times)) >= missing))
    return pl.DataFrame({"time": times, "close": 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, len(times))))})


SHORT_HALT = ("12:00-12:10 America/New_York",)  # shorter than the horizon


@pytest.mark.parametrize(
    ("calendar", "breaks"), [("XNYS", ()), ("CMES", HALT), ("XHKG", ()), ("XNYS", SHORT_HALT)]
)
def test_every_label_ends_in_its_own_session_at_a_real_close_in_the_window(
    calendar: str, breaks: tuple[str, ...]
) -> None:
    sessions = trading_sessions(calendar, START, END, breaks)
    bars = bars_of(sessions, missing=0.15)
    got = label_bars(bars, sessions, LabelSettings())
    assert got["time"].equals(bars["time"])  # a row a bar: nothing is filled in
    kept = got.filter(pl.col("reason").is_null())
    ahead = kept["label_end_at"] - kept["decision_at"]
    assert ahead.dt.total_minutes().is_between(25, 30).all()
    ends = kept["label_end_at"].dt.offset_by("-1m")
    assert ends.is_in(bars["time"].implode()).all()
    assert (sessions.locate(ends) == sessions.locate(kept["time"])).all()
    at = bars["time"].search_sorted(ends)
    expected = bars["close"].gather(at) / kept["close"] - 1
    assert (kept["label_return"] - expected).abs().max() < 1e-15
    place = np.append(sessions.locate(bars["time"]), -1)  # no bar follows the last one
    opens = np.append(bars["time"].to_physical().to_numpy(), 0)
    following = at.to_numpy() + 1
    in_window = opens[following] + MINUTE <= kept["decision_at"].to_physical().to_numpy() + 30 * MINUTE
    assert not (in_window & (place[following] == place[at.to_numpy()])).any()  # it is the last close
    report = label_report(got)
    assert report.rows == bars.height == report.kept + sum(report.dropped.values())


def test_the_last_rows_of_every_session_have_no_label() -> None:
    sessions = trading_sessions("CMES", START, END, HALT)
    got = label_bars(bars_of(sessions, missing=0), sessions, LabelSettings())
    last = got.group_by("session_open_at").agg(pl.col("reason").tail(25)).explode("reason")
    assert last["reason"].unique().to_list() == ["session_end"]
    assert (got["reason"] == "session_end").sum() == 25 * got["session_open_at"].n_unique()


def test_a_half_day_and_a_holiday_are_sessions_of_their_own() -> None:
    sessions = trading_sessions("XNYS", START, END)
    got = label_bars(bars_of(sessions, missing=0), sessions, LabelSettings())
    days = got.group_by(pl.col("time").dt.date()).agg(
        labels=pl.col("label_return").count(), last=pl.col("label_end_at").max()
    )
    by_day = dict(zip(days["time"], days["labels"], strict=True))
    assert date(2024, 11, 28) not in by_day
    assert by_day[date(2024, 11, 27)] == 390 - 25
    assert by_day[date(2024, 11, 29)] == 210 - 25
    assert days.filter(pl.col("time") == date(2024, 11, 29))["last"][0] == datetime(
        2024, 11, 29, 18, tzinfo=UTC
    )


def test_without_tolerance_the_calm_minutes_are_dropped() -> None:
    sessions = trading_sessions("XNYS", START, END)
    rng = np.random.default_rng(8)
    full = bars_of(sessions, missing=0)
    calm = (full["time"].dt.epoch("s") // 7200) % 2 == 0  # two quiet hours, two busy ones
    steps = rng.normal(0, 1, full.height) * np.where(calm, 1e-5, 1e-3)
    close = pl.Series("close", 100 * np.exp(np.cumsum(steps)))
    traded = pl.Series(np.where(calm, rng.random(full.height) < 0.5, True))
    bars = full.with_columns(close).filter(traded)
    strict = label_report(label_bars(bars, sessions, LabelSettings(label_tolerance_minutes=0)))
    tolerant = label_report(label_bars(bars, sessions, LabelSettings()))
    assert strict.kept < tolerant.kept
    assert strict.kept_returns.sd > tolerant.kept_returns.sd
    assert strict.dropped["no_bar_in_window"] > 5 * tolerant.dropped["no_bar_in_window"]


def test_the_real_bars_show_what_the_tolerance_is_for(spx_path: Path) -> None:
    bars = pl.read_parquet(spx_path, columns=["time", "close"])
    sessions = trading_sessions("24/7", bars["time"][0].date(), bars["time"][-1].date())
    one = Sessions(
        sessions.frame.select(
            session=pl.lit(0, pl.Int32),
            session_date=pl.col("session_date").min(),
            open_at=pl.col("open_at").min(),
            close_at=pl.col("close_at").max(),
        ).head(1)
    )
    strict = label_bars(bars, one, LabelSettings(label_tolerance_minutes=0))
    tolerant = label_bars(bars, one, LabelSettings())
    exact = label_report(strict)
    assert exact.kept / exact.rows == pytest.approx(0.895, abs=0.0005)
    assert label_report(tolerant).kept / exact.rows == pytest.approx(0.975, abs=0.0005)
    saved = tolerant.filter(strict["label_return"].is_null() & tolerant["label_return"].is_not_null())
    assert saved["label_return"].std() == pytest.approx(0.00067, abs=5e-6)
    assert exact.kept_returns.sd == pytest.approx(0.00148, abs=5e-6)


def test_real_sessions_drop_few_rows_and_say_why(spx_path: Path) -> None:
    bars = pl.read_parquet(spx_path, columns=["time", "close"])
    sessions = trading_sessions("CMES", bars["time"][0].date(), bars["time"][-1].date(), HALT)
    report = label_report(label_bars(bars, sessions, LabelSettings()))
    assert report.rows == 618_735 == report.kept + sum(report.dropped.values())
    assert report.dropped["outside_session"] / report.rows < 0.002  # CMES holds 99.8 % of the bars
    assert report.kept / report.rows == pytest.approx(0.9735, abs=0.001)
