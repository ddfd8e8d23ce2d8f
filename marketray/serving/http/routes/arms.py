"""The two models side by side."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query

from marketray.serving.http.routes.documented import problems
from marketray.serving.http.schemas_arms import ArmsState, ArmState, ComparisonState
from marketray.serving.rollouts.arms import Answers, Comparison, compare_arms
from marketray.serving.rollouts.arms import Arm as Outcome
from marketray.serving.store.answered import answered
from marketray.serving.store.predictions import Wanted
from marketray.serving.store.scores import Arm, Loss
from marketray.serving.traffic import SLOTS, Traffic

if TYPE_CHECKING:
    from marketray.serving.http.api import Service
    from marketray.serving.store import Store
    from marketray.serving.store.traffic_log import Entry
    from marketray.settings import Settings

__all__ = ["add", "arms_state"]

Days = Annotated[float, Query(gt=0, le=3_660, description="How far to look back.")]


def add(app: FastAPI, service: Service) -> None:
    """GET /traffic/arms."""

    @app.get(
        "/traffic/arms",
        summary="What each model did on live traffic, and whether one of them is better",
        responses=problems(422, 503),
    )
    async def arms(days: Days = 30.0) -> ArmsState:
        since = datetime.now(UTC) - timedelta(days=days)
        return await asyncio.to_thread(arms_state, service.settings, service.store, since)


def arms_state(settings: Settings, store: Store, since: datetime) -> ArmsState:
    """The models in the slots, by what was recorded after `since`; blocks.

    The new one is that of the last rollout where both slots hold its models, else the one with less weight.
    """
    entry = store.traffic.current()
    assert entry is not None, "the application is built after its traffic was declared"
    loss: Loss = "brier" if settings.labels.task == "direction" else "squared"
    new = _new_slot(store, entry)
    held = {s: Arm(s, v) for s in (Traffic.other(new), new) if (v := entry.traffic.models[s]) is not None}
    old_answers, new_answers = (
        _answers(settings, store, held.get(slot), since) for slot in (Traffic.other(new), new)
    )
    found = compare_arms(
        old_answers,
        new_answers,
        settings.labels.horizon_minutes,
        step_minutes=settings.bar_interval_minutes,
    )
    arms = []
    for slot, arm in held.items():
        counts = _counts(store, settings.instrument, arm, since, loss)
        figures = found.new if slot == new else found.old
        arms.append(_arm(arm, entry.traffic.weights[slot] / 100, counts, figures))
    comparison = _comparison(found, new) if len(held) == len(SLOTS) else None
    return ArmsState(instrument=settings.instrument, loss=loss, since=since, arms=arms, comparison=comparison)


def _arm(arm: Arm, percent: float, counts: dict[str, int], figures: Outcome) -> ArmState:
    return ArmState(
        slot=arm.slot,
        version=arm.version,
        weight=percent,
        **counts,
        decisions=figures.decisions,
        mean_loss=figures.mean_loss,
        mean_loss_margin=figures.margin,
        hit_rate=figures.hits.rate,
        hit_rate_low=figures.hits.low,
        hit_rate_high=figures.hits.high,
    )


def _new_slot(store: Store, entry: Entry) -> str:
    models, weights = entry.traffic.models, entry.traffic.weights
    for stored in store.rollouts.history(limit=1):
        plan = stored.rollout.plan
        if models[plan.slot] == plan.version:
            return plan.slot
    return min(reversed(SLOTS), key=lambda s: weights[s])


def _answers(settings: Settings, store: Store, arm: Arm | None, since: datetime) -> Answers:
    direction = settings.labels.task == "direction"
    of = Answers.of_probabilities if direction else Answers.of_returns
    if arm is None:
        return of([], [], [])
    forecast: Literal["probability_up", "predicted_return"] = (
        "probability_up" if direction else "predicted_return"
    )
    table = answered(store.database, settings.instrument, arm, forecast, since)
    return of(table["decision_at"].dt.epoch("us").to_numpy(), table["actual"], table["forecast"])


def _counts(store: Store, instrument: str, arm: Arm, since: datetime, loss: Loss) -> dict[str, int]:
    """Requests that the arm was asked, seen ones and as the shadow, and those that it failed."""
    wanted = Wanted(instrument=instrument, slot=arm.slot, version=arm.version, from_at=since)
    summaries = store.scores.summary(wanted, loss=loss)
    return {
        "requests": sum(s.n for s in summaries if not s.shadow),
        "shadow_requests": sum(s.n for s in summaries if s.shadow),
        "errors": sum(s.errors for s in summaries),
    }


def _comparison(found: Comparison, new: str) -> ComparisonState:
    evidence = found.evidence
    values: dict[str, Any] = {
        name: getattr(found, name)
        for name in ("verdict", "pairs", "method", "difference", "margin", "effect", "power", "needed")
    }
    seconds = [
        s for s in (evidence.better.expected_seconds, evidence.worse.expected_seconds) if s is not None
    ]
    return ComparisonState(
        new=new,
        **values,
        alpha=evidence.alpha,
        p_better=evidence.better.p_value,
        p_worse=evidence.worse.p_value,
        expected_seconds=min(seconds, default=None),
    )
