"""Two models side by side on live traffic: what each of them did, how far apart they are, how sure that is.

Each arm counts a decision once, however many callers asked for it. Where both arms answered the same
decision, the two losses stand side by side; these pairs carry the comparison. Intervals are robust to
overlapping labels (HAC) and hold for one look at a moment fixed before. The verdict never comes from them:
it is the one of the sequential test, which may be looked at all the time, or there is none.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from marketray.errors import DataError
from marketray.evaluation.hac import checked_rows, hac_margin, hac_standard_error
from marketray.evaluation.metrics import HitRate, hit_rate
from marketray.serving.rollouts.sequential import Evidence, compare_losses

__all__ = ["NEW_ARM_WEIGHT", "Answers", "Arm", "Comparison", "compare_arms", "decisions_needed"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NEW_ARM_WEIGHT = 3_000
"""Usual weight of the new model in 1/100 %: 70/30."""

LEVEL = 0.95
"""Of all intervals."""

_Method = Literal["paired", "separate", "none"]


@dataclass(frozen=True)
class Answers:
    """An arm's answers whose label has ended, of one instrument, in order of time, a decision once.

    Answers as a shadow may be among them: they make pairs of what only the other arm was asked.

    Attributes
    ----------
    decision_us:
        Decision times, microseconds since the epoch, UTC, shape (n,).
    actual:
        Labels, fractions, shape (n,).
    signed:
        Predicted returns, or P(up) − ½; the sign is the predicted direction, shape (n,).
    loss:
        Squared errors of the returns, or Brier scores of the probabilities, shape (n,).
    """

    decision_us: IntArray
    actual: FloatArray
    signed: FloatArray
    loss: FloatArray

    @classmethod
    def of_returns(
        cls, decision_us: npt.ArrayLike, actual: npt.ArrayLike, predicted: npt.ArrayLike
    ) -> Answers:
        """Of a model that predicts returns, fractions, shape (n,); of repeated decisions the first counts.

        Raises
        ------
        DataError
            The arrays differ in shape or hold values that are not finite.
        """
        at, y, f = _once(decision_us, actual, predicted)
        return cls(at, y, f, np.square(y - f))

    @classmethod
    def of_probabilities(
        cls, decision_us: npt.ArrayLike, actual: npt.ArrayLike, probability_up: npt.ArrayLike
    ) -> Answers:
        """Of a model that predicts P(up), shape (n,); `actual` is the return, up where it is above 0.

        Raises
        ------
        DataError
            The arrays differ in shape or hold values that are not finite.
        """
        at, y, p = _once(decision_us, actual, probability_up)
        return cls(at, y, p - 0.5, np.square(p - (y > 0)))


@dataclass(frozen=True)
class Arm:
    """Outcome of one arm.

    Attributes
    ----------
    decisions:
        Decisions with a label.
    mean_loss:
        Of them; None where there are none.
    margin:
        Half the width of the 95 % interval of `mean_loss`; None where there are too few for one.
    hits:
        Direction hit rate with its 95 % interval.
    """

    decisions: int
    mean_loss: float | None
    margin: float | None
    hits: HitRate


@dataclass(frozen=True)
class Comparison:
    """The new model beside the old one.

    Attributes
    ----------
    verdict:
        Of the sequential test on the pairs.
    old, new:
        The arms.
    pairs:
        Decisions that both arms answered.
    method:
        How `difference` came about. `paired`: over the pairs, HAC. `separate`, where these are too few:
        difference of the arms' means, Welch's sum of their squared HAC margins; the arms may have answered at
        different times, and what moves both of them alike makes it too wide. `none`: too few of either.
    difference, margin:
        Mean loss_new − loss_old and half its 95 % interval, in units of the loss; None without a method.
    effect:
        Smallest reduction of the mean loss that matters, a share of the old model's.
    power:
        Probability with which a one-sided test at the sequential test's α would find that effect in as many
        decisions as there are; None without a method.
    needed:
        Decisions (of both arms together where separate) with which that probability is 80 %. The sequential
        test takes up to twice as many.
    evidence:
        Of the sequential test, with the expected time to its verdict.
    """

    verdict: Literal["better", "worse", "undecided"]
    old: Arm
    new: Arm
    pairs: int
    method: _Method
    difference: float | None
    margin: float | None
    effect: float
    power: float | None
    needed: int | None
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "evidence": self.evidence.to_json()}


@dataclass(frozen=True)
class _Difference:
    """A mean difference of losses over n decisions, with its margin and standard error."""

    method: _Method
    mean: float
    margin: float
    error: float
    n: int


def compare_arms(
    old: Answers,
    new: Answers,
    horizon_minutes: int,
    *,
    effect: float = 0.01,
    alpha: float = 0.05,
    step_minutes: int = 1,
) -> Comparison:
    """Outcome of both arms, their difference, and the sequential test's verdict.

    Parameters
    ----------
    old, new:
        Both arms' answers so far.
    horizon_minutes:
        Label horizon; labels cover (decision, decision + horizon].
    effect:
        Smallest reduction of the mean loss that matters, a share of the old model's; for squared errors about
        the gain in R².
    alpha:
        Level of the sequential test, of each side.
    step_minutes:
        Least time between two decisions.

    Raises
    ------
    DataError
        `effect` is not positive, or as `marketray.serving.rollouts.sequential.compare_losses`.
    """
    if not effect > 0:
        msg = f"effect={effect}; required: a positive share of the old model's loss"
        raise DataError(msg, hint="0.01 is a gain of about one point of R²")
    at, i, j = np.intersect1d(old.decision_us, new.decision_us, assume_unique=True, return_indices=True)
    evidence = compare_losses(
        new.loss[j], old.loss[i], at, horizon_minutes, alpha=alpha, step_minutes=step_minutes
    )
    arms = _arm(old, horizon_minutes), _arm(new, horizon_minutes)
    found = _paired(at, new.loss[j] - old.loss[i], horizon_minutes) or _separate(old, new, horizon_minutes)
    power = needed = None
    if found is not None:
        gain = effect * float(old.loss.mean())
        power = NormalDist().cdf(gain / found.error - NormalDist().inv_cdf(1 - alpha))
        needed = decisions_needed(gain, found.error * np.sqrt(found.n), alpha=alpha)
    return Comparison(
        verdict=evidence.verdict,
        old=arms[0],
        new=arms[1],
        pairs=len(at),
        method=found.method if found else "none",
        difference=found.mean if found else None,
        margin=found.margin if found else None,
        effect=effect,
        power=power,
        needed=needed,
        evidence=evidence,
    )


def decisions_needed(effect: float, deviation: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Decisions with which a one-sided test finds a mean difference `effect` with probability `power`.

    ((z₁₋α + z_power) · deviation / effect)², rounded up; `deviation` is the standard error of a mean times
    √n, which overlap makes larger than the standard deviation of a single difference.

    Raises
    ------
    DataError
        `effect` is not positive, or `alpha` or `power` is not inside (0, 1).
    """
    if not effect > 0 or not 0 < alpha < 1 or not 0 < power < 1:
        msg = f"effect={effect}, alpha={alpha}, power={power}; required: above 0, and two inside (0, 1)"
        raise DataError(msg, hint="use alpha=0.05 and power=0.8")
    quantiles = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    return max(1, int(np.ceil((quantiles * deviation / effect) ** 2)))


def _once(
    decision_us: npt.ArrayLike, actual: npt.ArrayLike, forecast: npt.ArrayLike
) -> tuple[IntArray, FloatArray, FloatArray]:
    if np.size(decision_us) == 0:
        return np.empty(0, np.int64), np.empty(0), np.empty(0)
    y, _ = checked_rows(actual, decision_us, 1)
    f, _ = checked_rows(forecast, decision_us, 1)
    at, first = np.unique(np.asarray(decision_us, dtype=np.int64), return_index=True)
    return at, y[first], f[first]


def _arm(answers: Answers, horizon_minutes: int) -> Arm:
    n = len(answers.decision_us)
    if n == 0:
        return Arm(0, None, None, HitRate(None, None, None, 0))
    margin = _margin(answers.loss, answers.decision_us, horizon_minutes)
    hits = hit_rate(answers.actual, answers.signed, answers.decision_us, horizon_minutes, level=LEVEL)
    return Arm(n, float(answers.loss.mean()), margin, hits)


def _paired(at: IntArray, difference: FloatArray, horizon_minutes: int) -> _Difference | None:
    margin = _margin(difference, at, horizon_minutes)
    if margin is None:
        return None
    error = hac_standard_error(difference, at, horizon_minutes)
    return _Difference("paired", float(difference.mean()), margin, error, len(at))


def _separate(old: Answers, new: Answers, horizon_minutes: int) -> _Difference | None:
    of_old, of_new = (_margin(arm.loss, arm.decision_us, horizon_minutes) for arm in (old, new))
    if of_old is None or of_new is None:
        return None
    errors = [hac_standard_error(arm.loss, arm.decision_us, horizon_minutes) for arm in (old, new)]
    mean = float(new.loss.mean() - old.loss.mean())
    n = len(old.loss) + len(new.loss)
    return _Difference("separate", mean, math.hypot(of_old, of_new), math.hypot(*errors), n)


def _margin(values: FloatArray, at: IntArray, horizon_minutes: int) -> float | None:
    return hac_margin(values, at, horizon_minutes, level=LEVEL) if len(values) else None
