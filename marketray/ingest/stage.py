"""The ingest stage on Ray: one task an instrument, since bars must be judged in their order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from marketray.errors import MarketrayError
from marketray.ingest.intake import ingest_source
from marketray.ingest.news import ingest_news
from marketray.ingest.news_record import NewsResult
from marketray.ingest.record import IngestResult, panel_result

if TYPE_CHECKING:
    from ray import ObjectRef

    from marketray.settings import Settings

__all__ = ["IngestResult", "run_ingest"]

T = TypeVar("T", IngestResult, NewsResult)


def run_ingest(settings: Settings) -> IngestResult:
    """Bring every instrument of `settings` into bronze, each in the Ray task ``ingest:<instrument>``.

    Then the articles that `settings.news` names, in the task ``news:<instrument>`` of the labelled one.

    The caller has joined a cluster (`marketray.cluster.connect`). A task is repeated where its node is
    lost; finished partitions are not written again. An instrument that fails does not keep the others out
    of the lake, but the stage fails.

    Raises
    ------
    DataError
        The source cannot be used as declared.
    QualityError
        A dataset check failed; the instrument's bronze is as it was. Of several errors the first is raised,
        with the text of all.
    """
    import ray

    task = ray.remote(ingest_source)
    started = {
        name: task.options(name=f"ingest:{name}", num_cpus=1).remote(settings.only(name))
        for name in settings.panel
    }
    outcomes = {name: _outcome(reference) for name, reference in started.items()}
    failed = {name: o for name, o in outcomes.items() if isinstance(o, MarketrayError)}
    done = {name: o for name, o in outcomes.items() if isinstance(o, IngestResult)}
    if failed:
        raise _together(failed, len(outcomes))
    result = panel_result(settings.instrument, done) if settings.instruments else done[settings.instrument]
    if settings.news is None:
        return result
    articles = _outcome(
        ray.remote(ingest_news).options(name=f"news:{settings.instrument}", num_cpus=1).remote(settings)
    )
    if isinstance(articles, MarketrayError):
        raise articles
    return replace(result, news=articles)


def _outcome(reference: ObjectRef[T]) -> T | MarketrayError:
    """What a task returned, or the error of ours that it raised."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as e:
        if isinstance(e.cause, MarketrayError):
            return e.cause
        raise


def _together(failed: dict[str, MarketrayError], count: int) -> MarketrayError:
    """One error for those of `failed`, out of `count` instruments; a single instrument's is as it was."""
    first = next(iter(failed.values()))
    if count == 1:
        return first
    texts = [e.message if e.message.startswith(f"{n}: ") else f"{n}: {e.message}" for n, e in failed.items()]
    msg = f"{len(failed)} of {count} instruments failed: {', '.join(failed)}\n" + "\n".join(texts)
    return type(first)(msg, hint=first.hint)
