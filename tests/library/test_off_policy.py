"""What DQN, DDPG, TD3 and SAC have in common: probes learned, exact resumption, clear refusals."""

import dataclasses
import importlib
import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from policyopt import cli
from policyopt.agents import load_agent, save_agent
from policyopt.algorithms import ddpg, dqn, sac, td3
from policyopt.envs import PROBES
from policyopt.evaluation import evaluate
from policyopt.replay import ReplayCollector

QUICK = {
    "total_steps": 1_500, "buffer_size": 1_500, "learning_starts": 200, "batch_size": 64, "gamma": 0.5,
    "hidden": (32,), "log_steps": 500,
}  # fmt: skip
BOUNDED = {**QUICK, "tau": 0.02, "learning_rate": 5e-3}
CONFIGS = {
    "dqn": dqn.DQNConfig(**QUICK, train_every=1, target_every=50, learning_rate=5e-3, epsilon_fraction=0.5),
    "double dqn": dqn.DQNConfig(
        **QUICK, train_every=1, target_every=50, learning_rate=5e-3, epsilon_fraction=0.5, double=True
    ),
    "ddpg": ddpg.DDPGConfig(**BOUNDED),
    "td3": td3.TD3Config(**BOUNDED),
    "sac": sac.SACConfig(**BOUNDED),
}
MODULES = {name: importlib.import_module(f"policyopt.algorithms.{name.split()[-1]}") for name in CONFIGS}
DISCRETE, CONTINUOUS = ["dqn", "double dqn"], ["ddpg", "td3", "sac"]
TASKS = {name: "CartPole-v1" if name in DISCRETE else "Pendulum-v1" for name in CONFIGS}


def bounded(probe):
    """A probe whose reward does not depend on the action, with actions from a Box."""

    def make():
        env = PROBES[probe]()
        env.action_space = Box(-1.0, 1.0, (1,), np.float32)
        return env

    return make


@torch.no_grad()
def best_value(agent, obs):
    """What the agent expects in a state if it acts as it thinks best; the mean of the critics."""
    obs = torch.tensor([[obs]])
    if hasattr(agent, "q_net"):
        return agent.q_values(obs).max().item()
    policy = agent.policy(obs)
    return agent.q_values(obs, policy if torch.is_tensor(policy) else policy.mode).mean().item()


@pytest.fixture(scope="module")
def trained():
    """Agents by algorithm and probe, trained when first asked for."""
    cache = {}

    def get(name, probe, **changes):
        key = (name, probe, *changes.items())
        if key not in cache:
            make = PROBES[probe] if name in DISCRETE or probe == "continuous_action" else bounded(probe)
            config = dataclasses.replace(CONFIGS[name], **changes)
            cache[key], _ = MODULES[name].train(make, config, seed=1)
        return cache[key]

    return get


@pytest.mark.parametrize("name", CONFIGS)
def test_values_of_the_probes(name, trained):
    # SAC's values count the entropy of what follows; with a small fixed temperature that hardly matters.
    cold = {"initial_temperature": 1e-3, "learn_temperature": False} if name == "sac" else {}
    assert best_value(trained(name, "constant", **cold), 0.0) == pytest.approx(1.0, abs=0.1)
    assert best_value(trained(name, "observation", **cold), -1.0) == pytest.approx(-1.0, abs=0.15)
    assert best_value(trained(name, "observation", **cold), 1.0) == pytest.approx(1.0, abs=0.15)
    assert best_value(trained(name, "delayed", **cold), 0.0) == pytest.approx(0.5, abs=0.1)  # γ
    assert best_value(trained(name, "delayed", **cold), 1.0) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("name", DISCRETE)
def test_actions_of_the_probes(name, trained):
    assert trained(name, "action").predict(np.float32([0]))[0] == 1
    agent = trained(name, "observation_action")
    actions, _ = agent.predict(np.float32([[1], [-1]]))
    assert actions.tolist() == [1, 0]
    assert best_value(agent, 1.0) == pytest.approx(1.0, abs=0.15)
    with torch.no_grad():
        values = agent.q_values(torch.tensor([[1.0]]))[0]
    assert values.tolist() == pytest.approx([-1, 1], abs=0.15)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_continuous_probe(name, trained):
    agent = trained(name, "continuous_action")
    for obs in (-1.0, 1.0):
        (action,) = agent.predict(np.float32([obs]))[0]
        assert action == pytest.approx(obs / 2, abs=0.2)


# --- repeatable, and to be interrupted ---


def short(name):
    return dataclasses.replace(CONFIGS[name], total_steps=1_100, log_steps=150, hidden=(16,))


def assert_same(first, second):
    (agent, history), (other, other_history) = first, second
    assert history.columns == other_history.columns
    for column in history.columns:
        np.testing.assert_array_equal(history[column], other_history[column])
    for a, b in zip(agent.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", CONFIGS)
def test_a_resumed_run_gives_the_same_numbers(name, tmp_path, monkeypatch):
    """Stopped in mid-episode and resumed, it gives the unbroken run's numbers to the bit."""
    train, config = MODULES[name].train, short(name)
    unbroken = train(TASKS[name], config, seed=2)
    assert unbroken[1]["step"].tolist() == [150, 300, 450, 600, 750, 900, 1050, 1100]
    step, file = ReplayCollector.step, tmp_path / "run.pt"

    def stop(self, *arguments):
        if self.steps_taken == 700:
            raise Stopped
        return step(self, *arguments)

    monkeypatch.setattr(ReplayCollector, "step", stop)
    with pytest.raises(Stopped):
        train(TASKS[name], config, seed=2, checkpoint=file, checkpoint_every=1)
    monkeypatch.setattr(ReplayCollector, "step", step)
    resumed = train(TASKS[name], config, seed=2, checkpoint=file, checkpoint_every=1)
    assert_same(unbroken, resumed)
    # Once finished, the file gives the finished run.
    assert_same(unbroken, train(TASKS[name], config, seed=2, checkpoint=file))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_depends_on_its_seed_alone(name):
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (MODULES[name].train(TASKS[name], short(name), seed) for seed in (3, 3, 4))
    assert_same(first, again)
    assert not np.array_equal(first[1]["q_value"], other[1]["q_value"])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", CONFIGS)
def test_every_step_is_played_and_learned_from_when_due(name, monkeypatch):
    """1,100 steps, none of them learned from before the 200th, then one gradient step for every third."""
    sampled = []
    monkeypatch.setattr(
        "policyopt.replay.ReplayBuffer.sample",
        lambda self, size, sample=importlib.import_module("policyopt.replay").ReplayBuffer.sample: (
            sampled.append(self.added) or sample(self, size)
        ),
    )
    _, history = MODULES[name].train(TASKS[name], dataclasses.replace(short(name), train_every=3), seed=0)
    assert sampled == list(range(200, 1_101, 3))
    assert history.last["step"] == 1_100


@pytest.mark.parametrize("name", CONFIGS)
def test_an_agent_is_saved_and_loaded(name, tmp_path, trained):
    agent = trained(name, "action" if name in DISCRETE else "continuous_action")
    loaded, about = load_agent(save_agent(tmp_path / "agent.pt", agent, seed=1))
    assert type(loaded) is type(agent)
    assert about == {"seed": 1}
    obs = np.float32([[-1], [0.3], [1]])
    np.testing.assert_array_equal(agent.predict(obs)[0], loaded.predict(obs)[0])


class Shifted(gym.Env):
    """One step, five observations and actions that are counted from 2 and 3; only action 4 is paid for."""

    observation_space, action_space = Discrete(5, start=2), Discrete(3, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return int(self.np_random.integers(2, 7)), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return 2, float(action == 4), True, False, {}


def test_numbers_need_not_start_at_0():
    agent, _ = dqn.train(Shifted, CONFIGS["dqn"], seed=0)
    assert agent.predict(np.array([2, 3, 4, 5, 6]))[0].tolist() == [4] * 5


class Wide(gym.Env):
    """Two action components with different ranges, pulled towards (3, −0.2); the observation is always 0."""

    observation_space = Box(-1.0, 1.0, (1,), np.float64)
    action_space = Box(np.float32([2, -1]), np.float32([4, 0]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.zeros(1), -float(((action - [3.5, -0.2]) ** 2).sum()), True, False, {}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_actions_fill_the_box(name):
    agent, _ = MODULES[name].train(Wide, CONFIGS[name], seed=0)
    assert agent.predict(np.zeros(1))[0] == pytest.approx([3.5, -0.2], abs=0.15)
    assert agent.to_env(np.float32([-1, 1])).tolist() == [2, 0]
    assert agent.to_env(np.float32([1, -1])).tolist() == [4, -1]
    assert agent.to_env(np.zeros(2, np.float32)).tolist() == [3, -0.5]
    assert agent.to_env(np.zeros(2, np.float32)).dtype == np.float32


# --- what cannot be used ---


class Odd(gym.Env):
    """Gives what it is told to give, from the 250th step on; each episode has ten."""

    observation_space, action_space = Box(-1.0, 1.0, (1,), np.float32), Discrete(2)

    def __init__(self, reward=1.0, obs=0.0, spaces=None):
        self.reward, self.obs, self.steps = reward, obs, 0
        self.observation_space, self.action_space = spaces or (self.observation_space, self.action_space)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        late = self.steps >= 250
        obs = np.float32([self.obs if late else 0])
        return obs, self.reward if late else 1.0, self.steps % 10 == 0, False, {}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_reward_that_is_not_a_number(name):
    spaces = Odd.observation_space, Discrete(2) if name in DISCRETE else Box(-1.0, 1.0, (1,))
    with pytest.raises(ValueError, match=r"rewards is nan after 249 steps; environments must give finite"):
        MODULES[name].train(lambda: Odd(reward=np.nan, spaces=spaces), CONFIGS[name])
    with pytest.raises(ValueError, match=r"next_obs is \[inf\] after 249 steps; environments must give"):
        MODULES[name].train(lambda: Odd(obs=np.inf, spaces=spaces), CONFIGS[name])


BOXED, CHOICE = Box(-1.0, 1.0, (1,), np.float32), Discrete(2)


def takes(name, action_space):
    """Whether an algorithm can be trained with such actions."""
    _, config_class, train = cli.ALGORITHMS[name]
    config, names = config_class(), {field.name for field in dataclasses.fields(config_class)}
    sizes = {"total_steps": 40, "learning_starts": 20, "batch_size": 10, "num_envs": 1, "horizon": 20}
    sizes |= {"num_groups": 1, "group_size": 2, "num_episodes": 1, "num_workers": 1, "log_every": 1}
    config = dataclasses.replace(config, **{key: size for key, size in sizes.items() if key in names})
    obs_space = Discrete(1) if name == "q_learning" else BOXED
    env = type("Plain", (Odd,), {"observation_space": obs_space})
    if name == "q_learning":
        env.reset = lambda self, *, seed=None, options=None: (0, {})
        env.step = lambda self, action: (0, 1.0, True, False, {})
    try:
        train(lambda: env(spaces=(obs_space, action_space)), config, 0)
    except ValueError as error:
        if "action space" not in str(error) and "Box of actions" not in str(error):
            raise
        return False
    return True


def test_the_wrong_actions_are_refused_by_a_message_that_names_what_fits():
    """The names in the message are those of the algorithms that take such actions, tried one by one."""
    with pytest.raises(ValueError, match=r"DQN needs a Discrete action space.*this is Box") as discrete:
        dqn.train("Pendulum-v1")
    for module in (ddpg, td3, sac):
        with pytest.raises(ValueError, match=r"need a Box of actions.*this is Discrete\(2\)") as box:
            module.train("CartPole-v1")
    others = [name for name in cli.ALGORITHMS if name not in ("a3c", "q_learning")]  # a3c as a2c, apart
    for caught, space in ((discrete, BOXED), (box, CHOICE)):
        named = str(caught.value).split("there are")[1].replace(" and", ",").split(",")
        fitting = {name for name in others if takes(name, space)}
        assert {name.strip() for name in named} - {"a3c"} == fitting


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize(
    "space", [Box(-np.inf, np.inf, (1,)), Box(-1, 1, (2, 2)), MultiDiscrete([2, 2])], ids=str
)
def test_other_actions_are_refused_too(name, space):
    with pytest.raises(ValueError, match=r"is not supported; it must be a Box of one dimension with finite"):
        MODULES[name].train(lambda: Odd(spaces=(BOXED, space)))


@pytest.mark.parametrize("name", CONFIGS)
def test_images_are_refused(name):
    images = Box(0, 255, (84, 84, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\(84, 84, 3\), uint8\) holds images, for which there is no"):
        MODULES[name].train(lambda: Odd(spaces=(images, CHOICE if name in DISCRETE else BOXED)))


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_that_do_not_go_together(name):
    config = CONFIGS[name]
    who = type(config).__name__
    with pytest.raises(ValueError, match=rf"{who}.buffer_size is 63; it must be a whole number in \[64,"):
        dataclasses.replace(config, buffer_size=63)
    with pytest.raises(ValueError, match=rf"{who}.learning_starts is 63; it must be a whole number in \[64,"):
        dataclasses.replace(config, learning_starts=63)
    with pytest.raises(ValueError, match=rf"{who}.total_steps is 200; it must be a whole number in \[201,"):
        dataclasses.replace(config, total_steps=200)
    with pytest.raises(ValueError, match=r"cannot make the environment 'NoSuch-v1'"):
        MODULES[name].train("NoSuch-v1", config)
    with pytest.raises(ValueError, match=r"seed is -1; it must be a whole number"):
        MODULES[name].train(TASKS[name], config, -1)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_random_cannot_be_resumed(name, tmp_path):
    """An environment that does not follow from its seed is found out."""
    drawn = itertools.count()

    class Unruly(Odd):
        def step(self, action):
            self.steps += 1
            return np.float32([next(drawn) / 1e5]), 1.0, self.steps % 1_000 == 0, False, {}

    spaces = BOXED, CHOICE if name in DISCRETE else BOXED
    config, file = short(name), tmp_path / "run.pt"
    MODULES[name].train(lambda: Unruly(spaces=spaces), config, checkpoint=file)
    with pytest.raises(ValueError, match=r"not deterministic given its seed"):
        MODULES[name].train(lambda: Unruly(spaces=spaces), config, checkpoint=file)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_agent_plays(name):
    agent, _ = MODULES[name].train(TASKS[name], short(name), seed=0)
    returns = evaluate(agent, TASKS[name], 3, seed=0)
    assert np.isfinite(returns).all()
    np.testing.assert_array_equal(returns, evaluate(agent, TASKS[name], 3, seed=0))
