"""What a client reads names what is wrong and no folder of the server; the log has the whole text."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from marketray.errors import LakeError, MarketrayError, RegistryError, ServingError, StoreError
from marketray.serving.http.failures import problem_of
from marketray.serving.problems import problem
from marketray.settings import Settings, load_settings
from tests.serving.local import Client, LocalService
from tests.serving.market import INSTRUMENT, Market


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/m/7/serving.json: not usable", "…/serving.json: not usable"),
        ("[Errno 2] No such file: '/srv/m/7/model.json')", "[Errno 2] No such file: '…/model.json')"),
        ("no bar in /home/jo doe/my lake/lake", "no bar in …/lake"),
        (
            "serving.store_uri=sqlite:////srv/x/serving.db: locked",
            "serving.store_uri=sqlite:…/serving.db: locked",
        ),
        ("lake=file:///srv/lake, and (/srv/a b/c)", "lake=file:…/lake, and (…/c)"),
        ("/srv/m/: not a folder", "…/: not a folder"),
        (
            "bronze/bars/month=2024-05/part.parquet: damaged",
            "bronze/bars/month=2024-05/part.parquet: damaged",
        ),
        ("cancel it: DELETE /traffic/rollout", "cancel it: DELETE /traffic/rollout"),
        (
            "newer than /model-info's last_bar_end_at, or GET /a",
            "newer than /model-info's last_bar_end_at, or GET /a",
        ),
        (
            "http://127.0.0.1:5000/api/2.0: 3/4 rows/s, and/or",
            "http://127.0.0.1:5000/api/2.0: 3/4 rows/s, and/or",
        ),
    ],
)
def test_a_path_is_shown_by_its_name(text: str, shown: str) -> None:
    found = problem("k", 503, "t", text, hint=text, got=text, required=None)
    assert (found.detail, found.hint, found.got, found.required) == (shown, shown, shown, None)


@pytest.mark.parametrize("kind", [LakeError, RegistryError, ServingError, StoreError])
def test_no_error_takes_a_folder_to_a_client(kind: type[MarketrayError]) -> None:
    found = problem_of(kind("/srv/secret/file.db: cannot be read", hint="look at /srv/secret/log"))
    assert (found.detail, found.hint) == ("…/file.db: cannot be read", "look at …/log")


def broken(market: Market, folder: Path, file: str) -> Path:
    """The sound model with one damaged file."""
    shutil.copytree(market.folders["xgboost"], folder)
    (folder / file).write_text("{")
    return folder


@pytest.mark.parametrize("file", ["serving.json", "model.json", "model.ubj"])
def test_a_damaged_model_is_named_without_its_folder(
    settings: Settings, market: Market, tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    folder = broken(market, tmp_path / "private" / "models", file)
    service = LocalService(settings, {12: folder}, {"blue": 12, "green": None}, champion=12)
    client = Client.of(service)
    for method, path in (("GET", "/ready"), ("GET", "/model-info"), ("POST", "/predict")):
        told = client.refused(503, "no-model", method, path)
        assert told["detail"].startswith(f"slot blue cannot serve version 12: …/{file}: not ")
        assert "private" not in str(told)
        assert str(tmp_path) not in str(told)
    (logged,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert logged.startswith(f"slot blue cannot serve version 12: {folder}/{file}: not ")


def test_a_lake_without_bars_is_named_without_its_folder(home: Path, market: Market) -> None:
    settings = load_settings(None, {"home": str(home), "instrument": INSTRUMENT})
    service = LocalService(settings, {7: market.folders["xgboost"]}, {"blue": 7, "green": None}, champion=7)
    told = Client.of(service).refused(503, "no-state", "POST", "/predict")
    assert told["detail"] == f"bronze/bars holds no bar of {INSTRUMENT} in …/lake"
