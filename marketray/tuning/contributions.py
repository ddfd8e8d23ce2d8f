"""What each column contributes in each fold, measured by stage 1's best trial and stored beside the records.

``<folder>/<family>/contributions.json``: that trial's parameters and rounds, with which a model is fitted on
the training rows of every fold; and the shares of contribution in each. A trial that is the best so far when
it ends ranks the columns by its own models; `rank_folds` fits them again, after a kill between the two files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from marketray.errors import TuningError
from marketray.models.contribution import Ranking
from marketray.tuning.records import write_json

if TYPE_CHECKING:
    from marketray.tuning.trial import FoldCache

__all__ = ["Contributions", "rank_folds", "read_contributions", "write_contributions"]


@dataclass(frozen=True)
class Contributions:
    """Shares of contribution by fold.

    Attributes
    ----------
    params, rounds:
        Of the ranking models: stage 1's best trial.
    folds:
        Of each fold: columns with their shares, which sum to 1.
    seconds:
        Time spent computing, beyond that of the trial where the trial itself ranked them.
    """

    params: dict[str, Any]
    rounds: int
    folds: list[dict[str, float]]
    seconds: float

    @property
    def rankings(self) -> tuple[Ranking, ...]:
        """One for each fold."""
        return tuple(Ranking(shares) for shares in self.folds)

    def importance(self) -> dict[str, Any]:
        """For the report: ``folds`` (fold, shares) and ``features``, their mean shares, best first."""
        mean = {c: float(np.mean([shares[c] for shares in self.folds])) for c in self.folds[0]}
        return {
            "folds": [{"fold": k, "shares": shares} for k, shares in enumerate(self.folds)],
            "features": [{"feature": c, "share": mean[c]} for c in Ranking(mean).order],
        }


def rank_folds(cache: FoldCache, params: Mapping[str, Any], rounds: int) -> Contributions:
    """Fit the ranking model of every fold on its training rows; see `FoldCache.ranking`."""
    start = time.perf_counter()
    folds = [dict(cache.ranking(k, params, rounds).shares) for k in range(len(cache.folds))]
    return Contributions(dict(params), rounds, folds, time.perf_counter() - start)


def write_contributions(folder: Path, contributions: Contributions) -> None:
    """Store them in a family's folder."""
    write_json(folder / "contributions.json", asdict(contributions))


def read_contributions(folder: Path) -> Contributions | None:
    """What `write_contributions` stored in `folder`; None where there is nothing.

    Raises
    ------
    TuningError
        The file is not readable.
    """
    path = folder / "contributions.json"
    if not path.is_file():
        return None
    try:
        return Contributions(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as e:
        msg = f"{path}: not readable as contributions ({e})"
        raise TuningError(msg, hint="delete this file and tune again; finished trials are kept") from e
