"""What every algorithm promises: probes learned to their known answers, one signature, exact resumption."""

import dataclasses
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch

import policyopt.algorithms
from policyopt.algorithms import a2c, grpo, ppo, ppo_penalty, reinforce, trpo
from policyopt.envs import PROBES
from policyopt.rollout import Collector, EpisodeCollector

SMALL = {"hidden": (16,)}
STEPPED = {"total_steps": 8_192, "num_envs": 8, "horizon": 32, "gamma": 0.5, **SMALL}
FALLING = {"learning_rate": 1e-2, "learning_rate_end": 0.0}

# Settings under which the probes, which end after one or two steps, are learned in seconds.
CONFIGS = {
    "reinforce": reinforce.ReinforceConfig(
        total_steps=8_192, num_episodes=32, gamma=0.5, learning_rate=3e-2, value_learning_rate=1e-2, **SMALL
    ),
    "reinforce without baseline": reinforce.ReinforceConfig(
        total_steps=8_192, num_episodes=32, gamma=0.5, learning_rate=3e-2, baseline="none", **SMALL
    ),
    "reinforce with mean baseline": reinforce.ReinforceConfig(
        total_steps=8_192, num_episodes=32, gamma=0.5, learning_rate=3e-2, baseline="mean", **SMALL
    ),
    "a2c": a2c.A2CConfig(**STEPPED | {"horizon": 4}, **FALLING),
    "ppo": ppo.PPOConfig(**STEPPED, **FALLING, epochs=4, minibatch_size=64),
    "ppo_penalty": ppo_penalty.PPOPenaltyConfig(**STEPPED, **FALLING, epochs=4, minibatch_size=64),
    "trpo": trpo.TRPOConfig(**STEPPED, value_learning_rate=1e-2, minibatch_size=64),
    "grpo": grpo.GRPOConfig(
        total_steps=8_192, num_groups=4, group_size=8, minibatch_size=64, learning_rate=1e-2, **SMALL
    ),
}
WITH_CRITIC = ["reinforce", "a2c", "ppo", "ppo_penalty", "trpo"]
MODULES = {name: importlib.import_module(f"policyopt.algorithms.{name.split()[0]}") for name in CONFIGS}


@pytest.fixture(scope="module")
def trained():
    """Agents by algorithm and probe, trained when first asked for."""
    cache = {}

    def get(name, probe):
        if (name, probe) not in cache:
            cache[name, probe], _ = MODULES[name].train(PROBES[probe], CONFIGS[name], seed=1)
        return cache[name, probe]

    return get


@torch.no_grad()
def value(agent, obs):
    return agent.value(torch.tensor([obs])).item()


@torch.no_grad()
def probability(agent, obs, action):
    return agent.policy(torch.tensor([obs])).probs[action].item()


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_values_of_the_probes(name, trained):
    assert value(trained(name, "constant"), 0.0) == pytest.approx(1.0, abs=0.1)
    assert value(trained(name, "observation"), -1.0) == pytest.approx(-1.0, abs=0.1)
    assert value(trained(name, "observation"), 1.0) == pytest.approx(1.0, abs=0.1)
    assert value(trained(name, "delayed"), 0.0) == pytest.approx(0.5, abs=0.1)  # γ
    assert value(trained(name, "delayed"), 1.0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", CONFIGS)
def test_actions_of_the_probes(name, trained):
    assert probability(trained(name, "action"), 0.0, 1) > 0.85
    agent = trained(name, "observation_action")
    assert probability(agent, 1.0, 1) > 0.85
    assert probability(agent, -1.0, 0) > 0.85


@pytest.mark.parametrize("name", CONFIGS)
def test_the_continuous_probe(name, trained):
    agent = trained(name, "continuous_action")
    for obs in (-1.0, 1.0):
        (action,) = agent.predict(np.float32([obs]))[0]
        assert action == pytest.approx(obs / 2, abs=0.25)
    with torch.no_grad():
        assert agent.policy(torch.zeros(1)).std.item() < 0.8  # it started at 1: certainty grew


# --- one signature ---


def test_every_algorithm_is_tested_here_or_has_a_file_of_its_own():
    modules = {module.name for module in pkgutil.iter_modules(policyopt.algorithms.__path__)}
    off_policy = {"dqn", "ddpg", "td3", "sac"}  # tests/library/test_off_policy.py
    assert modules - {name.split()[0] for name in CONFIGS} == {"a3c", "q_learning"} | off_policy


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(policyopt.algorithms.__path__)]
)
def test_one_signature(name):
    module = importlib.import_module(f"policyopt.algorithms.{name}")
    parameters = inspect.signature(module.train).parameters
    assert list(parameters) == [
        "env_id",
        "config",
        "seed",
        "checkpoint",
        "checkpoint_every",
        "progress",
    ]
    assert [p.kind for p in parameters.values()][3:] == [inspect.Parameter.KEYWORD_ONLY] * 3
    default = parameters["config"].default
    assert dataclasses.is_dataclass(default)
    assert type(default).__dataclass_params__.frozen
    assert parameters["seed"].default == 0
    assert parameters["progress"].default is False


@pytest.mark.parametrize(
    "name", [module.name for module in pkgutil.iter_modules(policyopt.algorithms.__path__)]
)
def test_every_setting_is_checked(name):
    """A value of no known type is refused for each, and the message names it."""
    module = importlib.import_module(f"policyopt.algorithms.{name}")
    default = inspect.signature(module.train).parameters["config"].default
    for field in dataclasses.fields(default):
        with pytest.raises(ValueError, match=rf"{type(default).__name__}\.{field.name} is .*; it must be"):
            dataclasses.replace(default, **{field.name: "nonsense"})


# --- repeatable, and to be interrupted ---

# A few updates of each, on CartPole or Pendulum.
SHORT = {
    "reinforce": dataclasses.replace(CONFIGS["reinforce"], total_steps=1_000, num_episodes=4),
    "reinforce with mean baseline": dataclasses.replace(
        CONFIGS["reinforce with mean baseline"], total_steps=1_000, num_episodes=4
    ),
    "a2c": dataclasses.replace(CONFIGS["a2c"], total_steps=320),
    "ppo": dataclasses.replace(CONFIGS["ppo"], total_steps=1_280),
    "ppo_penalty": dataclasses.replace(CONFIGS["ppo_penalty"], total_steps=1_280),
    "trpo": dataclasses.replace(CONFIGS["trpo"], total_steps=1_280),
    "grpo": dataclasses.replace(
        CONFIGS["grpo"], total_steps=1_000, num_groups=2, group_size=2, kl_coef=0.1, reference_every=2
    ),
}


def for_pendulum(config):
    """Its episodes have 200 steps; those who play whole ones need more."""
    return config if hasattr(config, "horizon") else dataclasses.replace(config, total_steps=4_000)


def assert_same(first, second):
    (agent, history), (other, other_history) = first, second
    assert history.columns == other_history.columns
    for name in history.columns:
        np.testing.assert_array_equal(history[name], other_history[name])
    for a, b in zip(agent.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("name", SHORT)
def test_a_resumed_run_gives_the_same_numbers(name, env_id, tmp_path, monkeypatch):
    """Stopped in its third update and resumed, it gives the unbroken run's numbers to the bit."""
    train = MODULES[name].train
    config = SHORT[name] if env_id == "CartPole-v1" else for_pendulum(SHORT[name])
    unbroken = train(env_id, config, seed=2)
    assert len(unbroken[1]) >= 4
    kind = Collector if hasattr(config, "horizon") else EpisodeCollector
    collect, calls = kind.collect, []

    def stop_in_the_third_update(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise Stopped
        return collect(self, *arguments)

    file = tmp_path / "run.pt"
    monkeypatch.setattr(kind, "collect", stop_in_the_third_update)
    with pytest.raises(Stopped):
        train(env_id, config, seed=2, checkpoint=file, checkpoint_every=1)
    monkeypatch.setattr(kind, "collect", collect)
    assert_same(unbroken, train(env_id, config, seed=2, checkpoint=file, checkpoint_every=1))
    # Once finished, the file gives the finished run.
    assert_same(unbroken, train(env_id, config, seed=2, checkpoint=file))


@pytest.mark.parametrize("name", SHORT)
def test_a_run_depends_on_its_seed_alone(name):
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    train = MODULES[name].train
    first, again, other = (train("CartPole-v1", SHORT[name], seed) for seed in (3, 3, 4))
    assert_same(first, again)
    assert not np.array_equal(first[1]["grad_norm"], other[1]["grad_norm"])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", SHORT)
def test_the_budget_is_not_exceeded(name):
    _, history = MODULES[name].train("CartPole-v1", SHORT[name], seed=0)
    steps = history["step"]
    assert (np.diff(steps) > 0).all()
    assert 0.7 * SHORT[name].total_steps < steps[-1] <= SHORT[name].total_steps
    for column in set(history.columns) - {"episode_return", "explained_variance"}:
        assert np.isfinite(history[column]).all(), column


@pytest.mark.parametrize("name", SHORT)
def test_what_cannot_be_used_is_named(name):
    train, config = MODULES[name].train, SHORT[name]
    with pytest.raises(ValueError, match="cannot make the environment 'NoSuch-v1'"):
        train("NoSuch-v1", config)
    with pytest.raises(ValueError, match=r"seed is -1; it must be a whole number"):
        train("CartPole-v1", config, -1)
    with pytest.raises(ValueError, match=rf"{type(config).__name__}\.total_steps is 0; it must be"):
        dataclasses.replace(config, total_steps=0)
    with pytest.raises(ValueError, match=rf"{type(config).__name__}\.hidden is \(0,\); it must be a tuple"):
        dataclasses.replace(config, hidden=(0,))
