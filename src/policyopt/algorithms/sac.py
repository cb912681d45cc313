"""Soft actor-critic with an automatic temperature. Haarnoja et al. (2018), arXiv:1812.05905, algorithm 1;
first in arXiv:1801.01290.
"""

import copy
from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from torch import Generator, Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import td_targets
from policyopt.q_networks import SquashedActorCritic
from policyopt.replay import ReplayBuffer, ReplayCollector, Transitions
from policyopt.rollout import EnvSpec, make_env
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    due_gradient_step,
    flatten_parameters,
    gradient_step,
    make_adam,
    mean_metrics,
    polyak_update,
    single_thread,
    steps_of_updates,
)

__all__ = ["SACConfig", "actor_loss", "critic_loss", "explore", "temperature_loss", "train"]


@dataclass(frozen=True)
class SACConfig:
    """Settings of SAC. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 20_000  # environment steps, exactly
    buffer_size: int = 200_000  # steps that are kept
    learning_starts: int = 1_000  # steps with random actions before the first gradient step
    train_every: int = 1  # steps between gradient steps
    batch_size: int = 128  # B
    learning_rate: float = 1e-3  # of the critics and of the temperature
    actor_learning_rate: float = 1e-3
    gamma: float = 0.99  # γ
    tau: float = 0.005  # τ, the step of the target critics towards the trained ones
    initial_temperature: float = 1.0  # α
    learn_temperature: bool = True  # False keeps α as it is
    target_entropy: float | None = None  # H̄ in nats; None for −D, as in the paper
    log_steps: int = 1_000  # steps in an update, and so to a row of the history
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, actor and critics alike

    def __post_init__(self) -> None:
        check_settings(self)


@torch.no_grad()
def explore(agent: SquashedActorCritic, collector: ReplayCollector, config: SACConfig) -> np.ndarray:
    """The next action in [−1, 1], ``[D]``: a random one before learning starts, then one of the policy's."""
    if collector.steps_taken < config.learning_starts:
        return collector.uniform_action(agent.inner_space)
    return agent.policy(torch.as_tensor(collector.obs)).sample(collector.buffer.generator).numpy()


def critic_loss(
    agent: SquashedActorCritic,
    target: SquashedActorCritic,
    batch: Transitions,
    gamma: float,
    generator: Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Half the squared errors of both critics against
    :math:`r + \gamma (\min_i Q_{\phi'_i}(s', a') - \alpha \log \pi_\theta(a'|s'))` with a' from the policy,
    added up and to be minimised, and metrics.

    Book: eq-sac-critic. Haarnoja et al. (2018), arXiv:1812.05905, eq. 5 to 7 and section 6.
    """
    with torch.no_grad():
        next_actions, next_log_probs = agent.policy(batch.next_obs).sample_with_log_prob(generator)
        next_values = target.q_values(batch.next_obs, next_actions).amin(dim=0)  # [B]
        soft_values = next_values - agent.log_temperature.exp() * next_log_probs
        targets = td_targets(batch.rewards, soft_values, batch.terminated, gamma)
    values = agent.q_values(batch.obs, batch.actions)  # [2, B]
    loss = 0.5 * (values - targets).square().mean(dim=-1).sum()
    return loss, {"critic_loss": loss.detach(), "q_value": values.detach().mean()}


def actor_loss(agent: SquashedActorCritic, obs: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """α log π_θ(a|s) − min_i Q_φᵢ(s, a) with a from the policy, a scalar to be minimised with regard to θ;
    and log π_θ(a|s), ``[B]``.

    Book: eq-sac-actor. Haarnoja et al. (2018), arXiv:1812.05905, eq. 9.
    """
    actions, log_probs = agent.policy(obs).sample_with_log_prob(generator)
    values = agent.q_values(obs, actions).amin(dim=0)  # [B]
    return (agent.log_temperature.detach().exp() * log_probs - values).mean(), log_probs.detach()


def temperature_loss(log_temperature: Tensor, log_probs: Tensor, target_entropy: float) -> Tensor:
    """−α (log π_θ(a|s) + H̄), to be minimised with regard to log α: α grows while the entropy is below H̄.

    Book: eq-sac-temperature. Haarnoja et al. (2018), arXiv:1812.05905, eq. 18.
    """
    return -(log_temperature.exp() * (log_probs + target_entropy)).mean()


def train(
    env_id: EnvSpec,
    config: SACConfig = SACConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[SquashedActorCritic, History]:
    """Train an agent with SAC; arguments, results and errors as for all of ``policyopt.algorithms``.

    The action space must be a bounded Box. An update is ``config.log_steps`` steps.
    """
    weights_seed, play_seed, batch_seed = spawn_seeds(seed, 3)
    with closing(make_env(env_id)) as env, single_thread():
        agent = SquashedActorCritic.for_env(env, config.hidden, weights_seed)
        agent.log_temperature.data.fill_(np.log(config.initial_temperature))
        target, policy_weights = copy.deepcopy(agent), list(agent.policy_net.parameters())
        critics, target_critics = (flatten_parameters(net.critics.parameters()) for net in (agent, target))
        optimizer = make_adam(critics, config.learning_rate)
        actor_optimizer = make_adam(agent.policy_net.parameters(), config.actor_learning_rate)
        temperature_optimizer = make_adam([agent.log_temperature], config.learning_rate)
        target_entropy = config.target_entropy
        if target_entropy is None:
            target_entropy = -float(agent.inner_space.shape[0])
        generator = Generator().manual_seed(batch_seed)
        buffer = ReplayBuffer(env.observation_space, agent.inner_space, config.buffer_size, generator)
        collector, history = ReplayCollector(env, buffer, play_seed), History()
        parts = {"agent": agent, "target": target, "optimizer": optimizer, "actor_optimizer": actor_optimizer}
        parts |= {"temperature_optimizer": temperature_optimizer, "collector": collector, "history": history}
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("sac", env_id, config, seed), parts)

        for steps in steps_of_updates(config.total_steps, config.log_steps, history, saved, progress):
            rows = []
            for step in steps:
                action = explore(agent, collector, config)
                collector.step(action, agent.to_env(action))
                if not due_gradient_step(step + 1, config.learning_starts, config.train_every):
                    continue

                batch = buffer.sample(config.batch_size)
                loss, metrics = critic_loss(agent, target, batch, config.gamma, generator)
                gradient_step(optimizer, loss)
                policy_loss, log_probs = actor_loss(agent, batch.obs, generator)
                gradient_step(actor_optimizer, policy_loss, inputs=policy_weights)
                if config.learn_temperature:
                    gradient_step(
                        temperature_optimizer,
                        temperature_loss(agent.log_temperature, log_probs, target_entropy),
                    )
                polyak_update(target_critics, critics, config.tau)
                metrics |= {"actor_loss": policy_loss.detach(), "entropy": -log_probs.mean()}
                rows.append({**metrics, "temperature": agent.log_temperature.detach().exp()})
            history.log(step=step + 1, **collector.recent(), **mean_metrics(rows))
    return agent, history
