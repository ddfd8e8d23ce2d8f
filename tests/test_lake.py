"""The lake: whole partitions or none, manifests that cannot disagree with the data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from marketray.errors import LakeError
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest

PART = {"instrument": "A", "month": "2024-01"}


def table(n: int = 3) -> pa.Table:
    return pa.table({"x": pa.array(range(n), pa.int64()), "s": pa.array([None, *["b"] * (n - 1)])})


def manifest(t: pa.Table, key: str = "k", **more: object) -> Manifest:
    return Manifest(key, table_hash(t), t.num_rows, t.num_rows, **more)  # type: ignore[arg-type]


def test_a_written_partition_reads_back_with_its_manifest(tmp_path: Path) -> None:
    lake, t = Lake(str(tmp_path)), table()
    lake.write("bronze/bars", PART, t, manifest(t, detail={"a": 1}))
    assert lake.read("bronze/bars", PART).equals(t)
    assert lake.read("bronze/bars", PART, ["s"]).column_names == ["s"]
    found = lake.manifest("bronze/bars", PART)
    assert found is not None
    assert (found.rows_out, found.detail) == (3, {"a": 1})
    assert lake.is_current("bronze/bars", PART, "k")
    assert not lake.is_current("bronze/bars", PART, "other")
    part = tmp_path / "bronze/bars/instrument=A/month=2024-01/part.parquet"
    assert pq.ParquetFile(part).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_same_rows_and_manifest_give_the_same_bytes(tmp_path: Path) -> None:
    t, written = table(1000), []
    for name in ("one", "two"):
        lake = Lake(str(tmp_path / name))
        lake.write("d", PART, t, manifest(t))
        written.append(Path(lake.path("d", PART), "part.parquet").read_bytes())
    assert written[0] == written[1]


def test_partitions_are_listed_in_order_and_filtered_by_key(tmp_path: Path) -> None:
    lake, t = Lake(str(tmp_path)), table()
    for instrument, month in (("B", "2024-01"), ("A", "2024-02"), ("A", "2024-01")):
        lake.write("d", {"instrument": instrument, "month": month}, t, manifest(t))
    assert [tuple(p.values()) for p in lake.partitions("d")] == [
        ("A", "2024-01"),
        ("A", "2024-02"),
        ("B", "2024-01"),
    ]
    assert [p["month"] for p, rows in lake.scan("d", instrument="A") if rows.num_rows == 3] == [
        "2024-01",
        "2024-02",
    ]
    lake.delete("d", {"instrument": "B", "month": "2024-01"})
    assert len(lake.partitions("d")) == 2
    assert lake.partitions("absent") == []


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(LakeError, match="rows_in=10 but rows_out=7 \\+ rows_quarantined=1"):
        Manifest("k", "c", 10, 7, 1, 1)


def test_a_broken_document_and_a_foreign_folder_are_named(tmp_path: Path) -> None:
    lake, t = Lake(str(tmp_path)), table()
    (tmp_path / "a.json").write_text("{torn")
    with pytest.raises(LakeError, match=r"a.json: not a readable JSON document"):
        lake.read_json("a.json")
    lake.write("d", PART, t, manifest(t))
    foreign = tmp_path / "d" / "copy"
    foreign.mkdir()
    pq.write_table(t, foreign / "part.parquet")
    with pytest.raises(LakeError, match=r"d/copy/part.parquet: lies in a folder that is no partition"):
        lake.partitions("d")


def test_missing_values_are_counted_from_the_footer(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    n = 1_500_000  # more than one row group
    t = pa.table(
        {
            "time": pa.array(range(n), pa.timestamp("us", "UTC")),
            "x": pa.array([None] * 3 + [float("nan")] * (n - 3), pa.float64()),
            "none": pa.nulls(n, pa.float64()),
            "flag": pa.array([True] * n),
        }
    )
    lake.write("d", PART, t, manifest(t))
    assert lake.null_counts("d", PART) == {"time": 0, "x": 3, "none": n, "flag": 0}
    with pytest.raises(LakeError, match="month=2024-02/part.parquet: cannot be read"):
        lake.null_counts("d", {**PART, "month": "2024-02"})


def test_a_store_that_does_not_answer_is_named(tmp_path: Path, monkeypatch) -> None:
    class Silent(pa.fs.LocalFileSystem):
        def get_file_info(self, where: object) -> None:
            raise OSError("network is down")

    lake = Lake(str(tmp_path))
    monkeypatch.setattr(lake, "_fs", Silent())
    asked = [
        lambda: lake.read_json("a.json"),
        lambda: lake.manifest("d", PART),
        lambda: lake.partitions("d"),
        lambda: lake.delete("d", PART),
    ]
    for ask in asked:
        with pytest.raises(LakeError, match="cannot be reached: network is down"):
            ask()
    with pytest.raises(LakeError, match="cannot be written .*network is down"):
        lake.write_json("a.json", {})


def test_a_manifest_must_count_the_tables_rows(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="manifest says 2 rows, got 3"):
        Lake(str(tmp_path)).write("d", PART, table(), Manifest("k", "c", 2, 2))


def test_missing_partitions_columns_and_foreign_files_are_named(tmp_path: Path) -> None:
    lake, t = Lake(str(tmp_path)), table()
    with pytest.raises(LakeError, match="no partition .*2024-01"):
        lake.read("d", PART)
    lake.write("d", PART, t, manifest(t))
    with pytest.raises(LakeError, match=r"lacks the columns \['nope'\]"):
        lake.read("d", PART, ["x", "nope"])
    path = Path(lake.path("d", PART), "part.parquet")
    pq.write_table(t, path)
    with pytest.raises(LakeError, match="was not written by marketray"):
        lake.manifest("d", PART)
    path.write_bytes(b"not parquet")
    with pytest.raises(LakeError, match="not a readable Parquet file"):
        lake.manifest("d", PART)
    with pytest.raises(LakeError, match="cannot be read"):
        lake.read("d", PART)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(LakeError, match="lake='nope://x' cannot be opened"):
        Lake("nope://x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full to act as a full disk")
def test_a_full_disk_leaves_the_old_partition_and_no_scraps(tmp_path: Path, monkeypatch) -> None:
    lake, t = Lake(str(tmp_path)), table()
    lake.write("d", PART, t, manifest(t))
    folder = Path(lake.path("d", PART))
    before = (folder / "part.parquet").read_bytes()
    monkeypatch.setattr(pq, "write_table", lambda *a, **k: Path("/dev/full").write_bytes(b"x" * 65536))
    with pytest.raises(LakeError, match="cannot be written .*No space left on device"):
        lake.write("d", PART, table(5), manifest(table(5), key="new"))
    assert (folder / "part.parquet").read_bytes() == before
    assert [p.name for p in folder.iterdir()] == ["part.parquet"]


WRITER = """
import sys
import pyarrow as pa
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
lake = Lake(sys.argv[1])
t = pa.table({"x": list(range(2_000_000))})
m = Manifest("new", table_hash(t), t.num_rows, t.num_rows)
print("ready", flush=True)
while True:
    lake.write("d", {"instrument": "A", "month": "2024-01"}, t, m)
"""


def test_a_killed_writer_leaves_whole_partitions_and_the_next_write_cleans_up(tmp_path: Path) -> None:
    lake, old = Lake(str(tmp_path)), table()
    lake.write("d", PART, old, manifest(old, "old"))
    for delay in (0.02, 0.09, 0.17):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        found = lake.manifest("d", PART)
        assert found is not None
        assert lake.read("d", PART).num_rows == found.rows_out in (3, 2_000_000)
        assert [p["month"] for p in lake.partitions("d")] == ["2024-01"]
    lake.write("d", PART, old, manifest(old, "old"))
    assert [p.name for p in Path(lake.path("d", PART)).iterdir()] == ["part.parquet"]


def test_json_documents_are_replaced_whole(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert lake.read_json("manifests/x.json") is None
    lake.write_json("manifests/x.json", {"b": 1, "a": [1, 2]})
    assert lake.read_json("manifests/x.json") == {"a": [1, 2], "b": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        lake.write_json("manifests/x.json", {"a": float("nan")})
    assert lake.read_json("manifests/x.json") == {"a": [1, 2], "b": 1}


def test_a_file_uri_is_a_local_lake(tmp_path: Path) -> None:
    lake, t = Lake(f"file://{tmp_path}"), table()
    lake.write("d", PART, t, manifest(t))
    assert lake.is_local
    assert Lake(str(tmp_path)).read("d", PART).equals(t)
