"""What the news said before each decision: trailing windows over scored articles, by known time.

An article is usable at a decision when ``available_at < decision_at``; a window of W minutes ending at
the decision holds the articles with decision_at - W <= available_at < decision_at. Probabilities are
summed as whole multiples of 2^-40, so that a sum is exact and does not depend on where the sums of a
table begin. An empty window has count 0 and no sentiment: nothing is carried further than its window.
Before the first of all articles nobody collected any, and nothing is known: not even that there were none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.errors import DataError

__all__ = [
    "COLUMNS",
    "HALF_LIVES",
    "MAX_AGE_MINUTES",
    "NEWS_SCHEMA",
    "WINDOWS",
    "check_news",
    "latest_article",
    "news_columns",
]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]

WINDOWS = {"15m": 15, "60m": 60, "24h": 1_440}
"""Trailing windows by name, minutes."""

HALF_LIVES = {"15m": 15, "1h": 60, "1d": 1_440}
"""Half-lives of decaying means by name, minutes; an article counts for `_FORGOTTEN_AFTER` of them."""

_FORGOTTEN_AFTER = 10  # half-lives; the weight is then 1/1024
MAX_AGE_MINUTES = _FORGOTTEN_AFTER * max(HALF_LIVES.values())
"""Age beyond which no signal knows an article: ten days."""

NEWS_SCHEMA = {
    "available_at": pl.Datetime("us", "UTC"),
    "positive": pl.Float64(),
    "negative": pl.Float64(),
    "neutral": pl.Float64(),
}
"""Scored articles as the signals take them, sorted by `available_at`: when each became known, and the
probabilities of its three classes."""

_MEASURES = ("count", "mean", "quality", "positive", "negative", "neutral", "dispersion", "previous")
COLUMNS = (
    *(f"_news_{measure}_{window}" for window in WINDOWS for measure in _MEASURES),
    *(f"_news_{measure}_{life}" for life in HALF_LIVES for measure in ("decayed", "intensity")),
    "_news_minutes",
)
"""What `news_columns` can compute."""

_ONE = float(2**40)
_MINUTE = 60_000_000
_MOST = 2**22  # articles whose sums of 2^40 fit into int64
_BLOCK = 400  # half-lives a block of decaying weights spans; 2^±400 is far from float64's limits


@dataclass(frozen=True)
class _Articles:
    """Arrays over the articles: times, and prefix sums of the measures in multiples of 2^-40."""

    available_us: Int64Array
    polarity: Float64Array
    sums: dict[str, Int64Array]

    @classmethod
    def of(cls, news: pl.DataFrame) -> _Articles:
        times = news["available_at"].to_physical().to_numpy()
        p = {name: news[name].to_numpy().astype(np.float64) for name in ("positive", "negative", "neutral")}
        polarity = p["positive"] - p["negative"]
        measures = {
            **p,
            "mean": polarity,
            "square": polarity**2,
            "quality": np.maximum.reduce(list(p.values())),
        }
        sums = {
            name: np.concatenate([[0], np.cumsum(np.rint(values * _ONE).astype(np.int64))])
            for name, values in measures.items()
        }
        return cls(times, polarity, sums)

    def means(self, name: str, start: Int64Array, stop: Int64Array) -> Float64Array:
        """Mean of a measure over articles [start, stop); NaN where there is none."""
        total = self.sums[name][stop] - self.sums[name][start]
        count = stop - start
        means: Float64Array = np.divide(total, count * _ONE, out=np.full(len(count), np.nan), where=count > 0)
        return means


def news_columns(
    decision_us: Int64Array, news: pl.DataFrame, wanted: Collection[str] = COLUMNS
) -> dict[str, Float64Array]:
    """Measures of the news before each decision.

    Parameters
    ----------
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,), ascending.
    news:
        Scored articles with the columns of `NEWS_SCHEMA`, sorted by available_at; those available at or
        after a decision do not count for it, nor those `MAX_AGE_MINUTES` older than it. The first of all
        articles must be among them, however old, for it says since when news is collected.
    wanted:
        Which of `COLUMNS` to compute.

    Returns
    -------
    dict
        float64 of shape (n,) by name. For a window of W minutes, articles in [t - W, t): ``count``; the
        means of p+ - p- (``mean``), of the largest probability (``quality``), of each class; the population
        standard deviation of p+ - p- (``dispersion``, from two articles on); ``previous``, the mean over
        [t - 2W, t - W). For a half-life H, articles of the last 10 H with weight 2^(-age / H): their mean of
        p+ - p- (``decayed``) and the sum of the weighted p+ - p- (``intensity``, 0 without articles).
        ``_news_minutes``: minutes since the last article. NaN where there are no articles to speak of, and
        all of them at decisions that know no article, however old.

    Raises
    ------
    DataError
        A column is missing, has another type or a missing value, or the articles are not sorted.
    """
    check_news(news)
    articles = _Articles.of(news)
    stop = np.searchsorted(articles.available_us, decision_us, side="left")
    found: dict[str, Float64Array] = {}
    for name, minutes in WINDOWS.items():
        if any(f"_news_{measure}_{name}" in wanted for measure in _MEASURES):
            found |= _window(articles, decision_us, stop, name, minutes)
    for name, minutes in HALF_LIVES.items():
        if any(f"_news_{measure}_{name}" in wanted for measure in ("decayed", "intensity")):
            found |= _decay(articles, decision_us, stop, name, minutes)
    if "_news_minutes" in wanted:
        found["_news_minutes"] = _minutes_since(articles, decision_us, stop)
    return {name: np.where(stop > 0, found[name], np.nan) for name in wanted}


def latest_article(articles: pl.DataFrame, decision_us: int) -> dict[str, object] | None:
    """The last article known before a decision and not older than `MAX_AGE_MINUTES`; for display only.

    Parameters
    ----------
    articles:
        Rows sorted by `available_at`, with whatever columns are to be shown.
    decision_us:
        Decision time, microseconds since the epoch, UTC.
    """
    times = articles["available_at"].to_physical().to_numpy()
    last = int(np.searchsorted(times, decision_us, side="left")) - 1
    if last < 0 or times[last] < decision_us - MAX_AGE_MINUTES * _MINUTE:
        return None
    return articles.row(last, named=True)


def _window(
    articles: _Articles, decision_us: Int64Array, stop: Int64Array, name: str, minutes: int
) -> dict[str, Float64Array]:
    times, span = articles.available_us, minutes * _MINUTE
    start = np.searchsorted(times, decision_us - span, side="left")
    before = np.searchsorted(times, decision_us - 2 * span, side="left")
    mean, count = articles.means("mean", start, stop), (stop - start).astype(np.float64)
    variance = articles.means("square", start, stop) - mean**2
    variance[variance < 1e-11] = 0.0  # of equal values, up to the resolution of the sums
    measures = {
        "count": count,
        "mean": mean,
        **{m: articles.means(m, start, stop) for m in ("quality", "positive", "negative", "neutral")},
        "dispersion": np.where(count >= 2, np.sqrt(np.maximum(variance, 0.0)), np.nan),
        "previous": articles.means("mean", before, start),
    }
    return {f"_news_{measure}_{name}": values for measure, values in measures.items()}


def _decay(
    articles: _Articles, decision_us: Int64Array, stop: Int64Array, name: str, minutes: int
) -> dict[str, Float64Array]:
    life = minutes * _MINUTE
    start = np.searchsorted(articles.available_us, decision_us - _FORGOTTEN_AFTER * life, side="left")
    weight = _decayed_sums(
        articles.available_us, np.ones(len(articles.polarity)), decision_us, life, start, stop
    )
    total = _decayed_sums(articles.available_us, articles.polarity, decision_us, life, start, stop)
    empty = start == stop
    mean = np.divide(total, weight, out=np.full(len(total), np.nan), where=~empty)
    return {f"_news_decayed_{name}": mean, f"_news_intensity_{name}": np.where(empty, 0.0, total)}


def _decayed_sums(
    times: Int64Array, values: Float64Array, at: Int64Array, life: int, start: Int64Array, stop: Int64Array
) -> Float64Array:
    """Sum of values * 2^(-(at - time) / life) over articles [start, stop) for each `at`.

    Weights relative to the start of a block of `_BLOCK` half-lives are summed once; a window, much shorter
    than a block, is a difference of prefix sums in at most two of them.
    """
    span = _BLOCK * life
    block = times // span
    scaled = values * np.exp2((times - block * span) / life)
    inside = np.zeros(len(times) + 1)  # inside[i]: sum over the articles of i - 1's block up to i - 1
    for number in np.unique(block):
        first, last = np.searchsorted(block, (number, number + 1))
        inside[first + 1 : last + 1] = np.cumsum(scaled[first:last])
    out = np.zeros(len(at))
    for offset in (0, 1):
        number = at // span - offset
        first, last = (np.searchsorted(block, number, side=side) for side in ("left", "right"))
        lo, hi = np.maximum(start, first), np.minimum(stop, last)
        head = np.where(lo > first, inside[lo], 0.0)
        weight = np.exp2(-(at - number * span) / life)
        out += np.where(hi > lo, (inside[hi] - head) * weight, 0.0)
    return out


def _minutes_since(articles: _Articles, decision_us: Int64Array, stop: Int64Array) -> Float64Array:
    minutes = np.full(len(decision_us), np.nan)
    known = stop > 0
    minutes[known] = (decision_us[known] - articles.available_us[stop[known] - 1]) / _MINUTE
    return np.where(minutes <= MAX_AGE_MINUTES, minutes, np.nan)


def check_news(news: pl.DataFrame) -> None:
    """Refuse, with a DataError, articles that are not as `news_columns` requires them."""
    for name, kind in NEWS_SCHEMA.items():
        if news.schema.get(name) != kind:
            msg = f"news: {name} is {news.schema.get(name)}; required: {kind}"
            raise DataError(msg, hint="take the articles from silver/sentiment")
        if news[name].null_count():
            msg = f"news: {name} is missing in {news[name].null_count()} articles; required: a value in each"
            raise DataError(msg, hint="an article without a score or a known time belongs into quarantine")
    if not news["available_at"].is_sorted():
        msg = "news: the articles are not sorted; required: ascending available_at"
        raise DataError(msg, hint="sort them by available_at")
    if len(news) > _MOST:
        msg = f"news: got {len(news)} articles at once; required: at most {_MOST}"
        raise DataError(msg, hint="compute shorter time ranges")
