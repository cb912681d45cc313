"""*Policy gradient on a bandit*: the page's arithmetic, run by Node, against ``policyopt`` and autograd."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.algorithms.reinforce import ReinforceConfig
from policyopt.losses import policy_gradient
from policyopt.tabular import TabularModel, exact_policy_gradient

ANSWER = """
const answer = ({ call, args, settings, seed, count }) => {
  if (call !== "run" && call !== "trace") return page[call](...args);
  const uniform = page.randomStream(seed);
  const trace = [page.newRun()];
  for (let i = 0; i < count; i++) trace.push(page.sampledStep(trace.at(-1), settings, uniform));
  return call === "run" ? trace.at(-1) : trace;
};
"""
BASELINES = ("none", "mean", "value")
in_node = partial(run_figure, "bandit", ANSWER)


def call(name, *args):
    return {"call": name, "args": args}


def softmax(logits):
    return torch.tensor(logits, dtype=torch.float64).softmax(-1).tolist()


def settings(**changes):
    means = {"rewards": [1.0, 0.5, 0.0], "noise": 0.5, "learningRate": 0.1, "baseline": "none", "batch": 1}
    return means | changes


@pytest.fixture(scope="module")
def problems():
    """Random logits and mean rewards, some of them extreme."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 3)) * rng.choice([0.1, 1, 5], size=(200, 1))
    rewards = rng.normal(size=(200, 3)) + rng.choice([-5, 0, 5], size=(200, 1))
    return list(zip(logits.tolist(), rewards.tolist(), strict=True))


def test_exact_gradient_is_that_of_the_tabular_model_and_of_autograd(problems):
    page = in_node(*(call("exactGradient", softmax(logits), rewards) for logits, rewards in problems))
    for ours, (logits, rewards) in zip(page, problems, strict=True):
        model = TabularModel(np.zeros((1, 3, 1)), np.array([rewards]), np.ones(1))
        expected = exact_policy_gradient(model, np.array([logits]), gamma=1.0)[0]
        theta = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        (theta.softmax(-1) @ torch.tensor(rewards, dtype=torch.float64)).backward()
        assert ours == pytest.approx(expected.tolist(), abs=1e-12)
        assert ours == pytest.approx(theta.grad.tolist(), abs=1e-12)


def test_exact_gradient_by_hand_and_whatever_the_offset():
    uniform = [1 / 3] * 3
    plain, lifted = in_node(
        call("exactGradient", uniform, [1, 0.5, 0]), call("exactGradient", uniform, [6, 5.5, 5])
    )
    assert plain == pytest.approx([1 / 6, 0, -1 / 6], abs=1e-15)
    assert lifted == pytest.approx(plain, abs=1e-14)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_estimate_is_the_gradient_of_the_objective(problems, batch):
    rng = np.random.default_rng(batch)
    cases, expected = [], []
    for logits, _ in problems[:50]:
        arms, rewards, baseline = rng.integers(3, size=batch), rng.normal(size=batch) * 5, rng.normal()
        samples = [{"arm": int(a), "reward": float(r)} for a, r in zip(arms, rewards, strict=True)]
        cases.append(call("estimateGradient", softmax(logits), samples, baseline))
        theta = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        log_probs = theta.log_softmax(-1)[torch.tensor(arms)]
        policy_gradient(log_probs, torch.tensor(rewards - baseline)).mean().backward()
        expected.append(theta.grad.tolist())
    for ours, theirs in zip(in_node(*cases), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_every_baseline_leaves_the_mean_of_the_estimates_exact(problems):
    run = {"mean": 3.7}
    for kind in BASELINES:
        cases = []
        for logits, rewards in problems[:30]:
            pi = softmax(logits)
            b = {"none": 0.0, "mean": run["mean"], "value": float(np.dot(pi, rewards))}[kind]
            cases.append(call("baselineOf", kind, run, pi, rewards))
            cases.append(call("exactGradient", pi, rewards))
            cases += [
                call("estimateGradient", pi, [{"arm": arm, "reward": rewards[arm]}], b) for arm in range(3)
            ]
        answers = iter(in_node(*cases))
        for logits, rewards in problems[:30]:
            pi = np.array(softmax(logits))
            expected = {"none": 0.0, "mean": 3.7, "value": pi @ rewards}[kind]
            assert next(answers) == pytest.approx(expected, abs=1e-12)
            exact = next(answers)
            estimates = np.array([next(answers) for _ in range(3)])
            assert pi @ estimates == pytest.approx(np.array(exact), abs=1e-12)


def test_deviation_is_that_of_a_large_sample():
    rng = np.random.default_rng(3)
    logits, rewards, noise = np.array([0.4, -0.3, 0.1]), np.array([6.0, 5.5, 5.0]), 0.7
    pi = np.array(softmax(logits.tolist()))
    for baseline, batch in [(0.0, 1), (float(pi @ rewards), 1), (3.0, 4)]:
        [deviation] = in_node(
            call("estimateDeviation", pi.tolist(), rewards.tolist(), noise, baseline, batch)
        )
        arms = rng.choice(3, p=pi, size=(200_000, batch))
        weights = rewards[arms] + noise * rng.normal(size=arms.shape) - baseline
        estimates = (weights[..., None] * (np.eye(3)[arms] - pi)).mean(axis=1)
        assert deviation == pytest.approx(np.sqrt(estimates.var(axis=0).sum()), rel=0.01)


def test_deviation_by_hand():
    # two arms: the score of either is ±1/2 in both components, the rewards are 3 and 1
    plain, centred, batch, certain = in_node(
        call("estimateDeviation", [0.5, 0.5, 0], [3, 1, 0], 0, 0, 1),
        call("estimateDeviation", [0.5, 0.5, 0], [3, 1, 0], 1, 2, 1),
        call("estimateDeviation", [0.5, 0.5, 0], [3, 1, 0], 1, 2, 16),
        call("estimateDeviation", [1, 0, 0], [3, 1, 0], 1, 0, 1),
    )
    assert plain == pytest.approx(np.sqrt(0.5 * (9 + 1) / 2 - 0.5))
    assert centred == pytest.approx(np.sqrt(0.5 * (1 + 1) - 0.5))
    assert batch == pytest.approx(centred / 4)
    assert certain == 0


def test_triangle():
    top, left, right, middle = in_node(
        *(call("simplexPoint", pi) for pi in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1 / 3] * 3))
    )
    assert (left, right) == ([0, 0], [1, 0])
    assert top == pytest.approx([0.5, np.sqrt(3) / 2])
    assert middle == pytest.approx([0.5, np.sqrt(3) / 6])


def test_nearest_corner_is_that_of_the_likeliest_arm_and_a_tie_is_nobodys():
    logits = [[0, 0, 0], [1, 1, 0], [0, 2, 1], [-1, -3, -2], [-1, 0, 2], [-5, 3, 1]]
    [counts] = in_node(call("nearestCorners", [{"logits": one} for one in logits]))
    assert counts == [1, 2, 1]


def test_velocity_is_the_derivative_of_the_policy(problems):
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(50, 3))
    pairs = list(zip(problems[:50], directions, strict=True))
    page = in_node(*(call("policyVelocity", softmax(p[0]), v.tolist()) for p, v in pairs))
    for ours, ((logits, _), direction) in zip(page, pairs, strict=True):
        theta, v = torch.tensor(logits, dtype=torch.float64), torch.tensor(direction)
        expected = torch.autograd.functional.jacobian(lambda z: z.softmax(-1), theta) @ v
        assert ours == pytest.approx(expected.tolist(), abs=1e-12)
        assert sum(ours) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_run_follows_the_equations(baseline, batch):
    chosen = settings(rewards=[6.0, 5.5, 5.0], baseline=baseline, batch=batch, learningRate=0.2)
    [trace] = in_node({"call": "trace", "settings": chosen, "seed": 5, "count": 40})
    decay = ReinforceConfig().mean_decay
    assert trace[0] == {"logits": [0, 0, 0], "mean": 0, "step": 0, "last": None}
    for step, (before, after) in enumerate(pairwise(trace), start=1):
        last, pi = after["last"], np.array(softmax(before["logits"]))
        rewards = np.array([sample["reward"] for sample in last["samples"]])
        arms = [sample["arm"] for sample in last["samples"]]
        b = {"none": 0.0, "mean": before["mean"], "value": pi @ chosen["rewards"]}[baseline]
        gradient = ((rewards - b)[:, None] * (np.eye(3)[arms] - pi)).mean(axis=0)
        assert len(arms) == batch
        assert (after["step"], last["from"]) == (step, before["logits"])
        assert last["baseline"] == pytest.approx(b, abs=1e-12)
        assert last["gradient"] == pytest.approx(gradient, abs=1e-12)
        assert after["logits"] == pytest.approx(np.array(before["logits"]) + 0.2 * gradient, abs=1e-12)
        mean = decay * before["mean"] + (1 - decay) * rewards.mean()
        assert after["mean"] == pytest.approx(mean, abs=1e-12)


def test_samples_have_the_policys_and_the_rewards_distribution():
    still = settings(learningRate=0.0, batch=16)
    [trace] = in_node({"call": "trace", "settings": still, "seed": 1, "count": 1000})
    samples = [sample for run in trace[1:] for sample in run["last"]["samples"]]
    arms = np.array([sample["arm"] for sample in samples])
    rewards = np.array([sample["reward"] for sample in samples])
    for arm, mean in enumerate(still["rewards"]):
        assert np.mean(arms == arm) == pytest.approx(1 / 3, abs=0.02)
        assert rewards[arms == arm].mean() == pytest.approx(mean, abs=0.03)
        assert rewards[arms == arm].std() == pytest.approx(0.5, abs=0.02)


def test_same_seed_same_run():
    cases = [{"call": "trace", "settings": settings(), "seed": seed, "count": 30} for seed in (4, 4, 5)]
    same, again, other = in_node(*cases)
    assert same == again
    assert same != other


def test_an_offset_wrecks_learning_only_without_a_baseline():
    ends = {}
    for kind in BASELINES:
        chosen = settings(rewards=[6.0, 5.5, 5.0], baseline=kind)
        runs = in_node(*({"call": "run", "settings": chosen, "seed": s, "count": 500} for s in range(30)))
        [ends[kind]] = in_node(call("nearestCorners", runs))
    assert sum(ends["none"]) == 30
    assert ends["none"][0] <= 24
    assert min(ends["mean"][0], ends["value"][0]) >= 28


def test_exact_steps_climb():
    run = {"logits": [-1.0, 0.5, 0.2], "mean": 0.3, "step": 2, "last": None}
    values = []
    for _ in range(5):
        pi = np.array(softmax(run["logits"]))
        values.append(pi @ [1.0, 0.5, 0.0])
        before = run
        [run] = in_node(call("exactStep", run, settings(learningRate=0.5)))
        gradient = pi * (np.array([1.0, 0.5, 0.0]) - values[-1])
        assert run["logits"] == pytest.approx(np.array(before["logits"]) + 0.5 * gradient, abs=1e-12)
        assert (run["mean"], run["last"]["kind"]) == (0.3, "exact")
    assert run["step"] == 7
    assert all(np.diff(values) > 0)
