"""Checkers for the exercises of the chapter "Penalty and entropy"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_adaptive_beta", "check_entropy", "check_entropy_gradient", "check_gaussian_kl", "check_kl"]


def check_adaptive_beta(next_beta: Callable) -> Check:
    """Check the rule for β of PPO with an adaptive penalty. Book: eq-adaptive-kl. Schulman et al. (2017),
    section 4.

    Args:
        next_beta: ``(beta, kl, target) -> beta`` for the next update, all of them numbers, with the band from
            target / 1.5 to 1.5 target and the factor 2.

    Raises:
        TypeError: it is not a function.
    """
    return check(next_beta, _next_beta, _draw_update, _BETA_MISTAKES)


def check_entropy(entropy: Callable) -> Check:
    """Check the entropy of categorical distributions, in nats. Book: eq-penalty-and-entropy-entropy.

    Args:
        entropy: ``(probs) -> entropies``, from a NumPy array ``[B, A]`` whose rows add up to 1 to one of
            ``[B]``. Some of the probabilities are 0.

    Raises:
        TypeError: it is not a function.
    """
    return check(entropy, _entropy, _draw_probs, _ENTROPY_MISTAKES)


def check_kl(kl: Callable) -> Check:
    """Check the KL divergence KL(p ‖ q) of categorical distributions, in nats.

    Book: eq-penalty-and-entropy-kl.

    Args:
        kl: ``(p, q) -> divergences``, from two NumPy arrays ``[B, A]`` whose rows add up to 1 to one of
            ``[B]``. Some of p's probabilities are 0, none of q's.

    Raises:
        TypeError: it is not a function.
    """
    return check(kl, _kl, lambda rng: (*_draw_probs(rng, (6, 4)), rng.dirichlet(np.ones(4), 6)), _KL_MISTAKES)


def check_gaussian_kl(gaussian_kl: Callable) -> Check:
    """Check KL(p ‖ q) of normal distributions with independent components, in nats.

    Book: eq-penalty-and-entropy-gaussian.

    Args:
        gaussian_kl: ``(mean_p, std_p, mean_q, std_q) -> divergences``, from four NumPy arrays ``[B, D]`` to
            one of ``[B]``, the sum over the D components.

    Raises:
        TypeError: it is not a function.
    """
    return check(gaussian_kl, _gaussian_kl, _draw_gaussians, _GAUSSIAN_MISTAKES)


def check_entropy_gradient(entropy_gradient: Callable) -> Check:
    """Check the gradient of a softmax policy's entropy by its logits. Book: eq-penalty-and-entropy-gradient.

    Args:
        entropy_gradient: ``(logits) -> gradients``, both NumPy arrays ``[B, A]``, each row for itself.

    Raises:
        TypeError: it is not a function.
    """
    return check(
        entropy_gradient, _entropy_gradient, lambda rng: (rng.normal(size=(6, 4)),), _GRADIENT_MISTAKES
    )


# --- the rule for β ---


def _next_beta(beta, kl, target, band=1.5, factor=2.0):
    return beta / factor if kl < target / band else beta * factor if kl > target * band else beta


def _draw_update(rng: np.random.Generator) -> tuple:
    """An update whose KL is far below its target, near it on either side, or far above it."""
    target = float(np.exp(rng.uniform(np.log(0.003), np.log(0.03))))
    low, high = [(0.05, 0.45), (0.52, 0.65), (0.7, 0.98), (1.02, 1.45), (1.55, 1.9), (2.1, 20.0)][
        rng.integers(6)
    ]
    return float(np.exp(rng.uniform(-3, 3))), target * float(rng.uniform(low, high)), target


_BETA_MISTAKES: Mistakes = {
    "turns β the wrong way: after a step that went too far the penalty has to grow": (
        lambda b, k, t: _next_beta(1 / b, k, t) ** -1
    ),
    "changes β at every update; inside the band around the target it stays as it is": (
        lambda b, k, t: _next_beta(b, k, t, band=1.0)
    ),
    "never lowers β: after a step far below the target the penalty has to shrink": (
        lambda b, k, t: max(b, _next_beta(b, k, t))
    ),
    "never raises β: after a step far above the target the penalty has to grow": (
        lambda b, k, t: min(b, _next_beta(b, k, t))
    ),
    "has the two numbers the wrong way round: 1.5 says how wide the band is, 2 how far β moves": (
        lambda b, k, t: _next_beta(b, k, t, band=2.0, factor=1.5)
    ),
    "moves β by a factor of 1.5; that is how wide the band is": (
        lambda b, k, t: _next_beta(b, k, t, factor=1.5)
    ),
    "has a band from half the target to twice the target; 2 is how far β moves": (
        lambda b, k, t: _next_beta(b, k, t, band=2.0)
    ),
    "the lower edge of the band lies at the target itself; divide it by 1.5": (
        lambda b, k, t: b / 2 if k < t else _next_beta(b, k, t)
    ),
    "the upper edge of the band lies at the target itself; multiply it by 1.5": (
        lambda b, k, t: b * 2 if k > t else _next_beta(b, k, t)
    ),
    "multiplies the target by 1.5 at the lower edge of the band too; there it is divided by it": (
        lambda b, k, t: b / 2 if k < 1.5 * t else _next_beta(b, k, t)
    ),
    "scales β by the KL over its target; the rule only doubles, halves or keeps it": (
        lambda b, k, t: b * k / t
    ),
    "scales β by the root of the KL over its target; the rule only doubles, halves or keeps it": (
        lambda b, k, t: b * (k / t) ** 0.5
    ),
    "has a target of 0.01 built in; compare with the target that is given": (
        lambda b, k, t: _next_beta(b, k, 0.01)
    ),
    "the lower edge of the band lies at half the target; divide it by 1.5": (
        lambda b, k, t: b if t / 2 < k < t / 1.5 else _next_beta(b, k, t)
    ),
    "compares β with the band; what is compared with the target is the KL": (
        lambda b, k, t: b * _next_beta(1.0, b, t)
    ),
    "leaves β as it is in every case": lambda b, k, t: b,
}


# --- entropy ---


def _x_log(x, y):
    """x log y, which is 0 where x is."""
    with np.errstate(divide="ignore"):
        return x * np.log(np.where(x > 0, y, 1.0))


def _entropy(probs):
    return -_x_log(probs, probs).sum(axis=-1)


def _softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _draw_probs(rng: np.random.Generator, shape: tuple[int, int] | None = None) -> tuple:
    """Rows of probabilities, of which the first is sure of its action and the second rules one out."""
    rows, actions = shape or (int(rng.integers(3, 7)), int(rng.integers(3, 6)))
    probs = rng.dirichlet(np.ones(actions), rows)
    probs[0] = np.eye(actions)[rng.integers(actions)]
    probs[1, rng.integers(actions)] = 0.0
    probs[1] /= probs[1].sum()
    return (probs,)


def _nan_at_zero(function: Callable) -> Callable:
    def naive(*arguments):
        with np.errstate(divide="ignore", invalid="ignore"):
            return function(*arguments)

    return naive


_ZERO = "0 · log 0 came out as NaN; an action of probability 0 adds nothing to the sum"
_BITS = "is in bits; use the natural logarithm, which gives nats"

_ENTROPY_MISTAKES: Mistakes = {
    _ZERO: _nan_at_zero(lambda p: -(p * np.log(p)).sum(axis=-1)),
    _BITS: lambda p: _entropy(p) / np.log(2),
    "takes the mean over the actions; the probabilities are the weights already, so add up": (
        lambda p: _entropy(p) / p.shape[-1]
    ),
    "leaves out the weights: every −log π(a) counts π(a) times": (
        lambda p: -np.log(np.where(p > 0, p, 1.0)).sum(axis=-1)
    ),
    "takes the probabilities for logits; they add up to 1 already": lambda p: _entropy(_softmax(p)),
    "gives e to the power of the entropy, an effective number of actions": lambda p: np.exp(_entropy(p)),
    "gives the largest entropy that so many actions can have, whatever their probabilities": (
        lambda p: np.full(len(p), np.log(p.shape[-1]))
    ),
    "leaves out the logarithm": lambda p: 1 - (p**2).sum(axis=-1),
}


# --- KL divergences ---


def _kl(p, q):
    return (_x_log(p, p) - p * np.log(q)).sum(axis=-1)


_KL_MISTAKES: Mistakes = {
    "has p and q exchanged: the expectation is over p, the first of the two": _nan_at_zero(
        lambda p, q: (q * np.log(q / p)).sum(axis=-1)
    ),
    "has p and q exchanged; the expectation is over p, the first of the two": (
        lambda p, q: _x_log(q, q / np.where(p > 0, p, 1.0)).sum(axis=-1)
    ),
    _ZERO: _nan_at_zero(lambda p, q: (p * np.log(p / q)).sum(axis=-1)),
    _BITS: lambda p, q: _kl(p, q) / np.log(2),
    "is the cross-entropy −Σ p log q; subtract the entropy of p": lambda p, q: -(p * np.log(q)).sum(axis=-1),
    "takes the mean over the actions; the probabilities are the weights already, so add up": (
        lambda p, q: _kl(p, q) / p.shape[-1]
    ),
    "weighs log(p/q) with q; the expectation is over p": lambda p, q: np.where(
        p > 0, q * np.log(np.where(p > 0, p, 1.0) / q), 0.0
    ).sum(axis=-1),
    "adds up |log(p/q)|; the terms keep their signs": (
        lambda p, q: np.abs(_x_log(p, p) - p * np.log(q)).sum(axis=-1)
    ),
    "is the difference of the two entropies; both logarithms are weighted with p": (
        lambda p, q: _entropy(q) - _entropy(p)
    ),
    "is a sum of squared differences": lambda p, q: ((p - q) ** 2).sum(axis=-1),
}


def _draw_gaussians(rng: np.random.Generator) -> tuple:
    shape = int(rng.integers(3, 7)), int(rng.integers(2, 5))
    means, stds = rng.normal(size=(2, *shape)), np.exp(rng.uniform(-1, 1, size=(2, *shape)))
    return means[0], stds[0], means[1], stds[1]


def _gaussian_parts(m, s, n, u):
    """log of the ratio of widths, the ratio of variances, the squared distance of the means in units of q."""
    return np.log(u / s), (s / u) ** 2, ((m - n) / u) ** 2


def _gaussian_kl(m, s, n, u):
    log_widths, variances, distance = _gaussian_parts(m, s, n, u)
    return (log_widths + 0.5 * (variances + distance - 1)).sum(axis=-1)


def _gaussian(combine: Callable) -> Callable:
    """A sum over the components of another combination of the three parts."""
    return lambda *arguments: combine(*_gaussian_parts(*arguments)).sum(axis=-1)


_GAUSSIAN_MISTAKES: Mistakes = {
    "has p and q exchanged: the first pair belongs to p, over which the expectation is": (
        lambda m, s, n, u: _gaussian_kl(n, u, m, s)
    ),
    "is not 0 for two equal distributions; a ½ is missing": _gaussian(lambda w, v, d: w + 0.5 * (v + d)),
    "takes the last ½ off once; every component has its own": (
        lambda *arguments: _gaussian_kl(*arguments) + 0.5 * (arguments[0].shape[-1] - 1)
    ),
    "has the ratio of the widths upside down inside the logarithm": _gaussian(
        lambda w, v, d: -w + 0.5 * (v + d - 1)
    ),
    "leaves out the logarithm of the ratio of the widths": _gaussian(lambda w, v, d: 0.5 * (v + d - 1)),
    "leaves out the distance of the means": _gaussian(lambda w, v, d: w + 0.5 * (v - 1)),
    "leaves out the ratio of the variances": _gaussian(lambda w, v, d: w + 0.5 * (d - 1)),
    "takes standard deviations where variances belong": (
        lambda m, s, n, u: (np.log(u / s) + 0.5 * (s / u + (m - n) ** 2 / u - 1)).sum(axis=-1)
    ),
    "measures the distance of the means in widths of p; it counts in those of q": (
        lambda m, s, n, u: (np.log(u / s) + 0.5 * ((s / u) ** 2 + ((m - n) / s) ** 2 - 1)).sum(axis=-1)
    ),
    "does not square the distance of the means": (
        lambda m, s, n, u: (np.log(u / s) + 0.5 * ((s / u) ** 2 + (m - n) / u**2 - 1)).sum(axis=-1)
    ),
    "takes the mean over the components; independent components add up": (
        lambda m, s, n, u: _gaussian_kl(m, s, n, u) / m.shape[-1]
    ),
    "has no ½ in front of the variances and the means": _gaussian(lambda w, v, d: w + v + d - 1),
    "is twice as large as it should be": _gaussian(lambda w, v, d: 2 * w + v + d - 1),
}


# --- the gradient of the entropy ---


def _entropy_gradient(logits):
    return _gradient(lambda pi, log_pi, mean: pi * (-log_pi - mean))(logits)


def _gradient(combine: Callable) -> Callable:
    """A function of π, log π and the entropy, ``[B, A]``, ``[B, A]`` and ``[B, 1]``."""

    def of_logits(logits):
        pi = _softmax(logits)
        return combine(pi, np.log(pi), _entropy(pi)[:, None])

    return of_logits


_GRADIENT_MISTAKES: Mistakes = {
    "is the gradient by the probabilities; by the logits, an action's share is weighed with π(a), too": (
        _gradient(lambda pi, log_pi, mean: -log_pi - 1)
    ),
    "leaves out the factor π(a)": _gradient(lambda pi, log_pi, mean: -log_pi - mean),
    "leaves out the entropy: what counts is −log π(a) above its mean": (
        _gradient(lambda pi, log_pi, mean: -pi * log_pi)
    ),
    "holds the sum of the probabilities free: the components of a row should add up to 0": (
        _gradient(lambda pi, log_pi, mean: -pi * (log_pi + 1))
    ),
    "adds the entropy to −log π(a); it is the mean, which is subtracted": (
        _gradient(lambda pi, log_pi, mean: pi * (-log_pi + mean))
    ),
    "subtracts the plain mean of −log π over the actions; the mean that counts is under π": _gradient(
        lambda pi, log_pi, mean: pi * (-log_pi + log_pi.mean(axis=-1, keepdims=True))
    ),
    "mixes the rows: the entropy is that of each row, not their mean": (
        _gradient(lambda pi, log_pi, mean: pi * (-log_pi - mean.mean()))
    ),
    "takes e to the power of the logits for probabilities; divide by their sum over the row": (
        lambda x: np.exp(x) * (-x + (np.exp(x) * x).sum(axis=-1, keepdims=True))
    ),
    _BITS: _gradient(lambda pi, log_pi, mean: pi * (-log_pi - mean) / np.log(2)),
}
