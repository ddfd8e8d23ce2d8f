"""Errors raised inside Ray reach the user as they were raised."""

from __future__ import annotations

import pytest

from marketray.errors import ClusterError, DataError, MarketrayError, QualityError, SettingsError
from marketray.pipeline import run_stage, unwrapped_errors
from marketray.settings import load_settings


def test_an_error_in_a_nested_ray_task_comes_out_whole(ray_local: None) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def inner() -> None:
        raise QualityError("bars: 3 rows; required: 5000", hint="pass more data")

    @ray.remote(num_cpus=0)
    def outer() -> None:
        ray.get(inner.remote())

    with pytest.raises(QualityError, match="3 rows; required: 5000") as caught, unwrapped_errors():
        ray.get(outer.remote())
    assert type(caught.value) is QualityError
    assert caught.value.hint == "pass more data"


@pytest.mark.filterwarnings("ignore")
def test_an_error_in_ray_data_comes_out_whole(ray_local: None) -> None:
    import ray

    def fail(batch: dict[str, object]) -> dict[str, object]:
        raise DataError("line 7: not a number", hint="fix line 7")

    with pytest.raises(DataError, match="^line 7: not a number\nHint: fix line 7$"), unwrapped_errors():
        ray.data.range(1).map_batches(fail).materialize()


def test_any_other_failure_of_a_task_names_its_reason(ray_local: None) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def divide() -> float:
        return 1 / 0

    with pytest.raises(ClusterError, match="a Ray task failed: .*division by zero"), unwrapped_errors():
        ray.get(divide.remote())


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(SettingsError, match="stage='bake'; required: one of ingest, sentiment, features"):
        run_stage("bake", load_settings())


def test_every_error_survives_pickling_with_its_hint() -> None:
    import pickle

    for cls in [MarketrayError, *MarketrayError.__subclasses__()]:
        copy = pickle.loads(pickle.dumps(cls("what", hint="do this")))
        assert (type(copy), str(copy)) == (cls, "what\nHint: do this")
