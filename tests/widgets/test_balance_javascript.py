"""The page's own JavaScript, run by Node, against Gymnasium and torch."""

import itertools
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from in_node import run_figure

from policyopt.widgets import BalanceYourself, export_mlp

ANSWER = """
const episode = ({ start, actions, policy, steps }) => {
  let now = page.startEpisode(start);
  const trace = [];
  for (let t = 0; t < steps && !now.terminated && !now.truncated; t++) {
    const logits = policy && page.forward(policy, page.observe(now.state));
    now = page.advance(now, actions ? actions[t] : Number(logits[1] > logits[0]));
    trace.push({ ...now, observation: page.observe(now.state), reason: page.endReason(now) });
  }
  return trace;
};
const run = {
  episode,
  forward: ({ policy, inputs }) => inputs.map((input) => page.forward(policy, input)),
  softmax: ({ inputs }) => inputs.map(page.softmax),
  random: ({ seed, count }) => Array.from({ length: count }, page.randomStream(seed)),
  error: ({ start, actions }) => {
    try { actions.reduce(page.advance, page.startEpisode(start)); } catch (error) { return error.message; }
  },
};
const answer = ({ call, ...rest }) => run[call](rest);
"""
in_node = partial(run_figure, "balance", ANSWER)


def gymnasium_episode(seed, policy, steps):
    """The same trace from CartPole-v1: states in float64, observations in float32, Gymnasium's own flags."""
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    start = env.unwrapped.state.tolist()
    trace = []
    for t in range(steps):
        action = int(policy(t, observation))
        observation, reward, terminated, truncated, _ = env.step(action)
        state = env.unwrapped.state.tolist()
        trace.append((action, state, observation.tolist(), reward, terminated, truncated))
        if terminated or truncated:
            break
    return start, trace


def lean(t, observation):
    return observation @ [0.1, 0.3, 5.0, 1.0] > 0


def drift(t, observation):
    """Balances the pole around a steady lean to the right, so that the cart leaves the track."""
    return observation @ [0.0, 0.0, 5.0, 1.0] > 0.4


POLICIES = {
    "always left": lambda t, observation: 0,
    "always right": lambda t, observation: 1,
    "alternating": lambda t, observation: t % 2,
    "in pairs": lambda t, observation: (t // 2) % 2,
    "balancing": lean,
    "drifting off": drift,
}


@pytest.fixture(scope="module")
def traces():
    names, cases, expected = [], [], []
    for name, policy in POLICIES.items():
        for seed in (0, 3, 17):
            start, trace = gymnasium_episode(seed, policy, 200)
            names.append((name, seed))
            cases.append(
                {"call": "episode", "start": start, "actions": [row[0] for row in trace], "steps": 200}
            )
            expected.append(trace)
    return dict(zip(names, zip(in_node(*cases), expected, strict=True), strict=True))


@pytest.mark.parametrize("seed", [0, 3, 17])
@pytest.mark.parametrize("name", POLICIES)
def test_steps_like_gymnasium(traces, name, seed):
    page, expected = traces[name, seed]
    assert len(page) == len(expected)
    for row, (action, state, observation, reward, terminated, truncated) in zip(page, expected, strict=True):
        assert row["state"] == pytest.approx(state, abs=1e-6, rel=0)
        assert row["observation"] == pytest.approx(observation, abs=1e-6, rel=0)
        flags = (row["action"], row["reward"], row["terminated"], row["truncated"])
        assert flags == (action, reward, terminated, truncated)
    assert page[-1]["return"] == page[-1]["step"] == len(expected)


def test_every_way_to_end_is_among_the_cases(traces):
    last = {name: page[-1] for name, (page, _) in traces.items()}
    assert last["always left", 0]["fell"]
    assert not last["always left", 0]["left"]
    assert last["always left", 0]["reason"].startswith("Terminated: the pole fell")
    assert last["drifting off", 0]["left"]
    assert not last["drifting off", 0]["fell"]
    assert last["drifting off", 0]["reason"].startswith("Terminated: the cart left the track")
    assert last["balancing", 0]["step"] == 200
    assert not last["balancing", 0]["terminated"]


def test_limits_are_gymnasiums_from_both_sides():
    edges = [(0, 2.4), (2, 12 * 2 * np.pi / 360)]
    starts = []
    for (component, limit), side, excess in itertools.product(edges, (-1, 1), (-1e-9, 1e-9)):
        start = [0.0, 0.0, 0.0, 0.0]
        start[component] = side * (limit - 0.01 + excess)
        start[component + 1] = side * 0.5  # 0.01 in one step
        starts.append(start)
    env = gym.make("CartPole-v1")
    expected = []
    for start in starts:
        env.reset(seed=0)
        env.unwrapped.state = np.array(start)
        expected.append(env.unwrapped.step(0)[2])
    traces = in_node(*({"call": "episode", "start": start, "actions": [0], "steps": 1} for start in starts))
    assert [row["terminated"] for [row] in traces] == expected == [False, True] * 4
    assert [row["left"] for [row] in traces] == [False, True] * 2 + [False] * 4
    assert [row["fell"] for [row] in traces] == [False] * 4 + [False, True] * 2


@pytest.mark.parametrize("seed", [0, 5])
def test_packaged_network_is_truncated_at_500_as_in_gymnasium(seed):
    figure = BalanceYourself(seed=seed)
    network = network_of(figure.policy)

    def policy(t, observation):
        return network(torch.from_numpy(observation)).argmax()

    start, trace = gymnasium_episode(seed, policy, 600)
    assert figure.starts[0] == {"seed": seed, "state": start}
    [page] = in_node({"call": "episode", "start": start, "policy": figure.policy, "steps": 600})
    assert len(page) == len(trace) == 500
    assert (page[-1]["terminated"], page[-1]["truncated"]) == trace[-1][4:] == (False, True)
    assert page[-1]["return"] == sum(row[3] for row in trace) == 500
    assert page[-1]["reason"].startswith("Truncated")
    assert not any(row["truncated"] for row in page[:-1])


def test_observation_is_float32():
    [[row]] = in_node({"call": "episode", "start": [0.1, 0.2, 0.03, 0.04], "actions": [1], "steps": 1})
    assert row["observation"] == [float(np.float32(value)) for value in row["state"]]
    assert row["observation"] != row["state"]


def network_of(layers):
    modules = []
    for layer in layers:
        linear = torch.nn.Linear(len(layer["weights"][0]), len(layer["bias"]))
        linear.load_state_dict(
            {"weight": torch.tensor(layer["weights"]), "bias": torch.tensor(layer["bias"])}
        )
        activation = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU, "identity": torch.nn.Identity}
        modules += [linear, activation[layer["activation"]]()]
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU])
def test_forward_and_probabilities_like_torch(activation):
    torch.manual_seed(1)
    sequential = torch.nn.Sequential(
        torch.nn.Linear(4, 64), activation(), torch.nn.Linear(64, 32), activation(), torch.nn.Linear(32, 2)
    )
    layers = export_mlp(sequential)
    inputs = torch.randn(20, 4) * torch.tensor([2.4, 3.0, 0.2, 3.0])
    with torch.no_grad():
        logits = network_of(layers)(inputs)
        assert logits == pytest.approx(sequential(inputs), abs=1e-3)  # rounding to 5 decimals moves it little
    page_logits, page_probabilities = in_node(
        {"call": "forward", "policy": layers, "inputs": inputs.tolist()},
        {"call": "softmax", "inputs": logits.tolist()},
    )
    assert np.array(page_logits) == pytest.approx(logits.numpy(), abs=1e-5)
    assert np.array(page_probabilities) == pytest.approx(logits.softmax(-1).numpy(), abs=1e-6)


def test_softmax_survives_large_logits():
    assert in_node({"call": "softmax", "inputs": [[1000.0, 0.0], [-1000.0, -1000.0]]}) == [
        [[1, 0], [0.5, 0.5]]
    ]


def test_random_stream_repeats_and_is_even():
    same, again, other = in_node(*({"call": "random", "seed": seed, "count": 2000} for seed in (0, 0, 1)))
    assert same == again
    assert same != other
    assert all(0 <= draw < 1 for draw in same)
    assert np.mean(np.array(same) < 0.5) == pytest.approx(0.5, abs=0.04)


def test_misuse_is_told():
    tilted = [0, 0, 0.3, 0]
    bad_action, ended = in_node(
        {"call": "error", "start": [0, 0, 0, 0], "actions": [2]},
        {"call": "error", "start": tilted, "actions": [0, 0]},
    )
    assert bad_action == "The action must be 0 or 1, but got 2."
    assert ended == "The episode has ended: start another."
