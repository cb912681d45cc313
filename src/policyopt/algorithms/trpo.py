"""Trust-region policy optimisation: the largest natural-gradient step whose KL stays within a bound.
Schulman et al. (2015), arXiv:1502.05477, algorithm 1 and appendix C.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from os import PathLike

import torch
from torch import Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import explained_variance, normalize
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, Collector, EnvSpec, advantage_batch, make_envs
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import fit_values, flatten_parameters, make_adam, single_thread, updates
from policyopt.trust_region import conjugate_gradient, fisher_vector_product, line_search

__all__ = ["TRPOConfig", "surrogate_and_kl", "train", "trust_region_step"]


@dataclass(frozen=True)
class TRPOConfig:
    """Settings of TRPO. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 100_000  # environment steps at most; only whole updates are made
    num_envs: int = 8  # N
    horizon: int = 128  # T, steps per environment between updates
    max_kl: float = 0.01  # δ, the mean KL a step may reach
    cg_steps: int = 10  # of conjugate gradient
    cg_damping: float = 0.1  # added to the diagonal of the Fisher matrix
    line_search_shrink: float = 0.8  # factor between two tries
    line_search_tries: int = 10
    value_epochs: int = 10  # passes of the value function over each batch
    minibatch_size: int = 128  # of those passes
    value_learning_rate: float = 1e-3
    gamma: float = 0.99  # γ
    gae_lambda: float = 0.95  # λ
    normalize_advantages: bool = True  # over the batch
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self)


def surrogate_and_kl(agent: ActorCritic, batch: Batch, old_policy: Tensor) -> tuple[Tensor, Tensor]:
    """mean(ρ Â), to be maximised, and the mean of KL(π_old ‖ π_θ), both scalars.

    Book: eq-trpo. Schulman et al. (2015), eq. 14.

    Args:
        agent: π_θ.
        batch: steps of π_old.
        old_policy: π_old(·|s) for each of them, as ``rows()`` of its distribution gives it.
    """
    dist = agent.policy(batch.obs)
    ratio = (dist.log_prob(batch.actions) - batch.log_probs).exp()
    kl = type(dist).from_rows(old_policy).kl(dist)
    return (ratio * batch.advantages).mean(), kl.mean()


def trust_region_step(
    agent: ActorCritic, weights: Tensor, batch: Batch, config: TRPOConfig
) -> dict[str, float]:
    """Move the policy along the natural gradient as far as the KL allows, or not at all; metrics.

    Args:
        agent: changed in place.
        weights: the vector its policy's parameters are views of.
        batch: steps of the policy as it is now.
        config: the settings.
    """
    with torch.no_grad():
        dist = agent.policy(batch.obs)
        old_policy = dist.rows()
    parameters = agent.policy_parameters
    objective, kl = surrogate_and_kl(agent, batch, old_policy)
    gradient = torch.cat(
        [part.flatten() for part in torch.autograd.grad(objective, parameters, retain_graph=True)]
    )
    product = fisher_vector_product(kl, parameters, config.cg_damping)
    direction = conjugate_gradient(product, gradient, config.cg_steps)
    curvature = direction @ product(direction)
    length = (2 * config.max_kl / curvature).sqrt() if curvature > 0 else torch.tensor(0.0)
    found = line_search(
        weights.detach(),
        length * direction,
        lambda: surrogate_and_kl(agent, batch, old_policy),
        objective.item(),
        config.max_kl,
        config.line_search_shrink,
        config.line_search_tries,
    )
    return {
        "kl": found.kl,
        "accepted": float(found.accepted),
        "line_search_tries": found.tries,
        "surrogate_improvement": found.improvement,
        "grad_norm": gradient.norm().item(),
        "entropy": dist.entropy().mean().item(),
    }


def train(
    env_id: EnvSpec,
    config: TRPOConfig = TRPOConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[ActorCritic, History]:
    """Train an agent with TRPO; arguments, results and errors as for all of ``policyopt.algorithms``."""
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_envs(env_id, config.num_envs)) as envs, single_thread():
        agent = ActorCritic.for_envs(envs, config.hidden, weights_seed)
        weights = flatten_parameters(agent.policy_parameters)
        optimizer = make_adam(agent.value_parameters, config.value_learning_rate)
        collector, history = Collector(envs, play_seed), History()
        parts = {"agent": agent, "optimizer": optimizer, "collector": collector, "history": history}
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("trpo", env_id, config, seed), parts)
        steps_per_update = config.num_envs * config.horizon

        for update in updates(config.total_steps // steps_per_update, history, saved, progress):
            rollout = collector.collect(agent, config.horizon)  # [T, N, ...]
            batch = advantage_batch(rollout, agent, config.gamma, config.gae_lambda)  # [B, ...]
            if config.normalize_advantages:
                batch = replace(batch, advantages=normalize(batch.advantages))
            metrics = trust_region_step(agent, weights, batch, config)
            metrics["value_loss"] = fit_values(
                agent, optimizer, batch, config.value_epochs, config.minibatch_size, collector.generator
            )
            history.log(
                step=(update + 1) * steps_per_update,
                episode_return=collector.recent_return(),
                explained_variance=explained_variance(batch.values, batch.value_targets),
                **metrics,
            )
    return agent, history
