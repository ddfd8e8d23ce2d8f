"""A small grammar of finance news: texts whose tone is known because it was chosen first."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["write_articles"]

_SUBJECTS = (
    "Chipmakers", "U.S. banks", "Retailers", "Oil producers", "Airlines", "Home builders", "Software makers",
    "Drugmakers", "Car makers", "Insurers", "Utilities", "Railroads", "Hotel operators", "Steel makers",
    "Cloud providers", "Payment firms", "Food companies", "Media groups", "Small caps", "S&P 500 companies",
)  # fmt: skip
_TITLES: dict[int, tuple[str, ...]] = {
    1: (
        "beat profit estimates", "rally on strong demand", "surge after upbeat earnings",
        "raise full-year outlook", "post record revenue", "gain as margins improve",
        "jump after analyst upgrades", "climb on robust order growth", "report better-than-expected sales",
        "win major contracts, boosting profit",
    ),
    0: (
        "schedule annual shareholder meetings", "name new board members", "file routine quarterly documents",
        "present at an industry conference", "move head offices", "publish sector statistics",
        "keep guidance unchanged", "trade flat ahead of data", "update reporting calendars",
        "appoint new auditors",
    ),
    -1: (
        "miss profit estimates", "slump on weak demand", "plunge after disappointing earnings",
        "cut full-year outlook", "post widening losses", "fall as margins shrink",
        "tumble after analyst downgrades", "slide on declining orders", "report worse-than-expected sales",
        "face lawsuits, hurting profit",
    ),
}  # fmt: skip
_BODIES: dict[int, tuple[str, ...]] = {
    1: (
        "Management said demand was strong and that profit would improve further.",
        "Shares gained as investors welcomed the better results.",
        "Analysts raised their price targets and praised the robust growth.",
        "Order books improved for the third month, a positive surprise.",
    ),
    0: (
        "The companies gave no new figures.",
        "The filing contains no change to earlier statements.",
        "The details were published on the companies' websites.",
        "Analysts left their estimates unchanged.",
    ),
    -1: (
        "Management warned that demand was weak and that losses could grow.",
        "Shares fell as investors were disappointed by the poor results.",
        "Analysts cut their price targets and criticised the decline.",
        "Order books worsened for the third month, a negative surprise.",
    ),
}
_PERIODS = ("this quarter", "in the latest period", "in the past month", "according to company statements")


def write_articles(rng: np.random.Generator, sentiment: npt.NDArray[np.int8]) -> tuple[list[str], list[str]]:
    """Titles and bodies in English for sentiments -1, 0 or 1, shape (n,) each."""
    draws = rng.integers(0, 1 << 30, size=(5, len(sentiment))).tolist()
    titles, bodies = [], []
    for tone, subject, verb, period, first, second in zip(sentiment.tolist(), *draws, strict=True):
        said, told = _TITLES[tone], _BODIES[tone]
        title = f"{_SUBJECTS[subject % len(_SUBJECTS)]} {said[verb % len(said)]}"
        titles.append(title)
        start = first % len(told)
        follow = told[(start + 1 + second % (len(told) - 1)) % len(told)]
        bodies.append(f"{title} {_PERIODS[period % len(_PERIODS)]}. {told[start]} {follow}")
    return titles, bodies
