"""What the news is worth before any model: how often there is some, who scored it, what its tone says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketray.dataset.load import Block, load_split
from marketray.dataset.rows import utc_series
from marketray.evaluation.metrics import information_coefficient
from marketray.lake import Lake
from marketray.sentiment.lexicon import lexicon_scores
from marketray.sentiment.signals import news_columns
from marketray.sentiment.store import ARTICLES, SENTIMENT, months_between, news_contents, read_news
from marketray.sentiment.texts import with_text

if TYPE_CHECKING:
    from marketray.settings import Settings

__all__ = ["article_labels", "news_features", "news_share", "scorers", "sentiment_worth"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_WINDOWS = {"60m": "_news_count_60m", "24h": "_news_count_24h"}
_LONGEST_WAIT_US = 86_400 * 1_000_000


def news_features(settings: Settings) -> tuple[str, ...]:
    """Columns of the settings' dataset that are made from scored articles, the user's own among them.

    Raises
    ------
    LakeError
        There is no dataset.
    """
    from marketray.bars import REQUIRED
    from marketray.features.catalog import build_catalog
    from marketray.features.definition import NEWS

    split = load_split(settings)
    inputs = split.detail.get("feature_inputs", ())
    if NEWS not in inputs:
        return ()
    catalog = build_catalog(settings.features, (*REQUIRED, *inputs), settings.bar_interval_minutes)
    made = {feature.name for feature in catalog.features if NEWS in feature.inputs}
    return tuple(name for name in split.columns if name in made)


def scorers(settings: Settings) -> list[dict[str, Any]]:
    """``model`` and ``revision`` of what scored the stored articles, from the manifests; each once."""
    lake = Lake(settings.lake_uri)
    found = []
    for partition in lake.partitions(SENTIMENT, instrument=settings.instrument):
        manifest = lake.manifest(SENTIMENT, partition)
        detail = manifest.detail if manifest is not None else {}
        scorer = {name: detail.get(name) for name in ("model", "revision")}
        if scorer not in found:
            found.append(scorer)
    return found


def news_share(settings: Settings, decision_us: IntArray) -> dict[str, float]:
    """Share of decisions with any article in the last 60 minutes (``60m``) and 24 hours (``24h``).

    Parameters
    ----------
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,), ascending, n >= 1. A window ends
        before the decision: articles in [t - window, t).

    Raises
    ------
    LakeError
        The scored articles cannot be read.
    """
    news = _articles(settings, decision_us)
    counts = news_columns(decision_us, news, tuple(_WINDOWS.values()))
    return {window: float((counts[name] > 0).mean()) for window, name in _WINDOWS.items()}


def article_labels(available_us: IntArray, decision_us: IntArray, y: FloatArray) -> FloatArray:
    """The label of the first decision that knows each article, shape (articles,); NaN where there is none.

    Parameters
    ----------
    available_us:
        When the articles became known, microseconds since the epoch, UTC, shape (articles,).
    decision_us, y:
        Decisions, ascending, and their labels over (decision, decision + horizon], shape (n,). The first
        with available < decision counts, if it is at most a day later.
    """
    first = np.searchsorted(decision_us, available_us, side="right")
    inside = np.minimum(first, len(decision_us) - 1)
    known = (first < len(decision_us)) & (decision_us[inside] - available_us <= _LONGEST_WAIT_US)
    return np.where(known, y[inside], np.nan)


def sentiment_worth(settings: Settings, decision_us: IntArray, y: FloatArray) -> dict[str, Any]:
    """What the tone of single articles says of the label, for the model and for the lexicon.

    Parameters
    ----------
    decision_us, y:
        Decisions and labels of rows that may be seen, see `article_labels`.

    Returns
    -------
    dict
        ``articles`` scored, ``labelled`` ones among them, and over these the information coefficients
        (Pearson correlation with the label) of the model's p(positive) - p(negative), ``model_ic``, and of
        VADER's compound score of the same text, ``lexicon_ic``; None where one of them is constant.

    Raises
    ------
    LakeError
        Scores or articles cannot be read.
    """
    lake = Lake(settings.lake_uri)
    names = ["article_id", "available_at", "positive", "negative", "text_hash"]
    scored = _read(lake, SENTIMENT, names, settings).sort("available_at", "article_id")
    label = article_labels(scored["available_at"].to_physical().to_numpy(), decision_us, y)
    labelled = scored.with_columns(label=pl.Series(label)).filter(pl.col("label").is_not_nan())
    worth: dict[str, Any] = {"articles": len(scored), "labelled": len(labelled)}
    if labelled.is_empty():
        return {**worth, "model_ic": None, "lexicon_ic": None}
    text = settings.sentiment.text
    columns = ["title"] + (["body"] if text == "headline_and_body" else [])
    texts = with_text(_read(lake, ARTICLES, columns, settings), text).unique("text_hash")
    texts = texts.select("text_hash", "text").join(labelled, on="text_hash", how="semi")
    tone = pl.DataFrame(
        {"text_hash": texts["text_hash"], "tone": lexicon_scores(texts["text"].to_list())},
        schema_overrides={"tone": pl.Float64},
    )
    read = labelled.join(tone, on="text_hash", how="inner", maintain_order="left")  # two sources share ids
    outcome = read["label"].to_numpy()
    polarity = (read["positive"].cast(pl.Float64) - read["negative"].cast(pl.Float64)).to_numpy()
    lexicon = read["tone"].to_numpy()
    return {
        **worth,
        "model_ic": information_coefficient(outcome, polarity),
        "lexicon_ic": information_coefficient(outcome, lexicon),
    }


def coverage(settings: Settings, blocks: Mapping[str, Block]) -> dict[str, dict[str, float]]:
    """`news_share` of each block."""
    return {name: news_share(settings, block.decision_us) for name, block in blocks.items()}


def _articles(settings: Settings, decision_us: IntArray) -> pl.DataFrame:
    lake = Lake(settings.lake_uri)
    ends = utc_series("t", decision_us[[0, -1]])
    first, last = ends[0], ends[1]
    months = months_between(news_contents(lake, settings.instrument), first, last)
    return read_news(lake, settings.instrument, months)


def _read(lake: Lake, dataset: str, columns: list[str], settings: Settings) -> pl.DataFrame:
    """All stored months of an instrument's articles or scores."""
    tables = lake.scan(dataset, columns, instrument=settings.instrument)
    return pl.concat([pl.DataFrame(t.replace_schema_metadata(None)) for _, t in tables])
