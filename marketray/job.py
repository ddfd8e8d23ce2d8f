"""What every script of ``jobs/`` does: settings, cluster, stages, exit code."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marketray.errors import MarketrayError, SettingsError

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["run_job"]

logger = logging.getLogger(__name__)

_OPTIONS = {
    "batch_inference": {
        "--model": "alias or version (default: champion)",
        "--out": "address of the lake that takes the forecasts (default: the settings' own)",
    },
    "online_inference": {
        "--bars": "CSV, Parquet or NDJSON file of bars to send (default: -, NDJSON from standard input)",
        "--url": "address of the service (default: that of the settings)",
        "--pace-seconds": "time between two bars (default: 0)",
    },
}
"""Options of a stage beside those that all have, with their help."""


def run_job(stage: str | None, description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Run one stage, or all of them, on the job's cluster; the last line printed is the result as JSON.

    The process ends with 0 when the work is done, 1 where it failed, 2 on wrong arguments or settings. An
    error of marketray is one message with its hint; any other keeps its trace.

    Parameters
    ----------
    stage:
        Name in `marketray.pipeline.STAGES`, ``backtest``, ``batch_inference`` or ``online_inference``; None
        runs the whole pipeline.
    description:
        For ``--help``.
    arguments:
        Command line without the program's name; None: the process's own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", help="YAML settings file (default: the default settings)")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    for option, text in _OPTIONS.get(stage or "", {}).items():
        parser.add_argument(option, help=text)
    given = parser.parse_args(arguments)
    level = logging.DEBUG if given.debug else logging.INFO
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("marketray").setLevel(level)
    try:
        options = {k: v for k, v in vars(given).items() if k not in ("config", "debug") and v is not None}
        result = _run(stage, given.config, options)
    except MarketrayError as e:
        if given.debug:
            raise
        sys.stderr.write(f"error: {e}\n")
        sys.exit(e.exit_code)
    sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")


def _run(stage: str | None, config: str | None, options: dict[str, str]) -> Any:
    from marketray.cluster import connect
    from marketray.console import as_plain, pipeline_summary
    from marketray.pipeline import run_pipeline, run_stage, unwrapped_errors
    from marketray.settings import load_settings

    settings = load_settings(config)
    if stage == "backtest":  # of a finished run, not a stage of it; joins Ray itself
        from marketray.evaluation.walkforward_stage import run_backtest

        with unwrapped_errors():
            return as_plain(run_backtest(settings))
    if stage == "online_inference":  # needs a running service and no cluster
        return as_plain(_online(settings, **options))
    logger.info("Ray dashboard: %s", connect(settings))
    if stage == "batch_inference":
        from marketray.serving.batch import run_batch_inference

        with unwrapped_errors():
            return as_plain(run_batch_inference(settings, **options))
    if stage is None:
        return as_plain(pipeline_summary(settings, run_pipeline(settings)))
    return as_plain(run_stage(stage, settings))


def _online(settings: Settings, bars: str = "-", url: str | None = None, pace_seconds: str = "0") -> Any:
    """Send bars and print a line for each forecast."""
    from marketray.serving.replay import run_online_inference

    try:
        pace = float(pace_seconds)
    except ValueError as e:
        msg = f"--pace-seconds: got {pace_seconds!r}; required: a number of seconds"
        raise SettingsError(msg) from e

    def tell(forecast: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(forecast, sort_keys=True) + "\n")
        sys.stdout.flush()

    return run_online_inference(settings, bars, url=url, pace_seconds=max(pace, 0.0), tell=tell)
