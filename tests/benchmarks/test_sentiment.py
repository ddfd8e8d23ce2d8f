"""The sentiment benchmark prints its figures as one JSON line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.sentiment import main


def test_the_last_line_holds_the_figures(last_line: Callable[..., Any]) -> None:
    model = ["--device", "cpu", "--layers", "1", "--hidden", "64"]
    figures = last_line(main, *model, "--texts", "256", "--agreement-texts", "400")
    assert figures["device"] == "cpu"
    for key in ("headlines_per_s", "articles_per_s", "plain_headlines_per_s", "plain_articles_per_s"):
        assert figures[key] > 0
    assert figures["speedup"] == figures["headlines_per_s"] / figures["plain_headlines_per_s"]
    assert figures["speedup_articles"] == figures["articles_per_s"] / figures["plain_articles_per_s"]
    assert 0 < figures["ceiling_share"] < 1
    assert figures["agreement"] is None or figures["agreement"] > 0.99
    assert figures.get("agreement_texts", 400) == 400
    assert 20 < figures["headlines_tokens_per_s"] / figures["headlines_per_s"] < 32
    assert 200 < figures["articles_tokens_per_s"] / figures["articles_per_s"] < 300
