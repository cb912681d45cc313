"""Checkers for the exercises of the chapter "Teaching a language model to add"."""

from collections.abc import Callable
from itertools import cycle

import numpy as np

from policyopt.exercises.base import Check, Mistakes, check

__all__ = [
    "check_addition_reward",
    "check_informative_chance",
    "check_output_log_probs",
    "check_token_weights",
]


def check_output_log_probs(output_log_probs: Callable) -> Check:
    """Check log π_θ(o | q) of a group's outputs. Book: eq-language-model-output.

    Args:
        output_log_probs: ``(logits, tokens, mask, temperature) -> log_probs``, NumPy arrays: ``logits``
            ``[G, T, V]``, of which entry t is what the model says of token t; ``tokens`` ``[G, T]``; ``mask``
            ``[G, T]`` of type bool, true for what belongs to an output; the result ``[G]``. Logits are
            divided by the temperature.

    Raises:
        TypeError: it is not a function.
    """
    return check(output_log_probs, _log_probs, _draw_logits, _LOG_PROB_MISTAKES)


def check_token_weights(token_weights: Callable) -> Check:
    """Check what a token counts in GRPO's objective. Book: eq-grpo-tokens. Shao et al. (2024), eq. 3.

    Args:
        token_weights: ``(mask) -> weights``, NumPy arrays ``[G, T]``: the mask of type bool, true for the
            tokens of a group's outputs, each of which has one at least.

    Raises:
        TypeError: it is not a function.
    """
    return check(token_weights, _weights, lambda rng: (_draw_mask(rng),), _WEIGHT_MISTAKES)


def check_addition_reward(addition_reward: Callable) -> Check:
    """Check a reward for sums, as of ``policyopt.language.tasks.Addition``.

    Args:
        addition_reward: ``(prompt, output) -> reward``, two texts to a number: 1 if the output is the sum
            that a prompt such as ``"23+58="`` asks for, written as Python writes a whole number, otherwise 0.
            Spaces before and after it do not count.

    Raises:
        TypeError: it is not a function.
    """
    kinds = cycle(_OUTPUTS)  # so that all of them come in every check
    return check(addition_reward, _reward, lambda rng: _draw_sum(rng, next(kinds)), _REWARD_MISTAKES)


def check_informative_chance(informative_chance: Callable) -> Check:
    """Check how likely the outputs of a group earn different rewards. Book: eq-language-model-informative.

    Args:
        informative_chance: ``(p, size) -> chance``: the probability p of a right output, in (0, 1), and G.
            The rewards are 0 and 1.

    Raises:
        TypeError: it is not a function.
    """
    return check(informative_chance, _chance, _draw_chance, _CHANCE_MISTAKES, tolerance=1e-7)


def _draw_mask(rng: np.random.Generator) -> np.ndarray:
    """Outputs of several lengths; one fills the row, one has a single token."""
    size, longest = int(rng.integers(4, 7)), int(rng.integers(4, 7))
    lengths = np.concatenate([[longest, 1], rng.integers(1, longest + 1, size=size - 2)])
    return np.arange(longest) < rng.permutation(lengths)[:, None]


# --- log-probabilities of outputs ---


def _draw_logits(rng: np.random.Generator) -> tuple:
    mask = _draw_mask(rng)
    vocabulary = int(rng.integers(8, 12))  # never as many as outputs or tokens
    logits = 2 * rng.normal(size=(*mask.shape, vocabulary))
    tokens = np.where(mask, rng.integers(1, vocabulary, size=mask.shape), 0)
    return logits, tokens, mask, float(rng.choice([0.5, 0.8, 1.5]))


def _log_softmax(logits, axis=-1):
    return logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True))


def _chosen(values, tokens):
    return np.take_along_axis(values, tokens[..., None], axis=-1)[..., 0]


def _log_probs(logits, tokens, mask, temperature):
    return (_chosen(_log_softmax(logits / temperature), tokens) * mask).sum(axis=1)


_LOG_PROB_MISTAKES: Mistakes = {
    "counts what stands after the end of an output; the mask says which tokens belong to it": (
        lambda x, o, m, t: _chosen(_log_softmax(x / t), o).sum(axis=1)
    ),
    "takes no account of the temperature; the logits are divided by it": (
        lambda x, o, m, t: _log_probs(x, o, m, 1.0)
    ),
    "multiplies the logits by the temperature; they are divided by it, so that a low one sharpens": (
        lambda x, o, m, t: _log_probs(x, o, m, 1 / t)
    ),
    "divides by the temperature after the softmax; what comes out is no distribution any more": (
        lambda x, o, m, t: _log_probs(x, o, m, 1.0) / t
    ),
    "adds up logits; they become log-probabilities by a softmax over the vocabulary": (
        lambda x, o, m, t: (_chosen(x / t, o) * m).sum(axis=1)
    ),
    "has a softmax over the tokens of an output; it goes over the vocabulary, the last axis": (
        lambda x, o, m, t: (_chosen(_log_softmax(x / t, axis=1), o) * m).sum(axis=1)
    ),
    "has a softmax over all logits of an output at once; every token has one of its own": (
        lambda x, o, m, t: (_chosen(_log_softmax(x / t, axis=(1, 2)), o) * m).sum(axis=1)
    ),
    "returns the mean over the tokens; the log-probability of an output is their sum": (
        lambda x, o, m, t: _log_probs(x, o, m, t) / m.sum(axis=1)
    ),
    "divides by T, the length of the row; the log-probability of an output is a sum": (
        lambda x, o, m, t: _log_probs(x, o, m, t) / m.shape[1]
    ),
    "returns probabilities; their logarithms are asked for": (
        lambda x, o, m, t: np.exp(_log_probs(x, o, m, t))
    ),
    "adds up probabilities; those of the tokens are multiplied, so their logarithms add up": (
        lambda x, o, m, t: (np.exp(_chosen(_log_softmax(x / t), o)) * m).sum(axis=1)
    ),
    "is off by one: the logits in row t speak of token t, not of the token after it": (
        lambda x, o, m, t: _log_probs(x[:, :-1], o[:, 1:], m[:, 1:], t)
    ),
    "is off by one: the logits in row t speak of token t, not of the token before it": (
        lambda x, o, m, t: _log_probs(x[:, 1:], o[:, :-1], m[:, :-1], t)
    ),
    "leaves out the last token of each output; the end token was chosen like any other": (
        lambda x, o, m, t: _log_probs(x, o, m & (np.arange(m.shape[1]) < m.sum(axis=1, keepdims=True) - 1), t)
    ),
    "takes the likeliest token instead of the one that was written": (
        lambda x, o, m, t: _log_probs(x, x.argmax(axis=-1), m, t)
    ),
    "has the sign turned: the logarithm of a probability is never positive": (
        lambda x, o, m, t: -_log_probs(x, o, m, t)
    ),
}


# --- weights of tokens ---


def _weights(mask):
    return mask / (mask.sum(axis=1, keepdims=True) * len(mask))


_WEIGHT_MISTAKES: Mistakes = {
    "gives weight to what stands after the end of an output": (
        lambda m: np.ones(m.shape) / (m.sum(axis=1, keepdims=True) * len(m))
    ),
    "is the mean over all tokens of the group, in which a long output counts more; here every output counts "
    "the same": lambda m: m / m.sum(),
    "divides by T, the length of the row; each output has a length of its own": lambda m: m / m.size,
    "divides by T where G belongs; the mean over the outputs is one over their number": (
        lambda m: m / (m.sum(axis=1, keepdims=True) * m.shape[1])
    ),
    "leaves out the mean over the outputs: all weights together make 1": (
        lambda m: m / m.sum(axis=1, keepdims=True)
    ),
    "leaves out the mean over an output's tokens: all weights together make 1": lambda m: m / len(m),
    "counts outputs where it should count tokens: |o_i| is the sum over a row of the mask": (
        lambda m: m / (np.maximum(m.sum(axis=0, keepdims=True), 1) * m.shape[1])
    ),
    "returns the mask; each output's tokens share the weight 1/G": lambda m: 1.0 * m,
    "divides by |o_i| twice": lambda m: m / (m.sum(axis=1, keepdims=True) ** 2 * len(m)),
}


# --- a reward for sums ---

_OUTPUTS: dict[str, Callable[[int, np.random.Generator], str]] = {
    "right": lambda total, rng: str(total),
    "spaces before": lambda total, rng: f"  {total}",
    "off by a little": lambda total, rng: str(total + int(rng.choice([-2, -1, 1, 2]))),
    "right again": lambda total, rng: str(total),
    "a space after": lambda total, rng: f"{total} ",
    "off by a ten": lambda total, rng: str(total + 10 * int(rng.choice([-1, 1, 2]))),
    "more after it": lambda total, rng: f"{total}{rng.integers(10)}",
    "more before it": lambda total, rng: f"{rng.integers(1, 10)}{total}",
    "a zero before": lambda total, rng: f"0{total}",
    "a sign before": lambda total, rng: f"+{total}",
    "a space inside": lambda total, rng: f"{str(total)[0]} {str(total)[1:]}",
    "nothing": lambda total, rng: "",
    "no number": lambda total, rng: f"{str(total)[0]}+{str(total)[1:]}=",
    "right once more": lambda total, rng: str(total),
    "the first digit": lambda total, rng: str(total)[:1],
    "an equals sign": lambda total, rng: f"={total}",
}


def _draw_sum(rng: np.random.Generator, kind: str) -> tuple[str, str]:
    first, second = (int(number) for number in rng.integers(11, 100, size=2))
    return f"{first}+{second}=", _OUTPUTS[kind](first + second, rng)


def _sum_of(prompt):
    first, second = prompt.removesuffix("=").split("+")
    return int(first) + int(second)


def _reward(prompt, output):
    return float(output.strip() == str(_sum_of(prompt)))


def _read_as_number(output):
    try:
        return int(output)
    except ValueError:
        return None


_REWARD_MISTAKES: Mistakes = {
    "reads the output as a number, and so takes +81 and 081 for 81; compare texts": (
        lambda q, o: float(_read_as_number(o) == _sum_of(q))
    ),
    "reads the digits as a number, and so takes 081 for 81; compare texts": (
        lambda q, o: float(o.strip().isdigit() and _read_as_number(o) == _sum_of(q))
    ),
    "does not forgive spaces after the sum": lambda q, o: float(o.lstrip() == str(_sum_of(q))),
    "does not forgive spaces before the sum": lambda q, o: float(o.rstrip() == str(_sum_of(q))),
    "does not forgive spaces before or after the sum": lambda q, o: float(o == str(_sum_of(q))),
    "forgives spaces inside the output; only those before and after it do not count": (
        lambda q, o: float(o.replace(" ", "") == str(_sum_of(q)))
    ),
    "is content if the sum stands somewhere in the output; a model would learn to write more": (
        lambda q, o: float(str(_sum_of(q)) in o)
    ),
    "is content if the output begins with the sum; what follows it counts too": (
        lambda q, o: float(o.strip().startswith(str(_sum_of(q))))
    ),
    "is content if the output ends with the sum; what comes before it counts too": (
        lambda q, o: float(o.strip().endswith(str(_sum_of(q))))
    ),
    "looks at the last digit alone; a model would learn that digit and no more": (
        lambda q, o: float(o.strip()[-1:] == str(_sum_of(q))[-1])
    ),
    "looks at the first digit alone; a model would learn that digit and no more": (
        lambda q, o: float(o.strip()[:1] == str(_sum_of(q))[0])
    ),
    "looks at the length alone": lambda q, o: float(len(o.strip()) == len(str(_sum_of(q)))),
    "gives −1 where the answer is wrong; 0 was asked for": lambda q, o: 2 * _reward(q, o) - 1,
    "is the wrong way round: 1 for what is wrong": lambda q, o: 1 - _reward(q, o),
    "gives the same reward to all outputs": lambda q, o: 1.0,
    "gives nothing to any output; what type do you compare with what?": lambda q, o: 0.0,
}


# --- chance of an informative group ---


def _draw_chance(rng: np.random.Generator) -> tuple[float, int]:
    return float(rng.uniform(0.15, 0.45) + rng.choice([0.0, 0.4])), int(rng.integers(3, 9))


def _chance(p, size):
    return 1 - p**size - (1 - p) ** size


_CHANCE_MISTAKES: Mistakes = {
    "forgets the groups in which all are right; they have no advantage either": (
        lambda p, size: 1 - (1 - p) ** size
    ),
    "forgets the groups in which all are wrong; they have no advantage either": lambda p, size: 1 - p**size,
    "is the chance of the opposite, that all rewards are equal": (lambda p, size: p**size + (1 - p) ** size),
    "is the chance that all are wrong": lambda p, size: (1 - p) ** size,
    "is the chance that all are right": lambda p, size: p**size,
    "is the chance that exactly one is right": lambda p, size: size * p * (1 - p) ** (size - 1),
    "is the chance for a group of two, whatever G is": lambda p, size: 2 * p * (1 - p),
    "has the exponent G − 1; all G outputs are drawn anew": lambda p, size: _chance(p, size - 1),
    "multiplies where it should raise to a power: G outputs are right together with the probability p^G": (
        lambda p, size: 1 - p * size - (1 - p) * size
    ),
    "has a sign wrong: both kinds of group are taken away from 1": (
        lambda p, size: 1 - p**size + (1 - p) ** size
    ),
    "takes away the product of two chances; it is their sum that must go": (
        lambda p, size: 1 - p**size * (1 - p) ** size
    ),
    "multiplies two chances; that all are right and that all are wrong exclude each other": (
        lambda p, size: (1 - p**size) * (1 - (1 - p) ** size)
    ),
}
