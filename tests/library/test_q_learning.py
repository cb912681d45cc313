"""Q-learning: exact values where chance plays no part, nearly the best policy elsewhere, exact resumption."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete, MultiDiscrete

from policyopt.agents import save_agent
from policyopt.algorithms import q_learning
from policyopt.algorithms.q_learning import Learner, QLearningConfig
from policyopt.envs import PROBES, GridWorld
from policyopt.evaluation import evaluate
from policyopt.tabular import greedy_policy, policy_evaluation, tabular_model, value_iteration

TAXI = next(name for name in ("Taxi-v4", "Taxi-v3") if name in gym.registry)
TINY = QLearningConfig(total_steps=2_000, learning_rate=0.5, learning_rate_end=0.1, log_every=5)
SURE = QLearningConfig(total_steps=20_000, learning_rate=1.0, gamma=0.8, epsilon_end=None)  # always random


def train_on_grid(config=TINY, seed=0, **kwargs):
    return q_learning.train(GridWorld, config, seed, **kwargs)


def rows_equal(first, second):
    return first.columns == second.columns and all(
        np.array_equal(first[name], second[name], equal_nan=True) for name in first.columns
    )


# --- the update ---


def test_target_and_update_by_hand():
    table = np.array([[1.0, 2.0], [4.0, 3.0]])
    target = q_learning.td_target(5.0, table[1], terminated=False, gamma=0.5)
    assert target == 7  # 5 + ½ · 4
    assert q_learning.q_update(table, 0, 1, target, learning_rate=0.1) == 5
    assert table.tolist() == [[1, 2.5], [4, 3]]
    assert q_learning.td_target(5.0, table[1], terminated=True, gamma=0.5) == 5


class OneState(gym.Env):
    """One state, one action, reward 1 a step; each episode ends after its first step, or never."""

    observation_space, action_space = Discrete(1), Discrete(1)

    def __init__(self, ends):
        self.ends = ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, 1.0, self.ends, False, {}


def test_truncation_is_not_termination():
    """γ = ½: what is over after one step is worth 1, what is only cut off there 1 + ½ + ¼ + … = 2."""
    config = dataclasses.replace(TINY, gamma=0.5)
    over, _ = q_learning.train(lambda: OneState(ends=True), config)
    cut, history = q_learning.train(lambda: gym.wrappers.TimeLimit(OneState(ends=False), 1), config)
    assert over.q.item() == pytest.approx(1)
    assert cut.q.item() == pytest.approx(2)
    assert history.last["episode_length"] == 1
    # Both at once is an end.
    both, _ = q_learning.train(lambda: gym.wrappers.TimeLimit(OneState(ends=True), 1), config)
    assert both.q.item() == pytest.approx(1)


# --- exact values ---


def random_grid(seed):
    """A layout drawn at random, whose goals may be out of reach, and the rewards for it."""
    rng = np.random.default_rng(seed)
    cells = rng.choice(list("...##GX"), size=rng.integers(3, 5, size=2))
    cells.flat[rng.choice(cells.size, 2, replace=False)] = "S"
    return dict(
        layout=["".join(row) for row in cells],
        step_reward=float(rng.choice([0.0, -0.1, 0.05])),
        pit_reward=float(rng.normal()),
        max_steps=20,
    )


def reachable(model):
    """The states some policy can be in, ``[S]`` bool."""
    seen = model.start_distribution > 0
    while not torch.equal(seen, more := seen | (model.transitions[seen] > 0).any(dim=0).any(dim=0)):
        seen = more
    return seen


@pytest.mark.parametrize("seed", range(8))
def test_it_learns_the_values_that_value_iteration_computes(seed):
    def make():
        return GridWorld(**random_grid(seed))

    agent, _ = q_learning.train(make, SURE, seed)
    model = tabular_model(make())
    values, q = value_iteration(model, SURE.gamma)
    seen = reachable(model)
    assert q[seen].unique().numel() > 2  # there was something to learn
    torch.testing.assert_close(agent.q[seen], q[seen], atol=1e-6, rtol=0)
    assert (agent.q[~seen] == 0).all()
    greedy = policy_evaluation(model, greedy_policy(agent.q), SURE.gamma)
    torch.testing.assert_close(greedy[seen], values[seen], atol=1e-5, rtol=0)


def test_the_random_grids_differ():
    assert len({tuple(random_grid(seed)["layout"]) for seed in range(8)}) == 8


def test_spaces_that_do_not_start_at_zero():
    """The same grid, cells counted from 7 and actions from −2: the same table."""

    class Shifted(gym.Wrapper):
        observation_space, action_space = Discrete(12, start=7), Discrete(4, start=-2)

        def reset(self, **kwargs):
            obs, info = self.env.reset(**kwargs)
            return obs + 7, info

        def step(self, action):
            assert self.action_space.contains(action)
            obs, *rest = self.env.step(action + 2)
            return obs + 7, *rest

    plain, _ = train_on_grid()
    shifted, _ = q_learning.train(lambda: Shifted(GridWorld()), TINY)
    assert torch.equal(plain.q, shifted.q)
    assert plain.q.any()
    returns = evaluate(shifted, lambda: Shifted(GridWorld()), episodes=3)
    assert returns.tolist() == evaluate(plain, GridWorld, episodes=3).tolist()


# --- nearly the best policy, where chance plays a part or the table is large ---


def share_of_the_optimum(env_id, agent, gamma):
    """The exact value of the agent's policy from the start, as a share of the best there is."""
    env = gym.make(env_id)
    env.close()
    model = tabular_model(env)
    values = policy_evaluation(model, greedy_policy(agent.q), gamma)
    best, _ = value_iteration(model, gamma)
    return ((model.start_distribution @ values) / (model.start_distribution @ best)).item()


def test_frozen_lake():
    config = QLearningConfig(
        total_steps=60_000, learning_rate=0.3, learning_rate_end=0.0, epsilon_end=0.1, epsilon_fraction=1.0
    )
    agent, history = q_learning.train("FrozenLake-v1", config, seed=0)
    assert share_of_the_optimum("FrozenLake-v1", agent, config.gamma) > 0.95
    assert history.last["episode_return"] > 0.3


def test_taxi():
    config = QLearningConfig(total_steps=100_000, learning_rate=1.0, epsilon=0.1, epsilon_end=None)
    agent, _ = q_learning.train(TAXI, config, seed=0)
    assert share_of_the_optimum(TAXI, agent, config.gamma) > 0.95


# --- exploration ---


def test_epsilon_decides_how_often_an_action_is_random():
    """One state, the first of four actions pays: it is taken with probability 1 − ε + ε/4."""

    class Bandit(gym.Env):
        observation_space, action_space = Discrete(1), Discrete(4)
        taken: list[int] = []  # noqa: RUF012

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return 0, {}

        def step(self, action):
            self.taken.append(action)
            return 0, float(action == 0), True, False, {}

    for epsilon, expected in ((0.0, 1.0), (0.4, 0.7), (1.0, 0.25)):
        Bandit.taken.clear()
        config = QLearningConfig(total_steps=4_000, epsilon=epsilon, epsilon_end=None)
        q_learning.train(Bandit, config)
        share = np.mean(np.array(Bandit.taken) == 0)
        assert share == pytest.approx(expected, abs=0.03)  # over four standard deviations
        assert all(isinstance(action, int) for action in Bandit.taken)


def test_a_high_initial_value_explores_without_chance():
    """With ε = 0 and a table of zeros the first action is taken for ever: nothing better was ever seen."""
    config = QLearningConfig(total_steps=2_000, learning_rate=1.0, epsilon=0.0, epsilon_end=None)
    idle, history = train_on_grid(config)
    assert not idle.q.any()
    assert history.last["episode_return"] == 0
    curious, history = train_on_grid(dataclasses.replace(config, initial_value=1.0))
    assert curious.q.amax() <= 1
    assert history.last["episode_return"] == 1


# --- the loop's details ---


def test_the_budget_is_taken_exactly_and_rows_count_episodes():
    config = QLearningConfig(total_steps=333, epsilon_end=None, log_every=3)
    lengths = []

    class Counted(gym.Wrapper):
        def reset(self, **kwargs):
            lengths.append(0)
            return self.env.reset(**kwargs)

        def step(self, action):
            lengths[-1] += 1
            return self.env.step(action)

    _, history = q_learning.train(lambda: Counted(GridWorld(max_steps=10)), config)
    assert sum(lengths) == 333
    assert len(history) == math.ceil(len(lengths) / 3)
    ends = [sum(lengths[: i + 3]) for i in range(0, len(lengths), 3)]
    assert history["step"].tolist() == ends
    finished = lengths[: len(lengths) if lengths[-1] == 10 else -1]
    assert history.last["episode_length"] == pytest.approx(np.mean(finished[-20:]))


def test_history_and_schedules():
    config = QLearningConfig(
        total_steps=400, learning_rate=0.4, learning_rate_end=0.2, epsilon=0.8, epsilon_end=0.0, log_every=1
    )
    _, history = q_learning.train(lambda: gym.wrappers.TimeLimit(OneState(ends=False), 100), config)
    assert history["step"].tolist() == [100, 200, 300, 400]
    assert history["learning_rate"].tolist() == pytest.approx([0.4, 0.35, 0.3, 0.25])  # where a row begins
    assert history["epsilon"].tolist() == pytest.approx([0.8, 0.4, 0.0, 0.0])  # half the steps is the end
    assert history["episode_return"].tolist() == history["episode_length"].tolist() == [100] * 4
    assert (np.diff(history["td_error"]) < 0).all()


def test_td_error_is_the_mean_of_absolute_errors():
    """Rewards 1 and −1 in turn, each an episode, α small: errors of 1 that would cancel."""

    class Alternating(OneState):
        reward = -1.0

        def step(self, action):
            self.reward = -self.reward
            return 0, self.reward, True, False, {}

    config = QLearningConfig(total_steps=20, learning_rate=1e-6)
    _, history = q_learning.train(lambda: Alternating(ends=True), config)
    assert history["td_error"].tolist() == pytest.approx([1, 1], abs=1e-4)


def test_an_episode_that_never_ends_is_cut():
    agent, history = q_learning.train(lambda: OneState(ends=False), dataclasses.replace(TINY, gamma=0.5))
    assert agent.q.item() == pytest.approx(2)
    assert history["step"].tolist() == [2_000]
    assert math.isnan(history.last["episode_return"])
    assert math.isnan(history.last["episode_length"])


def test_same_seed_same_numbers():
    first, again, other = (train_on_grid(seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first[0].q, again[0].q)
    assert rows_equal(first[1], again[1])
    assert not torch.equal(first[0].q, other[0].q)
    assert not rows_equal(first[1], other[1])


def test_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    train_on_grid()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


def test_progress_is_shown_when_asked_for(capsys):
    train_on_grid(progress=True)
    assert "2000/2000" in capsys.readouterr().err
    train_on_grid()
    assert capsys.readouterr().err == ""


# --- stopping and going on ---


def slippery_grid():
    return GridWorld(slip=0.2, max_steps=15)


def short_taxi():
    return gym.make(TAXI, max_episode_steps=20)


@pytest.mark.parametrize("env_id", [slippery_grid, short_taxi])
@pytest.mark.parametrize("stop_at", [3, 18, 37])  # episodes; a file is written after each ten
def test_a_resumed_run_gives_the_same_numbers(env_id, stop_at, tmp_path, monkeypatch):
    unbroken = q_learning.train(env_id, TINY, seed=2)
    file = tmp_path / "run.pt"
    arguments = {"seed": 2, "checkpoint": file, "checkpoint_every": 2}

    class Stopped(Exception):
        pass

    episode, calls = Learner.episode, []

    def stopping(self):
        calls.append(1)
        if len(calls) == stop_at:
            raise Stopped
        return episode(self)

    monkeypatch.setattr(Learner, "episode", stopping)
    with pytest.raises(Stopped):
        q_learning.train(env_id, TINY, **arguments)
    assert file.exists() == (stop_at > 10)
    monkeypatch.setattr(Learner, "episode", episode)
    resumed = q_learning.train(env_id, TINY, **arguments)
    assert torch.equal(unbroken[0].q, resumed[0].q)
    assert unbroken[0].q.any()
    assert rows_equal(unbroken[1], resumed[1])
    # Once finished, the file gives the finished run.
    monkeypatch.setattr(Learner, "episode", lambda self: pytest.fail("it was played on"))
    again = q_learning.train(env_id, TINY, **arguments)
    assert torch.equal(unbroken[0].q, again[0].q)
    assert rows_equal(unbroken[1], again[1])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.pt"
    train_on_grid(seed=1, checkpoint=file)
    with pytest.raises(ValueError, match="belongs to another run: its seed is 1, this run's is 2"):
        train_on_grid(seed=2, checkpoint=file)
    with pytest.raises(ValueError, match=r"its config.gamma is 0.99, this run's is 0.9"):
        train_on_grid(dataclasses.replace(TINY, gamma=0.9), seed=1, checkpoint=file)
    with pytest.raises(ValueError, match=r"checkpoint_every is 0"):
        train_on_grid(seed=1, checkpoint=file, checkpoint_every=0)
    agent, _ = train_on_grid()
    with pytest.raises(ValueError, match="is of kind 'agent'; needed is one of kind 'checkpoint'"):
        train_on_grid(checkpoint=save_agent(tmp_path / "agent.pt", agent))


# --- errors ---


@pytest.mark.parametrize("name", PROBES)
def test_observations_that_are_no_states_are_named(name):
    with pytest.raises(
        ValueError, match=r"observation space Box\(.*\) is not supported: .* must be Discrete"
    ):
        q_learning.train(PROBES[name], TINY)


def test_environments_it_cannot_use_are_named():
    class Many(OneState):
        action_space = MultiDiscrete([2, 2])

    with pytest.raises(ValueError, match=r"action space MultiDiscrete\(\[2 2\]\) is not supported"):
        q_learning.train(lambda: Many(ends=True), TINY)
    with pytest.raises(ValueError, match="cannot make the environment 'NoSuch-v1'"):
        q_learning.train("NoSuch-v1", TINY)


@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_rewards_that_are_not_finite_are_named(reward):
    with pytest.raises(ValueError, match=rf"the reward after 7 steps is {reward}"):
        q_learning.train(
            lambda: gym.wrappers.TransformReward(OneState(ends=True), Sequence([1.0] * 6 + [reward])), TINY
        )


class Sequence:
    """A function that ignores its argument and gives one value after the other."""

    def __init__(self, values):
        self.values = iter(values)

    def __call__(self, _):
        return next(self.values)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("total_steps", 0, r"a whole number in \[1, inf\)"),
        ("learning_rate", 0.0, r"a number in \(0, 1\]"),
        ("learning_rate", 1.1, r"a number in \(0, 1\]"),
        ("learning_rate_end", -0.1, r"a number in \[0, 1\] or None"),
        ("gamma", math.nan, r"a number in \[0, 1\]"),
        ("epsilon", 1.5, r"a number in \[0, 1\]"),
        ("epsilon_end", -0.1, r"a number in \[0, 1\] or None"),
        ("epsilon_fraction", 0.0, r"a number in \(0, 1\]"),
        ("initial_value", math.inf, "a number in"),
        ("log_every", 0, r"a whole number in \[1, inf\)"),
        ("log_every", 2.5, "a whole number"),
    ],
)
def test_settings_out_of_range_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=rf"QLearningConfig\.{field} is .*{allowed}"):
        QLearningConfig(**{field: value})


@pytest.mark.parametrize("seed", [-1, 1.5, None, 2**31])
def test_seeds_out_of_range_are_named(seed):
    with pytest.raises(ValueError, match=r"seed is .*must be a whole number"):
        train_on_grid(seed=seed)
