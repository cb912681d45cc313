"""Deep deterministic policy gradient. Lillicrap et al. (2016), arXiv:1509.02971, algorithm 1; Silver et al.
(2014), "Deterministic policy gradient algorithms".
"""

import copy
from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Generator, Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import td_targets
from policyopt.noise import OrnsteinUhlenbeck, noisy_action
from policyopt.q_networks import DeterministicActorCritic
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

__all__ = ["DDPGConfig", "actor_loss", "critic_loss", "train"]


@dataclass(frozen=True)
class DDPGConfig:
    """Settings of DDPG. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 20_000  # environment steps, exactly
    buffer_size: int = 200_000  # steps that are kept
    learning_starts: int = 1_000  # steps with random actions before the first gradient step
    train_every: int = 1  # steps between gradient steps
    batch_size: int = 128  # B
    learning_rate: float = 1e-3  # of the critic
    actor_learning_rate: float = 1e-3
    gamma: float = 0.99  # γ
    tau: float = 0.005  # τ, the step of the target networks towards the trained ones
    noise_std: float = 0.1  # σ of the noise added to actions, on their scale of [−1, 1]
    noise_theta: float = 1.0  # θ; 1 for independent noise, the paper's Ornstein–Uhlenbeck process has 0.15
    log_steps: int = 1_000  # steps in an update, and so to a row of the history
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, actor and critic alike

    def __post_init__(self) -> None:
        check_settings(self)


def critic_loss(
    agent: DeterministicActorCritic, target: DeterministicActorCritic, batch: Transitions, gamma: float
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The squared error of Q_φ(s, a) against :math:`r + \gamma Q_{\phi'}(s', \mu_{\theta'}(s'))`, to be
    minimised, and metrics.

    Book: eq-ddpg-critic. Lillicrap et al. (2016), eq. 4 and 5 with algorithm 1's targets.
    """
    with torch.no_grad():
        next_actions = target.policy(batch.next_obs)  # [B, D]
        (next_values,) = target.q_values(batch.next_obs, next_actions)  # [B]
        targets = td_targets(batch.rewards, next_values, batch.terminated, gamma)
    (values,) = agent.q_values(batch.obs, batch.actions)
    loss = (values - targets).square().mean()
    return loss, {"critic_loss": loss.detach(), "q_value": values.detach().mean()}


def actor_loss(agent: DeterministicActorCritic, obs: Tensor) -> Tensor:
    """−Q_φ(s, μ_θ(s)), to be minimised with regard to θ: the policy climbs its critic.

    Book: eq-ddpg-actor. Lillicrap et al. (2016), eq. 6; Silver et al. (2014), eq. 9.
    """
    return -agent.q_values(obs, agent.policy(obs)).mean()


def train(
    env_id: EnvSpec,
    config: DDPGConfig = DDPGConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[DeterministicActorCritic, History]:
    """Train an agent with DDPG; arguments, results and errors as for all of ``policyopt.algorithms``.

    The action space must be a bounded Box. An update is ``config.log_steps`` steps.
    """
    weights_seed, play_seed, batch_seed = spawn_seeds(seed, 3)
    with closing(make_env(env_id)) as env, single_thread():
        agent = DeterministicActorCritic.for_env(env, config.hidden, weights_seed)
        target, policy_weights = copy.deepcopy(agent), list(agent.policy_net.parameters())
        critic, actor, target_critic, target_actor = (
            flatten_parameters(network.parameters())
            for network in (agent.critics, agent.policy_net, target.critics, target.policy_net)
        )
        optimizer = make_adam(critic, config.learning_rate)
        actor_optimizer = make_adam(actor, config.actor_learning_rate)
        generator = Generator().manual_seed(batch_seed)
        buffer = ReplayBuffer(env.observation_space, agent.inner_space, config.buffer_size, generator)
        collector, history = ReplayCollector(env, buffer, play_seed), History()
        noise = OrnsteinUhlenbeck(agent.inner_space.shape[0], config.noise_std, config.noise_theta)
        parts = {"agent": agent, "target": target, "optimizer": optimizer, "actor_optimizer": actor_optimizer}
        parts |= {"collector": collector, "noise": noise, "history": history}
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("ddpg", env_id, config, seed), parts)

        for steps in steps_of_updates(config.total_steps, config.log_steps, history, saved, progress):
            rows = []
            for step in steps:
                action = noisy_action(agent, collector, noise, config.learning_starts)
                collector.step(action, agent.to_env(action))
                if not due_gradient_step(step + 1, config.learning_starts, config.train_every):
                    continue

                batch = buffer.sample(config.batch_size)
                loss, metrics = critic_loss(agent, target, batch, config.gamma)
                gradient_step(optimizer, loss)
                policy_loss = actor_loss(agent, batch.obs)
                gradient_step(actor_optimizer, policy_loss, inputs=policy_weights)
                polyak_update(target_critic, critic, config.tau)
                polyak_update(target_actor, actor, config.tau)
                rows.append({**metrics, "actor_loss": policy_loss.detach()})
            history.log(step=step + 1, **collector.recent(), **mean_metrics(rows))
    return agent, history
