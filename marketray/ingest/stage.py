"""The ingest stage on Ray: one task an instrument, since bars must be judged in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marketray.errors import MarketrayError
from marketray.ingest.intake import ingest_source
from marketray.ingest.record import IngestResult

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["IngestResult", "run_ingest"]


def run_ingest(settings: Settings) -> IngestResult:
    """Bring the source of `settings` into bronze, in the Ray task ``ingest:<instrument>``.

    The caller has joined a cluster (`marketray.cluster.connect`). The task is repeated where its node is
    lost; finished partitions are not written again.

    Raises
    ------
    DataError
        The source cannot be used as declared.
    QualityError
        A dataset check failed; bronze is as it was.
    """
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(ingest_source).options(name=f"ingest:{settings.instrument}", num_cpus=1)
    try:
        result: IngestResult = ray.get(task.remote(settings))
    except RayTaskError as e:
        if isinstance(e.cause, MarketrayError):
            raise e.cause from None
        raise
    return result
