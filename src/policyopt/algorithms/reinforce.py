"""REINFORCE: raise the log-probability of each action in proportion to the return that followed it.
Williams (1992), "Simple statistical gradient-following algorithms for connectionist reinforcement learning".
"""

from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import torch
from torch import Tensor

from policyopt.files import Checkpoint, Number, describe_run
from policyopt.history import History
from policyopt.losses import explained_variance, normalize, policy_gradient
from policyopt.networks import Actor, ActorCritic
from policyopt.returns import discounted_returns
from policyopt.rollout import Batch, EnvSpec, EpisodeCollector, Rollout
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    fit_values,
    gradient_step,
    linear_schedule,
    make_adam,
    set_learning_rate,
    single_thread,
    updates_within,
)

__all__ = ["ReinforceConfig", "reinforce_batch", "reinforce_loss", "train"]


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of REINFORCE. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 300_000  # environment steps at most; only whole episodes are used
    num_episodes: int = 8  # N, episodes an update
    reward_to_go: bool = True  # weigh an action by the rewards after it, not by the whole episode's
    baseline: Literal["none", "mean", "value"] = "value"  # a running mean or a learned value
    mean_decay: float = 0.9  # how much of the running mean an update keeps
    learning_rate: float = 3e-3
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    value_learning_rate: float = 3e-3
    value_epochs: int = 10  # passes of V over each batch
    minibatch_size: int = 512  # of those passes
    gamma: float = 0.99  # γ
    discount_steps: bool = False  # weigh step t by γ^t, which reward-to-go needs to be unbiased if γ < 1
    normalize_advantages: bool = False  # over the batch
    entropy_coef: float = 0.0
    max_grad_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self, baseline=(str, "none", "mean", "value"))


@torch.no_grad()
def reinforce_batch(episodes: Rollout, agent: Actor, config: ReinforceConfig, mean_return: float) -> Batch:
    """Every step of the episodes with the weight of its action: return minus baseline.

    Book: eq-reinforce-weight. A baseline that does not depend on the action leaves the gradient's mean as it
    is; so V must not have seen these episodes. An episode that was truncated is bootstrapped with V if
    there is one; without one its return is what was seen of it.

    Args:
        episodes: whole episodes, ``[T, N, ...]``.
        agent: an ``ActorCritic`` where the baseline is its value.
        config: the settings.
        mean_return: the running mean of earlier returns.

    Returns:
        The valid steps, ``[B, ...]``; ``value_targets`` are G_t, ``advantages`` the weights.
    """
    shape = episodes.rewards.shape  # [T, N]
    if config.baseline == "value":
        all_values = agent.value(episodes.all_obs)  # [T+1, N]
    else:
        all_values = torch.zeros(shape[0] + 1, shape[1])
    values, next_values = all_values[:-1], all_values[1:]
    returns = discounted_returns(
        episodes.rewards, next_values, episodes.terminated, episodes.truncated, config.gamma
    )
    baseline = torch.full(shape, mean_return) if config.baseline == "mean" else values
    weights = (returns if config.reward_to_go else returns[:1].expand(shape)) - baseline
    if config.discount_steps and config.reward_to_go:
        weights = weights * config.gamma ** torch.arange(shape[0])[:, None]
    columns = (episodes.obs, episodes.actions, episodes.log_probs, weights, baseline, returns)
    return Batch(*episodes.valid_rows(*columns))


def reinforce_loss(agent: Actor, batch: Batch, config: ReinforceConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """−(1/N) Σ over N episodes Σ_t weight_t log π_θ(a_t|s_t), less the entropy's bonus, and metrics.

    Book: eq-reinforce. Williams (1992), theorem 2 (episodic), negated; its weight is the whole return.
    """
    dist = agent.policy(batch.obs)
    weights = normalize(batch.advantages) if config.normalize_advantages else batch.advantages
    objective = policy_gradient(dist.log_prob(batch.actions), weights).sum() / config.num_episodes
    entropy = dist.entropy().mean()
    loss = -objective
    if config.entropy_coef > 0:
        loss = loss - config.entropy_coef * entropy * len(batch) / config.num_episodes
    return loss, {"policy_loss": loss.detach(), "entropy": entropy.detach()}


def train(
    env_id: EnvSpec,
    config: ReinforceConfig = ReinforceConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[Actor, History]:
    """Train an agent with REINFORCE; arguments, results and errors as for all of ``policyopt.algorithms``.

    The agent is an ``ActorCritic`` where the baseline is a learned value, else an ``Actor``.
    """
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(EpisodeCollector(env_id, config.num_episodes, play_seed)) as collector, single_thread():
        learned = config.baseline == "value"
        agent = (ActorCritic if learned else Actor).for_envs(collector.envs, config.hidden, weights_seed)
        optimizer = make_adam(agent.policy_parameters, config.learning_rate)
        history, mean_return = History(), Number(0.0)
        parts = {"agent": agent, "optimizer": optimizer, "collector": collector, "history": history}
        parts["mean_return"] = mean_return
        if learned:
            parts["value_optimizer"] = make_adam(agent.value_parameters, config.value_learning_rate)
        run = describe_run("reinforce", env_id, config, seed)
        saved = Checkpoint(checkpoint, checkpoint_every, run, parts)

        numbers = updates_within(config.total_steps, history, saved, progress)
        for _, episodes in zip(numbers, collector.until(config.total_steps, agent), strict=False):
            done = history.last.get("step", 0) / config.total_steps
            learning_rate = linear_schedule(config.learning_rate, config.learning_rate_end, done)
            set_learning_rate(optimizer, learning_rate)

            batch = reinforce_batch(episodes, agent, config, mean_return.value)  # [B, ...]
            loss, metrics = reinforce_loss(agent, batch, config)
            metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
            # The baseline learns last: of these episodes it must know nothing when they are weighed.
            returns = batch.value_targets if config.reward_to_go else batch.advantages + batch.values
            mean_return.value += (1 - config.mean_decay) * (returns.mean().item() - mean_return.value)
            if learned:
                metrics["explained_variance"] = explained_variance(batch.values, batch.value_targets)
                metrics["value_loss"] = fit_values(
                    agent,
                    parts["value_optimizer"],
                    batch,
                    config.value_epochs,
                    config.minibatch_size,
                    collector.generator,
                )
            history.log(
                step=collector.steps_taken,
                episode_return=collector.recent_return(),
                learning_rate=learning_rate,
                **metrics,
            )
    return agent, history
