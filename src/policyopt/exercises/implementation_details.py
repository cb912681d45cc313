"""Checkers for the exercises of the chapter "Implementation details"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = [
    "check_clipped_value_loss",
    "check_normalized_minibatches",
    "check_orthogonal_weights",
    "check_update_statistics",
]


def check_clipped_value_loss(loss: Callable) -> Check:
    """Check the clipped value loss. Book: eq-clipped-value-loss. Engstrom et al. (2020), section 3.

    Args:
        loss: ``(values, old_values, returns, clip) -> losses``, NumPy arrays ``[B]``, but for c.

    Raises:
        TypeError: it is not a function.
    """
    return check(loss, _clipped_value_loss, _draw_values, _CLIP_MISTAKES)


def check_update_statistics(update: Callable) -> Check:
    """Check the running mean and variance of observations. Book: eq-implementation-details-running. Chan et
    al. (1983).

    Args:
        update: ``(mean, variance, count, batch) -> updated``: mean and variance ``[D]`` of the ``count``
            observations so far, a batch ``[B, D]`` of new ones; the result ``[2, D]`` has the mean and the
            variance of all of them, without Bessel's correction.

    Raises:
        TypeError: it is not a function.
    """
    return check(update, _update_statistics, _draw_statistics, _STATISTICS_MISTAKES)


def check_normalized_minibatches(normalized: Callable) -> Check:
    """Check advantages that are normalised in each minibatch.

    Args:
        normalized: ``(advantages [B], size) -> advantages [B]``: each stretch of ``size`` is a minibatch, the
            last may be shorter. Standard deviations have Bessel's correction; a minibatch of one advantage
            stays as it is.

    Raises:
        TypeError: it is not a function.
    """
    return check(normalized, _normalized_minibatches, _draw_advantages, _MINIBATCH_MISTAKES, tolerance=1e-4)


def check_orthogonal_weights(make: Callable) -> Check:
    """Check orthogonal weights made of Gaussian ones. Saxe et al. (2014).

    Args:
        make: ``(gaussian [outputs, inputs], gain) -> weights [outputs, inputs]``: the Q of the
            QR decomposition of the matrix, or of its transpose where it is wider than high; its columns have
            the signs of the diagonal of R; times the gain.

    Raises:
        TypeError: it is not a function.
    """
    return check(make, _orthogonal_weights, _draw_gaussian, _ORTHOGONAL_MISTAKES)


# --- the clipped value loss ---


def _draw_values(rng: np.random.Generator) -> tuple:
    size, clip = int(rng.integers(8, 20)), float(rng.uniform(0.1, 0.5))
    old_values, returns = rng.normal(scale=2.0, size=size), rng.normal(scale=2.0, size=size)
    return old_values + rng.normal(scale=2 * clip, size=size), old_values, returns, clip


def _clipped_value_loss(values, old_values, returns, clip):
    nearby = np.clip(values, old_values - clip, old_values + clip)
    return np.maximum((values - returns) ** 2, (nearby - returns) ** 2)


def _within(values, middle, reach):
    return np.clip(values, middle - reach, middle + reach)


def _of_ratio(values, old_values, returns, clip):
    ends = np.sort([(1 - clip) * old_values, (1 + clip) * old_values], axis=0)
    return np.maximum((values - returns) ** 2, (np.clip(values, *ends) - returns) ** 2)


_CLIP_MISTAKES: Mistakes = {
    "takes the smaller of the two errors; the loss is to be the larger one, so that nothing is gained by "
    "moving on": lambda v, o, g, c: np.minimum((v - g) ** 2, (_within(v, o, c) - g) ** 2),
    "is the plain squared error: nothing is clipped, or around the returns, which comes to the same": (
        lambda v, o, g, c: (v - g) ** 2
    ),
    "uses the clipped value alone; a value that has moved away from its return by more than c then has no "
    "gradient to bring it back": lambda v, o, g, c: (_within(v, o, c) - g) ** 2,
    "clips to the range from −c to c; the range lies around the old value": (
        lambda v, o, g, c: np.maximum((v - g) ** 2, (_within(v, 0.0, c) - g) ** 2)
    ),
    "clips the step alone; add the old value, from which the step was taken": (
        lambda v, o, g, c: np.maximum((v - g) ** 2, (_within(v - o, 0.0, c) - g) ** 2)
    ),
    "clips only upwards; a value may leave the old one by c in both directions": (
        lambda v, o, g, c: np.maximum((v - g) ** 2, (np.minimum(v, o + c) - g) ** 2)
    ),
    "clips only downwards; a value may leave the old one by c in both directions": (
        lambda v, o, g, c: np.maximum((v - g) ** 2, (np.maximum(v, o - c) - g) ** 2)
    ),
    "clips the old value instead of the new one": (
        lambda v, o, g, c: np.maximum((v - g) ** 2, (_within(o, v, c) - g) ** 2)
    ),
    "clips as the policy's ratio is clipped, between 1 − c and 1 + c times the old value; here c is a "
    "distance": _of_ratio,
    "does not square the errors": lambda v, o, g, c: np.sqrt(_clipped_value_loss(v, o, g, c)),
    "has a factor of 1/2, which the equation does not have": (
        lambda v, o, g, c: _clipped_value_loss(v, o, g, c) / 2
    ),
    "adds the two errors; the loss is the larger of them": (
        lambda v, o, g, c: (v - g) ** 2 + (_within(v, o, c) - g) ** 2
    ),
}


# --- running statistics ---


def _draw_statistics(rng: np.random.Generator) -> tuple:
    width, size = int(rng.integers(2, 5)), int(rng.integers(3, 9))
    count = int(rng.integers(2, 30))
    if count == size:
        count += 1
    mean, variance = rng.normal(scale=3.0, size=width), rng.uniform(0.5, 4.0, size=width)
    return mean, variance, count, rng.normal(rng.normal(scale=3.0, size=width), 1.5, size=(size, width))


def _update_statistics(mean, variance, count, batch):
    return _merged(mean, variance, count, batch)


def _merged(mean, variance, count, batch, *, ddof=0, apart=None):
    """``apart`` is by how much the means' distance raises the variance, of (distance, count, B)."""
    size = len(batch)
    total, distance = count + size, batch.mean(axis=0) - mean
    between = distance**2 * count * size / total**2 if apart is None else apart(distance, count, size)
    within = (count * variance + size * batch.var(axis=0, ddof=ddof)) / total
    return np.stack([mean + distance * size / total, within + between])


def _with_new_mean(mean, variance, count, batch):
    """The distance is taken from the mean that has been updated already."""
    left = count / (count + len(batch))  # of the distance
    return _merged(mean, variance, count, batch, apart=lambda d, n, b: (d * left) ** 2 * n * b / (n + b) ** 2)


def _half_and_half(mean, variance, count, batch):
    return np.stack([(mean + batch.mean(axis=0)) / 2, (variance + batch.var(axis=0)) / 2])


def _one_for_all(mean, variance, count, batch):
    return _merged(mean, variance, count, np.broadcast_to(batch.reshape(-1, 1), (batch.size, len(mean))))


_STATISTICS_MISTAKES: Mistakes = {
    "the variance leaves out that the two means differ; two narrow heaps far from each other are wide "
    "together": lambda m, v, n, x: _merged(m, v, n, x, apart=lambda d, n, b: 0.0),
    "has the statistics of the batch alone; what was seen before counts, too": (
        lambda m, v, n, x: np.stack([x.mean(axis=0), x.var(axis=0)])
    ),
    "weighs the old statistics and the batch's alike; each counts by how many observations it is from": (
        _half_and_half
    ),
    "uses Bessel's correction for the batch": lambda m, v, n, x: _merged(m, v, n, x, ddof=1),
    "returns the standard deviation in place of the variance": (
        lambda m, v, n, x: _update_statistics(m, v, n, x) ** [[1.0], [0.5]]
    ),
    "adds the whole square of the distance between the means; it counts n B / (n + B)² times": (
        lambda m, v, n, x: _merged(m, v, n, x, apart=lambda d, n, b: d**2)
    ),
    "weighs the square of the distance by n B / (n + B); it is divided by n + B once more": (
        lambda m, v, n, x: _merged(m, v, n, x, apart=lambda d, n, b: d**2 * n * b / (n + b))
    ),
    "takes the distance from the mean that has been updated already; keep the old one until the variance is "
    "done": _with_new_mean,
    "is the mean square, not the variance: subtract the square of the new mean": (
        lambda m, v, n, x: (
            _update_statistics(m, v, n, x) + np.stack([0 * m, _update_statistics(m, v, n, x)[0] ** 2])
        )
    ),
    "has one mean for all components; each component of an observation has its own, so use axis=0": (
        _one_for_all
    ),
    "leaves the mean as it was": lambda m, v, n, x: np.stack([m, _update_statistics(m, v, n, x)[1]]),
    "leaves the variance as it was": lambda m, v, n, x: np.stack([_update_statistics(m, v, n, x)[0], v]),
    "has mean and variance the wrong way round": lambda m, v, n, x: _update_statistics(m, v, n, x)[::-1],
}


# --- advantages in minibatches ---


def _draw_advantages(rng: np.random.Generator) -> tuple:
    size, whole, rest = int(rng.integers(3, 7)), int(rng.integers(2, 5)), int(rng.integers(1, 3))
    middles = np.repeat(rng.normal(scale=3.0, size=whole + 1), size)
    return (middles + rng.normal(scale=2.0, size=len(middles)))[: whole * size + rest], size


def _in_parts(normalized: Callable) -> Callable:
    def of_batch(advantages, size):
        starts = range(0, len(advantages), size)
        return np.concatenate([normalized(advantages[start : start + size], advantages) for start in starts])

    return of_batch


def _standard(part, ddof=1):
    return part if len(part) < 2 else (part - part.mean()) / (part.std(ddof=ddof) + 1e-8)


_normalized_minibatches = _in_parts(lambda part, whole: _standard(part))


def _without_the_last(advantages, size):
    full = len(advantages) // size * size
    return np.concatenate([_normalized_minibatches(advantages[:full], size), advantages[full:]])


def _evenly(advantages, size):
    return np.concatenate(
        [_standard(part) for part in np.array_split(advantages, -(-len(advantages) // size))]
    )


_MINIBATCH_MISTAKES: Mistakes = {
    "normalises the whole batch at once; each minibatch is to have a mean and a deviation of its own": (
        lambda a, size: _standard(a)
    ),
    "subtracts the mean, but does not divide by the standard deviation": (
        _in_parts(lambda part, whole: part if len(part) < 2 else part - part.mean())
    ),
    "divides by the standard deviation, but does not subtract the mean": (
        _in_parts(lambda part, whole: part if len(part) < 2 else part / (part.std(ddof=1) + 1e-8))
    ),
    "leaves out Bessel's correction; NumPy's std needs ddof=1 for it": (
        _in_parts(lambda part, whole: _standard(part, ddof=0))
    ),
    "divides by the variance in place of the standard deviation": (
        _in_parts(lambda part, whole: part if len(part) < 2 else (part - part.mean()) / part.var(ddof=1))
    ),
    "leaves the last minibatch as it was where it is a smaller one": _without_the_last,
    "makes a minibatch of one advantage 0; alone it has nothing to be compared with, and stays as it is": (
        _in_parts(lambda part, whole: _standard(part) if len(part) > 1 else part - part.mean())
    ),
    "gives a minibatch of one advantage a deviation of NaN; leave a single advantage as it is": (
        _in_parts(lambda part, whole: _standard(part) if len(part) > 1 else part * np.nan)
    ),
    "cuts into minibatches of about the same size; they are stretches of exactly `size`, and the last may be "
    "shorter": _evenly,
    "subtracts the mean of the whole batch; each minibatch has its own": (
        _in_parts(
            lambda part, whole: part if len(part) < 2 else (part - whole.mean()) / (part.std(ddof=1) + 1e-8)
        )
    ),
}


# --- orthogonal weights ---


def _draw_gaussian(rng: np.random.Generator) -> tuple:
    outputs, inputs = rng.choice(np.arange(2, 8), size=2, replace=False)
    return rng.normal(size=(outputs, inputs)), float(rng.choice([0.01, 0.5, 2**0.5, 3.0]))


def _orthogonal(gaussian, signs=True):
    wide = gaussian.shape[0] < gaussian.shape[1]
    q, r = np.linalg.qr(gaussian.T if wide else gaussian)
    q = q * np.sign(np.diag(r)) if signs else q
    return q.T if wide else q


def _orthogonal_weights(gaussian, gain):
    return gain * _orthogonal(gaussian)


def _polar(gaussian):
    left, _, right = np.linalg.svd(gaussian, full_matrices=False)
    return left @ right


def _lengths(gaussian, axis):
    return gaussian / np.linalg.norm(gaussian, axis=axis, keepdims=True)


_ORTHOGONAL_MISTAKES: Mistakes = {
    "forgets the gain": lambda x, gain: _orthogonal(x),
    "has the square of the gain": lambda x, gain: gain**2 * _orthogonal(x),
    "divides by the gain": lambda x, gain: _orthogonal(x) / gain,
    "has columns that point the other way: multiply Q by the signs of the diagonal of R": (
        lambda x, gain: gain * _orthogonal(x, signs=False)
    ),
    "is orthogonal and has the gain, but is not what the QR decomposition gives": (
        lambda x, gain: gain * _polar(x)
    ),
    "has rows of the right length that are not orthogonal to each other": (
        lambda x, gain: gain * _lengths(x, 1)
    ),
    "has columns of the right length that are not orthogonal to each other": (
        lambda x, gain: gain * _lengths(x, 0)
    ),
    "only scales the Gaussian weights; they are not orthogonal": lambda x, gain: gain * x,
}
