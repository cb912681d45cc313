"""Q-learning: the value of every action in every state, from single steps. Watkins (1989), "Learning from
Delayed Rewards"; Sutton & Barto (2018), section 6.5.
"""

import math
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import gymnasium as gym
import numpy as np

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.rollout import EnvSpec, make_env
from policyopt.settings import check_settings, spawn_seeds
from policyopt.tabular import TabularAgent
from policyopt.training import linear_schedule, updates_within

__all__ = ["Learner", "QLearningConfig", "q_update", "td_target", "train"]


@dataclass(frozen=True)
class QLearningConfig:
    """Settings of Q-learning. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 50_000  # environment steps, exactly; the last episode is cut
    learning_rate: float = 0.1  # α
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    gamma: float = 0.99  # γ
    epsilon: float = 1.0  # ε, the probability of a random action
    epsilon_end: float | None = 0.05  # reached in a straight line; None keeps it constant
    epsilon_fraction: float = 0.5  # the share of all steps after which it is reached
    initial_value: float = 0.0  # of every action; above what can be earned, it makes the agent curious
    log_every: int = 10  # episodes in an update, and so to a row of the history

    def __post_init__(self) -> None:
        check_settings(self, learning_rate=(float, 0, 1, "open"), learning_rate_end=(float, 0, 1, "optional"))


def td_target(reward: float, next_values: np.ndarray, terminated: bool, gamma: float) -> float:
    r"""What the value of an action should have been, :math:`r + \gamma \max_{a'} Q(s',a')`.

    Book: eq-q-learning. Sutton & Barto (2018), eq. 6.8.

    Args:
        reward: r.
        next_values: Q(s', ·), ``[A]``.
        terminated: the episode is over in s', so nothing follows. A truncation is no end: there it is false.
        gamma: γ.
    """
    return reward if terminated else reward + gamma * next_values.max()


def q_update(table: np.ndarray, state: int, action: int, target: float, learning_rate: float) -> float:
    """Move Q(s, a) in ``table`` ``[S, A]`` towards the target by the share α; the TD error is returned.

    Book: eq-q-learning. Sutton & Barto (2018), eq. 6.8.
    """
    td_error = target - table[state, action]
    table[state, action] += learning_rate * td_error
    return td_error


class Learner:
    """Plays episodes, ε-greedy in the agent's table, and improves the table after every step.

    Its state (``state_dict``) is that between two episodes; the table is part of the agent.

    Args:
        env: an environment with the agent's spaces.
        agent: what learns.
        config: the settings.
        seed: of the environment and of the actions drawn.
    """

    def __init__(self, env: gym.Env, agent: TabularAgent, config: QLearningConfig, seed: int):
        self.env, self.config = env, config
        self.table = agent.q.numpy()  # [S, A], the agent's own memory
        self.obs_start, self.action_start = int(agent.obs_space.start), int(agent.action_space.start)
        self.rng = np.random.default_rng(seed)
        self.step = 0
        self.finished: deque[tuple[float, int]] = deque(maxlen=20)  # returns and lengths

    def schedules(self) -> tuple[float, float]:
        """ε and α at this step."""
        config, done = self.config, self.step / self.config.total_steps
        falling = min(done / config.epsilon_fraction, 1.0)
        epsilon = linear_schedule(config.epsilon, config.epsilon_end, falling)
        return epsilon, linear_schedule(config.learning_rate, config.learning_rate_end, done)

    def episode(self) -> list[float]:
        """Play one episode, or what the steps left allow of it, and learn; the TD error of each step.

        Raises:
            ValueError: a reward that is not finite.
        """
        obs, _ = self.env.reset(seed=int(self.rng.integers(2**31)))
        state, episode_return, td_errors = int(obs) - self.obs_start, 0.0, []
        while self.step < self.config.total_steps:
            epsilon, learning_rate = self.schedules()
            if self.rng.random() < epsilon:
                action = int(self.rng.integers(self.table.shape[1]))
            else:
                action = int(self.table[state].argmax())
            obs, reward, terminated, truncated, _ = self.env.step(action + self.action_start)
            next_state = int(obs) - self.obs_start
            self.step += 1
            if not math.isfinite(reward):
                raise ValueError(
                    f"the reward after {self.step} steps is {reward}; environments must give finite numbers"
                )

            target = td_target(reward, self.table[next_state], terminated, self.config.gamma)
            td_errors.append(q_update(self.table, state, action, target, learning_rate))
            state, episode_return = next_state, episode_return + reward
            if terminated or truncated:
                self.finished.append((float(episode_return), len(td_errors)))
                break
        return td_errors

    def recent(self) -> tuple[float, float]:
        """Mean return and mean length of the last 20 finished episodes; NaN before the first has finished."""
        episode_return, length = np.mean(self.finished, axis=0) if self.finished else (math.nan, math.nan)
        return float(episode_return), float(length)

    def state_dict(self) -> dict:
        """Everything needed to go on from here, as plain values."""
        return {"rng": self.rng.bit_generator.state, "step": self.step, "finished": list(self.finished)}

    def load_state_dict(self, state: dict) -> None:
        """Return to a saved state."""
        self.rng.bit_generator.state = state["rng"]
        self.step = state["step"]
        self.finished = deque(state["finished"], maxlen=20)


def train(
    env_id: EnvSpec,
    config: QLearningConfig = QLearningConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[TabularAgent, History]:
    """Train an agent with Q-learning; arguments, results and errors as for all of ``policyopt.algorithms``.

    Both spaces must be Discrete. An update is ``config.log_every`` episodes.
    """
    (play_seed,) = spawn_seeds(seed, 1)
    with closing(make_env(env_id)) as env:
        agent = TabularAgent(env.observation_space, env.action_space, config.initial_value)
        learner, history = Learner(env, agent, config, play_seed), History()
        parts = {"agent": agent, "learner": learner, "history": history}
        saved = Checkpoint(
            checkpoint, checkpoint_every, describe_run("q_learning", env_id, config, seed), parts
        )
        for _ in updates_within(config.total_steps, history, saved, progress):
            epsilon, learning_rate = learner.schedules()
            td_errors = []
            for _ in range(config.log_every):
                if learner.step < config.total_steps:
                    td_errors += learner.episode()
            episode_return, episode_length = learner.recent()
            history.log(
                step=learner.step,
                episode_return=episode_return,
                episode_length=episode_length,
                epsilon=epsilon,
                learning_rate=learning_rate,
                td_error=np.abs(td_errors).mean(),
            )
    return agent, history
