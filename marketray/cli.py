"""``marketray …``: thin commands over the stages.

Exit codes: 0 ok, 1 failed, 2 bad usage, 3 refused. Heavy imports happen inside commands, so that
``marketray --help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketray.cli_audit import audit_app
from marketray.cli_backtest import backtest
from marketray.cli_models import models_app
from marketray.cli_options import Config, Json, print_result
from marketray.cli_traffic import traffic_app
from marketray.errors import MarketrayError, SettingsError

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["app", "main"]

app = typer.Typer(
    name="marketray",
    help="Market forecasts you can trust: tuned on Ray, chosen on evidence, served with Ray Serve.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(models_app, name="models")
app.add_typer(traffic_app, name="traffic")
app.add_typer(audit_app, name="audit")

Bars = Annotated[
    list[Path] | None,
    typer.Option("--bars", help="CSV, NDJSON or Parquet file of bars; repeat for several files."),
]
Zone = Annotated[str | None, typer.Option("--timezone", help="Zone of stamps without one, e.g. UTC.")]
Stamp = Annotated[str | None, typer.Option("--stamp", help="Whether a stamp is the bar's open or close.")]
Instrument = Annotated[
    str | None,
    typer.Option("--instrument", help="Instrument name in the lake; with --bars by default the file's name."),
]
Calendar = Annotated[
    str | None, typer.Option("--calendar", help="Exchange calendar of the bars, e.g. CMES or XNYS.")
]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", help="OUR=THEIRS column name, e.g. time=timestamp; repeatable."),
]
Select = Annotated[
    list[str] | None,
    typer.Option("--select", help="COLUMN=VALUE: only rows of this value, e.g. symbol=AAPL; repeatable."),
]


def _load(config: Path | None, overrides: dict[str, Any] | None = None) -> Settings:
    from marketray.settings import load_settings

    return load_settings(config, overrides)


def _bars_overrides(  # one option each, as typed
    bars: list[Path] | None,
    timezone: str | None,
    stamp: str | None,
    instrument: str | None,
    calendar: str | None,
    column: list[str] | None,
    select: list[str] | None,
) -> dict[str, Any]:
    """Settings that the bar options stand for; paths become absolute in the caller's folder."""
    overrides: dict[str, Any] = {}
    if bars:
        source: dict[str, Any] = {"kind": "files", "paths": [str(p.absolute()) for p in bars]}
        if timezone:
            source["timezone"] = timezone
        if stamp:
            source["stamp"] = stamp
        if column:
            source["columns"] = dict(_pair("--column", text, "time=timestamp") for text in column)
        if select:
            source["select"] = dict(_pair("--select", text, "symbol=AAPL") for text in select)
        overrides["source"] = source
        name = instrument or bars[0].name.split(".")[0]
        overrides |= {"instrument": name, "name": name}
    elif timezone or stamp or column or select:
        msg = "--timezone, --stamp, --column and --select describe files; required: --bars FILE as well"
        raise SettingsError(msg)
    if instrument:
        overrides["instrument"] = instrument
    if calendar:
        overrides["market"] = {"calendar": calendar, "breaks": []}
    return overrides


def _pair(option: str, text: str, example: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals or not left or not right:
        msg = f"{option}: got {text!r}; required: NAME=VALUE"
        raise SettingsError(msg, hint=f"for example {option} {example}")
    return left, right


def _connect(settings: Settings) -> None:
    from marketray.cluster import connect

    logging.getLogger("marketray").info("Ray dashboard: %s", connect(settings))


def _stage(name: str, config: Path | None, as_json: bool, overrides: dict[str, Any] | None = None) -> None:
    from marketray.pipeline import run_stage

    settings = _load(config, overrides)
    _connect(settings)
    print_result(run_stage(name, settings), as_json)


@app.command()
def run(
    config: Config = None,
    bars: Bars = None,
    timezone: Zone = None,
    stamp: Stamp = None,
    instrument: Instrument = None,
    calendar: Calendar = None,
    column: Column = None,
    select: Select = None,
    require_promotion: Annotated[
        bool, typer.Option("--require-promotion", help="Exit 3 unless the model is promoted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run every stage: bars in, a registered model and its evidence out."""
    from marketray.console import pipeline_summary, show_pipeline
    from marketray.pipeline import run_pipeline

    settings = _load(config, _bars_overrides(bars, timezone, stamp, instrument, calendar, column, select))
    _connect(settings)
    done = run_pipeline(settings)
    saved = _keep_settings(settings) if bars else None
    if as_json:
        typer.echo(json.dumps(pipeline_summary(settings, done), sort_keys=True))
    else:
        show_pipeline(settings, done)
        if saved is not None:
            typer.echo(f"next: marketray serve --config {saved}")
    if require_promotion:
        _require_promotion(done.results["select"])


def _keep_settings(settings: Settings) -> Path:
    """Store the settings that options made, so that later commands can name them."""
    from marketray.settings_file import save_settings

    path = settings.run_path / "settings.yaml"
    save_settings(settings, path)
    return path


def _require_promotion(selection: Any) -> None:
    from marketray.errors import RefusedError

    if selection.verdict != "promoted":
        msg = f"--require-promotion: the verdict is {selection.verdict!r}; required: 'promoted'"
        raise RefusedError(msg, hint="report.html says which evidence is missing")
    if selection.alias != "champion":
        msg = f"--require-promotion: version {selection.model_version} is not the champion: "
        hint = "`marketray models history` lists the moves; `models promote --force --reason TEXT` overrules"
        raise RefusedError(msg + selection.alias_declined, hint=hint)


@app.command()
def ingest(
    config: Config = None,
    bars: Bars = None,
    timezone: Zone = None,
    stamp: Stamp = None,
    instrument: Instrument = None,
    calendar: Calendar = None,
    column: Column = None,
    select: Select = None,
    as_json: Json = False,
) -> None:
    """Read bars (and news) into the lake; bad rows go to quarantine."""
    _stage(
        "ingest",
        config,
        as_json,
        _bars_overrides(bars, timezone, stamp, instrument, calendar, column, select),
    )


@app.command()
def sentiment(config: Config = None, as_json: Json = False) -> None:
    """Score the lake's news articles with a FinBERT on Ray Data actors, each text once."""
    _stage("sentiment", config, as_json)


@app.command()
def features(config: Config = None, as_json: Json = False) -> None:
    """Compute the feature catalog over the lake's bars with Ray Data."""
    _stage("features", config, as_json)


@app.command()
def dataset(config: Config = None, as_json: Json = False) -> None:
    """Join features with labels and cut train, validation, test and the vault."""
    _stage("dataset", config, as_json)


@app.command()
def tune(config: Config = None, as_json: Json = False) -> None:
    """Tune all families at once in two stages on Ray Tune."""
    _stage("tune", config, as_json)


@app.command()
def select(
    config: Config = None,
    require_promotion: Annotated[
        bool, typer.Option("--require-promotion", help="Exit 3 unless the model is promoted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Choose the best family, weigh its evidence, register it and write the report."""
    from marketray.pipeline import run_stage

    settings = _load(config)
    _connect(settings)
    chosen = run_stage("select", settings)
    print_result(chosen, as_json)
    if require_promotion:
        _require_promotion(chosen)


@app.command()
def serve(config: Config = None) -> None:
    """Serve the champion over HTTP until interrupted (Ctrl-C)."""
    from marketray.serving import run as serving
    from marketray.serving.mode import prepare

    settings = _load(config)
    prepare(settings)
    _connect(settings)
    with serving.until_interrupted():
        url = serving.start(settings)
        typer.echo(f"serving {settings.model_name} at {url} (documentation: {url}/docs); Ctrl-C stops it")
        serving.wait()


@app.command()
def predict(
    url: Annotated[str | None, typer.Option("--url", help="Address of the service.")] = None,
    bars: Annotated[Path | None, typer.Option("--bars", help="JSON list of bars to forecast from.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Ask the running service for a forecast."""
    from marketray.serving.client import predict as ask

    settings = _load(config)
    address = url or f"http://{settings.serving.host}:{settings.serving.port}"
    print_result(ask(address, instrument=settings.instrument, bars=_read_bars(bars)), as_json)


def _read_bars(path: Path | None) -> list[dict[str, Any]] | None:
    if path is None:
        return None
    try:
        loaded = json.loads(path.read_bytes())
    except (OSError, ValueError) as e:
        msg = f"--bars {path}: not a readable JSON file ({e})"
        raise SettingsError(msg) from e
    if not isinstance(loaded, list):
        msg = f"--bars {path}: got a {type(loaded).__name__}; required: a list of bars"
        raise SettingsError(msg)
    return loaded


app.command()(backtest)


def main() -> None:
    """Entry point: turns errors into one clear message and the right exit code."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(asctime)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    logging.getLogger("marketray").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        app(args=arguments)
    except MarketrayError as e:
        if debug:
            raise
        typer.echo(f"error: {e}", err=True)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
