"""A whole ingest: counts, months, merging, unchanged sources, refusals and the real layouts."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import DataError, QualityError
from marketray.ingest import intake
from marketray.ingest.intake import ingest_source
from marketray.lake import Lake
from marketray.settings import load_settings
from tests.ingest.made_bars import START, as_text, bronze, ingest, minutes, refused, tree

DAY = 1_440
COLUMNS = ["time", "open", "high", "low", "close", "volume"]


def put(bars: pl.DataFrame, path: Path) -> Path:
    as_text(bars).write_csv(path) if path.suffix == ".csv" else bars.write_parquet(path)
    return path


def test_clean_bars_arrive_as_they_are(home: Path) -> None:
    bars = minutes(4 * DAY)  # two days of January, two of February
    result = ingest(home, put(bars, home / "bars.csv"))
    found = bronze(home)
    assert found.select(COLUMNS).equals(bars)
    assert found["month"].unique(maintain_order=True).to_list() == ["2024-01", "2024-02"] == result.months
    assert (found["month"] == found["time"].dt.strftime("%Y-%m")).all()
    assert found.columns == [*COLUMNS, "outlier", "month"]
    assert (result.written, result.skipped, result.rows_in, result.rows_out) == (2, 0, len(bars), len(bars))
    assert (result.data_start, result.data_end) == (START, START + timedelta(days=4))
    assert (result.has_volume, result.has_quotes) == (True, False)
    assert not list((home / "lake" / "staging").rglob("*.parquet"))


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_every_format_gives_the_same_bytes(home: Path, form: str) -> None:
    bars = minutes(300)
    path = home / f"bars.{form}"
    as_text(bars).write_ndjson(path) if form == "ndjson" else put(bars, path)
    ingest(home, path)
    ingest(home / "other", put(bars, home / "reference.csv"))
    assert tree(home / "lake" / "bronze") == tree(home / "other" / "lake" / "bronze")


def test_every_bad_row_is_refused_with_its_line_and_text(home: Path) -> None:
    bars = as_text(minutes(400))
    lines = bars.write_csv().splitlines()
    parts = [line.split(",") for line in lines]

    def change(line: int, column: int, value: str) -> None:
        fields = lines[line - 1].split(",")
        fields[column] = value
        lines[line - 1] = ",".join(fields)

    change(10, 1, "abc")
    change(11, 4, "")
    change(12, 0, "someday")
    change(13, 0, "2024-01-30 00:11")  # no zone
    change(14, 2, "1.0")
    change(15, 3, "-5")
    change(16, 5, "-1")
    change(17, 0, parts[15][0])  # the stamp of line 16, which was refused: this one is good
    change(18, 0, parts[17 - 2][0])  # and this one repeats it
    change(19, 0, parts[2][0])
    lines[19] = "torn"
    change(300, 4, str(float(parts[299][4]) * 1.01))
    change(300, 2, "999")
    path = home / "bars.csv"
    path.write_text("\n".join(lines))
    result = ingest(home, path)
    assert refused(home) == [
        (10, "unreadable_open"),
        (11, "missing_close"),
        (12, "unreadable_time"),
        (13, "no_time_zone"),
        (14, "ohlc_inconsistent"),
        (15, "non_positive_price"),
        (16, "negative_volume"),
        (18, "conflicting_duplicate"),
        (19, "out_of_order"),
        (20, "unreadable_row"),
        (300, "spike"),
    ]
    kept = quarantine_by_line(home)
    assert kept[10]["open"] == "abc"
    assert kept[12]["time"] == "someday"
    assert kept[20]["text"] == "torn"
    assert kept[300]["high"] == "999"
    assert {row["source"] for row in kept.values()} == {"bars.csv"}
    assert {row["month"] for row in kept.values()} == {"2024-01", "undated"}
    assert (result.rows_in, result.rows_out, result.rows_quarantined) == (400, 389, 11)
    report = json.loads((home / "lake/manifests/ingest/TEST.report.json").read_text())
    assert report["reasons"]["spike"] == 1
    assert report["examples"]["unreadable_time"][0]["line"] == 12


def quarantine_by_line(home: Path) -> dict[int, dict[str, object]]:
    return {row["line"]: row for row in bronze(home, "quarantine/bars").iter_rows(named=True)}


def test_a_longer_file_adds_months_and_refreshes_the_last(home: Path) -> None:
    bars = minutes(64 * DAY)  # 30 January to 2 April
    path = put(bars[: 40 * DAY], home / "bars.csv")
    assert (first := ingest(home, path)).months == ["2024-01", "2024-02", "2024-03"]
    assert (first.written, first.skipped) == (3, 0)
    before = tree(home / "lake" / "bronze")
    put(bars, path)
    result = ingest(home, path)
    assert (result.written, result.skipped) == (2, 2)  # March anew and April; January and February stay
    assert bronze(home).select(COLUMNS).equals(bars)
    after = tree(home / "lake" / "bronze")
    assert {k for k in before if before[k] != after[k]} == {"bars/instrument=TEST/month=2024-03/part.parquet"}
    ingest(home / "fresh", path)
    assert after == tree(home / "fresh" / "lake" / "bronze")


def test_rows_outside_the_new_span_are_kept(home: Path) -> None:
    bars = minutes(40 * DAY)
    ingest(home, put(bars, home / "all.csv"))
    middle = bars[10 * DAY : 12 * DAY].with_columns(pl.col("volume") + 1)
    result = ingest(home, put(middle, home / "middle.csv"))
    expected = pl.concat([bars[: 10 * DAY], middle, bars[12 * DAY :]])
    assert bronze(home).select(COLUMNS).equals(expected)
    assert (result.months, result.written) == (["2024-02"], 1)
    manifest = Lake(str(home / "lake")).manifest("bronze/bars", {"instrument": "TEST", "month": "2024-02"})
    assert manifest.detail["rows_kept"] == 27 * DAY
    assert manifest.rows_in == manifest.rows_out == 29 * DAY
    assert ingest(home, home / "middle.csv").written == 0


def test_a_month_that_left_the_middle_of_the_file_leaves_the_lake(home: Path) -> None:
    bars = minutes(64 * DAY)  # 30 January to 2 April
    path = put(bars, home / "bars.csv")
    ingest(home, path)
    without = bars.filter(pl.col("time").dt.month() != 3)
    result = ingest(home, put(without, path))
    assert bronze(home).select(COLUMNS).equals(without)
    assert result.months == ["2024-01", "2024-02", "2024-04"]
    shorter = without[: 10 * DAY]  # what lies behind the file's end stays, as if it came from another
    ingest(home, put(shorter, path))
    assert bronze(home).select(COLUMNS).equals(without)


@pytest.mark.parametrize("wrong", [{"timezone": "Asia/Tokyo"}, {"timezone": "UTC", "stamp": "close"}])
def test_a_mended_declaration_leaves_nothing_of_the_wrong_one(home: Path, wrong: dict[str, str]) -> None:
    earlier = minutes(5 * DAY, START - timedelta(days=40))
    put(earlier, home / "earlier.csv")
    ingest(home, home / "earlier.csv")
    bars = minutes(33 * DAY, START + timedelta(days=2))  # 1 February to 4 March, midnight to midnight
    naive = bars.with_columns(pl.col("time").dt.replace_time_zone(None))
    naive.write_csv(home / "bars.csv", datetime_format="%Y-%m-%d %H:%M")
    ingest(home, home / "bars.csv", source=wrong)  # reaches back into January
    assert bronze(home).filter(pl.col("time") < bars["time"][0]).height > len(earlier)
    ingest(home, home / "bars.csv", source={"timezone": "UTC"})
    assert bronze(home).select(COLUMNS).equals(pl.concat([earlier, bars]))
    assert bronze(home)["month"].unique(maintain_order=True).to_list() == ["2023-12", "2024-02", "2024-03"]


def test_another_file_of_the_same_name_supersedes_nothing(home: Path) -> None:
    bars = minutes(4 * DAY)
    for year in ("old", "new"):
        (home / year).mkdir()
    put(bars[: 2 * DAY], home / "old" / "bars.csv")
    naive = bars[2 * DAY :].with_columns(pl.col("time").dt.replace_time_zone(None))
    naive.write_csv(home / "new" / "bars.csv", datetime_format="%Y-%m-%d %H:%M")
    ingest(home, home / "old" / "bars.csv")
    ingest(home, home / "new" / "bars.csv", source={"timezone": "UTC"})
    assert bronze(home).select(COLUMNS).equals(bars)


def test_bars_of_two_lengths_do_not_share_an_instrument(home: Path) -> None:
    bars = minutes(2 * DAY)
    ingest(home, put(bars, home / "bars.csv"))
    hourly = put(bars.gather_every(60), home / "hourly.csv")
    changes = {"bar_interval_minutes": 60, "labels": {"horizon_minutes": 60}}
    with pytest.raises(DataError, match="bar_interval_minutes=60: .* holds bars of 1 minutes"):
        ingest(home, hourly, **changes)
    with pytest.raises(QualityError, match=r"spacing: got 2879 of 2880 bars .*Set bar_interval_minutes"):
        ingest(home / "other", home / "bars.csv", quality={"max_quarantined_share": 0.5}, **changes)


def test_an_unchanged_source_is_not_read_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(minutes(3 * DAY).with_columns(low=pl.col("low") * 2), home / "bars.csv")
    bad = put(minutes(3 * DAY), home / "good.csv")
    first = ingest(home, path, bad)
    before = tree(home / "lake")
    monkeypatch.setattr(intake, "read_bars", lambda *_: pytest.fail("read again"))
    again = ingest(home, path, bad)
    assert (again.written, again.skipped) == (0, first.written)
    assert (again.rows_in, again.months, again.data_end) == (first.rows_in, first.months, first.data_end)
    assert tree(home / "lake") == before


def test_a_lost_partition_is_written_again(home: Path) -> None:
    path = put(minutes(4 * DAY), home / "bars.csv")
    ingest(home, path)
    before = tree(home / "lake")
    Lake(str(home / "lake")).delete("bronze/bars", {"instrument": "TEST", "month": "2024-02"})
    result = ingest(home, path)
    assert (result.written, result.skipped) == (1, 1)
    assert tree(home / "lake") == before


def test_freshness_is_checked_even_where_nothing_changed(home: Path) -> None:
    path = put(minutes(DAY), home / "bars.csv")
    ingest(home, path, clock="data")
    with pytest.raises(QualityError, match="freshness: got a last bar that ended 9.0 days before the clock"):
        ingest(home, path, clock=(START + timedelta(days=10)).isoformat())


def test_the_system_clock_is_asked_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    path = put(minutes(DAY, end - timedelta(days=1)), home / "bars.csv")
    assert ingest(home, path, clock="system").written >= 1
    monkeypatch.setattr("marketray.ingest.record.resolve_clock", lambda *_: end + timedelta(days=8))
    with pytest.raises(QualityError, match="freshness"):
        ingest(home, path, clock="system")
    report = json.loads((home / "lake/manifests/ingest/TEST.report.json").read_text())
    assert report["status"] == "failed"


def test_bars_after_the_clock_are_refused(home: Path) -> None:
    path = put(minutes(100), home / "bars.csv")
    result = ingest(home, path, clock=(START + timedelta(minutes=98)).isoformat())
    assert refused(home) == [(100, "after_clock"), (101, "after_clock")]
    assert result.data_end == START + timedelta(minutes=98)


@pytest.mark.parametrize(
    ("source", "quality", "message"),
    [
        ({}, {"min_rows": 10_000}, "rows: got 4320 usable rows; required: at least 10000"),
        ({}, {"max_missing_share": 0.0}, "missing volume: got 1 of 4321 rows"),
        ({}, {"max_quarantined_share": 0.0}, "quarantined: got 1 of 4321 rows .* 1 missing_open"),
    ],
)
def test_a_failed_check_leaves_the_lake_as_it_was(
    home: Path, source: dict[str, object], quality: dict[str, object], message: str
) -> None:
    ingest(home, put(minutes(2 * DAY), home / "bars.csv"))
    before = tree(home / "lake")
    extra = minutes(1, START + timedelta(days=3)).with_columns(
        open=pl.lit(None, pl.Float64), volume=pl.lit(None, pl.Float64)
    )
    put(pl.concat([minutes(3 * DAY, seed=9), extra]), home / "bars.csv")
    with pytest.raises(QualityError, match=message):
        ingest(home, home / "bars.csv", source=source, quality=quality)
    after = tree(home / "lake")
    report = json.loads(after.pop("manifests/ingest/TEST.report.json"))
    before.pop("manifests/ingest/TEST.report.json")
    assert after == before
    assert report["status"] == "failed"
    assert report["examples"]["missing_open"][0]["line"] == 4322


@pytest.mark.parametrize(
    ("volume", "declared", "expected"),
    [
        ([0.0, 0.0, 0.0], "auto", [None, None, None]),
        ([0.0, None, 0.0], "present", [0.0, None, 0.0]),
        ([0.0, None, 2.0], "auto", [0.0, None, 2.0]),
        ([1.0, 1.0, 2.0], "absent", [None, None, None]),
    ],
)
def test_volume_is_taken_or_absent_never_made_up(
    home: Path, volume: list[float | None], declared: str, expected: list[float | None]
) -> None:
    path = put(minutes(3).with_columns(volume=pl.Series(volume)), home / "bars.parquet")
    result = ingest(home, path, source={"volume": declared})
    assert bronze(home)["volume"].to_list() == expected
    assert result.has_volume is (expected[2] is not None)


def test_quotes_are_stored_where_they_are_given(home: Path) -> None:
    bars = minutes(3).with_columns(bid=pl.col("close") - 1, ask=pl.col("close") + 1)
    assert ingest(home, put(bars, home / "bars.parquet")).has_quotes
    assert bronze(home).select(*COLUMNS, "bid", "ask").equals(bars)
    assert bronze(home).columns == [*COLUMNS, "bid", "ask", "outlier", "month"]


def test_a_file_without_rows_is_an_error(home: Path) -> None:
    (home / "bars.csv").write_text("time,open,high,low,close\n")
    with pytest.raises(DataError, match="bars.csv holds no rows"):
        ingest(home, home / "bars.csv")
    assert not list((home / "lake").rglob("*.parquet"))


def test_local_close_stamps_become_utc_opens(home: Path) -> None:
    bars = minutes(2 * DAY, datetime(2024, 3, 9, 12, tzinfo=UTC))  # clocks go forward within
    ends = (pl.col("time") + pl.duration(minutes=1)).dt.convert_time_zone("America/New_York")
    as_text(bars).with_columns(bars.select(ends.dt.strftime("%Y-%m-%d %H:%M"))).write_csv(home / "bars.csv")
    ingest(home, home / "bars.csv", source={"timezone": "America/New_York", "stamp": "close"})
    assert bronze(home).select(COLUMNS).equals(bars)


def test_the_simulator_goes_through_the_same_checks(home: Path) -> None:
    overrides = {"home": str(home), "source": {"kind": "simulator", "bars": 12_000, "effect": "all"}}
    result = ingest_source(load_settings(overrides=overrides))
    bars = bronze(home, instrument="SPX500_USD")
    assert len(bars) == result.rows_out == result.rows_in == 12_000
    assert result.has_volume
    assert result.has_quotes
    for dataset in ("bronze/articles", "bronze/oracle"):
        assert bronze(home, dataset, "SPX500_USD")["month"].unique().sort().to_list() == result.months
    again = ingest_source(load_settings(overrides=overrides))
    assert (again.written, again.skipped) == (0, 3 * len(result.months))


def simulator(home: Path, **changes: object) -> None:
    source = {"kind": "simulator", "bars": 45_000, **changes}
    ingest_source(load_settings(overrides={"home": str(home), "instrument": "TEST", "source": source}))


def test_another_simulation_replaces_all_of_the_last(home: Path) -> None:
    simulator(home)
    simulator(home, bars=12_000, start="2024-02-01", seed=8)
    simulator(home / "fresh", bars=12_000, start="2024-02-01", seed=8)
    assert tree(home / "lake" / "bronze") == tree(home / "fresh" / "lake" / "bronze")


def test_files_replace_a_simulation_but_never_the_reverse(home: Path) -> None:
    simulator(home)
    bars = minutes(4 * DAY)
    ingest(home, put(bars, home / "bars.csv"))
    assert bronze(home).select(COLUMNS).equals(bars)
    before = tree(home / "lake")
    with pytest.raises(DataError, match="instrument=TEST holds bars from files .* must not replace them"):
        simulator(home)
    assert tree(home / "lake") == before


def test_many_refused_rows_are_set_aside_in_parts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = minutes(4 * DAY).with_columns(low=pl.col("high") * 2)
    path = put(pl.concat([bars, minutes(1, START + timedelta(days=5))]), home / "bars.csv")
    ingest(home / "whole", path)
    monkeypatch.setattr("marketray.ingest.quarantine._SPILL_ROWS", 1_000)
    monkeypatch.setattr("marketray.ingest.sources.text.CHUNK_ROWS", 700)
    ingest(home / "parts", path)
    assert len(bronze(home / "whole", "quarantine/bars")) == 4 * DAY
    assert tree(home / "whole" / "lake") == tree(home / "parts" / "lake")


def test_a_mended_file_empties_its_quarantine(home: Path) -> None:
    bars = minutes(50)
    other = put(bars.with_columns(low=pl.col("high") * 2)[:3], home / "other.csv")
    path = put(
        bars.with_columns(low=pl.when(pl.int_range(50) == 7).then(-1.0).otherwise("low")), home / "bars.csv"
    )
    good = put(minutes(9, START - timedelta(days=1)), home / "good.csv")
    ingest(home, good, other)
    ingest(home, path)
    assert refused(home) == [(2, "ohlc_inconsistent"), (3, "ohlc_inconsistent"), (4, "ohlc_inconsistent"),
                             (9, "non_positive_price")]  # fmt: skip
    ingest(home, put(bars, path))
    assert set(bronze(home, "quarantine/bars")["source"]) == {"other.csv"}
    ingest(home, good, put(bars, other))
    assert refused(home) == []
