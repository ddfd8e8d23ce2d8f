"""What Prometheus is told, and the dashboard that shows it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marketray.serving.metrics import (
    COUNTERS,
    GAUGES,
    LATENCIES_MS,
    ServiceMetrics,
    exported,
    in_slot_since,
)
from marketray.serving.rollouts.outcomes import Outcomes
from marketray.serving.store.traffic_log import Entry
from marketray.serving.store.writer import WriterCounts
from marketray.serving.traffic import Traffic

ROOT = Path(__file__).parents[2]
NOW = datetime(2024, 1, 2, 15, tzinfo=UTC)
QUIET = WriterCounts(taken=5, shed=0, written=5, failed=0, waiting=0)


class Seen:
    """Metrics that remember what they were given."""

    def __init__(self) -> None:
        self.values: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def make(self, name: str, *, description: str, tag_keys: tuple[str, ...]) -> Any:
        assert description.endswith(".")
        seen = self

        class Metric:
            def inc(self, value: float, tags: dict[str, str]) -> None:
                assert value > 0
                assert set(tags) == set(tag_keys)
                seen.values[name, *tags.values()] += value

            def set(self, value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(tag_keys)
                seen.values[name, *tags.values()] = value

        return Metric()


def entry(seq: int, blue: int | None, green: int | None, weight: int = 0) -> Entry:
    traffic = Traffic({"blue": 10_000 - weight, "green": weight}, {"blue": blue, "green": green})
    return Entry(seq, NOW + timedelta(minutes=seq), "ann", "set", "", traffic)


def test_totals_are_passed_on_whatever_the_number_of_looks() -> None:
    seen, outcomes = Seen(), Outcomes("p")
    metrics = ServiceMetrics(seen.make, seen.make)
    history = [entry(3, 1, 2, 1_000), entry(2, 1, 2), entry(1, 1, None)]
    for ms in (0.4, 3.0, 30.0, 99_999.0):
        outcomes.answered("blue", 1, ms)
        metrics.publish(outcomes.snapshot(), QUIET, {}, history, NOW + timedelta(minutes=5))
    outcomes.failed("green", 2, 3.0)
    outcomes.answered("green", 2, 3.0, null=True)
    outcomes.paired("green", 2, 1.0, -1.0)
    busy = WriterCounts(taken=9, shed=2, written=5, failed=1, waiting=3)
    for _ in range(2):
        metrics.publish(outcomes.snapshot(), busy, {"green": "dead"}, history, NOW + timedelta(minutes=5))
    v = seen.values
    assert (v["marketray_requests", "blue", "1"], v["marketray_requests", "green", "2"]) == (4, 2)
    assert (v["marketray_errors", "green", "2"], v["marketray_nulls", "green", "2"]) == (1, 1)
    assert v["marketray_shadow_pairs", "green", "2"] == v["marketray_shadow_disagreements", "green", "2"] == 1
    within = [v["marketray_latency", "blue", "1", f"{le:g}"] for le in LATENCIES_MS]
    assert within == [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert v["marketray_latency", "blue", "1", "+Inf"] == 4
    assert (v["marketray_record_shed",], v["marketray_record_failed",], v["marketray_record_waiting",]) == (
        2,
        1,
        3,
    )
    assert (v["marketray_weight_percent", "blue"], v["marketray_weight_percent", "green"]) == (90, 10)
    assert (v["marketray_unwell", "blue"], v["marketray_unwell", "green"]) == (0, 1)
    assert v["marketray_model_age_seconds", "blue", "1"] == 240
    assert v["marketray_model_age_seconds", "green", "2"] == 180
    metrics.publish(outcomes.snapshot(), busy, {}, [entry(4, 1, None), *history], NOW + timedelta(minutes=5))
    assert v["marketray_model_age_seconds", "green", "2"] == 0


def test_a_version_that_came_back_is_as_old_as_its_last_stay() -> None:
    history = [entry(4, 1, None), entry(3, 1, 5), entry(2, 2, 5), entry(1, 1, 5)]
    assert in_slot_since(history) == {"blue": NOW + timedelta(minutes=3)}


def test_rays_own_metrics_take_them() -> None:
    metrics = ServiceMetrics()
    outcomes = Outcomes("p")
    outcomes.answered("blue", 1, 2.0)
    metrics.publish(outcomes.snapshot(), QUIET, {}, [entry(1, 1, None)], NOW)
    taken = {name: tuple(metric.info["tag_keys"]) for name, metric in metrics._metrics.items()}
    assert taken == {name: tags for name, (_, tags) in (COUNTERS | GAUGES).items()}


@pytest.mark.parametrize("name", ["grafana-service.json"])
def test_every_panel_shows_a_metric_that_there_is(name: str) -> None:
    dashboard = json.loads((ROOT / "docs" / name).read_text())
    shown = set()
    for panel in dashboard["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            names = set(re.findall(r"ray_marketray_\w+", target["expr"]))
            assert names, panel["title"]
            assert names <= exported(), panel["title"]
            shown |= names
    assert shown == exported()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
