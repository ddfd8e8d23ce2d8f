"""The audits on a run's own bars, or on simulated ones where the lake has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from marketray.bars import COLUMNS, QUOTES, SIZES
from marketray.errors import DataError, LakeError
from marketray.features.audit import look_ahead
from marketray.features.catalog import Catalog, build_catalog
from marketray.features.parity import recorded_day, replay_day
from marketray.features.stage import BARS, available_columns
from marketray.features.warmup import SHARES, WarmUp, warm_up
from marketray.ingest.sources.simulator import simulate
from marketray.lake import Lake
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import Settings, SimulatorSource

__all__ = [
    "AuditBars",
    "AuditReport",
    "audit_bars",
    "audit_look_ahead",
    "audit_parity",
    "audit_warm_up",
]

_log = logging.getLogger(__name__)

_LEAST = 6_000
_SIMULATED_LEAST = 10_000


@dataclass(frozen=True)
class AuditReport:
    """Outcome of an audit, as ``--json`` prints it.

    Attributes
    ----------
    features:
        How many were audited.
    findings:
        One object for each guilty feature: its name and by how much.
    details:
        `origin` and number of the bars, first and last bar's open, features that could not be audited
        with the reason; for the warm-up the table and where the plot is; for parity the day, what its
        rows were compared with, and the open of the first bar after the restart.
    """

    features: int
    findings: list[dict[str, Any]]
    details: dict[str, Any]


@dataclass(frozen=True)
class AuditBars:
    """The bars of an audit, where they come from, and the catalog that they can carry."""

    frame: pl.DataFrame
    origin: str
    catalog: Catalog
    sessions: Sessions


def audit_look_ahead(settings: Settings, *, size: int | None = None) -> AuditReport:
    """Run `marketray.features.audit.look_ahead` for the settings' features.

    Parameters
    ----------
    size:
        Latest bars to use; by default 6,000, or three times the longest lookback.

    Raises
    ------
    SettingsError, DataError, LakeError
        The features or the bars are not what is required.
    """
    chosen = audit_bars(settings, size)
    short = [f.name for f in chosen.catalog.features if f.lookback >= chosen.frame.height]
    found = look_ahead(chosen.catalog, chosen.frame, chosen.sessions)
    return AuditReport(
        features=len(chosen.catalog.names) - len(short),
        findings=[asdict(f) for f in found],
        details=_details(chosen.frame, chosen.origin, chosen.catalog, short),
    )


def audit_warm_up(settings: Settings, plot: Path | None = None, *, size: int | None = None) -> AuditReport:
    """Run `marketray.features.warmup.warm_up` for the settings' features.

    Parameters
    ----------
    plot:
        HTML file to write error against lookback to; none where None.
    size:
        Latest bars to use; by default 6,000, or three times the longest lookback.

    Raises
    ------
    SettingsError, DataError, LakeError
        The features or the bars are not what is required, or the plot cannot be written.
    """
    chosen = audit_bars(settings, size)
    measured = warm_up(chosen.catalog, chosen.frame, chosen.sessions)
    done = {m.feature for m in measured}
    short = [name for name in chosen.catalog.names if name not in done]
    details = _details(chosen.frame, chosen.origin, chosen.catalog, short)
    details["table"] = [_table_row(m) for m in measured]
    if plot is not None:
        _write_plot(measured, plot)
        details["plot"] = str(plot)
    findings = [
        {"feature": m.feature, "lookback": m.lookback, "error": _finite(m.error), "required": m.required}
        for m in measured
        if not m.enough
    ]
    return AuditReport(features=len(measured), findings=findings, details=details)


def audit_parity(settings: Settings, day: date | None = None) -> AuditReport:
    """Run `marketray.features.parity.replay_day` for the settings' features.

    Parameters
    ----------
    day:
        A session date of the calendar; by default the last that has ended in the lake.

    Raises
    ------
    SettingsError, DataError, LakeError
        The features or the bars are not what is required; the lake has no bars of the instrument or day.
    """
    lake = Lake(settings.lake_uri)
    available = available_columns(lake, settings.instrument)
    if not available:
        msg = f"audit parity: no bars of {settings.instrument} in {settings.lake_uri}"
        raise LakeError(msg, hint="run `marketray ingest` first, or check `instrument` and `lake`")
    catalog = build_catalog(settings.features, available, settings.bar_interval_minutes)
    recording = recorded_day(settings, lake, catalog, day)
    replay = replay_day(settings, lake, catalog, recording)
    origin = f"{settings.instrument} in {settings.lake_uri}"
    details = _details(recording.bars, origin, catalog)
    details |= {"day": recording.day, "compared_with": replay.batch, "restarted_at": replay.restarted_at}
    findings = [asdict(m) for m in replay.mismatches]
    return AuditReport(features=len(catalog.names), findings=findings, details=details)


def audit_bars(settings: Settings, size: int | None = None) -> AuditBars:
    """The instrument's latest bars in the lake; simulated ones where it has none.

    Raises
    ------
    LakeError
        The lake cannot be read.
    DataError
        There are fewer than 100 bars.
    """
    lake = Lake(settings.lake_uri)
    interval = settings.bar_interval_minutes
    available = available_columns(lake, settings.instrument)
    origin = f"{settings.instrument} in {settings.lake_uri}"
    stored = bool(available)
    catalog = build_catalog(settings.features, available if stored else COLUMNS, interval)
    wanted = size or max(_LEAST, 3 * catalog.lookback)
    if stored:
        frame = _latest(lake, settings.instrument, wanted, catalog.columns)
    else:
        origin = f"simulated bars, since the lake has none of {settings.instrument}"
        _log.info("audit: %s", origin)
        frame = _simulated(settings, wanted)
        catalog = build_catalog(settings.features, [c for c in frame.columns if c != "outlier"], interval)
    if frame.height < 100:
        msg = f"audit: got {frame.height} bars of {origin}; required: at least 100"
        raise DataError(msg, hint="ingest more bars")
    first, last = frame["time"][0].date(), frame["time"][-1].date()
    sessions = trading_sessions(settings.market.calendar, first, last, settings.market.breaks)
    return AuditBars(frame, origin, catalog, sessions)


def _latest(lake: Lake, instrument: str, wanted: int, columns: Sequence[str]) -> pl.DataFrame:
    parts: list[pl.DataFrame] = []
    for partition in reversed(lake.partitions(BARS, instrument=instrument)):
        part = pl.DataFrame(pl.from_arrow(lake.read(BARS, partition)))
        absent = [pl.lit(None, pl.Float64).alias(name) for name in columns if name not in part.columns]
        parts.append(part.with_columns(absent).select(columns))
        if sum(map(len, parts)) >= wanted:
            break
    return pl.concat(reversed(parts)).tail(wanted)


def _simulated(settings: Settings, wanted: int) -> pl.DataFrame:
    """Simulated bars of the settings' interval, with made quotes and sizes around the close."""
    base = settings.source if isinstance(settings.source, SimulatorSource) else SimulatorSource()
    step = settings.bar_interval_minutes
    minutes = max(_SIMULATED_LEAST, wanted * step * 2)
    source = base.model_copy(update={"bars": minutes})
    chunks = simulate(source, settings.market, settings.instrument)
    frame = pl.concat(pl.DataFrame(pl.from_arrow(chunk.bars)) for chunk in chunks)
    half = pl.col("close") * 1e-5 * (1 + pl.col("volume") % 7)
    sizes = {name: 1 + pl.col("volume") % n for name, n in zip(SIZES, (11, 13), strict=True)}
    frame = frame.with_columns(bid=pl.col("close") - half, ask=pl.col("close") + half, **sizes)
    if step > 1:
        opens, closes = pl.col("open").first(), pl.col("close", *QUOTES, *SIZES).last()
        ranges = (pl.col("high").max(), pl.col("low").min(), pl.col("volume").sum())
        frame = frame.group_by_dynamic("time", every=f"{step}m").agg(opens, *ranges, closes)
    return frame.select(COLUMNS).tail(wanted)


def _details(bars: pl.DataFrame, origin: str, catalog: Catalog, short: Sequence[str] = ()) -> dict[str, Any]:
    reasons = dict.fromkeys(catalog.dropped, "the bars lack its inputs")
    reasons |= dict.fromkeys(short, f"its lookback is too long for {bars.height} bars")
    return {
        "origin": origin,
        "bars": bars.height,
        "first": bars["time"][0],
        "last": bars["time"][-1],
        "not_audited": reasons,
    }


def _finite(value: float) -> float | str:
    return value if value < float("inf") else "missing"


def _table_row(m: WarmUp) -> dict[str, Any]:
    errors = dict(zip(m.bars, m.errors, strict=True))
    shares = {s: errors[max(1, round(s * m.lookback))] for s in SHARES}
    return {"feature": m.feature, "lookback": m.lookback} | {f"{s:g}x": _finite(e) for s, e in shares.items()}


def _write_plot(measured: Sequence[WarmUp], path: Path) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for m in measured:
        points = [(n / m.lookback, max(e, 1e-17)) for n, e in zip(m.bars, m.errors, strict=True)]
        known = [(x, y) for x, y in points if y < float("inf")]
        name = m.feature if m.enough else f"{m.feature} (too short)"
        figure.add_scatter(x=[x for x, _ in known], y=[y for _, y in known], name=name, mode="lines+markers")
    figure.add_hline(y=1e-9, line_dash="dash", annotation_text="1e-9")
    figure.update_layout(
        title="Error of each feature against the bars it was given",
        xaxis_title="bars given / declared lookback",
        yaxis={"type": "log", "title": "|error| / max(|value|, IQR)", "exponentformat": "e"},
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.write_html(path, include_plotlyjs=True)
    except OSError as e:
        msg = f"--plot {path}: cannot be written ({e.strerror})"
        raise DataError(msg, hint="name another file") from e
