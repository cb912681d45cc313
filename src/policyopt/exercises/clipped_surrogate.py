"""Checkers for the exercises of the chapter "The clipped surrogate"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_clipped_surrogate", "check_effective_sample_size", "check_ratio_gradient"]


def check_clipped_surrogate(clipped_surrogate: Callable) -> Check:
    """Check PPO's objective. Book: eq-clipped-surrogate. Schulman et al. (2017), arXiv:1707.06347, eq. 7.

    Args:
        clipped_surrogate: ``(ratio, advantages, clip) -> objective``: ρ, Â and the result are NumPy arrays
            ``[B]``, ε is a number in (0, 1). To be maximised, one number for each sample.

    Raises:
        TypeError: it is not a function.
    """
    return check(clipped_surrogate, _clipped_surrogate, _draw_samples, _SURROGATE_MISTAKES)


def check_ratio_gradient(ratio_gradient: Callable) -> Check:
    """Check the derivative of PPO's objective by the ratio. Book: eq-clipped-surrogate.

    Args:
        ratio_gradient: ``(ratio, advantages, clip) -> derivative``, arguments and result as for
            ``check_clipped_surrogate``. No ratio drawn lies on the border of the clip range.

    Raises:
        TypeError: it is not a function.
    """
    return check(ratio_gradient, _ratio_gradient, _draw_samples, _GRADIENT_MISTAKES)


def check_effective_sample_size(effective_sample_size: Callable) -> Check:
    """Check the effective sample size of weighted episodes. Book: eq-clipped-surrogate-size. Owen (2013),
    chapter 9.

    Args:
        effective_sample_size: ``(log_probs, old_log_probs) -> number``: log π(a_t|s_t) and log π_old(a_t|s_t)
            are NumPy arrays ``[T, N]``, a column for each of N episodes, which π_old has played; the weight
            of an episode is the ratio of its probabilities.

    Raises:
        TypeError: it is not a function.
    """
    return check(effective_sample_size, _effective_sample_size, _draw_episodes, _ESS_MISTAKES)


# --- the objective ---


def _draw_samples(rng: np.random.Generator) -> tuple:
    """Four samples of each case: a ratio below, inside and above the range, a good and a bad advantage."""
    clip = float(rng.uniform(0.1, 0.4))
    below, inside, above = (0.2, 0.95 - clip), (1.02 - clip, 0.98 + clip), (1.05 + clip, 2.5)
    ratio = np.concatenate([rng.uniform(*span, size=8) for span in (below, inside, above)])
    advantages = rng.uniform(0.3, 2.0, size=len(ratio)) * np.tile([1.0, -1.0], len(ratio) // 2)
    order = rng.permutation(len(ratio))
    return ratio[order], advantages[order], clip


def _clipped(ratio, clip):
    return np.clip(ratio, 1 - clip, 1 + clip)


def _clipped_surrogate(ratio, advantages, clip):
    return np.minimum(ratio * advantages, _clipped(ratio, clip) * advantages)


_SURROGATE_MISTAKES: Mistakes = {
    "takes the larger of the two terms; the objective is to be pessimistic": (
        lambda r, a, e: np.maximum(r * a, _clipped(r, e) * a)
    ),
    "has the clipped term alone; without the other a sample that went the wrong way is never called back": (
        lambda r, a, e: _clipped(r, e) * a
    ),
    "has the unclipped term alone: that is the surrogate before the clip": lambda r, a, e: r * a,
    "takes the smaller ratio and then multiplies; with a negative advantage the smaller ratio gives the "
    "larger product": lambda r, a, e: np.minimum(r, _clipped(r, e)) * a,
    "has no lower border; what is good for an action above 1 + ε is good for a bad one below 1 − ε": (
        lambda r, a, e: np.minimum(r * a, np.minimum(r, 1 + e) * a)
    ),
    "has no upper border; a good action has to stop at 1 + ε": (
        lambda r, a, e: np.minimum(r * a, np.maximum(r, 1 - e) * a)
    ),
    "clips the product; it is the ratio that is clipped": (
        lambda r, a, e: np.minimum(r * a, np.clip(r * a, 1 - e, 1 + e))
    ),
    "clips the ratio to [−ε, ε]; the range lies around 1, where nothing has changed yet": (
        lambda r, a, e: np.minimum(r * a, np.clip(r, -e, e) * a)
    ),
    "takes the exponential of the ratio; ρ is the ratio itself, not its logarithm": (
        lambda r, a, e: _clipped_surrogate(np.exp(r), a, e)
    ),
    "ignores the sign of the advantage; a bad action counts as a good one": (
        lambda r, a, e: _clipped_surrogate(r, np.abs(a), e)
    ),
    "clips with 0.2 whatever ε is": lambda r, a, e: _clipped_surrogate(r, a, 0.2),
    "leaves out the advantages": lambda r, a, e: np.minimum(r, _clipped(r, e)) * np.ones_like(a),
}


# --- its derivative ---


def _ratio_gradient(ratio, advantages, clip):
    done = (advantages > 0) & (ratio > 1 + clip) | (advantages < 0) & (ratio < 1 - clip)
    return np.where(done, 0.0, advantages)


def _outside(ratio, clip):
    return np.abs(ratio - 1) > clip


_GRADIENT_MISTAKES: Mistakes = {
    "is 0 everywhere outside the range; a sample that moved the wrong way must keep its gradient": (
        lambda r, a, e: np.where(_outside(r, e), 0.0, a)
    ),
    "is 0 on the wrong sides: those are the samples that went the wrong way": (
        lambda r, a, e: np.where((a > 0) & (r < 1 - e) | (a < 0) & (r > 1 + e), 0.0, a)
    ),
    "is 0 inside the range and not outside it": lambda r, a, e: np.where(_outside(r, e), a, 0.0),
    "is 0 above 1 + ε whatever the advantage; a bad action that became likelier has to come back": (
        lambda r, a, e: np.where(r > 1 + e, 0.0, a)
    ),
    "is 0 below 1 − ε whatever the advantage; a good action that became rarer has to come back": (
        lambda r, a, e: np.where(r < 1 - e, 0.0, a)
    ),
    "forgets that bad actions have a border too, at 1 − ε": (
        lambda r, a, e: np.where((a > 0) & (r > 1 + e), 0.0, a)
    ),
    "forgets that good actions have a border too, at 1 + ε": (
        lambda r, a, e: np.where((a < 0) & (r < 1 - e), 0.0, a)
    ),
    "never becomes 0: that is the gradient without the clip": lambda r, a, e: a,
    "is the derivative by log π, which is ρ times the one by ρ": (
        lambda r, a, e: r * _ratio_gradient(r, a, e)
    ),
    "tells only whether there is a gradient; how large is it where there is one?": (
        lambda r, a, e: _ratio_gradient(r, a, e) != 0
    ),
    "has the sign alone; the slope of ρ Â is Â": lambda r, a, e: np.sign(_ratio_gradient(r, a, e)),
    "returns the objective, not its derivative": lambda r, a, e: _clipped_surrogate(r, a, e),
    "has the value of the objective where it is flat; asked is the slope": (
        lambda r, a, e: np.where(_ratio_gradient(r, a, e) == 0, _clipped(r, e) * a, a)
    ),
    "has lost the sign of the advantage; a bad action is pushed down": (
        lambda r, a, e: np.abs(_ratio_gradient(r, a, e))
    ),
    "is divided by the number of samples; asked is the slope of each sample's own objective": (
        lambda r, a, e: _ratio_gradient(r, a, e) / len(r)
    ),
}


# --- the effective sample size ---


def _draw_episodes(rng: np.random.Generator) -> tuple:
    shape = int(rng.integers(3, 9)), int(rng.integers(10, 21))
    old_log_probs = np.log(rng.uniform(0.2, 0.8, size=shape))
    return old_log_probs + rng.normal(scale=0.3, size=shape), old_log_probs


def _size(weights):
    return weights.sum() ** 2 / np.square(weights).sum()


def _effective_sample_size(log_probs, old_log_probs):
    return _size(np.exp((log_probs - old_log_probs).sum(axis=0)))


def _of_weights(size: Callable) -> Callable:
    """Another figure of the right weights."""
    return lambda new, old: size(np.exp((new - old).sum(axis=0)))


_ESS_MISTAKES: Mistakes = {
    "multiplies along the wrong axis: a column is an episode, so its ratios are multiplied down the rows": (
        lambda new, old: _size(np.exp((new - old).sum(axis=1)))
    ),
    "weighs every action by itself; asked is the weight of whole episodes": (
        lambda new, old: _size(np.exp(new - old))
    ),
    "takes the mean of the logarithms; the weight of an episode is the product of its ratios, so they are "
    "summed": lambda new, old: _size(np.exp((new - old).mean(axis=0))),
    "adds the ratios of an episode, or takes their mean; one action follows the other, so multiply": (
        lambda new, old: _size(np.exp(new - old).sum(axis=0))
    ),
    "has the ratio upside down: the policy that played belongs below the line": (
        lambda new, old: _size(np.exp((old - new).sum(axis=0)))
    ),
    "weighs by the new probabilities alone; divide by those of the policy that played": (
        lambda new, old: _size(np.exp(new.sum(axis=0)))
    ),
    "forgets the exponential: these are logarithms of weights": (
        lambda new, old: _size((new - old).sum(axis=0))
    ),
    "divides logarithms; the logarithm of a ratio is the difference of the logarithms": (
        lambda new, old: _size((new / old).prod(axis=0))
    ),
    "returns a share; the number of episodes it is a share of is missing": _of_weights(
        lambda w: _size(w) / len(w)
    ),
    "is upside down; it must be at most the number of episodes": _of_weights(lambda w: 1 / _size(w)),
    "takes the weights' mean for 1; that holds for the expectation, not in a sample": _of_weights(
        lambda w: len(w) / np.square(w).mean()
    ),
    "does not square the sum": _of_weights(lambda w: w.sum() / np.square(w).sum()),
}
