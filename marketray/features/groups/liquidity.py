"""What trading costs: spreads estimated from prices, price per volume, and quotes and depth if any."""

from __future__ import annotations

import math

import polars as pl

from marketray.features.definition import Feature
from marketray.features.groups.shared import TINY
from marketray.features.windows import deviation, mean, mean_size, standard_deviation

__all__ = ["liquidity", "liquidity_columns"]

_GROUP = "liquidity"
_SHORT, _LONG = 20, 240
_QUOTES = ("bid", "ask")
_DEPTH = ("bid_size", "ask_size")
_NOISE = 1e-6  # of the squared mean return: a smaller covariance has no root worth its rounding


def liquidity_columns() -> dict[str, pl.Expr]:
    """Shared columns: illiquidity and price impact of short and long windows, moments of spread and depth."""
    traded, size = pl.col("volume"), pl.col("_return_abs")
    dollars = pl.when(traded > 0).then(size / (pl.col("close") * traded)).when(traded == 0).then(0.0)
    found = {
        "_return_per_value": dollars,
        "_spread_sigma_60": standard_deviation(pl.col("spread_relative"), 60),
        "_depth": pl.col("bid_size") + pl.col("ask_size"),
        "_depth_mean_20": mean_size(pl.col("_depth"), 20),
    }
    for n in (_SHORT, _LONG):
        bars, squares = pl.col(f"_traded_share_{n}"), pl.col(f"_volume_square_{n}")
        found[f"_traded_share_{n}"] = mean_size((traded > 0).cast(pl.Float64), n)
        found[f"_volume_square_{n}"] = mean_size(traded**2, n)
        found[f"_illiquidity_{n}"] = pl.when(bars > 0).then(mean_size(pl.col("_return_per_value"), n) / bars)
        found[f"_impact_{n}"] = pl.when(squares > 0).then(mean_size(size * traded, n) / squares)
    return found


def liquidity() -> list[Feature]:
    """All liquidity features."""
    return [_roll(20), _corwin_schultz(), *_price_per_volume(), *_spreads(), _quote_position(), *_depths()]


def _roll(window: int) -> Feature:
    covariance, size = pl.col(f"_return_covariance_{window}"), pl.col(f"_return_size_{window}")
    reversal = -covariance > _NOISE * size**2 + TINY**2
    return Feature(
        name=f"roll_spread_{window}",
        group=_GROUP,
        lookback=window + 2,
        expression=pl.when(reversal).then(2 * (-covariance).sqrt()).when(~reversal).then(0.0),
        formula=f"2 sqrt(-cov(r, r[-1])) over {window} pairs, r = C / C[-1] - 1; "
        "0 where -cov <= 1e-6 of the squared mean of |r|",
        source="Roll 1984",
    )


def _corwin_schultz() -> Feature:
    """Clipped where the range of two bars is wider than their spread can make it."""
    squared = pl.col("_log_range") ** 2
    beta = squared + squared.shift(1)
    both = pl.max_horizontal(pl.col("high"), pl.col("high").shift(1)) / pl.min_horizontal(
        pl.col("low"), pl.col("low").shift(1)
    )
    k = 3 - 2 * math.sqrt(2)
    alpha = beta.sqrt() * ((math.sqrt(2) - 1) / k) - both.log() / math.sqrt(k)
    return Feature(
        name="corwin_schultz_spread",
        group=_GROUP,
        lookback=2,
        expression=(2 * (alpha / 2).tanh()).clip(lower_bound=0.0),
        formula="2 (e^a - 1) / (1 + e^a), a = (sqrt(2 b) - sqrt(b)) / k - sqrt(g / k), k = 3 - 2 sqrt 2, "
        "b = ln(H / L)^2 of two bars, g = ln(max H / min L)^2 of both; 0 where negative",
        source="Corwin and Schultz 2012",
    )


def _price_per_volume() -> list[Feature]:
    parts = [
        (
            f"amihud_illiquidity_{_SHORT}",
            "_illiquidity",
            "mean of |C / C[-1] - 1| / (C V) over the bars with trades",
            "Amihud 2002",
        ),
        (
            f"price_impact_{_SHORT}",
            "_impact",
            "slope without intercept of C / C[-1] - 1 on V signed by the tick rule",
            "Kyle 1985",
        ),
    ]
    found = []
    for name, column, text, source in parts:
        short, long = pl.col(f"{column}_{_SHORT}"), pl.col(f"{column}_{_LONG}")
        found.append(
            Feature(
                name=name,
                group=_GROUP,
                lookback=_LONG + 1,
                expression=pl.when(long > 0).then(short / long),
                formula=f"{text}: {_SHORT} bars / {_LONG} bars; null without trades",
                source=source,
                unit="ratio",
                inputs=("volume",),
            )
        )
    return found


def _spreads() -> list[Feature]:
    spread, sigma = pl.col("spread_relative"), pl.col("_spread_sigma_60")
    flat = TINY * mean(spread, 60)
    score = pl.when(sigma > flat).then(deviation(spread, 60) / sigma).when(sigma <= flat).then(0.0)
    source = "quoted spread"
    return [
        Feature(
            "spread_mean_20",
            _GROUP,
            20,
            mean(spread, 20),
            "mean of spread_relative over 20 bars",
            source,
            inputs=_QUOTES,
        ),
        Feature(
            "spread_zscore_60",
            _GROUP,
            60,
            score,
            "(spread_relative - mean) / sd over 60 bars; 0 where sd <= 1e-9 of the mean",
            source,
            "standard deviations",
            inputs=_QUOTES,
        ),
    ]


def _quote_position() -> Feature:
    bid, ask = pl.col("bid"), pl.col("ask")
    return Feature(
        name="quote_position",
        group=_GROUP,
        lookback=1,
        expression=pl.when(ask > bid).then((2 * pl.col("close") - ask - bid) / (ask - bid)),
        formula="(C - mid) / half of (ask - bid); null where ask <= bid",
        source="effective over quoted spread, Lee and Ready 1991",
        unit="half spreads",
        inputs=_QUOTES,
        exact=True,
    )


def _depths() -> list[Feature]:
    bid, ask, depth = pl.col("bid_size"), pl.col("ask_size"), pl.col("_depth")
    usual = pl.col("_depth_mean_20")
    micro = (pl.col("bid") * ask + pl.col("ask") * bid) / depth
    return [
        Feature(
            name="depth_imbalance",
            group=_GROUP,
            lookback=1,
            expression=pl.when(depth > 0).then((bid - ask) / depth),
            formula="(bid size - ask size) / (bid size + ask size); null without depth",
            source="Cao, Hansch and Wang 2009",
            unit="share, -1 to 1",
            inputs=_DEPTH,
            exact=True,
        ),
        Feature(
            name="depth_ratio_20",
            group=_GROUP,
            lookback=20,
            expression=pl.when(usual > 0).then(depth / usual),
            formula="(bid size + ask size) / its mean over 20 bars; null without depth",
            source="quoted depth",
            unit="ratio",
            inputs=_DEPTH,
        ),
        Feature(
            name="microprice_distance",
            group=_GROUP,
            lookback=1,
            expression=pl.when(depth > 0).then(micro / pl.col("close") - 1),
            formula="(bid * ask size + ask * bid size) / (bid size + ask size) / C - 1; null without depth",
            source="Stoikov 2018, weighted mid",
            inputs=(*_QUOTES, *_DEPTH),
            exact=True,
        ),
    ]
