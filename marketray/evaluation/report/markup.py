"""HTML of the report: text, numbers, tables, sections. All that comes from data is escaped here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

from marketray.evaluation.outcome import minus

__all__ = [
    "UNKNOWN",
    "Markup",
    "Row",
    "between",
    "count",
    "details",
    "facts",
    "fixed",
    "heading",
    "html",
    "note",
    "p_text",
    "percent",
    "section",
    "side_by_side",
    "stamp",
    "table",
    "words",
]

UNKNOWN = "–"
"""Stands where there is no number; a zero would be one."""

_SMALLEST_P = 1e-4


class Markup(str):
    """Text that is HTML already; any other text is escaped where it enters the page."""

    __slots__ = ()


Row = tuple[str, Sequence[str]]
"""Style class of a table row, and its cells; the first names the row."""


def html(text: str) -> str:
    """`text` as HTML."""
    return text if isinstance(text, Markup) else escape(text)


def fixed(value: float | None, digits: int, *, scale: float = 1.0) -> str:
    """``scale · value`` with so many decimals and a real minus sign; – where it is unknown."""
    return UNKNOWN if value is None else minus(scale * value, digits)


def percent(value: float | None, digits: int = 3) -> str:
    """A fraction in percent, without the sign %."""
    return fixed(value, digits, scale=100)


def count(value: float | None) -> str:
    """A whole number with separators."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def p_text(value: float | None) -> str:
    """A p-value to two significant digits."""
    if value is None:
        return UNKNOWN
    return f"< {_SMALLEST_P:.4f}" if value < _SMALLEST_P else f"{value:.2g}"


def between(low: float | None, high: float | None, digits: int, *, scale: float = 1.0) -> str:
    """An interval, ``low to high``."""
    if low is None or high is None:
        return UNKNOWN
    return f"{fixed(low, digits, scale=scale)} to {fixed(high, digits, scale=scale)}"


def stamp(moment: str) -> str:
    """An ISO 8601 time to the minute, ``2019-10-03 13:30``."""
    return moment[:16].replace("T", " ")


def words(name: object) -> str:
    """A key as words, ``warm_up`` → ``warm up``."""
    return str(name).replace("_", " ")


def note(text: str) -> Markup:
    """A paragraph of explanation."""
    return Markup(f"<p class='note'>{html(text)}</p>")


def heading(text: str) -> Markup:
    """The heading of a part of a section."""
    return Markup(f"<h3>{html(text)}</h3>")


def section(key: str, title: str, *parts: str) -> Markup:
    """A section of the page; `parts` are HTML."""
    head = f"<h2 id='h-{key}'>{html(title)}</h2>"
    return Markup(f"<section id='{key}' aria-labelledby='h-{key}'>{head}{''.join(parts)}</section>")


def details(summary: str, *parts: str) -> Markup:
    """Parts that are folded away until the reader asks for them."""
    return Markup(f"<details><summary>{html(summary)}</summary>{''.join(parts)}</details>")


def side_by_side(parts: Iterable[str]) -> Markup:
    """Charts beside each other where the page is wide enough."""
    return Markup(f"<div class='beside'>{''.join(parts)}</div>")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Named numbers side by side."""
    body = "".join(f"<div><dt>{html(name)}</dt><dd>{html(value)}</dd></div>" for name, value in pairs)
    return Markup(f"<dl class='facts'>{body}</dl>")


def table(caption: str, head: Sequence[str], rows: Iterable[Row], *, prose: Collection[str] = ()) -> Markup:
    """A table that scrolls inside its own frame, the name of each row staying in view.

    Parameters
    ----------
    prose:
        Heads of the columns that hold sentences: set to the left and wrapped.
    """
    styles = [" class='prose'" if name in prose else "" for name in head]
    header = "".join(
        f"<th scope='col'{style}>{html(name)}</th>" for style, name in zip(styles, head, strict=True)
    )
    body = "".join(_row(style, cells, styles) for style, cells in rows)
    return Markup(
        f"<div class='scroll' role='region' tabindex='0' aria-label='{escape(caption)}'><table>"
        f"<caption>{html(caption)}</caption><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(style: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    name, *rest = cells
    values = "".join(f"<td{prose}>{html(cell)}</td>" for prose, cell in zip(styles[1:], rest, strict=True))
    return f"<tr class='{escape(style)}'><th scope='row'{styles[0]}>{html(name)}</th>{values}</tr>"
