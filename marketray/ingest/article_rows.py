"""What an article's values mean: when it was published and known, whether it is wanted, what it equals.

Nothing is guessed: an article whose time cannot be read is refused, never stamped with the present.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import polars as pl

from marketray.errors import DataError, SettingsError
from marketray.ingest.article_text import key, normal_text, normal_url, term_pattern
from marketray.ingest.articles import CLOCK_TOLERANCE, Precision, available_at_expr, earliest_expr
from marketray.ingest.parsing import parse_stamps
from marketray.ingest.schemas import ARTICLE_SCHEMA
from marketray.ingest.sources.articles import TIMES

if TYPE_CHECKING:
    import re
    from datetime import datetime

    from marketray.settings import NewsSettings

__all__ = ["KEYS", "judge_articles", "with_keys"]

KEYS = ("url_key", "text_key", "id_key")
"""What copies of an article share, as Int64: the address, the words, the id that a named source gave."""

_TEXTS = ("article_id", "source", "url", "title", "body", "language")
_TIME = pl.Datetime("us", "UTC")
_DATE_ONLY = r"^\s*\d{4}[-/]\d{2}[-/]\d{2}\s*$"
_WRITTEN_DATE = r"^\s*(\d{4})[-/.]?(\d{2})[-/.]?(\d{2})(?:\D|$)"
_OF_TIMES = {"missing_time": "missing_published_at", "unreadable_time": "unreadable_published_at"}
_NAIVE = "no_time_zone"
_UNKNOWN = "unknown"


def judge_articles(rows: pl.DataFrame, news: NewsSettings, clock: datetime) -> pl.DataFrame:
    """Typed articles with the reason why one is refused or left out.

    Parameters
    ----------
    rows:
        A chunk's articles as `marketray.ingest.sources.articles.RawArticles` describes them.
    news:
        Zones, precision, latency, defaults and filters.
    clock:
        The present, tz-aware: an article that was published or collected more than `CLOCK_TOLERANCE` after
        it, whatever its stamp can mean, is refused.

    Returns
    -------
    pl.DataFrame
        file, line, the columns of `ARTICLE_SCHEMA`, `KEYS`, `rank` (see `with_keys`); `reason` why the row
        is refused and `dropped` why it is left out by the settings, both null where it is taken;
        ``original_published_at`` and ``original_collected_at``, the values as text. Rows and their order
        are the chunk's. An article without `collected_at` counts as collected when it was published.

    Raises
    ------
    DataError
        All stamps of the chunk lack a zone and none is declared, or articles have no language and
        `news.unknown_language` does not say what to do with them.
    SettingsError
        An article is known by the day and `news.day_zone` has no zone for its source.
    """
    texts = [_text(rows, name) for name in _TEXTS]
    frame = rows.select("file", "line", *(pl.col(t).cast(pl.String).alias(f"original_{t}") for t in TIMES))
    frame = frame.with_columns(*texts, _precision(rows, news)).with_columns(
        pl.col("source").fill_null(pl.lit(news.source, pl.String)),
        pl.col("language").fill_null(pl.lit(news.language, pl.String)),
        day=(pl.col("precision") == "day").fill_null(value=False),
    )
    frame = _with_times(frame, rows, news, clock)
    frame = frame.with_columns(_available_at(frame, news))
    frame = with_keys(frame)
    frame = frame.with_columns(_dropped(frame, news))
    return frame.select(
        *("file", "line", *ARTICLE_SCHEMA.names, *KEYS, "rank", "reason", "dropped"),
        *(f"original_{t}" for t in TIMES),
    )


def with_keys(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame`, which has the columns of `ARTICLE_SCHEMA`, with what tells copies of an article.

    Added are `KEYS`; `rank`, which orders articles that became known at the same time; `normal`, the
    `normal_text` of title and body. An article without an id gets that of its address, else of its text.
    """
    normal = [normal_text(f"{t or ''} {b or ''}") for t, b in frame.select("title", "body").iter_rows()]
    frame = frame.with_columns(
        pl.Series("normal", normal, dtype=pl.String),
        pl.Series("url_key", [key(normal_url(url)) for url in frame["url"]], dtype=pl.Int64),
        pl.Series("text_key", [key(text) for text in normal], dtype=pl.Int64),
    )
    keys = frame.select(pl.coalesce("url_key", "text_key"))["url_key"]
    made = pl.Series([f"{number:016x}" for number in keys], dtype=pl.String)
    frame = frame.with_columns(frame["article_id"].fill_null(made))
    owned = frame.select("source", "article_id").iter_rows()
    whole = frame.select(pl.col(ARTICLE_SCHEMA.names).cast(pl.String).fill_null("")).iter_rows()
    return frame.with_columns(
        pl.Series("id_key", [key(*pair) if pair[0] else None for pair in owned], dtype=pl.Int64),
        pl.Series("rank", [key(*row) for row in whole], dtype=pl.Int64),
    )


def _text(rows: pl.DataFrame, name: str) -> pl.Series:
    """A text without white space around it; null where nothing is left."""
    return rows.select(
        pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name).str.strip_chars()).alias(name)
    )[name]


def _precision(rows: pl.DataFrame, news: NewsSettings) -> pl.Series:
    if news.precision in get_args(Precision):
        return pl.Series("precision", [news.precision]).new_from_index(0, len(rows))
    return rows["precision"].str.strip_chars().str.to_lowercase()


def _with_times(frame: pl.DataFrame, rows: pl.DataFrame, news: NewsSettings, clock: datetime) -> pl.DataFrame:
    """`frame` with `published_at`, `collected_at` and `reason`."""
    published = _stamps(rows["published_at"], news.timezone)
    by_day = _stamps(rows["published_at"], "UTC")  # the date as it is written
    collected = _stamps(rows["collected_at"], news.timezone)
    time_reason = published["reason"].zip_with(~frame["day"], by_day["reason"])
    dateless = _date_only(rows["published_at"]) & ~frame["day"] & (time_reason.fill_null(_NAIVE) == _NAIVE)
    time_reason = time_reason.set(dateless, "date_without_time")
    _refuse_naive_files(frame, time_reason, "published_at")
    _refuse_naive_files(frame, collected["reason"], "collected_at")
    frame = frame.with_columns(
        published_at=published["time"].zip_with(~frame["day"], by_day["time"]),
        time_reason=time_reason.replace(_OF_TIMES),
        collected_at=collected["time"],
        collected_reason=collected["reason"],
        zone=_zones(frame, news),
        written=_written_date(rows["published_at"]),
    )
    day = _latest_date(frame)
    frame = frame.with_columns(published_at=pl.when("day").then(day).otherwise("published_at"))
    absent = pl.col("collected_reason") == "missing_time"
    times = (earliest_expr(pl.col("published_at"), pl.col("precision")), pl.col("collected_at"))
    ahead = pl.max_horizontal(times) > pl.lit(clock + CLOCK_TOLERANCE).cast(_TIME)
    reason = (
        pl.when(pl.col("time_reason").is_not_null()).then("time_reason")
        .when(~pl.col("precision").is_in(get_args(Precision)).fill_null(value=False))
        .then(pl.lit("unknown_precision"))
        .when(~absent & pl.col("collected_reason").is_not_null()).then(pl.lit("unreadable_collected_at"))
        .when(ahead).then(pl.lit("after_clock"))
        .when(pl.col("title").is_null() & pl.col("body").is_null()).then(pl.lit("missing_text"))
    )  # fmt: skip
    _require_zones(frame.filter(reason.is_null()))
    return frame.with_columns(
        collected_at=pl.when(absent).then("published_at").otherwise("collected_at"), reason=reason
    )


def _stamps(values: pl.Series, timezone: str | None) -> pl.DataFrame:
    found = parse_stamps(values, timezone)
    of_bars = (found["reason"] == "off_minute").fill_null(value=False)  # an article can have seconds
    return found.with_columns(reason=found["reason"].set(of_bars, None))


def _refuse_naive_files(frame: pl.DataFrame, reason: pl.Series, field: str) -> None:
    naive = (reason == _NAIVE).fill_null(value=False)
    if naive.any() and (naive | (reason == "missing_time").fill_null(value=False)).all():
        row = frame.row(naive.arg_max() or 0, named=True)
        msg = (
            f"news.timezone: {row['file']} line {row['line']} has the {field} {row[f'original_{field}']!r} "
            "without a time zone, and none is declared"
        )
        raise DataError(msg, hint="declare it: news.timezone, such as America/New_York or UTC")


def _zones(frame: pl.DataFrame, news: NewsSettings) -> pl.Series:
    """Zone in which an article's source counts its days; null where none is declared."""
    declared = news.day_zone
    if isinstance(declared, dict):
        return frame["source"].replace_strict(declared, default=None, return_dtype=pl.String)
    return pl.Series([declared], dtype=pl.String).new_from_index(0, len(frame))


def _require_zones(articles: pl.DataFrame) -> None:
    homeless = articles.filter(pl.col("day") & pl.col("zone").is_null())
    if len(homeless):
        row = homeless.row(0, named=True)
        msg = (
            f"news.day_zone: {row['file']} line {row['line']} is known by the day, and no zone is declared "
            f"for its source {row['source']!r}; required: the IANA zone in which that source counts its days"
        )
        raise SettingsError(msg, hint="for example day_zone: {guardian: Europe/London, reuters: unknown}")


def _written_date(stamps: pl.Series) -> pl.Series:
    """The calendar date that a stamp shows, whatever zone it has."""
    if stamps.dtype == pl.String:
        parts = stamps.to_frame("s").select(pl.col("s").str.extract_groups(_WRITTEN_DATE).alias("p"))["p"]
        text = parts.struct.field("1") + parts.struct.field("2") + parts.struct.field("3")
        return text.str.to_date("%Y%m%d", strict=False)
    if stamps.dtype.is_temporal():
        return stamps.cast(pl.Date) if stamps.dtype == pl.Date else stamps.dt.date()
    return pl.Series([None], dtype=pl.Date).new_from_index(0, len(stamps))


def _date_only(stamps: pl.Series) -> pl.Series:
    if stamps.dtype == pl.String:
        return stamps.str.contains(_DATE_ONLY).fill_null(value=False)
    return pl.Series([stamps.dtype == pl.Date]).new_from_index(0, len(stamps))


def _latest_date(frame: pl.DataFrame) -> pl.Series:
    """`published_at` of day stamps, on the latest date that the stamp can mean.

    Those are the date as written, the UTC date and the date in the source's zone: ``2018-01-01T15:00Z`` is
    the second of January in Tokyo. Counting from a later day than meant is late, never early.
    """
    local = frame["published_at"].dt.date()
    for zone in frame.filter("day")["zone"].drop_nulls().unique():
        if zone != _UNKNOWN:
            there = frame["published_at"].dt.convert_time_zone(zone).dt.date()
            local = there.zip_with((frame["zone"] == zone).fill_null(value=False), local)
    dates = frame.select(
        "published_at", latest=pl.max_horizontal(pl.col("published_at").dt.date(), local, "written")
    )
    later = pl.col("latest") > pl.col("published_at").dt.date()
    midnight = pl.col("latest").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return dates.select(t=pl.when(later).then(midnight).otherwise("published_at"))["t"]


def _available_at(frame: pl.DataFrame, news: NewsSettings) -> pl.Series:
    known = pl.Series([None], dtype=_TIME).new_from_index(0, len(frame))
    for zone in frame["zone"].unique().to_list():
        expression = available_at_expr(
            pl.col("published_at"),
            pl.col("collected_at"),
            pl.col("precision"),
            day_zone=None if zone in (None, _UNKNOWN) else zone,
            latency_seconds=news.latency_seconds,
        )
        here = frame.select(pl.col("zone").eq_missing(pl.lit(zone, pl.String)))["zone"]
        known = frame.select(expression).to_series().zip_with(here, known)
    return known.alias("available_at")


def _dropped(frame: pl.DataFrame, news: NewsSettings) -> pl.Series:
    """Why the settings leave an article out: language, unknown_language or not_relevant."""
    spoken = pl.col("language").str.to_lowercase().str.extract(r"^([^-_]+)")
    wanted = [language.lower() for language in news.languages]
    relevant = _relevant(frame["normal"], term_pattern(news.relevance))
    foreign = ~(spoken.is_in(wanted) | pl.col("language").str.to_lowercase().is_in(wanted))
    unknown = frame.filter(pl.col("language").is_null() & pl.col("reason").is_null())
    if wanted and len(unknown) and news.unknown_language is None:
        row = unknown.row(0, named=True)
        msg = (
            f"news.unknown_language: {row['file']} line {row['line']} names no language; required: keep or "
            f"drop, since news.languages={list(news.languages)} are chosen"
        )
        raise DataError(msg, hint="or say which it is, news.language: en; or take all, news.languages: []")
    dropped = (
        pl.when(pl.col("language").is_null() & pl.lit(bool(wanted) and news.unknown_language == "drop"))
        .then(pl.lit("unknown_language"))
        .when(foreign & pl.lit(bool(wanted))).then(pl.lit("language"))
        .when(~relevant).then(pl.lit("not_relevant"))
    )  # fmt: skip
    return frame.select(pl.when(pl.col("reason").is_null()).then(dropped).alias("dropped"))["dropped"]


def _relevant(texts: pl.Series, terms: re.Pattern[str] | None) -> pl.Series:
    if terms is None:
        return pl.Series([True]).new_from_index(0, len(texts))
    return pl.Series([terms.search(text) is not None for text in texts], dtype=pl.Boolean)
