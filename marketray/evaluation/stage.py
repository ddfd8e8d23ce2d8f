"""The select stage: refit on Ray, rank on test, judge on OOT, register, report on OOT2."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from marketray.dataset.load import dataset_content, load_blocks, load_split
from marketray.dataset.vault import open_vault
from marketray.errors import MarketrayError, ModelError, TuningError
from marketray.evaluation.ablation import NewsPair, ablation, plan_pairs
from marketray.evaluation.candidates import (
    Refit,
    Tuned,
    put_folder,
    read_tuning,
    refit,
)
from marketray.evaluation.champion import score_champion
from marketray.evaluation.forecasts import Forecasts
from marketray.evaluation.gate import Champion, Evidence, decide
from marketray.evaluation.news import news_features
from marketray.evaluation.outcome import (
    comparison,
    report_document,
    selection_document,
)
from marketray.evaluation.registration import complete_folder, register_winner
from marketray.evaluation.sections import report_sections
from marketray.evaluation.selection import rank
from marketray.evaluation.standing import Standing, standing_of
from marketray.evaluation.trials import Trials, read_trials
from marketray.hashing import code_hash, digest
from marketray.models import MODEL_CODE
from marketray.registry import Registry
from marketray.tracking import close_parent_run, open_parent_run
from marketray.tuning.records import write_json
from marketray.tuning.stage import tuning_key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from marketray.dataset.load import Block
    from marketray.dataset.splits import Split
    from marketray.settings import Settings

    FloatArray = npt.NDArray[np.float64]

__all__ = ["Ranking", "Selection", "rank_candidates", "refit_cpus", "run_select"]

logger = logging.getLogger(__name__)

_TEST_CODE = tuple(
    f"marketray.evaluation.{n}" for n in ("gate", "gate_rules", "hac", "significance", "volatility")
)
"""What the gate's numbers are computed by: other code asks the vault another question."""


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


@dataclass(frozen=True)
class Selection:
    """The outcome of a selection.

    Attributes
    ----------
    selected_model, model_version:
        The winning family and its registered version.
    verdict, r2_oos, p_value, k, alpha:
        The gate's answer, see `marketray.evaluation.gate.Evidence`.
    report:
        Path of report.html.
    skipped:
        Whether everything was there already.
    """

    selected_model: str
    model_version: int
    verdict: str
    r2_oos: float | None
    p_value: float | None
    k: int
    alpha: float
    report: str
    skipped: bool


def run_select(settings: Settings) -> Selection:
    """Choose among the tuned families, judge the winner, register it and report.

    Writes selection.json, report.json and report.html into the run's folder; selection.json comes last.
    The same inputs again change nothing: no second vault opening, no second version.

    Raises
    ------
    TuningError
        There is no tuning result, or it belongs to another dataset.
    VaultError
        The out-of-time rows are missing or changed: nothing is judged without them.
    RegistryError
        The tracking server cannot be reached; known before the vault is opened.
    """
    split = load_split(settings)
    ranking = rank_candidates(settings)
    key = _selection_key(settings, split, ranking)
    target = settings.run_path / "selection.json"
    done = _finished(target, key)
    if done is not None:
        return _summary(settings, done, skipped=True)
    registry = Registry(settings)
    winner = ranking.order[0]
    trials = _trials(settings, ranking)
    oot, k = open_vault(settings, "oot", "gate", _evidence_key(settings, ranking))
    forecasts = Forecasts(settings, ranking.tuned, ranking.folders)
    standing = standing_of(forecasts, winner, oot)
    found = registry.find(key)
    if found is None:
        champion = score_champion(registry, forecasts, oot, str(split.detail["catalog_hash"]))
        evidence = _judge(forecasts, winner, oot, k, champion, standing)
    else:  # a selection that was cut short: its verdict stands
        evidence = Evidence.from_json(found.evidence)
    tables = forecasts.open_splits(evidence.alpha)
    tables["oot"] = forecasts.table(oot, evidence.alpha)
    error, source = tables["test"][winner]["rmse_pct"], ranking.folders[winner]
    folder = complete_folder(settings, split, winner, source, error, evidence, standing.uncertainty)
    made = register_winner(
        settings, registry, folder, key, split, ranking.tuned, winner, evidence, trials.counts
    )
    oot2, k2 = open_vault(settings, "oot2", "report", _evidence_key(settings, ranking))
    tables["oot2"] = forecasts.table(oot2, evidence.alpha)
    alias = evidence.alias if evidence.alias in made.aliases else None
    registered = {"name": made.name, "version": made.version, "alias": alias}
    openings = {"oot": k, "oot2": k2}
    seen = {"test": load_blocks(settings, ("test",)), "oot2": oot2}
    news = ablation(settings, ranking.news, ranking.pairs, forecasts, seen)
    document = selection_document(
        key, registered, str(folder), ranking.order, tables, split, evidence, openings, news
    )
    later = {"test": seen["test"], "oot": oot, "oot2": oot2}
    sections = report_sections(forecasts, winner, standing, trials, later)
    with _storing(settings.run_path):
        _report(settings, document, tables, forecasts, later, evidence, sections)
    _close_tracking(settings, ranking, document)
    with _storing(settings.run_path):
        write_json(target, document)
    return _summary(settings, document, skipped=False)


def rank_candidates(settings: Settings) -> Ranking:
    """Refit each family's best trial on train + validation, predict test and rank; never reads OOT or OOT2.

    Writes the refitted models below ``<run>/models/<key>`` and the order to ``<run>/ranking.json``; what is
    there already is not fitted again.

    Raises
    ------
    TuningError
        There is no tuning result, or it belongs to other rows, settings or code.
    """
    tuned = read_tuning(settings)
    current = tuning_key(settings)
    if tuned.tuning_key != current:
        msg = f"tuning.json has tuning_key={tuned.tuning_key}; required: {current}, of the present dataset"
        raise TuningError(msg, hint="the data, the settings or the code changed: run the tune stage again")
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
    stored = _finished(settings.run_path / "ranking.json", rank_key)
    if stored is not None and not missing:
        return Ranking(key, list(stored["order"]), folders, tuned, news, pairs)
    _refit_all(settings, missing)
    forecasts = Forecasts(settings, tuned, folders)
    test = load_blocks(settings, ("test",))
    rows = forecasts.rows(test)
    predictions = forecasts.all(test)
    cv_rmse = {name: c.cv_rmse for name, c in tuned.candidates.items()}
    order = rank(rows.y, predictions, cv_rmse, rows.decision_us, rows.horizon_minutes)
    with _storing(settings.run_path):
        write_json(settings.run_path / "ranking.json", {"key": rank_key, "order": order, "cv_rmse": cv_rmse})
    logger.info("select: %s leads on %d test rows", order[0], len(test))
    return Ranking(key, order, folders, tuned, news, pairs)


def _selection_key(settings: Settings, split: Split, ranking: Ranking) -> str:
    """Digest of all that selection.json and the registered version follow from."""
    where = [settings.model_name, settings.experiment, str(settings.run_path)]
    code = code_hash("marketray.evaluation")
    return digest(_evidence_key(settings, ranking), ranking.order, split.to_json(), where, code)


def _evidence_key(settings: Settings, ranking: Ranking) -> str:
    """Digest of the question put to the vault: the same winner under the same gate is one opening."""
    gate = settings.gate.model_dump(mode="json")
    return digest(ranking.key, ranking.order[0], gate, code_hash(*_TEST_CODE))


@contextmanager
def _storing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        msg = f"{folder}: the results cannot be written ({e})"
        raise MarketrayError(msg, hint="free disk space or fix the permissions, then run again") from e


def _finished(path: Path, key: str) -> dict[str, Any] | None:
    """The JSON document at `path` if it was made under `key`."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return document if document.get("key") == key else None


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


def _trials(settings: Settings, ranking: Ranking) -> Trials:
    past = load_blocks(settings, ("train", "validation"))
    return read_trials(settings.run_path, ranking.tuned.tuning_key, past, task=settings.labels.task)


def _judge(
    forecasts: Forecasts, winner: str, oot: Block, k: int, champion: Champion | None, standing: Standing
) -> Evidence:
    settings, rows = forecasts.settings, forecasts.rows(oot)
    return decide(
        rows.y,
        forecasts.of(winner, oot),
        rows.decision_us,
        rows.horizon_minutes,
        gate=settings.gate,
        k=k,
        champion=champion,
        base_rate=rows.naive["training_mean"] if settings.labels.task == "direction" else None,
        findings=standing.findings,
        scale=standing.scale,
    )


def _report(
    settings: Settings,
    document: Mapping[str, Any],
    tables: Mapping[str, Any],
    forecasts: Forecasts,
    blocks: Mapping[str, Block],
    evidence: Evidence,
    sections: Mapping[str, Any],
) -> None:
    from marketray.evaluation.report import Series, write_report

    winner = str(document["selected_model"])
    cv_rmse = {name: c.cv_rmse for name, c in forecasts.tuned.candidates.items()}
    rows = comparison(tables, document["ranking"], cv_rmse)
    split = load_split(settings)
    report = report_document(settings, document, rows, tables, split, evidence, sections)
    series = {
        name: Series(block.decision_us, forecasts.rows(block).y, forecasts.of(winner, block))
        for name, block in blocks.items()
    }
    write_json(settings.run_path / "report.json", report)
    write_report(settings.run_path / "report.html", report, series)


def _close_tracking(settings: Settings, ranking: Ranking, document: Mapping[str, Any]) -> None:
    parent = open_parent_run(settings, ranking.tuned.tuning_key, {})
    names = ("test_rmse_pct", "test_mae_pct", "oot_rmse_pct", "oot_mae_pct")
    close_parent_run(settings, parent, {name: float(document[name]) for name in names})


def _summary(settings: Settings, document: Mapping[str, Any], *, skipped: bool) -> Selection:
    evidence = document["evidence"]
    return Selection(
        selected_model=document["selected_model"],
        model_version=document["model_version"],
        **{name: evidence[name] for name in ("verdict", "r2_oos", "p_value", "k", "alpha")},
        report=str(settings.run_path / "report.html"),
        skipped=skipped,
    )
