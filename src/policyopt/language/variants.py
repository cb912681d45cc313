"""GRPO taken apart: each published change to it as a small function, and the recipes that combine them.

Shapes: Q prompts with G outputs of T tokens at most. ``mask [Q, G, T]`` is true for tokens of outputs.
A loss is −Σ weights · (surrogate − β k₃) over tokens, so whatever averages outputs differently differs in its
weights alone.

A recipe brings the clip range ε of its paper, which ``GRPOConfig(clip=…)`` overrules (of DAPO's two the lower
one): GSPO's, meant for outputs of thousands of tokens, leaves short ones little to learn in a second epoch. A
recipe of one's own is a ``Variant`` with other functions in it: ``dataclasses.replace(VARIANTS["grpo"],
weights=per_token_mean)`` is GRPO with one of DAPO's changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from policyopt.losses import clipped_surrogate, masked_mean
from policyopt.returns import group_relative_advantages

__all__ = [
    "VARIANTS",
    "Variant",
    "asymmetric_clip",
    "informative_groups",
    "leave_one_out_advantages",
    "output_ratio",
    "overlong_penalty",
    "per_budget",
    "per_output_mean",
    "per_token_mean",
    "sequence_ratio",
    "token_ratio",
]


# Advantages: rewards [Q, G] → advantages [Q, G]


def leave_one_out_advantages(rewards: Tensor) -> Tensor:
    """Each reward minus the mean of the *other* rewards of its group.

    It is G/(G − 1) times the reward minus the mean of all. Kool et al. (2019), "Buy 4 REINFORCE samples";
    RLOO: Ahmadian et al. (2024), arXiv:2402.14740.

    Args:
        rewards: ``[..., G]``.

    Raises:
        ValueError: fewer than two in a group.
    """
    size = rewards.shape[-1]
    return group_relative_advantages(rewards, divide_by_std=False) * (size / (size - 1))


# Ratios: log π_θ/π_old of tokens [Q, G, T] → ρ, [Q, G, T] or, where an output has one, [Q, G, 1]


def token_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """ρ of each token, as in PPO and GRPO, ``[Q, G, T]``."""
    return log_ratio.exp()


def sequence_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """One ratio an output, the geometric mean of those of its tokens, ``[Q, G, 1]``.

    A mean of many log-ratios stays far closer to 0 than each of them, so its clip range is far smaller.

    GSPO: Zheng et al. (2025), arXiv:2507.18071, eq. 7.
    """
    return masked_mean(log_ratio, mask, dim=-1).exp().unsqueeze(-1)


def output_ratio(log_ratio: Tensor, mask: Tensor) -> Tensor:
    """π_θ(o|q) / π_old(o|q), an output being one action: the product of its tokens' ratios, ``[Q, G, 1]``.

    RLOO: Ahmadian et al. (2024), arXiv:2402.14740, section 3, treats an output so. Its gradient is
    REINFORCE's at the first step on a batch, where the ratio is 1; later steps are PPO's on whole outputs.
    """
    return (log_ratio * mask).sum(dim=-1, keepdim=True).exp()


# Surrogates: ρ, advantages [Q, G, 1], ε → the objective, to be maximised


def asymmetric_clip(ratio: Tensor, advantages: Tensor, clip: float, clip_high: float = 0.28) -> Tensor:
    """PPO's clip with more room above than below, so that unlikely tokens can grow: *clip-higher*.

    DAPO: Yu et al. (2025), arXiv:2503.14476, section 3.1, eq. 10.

    Args:
        ratio: ρ, any shape.
        advantages: a shape that broadcasts with it.
        clip: ε_low; the ratio is clipped at 1 − ε_low
        clip_high: and at 1 + ε_high.

    Raises:
        ValueError: a range that is not positive.
    """
    if not (clip > 0 and clip_high > 0):
        raise ValueError(f"clip is {clip!r} and clip_high {clip_high!r}; both must be greater than 0")
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip_high) * advantages)


# Weights: mask [Q, G, T], the most tokens an output can have → what each token counts, [Q, G, T]


def per_output_mean(mask: Tensor, limit: int) -> Tensor:
    """1/(Q G |o_i|): the mean over an output's tokens, then over outputs. A token of a long output counts
    less.

    GRPO: Shao et al. (2024), arXiv:2402.03300, eq. 3.
    """
    lengths = mask.sum(dim=-1, keepdim=True).clamp(min=1)
    return mask / (lengths * mask.shape[0] * mask.shape[1])


def per_token_mean(mask: Tensor, limit: int) -> Tensor:
    """1/Σ|o_i|: the mean over all tokens. A long output counts more than a short one.

    DAPO: Yu et al. (2025), arXiv:2503.14476, section 3.3, eq. 12. The equation sums over the outputs of one
    prompt; here, as is usual, the mean is over those of the whole minibatch.
    """
    return mask / mask.sum().clamp(min=1)


def per_budget(mask: Tensor, limit: int) -> Tensor:
    """1/(Q G limit): the same for every token in every batch, as in REINFORCE, whose sum over an output's
    tokens is divided by a constant.

    Dr. GRPO: Liu et al. (2025), arXiv:2503.20783, section 3.2.
    """
    return mask / (mask.shape[0] * mask.shape[1] * limit)


# Rewards and groups


def overlong_penalty(rewards: Tensor, mask: Tensor, limit: int, margin: float = 0.2) -> Tensor:
    """Rewards less a penalty for outputs that nearly fill the limit: 0 until only ``margin`` of it is left,
    then rising in a straight line to 1 at the limit.

    DAPO: Yu et al. (2025), arXiv:2503.14476, section 3.4, eq. 13; there 4,096 of 20,480 tokens are the
    margin, and an answer is expected to do without them.

    Args:
        rewards: ``[Q, G]``.
        mask: ``[Q, G, T]``.
        limit: the most tokens an output can have.
        margin: the share of the limit in which the penalty grows, in (0, 1].

    Raises:
        ValueError: a margin outside (0, 1].
    """
    if not 0 < margin <= 1:
        raise ValueError(f"margin is {margin!r}; it must be a share in (0, 1]")
    left = limit - mask.sum(dim=-1)  # [Q, G]
    return rewards - (1 - left / (margin * limit)).clamp(0, 1)


def informative_groups(rewards: Tensor) -> Tensor:
    """Which groups have different rewards, and so any advantage, ``[Q]`` bool from ``[Q, G]``.

    DAPO's dynamic sampling goes on until there are enough of them: Yu et al. (2025), arXiv:2503.14476,
    section 3.2, eq. 11.
    """
    return rewards.amax(dim=-1) > rewards.amin(dim=-1)


def _as_they_are(rewards: Tensor, mask: Tensor, limit: int) -> Tensor:
    return rewards


@dataclass(frozen=True)
class Variant:
    """The parts in which GRPO and its relatives differ; the default of each is that of the GRPO paper."""

    advantages: Callable[[Tensor], Tensor] = group_relative_advantages
    ratio: Callable[[Tensor, Tensor], Tensor] = token_ratio
    surrogate: Callable[[Tensor, Tensor, float], Tensor] = clipped_surrogate
    weights: Callable[[Tensor, int], Tensor] = per_output_mean
    shape_rewards: Callable[[Tensor, Tensor, int], Tensor] = _as_they_are
    clip: float = 0.2  # ε where the settings name none
    kl_in_reward: bool = False  # β log π_old/π_ref is taken off the reward, and no penalty put into the loss
    sampling_rounds: int = 1  # groups without advantage are replaced until so many batches are drawn
    room: float = 1.0  # tokens that may be written, as a multiple of the task's limit

    def __str__(self) -> str:
        """The parts by name."""
        return ", ".join(f"{field.name}={_name(getattr(self, field.name))}" for field in fields(self))


def _name(part: object) -> str:
    if isinstance(part, partial):
        return f"{_name(part.func)}{part.keywords}"
    return getattr(part, "__qualname__", repr(part))


VARIANTS: dict[str, Variant] = {
    "grpo": Variant(),
    # Its paper also has no penalty: kl_coef=0.
    "dr_grpo": Variant(partial(group_relative_advantages, divide_by_std=False), weights=per_budget),
    # Likewise. Its length penalty begins where the task's limit is, so there is room beyond it.
    "dapo": Variant(
        surrogate=asymmetric_clip,
        weights=per_token_mean,
        shape_rewards=overlong_penalty,
        sampling_rounds=4,
        room=1.25,
    ),
    "rloo": Variant(leave_one_out_advantages, output_ratio, kl_in_reward=True),
    # Its experiments clip at 3e-4 below and 4e-4 above (section 5.1), with outputs of thousands of tokens.
    "gspo": Variant(ratio=sequence_ratio, clip=3e-4),
}
