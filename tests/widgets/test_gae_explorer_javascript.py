"""The GAE explorer's JavaScript, run by Node, against ``policyopt.returns`` and ``policyopt.tabular``."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.envs import GridWorld
from policyopt.returns import gae, td_errors
from policyopt.tabular import action_values, policy_evaluation, tabular_model
from policyopt.widgets import GAEExplorer

ANSWER = """
const run = {
  episodes: ({ episode, gamma, lambda }) => {
    const arrays = page.episodeArrays(episode);
    return [page.tdErrors(...arrays.slice(0, 4), gamma), page.gae(...arrays, gamma, lambda)];
  },
};
const answer = ([name, ...given]) => (run[name] ?? page[name])(...given);
"""
CHAIN = GAEExplorer().chain
CRITICS = [critic["name"] for critic in CHAIN["critics"]]
GAMMAS = [0, 0.3, 0.9, 0.95, 0.99, 1]
in_node = partial(run_figure, "gae_explorer", ANSWER)


def close(expected, tolerance=1e-9):
    return pytest.approx(np.asarray(expected), abs=tolerance, rel=tolerance)


def test_td_errors_and_gae_of_arrays_with_ends_in_the_middle():
    random = np.random.default_rng(0)
    cases, expected = [], []
    for _ in range(60):
        steps = int(random.integers(1, 30))
        gamma, lam = random.choice([0, 0.5, 0.9, 0.95, 0.99, 1], size=2).tolist()
        rewards, values, next_values = random.normal(scale=3, size=(3, steps))
        terminated, truncated = random.random((2, steps)) < 0.15
        arrays = [array.tolist() for array in (rewards, values, next_values, terminated, truncated)]
        cases += [["tdErrors", *arrays[:4], gamma], ["gae", *arrays, gamma, lam]]
        columns = [
            torch.from_numpy(array)[:, None]
            for array in (rewards, values, next_values, terminated, truncated)
        ]
        expected += [td_errors(*columns[:4], gamma)[:, 0], gae(*columns, gamma, lam)[:, 0]]
    for page, library in zip(in_node(*cases), expected, strict=True):
        assert np.array(page) == close(library)


def library_gae(episode, gamma, lam):
    def column(values):
        return torch.tensor(values, dtype=torch.float64)[:, None]

    last = [False] * (len(episode["rewards"]) - 1)
    terminated, truncated = (
        torch.tensor([*last, flag])[:, None] for flag in (episode["terminated"], not episode["terminated"])
    )
    rewards, values = column(episode["rewards"]), column(episode["values"])
    return gae(rewards, values[:-1], values[1:], terminated, truncated, gamma, lam)[:, 0]


def test_the_recorded_episodes():
    settings = list(itertools.product(GAEExplorer().episodes, GAMMAS, (0, 0.5, 0.9, 1)))
    pages = in_node(*(["episodes", {"episode": e, "gamma": g, "lambda": lam}] for e, g, lam in settings))
    for (episode, gamma, lam), (deltas, advantages) in zip(settings, pages, strict=True):
        assert np.array(advantages) == close(library_gae(episode, gamma, lam))
        assert np.array(deltas) == close(library_gae(episode, gamma, 0.0))


def test_an_episode_by_hand():
    """γ = 1/2, λ = 1/2: δ = (1 + 2 − 2, 1 + v/2 − 4), and v counts only where the episode is cut off."""
    episode = {"rewards": [1, 1], "values": [2, 4, 8], "terminated": True}
    cut = {**episode, "terminated": False}
    ended, cut_off = in_node(
        *(["episodes", {"episode": case, "gamma": 0.5, "lambda": 0.5}] for case in (episode, cut))
    )
    assert ended == [[1, -3], [0.25, -3]]
    assert cut_off == [[1, 1], [1.25, 1]]


def test_both_groupings_sum_to_the_same_advantage():
    random = np.random.default_rng(1)
    drawn, cases = [], []
    for _ in range(25):
        steps = int(random.integers(1, 20))
        rewards, values = random.normal(size=steps), random.normal(size=steps + 1)
        ended = bool(random.random() < 0.5)
        episode = {"rewards": rewards.tolist(), "values": values.tolist(), "terminated": ended}
        gamma, lam = random.choice([0, 0.4, 0.95, 1], size=2).tolist()
        t = int(random.integers(steps))
        deltas = library_gae(episode, gamma, 0.0).tolist()
        drawn.append((rewards, values, ended, gamma, t, deltas, library_gae(episode, gamma, lam)[t]))
        cases += [
            ["tdWeights", steps - t, gamma, lam],
            ["nStepWeights", steps - t, lam],
            ["nStepAdvantages", deltas, gamma, t],
        ]
    pages = iter(in_node(*cases))
    for rewards, values, ended, gamma, t, deltas, expected in drawn:
        td, n_step, terms = next(pages), next(pages), next(pages)
        assert np.dot(td, deltas[t:]) == close(expected)
        assert np.dot(n_step, terms) == close(expected)
        assert sum(n_step) == close(1)
        for n, term in enumerate(terms, start=1):  # r_t + … + γⁿ V(s_{t+n}) − V(s_t), and no V after the end
            value = 0.0 if ended and t + n == len(rewards) else values[t + n]
            summed = sum(gamma**k * rewards[t + k] for k in range(n))
            assert term == close(summed + gamma**n * value - values[t])


def test_weights_by_hand():
    td, n_step, zero, one = in_node(
        ["tdWeights", 3, 0.5, 0.5], ["nStepWeights", 3, 0.5], ["nStepWeights", 3, 0], ["nStepWeights", 3, 1]
    )
    assert td == [1, 0.25, 0.0625]
    assert n_step == [0.5, 0.25, 0.25]
    assert (zero, one) == ([1, 0, 0], [0, 0, 1])


def corridor():
    env = GridWorld([CHAIN["cells"]], slip=0.2)
    return tabular_model(env), torch.tensor([[0, 0.65, 0, 0.35]] * len(CHAIN["cells"]), dtype=torch.float64)


def test_true_values_and_advantage():
    model, policy = corridor()
    pages = in_node(*([name, CHAIN, gamma] for gamma in GAMMAS for name in ("trueValues", "trueAdvantage")))
    for number, gamma in enumerate(GAMMAS):
        values = policy_evaluation(model, policy, gamma)
        advantage = action_values(model, values, gamma)[CHAIN["start"], 1] - values[CHAIN["start"]]
        assert np.array(pages[2 * number]) == close(values)
        assert pages[2 * number + 1] == close(advantage)


def enumerated(values, gamma, lam, longest=400):
    """Mean and variance of Â_0 from the distribution over all paths, kept as sums a cell and step.

    Carried forwards: the probability of being in a cell, and the first two moments of what is summed so far.
    """
    transitions, rewards = np.array(CHAIN["transitions"]), np.array(CHAIN["rewards"])
    size = len(rewards)
    weight, first, second = np.zeros((3, size))
    mean = square = 0.0
    row, decay = np.array(CHAIN["first"]), 1.0
    weight[CHAIN["start"]] = 1
    chain = np.zeros((size, size))
    chain[CHAIN["start"]] = row
    for _ in range(longest):
        added = decay * (rewards + gamma * values - values[:, None])  # [S, S']
        flow = weight[:, None] * chain
        new_first = (first[:, None] * chain + flow * added).sum(axis=0)
        new_second = (second[:, None] * chain + 2 * first[:, None] * chain * added + flow * added**2).sum(
            axis=0
        )
        weight, first, second = flow.sum(axis=0), new_first, new_second
        for end in (0, size - 1):
            mean, square = mean + first[end], square + second[end]
            weight[end] = first[end] = second[end] = 0
        chain, decay = transitions, decay * gamma * lam
    return mean, square - mean**2


def test_bias_and_variance_are_exact():
    settings = list(itertools.product(CRITICS, (0.5, 0.95, 1), (0, 0.3, 0.9, 1)))
    pages = iter(
        in_node(
            *(
                call
                for critic, gamma, lam in settings
                for call in (
                    ["criticValues", CHAIN, gamma, critic],
                    ["trueAdvantage", CHAIN, gamma],
                    ["errorParts", CHAIN, gamma, critic, lam],
                )
            )
        )
    )
    for _, gamma, lam in settings:
        values, truth, parts = next(pages), next(pages), next(pages)
        mean, variance = enumerated(np.array(values), gamma, lam)
        assert parts["variance"] == close(variance)
        assert parts["bias2"] == close((mean - truth) ** 2)
        assert parts["sum"] == close(parts["bias2"] + parts["variance"])


@pytest.mark.parametrize("gamma", [0.9, 0.95, 1])
def test_the_better_the_critic_the_smaller_the_best_lambda(gamma):
    trades = in_node(*(["tradeOff", CHAIN, gamma, critic] for critic in CRITICS))
    perfect, little, badly = (trade["best"]["lambda"] for trade in trades)
    assert perfect == 0
    assert 0.4 < little < badly < 1
    for trade, biased in zip(trades, (False, True, True), strict=True):
        bias = [point["bias2"] for point in trade["points"]]
        assert (max(bias) > 1e-20) == biased
        assert bias[-1] < 1e-20  # λ = 1 asks the critic only about the first state, where it is right


@pytest.mark.parametrize("critic", CRITICS)
def test_estimates_of_the_recorded_episodes(critic):
    gamma, lam = 0.95, 0.8
    [values] = in_node(["criticValues", CHAIN, gamma, critic])
    samples, parts = in_node(
        ["estimates", CHAIN, values, gamma, lam], ["errorParts", CHAIN, gamma, critic, lam]
    )
    for sample, text in zip(samples, CHAIN["episodes"], strict=True):
        cells = [int(cell) for cell in text]
        episode = {
            "rewards": [CHAIN["rewards"][cell] for cell in cells[1:]],
            "values": [values[cell] for cell in cells],
            "terminated": True,
        }
        assert sample == close(library_gae(episode, gamma, lam)[0])
    [stats] = in_node(["meanAndDeviation", samples])
    assert (stats["mean"], stats["deviation"]) == close((np.mean(samples), np.std(samples)))
    assert stats["deviation"] == pytest.approx(np.sqrt(parts["variance"]), rel=0.25)


def test_scales_end_on_numbers_that_read_well():
    assert in_node(*(["roundUp", x] for x in (0, 1, 1.1, 16.2, 0.023, 0.7, 8.5))) == close(
        [0, 1, 1.2, 20, 0.025, 0.8, 10]
    )
