"""The backtest against a hand-computed example and a loop over bars; no fill uses a price of the past."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from marketray.dataset.labels import label_bars
from marketray.dataset.rows import utc_series
from marketray.errors import DataError, LakeError, SettingsError
from marketray.evaluation.backtest import backtest_section
from marketray.evaluation.prices import missing_costs, read_bars
from marketray.sessions import trading_sessions
from marketray.settings import Settings, load_settings
from tests.dataset.synthetic import make_bars, small_settings, write_inputs, xnys_bars

MINUTE = 60_000_000
OPENED = 1_727_789_400_000_000  # 2024-10-01 13:30 UTC, the open of XNYS
ONE_WAY = 0.0006


def settings_of(horizon: int = 2, **rules: Any) -> Settings:
    """XNYS minutes; 10 bps of spread, 1 of commission, any forecast is a signal."""
    costs = {"spread_bps": 10.0, "commission_bps": 1.0, "threshold_return": 0.0}
    labels = {"horizon_minutes": horizon, "label_tolerance_minutes": 0, "extra_horizons_minutes": []}
    market = {"calendar": "XNYS", "breaks": []}
    return load_settings(overrides={"market": market, "labels": labels, "backtest": {**costs, **rules}})


def minutes(*offsets: int) -> np.ndarray:
    """Times after 13:30, microseconds."""
    return OPENED + np.array(offsets, dtype=np.int64) * MINUTE


def frame(times: np.ndarray, opens: np.ndarray, closes: np.ndarray, **more: Any) -> pl.DataFrame:
    return pl.DataFrame({"time": utc_series("time", times), "open": opens, "close": closes, **more})


SIX = frame(
    minutes(0, 1, 2, 3, 4, 5),
    np.array([100.0, 101.0, 102.0, 101.0, 103.0, 104.0]),
    np.array([100.5, 101.5, 101.8, 102.0, 103.5, 104.5]),
)
"""13:30 to 13:35."""

FORECAST = (minutes(1, 2, 3), np.array([0.002, 0.0005, -0.004]))


def test_the_hand_computed_example_of_the_latest_signal() -> None:
    settings = settings_of(position="latest", threshold_return=0.001)
    section = backtest_section(settings, SIX, {"test": FORECAST})
    found = section["periods"]["test"]
    assert (found["decisions"], found["signals"], found["unfilled"]) == (3, 2, 0)
    # long from 101 (13:31) over 102 to 101 (13:33), then short from 101 over 103 to 104 (13:35)
    long, short = 1 / 101 - 1 / 102, -2 / 101 - 1 / 103
    strategy = found["strategy"]
    assert strategy["gross_pct"] == pytest.approx(100 * (long + short), rel=1e-12)
    assert strategy["cost_pct"] == pytest.approx(100 * 4 * ONE_WAY, rel=1e-12)
    assert strategy["return_pct"] == pytest.approx(100 * (long + short - 4 * ONE_WAY), rel=1e-12)
    assert strategy["break_even_cost_bps"] == pytest.approx(1e4 * (long + short) / 4, rel=1e-12)
    assert (strategy["trades"], strategy["win_rate"], strategy["turnover"]) == (2, 0.0, 4.0)
    assert strategy["exposure"] == 1.0
    held = found["buy_and_hold"]
    assert held["return_pct"] == pytest.approx(100 * (104 / 101 - 1 - 2 * ONE_WAY), rel=1e-12)
    assert (held["trades"], held["win_rate"], held["turnover"]) == (1, 1.0, 2.0)
    assert (found["flat"]["return_pct"], found["flat"]["trades"]) == (0.0, 0)
    assert found["first_decision_at"] == "2024-10-01T13:31:00+00:00"
    (point,) = section["curve"]
    assert point["at"] == "2024-10-01T13:35:00+00:00"
    assert point["strategy"] == pytest.approx(1 + strategy["return_pct"] / 100, rel=1e-12)
    assert point["buy_and_hold"] == pytest.approx(1 + held["return_pct"] / 100, rel=1e-12)


def test_the_hand_computed_example_of_the_average() -> None:
    found = backtest_section(settings_of(), SIX, {"test": FORECAST})["periods"]["test"]["strategy"]
    # positions 1/2, 1, 0, -1/2 at 13:31 to 13:34: three signals of two minutes, a half each
    gross = 0.5 / 101 - 1 / 102 - 0.5 / 103
    assert found["gross_pct"] == pytest.approx(100 * gross, rel=1e-12)
    assert found["turnover"] == pytest.approx(0.5 + 0.5 + 1 + 0.5 + 0.5)
    assert found["cost_pct"] == pytest.approx(100 * 3 * ONE_WAY, rel=1e-12)
    assert (found["trades"], found["exposure"]) == (2, pytest.approx(0.5))


def random_market(seed: int, *, quoted: bool = False) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    """Five sessions with missing minutes and night jumps; forecasts at the ends of most bars."""
    bars = xnys_bars(date(2024, 11, 25), date(2024, 12, 2), seed=seed)  # with the half day of 29 November
    rng = np.random.default_rng(seed)
    bars = bars.filter(pl.Series(rng.random(bars.height) > 0.3)).select("time", "close")
    opens = bars["close"].to_numpy() * np.exp(rng.normal(0, 3e-4, bars.height))
    bars = bars.with_columns(open=pl.Series(opens))
    if quoted:
        half = rng.uniform(0, 5e-4, bars.height) * opens
        there = pl.Series(rng.random(bars.height) < 0.8)
        bars = bars.with_columns(bid=pl.Series(opens - half), ask=pl.Series(opens + half)).with_columns(
            pl.when(there).then("bid").alias("bid")
        )
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    chosen = rng.random(len(ends)) < 0.6
    return bars, ends[chosen], rng.normal(0, 1e-3, int(chosen.sum()))


def loop(
    settings: Settings, bars: pl.DataFrame, decisions: np.ndarray, forecast: np.ndarray
) -> dict[str, float]:
    """The same figures by following every bar, minute by minute."""
    rules, horizon = settings.backtest, settings.labels.horizon_minutes * MINUTE
    times = bars["time"].to_physical().to_list()
    days = bars["time"].dt.date().to_list()  # an XNYS session lies in one day, UTC
    opens, closes = bars["open"].to_list(), bars["close"].to_list()
    bids = bars["bid"].to_list() if "bid" in bars.columns else [None] * len(times)
    asks = bars["ask"].to_list() if "ask" in bars.columns else [None] * len(times)

    def one_way(i: int) -> float:
        bid, ask = bids[i], asks[i]
        usual = (rules.spread_bps or 0) / 1e4
        relative = usual if bid is None or ask is None else (ask - bid) / ((ask + bid) / 2)
        return relative / 2 + (rules.commission_bps + rules.slippage_bps) / 1e4

    made_on = {int(t): days[times.index(t - MINUTE)] for t in decisions}

    def wanted(i: int) -> float:
        active = []
        for t, f in zip(decisions.tolist(), forecast.tolist(), strict=True):
            if not times[i] - horizon < t <= times[i]:
                continue
            if made_on[t] != days[i] and not rules.hold_over_breaks:
                continue
            active.append(0 if abs(f) < rules.threshold_return else (1 if f > 0 else -1))
        if rules.position == "average":
            return sum(active) * MINUTE / horizon
        return float(next((s for s in reversed(active) if s), 0))

    start = next(i for i, t in enumerate(times) if t >= decisions[0])
    position, gross, cost, traded, held = 0.0, 0.0, 0.0, 0.0, []
    for i in range(start, len(times)):
        if times[i] >= decisions[-1] + horizon:
            traded += abs(position)
            cost += abs(position) * one_way(i)
            break
        target = wanted(i)
        traded += abs(target - position)
        cost += abs(target - position) * one_way(i)
        position = target
        held.append(position)
        last_of_session = i + 1 == len(times) or days[i + 1] != days[i]
        leaves = i + 1 == len(times) or (last_of_session and not rules.hold_over_breaks)
        price = closes[i] if leaves else opens[i + 1]
        gross += position * (price / opens[i] - 1)
        if leaves:
            traded += abs(position)
            cost += abs(position) * one_way(i)
            position = 0.0
    return {"gross": gross, "cost": cost, "traded": traded, "exposure": float(np.mean(np.abs(held)))}


@pytest.mark.parametrize("rule", ["average", "latest"])
@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_loop_over_bars_gives_the_same(rule: str, over: bool, quoted: bool) -> None:
    bars, decisions, forecast = random_market(7, quoted=quoted)
    bars = bars.head(900)
    kept = decisions < bars["time"].to_physical()[-40]
    decisions, forecast = decisions[kept], forecast[kept]
    settings = settings_of(10, position=rule, hold_over_breaks=over, threshold_return=5e-4, slippage_bps=0.5)
    found = backtest_section(settings, bars, {"test": (decisions, forecast)})["periods"]["test"]["strategy"]
    expected = loop(settings, bars, decisions, forecast)
    sessions = found["sessions"]
    assert found["gross_pct"] == pytest.approx(100 * expected["gross"], rel=1e-9)
    assert found["cost_pct"] == pytest.approx(100 * expected["cost"], rel=1e-9)
    assert found["turnover"] == pytest.approx(expected["traded"] / sessions, rel=1e-9)
    assert found["exposure"] == pytest.approx(expected["exposure"], rel=1e-9)


def strategy_of(settings: Settings, bars: pl.DataFrame, *forecast: Any) -> dict[str, Any]:
    found: dict[str, Any] = backtest_section(settings, bars, {"test": forecast})["periods"]["test"][
        "strategy"
    ]
    return found


def changed(bars: pl.DataFrame, rows: np.ndarray, seed: int = 0) -> pl.DataFrame:
    """Other prices, up to twice as high or low, on these rows."""
    factor = np.where(rows, np.exp(np.random.default_rng(seed).uniform(-0.7, 0.7, bars.height)), 1.0)
    prices = [name for name in ("open", "close", "bid", "ask") if name in bars.columns]
    return bars.with_columns(pl.col(name) * pl.Series(factor) for name in prices)


@pytest.mark.parametrize("rule", ["average", "latest"])
def test_no_fill_uses_a_price_at_or_before_its_decision(rule: str) -> None:
    bars, decisions, forecast = random_market(11, quoted=True)
    settings = settings_of(10, position=rule)
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    for k in (40, 500, 700):
        past = ends <= decisions[k]
        one = (decisions[k : k + 1], forecast[k : k + 1])
        before = backtest_section(settings, bars, {"test": one})
        assert before["periods"]["test"]["strategy"]["trades"] == 1
        assert backtest_section(settings, changed(bars, past), {"test": one}) == before
        at_fill = ends == ends[~past][0]
        assert backtest_section(settings, changed(bars, at_fill), {"test": one}) != before


def test_the_past_decides_only_whether_a_forecast_beats_its_cost() -> None:
    bars, decisions, forecast = random_market(12, quoted=True)
    settings = settings_of(10, threshold_return=None, threshold_costs=1.0)
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    k = int(np.argmax(np.abs(forecast)))
    one = (decisions[k : k + 1], forecast[k : k + 1])
    row = np.flatnonzero(ends == decisions[k])[0]
    wide = bars.with_columns(
        bid=pl.when(pl.int_range(pl.len()) == row).then(pl.col("close") * 0.9).otherwise("bid"),
        ask=pl.when(pl.int_range(pl.len()) == row).then(pl.col("close") * 1.1).otherwise("ask"),
    )
    assert strategy_of(settings, bars, *one)["trades"] == 1
    assert strategy_of(settings, wide, *one)["trades"] == 0


def test_a_jump_from_the_decision_close_to_the_next_open_cannot_be_earned() -> None:
    rng = np.random.default_rng(13)
    n = 300
    jump = rng.choice([-0.002, 0.002], n)  # from each close to the next open
    closes = 100 * np.exp(np.cumsum(np.concatenate([[0.0], jump[:-1]])))
    bars = frame(minutes(*range(n)), closes, closes)  # inside a bar nothing happens
    decisions, forecast = minutes(*range(1, n - 3)), jump[: n - 4]
    settings = settings_of(1, position="latest", spread_bps=0.0, commission_bps=0.0)
    honest = strategy_of(settings, bars, decisions, forecast)
    at_close = float(np.sum(np.abs(np.expm1(forecast))))
    assert at_close > 0.5
    following = np.expm1(jump[1 : n - 3]) * np.sign(forecast)
    assert honest["gross_pct"] == pytest.approx(100 * following.sum(), rel=1e-9)
    assert abs(honest["gross_pct"]) < 10

    early = bars.with_columns(time=pl.col("time").dt.offset_by("1m"))  # as if the close could be had
    early_gross = strategy_of(settings, early, decisions, forecast)["gross_pct"]
    assert early_gross != pytest.approx(honest["gross_pct"], rel=0.1)


def test_the_average_earns_what_the_labels_of_its_signals_say() -> None:
    first, last = date(2024, 11, 25), date(2024, 12, 2)
    sessions = trading_sessions("XNYS", first, last)
    bars = make_bars(sessions, first, last, missing=0.0)
    opens = bars["close"].shift(1).fill_null(100.0)
    bars = bars.select("time", "close", open=opens)  # a decision can be filled at its close
    settings = settings_of(30, spread_bps=0.0, commission_bps=0.0)
    labelled = label_bars(bars, sessions, settings.labels).drop_nulls("label_return")
    labels, decisions = labelled["label_return"].to_numpy(), labelled["decision_at"].to_physical().to_numpy()
    forecast = labels + np.random.default_rng(19).normal(0, 3e-3, len(labels))
    gross = strategy_of(settings, bars, decisions, forecast)["gross_pct"]
    assert gross > 1
    assert gross == pytest.approx(100 * float(np.sign(forecast) @ labels) / 30, rel=0.01)


@pytest.mark.parametrize("over", [False, True])
def test_bars_after_the_last_exit_change_nothing(over: bool) -> None:
    bars, decisions, forecast = random_market(14)
    chosen = decisions <= decisions[400]
    settings = settings_of(10, hold_over_breaks=over)
    times = bars["time"].to_physical().to_numpy()
    exit_at = times[times >= decisions[400] + 10 * MINUTE][0]
    later = times > exit_at
    given = {"test": (decisions[chosen], forecast[chosen])}
    before = backtest_section(settings, bars, given)
    assert backtest_section(settings, changed(bars, later), given) == before
    assert backtest_section(settings, bars.filter(pl.Series(~later)), given) == before
    assert backtest_section(settings, changed(bars, times == exit_at), given) != before


def test_positions_end_with_the_session_unless_they_may_be_carried() -> None:
    bars = xnys_bars(date(2024, 11, 29), date(2024, 12, 2)).with_columns(open=pl.col("close"))  # a half day
    day = bars["time"].dt.date()
    night = bars.with_columns(
        pl.when(day == date(2024, 12, 2)).then(pl.col(name) * 1.5).otherwise(name).alias(name)
        for name in ("open", "close")
    )
    ends = bars["time"].to_physical().to_numpy() + MINUTE
    friday = ends[(day == date(2024, 11, 29)).to_numpy()]
    late = (friday[-5:], np.full(5, 0.01))
    closes = bars.filter(day == date(2024, 11, 29))["close"].to_numpy()
    flat = settings_of(30, position="latest")
    found = strategy_of(flat, night, *late)
    assert found == strategy_of(flat, bars, *late)
    assert found["trades"] == 1
    assert found["gross_pct"] == pytest.approx(100 * float(np.sum(closes[-3:] / closes[-4:-1] - 1)), rel=1e-9)
    carried = settings_of(30, position="latest", hold_over_breaks=True)
    assert strategy_of(carried, night, *late)["gross_pct"] > 30

    closing = (friday[-1:], np.array([0.01]))  # the decision of the session's last bar
    period = backtest_section(flat, night, {"test": (friday[-5:], np.r_[np.zeros(4), 0.01])})["periods"][
        "test"
    ]
    assert (period["signals"], period["unfilled"], period["strategy"]["trades"]) == (1, 1, 0)
    with pytest.raises(DataError, match="no bar follows the decisions of test within a horizon"):
        backtest_section(flat, night, {"test": closing})


def test_a_direction_model_trades_by_its_probability() -> None:
    settings = settings_of(threshold_probability=0.1, position="latest")
    labels = settings.labels.model_copy(update={"task": "direction"})
    settings = settings.model_copy(update={"labels": labels})
    section = backtest_section(settings, SIX, {"test": (minutes(1, 2, 3), np.array([0.05, 0.2, -0.3]))})
    assert section["periods"]["test"]["signals"] == 2
    assert section["assumptions"]["threshold"] == {"unit": "probability", "value": 0.1}


def test_the_assumptions_say_what_was_assumed() -> None:
    bars, decisions, forecast = random_market(15, quoted=True)
    section = backtest_section(settings_of(10, threshold_return=None), bars, {"t": (decisions, forecast)})
    said = section["assumptions"]
    assert said["threshold"] == {"unit": "round-trip costs", "value": 1.0}
    assert (said["spread_bps"], said["commission_bps"], said["position"]) == (10.0, 1.0, "average")
    assert said["sessions_per_year"] == 251  # weekdays from 4 December 2023 less ten holidays
    assert 1.0 < said["mean_cost_bps"] < 7.0
    quotes = (bars["ask"] - bars["bid"]) / ((bars["ask"] + bars["bid"]) / 2)
    rows = bars["time"].to_physical().is_between(decisions[0], decisions[-1] + 10 * MINUTE, closed="left")
    expected = quotes.fill_null(1e-3).filter(rows).mean() / 2 * 1e4 + 1
    assert said["mean_cost_bps"] == pytest.approx(expected, rel=1e-9)
    assert json.loads(json.dumps(section, allow_nan=False)) == section


def test_periods_make_one_curve_and_stress_windows_their_own_figures() -> None:
    bars, decisions, forecast = random_market(16)
    day = utc_series("t", decisions).dt.date().to_numpy()
    first, second = day <= np.datetime64("2024-11-26"), day >= np.datetime64("2024-11-29")
    windows = [
        {"name": "thanksgiving", "first": "2024-11-29", "last": "2024-11-29"},
        {"name": "crash", "first": "2020-02-20", "last": "2020-03-23"},
    ]
    settings = settings_of(10, stress=windows)
    given = {"oot2": (decisions[second], forecast[second]), "test": (decisions[first], forecast[first])}
    section = backtest_section(settings, bars, given)
    assert list(section["periods"]) == ["test", "oot2"]
    days = [point["at"][:10] for point in section["curve"]]
    assert days == ["2024-11-25", "2024-11-26", "2024-11-29", "2024-12-02"]
    for name in ("strategy", "buy_and_hold"):
        returns = [1 + section["periods"][p][name]["return_pct"] / 100 for p in ("test", "oot2")]
        assert section["curve"][-1][name] == pytest.approx(np.prod(returns), rel=1e-12)
    calm, crash = section["stress"]
    third, second_point = section["curve"][2]["strategy"], section["curve"][1]["strategy"]
    assert calm["strategy_return_pct"] == pytest.approx(100 * (third / second_point - 1), rel=1e-9)
    assert (calm["sessions"], calm["reason"]) == (1, None)
    assert crash == {
        **dict.fromkeys(calm),
        **windows[1],
        "sessions": 0,
        "reason": "no forecast was made in these sessions",
    }


def test_a_long_curve_is_thinned_to_its_ends() -> None:
    days = trading_sessions("XNYS", date(2021, 1, 4), date(2024, 3, 28)).open_us
    times = (days[:, None] + np.arange(4) * 20 * MINUTE).ravel()
    price = 100 * np.exp(np.random.default_rng(18).normal(0, 1e-3, len(times)).cumsum())
    bars = frame(times, price, price)
    decisions = times[:-2] + MINUTE
    forecast = np.random.default_rng(17).normal(0, 1e-3, len(decisions))
    section = backtest_section(settings_of(40), bars, {"test": (decisions, forecast)})
    curve = section["curve"]
    assert len(curve) == 500
    assert curve[0]["at"].startswith("2020-12-28")
    assert curve[-1]["strategy"] == pytest.approx(
        1 + section["periods"]["test"]["strategy"]["return_pct"] / 100, rel=1e-9
    )


@pytest.mark.parametrize(
    ("bars", "forecasts", "error", "message"),
    [
        (SIX, {}, DataError, "got 0 periods and 6 bars; required: some of both"),
        (SIX.head(0), {"a": FORECAST}, DataError, "got 1 periods and 0 bars"),
        (SIX.reverse(), {"a": FORECAST}, DataError, "13:34.* does not follow its predecessor"),
        (SIX.with_columns(open=0.0), {"a": FORECAST}, DataError, "open is null, not finite or not positive"),
        (
            SIX.with_columns(pl.col("time").dt.offset_by("-6h")),
            {"a": FORECAST},
            DataError,
            "no bar lies in a session of market.calendar='XNYS'",
        ),
        (SIX, {"a": (FORECAST[0], np.zeros(2))}, DataError, r"a has \(3,\) decisions and \(2,\) forecasts"),
        (
            SIX,
            {"a": (FORECAST[0], np.full(3, np.nan))},
            DataError,
            "a: required: finite forecasts at strictly",
        ),
        (SIX, {"a": (FORECAST[0][::-1], np.zeros(3))}, DataError, "at strictly increasing decision times"),
        (SIX, {"a": FORECAST, "b": FORECAST}, DataError, "b begins before the end of a; required: a horizon"),
        (SIX, {"a": (minutes(90), np.ones(1))}, DataError, "no bar follows the decisions of a within"),
    ],
)
def test_what_cannot_be_traded_is_refused(
    bars: pl.DataFrame, forecasts: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        backtest_section(settings_of(), bars, forecasts)


def test_costs_must_be_known() -> None:
    settings = settings_of(spread_bps=None)
    with pytest.raises(SettingsError, match=r"spread_bps is empty; required: a spread, since 6 of 6 bars"):
        backtest_section(settings, SIX, {"test": FORECAST})
    quoted = SIX.with_columns(bid=pl.col("open") - 0.01, ask=pl.col("open") + 0.01)
    assert missing_costs(settings, quoted) is None
    assert backtest_section(settings, quoted, {"test": FORECAST})["assumptions"]["spread_bps"] is None
    gap = quoted.with_columns(ask=pl.when(pl.int_range(pl.len()) > 0).then("ask"))
    assert missing_costs(settings, gap) == (
        "backtest.spread_bps is empty; required: a spread, since 1 of 6 bars lack quotes"
    )
    unknown = settings_of(threshold_return=None)
    with pytest.raises(DataError, match="no bar ends by the first decision"):
        backtest_section(unknown, SIX, {"test": (minutes(0, 1), np.ones(2))})


def test_a_stress_window_ends_after_it_begins(home: Path) -> None:
    with pytest.raises(SettingsError, match="window 'x' ends on 2020-01-01; required: not before its first"):
        settings_of(stress=[{"name": "x", "first": "2020-02-01", "last": "2020-01-01"}])


def test_the_lakes_bars_reach_from_the_decision_bar_to_a_day_after_the_last_label(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    bars = xnys_bars()
    write_inputs(settings, bars)
    times = bars["time"].to_physical().to_numpy()
    first, last = int(times[5_000]) + MINUTE, int(times[9_000]) + MINUTE
    read = read_bars(settings, first, last)
    assert read.columns == ["time", "open", "close"]
    found = read["time"].to_physical().to_numpy()
    assert found[0] == times[5_000]
    stop = last + (30 + 1440) * MINUTE
    np.testing.assert_array_equal(found, times[(times >= times[5_000]) & (times < stop)])
    with pytest.raises(LakeError, match="no bars of instrument=TEST from 2030-01-01 "):
        read_bars(settings, 1_893_456_060_000_000, 1_893_456_060_000_000)
