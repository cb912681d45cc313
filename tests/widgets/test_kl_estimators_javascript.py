"""The arithmetic of *KL estimators*, run by Node, against ``policyopt.losses``, quadrature and autograd."""

import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure
from scipy import stats

from policyopt.losses import kl_k1, kl_k2, kl_k3

ANSWER = """
const answer = ({ call, args }) => {
  const value = page[call](...args);
  return JSON.parse(JSON.stringify(value, (key, one) => (one === Infinity ? "infinite" : one)));
};
"""
ESTIMATORS = (kl_k1, kl_k2, kl_k3)
SAME = {"shift": 0.0, "spread": 1.0}
X = np.linspace(-40, 40, 16_001)  # for the trapezoidal rule, far more exact here than any tolerance below
P = stats.norm.pdf(X)
in_node = partial(run_figure, "kl_estimators", ANSWER)


def ask(call, *cases):
    return in_node(*({"call": call, "args": list(args)} for args in cases))


@pytest.fixture(scope="module")
def pairs():
    """Settings with k3's variance finite: grid points, edges, and draws."""
    random = np.random.default_rng(0)
    drawn = np.column_stack([random.uniform(0, 3, 60), random.uniform(0.5, 1.3, 60)])
    grid = [(d, s) for d in (0, 0.05, 1, 3) for s in (0.5, 0.95, 1, 1.05, 1.3)]
    return [{"shift": float(d), "spread": float(s)} for d, s in [*grid, *drawn]]


@pytest.fixture(scope="module")
def wide():
    return [{"shift": d, "spread": s} for d in (0.0, 0.7, 3.0) for s in (math.sqrt(2), 1.45, 2.0)]


def log_ratio(pair):
    return stats.norm.logpdf(X, pair["shift"], pair["spread"]) - stats.norm.logpdf(X)


def under_p(values):
    return float(np.trapezoid(values, X))


def samples_of(pair):
    """Each estimator times p, and its square times p, over X; k3's are multiplied out, as q/p overflows."""
    ratio = log_ratio(pair)
    q = stats.norm.pdf(X, pair["shift"], pair["spread"])
    q_over_p_squared_p = np.exp(2 * ratio + stats.norm.logpdf(X))
    first = [-ratio * P, ratio**2 / 2 * P, q - P - ratio * P]
    second = [
        ratio**2 * P,
        ratio**4 / 4 * P,
        q_over_p_squared_p - 2 * q * (1 + ratio) + P * (1 + ratio) ** 2,
    ]
    return first, second


def pushes_of(pair):
    ratio = log_ratio(pair)
    q = stats.norm.pdf(X, pair["shift"], pair["spread"])
    squared = np.exp(2 * ratio + stats.norm.logpdf(X))
    first = [-X * P, X * ratio * P, X * (q - P)]
    second = [X**2 * P, X**2 * ratio**2 * P, X**2 * (squared - 2 * q + P)]
    return first, second


def test_estimates_are_the_librarys():
    ratios = [*np.random.default_rng(1).normal(0, 2, 200), 0.0, 1e-9, -1e-9, 5.0, -50.0]
    page = np.array(ask("estimates", *([float(ratio)] for ratio in ratios)))
    log_ratios = torch.tensor(ratios, dtype=torch.float64)
    expected = torch.stack([k(log_ratios) for k in ESTIMATORS], dim=1).numpy()
    assert page == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_estimates_by_hand():
    [page] = ask("estimates", [math.log(2)])
    assert page == pytest.approx([-math.log(2), math.log(2) ** 2 / 2, 1 - math.log(2)])


def test_log_ratio_is_log_q_minus_log_p(pairs, wide):
    places = [-3.2, -1.0, 0.0, 0.4, 2.5]
    page = ask("logRatio", *((x, pair) for pair in [*pairs, *wide] for x in places))
    expected = [
        stats.norm.logpdf(x, pair["shift"], pair["spread"]) - stats.norm.logpdf(x)
        for pair in [*pairs, *wide]
        for x in places
    ]
    assert page == pytest.approx(expected, abs=1e-9)


def test_divergences_are_torchs(pairs, wide):
    every = [*pairs, *wide]
    forward = ask("divergence", *([pair] for pair in every))
    reverse = ask("reverseDivergence", *([pair] for pair in every))
    for pair, one, other in zip(every, forward, reverse, strict=True):
        p = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
        q = torch.distributions.Normal(torch.tensor(pair["shift"], dtype=torch.float64), pair["spread"])
        assert one == pytest.approx(float(torch.distributions.kl_divergence(p, q)), abs=1e-9)
        assert other == pytest.approx(float(torch.distributions.kl_divergence(q, p)), abs=1e-9)


@pytest.mark.parametrize("view", ["value", "gradient"])
def test_means_and_deviations_are_those_of_quadrature(pairs, view):
    for pair, page in zip(pairs, ask("exact", *((pair, view) for pair in pairs)), strict=True):
        first, second = (samples_of if view == "value" else pushes_of)(pair)
        for row, one, two in zip(page["rows"], first, second, strict=True):
            mean, square = under_p(one), under_p(two)
            assert row["mean"] == pytest.approx(mean, rel=1e-9, abs=1e-9), pair
            variance = square - mean**2
            assert row["deviation"] ** 2 == pytest.approx(variance, rel=1e-7, abs=1e-9), pair


@pytest.mark.parametrize("view", ["value", "gradient"])
def test_k3_has_a_mean_but_no_variance_once_q_is_wide(wide, view):
    for pair, page in zip(wide, ask("exact", *((pair, view) for pair in wide)), strict=True):
        first, second = (samples_of if view == "value" else pushes_of)(pair)
        assert [row["mean"] for row in page["rows"]] == pytest.approx(list(map(under_p, first)), abs=1e-9)
        assert page["rows"][2]["deviation"] == "infinite"
        assert page["rows"][1]["deviation"] ** 2 == pytest.approx(
            under_p(second[1]) - under_p(first[1]) ** 2, rel=1e-9
        )
        inside = np.abs(X) <= 20
        assert under_p(second[2]) > 1.5 * under_p(np.where(inside, second[2], 0))  # it grows with the range
    assert ask("isHeavy", [{"spread": 1.41421}], [{"spread": math.sqrt(2)}]) == [False, True]


def test_known_numbers_of_equal_spreads():
    """With spreads of 1 the log-ratio is normal with mean −d²/2 and variance d²."""
    [page] = ask("exact", [{"shift": 1, "spread": 1}, "value"])
    assert page["truth"] == 0.5
    assert [row["mean"] for row in page["rows"]] == pytest.approx([0.5, 0.625, 0.5])
    deviations = [1, math.sqrt(3) / 2, math.sqrt(math.e - 2)]
    assert [row["deviation"] for row in page["rows"]] == pytest.approx(deviations)
    [same] = ask("exact", [SAME, "value"])
    assert same == {"truth": 0, "rows": [{"mean": 0, "deviation": 0}] * 3}


def test_k3_is_quiet_near_and_noisy_far():
    near, far = ask("exact", [{"shift": 0.3, "spread": 1}, "value"], [{"shift": 3, "spread": 1}, "value"])
    deviations = [[row["deviation"] for row in page["rows"]] for page in (near, far)]
    assert deviations[0][2] < deviations[0][0] / 4
    assert deviations[1][2] > 25 * deviations[1][0]
    assert abs(near["rows"][1]["mean"] / near["truth"] - 1) < 0.03
    assert far["rows"][1]["mean"] > 3 * far["truth"]


def test_pushes_are_minus_autograds_gradients(pairs):
    """Of each estimator with respect to p's mean, the samples held fixed: what a loss with it computes."""
    xs = torch.tensor([-2.3, -0.4, 0.0, 0.7, 1.9], dtype=torch.float64)
    some = pairs[::4]
    places = [(float(x), pair) for pair in some for x in xs]
    ratios = ask("logRatio", *places)
    page = ask("pushes", *((x, ratio) for (x, _), ratio in zip(places, ratios, strict=True)))
    page = np.array(page).reshape(len(some), len(xs), 3)
    for pair, mine in zip(some, page, strict=True):
        q = torch.distributions.Normal(torch.tensor(pair["shift"], dtype=torch.float64), pair["spread"])
        for number, k in enumerate(ESTIMATORS):
            mean = torch.zeros((), dtype=torch.float64, requires_grad=True)
            estimate = k(q.log_prob(xs) - torch.distributions.Normal(mean, 1.0).log_prob(xs)).mean()
            [gradient] = torch.autograd.grad(estimate, mean)
            assert mine[:, number].mean() == pytest.approx(-float(gradient), abs=1e-9)


def test_expected_pushes_are_those_of_nothing_and_of_both_divergences(pairs, wide):
    every = [*pairs, *wide]
    for pair, page in zip(every, ask("exact", *((pair, "gradient") for pair in every)), strict=True):
        mean = torch.zeros((), dtype=torch.float64, requires_grad=True)
        p = torch.distributions.Normal(mean, torch.ones((), dtype=torch.float64))
        q = torch.distributions.Normal(torch.tensor(pair["shift"], dtype=torch.float64), pair["spread"])
        gradients = [
            -float(torch.autograd.grad(torch.distributions.kl_divergence(*order), mean)[0])
            for order in ((p, q), (q, p))
        ]
        assert page["truth"] == pytest.approx(gradients[0], abs=1e-9)
        assert [row["mean"] for row in page["rows"]] == pytest.approx([0, *gradients], abs=1e-9)


def test_share_of_samples_with_negative_k1(pairs, wide):
    every = [*pairs, *wide]
    shares = ask("negativeShare", *([pair] for pair in every))
    for pair, share in zip(every, shares, strict=True):
        if pair == SAME:
            assert share == 0
            continue
        at = np.array([-1.0, 0.0, 1.0])
        ratio = stats.norm.logpdf(at, pair["shift"], pair["spread"]) - stats.norm.logpdf(at)
        square, slope = (ratio[0] + ratio[2]) / 2 - ratio[1], (ratio[2] - ratio[0]) / 2
        if pair["spread"] == 1:
            expected = stats.norm.sf(-ratio[1] / slope)
        else:
            between = np.ptp(stats.norm.cdf(np.roots([square, slope, ratio[1]])))
            expected = 1 - between if square > 0 else between
        assert share == pytest.approx(expected, abs=1e-9), pair
    equal = ask("negativeShare", *([{"shift": d, "spread": 1}] for d in (0.1, 1, 3)))
    assert equal == pytest.approx(stats.norm.cdf([-0.05, -0.5, -1.5]), abs=1e-9)
    nearly = ask("negativeShare", *([{"shift": d, "spread": 1 + 1e-8}] for d in (0.1, 1, 3)))
    assert nearly == pytest.approx(equal, abs=1e-6)
    [symmetric] = ask("negativeShare", [{"shift": 0, "spread": 2}])
    assert symmetric == pytest.approx(2 * stats.norm.sf(math.sqrt(8 / 3 * math.log(2))), abs=1e-9)


def test_normal_cdf():
    places = [-12, -8, -3, -0.5, 0, 1e-3, 1.96, 9, 40]
    assert ask("normalCdf", *([x] for x in places)) == pytest.approx(stats.norm.cdf(places), abs=1e-9)


def test_summary_of_values():
    values = [3.0, -1.0, 4.0, 1.0, 5.0]
    none, one, many = ask("summarise", [[]], [[2.5]], [values])
    assert none == {"count": 0, "mean": None, "error": None}
    assert one == {"count": 1, "mean": 2.5, "error": None}
    assert many == {
        "count": 5,
        "mean": pytest.approx(np.mean(values)),
        "error": pytest.approx(stats.sem(values)),
    }


def test_axis_shows_zero_and_the_truth_at_every_setting(pairs, wide):
    cases = [(pair, view) for pair in [*pairs, *wide] for view in ("value", "gradient")]
    truths = [page["truth"] for page in ask("exact", *cases)]
    for truth, (low, high) in zip(truths, ask("axisRange", *cases), strict=True):
        assert low < min(0, truth)
        assert high > truth


def test_ticks_are_round_and_few():
    for low, high in [(-0.2, 0.25), (-2.7, 4.5), (0, 300), (-33, 71), (-1e-3, 2e-3)]:
        [ticks] = ask("ticksOf", [[low, high], 6])
        places = np.array([tick["at"] for tick in ticks])
        assert 2 <= len(places) <= 7
        assert ((places >= low) & (places <= high)).all()
        step = np.diff(places).mean()
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5)
        words = [float(tick["words"].replace("−", "-")) for tick in ticks]
        assert words == pytest.approx(places, abs=1e-9)


def test_numbers_have_about_three_figures():
    written = ask("figures", [0.04567], [-0.5], [1.234], [-45.67], [456.7], [99_949], [1.5e48])
    assert written == ["0.046", "−0.500", "1.23", "−45.7", "457", "99949", "10⁴⁸"]


@pytest.mark.parametrize(
    ("shift", "spread", "view", "words"),
    [
        (0, 1, "value", "every sample gives exactly 0"),
        (0.3, 1, "value", "p and q are close. k₁ is right on average, but 44 % of its values are below 0"),
        (1, 1, "value", "^k₁ is right .* 31 % .* 2.00 times the KL.* 15 % smaller. k₂ is biased by 25 % of"),
        (1.1, 1, "value", "its standard deviation is 3 % smaller"),
        (1.15, 1, "value", "noisier than k₁: its standard deviation is 1.20 against 1.15"),
        (0, 1.2, "value", "k₂ is biased by −20 % of the KL"),
        (3, 1, "value", "noisier than k₁: its standard deviation is 90.0 against 3.00.* only 1 time in 741,"),
        (0, 1.4, "value", "noisier than k₁.* a rare sample counts for very much"),
        (3, 1.4, "value", "its standard deviation is 10⁴⁹ against"),
        (3, 1.4142, "value", r"its standard deviation is > 10¹⁵⁰ against"),
        (1, 1.45, "value", "its variance is infinite"),
        (0, 1, "gradient", "no push is due"),
        (1, 1, "gradient", "k₂ pushes by 1.00, .*; k₃ by 1.00, .*; with equal spreads both are the same.$"),
        (1, 1.25, "gradient", r"k₁ is only noise.* k₂ pushes by 0.640, .*; k₃ by 1.00, the .*KL\(q ‖ p\).$"),
        (1, 2, "gradient", "k₂ pushes by 0.250, .* and its variance is infinite"),
    ],
)
def test_sentence_about_the_setting(shift, spread, view, words):
    [sentence] = ask("verdict", [{"shift": shift, "spread": spread}, view])
    assert re.search(words, sentence), sentence


def test_without_a_sample_beyond_q_k3_is_too_low(pairs):
    """Which the sentence says where the distance is at least 1.5."""
    far = [pair for pair in pairs if pair["shift"] >= 1.5]
    assert len(far) > 20
    for pair, kl in zip(far, ask("divergence", *([pair] for pair in far)), strict=True):
        third, weight = samples_of(pair)[0][2], P.copy()
        third[pair["shift"] < X] = weight[pair["shift"] < X] = 0
        third = under_p(third) / under_p(weight)
        assert third < kl


def test_handles_stand_on_q():
    width = 700
    [(peak, ring)] = ask("handles", [{"shift": 1.5, "spread": 2}, width])
    assert (peak["name"], ring["name"]) == ("shift", "spread")
    assert ask("xAt", [peak["at"][0], width], [ring["at"][0], width]) == pytest.approx([1.5, 3.5])
    assert ask("xOf", [1.5, width]) == pytest.approx([peak["at"][0]])
    base = 168
    height = (base - ring["at"][1]) / (base - peak["at"][1])
    assert height == pytest.approx(math.exp(-0.5))
