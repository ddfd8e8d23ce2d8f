"""Which slot answers which request: weights of the two slots, by a hash of the request's key.

A key falls into one of `WHOLE` buckets and always into the same one. Green answers the buckets below its
weight and blue the rest, so raising a weight only adds keys to that slot and takes none away from it: who
was moved to the new model stays there while the rollout goes on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, get_args

from marketray.errors import SettingsError

__all__ = ["SLOTS", "WHOLE", "Sticky", "Traffic", "bucket", "hundredths"]

SLOTS = ("blue", "green")
"""Names of the two slots."""

WHOLE = 10_000
"""All of the traffic; weights are in 1/100 %."""

Sticky = Literal["client", "instrument"]
"""What a request's key is made of: the caller, or the instrument that is asked for."""


def bucket(key: str) -> int:
    """Bucket of a key, 0 … `WHOLE` − 1: BLAKE2b of its UTF-8 text to 64 bits, modulo `WHOLE`.

    Equal in every process, on every machine and in every release; uneven by less than one in 10¹⁵.
    """
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % WHOLE


def hundredths(percent: Mapping[str, float]) -> dict[str, int]:
    """Weights in 1/100 % by slot from percent; a slot that is left out gets the rest.

    Raises
    ------
    SettingsError
        A weight is finer than 1/100 %, or names no slot.
    """
    made = {}
    for slot, share in percent.items():
        exact = math.isfinite(share) and abs(share * 100 - round(share * 100)) <= 1e-6
        if not exact or slot not in SLOTS:
            msg = f"weights: got {slot}={share!r}; required: {' or '.join(SLOTS)} with percent to 1/100"
            raise SettingsError(msg, hint="such as blue: 90, green: 10")
        made[slot] = round(share * 100)
    left = [s for s in SLOTS if s not in made]
    rest = WHOLE - sum(made.values())
    return {**made, **({s: (rest if s == left[0] else 0) for s in left})}


@dataclass(frozen=True)
class Traffic:
    """The traffic in force.

    Parameters
    ----------
    weights:
        1/100 % of the requests, by slot; they sum to `WHOLE`.
    models:
        Registry version by slot; None where the slot is empty.
    shadow:
        The slot that answers the requests of the other one too, unseen by the caller; None: no slot does.
    sticky:
        What the key is made of that `choose` is given.

    Raises
    ------
    SettingsError
        A slot is unknown or left out, a weight is negative or no whole number, the weights do not sum to
        `WHOLE`, an empty slot has weight, or the shadow is empty or already answers every request.
    """

    weights: Mapping[str, int]
    models: Mapping[str, int | None]
    shadow: str | None = None
    sticky: Sticky = "client"

    def __post_init__(self) -> None:
        for name, given in (("weights", self.weights), ("models", self.models)):
            if set(given) != set(SLOTS):
                msg = f"traffic: {name} name the slots {sorted(given)}; required: {list(SLOTS)}"
                raise SettingsError(msg, hint=f"give {name} both slots")
        self._check_weights()
        self._check_shadow()
        if self.sticky not in get_args(Sticky):
            msg = f"traffic: sticky={self.sticky!r}; required: one of {list(get_args(Sticky))}"
            raise SettingsError(msg, hint="use client unless an instrument must stay with one model")

    def choose(self, key: str) -> str:
        """The slot that answers requests with this key."""
        return "green" if bucket(key) < self.weights["green"] else "blue"

    @staticmethod
    def other(slot: str) -> str:
        """The slot that is not `slot`."""
        return "blue" if slot == "green" else "green"

    def changed(self, **changes: Any) -> Traffic:
        """This traffic with other `weights`, `models`, `shadow` or `sticky`, checked again."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, for `from_json`."""
        return {
            "weights": dict(self.weights),
            "models": dict(self.models),
            "shadow": self.shadow,
            "sticky": self.sticky,
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Traffic:
        """What `to_json` wrote, checked again.

        Raises
        ------
        SettingsError
            A key is missing or unknown, or the traffic is none; see `Traffic`.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if not {"weights", "models"} <= set(given) <= set(known):
            msg = f"traffic: got the keys {sorted(given)}; required: weights and models, of {known}"
            raise SettingsError(msg, hint="leave out what is not listed")
        return cls(**given)

    def _check_weights(self) -> None:
        for slot, weight in self.weights.items():
            if not isinstance(weight, int) or weight < 0:
                msg = (
                    f"traffic: weight {weight!r} of {slot}; required: a whole number of 1/100 %, 0 … {WHOLE}"
                )
                raise SettingsError(msg, hint="12.5 % is 1250")
            if weight > 0 and self.models[slot] is None:
                msg = f"traffic: {slot} is empty and has weight {weight}; required: a model, or weight 0"
                raise SettingsError(msg, hint=f"put a model into {slot} first")
        total = sum(self.weights.values())
        if total != WHOLE:
            msg = f"traffic: weights sum to {total}; required: {WHOLE}, in 1/100 %"
            raise SettingsError(msg, hint=f"give the other slot {WHOLE} less the weight of the first")

    def _check_shadow(self) -> None:
        if self.shadow is None:
            return
        if self.shadow not in SLOTS:
            msg = f"traffic: shadow={self.shadow!r}; required: one of {list(SLOTS)}, or none"
            raise SettingsError(msg, hint="name the slot that answers unseen")
        if self.models[self.shadow] is None:
            msg = f"traffic: the shadow {self.shadow} is empty; required: a slot with a model"
            raise SettingsError(msg, hint=f"put a model into {self.shadow} first")
        if self.weights[self.shadow] == WHOLE:
            msg = f"traffic: the shadow {self.shadow} answers every request already; required: a part of them"
            raise SettingsError(msg, hint=f"name {self.other(self.shadow)}, or no shadow")
