"""Forecasts of every stored decision: a version over the lake's features, on Ray Data.

A task forecasts a month and writes it whole or not at all, so a run that was killed goes on where it was,
and a month whose features and model are unchanged is not done again.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from marketray.errors import DataError, LakeError
from marketray.hashing import code_hash, digest, table_hash
from marketray.lake import Lake, Manifest
from marketray.models.columns import lag_columns
from marketray.serving.forecaster import Forecaster
from marketray.sessions import month_sessions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from marketray.settings import Settings

__all__ = ["DATASET", "BatchResult", "forecast_rows", "run_batch_inference"]

logger = logging.getLogger(__name__)

FEATURES = "silver/features"
DATASET = "gold/forecasts"


@dataclass(frozen=True)
class BatchResult:
    """Outcome of a run.

    Attributes
    ----------
    model_version:
        What forecast.
    rows, rows_dropped:
        Forecasts stored, and decisions without one: outside all sessions, or with a return lag missing.
    written, skipped:
        Months forecast now, and those that were right already.
    out:
        The lake that holds them, in `DATASET`.
    """

    model_version: int
    rows: int
    rows_dropped: int
    written: int
    skipped: int
    out: str


def forecast_rows(forecaster: Forecaster, features: pl.DataFrame) -> pl.DataFrame:
    """What the model says of decisions, as it would have answered `POST /predict` then.

    Parameters
    ----------
    features:
        Columns time, decision_at and the model's features, one row a decision, sorted; one row at least.

    Returns
    -------
    DataFrame
        time, decision_at, target_at, predicted_return (fraction; null for a direction model), probability_up
        and confidence (null where the model does not know them). Decisions outside all sessions, and those
        with a missing return lag that the model needs, are left out.

    Raises
    ------
    DataError
        A feature is missing.
    ModelError
        The model refuses a row, or answers no number.
    """
    card, found = forecaster.card, forecaster.uncertainty
    scale = () if found is None else found.scale.columns
    missing = sorted({*card.columns, *scale} - set(features.columns))
    if missing:
        msg = f"{FEATURES} lacks {missing[:5]} ({len(missing)} in all); required by the model"
        raise DataError(msg, hint="run `marketray features` with the settings of the model's training")
    first, last = features["time"][0], features["time"][-1]
    sessions = month_sessions(card.market, first.date(), last.date())
    place = sessions.locate(features["time"])
    complete = features.select(pl.all_horizontal(pl.col(lag_columns(card.columns)).is_not_null()))
    usable = (place >= 0) & (complete.to_series().to_numpy() if lag_columns(card.columns) else True)
    rows = features.filter(pl.Series(usable))
    values = forecaster.values(np.ascontiguousarray(rows.select(card.columns).to_numpy(), np.float32))
    opened = sessions.open_us[place[usable]]
    minutes = (rows["decision_at"].dt.epoch("us").to_numpy() - opened) / 60e6
    none = np.full(len(rows), np.nan)
    direction = card.task == "direction"
    predicted, up, confidence = (none, values, none) if direction else (values, none, none)
    if found is not None and len(rows):
        volatilities = np.ascontiguousarray(rows.select(scale).to_numpy(), np.float32)
        told = [found.at(*row) for row in zip(values.tolist(), volatilities, minutes.tolist(), strict=True)]
        up = np.array([answer.probability_up for answer in told])
        confidence = np.array([answer.confidence for answer in told])
    horizon = timedelta(minutes=card.horizon_minutes)
    return rows.select("time", "decision_at", target_at=pl.col("decision_at") + horizon).with_columns(
        pl.Series("predicted_return", predicted).fill_nan(None),
        pl.Series("probability_up", up).fill_nan(None),
        pl.Series("confidence", confidence).fill_nan(None),
    )


@dataclass(frozen=True)
class _Work:
    """What every task is told."""

    lake_uri: str
    out: str
    instrument: str
    version: int


def run_batch_inference(
    settings: Settings, model: str | int = "champion", out: str | None = None
) -> BatchResult:
    """Forecast all stored features of the instrument on the connected Ray cluster.

    Parameters
    ----------
    model:
        Alias or version.
    out:
        Address of the lake that takes the forecasts; None: the settings' own. They stand in `DATASET`, by
        instrument, version and month.

    Raises
    ------
    RegistryError
        There is no such version.
    LakeError
        There are no features, or the lake cannot be read or written.
    DataError
        The features are not those that the model was trained on.
    """
    from marketray.registry import Registry

    registry = Registry(settings)
    version = registry.resolve(model).version
    folder = registry.download(version)
    work = _Work(settings.lake_uri, out or settings.lake_uri, settings.instrument, version)
    _require_catalog(work, Forecaster(folder))
    files = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    recipe = digest(
        {name: digest(content.hex()) for name, content in files.items()},
        code_hash("marketray.serving.batch", "marketray.serving.forecaster", "marketray.models"),
    )
    months = _months(work, recipe)
    target = Lake(work.out)
    todo = {m: key for m, key in months.items() if not target.is_current(DATASET, _place(work, m), key)}
    logger.info(
        "forecasts of version %d: %d months, %d are there", version, len(months), len(months) - len(todo)
    )
    if todo:
        _execute(work, files, todo)
    manifests = [target.manifest(DATASET, _place(work, month)) for month in months]
    return BatchResult(
        version,
        sum(m.rows_out for m in manifests if m),
        sum(m.rows_dropped for m in manifests if m),
        len(todo),
        len(months) - len(todo),
        work.out,
    )


def _require_catalog(work: _Work, forecaster: Forecaster) -> None:
    """The stored features must be those that the model knows."""
    card = forecaster.card
    if card.instrument != work.instrument:
        msg = f"version {work.version} forecasts {card.instrument}; required: instrument={work.instrument}"
        raise DataError(msg, hint="name the settings that the model was trained with")
    stored = Lake(work.lake_uri).read_json(f"manifests/features/{work.instrument}.json")
    got = None if stored is None else stored["detail"]["catalog_hash"]
    if got != card.catalog_hash:
        msg = (
            f"{FEATURES}: the catalog is {got}, the model was trained on {card.catalog_hash}; required: equal"
        )
        raise DataError(msg, hint="run `marketray features` with the settings of the model's training")


def _months(work: _Work, recipe: str) -> dict[str, str]:
    """Key of what each month's forecasts are made from."""
    lake = Lake(work.lake_uri)
    found = {}
    for partition in lake.partitions(FEATURES, instrument=work.instrument):
        manifest = lake.manifest(FEATURES, partition)
        if manifest is not None and manifest.rows_out:
            found[partition["month"]] = digest(recipe, manifest.content)
    if not found:
        msg = f"{FEATURES}: no features of instrument={work.instrument} in {lake.uri}"
        raise LakeError(msg, hint="run `marketray features` first")
    return found


def _place(work: _Work, month: str) -> dict[str, str]:
    return {"instrument": work.instrument, "version": str(work.version), "month": month}


def _execute(work: _Work, files: Mapping[str, bytes], todo: Mapping[str, str]) -> None:
    import ray
    from ray.data import TaskPoolStrategy

    from marketray.pipeline import unwrapped_errors

    items = [{"month": month, "key": key} for month, key in todo.items()]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _forecast_month,  # type: ignore[arg-type]  # Ray's signature does not know fn_kwargs
        batch_format="pyarrow",
        batch_size=1,
        num_cpus=1,
        compute=TaskPoolStrategy(),
        fn_kwargs={"work": work, "files": ray.put(files)},
    )
    dataset.set_name(f"forecasts:{work.instrument}")
    dataset.context.op_resource_reservation_enabled = False  # tasks return a row each
    with unwrapped_errors():
        for count, row in enumerate(dataset.iter_rows(), 1):
            logger.info(
                "forecasts: %d of %d months, %s: %d rows", count, len(items), row["month"], row["rows"]
            )


def _forecast_month(item: pa.Table, *, work: _Work, files: Any) -> pa.Table:
    """Forecast one month and store it; a row that tells how many rows there are."""
    import ray

    month, key = item["month"][0].as_py(), item["key"][0].as_py()
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in ray.get(files).items():
            path = Path(scratch) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        forecaster = Forecaster(Path(scratch))
    lake = Lake(work.lake_uri)
    scale = () if forecaster.uncertainty is None else forecaster.uncertainty.scale.columns
    columns = list(dict.fromkeys(("time", "decision_at", *forecaster.card.columns, *scale)))
    partition = {"instrument": work.instrument, "month": month}
    features = pl.DataFrame(lake.read(FEATURES, partition, columns))
    made = forecast_rows(forecaster, features)
    table = made.to_arrow()
    dropped = features.height - made.height
    detail = {"model_version": work.version, "features": work.lake_uri}
    manifest = Manifest(
        key, table_hash(table), features.height, made.height, rows_dropped=dropped, detail=detail
    )
    Lake(work.out).write(DATASET, _place(work, month), table, manifest)
    return item.append_column("rows", [[made.height]])
