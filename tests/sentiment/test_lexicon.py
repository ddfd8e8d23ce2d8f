"""The lexicon baseline against VADER's formula worked by hand from its published word list."""

from __future__ import annotations

import numpy as np
import pytest

from marketray.errors import DataError
from marketray.sentiment.lexicon import lexicon_classes, lexicon_scores


@pytest.mark.parametrize(
    ("text", "valence"),
    [
        ("Shares gain on the day", 2.4 + 1.2),  # gain 2.4, shares 1.2
        ("A loss for the bank", -1.3),
        ("Not a gain for the bank", 2.4 * -0.74),  # negation turns and weakens
        ("The filing was dated Monday", 0.0),
    ],
)
def test_scores_follow_the_published_formula(text: str, valence: float) -> None:
    expected = valence / np.sqrt(valence**2 + 15)
    assert lexicon_scores([text])[0] == pytest.approx(expected, abs=5e-5)  # rounded to 4 digits


def test_classes_are_cut_at_the_published_threshold() -> None:
    scores = np.array([0.05, 0.0499, 0.0, -0.0499, -0.05, 1.0, -1.0])
    assert lexicon_classes(scores).tolist() == [1, 0, 0, 0, -1, 1, -1]
    assert lexicon_classes(scores, 0.5).tolist() == [0, 0, 0, 0, 0, 1, -1]


def test_no_texts_give_no_scores() -> None:
    assert lexicon_scores([]).shape == (0,)


def test_a_missing_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"texts\[1\]: got None; required: a string"):
        lexicon_scores(["Shares gain", None])
