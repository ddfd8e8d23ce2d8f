"""A recorded day replayed bar by bar has the batch's rows; what differs is found and named."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import DataError, LakeError
from marketray.features.audit_run import audit_parity
from marketray.features.catalog import build_catalog
from marketray.features.items import stage_key
from marketray.features.kernel import compute
from marketray.features.online import OnlineState
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.sessions import trading_sessions
from marketray.settings import Settings, load_settings
from tests.features.market import COLUMNS, make_bars, store

INSTRUMENT = "TEST_USD"
XNYS = {"calendar": "XNYS", "breaks": []}
ALL = make_bars(9_000, seed=61, start=datetime(2024, 2, 26, tzinfo=UTC))  # to 5 March, 19:24 UTC
BARS = ALL.filter(pl.col("time").dt.hour().is_between(15, 21))  # the last hour lies after the close
GROUPS = ("returns", "volume", "session")
LAST = date(2024, 3, 4)  # of New York, the last that has ended
PARTITION = {"instrument": INSTRUMENT, "month": "2024-03"}

SHORT = """
import polars as pl
from marketray.features.user import feature

@feature(group="mine", lookback=20)
def hasty():
    return pl.col("close").ewm_mean(span=200, adjust=False) / pl.col("close") - 1
"""


@pytest.fixture
def settings(home: Path) -> Settings:
    """Bars of two months in New York's hours and around them; no features yet."""
    made = load_settings(
        None, {"instrument": INSTRUMENT, "market": XNYS, "features": {"groups": GROUPS}, "home": str(home)}
    )
    store(Lake(made.lake_uri), INSTRUMENT, BARS)
    return made


def store_features(settings: Settings, change: pl.Expr | None = None) -> pl.DataFrame:
    """Store what the features stage would, with one column replaced; return the honest rows."""
    lake = Lake(settings.lake_uri)
    catalog = build_catalog(settings.features, COLUMNS)
    market, times = settings.market, BARS["time"]
    sessions = trading_sessions(market.calendar, times[0].date(), times[-1].date(), market.breaks)
    rows = compute(catalog, BARS, sessions)
    written = rows if change is None else rows.with_columns(change)
    for (month,), part in written.group_by(pl.col("time").dt.strftime("%Y-%m"), maintain_order=True):
        table = part.to_arrow()
        manifest = Manifest("test", table_hash(table), part.height, part.height)
        lake.write("silver/features", {"instrument": INSTRUMENT, "month": str(month)}, table, manifest)
    found = [lake.manifest("bronze/bars", p) for p in lake.partitions("bronze/bars")]
    contents = [m.content for m in found if m is not None]
    lake.write_json(
        f"manifests/features/{INSTRUMENT}.json", {"key": stage_key(catalog.hash, market, contents)}
    )
    return rows


def test_a_day_replays_to_rows_computed_now_where_none_are_stored(settings: Settings) -> None:
    report = audit_parity(settings)
    assert report.findings == []
    assert report.features == len(build_catalog(settings.features, COLUMNS).names)
    bars = BARS.filter(pl.col("time").is_between(*span(4), closed="left"))
    details = report.details
    assert details["day"] == LAST
    assert (details["bars"], details["first"]) == (bars.height, bars["time"][0])
    assert details["restarted_at"] == bars["time"][bars.height // 2]
    assert details["compared_with"] == "computed now, since silver/features is not there"


def test_a_day_replays_to_the_stored_rows_and_a_changed_one_is_named(settings: Settings) -> None:
    honest = store_features(settings)
    report = audit_parity(settings, date(2024, 3, 1))  # its bars begin in February
    assert (report.findings, report.details["compared_with"]) == ([], "silver/features")
    name, (start, _) = "return_5", span(4)
    moment = honest.filter(pl.col("time") >= start)["time"][70]
    store_features(settings, change_at(moment, pl.col(name) + 1e-3, name))
    (finding,) = audit_parity(settings).findings
    shown = honest.filter(pl.col("time") == moment)
    assert finding["feature"] == name
    assert finding["when"] == ("replay",)
    assert finding["rows"] == 1
    assert finding["first_decision_at"] == shown["decision_at"][0]
    assert finding["difference"] == pytest.approx(1e-3, rel=1e-9)
    march = honest.filter(pl.col("time").dt.month() == 3)[name]
    spread = march.quantile(0.75) - march.quantile(0.25)
    assert finding["difference_in_iqr"] == pytest.approx(1e-3 / spread, rel=1e-3)


def test_one_bit_of_an_exact_feature_and_a_lost_value_are_found(settings: Settings) -> None:
    honest = store_features(settings)
    moment = honest.filter(pl.col("time") >= datetime(2024, 3, 4, tzinfo=UTC))["time"][3]
    exact = build_catalog(settings.features, COLUMNS)["minutes_since_open"]
    assert exact.exact
    store_features(
        settings, change_at(moment, pl.col("minutes_since_open") * (1 + 2**-52), "minutes_since_open")
    )
    (finding,) = audit_parity(settings).findings
    assert finding["feature"] == "minutes_since_open"
    assert 0 < finding["difference"] < 1e-10
    store_features(settings, change_at(moment, pl.lit(None, pl.Float64), "return_2"))
    (finding,) = audit_parity(settings).findings
    assert (finding["feature"], finding["rows"], finding["difference"]) == ("return_2", 1, None)


def test_features_of_other_bars_are_not_compared_with(settings: Settings) -> None:
    store_features(settings, pl.lit(0.0).alias("return_5"))
    store(Lake(settings.lake_uri), INSTRUMENT, BARS.head(BARS.height - 9))
    report = audit_parity(settings)
    assert report.findings == []
    assert report.details["compared_with"].endswith("silver/features is of other bars, settings or code")


def test_a_lookback_too_short_for_a_live_row_is_found(settings: Settings, home: Path) -> None:
    (home / "mine.py").write_text(SHORT)
    features = {"groups": ["mine", "returns"], "files": ["mine.py"]}
    own = load_settings(
        None, {"instrument": INSTRUMENT, "market": XNYS, "features": features, "home": str(home)}
    )
    (finding,) = audit_parity(own).findings
    assert finding["feature"] == "hasty"
    assert finding["rows"] > 300
    assert finding["difference_in_iqr"] > 1e-9


def test_a_state_that_restarts_otherwise_is_found(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = OnlineState.from_lake

    def forgetful(*arguments: object, **options: object) -> OnlineState:
        state = restore(*arguments, **options)
        if options["until"] > noon:
            state._bars = state._bars.with_columns(pl.col("volume") * 2)
        return state

    noon = datetime(2024, 3, 4, 12, tzinfo=UTC)
    monkeypatch.setattr(OnlineState, "from_lake", forgetful)
    report = audit_parity(settings)
    assert {f["when"] for f in report.findings} == {("restart",)}
    assert "volume_ratio_20" in {f["feature"] for f in report.findings}
    assert all(f["first_decision_at"] > report.details["restarted_at"] for f in report.findings)


def test_silver_without_a_bars_row_is_an_error(settings: Settings) -> None:
    store_features(settings)
    lake = Lake(settings.lake_uri)
    table = lake.read("silver/features", PARTITION)
    table = table.slice(0, 500)
    lake.write("silver/features", PARTITION, table, Manifest("test", "", 500, 500))
    with pytest.raises(LakeError, match=r"silver/features has \d+ rows from 2024-03-01 .* the \d+ bars"):
        audit_parity(settings)


def test_a_day_without_bars_is_named(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"--day 2024-03-02: no session date of XNYS") as raised:
        audit_parity(settings, date(2024, 3, 2))
    assert raised.value.hint == "for example 2024-03-04"
    with pytest.raises(DataError, match=r"--day 2023-05-02: got no bars of TEST_USD") as raised:
        audit_parity(settings, date(2023, 5, 2))
    assert "its bars open from 2023-05-01 20:00 to 2023-05-02 20:00 UTC" in str(raised.value.hint)


def test_a_lake_without_bars_or_without_an_ended_day_is_an_error(settings: Settings) -> None:
    lake = Lake(settings.lake_uri)
    lake.delete("bronze/bars")
    with pytest.raises(LakeError, match="audit parity: no bars of TEST_USD"):
        audit_parity(settings)
    store(lake, INSTRUMENT, BARS.filter(pl.col("time") >= datetime(2024, 3, 5, tzinfo=UTC)))
    with pytest.raises(DataError, match="audit parity: no session date of TEST_USD has ended"):
        audit_parity(settings)


def span(day: int) -> tuple[datetime, datetime]:
    """From the close of New York before a day of March 2024 to the day's close."""
    friday_or_before = 1 if day == 4 else day - 1
    return datetime(2024, 3, friday_or_before, 21, tzinfo=UTC), datetime(2024, 3, day, 21, tzinfo=UTC)


def change_at(moment: datetime, value: pl.Expr, name: str) -> pl.Expr:
    """`value` in the row of one bar, the column itself elsewhere."""
    return pl.when(pl.col("time") == moment).then(value).otherwise(name).alias(name)
