"""The whole path from bars to a registered model, stage after stage."""

from __future__ import annotations

import importlib
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marketray import errors
from marketray.errors import ClusterError, MarketrayError, SettingsError

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["STAGES", "PipelineResult", "run_pipeline", "run_stage", "unwrapped_errors"]

logger = logging.getLogger(__name__)

STAGES = {
    "ingest": ("marketray.ingest.stage", "run_ingest"),
    "sentiment": ("marketray.sentiment.stage", "run_sentiment"),
    "features": ("marketray.features.stage", "run_features"),
    "dataset": ("marketray.dataset.stage", "run_dataset"),
    "tune": ("marketray.tuning.stage", "run_tune"),
    "select": ("marketray.evaluation.stage", "run_select"),
}
"""Stage name -> (module, function); each function takes the settings. In the order of a full run."""


@dataclass
class PipelineResult:
    """What each stage returned and how long it took.

    Attributes
    ----------
    results:
        Stage name -> the stage's own result object.
    stage_seconds:
        Stage name -> wall clock in seconds.
    """

    results: dict[str, Any] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)


def run_stage(name: str, settings: Settings) -> Any:
    """Run one stage on the connected Ray cluster and return its result.

    Raises
    ------
    SettingsError
        There is no stage of this name.
    MarketrayError
        What the stage raised, also when it was raised inside a Ray task.
    """
    if name not in STAGES:
        msg = f"stage={name!r}; required: one of {', '.join(STAGES)}"
        raise SettingsError(msg)
    module, function = STAGES[name]
    with unwrapped_errors():
        return getattr(importlib.import_module(module), function)(settings)


def run_pipeline(settings: Settings) -> PipelineResult:
    """Run every stage in order; finished partitions and finished tuning are skipped by the stages.

    Raises
    ------
    MarketrayError
        The first stage that fails ends the run; what earlier stages wrote stays. Feature settings that
        no bars could satisfy, or a tracking server that cannot be reached, end it before the first stage.
    """
    from marketray.features.catalog import check_features
    from marketray.tracking import connect_tracking

    check_features(settings.features, settings.bar_interval_minutes)
    connect_tracking(settings)
    done = PipelineResult()
    for name in STAGES:
        if name == "sentiment" and not _has_news(settings):
            continue
        started = time.perf_counter()
        logger.info("stage %s: start", name)
        done.results[name] = run_stage(name, settings)
        done.stage_seconds[name] = round(time.perf_counter() - started, 2)
        logger.info("stage %s: done in %.1f s", name, done.stage_seconds[name])
    return done


def _has_news(settings: Settings) -> bool:
    """Whether there are articles to score; says so where not. Scores of articles that are gone go too."""
    from marketray.lake import Lake
    from marketray.sentiment.publish import withdraw_sentiment
    from marketray.sentiment.store import ARTICLES

    if not settings.sentiment.enabled:
        logger.info("stage sentiment: skipped, since sentiment.enabled is false")
        return False
    lake = Lake(settings.lake_uri)
    found = bool(lake.partitions(ARTICLES, instrument=settings.instrument))
    if not found:
        withdraw_sentiment(lake, settings.instrument)
        logger.info("stage sentiment: skipped, since there are no articles of %s", settings.instrument)
    return found


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise the MarketrayError inside an error that Ray wrapped; any other Ray error as ClusterError."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as e:
        inner = _marketray_cause(e) or _named_in_trace(str(e))
        if inner is not None:
            raise inner from e
        reason = str(e).strip().splitlines()[-1] if str(e).strip() else type(e).__name__
        msg = f"a Ray task failed: {reason}"
        raise ClusterError(msg, hint="--debug shows the whole trace; the dashboard names the task") from e


def _marketray_cause(error: BaseException) -> MarketrayError | None:
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        current = queue.pop()
        if id(current) in seen or not isinstance(current, BaseException):
            continue
        seen.add(id(current))
        # Ray's wrapper inherits from the cause's class, but only the cause has its attributes.
        if isinstance(current, MarketrayError) and "message" in vars(current):
            return current
        queue += [vars(current).get("cause"), current.__cause__, current.__context__]
    return None


_IN_TRACE = re.compile(r"^\s*marketray\.errors\.(\w+): (.*)(?:\n\s*Hint: (.*))?$", re.MULTILINE)


def _named_in_trace(trace: str) -> MarketrayError | None:
    """The MarketrayError that a trace names: Ray Data ships a failed function's error as text only."""
    match = _IN_TRACE.search(trace)
    if match is None or match[1] not in errors.__all__:
        return None
    error: MarketrayError = getattr(errors, match[1])(match[2], hint=match[3])
    return error
