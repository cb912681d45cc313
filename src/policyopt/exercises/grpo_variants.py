"""Checkers for the exercises of the chapter "Variants of GRPO"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_dapo_loss", "check_kl_factors", "check_sequence_ratio"]


def check_kl_factors(kl_factors: Callable) -> Check:
    """Check what multiplies ∇log π_θ(x) in the gradients of k₁, k₂ and k₃, the sample x held fixed.

    Tang & Munos (2025), arXiv:2506.09477, on why such gradients need not be that of the divergence.

    Args:
        kl_factors: ``(log_policy, log_reference) -> factors``, log π_θ(x) and log π_ref(x) of N samples as
            NumPy arrays ``[N]``, to ``[3, N]``, a row for each of the three.

    Raises:
        TypeError: it is not a function.
    """
    return check(kl_factors, _kl_factors, _draw_log_probs, _FACTOR_MISTAKES)


def check_dapo_loss(dapo_loss: Callable) -> Check:
    """Check DAPO's loss of one group. Yu et al. (2025), arXiv:2503.14476, eqs. 10 and 12, negated.

    Args:
        dapo_loss: ``(log_probs, old_log_probs, advantages, mask, clip_low, clip_high) -> loss``: log π_θ and
            log π_old of the tokens of G outputs as NumPy arrays ``[G, T]``, the outputs' advantages ``[G]``,
            a mask that is true for tokens of outputs, ``[G, T]`` bool, and ε below and above.

    Raises:
        TypeError: it is not a function.
    """
    return check(dapo_loss, _dapo_loss, _draw_group, _DAPO_MISTAKES)


def check_sequence_ratio(sequence_ratio: Callable) -> Check:
    """Check GSPO's ratio of each output. Zheng et al. (2025), arXiv:2507.18071, eq. 7.

    Args:
        sequence_ratio: ``(log_probs, old_log_probs, mask) -> ratios``, arrays as for ``check_dapo_loss``, to
            ``[G]``.

    Raises:
        TypeError: it is not a function.
    """
    return check(sequence_ratio, _sequence_ratio, _draw_tokens, _RATIO_MISTAKES)


# --- what multiplies the score in the gradients of the three estimators ---


def _draw_log_probs(rng: np.random.Generator) -> tuple:
    probabilities = rng.dirichlet(np.ones(6), size=2)
    samples = rng.integers(6, size=int(rng.integers(3, 8)))
    return tuple(np.log(probabilities)[:, samples])


def _kl_factors(p, q):
    return np.stack([np.ones_like(p), p - q, 1 - np.exp(q - p)])


_FACTOR_MISTAKES: Mistakes = {
    "gives the values of the estimators; asked is what multiplies ∇log π_θ in their gradients": (
        lambda p, q: np.stack([p - q, (p - q) ** 2 / 2, np.exp(q - p) - 1 - (q - p)])
    ),
    "gives derivatives by log π_ref / π_θ; when log π_θ grows, that log-ratio falls": (
        lambda p, q: -_kl_factors(p, q)
    ),
    "has the log-ratio the wrong way up in k₂ and k₃: π_ref stands above": (lambda p, q: _kl_factors(q, p)),
    "has the wrong sign for k₁": lambda p, q: np.stack([-np.ones_like(p), *_kl_factors(p, q)[1:]]),
    "gives k₂'s value, not what its gradient multiplies the score by": (
        lambda p, q: np.stack([np.ones_like(p), (p - q) ** 2 / 2, 1 - np.exp(q - p)])
    ),
    "is wrong for k₁ alone: log π_θ stands in it once, log π_ref does not move": (
        lambda p, q: np.stack([p - q, *_kl_factors(p, q)[1:]])
    ),
    "has 0 for k₁: that is the mean of its gradient, not what multiplies the score of one sample": (
        lambda p, q: np.stack([np.zeros_like(p), *_kl_factors(p, q)[1:]])
    ),
    "is wrong for k₂ alone: the derivative of a square brings down a 2, and there is a ½ before it": (
        lambda p, q: np.stack([np.ones_like(p), 2 * (p - q), 1 - np.exp(q - p)])
    ),
    "halves k₂'s: the derivative of a square brings down a 2": (
        lambda p, q: np.stack([np.ones_like(p), (p - q) / 2, 1 - np.exp(q - p)])
    ),
    "has the wrong sign for k₂": lambda p, q: np.stack([np.ones_like(p), q - p, 1 - np.exp(q - p)]),
    "has the wrong sign for k₃": lambda p, q: np.stack([np.ones_like(p), p - q, np.exp(q - p) - 1]),
    "has π_θ / π_ref in k₃, which is the other way up": (
        lambda p, q: np.stack([np.ones_like(p), p - q, 1 - np.exp(p - q)])
    ),
    "leaves the −log(π_ref / π_θ) of k₃ out of the derivative": (
        lambda p, q: np.stack([np.ones_like(p), p - q, -np.exp(q - p)])
    ),
}


# --- tokens of a group ---


def _draw_tokens(rng: np.random.Generator) -> tuple:
    """What stands after the end of an output means nothing, and is not 0."""
    size, longest = int(rng.integers(3, 6)), int(rng.integers(5, 9))
    lengths = rng.permutation(np.r_[1, longest, rng.integers(2, longest, size=size - 2)])
    mask = np.arange(longest) < lengths[:, None]
    old = -rng.exponential(size=mask.shape)
    return old + rng.normal(scale=0.4, size=mask.shape), old, mask


def _draw_group(rng: np.random.Generator) -> tuple:
    log_probs, old, mask = _draw_tokens(rng)
    advantages = rng.normal(size=len(mask))
    low = float(rng.uniform(0.1, 0.25))
    return log_probs, old, advantages - advantages.mean(), mask, low, low + float(rng.uniform(0.1, 0.3))


# --- DAPO's loss ---


def _token_mean(objective, mask):
    return -objective[mask].sum() / mask.sum()


def _output_mean(objective, mask):
    return -(np.where(mask, objective, 0).sum(axis=1) / mask.sum(axis=1)).mean()


def _clipped(ratio, advantages, low, high):
    return np.minimum(ratio * advantages, ratio.clip(1 - low, 1 + high) * advantages)


def _dapo_loss(log_probs, old, advantages, mask, low, high):
    return _token_mean(_clipped(np.exp(log_probs - old), advantages[:, None], low, high), mask)


def _changed(ratio=lambda d: np.exp(d), surrogate=_clipped, mean=_token_mean) -> Callable:
    """DAPO's loss with another ratio, of log π_θ − log π_old, another surrogate or another mean."""
    return lambda p, old, a, mask, low, high: mean(surrogate(ratio(p - old), a[:, None], low, high), mask)


_DAPO_MISTAKES: Mistakes = {
    "averages over each output's tokens, and then over outputs; here every token of the group counts the "
    "same": _changed(mean=_output_mean),
    "counts padding: the mean is over the places where the mask is true": (
        _changed(mean=lambda objective, mask: -objective.mean())
    ),
    "divides by all places of the array, padding too": (
        _changed(mean=lambda objective, mask: -objective[mask].sum() / mask.size)
    ),
    "gives padding a ratio of 1 and counts it": (
        lambda p, old, a, mask, low, high: (
            -_clipped(np.where(mask, np.exp(p - old), 1), a[:, None], low, high).mean()
        )
    ),
    "divides by the number of outputs, not of their tokens": (
        _changed(mean=lambda objective, mask: -objective[mask].sum() / len(mask))
    ),
    "sums over the tokens and does not divide": (
        _changed(mean=lambda objective, mask: -objective[mask].sum())
    ),
    "uses the lower clip range on both sides": (
        _changed(surrogate=lambda r, a, low, high: _clipped(r, a, low, low))
    ),
    "uses the upper clip range on both sides": (
        _changed(surrogate=lambda r, a, low, high: _clipped(r, a, high, high))
    ),
    "has the two clip ranges the wrong way round": (
        _changed(surrogate=lambda r, a, low, high: _clipped(r, a, high, low))
    ),
    "does not clip": _changed(surrogate=lambda r, a, low, high: r * a),
    "clips, but without the minimum: then a ratio that went the wrong way is not brought back": (
        _changed(surrogate=lambda r, a, low, high: r.clip(1 - low, 1 + high) * a)
    ),
    "takes the larger of the two products; the surrogate is the smaller one": (
        _changed(
            surrogate=lambda r, a, low, high: np.maximum(r * a, r.clip(1 - low, 1 + high) * a),
        )
    ),
    "has the ratio the wrong way up: the policy being learned stands above": (
        _changed(ratio=lambda d: np.exp(-d))
    ),
    "uses the difference of log-probabilities as the ratio; it is the ratio's logarithm": (
        _changed(ratio=lambda d: d)
    ),
}


# --- GSPO's ratio ---


def _mean_of(values, mask):
    return np.where(mask, values, 0).sum(axis=1) / mask.sum(axis=1)


def _sequence_ratio(log_probs, old, mask):
    return np.exp(_mean_of(log_probs - old, mask))


_RATIO_MISTAKES: Mistakes = {
    "gives the ratio of the whole output, the product of its tokens'; the length is missing": (
        lambda p, old, mask: np.exp(np.where(mask, p - old, 0).sum(axis=1))
    ),
    "gives the arithmetic mean of the tokens' ratios; it is the geometric one": (
        lambda p, old, mask: _mean_of(np.exp(p - old), mask)
    ),
    "counts padding": lambda p, old, mask: np.exp((p - old).mean(axis=1)),
    "divides by the longest length for every output, not by its own": (
        lambda p, old, mask: np.exp(np.where(mask, p - old, 0).mean(axis=1))
    ),
    "has the ratio the wrong way up": lambda p, old, mask: 1 / _sequence_ratio(p, old, mask),
    "multiplies in zeros where the mask is false; padding must not change the product": (
        lambda p, old, mask: np.prod(np.exp(p - old) * mask, axis=1) ** (1 / mask.sum(axis=1))
    ),
    "divides by the square root of the length": (
        lambda p, old, mask: np.exp(np.where(mask, p - old, 0).sum(axis=1) / np.sqrt(mask.sum(axis=1)))
    ),
    "has padding in the product, though the root is that of the output's length": (
        lambda p, old, mask: np.exp((p - old).sum(axis=1) / mask.sum(axis=1))
    ),
    "gives the ratio's logarithm": lambda p, old, mask: _mean_of(p - old, mask),
    "takes the mean over the tokens of all outputs together": lambda p, old, mask: np.full(
        len(mask), np.exp((p - old)[mask].mean())
    ),
    "multiplies the tokens' ratios and divides the product by the length; the root belongs there": (
        lambda p, old, mask: np.exp(np.where(mask, p - old, 0).sum(axis=1)) / mask.sum(axis=1)
    ),
}
