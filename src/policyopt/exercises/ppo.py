"""Checkers for the exercises of the chapter "PPO, the whole algorithm"."""

import secrets
from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_gaussian_log_prob", "check_minibatches", "check_ppo_loss"]


def check_ppo_loss(function: Callable) -> Check:
    """Check the loss of PPO. Book: eq-ppo-loss. Schulman et al. (2017), eq. 9, negated.

    Args:
        function: ``(log_probs, old_log_probs, advantages, values, value_targets, entropies, clip, value_coef,
            entropy_coef) -> loss``, a single number from NumPy arrays ``[M]`` and ε, c₁ and c₂. The
            advantages are used as they are given.

    Raises:
        TypeError: it is not a function.
    """
    return check(function, _loss(), _draw_minibatch, _LOSS_MISTAKES)


def check_gaussian_log_prob(function: Callable) -> Check:
    """Check the log-density of actions under a diagonal Gaussian. Book: eq-ppo-gaussian.

    Args:
        function: ``(actions, mean, log_std) -> log_probs``: arrays ``[M, D]``, ``[M, D]`` and ``[D]`` to one
            number for each action, ``[M]``.

    Raises:
        TypeError: it is not a function.
    """
    return check(function, _gaussian(), _draw_actions, _GAUSSIAN_MISTAKES)


def check_minibatches(function: Callable) -> Check:
    """Check how a batch is cut into minibatches for one epoch.

    Args:
        function: ``(count, size, rng) -> parts``: a list of integer arrays, the numbers 0 … ``count`` − 1 in
            an order drawn from the NumPy generator ``rng``, ``size`` in each part; the last takes what is
            left.

    Raises:
        TypeError: it is not a function.
    """
    if not callable(function):
        raise TypeError(f"got {function!r}; give the function itself, without calling it")
    name = getattr(function, "__name__", "the function")
    rng, trials = np.random.default_rng(secrets.randbits(64)), 50
    for trial in range(trials):
        size = int(rng.integers(3, 6))
        count = size * int(rng.integers(7, 10)) + (0 if trial % 2 else int(rng.integers(1, size)))
        seed = secrets.randbits(64)
        try:
            # Two epochs with one generator, then the first again.
            generator = np.random.default_rng(seed)
            given = [function(count, size, generator) for _ in range(2)]
            given.append(function(count, size, np.random.default_rng(seed)))
            epochs = [[np.asarray(part) for part in parts] for parts in given]
        except Exception as error:
            return Check(False, f"{name} raised {type(error).__name__}: {error}")
        problem = next(filter(None, (_wrong_split(parts, count, size) for parts in epochs)), None)
        first, second, again = (np.concatenate(parts) if not problem else None for parts in epochs)
        if problem is None and (first == np.arange(count)).all():
            problem = "does not shuffle: neighbouring samples are neighbouring steps, which are much alike"
        if problem is None and all(np.ptp(part) == len(part) - 1 for part in epochs[0]):
            problem = "keeps neighbouring samples together: shuffle all samples, then cut"
        if problem is None and not np.array_equal(first, again):
            problem = "draws its order from elsewhere: the same rng must give the same order"
        if problem is None and np.array_equal(first, second):
            problem = "gives the same order in every epoch; draw a new one from rng at each call"
        if problem:
            return Check(False, f"{name} {problem}")
    return Check(True, f"{name} is right on {trials} random inputs")


# --- the loss ---


def _loss(
    *,
    ratio=lambda new, old: np.exp(new - old),
    gain=lambda ratio, a, eps: np.minimum(ratio * a, ratio.clip(1 - eps, 1 + eps) * a),
    error=np.square,
    signs=(-1, 1, -1),
    mean=np.mean,
    swap=False,
) -> Callable:
    """The loss, with what the arguments change in it."""

    def loss(log_probs, old_log_probs, advantages, values, value_targets, entropies, clip, c1, c2):
        if swap:
            c1, c2 = c2, c1
        policy, value, entropy = signs
        rho = ratio(log_probs, old_log_probs)
        return (
            policy * mean(gain(rho, advantages, clip))
            + value * c1 * mean(error(values - value_targets))
            + entropy * c2 * mean(entropies)
        )

    return loss


def _draw_minibatch(rng: np.random.Generator) -> tuple:
    """Ratios on both sides of the clip range, with advantages of both signs for each."""
    clip, half = float(rng.uniform(0.1, 0.3)), int(rng.integers(2, 5))
    old = -rng.uniform(0.2, 2, size=6 * half)
    ratios = np.tile([1 - 2 * clip, 1 - clip / 2, 1 + clip / 2, 1 + 2 * clip, 1 + 3 * clip, 1], half)
    ratios *= rng.uniform(0.97, 1.03, size=len(ratios))
    advantages = rng.uniform(0.3, 2, size=len(ratios)) * np.repeat([1, -1], len(ratios) // 2)
    order = rng.permutation(len(ratios))
    values, targets = rng.normal(size=(2, len(ratios)))
    entropies = rng.uniform(0.3, 0.7, size=len(ratios))
    new = old + np.log(ratios)
    columns = (new, old, advantages, values, targets, entropies)
    coefs = float(rng.uniform(0.4, 0.9)), float(rng.uniform(0.05, 0.3))
    return (*(column[order] for column in columns), clip, *coefs)


def _clipped_alone(ratio, advantages, eps):
    return ratio.clip(1 - eps, 1 + eps) * advantages


_LOSS_MISTAKES: Mistakes = {
    "the surrogate has the wrong sign: it is to grow, and a loss is minimised": _loss(signs=(1, 1, -1)),
    "the entropy has the wrong sign: a bonus makes the loss smaller": _loss(signs=(-1, 1, 1)),
    "the value loss has the wrong sign: the critic's error is to shrink": _loss(signs=(-1, -1, -1)),
    "it is the objective to be maximised: a loss has all three signs turned round": _loss(signs=(1, -1, 1)),
    "does not clip: that is the plain surrogate, the ratio times the advantage": _loss(
        gain=lambda ratio, a, eps: ratio * a
    ),
    "takes the clipped product alone; the smaller of it and the unclipped one counts": _loss(
        gain=_clipped_alone
    ),
    "takes the smaller ratio; the smaller *product* counts: with a negative advantage, that of the larger": (
        _loss(gain=lambda ratio, a, eps: ratio.clip(max=1 + eps) * a)
    ),
    "takes the larger of the two products": _loss(
        gain=lambda ratio, a, eps: np.maximum(ratio * a, _clipped_alone(ratio, a, eps))
    ),
    "the ratio is the wrong way round: the new probability is divided by the old": _loss(
        ratio=lambda new, old: np.exp(old - new)
    ),
    "uses the difference of the log-probabilities as the ratio; there is an exponential missing": _loss(
        ratio=lambda new, old: new - old
    ),
    "divides the log-probabilities; the ratio is one of probabilities": _loss(
        ratio=lambda new, old: new / old
    ),
    "adds up the terms; each of the three is a mean over the minibatch": _loss(mean=np.sum),
    "the critic's error is not squared": _loss(error=np.asarray),
    "takes the size of the critic's error, not its square": _loss(error=np.abs),
    "takes half of the squared error; here c₁ alone weighs it": _loss(error=lambda e: np.square(e) / 2),
    "the two coefficients are exchanged: c₁ weighs the critic's error, c₂ the entropy": _loss(swap=True),
    "leaves out the entropy": _loss(signs=(-1, 1, 0)),
    "leaves out the critic's error": _loss(signs=(-1, 0, -1)),
    "normalises the advantages; take them as they are given": lambda new, old, a, *rest: _loss()(
        new, old, (a - a.mean()) / a.std(ddof=1), *rest
    ),
}


# --- the Gaussian ---


def _gaussian(
    *,
    scale=np.exp,
    shape=lambda z: -0.5 * z**2,
    spread=lambda log_std: -log_std,
    constant=-0.5 * np.log(2 * np.pi),
    over=lambda terms: terms.sum(axis=1),
) -> Callable:
    """The log-density, with what the arguments change in it."""

    def log_prob(actions, mean, log_std):
        z = (actions - mean) / scale(log_std)
        return over(shape(z) + spread(log_std) + constant)

    return log_prob


def _draw_actions(rng: np.random.Generator) -> tuple:
    shape = int(rng.integers(3, 8)), int(rng.integers(2, 5))
    mean, log_std = rng.normal(size=shape), rng.uniform(-1, 0.5, size=shape[1])
    return mean + np.exp(log_std) * rng.normal(size=shape), mean, log_std


_GAUSSIAN_MISTAKES: Mistakes = {
    "takes the mean over the components; a logarithm turns the product of their densities into a sum": (
        _gaussian(over=lambda terms: terms.mean(axis=1))
    ),
    "leaves out −log σ: without it a narrow Gaussian is no likelier at its own mean": _gaussian(
        spread=lambda log_std: 0
    ),
    "adds log σ; the wider a Gaussian, the lower its density": _gaussian(spread=lambda log_std: log_std),
    "leaves out the constant ½ log 2π": _gaussian(constant=0),
    "counts ½ log 2π once for each action; it belongs to each component": lambda a, m, s: (
        _gaussian(constant=0)(a, m, s) - 0.5 * np.log(2 * np.pi)
    ),
    "the sign of the square is wrong: far from the mean an action is less likely": _gaussian(
        shape=lambda z: 0.5 * z**2
    ),
    "leaves out the factor ½ of log 2π": _gaussian(constant=-np.log(2 * np.pi)),
    "takes half of log σ; the ½ belongs to log σ², and ½ log σ² is log σ": _gaussian(
        spread=lambda log_std: -log_std / 2
    ),
    "divides the squared distance by σ; it is divided by the variance": _gaussian(
        scale=lambda log_std: np.exp(log_std / 2)
    ),
    "leaves out the factor ½ of the square": _gaussian(shape=lambda z: -(z**2)),
    "does not square the distance from the mean": _gaussian(shape=lambda z: -0.5 * z),
    "does not divide by σ": _gaussian(scale=np.ones_like),
    "divides by log σ, not by σ": _gaussian(scale=np.asarray),
    "divides by the variance; the distance from the mean is divided by σ, then squared": _gaussian(
        scale=lambda log_std: np.exp(2 * log_std)
    ),
    "multiplies by σ where it should divide": _gaussian(scale=lambda log_std: np.exp(-log_std)),
    "returns the density, not its logarithm": lambda a, m, s: np.exp(_gaussian()(a, m, s)),
}


# --- minibatches ---


def _wrong_split(parts: list[np.ndarray], count: int, size: int) -> str | None:
    """What is wrong with the parts as sets; nothing if each number is in one of them."""
    if not parts or any(part.ndim != 1 for part in parts):
        return "must give a list of one-dimensional arrays, one for each minibatch"
    everything = np.concatenate(parts)
    if everything.dtype.kind not in "iu" or everything.min() < 0 or everything.max() >= count:
        return (
            f"must give whole numbers from 0 to count − 1; it gave {everything.min()} to {everything.max()}"
        )
    used = len(np.unique(everything))
    if used < len(everything):
        return "uses a sample twice in one epoch: cut one permutation, do not draw each part anew"
    if used < count:
        rest = count % size
        if rest and used == count - rest:
            return "drops the samples that do not fill a minibatch; the last part may be smaller"
        return f"leaves out {count - used} of {count} samples; an epoch uses each once"
    sizes = [len(part) for part in parts]
    if any(length != size for length in sizes[:-1]) or not 0 < sizes[-1] <= size:
        if len(parts) == size:
            return "makes size parts; make parts of that size"
        return f"makes parts of {sizes}; all but the last must be {size} long, and the last not longer"
    return None
