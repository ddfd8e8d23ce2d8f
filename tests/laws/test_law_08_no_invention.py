"""Law 8, no invention: what cannot be read is refused with its reason, never replaced by a made-up value."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketray.errors import DataError
from marketray.ingest.parsing import parse_chunk, parse_stamps
from marketray.ingest.sources.files import RawChunk
from tests.ingest.made_bars import as_text, bronze, ingest, minutes

BROKEN = pl.DataFrame(schema={"line": pl.Int64, "reason": pl.String, "text": pl.String})
PRICES = ("open", "high", "low", "close")
TEXTS = ["1.5", "", "nan", "inf", "-inf", "x", "1,5", " 2", "1e2", "0x1"]


@given(st.text(max_size=25))
@settings(max_examples=50, deadline=None)
def test_a_stamp_is_read_or_refused_never_made_up(text: str) -> None:
    time, reason = parse_stamps(pl.Series([text]), "UTC").row(0)
    assert (reason is None) or reason in {
        "missing_time", "unreadable_time", "time_out_of_range", "off_minute"
    }  # fmt: skip
    if reason is None:
        digits = "".join(c for c in text if c.isdigit())
        assert len(digits) >= 8, "a time came out of text that holds none"
        assert time != datetime.now(UTC).replace(second=0, microsecond=0)
    if reason in {"missing_time", "unreadable_time"}:
        assert time is None


@given(
    st.lists(
        st.sampled_from(["1.5", "", "nan", "inf", "-inf", "x", "1,5", " 2", "1e2", "0x1"]),
        min_size=4,
        max_size=4,
    )
)
def test_a_number_is_read_or_refused_never_made_up(values: list[str]) -> None:
    numbers = {"1.5": 1.5, " 2": 2.0, "1e2": 100.0}
    row = {
        "line": [7],
        "time": ["2024-01-30T00:00:00Z"],
        **{p: [v] for p, v in zip(PRICES, values, strict=True)},
    }
    parsed = parse_chunk(
        RawChunk("f", pl.DataFrame(row), BROKEN), timezone=None, stamp="open", interval_minutes=1
    )
    for price, value in zip(PRICES, values, strict=True):
        assert parsed[price][0] == numbers.get(value)
    first_bad = next(((p, v) for p, v in zip(PRICES, values, strict=True) if v not in numbers), None)
    missing = ("", "nan")
    expected = first_bad and f"{'missing' if first_bad[1] in missing else 'unreadable'}_{first_bad[0]}"
    assert parsed["reason"][0] == expected


def test_no_bar_is_filled_in_and_none_is_altered(home: Path) -> None:
    """Gaps stay gaps, refused rows leave gaps, and every stored value is one of the file's."""
    bars = minutes(3_000).filter(pl.int_range(3_000) % 7 != 3)
    flawed = bars.with_columns(close=pl.when(pl.int_range(len(bars)) % 11 == 5).then(None).otherwise("close"))
    as_text(flawed).write_csv(home / "bars.csv")
    ingest(home, home / "bars.csv")
    stored = bronze(home)
    assert stored.select(bars.columns).equals(flawed.filter(pl.col("close").is_not_null()))
    assert len(stored) + len(bronze(home, "quarantine/bars")) == len(bars)


@pytest.mark.parametrize("volume", ["0", ""])
def test_a_volume_that_is_not_there_stays_absent(home: Path, volume: str) -> None:
    as_text(minutes(50)).with_columns(volume=pl.lit(volume)).write_csv(home / "bars.csv")
    assert not ingest(home, home / "bars.csv").has_volume
    assert bronze(home)["volume"].is_null().all()


def test_a_zone_is_never_assumed(home: Path) -> None:
    bars = minutes(50)
    as_text(bars).with_columns(bars["time"].dt.strftime("%Y-%m-%d %H:%M")).write_csv(home / "bars.csv")
    with pytest.raises(DataError, match="without a time zone, and none is declared"):
        ingest(home, home / "bars.csv")
    assert not (home / "lake" / "bronze").exists()


def test_hours_that_the_clocks_repeat_or_skip_are_refused(home: Path) -> None:
    """Autumn 2018 in New York: 01:00-01:59 happened twice, and nobody can say which is meant."""
    local = pl.datetime_range(
        datetime(2018, 11, 4), datetime(2018, 11, 4, 4, 59), "1m", eager=True, time_unit="us"
    )
    bars = minutes(300).with_columns(time=local.dt.strftime("%Y-%m-%d %H:%M"))
    bars.write_csv(home / "bars.csv")
    ingest(home, home / "bars.csv", source={"timezone": "America/New_York"})
    lost = bronze(home, "quarantine/bars")
    assert lost["reason"].to_list() == ["ambiguous_local_time"] * 60
    assert lost["time"].to_list() == [f"2018-11-04 01:{m:02d}" for m in range(60)]
    expected = local.filter(local.dt.hour() != 1).dt.replace_time_zone("America/New_York")
    assert bronze(home)["time"].equals(expected.dt.convert_time_zone("UTC"))
