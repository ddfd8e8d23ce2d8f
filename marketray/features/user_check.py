"""What only an evaluation shows: unknown columns, undeclared inputs and wrong shapes of user features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from marketray.bars import OPTIONAL, REQUIRED
from marketray.errors import SettingsError
from marketray.features.definition import KERNEL_COLUMNS, NEWS, Feature
from marketray.sentiment.signals import COLUMNS as NEWS_COLUMNS

__all__ = ["check_expressions"]

_ROWS = 8


def check_expressions(features: Sequence[Feature], definitions: Mapping[str, pl.Expr]) -> None:
    """Refuse features whose expression cannot stand in the catalog.

    Parameters
    ----------
    features:
        Features of user files.
    definitions:
        Expressions of every feature and shared column, theirs included.

    Raises
    ------
    SettingsError
        An expression names a column that does not exist, needs bar columns that its inputs do not name,
        does not run, or does not give one number a bar.
    """
    for feature in features:
        where = f"features.files: {feature.source}: {feature.name!r}"
        needed = _bar_columns(feature, definitions, where)
        undeclared = [name for name in (*OPTIONAL, NEWS) if name in needed and name not in feature.inputs]
        if undeclared:
            msg = f"{where} needs {undeclared}; got inputs={list(feature.inputs)}"
            raise SettingsError(msg, hint=f"declare inputs={[*feature.inputs, *undeclared]}")
        _try(feature, where)


def _bar_columns(feature: Feature, definitions: Mapping[str, pl.Expr], where: str) -> set[str]:
    """Bar columns behind the feature, through other features."""
    found: set[str] = set()
    seen, queue = {feature.name}, feature.expression.meta.root_names()
    while queue:
        name = queue.pop()
        if name in REQUIRED or name in OPTIONAL:
            found.add(name)
        elif name in NEWS_COLUMNS:
            found.add(NEWS)
        elif name in definitions and name not in seen:
            seen.add(name)
            queue += definitions[name].meta.root_names()
        elif name not in definitions and name not in KERNEL_COLUMNS:
            msg = f"{where}: there is no column {name!r}"
            raise SettingsError(msg, hint="use bar columns or features; docs/features.md lists them")
    return found


def _try(feature: Feature, where: str) -> None:
    """Evaluate on a few bars."""
    opens = [datetime(2024, 1, 2, 14, 30 + i, tzinfo=UTC) for i in range(_ROWS)]
    frame = pl.DataFrame(
        {
            "time": opens,
            "_row": range(_ROWS),
            "_decision_at": [t + timedelta(minutes=1) for t in opens],
            "_session": [0] * _ROWS,
            "_open_at": [opens[0]] * _ROWS,
            "_close_at": [opens[-1] + timedelta(minutes=1)] * _ROWS,
        },
        schema_overrides={"_row": pl.Int64, "_session": pl.Int32}
        | {name: pl.Datetime("us", "UTC") for name in ("time", "_decision_at", "_open_at", "_close_at")},
    )
    values = [
        pl.Series(name, [100.0 + (i * 7 % 5) / 10 for i in range(_ROWS)])
        for name in set(feature.expression.meta.root_names()) - set(frame.columns)
    ]
    try:
        got = frame.with_columns(values).select(feature.expression.alias(feature.name))
    except pl.exceptions.PolarsError as e:
        msg = f"{where}: the expression fails on bars: {type(e).__name__}: {str(e).splitlines()[0]}"
        raise SettingsError(msg, hint="try it on a frame of bars: frame.select(expression)") from e
    kind = got.schema[feature.name]
    if not (kind.is_numeric() or kind in (pl.Boolean, pl.Null)):
        msg = f"{where}: the expression gives {kind}; required: numbers"
        raise SettingsError(msg, hint="cast the result, e.g. .dt.total_minutes() of a duration")
    if len(got) not in (1, _ROWS):
        msg = f"{where}: the expression gives {len(got)} values for {_ROWS} bars; required: one a bar"
        raise SettingsError(msg, hint="keep every row: no filter, no drop_nulls, no group_by")
