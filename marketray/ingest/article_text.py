"""What makes two articles the same one: their address or their words, whoever wrote them down."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

__all__ = ["key", "normal_text", "normal_url", "term_pattern"]

_BEFORE_PUNCTUATION = re.compile(r" (?=[^\w\s])")
_AFTER_PUNCTUATION = re.compile(r"([^\w\s]) ")


def normal_text(text: str) -> str:
    """`text` without what differs between copies of it.

    Unicode NFKC, case folded, every run of white space one space and none beside punctuation, so that
    pre-tokenised text ("U . S . stocks") equals the original ("U.S. stocks").
    """
    spaced = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _AFTER_PUNCTUATION.sub(r"\1", _BEFORE_PUNCTUATION.sub("", spaced))


def normal_url(url: str | None) -> str | None:
    """The address without what does not lead anywhere else, or None where it names no article.

    Scheme and host in lower case; no ``utm_*`` parameters, fragment or slash at the end. Text that is no
    http address, and the bare address of a site, are no article's.
    """
    try:
        parts = urlsplit((url or "").strip())
    except ValueError:
        return None
    path = parts.path.rstrip("/")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in pairs if not name.lower().startswith("utm_")])
    if parts.scheme.lower() not in ("http", "https") or not parts.netloc or not (path or query):
        return None
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{path}{'?' if query else ''}{query}"


def key(*parts: str | None) -> int | None:
    """63 bits of the SHA-256 over `parts`; None where the last of them is."""
    if parts[-1] is None:
        return None
    text = "\x1f".join("" if part is None else part for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def term_pattern(terms: Sequence[str]) -> re.Pattern[str] | None:
    """What finds one of `terms` as whole words in `normal_text`; None where there are no terms."""
    if not terms:
        return None
    return re.compile("|".join(_whole(normal_text(term)) for term in terms))


def _whole(term: str) -> str:
    before, after = ("(?<!\\w)" if _is_word(term[0]) else ""), ("(?!\\w)" if _is_word(term[-1]) else "")
    return f"{before}{re.escape(term)}{after}"


def _is_word(character: str) -> bool:
    return re.match(r"\w", character) is not None
