"""Twin delayed DDPG. Fujimoto et al. (2018), arXiv:1802.09477, algorithm 1.

It is DDPG (``policyopt.algorithms.ddpg``) with three changes, each of which can be turned off:

1. clipped double Q-learning: of two critics the lower one is believed (``twin_critics``);
2. delayed updates: the policy and the targets move less often than the critics (``policy_delay``);
3. target policy smoothing: the target's action is blurred by noise (``smoothing_std``).
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
from policyopt.q_networks import DeterministicActorCritic, TwinDeterministicActorCritic
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

__all__ = ["TD3Config", "actor_loss", "critic_loss", "smoothed_actions", "train"]


@dataclass(frozen=True)
class TD3Config:
    """Settings of TD3. Values out of range raise ``ValueError`` and name the field."""

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
    twin_critics: bool = True  # change 1
    policy_delay: int = 2  # change 2: gradient steps of the critics for one of the policy; 1 turns it off
    smoothing_std: float = 0.2  # change 3: σ of the noise on the target's action; 0 turns it off
    smoothing_clip: float = 0.5  # c, at most so far from the target's action
    log_steps: int = 1_000  # steps in an update, and so to a row of the history
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, actor and critic alike

    def __post_init__(self) -> None:
        check_settings(self)


@torch.no_grad()
def smoothed_actions(
    target: DeterministicActorCritic, next_obs: Tensor, std: float, clip: float, generator: Generator
) -> Tensor:
    """Change 3: μ_θ'(s') and noise from N(0, σ²) cut off at ±c, kept in [−1, 1], ``[B, D]``.

    Book: eq-td3-smoothing. Fujimoto et al. (2018), eq. 14.
    """
    actions = target.policy(next_obs)
    if std == 0:
        return actions
    noise = std * torch.randn(actions.shape, generator=generator)
    return (actions + noise.clamp(-clip, clip)).clamp(-1, 1)


def critic_loss(
    agent: DeterministicActorCritic,
    target: DeterministicActorCritic,
    batch: Transitions,
    config: TD3Config,
    generator: Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""The squared errors of all critics against one target, :math:`r + \gamma \min_i Q_{\phi'_i}(s', a')`,
    added up and to be minimised, and metrics.

    Book: eq-td3-critic. Fujimoto et al. (2018), eq. 10 (change 1, the minimum) and algorithm 1.
    """
    with torch.no_grad():
        next_actions = smoothed_actions(
            target, batch.next_obs, config.smoothing_std, config.smoothing_clip, generator
        )
        next_values = target.q_values(batch.next_obs, next_actions).amin(dim=0)  # [B]
        targets = td_targets(batch.rewards, next_values, batch.terminated, config.gamma)
    values = agent.q_values(batch.obs, batch.actions)  # [C, B]
    loss = (values - targets).square().mean(dim=-1).sum()
    return loss, {"critic_loss": loss.detach(), "q_value": values.detach().mean()}


def actor_loss(agent: DeterministicActorCritic, obs: Tensor) -> Tensor:
    """−Q_φ₁(s, μ_θ(s)), to be minimised with regard to θ: the policy climbs the first critic.

    Book: eq-ddpg-actor. Fujimoto et al. (2018), algorithm 1.
    """
    return -agent.q_values(obs, agent.policy(obs), count=1).mean()


def train(
    env_id: EnvSpec,
    config: TD3Config = TD3Config(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[DeterministicActorCritic, History]:
    """Train an agent with TD3; arguments, results and errors as for all of ``policyopt.algorithms``.

    The action space must be a bounded Box. An update is ``config.log_steps`` steps.
    """
    weights_seed, play_seed, batch_seed = spawn_seeds(seed, 3)
    with closing(make_env(env_id)) as env, single_thread():
        agent_class = TwinDeterministicActorCritic if config.twin_critics else DeterministicActorCritic
        agent = agent_class.for_env(env, config.hidden, weights_seed)
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
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("td3", env_id, config, seed), parts)

        for steps in steps_of_updates(config.total_steps, config.log_steps, history, saved, progress):
            rows = []
            for step in steps:
                action = noisy_action(agent, collector, noise, config.learning_starts)
                collector.step(action, agent.to_env(action))
                number = due_gradient_step(step + 1, config.learning_starts, config.train_every)
                if not number:
                    continue

                batch = buffer.sample(config.batch_size)
                loss, metrics = critic_loss(agent, target, batch, config, generator)
                gradient_step(optimizer, loss)
                rows.append(metrics)
                if number % config.policy_delay == 0:  # change 2
                    policy_loss = actor_loss(agent, batch.obs)
                    gradient_step(actor_optimizer, policy_loss, inputs=policy_weights)
                    polyak_update(target_critic, critic, config.tau)
                    polyak_update(target_actor, actor, config.tau)
                    metrics["actor_loss"] = policy_loss.detach()
            history.log(step=step + 1, **collector.recent(), **mean_metrics(rows))
    return agent, history
