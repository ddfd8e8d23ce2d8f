"""The dataset stage on Ray: eligible rows month by month, one split over all of them, then the stored rows.

First every month's bars are labelled and the eligible rows are listed (times only, no labels). The driver
cuts that list into splits. Then every month writes its rows to the splits it touches: train, validation and
test below ``gold/dataset``, OOT and OOT2 below ``gold/vault``. The split object is written last; until then
readers refuse rows that it does not name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from marketray.bars import DAY_MINUTES
from marketray.dataset.assemble import DROP_REASONS, eligible_rows, gold_rows, label_month
from marketray.dataset.labels import LabelReport, Moments
from marketray.dataset.load import split_path
from marketray.dataset.plan import (
    BARS,
    ELIGIBLE,
    FEATURES,
    Month,
    Target,
    delete_stale,
    eligible_partition,
    plan_months,
    plan_targets,
    stored_catalog,
)
from marketray.dataset.splits import Split, make_split
from marketray.errors import DataError, MarketrayError, SettingsError
from marketray.hashing import code_hash, digest, table_hash
from marketray.lake import Lake, Manifest
from marketray.sentiment.store import stored_scorer
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import Settings

if TYPE_CHECKING:
    from marketray.features.catalog import Catalog

__all__ = ["DatasetResult", "run_dataset"]

log = logging.getLogger(__name__)

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DatasetResult:
    """What the stage did.

    Attributes
    ----------
    written, skipped:
        Partitions written now, and found current.
    rows_in, rows_out, rows_dropped:
        Bars, rows in all five splits, and the others; rows_in = rows_out + rows_dropped.
    dropped:
        Counts by reason; ``split_gap`` are the purged and embargoed rows.
    labels:
        Label report over all bars.
    split:
        The split object.
    """

    written: int
    skipped: int
    rows_in: int
    rows_out: int
    rows_dropped: int
    dropped: dict[str, int]
    labels: LabelReport
    split: Split


def run_dataset(settings: Settings) -> DatasetResult:
    """Build labels, splits and rows for the settings' instrument; finished partitions are kept.

    The caller has joined Ray (`marketray.cluster.connect`).

    Raises
    ------
    SettingsError
        The bars are daily ones, which cannot be labelled.
    LakeError
        Bars or features are missing, or features are older than the bars or the catalog.
    DataError
        Too few eligible rows for the split.
    """
    _refuse_daily_bars(settings)
    lake = Lake(settings.lake_uri)
    catalog = stored_catalog(settings, lake)
    months = plan_months(settings, lake, catalog)
    lags = [n for n in catalog.names if n.startswith("return_1_lag_")]
    base = digest(
        code_hash("marketray.dataset", "marketray.sessions"),
        settings.labels.model_dump(mode="json"),
        settings.market.model_dump(mode="json"),
        settings.bar_interval_minutes,
    )
    written, skipped = _list_eligible(settings, lake, months, lags, base)
    split, offsets = _split(settings, lake, months, catalog)
    targets = {
        m.month: plan_targets(settings, lake, split, m, offset)
        for m, offset in zip(months, offsets, strict=True)
    }
    more = _write_rows(settings, lake, months, targets, catalog.names)
    delete_stale(settings, lake, months, [t for group in targets.values() for t in group])
    return _finish(settings, lake, months, split, (written + more[0], skipped + more[1]))


def _refuse_daily_bars(settings: Settings) -> None:
    """A daily bar is a whole session, so that nothing of its session is left to forecast at its end."""
    if settings.bar_interval_minutes >= DAY_MINUTES:
        msg = (
            f"bar_interval_minutes={settings.bar_interval_minutes}: a label never leaves its bar's session "
            "(law 2, docs/laws.md), and a daily bar is a whole session; required: bars shorter than a session"
        )
        raise SettingsError(msg, hint="daily bars have features only; label an instrument with intraday bars")


def _list_eligible(
    settings: Settings, lake: Lake, months: Sequence[Month], lags: list[str], base: str
) -> tuple[int, int]:
    calls = []
    for m in months:
        key = digest(base, m.inputs, m.warm_up_rows, lags)
        if not lake.is_current(ELIGIBLE, eligible_partition(settings, m.month), key):
            calls.append((f"eligible:{settings.instrument}:{m.month}", (settings, m, lags, key)))
    _gather(_list_month, calls)
    return len(calls), len(months) - len(calls)


def _list_month(settings: Settings, m: Month, lags: list[str], key: str) -> None:
    lake = Lake(settings.lake_uri)
    labelled = _label(settings, lake, m)
    features = _read(settings, lake, FEATURES, m.month, ["time", *lags])
    decisions = None
    if settings.market.decision_hours != "all":
        decisions = _sessions(settings.market.decision_hours, labelled["time"], ())
    found = eligible_rows(labelled, features, warm_up_rows=m.warm_up_rows, decision_sessions=decisions)
    table = found.rows.to_arrow()
    detail = {"dropped": found.dropped, "labels": asdict(found.labels)}
    dropped = labelled.height - table.num_rows
    manifest = Manifest(key, table_hash(table), labelled.height, table.num_rows, 0, dropped, detail)
    lake.write(ELIGIBLE, eligible_partition(settings, m.month), table, manifest)


def _label(settings: Settings, lake: Lake, m: Month) -> pl.DataFrame:
    bars = _read(settings, lake, BARS, m.month, ["time", "close"])
    following = bars.clear()
    if m.next_month is not None:
        following = _read(settings, lake, BARS, m.next_month, ["time", "close"])
    market = settings.market
    sessions = _sessions(market.calendar, bars["time"], market.breaks)
    interval = settings.bar_interval_minutes
    return label_month(bars, following, sessions, settings.labels, bar_interval_minutes=interval)


def _read(settings: Settings, lake: Lake, dataset: str, month: str, columns: list[str]) -> pl.DataFrame:
    partition = {"instrument": settings.instrument, "month": month}
    frame = pl.from_arrow(lake.read(dataset, partition, columns))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _sessions(calendar: str, times: pl.Series, breaks: tuple[str, ...]) -> Sessions:
    if len(times) == 0:
        return trading_sessions(calendar, date(2020, 1, 1), date(2020, 1, 31), breaks)
    return trading_sessions(calendar, times[0].date(), times[-1].date(), breaks)


def _split(
    settings: Settings, lake: Lake, months: Sequence[Month], catalog: Catalog
) -> tuple[Split, list[int]]:
    """The split object, and each month's position among all eligible rows."""
    tables = [
        lake.read(ELIGIBLE, eligible_partition(settings, m.month)).drop_columns(["position"]) for m in months
    ]
    offsets = np.concatenate([[0], np.cumsum([t.num_rows for t in tables])])
    together = pa.concat_tables(tables)
    decision, opened, ended = (
        np.asarray(together[c].cast(pa.int64()).to_numpy(), dtype=np.int64)
        for c in ("decision_at", "session_open_at", "label_end_at")
    )
    if len(decision) == 0:
        msg = f"dataset {settings.name!r}: none of the bars is eligible: {_totals(settings, lake, months)[0]}"
        raise DataError(
            msg, hint="check market.calendar, market.decision_hours and the length of the history"
        )
    plain = make_split(settings.instrument, decision, ended, opened, settings.split)
    detail = {
        "catalog_hash": catalog.hash,
        "feature_inputs": list(catalog.inputs),
        "fitted": [f.to_json() for f in catalog.fitted],
        "horizon_minutes": settings.labels.horizon_minutes,
        "scorer": stored_scorer(lake, settings.instrument) if catalog.news_columns else None,
    }
    split = Split(plain.instrument, plain.rows, plain.blocks, plain.cv, tuple(catalog.names), detail)
    return split, offsets[:-1].tolist()


def _write_rows(
    settings: Settings,
    lake: Lake,
    months: Sequence[Month],
    targets: dict[str, list[Target]],
    names: Sequence[str],
) -> tuple[int, int]:
    calls, written, skipped = [], 0, 0
    for m in months:
        missing = [t for t in targets[m.month] if not lake.is_current(t.dataset, t.partition, t.key)]
        written, skipped = written + len(missing), skipped + len(targets[m.month]) - len(missing)
        if missing:
            calls.append((f"dataset:{settings.instrument}:{m.month}", (settings, m, missing, list(names))))
    _gather(_write_month, calls)
    return written, skipped


def _write_month(settings: Settings, m: Month, targets: list[Target], names: list[str]) -> None:
    lake = Lake(settings.lake_uri)
    labelled = _label(settings, lake, m)
    features = _read(settings, lake, FEATURES, m.month, ["time", *names])
    positions = lake.read(ELIGIBLE, eligible_partition(settings, m.month))["position"].to_numpy()
    for t in targets:
        chosen = positions[t.start : t.stop]
        table = gold_rows(settings.instrument, labelled, features, chosen, names, settings.labels).to_arrow()
        rows = table.num_rows
        lake.write(t.dataset, t.partition, table, Manifest(t.key, table_hash(table), rows, rows))


def _totals(
    settings: Settings, lake: Lake, months: Sequence[Month]
) -> tuple[dict[str, int], LabelReport, int, int]:
    """Drop reasons, label report, bars and eligible rows over all months."""
    dropped, reports, rows_in, rows_out = dict.fromkeys(DROP_REASONS, 0), [], 0, 0
    for m in months:
        manifest = lake.manifest(ELIGIBLE, eligible_partition(settings, m.month))
        assert manifest is not None
        rows_in, rows_out = rows_in + manifest.rows_in, rows_out + manifest.rows_out
        for reason, count in manifest.detail["dropped"].items():
            dropped[reason] += count
        reports.append(_report(manifest.detail["labels"]))
    return dropped, LabelReport.total(reports), rows_in, rows_out


def _report(value: dict[str, Any]) -> LabelReport:
    kept, left = Moments(**value["kept_returns"]), Moments(**value["dropped_returns"])
    return LabelReport(value["rows"], value["kept"], value["dropped"], kept, left)


def _finish(
    settings: Settings, lake: Lake, months: Sequence[Month], split: Split, counts: tuple[int, int]
) -> DatasetResult:
    dropped, labels, rows_in, eligible = _totals(settings, lake, months)
    rows_out = sum(block.rows for block in split.blocks.values())
    dropped["split_gap"] = eligible - rows_out
    split.detail.update({"dropped": dropped, "labels": labels.summary()})
    lake.write_json(split_path(settings.name), split.to_json())
    manifest = {
        "key": digest([m.inputs for m in months], split.to_json()),
        "rows_in": rows_in,
        "rows_out": rows_out,
        "rows_quarantined": 0,
        "rows_dropped": rows_in - rows_out,
        "partitions": sum(counts),
        "detail": {"dropped": dropped, "labels": labels.summary(), "instrument": settings.instrument},
    }
    lake.write_json(f"manifests/dataset/{settings.name}.json", manifest)
    log.info("dataset %s: %d rows of %d bars, dropped %s", settings.name, rows_out, rows_in, dropped)
    return DatasetResult(*counts, rows_in, rows_out, rows_in - rows_out, dropped, labels, split)


def _gather(work: Callable[..., None], calls: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
    """Run named tasks on Ray and wait for all; a task's own marketray error is raised as it is."""
    if not calls:
        return
    import ray

    task = ray.remote(work)
    try:
        ray.get([task.options(name=name).remote(*args) for name, args in calls])
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, MarketrayError):
            raise e.cause from None
        raise
