"""The audits as commands: what was audited, the guilty, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from marketray.errors import DataError, LakeError
from marketray.features.audit import look_ahead
from marketray.features.audit_bars import audit_bars
from marketray.features.catalog import Catalog, build_catalog
from marketray.features.parity import recorded_day, replay_day
from marketray.features.stage import available_columns
from marketray.features.warmup import SHARES, WarmUp, warm_up
from marketray.lake import Lake
from marketray.settings import Settings

__all__ = ["AuditReport", "audit_look_ahead", "audit_parity", "audit_warm_up"]


@dataclass(frozen=True)
class AuditReport:
    """Outcome of an audit, as ``--json`` prints it.

    Attributes
    ----------
    features:
        How many were audited.
    findings:
        One object for each guilty feature: its name and by how much. For the warm-up `ahead` tells
        features that depend on later bars, for which no lookback is enough.
    details:
        `origin` and number of the bars, first and last bar's open, features that could not be audited
        with the reason; for the warm-up the table and where the plot is; for parity the day, what its
        rows were compared with, and the open of the first bar after the restart.
    """

    features: int
    findings: list[dict[str, Any]]
    details: dict[str, Any]


def audit_look_ahead(settings: Settings, *, size: int | None = None) -> AuditReport:
    """Run `marketray.features.audit.look_ahead` for the settings' features, fitted ones included.

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
    catalog = chosen.catalog
    short = [f.name for f in catalog.features if f.lookback >= chosen.frame.height]
    short += [f.name for f in catalog.fitted if f.of in short]
    found = look_ahead(catalog, chosen.frame, chosen.sessions, news=chosen.news)
    return AuditReport(
        features=len(catalog.names) + len(catalog.fitted) - len(short),
        findings=[asdict(f) for f in found],
        details=_details(chosen.frame, chosen.origin, catalog, _too_long(chosen.frame, short)),
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
    measured = warm_up(chosen.catalog, chosen.frame, chosen.sessions, news=chosen.news)
    done = {m.feature for m in measured}
    short = _too_long(chosen.frame, [name for name in chosen.catalog.names if name not in done])
    others = _fitted(chosen.catalog, "is fitted and has no lookback of its own: see {}")
    details = _details(chosen.frame, chosen.origin, chosen.catalog, short | others)
    details["table"] = [_table_row(m) for m in measured]
    if plot is not None:
        _write_plot(measured, plot)
        details["plot"] = str(plot)
    findings = [
        {
            "feature": m.feature,
            "lookback": m.lookback,
            "error": _finite(m.error),
            "required": m.required,
            "ahead": m.ahead,
        }
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
    available = available_columns(lake, settings.instrument, news=settings.sentiment.enabled)
    if not available:
        msg = f"audit parity: no bars of {settings.instrument} in {settings.lake_uri}"
        raise LakeError(msg, hint="run `marketray ingest` first, or check `instrument` and `lake`")
    catalog = build_catalog(settings.features, available, settings.bar_interval_minutes)
    recording = recorded_day(settings, lake, catalog, day)
    replay = replay_day(settings, lake, catalog, recording)
    origin = f"{settings.instrument} in {settings.lake_uri}"
    others = _fitted(catalog, "is fitted and made inside a model, live and in batch alike, from {}")
    details = _details(recording.bars, origin, catalog, others)
    details |= {"day": recording.day, "compared_with": replay.batch, "restarted_at": replay.restarted_at}
    findings = [asdict(m) for m in replay.mismatches]
    return AuditReport(features=len(catalog.names), findings=findings, details=details)


def _too_long(bars: pl.DataFrame, names: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(names, f"its lookback is too long for {bars.height} bars")


def _fitted(catalog: Catalog, reason: str) -> dict[str, str]:
    return {f.name: reason.format(f.of) for f in catalog.fitted}


def _details(bars: pl.DataFrame, origin: str, catalog: Catalog, others: dict[str, str]) -> dict[str, Any]:
    return {
        "origin": origin,
        "bars": bars.height,
        "first": bars["time"][0],
        "last": bars["time"][-1],
        "not_audited": dict.fromkeys(catalog.dropped, "the bars lack its inputs") | others,
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
        name = m.feature if m.enough else f"{m.feature} ({'looks ahead' if m.ahead else 'too short'})"
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
