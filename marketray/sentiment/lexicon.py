"""The lexicon baseline: VADER's word list and rules, which know nothing of finance.

A model of sentiment has to beat it to be worth its cost. VADER's published rules are used as they are;
nothing is fitted, so the baseline cannot have seen any label.

Reference: C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of
Social Media Text", ICWSM 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

if TYPE_CHECKING:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

__all__ = ["NEUTRAL_BELOW", "lexicon_classes", "lexicon_scores"]

NEUTRAL_BELOW = 0.05
"""Scores closer to 0 than this are neutral: the threshold that VADER's authors publish."""


def lexicon_scores(texts: Sequence[str | None]) -> npt.NDArray[np.float64]:
    """VADER's compound score of each text, in [-1, 1], shape (len(texts),).

    The sum s of the valences of the words found, after rules for negation and emphasis, as
    ``s / sqrt(s**2 + 15)``; 0 where no word is in the list.

    Raises
    ------
    DataError
        A text is missing.
    """
    for i, text in enumerate(texts):
        if text is None:
            msg = f"texts[{i}]: got None; required: a string"
            raise DataError(msg, hint="drop articles without a text before they are scored")
    polarity = _analyzer().polarity_scores
    return np.array([polarity(text)["compound"] for text in texts], dtype=np.float64)


def lexicon_classes(
    scores: npt.NDArray[np.float64], neutral_below: float = NEUTRAL_BELOW
) -> npt.NDArray[np.int8]:
    """Classes 1 (positive), 0 (neutral: ``|score| < neutral_below``) and -1 (negative), shape of `scores`."""
    return np.where(np.abs(scores) < neutral_below, 0, np.sign(scores)).astype(np.int8)


@lru_cache(maxsize=1)
def _analyzer() -> SentimentIntensityAnalyzer:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
