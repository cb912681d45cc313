"""Steps that were played, kept to be learned from again. Lin (1992); Mnih et al. (2015)."""

import math
import numbers
from collections import deque
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Generator, Tensor

__all__ = ["ReplayBuffer", "ReplayCollector", "Transitions"]


class Transitions(NamedTuple):
    """B steps that need not have followed one another."""

    obs: Tensor  # s, [B, *O]
    actions: Tensor  # a, [B, *A]
    rewards: Tensor  # r, [B] float32
    next_obs: Tensor  # s', [B, *O]: what the step led to, an episode's last observation among them
    terminated: Tensor  # [B] bool: nothing follows s'
    truncated: Tensor  # [B] bool: the episode was cut off in s', which still has its value


class ReplayBuffer:
    """The newest steps of one environment, from which batches are drawn at random.

    Lin (1992), "Self-improving reactive agents based on reinforcement learning, planning and teaching".

    All memory is taken at once. When the buffer is full, a new step takes the place of the oldest one.

    Args:
        obs_space: Box or Discrete.
        action_space: Box or Discrete.
        capacity: how many steps are kept.
        generator: where the batches' randomness comes from.

    Raises:
        ValueError: a capacity below 1, or a space of another kind.
    """

    def __init__(self, obs_space: gym.Space, action_space: gym.Space, capacity: int, generator: Generator):
        if not isinstance(capacity, numbers.Integral) or isinstance(capacity, bool) or capacity < 1:
            raise ValueError(f"capacity is {capacity!r}; it must be a whole number ≥ 1")
        self.capacity, self.generator = int(capacity), generator
        obs, next_obs = (_empty("observation", obs_space, self.capacity) for _ in range(2))
        actions = _empty("action", action_space, self.capacity)
        flags = (torch.zeros(self.capacity, dtype=torch.bool) for _ in range(2))
        self.columns = Transitions(obs, actions, torch.zeros(self.capacity), next_obs, *flags)
        self._arrays = Transitions(*(column.numpy() for column in self.columns))  # the same memory
        self.added = 0  # steps ever added

    def __len__(self) -> int:
        """How many steps it holds."""
        return min(self.added, self.capacity)

    def add(
        self,
        obs: np.ndarray | int,
        action: np.ndarray | int,
        reward: float,
        next_obs: np.ndarray | int,
        terminated: bool,
        truncated: bool,
    ) -> None:
        """Keep one step.

        Args:
            obs: s, of the observation space's shape.
            action: a, of the action space's shape.
            reward: r.
            next_obs: s', what ``step`` returned, not what a reset after it did.
            terminated: the episode is over in s'.
            truncated: the episode was cut off in s'.

        Raises:
            ValueError: a reward, an observation or an action is not finite, or has another shape; the buffer
                is left as it was.
        """
        row = Transitions(obs, action, reward, next_obs, terminated, truncated)
        for name, value, array in zip(Transitions._fields[:4], row, self._arrays, strict=False):
            value = np.asarray(value)
            if value.shape != array.shape[1:]:
                raise ValueError(f"{name} has the shape {value.shape}; the buffer keeps {array.shape[1:]}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(
                    f"{name} is {value} after {self.added} steps; environments must give finite numbers"
                )
        place = self.added % self.capacity
        for value, array in zip(row, self._arrays, strict=True):
            array[place] = value
        self.added += 1

    def sample(self, batch_size: int) -> Transitions:
        """Steps drawn at random, each independently of the others: one can come twice.

        Args:
            batch_size: B.

        Raises:
            ValueError: the buffer holds fewer than B steps.
        """
        if not 1 <= batch_size <= len(self):
            raise ValueError(
                f"batch_size is {batch_size}; the buffer holds {len(self)} steps of at most {self.capacity}, "
                "and a batch needs at least 1 and no more than it holds"
            )
        rows = torch.randint(len(self), (batch_size,), generator=self.generator)
        return Transitions(*(column.index_select(0, rows) for column in self.columns))

    def newest(self, count: int) -> Transitions:
        """The last steps that were added, in their order.

        Args:
            count: B.

        Raises:
            ValueError: the buffer holds fewer than B steps.
        """
        if not 1 <= count <= len(self):
            raise ValueError(
                f"count is {count}; the buffer holds {len(self)} steps, and at least 1 is needed"
            )
        rows = torch.arange(self.added - count, self.added) % self.capacity
        return Transitions(*(column[rows] for column in self.columns))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on from here: copies of the steps it holds, and the generator's state."""
        columns = self.columns._asdict()
        steps = {name: column[: len(self)].clone() for name, column in columns.items()}
        return {
            "capacity": self.capacity,
            "added": self.added,
            "steps": steps,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a saved state.

        Raises:
            ValueError: it was saved from a buffer of another capacity or other spaces; this one is left as it
                was.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"the saved buffer keeps {state['capacity']} steps, this one {self.capacity}")
        for name, column in self.columns._asdict().items():
            saved = state["steps"][name]
            if saved.shape[1:] != column.shape[1:] or saved.dtype != column.dtype:
                raise ValueError(
                    f"the saved {name} have the shape {tuple(saved.shape[1:])} and the type {saved.dtype}; "
                    f"this buffer keeps {tuple(column.shape[1:])} and {column.dtype}"
                )
        self.added = state["added"]
        for name, column in self.columns._asdict().items():
            column[: len(self)] = state["steps"][name]
        self.generator.set_state(state["generator"])


def _empty(what: str, space: gym.Space, capacity: int) -> Tensor:
    """Room for elements of a space, in its own type: an image of bytes takes a byte for each."""
    if isinstance(space, Discrete):
        return torch.zeros(capacity, dtype=torch.int64)
    if isinstance(space, Box):
        return torch.from_numpy(np.zeros((capacity, *space.shape), dtype=space.dtype))
    raise ValueError(f"{what} space {space} is not supported; a replay buffer keeps Box or Discrete")


class ReplayCollector:
    """Plays one environment, keeps every step in a replay buffer, and remembers where it stopped.

    Args:
        env: the environment. Each episode is reset with a seed of its own.
        buffer: where the steps go. Its generator is what an algorithm draws from.
        seed: of the episodes and of ``rng``.

    Attributes:
        rng: for whoever chooses the actions.
        obs: s, the observation that waits for an action.
        steps_taken: so far.
        episode_over: whether the last step ended an episode, or there was none yet.

    The state of a collector (``state_dict``) has the seed of the current episode and the actions sent in it.
    Loading it plays them again, which brings any environment that depends on its seed alone back to where it
    was without pickling it.
    """

    def __init__(self, env: gym.Env, buffer: ReplayBuffer, seed: int):
        self.env, self.buffer = env, buffer
        self.rng = np.random.default_rng(seed)
        self.steps_taken = 0
        self.finished: deque[tuple[float, int]] = deque(maxlen=20)  # returns and lengths
        self._begin(int(self.rng.integers(2**31)))

    def _begin(self, episode_seed: int) -> None:
        self._episode_seed = episode_seed
        self._sent: list[np.ndarray] = []
        self._return = 0.0
        obs, _ = self.env.reset(seed=episode_seed)
        self.obs = np.array(obs)
        self.episode_over = True

    def step(self, action: np.ndarray | int, sent: np.ndarray | int) -> None:
        """Play one step and keep it; when it ends the episode, the next one is begun.

        Args:
            action: as the buffer keeps it.
            sent: the same action as the environment takes it.

        Raises:
            ValueError: the environment gave a reward or an observation that is not finite.
        """
        next_obs, reward, terminated, truncated, _ = self.env.step(sent)
        self.buffer.add(self.obs, action, reward, next_obs, terminated, truncated)
        self._sent.append(np.asarray(sent))
        self._return += float(reward)
        self.steps_taken += 1
        # What was returned may be the environment's own array, which the next step overwrites.
        self.obs, self.episode_over = np.array(next_obs), False
        if terminated or truncated:
            self.finished.append((self._return, len(self._sent)))
            self._begin(int(self.rng.integers(2**31)))

    def uniform_action(self, space: Box) -> np.ndarray:
        """A random element of a bounded Box, float32."""
        return self.rng.uniform(space.low, space.high).astype(np.float32)

    def recent(self) -> dict[str, float]:
        """Mean return and mean length of the last 20 finished episodes; NaN before the first has finished."""
        means = np.mean(self.finished, axis=0) if self.finished else (math.nan, math.nan)
        return {"episode_return": float(means[0]), "episode_length": float(means[1])}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on from here, the buffer included."""
        return {
            "buffer": self.buffer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "steps": self.steps_taken,
            "finished": list(self.finished),
            "episode_seed": self._episode_seed,
            "sent": torch.from_numpy(np.stack(self._sent)) if self._sent else torch.empty(0),
            "obs": torch.from_numpy(np.array(self.obs)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Return to a saved state by playing its episode again.

        Raises:
            ValueError: the environment did not end up where it was, so it is not deterministic.
        """
        self.buffer.load_state_dict(state["buffer"])
        self._begin(state["episode_seed"])
        for sent in state["sent"].numpy():
            obs, reward, *_ = self.env.step(sent)
            self.obs = np.array(obs)
            self._sent.append(sent)
            self._return += float(reward)
            self.episode_over = False
        if not np.array_equal(self.obs, state["obs"].numpy()):
            raise ValueError(
                "playing the saved actions again did not lead to the saved observation: this environment is "
                "not deterministic given its seed, so the run cannot be resumed"
            )
        self.rng.bit_generator.state = state["rng"]
        self.steps_taken = state["steps"]
        self.finished = deque(state["finished"], maxlen=20)
