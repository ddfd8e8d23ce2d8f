"""``python -m marketray.features.docs``: write docs/features.md from the catalogs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from marketray.features.definition import Feature
from marketray.features.fitted import FittedFeature
from marketray.features.groups import built_in_features, built_in_fitted
from marketray.features.seed_compatible import seed_features

__all__ = ["main", "render"]

_HEADER = """# Features

Written by `python -m marketray.features.docs` from the catalogs; do not edit.

`features.catalog` chooses one of two: `standard`, or `seed-compatible` (the second part of this page).

O, H, L, C, V are a bar's open, high, low, close and volume, `[-1]` is the bar before, ln the natural
logarithm. A row belongs to `decision_at` = the bar's end and uses bars that end at or before it.

- **Lookback** counts bars, the current one included. A value is null until so many bars have been seen,
  and where its formula has no value (no trade in the window, a bar outside all sessions).
- A recursive mean (EMA, Wilder) is declared with the lookback after which its start weighs under 1e-16.
- Session features are declared with the bars of a whole day (here: one-minute bars), since a session
  lasts at most that long.
- **Exact** features have the same bits however the data were cut; the others agree within
  1e-9 of the larger of their value and their interquartile range.
- A feature whose **needs** the bars lack is left out, by name, with a line in the log.
- **Null policy**: what stands where the formula has no value; empty where it always has one. What it needs
  beside the prices (volume, quotes, sizes) may be missing in a bar, whose features are then null.
- Settings: `features.groups` (empty: all) and `features.exclude` choose from the catalog.
"""

_STANDARD = (
    "# The standard catalog\n\n{count}. All of it is scale-free, so a model does not learn price levels.\n"
)

_SEED = """# The seed-compatible catalog

{count}. The column sets of earlier systems by their own formulas, price levels, percents and
sqrt(252) on bars of any length included, for comparison with what was trained on them. What differs:

- No bar is made up to fill a gap, so windows count bars that exist, and `is_backfilled` is always 0.
- No statistic of the whole sample is used: the median behind the volatility regimes is that of the last
  720 bars.
- No label stands among the inputs.
- An undefined value is null; the sets carried the last one on. A flag is 0 where it cannot be told.
- Market hours of `seed_advanced` follow its own rule, in UTC all year round.
"""


_FITTED = """Made from another feature by statistics of its training values; never stored as columns.
The statistics are fitted anew on each fold's training rows, and a model keeps its own:
[user-features.md](user-features.md).
"""


def render(interval_minutes: int = 1) -> str:
    """The page, as Markdown: both catalogs, one table a group."""
    return "\n".join(
        [
            _HEADER,
            *_part(_STANDARD, built_in_features(interval_minutes)),
            *_fitted_part(built_in_fitted()),
            *_part(_SEED, seed_features(interval_minutes)),
        ]
    )


def _part(header: str, features: list[Feature]) -> Iterator[str]:
    """The texts of one catalog."""
    lags = sum(f.group == "lags" for f in features)
    yield header.format(count=f"{len(features)} features, {lags} of them lags for the autoregression")
    for group, members in groupby(features, key=lambda f: f.group):
        yield f"## {group}\n\n{_table(list(members))}"


def _fitted_part(features: list[FittedFeature]) -> Iterator[str]:
    """The texts of the standard catalog's fitted features."""
    for group, members in groupby(features, key=lambda f: f.group):
        yield f"## {group}, fitted\n\n{_FITTED}\n{_fitted_table(list(members))}"


def _table(features: list[Feature]) -> str:
    lines = [
        "| feature | formula | null policy | unit | lookback | exact | needs | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for f in features:
        formula, null_policy = f.words
        cells = (
            f"`{f.name}`",
            formula.replace("|", "\\|"),
            null_policy,
            f.unit,
            str(f.lookback),
            "yes" if f.exact else "",
            ", ".join(f.inputs),
            f.source,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fitted_table(features: list[FittedFeature]) -> str:
    lines = ["| feature | formula | unit | source |", "|---|---|---|---|"]
    lines += [f"| `{f.name}` | {f.formula} | {f.unit} | {f.source} |" for f in features]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Write the page to the path given, docs/features.md by default."""
    path = Path(arguments[0] if arguments else "docs/features.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render())


if __name__ == "__main__":
    main(sys.argv[1:])
