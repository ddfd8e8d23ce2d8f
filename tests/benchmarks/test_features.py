"""The features benchmark prints its figures as one JSON line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import features
from benchmarks.features import ray_pays_from

NUMBERS = {
    "rows",
    "columns",
    "seconds",
    "first_seconds",
    "pandas_seconds",
    "polars_seconds",
    "speedup",
    "rss_mb",
    "online_ms",
}
BY_SIZE = {"per_bar_us", "polars_per_bar_us", "rss_mb_by_size"}


def test_the_last_line_holds_the_figures(
    last_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    # one repetition on the tests' Ray, which the benchmark would start for itself
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(features, "REPEATS", 1)
    line = last_line(features.main, "--rows", "4000", "--sizes", "2000,4000", "--online-bars", "10")
    assert set(line) == NUMBERS | BY_SIZE | {"pandas_parts", "ray_pays_from_rows"}
    assert all(math.isfinite(line[name]) and line[name] > 0 for name in NUMBERS)
    for name in BY_SIZE:
        assert list(line[name]) == ["2000", "4000"]
        assert all(math.isfinite(value) and value > 0 for value in line[name].values())
    assert line["rows"] == 4_000
    assert line["columns"] >= 58
    assert list(line["pandas_parts"]) == ["read", "compute", "write"]
    assert line["speedup"] == pytest.approx(line["pandas_seconds"] / line["seconds"], rel=0.2)


def test_where_ray_pays_is_read_off_the_line_between_two_sizes() -> None:
    assert ray_pays_from({100: 2.0, 10_000: 10.0}, {100: 1.0, 10_000: 20.0}) == 1_000
    assert ray_pays_from({100: 2.0, 10_000: 30.0}, {100: 1.0, 10_000: 20.0}) is None
    assert ray_pays_from({100: 1.0, 10_000: 10.0}, {100: 2.0, 10_000: 20.0}) == 100
