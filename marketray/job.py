"""What every script of ``jobs/`` does: settings, cluster, stages, exit code."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

from marketray.errors import MarketrayError

__all__ = ["run_job"]

logger = logging.getLogger(__name__)


def run_job(stage: str | None, description: str | None, arguments: Sequence[str] | None = None) -> None:
    """Run one stage, or all of them, on the job's cluster; the last line printed is the result as JSON.

    The process ends with 0 when the work is done, 1 where it failed, 2 on wrong arguments or settings. An
    error of marketray is one message with its hint; any other keeps its trace.

    Parameters
    ----------
    stage:
        Name in `marketray.pipeline.STAGES`, or ``backtest``; None runs the whole pipeline.
    description:
        For ``--help``.
    arguments:
        Command line without the program's name; None: the process's own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", help="YAML settings file (default: the default settings)")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    given = parser.parse_args(arguments)
    level = logging.DEBUG if given.debug else logging.INFO
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("marketray").setLevel(level)
    try:
        result = _run(stage, given.config)
    except MarketrayError as e:
        if given.debug:
            raise
        sys.stderr.write(f"error: {e}\n")
        sys.exit(e.exit_code)
    sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")


def _run(stage: str | None, config: str | None) -> Any:
    from marketray.cluster import connect
    from marketray.console import as_plain, pipeline_summary
    from marketray.pipeline import run_pipeline, run_stage, unwrapped_errors
    from marketray.settings import load_settings

    settings = load_settings(config)
    if stage == "backtest":  # of a finished run, not a stage of it; joins Ray itself
        from marketray.evaluation.walkforward_stage import run_backtest

        with unwrapped_errors():
            return as_plain(run_backtest(settings))
    logger.info("Ray dashboard: %s", connect(settings))
    if stage is None:
        return as_plain(pipeline_summary(settings, run_pipeline(settings)))
    return as_plain(run_stage(stage, settings))
