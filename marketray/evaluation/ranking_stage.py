"""Refitting the tuned families on Ray and ranking them on test; no out-of-time row is read here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from marketray.dataset.load import dataset_content, load_blocks, load_split
from marketray.errors import MarketrayError, ModelError
from marketray.evaluation.ablation import NewsPair, plan_pairs
from marketray.evaluation.candidates import Refit, Tuned, current_tuning, put_folder, refit
from marketray.evaluation.forecasts import Forecasts
from marketray.evaluation.news import news_features
from marketray.evaluation.results import finished, storing
from marketray.evaluation.selection import rank
from marketray.hashing import code_hash, digest
from marketray.models import MODEL_CODE
from marketray.tuning.records import write_json

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["Ranking", "rank_candidates", "refit_cpus"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ranking:
    """Refitted candidates, best first; made without any out-of-time row.

    Attributes
    ----------
    key:
        Digest of the rows, the candidates and the models' code: what the refitted models follow from.
    order:
        Families, best first.
    folders:
        Native model folder by family.
    tuned:
        The tuning they come from.
    news:
        Feature columns that are made from news.
    pairs:
        Each family with and without the news; empty where there is none.
    """

    key: str
    order: list[str]
    folders: dict[str, Path]
    tuned: Tuned
    news: tuple[str, ...] = ()
    pairs: tuple[NewsPair, ...] = ()


def rank_candidates(settings: Settings) -> Ranking:
    """Refit each family's best trial on train + validation, predict test and rank; never reads OOT or OOT2.

    Writes the refitted models below ``<run>/models/<key>`` and the order to ``<run>/ranking.json``; what is
    there already is not fitted again.

    Raises
    ------
    TuningError
        There is no tuning result, or it belongs to other rows, settings or code.
    """
    tuned = current_tuning(settings)
    candidates = [c.identity for c in tuned.candidates.values()]
    content = dataset_content(settings, ("train", "validation", "test"))
    labels = settings.labels.model_dump(mode="json")
    fitted = [f.to_json() for f in load_split(settings).fitted]
    key = digest(content, candidates, labels, settings.tuning.seed, fitted, code_hash(*MODEL_CODE))
    rank_key = digest(key, code_hash("marketray.evaluation"))
    base = settings.run_path / "models" / key[:16]
    folders = {name: base / name for name in tuned.candidates}
    news = news_features(settings)
    pairs = plan_pairs(tuned.candidates, folders, news)
    refits = [Refit(c.family, c.params, c.rounds, folders[name]) for name, c in tuned.candidates.items()]
    refits += [pair.refit for pair in pairs]
    missing = [refit for refit in refits if not (refit.folder / "model.json").exists()]
    stored = finished(settings.run_path / "ranking.json", rank_key)
    if stored is not None and not missing:
        return Ranking(key, list(stored["order"]), folders, tuned, news, pairs)
    _refit_all(settings, missing)
    forecasts = Forecasts(settings, tuned, folders)
    test = load_blocks(settings, ("test",))
    rows = forecasts.rows(test)
    predictions = forecasts.all(test)
    cv_rmse = {name: c.cv_rmse for name, c in tuned.candidates.items()}
    order = rank(rows.y, predictions, cv_rmse, rows.decision_us, rows.horizon_minutes)
    with storing(settings.run_path):
        write_json(settings.run_path / "ranking.json", {"key": rank_key, "order": order, "cv_rmse": cv_rmse})
    logger.info("select: %s leads on %d test rows", order[0], len(test))
    return Ranking(key, order, folders, tuned, news, pairs)


def refit_cpus(node_cpus: Sequence[float], families: int) -> int:
    """CPUs of one refit: an equal share of the cluster's, but no more than a single node has."""
    return max(1, min(int(sum(node_cpus)) // families, int(max(node_cpus, default=1))))


def _refit_all(settings: Settings, refits: Sequence[Refit]) -> None:
    """Fit all models at once, one named Ray task each, and store their native folders."""
    import ray

    if not refits:
        return
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    cpus = refit_cpus([n["Resources"].get("CPU", 0.0) for n in nodes if n["Alive"]], len(refits))
    block = ray.put(load_blocks(settings, ("train", "validation")))
    fitted = load_split(settings).fitted
    task: Any = ray.remote(cast(Any, refit))
    pending = [
        task.options(name=f"refit:{r.name}", num_cpus=cpus).remote(
            r.family,
            r.params,
            r.rounds,
            block,
            task=settings.labels.task,
            threads=cpus,
            seed=settings.tuning.seed,
            fitted=fitted,
            leave_out=r.leave_out,
        )
        for r in refits
    ]
    for wanted, reference in zip(refits, pending, strict=True):
        try:
            put_folder(wanted.folder, ray.get(reference))
        except ray.exceptions.RayTaskError as e:
            if isinstance(e.cause, MarketrayError):
                raise e.cause from None
            msg = f"refit of {wanted.name} failed: {e.cause}"
            raise ModelError(msg, hint="see the task's log in the Ray dashboard") from e
