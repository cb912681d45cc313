"""Checkers for the exercises of the chapter "Advantages relative to a group"."""

from collections.abc import Callable
from math import comb

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_group_advantages", "check_grpo_objective", "check_prompt_weight"]

EPSILON = 1e-4  # added to σ_R


def check_group_advantages(group_advantages: Callable) -> Check:
    """Check the advantages of groups. Book: eq-group-advantage. Shao et al. (2024), section 4.1.2.

    Args:
        group_advantages: ``(rewards, divide_by_std) -> advantages``, NumPy arrays ``[groups, G]`` and a bool.
            With ``divide_by_std`` the difference from the group's mean is divided by σ_R + 10⁻⁴, σ_R with
            Bessel's correction.

    Raises:
        TypeError: it is not a function.
    """
    return check(group_advantages, _advantages, _draw_groups, _ADVANTAGE_MISTAKES)


def check_prompt_weight(prompt_weight: Callable) -> Check:
    """Check the weight that GRPO gives to the gradient of a prompt, as the chapter derives it.

    Args:
        prompt_weight: ``(p, size) -> weight``: the share of right outputs p, in (0, 1), and G. The rewards
            are 0 and 1, the advantages divided by σ_R with Bessel's correction, nothing added to it.

    Raises:
        TypeError: it is not a function.
    """
    return check(prompt_weight, _weight, _draw_prompt, _WEIGHT_MISTAKES)


def check_grpo_objective(grpo_objective: Callable) -> Check:
    """Check GRPO's objective, to be maximised, for one group. Book: eq-grpo. Shao et al. (2024), eqs. 3, 4.

    Args:
        grpo_objective: ``(log_probs, old_log_probs, reference_log_probs, advantages, mask, clip, kl_coef) ->
            number``. Log-probabilities are arrays ``[G, T]``, the advantages ``[G]``, the mask ``[G, T]`` of
            type bool is true where an output has a step, and the last two are ε and β.

    Raises:
        TypeError: it is not a function.
    """
    return check(grpo_objective, _objective, _draw_outputs, _OBJECTIVE_MISTAKES)


# --- advantages ---


def _draw_groups(rng: np.random.Generator) -> tuple:
    """Rewards of several levels; in one group all are equal."""
    groups, size = int(rng.integers(3, 6)), int(rng.integers(3, 8))
    rewards = rng.normal(size=(groups, size)) * rng.uniform(0.5, 2, (groups, 1)) + rng.normal(
        size=(groups, 1)
    )
    rewards[rng.integers(groups)] = rng.integers(-4, 5) / 4  # equal, and its mean is exact
    return rewards, bool(rng.integers(2))


def _centred(rewards):
    return rewards - rewards.mean(axis=1, keepdims=True)


def _deviation(rewards, **options):
    return rewards.std(axis=1, keepdims=True, **({"ddof": 1} | options))


def _advantages(rewards, divide_by_std):
    centred = _centred(rewards)
    return centred / (_deviation(rewards) + EPSILON) if divide_by_std else centred


def _others(rewards):
    """Each reward minus the mean of the others."""
    return _centred(rewards) * rewards.shape[1] / (rewards.shape[1] - 1)


def _around(centre: Callable) -> Callable:
    """The advantages with something else than the group's mean."""
    return lambda r, d: (r - centre(r)) / (_deviation(r) + EPSILON if d else 1)


def _over(divisor: Callable) -> Callable:
    """The advantages with something else in the place of σ_R + 10⁻⁴."""

    def advantages(r, d):
        with np.errstate(divide="ignore", invalid="ignore"):
            return _centred(r) / (divisor(r) if d else 1)

    return advantages


_ADVANTAGE_MISTAKES: Mistakes = {
    "subtracts the mean of all groups together; an output is compared with its own group, one row": (
        _around(np.mean)
    ),
    "takes the mean down the columns; a group is a row": _around(lambda r: r.mean(axis=0)),
    "mean and standard deviation are those of the columns; a group is a row": (
        lambda r, d: (r - r.mean(axis=0)) / (r.std(axis=0, ddof=1) + EPSILON if d else 1)
    ),
    "mean and standard deviation are those of all groups together; a group is a row": (
        lambda r, d: (r - r.mean()) / (r.std(ddof=1) + EPSILON if d else 1)
    ),
    "divides by the standard deviation of all groups together; each group has its own": (
        _over(lambda r: r.std(ddof=1) + EPSILON)
    ),
    "the standard deviation lacks Bessel's correction: its squares are divided by G − 1, not by G": (
        _over(lambda r: _deviation(r, ddof=0) + EPSILON)
    ),
    "divides by the variance; its root is meant": _over(lambda r: _deviation(r) ** 2 + EPSILON),
    "divides by a standard deviation of 0 where all rewards are equal; what is added to it in the "
    "chapter's equation?": _over(_deviation),
    "adds far less than 10⁻⁴ to the standard deviation, or nothing": (
        lambda r, d: _centred(r) / (_deviation(r) + 1e-12 if d else 1)
    ),
    "adds the 10⁻⁴ to the variance; it belongs to the standard deviation, after the root": (
        _over(lambda r: np.sqrt(_deviation(r) ** 2 + EPSILON))
    ),
    "gives the plain difference whatever divide_by_std says": lambda r, d: _centred(r),
    "divides whatever divide_by_std says": lambda r, d: _advantages(r, True),
    "uses divide_by_std the wrong way round": lambda r, d: _advantages(r, not d),
    "compares with the mean of the others; that is the leave-one-out baseline, and here the mean is that of "
    "the whole group": lambda r, d: _others(r) / (_deviation(r) + EPSILON if d else 1),
    "subtracts no mean": lambda r, d: r / (_deviation(r) + EPSILON if d else 1),
    "compares with the median; the mean is meant": _around(lambda r: np.median(r, axis=1, keepdims=True)),
    "compares with the best of the group; then no output is ever pushed up": (
        _around(lambda r: r.max(axis=1, keepdims=True))
    ),
}


# --- the weight of a prompt ---


def _draw_prompt(rng: np.random.Generator) -> tuple:
    return float(rng.uniform(0.05, 0.95)), int(rng.integers(2, 13))


def _shares(p, size):
    """The probabilities of 0, 1, …, G right outputs."""
    return np.array([comb(size, k) * p**k * (1 - p) ** (size - k) for k in range(size + 1)])


def _spread(p, size, ddof=1):
    """The mean of σ_R."""
    right = np.arange(size + 1)
    return _shares(p, size) @ np.sqrt(right * (size - right) / size / (size - ddof))


def _weight(p, size):
    return (size - 1) / size * _spread(p, size) / (p * (1 - p))


def _of_mixed_groups(p, size):
    return _weight(p, size) / (1 - p**size - (1 - p) ** size)


def _without_binomials(p, size):
    right = np.arange(size + 1)
    shares = p**right * (1 - p) ** (size - right)
    return (size - 1) / size * shares @ np.sqrt(right * (size - right) / size / (size - 1)) / (p * (1 - p))


_WEIGHT_MISTAKES: Mistakes = {
    "gives the limit of large groups, 1/√(p(1 − p)); G is smaller than that": (
        lambda p, n: 1 / np.sqrt(p * (1 - p))
    ),
    "takes the root of the mean variance for the mean of its root; σ_R is random": (
        lambda p, n: (n - 1) / n / np.sqrt(p * (1 - p))
    ),
    "gives the weight without the division by σ_R": lambda p, n: (n - 1) / n,
    "lacks the factor (G − 1)/G: the mean contains the own reward": lambda p, n: _spread(p, n) / p / (1 - p),
    "σ_R lacks Bessel's correction: its squares are divided by G − 1, not by G": (
        lambda p, n: (n - 1) / n * _spread(p, n, ddof=0) / p / (1 - p)
    ),
    "is not divided by p(1 − p)": lambda p, n: (n - 1) / n * _spread(p, n),
    "is divided by the root of p(1 − p), not by p(1 − p)": (
        lambda p, n: (n - 1) / n * _spread(p, n) / np.sqrt(p * (1 - p))
    ),
    "averages over mixed groups alone; one whose rewards are all equal counts, too, with σ_R = 0": (
        _of_mixed_groups
    ),
    "lacks the binomial coefficients: k right outputs can stand at many places": _without_binomials,
    "gives the mean advantage of a right output alone; what a wrong one does moves the policy as well": (
        lambda p, n: _weight(p, n) * (1 - p)
    ),
}


# --- the objective ---


def _draw_outputs(rng: np.random.Generator) -> tuple:
    """Outputs of different lengths; what stands behind an end belongs to nobody."""
    size, longest = int(rng.integers(3, 7)), int(rng.integers(5, 9))
    old = np.log(rng.uniform(0.1, 0.9, (size, longest)))
    log_probs = old + 0.3 * rng.normal(size=old.shape)
    reference = old + 0.5 * rng.normal(size=old.shape)
    advantages = rng.normal(size=size)
    lengths = rng.permutation(np.append(rng.integers(1, longest, size - 2), [1, longest]))
    mask = np.arange(longest) < lengths[:, None]
    return (
        log_probs,
        old,
        reference,
        advantages,
        mask,
        float(rng.uniform(0.1, 0.3)),
        float(rng.uniform(0.3, 1)),
    )


def _smaller(ratio, advantages, clip):
    return np.minimum(ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages)


def _k3(log_ratio):
    return np.exp(log_ratio) - 1 - log_ratio


def _per_output(steps, mask):
    return ((steps * mask).sum(axis=1) / mask.sum(axis=1)).mean()


def _with(
    surrogate: Callable = _smaller,
    ratio: Callable = lambda lp, old: np.exp(lp - old),
    penalty: Callable = lambda lp, old, ref: _k3(ref - lp),
    average: Callable = _per_output,
    sign: float = -1.0,
) -> Callable:
    """GRPO's objective, with what the arguments change in it."""

    def objective(log_probs, old, reference, advantages, mask, clip, kl_coef):
        gain = surrogate(ratio(log_probs, old), advantages[:, None], clip)
        return average(gain + sign * kl_coef * penalty(log_probs, old, reference), mask)

    return objective


_objective = _with()


def _of_whole_outputs(log_probs, old, reference, advantages, mask, clip, kl_coef):
    """The objective with one ratio for an output, that of its probabilities."""
    log_ratio = np.broadcast_to(((log_probs - old) * mask).sum(axis=1, keepdims=True), mask.shape)
    gain = _smaller(np.exp(log_ratio), advantages[:, None], clip)
    return _per_output(gain - kl_coef * _k3(reference - log_probs), mask)


def _penalty_over_all_steps(log_probs, old, reference, advantages, mask, clip, kl_coef):
    gain = _with(sign=0.0)(log_probs, old, reference, advantages, mask, clip, kl_coef)
    return gain - kl_coef * _k3(reference - log_probs)[mask].mean()


def _one_sided(ratio, advantages, clip):
    return np.minimum(ratio * advantages, np.minimum(ratio, 1 + clip) * advantages)


_OBJECTIVE_MISTAKES: Mistakes = {
    "takes one mean over all steps; that over the steps of an output comes first, then that over outputs": (
        _with(average=lambda steps, mask: steps[mask].mean())
    ),
    "divides every output by T; an output has its own length, which the mask tells": (
        _with(average=lambda steps, mask: (steps * mask).mean())
    ),
    "counts what stands behind the end of an output; the mask tells where it ends": (
        _with(average=lambda steps, mask: steps.mean())
    ),
    "divides by the length, but counts what stands behind the end as well": (
        _with(average=lambda steps, mask: (steps.sum(axis=1) / mask.sum(axis=1)).mean())
    ),
    "adds up the steps of an output; their mean is meant": (
        _with(average=lambda steps, mask: (steps * mask).sum(axis=1).mean())
    ),
    "adds up the outputs; their mean is meant": (
        _with(average=lambda steps, mask: ((steps * mask).sum(axis=1) / mask.sum(axis=1)).sum())
    ),
    "does not clip the ratio": _with(surrogate=lambda ratio, a, clip: ratio * a),
    "takes the clipped product alone; the smaller of both is meant": (
        _with(surrogate=lambda ratio, a, clip: np.clip(ratio, 1 - clip, 1 + clip) * a)
    ),
    "takes the larger of the two products; the smaller is meant": (
        _with(surrogate=lambda ratio, a, clip: np.maximum(ratio * a, np.clip(ratio, 1 - clip, 1 + clip) * a))
    ),
    "clips the ratio to [−ε, ε]; the ends lie that far from 1": (
        _with(surrogate=lambda ratio, a, clip: np.minimum(ratio * a, np.clip(ratio, -clip, clip) * a))
    ),
    "clips the ratio from above alone; it has a lower end as well, 1 − ε": _with(surrogate=_one_sided),
    "takes the smaller of the two ratios before it multiplies by Â; with a negative Â the smaller product "
    "belongs to the larger ratio": (
        _with(surrogate=lambda ratio, a, clip: np.minimum(ratio, np.clip(ratio, 1 - clip, 1 + clip)) * a)
    ),
    "clips the product with Â; the ratio alone is clipped": (
        _with(surrogate=lambda ratio, a, clip: np.minimum(ratio * a, np.clip(ratio * a, 1 - clip, 1 + clip)))
    ),
    "has one ratio for a whole output; every step has its own": _of_whole_outputs,
    "averages the penalty over all steps together; it stands inside the mean over each output": (
        _penalty_over_all_steps
    ),
    "has the ratio upside down: π_θ stands above, π_old below": _with(ratio=lambda lp, old: np.exp(old - lp)),
    "uses the difference of the log-probabilities as the ratio; what undoes the logarithm?": (
        _with(ratio=lambda lp, old: lp - old)
    ),
    "takes the ratio of the log-probabilities; the ratio of the probabilities is meant": (
        _with(ratio=lambda lp, old: lp / old)
    ),
    "takes the ratio with the reference; the data come from π_old": (
        lambda lp, old, ref, a, m, e, b: _objective(lp, ref, ref, a, m, e, b)
    ),
    "adds the penalty; straying from the reference should cost": _with(sign=1.0),
    "has no penalty towards the reference": _with(sign=0.0),
    "forgets β": lambda lp, old, ref, a, m, e, b: _objective(lp, old, ref, a, m, e, 1.0),
    "measures the distance from π_old; the reference is meant": (
        _with(penalty=lambda lp, old, ref: _k3(old - lp))
    ),
    "has the ratio inside the penalty upside down: π_ref stands above, π_θ below": (
        _with(penalty=lambda lp, old, ref: _k3(lp - ref))
    ),
    "uses log π_θ − log π_ref as the penalty, that is k₁; k₃ is meant": (
        _with(penalty=lambda lp, old, ref: lp - ref)
    ),
    "uses half the square of the log-ratio as the penalty, that is k₂; k₃ is meant": (
        _with(penalty=lambda lp, old, ref: (lp - ref) ** 2 / 2)
    ),
}
