"""Many candidates at once: is the best of them better than luck, and which cannot be told from it?

The best of a hundred forecasts without skill looks skilled. Both tests here work on session means of the
losses, which hardly depend on one another, and resample them in blocks of sessions.

Blocks of mean length b drawn from n sessions show only 1 − (2b − 1)/n of a mean's variance, since they are
centred on the very sample they come from. With 60 sessions that is 15 %, and 5 % become 10 %. Differences of
means are therefore reduced by the root of that share before they are compared with the resampled ones, as
Harvey, Leybourne and Newbold (1997) do for a single comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError

__all__ = ["confidence_set", "session_mean_losses", "session_sums", "superior_ability"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_LEAST_BLOCK = 5
_LEAST_BLOCKS = 4
_NO_VARIATION = 1e-12


def session_sums(values: npt.ArrayLike, session: npt.ArrayLike) -> tuple[IntArray, FloatArray, IntArray]:
    """Sums over the rows of each session.

    Parameters
    ----------
    values:
        Shape (n,) or (n, m).
    session:
        What identifies a row's session, such as its open in microseconds, shape (n,).

    Returns
    -------
    tuple
        The distinct sessions in ascending order, shape (s,); their sums, shape (s,) or (s, m); how many rows
        they have, shape (s,).

    Raises
    ------
    DataError
        The arrays do not fit together, or a value is not finite.
    """
    numbers, sessions = np.asarray(values, dtype=np.float64), np.asarray(session, dtype=np.int64)
    if numbers.shape[:1] != sessions.shape or not len(sessions):
        msg = f"values have shape {numbers.shape}, session {sessions.shape}; required: one session a row"
        raise DataError(msg, hint="pass the session's open of every row")
    if not np.isfinite(numbers).all():
        msg = f"{int((~np.isfinite(numbers)).sum())} of {numbers.size} values are not finite; required: none"
        raise DataError(msg, hint="leave out the forecasts that are not finite")
    order = np.argsort(sessions, kind="stable")
    distinct, first, rows = np.unique(sessions[order], return_index=True, return_counts=True)
    return distinct, np.add.reduceat(numbers[order], first, axis=0), rows


def session_mean_losses(loss: npt.ArrayLike, session: npt.ArrayLike) -> FloatArray:
    """Mean loss of every session, shape (sessions, m), in ascending order of the session.

    Parameters
    ----------
    loss:
        Losses of m forecasts, shape (n, m).
    session:
        What identifies a row's session, shape (n,).

    Raises
    ------
    DataError
        As `session_sums`.
    """
    _, sums, rows = session_sums(loss, session)
    return np.asarray(sums / rows.reshape(-1, *[1] * (sums.ndim - 1)))


def superior_ability(
    losses: npt.ArrayLike,
    benchmark: npt.ArrayLike,
    names: Sequence[str],
    *,
    block_sessions: int = _LEAST_BLOCK,
    repetitions: int = 1_000,
    seed: int = 0,
) -> dict[str, Any]:
    """Hansen's test that no candidate is better than the zero forecast, however many were tried.

    Stationary bootstrap of studentised loss differences. ``p_value`` is the consistent one; ``p_lower`` lets
    candidates that are worse than the benchmark count less, ``p_upper`` (White's reality check) lets all
    count in full. Where no candidate has a smaller mean loss than the benchmark all three are 1.

    Parameters
    ----------
    losses:
        Session-mean losses of the candidates, shape (sessions, m).
    benchmark:
        Those of the zero forecast, shape (sessions,).
    names:
        Of the candidates, m of them.
    block_sessions:
        Mean length of the bootstrap's blocks, at least 5.
    repetitions, seed:
        Bootstrap samples and their seed.

    Returns
    -------
    dict
        p_value, p_lower, p_upper, benchmark, candidates, sessions, block_sessions, repetitions, and best, the
        name with the largest studentised gain.

    Raises
    ------
    DataError
        The arrays do not fit together, or there are fewer than four blocks' sessions.

    References
    ----------
    Hansen (2005), A test for superior predictive ability, JBES 23. White (2000), A reality check for data
    snooping, Econometrica 68. Politis and Romano (1994), The stationary bootstrap, JASA 89.
    """
    from arch.bootstrap import SPA

    table = _table("superior_ability", losses, names, block_sessions)
    gains = np.asarray(benchmark, dtype=np.float64).reshape(-1, 1) - table
    spread = gains.std(axis=0)
    moving = spread > _NO_VARIATION * np.abs(table).mean()
    gains = np.where(moving, gains / np.where(moving, spread, 1.0), 0.0)
    mean = gains.mean(axis=0)
    gains -= (1 - _seen_share(len(gains), block_sessions)) * mean
    p_values = {"consistent": 1.0, "lower": 1.0, "upper": 1.0}
    if mean.max() > 0:
        test = SPA(
            np.zeros(len(gains)), -gains, block_size=block_sessions, reps=repetitions, seed=seed
        )  # stationary bootstrap
        test.compute()
        p_values = {name: float(test.pvalues[name]) for name in p_values}
    return {
        "p_value": p_values["consistent"],
        "p_lower": p_values["lower"],
        "p_upper": p_values["upper"],
        "benchmark": "zero",
        "candidates": len(names),
        "sessions": len(table),
        "block_sessions": block_sessions,
        "repetitions": repetitions,
        "best": names[int(mean.argmax())],
    }


def confidence_set(
    losses: npt.ArrayLike,
    names: Sequence[str],
    *,
    level: float = 0.9,
    block_sessions: int = _LEAST_BLOCK,
    repetitions: int = 1_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The model confidence set: the candidates that cannot be told from the best one at this level.

    The T_max statistic over a stationary bootstrap. Candidates whose losses are equal share one place.

    Parameters
    ----------
    losses:
        Session-mean losses, shape (sessions, m).
    names:
        Of the candidates, m of them.
    level:
        The set holds the best candidate with this probability, inside (0, 1).
    block_sessions, repetitions, seed:
        As for `superior_ability`.

    Returns
    -------
    dict
        level, included and excluded (names in the given order), p_values by name; a candidate is included
        where its p-value exceeds 1 − level.

    Raises
    ------
    DataError
        The arrays do not fit together, or there are fewer than four blocks' sessions.

    References
    ----------
    Hansen, Lunde and Nason (2011), The model confidence set, Econometrica 79.
    """
    from arch.bootstrap import MCS

    table = _table("confidence_set", losses, names, block_sessions)
    distinct, place = np.unique(table, axis=1, return_inverse=True)
    mean = distinct.mean(axis=0)
    distinct -= (1 - _seen_share(len(table), block_sessions)) * (mean - mean.mean())
    found = np.ones(distinct.shape[1])
    if len(found) > 1:
        test = MCS(
            distinct / np.abs(table).mean(),
            size=1 - level,
            reps=repetitions,
            block_size=block_sessions,
            method="max",
            seed=seed,
        )
        test.compute()
        found[test.pvalues.index.to_numpy(dtype=np.intp)] = test.pvalues["Pvalue"].to_numpy()
    p_values = dict(zip(names, found[place.ravel()].tolist(), strict=True))
    return {
        "level": level,
        "included": [name for name in names if p_values[name] > 1 - level],
        "excluded": [name for name in names if p_values[name] <= 1 - level],
        "p_values": p_values,
    }


def _seen_share(sessions: int, block_sessions: int) -> float:
    """Share of a mean's standard error that the resamples show."""
    return float(np.sqrt(1 - (2 * block_sessions - 1) / sessions))


def _table(caller: str, losses: npt.ArrayLike, names: Sequence[str], block_sessions: int) -> FloatArray:
    table = np.asarray(losses, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(names) or not names:
        msg = f"{caller}: losses have shape {table.shape} for {len(names)} names; required: (sessions, names)"
        raise DataError(msg, hint="pass one column of session means a candidate")
    if block_sessions < _LEAST_BLOCK:
        msg = f"{caller}: block_sessions={block_sessions}; required: at least {_LEAST_BLOCK}"
        raise DataError(msg, hint="neighbouring sessions share their volatility, shorter blocks forget it")
    if len(table) < _LEAST_BLOCKS * block_sessions:
        msg = f"{caller}: got {len(table)} sessions; required: {_LEAST_BLOCKS * block_sessions} or more"
        raise DataError(msg, hint="tune on a longer history")
    return table
