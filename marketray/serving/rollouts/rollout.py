"""A new model takes over step by step, and is taken out by itself where a gate is crossed.

A rollout begins unseen: as the shadow, the new model answers what the old one is asked. Then it gets a
growing share of the traffic. It goes a step further when it was there long enough, answered enough requests
and passes every gate; it waits while traffic is too thin to tell; and it is broken off, back to the traffic
before, when a gate is crossed or the sequential test finds that it has the larger loss.

Nothing here keeps time or state: `decide` is a function of the saved rollout and of what was counted, so
whoever takes a rollout up again decides as the one before would have.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from marketray.errors import SettingsError, TrafficError
from marketray.serving.rollouts.gates import SlotWindows, gates
from marketray.serving.rollouts.outcomes import Window
from marketray.serving.rollouts.sequential import Evidence
from marketray.serving.traffic import SLOTS, WHOLE, Traffic
from marketray.settings_file import describe
from marketray.settings_serving import RolloutSettings

__all__ = ["Decision", "Plan", "Rollout", "break_off", "cancel", "decide", "start"]

Phase = Literal["shadow", "step", "done", "broken", "cancelled"]
RUNNING = ("shadow", "step")


@dataclass(frozen=True)
class Plan:
    """Which model takes over, in which slot, by which rules.

    Raises
    ------
    SettingsError
        The slot is unknown, or the version is no positive number.
    """

    slot: str
    version: int
    rules: RolloutSettings

    def __post_init__(self) -> None:
        if self.slot not in SLOTS or self.version < 1:
            msg = (
                f"rollout: slot={self.slot!r}, version={self.version}; required: one of {list(SLOTS)}, from 1"
            )
            raise SettingsError(msg, hint="name the slot that is to take over, and a version of the registry")

    @classmethod
    def of(cls, slot: str, version: int, rules: RolloutSettings, changes: Mapping[str, Any]) -> Plan:
        """By the rules of the settings with some of their keys changed.

        Raises
        ------
        SettingsError
            A key is unknown, or a value is out of range.
        """
        try:
            changed = RolloutSettings(**{**rules.model_dump(), **changes})
        except ValidationError as e:
            wrong = [f"{'.'.join(('rollout', *map(str, d['loc'])))}: {describe(d)}" for d in e.errors()]
            msg = "; ".join(wrong)
            raise SettingsError(msg, hint="docs/settings.md lists the keys of serving.rollout") from e
        return cls(slot, version, changed)

    def weight(self, step: int) -> int:
        """Weight of the new model on a step, in 1/100 %."""
        return round(100 * self.rules.steps[step])


@dataclass(frozen=True)
class Rollout:
    """A rollout as it stands; what is saved.

    Attributes
    ----------
    plan:
        What takes over and how.
    baseline:
        The traffic before, which a rollout that is broken off goes back to.
    phase:
        `shadow` and `step` are running, the others are ends.
    step:
        Index into the plan's steps; −1 in the shadow phase.
    started_at, entered_at, ended_at:
        Of the rollout, of its phase or step, and of its end (None while it is running), UTC.
    reason:
        Why it is where it is, in words.
    """

    plan: Plan
    baseline: Traffic
    phase: Phase
    step: int
    started_at: datetime
    entered_at: datetime
    ended_at: datetime | None
    reason: str

    @property
    def running(self) -> bool:
        """Whether decisions are still to be made."""
        return self.phase in RUNNING

    @property
    def traffic(self) -> Traffic:
        """The traffic that is to be in force.

        The new model stays the shadow until it answers everything; then the old one is, until the end.
        """
        slot = self.plan.slot
        other = Traffic.other(slot)
        if self.phase in ("broken", "cancelled"):
            return self.baseline
        loaded = self.baseline.changed(models={**self.baseline.models, slot: self.plan.version}, shadow=None)
        if self.phase == "shadow":
            return loaded.changed(shadow=slot)
        weight = self.plan.weight(self.step)
        shadow = None if self.phase == "done" else other if weight == WHOLE else slot
        return loaded.changed(weights={slot: weight, other: WHOLE - weight}, shadow=shadow)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for `from_json`."""
        times = {name: getattr(self, name) for name in ("started_at", "entered_at", "ended_at")}
        return {
            "slot": self.plan.slot,
            "version": self.plan.version,
            "rules": self.plan.rules.model_dump(mode="json"),
            "baseline": self.baseline.to_json(),
            "phase": self.phase,
            "step": self.step,
            **{name: at.isoformat() if at else None for name, at in times.items()},
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Rollout:
        """What `to_json` wrote.

        Raises
        ------
        TrafficError
            Something is missing or was written by another release.
        """
        try:
            ended = given["ended_at"]
            return cls(
                Plan.of(given["slot"], given["version"], RolloutSettings(), given["rules"]),
                Traffic.from_json(given["baseline"]),
                given["phase"],
                given["step"],
                datetime.fromisoformat(given["started_at"]),
                datetime.fromisoformat(given["entered_at"]),
                datetime.fromisoformat(ended) if ended else None,
                given["reason"],
            )
        except (KeyError, TypeError, ValueError, SettingsError) as e:
            why = str(e).splitlines()[0]
            msg = f"rollout: the saved state cannot be read ({why}); required: what this release writes"
            raise TrafficError(msg, hint="cancel the rollout and start it anew") from e


@dataclass(frozen=True)
class Decision:
    """What to do next.

    Attributes
    ----------
    kind:
        `hold` changes the reason shown alone; `advance`, `break`, `cancel` and `finish` the traffic too.
    reason:
        Why, in words and numbers.
    numbers:
        What the decision stands on, as plain JSON values.
    rollout:
        The rollout after the decision; its `traffic` is to be in force.
    """

    kind: Literal["hold", "advance", "break", "cancel", "finish"]
    reason: str
    numbers: dict[str, Any]
    rollout: Rollout


def start(plan: Plan, current: Traffic, now: datetime) -> Rollout:
    """Begin in the shadow phase.

    Raises
    ------
    TrafficError
        The slot answers requests with another version, or answers all of them already.
    """
    weight, version = current.weights[plan.slot], current.models[plan.slot]
    if weight == WHOLE or (weight > 0 and version != plan.version):
        msg = (
            f"rollout: {plan.slot} answers {weight / 100:g} % with version {version}; required: nothing, "
            f"or a part with version {plan.version}"
        )
        raise TrafficError(msg, hint=f"roll out in {Traffic.other(plan.slot)}, or take {plan.slot} out first")
    return Rollout(plan, current, "shadow", -1, now, now, None, "answers unseen")


def decide(
    rollout: Rollout, *, step: SlotWindows, recent: SlotWindows, evidence: Evidence | None, now: datetime
) -> Decision:
    """What to do next with a running rollout.

    Parameters
    ----------
    rollout:
        The saved state.
    step, recent:
        What both slots did since the phase or step was entered (or later, after a restart of the one who
        counts), and over the last `window_seconds`. Shadow answers count as the new model's requests.
    evidence:
        The sequential test on both models' losses, at the rules' `alpha`; None: no label has arrived yet.
    now:
        The time, UTC.

    Raises
    ------
    TrafficError
        The rollout has ended.
    """
    _require_running(rollout)
    rules = rollout.plan.rules
    numbers = _numbers(step, recent, evidence)
    crossed = [g for windows in (recent, step) for g in gates(windows, rules) if g.crossed]
    if crossed:
        return break_off(rollout, now, str(crossed[0]), numbers)
    if evidence is not None and evidence.verdict == "worse":
        return break_off(rollout, now, _larger_loss(evidence), numbers)
    waits = _waits(rollout, step, now)
    if waits:
        reason = "; ".join(waits)
        return Decision("hold", reason, numbers, dataclasses.replace(rollout, reason=reason))
    return _onward(rollout, now, numbers)


def break_off(rollout: Rollout, now: datetime, reason: str, numbers: Mapping[str, Any]) -> Decision:
    """Back to the traffic before, at once; also for reasons that are not seen here, such as a dead slot.

    Raises
    ------
    TrafficError
        The rollout has ended.
    """
    return _end(rollout, "broken", "break", now, reason, numbers)


def cancel(rollout: Rollout, now: datetime, reason: str) -> Decision:
    """Back to the traffic before because somebody wants it.

    Raises
    ------
    TrafficError
        The rollout has ended.
    """
    return _end(rollout, "cancelled", "cancel", now, reason, {})


def _end(
    rollout: Rollout,
    phase: Phase,
    kind: Literal["break", "cancel"],
    now: datetime,
    reason: str,
    numbers: Mapping[str, Any],
) -> Decision:
    _require_running(rollout)
    after = dataclasses.replace(rollout, phase=phase, ended_at=now, reason=reason)
    return Decision(kind, reason, dict(numbers), after)


def _require_running(rollout: Rollout) -> None:
    if not rollout.running:
        msg = f"rollout of version {rollout.plan.version}: it is {rollout.phase}; required: a running one"
        raise TrafficError(msg, hint="start another rollout")


def _waits(rollout: Rollout, step: SlotWindows, now: datetime) -> list[str]:
    """What is still missing for the next step, in words; empty: nothing is."""
    rules = rollout.plan.rules
    shadow = rollout.phase == "shadow"
    seconds = rules.shadow_seconds if shadow else rules.hold_seconds
    seen, least, what = (
        (step.new.pairs, rules.shadow_min_pairs, "answers beside the old model's")
        if shadow
        else (step.new.requests, rules.min_requests, "requests")
    )
    passed = (now - rollout.entered_at).total_seconds()
    waits = [f"{passed:.0f} of {seconds:g} s"] if passed < seconds else []
    if seen < least:
        waits.append(f"{seen} of {least} {what}")
    return waits + [str(gate) for gate in gates(step, rules) if not gate.passed]


def _onward(rollout: Rollout, now: datetime, numbers: dict[str, Any]) -> Decision:
    """The next step that gives the new model more than it has, or the end."""
    plan, has = rollout.plan, rollout.traffic.weights[rollout.plan.slot]
    if has == WHOLE:
        reason = f"version {plan.version} has taken over"
        after = dataclasses.replace(rollout, phase="done", ended_at=now, reason=reason)
        return Decision("finish", reason, numbers, after)
    following = next(i for i in range(len(plan.rules.steps)) if plan.weight(i) > has)
    reason = f"passed at {has / 100:g} %, on to {plan.rules.steps[following]:g} %"
    after = dataclasses.replace(rollout, phase="step", step=following, entered_at=now, reason=reason)
    return Decision("advance", reason, numbers, after)


def _larger_loss(evidence: Evidence) -> str:
    return (
        f"larger loss than the old model: p = {evidence.worse.p_value:.3g} at any time, required above "
        f"{evidence.alpha:g}; mean difference {evidence.mean_difference:.3g} over {evidence.pairs} decisions"
    )


def _numbers(step: SlotWindows, recent: SlotWindows, evidence: Evidence | None) -> dict[str, Any]:
    return {
        "step": {"new": _figures(step.new), "old": _figures(step.old)},
        "recent": {"new": _figures(recent.new), "old": _figures(recent.old)},
        "evidence": evidence.to_json() if evidence else None,
    }


def _figures(window: Window) -> dict[str, float | None]:
    names = ("requests", "errors", "nulls", "pairs", "error_rate", "null_rate", "p99_ms", "disagreement")
    return {name: getattr(window, name) for name in names}
