"""Gates: the exact bound against scipy's test of proportions, and what few requests can tell."""

from __future__ import annotations

import pytest
from scipy.stats import binom, binomtest

from marketray.serving.rollouts.gates import DOUBT, Gate, SlotWindows, gates, least_rate
from marketray.serving.rollouts.outcomes import Outcomes, Window
from marketray.settings_serving import RolloutSettings

RULES = RolloutSettings()


def window(
    requests: int = 0, *, errors: int = 0, nulls: int = 0, slow: int = 0, ms: float = 2.0, opposed: int = 0
) -> Window:
    """Counts of one slot: `slow` of the requests took 10 s, the others `ms`; as many shadow pairs."""
    counted = Outcomes("p")
    for i in range(requests):
        latency = 10_000.0 if i < slow else ms
        if i < errors:
            counted.failed("green", 2, latency)
        else:
            counted.answered("green", 2, latency, null=i < errors + nulls)
        counted.paired("green", 2, 1.0, -1.0 if i < opposed else 1.0)
    return Window.between([], [counted.snapshot()], "green", 2)


def crossed(new: Window, old: Window | None = None, rules: RolloutSettings = RULES) -> list[str]:
    return [g.name for g in gates(SlotWindows(new, old or Window()), rules) if g.crossed]


def passed(new: Window, old: Window | None = None, rules: RolloutSettings = RULES) -> set[str]:
    return {g.name for g in gates(SlotWindows(new, old or Window()), rules) if g.passed}


@pytest.mark.parametrize(("count", "total"), [(1, 1), (3, 3), (3, 5), (7, 200), (900, 1_000)])
def test_least_rate_is_the_exact_bound(count: int, total: int) -> None:
    least = least_rate(count, total)
    assert binom.sf(count - 1, total, least) == pytest.approx(DOUBT, rel=1e-6)
    exact = binomtest(count, total).proportion_ci(1 - 2 * DOUBT, method="exact")
    assert least == pytest.approx(exact.low, rel=1e-6)


def test_no_error_proves_no_rate() -> None:
    assert least_rate(0, 0) == least_rate(0, 1_000) == 0.0
    assert not Gate("x", "failed", 0, 0, 0.0).crossed
    assert Gate("x", "failed", 1, 1, 0.0).crossed


def test_one_unlucky_error_breaks_nothing_and_a_failing_slot_is_out_after_three() -> None:
    assert crossed(window(1, errors=1)) == []
    assert crossed(window(100, errors=1)) == []
    assert crossed(window(3, errors=3)) == ["error_rate"]
    assert crossed(window(5, errors=3)) == ["error_rate"]
    assert passed(window(1, errors=1)) == {"null_rate", "p99_ms", "disagreement"}
    assert "error_rate" in passed(window(100, errors=1))


def test_a_rate_at_its_limit_is_not_crossed_however_often_one_looks() -> None:
    """Of all windows of up to 2,000 requests with a true 1 % of errors, next to none crosses 1 %."""
    for total in (10, 100, 1_000, 2_000):
        least = next(k for k in range(total + 1) if least_rate(k, total) > RULES.max_error_rate)
        assert binom.sf(least - 1, total, RULES.max_error_rate) <= DOUBT
        assert binom.sf(least - 1, total, 4 * RULES.max_error_rate) > (0.99 if total >= 1_000 else 0)


def test_missing_forecasts_and_other_directions_cross() -> None:
    assert crossed(window(2, nulls=2)) == ["null_rate"]
    assert crossed(window(1, nulls=1)) == []
    assert crossed(window(20, opposed=20)) == ["disagreement"]
    assert crossed(window(400, opposed=210)) == []
    assert "disagreement" not in passed(window(400, opposed=210))


def test_slow_answers_cross_by_their_number() -> None:
    assert crossed(window(3, slow=3)) == ["p99_ms"]
    assert crossed(window(1_000, slow=10)) == []
    assert "p99_ms" in passed(window(1_000, slow=10))
    assert "p99_ms" not in passed(window(1_000, slow=11))
    assert crossed(window(1_000, slow=40)) == ["p99_ms"]


def test_the_old_model_sets_limits_where_it_has_answered_enough() -> None:
    slower, failing = window(200, ms=90.0), window(2_000, errors=18)
    assert crossed(slower) == crossed(failing) == []
    assert crossed(slower, window(100, ms=20.0)) == ["p99_ms"]
    assert crossed(slower, window(99, ms=20.0)) == []
    assert crossed(slower, window(100, ms=40.0)) == []
    strict = RolloutSettings(max_error_rate=0.05, error_excess=0.001)
    assert crossed(failing, window(1_000), strict) == ["error_rate"]
    assert crossed(failing, window(1_000, errors=9), strict) == []
    assert crossed(window(1_000, ms=9.0), window(1_000, ms=0.2)) == []


def test_a_busy_machine_slows_both_models_down() -> None:
    assert crossed(window(40, slow=10)) == ["p99_ms"]
    assert crossed(window(40, slow=10), window(400, slow=100)) == []
    assert crossed(window(40, slow=10), window(400, slow=4)) == ["p99_ms"]
    assert crossed(window(40, slow=40), window(400, slow=100)) == ["p99_ms"]


def test_a_gate_says_what_it_saw() -> None:
    seen = {g.name: str(g) for g in gates(SlotWindows(window(5, errors=3), Window()), RULES)}
    assert seen["error_rate"] == "3 of 5 requests failed; allowed 1 %, surely more than 1.72 %"
    assert seen["null_rate"] == "0 of 5 answers held no forecast; allowed 0.1 %"
    assert seen["p99_ms"] == "0 of 5 answers took over 250 ms; allowed 1 %"
    assert seen["disagreement"].startswith(
        "0 of 5 forecasts point another way than the old model's; allowed 50"
    )
