"""``marketray audit``: exit codes, the JSON line, table and plot, where the bars come from, the replay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from marketray.errors import DataError
from marketray.features.audit_bars import audit_bars
from marketray.features.audit_run import audit_warm_up
from marketray.lake import Lake
from marketray.settings import load_settings
from tests.features.market import make_bars, store
from tests.test_cli import cli

FILE = """
import polars as pl
from marketray.features.user import feature

@feature(group="mine", lookback=2)
def tomorrow():
    return pl.col("close").shift(-1) / pl.col("close") - 1

@feature(group="mine", lookback=20)
def hasty():
    return pl.col("close").ewm_mean(span=20, adjust=False) / pl.col("close") - 1

@feature(group="mine", lookback=5, inputs=["bid", "ask"])
def honest():
    return (pl.col("ask") - pl.col("bid")).rolling_max(5) / pl.col("close")
"""


FITTED = """
from marketray.features.fits import PercentileRank
from marketray.features.user import fitted_feature

for of in ("tomorrow", "honest"):
    fitted_feature(f"{of}_rank", of=of, fit=PercentileRank(), group="mine")
"""


@pytest.fixture
def config(home: Path) -> str:
    """Settings with two guilty features and an honest one."""
    (home / "mine.py").write_text(FILE)
    (home / "settings.yaml").write_text("features: {files: [mine.py], groups: [mine]}\nname: audited\n")
    return str(home / "settings.yaml")


def test_a_look_ahead_is_refused_by_name(config: str, monkeypatch, capsys) -> None:
    assert cli(monkeypatch, "audit", "lookahead", "--config", config, "--bars", "500", "--json") == 3
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert sorted(line) == ["details", "features", "findings"]
    assert line["features"] == 3
    (finding,) = line["findings"]
    assert (finding["feature"], finding["bars_ahead"]) == ("tomorrow", 1)
    assert finding["difference"] > 0
    assert line["details"]["origin"] == "simulated bars, since the lake has none of SPX500_USD"
    assert line["details"]["bars"] == 500
    assert "audit: 1 of 3 features use the future: tomorrow" in err


def test_fitted_features_are_audited_or_named(config: str, home: Path, monkeypatch, capsys) -> None:
    (home / "mine.py").write_text(FILE + FITTED)
    assert cli(monkeypatch, "audit", "lookahead", "--config", config, "--bars", "300", "--json") == 3
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert (line["features"], line["details"]["not_audited"]) == (5, {})
    assert "audit: 2 of 5 features use the future: tomorrow, tomorrow_rank" in err
    details = audit_warm_up(load_settings(config), size=150).details
    assert details["not_audited"] == {
        f"{of}_rank": f"is fitted and has no lookback of its own: see {of}" for of in ("tomorrow", "honest")
    }


def test_a_short_lookback_is_refused_with_table_and_plot(
    config: str, home: Path, monkeypatch, capsys
) -> None:
    plot = home / "plots" / "warmup.html"
    arguments = ("audit", "warmup", "--config", config, "--bars", "1500", "--plot", str(plot))
    assert cli(monkeypatch, *arguments) == 3
    out, err = capsys.readouterr()
    assert "bars: 1,500 of simulated bars" in out
    table = out[: out.index("required")]  # what follows are the findings
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
    assert rows["honest"][:3] == ["honest", "5", "missing"]
    assert [float(cell) for cell in rows["honest"][6:]] == [0, 0, 0]
    assert float(rows["hasty"][6]) > 1e-9
    assert max(map(len, (line for line in out.splitlines() if line.startswith("hon")))) <= 90
    assert "audit: 2 of 3 features need more bars than they declare for 1e-9: tomorrow, hasty" in err
    hint = " ".join(err.split())
    assert "declare the bars in the column `required`; no lookback is enough for tomorrow: all" in hint
    assert "so it depends on the future; run `marketray audit lookahead`" in hint
    page = plot.read_text()
    assert "hasty (too short)" in page
    assert "tomorrow (looks ahead)" in page
    assert "honest (too short)" not in page


def test_honest_features_exit_0_and_the_plot_goes_to_the_run(
    config: str, home: Path, monkeypatch, capsys
) -> None:
    path = Path(config)
    path.write_text(path.read_text().replace("groups: [mine]", "groups: [mine], exclude: [tomorrow, hasty]"))
    assert cli(monkeypatch, "audit", "lookahead", "--config", config, "--bars", "400") == 0
    assert "1 features, 0 findings" in capsys.readouterr().out
    assert cli(monkeypatch, "audit", "warmup", "--config", config, "--bars", "400", "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert line["findings"] == []
    assert line["details"]["plot"] == str(home / "runs/audited/warmup.html")
    assert (home / "runs/audited/warmup.html").stat().st_size > 1_000_000  # plotly inside: works offline
    assert line["details"]["table"][0]["1x"] == 0


def test_the_latest_bars_of_the_lake_come_first(config: str) -> None:
    settings = load_settings(config)
    bars = make_bars(2_000, seed=7, start=datetime(2024, 2, 28, tzinfo=UTC)).drop("bid")
    store(Lake(settings.lake_uri), "SPX500_USD", bars)
    chosen = audit_bars(settings, 1_900)
    assert chosen.origin == f"SPX500_USD in {settings.lake_uri}"
    assert chosen.frame["time"].to_list() == bars["time"].tail(1_900).to_list()
    assert chosen.catalog.dropped == ("honest",)
    report = audit_warm_up(settings, size=150)
    assert report.details["not_audited"] == {"honest": "the bars lack its inputs"}


def test_a_lookback_longer_than_the_bars_is_named(config: str) -> None:
    report = audit_warm_up(load_settings(config, {"features": {"groups": ["returns"]}}), size=150)
    assert report.details["not_audited"]["return_240"] == "its lookback is too long for 150 bars"
    assert report.findings == []


def test_bars_of_another_interval_are_simulated(home: Path) -> None:
    settings = load_settings(None, {"bar_interval_minutes": 5, "features": {"groups": ["returns"]}})
    frame = audit_bars(settings, 300).frame
    assert frame.height == 300
    assert set(frame["time"].dt.minute()) == set(range(0, 60, 5))
    assert frame.select((pl.col("high") >= pl.max_horizontal("open", "close")).all()).item()


def test_parity_names_what_differs_between_live_and_batch(
    config: str, home: Path, monkeypatch, capsys
) -> None:
    path = Path(config)
    path.write_text(path.read_text().replace("groups: [mine]", "groups: [mine], exclude: [tomorrow]"))
    (home / "mine.py").write_text(FILE + FITTED)
    bars = make_bars(2_500, seed=9, start=datetime(2024, 2, 26, tzinfo=UTC))
    store(Lake(load_settings(config).lake_uri), "SPX500_USD", bars)
    arguments = ("audit", "parity", "--config", config, "--day", "2024-02-27")
    assert cli(monkeypatch, *arguments, "--json") == 3
    out, err = capsys.readouterr()
    line = json.loads(out)
    assert sorted(line) == ["details", "features", "findings"]
    assert (line["features"], line["details"]["day"]) == (2, "2024-02-27")
    reason = "is fitted and made inside a model, live and in batch alike, from honest"
    assert line["details"]["not_audited"] == {"honest_rank": reason}
    (finding,) = line["findings"]
    assert (finding["feature"], finding["when"]) == ("hasty", ["replay"])
    assert "audit: 1 of 2 features differ between live and batch: hasty" in err
    path.write_text(path.read_text().replace("[tomorrow]", "[tomorrow, hasty]"))
    assert cli(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert "compared with: computed now, since silver/features is not there" in out
    assert "1 features, 0 findings" in out
    assert cli(monkeypatch, *arguments[:-1], "2024-02-24") == 1
    assert "--day 2024-02-24: no session date of CMES" in capsys.readouterr().err
    assert cli(monkeypatch, *arguments[:-1], "yesterday") == 2


def test_too_few_bars_and_a_plot_that_cannot_be_written_are_errors(config: str, home: Path) -> None:
    settings = load_settings(config)
    (home / "taken").write_text("")
    with pytest.raises(DataError, match=r"--plot .*/taken/plot.html: cannot be written"):
        audit_warm_up(settings, home / "taken/plot.html", size=120)
    store(Lake(settings.lake_uri), "SPX500_USD", make_bars(60, seed=8))
    with pytest.raises(DataError, match="audit: got 60 bars of SPX500_USD.*; required: at least 100"):
        audit_bars(settings)
