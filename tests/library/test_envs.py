import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policyopt.envs import BINS, PROBES, DiscretizedActions, GridWorld


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # the checker recommends things no probe needs
@pytest.mark.parametrize("make", [GridWorld, *PROBES.values()], ids=lambda make: make.__name__)
def test_gymnasium_accepts_them(make):
    check_env(make(), skip_render_check=True)


def test_gridworld_moves_by_hand():
    env = GridWorld(["S.G", ".#X"])
    assert env.reset(seed=0)[0] == 0
    assert env.step(0)[:4] == (0, 0.0, False, False)  # up, off the grid
    assert env.step(3)[:4] == (0, 0.0, False, False)  # left, off the grid
    assert env.step(1)[:4] == (1, 0.0, False, False)
    assert env.step(2)[:4] == (1, 0.0, False, False)  # down, into the wall
    assert env.step(1)[:4] == (2, 1.0, True, False)  # the goal
    env.reset(options={"state": 3})
    assert env.step(1)[:4] == (3, 0.0, False, False)  # the wall from the other side


def test_gridworld_rewards_and_truncation():
    env = GridWorld(["SX"], pit_reward=-5.0, step_reward=-0.1, max_steps=2)
    env.reset(seed=0)
    assert env.step(0)[:4] == (0, -0.1, False, False)
    assert env.step(0)[:4] == (0, -0.1, False, True)
    env.reset()
    env.step(0)
    assert env.step(1)[:4] == (
        1,
        -5.0,
        True,
        False,
    )  # ending on the last step is a termination, no truncation


def test_gridworld_model_is_what_it_does():
    env = GridWorld(["S..G", ".#.X"], slip=0.3, step_reward=-0.04)
    rng = np.random.default_rng(0)
    counts, rewards = np.zeros_like(env.transitions), np.zeros_like(env.rewards)
    free = [state for state, cell in enumerate(env.cells) if cell in "S."]
    env.reset(seed=0)
    for _ in range(20_000):
        state, action = int(rng.choice(free)), int(rng.integers(4))
        env.state = state
        target, reward, terminated, _, _ = env.step(action)
        counts[state, action, target] += 1
        rewards[state, action, target] = reward
        assert terminated == (env.cells[target] in "GX")
    totals = counts.sum(axis=2, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    # About 830 tries of each pair: four standard errors are 4 √(0.25 / 830) ≈ 0.07.
    np.testing.assert_allclose(shares[free], env.transitions[free], atol=0.07)
    assert ((counts > 0) <= (env.transitions > 0)).all()
    np.testing.assert_array_equal(rewards[counts > 0], env.rewards[counts > 0])
    np.testing.assert_allclose(env.transitions[free].sum(axis=2), 1.0)


def test_gridworld_values_by_the_bellman_equation():
    """In a corridor of known length the optimal values are powers of γ."""
    env, gamma = GridWorld(["S...G"]), 0.9
    values = np.zeros(5)
    for _ in range(20):
        values = (env.transitions * (env.rewards + gamma * values)).sum(axis=2).max(axis=1)
    np.testing.assert_allclose(values, [gamma**3, gamma**2, gamma, 1.0, 0.0])


def test_gridworld_starts_are_spread_evenly_and_seeded():
    env = GridWorld(["S.S"])
    starts = [env.reset(seed=0)[0], *(env.reset()[0] for _ in range(199))]
    assert 70 < starts.count(0) < 130
    assert set(starts) == {0, 2}
    again = [env.reset(seed=0)[0], *(env.reset()[0] for _ in range(199))]
    assert starts == again


def test_gridworld_renders():
    env = GridWorld(["S.G"], render_mode="ansi")
    env.reset(seed=0)
    env.step(1)
    assert env.render() == "SAG"
    image = GridWorld(["S.G", "X#."], render_mode="rgb_array")
    image.reset(seed=0)
    assert image.render().shape == (64, 96, 3)
    assert GridWorld().render() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": ["S.", "."]}, "rows of one length"),
        ({"layout": []}, "at least one cell"),
        ({"layout": ["S?G"]}, "layout has the character '\\?'; allowed are"),
        ({"layout": ["..G"]}, "layout has no start"),
        ({"slip": 1.5}, r"slip is 1.5; it must be a probability in \[0, 1\]"),
        ({"slip": float("nan")}, "slip is nan"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
    ],
)
def test_gridworld_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(**arguments)


def test_gridworld_refuses_bad_actions_and_states():
    env = GridWorld(["S#G"])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action is 4; it must be 0 \(up\)"):
        env.step(4)
    with pytest.raises(ValueError, match="state 1 is no free cell"):
        env.reset(options={"state": 1})


def test_probes_give_the_rewards_they_promise():
    delayed = PROBES["delayed"]()
    assert delayed.reset(seed=0)[0] == 0
    assert delayed.step(0)[:4] == (1.0, 0.0, False, False)
    assert delayed.step(0)[1:4] == (1.0, True, False)
    for name, obs_matters in (("action", False), ("observation_action", True)):
        env = PROBES[name]()
        obs, _ = env.reset(seed=0)
        good = int(obs[0] > 0) if obs_matters else 1
        assert env.step(good)[1] == 1.0
        env.reset(seed=0)
        assert env.step(1 - good)[1] == -1.0
    continuous = PROBES["continuous_action"]()
    obs, _ = continuous.reset(seed=0)
    assert continuous.step(np.float32([obs[0] / 2]))[1] == 0.0


def test_probes_work_through_gymnasium_wrappers():
    env = gym.wrappers.TimeLimit(PROBES["constant"](), 10)
    env.reset(seed=0)
    assert env.step(0)[1:4] == (1.0, True, False)


def test_a_box_cut_into_bins():
    env = DiscretizedActions(gym.make("Pendulum-v1"), 3)
    assert env.action_space == gym.spaces.Discrete(3)
    assert env.points.tolist() == [[-2], [0], [2]]
    env.reset(seed=0)
    _, reward, *_ = env.step(2)
    other = gym.make("Pendulum-v1")
    other.reset(seed=0)
    assert reward == other.step(np.float32([2]))[1]
    with pytest.raises(ValueError, match=r"action space Discrete\(2\) cannot be cut into bins"):
        DiscretizedActions(gym.make("CartPole-v1"), 3)
    with pytest.raises(ValueError, match=r"bins is 1; it must be a whole number ≥ 2"):
        DiscretizedActions(gym.make("Pendulum-v1"), 1)


def test_bins_of_several_components():
    class Plane(gym.Env):
        observation_space = gym.spaces.Discrete(1)
        action_space = gym.spaces.Box(np.float32([0, 10]), np.float32([1, 20]))

    env = DiscretizedActions(Plane(), 3)
    assert env.points.tolist() == [
        [0, 10], [0, 15], [0, 20], [0.5, 10], [0.5, 15], [0.5, 20], [1, 10], [1, 15], [1, 20],
    ]  # fmt: skip


@pytest.mark.parametrize("bins", BINS)
def test_pendulums_with_bins(bins):
    env = gym.make(f"policyopt/Pendulum{bins}-v0")
    assert env.action_space == gym.spaces.Discrete(bins)
    env.reset(seed=0)
    steps = [env.step(0)[2:4] for _ in range(200)]
    assert steps == [(False, False)] * 199 + [(False, True)]
