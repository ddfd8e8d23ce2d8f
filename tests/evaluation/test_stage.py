"""The select stage on a small lake: ranked without OOT, judged once, registered once, reported."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from marketray.dataset.load import VAULT, load_blocks, load_split, read_block, split_path
from marketray.dataset.vault import openings
from marketray.errors import MarketrayError, RegistryError, TuningError, VaultError
from marketray.evaluation import ranking_stage, stage
from marketray.evaluation.candidates import read_tuning
from marketray.evaluation.ranking_stage import rank_candidates, refit_cpus
from marketray.evaluation.stage import Selection, run_select
from marketray.evaluation.uncertainty import Uncertainty
from marketray.features.fits import StandardScore
from marketray.features.fitted import FittedFeature
from marketray.lake import Lake
from marketray.models import load_model
from marketray.models.extended import ExtendedModel
from marketray.registry import Registry
from marketray.serving.state import BAR_COLUMNS
from marketray.settings import Settings
from marketray.tuning.records import TrialRecord, write_record
from marketray.tuning.stage import tuning_key
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars

FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "xgboost": ({"max_depth": 3, "learning_rate": 0.05}, 12),
    "lightgbm": ({"num_leaves": 7, "learning_rate": 0.05}, 12),
    "ar": ({"lags": 5}, 1),
}


def made_record(family: str, params: dict[str, Any], rounds: int, cv_rmse: float) -> TrialRecord:
    return TrialRecord(
        trial_id=f"{family}-stage1-0001",
        family=family,
        stage=1,
        number=1,
        state="complete",
        params=params,
        score=0.999,
        cv_rmse=cv_rmse,
        rounds=rounds,
        fold_rmse=[cv_rmse] * 3,
        fold_zero_rmse=[0.00201] * 3,
        fold_rounds=[rounds] * 3,
        rungs=[[300.0, 0.999]],
        seconds=1.0,
        started_at=0.0,
        ended_at=1.0,
        predictions="trial_0001.parquet",
    )


def write_tuning(settings: Settings) -> None:
    """What a tuning leaves, with random out-of-fold predictions."""
    block, folds, key = load_blocks(settings), load_split(settings).folds, tuning_key(settings)
    scored = np.concatenate([np.arange(rows.start, rows.stop) for _, rows in folds])
    fold = np.concatenate([np.full(rows.stop - rows.start, k, np.int8) for k, (_, rows) in enumerate(folds)])
    families = {}
    direction = settings.labels.task == "direction"
    for number, (name, (params, rounds)) in enumerate(FAMILIES.items()):
        if direction and name == "ar":
            continue
        noise = np.random.default_rng(number).normal(scale=1e-5, size=len(scored)).astype(np.float32)
        noise += np.float32(0.5 * direction)
        folder = settings.run_path / "tuning" / key / name / "stage1"
        record = made_record(name, params, rounds, 0.002 + number * 1e-5)
        write_record(folder, record, block.row_ids[scored], fold, noise)
        families[name] = {
            "params": params,
            "rounds": rounds,
            "cv_rmse": record.cv_rmse,
            "trial_id": record.trial_id,
            "predictions": f"tuning/{key}/{name}/stage1/{record.predictions}",
        }
    document = {"tuning_key": key, "families": families}
    (settings.run_path / "tuning.json").write_text(json.dumps(document))


@pytest.fixture
def built(ray_local: None, tracked_home: Path) -> Settings:
    from marketray.dataset.stage import run_dataset

    settings = small_settings(tracked_home)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    write_tuning(settings)
    return settings


def documents(settings: Settings) -> tuple[dict[str, Any], dict[str, Any], str]:
    folder = settings.run_path
    texts = [(folder / n).read_text() for n in ("selection.json", "report.json", "report.html")]
    return json.loads(texts[0]), json.loads(texts[1]), texts[2]


def figures_are_those_of_the_stored_model(built: Settings, first: Selection) -> None:
    """Of the stored model and rows, computed again here."""
    selection, report, _ = documents(built)
    model, test = load_model(Path(selection["model_path"])), load_blocks(built, ("test",))
    error = test.y - model.predict(test.select(model.columns).values)
    assert selection["test_rmse_pct"] == pytest.approx(100 * np.sqrt(np.mean(error**2)), rel=1e-12)
    assert selection["test_mae_pct"] == pytest.approx(100 * np.mean(np.abs(error)), rel=1e-12)
    skill = 1 - np.sum(error**2) / np.sum(test.y**2)
    assert selection["r2_oos"]["test"]["zero"] == pytest.approx(skill, rel=1e-9)
    validation = load_blocks(built, ("validation",))
    best = read_tuning(built).candidates[selection["selected_model"]]
    table = pq.read_table(best.predictions, columns=["row_id", "prediction"]).to_pylist()
    stored = {row["row_id"]: row["prediction"] for row in table}
    error = validation.y - np.array([stored[i] for i in validation.row_ids])
    own = report["figures"]["validation"][selection["selected_model"]]
    assert own["rmse_pct"] == pytest.approx(100 * np.sqrt(np.mean(error**2)), rel=1e-12)
    months = report["breakdown"]["test"]["month"]
    assert sum(month["n"] for month in months) == len(test)

    card = json.loads((Path(selection["model_path"]) / "serving.json").read_text())
    assert card["columns"] == list(model.columns)
    assert card["evidence"] == {"verdict": "bootstrap", "r2_oos": first.r2_oos, "p_value": first.p_value}
    registry = Registry(built)
    assert registry.resolve("champion").evidence == selection["evidence"]
    copy = load_model(registry.download(1))
    values = test.select(model.columns).values
    np.testing.assert_array_equal(copy.predict(values), model.predict(values))


def report_tells_what_was_judged(built: Settings) -> None:
    selection, report, page = documents(built)
    split = load_split(built)
    assert set(selection["r2_oos"]) == {"validation", "test", "oot", "oot2"}
    assert selection["vault_openings"] == {"oot": 1, "oot2": 1}
    assert selection["splits"]["oot"]["first_decision_at"] == split.blocks["oot"].first_decision_at
    names = [row["model"] for row in report["comparison"]]
    assert names == [*selection["ranking"], "zero", "training_mean", "last_return"]
    assert page.startswith("<!doctype html>")
    assert "bootstrap" in page
    rules = {rule["name"]: rule for rule in selection["evidence"]["rules"]}
    covered = report["intervals"]["oot"]["levels"]["80"]["coverage"]
    assert rules["coverage"]["value"] == pytest.approx(abs(covered - 0.8), abs=1e-12)
    assert rules["drift"]["value"] == report["drift"]["share"]
    assert report["significance"]["trials"] == {"counted": 3, "pruned": 0, "earlier": 0}
    assert [trial["family"] for trial in report["trials"]] == ["ar", "lightgbm", "xgboost"]
    assert "spread_bps is empty" in report["backtest"]["missing"]
    uncertainty = Uncertainty.read(Path(selection["model_path"]))
    assert uncertainty is not None
    oot = read_block(built, split, ("oot",), VAULT)
    assert uncertainty.tracker.as_of_us == oot.label_end_us.max()


def nothing_is_done_twice(built: Settings, first: Selection) -> None:
    registry = Registry(built)
    selection, report, _ = documents(built)
    again = run_select(built)
    assert again == replace(first, skipped=True)
    assert (len(registry.list()), openings(built, "oot"), openings(built, "oot2")) == (1, 1, 1)

    # the files lost: made again byte by byte, without another opening or version
    (built.run_path / "selection.json").unlink()
    assert run_select(built) == first
    found, made, _ = documents(built)
    assert made.pop("latency").keys() == report.pop("latency").keys()  # measured again
    assert (found, made) == (selection, report)
    assert (len(registry.list()), openings(built, "oot")) == (1, 1)


def another_gate_asks_the_same_rows_a_second_time(built: Settings) -> None:
    """And finds a champion there."""
    stricter = built.model_copy(update={"gate": built.gate.model_copy(update={"alpha": 0.04})})
    second = run_select(stricter)
    assert (second.verdict, second.k, second.alpha, second.model_version) == ("challenger", 2, 0.01, 2)
    assert Registry(built).resolve("champion").version == 1
    assert documents(built)[0]["evidence"]["champion_version"] == 1


def a_verdict_out_of_date_promotes_nobody(built: Settings) -> None:
    """The other version is promoted by hand, then the first selection is asked for again."""
    registry = Registry(built)
    registry.set_alias("champion", 2)
    third = run_select(built)
    assert (third.verdict, third.model_version, third.alias) == ("bootstrap", 1, None)
    assert third.alias_declined == "it was judged while there was no champion, the champion is now version 2"
    assert registry.resolve("champion").version == 2
    selection, report, page = documents(built)
    assert (selection["alias"], selection["alias_declined"]) == (None, third.alias_declined)
    words = f"verdict bootstrap, but it did not become champion: {third.alias_declined}."
    assert words in report["verdict_text"]
    assert words in page
    assert "class='verdict declined'" in page
    assert (len(registry.list()), run_select(built)) == (2, replace(third, skipped=True))

    # rolled back to: the files say so again
    registry.set_alias("champion", 1)
    fourth = run_select(built)
    assert (fourth.alias, fourth.alias_declined, fourth.skipped) == ("champion", None, False)
    assert len(registry.history()) == 4


def test_selection_writes_the_evidence_registers_once_and_repeats_nothing(built: Settings) -> None:
    first = run_select(built)
    assert (first.verdict, first.k, first.alpha, first.model_version) == ("bootstrap", 1, 0.025, 1)
    assert (first.alias, first.alias_declined) == ("champion", None)
    figures_are_those_of_the_stored_model(built, first)
    report_tells_what_was_judged(built)
    nothing_is_done_twice(built, first)
    another_gate_asks_the_same_rows_a_second_time(built)
    a_verdict_out_of_date_promotes_nobody(built)


def test_ranking_is_the_same_with_the_vault_gone_and_nothing_is_judged_without_it(built: Settings) -> None:
    ranking = rank_candidates(built)
    files = {p: p.read_bytes() for f in ranking.folders.values() for p in f.iterdir()}
    stored = (built.run_path / "ranking.json").read_bytes()
    Lake(built.lake_uri).delete(VAULT)
    for path in (built.run_path / "ranking.json", *files):
        path.unlink()
    again = rank_candidates(built)
    assert again == ranking
    assert (built.run_path / "ranking.json").read_bytes() == stored
    assert {p: p.read_bytes() for p in files} == files
    with pytest.raises(VaultError):
        run_select(built)
    assert Registry(built).list() == []
    assert not (built.run_path / "selection.json").exists()


def test_a_direction_model_is_selected_and_served_by_its_probability(
    ray_local: None, tracked_home: Path
) -> None:
    from marketray.dataset.stage import run_dataset
    from marketray.serving.forecaster import Forecaster

    features = {"groups": ["returns", "volatility", "regime", "lags"]}
    settings = small_settings(tracked_home, labels={"task": "direction"}, features=features)
    bars = xnys_bars()
    write_inputs(settings, bars)
    run_dataset(settings)
    write_tuning(settings)
    done = run_select(settings)
    assert done.verdict == "bootstrap"
    selection, report, _ = documents(settings)
    model, test = load_model(Path(selection["model_path"])), load_blocks(settings, ("test",))
    assert isinstance(model, ExtendedModel)
    probability = model.predict(test.select(model.columns).values)
    assert 0 < probability.min() < probability.max() < 1
    brier = np.mean(((test.y > 0) - probability) ** 2)
    assert selection["test_rmse_pct"] == pytest.approx(100 * np.sqrt(brier), rel=1e-12)
    assert selection["r2_oos"]["test"]["zero"] == pytest.approx(1 - brier / 0.25, rel=1e-9)
    share = np.mean(load_blocks(settings).y > 0)
    naive = np.mean(((test.y > 0) - share) ** 2)
    assert report["figures"]["test"]["training_mean"]["rmse_pct"] == pytest.approx(100 * np.sqrt(naive))
    assert "training share of ups" in selection["evidence"]["reasons"][-1]
    (high,) = (column for column in model.fitted if column.name == "volatility_high")
    past = load_blocks(settings).select(("realized_volatility_20",)).values.astype(float)
    assert high.parameters == pytest.approx((np.median(past),))
    served = Forecaster(Path(selection["model_path"]))
    row = served.row(bars.with_columns(bid=None, ask=None, bid_size=None, ask_size=None).select(BAR_COLUMNS))
    answer = served.forecast(row)
    assert answer.predicted_return is None
    assert answer.probability_up == pytest.approx(0.5, abs=0.02)  # calibrated: out of fold it told nothing


def test_other_fitted_features_are_another_tuning_and_other_models(
    built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, key = rank_candidates(built).key, tuning_key(built)
    split = load_split(built)
    score = FittedFeature("score", "g", "return_30", StandardScore(), "sd")
    for fit in (score, replace(score, fit=StandardScore(robust=True))):
        changed = replace(split, detail={**split.detail, "fitted": [fit.to_json()]})
        Lake(built.lake_uri).write_json(split_path(built.name), changed.to_json())
        assert tuning_key(built) != key
        with pytest.raises(TuningError, match="of the present dataset"):
            rank_candidates(built)
        write_tuning(built)
        ranking = rank_candidates(built)
        assert ranking.key != before
        assert isinstance(load_model(ranking.folders["xgboost"]), ExtendedModel)
        assert not isinstance(load_model(ranking.folders["ar"]), ExtendedModel)
        before, key = ranking.key, tuning_key(built)


@pytest.mark.parametrize(
    ("nodes", "families", "cpus"),
    [([2.0], 3, 1), ([16.0], 3, 5), ([2.0, 8.0, 8.0, 8.0, 8.0], 3, 8), ([0.0, 8.0], 2, 4), ([], 2, 1)],
)
def test_a_refit_asks_for_no_more_than_one_node_has(nodes: list[float], families: int, cpus: int) -> None:
    assert refit_cpus(nodes, families) == cpus


def stop(*args: Any, **kwargs: Any) -> Any:
    raise KeyboardInterrupt


def test_a_selection_cut_short_after_registration_keeps_its_verdict_and_moves_its_alias_last(
    built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in ("register_winner", "report_sections", "_write", "_close_tracking", "place"):
        with monkeypatch.context() as patch:
            patch.setattr(stage, moment, stop)
            with pytest.raises(KeyboardInterrupt):
                run_select(built)
        assert Registry(built).history() == []
        assert not (built.run_path / "report.html").exists()
    (made,) = Registry(built).list()
    assert made.aliases == ()
    monkeypatch.setattr(stage, "score_champion", stop)  # what is judged is not judged again
    done = run_select(built)
    assert (done.verdict, done.model_version, done.k, done.skipped) == ("bootstrap", 1, 1, False)
    assert (done.alias, done.alias_declined) == ("champion", None)
    assert len(Registry(built).list()) == 1
    assert len(Registry(built).history()) == 1
    assert list(built.run_path.glob(".drafts-*")) == []


def test_a_promotion_that_comes_between_is_told_in_every_file(
    built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = stage._close_tracking

    def meanwhile(*args: Any) -> None:
        close(*args)
        registry = Registry(built)
        folder = built.run_path / "models" / "selected"
        made = registry.register(folder, key="another", evidence={"verdict": "promoted"})
        registry.set_alias("champion", made.version, {"action": "promote"})

    monkeypatch.setattr(stage, "_close_tracking", meanwhile)
    done = run_select(built)
    assert (done.verdict, done.alias) == ("bootstrap", None)
    assert done.alias_declined == "it was judged while there was no champion, the champion is now version 2"
    selection, report, page = documents(built)
    assert selection["alias_declined"] == report["selection"]["alias_declined"] == done.alias_declined
    assert done.alias_declined in page
    assert Registry(built).resolve("champion").version == 2


def test_a_registry_that_lacks_the_version_gets_it_again(built: Settings, empty_tracking: Path) -> None:
    first = run_select(built)
    shutil.copyfile(empty_tracking, built.home_path / "mlflow.db")
    assert Registry(built).list() == []
    second = run_select(built)
    assert second == first
    assert Registry(built).resolve("champion").version == 1
    assert openings(built, "oot") == 1
    assert run_select(built) == replace(first, skipped=True)


def test_a_full_disk_is_one_clear_error_and_the_next_run_completes(
    built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ranking_stage, "write_json", full)
        with pytest.raises(MarketrayError, match="results cannot be written .*No space left") as caught:
            rank_candidates(built)
    assert caught.value.hint == "free disk space or fix the permissions, then run again"
    assert not (built.run_path / "ranking.json").exists()
    assert len(rank_candidates(built).order) == 3


def test_an_unreachable_server_costs_no_vault_opening(built: Settings) -> None:
    away = built.model_copy(
        update={"tracking": built.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})}
    )
    with pytest.raises(RegistryError, match="cannot be reached"):
        run_select(away)
    assert openings(built, "oot") == 0


def test_tuning_that_is_missing_or_of_other_rows_is_refused(built: Settings) -> None:
    path = built.run_path / "tuning.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "tuning_key": "other"}))
    with pytest.raises(TuningError, match="tuning_key=other; required: .*, of the present dataset"):
        run_select(built)
    path.write_text(json.dumps({**document, "families": {}}))
    with pytest.raises(TuningError, match="holds no family"):
        run_select(built)
    path.unlink()
    with pytest.raises(TuningError, match="no readable tuning result") as caught:
        run_select(built)
    assert isinstance(caught.value, MarketrayError)
    assert caught.value.hint == "run the tune stage first (marketray tune)"
