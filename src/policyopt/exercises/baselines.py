"""Checkers of the chapter "Baselines and advantages"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, check

__all__ = ["check_leave_one_out", "check_optimal_baseline"]


def check_leave_one_out(function: Callable) -> Check:
    """Check ``function(returns)``: each of n ≥ 2 returns less the mean of the n − 1 others, ``[n]``.

    Kool, van Hoof & Welling (2019).
    """

    def others(returns: np.ndarray) -> np.ndarray:
        return (returns.sum() - returns) / (len(returns) - 1)

    mistakes = {
        "it subtracts the mean of all returns; none may be part of its own baseline": lambda returns: (
            returns - returns.mean()
        ),
        "the sum over the others is divided by n; how many others are there?": lambda returns: (
            returns - (returns.sum() - returns) / len(returns)
        ),
        "it divides the sum of all returns by n − 1; the own return is still in that sum": lambda returns: (
            returns - returns.sum() / (len(returns) - 1)
        ),
        "it returns the baselines; subtract them from the returns": others,
        "the sign is turned round: a return above those of the others must get a positive weight": (
            lambda returns: others(returns) - returns
        ),
        "it also divides by the standard deviation; only a mean is to be subtracted": lambda returns: (
            (returns - others(returns)) / returns.std()
        ),
    }
    return check(
        function,
        lambda returns: returns - others(returns),
        lambda rng: (rng.normal(rng.normal(), 2, size=int(rng.integers(2, 8))),),
        mistakes,
    )


def check_optimal_baseline(function: Callable) -> Check:
    """Check ``function(scores, returns)``: the constant that gives the sampled gradient the least variance.

    Means over samples stand for expectations: ``scores`` are ∇ log π of n samples, ``[n, d]``, ``returns``
    theirs, ``[n]``; the answer is a number. Greensmith, Bartlett & Baxter (2004).
    """

    def squares(scores: np.ndarray) -> np.ndarray:
        return np.square(scores).sum(axis=1)

    def weighted(weights: np.ndarray, returns: np.ndarray) -> np.ndarray:
        return (weights * returns).sum() / weights.sum()

    def norms(scores: np.ndarray) -> np.ndarray:
        return np.sqrt(squares(scores))

    mistakes = {
        "it is the plain mean of the returns; long scores should count more": lambda scores, returns: (
            returns.mean()
        ),
        "it weighs by the length of the scores, not by its square": lambda scores, returns: weighted(
            norms(scores), returns
        ),
        "it weighs the returns, but does not divide by the sum (or the mean) of the weights": (
            lambda scores, returns: (squares(scores) * returns).mean()
        ),
        "it adds up the weighted returns, but does not divide by the sum of the weights": (
            lambda scores, returns: (squares(scores) * returns).sum()
        ),
        "it divides by the number of samples in one place and not in the other": lambda scores, returns: (
            (squares(scores) * returns).mean() / squares(scores).sum()
        ),
        "it adds up a score's components before squaring; square each first": lambda scores, returns: (
            weighted(np.square(scores.sum(axis=1)), returns)
        ),
        "it makes a baseline for each component and averages them; one number is wanted: add up the squared "
        "components of a score first, then weigh": lambda scores, returns: np.mean(
            returns @ np.square(scores) / np.square(scores).sum(axis=0)
        ),
        "it divides by the weights where it should multiply: long scores should count more": (
            lambda scores, returns: weighted(1 / squares(scores), returns)
        ),
    }

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        n, d = (int(size) for size in rng.integers((4, 2), (12, 5)))
        return rng.normal(size=(n, d)), rng.normal(rng.normal(), 3, size=n)

    return check(function, lambda scores, returns: weighted(squares(scores), returns), draw, mistakes)
