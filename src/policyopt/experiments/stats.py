"""What a handful of runs says about an algorithm, and how sure one may be. Agarwal et al. (2021),
arXiv:2108.13264, for scores; Kaplan & Meier (1958) for the time it takes to reach a threshold.

Scores are ``[runs, tasks]``: a number for each training run, on a scale that all tasks share. The runs of a
task are a sample, the tasks are given: a bootstrap resamples the runs within each task, never the tasks. It
knows no run but those it was given, so its intervals are a little short with ten runs of one task, and of no
width at all where every run gives the same answer, as for a share of 0 or 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from policyopt.settings import check_seed

__all__ = [
    "Interval",
    "SurvivalCurve",
    "TimeToThreshold",
    "first_crossing",
    "interval",
    "iqm",
    "kaplan_meier",
    "mean_curve",
    "mean_difference",
    "mean_score",
    "performance_profile",
    "probability_of_improvement",
    "time_to_threshold",
]


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval: three numbers, or three arrays of one shape."""

    point: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray


def mean_score(scores: np.ndarray) -> np.ndarray:
    """The mean over all runs of all tasks, ``[..., runs, tasks]`` to ``[...]``; errors as for ``iqm``."""
    return _check_numbers("scores", scores, "[..., runs, tasks]").mean(axis=(-2, -1))


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean: over the middle half of all runs of all tasks, ``[..., runs, tasks]`` to
    ``[...]``.

    Book: eq-iqm. Agarwal et al. (2021), section 4.3. At either end a quarter of the scores, rounded down, is
    left out.

    Raises:
        ValueError: no run, no task, or a score that is not finite.
    """
    scores = _check_numbers("scores", scores, "[..., runs, tasks]")
    return stats.trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def interval(
    scores: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = iqm,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """A statistic of all scores and its stratified bootstrap interval.

    Book: eq-bootstrap-interval. Agarwal et al. (2021), section 4.1; Efron (1979).

    Args:
        scores: ``[runs, tasks]``.
        statistic: ``iqm``, ``mean_score``, or any function of ``[..., runs, tasks]`` that gives ``[...]``.
        confidence: in what share of studies such an interval should hold the true value.
        resamples: how often the runs are drawn anew, with replacement.
        seed: of the drawing.

    Raises:
        ValueError: a score that is not finite, fewer than two runs, no task; a setting out of range.
    """
    scores = _check_scores("scores", scores)
    return _bootstrap(statistic, [scores], confidence, resamples, seed)


def performance_profile(
    scores: np.ndarray,
    thresholds: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """The share of all runs with a score above each threshold τ, and its pointwise band.

    Book: eq-performance-profile. Agarwal et al. (2021), section 4.2; Dolan & Moré (2002).

    Args:
        scores: ``[runs, tasks]``.
        thresholds: τ, ``[K]``.
        confidence: of the band at any one τ, not of the whole band at once.
        resamples, seed: as for ``interval``.

    Returns:
        Arrays ``[K]``.

    Raises:
        ValueError: as for ``interval``; thresholds that are not finite or not a row.
    """
    scores = _check_scores("scores", scores)
    thresholds = _check_numbers("thresholds", thresholds, "[K]")

    def shares(scores: np.ndarray) -> np.ndarray:
        return np.stack([(scores > threshold).mean(axis=(-2, -1)) for threshold in thresholds])

    return _bootstrap(shares, [scores], confidence, resamples, seed)


def probability_of_improvement(
    scores: np.ndarray,
    baseline: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """How probably a run beats a run of the baseline on the same task, averaged over tasks. A tie is half a
    win.

    Book: eq-probability-of-improvement. Agarwal et al. (2021), section 4.3: the statistic of Mann & Whitney
    (1947) as a share of all pairs.

    Args:
        scores: of the algorithm, ``[runs, tasks]``.
        baseline: scores of the other one, ``[other runs, tasks]``; both algorithms are resampled.
        confidence, resamples, seed: as for ``interval``.

    Raises:
        ValueError: as for ``interval``; another number of tasks.
    """
    scores, baseline = _check_pair(scores, baseline)

    def wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        outcomes = np.sign(ours[..., :, None, :] - theirs[..., None, :, :])  # 1, 0 or −1 for every pair
        return (1 + outcomes.mean(axis=(-3, -2, -1))) / 2

    return _bootstrap(wins, [scores, baseline], confidence, resamples, seed)


def mean_difference(
    scores: np.ndarray,
    baseline: np.ndarray,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """By how much the mean over all runs of all tasks is larger than the baseline's.

    Book: eq-bootstrap-interval. Both are resampled, each task's runs on their own.

    Args:
        scores: of the algorithm, ``[runs, tasks]``.
        baseline: scores of the other one, ``[other runs, tasks]``.
        confidence, resamples, seed: as for ``interval``.

    Raises:
        ValueError: as for ``interval``; another number of tasks.
    """
    scores, baseline = _check_pair(scores, baseline)

    def difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return ours.mean(axis=(-2, -1)) - theirs.mean(axis=(-2, -1))

    return _bootstrap(difference, [scores, baseline], confidence, resamples, seed)


def mean_curve(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Interval:
    """The mean of several curves at each of their points, with a pointwise bootstrap interval.

    Args:
        values: a row for each run, ``[runs, points]``.
        confidence: of the interval at any one point, not of the whole curve at once.
        resamples, seed: as for ``interval``.

    Returns:
        Arrays ``[points]``.

    Raises:
        ValueError: as for ``interval``.
    """
    values = _check_scores("values", values)

    def means(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values.mean(axis=-2), -1, 0)

    return _bootstrap(means, [values], confidence, resamples, seed)


def first_crossing(times: np.ndarray, values: np.ndarray, threshold: float) -> tuple[float, bool]:
    """When a learning curve first reaches a threshold, and whether it does. If not, the run is censored:
    the time is that of its last row, and all we know is that it would have taken longer.

    Args:
        times: environment steps or seconds at each row, never decreasing, ``[n]``.
        values: what is to reach the threshold, ``[n]``; NaN where nothing has been measured yet.
        threshold: reached by a value that is as large or larger.

    Raises:
        ValueError: shapes that differ, times that are not finite or decrease, a threshold that is not finite.
    """
    times, values = _check_numbers("times", times, "[n]"), np.asarray(values, dtype=float)
    if values.shape != times.shape:
        raise ValueError(f"values has shape {values.shape}, but times have {times.shape}")
    if (np.diff(times) < 0).any():
        row = int(np.argmax(np.diff(times) < 0)) + 1
        raise ValueError(f"times[{row}] is {times[row]}, after {times[row - 1]}; times must not decrease")
    if not math.isfinite(threshold):
        raise ValueError(f"threshold is {threshold!r}; it must be a finite number")
    above = values >= threshold
    return (float(times[above.argmax()]), True) if above.any() else (float(times[-1]), False)


class SurvivalCurve(NamedTuple):
    """The share of runs still below the threshold, a step function of time. Every array is ``[K]``."""

    times: np.ndarray  # 0, then each time at which a run reached the threshold or was last seen
    at_risk: np.ndarray  # runs watched until that time, and still below just before it
    crossed: np.ndarray  # runs that reached the threshold at that time
    survival: Interval  # S from that time to the next


def kaplan_meier(times: np.ndarray, reached: np.ndarray, confidence: float = 0.95) -> SurvivalCurve:
    """The share of runs still below the threshold over time, S(t) = ∏ (1 − crossed / at risk).

    Book: eq-kaplan-meier. Kaplan & Meier (1958). A censored run counts among those at risk for as long as it
    was watched (and at that very moment), then no more.

    The pointwise band is that of Clopper & Pearson (1934) for a share of n runs. Once runs have been lost to
    censoring, n is what those still at risk amount to, at risk / S (Peto et al., 1977). It is exact where all
    budgets are equal.

    Args:
        times: when each run reached the threshold or was last seen below it, positive, ``[runs]``.
        reached: whether it reached it, ``[runs]`` bool. Both as ``first_crossing`` gives them.
        confidence: of the band at any one time.

    Raises:
        ValueError: times that are not positive and finite, shapes that differ, reached not bool.
    """
    times, reached = _check_numbers("times", times, "[runs]"), np.asarray(reached)
    if (times <= 0).any():
        raise ValueError(f"times[{times.argmin()}] is {times.min()}; it must be greater than 0")
    if reached.shape != times.shape or reached.dtype != bool:
        raise ValueError(f"reached is {reached.dtype} {reached.shape}; it must be bool {times.shape}")
    _check_confidence(confidence)
    grid = np.append(0.0, np.unique(times))  # [K]
    at_risk = (times >= grid[:, None]).sum(axis=1)
    crossed = ((times == grid[:, None]) & reached).sum(axis=1)
    survival = np.cumprod(1 - crossed / at_risk).round(12)  # 5 runs of 10 are to be exactly one half
    effective = np.append(at_risk[1:], at_risk[-1]) / np.append(survival[:-1], survival[-2])
    return SurvivalCurve(grid, at_risk, crossed, _clopper_pearson(survival, effective, confidence))


@dataclass(frozen=True)
class TimeToThreshold:
    """How long runs take to reach a threshold, some of which never did."""

    reached: Interval  # the share of runs that reached it, each within its own budget
    median: Interval  # by when half of the runs have reached it; infinite: not within the budgets
    restricted_mean: Interval  # the mean of min(time, horizon)
    horizon: float

    def __str__(self) -> str:
        if math.isinf(self.median.point):
            return f"not reached by half of the runs (by {self.reached.point:.0%} of them)"
        return "median {:g} [{:g}, {:g}]".format(*self.median)


def time_to_threshold(
    times: np.ndarray, reached: np.ndarray, horizon: float | None = None, confidence: float = 0.95
) -> TimeToThreshold:
    """Steps or seconds to a threshold over runs, some of which may never have reached it.

    Book: eq-restricted-mean. The median and its interval are where the curve and band of ``kaplan_meier``
    come down to one half (Brookmeyer & Crowley, 1982). The restricted mean is the area under the curve up to
    the horizon, with Greenwood's variance times n/(n−1) and Student's t: for equal budgets that is the
    ordinary interval for a mean. Compare restricted means only for one horizon.

    Args:
        times: as for ``kaplan_meier``, ``[runs]``.
        reached: as for ``kaplan_meier``, ``[runs]`` bool.
        horizon: where the restricted mean stops; None for the longest of ``times``.
        confidence: of each interval.

    Raises:
        ValueError: as for ``kaplan_meier``; fewer than two runs; a horizon that is not positive and finite,
            or so late that nobody was watching any more.
    """
    curve = kaplan_meier(times, reached, confidence)
    runs, last = len(times), float(np.max(times))
    if runs < 2:
        raise ValueError(f"times has {runs} run; an interval needs at least 2")
    horizon = last if horizon is None else float(horizon)
    limit = last if curve.survival.point[-1] > 0 else math.inf
    if not (0 < horizon <= limit and math.isfinite(horizon)):
        raise ValueError(f"horizon is {horizon!r}; it must be positive, finite and at most {limit}")
    share = _clopper_pearson(np.mean(reached), runs, confidence)
    point, low, high = (np.append(curve.times[s <= 0.5], math.inf)[0] for s in curve.survival)
    median = (point, min(low, last), high)  # past the last time nothing is known, not even a lower bound
    edges = np.append(curve.times, np.inf).clip(max=horizon)
    areas = curve.survival.point * np.diff(edges)
    ahead = areas[::-1].cumsum()[::-1]  # the area from each time to the horizon
    survivors = np.maximum(curve.at_risk - curve.crossed, 1)  # where there are none, nothing lies ahead
    variance = np.sum(ahead**2 * curve.crossed / (curve.at_risk * survivors)) * runs / (runs - 1)
    margin = stats.t.ppf((1 + confidence) / 2, runs - 1) * math.sqrt(variance)
    total = areas.sum()
    restricted = (total, max(total - margin, 0.0), min(total + margin, horizon))
    return TimeToThreshold(*(Interval(*map(float, ends)) for ends in (share, median, restricted)), horizon)


def _clopper_pearson(share: np.ndarray, count: np.ndarray, confidence: float) -> Interval:
    """The exact interval for a share of ``count`` independent runs; ``count`` need not be whole."""
    hits, misses, tail = share * count, (1 - share) * count, (1 - confidence) / 2
    low = np.where(share > 0, stats.beta.ppf(tail, hits, misses + 1), 0.0)
    high = np.where(share < 1, stats.beta.isf(tail, hits + 1, misses), 1.0)
    return Interval(share, low, high)


def _bootstrap(
    statistic: Callable, tables: list[np.ndarray], confidence: float, resamples: int, seed: int
) -> Interval:
    """A percentile interval. Each task's runs, a column of a table, are resampled on their own."""
    _check_confidence(confidence)
    if not (isinstance(resamples, int) and resamples >= 1):
        raise ValueError(f"resamples is {resamples!r}; it must be a whole number of at least 1")
    tasks = tables[0].shape[1]  # the same in all tables

    def of_columns(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
        starts = range(0, len(columns), tasks)
        return statistic(*(np.stack(columns[start : start + tasks], axis=-1) for start in starts))

    columns = [column for table in tables for column in table.T]
    ends = stats.bootstrap(
        columns,
        of_columns,
        n_resamples=resamples,
        batch=100,  # at a time: enough to be fast, few enough for any memory
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(check_seed(seed)),
    ).confidence_interval
    return Interval(*(end if np.ndim(end) else float(end) for end in (statistic(*tables), *ends)))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; it must be in (0, 1), such as 0.95")


def _check_numbers(name: str, values: np.ndarray, shape: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    dims = len(shape.replace("..., ", "").split(","))
    if values.ndim < dims or (values.ndim > dims and "..." not in shape) or values.size == 0:
        raise ValueError(f"{name} has shape {values.shape}; it must be {shape} and not empty")
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(f"{name}{where} is {values[tuple(where)]}; it must be a finite number")
    return values


def _check_pair(scores: np.ndarray, baseline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, baseline = _check_scores("scores", scores), _check_scores("baseline", baseline)
    if baseline.shape[1] != scores.shape[1]:
        raise ValueError(f"baseline has {baseline.shape[1]} tasks, but scores have {scores.shape[1]}")
    return scores, baseline


def _check_scores(name: str, scores: np.ndarray) -> np.ndarray:
    scores = _check_numbers(name, scores, "[runs, tasks]")
    if len(scores) < 2:
        raise ValueError(f"{name} has {len(scores)} run; an interval needs at least 2")
    return scores
