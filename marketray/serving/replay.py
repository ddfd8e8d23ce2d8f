"""Feed bars into a running service, one after the other, and hear its forecast after each."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marketray.bars import COLUMNS
from marketray.errors import SettingsError
from marketray.serving.client import AnsweredError, ask

if TYPE_CHECKING:
    import polars as pl

    from marketray.settings import Settings

__all__ = ["OnlineResult", "read_feed", "run_online_inference"]

logger = logging.getLogger(__name__)

_OF_THE_BAR = (409, 422)  # the service refuses this bar; the next one may be right


@dataclass(frozen=True)
class OnlineResult:
    """Outcome of a feed: sent = taken + known + refused.

    Attributes
    ----------
    sent, taken, known, refused:
        Bars, those new to the service, those that it had already, and those it refused.
    forecasts:
        Answers that held one.
    """

    sent: int
    taken: int
    known: int
    refused: int
    forecasts: int


def run_online_inference(
    settings: Settings,
    bars: str,
    *,
    url: str | None = None,
    pace_seconds: float = 0.0,
    tell: Callable[[Mapping[str, Any]], None] = lambda _: None,
) -> OnlineResult:
    """Send bars to ``POST /bars``, with the token in MARKETRAY_TOKEN.

    Parameters
    ----------
    bars:
        What to send, see `read_feed`.
    url:
        Address of the service; None: that of the settings.
    pace_seconds:
        Time between two bars.
    tell:
        Called with each forecast, with the keys of `marketray.serving.schemas.Forecasted`.

    Raises
    ------
    SettingsError
        The bars cannot be read.
    ServingError
        The service cannot be reached, or takes no bars. A bar that it refuses is logged and counted.
    """
    address = url or f"http://{settings.serving.host}:{settings.serving.port}"
    token = os.environ.get("MARKETRAY_TOKEN", "").strip() or None
    counts = {"sent": 0, "taken": 0, "known": 0, "refused": 0, "forecasts": 0}
    for bar in read_feed(bars):
        if counts["sent"]:
            time.sleep(pace_seconds)
        counts["sent"] += 1
        try:
            answer = ask("POST", address, "/bars", {"bars": [bar]}, token=token)
        except AnsweredError as e:
            if e.status not in _OF_THE_BAR:
                raise
            logger.warning("bar of %s: %s", bar.get("time"), e.message)
            counts["refused"] += 1
            continue
        counts["taken"] += answer["taken"]
        counts["known"] += answer["known"]
        if answer["forecast"] is not None:
            counts["forecasts"] += 1
            tell(answer["forecast"])
        elif answer["problem"] is not None:
            logger.warning("no forecast: %s", answer["problem"]["detail"])
    return OnlineResult(**counts)


def read_feed(bars: str) -> Iterator[dict[str, Any]]:
    """Bars as ``POST /bars`` takes them, in their order.

    Parameters
    ----------
    bars:
        A ``.csv``, ``.parquet`` or ``.ndjson`` file with the columns `marketray.bars.COLUMNS`, as far as it
        has them (times with zone), or ``-``: NDJSON from standard input, each bar when its line is there.

    Raises
    ------
    SettingsError
        The file cannot be read, or a line is no JSON object.
    """
    if bars == "-":
        yield from _lines(sys.stdin)
        return
    path = Path(bars)
    if path.suffix == ".ndjson":
        try:
            with path.open() as lines:
                yield from _lines(lines)
        except OSError as e:
            raise _unreadable(e, bars) from e
        return
    for row in _table(path).iter_rows(named=True):
        yield {name: value for name, value in row.items() if value is not None}


def _lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            bar = json.loads(line)
        except ValueError as e:
            why = f"line {number}: {e}"
            raise _unreadable(why) from e
        if not isinstance(bar, dict):
            got = f"line {number}: got a {type(bar).__name__}"
            raise _unreadable(got)
        yield bar


def _table(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except (OSError, pl.exceptions.PolarsError) as e:
        raise _unreadable(e, str(path)) from e
    known = [name for name in COLUMNS if name in table.columns]
    if "time" in known and table.schema["time"] != pl.String:
        table = table.with_columns(pl.col("time").dt.strftime("%Y-%m-%dT%H:%M:%S%:z"))
    return table.select(known)


def _unreadable(why: object, file: str = "") -> SettingsError:
    reason = f"{file}: {why}" if file else str(why)
    required = "bars, as .csv, .parquet or .ndjson, or - for standard input"
    msg = f"--bars {reason.splitlines()[0]}; required: {required}"
    return SettingsError(msg, hint=f"name the columns {', '.join(COLUMNS[:5])}")
