"""What the values of a bar mean: stamps become UTC bar opens, text becomes numbers, or a reason why not.

Nothing is guessed. A stamp without a zone needs the declared one; local times that a change of clocks
makes ambiguous or skips are refused; formats in which day and month could be swapped are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from marketray.bars import PRICES, VALUES
from marketray.errors import DataError, SettingsError
from marketray.ingest.sources.files import RawChunk

__all__ = ["EARLIEST", "LATEST", "ORIGINAL", "check_zone", "original", "parse_chunk", "parse_stamps"]

ORIGINAL = "original_"
"""Prefix of the columns that keep a value's original text."""

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Stamps outside [EARLIEST, LATEST) are refused as `time_out_of_range`."""

_TIME = pl.Datetime("us", "UTC")
_MISSING = ("", "nan", "null", "none", "na", "n/a", "<na>")
_ZONED = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
)
_NAIVE = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y%m%d %H%M%S",
    "%Y%m%d %H:%M:%S",
    "%Y.%m.%d %H:%M",
)
_DATES = ("%Y-%m-%d", "%Y/%m/%d")


def parse_chunk(chunk: RawChunk, *, timezone: str | None, stamp: str, interval_minutes: int) -> pl.DataFrame:
    """Typed rows of a chunk with the reason why one cannot be used.

    Parameters
    ----------
    chunk:
        Rows as a source gives them.
    timezone:
        Zone of stamps that have none of their own; None refuses those stamps.
    stamp:
        ``open`` or ``close``: which end of the bar the stamps name.
    interval_minutes:
        Length of a bar.

    Returns
    -------
    pl.DataFrame
        source, line, time (bar open, us UTC), open, high, low, close, the optional columns that
        the chunk has (all float64, null where missing), reason (null where the row can be used) and
        ``original_*`` texts where the values were not typed. Rows and their order are the chunk's.

    Raises
    ------
    DataError
        The whole chunk has stamps without a zone and none is declared.
    """
    rows = chunk.rows
    stamps = parse_stamps(rows["time"], timezone)
    _refuse_naive_file(chunk, stamps, timezone)
    shift = timedelta(minutes=interval_minutes if stamp == "close" else 0)
    reasons = [stamps["reason"].alias("0")]
    if "complete" in rows.columns:
        unfinished = pl.select(
            pl.when(~rows["complete"].fill_null(value=True)).then(pl.lit("incomplete_candle"))
        )
        reasons.append(unfinished.to_series().alias("complete"))
    out = [
        pl.Series("source", [chunk.source]).new_from_index(0, len(rows)),
        rows["line"],
        (stamps["time"] - shift).alias("time"),
    ]
    if rows["time"].dtype != _TIME or shift:
        out.append(rows["time"].cast(pl.String).alias(f"{ORIGINAL}time"))
    for field in VALUES:
        if field in rows.columns:
            numbers = _parse_numbers(rows[field], required=field in PRICES)
            out.append(numbers["value"].alias(field))
            reasons.append(numbers["reason"].alias(field))
            if rows[field].dtype == pl.String:
                out.append(rows[field].alias(f"{ORIGINAL}{field}"))
    reason = pl.DataFrame(reasons).select(pl.coalesce(pl.all())).to_series().alias("reason")
    return pl.DataFrame([*out, reason])


def parse_stamps(stamps: pl.Series, timezone: str | None) -> pl.DataFrame:
    """UTC instants of stamps of any supported type, or the reason why not.

    Parameters
    ----------
    stamps:
        Text (ISO 8601 with or without a zone, ``20180131 170000``, or digits counting seconds,
        milliseconds, microseconds or nanoseconds since 1970: 10, 13, 16 or 19 of them), datetimes with
        or without a zone, dates (midnight), or integers (as digits).
    timezone:
        Zone of stamps without one.

    Returns
    -------
    pl.DataFrame
        `time` (us UTC, null where unusable) and `reason`: missing_time, unreadable_time, no_time_zone,
        ambiguous_local_time, nonexistent_local_time, off_minute, time_out_of_range, or null.
    """
    present = stamps.is_not_null()
    if stamps.dtype == pl.String or stamps.dtype.is_integer():
        text = stamps.cast(pl.String).str.strip_chars()
        present &= ~text.str.to_lowercase().is_in(_MISSING)
        zoned = _parse_any(text, _ZONED, _TIME)
        zoned = zoned.zip_with(zoned.is_not_null(), _parse_epoch(text)) if zoned.has_nulls() else zoned
        naive = _parse_any(text.set(zoned.is_not_null(), None), (*_NAIVE, *_DATES), pl.Datetime("us"))
    elif isinstance(stamps.dtype, pl.Datetime) and stamps.dtype.time_zone is not None:
        zoned = stamps.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
        naive = pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, len(stamps))
    else:
        zoned = pl.Series([None], dtype=_TIME).new_from_index(0, len(stamps))
        naive = stamps.cast(pl.Datetime("us"))
    frame = pl.DataFrame({"present": present, "zoned": zoned, "naive": naive})
    local = {"local": pl.lit(None, _TIME), "earliest": pl.lit(None, _TIME)}
    if timezone is not None and naive.is_not_null().any():
        kept = pl.col("naive").dt.replace_time_zone
        local = {
            "local": kept(timezone, ambiguous="null", non_existent="null"),
            "earliest": kept(timezone, ambiguous="earliest", non_existent="null"),
        }
    frame = frame.with_columns(**{k: v.dt.convert_time_zone("UTC") for k, v in local.items()})
    time = pl.coalesce("zoned", "local")
    unplaced = pl.col("naive").is_not_null() & pl.col("local").is_null()
    reason = (
        pl.when(~pl.col("present")).then(pl.lit("missing_time"))
        .when(pl.col("zoned").is_null() & pl.col("naive").is_null()).then(pl.lit("unreadable_time"))
        .when(unplaced & pl.lit(timezone is None)).then(pl.lit("no_time_zone"))
        .when(unplaced & pl.col("earliest").is_not_null()).then(pl.lit("ambiguous_local_time"))
        .when(unplaced).then(pl.lit("nonexistent_local_time"))
        .when((time < EARLIEST) | (time >= LATEST)).then(pl.lit("time_out_of_range"))
        .when(time.dt.truncate("1m") != time).then(pl.lit("off_minute"))
    )  # fmt: skip
    return frame.select(time=time, reason=reason)


def original(frame: pl.DataFrame, field: str) -> pl.Series:
    """The text a value had in its file; a typed value is written out."""
    parts: list[pl.Expr] = []
    if f"{ORIGINAL}{field}" in frame.columns:
        parts.append(pl.col(f"{ORIGINAL}{field}"))
    if field in frame.columns:
        as_text = (
            pl.col(field).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
            if field == "time"
            else pl.col(field).cast(pl.String)
        )
        parts.append(as_text)
    if not parts:
        return pl.Series(field, [None], pl.String).new_from_index(0, len(frame))
    return frame.select(pl.coalesce(parts).alias(field))[field]


def check_zone(timezone: str | None) -> None:
    """Raise SettingsError where `timezone` is not a zone of the IANA database."""
    if timezone is None:
        return
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        msg = f"source.timezone: got {timezone!r}; required: a zone of the IANA database"
        raise SettingsError(msg, hint="for example UTC, America/New_York or Europe/London") from e


def _refuse_naive_file(chunk: RawChunk, stamps: pl.DataFrame, timezone: str | None) -> None:
    naive = (stamps["reason"] == "no_time_zone").fill_null(value=False)
    if timezone is None and naive.any() and not stamps["time"].is_not_null().any():
        i = naive.arg_max() or 0
        msg = (
            f"source.timezone: {chunk.source} line {chunk.rows['line'][i]} has the stamp "
            f"{chunk.rows['time'].cast(pl.String)[i]!r} without a time zone, and none is declared"
        )
        raise DataError(
            msg, hint="declare it: source.timezone or --timezone, such as America/New_York or UTC"
        )


def _parse_any(text: pl.Series, formats: Sequence[str], dtype: pl.Datetime) -> pl.Series:
    """What the first fitting format makes of each text; null where none fits."""
    frame = pl.DataFrame({"text": text}).with_row_index("i")
    found = []
    for form in formats:
        if not len(frame):
            break
        value = (
            frame["text"].str.to_date(form, strict=False).cast(dtype)
            if form in _DATES
            else frame["text"].str.to_datetime(form, strict=False, time_unit="us").cast(dtype)
        )
        frame = frame.with_columns(value=value)
        found.append(frame.filter(pl.col("value").is_not_null()).select("i", "value"))
        frame = frame.filter(pl.col("value").is_null() & pl.col("text").is_not_null()).select("i", "text")
    parsed = pl.concat(found) if found else pl.DataFrame(schema={"i": pl.UInt32, "value": dtype})
    order = pl.DataFrame({"i": pl.Series(range(len(text)), dtype=pl.UInt32)})
    return order.join(parsed, on="i", how="left", maintain_order="left")["value"]


def _parse_epoch(text: pl.Series) -> pl.Series:
    digits = text.str.extract(r"^(\d{10}|\d{13}|\d{16}|\d{19})(?:\.\d+)?$", 1)
    n, size = pl.col("digits").cast(pl.Int64), pl.col("digits").str.len_chars()
    us = (
        pl.when(size == 10).then(n * 1_000_000)
        .when(size == 13).then(n * 1_000)
        .when(size == 16).then(n)
        .when(size == 19).then(n // 1_000)
    )  # fmt: skip
    return pl.DataFrame({"digits": digits}).select(us=us.cast(_TIME))["us"]


def _parse_numbers(values: pl.Series, *, required: bool) -> pl.DataFrame:
    """Float64 `value` (null where missing or unreadable) and `reason` of each number."""
    field = values.name
    if values.dtype == pl.String:
        text = values.str.strip_chars()
        number = text.cast(pl.Float64, strict=False)
        missing = values.is_null()
        if number.has_nulls() or number.is_nan().any():
            missing |= text.str.to_lowercase().is_in(_MISSING).fill_null(value=False)
    else:
        number = values.cast(pl.Float64)
        missing = number.is_null() | number.is_nan().fill_null(value=False)
    unreadable = ~missing & ~number.is_finite().fill_null(value=False)
    frame = pl.DataFrame({"number": number, "missing": missing, "unreadable": unreadable})
    missing_reason = pl.lit(f"missing_{field}" if required else None, pl.String)
    reason = (
        pl.when(pl.col("unreadable"))
        .then(pl.lit(f"unreadable_{field}"))
        .when(pl.col("missing"))
        .then(missing_reason)
    )
    typed_infinity = values.dtype != pl.String
    keep = ~pl.col("missing") & (~pl.col("unreadable") | pl.lit(typed_infinity))
    return frame.select(value=pl.when(keep).then("number"), reason=reason)
