"""Features of the user: the documented example, what travels, and what a wrong file is told."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import SettingsError
from marketray.features.audit import look_ahead
from marketray.features.catalog import build_catalog
from marketray.features.kernel import compute
from marketray.features.stage import run_features
from marketray.features.user import feature, user_features
from marketray.features.warmup import warm_up
from marketray.lake import Lake
from marketray.settings import FeatureSettings, Settings, load_settings
from marketray.settings_file import save_settings
from marketray.settings_sections import FeatureFile
from tests.features.market import COLUMNS, make_bars, sessions_of, store

PAGE = Path(__file__).parents[2] / "docs/user-features.md"
EXAMPLE = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
HEAD = "import polars as pl\nfrom marketray.features.user import feature\n"
GOOD = "@feature(lookback=2)\ndef mine(): return pl.col('close').diff()\n"


def settings_of(*texts: str, **others: object) -> FeatureSettings:
    """Feature settings with files of these texts."""
    files = tuple(FeatureFile(path=f"/mine_{i}.py", text=text) for i, text in enumerate(texts))
    return FeatureSettings(files=files, **others)


@pytest.fixture
def file(home: Path) -> Path:
    """The documented example in a file of the home folder."""
    path = home / "my_features.py"
    path.write_text(EXAMPLE)
    return path


def test_the_documented_example_works_as_written(file: Path) -> None:
    settings = load_settings(None, {"features": {"files": ["my_features.py"]}})
    catalog = build_catalog(settings.features, COLUMNS)
    assert catalog.group("mine") == catalog.names[-2:] == ("my_return_30", "my_volume_surprise")
    assert catalog["my_return_30"].formula == "C / C[-30] - 1"
    assert catalog["my_volume_surprise"].inputs == ("volume",)
    assert catalog["my_volume_surprise"].source == str(file)
    bars = make_bars(2_000, seed=3)
    sessions = sessions_of(bars["time"])
    rows = compute(catalog, bars, sessions)
    close, volume = bars["close"].to_list(), bars["volume"].to_list()
    assert rows["my_return_30"][:30].null_count() == 30
    assert rows["my_return_30"][30] == close[30] / close[0] - 1
    assert rows["my_volume_surprise"][19] == pytest.approx(volume[19] / (sum(volume[:20]) / 20))
    mine = catalog.subset(catalog.group("mine"))
    assert look_ahead(mine, bars, sessions) == []
    assert all(m.enough for m in warm_up(mine, bars, sessions))


def test_features_without_their_inputs_are_dropped_and_groups_switch_them() -> None:
    without = build_catalog(settings_of(EXAMPLE, groups=("mine",)), COLUMNS[:5])
    assert (without.names, without.dropped) == (("my_return_30",), ("my_volume_surprise",))
    assert "my_return_30" not in build_catalog(settings_of(EXAMPLE, groups=("trend",)), COLUMNS).names
    assert "my_return_30" not in build_catalog(settings_of(EXAMPLE, exclude=("my_return_30",)), COLUMNS).names


def test_features_may_build_on_others() -> None:
    text = HEAD + (
        "@feature(lookback=242)\ndef twice(): return 2 * pl.col('later')\n"
        "@feature(lookback=242)\ndef later(): return pl.col('return_240').shift(1)\n"
    )
    catalog = build_catalog(settings_of(text, groups=("user",)), COLUMNS)
    bars = make_bars(400, seed=4)
    rows = compute(catalog, bars, sessions_of(bars["time"]))
    assert rows["twice"][241] == 2 * (bars["close"][240] / bars["close"][0] - 1)


def test_functions_may_be_registered_in_a_loop() -> None:
    loop = HEAD + (
        "for n in (5, 9):\n    feature(f'lag_{n}', lookback=n + 1)(lambda n=n: pl.col('close').shift(n))\n"
    )
    assert build_catalog(settings_of(loop, groups=("user",)), COLUMNS).names == ("lag_5", "lag_9")


def test_the_hash_follows_the_text_and_not_the_path(home: Path) -> None:
    one = build_catalog(settings_of(EXAMPLE), COLUMNS).hash
    moved = FeatureSettings(files=(FeatureFile(path="/else.py", text=EXAMPLE),))
    assert build_catalog(moved, COLUMNS).hash == one
    assert build_catalog(settings_of(EXAMPLE.replace("shift(30)", "shift(29)")), COLUMNS).hash != one
    assert build_catalog(FeatureSettings(), COLUMNS).hash != one


@pytest.mark.usefixtures("ray_local")
def test_the_text_travels_to_the_workers(file: Path) -> None:
    chosen = {"features": {"files": [str(file)], "groups": ["mine"]}, "instrument": "TEST_USD"}
    settings = load_settings(None, chosen)
    file.unlink()  # as on a node that never had it
    bars = make_bars(3_000, seed=5, start=datetime(2024, 2, 27, tzinfo=UTC))
    lake = Lake(settings.lake_uri)
    store(lake, "TEST_USD", bars)
    done = run_features(settings)
    assert (done.features, done.rows) == (2, 3_000)
    rows = pl.concat(pl.DataFrame(pl.from_arrow(t)) for _, t in lake.scan("silver/features"))
    expected = bars["close"] / bars["close"].shift(30) - 1
    assert rows["my_return_30"].to_list() == expected.to_list()


def test_a_stored_card_holds_the_text_and_saved_settings_the_path(file: Path, home: Path) -> None:
    settings = load_settings(None, {"features": {"files": ["my_features.py"]}})
    stored = json.loads(json.dumps(settings.features.model_dump(mode="json")))
    again = build_catalog(FeatureSettings.model_validate(stored), COLUMNS)
    assert again.hash == build_catalog(settings.features, COLUMNS).hash
    save_settings(settings, home / "saved.yaml")
    assert "polars" not in (home / "saved.yaml").read_text()
    assert load_settings(home / "saved.yaml").features == settings.features


def test_a_file_that_cannot_be_read_is_named(home: Path) -> None:
    with pytest.raises(
        SettingsError, match=rf"features.files: {home}/absent.py cannot be read \(No such"
    ) as e:
        load_settings(None, {"features": {"files": ["absent.py"]}})
    assert e.value.hint == "relative paths start at MARKETRAY_HOME"
    (home / "binary.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match=r"binary.py is not a text file in UTF-8 \(invalid start byte"):
        Settings(features={"files": ["binary.py"]})


def test_a_path_whose_text_was_not_read_is_refused() -> None:
    with pytest.raises(SettingsError, match="features.files: /a.py comes without its text"):
        build_catalog(FeatureSettings(files=("/a.py",)), COLUMNS)


def defined(decorator: str, body: str = "pl.col('close')") -> str:
    return f"{HEAD}{decorator}\ndef mine():\n    return {body}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "/mine_0.py line 1: not valid Python"),
        ("x = '\0'", "/mine_0.py.*(not valid Python|null bytes)"),
        ("import polars\n\n1 / 0", "/mine_0.py line 3 failed: ZeroDivisionError: division by zero"),
        ("import no_such_package", "line 1 failed: ModuleNotFoundError: No module named 'no_such_package'"),
        ("import sys; sys.exit(0)", "line 1 failed: SystemExit: 0"),
        (HEAD, "/mine_0.py registers no feature"),
        (defined("@feature()"), r"line 3 failed: TypeError: feature\(\) missing .* 'lookback'"),
        (defined("@feature('Big Name', lookback=1)"), "'Big Name': name='Big Name'; required: lower-case"),
        (defined("@feature('_row', lookback=1)"), "'_row': name='_row'; required: lower-case"),
        (defined("@feature(lookback=1, group='a b')"), "'mine': group='a b'; required: lower-case"),
        (defined("@feature('rsi_14', lookback=1)"), "'rsi_14' is taken by marketray itself"),
        (defined("@feature('close', lookback=1)"), "'close' is taken by marketray itself"),
        (HEAD + GOOD + GOOD, "'mine' is taken by /mine_0.py; required: a name of its own"),
        (defined("@feature(lookback=0)"), "'mine': lookback=0; required: a whole number of bars, at least 1"),
        (defined("@feature(lookback=2.5)"), "lookback=2.5; required: a whole number"),
        (
            defined("@feature(lookback=1, inputs=['rumours'])"),
            r"inputs=\['rumours'\]; required: a list of some of",
        ),
        (defined("@feature(lookback=1, inputs='bid')"), "inputs='bid'; required: a list of some of"),
        (
            defined("@feature(lookback=1)", "3.0"),
            "the function returned float; required: a Polars expression",
        ),
        (defined("@feature(lookback=1)", "pl.all()"), "the expression makes several columns; required: one"),
        (defined("@feature(lookback=1)", "1 / 0"), "'mine' line 5 failed: ZeroDivisionError"),
        (defined("@feature(lookback=1)", "pl.col('clsoe')"), "'mine': there is no column 'clsoe'"),
        (defined("@feature(lookback=1)", "pl.col('bid')"), r"'mine' needs \['bid'\]; got inputs=\[\]"),
        (defined("@feature(lookback=1)", "pl.col('volume_ratio_20')"), r"'mine' needs \['volume'\]; got"),
        (defined("@feature(lookback=1)", "pl.col('close').str.len_chars()"), "the expression fails on bars"),
        (
            defined("@feature(lookback=1)", "pl.col('time')"),
            "the expression gives Datetime.*required: numbers",
        ),
        (defined("@feature(lookback=1)", "pl.col('close').diff().drop_nulls()"), "gives 7 values for 8 bars"),
        (defined("@feature(lookback=1)", "pl.col('mine').shift(1)"), "mine -> mine is a circle"),
        (
            f"{HEAD}feature('f', lookback=1)(pl.Expr.abs)",
            "'f' is defined in another module; required: in the",
        ),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build_catalog(settings_of(text), COLUMNS)


def test_two_files_cannot_share_a_name() -> None:
    with pytest.raises(SettingsError, match="/mine_1.py: 'mine' is taken by /mine_0.py"):
        build_catalog(settings_of(HEAD + GOOD, HEAD + GOOD), COLUMNS)


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    def mine() -> pl.Expr:
        return pl.col("close")

    assert feature(lookback=1)(mine) is mine
    assert user_features((), ()) == ([], [])
