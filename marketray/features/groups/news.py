"""What was known of the news: sentiment over trailing windows that end before the decision.

The columns behind these features come from `marketray.sentiment.signals`, which says what a window holds.
A window without articles has count 0 and null sentiment. Before the first of all articles every feature is
null: nobody collected news yet, so that none is not known to be none.
"""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.sentiment.signals import HALF_LIVES, MAX_AGE_MINUTES, WINDOWS

__all__ = ["news"]

_GROUP = "news"
_BARE, _SILENT = "null without articles", "0 without articles"
_BEFORE = "null before the first article of all"
_SOURCE = "probabilities of the sentiment model over articles with available_at < decision_at"


def news(trading_sentiment: float, trading_strength: float) -> list[Feature]:
    """All news features.

    Parameters
    ----------
    trading_sentiment, trading_strength:
        `news_trading_signal_*` is +1 or -1 where the mean sentiment lies beyond the first, to that side, and
        the signal strength above the second.
    """
    windows = [f for w in WINDOWS for f in _window(w, trading_sentiment, trading_strength)]
    return [*windows, *(f for life in HALF_LIVES for f in _decaying(life)), *_impulses(), _minutes()]


def _window(window: str, trading_sentiment: float, trading_strength: float) -> list[Feature]:
    mean, quality, count = (pl.col(f"_news_{m}_{window}") for m in ("mean", "quality", "count"))
    strength = mean.abs() * quality
    beyond = pl.when(strength > trading_strength)
    sign = beyond.then((mean > trading_sentiment).cast(pl.Float64) - (mean < -trading_sentiment)).otherwise(
        0.0
    )
    span = f"[decision_at - {window}, decision_at)"
    classes = [
        (
            f"{kind}_prob",
            pl.col(f"_news_{kind}_{window}"),
            f"mean p({kind}) over {span}",
            "probability",
            _BARE,
        )
        for kind in ("positive", "negative", "neutral")
    ]
    rule = f"|avg_sentiment| > {trading_sentiment:g} and signal_strength > {trading_strength:g}"
    signal = pl.when(count > 0).then(sign).otherwise(pl.when(count.is_not_null()).then(0.0))
    change, dispersion = mean - pl.col(f"_news_previous_{window}"), pl.col(f"_news_dispersion_{window}")
    before = f"avg_sentiment - that of the {window} before"
    polarity, largest = "p(positive) - p(negative)", "the largest of the three probabilities"
    measures: list[tuple[str, pl.Expr, str, str, str]] = [
        ("article_count", count, f"articles with available_at in {span}", "articles", ""),
        ("avg_sentiment", mean, f"mean of {polarity} over {span}", "-1 to 1", _BARE),
        ("quality_score", quality, f"mean of {largest}, {span}", "probability", _BARE),
        ("signal_strength", strength, "|avg_sentiment| * quality_score", "0 to 1", _BARE),
        ("trading_signal", signal, f"sign of avg_sentiment where {rule}, else 0", "-1, 0, 1", _SILENT),
        *classes,
        ("sentiment_change", change, before, "-2 to 2", "null where one of the two has no article"),
        ("dispersion", dispersion, f"sd of {polarity}, {span}", "0 to 1", "null below two articles"),
    ]
    return [
        _feature(f"news_{name}_{window}", expression, formula, unit, null_policy)
        for name, expression, formula, unit, null_policy in measures
    ]


def _decaying(life: str) -> list[Feature]:
    weights = f"weight 2^(-age / {life}), articles of the last ten half-lives"
    return [
        _feature(
            f"news_decayed_sentiment_{life}",
            pl.col(f"_news_decayed_{life}"),
            f"weighted mean of p(positive) - p(negative), {weights}",
            "-1 to 1",
            _BARE,
            exact=False,
        ),
        _feature(
            f"news_intensity_{life}",
            pl.col(f"_news_intensity_{life}"),
            f"weighted sum of p(positive) - p(negative), {weights}",
            "articles",
            _SILENT,
            exact=False,
        ),
    ]


def _impulses() -> list[Feature]:
    volatility, bars = "realized_volatility_60", 61
    return [
        _feature(
            f"news_impulse_{life}",
            pl.col(f"_news_intensity_{life}") * pl.col(volatility),
            f"news_intensity_{life} * {volatility}: news moves prices further in volatile hours",
            "log return per bar",
            _SILENT,
            lookback=bars,
            exact=False,
        )
        for life in HALF_LIVES
    ]


def _minutes() -> Feature:
    return _feature(
        "news_minutes_since",
        pl.col("_news_minutes"),
        "decision_at - available_at of the last article",
        "minutes",
        f"null without one in the last {MAX_AGE_MINUTES} minutes",
    )


def _feature(
    name: str,
    expression: pl.Expr,
    formula: str,
    unit: str,
    null_policy: str,
    *,
    lookback: int = 1,
    exact: bool = True,
) -> Feature:
    return Feature(
        name=name,
        group=_GROUP,
        lookback=lookback,
        expression=expression,
        formula=formula,
        source=_SOURCE,
        unit=unit,
        inputs=("news",),
        exact=exact,
        null_policy="; ".join(filter(None, [null_policy, _BEFORE])),
    )
