from __future__ import annotations

from pathlib import Path

import pytest

from marketray.settings import Settings
from tests.dataset.synthetic import small_settings, write_inputs, xnys_bars


@pytest.fixture(scope="module")
def dataset(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A dataset of three months of XNYS minutes, built by the stage; tests only read it."""
    from marketray.dataset.stage import run_dataset

    home: Path = tmp_path_factory.mktemp("dataset")
    settings = small_settings(home)
    write_inputs(settings, xnys_bars())
    run_dataset(settings)
    return settings
