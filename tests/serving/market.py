"""A small market of seeded bars, and how it is stored in a lake and beside a model."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from marketray.bars import COLUMNS, OPTIONAL
from marketray.dataset.labels import label_bars
from marketray.dataset.load import Block
from marketray.hashing import table_hash
from marketray.lake import Lake, Manifest
from marketray.serving.slot import Slot
from marketray.serving.store.database import Database
from marketray.serving.store.traffic_log import TrafficLog
from marketray.serving.traffic import WHOLE, Traffic
from marketray.sessions import Sessions, trading_sessions
from marketray.settings import LabelSettings, Settings, load_settings

INSTRUMENT = "TEST_USD"


@dataclass(frozen=True)
class Market:
    """Bars with their batch features (the oracle for what is served) and stored models by name."""

    bars: pl.DataFrame
    features: pl.DataFrame
    sessions: Sessions
    folders: dict[str, Path]

    def block(self) -> Block:
        """The bars with a label as the dataset stage would have them, all features as columns."""
        labelled = label_bars(self.bars.select("time", "close"), self.sessions, LabelSettings())
        table = labelled.hstack(self.features.drop("time", "decision_at"))
        table = table.slice(2_000).filter(pl.col("label_return").is_not_null())
        names = tuple(self.features.columns[2:])
        us = {c: table[c].dt.epoch("us").to_numpy() for c in table.columns if c.endswith("_at")}
        return Block(
            np.array([str(i) for i in range(len(table))]),
            us["decision_at"],
            us["session_open_at"],
            us["label_end_at"],
            table["label_return"].to_numpy(),
            table["close"].to_numpy(),
            names,
            np.ascontiguousarray(table.select(names).to_numpy(), np.float32),
        )


@dataclass(frozen=True)
class Placed:
    """A version that stands in the blue slot: its files, and the settings it is served with."""

    folder: str
    settings: Settings
    version: int = 7

    def slot(self) -> Slot:
        """The slot, which finds its version in the traffic log."""
        database = Database(self.settings.store_uri)
        database.create()
        traffic = Traffic({"blue": WHOLE, "green": 0}, {"blue": self.version, "green": None})
        TrafficLog(database).declare(traffic, who="test")
        return Slot("blue", self.settings, lambda version: Path(self.folder))


def simulated_bars(count: int, seed: int = 3) -> tuple[pl.DataFrame, Sessions]:
    """`count` minutes over the end of January 2024 with every bar column filled."""
    sessions = trading_sessions(
        "CMES", date(2024, 1, 20), date(2024, 2, 10), ("17:00-18:00 America/New_York",)
    )
    times = pl.datetime_range(
        datetime(2024, 1, 28, 23, tzinfo=UTC),
        datetime(2024, 2, 9, tzinfo=UTC),
        "1m",
        time_unit="us",
        eager=True,
    ).alias("time")
    times = times.filter(pl.Series(sessions.locate(times) >= 0)).head(count)
    rng = np.random.default_rng(seed)
    close = 5000 * np.exp(np.cumsum(rng.normal(0, 2e-4, len(times))))
    opened = np.concatenate([[5000.0], close[:-1]])
    spread = rng.uniform(0.1, 0.5, len(times))
    frame = pl.DataFrame(
        {
            "time": times,
            "open": opened,
            "high": np.maximum(opened, close) + spread,
            "low": np.minimum(opened, close) - spread,
            "close": close,
            "volume": rng.integers(10, 1000, len(times)).astype(float),
            "bid": close - spread / 2,
            "ask": close + spread / 2,
            "bid_size": rng.integers(0, 50, len(times)).astype(float),
            "ask_size": rng.integers(0, 50, len(times)).astype(float),
            "outlier": np.zeros(len(times), bool),
        }
    )
    return frame, sessions


def store_bars(lake: Lake, bars: pl.DataFrame) -> None:
    """Write bronze/bars by month as the ingest stage does."""
    for month, part in bars.group_by(pl.col("time").dt.strftime("%Y-%m"), maintain_order=True):
        table = part.to_arrow()
        manifest = Manifest("k", table_hash(table), len(part), len(part))
        lake.write("bronze/bars", {"instrument": INSTRUMENT, "month": str(month[0])}, table, manifest)


def write_card(folder: Path, columns: list[str], catalog_hash: str, **changes: object) -> None:
    """``serving.json`` as the selection writes it."""
    card = {
        "instrument": INSTRUMENT,
        "horizon_minutes": 30,
        "bar_interval_minutes": 1,
        "task": "regression",
        "columns": columns,
        "catalog_hash": catalog_hash,
        "feature_inputs": list(OPTIONAL),
        "feature_settings": Settings().features.model_dump(mode="json"),
        "market": Settings().market.model_dump(mode="json"),
        "test_rmse_pct": 0.123,
        "evidence": {"verdict": "bootstrap", "r2_oos": 0.01, "p_value": 0.02},
        "model_type": "xgboost",
        **changes,
    }
    (folder / "serving.json").write_text(json.dumps(card))


def without_number(folder: Path, copy: Path) -> Path:
    """The model with a scale that is not a number, as a training on constant labels might have stored it."""
    shutil.copytree(folder, copy)
    document = json.loads((copy / "model.json").read_text())
    document["target_scale"] = float("nan")
    (copy / "model.json").write_text(json.dumps(document))
    return copy


def bars_json(bars: pl.DataFrame) -> list[dict[str, object]]:
    """Bars as a request carries them."""
    rows = bars.select(COLUMNS).to_dicts()
    return [{**row, "time": row["time"].isoformat()} for row in rows]


def registered_home(home: Path, market: Market, *folders: Path, **serving: Any) -> Settings:
    """Settings, also in ``served.yaml``, of a home with bars, these models registered and the first champion.

    The service's port is a free one; `serving` has further settings of that section.
    """
    from marketray.registry import Registry

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    changes = {
        "home": str(home),
        "instrument": INSTRUMENT,
        "tracking": {"uri": f"sqlite:///{home}/mlflow.db"},
        "serving": {"port": port, **serving},
    }
    settings = load_settings(None, changes)
    store_bars(Lake(settings.lake_uri), market.bars)
    registry = Registry(settings)
    evidence = {"verdict": "bootstrap", "r2_oos": 0.01, "p_value": 0.02}
    for number, folder in enumerate(folders, 1):
        made = registry.register(folder, key=f"key {number}", evidence=evidence)
        assert made.version == number
    registry.set_alias("champion", 1)
    (home / "served.yaml").write_text(yaml.safe_dump(changes))
    return settings
