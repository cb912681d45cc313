"""Playing a policy in several environments at once and keeping what happened."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Generator, Tensor

from policyopt.networks import ActorCritic
from policyopt.returns import gae

__all__ = ["Batch", "Collector", "EnvSpec", "Rollout", "advantage_batch", "make_env", "make_envs"]

EnvSpec = str | Callable[[], gym.Env]


def make_env(env_id: EnvSpec, **kwargs) -> gym.Env:
    """One environment from a Gymnasium id or from a callable that makes it.

    Raises:
        ValueError: no such environment, or the callable gave something else.
    """
    if isinstance(env_id, str):
        try:
            return gym.make(env_id, **kwargs)
        except (gym.error.Error, ImportError) as error:
            raise ValueError(f"cannot make the environment {env_id!r}: {error}") from error
    if not callable(env_id):
        raise ValueError(
            f"env_id is {env_id!r}; it must be a Gymnasium id such as 'CartPole-v1' or a callable"
        )
    env = env_id(**kwargs)
    if not isinstance(env, gym.Env):
        raise ValueError(f"env_id() gave {type(env).__name__}; it must give a gymnasium.Env")
    return env


def make_envs(env_id: EnvSpec, num_envs: int) -> VectorEnv:
    """``num_envs`` copies of an environment, stepped together.

    CartPole brings an implementation that steps all copies in one NumPy call, and it is used; other
    environments are stepped one after the other. All of them follow Gymnasium's next-step autoreset: the
    step after an episode's end is not a step of any episode, it only brings the first observation of the
    next one.

    Raises:
        ValueError: no such environment.
    """
    if isinstance(env_id, str):
        spec = gym.registry.get(env_id)
        if spec is not None and spec.vector_entry_point is not None:
            envs = gym.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point")
            if envs.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP:
                return envs
            envs.close()
    return SyncVectorEnv([lambda: make_env(env_id)] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, time-major.

    ``valid`` is false where Gymnasium inserted a reset: such a row is no step of any episode and must
    reach no loss.
    """

    all_obs: Tensor  # [T+1, N, *O]  s_0 … s_T
    actions: Tensor  # [T, N, *A]    as sampled, before any clipping to the action space
    log_probs: Tensor  # [T, N]      log π_old(a_t|s_t)
    rewards: Tensor  # [T, N]
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    valid: Tensor  # [T, N] bool

    @property
    def obs(self) -> Tensor:
        """s_t, ``[T, N, *O]``."""
        return self.all_obs[:-1]

    @property
    def next_obs(self) -> Tensor:
        """s_{t+1} as it truly followed, before any reset, ``[T, N, *O]``.

        Under next-step autoreset the row after an episode's end holds its last observation, so this is
        just ``all_obs`` one row later.
        """
        return self.all_obs[1:]


@dataclass(frozen=True)
class Batch:
    """B independent samples for a loss; environments and time are no longer told apart."""

    obs: Tensor  # [B, *O]
    actions: Tensor  # [B, *A]
    log_probs: Tensor  # [B]       log π_old(a|s)
    values: Tensor  # [B]          V(s) when the batch was made
    advantages: Tensor  # [B]      Â
    value_targets: Tensor  # [B]   what V should have been

    def __len__(self) -> int:
        return len(self.advantages)

    def __getitem__(self, index: Tensor) -> "Batch":
        return Batch(*(getattr(self, field.name)[index] for field in fields(self)))

    def minibatches(self, size: int, generator: Generator) -> Iterator["Batch"]:
        """The batch in random order, cut into parts of ``size``; the last part may be smaller."""
        shuffled = self[torch.randperm(len(self), generator=generator)]
        columns = (getattr(shuffled, field.name).split(size) for field in fields(self))
        return itertools.starmap(Batch, zip(*columns, strict=True))


class Policy(Protocol):
    """What a collector needs of an agent."""

    def policy(self, obs: Tensor): ...

    def to_env(self, actions: Tensor) -> np.ndarray: ...


class Collector:
    """Plays an agent's policy in vectorised environments and remembers where it stopped.

    Args:
        envs: vectorised environments with next-step autoreset (``make_envs`` gives them).
        seed: of the environments and of the actions drawn.

    The state of a collector (``state_dict``) is its seed, its random generator and every action sent so
    far. Loading it replays those actions, which brings any deterministic environment back to where it was
    without pickling it.
    """

    def __init__(self, envs: VectorEnv, seed: int):
        if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"envs have autoreset mode {envs.metadata.get('autoreset_mode')}; it must be NEXT_STEP"
            )
        self.envs = envs
        self.seed = seed
        self.generator = Generator().manual_seed(seed)
        self.finished_returns: list[float] = []
        self.finished_lengths: list[int] = []
        self._reset()

    def _reset(self) -> None:
        self.obs, _ = self.envs.reset(seed=self.seed)
        self._check_finite("the observation", self.obs)
        self._after_end = np.zeros(self.envs.num_envs, dtype=bool)
        self._returns = np.zeros(self.envs.num_envs)
        self._lengths = np.zeros(self.envs.num_envs, dtype=int)
        self._sent: list[np.ndarray] = []

    def _check_finite(self, what: str, values: np.ndarray) -> None:
        # One reduction instead of isfinite over the array: this runs at every step.
        if values.dtype.kind == "f" and not np.isfinite(values.sum()) and not np.isfinite(values).all():
            where = np.argwhere(~np.isfinite(values.reshape(self.envs.num_envs, -1)))[0]
            bad = values.reshape(self.envs.num_envs, -1)[tuple(where)]
            raise ValueError(
                f"{what} of environment {where[0]} after {self.steps_taken} steps is {bad} "
                f"(component {where[1]}); environments must give finite numbers"
            )

    @property
    def steps_taken(self) -> int:
        """Rows played so far, times environments; inserted resets count too."""
        return len(self._sent) * self.envs.num_envs

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Send actions; the reward, terminated, truncated and valid of this row, each ``[N]``."""
        valid = ~self._after_end
        self._sent.append(actions)
        self.obs, rewards, terminated, truncated, _ = self.envs.step(actions)
        self._check_finite("the observation", self.obs)
        self._check_finite("the reward", rewards)
        self._after_end = terminated | truncated
        self._returns += rewards
        self._lengths += valid
        if self._after_end.any():
            self.finished_returns += self._returns[self._after_end].tolist()
            self.finished_lengths += self._lengths[self._after_end].tolist()
            self._returns[self._after_end] = 0.0
            self._lengths[self._after_end] = 0
        return rewards, terminated, truncated, valid

    @torch.no_grad()
    def collect(self, agent: Policy, horizon: int) -> Rollout:
        """Play ``horizon`` (T) steps in each of the N environments, going on where the last call stopped.

        Raises:
            ValueError: an environment gave a reward or an observation that is not finite.
        """
        shape = (horizon, self.envs.num_envs)
        all_obs = np.empty((horizon + 1, *self.obs.shape), dtype=self.obs.dtype)
        rewards = np.empty(shape, dtype=np.float32)
        terminated, truncated, valid = (np.empty(shape, dtype=bool) for _ in range(3))
        actions, log_probs = [], []
        all_obs[0] = self.obs
        for t in range(horizon):
            dist = agent.policy(torch.from_numpy(all_obs[t]))
            action = dist.sample(self.generator)
            actions.append(action)
            log_probs.append(dist.log_prob(action))
            rewards[t], terminated[t], truncated[t], valid[t] = self._step(agent.to_env(action))
            all_obs[t + 1] = self.obs
        return Rollout(
            all_obs=torch.from_numpy(all_obs),
            actions=torch.stack(actions),
            log_probs=torch.stack(log_probs),
            rewards=torch.from_numpy(rewards),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            valid=torch.from_numpy(valid),
        )

    def recent_return(self, episodes: int = 20) -> float:
        """Mean undiscounted return of the last finished episodes; NaN before the first has finished.

        Few episodes make a noisy curve, many a late one: a hundred of CartPole's longest are 50,000 steps.
        """
        recent = self.finished_returns[-episodes:]
        return float(np.mean(recent)) if recent else float("nan")

    def state_dict(self) -> dict:
        """Everything needed to go on from here, as tensors and plain numbers."""
        sent = torch.from_numpy(np.stack(self._sent)) if self._sent else torch.empty(0)
        if not sent.is_floating_point() and sent.numel() and sent.min() >= 0 and sent.max() < 256:
            sent = sent.to(torch.uint8)
        return {
            "seed": self.seed,
            "generator": self.generator.get_state(),
            "sent": sent,
            "obs": torch.from_numpy(np.array(self.obs)),
        }

    def load_state_dict(self, state: dict) -> None:
        """Return to a saved state by replaying the actions that led there.

        Raises:
            ValueError: the environments did not end up where they were, so they are not deterministic.
        """
        self.seed = state["seed"]
        self.finished_returns, self.finished_lengths = [], []
        self._reset()
        dtype = self.envs.action_space.dtype
        for actions in state["sent"].numpy().astype(dtype):
            self._step(actions)
        if not np.array_equal(self.obs, state["obs"].numpy()):
            raise ValueError(
                "replaying the saved actions did not lead back to the saved observation: "
                "this environment is not deterministic given its seed, so the run cannot be resumed"
            )
        self.generator.set_state(state["generator"])


@torch.no_grad()
def advantage_batch(rollout: Rollout, agent: ActorCritic, gamma: float, gae_lambda: float) -> Batch:
    """What the loss needs of a rollout: GAE advantages and value targets Â + V, without inserted resets."""
    all_values = agent.value(rollout.all_obs)  # [T+1, N]
    values, next_values = all_values[:-1], all_values[1:]
    advantages = gae(
        rollout.rewards, values, next_values, rollout.terminated, rollout.truncated, gamma, gae_lambda
    )
    columns = (rollout.obs, rollout.actions, rollout.log_probs, values, advantages, advantages + values)
    return Batch(*(column[rollout.valid] for column in columns))  # [T, N, …] → [B, …]
