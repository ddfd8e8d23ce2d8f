"""The split: fair shares, the same slot for the same key, and weights that only add."""

from __future__ import annotations

import json
import pickle
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from marketray.errors import SettingsError
from marketray.serving.traffic import SLOTS, WHOLE, Traffic, bucket

BOTH = {"blue": 3, "green": 4}
weights = st.integers(0, WHOLE)
keys = st.text(max_size=40)


def split(green: int, **changes: Any) -> Traffic:
    return Traffic({"blue": WHOLE - green, "green": green}, BOTH, **changes)


@pytest.fixture(scope="module")
def buckets() -> np.ndarray:
    """Buckets of 100,000 keys as clients have them."""
    return np.array([bucket(f"client-{i}") for i in range(100_000)])


@pytest.mark.parametrize("green", [1, 100, 500, 1_000, 2_500, 5_000, 9_999])
def test_shares_lie_within_binomial_bounds(buckets: np.ndarray, green: int) -> None:
    low, high = binom.ppf([1e-4, 1 - 1e-4], len(buckets), green / WHOLE)
    assert low <= int((buckets < green).sum()) <= high


def test_buckets_are_uniform(buckets: np.ndarray) -> None:
    assert buckets.min() >= 0
    assert buckets.max() < WHOLE
    counts = np.bincount(buckets // 100, minlength=100)
    assert ((counts - 1_000) ** 2 / 1_000).sum() < chi2.ppf(0.9999, 99)


def test_bucket_is_the_documented_hash() -> None:
    digest = blake2b("König".encode(), digest_size=8).digest()
    assert bucket("König") == int(digest.hex(), 16) % 10_000
    assert [bucket(k) for k in ("", "client-1", "SPX500_USD")] == [9876, 846, 1235]  # b2sum -l 64


@given(keys, weights)
def test_the_same_key_gets_the_same_slot(key: str, green: int) -> None:
    assert split(green).choose(key) == split(green).choose(key)
    assert split(green).choose(key) == ("green" if bucket(key) < green else "blue")


@given(keys, weights, weights)
def test_raising_green_only_adds_keys_to_green(key: str, a: int, b: int) -> None:
    low, high = sorted((a, b))
    if split(low).choose(key) == "green":
        assert split(high).choose(key) == "green"
    if split(high).choose(key) == "blue":
        assert split(low).choose(key) == "blue"


@given(keys)
def test_a_slot_without_weight_answers_nothing(key: str) -> None:
    assert split(0).choose(key) == "blue"
    assert split(WHOLE).choose(key) == "green"


@given(weights, st.sampled_from([None, *SLOTS]), st.sampled_from(["client", "instrument"]))
def test_traffic_travels(green: int, shadow: str | None, sticky: Any) -> None:
    if shadow is not None and split(green).weights[shadow] == WHOLE:
        shadow = None
    made = split(green, shadow=shadow, sticky=sticky)
    assert Traffic.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert pickle.loads(pickle.dumps(made)) == made


def test_changes_leave_the_rest() -> None:
    made = split(2_000, shadow="green").changed(weights={"blue": 5_000, "green": 5_000})
    assert made == split(5_000, shadow="green")
    assert [made.other(slot) for slot in SLOTS] == ["green", "blue"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"blue": WHOLE}}, r"weights name the slots \['blue'\]; required: \['blue', 'green'\]"),
        ({"models": {**BOTH, "red": 1}}, r"models name the slots .*'red'"),
        ({"weights": {"blue": 5_000, "green": 4_000}}, "weights sum to 9000; required: 10000"),
        ({"weights": {"blue": WHOLE + 1, "green": -1}}, "weight -1 of green; required: a whole number"),
        ({"weights": {"blue": 0.5, "green": 9_999.5}}, "weight 0.5 of blue; required: a whole number"),
        ({"models": {"blue": None, "green": 4}}, "blue is empty and has weight 8000; required: a model"),
        ({"shadow": "red"}, r"shadow='red'; required: one of \['blue', 'green'\]"),
        ({"sticky": "session"}, r"sticky='session'; required: one of \['client', 'instrument'\]"),
    ],
)
def test_traffic_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        split(2_000).changed(**changes)


def test_a_shadow_must_have_a_model_and_something_to_answer() -> None:
    with pytest.raises(SettingsError, match="shadow green is empty; required: a slot with a model"):
        Traffic({"blue": WHOLE, "green": 0}, {"blue": 3, "green": None}, shadow="green")
    with pytest.raises(SettingsError, match="shadow green answers every request already"):
        split(WHOLE, shadow="green")


@pytest.mark.parametrize("keys", [["weights"], ["weights", "models", "colour"]])
def test_json_of_something_else_is_refused(keys: list[str]) -> None:
    given = {**split(0).to_json(), "colour": "red"}
    with pytest.raises(SettingsError, match=r"got the keys .*; required: weights and models"):
        Traffic.from_json({key: given[key] for key in keys})
