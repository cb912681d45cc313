"""Checkers for the chapter *The agent and its environment*."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from policyopt.exercises.base import Check, Mistakes, check
from policyopt.returns import discounted_returns

__all__ = ["check_cut_returns", "check_returns"]


def check_returns(returns: Callable) -> Check:
    """Check ``returns(rewards, gamma)``: the return from each step of an episode that terminated.

    Args:
        returns: takes a list of T numbers and γ, gives T numbers.
    """
    return check(returns, terminated_returns, _draw, RETURN_MISTAKES)


def check_cut_returns(returns: Callable) -> Check:
    """Check ``returns(rewards, gamma, cut, estimate)``, which knows both ends.

    Args:
        returns: as in ``check_returns``; ``cut`` is true where the episode was truncated after the last
            reward, and ``estimate`` is then what is expected of the return from there on.
    """
    return check(returns, _cut_returns, _draw_cut, CUT_MISTAKES)


def _draw(rng: np.random.Generator) -> tuple[list[float], float]:
    return rng.normal(size=rng.integers(3, 8)).round(2).tolist(), float(rng.uniform(0.5, 0.95))


def terminated_returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """The return from each step of an episode that terminated."""
    return _cut_returns(rewards, gamma, cut=False, estimate=0.0)


def _weighted(weights: Callable) -> Callable:
    """Returns that weigh reward k of step t by ``weights(t, k, γ)``."""
    return lambda rewards, gamma: [
        sum(weights(t, k, gamma) * reward for k, reward in enumerate(rewards)) for t in range(len(rewards))
    ]


RETURN_MISTAKES: Mistakes = {
    "γ is missing: a later reward must count less": _weighted(lambda t, k, g: float(k >= t)),
    "it sums over the past: the return from step t begins with the reward of step t": _weighted(
        lambda t, k, g: g ** (t - k) * (k <= t)
    ),
    "each step has the return of the whole episode; it must begin with its own reward": _weighted(
        lambda t, k, g: g**k
    ),
    "it discounts from the start of the episode; from step t the reward of step t counts in full": _weighted(
        lambda t, k, g: g**k * (k >= t)
    ),
    "it begins one step too late: the reward of step t belongs to the return from step t": _weighted(
        lambda t, k, g: g ** (k - t - 1) * (k > t)
    ),
    "it discounts once too often: the reward of step t itself counts in full": _weighted(
        lambda t, k, g: g ** (k - t + 1) * (k >= t)
    ),
}


def _draw_cut(rng: np.random.Generator) -> tuple[list[float], float, bool, float]:
    return *_draw(rng), bool(rng.integers(2)), round(rng.normal(5), 2)


def _cut_returns(rewards: Sequence[float], gamma: float, cut: bool, estimate: float) -> list[float]:
    column = torch.tensor(list(rewards), dtype=torch.float64)[:, None]  # [T, 1]
    end = torch.zeros_like(column, dtype=torch.bool)
    end[-1] = True
    never = torch.zeros_like(end)
    ends = (never, end) if cut else (end, never)  # terminated, truncated
    return discounted_returns(column, torch.full_like(column, estimate), *ends, gamma).flatten().tolist()


CUT_MISTAKES: Mistakes = {
    "a truncation is taken for a termination: after a cut the estimate still counts": lambda r, g, cut, e: (
        _cut_returns(r, g, False, e)
    ),
    "a termination is taken for a truncation: after it nothing counts": lambda r, g, cut, e: _cut_returns(
        r, g, True, e
    ),
    "the two ends are mixed up": lambda r, g, cut, e: _cut_returns(r, g, not cut, e),
    "the estimate is not discounted: it is the return from one step later": lambda r, g, cut, e: _cut_returns(
        r, g, cut, e / g
    ),
    "the estimate takes the place of the last reward; both count": lambda r, g, cut, e: (
        _cut_returns([*r[:-1], 0.0], g, cut, e / g) if cut else _cut_returns(r, g, cut, e)
    ),
    **{
        words: lambda r, g, cut, e, mistake=mistake: [
            x + cut * g ** (len(r) - t) * e for t, x in enumerate(mistake(r, g))
        ]
        for words, mistake in RETURN_MISTAKES.items()
    },
}
