"""Is the new model better or worse than the old one? A test that may be looked at all the time.

Both models forecast the same decisions, and each label brings one pair of losses. A usual test holds its
level only for a number of pairs fixed before; whoever looks after every label and stops when it pleases is
wrong far more often. The tests here bound the chance of ever being wrong, however often one looks.

**The bet.** d = loss_old − loss_new of a decision, divided by `CLIP` times the mean |d| of the labels
that had ended by the decision (of its instrument, exponentially weighted) and clipped to ±1, is z. A bet of λ
on "better" multiplies its stake by exp(λ·z − ψ(λ)·z²), ψ(λ) = −ln(1 − λ) − λ, which is at most 1 + λ·z.
Stakes are spread evenly over `BETS`, since the right λ is unknown. The bet on "worse" takes −z.

**The null.** With Δ the expectation of z at its decision, exp(Σ λ·(z − Δ) − ψ(λ)·z²) is a supermartingale
that begins at 1, and the stake lies below it wherever Σ Δ ≤ 0. So what "better" refutes is: *the new model
has never been better on average so far, in units of the usual difference, a single one counted up to `CLIP`
times the usual*. Tails, variances, stationarity and the forecasts are free. The price is what is clipped: a
model that wins a little each time and now and then loses far beyond `CLIP` times the usual may pass.

**Overlapping labels.** A bet at t is settled at t + horizon, so bets whose labels overlap cannot follow each
other. Decisions are dealt to sequences, each to the first one whose last label has ended; within a sequence
labels do not overlap, and each sequence has the same part of the stake. The mean over sequences is *not* an
e-process, for bets are open whenever one stops. It is one with all open bets settled and no further ones
made, and an open bet of λ keeps at least 1 − λ of its stake. So what counts as evidence is the mean with each
stake times 1 − λ; it ever reaches 1/α with a probability of at most α. That holds for "better" and for
"worse", each at α.

References
----------
Choe and Ramdas (2024), Comparing sequential forecasters, Operations Research 72 (supermartingale and null).
Fan, Grama and Liu (2015), Exponential inequalities for martingales with applications, Electronic Journal of
Probability 20 (ψ). Henzi and Ziegel (2022), Valid sequential inference on probability forecast performance,
Biometrika 109, and its correction on pp. 1181–1182 (lagged sequences; what open bets do to them).
Waudby-Smith and Ramdas (2024), Estimating means of bounded random variables by betting, JRSS B 86 (stakes
spread over bets).
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.hac import checked_rows

__all__ = ["BETS", "CLIP", "Evidence", "Side", "compare_losses"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BETS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares λ of a stake that are bet on each decision."""

CLIP = 5.0
"""A difference counts up to so many times the usual one."""

HALF_LIFE = 500
"""Of the weights that make the usual difference, in decisions."""

LEAST_SETTLED = 30
"""Labels that must have ended before the usual difference is known and the first bet is made."""

_KEEPS = (1 - np.array(BETS)) / len(BETS)  # what is surely left of the stake on each bet while it is open
_MINUTE_US = 60_000_000
_LARGEST = 500.0  # logarithm; e^500 is still a float


@dataclass(frozen=True)
class Side:
    """Evidence for one of the two directions.

    Attributes
    ----------
    e_value:
        Evidence now, with the open bets counted at their worst. Under the null it ever reaches 1/α with a
        probability of at most α.
    p_value:
        1 / the largest evidence so far, at most 1; valid whenever it is looked at.
    decided_at:
        When the evidence first reached 1/α, UTC; None: it has not.
    expected_seconds:
        From the last label's end to a decision, if evidence goes on to grow as it has; None where it does not
        grow. Hours without decisions count.
    """

    e_value: float
    p_value: float
    decided_at: datetime | None
    expected_seconds: float | None


@dataclass(frozen=True)
class Evidence:
    """What the pairs of losses say so far.

    Attributes
    ----------
    verdict:
        `better` or `worse`: the side that was decided first, of the new model; else `undecided`.
    alpha:
        Largest probability of a false verdict, of each side.
    pairs:
        Decisions that were bet on or used to learn the usual difference, one an instrument and time.
    skipped:
        Decisions given twice, or closer together than `step_minutes`.
    mean_difference:
        Mean of loss_new − loss_old over all given decisions, in units of the loss; None where there are none.
    better, worse:
        The two sides.
    """

    verdict: Literal["better", "worse", "undecided"]
    alpha: float
    pairs: int
    skipped: int
    mean_difference: float | None
    better: Side
    worse: Side

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, times in ISO 8601."""
        made = asdict(self)
        for side in (made["better"], made["worse"]):
            at = side["decided_at"]
            side["decided_at"] = at.isoformat() if at else None
        return made


@dataclass(frozen=True)
class _Bets:
    """Decisions in order of time: z, shape (n,), the sequence that each was dealt to, and its time."""

    z: FloatArray
    sequence: IntArray
    decision_us: IntArray


def compare_losses(
    loss_new: npt.ArrayLike,
    loss_old: npt.ArrayLike,
    decision_us: npt.ArrayLike,
    horizon_minutes: int,
    *,
    instrument: npt.ArrayLike | None = None,
    step_minutes: int = 1,
    alpha: float = 0.05,
) -> Evidence:
    """Test, as often as you like, whether the new model has a smaller or a larger loss than the old one.

    The result depends on the pairs alone, so it is the same wherever and whenever it is computed again.

    Parameters
    ----------
    loss_new, loss_old:
        Losses on the same decisions, e.g. squared errors, finite, shape (n,), in any order. Give all pairs
        whose label has ended; what came before must not be left out later.
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,); labels cover (decision, decision +
        horizon]. Of several pairs of an instrument and time the first counts.
    horizon_minutes:
        Label horizon.
    instrument:
        Name of each decision's instrument, shape (n,); None: all are of one. The null is then that the new
        model has been better on average on no instrument (for "worse": worse on none).
    step_minutes:
        Least time between two decisions of an instrument; there are horizon / step sequences.
    alpha:
        Level of each side.

    Raises
    ------
    DataError
        The arrays do not fit together or hold values that are not finite, or a parameter is out of range.
    """
    if not 0 < alpha < 1 or step_minutes < 1:
        msg = f"alpha={alpha}, step_minutes={step_minutes}; required: alpha inside (0, 1), a step above 0"
        raise DataError(msg, hint="use alpha=0.05 and the bar interval")
    if np.size(decision_us) == 0:
        return _evidence([], None, 0, horizon_minutes, 1, alpha)
    new, _ = checked_rows(loss_new, decision_us, horizon_minutes)
    old, _ = checked_rows(loss_old, decision_us, horizon_minutes)
    at = np.asarray(decision_us, dtype=np.int64)
    names = np.zeros(len(at), dtype=np.int64) if instrument is None else np.asarray(instrument)
    if names.shape != at.shape:
        msg = f"instrument has shape {names.shape}, decision_us {at.shape}; required: one (n,)"
        raise DataError(msg, hint="pass one name a decision")
    sequences = -(-horizon_minutes // step_minutes)
    bets = []
    for name in np.unique(names):
        of = names == name
        times, first = np.unique(at[of], return_index=True)
        bets.append(_placed((old - new)[of][first], times, horizon_minutes * _MINUTE_US, sequences))
    mean = float(np.mean(new - old))
    return _evidence(bets, mean, len(at), horizon_minutes, sequences, alpha)


def _placed(difference: FloatArray, at: IntArray, horizon_us: int, sequences: int) -> _Bets:
    """Deal one instrument's decisions to sequences, and scale what each of them was bet on."""
    dealt = _deal(at, horizon_us, sequences)
    taken = dealt >= 0
    x, times = difference[taken], at[taken]
    usual = _usual(np.abs(x), times, horizon_us)
    known = usual > 0
    z = np.zeros_like(x)
    z[known] = np.clip(x[known] / (CLIP * usual[known]), -1, 1)
    return _Bets(z, dealt[taken], times)


def _deal(at: IntArray, horizon_us: int, sequences: int) -> IntArray:
    """For each decision the first sequence without an open bet, −1 where there is none, shape (n,)."""
    free = list(range(sequences))
    open_until: deque[tuple[int, int]] = deque()
    dealt = np.full(len(at), -1, dtype=np.int64)
    for i, now in enumerate(at.tolist()):
        while open_until and open_until[0][0] <= now:
            heapq.heappush(free, open_until.popleft()[1])
        if free:
            dealt[i] = heapq.heappop(free)
            open_until.append((now + horizon_us, int(dealt[i])))
    return dealt


def _usual(size: FloatArray, at: IntArray, horizon_us: int) -> FloatArray:
    """Weighted mean size of the differences whose labels had ended by each decision, 0 while too few had."""
    settled = np.searchsorted(at + horizon_us, at, side="right").tolist()
    keep = 0.5 ** (1 / HALF_LIFE)
    total = weight = 0.0
    means = [0.0]
    for value in size.tolist():
        total, weight = keep * total + value, keep * weight + 1
        means.append(total / weight)
    return np.array([means[k] if k >= LEAST_SETTLED else 0.0 for k in settled])


def _evidence(
    bets: list[_Bets], mean: float | None, given: int, horizon_minutes: int, sequences: int, alpha: float
) -> Evidence:
    z, sequence, at = _merged(bets, sequences)
    total = sequences * max(len(bets), 1)
    better, worse = (_side(sign * z, sequence, at, horizon_minutes, total, alpha) for sign in (1, -1))
    verdict: Literal["better", "worse", "undecided"] = "undecided"
    if better.decided_at and (worse.decided_at is None or better.decided_at <= worse.decided_at):
        verdict = "better"
    elif worse.decided_at:
        verdict = "worse"
    return Evidence(verdict, alpha, len(z), given - len(z), mean, better, worse)


def _merged(bets: list[_Bets], sequences: int) -> tuple[FloatArray, IntArray, IntArray]:
    """All instruments' decisions in order of time, each instrument with sequences of its own."""
    if not bets:
        return np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64)
    at = np.concatenate([b.decision_us for b in bets])
    order = np.argsort(at, kind="stable")
    dealt = np.concatenate([b.sequence + k * sequences for k, b in enumerate(bets)])
    return np.concatenate([b.z for b in bets])[order], dealt[order], at[order]


def _side(
    z: FloatArray, sequence: IntArray, at: IntArray, horizon_minutes: int, total: int, alpha: float
) -> Side:
    """Evidence that z is above 0 on average; `total` sequences share the stake."""
    bet = np.array(BETS)
    grown = z[:, None] * bet + (np.log1p(-bet) + bet) * np.square(z)[:, None]
    before, after = _kept(grown, sequence)
    nothing = float(_KEEPS.sum())
    path = nothing + np.cumsum(after - before) / total
    used, last = np.unique(sequence[::-1], return_index=True)
    now = nothing + float((after[::-1][last] - nothing).sum()) / total
    p_value = 1 / max(1.0, float(path.max(initial=0.0)))
    reached = np.flatnonzero(path >= 1 / alpha)
    if len(reached):
        ended = int(at[reached[0]]) + horizon_minutes * _MINUTE_US
        return Side(now, p_value, datetime.fromtimestamp(ended / 1e6, UTC), 0.0)
    return Side(now, p_value, None, _expected_seconds(grown, at, len(used), np.log(total / (alpha * _KEEPS))))


def _kept(grown: FloatArray, sequence: IntArray) -> tuple[FloatArray, FloatArray]:
    """What the sequence of each decision surely keeps of its stake before and after it, shape (n,) each.

    `grown` has the logarithm of every bet's growth, shape (n, bets).
    """
    order = np.argsort(sequence, kind="stable")
    starts = np.flatnonzero(np.diff(sequence[order], prepend=-1))
    logs = np.cumsum(grown[order], axis=0)
    logs -= np.repeat((logs - grown[order])[starts], np.diff(starts, append=len(order)), axis=0)
    before, after = np.empty(len(order)), np.empty(len(order))
    after[order] = np.exp(np.minimum(logs, _LARGEST)) @ _KEEPS
    before[order] = np.exp(np.minimum(logs - grown[order], _LARGEST)) @ _KEEPS
    return before, after


def _expected_seconds(grown: FloatArray, at: IntArray, used: int, needed: FloatArray) -> float | None:
    """Time left until the bet that grew best reaches what it needs in logarithm, at its mean growth so far.

    `grown` has the logarithm of every decision's growth, shape (n, bets), of all `used` sequences together.
    """
    passed = float(at[-1] - at[0]) / 1e6 if len(at) else 0.0
    if passed == 0 or grown.sum(axis=0).max() <= 0:
        return None
    growth = grown.sum(axis=0) / (used * passed)
    growing = growth > 0
    return max(0.0, float(np.min(needed[growing] / growth[growing])) - passed)
