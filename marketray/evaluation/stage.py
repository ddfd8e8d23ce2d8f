"""The select stage: judge the leader on OOT, report on OOT2, register it, and move its alias last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketray.dataset.load import load_blocks, load_split
from marketray.dataset.vault import open_vault
from marketray.evaluation.ablation import ablation
from marketray.evaluation.champion import score_champion
from marketray.evaluation.forecasts import Forecasts
from marketray.evaluation.gate import Champion, Evidence, decide
from marketray.evaluation.outcome import comparison, report_document, selection_document
from marketray.evaluation.ranking_stage import Ranking, rank_candidates
from marketray.evaluation.registration import Placement, complete_folder, place, placement, register_winner
from marketray.evaluation.results import drafts, finished, publish
from marketray.evaluation.sections import report_sections
from marketray.evaluation.standing import Standing, standing_of
from marketray.evaluation.trials import read_trials
from marketray.hashing import code_hash, digest
from marketray.registry import Registry
from marketray.tracking import close_parent_run, open_parent_run
from marketray.tuning.records import write_json

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.dataset.splits import Split
    from marketray.registry import ModelVersion
    from marketray.settings import Settings

__all__ = ["Selection", "run_select"]

_TEST_CODE = tuple(
    f"marketray.evaluation.{n}" for n in ("gate", "gate_rules", "hac", "significance", "volatility")
)
"""What the gate's numbers are computed by: other code asks the vault another question."""

_RESULTS = ("report.json", "report.html", "selection.json")
"""Files of a finished selection, in the order they appear in."""


@dataclass(frozen=True)
class Selection:
    """The outcome of a selection.

    Attributes
    ----------
    selected_model, model_version:
        The winning family and its registered version.
    verdict, r2_oos, p_value, k, alpha:
        The gate's answer, see `marketray.evaluation.gate.Evidence`.
    alias, alias_declined:
        The alias that the version holds by its verdict, or why the verdict's alias did not go to it.
    report:
        Path of report.html.
    skipped:
        Whether everything was there already.
    """

    selected_model: str
    model_version: int
    verdict: str
    alias: str | None
    alias_declined: str | None
    r2_oos: float | None
    p_value: float | None
    k: int
    alpha: float
    report: str
    skipped: bool


@dataclass(frozen=True)
class _Findings:
    """All that is found out before the registry changes.

    Attributes
    ----------
    evidence, openings:
        The gate's answer, and which opening of OOT and OOT2 this was.
    tables:
        Figures by split and forecast.
    blocks:
        Rows of test, oot and oot2.
    news, sections, trials:
        The comparison without the news, the report's sections on the winner, and the counts of trials.
    folder:
        The winner's native files with its card and evidence.
    """

    evidence: Evidence
    openings: dict[str, int]
    tables: dict[str, Any]
    blocks: dict[str, Block]
    news: dict[str, Any] | None
    sections: dict[str, Any]
    trials: dict[str, int]
    folder: Path


def run_select(settings: Settings) -> Selection:
    """Choose among the tuned families, judge the winner, register it and report.

    Writes selection.json, report.json and report.html into the run's folder; selection.json comes last. All
    of it is made before the alias moves, so a selection that fails has moved none. The same inputs again
    change nothing: no second vault opening, no second version. A registry that lacks the version, or that
    holds its alias elsewhere than the files say, is not the same input.

    Raises
    ------
    TuningError
        There is no tuning result, or it belongs to another dataset.
    VaultError
        The out-of-time rows are missing or changed: nothing is judged without them.
    RegistryError
        The tracking server cannot be reached, known before the vault is opened; or the champion's files
        cannot be fetched, which is no evidence for or against the winner.
    """
    split = load_split(settings)
    ranking = rank_candidates(settings)
    key = _selection_key(settings, split, ranking)
    registry = Registry(settings)
    found = registry.find(key)
    done = finished(settings.run_path / "selection.json", key)
    if done is not None and found is not None and _tells(done, registry, found):
        return _summary(settings, done, skipped=True)
    forecasts = Forecasts(settings, ranking.tuned, ranking.folders)
    findings = _find(registry, forecasts, ranking, split, found)
    made = register_winner(
        settings,
        registry,
        findings.folder,
        key,
        split,
        ranking.tuned,
        ranking.order[0],
        findings.evidence,
        findings.trials,
    )
    with drafts(settings.run_path) as aside:
        planned = placement(registry, made.version, findings.evidence)
        document = _write(aside, key, forecasts, ranking, split, findings, made, planned)
        _close_tracking(settings, ranking, document)
        placed = place(registry, made.version, findings.evidence)
        if placed != planned:  # another run's move came between
            document = _write(aside, key, forecasts, ranking, split, findings, made, placed)
        publish(aside, settings.run_path, _RESULTS)
    return _summary(settings, document, skipped=False)


def _tells(done: Mapping[str, Any], registry: Registry, found: ModelVersion) -> bool:
    """Whether selection.json says what the registry holds."""
    now = placement(registry, found.version, Evidence.from_json(found.evidence))
    told = Placement(done["alias"], done["alias_declined"])
    held = now.alias is None or now.alias in found.aliases
    return held and told == now and done["model_version"] == found.version


def _find(
    registry: Registry, forecasts: Forecasts, ranking: Ranking, split: Split, found: ModelVersion | None
) -> _Findings:
    """Open the vault, judge the winner and make everything that is reported of it; changes no registry.

    A version that is there already keeps its verdict: its selection was cut short, or its files were lost.
    """
    settings, winner = forecasts.settings, ranking.order[0]
    past = load_blocks(settings, ("train", "validation"))
    trials = read_trials(settings.run_path, ranking.tuned.tuning_key, past, task=settings.labels.task)
    question = _evidence_key(settings, ranking)
    oot, k = open_vault(settings, "oot", "gate", question)
    standing = standing_of(forecasts, winner, oot)
    if found is None:
        made_by = str(split.detail["catalog_hash"]), split.detail.get("scorer")
        champion = score_champion(registry, forecasts, oot, *made_by)
        evidence = _judge(forecasts, winner, oot, k, champion, standing)
    else:
        evidence = Evidence.from_json(found.evidence)
    oot2, k2 = open_vault(settings, "oot2", "report", question)
    blocks = {"test": load_blocks(settings, ("test",)), "oot": oot, "oot2": oot2}
    tables = forecasts.open_splits(evidence.alpha)
    tables |= {name: forecasts.table(blocks[name], evidence.alpha) for name in ("oot", "oot2")}
    seen = {name: blocks[name] for name in ("test", "oot2")}
    error, source = tables["test"][winner]["rmse_pct"], ranking.folders[winner]
    return _Findings(
        evidence=evidence,
        openings={"oot": k, "oot2": k2},
        tables=tables,
        blocks=blocks,
        news=ablation(settings, ranking.news, ranking.pairs, forecasts, seen),
        sections=report_sections(forecasts, winner, standing, trials, blocks),
        trials=trials.counts,
        folder=complete_folder(settings, split, winner, source, error, evidence, standing.uncertainty),
    )


def _selection_key(settings: Settings, split: Split, ranking: Ranking) -> str:
    """Digest of all that selection.json and the registered version follow from."""
    where = [settings.model_name, settings.experiment, str(settings.run_path)]
    code = code_hash("marketray.evaluation")
    return digest(_evidence_key(settings, ranking), ranking.order, split.to_json(), where, code)


def _evidence_key(settings: Settings, ranking: Ranking) -> str:
    """Digest of the question put to the vault: the same winner under the same gate is one opening."""
    gate = settings.gate.model_dump(mode="json")
    return digest(ranking.key, ranking.order[0], gate, code_hash(*_TEST_CODE))


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


def _write(
    folder: Path,
    key: str,
    forecasts: Forecasts,
    ranking: Ranking,
    split: Split,
    findings: _Findings,
    made: ModelVersion,
    placed: Placement,
) -> dict[str, Any]:
    """Write all results into `folder`; the content of selection.json."""
    from marketray.evaluation.report import Series, write_report

    settings, evidence, tables = forecasts.settings, findings.evidence, findings.tables
    registered = {"name": made.name, "version": made.version}
    registered |= {"alias": placed.alias, "alias_declined": placed.declined}
    document = selection_document(
        key,
        registered,
        str(findings.folder),
        ranking.order,
        tables,
        split,
        evidence,
        findings.openings,
        findings.news,
    )
    cv_rmse = {name: c.cv_rmse for name, c in ranking.tuned.candidates.items()}
    rows = comparison(tables, ranking.order, cv_rmse)
    report = report_document(settings, document, rows, tables, split, evidence, findings.sections)
    series = {
        name: Series(block.decision_us, forecasts.rows(block).y, forecasts.of(ranking.order[0], block))
        for name, block in findings.blocks.items()
    }
    write_json(folder / "report.json", report)
    write_report(folder / "report.html", report, series)
    write_json(folder / "selection.json", document)
    return document


def _close_tracking(settings: Settings, ranking: Ranking, document: Mapping[str, Any]) -> None:
    parent = open_parent_run(settings, ranking.tuned.tuning_key, {})
    names = ("test_rmse_pct", "test_mae_pct", "oot_rmse_pct", "oot_mae_pct")
    close_parent_run(settings, parent, {name: float(document[name]) for name in names})


def _summary(settings: Settings, document: Mapping[str, Any], *, skipped: bool) -> Selection:
    evidence = document["evidence"]
    return Selection(
        **{name: document[name] for name in ("selected_model", "model_version", "alias", "alias_declined")},
        **{name: evidence[name] for name in ("verdict", "r2_oos", "p_value", "k", "alpha")},
        report=str(settings.run_path / "report.html"),
        skipped=skipped,
    )
