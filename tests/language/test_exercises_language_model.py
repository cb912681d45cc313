"""The checkers of the chapter "Teaching a language model to add": they pass what is right, and name what is
wrong.
"""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt.exercises import language_model as exercises
from policyopt.exercises.language_model import (
    check_addition_reward,
    check_informative_chance,
    check_output_log_probs,
    check_token_weights,
)
from policyopt.language.tasks import Addition, Problem
from policyopt.language.variants import per_output_mean


def library_log_probs(logits, tokens, mask, temperature):
    logits, tokens = torch.from_numpy(logits), torch.from_numpy(tokens)
    log_probs = torch.distributions.Categorical(logits=logits / temperature).log_prob(tokens)
    return torch.where(torch.from_numpy(mask), log_probs, 0.0).sum(dim=-1)


def loop_log_probs(logits, tokens, mask, temperature):
    totals = []
    for row, written, belongs in zip(logits, tokens, mask, strict=True):
        total = 0.0
        for values, token in zip(row[belongs], written[belongs], strict=True):
            weights = [math.exp(value / temperature) for value in values]
            total += math.log(weights[token] / sum(weights))
        totals.append(total)
    return totals


def library_weights(mask):
    return per_output_mean(torch.from_numpy(mask)[None], limit=99)[0]


def library_reward(prompt, output):
    first, second = map(int, prompt[:-1].split("+"))
    return Addition(num_problems=4, held_out=1).reward(Problem(prompt, str(first + second)), output)


def counted_chance(p, size):
    """Over all 2^G outcomes."""
    total = 0.0
    for outcome in range(2**size):
        right = outcome.bit_count()
        if 0 < right < size:
            total += p**right * (1 - p) ** (size - right)
    return total


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_output_log_probs, library_log_probs),
        (check_output_log_probs, loop_log_probs),
        (check_token_weights, library_weights),
        (check_addition_reward, library_reward),
        (check_informative_chance, counted_chance),
    ],
)
def test_right_answers_pass(checker, right):
    result = checker(right)
    assert result, result.message


def test_solutions_by_hand():
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]]))
    tokens, mask = np.array([[0, 1]]), np.array([[True, True]])
    assert exercises._log_probs(logits, tokens, mask, 1.0) == pytest.approx([math.log(0.4)])
    mask[0, 1] = False
    assert exercises._log_probs(logits, tokens, mask, 1.0) == pytest.approx([math.log(0.5)])
    # At temperature 0.5 probabilities are squared: 0.25 of 0.25 + 0.0625 + 0.0625.
    assert exercises._log_probs(logits, tokens, mask, 0.5) == pytest.approx([math.log(2 / 3)])
    mask = np.array([[True, True, False], [True, False, False]])
    assert exercises._weights(mask).tolist() == [[0.25, 0.25, 0.0], [0.5, 0.0, 0.0]]
    assert exercises._chance(0.5, 2) == 0.5
    assert exercises._chance(0.1, 3) == pytest.approx(1 - 0.001 - 0.729)
    cases = {"81": 1, " 81 ": 1, "081": 0, "+81": 0, "8 1": 0, "811": 0, "81=": 0, "": 0, "82": 0}
    assert {output: exercises._reward("23+58=", output) for output in cases} == cases


WRONG = [
    (check_output_log_probs, lambda x, o, m, t: exercises._log_probs(x, o, m | True, t), "after the end"),
    (check_output_log_probs, lambda x, o, m, t: exercises._log_probs(x, o, m, 1.0), "no account"),
    (check_output_log_probs, lambda x, o, m, t: exercises._log_probs(x / t, o, m, 1 / t), "no account"),
    (check_output_log_probs, lambda x, o, m, t: exercises._log_probs(x * t * t, o, m, t), "multiplies"),
    (
        check_output_log_probs,
        lambda x, o, m, t: loop_log_probs(x, o, m, 1.0) / np.float64(t),
        "after the softmax",
    ),
    (check_output_log_probs, lambda x, o, m, t: exercises._log_probs(x, o, m, t) / m.sum(1), "mean"),
    (check_output_log_probs, lambda x, o, m, t: np.exp(loop_log_probs(x, o, m, t)), "their logarithms"),
    (check_output_log_probs, lambda x, o, m, t: -library_log_probs(x, o, m, t), "never positive"),
    (check_output_log_probs, lambda x, o, m, t: exercises._log_probs(x, o, m, t)[:, None], "shape"),
    (check_token_weights, lambda m: np.tile(1 / (len(m) * m.sum(1)), (m.shape[1], 1)).T, "after the end"),
    (check_token_weights, lambda m: m / np.count_nonzero(m), "long output counts more"),
    (check_token_weights, lambda m: m / m.shape[0] / m.shape[1], "length of the row"),
    (check_token_weights, lambda m: m / m.sum(1, keepdims=True), "mean over the outputs"),
    (check_token_weights, lambda m: m.mean(), "a single number"),
    (check_token_weights, lambda m: m / m.sum(1)[:, None] / len(m[0]), "T where G belongs"),
    (check_output_log_probs, lambda x, o, m, t: library_log_probs(x, o, m, t) / o.shape[1], "divides by T"),
    (
        check_addition_reward,
        lambda q, o: o.strip().isdigit() and int(o) == exercises._sum_of(q),
        "takes 081",
    ),
    (check_addition_reward, lambda q, o: o.lstrip() == str(exercises._sum_of(q)), "spaces after the sum"),
    (check_addition_reward, lambda q, o: o.rstrip() == str(exercises._sum_of(q)), "spaces before the sum"),
    (check_addition_reward, lambda q, o: float(o == str(exercises._sum_of(q))), "forgive"),
    (check_addition_reward, lambda q, o: str(exercises._sum_of(q)) in o, "somewhere"),
    (
        check_addition_reward,
        lambda q, o: exercises._sum_of(q) % 10 == int(o.strip()[-1:] or 0),
        "raised ValueError",
    ),
    (check_addition_reward, lambda q, o: o.strip()[-1:] == str(exercises._sum_of(q))[-1], "last digit"),
    (check_addition_reward, lambda q, o: o == exercises._sum_of(q), "what type"),
    (check_addition_reward, lambda q, o: int(o) == exercises._sum_of(q), "raised ValueError"),
    (
        check_addition_reward,
        lambda q, o: exercises._read_as_number(o) == exercises._sum_of(q),
        "reads the output",
    ),
    (check_informative_chance, lambda p, size: 1 - (1 - p) ** size, "all are right"),
    (check_informative_chance, lambda p, size: 1 - p**size, "all are wrong"),
    (check_informative_chance, lambda p, size: 1 - counted_chance(p, size), "opposite"),
    (check_informative_chance, lambda p, size: p * (1 - p) + (1 - p) * p, "group of two"),
    (check_informative_chance, lambda p, size: 1 - p**size + (1 - p) ** size, "a sign wrong"),
    (check_informative_chance, lambda p, size: 1 - (p - p * p) ** size, "product of two"),
]


@pytest.mark.parametrize(("checker", "wrong", "words"), WRONG)
def test_wrong_answers_are_named(checker, wrong, words):
    result = checker(wrong)
    assert not result
    assert words in result.message


ALL = {
    "log_probs": (exercises._LOG_PROB_MISTAKES, exercises._log_probs, exercises._draw_logits),
    "weights": (exercises._WEIGHT_MISTAKES, exercises._weights, lambda rng: (exercises._draw_mask(rng),)),
    "chance": (exercises._CHANCE_MISTAKES, exercises._chance, exercises._draw_chance),
}


def answers(function, cases):
    return [np.asarray(function(*case), dtype=float).flatten() for case in cases]


def differ(one, other):
    return any(
        a.shape != b.shape or not np.allclose(a, b, 1e-4, 1e-4) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", ALL)
def test_no_two_mistakes_are_alike_and_none_is_right(name):
    mistakes, solution, draw = ALL[name]
    rng = np.random.default_rng(1)
    cases = [draw(rng) for _ in range(20)]
    found = {"the solution": answers(solution, cases)}
    found |= {words: answers(mistake, cases) for words, mistake in mistakes.items()}
    alike = [pair for pair in combinations(found, 2) if not differ(found[pair[0]], found[pair[1]])]
    assert not alike


def test_no_two_rewards_are_alike_and_every_kind_of_output_is_drawn():
    rng = np.random.default_rng(2)
    cases = [exercises._draw_sum(rng, kind) for _ in range(3) for kind in exercises._OUTPUTS]
    assert len(exercises._OUTPUTS) * 3 <= 50  # each kind three times in a check
    found = {"the solution": [exercises._reward(*case) for case in cases]}
    found |= {words: [f(*case) for case in cases] for words, f in exercises._REWARD_MISTAKES.items()}
    assert not [pair for pair in combinations(found, 2) if found[pair[0]] == found[pair[1]]]
    right = {kind for kind in exercises._OUTPUTS if exercises._reward(*exercises._draw_sum(rng, kind))}
    assert right == {"right", "right again", "right once more", "spaces before", "a space after"}


@pytest.mark.parametrize(
    "checker",
    [check_output_log_probs, check_token_weights, check_addition_reward, check_informative_chance],
)
def test_no_function(checker):
    with pytest.raises(TypeError, match="give the function itself"):
        checker(1.0)
