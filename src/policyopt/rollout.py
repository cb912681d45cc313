"""Playing a policy in several environments at once and keeping what happened."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Generator, Tensor

from policyopt.networks import ActorCritic
from policyopt.returns import gae

__all__ = [
    "Batch",
    "Collector",
    "EnvSpec",
    "EpisodeCollector",
    "Rollout",
    "Steps",
    "advantage_batch",
    "make_env",
    "make_envs",
]

EnvSpec = str | Callable[[], gym.Env]

MAX_EPISODE_STEPS = 100_000  # an episode longer than this is taken for one that never ends


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

    def valid_rows(self, *columns: Tensor) -> Iterator[Tensor]:
        """Tensors ``[T, N, ...]`` without the rows that are no step of an episode, ``[B, ...]``."""
        kept = self.valid.flatten().nonzero().squeeze(-1)
        return (column.flatten(0, 1)[kept] for column in columns)


@dataclass(frozen=True)
class Steps:
    """B independent samples for a loss; environments and time are no longer told apart."""

    obs: Tensor  # [B, *O]
    actions: Tensor  # [B, *A]
    log_probs: Tensor  # [B]       log π_old(a|s)
    advantages: Tensor  # [B]      Â

    def __len__(self) -> int:
        return len(self.advantages)

    def __getitem__(self, index: Tensor) -> Self:
        return type(self)(*(getattr(self, field.name)[index] for field in fields(self)))

    def minibatches(self, size: int, generator: Generator) -> Iterator[Self]:
        """The samples in random order, cut into parts of ``size``; the last part may be smaller."""
        shuffled = self[torch.randperm(len(self), generator=generator)]
        columns = (getattr(shuffled, field.name).split(size) for field in fields(self))
        return itertools.starmap(type(self), zip(*columns, strict=True))


@dataclass(frozen=True)
class Batch(Steps):
    """Samples for an actor and its critic."""

    values: Tensor  # [B]          V(s) when the batch was made
    value_targets: Tensor  # [B]   what V should have been


def check_finite(what: str, values: np.ndarray, steps: int) -> None:
    """Refuse what an environment must not give.

    Raises:
        ValueError: a value is NaN or infinite; the message says which, and after how many steps.
    """
    # One reduction instead of isfinite over the array: this runs at every step.
    if values.dtype.kind == "f" and not np.isfinite(values.sum()) and not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values.reshape(len(values), -1)))[0]
        bad = values.reshape(len(values), -1)[tuple(where)]
        raise ValueError(
            f"{what} of environment {where[0]} after {steps} steps is {bad} "
            f"(component {where[1]}); environments must give finite numbers"
        )


def check_ends(steps: int) -> None:
    """Refuse an episode that goes on for ever.

    Raises:
        ValueError: it has taken more than ``MAX_EPISODE_STEPS``.
    """
    if steps > MAX_EPISODE_STEPS:
        raise ValueError(
            f"an episode has not ended after {MAX_EPISODE_STEPS:,} steps; wrap the environment in "
            "gymnasium.wrappers.TimeLimit"
        )


class Policy(Protocol):
    """What a collector needs of an agent."""

    def policy(self, obs: Tensor): ...

    def to_env(self, actions: Tensor) -> np.ndarray: ...


class Collector:
    """Plays an agent's policy in vectorised environments and remembers where it stopped.

    Args:
        envs: vectorised environments with next-step autoreset (``make_envs`` gives them).
        seed: of the environments and of the actions drawn.
        resumable: keep what a saved state needs, some 150 MB for a million calls of ``step``.

    The state of a collector (``state_dict``) is its seed, its random generator and every action sent so
    far. Loading it replays those actions, which brings any deterministic environment back to where it was
    without pickling it.
    """

    def __init__(self, envs: VectorEnv, seed: int, resumable: bool = True):
        if envs.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
            raise ValueError(
                f"envs have autoreset mode {envs.metadata.get('autoreset_mode')}; it must be NEXT_STEP"
            )
        self.envs = envs
        self.seed = seed
        self.resumable = resumable
        self.generator = Generator().manual_seed(seed)
        self.finished_returns: list[float] = []
        self.finished_lengths: list[int] = []
        self._reset()

    def _reset(self) -> None:
        self._sent: list[np.ndarray] = []
        self._rows = 0
        self.obs, _ = self.envs.reset(seed=self.seed)
        check_finite("the observation", self.obs, self.steps_taken)
        self._after_end = np.zeros(self.envs.num_envs, dtype=bool)
        self._returns = np.zeros(self.envs.num_envs)
        self._lengths = np.zeros(self.envs.num_envs, dtype=int)

    @property
    def steps_taken(self) -> int:
        """Rows played so far, times environments; inserted resets count too."""
        return self._rows * self.envs.num_envs

    def _step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Send actions; the reward, terminated, truncated and valid of this row, each ``[N]``."""
        valid = ~self._after_end
        self._rows += 1
        if self.resumable:
            self._sent.append(actions)
        self.obs, rewards, terminated, truncated, _ = self.envs.step(actions)
        check_finite("the observation", self.obs, self.steps_taken)
        check_finite("the reward", rewards, self.steps_taken)
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
        """Everything needed to go on from here, as tensors and plain numbers.

        Raises:
            ValueError: the collector is not resumable.
        """
        if not self.resumable:
            raise ValueError("this collector was made with resumable=False, so it has no state to save")
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


class EpisodeCollector:
    """Plays whole episodes, one in each of N environments, all begun together.

    Args:
        env_id: a Gymnasium id, or a callable that makes an environment.
        num_envs: N, how many episodes a call plays.
        seed: everything random follows from it.
        group_size: G. Environments 0 … G − 1 start in the same state, so do G … 2G − 1, and so on.

    A group starts in one state because its environments are reset with one seed; afterwards each has a
    random stream of its own, so chance in the dynamics differs within a group. (CartPole's vectorised
    implementation has one stream for all and a state that can be set, which is done.)

    Raises:
        ValueError: no such environment, or a group size that does not divide N.
    """

    def __init__(self, env_id: EnvSpec, num_envs: int, seed: int, group_size: int = 1):
        if num_envs % group_size:
            raise ValueError(f"group_size is {group_size}; it must divide the {num_envs} environments")
        self.envs = make_envs(env_id, num_envs)
        if not isinstance(self.envs, SyncVectorEnv | CartPoleVectorEnv):
            self.envs.close()
            self.envs = SyncVectorEnv([lambda: make_env(env_id)] * num_envs)
        self.group_size = group_size
        self.generator = Generator().manual_seed(seed)
        self.steps_taken = 0
        self.finished_returns: list[float] = []

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def _reset(self) -> np.ndarray:
        size = self.group_size
        seeds = torch.randint(2**31, (self.envs.num_envs,), generator=self.generator).tolist()
        shared = [seeds[i - i % size] for i in range(len(seeds))]
        if isinstance(self.envs, CartPoleVectorEnv):
            self.envs.reset(seed=seeds[0])
            self.envs.state = self.envs.state[:, ::size].repeat(size, axis=1)  # [4, N]
            return self.envs.state.T.astype(np.float32)
        obs, _ = self.envs.reset(seed=shared)
        for i, env in enumerate(self.envs.envs):
            env.unwrapped.np_random = np.random.default_rng(seeds[i])
            if not np.array_equal(obs[i], obs[i - i % size]):
                raise ValueError(
                    f"two environments reset with the seed {shared[i]} began with the observations "
                    f"{obs[i - i % size]} and {obs[i]}: a group of episodes needs one start for all, so the "
                    "environment's reset must draw its randomness from self.np_random"
                )
        return obs

    @torch.no_grad()
    def collect(self, agent: Policy, budget: float = math.inf) -> Rollout | None:
        """Play one episode in each environment, from start to end.

        ``valid`` of the rollout is true while an environment's episode lasts. Steps of environments that
        wait for the longest episode are thrown away and not counted.

        Args:
            agent: what to play.
            budget: environment steps there are left.

        Returns:
            The episodes, T steps long where the longest has T; None as soon as they would take more steps
            than there are left.

        Raises:
            ValueError: a reward or an observation is not finite, an episode does not end, or a group does
                not start in one state.
        """
        columns: dict[str, list[Tensor]] = {field.name: [] for field in fields(Rollout)}
        obs = self._reset()
        running = np.ones(len(obs), dtype=bool)
        returns, steps = np.zeros(len(obs)), 0
        check_finite("the observation", obs, 0)
        while running.any():
            steps += int(running.sum())
            if steps > budget:
                return None
            dist = agent.policy(torch.from_numpy(obs))
            action = dist.sample(self.generator)
            next_obs, rewards, terminated, truncated, _ = self.envs.step(agent.to_env(action))
            check_finite("the observation", next_obs, self.steps_taken + steps)
            check_finite("the reward", rewards, self.steps_taken + steps)
            row = (obs, action, dist.log_prob(action), rewards, terminated, truncated, running)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(torch.as_tensor(value))
            returns += rewards * running
            running = running & ~(terminated | truncated)
            # The array that was returned may be the environments' own, which the next step overwrites.
            obs = np.array(next_obs)
            check_ends(len(columns["rewards"]))
        columns["all_obs"].append(torch.from_numpy(obs))
        self.steps_taken += steps
        self.finished_returns += returns.tolist()
        rollout = {name: torch.stack(column) for name, column in columns.items()}
        return Rollout(**rollout | {"rewards": rollout["rewards"].float()})

    def until(self, total_steps: int, agent: Policy) -> Iterator[Rollout]:
        """Batches of episodes for as long as they fit into ``total_steps`` environment steps.

        Raises:
            ValueError: not even the first batch fits; and what ``collect`` raises.
        """
        while (rollout := self.collect(agent, total_steps - self.steps_taken)) is not None:
            yield rollout
        if not self.steps_taken:
            raise ValueError(
                f"total_steps is {total_steps}; the first {self.envs.num_envs} whole episodes take more"
            )

    def recent_return(self) -> float:
        """Mean undiscounted return of the last batch of episodes, but of at least the last 20."""
        return float(np.mean(self.finished_returns[-max(20, self.envs.num_envs) :]))

    def state_dict(self) -> dict:
        """Everything needed to go on from here; between two calls no environment is in mid-episode."""
        return {
            "generator": self.generator.get_state(),
            "steps": self.steps_taken,
            "finished_returns": list(self.finished_returns),
        }

    def load_state_dict(self, state: dict) -> None:
        """Return to a saved state."""
        self.generator.set_state(state["generator"])
        self.steps_taken, self.finished_returns = state["steps"], list(state["finished_returns"])


@torch.no_grad()
def advantage_batch(rollout: Rollout, agent: ActorCritic, gamma: float, gae_lambda: float) -> Batch:
    """What the loss needs of a rollout: GAE advantages and value targets Â + V, without inserted resets."""
    all_values = agent.value(rollout.all_obs)  # [T+1, N]
    values, next_values = all_values[:-1], all_values[1:]
    advantages = gae(
        rollout.rewards, values, next_values, rollout.terminated, rollout.truncated, gamma, gae_lambda
    )
    columns = (rollout.obs, rollout.actions, rollout.log_probs, advantages, values, advantages + values)
    return Batch(*rollout.valid_rows(*columns))
