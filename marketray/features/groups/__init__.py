"""Feature definitions, one file a group."""

from __future__ import annotations

import polars as pl

from marketray.features.definition import Feature
from marketray.features.fitted import FittedFeature
from marketray.features.groups.calendar import calendar, calendar_columns
from marketray.features.groups.candles import candle_columns, candles
from marketray.features.groups.fitted_regime import fitted_regime
from marketray.features.groups.gaps import gap_columns, gaps
from marketray.features.groups.liquidity import liquidity, liquidity_columns
from marketray.features.groups.microstructure import microstructure, microstructure_columns
from marketray.features.groups.momentum import momentum, momentum_columns
from marketray.features.groups.news import news
from marketray.features.groups.regime import regime, regime_columns
from marketray.features.groups.returns import lags, returns
from marketray.features.groups.session import session, session_columns
from marketray.features.groups.shared import shared_columns
from marketray.features.groups.trend import trend
from marketray.features.groups.volatility import volatility
from marketray.features.groups.volume import volume, volume_columns

__all__ = ["built_in_columns", "built_in_features", "built_in_fitted"]


def built_in_features(
    interval_minutes: int, trading_sentiment: float = 0.2, trading_strength: float = 0.3
) -> list[Feature]:
    """Every built-in feature, in catalog order, for bars of `interval_minutes`.

    `trading_sentiment` and `trading_strength` are the thresholds of `news_trading_signal_*`.
    """
    return [
        *returns(),
        *momentum(),
        *trend(),
        *volatility(),
        *volume(),
        *microstructure(),
        *liquidity(),
        *candles(),
        *regime(),
        *session(interval_minutes),
        *calendar(),
        *gaps(interval_minutes),
        *news(trading_sentiment, trading_strength),
        *lags(),
    ]


def built_in_fitted() -> list[FittedFeature]:
    """Every built-in fitted feature."""
    return fitted_regime()


def built_in_columns() -> dict[str, pl.Expr]:
    """Columns shared by the built-in features."""
    return {
        **shared_columns(),
        **momentum_columns(),
        **volume_columns(),
        **microstructure_columns(),
        **liquidity_columns(),
        **candle_columns(),
        **regime_columns(),
        **session_columns(),
        **calendar_columns(),
        **gap_columns(),
    }
