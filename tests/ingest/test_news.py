"""A whole ingest of articles: copies, filters, counts, repeats, a kill, the stage."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketray.errors import DataError, QualityError, SettingsError
from marketray.ingest import article_store, news
from marketray.ingest.article_store import COPIES
from marketray.ingest.news import ingest_news
from marketray.ingest.sources import articles as source
from marketray.ingest.stage import run_ingest
from marketray.lake import Lake
from marketray.settings import load_settings
from tests.ingest.made_bars import as_text, bronze, minutes, tree
from tests.ingest.made_bars import settings_for as bars_settings
from tests.ingest.made_news import Article, article, ingest, put, refused, settings_for, stored, titles

MINUTE = datetime(2024, 1, 31, 23, 50, tzinfo=UTC)


def at(minute: int) -> str:
    """A stamp `minute` minutes after ten to midnight, the 31st of January."""
    return (MINUTE + timedelta(minutes=minute)).isoformat()


def report(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = Lake(str(home / "lake")).read_json("manifests/news/TEST.report.json")
    return found


def test_copies_by_address_text_and_id_the_first_known_stays(home: Path) -> None:
    rows = [
        article("Fed holds", at(5), url="https://e.com/fed?utm_source=mail", source="a"),
        article("Fed holds rates", at(3), url="HTTPS://E.com/fed/#top", source="b"),
        article("U . S . stocks up", at(2), source="a", collected_at=at(20)),
        article("U.S. Stocks UP", at(9), source="b"),
        article("Oil falls", at(1), article_id="7", source="a"),
        article("Oil falls 3%", at(4), article_id="7", source="a"),
        article("Oil rises", at(4), article_id="7", source="b"),
        article("Gold", at(6), article_id="1"),
        article("Silver", at(6), article_id="1"),  # no source: two counts of lines, not one id
    ]
    result = ingest(home, put(home / "n.ndjson", rows))
    assert sorted(titles(home)) == [
        *("Fed holds rates", "Gold", "Oil falls", "Oil rises", "Silver", "U.S. Stocks UP")
    ]
    assert result.duplicates == {"same_id": 1, "same_text": 1, "same_url": 1}
    assert (result.rows_in, result.rows_out, result.months) == (9, 6, ["2024-01", "2024-02"])
    order = stored(home).select("available_at", "article_id").rows()
    assert order == sorted(order)


def test_a_copy_of_a_copy_is_one_too(home: Path) -> None:
    rows = [
        article("A", at(1), url="https://e.com/1"),
        article("B", at(2), url="https://e.com/1"),
        article("B", at(3), url="https://e.com/3"),
    ]
    ingest(home, put(home / "n.ndjson", rows))
    assert titles(home) == ["A"]


def test_an_article_without_an_id_gets_that_of_its_address_or_text(home: Path) -> None:
    rows = [
        article("A", at(1), url="https://e.com/1"),
        article("B", at(2)),
        article("C", at(3), article_id="x"),
    ]
    ingest(home, put(home / "n.ndjson", rows))
    import hashlib

    def expected(text: str) -> str:
        return f"{int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) >> 1:016x}"

    assert stored(home)["article_id"].to_list() == [expected("https://e.com/1"), expected("b"), "x"]


POOL = st.fixed_dictionaries(
    {
        "title": st.sampled_from(["Fed", "FED", "Oil up", "Oil  up", "Gold"]),
        "published_at": st.integers(0, 15).map(at),
        "url": st.sampled_from([None, "https://e.com/1", "https://E.com/1/", "https://e.com/2"]),
        "source": st.sampled_from(["a", "b", None]),
        "article_id": st.sampled_from([None, "1", "2"]),
    }
)


def kept_by_hand(rows: list[Article]) -> set[tuple[str, str]]:
    """(title, stamp) of the articles that are the first for each of their keys; stamps all differ."""
    kept = set()
    for one in rows:
        earlier = [o for o in rows if o["published_at"] < one["published_at"]]
        same = [
            o
            for o in earlier
            if o["title"].lower().split() == one["title"].lower().split()
            or (one["url"] and o["url"] and o["url"].lower().rstrip("/") == one["url"].lower().rstrip("/"))
            or (one["source"] and one["article_id"] and
                (o["source"], o["article_id"]) == (one["source"], one["article_id"]))
        ]  # fmt: skip
        if not same:
            kept.add((one["title"], one["published_at"]))
    return kept


@settings(max_examples=25)
@given(st.lists(POOL, min_size=1, max_size=14, unique_by=lambda a: a["published_at"]), st.integers(0, 999))
def test_neither_the_order_of_files_nor_of_rows_matters(rows: list[Article], seed: int) -> None:
    rng = random.Random(seed)
    with TemporaryDirectory() as folder:
        home = Path(folder)
        paths = [home / f"{name}.ndjson" for name in "abc"]
        for path, part in zip(paths, (rows[::3], rows[1::3], rows[2::3]), strict=True):
            put(path, [{"language": "en", **one} for one in part])
        ingest(home / "one", *paths)
        found = {(t, p.isoformat()) for t, p in stored(home / "one").select("title", "published_at").rows()}
        assert found == kept_by_hand(rows)
        for path in paths:
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(rng.sample(lines, len(lines))))
        ingest(home / "two", *rng.sample(paths, 3))
        assert tree(home / "one/lake/bronze") == tree(home / "two/lake/bronze")


def test_equal_articles_in_two_files_do_not_depend_on_the_order(home: Path) -> None:
    paths = [put(home / f"{name}.ndjson", [article("A", at(1)), article("B", at(1))]) for name in "ba"]
    ingest(home / "one", *paths)
    ingest(home / "two", *reversed(paths))
    assert tree(home / "one/lake/bronze") == tree(home / "two/lake/bronze")
    assert set(stored(home / "one")["file"]) == {str(home / "a.ndjson")}  # outside that home


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_later_ingest_keeps_what_was_known_earlier(home: Path, first: str) -> None:
    parts = {
        "a": put(
            home / "a.ndjson", [article("Fed", at(1)), article("Oil", at(20)), article("Only a", at(9))]
        ),
        "b": put(
            home / "b.ndjson", [article("FED", at(30)), article("OIL", at(2)), article("Only b", at(9))]
        ),
    }
    second = "b" if first == "a" else "a"
    ingest(home, parts[first])
    result = ingest(home, parts[second])
    assert sorted(titles(home)) == ["Fed", "OIL", "Only a", "Only b"]
    assert (result.rows_out, result.rows_duplicate, result.rows_replaced) == (2, 1, 1)
    ingest(home / "together", *parts.values())
    columns = pl.exclude("file")
    assert stored(home).select(columns).equals(stored(home / "together").select(columns))


CHAINED = st.tuples(st.sampled_from(["Fed", "FED", "Oil", "Gold"]), st.sampled_from([None, "1", "2"]))
"""Title and address of an article: few of each, so that copies of copies abound."""


@settings(max_examples=3)
@example([("Fed", None), ("FED", "1"), ("Oil", "1")], 9, 1)
@given(st.lists(CHAINED, min_size=3, max_size=6), st.integers(0, 9), st.integers(1, 2))
def test_no_cut_into_ingests_matters(rows: list[Any], seed: int, together: int) -> None:
    """The same files at once, or a few at a time in any order: the same articles and the same copies."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        paths = [
            put(home / f"{i}.ndjson", [article(title, at(i), url=url and f"https://e.com/{url}")])
            for i, (title, url) in enumerate(rows)
        ]
        ingest(home / "once", *paths)
        if seed < 5:  # else as they were published
            random.Random(seed).shuffle(paths)
        for start in range(0, len(paths), together):
            ingest(home / "cut", *paths[start : start + together])
        assert tree(home / "once/lake/bronze") == tree(home / "cut/lake/bronze")


def test_a_copy_of_a_copy_that_came_before_is_one_too(home: Path) -> None:
    """C shares its address with B, which is a copy of A by its words: also where B is not stored."""
    rows = {
        "a": article("Fed", at(1)),
        "b": article("FED", at(2), url="https://e.com/1"),
        "c": article("Rates", at(3), url="https://e.com/1"),
    }
    paths = {name: put(home / f"{name}.ndjson", [row]) for name, row in rows.items()}
    for name in "abc":
        result = ingest(home, paths[name])
    assert titles(home) == ["Fed"]
    assert result.duplicates == {"same_url": 1}
    put(paths["b"], [article("Gold", at(2))])
    result = ingest(home, paths["b"])
    assert titles(home) == ["Fed", "Gold", "Rates"]
    assert (result.rows_out, result.rows_restored, result.rows_replaced) == (1, 1, 0)
    assert not (home / "lake/bronze/article_copies").exists() or bronze(home, COPIES).is_empty()


@pytest.mark.parametrize("survived", range(4))
def test_an_article_that_changes_sides_is_never_lost(
    home: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Reading `b` again makes C an article, and A a copy; a kill at any write loses neither."""
    paths = {
        "a": put(home / "a.ndjson", [article("Fed", at(4))]),
        "b": put(home / "b.ndjson", [article("Oil", at(2), url="https://e.com/1")]),
        "c": put(home / "c.ndjson", [article("Rates", at(3), url="https://e.com/1")]),
    }
    for path in paths.values():
        ingest(home, path)
    put(paths["b"], [article("FED", at(2))])
    write, left = Lake.write, survived

    def killed(lake: Lake, dataset: str, *args: Any) -> None:
        nonlocal left
        if not dataset.startswith("staging"):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        write(lake, dataset, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "write", killed)
        if survived < 3:
            with pytest.raises(KeyboardInterrupt):
                ingest(home, paths["b"])
            told = {*titles(home), *bronze(home, COPIES)["title"]}
            assert told >= {"Fed", "Rates"}
    ingest(home, paths["b"])
    assert titles(home) == ["FED", "Rates"]
    assert bronze(home, COPIES).select("title", "reason").rows() == [("Fed", "same_text")]
    ingest(home / "whole", *paths.values())
    for dataset in ("bronze/articles", COPIES):
        assert bronze(home, dataset).drop("file").equals(bronze(home / "whole", dataset).drop("file"))


def test_the_report_says_what_span_of_each_source_is_known(home: Path) -> None:
    first = put(home / "1.ndjson", [article("A", at(0), source="a"), article("B", at(9))])
    second = put(home / "2.ndjson", [article("C", at(90), source="a"), article("c", at(99), source="a")])
    ingest(home, first)
    ingest(home, second)

    def span(first: int, last: int, count: int) -> dict[str, Any]:
        known = [(MINUTE + timedelta(minutes=m + 1)).isoformat() for m in (first, last)]
        return {"first": known[0], "last": known[1], "articles": count}

    assert report(home)["known"] == {"a": span(0, 90, 2), "": span(9, 9, 1)}


def test_files_read_again_replace_what_they_brought(home: Path) -> None:
    early, late = home / "early.ndjson", home / "late.ndjson"
    put(early, [article("A", "2024-02-28T10:00:00Z"), article("", "2024-02-28T10:00:00Z")])
    put(late, [article("B", "2024-03-31T10:00:00Z")])
    ingest(home, early, late)
    ingest(home, early, precision="day", day_zone="UTC")  # it was leaking: known by the day only
    assert stored(home)["available_at"].dt.strftime("%m-%dT%T").to_list() == [
        "02-29T00:01:00",
        "03-31T10:01:00",
    ]
    early = early.rename(home / "moved.ndjson")
    ingest(home, early)  # the same file elsewhere
    assert stored(home)["file"].to_list() == ["moved.ndjson", "late.ndjson"]
    assert refused(home) == {2: "missing_text"}
    put(early, [article("C", "2024-03-28T10:00:00Z")])
    ingest(home, early)
    assert titles(home) == ["C", "B"]
    assert refused(home) == {}
    assert stored(home)["month"].unique().to_list() == ["2024-03"]


def test_files_that_have_not_changed_are_not_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [put(home / f"{n}.ndjson", [article(n, at(5 * i)), article("")]) for i, n in enumerate("ABCD")]
    first = ingest(home, *paths)
    before = tree(home / "lake")
    with monkeypatch.context() as patch:
        patch.setattr(news, "read_articles", lambda *_: pytest.fail("the files were read"))
        again = ingest(home, *reversed(paths))
        (home / "lake/manifests/news/TEST.report.json").unlink()
        ingest(home, *paths, home / "*.ndjson")
    assert (again.written, again.skipped) == (0, first.written)
    assert again == type(again)(**{**vars(first), "written": 0, "skipped": first.written})
    assert tree(home / "lake") == before
    for changes in ({"latency_seconds": 1}, {}):
        ingest(home, *paths, **changes)
    assert tree(home / "lake") == before
    for dataset in ("bronze/articles", "quarantine/articles"):
        month = next((home / "lake" / dataset / "instrument=TEST").iterdir())
        shutil.rmtree(month)
        result = ingest(home, *paths)
        assert (result.written, tree(home / "lake")) == (1, before)


@pytest.mark.parametrize("survived", range(5))
def test_a_killed_ingest_is_completed_by_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    rows = [article(f"{i}", f"2024-0{1 + i % 4}-01T00:00:00Z") for i in range(40)] + [article("")]
    path = put(home / "n.ndjson", rows)
    ingest(home / "whole", path)
    write, left = Lake.write, survived

    def killed(lake: Lake, dataset: str, *args: Any) -> None:
        nonlocal left
        if not dataset.startswith("staging"):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        write(lake, dataset, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(home, path)
    assert not list((home / "lake/staging").rglob("*.parquet"))
    result = ingest(home, path)
    assert (result.written, result.skipped) == (5 - survived, survived)
    for part in ("bronze/articles", "quarantine"):
        assert len(tree(home / "lake" / part)) == len(tree(home / "whole/lake" / part))
    assert stored(home).drop("file").equals(stored(home / "whole").drop("file"))


def test_small_chunks_and_parts_change_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        article(f"Title {i % 300}", at(i * 37 % 2_000), url=f"https://e.com/{i % 450}") for i in range(900)
    ]
    path = put(home / "n.csv", rows)
    ingest(home / "big", path)
    monkeypatch.setattr(source, "CHUNK_ARTICLES", 70)
    monkeypatch.setattr(article_store, "_SPILL_ROWS", 200)
    result = ingest(home / "small", path)
    assert tree(home / "big/lake/bronze") == tree(home / "small/lake/bronze")
    assert result.rows_out < 300


def test_left_out_articles_are_counted_by_reason(home: Path) -> None:
    rows = [
        article("The Fed holds", at(1), language="EN-us"),
        article("Fed", at(2), language="de"),
        article("Fed up", at(3), language=None),
        article("Fedora", at(4)),
        article("No term here", at(5), body="but the U . S . economy"),
    ]
    path = put(home / "n.ndjson", rows)
    terms = {"relevance": ["fed", "U.S."]}
    result = ingest(home, path, unknown_language="drop", **terms)
    assert result.dropped == {"language": 1, "not_relevant": 1, "unknown_language": 1}
    assert titles(home) == ["The Fed holds", "No term here"]
    assert ingest(home, path, unknown_language="keep", **terms).rows_out == 3
    assert ingest(home, path, languages=[], **terms).dropped == {"not_relevant": 1}
    assert ingest(home, path, languages=["EN", "de"], language="fr").dropped == {"language": 1}
    assert stored(home)["language"].to_list() == ["EN-us", "de", "en", "en"]
    with pytest.raises(
        DataError, match=r"news.unknown_language: n.ndjson line 3 names no language; required"
    ):
        ingest(home, path)


def test_too_many_refused_articles_leave_everything_as_it_was(home: Path) -> None:
    path = put(home / "n.ndjson", [article("A"), article("B"), article("C")])
    ingest(home, path)
    before = tree(home / "lake/bronze")
    put(path, [article("A"), article("B"), article("", source="s")])
    with pytest.raises(
        QualityError, match=r"TEST: 1 of 3 articles \(33.3%\) cannot be used \(missing_text 1\)"
    ):
        ingest(home, path, max_quarantined_share=0.3)
    assert tree(home / "lake/bronze") == before
    assert not (home / "lake/quarantine").exists()
    assert report(home)["status"] == "failed"
    assert report(home)["examples"]["missing_text"][0]["source"] == "s"
    ingest(home, path, max_quarantined_share=0.34)
    assert report(home)["status"] == "passed"
    assert (report(home)["rows_in"], report(home)["quarantined"]) == (3, {"missing_text": 1})


def test_settings_without_news_or_with_the_simulator(home: Path) -> None:
    with pytest.raises(SettingsError, match="news: the settings have no such section"):
        ingest_news(load_settings(overrides={"home": str(home)}))
    news_only = {"news": {"paths": ["n.csv"], "precision": "second"}}
    with pytest.raises(SettingsError, match="the simulator writes articles of its own"):
        load_settings(overrides={"home": str(home), **news_only})


def test_files_replace_the_simulator_s_articles(home: Path) -> None:
    simulated = {"home": str(home), "instrument": "TEST", "source": {"kind": "simulator", "bars": 12_000}}
    from marketray.ingest.intake import ingest_source

    ingest_source(load_settings(overrides=simulated))
    assert len(stored(home)) > 100
    ingest(home, put(home / "n.ndjson", [article("A", "2024-01-05T00:00:00Z")]))
    assert titles(home) == ["A"]


def test_the_stage_ingests_bars_then_news(ray_local: None, home: Path) -> None:
    bars, path = home / "bars.csv", put(home / "n.ndjson", [article("A"), article("B"), article("b")])
    as_text(minutes(3_000)).write_csv(bars)
    section = settings_for(home, path).news
    configured = bars_settings(home, bars).model_copy(update={"news": section})
    result = run_ingest(configured)
    assert (result.rows_out, result.news) == (3_000, ingest(home / "plain", path))
    again = run_ingest(configured)
    assert again.news is not None
    assert (again.written, again.news.written, again.news.skipped) == (0, 0, 2)  # articles and copies
    path.unlink()
    with pytest.raises(DataError, match="n.ndjson does not exist; required: a file of articles"):
        run_ingest(configured)


PEAK = """
import re, sys
from tests.ingest.made_news import ingest
from pathlib import Path
ingest(Path(sys.argv[2]), Path(sys.argv[1]))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
def test_ten_times_the_articles_need_little_more_memory(home: Path) -> None:
    peaks = []
    for count in (30_000, 300_000):
        path = home / f"n{count}.csv"
        times = pl.datetime_range(
            datetime(2020, 1, 1), datetime(2023, 1, 1), "1m", eager=True, time_zone="UTC"
        )
        frame = pl.DataFrame({"published_at": times.sample(count, seed=1).dt.strftime("%FT%TZ")})
        text = pl.concat_str(pl.int_range(pl.len()), pl.lit(" word" * 100))
        frame.with_columns(title=text, language=pl.lit("en")).write_csv(path)
        command = [sys.executable, "-c", PEAK, str(path), str(home / f"home{count}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 300_000 * 400 / 2**20  # keys and times: below 400 bytes an article
