"""Returns and advantage estimates.

Everything here is time-major: a row is a time step, a column an environment, ``[T, N]``. An episode may
end inside an array in two ways, and they are not the same. Where ``terminated`` is true the episode is
over and nothing follows: the value of what comes next is 0. Where ``truncated`` is true somebody stopped
watching (a time limit, say): the episode would have gone on, so the value of the next state still counts,
but the rewards that follow in the array belong to another episode and must not leak in.
"""

import math

import torch
from torch import Tensor

__all__ = ["discounted_returns", "gae", "group_relative_advantages", "sum_backwards", "td_errors"]


def _check(gamma: float, gae_lambda: float, reference: Tensor, **others: Tensor) -> None:
    for name, value in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not (math.isfinite(value) and 0.0 <= value <= 1.0):
            raise ValueError(f"{name} is {value!r}; it must be a number in [0, 1]")
    for name, tensor in others.items():
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, but rewards have {tuple(reference.shape)}; "
                "all arrays are [T, N] (time, environments)"
            )
        if name in ("terminated", "truncated") and tensor.dtype != torch.bool:
            raise ValueError(f"{name} has dtype {tensor.dtype}; it must be torch.bool")


def sum_backwards(terms: Tensor, decay: Tensor) -> Tensor:
    """x_t = terms_t + decay_t · x_{t+1}, from the last row to the first; shapes ``[T, N]``.

    Book: eq-return-recursive, with x_t = G_t.
    """
    total = torch.empty_like(terms)
    running = torch.zeros_like(terms[0])
    for t in reversed(range(len(terms))):
        running = terms[t] + decay[t] * running
        total[t] = running
    return total


def discounted_returns(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float
) -> Tensor:
    r"""The discounted return :math:`G_t = r_t + \gamma G_{t+1}`, cut at the end of each episode.

    Book: eq-return. Sutton & Barto (2018), eqs. 3.8 and 3.9.

    Args:
        rewards: r_t, ``[T, N]``.
        next_values: an estimate of V(s_{t+1}), ``[T, N]``. It is used only where the trace is cut without a
            termination: at a truncation and at the last row. Give zeros to count observed rewards alone.
        terminated: true where the episode ended in s_{t+1}, ``[T, N]`` bool.
        truncated: true where the episode was cut off after step t, ``[T, N]`` bool.
        gamma: the discount γ in [0, 1].

    Returns:
        G_t, ``[T, N]``.

    Raises:
        ValueError: γ out of range, or shapes that differ.
    """
    _check(gamma, 1.0, rewards, next_values=next_values, terminated=terminated, truncated=truncated)
    cut = terminated | truncated
    bootstrap = truncated & ~terminated
    bootstrap[-1] = ~terminated[-1]
    terms = rewards + gamma * torch.where(bootstrap, next_values, 0.0)
    return sum_backwards(terms, gamma * (~cut).to(terms))


def td_errors(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, gamma: float
) -> Tensor:
    r"""The one-step temporal-difference error :math:`\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)`.

    Book: eq-td-error. Sutton & Barto (2018), eq. 6.5. V(s_{t+1}) counts as 0 where ``terminated``; a
    truncation makes no difference here. All shapes ``[T, N]``.

    Raises:
        ValueError: γ out of range, or shapes that differ.
    """
    _check(gamma, 1.0, rewards, values=values, next_values=next_values, terminated=terminated)
    return rewards + gamma * torch.where(terminated, 0.0, next_values) - values


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    r"""Generalised advantage estimation, :math:`\hat A_t = \sum_l (\gamma\lambda)^l \delta_{t+l}`.

    Book: eq-gae. Schulman et al. (2016), arXiv:1506.02438, eq. 16. The sum stops at the end of the episode
    or of the array, whichever comes first.

    Args:
        rewards: r_t, ``[T, N]``.
        values: V(s_t), ``[T, N]``.
        next_values: V(s_{t+1}) of the state that truly followed, before any reset, ``[T, N]``. Ignored where
            ``terminated``.
        terminated: true where the episode ended in s_{t+1}, ``[T, N]`` bool.
        truncated: true where the episode was cut off after step t, ``[T, N]`` bool.
        gamma: the discount γ in [0, 1].
        gae_lambda: λ in [0, 1]; 0 gives the TD error, 1 the return minus the value.

    Returns:
        Â_t, ``[T, N]``; Â_t + V(s_t) is the λ-return, the target for the value function.

    Raises:
        ValueError: γ or λ out of range, or shapes that differ.
    """
    _check(gamma, gae_lambda, rewards, truncated=truncated)
    deltas = td_errors(rewards, values, next_values, terminated, gamma)
    goes_on = (~(terminated | truncated)).to(deltas)
    return sum_backwards(deltas, gamma * gae_lambda * goes_on)


def group_relative_advantages(returns: Tensor, divide_by_std: bool = True, epsilon: float = 1e-4) -> Tensor:
    r"""Each outcome against the others of its group, :math:`\hat A_i = (R_i - \bar R) / \sigma_R`.

    Book: eq-group-advantage. Shao et al. (2024), arXiv:2402.03300, section 4.1.2. Without the division it is
    the advantage of Liu et al. (2025), arXiv:2503.20783.

    Args:
        returns: one outcome for each member of each group, ``[..., G]``.
        divide_by_std: divide by the group's standard deviation (with Bessel's correction) + ``epsilon``.
        epsilon: keeps the quotient finite.

    Returns:
        The advantages, ``[..., G]``. They sum to 0 in each group, and are exactly 0 where all are equal.

    Raises:
        ValueError: fewer than two in a group.
    """
    if returns.shape[-1] < 2:
        raise ValueError(f"a group has {returns.shape[-1]} member; it must have at least 2 to be compared")
    centred = returns - returns.mean(dim=-1, keepdim=True)
    if divide_by_std:
        centred = centred / (returns.std(dim=-1, keepdim=True) + epsilon)
    # The mean of equal numbers can be off in the last bit, which the division would blow up.
    equal = returns.amax(dim=-1, keepdim=True) == returns.amin(dim=-1, keepdim=True)
    return torch.where(equal, 0.0, centred)
