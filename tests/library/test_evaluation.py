import functools

import gymnasium as gym
import numpy as np
import pytest

from policyopt.envs import ConstantProbe, GridWorld, ObservationActionProbe
from policyopt.evaluation import RandomAgent, evaluate


class Constant:
    """Always the same action, as a class of five lines."""

    def __init__(self, action):
        self.action = action

    def predict(self, obs, deterministic=True):
        return np.repeat(np.array(self.action)[None], len(obs), axis=0), None


class Perfect:
    def predict(self, obs, deterministic=True):
        return (obs[:, 0] > 0).astype(int), None


def test_known_returns():
    assert evaluate(Constant(0), ConstantProbe, episodes=7).tolist() == [1.0] * 7
    assert evaluate(Perfect(), ObservationActionProbe, episodes=30).tolist() == [1.0] * 30
    mixed = evaluate(Constant(1), ObservationActionProbe, episodes=30, seed=1)
    assert set(mixed) == {-1.0, 1.0}


@pytest.mark.parametrize(("env_id", "action"), [("CartPole-v1", 0), ("Pendulum-v1", [0.5])])
def test_equal_to_a_plain_loop(env_id, action):
    returns = evaluate(Constant(action), env_id, episodes=5, seed=11)
    if env_id == "CartPole-v1":
        # A cart pushed one way falls within 8 to 10 steps, from any start.
        assert ((returns >= 8) & (returns <= 10)).all()
        return
    expected = []
    for n in range(5):
        env = gym.make(env_id)
        env.reset(seed=11 + n)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(np.float32(action))
            total += reward
            over = terminated or truncated
        expected.append(total)
        env.close()
    np.testing.assert_allclose(returns, expected, rtol=1e-6)


def test_every_environment_gives_its_first_episode():
    """Short and long episodes count alike: the first five to finish would all be short."""

    class TwoLengths(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)
        made = 0

        def __init__(self):
            self.length = 2 if TwoLengths.made % 2 else 50
            TwoLengths.made += 1

        def reset(self, *, seed=None, options=None):
            self.step_number = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.step_number += 1
            return np.zeros(1, np.float32), 1.0, self.step_number >= self.length, False, {}

    returns = evaluate(Constant(0), TwoLengths, episodes=6)
    assert sorted(returns) == [2, 2, 2, 50, 50, 50]


def test_random_agent():
    space = gym.spaces.Discrete(3)
    agent = RandomAgent(space, seed=1)
    actions, _ = agent.predict(np.zeros((300, 4)))
    assert set(actions) == {0, 1, 2}
    again, _ = RandomAgent(gym.spaces.Discrete(3), seed=1).predict(np.zeros((300, 4)))
    assert (actions == again).all()


def test_an_agent_of_stable_baselines3_is_evaluated_alike():
    from stable_baselines3 import PPO

    returns = evaluate(PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu"), "CartPole-v1", episodes=3)
    assert returns.shape == (3,)
    assert (returns >= 8).all()


def test_bad_input():
    with pytest.raises(ValueError, match="episodes is 0; it must be at least 1"):
        evaluate(Constant(0), "CartPole-v1", episodes=0)
    with pytest.raises(ValueError, match="cannot make the environment 'Nope-v0'"):
        evaluate(Constant(0), "Nope-v0")


def test_an_episode_that_never_ends_is_an_error(monkeypatch):
    monkeypatch.setattr("policyopt.rollout.MAX_EPISODE_STEPS", 50)
    endless = functools.partial(GridWorld, ("S#G",), max_steps=None)
    with pytest.raises(ValueError, match="an episode has not ended after 50 steps; wrap the environment in"):
        evaluate(RandomAgent(endless().action_space), endless, 2)
