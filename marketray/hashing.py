"""Content hashes that decide whether a stored result is still right."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["code_hash", "digest", "table_hash"]


def digest(*parts: Any) -> str:
    """32 hex digits over `parts`, which must be JSON-serialisable; key order does not matter."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code_hash(*names: str) -> str:
    """Digest over the source text of modules or packages, e.g. ``marketray.features``.

    A package counts with all ``.py`` files below it. A change of code therefore recomputes what that
    code produced, and nothing else.
    """
    h = hashlib.sha256()
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            msg = f"module {name!r} has no source file"
            raise ModuleNotFoundError(msg)
        origin = Path(spec.origin)
        files = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
        for file in files:
            h.update(f"{name}/{file.relative_to(origin.parent)}\n".encode())
            h.update(file.read_bytes())
    return h.hexdigest()[:32]


def table_hash(table: pa.Table) -> str:
    """Digest over names, types, null masks and values; chunking and null slots' bytes do not matter."""
    h = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # zero or one chunk after combining
            column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
        h.update(f"{name}:{column.type}:{len(column)}:{column.null_count}\n".encode())
        if column.null_count:
            h.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes())
        h.update(_value_bytes(column))
    return h.hexdigest()[:32]


def _value_bytes(column: pa.Array) -> Buffer:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.int64() if pa.types.is_timestamp(column.type) else pa.int32())
    if pa.types.is_primitive(column.type):
        if column.null_count:
            column = pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0)
        values = np.ascontiguousarray(column.to_numpy(zero_copy_only=False))
        return values.data if values.size else b""
    return json.dumps(column.to_pylist(), default=str).encode()
