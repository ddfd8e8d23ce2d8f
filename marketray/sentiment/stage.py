"""Scoring on Ray Data: texts are tokenised by tasks, scored by actors and stored by tasks, all at once.

One row of the dataset is one block of texts of similar length. A block that was in the hands of a killed
process is given to another one and comes out the same; what is stored stays stored when a run is killed.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from marketray import errors
from marketray.errors import ClusterError, LakeError, MarketrayError
from marketray.lake import Lake
from marketray.sentiment.cache import REFUSED_SCHEMA, SCORE_SCHEMA, ScoreCache, block_name
from marketray.sentiment.checkpoint import Checkpoint, find_checkpoint
from marketray.sentiment.choice import DEFAULT_MODEL, model_for, warn_of_stand_in
from marketray.sentiment.device import TOKEN_BUDGETS, choose_device, choose_dtype
from marketray.sentiment.job import Block, Scorer, ScoringJob, pack, store_block, tokenize_block, unpack
from marketray.sentiment.pool import Pool, plan_pool
from marketray.sentiment.publish import publish_sentiment
from marketray.sentiment.store import ARTICLES, articles_content, sentiment_manifest
from marketray.sentiment.texts import cut_blocks, require_texts, with_text
from marketray.sentiment.throughput import Throughput
from marketray.sentiment.tokenizer import export_tokenizer

if TYPE_CHECKING:
    from marketray.settings import SentimentSettings, Settings

__all__ = [
    "ARTICLES",
    "ScoredTexts",
    "SentimentResult",
    "run_sentiment",
    "score_texts",
]

_log = logging.getLogger(__name__)


_CAUSE = re.compile(r"[\w.]+(Error|Invalid): ")  # the first of a printed chain of exceptions

_BATCHES_PER_BLOCK = 8
_COMPILE_FROM_TOKENS = 100_000_000  # compiling takes half a minute and saves 0.3 µs a token on an H200

OnBlock = Callable[[Block], None]


@dataclass(frozen=True)
class ScoredTexts:
    """Scores of the texts that were asked for.

    Attributes
    ----------
    scores, refused:
        Tables as `SCORE_SCHEMA` and `REFUSED_SCHEMA`, ordered by text hash; each text is in one of them.
    passes, tokens, padded_tokens:
        Forward passes, tokens read, and tokens computed with the padding.
    """

    scores: pa.Table
    refused: pa.Table
    passes: int
    tokens: int
    padded_tokens: int


@dataclass(frozen=True)
class SentimentResult:
    """Outcome of the stage; texts = scored + refused, and scored now = texts - cached.

    Attributes
    ----------
    articles, articles_scored, articles_refused, articles_cached:
        Stored articles, those with scores, those whose text cannot be scored, and those of both whose text
        earlier runs had done; articles = articles_scored + articles_refused.
    texts, scored, refused, cached:
        The same of the different texts among them: each is scored once.
    written, skipped:
        Monthly partitions of silver/sentiment written now, and right already.
    passes, tokens:
        Forward passes of the model and tokens read in this run.
    model, revision, scoring_id:
        What scored them; the scores are stored under `scoring_id`.
    """

    articles: int
    articles_scored: int
    articles_refused: int
    articles_cached: int
    texts: int
    scored: int
    refused: int
    cached: int
    written: int
    skipped: int
    passes: int
    tokens: int
    model: str
    revision: str
    scoring_id: str


def run_sentiment(settings: Settings, *, on_block: OnBlock | None = None) -> SentimentResult:
    """Score every stored article of the instrument into silver/sentiment, each text once for all.

    The texts' scores are kept in silver/sentiment_scores. Without `sentiment.model` the simulator's news is
    scored by the packaged model and any other by ProsusAI/finbert.

    Parameters
    ----------
    on_block:
        Called on the driver with each block's figures when it is stored.

    Raises
    ------
    LakeError
        There are no articles, or the lake cannot be read or written.
    SettingsError, ModelError
        The model cannot be had, loaded or used with these settings.
    ClusterError
        The cluster cannot hold the scoring processes, or a process failed.
    """
    options, lake = settings.sentiment, Lake(settings.lake_uri)
    content = articles_content(lake, settings.instrument)
    articles = with_text(_stored_articles(lake, settings), options.text)
    texts = articles.unique("text_hash", keep="first", maintain_order=True)
    checkpoint = find_checkpoint(model_for(options, articles), options.revision, settings.home_path)
    warn_of_stand_in(checkpoint, articles)
    device, dtype = _device_and_dtype(options)
    cache = ScoreCache(lake, checkpoint.scoring_id(options.max_tokens, dtype))
    missing = require_texts(cache.missing(texts.select("text_hash", "text")))
    passes = tokens = 0
    for block in _score(missing, options, checkpoint, device, dtype, settings):
        passes, tokens = passes + block["passes"], tokens + block["tokens"]
        if on_block is not None:
            on_block(block)
    refused = cache.refused().join(texts, on="text_hash", how="semi")
    scored = cache.scores().join(texts, on="text_hash", how="semi")
    scorer = f"{cache.scoring_id}/{options.text}"
    detail = {"model": checkpoint.name, "revision": checkpoint.revision, "scorer": scorer}
    published = publish_sentiment(lake, settings.instrument, articles, scored, detail)
    result = SentimentResult(
        articles=len(articles),
        articles_scored=published.rows,
        articles_refused=published.refused,
        articles_cached=len(articles.join(missing, on="text_hash", how="anti")),
        texts=len(texts),
        scored=len(scored),
        refused=len(refused),
        cached=len(texts) - len(missing),
        written=published.written,
        skipped=published.skipped,
        passes=passes,
        tokens=tokens,
        model=checkpoint.name,
        revision=checkpoint.revision,
        scoring_id=cache.scoring_id,
    )
    lost = articles.join(refused, on="text_hash")["reason"]
    _write_manifest(lake, settings.instrument, result, lost, content)
    return result


def score_texts(texts: pa.Table, settings: Settings, *, on_block: OnBlock | None = None) -> ScoredTexts:
    """Score texts without the lake.

    Parameters
    ----------
    texts:
        Columns text_hash and text, no hash twice.

    Raises
    ------
    DataError
        `texts` is not such a table.
    SettingsError, ModelError, ClusterError
        As for `run_sentiment`.
    """
    options = settings.sentiment
    frame = pl.from_arrow(texts)
    assert isinstance(frame, pl.DataFrame)
    wanted = require_texts(frame)
    checkpoint = find_checkpoint(options.model or DEFAULT_MODEL, options.revision, settings.home_path)
    device, dtype = _device_and_dtype(options)
    blocks = []
    for block in _score(wanted, options, checkpoint, device, dtype, settings, store=False):
        blocks.append(block)
        if on_block is not None:
            on_block(block)
    scores = [SCORE_SCHEMA.empty_table(), *(unpack(b["scores"]) for b in blocks)]
    refused = [REFUSED_SCHEMA.empty_table(), *(unpack(b["refused"]) for b in blocks)]
    return ScoredTexts(
        scores=pa.concat_tables(scores).sort_by("text_hash"),
        refused=pa.concat_tables(refused).sort_by("text_hash"),
        passes=sum(b["passes"] for b in blocks),
        tokens=sum(b["tokens"] for b in blocks),
        padded_tokens=sum(b["padded_tokens"] for b in blocks),
    )


def _stored_articles(lake: Lake, settings: Settings) -> pl.DataFrame:
    columns = ["article_id", "available_at", "source", "title"] + (
        ["body"] if settings.sentiment.text == "headline_and_body" else []
    )
    tables = [table for _, table in lake.scan(ARTICLES, columns, instrument=settings.instrument)]
    if not tables:
        msg = f"{ARTICLES}: no articles of instrument={settings.instrument} in {lake.uri}"
        raise LakeError(msg, hint="run `marketray ingest` with a source that has news")
    frame = pl.from_arrow(pa.concat_tables([t.replace_schema_metadata(None) for t in tables]))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _device_and_dtype(options: SentimentSettings) -> tuple[str, str]:
    device = choose_device(options.device, _resources().get("GPU", 0.0))
    return device, choose_dtype(options.dtype, device)


def _score(
    texts: pl.DataFrame,
    options: SentimentSettings,
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    settings: Settings,
    *,
    store: bool = True,
) -> Iterator[Block]:
    """Finished blocks in the order they finish; nothing is loaded or started where there is no text."""
    if texts.is_empty():
        return
    budget = options.token_budget or TOKEN_BUDGETS[device]
    parts = list(cut_blocks(texts, options.max_tokens, _BATCHES_PER_BLOCK * budget))
    pool = plan_pool(options, device, len(parts), _resources())
    tokenizer, pad = export_tokenizer(checkpoint, options.max_tokens)
    long = sum(map(len, texts["text"])) / 4 >= _COMPILE_FROM_TOKENS
    job = ScoringJob(
        checkpoint=checkpoint,
        pinned=options.revision,
        home=settings.home_path,
        tokenizer=tokenizer,
        pad=pad,
        device=device,
        dtype=dtype,
        token_budget=budget,
        compiled=options.compile == "on" or (options.compile == "auto" and device == "cuda" and long),
        threads=pool.threads,
        scoring_id=checkpoint.scoring_id(options.max_tokens, dtype),
        lake_uri=settings.lake_uri if store else None,
    )
    _log.info(
        "sentiment: %d texts in %d blocks, %s %s in %s on %d x %s",
        *(len(texts), len(parts), checkpoint.name, checkpoint.revision[:12], dtype, pool.actors, device),
    )
    with Throughput(len(texts)) as shown:
        for block in _execute(parts, job, pool):
            shown.add(block["texts"], block["tokens"])
            yield block


def _resources() -> dict[str, float]:
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def _execute(parts: list[pl.DataFrame], job: ScoringJob, pool: Pool) -> Iterator[Block]:
    import ray
    from ray.data import ActorPoolStrategy

    rows = [  # the longest texts first, so that the last blocks to finish are short ones
        pa.table({"block": [block_name(part["text_hash"].to_list())], "texts": [pack(part.to_arrow())]})
        for part in reversed(parts)
    ]
    tokenized = ray.data.from_arrow(rows).map(
        tokenize_block,  # type: ignore[arg-type]  # Ray's signatures know neither fn_args nor classes
        fn_args=(job,),
        num_cpus=pool.task_cpus,
    )
    dataset = tokenized.map(
        Scorer,  # type: ignore[arg-type]
        fn_constructor_args=(job,),
        compute=ActorPoolStrategy(size=pool.actors),
        num_cpus=pool.actor_cpus,
        num_gpus=pool.actor_gpus or None,
    )
    if job.lake_uri is not None:
        dataset = dataset.map(
            store_block,  # type: ignore[arg-type]
            fn_args=(job,),
            num_cpus=pool.task_cpus,
        )
    dataset.set_name(f"sentiment:{job.scoring_id}")
    # Half of the resources would stay reserved for tasks that take next to nothing.
    dataset.context.op_resource_reservation_enabled = False
    try:
        for row in dataset.iter_rows():
            _raise_for_error(row)
            yield row
    except ray.exceptions.RayError as e:
        lines = str(e).strip().splitlines()
        cause = next((line for line in lines if _CAUSE.match(line)), lines[-1])
        msg = f"sentiment: a process failed: {cause}"
        raise ClusterError(msg, hint="the Ray dashboard and --debug show its whole error") from e


def _raise_for_error(row: Block) -> None:
    """Raise what a process raised on purpose, as what it was."""
    if row["error"]:
        kind: type[MarketrayError] = getattr(errors, row["error"])
        raise kind(row["message"], hint=row["hint"] or None)


def _write_manifest(
    lake: Lake, instrument: str, result: SentimentResult, lost: pl.Series, content: str
) -> None:
    """Note what became of the articles, whenever they were scored; `lost`: why each that is not cannot be."""
    lake.write_json(
        sentiment_manifest(instrument),
        {
            "key": result.scoring_id,
            "rows_in": result.articles,
            "rows_out": result.articles_scored,
            "rows_quarantined": result.articles_refused,
            "rows_dropped": 0,
            "detail": {
                "reasons": dict(sorted(Counter(lost.to_list()).items())),
                "texts": {n: getattr(result, n) for n in ("texts", "scored", "refused")},
                "model": result.model,
                "revision": result.revision,
                "articles_content": content,
            },
        },
    )
