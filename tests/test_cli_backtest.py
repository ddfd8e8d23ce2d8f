"""``marketray backtest``: options, the JSON line, the tables and sentences, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marketray.cli_backtest import in_words
from marketray.job import run_job
from marketray.settings import Settings
from marketray.settings_file import save_settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars
from tests.evaluation.test_stage import write_tuning
from tests.test_cli import cli


@pytest.fixture
def config(ray_local: None, home: Path) -> str:
    """A tuned run without a spread."""
    from marketray.dataset.stage import run_dataset

    stress = [{"name": "december", "first": "2024-12-01", "last": "2024-12-31"}]
    stress.append({"name": "crash", "first": "2020-02-20", "last": "2020-03-23"})
    settings: Settings = small_settings(home, backtest={"threshold_costs": 0.0, "stress": stress})
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    write_tuning(settings)
    path = home / "settings.yaml"
    save_settings(settings, path)
    return str(path)


def test_a_backtest_prints_one_json_line_or_tables(config: str, monkeypatch, capsys) -> None:
    assert cli(monkeypatch, "backtest", "--config", config) == 2
    assert "error: backtest.spread_bps is empty; required: a spread, since" in capsys.readouterr().err

    options = ("--config", config, "--spread-bps", "0.5")
    assert cli(monkeypatch, "backtest", *options, "--json") == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["mode"], list(line["periods"])) == ("selected", ["test"])
    assert line["assumptions"]["spread_bps"] == 0.5
    assert Path(line["document"]).is_file()

    walk = ("--walk-forward", "expanding", "--refit-sessions", "9", "--train-sessions", "30")
    assert cli(monkeypatch, "backtest", *options, *walk) == 0
    printed = capsys.readouterr().out
    assert "expanding, 3 fits (3 now)" in printed
    assert "family chosen by: smallest cv_rmse of tuning" in printed
    for text in ("train_validation, 20", "buy and hold", "break-even cost, bps", "crash (2020-02-20 to"):
        assert text in printed
    assert "no forecast was made in these sessions" in printed
    assert max(map(len, printed.splitlines()[:20])) <= 80

    assert cli(monkeypatch, "backtest", *options, "--walk-forward", "sideways") == 2
    assert "backtest.walk_forward: Input should be 'expanding' or 'rolling'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--train-sessions", "30"], "--train-sessions: without"),
        (
            ["--refit-sessions", "2", "--train-sessions", "30"],
            "--refit-sessions and --train-sessions: without",
        ),
    ],
)
def test_options_that_only_a_walk_forward_heeds_need_one(
    home: Path, monkeypatch, capsys, options: list[str], named: str
) -> None:
    monkeypatch.setattr("marketray.evaluation.walkforward_stage.connect", lambda _: pytest.fail("Ray"))
    assert cli(monkeypatch, "backtest", *options) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"error: {named} a walk-forward nothing is refitted; required: --walk-forward" in printed
    path = home / "settings.yaml"
    path.write_text("backtest: {walk_forward: rolling}")
    assert (
        cli(monkeypatch, "backtest", "--config", str(path), *options) == 1
    )  # no dataset; the option is heeded
    assert "nothing is refitted" not in capsys.readouterr().err


def test_the_job_trades_as_the_command_does(config: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("MARKETRAY_BACKTEST__SPREAD_BPS", "0.5")
    run_job("backtest", None, ["--config", config])
    job = json.loads(capsys.readouterr().out)
    assert cli(monkeypatch, "backtest", "--config", config, "--json") == 0
    assert json.loads(capsys.readouterr().out) == job


def period(**figures: Any) -> dict[str, Any]:
    return {"strategy": {"trades": 12, "return_pct": -1.5, "break_even_cost_bps": 0.25, **figures}}


def test_a_sentence_says_what_the_costs_left() -> None:
    assumed = {"mean_cost_bps": 0.5, "threshold": {"value": 1.0, "unit": "round-trip costs"}}
    assert in_words("test", period(), assumed) == (
        "test: 12 trades lost 1.50 % after costs; break-even at 0.25 bps one way, 0.50 assumed"
    )
    assert in_words("test", period(return_pct=2.0), assumed).startswith("test: 12 trades earned 2.00 %")
    assert in_words("test", period(trades=0), assumed) == (
        "test: no trade, since no forecast reached the threshold of 1 round-trip costs"
    )
