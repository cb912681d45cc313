"""Objectives, as pure functions of tensors.

An objective is returned for each element, to be maximised. The sign and the mean stand at the call, where
the equation in the book has them.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "actor_critic_loss",
    "clip_fraction",
    "clipped_surrogate",
    "explained_variance",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "masked_mean",
    "normalize",
    "policy_gradient",
    "td_targets",
]


def policy_gradient(log_probs: Tensor, advantages: Tensor) -> Tensor:
    r"""The score-function objective :math:`\log \pi_\theta(a_t|s_t)\, \hat A_t`.

    Book: eq-policy-gradient. Its gradient is the policy gradient: Williams (1992); Sutton et al. (2000).

    Args:
        log_probs: log π_θ(a_t|s_t), any shape.
        advantages: Â_t, or a return, held constant: a shape that broadcasts with ``log_probs``.

    Returns:
        The objective for each element, to be maximised. Its value means nothing, only its gradient does.
    """
    return log_probs * advantages.detach()


def actor_critic_loss(
    policy_loss: Tensor,
    values: Tensor,
    value_targets: Tensor,
    entropy: Tensor,
    value_coef: float,
    entropy_coef: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's loss + c₁ (V_φ(s) − target)² − c₂ S, and its parts as metrics.

    Book: eq-actor-critic-loss. Mnih et al. (2016), arXiv:1602.01783, section 4; Schulman et al. (2017),
    eq. 9.

    Args:
        policy_loss: a scalar to be minimised.
        values: V_φ(s), ``[B]``.
        value_targets: what they should have been, ``[B]``.
        entropy: S[π_θ](s), ``[B]``.
        value_coef: c₁.
        entropy_coef: c₂.

    Returns:
        The loss, a scalar to be minimised, and ``policy_loss``, ``value_loss`` and ``entropy``.
    """
    value_loss = (values - value_targets).square().mean()
    entropy = entropy.mean()
    loss = policy_loss + value_coef * value_loss
    if entropy_coef > 0:  # a bonus of 0 would still cost its part of the backward pass
        loss = loss - entropy_coef * entropy
    parts = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
    return loss, {name: part.detach() for name, part in parts.items()}


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    r"""PPO's objective, :math:`\min(\rho \hat A, \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) \hat A)`.

    Book: eq-clipped-surrogate. Schulman et al. (2017), arXiv:1707.06347, eq. 7 (it calls the ratio r_t).

    Args:
        ratio: ρ_t(θ) = π_θ(a_t|s_t) / π_old(a_t|s_t), any shape.
        advantages: Â_t, a shape that broadcasts with ``ratio``.
        clip: ε, positive. A clip of infinity gives the unclipped surrogate ρ Â.

    Returns:
        The objective for each element, to be maximised.

    Raises:
        ValueError: ε is not positive.
    """
    if not clip > 0:
        raise ValueError(f"clip is {clip!r}; it must be greater than 0 (0.2 is usual)")
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def kl_k1(log_ratio: Tensor) -> Tensor:
    """A sample estimate of KL(p ‖ q) for x drawn from p: −log q(x)/p(x). Unbiased, often negative.

    Book: eq-kl-k1. Schulman (2020), "Approximating KL divergence", joschu.net/blog/kl-approx.html.

    Args:
        log_ratio: log q(x) − log p(x), any shape. In PPO p is π_old, q is π_θ and this is log ρ_t(θ).
    """
    return -log_ratio


def kl_k2(log_ratio: Tensor) -> Tensor:
    """A sample estimate of KL(p ‖ q): half the squared log-ratio. Biased, never negative.

    Book: eq-kl-k2. Source and argument as for ``kl_k1``.
    """
    return 0.5 * log_ratio.square()


def kl_k3(log_ratio: Tensor) -> Tensor:
    r"""A sample estimate of KL(p ‖ q): :math:`\rho - 1 - \log\rho`. Unbiased and never negative.

    Book: eq-kl-k3. Source and argument as for ``kl_k1``.
    """
    return torch.expm1(log_ratio) - log_ratio


def clip_fraction(ratio: Tensor, clip: float) -> Tensor:
    """The share of ratios outside [1 − ε, 1 + ε], a scalar in [0, 1]."""
    return ((ratio - 1).abs() > clip).to(ratio.dtype).mean()


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """The mean of ``values`` where ``mask`` is true.

    Args:
        values: any shape.
        mask: bool, the same shape.
        dim: the dimension to average over; all of them when None. A slice with nothing in it has mean 0.

    Raises:
        ValueError: the shapes differ.
    """
    if values.shape != mask.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, but values have {tuple(values.shape)}")
    kept = torch.where(mask, values, 0.0)
    if dim is None:
        return kept.sum() / mask.sum().clamp(min=1)
    return kept.sum(dim) / mask.sum(dim).clamp(min=1)


def normalize(values: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale to mean 0 and standard deviation 1 (with Bessel's correction, as Stable-Baselines3
    does).

    A single value has no spread: it is returned as it is. ``values`` of any shape.
    """
    if values.numel() < 2:
        return values
    return (values - values.mean()) / (values.std() + epsilon)


def explained_variance(predictions: Tensor, targets: Tensor) -> float:
    """1 − Var[target − prediction] / Var[target]: 1 is perfect, 0 no better than a constant. NaN for
    constant targets.

    Book: eq-baselines-explained.
    """
    errors, targets = (targets - predictions).numpy(), targets.numpy()
    variance = targets.var()  # NumPy's takes a third of the time of torch's on a batch of a hundred
    return float(1 - errors.var() / variance) if variance > 0 else math.nan


def td_targets(rewards: Tensor, next_values: Tensor, terminated: Tensor, gamma: float) -> Tensor:
    r"""What the values of actions should have been after one step, :math:`r + \gamma V(s')`.

    Book: eq-td-target. Sutton & Barto (2018), eq. 6.2; Mnih et al. (2015), algorithm 1.

    Args:
        rewards: r, ``[B]``.
        next_values: what s' is taken to be worth, ``[B]``; the maximum over its actions, say.
        terminated: the episode is over in s', so nothing follows, ``[B]`` bool. A truncation is no end.
        gamma: γ.

    Returns:
        The targets, ``[B]``.
    """
    return torch.where(terminated, rewards, torch.add(rewards, next_values, alpha=gamma))
