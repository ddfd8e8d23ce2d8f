"""``marketray audit …``: do features use the future, look back far enough, and come out the same live?"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketray.cli_options import Config, Json
from marketray.errors import RefusedError

if TYPE_CHECKING:
    from marketray.features.audit_run import AuditReport

__all__ = ["audit_app"]

audit_app = typer.Typer(help="Audits of the features, built-in and your own.", no_args_is_help=True)

Size = Annotated[
    int | None,
    typer.Option("--bars", min=100, help="Audit on the latest N bars (default: by the lookbacks)."),
]


@audit_app.command()
def lookahead(config: Config = None, bars: Size = None, as_json: Json = False) -> None:
    """Cut off, change and delete later bars; name each feature whose past changes. Exit 3 on a finding."""
    from marketray.features.audit_run import audit_look_ahead
    from marketray.settings import load_settings

    report = audit_look_ahead(load_settings(config), size=bars)
    _print(report, as_json)
    _refuse(report, "use the future", "shift(-n), centred windows and whole-sample statistics look ahead")


@audit_app.command()
def warmup(
    config: Config = None,
    bars: Size = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="HTML file (default: warmup.html in the run's folder).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure each feature's error against its lookback; name lookbacks too short. Exit 3 on a finding."""
    from marketray.features.audit_run import audit_warm_up
    from marketray.settings import load_settings

    settings = load_settings(config)
    path = plot.absolute() if plot is not None else settings.run_path / "warmup.html"
    report = audit_warm_up(settings, path, size=bars)
    _print(report, as_json)
    _refuse(report, "need more bars than they declare for 1e-9", _warm_up_hint(report.findings))


@audit_app.command()
def parity(
    config: Config = None,
    day: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="Session date to replay (default: the lake's last full one)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay a recorded day bar by bar; name features that differ from the batch. Exit 3 on a finding."""
    from marketray.features.audit_run import audit_parity
    from marketray.settings import load_settings

    report = audit_parity(load_settings(config), day.date() if day is not None else None)
    _print(report, as_json)
    _refuse(
        report,
        "differ between live and batch",
        "`marketray audit warmup` finds lookbacks too short; changed files need the features stage again",
    )


def _print(report: AuditReport, as_json: bool) -> None:
    from marketray.console import as_plain, show

    if as_json:
        typer.echo(json.dumps(as_plain(report), sort_keys=True))
        return
    details = report.details
    typer.echo(f"bars: {details['bars']:,} of {details['origin']}, {details['first']} to {details['last']}")
    for name in ("day", "compared_with", "restarted_at", "not_audited", "plot"):
        if details.get(name):
            typer.echo(f"{name.replace('_', ' ')}: {as_plain(details[name])}")
    for line in _table(details.get("table", [])):
        typer.echo(line)
    if report.findings:
        show(report.findings)
    typer.echo(f"{report.features} features, {len(report.findings)} findings")


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Error at each share of the declared lookback, in at most 80 characters a line."""
    lines = []
    for row in rows:
        name, lookback, *errors = row.values()
        cells = [f"{e:.0e}" if isinstance(e, float) else e for e in errors]
        lines.append(f"{name:<28.28}{lookback:>6}" + "".join(f"{cell:>8}" for cell in cells))
    if rows:
        head = "".join(f"{share:>8}" for share in list(rows[0])[2:])
        lines.insert(0, f"{'feature':<28}{'bars':>6}{head}")
    return lines


def _warm_up_hint(findings: list[dict[str, Any]]) -> str:
    """What to do about lookbacks too short, and about features that no lookback can help."""
    ahead = [finding["feature"] for finding in findings if finding["ahead"]]
    hints = []
    if len(ahead) < len(findings):
        hints.append("declare the bars in the column `required`")
    if ahead:
        hints.append(
            f"no lookback is enough for {', '.join(ahead)}: all earlier bars together do not give the value, "
            "so it depends on the future; run `marketray audit lookahead`"
        )
    return "; ".join(hints)


def _refuse(report: AuditReport, what: str, hint: str) -> None:
    if report.findings:
        guilty = [finding["feature"] for finding in report.findings]
        msg = f"audit: {len(guilty)} of {report.features} features {what}: {', '.join(guilty)}"
        raise RefusedError(msg, hint=hint)
