"""What counts as the same address, the same text, and a word of interest."""

from __future__ import annotations

import pytest

from marketray.ingest.article_text import key, normal_text, normal_url, term_pattern


@pytest.mark.parametrize(
    ("copy", "original"),
    [
        ("U . S . stocks fall , Dow off 2 . 5 %", "U.S. stocks fall, Dow off 2.5%"),
        ("  Fed\tHOLDS\nrates ", "Fed holds rates"),
        ("Ｓ＆Ｐ ５００ ﬁnancials", "S&P 500 financials"),
        ("Straße gesperrt", "STRASSE GESPERRT"),
        ("'Fight fire with fire' : Lagarde", "'fight fire with fire': lagarde"),
    ],
)
def test_copies_of_a_text_are_equal(copy: str, original: str) -> None:
    assert normal_text(copy) == normal_text(original)


def test_different_words_stay_different() -> None:
    assert normal_text("Stocks up 2.5%") != normal_text("Stocks up 25%")
    assert normal_text("over night") != normal_text("overnight")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTPS://News.Example.COM/A/b/", "https://news.example.com/A/b"),
        ("https://e.com/a?utm_source=x&id=7&UTM_medium=y#top", "https://e.com/a?id=7"),
        ("https://e.com/a?id=7", "https://e.com/a?id=7"),
        ("http://e.com/?p=12", "http://e.com?p=12"),
        ("https://e.com/", None),  # a site, not an article
        ("https://e.com/?utm_source=x", None),
        ("n/a", None),
        ("mailto:a@e.com", None),
        ("http://[broken/a", None),
        ("", None),
        (None, None),
    ],
)
def test_addresses(url: str | None, expected: str | None) -> None:
    assert normal_url(url) == expected


def test_keys_do_not_run_into_each_other() -> None:
    assert key("a", "bc") != key("ab", "c")
    assert key("a", None) is None
    assert key(None, "a") == key("", "a")
    assert key("text") == int("982d9e3eb996f559", 16) >> 1  # sha256sum of `text`


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Fed holds", True),
        ("(FED)", True),
        ("federal", False),
        ("unfed cats", False),
        ("the S & P 500 rose", True),
        ("S&P 5000", False),
        ("U . S . stocks", True),
        ("status", False),
    ],
)
def test_terms_are_whole_words(text: str, found: bool) -> None:
    pattern = term_pattern(["Fed", "S&P 500", "U.S."])
    assert pattern is not None
    assert (pattern.search(normal_text(text)) is not None) is found


def test_no_terms_no_pattern() -> None:
    assert term_pattern([]) is None
