"""The statistics of the studies: worked numbers, identities, coverage, and what other packages say."""

import importlib.util
import math
import subprocess
import sys
import types

import numpy as np
import pytest
from scipy import stats as scipy_stats

from policyopt.experiments.stats import (
    Interval,
    first_crossing,
    interval,
    iqm,
    kaplan_meier,
    mean_difference,
    mean_score,
    performance_profile,
    probability_of_improvement,
    time_to_threshold,
)


def random_scores(runs=10, tasks=3, seed=0):
    return np.random.default_rng(seed).normal(size=(runs, tasks))


def within_chance(hits, repetitions, share):
    """Whether so many hits happen in all but 2 of 1,000 such simulations."""
    low, high = scipy_stats.binom.ppf([0.001, 0.999], repetitions, share)
    return low <= hits <= high


# --- mean and interquartile mean ---


def test_iqm_by_hand():
    scores = np.array([[0.0, 100.0], [10.0, 3.0], [5.0, 4.0], [2.0, 6.0]])
    assert iqm(scores) == 4.5  # of 3, 4, 5 and 6
    assert mean_score(scores) == 16.25


def test_iqm_leaves_out_a_quarter_rounded_down():
    assert iqm([[9.0], [0.0], [1.0], [2.0], [3.0], [5.0]]) == 2.75  # one of six at either end
    assert iqm([[0.0], [1.0], [5.0]]) == 2.0  # none of three
    assert iqm([[3.5]]) == mean_score([[3.5]]) == 3.5


def test_statistics_keep_leading_dimensions():
    scores = np.stack([random_scores(seed=seed) for seed in range(4)]).reshape(2, 2, 10, 3)
    for statistic in (iqm, mean_score):
        together = statistic(scores)
        assert together.shape == (2, 2)
        assert together[1, 0] == statistic(scores[1, 0])


def test_iqm_of_symmetric_scores_is_their_mean():
    half = random_scores()
    scores = np.concatenate([3 + half, 3 - half])
    assert iqm(scores) == pytest.approx(3.0, abs=1e-12)
    assert mean_score(scores) == pytest.approx(3.0, abs=1e-12)
    assert abs(iqm(np.exp(scores)) - mean_score(np.exp(scores))) > 1  # of others it is not


@pytest.mark.parametrize("statistic", [iqm, mean_score])
def test_statistics_ignore_order_and_follow_the_scale(statistic):
    scores = random_scores()
    shuffled = np.random.default_rng(1).permuted(scores, axis=0)[:, ::-1]
    assert statistic(shuffled) == pytest.approx(statistic(scores), abs=1e-14)
    assert statistic(5 - 3 * scores) == pytest.approx(5 - 3 * statistic(scores), abs=1e-12)


# --- the bootstrap ---


def test_interval_by_hand():
    """The mean of two draws from {0, 1} is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4."""
    scores = [[0.0], [1.0]]
    assert interval(scores, mean_score) == (0.5, 0.0, 1.0)
    assert interval(scores, mean_score, confidence=0.4) == (
        0.5,
        0.5,
        0.5,
    )  # the quantiles 0.3 and 0.7


def test_runs_are_resampled_within_their_task():
    scores = np.array([[0.0, 100.0]] * 5)  # any mixture of the tasks would move the mean
    assert interval(scores, mean_score) == (50.0, 50.0, 50.0)


def test_interval_follows_the_scale_and_the_seed():
    scores = random_scores()
    first = interval(scores, seed=3)
    assert interval(scores, seed=3) == first
    assert interval(scores, seed=4) != first
    np.testing.assert_allclose(interval(7 + 2 * scores, seed=3), 7 + 2 * np.array(first), atol=1e-12)
    assert first.low < first.point < first.high
    narrow = interval(scores, confidence=0.5, seed=3)
    assert first.low < narrow.low < narrow.high < first.high


def test_interval_of_the_mean_nears_the_normal_one():
    """For many runs: the mean of the tasks' means, each with its own spread."""
    scores = random_scores(runs=400, tasks=2) * [1.0, 3.0]
    error = math.sqrt((scores.var(axis=0) / 400).sum()) / 2
    expected = scores.mean() + error * scipy_stats.norm.ppf([0.025, 0.975])
    np.testing.assert_allclose(interval(scores, mean_score)[1:], expected, atol=0.1 * error)


def test_interval_takes_any_statistic():
    scores = random_scores()
    median = interval(scores, lambda scores: np.median(scores, axis=(-2, -1)), resamples=500)
    assert median.point == np.median(scores)
    assert median.low < median.point < median.high


def test_coverage_of_the_iqm_interval():
    """Scores around 0, 1 and 2, symmetric about 1: the true IQM is 1."""
    repetitions, hits = 200, 0
    for seed in range(repetitions):
        low, high = interval(random_scores(20, 3, seed) + np.arange(3), resamples=1000, seed=seed)[1:]
        hits += low <= 1 <= high
    assert within_chance(hits, repetitions, 0.95)


# --- performance profiles ---


def test_performance_profile_by_hand():
    profile = performance_profile([[0.0, 1.0], [2.0, 3.0]], [-1.0, 0.0, 1.0, 2.5, 3.0])
    assert profile.point.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]  # above, not at
    assert profile.low.tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]  # task 0 is above 0 in none of 2 draws: 1/4
    assert profile.high.tolist() == [1.0, 1.0, 1.0, 0.5, 0.0]


def test_performance_profile_falls_and_its_area_is_the_mean():
    scores = np.random.default_rng(0).random((12, 3))
    thresholds = np.linspace(0, 1, 201)
    profile = performance_profile(scores, thresholds, resamples=200)
    for line in profile:
        assert (np.diff(line) <= 0).all()
    assert (profile.low <= profile.point).all()
    assert (profile.point <= profile.high).all()
    assert np.trapezoid(profile.point, thresholds) == pytest.approx(mean_score(scores), abs=0.005)


def test_performance_profile_at_one_threshold_is_the_interval_of_a_share():
    scores = random_scores()
    profile = performance_profile(scores, [0.3], seed=5)
    share = interval(scores, lambda s: (s > 0.3).mean(axis=(-2, -1)), resamples=2_000, seed=5)
    assert [line.item() for line in profile] == list(share)


# --- probability of improvement ---


def test_probability_of_improvement_by_hand():
    # Task 0: of (1, 3) against (2, 0) three of four pairs are won. Task 1: of (1, 5) against (1, 2) two are,
    # and one is a tie.
    result = probability_of_improvement([[1.0, 1.0], [3.0, 5.0]], [[2.0, 1.0], [0.0, 2.0]])
    assert result.point == (3 / 4 + 2.5 / 4) / 2


def test_probability_of_improvement_identities():
    ours, theirs = random_scores(8, 3), random_scores(11, 3, seed=1).round(1)
    ours[:4] = theirs[:4]  # ties
    there = probability_of_improvement(ours, theirs, resamples=20_000)
    back = probability_of_improvement(theirs, ours, resamples=20_000)
    assert there.point + back.point == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose([there.low, there.high], [1 - back.high, 1 - back.low], atol=0.02)
    assert probability_of_improvement(np.exp(ours), np.exp(theirs)).point == there.point  # order is all
    assert probability_of_improvement(ours, ours).point == 0.5
    assert probability_of_improvement(ours + 99, theirs) == (1.0, 1.0, 1.0)


def test_probability_of_improvement_is_mann_whitney():
    ours, theirs = random_scores(8, 1), random_scores(11, 1, seed=1)
    u = scipy_stats.mannwhitneyu(ours[:, 0], theirs[:, 0]).statistic
    assert probability_of_improvement(ours, theirs).point == pytest.approx(u / 88, abs=1e-12)


def test_coverage_of_the_probability_of_improvement():
    """P(x > y) = Φ(1/√2) for normal scores one apart."""
    truth, repetitions, hits = scipy_stats.norm.cdf(1 / math.sqrt(2)), 200, 0
    for seed in range(repetitions):
        ours, theirs = 1 + random_scores(20, 2, seed), random_scores(20, 2, 1_000 + seed)
        low, high = probability_of_improvement(ours, theirs, resamples=500, seed=seed)[1:]
        hits += low <= truth <= high
    assert within_chance(hits, repetitions, 0.95)


# --- difference of means ---


def test_mean_difference_by_hand():
    ours, theirs = [[1.0, 10.0], [3.0, 20.0]], [[0.0, 2.0], [4.0, 6.0], [2.0, 4.0]]
    assert mean_difference(ours, theirs).point == 8.5 - 3
    # Means of two draws from {0, 1} differ by −1, −1/2, 0, 1/2, 1 with probabilities 1, 4, 6, 4, 1 of 16.
    coins = [[0.0], [1.0]]
    assert mean_difference(coins, coins) == (0.0, -1.0, 1.0)
    assert mean_difference(coins, coins, confidence=0.8) == (0.0, -0.5, 0.5)
    assert mean_difference(coins, coins, confidence=0.2) == (0.0, 0.0, 0.0)
    assert mean_difference(coins, [[5.0]] * 3) == (-4.5, -5.0, -4.0)
    # Any mixture of the tasks would move the means.
    assert mean_difference([[0.0, 100.0]] * 5, [[1.0, 50.0]] * 4) == (24.5, 24.5, 24.5)


def test_mean_difference_identities():
    ours, theirs = random_scores(8, 3), 0.5 + random_scores(11, 3, seed=1)
    there = mean_difference(ours, theirs, seed=3)
    back = mean_difference(theirs, ours, seed=3)
    assert there.low < there.point < there.high
    assert there.point == pytest.approx(mean_score(ours) - mean_score(theirs), abs=1e-12)
    assert there.point == pytest.approx(-back.point, abs=1e-12)
    np.testing.assert_allclose([there.low, there.high], [-back.high, -back.low], atol=0.03)
    np.testing.assert_allclose(
        mean_difference(2 * ours + 7, 2 * theirs, seed=3), 7 + 2 * np.array(there), atol=1e-12
    )
    against_zero = mean_difference(ours, np.zeros((4, 3)))
    np.testing.assert_allclose(against_zero, interval(ours, mean_score), atol=0.02)


def test_mean_difference_is_a_direct_bootstrap():
    """Two tasks of unlike spread, so that resampling the tasks together or the runs across would show."""
    ours, theirs = random_scores(9, 2) * [1.0, 4.0], random_scores(6, 2, seed=1) * [3.0, 1.0] + 2
    generator, draws = np.random.default_rng(5), 20_000
    differences = np.zeros(draws)
    for sign, scores in ((1, ours), (-1, theirs)):
        for column in scores.T:
            drawn = generator.integers(len(column), size=(draws, len(column)))
            differences += sign * column[drawn].mean(axis=1) / 2
    low, high = np.quantile(differences, [0.05, 0.95])
    mine = mean_difference(ours, theirs, confidence=0.9)
    np.testing.assert_allclose((mine.low, mine.high), (low, high), atol=0.04 * (high - low))


# --- rliable ---


@pytest.fixture
def rliable(monkeypatch):
    """rliable's modules. They need only arch.bootstrap, but the whole of arch 7, which rliable 1.2 asks for,
    cannot be imported beside pandas 3: an empty package takes the place of its other parts.
    """
    arch = types.ModuleType("arch")
    arch.__path__ = importlib.util.find_spec("arch").submodule_search_locations
    before = set(sys.modules)
    monkeypatch.setitem(sys.modules, "arch", arch)
    from rliable import library, metrics

    # It draws from NumPy's global generator.
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    yield library, metrics
    np.random.set_state(state)  # noqa: NPY002
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("arch", "rliable"):
            del sys.modules[name]


def test_same_as_rliable(rliable):
    library, metrics = rliable
    ours, theirs = np.exp(random_scores(10, 2)), np.exp(random_scores(12, 2, seed=1))
    thresholds = np.array([0.5, 1.0, 2.0])
    cases = (  # the last: the step between the values a share of runs or pairs can take
        (ours, metrics.aggregate_iqm, interval(ours), 0),
        (ours, metrics.aggregate_mean, interval(ours, mean_score), 0),
        (
            [ours, theirs],
            metrics.probability_of_improvement,
            probability_of_improvement(ours, theirs, resamples=10_000),
            1 / 240,
        ),
        (
            ours,
            lambda scores: library.score_distributions(scores, thresholds),
            performance_profile(ours, thresholds, resamples=10_000),
            1 / 20,
        ),
    )
    for scores, function, mine, step in cases:
        point, ends = library.get_interval_estimates(
            {"": scores},
            lambda *drawn, function=function: np.atleast_1d(function(*drawn)),
            reps=1_000,
        )
        np.testing.assert_allclose(np.atleast_1d(mine.point), point[""], atol=1e-12)
        noise = 0.1 * (ends[""][1] - ends[""][0]) + step  # over four standard errors of an end
        np.testing.assert_array_less(abs(np.atleast_1d(mine.low) - ends[""][0]), noise)
        np.testing.assert_array_less(abs(np.atleast_1d(mine.high) - ends[""][1]), noise)


# --- time to a threshold ---


def test_first_crossing_by_hand():
    times, values = [128, 256, 384, 512], [math.nan, 20.0, 475.0, 100.0]
    assert first_crossing(times, values, 475) == (384.0, True)
    assert first_crossing(times, values, 20) == (256.0, True)
    assert first_crossing(times, values, 475.1) == (512.0, False)
    assert first_crossing(times, [math.nan] * 4, 0) == (512.0, False)


def test_kaplan_meier_by_hand():
    """Four runs: one reaches it at 2, one is lost at 4, one reaches it at 5, one is lost at 8."""
    times, reached = [5.0, 4.0, 2.0, 8.0], [True, False, True, False]
    curve = kaplan_meier(times, reached)
    assert curve.times.tolist() == [0, 2, 4, 5, 8]
    assert curve.at_risk.tolist() == [4, 4, 3, 2, 1]
    assert curve.crossed.tolist() == [0, 1, 0, 1, 0]
    assert curve.survival.point.tolist() == [1, 3 / 4, 3 / 4, 3 / 8, 3 / 8]

    result = time_to_threshold(times, reached)
    assert result.median.point == 5
    assert result.reached.point == 0.5
    assert result.horizon == 8
    assert result.restricted_mean.point == 2 * 1 + 3 * 3 / 4 + 3 * 3 / 8
    # Greenwood: the areas ahead of 2 and 5 are 27/8 and 9/8; t₀.₉₇₅ with 3 degrees of freedom is 3.182.
    variance = ((27 / 8) ** 2 / (4 * 3) + (9 / 8) ** 2 / (2 * 1)) * 4 / 3
    assert result.restricted_mean.low == pytest.approx(5.375 - 3.18245 * math.sqrt(variance), abs=1e-4)
    assert result.restricted_mean.high == 8  # no mean of min(time, 8) is larger
    assert time_to_threshold(times, reached, horizon=3).restricted_mean.point == 2.75


LEUKAEMIA = (  # weeks in remission with 6-mercaptopurine, Freireich et al. (1963); negative: censored
    *(6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35),
)


def test_kaplan_meier_on_the_textbooks_data():
    """Cox & Oakes (1984), table 4.1."""
    weeks = np.array(LEUKAEMIA)
    curve = kaplan_meier(abs(weeks), weeks > 0)
    printed = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    for week, share in printed.items():
        assert curve.survival.point[curve.times == week].item() == pytest.approx(share, abs=5e-4)
    assert time_to_threshold(abs(weeks), weeks > 0).median.point == 23


@pytest.mark.parametrize("seed", range(3))
def test_kaplan_meier_is_scipys(seed):
    generator = np.random.default_rng(seed)
    times, reached = generator.integers(1, 12, 30).astype(float), generator.random(30) < 0.6  # many ties
    curve = kaplan_meier(times, reached)
    theirs = scipy_stats.ecdf(scipy_stats.CensoredData.right_censored(times, ~reached)).sf
    np.testing.assert_allclose(curve.survival.point, theirs.evaluate(curve.times), atol=1e-11)


def test_kaplan_meier_is_statsmodels():
    survfunc = pytest.importorskip("statsmodels.duration.survfunc")
    weeks = np.array(LEUKAEMIA)
    theirs = survfunc.SurvfuncRight(abs(weeks), weeks > 0)
    curve = kaplan_meier(abs(weeks), weeks > 0)
    rows = np.isin(curve.times, theirs.surv_times)
    np.testing.assert_allclose(curve.survival.point[rows], theirs.surv_prob, atol=1e-11)
    assert time_to_threshold(abs(weeks), weeks > 0).median.point == theirs.quantile(0.5)


def test_without_censoring_it_is_the_textbook_of_a_sample():
    times = np.random.default_rng(0).permutation(np.arange(1.0, 11.0))
    reached = np.ones(10, dtype=bool)
    result = time_to_threshold(times, reached)
    # Order statistics 2 and 9: one coin in ten or none shows heads with probability 11/1024 < 0.025.
    assert result.median == (5.0, 2.0, 9.0)
    curve = kaplan_meier(times, reached)
    for left, low, high in zip(range(10, -1, -1), curve.survival.low, curve.survival.high, strict=True):
        expected = scipy_stats.binomtest(left, 10).proportion_ci(0.95, "exact")
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("runs", range(2, 41, 2))
def test_half_of_the_runs_is_exactly_half(runs):
    """A product of rounded quotients can end a little above 1/2, and the median one run too late."""
    times = np.arange(1.0, runs + 1)
    assert time_to_threshold(times, np.ones(runs, dtype=bool)).median.point == runs / 2


def test_equal_budgets_give_students_interval_for_the_restricted_mean():
    times = np.random.default_rng(0).exponential(size=12)
    budget = np.sort(times)[7] + 0.01
    capped, reached = np.minimum(times, budget), times <= budget
    result = time_to_threshold(capped, reached, confidence=0.9)
    expected = scipy_stats.t.interval(0.9, 11, capped.mean(), scipy_stats.sem(capped))
    np.testing.assert_allclose(result.restricted_mean, (capped.mean(), *expected), rtol=1e-9)
    share = scipy_stats.binomtest(8, 12).proportion_ci(0.9, "exact")
    np.testing.assert_allclose(result.reached, (8 / 12, share.low, share.high), rtol=1e-9)


def test_a_median_that_half_of_the_runs_never_reach():
    times, reached = np.array([3.0, 4.0, *[9.0] * 8]), np.arange(10) < 2
    result = time_to_threshold(times, reached)
    assert result.median == (math.inf, 4.0, math.inf)
    assert str(result) == "not reached by half of the runs (by 20% of them)"
    # Dropping the censored runs would have said 3 or 4; calling them reached, 9.
    none = time_to_threshold(np.full(10, 9.0), np.zeros(10, dtype=bool))
    assert none.median == (math.inf, 9.0, math.inf)  # later than anybody looked
    assert none.reached.point == 0
    half = time_to_threshold(np.array([1.0, 2, 3, 4, 5, 9, 9, 9, 9, 9]), np.arange(10) < 5)
    assert half.median == (5.0, 2.0, math.inf)
    assert str(half) == "median 5 [2, inf]"


def test_the_band_widens_as_runs_are_lost():
    times, reached = np.array([1.0] * 9 + [100.0]), np.zeros(10, dtype=bool)
    curve = kaplan_meier(times, reached)
    assert curve.survival.low.tolist() == pytest.approx([0.025**0.1, 0.025, 0.025])  # ten runs, then one
    assert time_to_threshold(times, reached).median.low == 1  # one run to 100 does not say much


def test_few_runs_leave_the_median_open():
    """All five sooner or later than the median: 2/32 is more than 5 %."""
    result = time_to_threshold(np.arange(1.0, 6.0), np.ones(5, dtype=bool))
    assert result.median == (3.0, 0.0, math.inf)


def test_time_to_threshold_ignores_order_and_follows_the_unit():
    weeks = np.array(LEUKAEMIA)
    result = time_to_threshold(abs(weeks), weeks > 0)
    backwards = time_to_threshold(abs(weeks[::-1]), weeks[::-1] > 0)
    assert backwards == result
    days = time_to_threshold(7 * abs(weeks), weeks > 0)
    assert days.reached == result.reached
    np.testing.assert_allclose(days.median, 7 * np.array(result.median))
    np.testing.assert_allclose(days.restricted_mean, 7 * np.array(result.restricted_mean))


def test_coverage_with_unequal_budgets():
    """Exponential times, censored uniformly: the median is ln 2, the mean up to 1 is 1 − 1/e."""
    repetitions, medians, means = 400, 0, 0
    for seed in range(repetitions):
        generator = np.random.default_rng(seed)
        times, budgets = generator.exponential(size=20), 1 + 2 * generator.random(20)
        result = time_to_threshold(np.minimum(times, budgets), times <= budgets, horizon=1.0)
        medians += result.median.low <= math.log(2) <= result.median.high
        means += result.restricted_mean.low <= 1 - math.exp(-1) <= result.restricted_mean.high
    assert medians / repetitions >= 0.93
    assert within_chance(means, repetitions, 0.95)


# --- errors ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval(np.zeros((0, 2))), r"scores has shape \(0, 2\); it must be \[runs, tasks\]"),
        (lambda: interval([1.0, 2.0]), r"scores has shape \(2,\); it must be \[runs, tasks\]"),
        (lambda: interval([[1.0, 2.0]]), "scores has 1 run; an interval needs at least 2"),
        (lambda: interval([[1.0], [math.nan]]), r"scores\[1, 0\] is nan; it must be a finite number"),
        (lambda: iqm([[1.0, math.nan]]), r"scores\[0, 1\] is nan"),
        (lambda: iqm([1.0]), r"scores has shape \(1,\)"),
        (lambda: mean_score([[math.inf]]), r"scores\[0, 0\] is inf"),
        (lambda: interval([[1.0], [2.0]], confidence=95), r"confidence is 95; it must be in \(0, 1\)"),
        (lambda: interval([[1.0], [2.0]], resamples=0), "resamples is 0; it must be"),
        (lambda: interval([[1.0], [2.0]], seed=-1), "seed is -1; it must be"),
        (lambda: performance_profile([[1.0], [2.0]], []), r"thresholds has shape \(0,\)"),
        (lambda: performance_profile([[1.0], [2.0]], 3.0), r"thresholds has shape \(\)"),
        (lambda: probability_of_improvement([[1.0], [2.0]], [[1.0]]), "baseline has 1 run"),
        (lambda: probability_of_improvement([[1.0], [2.0]], [[1.0, 2.0]] * 2), "baseline has 2 tasks"),
        (lambda: mean_difference([[1.0], [2.0]], [[1.0]]), "baseline has 1 run; an interval needs"),
        (lambda: mean_difference([[1.0]], [[1.0], [2.0]]), "scores has 1 run; an interval needs"),
        (
            lambda: mean_difference([[1.0], [2.0]], [[1.0, 2.0]] * 2),
            "baseline has 2 tasks, but scores",
        ),
        (lambda: mean_difference([[1.0], [2.0]], [[1.0], [math.nan]]), r"baseline\[1, 0\] is nan"),
        (lambda: mean_difference([1.0, 2.0], [[1.0], [2.0]]), r"scores has shape \(2,\)"),
        (lambda: mean_difference([[1.0], [2.0]], [[1.0], [2.0]], confidence=95), "confidence is 95"),
        (lambda: first_crossing([], [], 1), r"times has shape \(0,\)"),
        (lambda: first_crossing([1, 2], [1.0], 1), r"values has shape \(1,\), but times have \(2,\)"),
        (lambda: first_crossing([2, 1], [1.0, 1.0], 1), r"times\[1\] is 1.0, after 2.0"),
        (lambda: first_crossing([1], [1.0], math.nan), "threshold is nan"),
        (lambda: kaplan_meier([], np.array([], bool)), r"times has shape \(0,\)"),
        (lambda: kaplan_meier([1.0, math.inf], [True, False]), r"times\[1\] is inf"),
        (lambda: kaplan_meier([1.0, 0.0], [True, False]), r"times\[1\] is 0.0; it must be greater than 0"),
        (lambda: kaplan_meier([1.0, 2.0], [1, 0]), r"reached is int64 \(2,\); it must be bool \(2,\)"),
        (lambda: kaplan_meier([1.0, 2.0], [True]), r"reached is bool \(1,\); it must be bool \(2,\)"),
        (lambda: kaplan_meier([1.0], [True], confidence=1.0), "confidence is 1.0"),
        (lambda: time_to_threshold([1.0], [True]), "times has 1 run; an interval needs at least 2"),
        (lambda: time_to_threshold([1.0, 2.0], [True, False], horizon=3), "horizon is 3.0; it must be"),
        (lambda: time_to_threshold([1.0, 2.0], [True, True], horizon=math.inf), "horizon is inf"),
        (lambda: time_to_threshold([1.0, 2.0], [True, True], horizon=0), "horizon is 0.0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_horizon_behind_the_last_run_adds_nothing():
    result = time_to_threshold([1.0, 3.0], [True, True], horizon=10)
    assert result.restricted_mean.point == 2


def test_results_are_plain_numbers():
    for numbers in (
        interval(random_scores()),
        mean_difference(random_scores(), random_scores()),
        time_to_threshold([1.0, 2.0], [True, False]).median,
    ):
        assert isinstance(numbers, Interval)
        assert all(type(number) is float for number in numbers)


def test_the_package_does_not_import_them():
    code = "import policyopt, sys; print([n for n in sys.modules if n in ('scipy', 'policyopt.experiments')])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
