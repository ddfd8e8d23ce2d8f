"""Every tuned family with and without the news, on identical rows.

Both models of a pair have the hyperparameters of the family's best trial and are fitted on train +
validation; one of them is the candidate itself. Without the news a model sees no column that is made from
scored articles. An autoregression chooses its exogenous columns: where its best trial took no news, the
model with news takes them beside what it chose.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.candidates import Candidate, Refit
from marketray.evaluation.metrics import r2_oos, rmse_pct, squared_errors
from marketray.evaluation.significance import diebold_mariano
from marketray.hashing import digest
from marketray.models import get_family
from marketray.models.autoregression import NEWS_SET, join_sets, split_sets

if TYPE_CHECKING:
    from marketray.dataset.load import Block
    from marketray.evaluation.forecasts import Forecasts
    from marketray.evaluation.selection import Rows
    from marketray.settings import Settings

__all__ = ["NewsPair", "ablation", "compare_pair", "plan_pairs"]

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NewsPair:
    """The models of a family with and without the news; the one that is not the candidate is `refit`."""

    candidate: Candidate
    folder: Path
    refit: Refit

    @property
    def folders(self) -> dict[str, Path]:
        """Native model folder of each, ``with`` and ``without``."""
        other = "without" if self.best_has_news else "with"
        return {("with" if self.best_has_news else "without"): self.folder, other: self.refit.folder}

    @property
    def best_has_news(self) -> bool:
        """Whether the family's best trial could see the news."""
        return bool(self.refit.leave_out)


def plan_pairs(
    candidates: Mapping[str, Candidate], folders: Mapping[str, Path], news: Collection[str]
) -> tuple[NewsPair, ...]:
    """The pair of every candidate; empty where no column is made from news.

    Parameters
    ----------
    candidates, folders:
        Best trials and the native folders of their refitted models, by family.
    news:
        Columns that are made from scored articles.
    """
    if not news:
        return ()
    return tuple(NewsPair(c, folders[name], _other(c, folders[name], news)) for name, c in candidates.items())


def _other(candidate: Candidate, folder: Path, news: Collection[str]) -> Refit:
    params, leave_out = dict(candidate.params), frozenset(news)
    if "exogenous" in get_family(candidate.family).defaults:
        chosen = split_sets(get_family(candidate.family).filled(params)["exogenous"])
        if NEWS_SET in chosen:
            params["exogenous"] = join_sets(part for part in chosen if part != NEWS_SET)
        else:
            params["exogenous"] = join_sets((*chosen, NEWS_SET))
            leave_out = frozenset()
    variant = "without" if leave_out else "with"
    name = digest(params, sorted(leave_out))[:8]
    place = folder.with_name(f"{candidate.family}-{variant}-news-{name}")
    return Refit(candidate.family, params, candidate.rounds, place, leave_out, f"{variant}-news")


def ablation(
    settings: Settings,
    news: Collection[str],
    pairs: Sequence[NewsPair],
    forecasts: Forecasts,
    blocks: Mapping[str, Block],
) -> dict[str, Any] | None:
    """What the news adds; None where there are no news features.

    Parameters
    ----------
    news:
        Columns that are made from scored articles.
    blocks:
        Rows by split: test, and OOT2 where this is for the report.

    Returns
    -------
    dict
        ``features``; ``scorers`` (model and revision); by split ``coverage``, the share of decisions with
        news in the last 60 minutes and 24 hours; ``families``, each with `compare_pair` by split; and
        ``sentiment``, see `marketray.evaluation.news.sentiment_worth`, over the rows up to the end of test.

    Raises
    ------
    LakeError
        Articles or scores cannot be read.
    """
    from marketray.evaluation.news import coverage, scorers, sentiment_worth

    if not pairs:
        return None
    families = []
    for pair in pairs:
        splits = {}
        for name, block in blocks.items():
            made = {key: forecasts.at(folder, block) for key, folder in pair.folders.items()}
            splits[name] = compare_pair(forecasts.rows(block), made["with"], made["without"])
        families.append(
            {
                "family": pair.candidate.family,
                "best_trial": "with" if pair.best_has_news else "without",
                "splits": splits,
            }
        )
    test = blocks["test"]
    return {
        "features": sorted(news),
        "scorers": scorers(settings),
        "coverage": coverage(settings, blocks),
        "families": families,
        "sentiment": sentiment_worth(
            settings,
            np.concatenate([forecasts.train_decision_us, test.decision_us]),
            np.concatenate([forecasts.train_y, test.y]),
        ),
    }


def compare_pair(rows: Rows, with_news: FloatArray, without: FloatArray) -> dict[str, Any]:
    """Errors of two forecasts of the same rows, and the test that the news made the first one better.

    Parameters
    ----------
    rows:
        Labels and naive forecasts.
    with_news, without:
        Centred forecasts, shape (n,).

    Returns
    -------
    dict
        ``rmse_pct`` and ``r2_oos`` (over zero) of each, by ``with`` and ``without``; ``r2_difference``; and
        ``p_value``, one-sided HAC Diebold–Mariano, squared errors; None where there are too few rows.
    """
    made = {"with": with_news, "without": without}
    skill = {key: r2_oos(rows.y, values, rows.naive["zero"]) for key, values in made.items()}
    loss = {key: squared_errors(rows.y, values) for key, values in made.items()}
    p_value = None
    try:
        test = diebold_mariano(loss["with"], loss["without"], rows.decision_us, rows.horizon_minutes)
        p_value = test.p_value
    except DataError as e:  # too few rows for a test: the errors still stand
        logger.warning("no significance of the news on %d rows: %s", len(rows.y), e.message)
    return {
        "n": len(rows.y),
        "rmse_pct": {key: rmse_pct(rows.y, values) for key, values in made.items()},
        "r2_oos": skill,
        "r2_difference": skill["with"] - skill["without"],
        "p_value": p_value,
    }
