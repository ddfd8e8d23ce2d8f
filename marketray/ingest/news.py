"""Files of articles through all checks into the lake: the whole of an ingest of news, without Ray."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from marketray.errors import DataError, QualityError, SettingsError
from marketray.ingest.article_rows import judge_articles
from marketray.ingest.article_store import ArticleStore
from marketray.ingest.bronze import ARTICLES, Published, discard_staging
from marketray.ingest.clock import present
from marketray.ingest.news_record import (
    QUARANTINED,
    NewsResult,
    manifest_name,
    news_key,
    report_name,
    result_json,
    unchanged_news,
)
from marketray.ingest.quarantine import UNDATED, Quarantine
from marketray.ingest.record import stored_names
from marketray.ingest.schemas import ARTICLE_SCHEMA, QUARANTINE_ARTICLE_SCHEMA
from marketray.ingest.sources.articles import RawArticles, read_articles
from marketray.ingest.sources.files import expand_paths, fingerprint
from marketray.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

    from marketray.settings import NewsSettings, Settings

__all__ = ["REFUSED", "ingest_news"]

_log = logging.getLogger(__name__)

REFUSED = QUARANTINE_ARTICLE_SCHEMA.append(pa.field("text", pa.string()))
"""`QUARANTINE_ARTICLE_SCHEMA` and `text`: the whole line of an article that was not split into fields."""


def ingest_news(settings: Settings) -> NewsResult:
    """Read the articles that `settings.news` names and put them into bronze for `settings.instrument`.

    What the same files brought before is replaced; articles of other files stay, but for copies of an
    article that was known earlier. Files that have not changed are not read again.

    Raises
    ------
    SettingsError
        There is no `news` section, a column of it is unknown, or a source has no `day_zone`.
    DataError
        A file cannot be used as declared, or there is no article.
    QualityError
        Too many articles were refused; bronze and quarantine are as they were, the report says why.
    """
    if settings.news is None:
        msg = "news: the settings have no such section; required: news.paths and news.precision"
        raise SettingsError(msg, hint="docs/ingest.md has examples")
    lake = Lake(settings.lake_uri)
    paths = list(dict.fromkeys(expand_paths(settings.news.paths, settings.resolve, "news.paths", "articles")))
    prints = fingerprint(paths, "news.paths")
    key = news_key(settings, settings.news, prints)
    finished = unchanged_news(settings, lake, key)
    if finished is not None:
        return finished
    names = stored_names(paths, settings.home_path)
    contents = dict(zip(names, (str(p["sha256"]) for p in prints), strict=True))
    discard_staging(lake, settings.instrument)
    try:
        return _Intake(settings, settings.news, lake, contents, key).run(paths)
    finally:
        discard_staging(lake, settings.instrument)


class _Intake:
    """One pass over all files; `contents` has the SHA-256 of each by its name in the lake."""

    def __init__(
        self, settings: Settings, news: NewsSettings, lake: Lake, contents: dict[str, str], key: str
    ) -> None:
        self._instrument = instrument = settings.instrument
        self._news, self._lake, self._key, self._clock = news, lake, key, present(settings)
        known: dict[str, str] = (lake.read_json(manifest_name(instrument)) or {}).get("files", {})
        same = {name for name, content in known.items() if content in contents.values()}
        self._contents, self._replaced = contents, sorted(same | set(contents))
        self._other_files = {name: known[name] for name in known.keys() - set(self._replaced)}
        self._store = ArticleStore(lake, instrument, self._replaced)
        self._quarantine = Quarantine(lake, instrument, dataset=QUARANTINED, schema=REFUSED, origin="file")
        self._dropped: Counter[str] = Counter()
        self._rows_in = 0

    def run(self, paths: list[Path]) -> NewsResult:
        for chunk in read_articles(list(zip(self._contents, paths, strict=True)), self._news):
            self._take(chunk)
        self._refuse_bad_files()
        done = self._store.publish()
        written, skipped, months = self._quarantine.publish(self._replaced, "files")
        result = self._result(done, written, skipped)
        refused = [
            {"dataset": QUARANTINED, "month": m, "content": self._content(QUARANTINED, m)} for m in months
        ]
        report = self._report("passed", result)
        self._lake.write_json(report_name(self._instrument), report)
        manifest = {
            "key": self._key,
            "files": {**self._other_files, **self._contents},
            "partitions": done.partitions,
            "quarantine": refused,
            "report": report,
            "result": result_json(result),
        }
        self._lake.write_json(manifest_name(self._instrument), manifest)
        _log.info(
            "news %s: %d articles in, %d out, %d quarantined, %d left out, %d copies; %d partitions written",
            *(result.instrument, result.rows_in, result.rows_out, result.rows_quarantined),
            *(result.rows_dropped, result.rows_duplicate, result.written),
        )
        return result

    def _take(self, chunk: RawArticles) -> None:
        self._rows_in += len(chunk.rows) + len(chunk.broken)
        self._refuse(chunk.broken)
        if not len(chunk.rows):
            return
        judged = judge_articles(chunk.rows, self._news, self._clock)
        self._refuse(judged.filter(pl.col("reason").is_not_null()))
        usable = judged.filter(pl.col("reason").is_null())
        self._dropped.update(usable["dropped"].drop_nulls().to_list())
        self._store.add(usable.filter(pl.col("dropped").is_null()))

    def _refuse(self, frame: pl.DataFrame) -> None:
        """Put articles, or broken lines, into quarantine as their files have them."""
        if not len(frame):
            return
        texts = [_original(frame, name) for name in ARTICLE_SCHEMA.names]
        month = pl.lit(UNDATED)
        if "published_at" in frame.columns:
            month = pl.col("published_at").dt.strftime("%Y-%m").fill_null(UNDATED)
        text = pl.col("text") if "text" in frame.columns else pl.lit(None, pl.String).alias("text")
        self._quarantine.take(frame.select(*texts, "reason", "file", "line", text, month.alias("month")))

    def _refuse_bad_files(self) -> None:
        if self._rows_in == 0:
            msg = f"news.paths: {', '.join(list(self._contents)[:5])} hold no rows; required: articles"
            raise DataError(msg, hint="check that these are the files you meant")
        share = self._quarantine.rows / self._rows_in
        if share > self._news.max_quarantined_share:
            name = report_name(self._instrument)
            self._lake.write_json(name, self._report("failed", None))
            reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(self._quarantine.reasons.items()))
            msg = (
                f"{self._instrument}: {self._quarantine.rows} of {self._rows_in} articles ({share:.1%}) "
                f"cannot be used ({reasons}); required: at most "
                f"news.max_quarantined_share={self._news.max_quarantined_share:g}"
            )
            raise QualityError(msg, hint=f"{self._lake.uri}/{name} has examples of each reason")

    def _content(self, dataset: str, month: str) -> str:
        found = self._lake.manifest(dataset, {"instrument": self._instrument, "month": month})
        assert found is not None
        return found.content

    def _report(self, status: str, result: NewsResult | None) -> dict[str, Any]:
        counts = {
            "rows_in": self._rows_in,
            "rows_quarantined": self._quarantine.rows,
            "quarantined": dict(sorted(self._quarantine.reasons.items())),
            "dropped": dict(sorted(self._dropped.items())),
        }
        return {
            "status": status,
            "instrument": self._instrument,
            "files": self._contents,
            **(counts if result is None else result_json(result)),
            "examples": self._quarantine.examples,
        }

    def _result(self, done: Published, written: int, skipped: int) -> NewsResult:
        return NewsResult(
            instrument=self._instrument,
            written=done.written + written,
            skipped=done.skipped + skipped,
            rows_in=self._rows_in,
            rows_out=done.rows,
            rows_quarantined=self._quarantine.rows,
            rows_dropped=self._dropped.total(),
            rows_duplicate=self._store.duplicates.total(),
            quarantined=dict(sorted(self._quarantine.reasons.items())),
            dropped=dict(sorted(self._dropped.items())),
            duplicates=dict(self._store.duplicates),
            rows_replaced=self._store.displaced,
            rows_restored=self._store.restored,
            months=[p["month"] for p in done.partitions if p["dataset"] == ARTICLES],
            known=self._store.known,
            key=self._key,
        )


def _original(frame: pl.DataFrame, name: str) -> pl.Expr:
    """A value as the file has it, as text; null where a broken line has none."""
    for column in (f"original_{name}", name):
        if column in frame.columns:
            return pl.col(column).cast(pl.String).alias(name)
    return pl.lit(None, pl.String).alias(name)
