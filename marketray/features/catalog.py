"""The catalog: which features there are for these settings and these data, and how to compute them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from marketray.bars import REQUIRED
from marketray.errors import DataError, SettingsError
from marketray.features.definition import KERNEL_COLUMNS, NEWS, Feature
from marketray.features.fitted import FittedFeature
from marketray.features.groups import built_in_columns, built_in_features, built_in_fitted
from marketray.features.seed_compatible import seed_columns, seed_features
from marketray.features.user import user_features
from marketray.features.user_check import check_expressions
from marketray.hashing import code_hash, digest
from marketray.sentiment.signals import COLUMNS as NEWS_COLUMNS

if TYPE_CHECKING:
    from marketray.settings import FeatureSettings

__all__ = ["Catalog", "Feature", "build_catalog", "check_features"]

_log = logging.getLogger(__name__)

_OWN_NAME = (*REQUIRED, "volume")
"""Bar columns that a catalog may offer as they are, under their own name."""

_DEFINING_CODE = (
    "marketray.features.catalog",
    "marketray.features.definition",
    "marketray.features.fits",
    "marketray.features.fitted",
    "marketray.features.groups",
    "marketray.features.kernel",
    "marketray.features.seed_compatible",
    "marketray.features.user",
    "marketray.features.windows",
    "marketray.sentiment.signals",
    "marketray.sessions",
)


@dataclass(frozen=True)
class Catalog:
    """The features of a run, in column order.

    Attributes
    ----------
    features:
        The definitions, in the order of the output columns.
    dropped:
        Names of features left out because the data lack what they need.
    interval_minutes:
        Length of a bar; decision_at = time + interval.
    hash:
        32 hex digits over the definitions, the text of user files and the code behind them. A model
        answers only for features of the catalog that it was trained on.
    layers:
        The computation: each layer's expressions need only bars, kernel columns and earlier layers.
    fitted:
        Features that are made from these on training rows, inside a model; no column of the table.
    """

    features: tuple[Feature, ...]
    dropped: tuple[str, ...]
    interval_minutes: int
    hash: str
    layers: tuple[tuple[pl.Expr, ...], ...]
    fitted: tuple[FittedFeature, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(f.name for f in self.features)

    @property
    def lookback(self) -> int:
        """Bars the last row of a table needs, itself included; the halo is one less."""
        return max(f.lookback for f in self.features)

    @property
    def columns(self) -> tuple[str, ...]:
        """Bar columns to read."""
        return (*REQUIRED, *(name for name in self.inputs if name != NEWS))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Optional inputs that some feature needs, sorted."""
        return tuple(sorted({name for f in self.features for name in f.inputs}))

    @cached_property
    def news_columns(self) -> tuple[str, ...]:
        """Measures of the news (`marketray.sentiment.signals.COLUMNS`) that the features are made of."""
        roots = {root for layer in self.layers for e in layer for root in e.meta.root_names()}
        return tuple(name for name in NEWS_COLUMNS if name in roots)

    def group(self, name: str) -> tuple[str, ...]:
        """Names of the features of one group."""
        return tuple(f.name for f in self.features if f.group == name)

    def layers_of(self, names: Collection[str]) -> tuple[tuple[pl.Expr, ...], ...]:
        """The part of `layers` that these features need."""
        needed = set(names)
        kept: list[tuple[pl.Expr, ...]] = []
        for layer in reversed(self.layers):
            chosen = tuple(e for e in layer if e.meta.output_name() in needed)
            for expression in chosen:
                needed.update(expression.meta.root_names())
            if chosen:
                kept.append(chosen)
        return tuple(reversed(kept))

    def subset(self, names: Collection[str], *, known_at_once: bool = False) -> Catalog:
        """The catalog of some features and of what they are computed from, and fitted ones made from them;
        the hash stays.

        With `known_at_once` every lookback counts as 1, so that no value is withheld.
        """
        chosen = tuple(f for f in self.features if f.name in names)
        if known_at_once:
            chosen = tuple(replace(f, lookback=1) for f in chosen)
        definitions = {e.meta.output_name(): e for layer in self.layers for e in layer}
        kept = {f.name for f in chosen}
        return replace(
            self,
            features=chosen,
            layers=_layers([f.name for f in chosen], definitions),
            fitted=tuple(f for f in self.fitted if f.of in kept),
        )

    def __getitem__(self, name: str) -> Feature:
        """The definition of one feature."""
        for feature in self.features:
            if feature.name == name:
                return feature
        raise KeyError(name)


def build_catalog(
    settings: FeatureSettings, available: Collection[str], interval_minutes: int = 1
) -> Catalog:
    """Features of the chosen groups that the data can carry.

    Parameters
    ----------
    settings:
        The catalog, groups to compute (empty: all), names to leave out, and files with features of the
        user.
    available:
        Bar columns that hold data (a volume that is null throughout is not among them), and `NEWS` where
        there are scored articles.
    interval_minutes:
        Length of a bar.

    Raises
    ------
    SettingsError
        A group or a name is unknown, a user file is wrong, or nothing is left.
    DataError
        The bars lack a column that every feature needs.
    """
    missing = sorted(set(REQUIRED) - set(available))
    if missing:
        msg = f"bars: got the columns {sorted(available)}, which lack {missing}; required: {list(REQUIRED)}"
        raise DataError(msg, hint="run the ingest stage again")
    known, known_fitted, definitions = _definitions(settings, interval_minutes)
    chosen, chosen_fitted = _chosen(settings, known, known_fitted)
    kept = tuple(f for f in chosen if set(f.inputs) <= set(available))
    dropped = tuple(f.name for f in chosen if f not in kept)
    dropped += tuple(f.name for f in chosen_fitted if f.of in dropped)
    fitted = _made_from(kept, [f for f in chosen_fitted if f.name not in dropped])
    if dropped:
        _log.info("features dropped because the bars lack their inputs: %s", ", ".join(dropped))
    if not kept:
        msg = f"features: groups={list(settings.groups)} and exclude leave no feature for these bars"
        raise SettingsError(msg, hint="choose more groups, or exclude fewer features")
    identity: list[object] = [
        [f.name, f.group, f.lookback, f.formula, f.unit, f.inputs, f.exact] for f in kept
    ]
    texts = [file.text for file in settings.files]
    return Catalog(
        features=kept,
        dropped=dropped,
        interval_minutes=interval_minutes,
        hash=digest(
            identity, [f.to_json() for f in fitted], texts, interval_minutes, code_hash(*_DEFINING_CODE)
        ),
        layers=_layers([f.name for f in kept], definitions),
        fitted=fitted,
    )


def check_features(settings: FeatureSettings, interval_minutes: int = 1) -> None:
    """Refuse settings that no bars could satisfy; needs no data, so a run asks before it reads any.

    Raises
    ------
    SettingsError
        A group or a name is unknown, a user file is wrong, or nothing is left.
    """
    known, _, _ = _definitions(settings, interval_minutes)
    build_catalog(settings, {*REQUIRED, *(name for f in known for name in f.inputs)}, interval_minutes)


def _definitions(
    settings: FeatureSettings, interval_minutes: int
) -> tuple[list[Feature], list[FittedFeature], dict[str, pl.Expr]]:
    """Features to choose from, stateless and fitted, and the expression behind every further column."""
    if settings.catalog == "standard":
        built_in = built_in_features(interval_minutes, settings.trading_sentiment, settings.trading_strength)
        shared, fitted = built_in_columns(), built_in_fitted()
    else:
        built_in, shared, fitted = seed_features(interval_minutes), seed_columns(), []
    own, own_fitted = user_features(
        settings.files,
        {*shared, *KERNEL_COLUMNS, *NEWS_COLUMNS, *(f.name for f in built_in)},
        {f.name for f in fitted},
    )
    known = [*built_in, *own]
    definitions = {**shared, **{f.name: f.expression for f in known if f.name not in _OWN_NAME}}
    check_expressions(own, definitions)
    return known, [*fitted, *own_fitted], definitions


def _chosen(
    settings: FeatureSettings, known: list[Feature], fitted: list[FittedFeature]
) -> tuple[list[Feature], list[FittedFeature]]:
    everything: list[Feature | FittedFeature] = [*known, *fitted]
    groups = list(dict.fromkeys(f.group for f in everything))
    unknown = sorted(set(settings.groups) - set(groups))
    if unknown:
        msg = f"features.groups: got {unknown}; required: some of {groups}"
        raise SettingsError(msg, hint=f"docs/features.md lists the groups of the {settings.catalog} catalog")
    unknown = sorted(set(settings.exclude) - {f.name for f in everything})
    if unknown:
        msg = f"features.exclude: {unknown} are not features of the {settings.catalog} catalog"
        raise SettingsError(msg, hint="docs/features.md lists the features")
    wanted = set(settings.groups or groups)
    excluded = set(settings.exclude)
    return (
        [f for f in known if f.group in wanted and f.name not in excluded],
        [f for f in fitted if f.group in wanted and f.name not in excluded],
    )


def _made_from(kept: Sequence[Feature], fitted: Sequence[FittedFeature]) -> tuple[FittedFeature, ...]:
    """The fitted features whose own feature is kept; the others are named in the log."""
    names = {f.name for f in kept}
    left = [f.name for f in fitted if f.of not in names]
    if left:
        _log.info("fitted features left out with the features they are made from: %s", ", ".join(left))
    return tuple(f for f in fitted if f.of in names)


def _layers(names: list[str], definitions: Mapping[str, pl.Expr]) -> tuple[tuple[pl.Expr, ...], ...]:
    """Order the definitions behind `names` so that each needs only earlier ones."""
    depth: dict[str, int] = {}

    def place(name: str, path: tuple[str, ...]) -> int:
        if name not in definitions:
            return 0  # a bar or kernel column
        if name in path:
            msg = f"features: {' -> '.join((*path, name))} is a circle"
            raise SettingsError(msg, hint="define each feature from bars or from other features")
        if name not in depth:
            roots = definitions[name].meta.root_names()
            depth[name] = 1 + max((place(root, (*path, name)) for root in roots), default=0)
        return depth[name]

    for name in names:
        place(name, ())
    count = max(depth.values(), default=0)  # 0: bar columns alone
    return tuple(
        tuple(definitions[name].alias(name) for name, d in depth.items() if d == level)
        for level in range(1, count + 1)
    )
