"""A report with every section, made of seeded numbers, and the smallest one there can be."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np

from marketray.evaluation.gate import decide
from marketray.evaluation.outcome import comparison, report_document, selection_document
from marketray.evaluation.report import Series
from marketray.evaluation.selection import Rows, compare
from marketray.settings import GateSettings, Settings

MINUTE = 60_000_000
START = 1_546_300_800_000_000  # 2019-01-01, microseconds
N = 900
MODELS = ("<ar>", "xgboost")
SPLITS = ("validation", "test", "oot", "oot2")
DATES = {
    "train": ("2018-01-02T00:01:00+00:00", "2019-01-09T15:00:00+00:00"),
    "validation": ("2019-01-11T00:01:00+00:00", "2019-04-09T15:00:00+00:00"),
    "test": ("2019-04-11T00:01:00+00:00", "2019-07-09T15:00:00+00:00"),
    "oot": ("2019-07-11T00:01:00+00:00", "2019-09-09T15:00:00+00:00"),
    "oot2": ("2019-09-11T00:01:00+00:00", "2019-10-01T15:00:00+00:00"),
}


def plain_report(settings: Settings) -> tuple[dict[str, Any], dict[str, Series]]:
    """The document that a selection makes, without any section that it may lack."""
    rng = np.random.default_rng(11)
    data = {name: _split(rng, i) for i, name in enumerate(SPLITS)}
    tables = {name: compare(rows, forecasts, alpha=0.025) for name, (rows, forecasts) in data.items()}
    rows, forecasts = data["oot"]
    evidence = decide(rows.y, forecasts["<ar>"], rows.decision_us, 30, gate=GateSettings(), k=1)
    blocks = {
        name: SimpleNamespace(rows=N, first_decision_at=first, last_decision_at=last, purged=29, embargoed=9)
        for name, (first, last) in DATES.items()
    }
    labels = {
        "rows": 4_600,
        "kept": 4_500,
        "dropped": {"outside_session": 7},
        "kept_label_sd": 0.00148,
        "dropped_label_sd": 0.00067,
        "dropped_with_a_close": 93,
    }
    detail = {"dropped": {"warm_up": 7}, "labels": labels}
    split: Any = SimpleNamespace(blocks=blocks, detail=detail)
    registered = {"name": "m", "version": 4, "alias": "champion", "alias_declined": None}
    openings = {"oot": 1, "oot2": 1}
    ranking = list(MODELS)
    selection = selection_document("key", registered, "/m", ranking, tables, split, evidence, openings)
    compared = comparison(tables, ranking, dict.fromkeys(MODELS, 0.001))
    report = report_document(settings, selection, compared, tables, split, evidence, {})
    series = {
        name: Series(rows.decision_us, rows.y, forecasts["<ar>"])
        for name, (rows, forecasts) in data.items()
        if name != "validation"
    }
    return report, series


def full_report(settings: Settings) -> tuple[dict[str, Any], dict[str, Series]]:
    """`plain_report` with every optional section and figure."""
    report, series = plain_report(settings)
    rng = np.random.default_rng(12)
    report["selection"]["evidence"]["plain_p_value"] = 0.83
    report["selection"]["evidence"]["rules"] = [
        _rule("skill_over_zero", False, 0.41, 0.025, "p-value against zero is 0.41; required: below 0.025"),
        _rule("coverage", True, 0.803, 0.02, "80.3 % of the labels lie in the 80 % interval"),
        _rule("latency", None, None, 20.0, "off"),
    ]
    sections = {
        "significance": _significance(),
        "breakdown": {name: _breakdown(rng) for name in SPLITS},
        "intervals": {**{name: _intervals(rng) for name in SPLITS}, "method": "conformal, adaptive (ACI)"},
        "reliability": {name: _reliability(rng) for name in SPLITS},
        "backtest": _backtest(rng),
        "trials": [_trial(rng, family, i) for family in ("lightgbm", "xgboost") for i in range(20)],
        "importance": {"xgboost": _importance(rng), "<ar>": _importance(rng)},
        "drift": _drift(rng),
        "latency": {"p50_ms": 0.412, "p99_ms": 1.731, "rows": 500},
        "quality": _quality(),
        "lineage": {
            "data_hash": "d4" * 16,
            "catalog_hash": "c1" * 16,
            "code_revision": "3efbceb",
            "tuning_key": "7e" * 16,
            "settings": {"instrument": "SPX500_USD", "labels": {"horizon_minutes": 30, "task": "regression"}},
        },
    }
    report["selection"]["ablation"] = _ablation()
    return {**report, **sections}, series


def _split(rng: np.random.Generator, position: int) -> tuple[Rows, dict[str, np.ndarray]]:
    y, times = rng.normal(size=N) * 1e-3, START + (position * N + np.arange(N, dtype=np.int64)) * MINUTE
    naive = {"zero": np.zeros(N), "training_mean": np.full(N, 1e-6), "last_return": np.roll(y, 30)}
    return Rows(y, naive, times, 30), {name: rng.normal(size=N) * 1e-4 for name in MODELS}


def _rule(
    name: str, passed: bool | None, value: float | None, threshold: float, detail: str
) -> dict[str, Any]:
    return {"name": name, "passed": passed, "value": value, "threshold": threshold, "detail": detail}


def _significance() -> dict[str, Any]:
    p_values = {"xgboost-stage2-0007": 1.0, "zero": 0.62, "ar-stage1-0001": 0.02}
    return {
        "clark_west": {"statistic": 1.23, "p_value": 0.11},
        "spa": {
            "p_value": 0.47,
            "p_lower": 0.39,
            "p_upper": 0.58,
            "benchmark": "zero",
            "candidates": 63,
            "sessions": 240,
            "block_sessions": 5,
            "repetitions": 1000,
            "best": "xgboost-stage2-0007",
        },
        "mcs": {
            "level": 0.95,
            "included": ["xgboost-stage2-0007", "zero"],
            "excluded": ["ar-stage1-0001"],
            "p_values": p_values,
        },
        "trials": {"counted": 175, "pruned": 87, "earlier": 25},
        "sharpe": {
            "annual": 0.42,
            "low": -0.9,
            "high": 1.7,
            "probabilistic": 0.73,
            "deflated": 0.0123,
            "expected_maximum": 2.61,
        },
        "overfitting": {"probability": 0.57, "splits": 16, "logits_median": -0.21},
        "n_effective": 5300.4,
        "minimum_detectable_r2": 0.0124,
    }


def _part(rng: np.random.Generator, name: str, coverage: float | None) -> dict[str, Any]:
    rate = 0.5 + 0.02 * rng.normal()
    return {
        "name": name,
        "n": int(rng.integers(100, 9_000)),
        "rmse_pct": 0.1231,
        "zero_rmse_pct": 0.1230,
        "r2_oos": 0.01 * rng.normal(),
        "hit_rate": {"rate": rate, "low": rate - 0.03, "high": rate + 0.03},
        "coverage_80": coverage,
    }


def _breakdown(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "month": [_part(rng, f"2019-{m:02d}", None) for m in (7, 8, 9)],
        "hour_of_session": [_part(rng, f"hour {h}", 0.79) for h in range(1, 8)],
        "volatility": [_part(rng, name, 0.81) for name in ("calm", "middle", "wild")],
    }


def _intervals(rng: np.random.Generator) -> dict[str, Any]:
    levels = {
        level: {
            "coverage": int(level) / 100 + 0.003,
            "target": int(level) / 100,
            "mean_width_pct": 0.002 * int(level),
            "winkler_pct": 0.4,
            "constant_winkler_pct": 0.5,
            "pinball_pct": 0.02,
            "constant_pinball_pct": 0.025,
            "infinite_share": 0.0,
        }
        for level in ("50", "80", "95")
    }
    by_hour = [{"name": f"hour {h}", "n": 300, "coverage_80": 0.8 + 0.02 * rng.normal()} for h in range(1, 8)]
    terciles = [{"name": n, "n": 700, "coverage_80": 0.8} for n in ("calm", "middle", "wild")]
    return {"levels": levels, "by_hour": by_hour, "by_volatility": terciles}


def _reliability(rng: np.random.Generator) -> dict[str, Any]:
    edges = np.linspace(0, 1, 11)
    bins = [
        {
            "low": float(low),
            "high": float(high),
            "n": 0 if not 0.4 < (low + high) / 2 < 0.6 else 450,
            "mean_probability": None if not 0.4 < (low + high) / 2 < 0.6 else float(low + high) / 2,
            "observed": None if not 0.4 < (low + high) / 2 < 0.6 else float(0.5 + 0.03 * rng.normal()),
        }
        for low, high in pairwise(edges)
    ]
    return {"probability_up": bins, "brier": 0.24991, "brier_base": 0.25, "ece": 0.0071}


def _backtest(rng: np.random.Generator) -> dict[str, Any]:
    days = [f"2019-{7 + i // 28:02d}-{1 + i % 28:02d}T21:00:00+00:00" for i in range(60)]
    growth = np.cumprod(1 + rng.normal(size=(2, 60)) * 1e-3, axis=1)
    counts = {
        "first_decision_at": "2019-07-01T13:31:00+00:00",
        "last_decision_at": "2019-09-04T19:59:00+00:00",
        "decisions": 5_123,
        "signals": 1_234,
        "unfilled": 3,
    }
    strategy, hold = _traded(1.0), _traded(0.5)
    flat = {**dict.fromkeys(strategy), "return_pct": 0.0, "trades": 0, "reason": "there was no trade"}
    holders = {**counts, "strategy": strategy, "buy_and_hold": hold, "flat": flat}
    crash = {"name": "crash", "first": "2019-08-01", "last": "2019-08-14", "sessions": 10}
    bear = {"name": "bear", "first": "2018-10-01", "last": "2018-12-24", "sessions": 0}
    later = {**holders, "first_decision_at": "2019-09-11T13:31:00+00:00"}
    return {
        "assumptions": {
            "fill": "open of the first bar at or after the decision",
            "spread_bps": 0.8,
            "commission_bps": 0.0,
            "threshold": {"unit": "round-trip costs", "value": 1.0},
            "hold_over_breaks": False,
            "position": "average",
        },
        "periods": {"test": holders, "oot2": later},
        "curve": [
            {"at": at, "strategy": float(s), "buy_and_hold": float(b)}
            for at, s, b in zip(days, *growth, strict=True)
        ],
        "stress": [
            {**crash, "strategy_return_pct": -0.81, "reason": None},
            {**bear, "strategy_return_pct": None, "reason": "no forecast was made in these sessions"},
        ],
    }


def _traded(scale: float) -> dict[str, Any]:
    return {
        "return_pct": -1.37 * scale,
        "annual_return_pct": -6.1 * scale,
        "sharpe": -0.52 * scale,
        "sharpe_low": -2.4,
        "sharpe_high": 1.3,
        "max_drawdown_pct": 3.1 * scale,
        "win_rate": 0.47,
        "trades": 812,
        "turnover": 9.25,
        "exposure": 0.61,
        "cost_pct": 2.2 * scale,
        "break_even_cost_bps": 0.071,
        "reason": None,
    }


def _trial(rng: np.random.Generator, family: str, i: int) -> dict[str, Any]:
    stage, number = (1, i) if i < 8 else (2, i - 8)
    complete = i % 3 != 1
    score = 0.999 + 0.004 * float(rng.random()) / (1 + i) + (0 if complete else 0.004)
    params: dict[str, Any] = {
        "learning_rate": float(10 ** rng.uniform(-3, -0.5)),
        "max_depth": int(rng.integers(2, 10)),
        "booster": ("gbtree", "dart")[i % 2],
        "feature_group": None if stage == 1 else ("knee", "all")[i % 2],
        "fixed": 1,
    }
    return {
        "trial_id": f"{family}-stage{stage}-{number:04d}",
        "family": family,
        "stage": stage,
        "number": number,
        "state": "complete" if complete else "pruned",
        "score": score,
        "cv_rmse": 0.00123 * score if complete else None,
        "seconds": float(rng.uniform(1, 9)),
        "params": params,
    }


def _importance(rng: np.random.Generator) -> dict[str, Any]:
    names = [f"feature_{i}" for i in range(30)]
    shares = np.sort(rng.dirichlet(np.full(30, 0.4), size=3), axis=1)[:, ::-1]
    folds = [
        {"fold": k, "shares": dict(zip(names, map(float, row), strict=True))} for k, row in enumerate(shares)
    ]
    mean = shares.mean(axis=0)
    features = [{"feature": n, "share": float(s)} for n, s in zip(names, mean, strict=True)]
    return {"folds": folds, "features": features}


def _drift(rng: np.random.Generator) -> dict[str, Any]:
    scores = [None, *np.sort(rng.uniform(0.02, 0.4, 11))[::-1].tolist()]
    features = [
        {"feature": f"feature_{i}", "score": score, "drifted": i < 9} for i, score in enumerate(scores)
    ]
    return {
        "share": 9 / 131,
        "drifted": 9,
        "columns": 131,
        "threshold": 0.1,
        "method": "Evidently: Wasserstein distance, normed by the training standard deviation",
        "rows": {"reference": 5_000, "current": 4_000},
        "features": features,
    }


def _quality() -> dict[str, Any]:
    keys = ("stage", "rows_in", "rows_out", "rows_quarantined", "rows_dropped")
    stages = [("ingest", 5_000, 4_990, 10, 0), ("dataset", 4_990, 4_500, 0, 490)]
    return {
        "stages": [dict(zip(keys, row, strict=True)) for row in stages],
        "quarantined": [{"stage": "ingest", "reason": "high_below_low", "rows": 10}],
    }


def _ablation() -> dict[str, Any]:
    pair = {
        "rmse_pct": {"with": 0.12345, "without": 0.12346},
        "r2_oos": {"with": 0.0004, "without": 0.0003},
        "r2_difference": 0.0001,
        "p_value": 0.44,
    }
    return {
        "families": [{"family": name, "splits": {"test": pair, "oot2": pair}} for name in MODELS],
        "scorers": [{"model": "finbert-mini", "revision": "ab" * 20}],
        "coverage": {"test": {"60m": 0.41, "24h": 0.99}},
        "sentiment": {"model_ic": 0.012, "lexicon_ic": -0.003, "labelled": 812},
    }
