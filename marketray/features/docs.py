"""``python -m marketray.features.docs``: write docs/features.md from the catalog."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from marketray.features.definition import Feature
from marketray.features.fitted import FittedFeature
from marketray.features.groups import built_in_features, built_in_fitted

__all__ = ["main", "render"]

_HEADER = """# Features

Written by `python -m marketray.features.docs` from the catalog; do not edit.

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
- Settings: `features.groups` (empty: all) and `features.exclude` choose; everything is scale-free, so a
  model does not learn price levels.
"""


_FITTED = """Made from another feature by statistics of its training values; never stored as columns.
The statistics are fitted anew on each fold's training rows, and a model keeps its own:
[user-features.md](user-features.md).
"""


def render(interval_minutes: int = 1) -> str:
    """The page, as Markdown: one table a group."""
    features, fitted = built_in_features(interval_minutes), built_in_fitted()
    count = (
        f"{len(features)} features, 60 of them lags for the autoregression, and {len(fitted)} fitted ones.\n"
    )
    parts = [_HEADER, count]
    for group, members in groupby(features, key=lambda f: f.group):
        parts.append(f"## {group}\n\n{_table(list(members))}")
    for group, made in groupby(fitted, key=lambda f: f.group):
        parts.append(f"## {group}\n\n{_FITTED}\n{_fitted_table(list(made))}")
    return "\n".join(parts)


def _table(features: list[Feature]) -> str:
    lines = [
        "| feature | formula | unit | lookback | exact | needs | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in features:
        cells = (
            f"`{f.name}`",
            f.formula.replace("|", "\\|"),
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
