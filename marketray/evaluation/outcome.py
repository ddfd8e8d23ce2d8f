"""The documents that select writes: selection.json, report.json, the model card, the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marketray.evaluation.metrics import BASELINES

if TYPE_CHECKING:
    from marketray.dataset.splits import Split
    from marketray.evaluation.gate import Evidence
    from marketray.settings import Settings

__all__ = [
    "SPLIT_ORDER",
    "ablation_notes",
    "comparison",
    "minus",
    "model_card",
    "report_document",
    "selection_document",
    "verdict_text",
]

SPLIT_ORDER = ("validation", "test", "oot", "oot2")
"""Splits with figures, in time order. Validation figures are out-of-fold."""

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Figures by split, then by model or naive forecast; see `marketray.evaluation.selection.figures`."""

_CONSEQUENCE = {
    "promoted": "promoted to champion",
    "bootstrap": "not promoted. It serves as champion only because there was none yet (bootstrap)",
    "challenger": "not promoted; it stands by as challenger",
    "refused": "refused",
}


def verdict_text(evidence: Evidence, declined: str | None = None) -> str:
    """The verdict in plain words: ``No skill over zero: R² −0.030 %, p = 0.41 on … (…); not promoted…``.

    Parameters
    ----------
    declined:
        Why the alias that the verdict gives did not move; None where it did, or the verdict gives none.
    """
    if evidence.r2_oos is None or evidence.p_value is None:
        return f"Evidence is missing; {_CONSEQUENCE['refused']}. {' '.join(evidence.reasons)}"
    claim = "Skill over zero" if evidence.skilled else "No skill over zero"
    numbers = f"R² {minus(100 * evidence.r2_oos, 3)} %, p = {evidence.p_value:.2g} on {evidence.loss}"
    opening = f"tested at {evidence.alpha:.3g}, opening {evidence.k} of these rows"
    consequence = _CONSEQUENCE[evidence.verdict]
    if declined is not None:
        consequence = f"verdict {evidence.verdict}, but it did not become {evidence.alias}: {declined}"
    text = f"{claim}: {numbers} ({opening}); {consequence}."
    if evidence.champion_p_value is not None and evidence.champion_r2 is not None:
        numbers = f"R² {minus(100 * evidence.champion_r2, 3)} %, p = {evidence.champion_p_value:.2g}"
        text += f" Against champion version {evidence.champion_version}: {numbers}."
    return text


def minus(value: float, digits: int) -> str:
    """Fixed-point text with a real minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def ablation_notes(ablation: Mapping[str, Any]) -> list[str]:
    """What must be known to read the comparison with and without the news, in plain words.

    Parameters
    ----------
    ablation:
        See `marketray.evaluation.ablation.ablation`.
    """
    names = ", ".join(f"{s['model']} (revision {str(s['revision'])[:12]})" for s in ablation["scorers"])
    shares = "; ".join(
        f"{split} {100 * share['60m']:.1f} % within 60 minutes, {100 * share['24h']:.1f} % within 24 hours"
        for split, share in ablation["coverage"].items()
    )
    made = (
        "Same rows and same hyperparameters, those of each family's best trial; refitted on train + "
        "validation. One-sided Diebold–Mariano test that the news makes the errors smaller."
    )
    notes = [made, f"Scored by {names}. Decisions after some news: {shares}."]
    worth = ablation["sentiment"]
    if worth["model_ic"] is not None and worth["lexicon_ic"] is not None:
        notes.append(
            f"Correlation of an article's tone with the label of the first decision that knows it, "
            f"{worth['labelled']:,} articles up to the end of test: model {minus(worth['model_ic'], 4)}, "
            f"lexicon (VADER) {minus(worth['lexicon_ic'], 4)}."
        )
    return notes


def comparison(tables: Figures, ranking: Sequence[str], cv_rmse: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row a forecast, models by rank and then the naive ones; each figure by split."""
    rows = []
    for name in (*ranking, *BASELINES):
        by_split = {split: tables[split][name] for split in SPLIT_ORDER if split in tables}
        model = name in ranking
        rows.append(
            {
                "model": name,
                "kind": "model" if model else "baseline",
                "rank": ranking.index(name) + 1 if model else None,
                "cv_rmse_pct": 100 * cv_rmse[name] if model else None,
                "r2_oos": {s: f["r2_oos"]["zero"] for s, f in by_split.items()},
                "hit_rate": {s: f["hit_rate"]["rate"] for s, f in by_split.items()},
                **{
                    key: {s: f[key] for s, f in by_split.items()}
                    for key in ("p_value", "rmse_pct", "mae_pct", "minimum_detectable_r2")
                },
            }
        )
    return rows


def model_card(
    settings: Settings,
    split: Split,
    columns: Sequence[str],
    family: str,
    test_rmse_pct: float,
    evidence: Evidence,
) -> dict[str, Any]:
    """Content of ``serving.json``: what serving must know to use the model as it was trained."""
    from marketray.evaluation.news import news_features

    scorer = split.detail.get("scorer")
    sees_news = scorer is not None and not set(columns).isdisjoint(news_features(settings))
    return {
        "instrument": settings.instrument,
        "horizon_minutes": settings.labels.horizon_minutes,
        "bar_interval_minutes": settings.bar_interval_minutes,
        "task": settings.labels.task,
        "columns": list(columns),
        "catalog_hash": split.detail["catalog_hash"],
        "feature_inputs": split.detail["feature_inputs"],
        "scorer": scorer if sees_news else None,
        "feature_settings": settings.features.model_dump(mode="json"),
        "market": settings.market.model_dump(mode="json"),
        "test_rmse_pct": test_rmse_pct,
        "evidence": {"verdict": evidence.verdict, "r2_oos": evidence.r2_oos, "p_value": evidence.p_value},
        "model_type": family,
    }


def selection_document(
    key: str,
    registered: Mapping[str, Any],
    model_path: str,
    ranking: Sequence[str],
    tables: Figures,
    split: Split,
    evidence: Evidence,
    openings: Mapping[str, int],
    ablation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``selection.json``: figures of the selected model by split, verdict, dates, vault openings.

    Parameters
    ----------
    registered:
        ``name`` and ``version`` of the registered model, the ``alias`` it holds by its verdict, if any, and
        ``alias_declined``: why the verdict's alias did not go to it, if it did not.
    openings:
        Which opening of the OOT and OOT2 rows this was.
    ablation:
        Every family with and without the news, see `marketray.evaluation.ablation.ablation`; None where
        there are no news features.
    """
    winner = ranking[0]
    own = {name: tables[name][winner] for name in SPLIT_ORDER if name in tables}
    errors = {
        f"{name}_{error}": own[name][error] for name in ("test", "oot") for error in ("rmse_pct", "mae_pct")
    }
    return {
        "key": key,
        "selected_model": winner,
        "selected_model_name": registered["name"],
        "model_version": registered["version"],
        "model_path": model_path,
        **errors,
        "r2_oos": {name: figures["r2_oos"] for name, figures in own.items()},
        "hit_rate": {name: figures["hit_rate"]["rate"] for name, figures in own.items()},
        "verdict": evidence.verdict,
        "alias": registered["alias"],
        "alias_declined": registered["alias_declined"],
        "evidence": evidence.to_json(),
        "ranking": list(ranking),
        "splits": split_dates(split),
        "vault_openings": dict(openings),
        "ablation": None if ablation is None else dict(ablation),
    }


def split_dates(split: Split) -> dict[str, dict[str, Any]]:
    """Rows, first and last decision (ISO 8601, UTC) and gap rows of every split, in time order."""
    return {
        name: {
            "rows": block.rows,
            "first_decision_at": block.first_decision_at,
            "last_decision_at": block.last_decision_at,
            "gap_rows": block.purged + block.embargoed,
        }
        for name, block in split.blocks.items()
    }


def report_document(
    settings: Settings,
    selection: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tables: Figures,
    split: Split,
    evidence: Evidence,
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    """``report.json``: the verdict in words, the comparison, every figure, the rows kept and dropped.

    Parameters
    ----------
    sections:
        What `marketray.evaluation.sections.report_sections` found.
    """
    return {
        "verdict": evidence.verdict,
        "verdict_text": verdict_text(evidence, selection["alias_declined"]),
        "run": settings.name,
        "instrument": settings.instrument,
        "horizon_minutes": settings.labels.horizon_minutes,
        "bar_interval_minutes": settings.bar_interval_minutes,
        "task": settings.labels.task,
        "comparison": list(rows),
        "figures": tables,
        "selection": dict(selection),
        "dropped": split.detail.get("dropped", {}),
        "labels": split.detail.get("labels", {}),
        **sections,
    }
