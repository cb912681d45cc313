"""PPO with its implementation details switched on and off, one at a time.

They are those of Engstrom et al. (2020), arXiv:2005.12729, Andrychowicz et al. (2020), arXiv:2006.05990, and
Huang et al. (2022), "The 37 implementation details of proximal policy optimization".
"""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.utils import RunningMeanStd
from gymnasium.wrappers.vector import NormalizeObservation
from torch import Generator, nn

from policyopt.algorithms.ppo import PPOConfig, improve, ppo_loss
from policyopt.evaluation import Agent
from policyopt.history import History
from policyopt.language.ppo import clipped_value_loss
from policyopt.losses import explained_variance
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, Collector, EnvSpec, Rollout, advantage_batch, make_envs
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    gradient_step,
    linear_schedule,
    make_adam,
    mean_metrics,
    set_learning_rate,
    single_thread,
)
from policyopt.tuned import tuned_config

__all__ = [
    "ABLATION_RUNS",
    "ABLATION_STEPS",
    "DetailsConfig",
    "NormalizedAgent",
    "RewardScaler",
    "ablation_config",
    "end_at_truncation",
    "initial_agent",
    "ppo_with",
]


@dataclass(frozen=True)
class DetailsConfig(PPOConfig):
    """Settings of PPO and of what surrounds it; by default all is as in ``policyopt.algorithms.ppo``.

    Values out of range raise ``ValueError`` and name the field.
    """

    orthogonal: bool = True  # initial weights; otherwise those that torch gives a Linear
    policy_gain: float = 0.01  # of the policy's last layer, where weights are orthogonal
    activation: str = "tanh"  # or "relu"
    shared_trunk: bool = False  # one network with two heads
    adam_epsilon: float = 1e-5
    value_clip: float | None = None  # c, how far a value may move in an update; None: as far as it likes
    normalize_observations: bool = False
    scale_rewards: bool = False
    bootstrap_truncated: bool = True  # a time limit is not the end of the world

    def __post_init__(self) -> None:
        check_settings(
            self,
            orthogonal=(bool,),
            policy_gain=(float, 0, math.inf, "open"),
            activation=(str, "tanh", "relu"),
            shared_trunk=(bool,),
            adam_epsilon=(float, 0, math.inf, "open"),
            normalize_observations=(bool,),
            scale_rewards=(bool,),
            bootstrap_truncated=(bool,),
        )
        if self.target_kl is not None and self.value_clip is not None:
            raise ValueError(
                f"DetailsConfig.target_kl is {self.target_kl!r}; it must be None where there is a value_clip"
            )
        if self.policy_gain != 0.01 and not self.orthogonal:
            raise ValueError(
                f"DetailsConfig.policy_gain is {self.policy_gain!r}; it must be 0.01, which has no effect, "
                "where weights are not orthogonal"
            )


# What each run of the ablation changes of the tuned PPO.
ABLATION_RUNS: dict[str, dict[str, Any]] = {
    "PPO": {},
    "no advantage normalisation": {"normalize_advantages": False},
    "constant learning rate": {"learning_rate_end": None},
    "no gradient clipping": {"max_grad_norm": 1e6},
    "PyTorch's initial weights": {"orthogonal": False},
    "last layer with gain 1": {"policy_gain": 1.0},
    "clipped value loss": {"value_clip": 0.2},
    "normalised observations": {"normalize_observations": True},
    "scaled rewards": {"scale_rewards": True},
    "scaled rewards, clipped value loss": {"scale_rewards": True, "value_clip": 0.2},
    "Adam's ε = 1e-8": {"adam_epsilon": 1e-8},
    "ReLU instead of tanh": {"activation": "relu"},
    "one network with two heads": {"shared_trunk": True},
    "time limit as the end": {"bootstrap_truncated": False},
}

# Enough for the tuned PPO to solve the task, and not much more: what learns slower is to be seen.
ABLATION_STEPS = {"CartPole-v1": 50_000, "Acrobot-v1": 40_000, "Pendulum-v1": 80_000}


def ablation_config(label: str) -> Callable[[str], DetailsConfig]:
    """The settings of a run of the ablation, as a function of the environment."""

    def config(environment: str) -> DetailsConfig:
        settings = vars(tuned_config("ppo", environment)) | {"total_steps": ABLATION_STEPS[environment]}
        return DetailsConfig(**settings | ABLATION_RUNS[label])

    return config


# --- the details ---


def initial_agent(envs: VectorEnv, config: DetailsConfig, seed: int) -> ActorCritic:
    """An agent before training, with the weights, the gain, the activation and the networks asked for."""
    agent = ActorCritic.for_envs(envs, config.hidden, seed)
    linear = [layer for layer in agent.modules() if isinstance(layer, nn.Linear)]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for layer in [] if config.orthogonal else linear:
            layer.reset_parameters()
        if config.policy_gain != 0.01:
            agent.policy_net[-1].weight *= config.policy_gain / 0.01
    if config.activation == "relu":
        for network in (agent.policy_net, agent.value_net):
            for i, layer in enumerate(network):
                network[i] = nn.ReLU() if isinstance(layer, nn.Tanh) else layer
    if config.shared_trunk:
        agent.value_net = nn.Sequential(*agent.policy_net[:-1], agent.value_net[-1])
    return agent


class RewardScaler:
    """Divides rewards by the standard deviation of the discounted return so far, γ R_{t−1} + r_t.

    Engstrom et al. (2020), section 3. The deviation is that over all steps yet, those of the rollout
    included; a rollout's rewards are all divided by the same number.

    Args:
        num_envs: N.
        gamma: γ.
    """

    def __init__(self, num_envs: int, gamma: float):
        self.gamma, self.returns, self.statistics = gamma, np.zeros(num_envs), RunningMeanStd()

    def __call__(self, rollout: Rollout) -> Rollout:
        """The rollout with its rewards scaled."""
        ended = rollout.terminated | rollout.truncated
        rows = (column.numpy() for column in (rollout.rewards, rollout.valid, ended))
        for rewards, valid, ends in zip(*rows, strict=True):
            self.returns = self.gamma * self.returns + rewards
            if valid.any():
                self.statistics.update(self.returns[valid])
            self.returns[ends] = 0.0
        return replace(rollout, rewards=rollout.rewards / math.sqrt(self.statistics.var + 1e-8))


def end_at_truncation(rollout: Rollout) -> Rollout:
    """The rollout with time limits taken for ends: nothing is expected after them."""
    ends = rollout.terminated | rollout.truncated
    return replace(rollout, terminated=ends, truncated=torch.zeros_like(ends))


class NormalizedAgent:
    """An agent that learned from normalised observations, for raw ones.

    Args:
        agent: what learned.
        statistics: mean and variance of the observations, as they were at the end of the training.
        epsilon: added to the variance.
    """

    def __init__(self, agent: Agent, statistics: RunningMeanStd, epsilon: float = 1e-8):
        self.agent, self.mean = agent, statistics.mean
        self.deviation = np.sqrt(statistics.var + epsilon)

    def predict(self, obs: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        """As for ``policyopt.networks.Actor``."""
        return self.agent.predict(((obs - self.mean) / self.deviation).astype(np.float32), deterministic)


def improve_with_value_clip(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: DetailsConfig,
    clip: float,
    generator: Generator,
) -> dict[str, float]:
    """As ``policyopt.algorithms.ppo.improve``, with the clipped value loss in place of the squared error."""
    without_values, rows = replace(config, value_coef=0.0), []
    for _ in range(config.epochs):
        for part in batch.minibatches(config.minibatch_size, generator):
            loss, metrics = ppo_loss(agent, part, without_values, clip)
            losses = clipped_value_loss(
                agent.value(part.obs), part.values, part.value_targets, config.value_clip
            )
            metrics["value_loss"] = losses.mean().detach()
            loss = loss + config.value_coef * losses.mean()
            metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
            rows.append(metrics)
    return {**mean_metrics(rows), "gradient_steps": len(rows)}


def ppo_with(
    env_id: EnvSpec, config: DetailsConfig = DetailsConfig(), seed: int = 0
) -> tuple[Agent, History]:
    """Train PPO with the details asked for; with none changed it is ``policyopt.algorithms.ppo.train`` to the
    bit.

    Args:
        env_id: a Gymnasium id, or a callable that makes an environment.
        config: settings.
        seed: everything random follows from it.

    Returns:
        The trained agent, which takes raw observations, and the history, with the environment's own returns.

    Raises:
        ValueError: no such environment, or one that gives a number that is not finite.
        FloatingPointError: the gradient is not finite.
    """
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_envs(env_id, config.num_envs)) as envs, single_thread():
        if config.normalize_observations:
            envs = NormalizeObservation(envs)
        agent = initial_agent(envs, config, weights_seed)
        optimizer = make_adam(agent.parameters(), config.learning_rate)
        optimizer.param_groups[0]["eps"] = config.adam_epsilon
        collector = Collector(envs, play_seed, resumable=False)
        history = History()
        scale = RewardScaler(config.num_envs, config.gamma)
        learn = improve_with_value_clip if config.value_clip else improve
        steps_per_update = config.num_envs * config.horizon
        num_updates = config.total_steps // steps_per_update

        for update in range(num_updates):
            done = update / num_updates
            learning_rate = linear_schedule(config.learning_rate, config.learning_rate_end, done)
            clip = linear_schedule(config.clip, config.clip_end, done)
            set_learning_rate(optimizer, learning_rate)

            rollout = collector.collect(agent, config.horizon)  # [T, N, ...]
            if not config.bootstrap_truncated:
                rollout = end_at_truncation(rollout)
            if config.scale_rewards:
                rollout = scale(rollout)
            batch = advantage_batch(rollout, agent, config.gamma, config.gae_lambda)  # [B, ...]
            metrics = learn(agent, optimizer, batch, config, clip, collector.generator)
            history.log(
                step=(update + 1) * steps_per_update,
                episode_return=collector.recent_return(),
                learning_rate=learning_rate,
                clip=clip,
                explained_variance=explained_variance(batch.values, batch.value_targets),
                **metrics,
            )
    if config.normalize_observations:
        return NormalizedAgent(agent, envs.obs_rms), history
    return agent, history
