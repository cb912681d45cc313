"""Checkers for the exercises of the chapter "Human feedback"."""

from collections.abc import Callable

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = ["check_best_of_n", "check_memory", "check_preference_loss", "check_token_rewards"]


def check_preference_loss(preference_loss: Callable) -> Check:
    """Check the loss of comparisons. Book: eq-bradley-terry-loss. Ouyang et al. (2022), eq. 1.

    Args:
        preference_loss: ``(chosen, rejected) -> losses``, NumPy arrays ``[N]``: the scores of the outputs
            that were preferred, and of the others. Scores may lie hundreds apart.

    Raises:
        TypeError: it is not a function.
    """
    return check(preference_loss, _loss, _draw_scores, _LOSS_MISTAKES)


def check_token_rewards(token_rewards: Callable) -> Check:
    """Check what each token of an output earns. Book: eq-token-rewards. Ouyang et al. (2022), eq. 2.

    Args:
        token_rewards: ``(rewards, log_probs, reference_log_probs, mask, kl_coef) -> earned``, NumPy arrays:
            ``rewards`` ``[N]``, one for each output; the others and the result ``[N, T]``. ``mask`` is of
            type bool, true for tokens that were written; the result is 0 everywhere else.

    Raises:
        TypeError: it is not a function.
    """
    return check(token_rewards, _earned, _draw_outputs, _EARNED_MISTAKES)


def check_memory(memory: Callable) -> Check:
    """Check the arithmetic of memory: bytes of the models of PPO or GRPO, their gradients and Adam's moments.

    Args:
        memory: ``(parameters, value_model, reference, reward_model, frozen_bytes) -> bytes``: the parameters
            of each model; whether there is a value model, a reference and a reward model, three bools; and
            the bytes that a frozen parameter takes. What is trained is in float32.

    Raises:
        TypeError: it is not a function.
    """
    return check(memory, _memory, _draw_models, _MEMORY_MISTAKES)


def check_best_of_n(best_of_n: Callable) -> Check:
    """Check what taste to expect of the output with the highest learned reward of n.

    Args:
        best_of_n: ``(rewards, tastes, n) -> taste``: NumPy arrays ``[N]`` with N a multiple of n, and n. The
            first n outputs are one choice, the next n another; the mean taste of the outputs chosen.

    Raises:
        TypeError: it is not a function.
    """
    return check(best_of_n, _best, _draw_choices, _BEST_MISTAKES)


# --- the loss of a comparison ---


def _draw_scores(rng: np.random.Generator) -> tuple:
    """Some pairs so far apart that an exponential of their distance overflows."""
    chosen, rejected = rng.normal(size=(2, 12))
    chosen[0] += 900.0
    rejected[1] += 900.0
    return chosen, rejected


def _loss(chosen, rejected):
    return np.logaddexp(chosen, rejected) - chosen


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def _naive(chosen, rejected):
    """log 0 where the wrong output has the far higher score."""
    with np.errstate(over="ignore", divide="ignore"):
        return -np.log(1 / (1 + np.exp(rejected - chosen)))


_OVERFLOWS = (
    "is right for small distances, but overflows where the scores lie hundreds apart; "
    "np.logaddexp(0, x) is log(1 + exp(x)) without that"
)

_LOSS_MISTAKES: Mistakes = {
    _OVERFLOWS: _naive,
    "prefers the rejected output: it is small where the rejected one has the higher score": (
        lambda c, r: _loss(r, c)
    ),
    "is the log-likelihood; a loss is to be minimised, so it needs a minus": lambda c, r: -_loss(c, r),
    "is the probability of the choice; its negated logarithm is asked for": lambda c, r: _sigmoid(c - r),
    "is 1 minus the probability of the choice, without a logarithm": lambda c, r: _sigmoid(r - c),
    "judges the chosen output alone; only the distance of the two scores means something": (
        lambda c, r: _loss(c, 0.0)
    ),
    "adds the scores; what counts is how far the one is above the other": lambda c, r: _loss(c, -r),
    "has a logarithm to the base 2; ours is the natural one": lambda c, r: _loss(c, r) / np.log(2),
    "is the distance of the scores itself; the loss is −log σ of it": lambda c, r: c - r,
    **{
        f"keeps the probability {word} for its logarithm; scores hundreds apart then lose their distance": cut
        for word, cut in {
            "above 10⁻⁸": lambda c, r: -np.log(np.maximum(_sigmoid(c - r), 1e-8)),
            "above 10⁻¹²": lambda c, r: -np.log(np.maximum(_sigmoid(c - r), 1e-12)),
        }.items()
    },
    "is the mean of all in every place; each pair has a loss of its own": (
        lambda c, r: np.full_like(c, _loss(c, r).mean())
    ),
}


# --- what tokens earn ---


def _draw_outputs(rng: np.random.Generator) -> tuple:
    """Outputs of several lengths; one fills the row, one has a single token. Padding holds anything."""
    size, longest = int(rng.integers(4, 7)), int(rng.integers(4, 7))
    lengths = np.concatenate([[longest, 1], rng.integers(2, longest + 1, size=size - 2)])
    mask = np.arange(longest) < rng.permutation(lengths)[:, None]
    log_probs, reference_log_probs = -rng.uniform(0.1, 3.0, size=(2, *mask.shape))
    return (
        rng.uniform(0.2, 1.0, size=size),
        log_probs,
        reference_log_probs,
        mask,
        float(rng.uniform(0.1, 0.5)),
    )


def _at_end(mask):
    """1 at the last token that was written."""
    return np.arange(mask.shape[1]) == mask.sum(axis=1, keepdims=True) - 1


def _earned(rewards, log_probs, reference_log_probs, mask, kl_coef):
    penalties = kl_coef * (log_probs - reference_log_probs) * mask
    return rewards[:, None] * _at_end(mask) - penalties


def _last_column(mask):
    return np.arange(mask.shape[1]) == mask.shape[1] - 1


def _placed(place: Callable) -> Callable:
    """Right penalties, and the reward at another place, of the mask."""
    return lambda r, p, q, m, b: r[:, None] * place(m) - b * (p - q) * m


def _paid(penalty: Callable) -> Callable:
    """The reward in the right place, and another penalty, of (log π, log π_ref, mask, β)."""
    return lambda r, p, q, m, b: r[:, None] * _at_end(m) - penalty(p, q, m, b)


_EARNED_MISTAKES: Mistakes = {
    "pays the reward in the last column, written or not; it belongs to the last token of each output": (
        _placed(_last_column)
    ),
    "pays the reward at every token; the output earns it once, at its last token": _placed(lambda m: m),
    "spreads the reward over the tokens; the output earns it at its last token": (
        _placed(lambda m: m / m.sum(axis=1, keepdims=True))
    ),
    "pays the reward at the first token; nobody can judge an output before its end": (
        _placed(lambda m: np.arange(m.shape[1]) == np.zeros((len(m), 1)))
    ),
    "pays the reward one place after the last token that was written": (
        _placed(lambda m: np.arange(m.shape[1]) == m.sum(axis=1, keepdims=True))
    ),
    "pays the reward one token too early": (
        _placed(lambda m: np.arange(m.shape[1]) == m.sum(axis=1, keepdims=True) - 2)
    ),
    "leaves out the reward": _placed(lambda m: 0.0),
    "leaves out the penalty": _paid(lambda p, q, m, b: 0.0),
    "pays for drifting: a token that is likelier than to the reference must lose by it": (
        _paid(lambda p, q, m, b: -b * (p - q) * m)
    ),
    "does not multiply the penalty by β": _paid(lambda p, q, m, b: (p - q) * m),
    "multiplies the reward by β too": lambda r, p, q, m, b: b * _earned(r, p, q, m, 1.0),
    "charges padding; nothing was written there": _paid(lambda p, q, m, b: b * (p - q)),
    "takes the penalty's absolute value; a token that is less likely than to the reference earns by it": (
        _paid(lambda p, q, m, b: b * np.abs(p - q) * m)
    ),
    "cuts the penalty off at 0; a token that is less likely than to the reference earns by it": (
        _paid(lambda p, q, m, b: b * np.maximum(p - q, 0.0) * m)
    ),
    "takes the ratio of the log-probabilities; their difference is asked for": (
        _paid(lambda p, q, m, b: b * p / q * m)
    ),
    "takes the difference of the probabilities; that of their logarithms is asked for": (
        _paid(lambda p, q, m, b: b * (np.exp(p) - np.exp(q)) * m)
    ),
    "takes the ratio of the probabilities; its logarithm is asked for": (
        _paid(lambda p, q, m, b: b * np.exp(p - q) * m)
    ),
    "charges the last token with the whole penalty; every token pays its own": (
        _paid(lambda p, q, m, b: b * ((p - q) * m).sum(axis=1, keepdims=True) * _at_end(m))
    ),
    "spares the last token its penalty; it earns the reward and pays like the others": (
        _paid(lambda p, q, m, b: b * (p - q) * (m & ~_at_end(m)))
    ),
}


# --- memory ---

_TRAINED = 16  # bytes: weight 4, gradient 4, Adam's two moments 8


def _draw_models(rng: np.random.Generator) -> tuple:
    there = (bool(rng.integers(2)) for _ in range(3))
    return int(rng.integers(1, 100)) * 1_000_000, *there, int(rng.choice([2, 4]))


def _memory(parameters, value_model, reference, reward_model, frozen_bytes):
    return parameters * (_TRAINED * (1 + value_model) + frozen_bytes * (reference + reward_model))


def _bytes(trained: float) -> Callable:
    """Another number of bytes for a trained parameter."""
    return lambda n, v, f, r, b: n * (trained * (1 + v) + b * (f + r))


_MEMORY_MISTAKES: Mistakes = {
    "forgets the value model": lambda n, v, f, r, b: _memory(n, False, f, r, b),
    "counts a value model where there is none": lambda n, v, f, r, b: _memory(n, True, f, r, b),
    "takes the value model for frozen; it is trained beside the policy": (
        lambda n, v, f, r, b: n * (_TRAINED + b * (v + f + r))
    ),
    "forgets the policy": lambda n, v, f, r, b: n * (_TRAINED * v + b * (f + r)),
    "forgets the reference": lambda n, v, f, r, b: _memory(n, v, False, r, b),
    "forgets the reward model": lambda n, v, f, r, b: _memory(n, v, f, False, b),
    "counts one frozen model where there are two": lambda n, v, f, r, b: _memory(n, v, f or r, False, b),
    "counts frozen models that are not there": lambda n, v, f, r, b: _memory(n, v, True, True, b),
    "takes the frozen models for trained; they have neither gradients nor moments": (
        lambda n, v, f, r, b: n * _TRAINED * (1 + v + f + r)
    ),
    "always takes 4 bytes for a frozen parameter": lambda n, v, f, r, b: _memory(n, v, f, r, 4),
    "takes 12 bytes for a trained parameter: gradients, or one of Adam's two moments, are missing": _bytes(
        12
    ),
    "takes 8 bytes for a trained parameter: Adam's two moments are missing": _bytes(8),
    "takes 4 bytes for a trained parameter: gradients and Adam's two moments are missing": _bytes(4),
    "counts in GB; bytes are asked for": lambda *models: _memory(*models) / 1e9,
    "counts numbers, not bytes: each trained one takes four": lambda n, v, f, r, b: n * (4 * (1 + v) + f + r),
}


# --- best of n ---


def _draw_choices(rng: np.random.Generator) -> tuple:
    n, groups = int(rng.integers(3, 6)), int(rng.integers(6, 9))  # never as many choices as outputs in each
    return rng.normal(size=n * groups), rng.uniform(size=n * groups), n


def _chosen(rewards, values, n, choose=np.argmax):
    rewards, values = rewards.reshape(-1, n), values.reshape(-1, n)
    return values[np.arange(len(values)), choose(rewards, axis=1)]


def _best(rewards, tastes, n):
    return _chosen(rewards, tastes, n).mean()


_BEST_MISTAKES: Mistakes = {
    "returns the mean reward of the outputs chosen; their taste is asked for": (
        lambda r, t, n: _chosen(r, r, n).mean()
    ),
    "chooses by the taste, which nobody sees; the choice is by the reward": (
        lambda r, t, n: _chosen(t, t, n).mean()
    ),
    "chooses the lowest reward": lambda r, t, n: _chosen(r, t, n, np.argmin).mean(),
    "chooses once among all outputs; every n of them are a choice of their own": lambda r, t, n: t[
        r.argmax()
    ],
    "chooses nothing: it is the mean of all tastes": lambda r, t, n: t.mean(),
    "looks at the first n outputs alone": lambda r, t, n: t[r[:n].argmax()],
    "puts outputs together that do not belong together: the first n are one choice, the next n another": (
        lambda r, t, n: _chosen(r.reshape(n, -1).T.ravel(), t.reshape(n, -1).T.ravel(), n).mean()
    ),
    "makes n choices; there are N/n of them, with n outputs each": (
        lambda r, t, n: _chosen(r, t, len(r) // n).mean()
    ),
    "takes the place within a choice for the place among all outputs": (
        lambda r, t, n: t[r.reshape(-1, n).argmax(axis=1)].mean()
    ),
    "takes every choice's place in every row; row i is to be asked for the place of choice i alone": (
        lambda r, t, n: t.reshape(-1, n)[:, r.reshape(-1, n).argmax(axis=1)].mean()
    ),
    "adds up the tastes; their mean is asked for": lambda r, t, n: _chosen(r, t, n).sum(),
}
