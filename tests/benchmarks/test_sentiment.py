"""The sentiment benchmark prints its figures as one JSON line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_last_line_holds_the_figures() -> None:
    options = ["--device", "cpu", "--texts", "256", "--layers", "1", "--hidden", "64"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sentiment", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["device"] == "cpu"
    for key in ("headlines_per_s", "articles_per_s", "plain_headlines_per_s", "plain_articles_per_s"):
        assert figures[key] > 0
    assert figures["speedup"] == figures["headlines_per_s"] / figures["plain_headlines_per_s"]
    assert figures["speedup_articles"] == figures["articles_per_s"] / figures["plain_articles_per_s"]
    assert 0 < figures["ceiling_share"] < 1
    assert figures["agreement"] is None or figures["agreement"] > 0.99
    assert 20 < figures["headlines_tokens_per_s"] / figures["headlines_per_s"] < 32
    assert 200 < figures["articles_tokens_per_s"] / figures["articles_per_s"] < 300
