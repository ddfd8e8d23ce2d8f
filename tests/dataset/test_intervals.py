"""Labels of bars longer than a minute: hours inside their session, and none for daily bars."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from marketray.dataset.labels import label_bars
from marketray.dataset.stage import run_dataset
from marketray.errors import SettingsError
from marketray.sessions import trading_sessions
from marketray.settings import LabelSettings, load_settings


def test_hours_are_labelled_up_to_the_last_half_hour_of_the_day() -> None:
    days = [date(2024, 3, 12), date(2024, 3, 13)]
    opens = [datetime(d.year, d.month, d.day, 13, 30, tzinfo=UTC) for d in days]  # 09:30 in New York
    times = [o + timedelta(hours=h) for o in opens for h in range(7)]
    close = 100 + np.arange(14.0)
    bars = pl.DataFrame({"time": pl.Series(times, dtype=pl.Datetime("us", "UTC")), "close": close})
    labels = LabelSettings(horizon_minutes=60, extra_horizons_minutes=(120,))
    found = label_bars(bars, trading_sessions("XNYS", *days), labels, bar_interval_minutes=60)
    for first in (0, 7):
        part = found.slice(first, 7)
        now, after = close[first : first + 6], close[first + 1 : first + 7]
        assert part["label_return"].to_list() == [*(after / now - 1), None]
        assert part["label_return_120"].to_list() == [
            *(close[first + 2 : first + 7] / now[:5] - 1),
            None,
            None,
        ]
        assert part["reason"].to_list() == [None] * 6 + ["session_end"]
        # the day's last bar trades until 16:00 and counts as known at 16:30
        assert part["label_end_at"][5] == times[first] + timedelta(hours=7)


def test_daily_bars_cannot_be_labelled(home: Path) -> None:
    settings = load_settings(overrides={"home": str(home), "bar_interval_minutes": 1440})
    with pytest.raises(SettingsError, match=r"never leaves its bar's session \(law 2, docs/laws.md\)"):
        run_dataset(settings)
