"""Content digests: equal for equal content, different for any change."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from marketray.hashing import code_hash, digest, table_hash


def test_digest_ignores_key_order_and_sees_every_value() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}, 2) != digest({"a": 1}, 3)
    assert digest("ab", "c") != digest("a", "bc")


def test_table_hash_ignores_chunking_and_the_bytes_under_nulls() -> None:
    one = pa.table({"x": pa.chunked_array([[1.0, None], [3.0]]), "s": ["a", None, "c"]})
    buffers = pa.array([1.0, 99.0, 3.0]).buffers()
    mask = pa.py_buffer(bytes([0b101]))
    x = pa.Array.from_buffers(pa.float64(), 3, [mask, buffers[1]])
    two = pa.table({"x": x, "s": ["a", None, "c"]})
    assert table_hash(one) == table_hash(two)
    assert table_hash(one.slice(1)) == table_hash(pa.table({"x": [None, 3.0], "s": [None, "c"]}))


@pytest.mark.parametrize(
    "changed",
    [
        {"x": [1, 2, 4]},
        {"y": [1, 2, 3]},
        {"x": [1, 2, None]},
        {"x": [1.0, 2.0, 3.0]},
        {"x": [1, 2]},
        {"x": [True, False, True]},
    ],
)
def test_table_hash_sees_values_names_nulls_types_and_length(changed: dict[str, list[object]]) -> None:
    assert table_hash(pa.table({"x": [1, 2, 3]})) != table_hash(pa.table(changed))


def test_table_hash_sees_one_microsecond_one_day_and_one_flag() -> None:
    def stamped(micro: int, day: int, flag: bool) -> pa.Table:
        return pa.table(
            {
                "t": [datetime(2024, 1, 1, 0, 0, 0, micro, UTC), None],
                "d": [date(2024, 1, day), None],
                "f": [flag, None],
            }
        )

    hashes = {table_hash(stamped(*a)) for a in ((0, 1, True), (1, 1, True), (0, 2, True), (0, 1, False))}
    assert len(hashes) == 4


def test_code_hash_differs_between_modules_and_names_an_unknown_one() -> None:
    assert code_hash("marketray.lake") == code_hash("marketray.lake") != code_hash("marketray.errors")
    with pytest.raises(ModuleNotFoundError, match="marketray"):
        code_hash("marketray.nothing_here")
