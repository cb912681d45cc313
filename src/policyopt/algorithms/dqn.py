"""Deep Q-learning from replayed steps, with a target network. Mnih et al. (2015), "Human-level control
through deep reinforcement learning", algorithm 1; Double DQN: van Hasselt et al. (2016), arXiv:1509.06461.
"""

import copy
from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import mse_loss, smooth_l1_loss

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import td_targets
from policyopt.q_networks import QNetwork
from policyopt.replay import ReplayBuffer, ReplayCollector, Transitions
from policyopt.rollout import EnvSpec, make_env
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    due_gradient_step,
    gradient_step,
    linear_schedule,
    make_adam,
    mean_metrics,
    set_learning_rate,
    single_thread,
    steps_of_updates,
)

__all__ = ["DQNConfig", "best_next_values", "dqn_loss", "epsilon_greedy", "train"]


@dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 50_000  # environment steps, exactly
    buffer_size: int = 50_000  # steps that are kept
    learning_starts: int = 1_000  # steps before the first gradient step
    train_every: int = 2  # steps between gradient steps
    target_every: int = 128  # C, gradient steps between copies to the target network
    batch_size: int = 64  # B
    learning_rate: float = 2e-3
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    gamma: float = 0.99  # γ
    epsilon: float = 1.0  # ε, the probability of a random action
    epsilon_end: float | None = 0.05  # reached in a straight line; None keeps it constant
    epsilon_fraction: float = 0.2  # the share of all steps after which it is reached
    max_grad_norm: float = 10.0
    clip_error: bool = False  # True takes Huber's loss, whose slope is at most 1, as the paper does
    double: bool = False  # Double DQN: the trained network chooses the next action, the target one judges it
    replay: bool = True  # False learns from each step once, when it is new
    target_network: bool = True  # False takes the trained network for it
    log_steps: int = 1_000  # steps in an update, and so to a row of the history
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers

    def __post_init__(self) -> None:
        check_settings(self)


def epsilon_greedy(agent: QNetwork, obs: np.ndarray, epsilon: float, rng: np.random.Generator) -> int:
    """With probability ε any action, otherwise the best; counted from 0."""
    if rng.random() < epsilon:
        return int(rng.integers(agent.action_space.n))
    with torch.inference_mode():
        return int(agent.q_values(torch.as_tensor(obs)).argmax())


@torch.no_grad()
def best_next_values(agent: QNetwork, target: QNetwork, next_obs: Tensor, double: bool) -> Tensor:
    r"""What the best action in s' is worth, ``[B]``: :math:`\max_{a'} Q_{\theta'}(s',a')`, which takes
    luck in the estimates for merit; for Double DQN :math:`Q_{\theta'}(s', \arg\max_{a'} Q_\theta(s',a'))`.

    Book: eq-double-dqn. Mnih et al. (2015), algorithm 1; van Hasselt et al. (2016), eq. 4.
    """
    values = target.q_values(next_obs)  # [B, A]
    if not double:
        return values.amax(dim=-1)
    chosen = agent.q_values(next_obs).argmax(dim=-1, keepdim=True)  # [B, 1]
    return values.gather(-1, chosen).squeeze(-1)


def dqn_loss(
    agent: QNetwork, target: QNetwork, batch: Transitions, config: DQNConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """The squared error of Q_θ(s, a) against its one-step target, or Huber's loss of it, a scalar to
    minimise, and metrics.

    Book: eq-dqn-loss. Mnih et al. (2015), eq. 2; their methods clip the error's slope to [−1, 1], which gives
    Huber's loss.
    """
    next_values = best_next_values(agent, target, batch.next_obs, config.double)
    targets = td_targets(batch.rewards, next_values, batch.terminated, config.gamma)  # [B]
    values = agent.q_values(batch.obs).gather(-1, batch.actions.unsqueeze(-1))  # [B, 1]
    loss = (smooth_l1_loss if config.clip_error else mse_loss)(values, targets.unsqueeze(-1))
    return loss, {"loss": loss.detach(), "q_value": values.detach().mean()}


def train(
    env_id: EnvSpec,
    config: DQNConfig = DQNConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[QNetwork, History]:
    """Train an agent with DQN; arguments, results and errors as for all of ``policyopt.algorithms``.

    The action space must be Discrete. An update is ``config.log_steps`` steps.
    """
    weights_seed, play_seed, batch_seed = spawn_seeds(seed, 3)
    with closing(make_env(env_id)) as env, single_thread():
        agent = QNetwork.for_env(env, config.hidden, weights_seed)
        target = copy.deepcopy(agent) if config.target_network else agent
        optimizer = make_adam(agent.parameters(), config.learning_rate)
        generator = Generator().manual_seed(batch_seed)
        buffer = ReplayBuffer(env.observation_space, env.action_space, config.buffer_size, generator)
        collector, history = ReplayCollector(env, buffer, play_seed), History()
        parts = {"agent": agent, "target": target, "optimizer": optimizer, "collector": collector}
        parts["history"] = history
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("dqn", env_id, config, seed), parts)

        for steps in steps_of_updates(config.total_steps, config.log_steps, history, saved, progress):
            rows = []
            for step in steps:
                done = step / config.total_steps
                falling = min(done / config.epsilon_fraction, 1.0)
                epsilon = linear_schedule(config.epsilon, config.epsilon_end, falling)
                action = epsilon_greedy(agent, collector.obs, epsilon, collector.rng)
                collector.step(action, action + int(env.action_space.start))

                number = due_gradient_step(step + 1, config.learning_starts, config.train_every)
                if not number:
                    continue
                learning_rate = linear_schedule(config.learning_rate, config.learning_rate_end, done)
                set_learning_rate(optimizer, learning_rate)
                if config.replay:
                    batch = buffer.sample(config.batch_size)
                else:
                    batch = buffer.newest(config.train_every)
                loss, metrics = dqn_loss(agent, target, batch, config)
                metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
                rows.append(metrics)
                if number % config.target_every == 0:
                    target.load_state_dict(agent.state_dict())
            history.log(step=step + 1, **collector.recent(), epsilon=epsilon, **mean_metrics(rows))
    return agent, history
