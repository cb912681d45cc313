"""Checkers for the exercises of the chapter "Actor and critic"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_gae", "check_td_errors"]


def check_td_errors(td_errors: Callable) -> Check:
    """Check the temporal-difference errors of a rollout. Book: eq-td-error. Sutton & Barto (2018), eq. 6.5.

    Args:
        td_errors: ``(rewards, values, next_values, terminated, truncated, gamma) -> errors``, all of them
            NumPy arrays ``[T, N]``, the two ends of type bool, but for γ. ``next_values`` belong to the state
            that truly followed, before any reset.

    Raises:
        TypeError: it is not a function.
    """
    return check(td_errors, _td_errors, lambda rng: _draw_rollout(rng)[:-1], _TD_MISTAKES)


def check_gae(gae: Callable) -> Check:
    """Check generalised advantage estimation. Book: eq-gae. Schulman et al. (2016), eq. 16.

    Args:
        gae: ``(rewards, values, next_values, terminated, truncated, gamma, gae_lambda) -> advantages``,
            arrays as for ``check_td_errors``.

    Raises:
        TypeError: it is not a function.
    """
    return check(gae, _gae, _draw_rollout, _GAE_MISTAKES)


def _draw_rollout(rng: np.random.Generator) -> tuple:
    """Values of a next state are those of the next row, but where an episode ended."""
    shape = steps, num_envs = int(rng.integers(8, 13)), int(rng.integers(2, 5))
    rewards, values, next_values = (rng.normal(size=shape) for _ in range(3))
    ends = np.zeros(shape, dtype=int)  # 1 terminated, 2 truncated
    for column in range(num_envs):
        first, second = rng.choice(steps - 2, size=2, replace=False)  # each column has both, before the end
        ends[first, column], ends[second, column] = 1, 2
        ends[-1, column] = rng.integers(3)
    goes_on = ends[:-1] == 0
    next_values[:-1][goes_on] = values[1:][goes_on]
    gamma, gae_lambda = float(rng.uniform(0.6, 0.95)), float(rng.uniform(0.5, 0.9))
    return rewards, values, next_values, ends == 1, ends == 2, gamma, gae_lambda


# --- temporal-difference errors ---


def _td_errors(rewards, values, next_values, terminated, truncated, gamma):
    return rewards + gamma * next_values * ~terminated - values


def _from_next_row(values, next_values):
    return np.concatenate([values[1:], next_values[-1:]])


_TRUNCATION_IS_NO_END = (
    "treats a truncation as a termination; the task would have gone on, so the value of the next state counts"
)
_NOTHING_FOLLOWS = (
    "bootstraps after a termination; nothing can follow it, so the next value counts as 0 there"
)
_ONE_FOR_ALL = (
    "an end in one environment counts in all of them; each column is an environment of its own, "
    "so .any() over a row is too much"
)
_NONE_AT_TERMINATIONS = (
    "has an error of 0 at terminations; that step was paid, and compared with what was expected"
)
_NONE_AT_TRUNCATIONS = (
    "has an error of 0 at truncations; that step counts like any other, with its reward and its next value"
)
_NONE_AT_ENDS = (
    "has an error of 0 at the ends of episodes, of either kind; the last step has a surprise like any other"
)

_TD_MISTAKES: Mistakes = {
    _TRUNCATION_IS_NO_END: lambda r, v, n, te, tr, g: r + g * n * ~(te | tr) - v,
    _NOTHING_FOLLOWS: lambda r, v, n, te, tr, g: r + g * n - v,
    "has the two ends the wrong way round: it drops the next value at truncations, not at terminations": (
        lambda r, v, n, te, tr, g: r + g * n * ~tr - v
    ),
    "uses the terminated flag the wrong way round: it looks ahead only where the episode is over": (
        lambda r, v, n, te, tr, g: r + g * n * te - v
    ),
    "the value of the next state is not discounted; where does γ belong?": (
        lambda r, v, n, te, tr, g: r + n * ~te - v
    ),
    "γ multiplies the reward too; the reward is earned now": (
        lambda r, v, n, te, tr, g: g * (r + n * ~te) - v
    ),
    "γ multiplies the value of the present state too": lambda r, v, n, te, tr, g: r + g * (n * ~te - v),
    "adds the value of the present state; it is what was expected, and what came is compared with it": (
        lambda r, v, n, te, tr, g: r + g * n * ~te + v
    ),
    "leaves out the value of the present state: that is the target, not yet the error": (
        lambda r, v, n, te, tr, g: r + g * n * ~te
    ),
    "leaves out the rewards": lambda r, v, n, te, tr, g: g * n * ~te - v,
    "loses the reward of the step that terminates; that step was still paid": (
        lambda r, v, n, te, tr, g: ~te * (r + g * n) - v
    ),
    "drops the present value at a termination; only what comes after the end is 0": (
        lambda r, v, n, te, tr, g: r + ~te * (g * n - v)
    ),
    _ONE_FOR_ALL: lambda r, v, n, te, tr, g: r + g * n * ~te.any(axis=1, keepdims=True) - v,
    _NONE_AT_TERMINATIONS: lambda r, v, n, te, tr, g: ~te * (r + g * n - v),
    _NONE_AT_TRUNCATIONS: lambda r, v, n, te, tr, g: ~tr * _td_errors(r, v, n, te, tr, g),
    _NONE_AT_ENDS: lambda r, v, n, te, tr, g: ~(te | tr) * (r + g * n - v),
    "takes the value in the next row for that of the next state; after a truncation that row is another "
    "episode's": lambda r, v, n, te, tr, g: r + g * _from_next_row(v, n) * ~te - v,
}


# --- generalised advantage estimation ---


def _backwards(deltas, decay, running=0.0):
    advantages = np.empty_like(deltas)
    for t in reversed(range(len(deltas))):
        running = deltas[t] + decay[t] * running
        advantages[t] = running
    return advantages


def _forwards(deltas, decay):
    return _backwards(deltas[::-1], np.concatenate([decay[:1], decay[:-1]])[::-1])[::-1]


def _gae(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    deltas = _td_errors(rewards, values, next_values, terminated, truncated, gamma)
    return _backwards(deltas, gamma * gae_lambda * ~(terminated | truncated))


def _decayed(decay: Callable) -> Callable:
    """GAE with right temporal-difference errors and another decay, of (terminated, truncated, γ, λ)."""
    return lambda r, v, n, te, tr, g, lam: _backwards(
        _td_errors(r, v, n, te, tr, g), decay(te, tr, g, lam) * np.ones(r.shape)
    )


def _errors(errors: Callable) -> Callable:
    """GAE with the right decay and other errors, of (rewards, values, next values, both ends, γ, λ)."""
    return lambda r, v, n, te, tr, g, lam: _backwards(errors(r, v, n, te, tr, g, lam), g * lam * ~(te | tr))


_GAE_MISTAKES: Mistakes = {
    "leaks across the ends of episodes: what another episode earned must not reach this one": (
        _decayed(lambda te, tr, g, lam: g * lam)
    ),
    "leaks across truncations: the value of the next state counts there, but the rows that follow belong to "
    "another episode": _decayed(lambda te, tr, g, lam: g * lam * ~te),
    "leaks across terminations: the rows that follow belong to another episode": (
        _decayed(lambda te, tr, g, lam: g * lam * ~tr)
    ),
    _TRUNCATION_IS_NO_END: _errors(lambda r, v, n, te, tr, g, lam: r + g * n * ~(te | tr) - v),
    _NOTHING_FOLLOWS: _errors(lambda r, v, n, te, tr, g, lam: r + g * n - v),
    "runs forward in time: an advantage sums what comes after the action, not what came before": (
        lambda r, v, n, te, tr, g, lam: _forwards(_td_errors(r, v, n, te, tr, g), g * lam * ~(te | tr))
    ),
    "λ multiplies the rewards; inside a temporal-difference error there is no λ": (
        _errors(lambda r, v, n, te, tr, g, lam: lam * r + g * n * ~te - v)
    ),
    "λ multiplies the next values; inside a temporal-difference error there is no λ": (
        _errors(lambda r, v, n, te, tr, g, lam: r + g * lam * n * ~te - v)
    ),
    "γ is missing from the temporal-difference errors": (
        _errors(lambda r, v, n, te, tr, g, lam: r + n * ~te - v)
    ),
    "V(s_t) is added in the temporal-difference errors; what was expected is subtracted": (
        _errors(lambda r, v, n, te, tr, g, lam: r + g * n * ~te + v)
    ),
    "γ is missing from the weights of later errors; one that comes l steps later weighs (γλ)^l": (
        _decayed(lambda te, tr, g, lam: lam * ~(te | tr))
    ),
    "λ is missing from the weights of later errors; one that comes l steps later weighs (γλ)^l": (
        _decayed(lambda te, tr, g, lam: g * ~(te | tr))
    ),
    "returns the temporal-difference errors alone: that is λ = 0": (
        lambda r, v, n, te, tr, g, lam: _td_errors(r, v, n, te, tr, g)
    ),
    _ONE_FOR_ALL: _decayed(lambda te, tr, g, lam: g * lam * ~(te | tr).any(axis=1, keepdims=True)),
    _NONE_AT_TERMINATIONS: _errors(lambda r, v, n, te, tr, g, lam: ~te * (r + g * n - v)),
    _NONE_AT_TRUNCATIONS: _errors(lambda r, v, n, te, tr, g, lam: ~tr * _td_errors(r, v, n, te, tr, g)),
    _NONE_AT_ENDS: _errors(lambda r, v, n, te, tr, g, lam: ~(te | tr) * (r + g * n - v)),
    "starts with the value of the last next state; that value is in the last error already, and below the "
    "last row there is nothing to carry up": lambda r, v, n, te, tr, g, lam: _backwards(
        _td_errors(r, v, n, te, tr, g), g * lam * ~(te | tr), n[-1]
    ),
    "returns the targets of the critic; subtract V(s_t) to have advantages": (
        lambda r, v, n, te, tr, g, lam: _gae(r, v, n, te, tr, g, lam) + v
    ),
}
