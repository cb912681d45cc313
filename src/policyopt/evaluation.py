"""How good an agent is: fresh episodes, whole ones, their returns."""

import itertools
from typing import Protocol

import numpy as np

from policyopt.rollout import EnvSpec, check_ends, make_envs

__all__ = ["Agent", "RandomAgent", "evaluate"]


class Agent(Protocol):
    """Anything that chooses actions: our agents, those of Stable-Baselines3, or a class of five lines."""

    def predict(self, obs: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, object]: ...


class RandomAgent:
    """Draws every action uniformly from an action space.

    Args:
        action_space: a Gymnasium space; it is seeded with ``seed``.
        seed: of the actions.
    """

    def __init__(self, action_space, seed: int = 0):
        self.action_space = action_space
        self.action_space.seed(seed)

    def predict(self, obs: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """An action for each row of ``obs`` ``[N, *O]``; ``deterministic`` is ignored."""
        return np.array([self.action_space.sample() for _ in range(len(obs))]), None


def evaluate(
    agent: Agent, env_id: EnvSpec, episodes: int = 100, seed: int = 0, deterministic: bool = True
) -> np.ndarray:
    """Undiscounted returns of whole episodes, one from each of ``episodes`` environments played side by side.

    Each environment gives exactly its first episode. Taking the first to finish instead would favour short
    ones.

    Args:
        agent: anything with ``predict(obs [N, *O], deterministic) -> (actions [N, *A], state)``.
        env_id: a Gymnasium id, or a callable that makes an environment; episodes must end.
        episodes: how many.
        seed: of the environments.
        deterministic: the agent's likeliest action instead of a drawn one.

    Returns:
        The returns, ``[episodes]``.

    Raises:
        ValueError: no such environment, no episode asked for, or one that does not end.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; it must be at least 1")
    envs = make_envs(env_id, episodes)
    try:
        obs, _ = envs.reset(seed=seed)
        returns = np.zeros(episodes)
        running = np.ones(episodes, dtype=bool)
        for steps in itertools.count(1):
            check_ends(steps)
            actions, _ = agent.predict(obs, deterministic=deterministic)
            obs, rewards, terminated, truncated, _ = envs.step(np.asarray(actions))
            returns += rewards * running
            running &= ~(terminated | truncated)
            if not running.any():
                break
    finally:
        envs.close()
    return returns
