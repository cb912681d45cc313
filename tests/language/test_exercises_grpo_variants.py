"""The checkers of the chapter "Variants of GRPO": they pass what is right, and name what is wrong."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from policyopt import losses
from policyopt.exercises import grpo_variants as exercises
from policyopt.exercises.grpo_variants import check_dapo_loss, check_kl_factors, check_sequence_ratio
from policyopt.language import variants

CHECKERS = {
    check_kl_factors: (exercises._kl_factors, exercises._draw_log_probs, exercises._FACTOR_MISTAKES),
    check_dapo_loss: (exercises._dapo_loss, exercises._draw_group, exercises._DAPO_MISTAKES),
    check_sequence_ratio: (exercises._sequence_ratio, exercises._draw_tokens, exercises._RATIO_MISTAKES),
}


def factors_by_autograd(log_policy, log_reference):
    """The library's estimators, differentiated by log π_θ."""
    rows = []
    for estimate in (losses.kl_k1, losses.kl_k2, losses.kl_k3):
        log_probs = torch.from_numpy(log_policy).requires_grad_()
        estimate(torch.from_numpy(log_reference) - log_probs).sum().backward()
        rows.append(log_probs.grad)
    return torch.stack(rows)


def library_loss(log_probs, old_log_probs, advantages, mask, clip_low, clip_high):
    now, old, advantages, mask = map(torch.from_numpy, (log_probs, old_log_probs, advantages, mask))
    ratio = variants.token_ratio(now - old, mask)
    objective = variants.asymmetric_clip(ratio, advantages[:, None], clip_low, clip_high)
    return -(variants.per_token_mean(mask[None], mask.shape[1])[0] * objective).sum()


def library_ratio(log_probs, old_log_probs, mask):
    log_ratio = torch.from_numpy(log_probs - old_log_probs)
    return variants.sequence_ratio(log_ratio[None], torch.from_numpy(mask)[None])[0, :, 0]


def loop_loss(log_probs, old_log_probs, advantages, mask, clip_low, clip_high):
    total, count = 0.0, 0
    for i, t in zip(*np.nonzero(mask), strict=True):
        ratio = math.exp(log_probs[i, t] - old_log_probs[i, t])
        if advantages[i] > 0:
            total += min(ratio, 1 + clip_high) * advantages[i]
        else:
            total += max(ratio, 1 - clip_low) * advantages[i]
        count += 1
    return -total / count


def loop_ratio(log_probs, old_log_probs, mask):
    ratios = []
    for row, old, real in zip(log_probs, old_log_probs, mask, strict=True):
        tokens = np.exp(row - old)[real]
        ratios.append(np.prod(tokens) ** (1 / len(tokens)))
    return ratios


@pytest.mark.parametrize(
    ("checker", "right"),
    [
        (check_kl_factors, factors_by_autograd),
        (check_dapo_loss, library_loss),
        (check_dapo_loss, loop_loss),
        (check_sequence_ratio, library_ratio),
        (check_sequence_ratio, loop_ratio),
    ],
)
def test_right_answers_pass(checker, right):
    result = checker(right)
    assert result, result.message


def test_factors_by_hand():
    """π_θ = ½ and π_ref = ¼: log π_θ/π_ref = log 2, and 1 − ½. Where both are equal k₂'s and k₃'s are 0."""
    factors = exercises._kl_factors(np.log([0.5, 0.25]), np.log([0.25, 0.25]))
    assert factors.tolist() == [[1, 1], [pytest.approx(math.log(2)), 0], [0.5, 0]]


def test_a_loss_by_hand():
    """Ratios 2 and ½ of a better output, ½ of a worse one; ε is 0.2 and 0.28. The last place is padding."""
    ratios = np.array([[2.0, 0.5], [0.5, 9.0]])
    mask = np.array([[True, True], [True, False]])
    loss = exercises._dapo_loss(np.log(ratios), np.zeros((2, 2)), np.array([1.0, -1.0]), mask, 0.2, 0.28)
    assert loss == pytest.approx(-(1.28 + 0.5 - 0.8) / 3)


def test_a_ratio_by_hand():
    ratios = np.array([[2.0, 8.0], [3.0, 9.0]])
    mask = np.array([[True, True], [True, False]])
    assert exercises._sequence_ratio(np.log(ratios), np.zeros((2, 2)), mask).tolist() == pytest.approx([4, 3])


def test_what_is_drawn_has_outputs_of_one_token_and_of_all():
    for seed in range(20):
        log_probs, old, advantages, mask, low, high = exercises._draw_group(np.random.default_rng(seed))
        lengths = mask.sum(axis=1)
        assert lengths.min() == 1
        assert lengths.max() == mask.shape[1]
        assert abs(advantages.sum()) < 1e-12
        assert 0 < low < high
        ratio = np.exp(log_probs - old)[mask]
        assert (ratio < 1 - low).any() or (ratio > 1 + high).any()


def masked_loss(*, mean=None, clip=None, over=min):
    """A student's loss in a loop, with what the arguments change in it."""

    def student(log_probs, old_log_probs, advantages, mask, clip_low, clip_high):
        low, high = clip(clip_low, clip_high) if clip else (clip_low, clip_high)
        objective = np.zeros_like(log_probs)
        for i in range(mask.shape[0]):
            for t in range(mask.shape[1]):
                ratio = np.exp(log_probs[i, t] - old_log_probs[i, t])
                bounded = min(max(ratio, 1 - low), 1 + high)
                objective[i, t] = over(ratio * advantages[i], bounded * advantages[i])
        return -mean(objective, mask) if mean else -(objective * mask).sum() / mask.sum()

    return student


def test_a_loop_of_a_students_passes():
    result = check_dapo_loss(masked_loss())
    assert result, result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (masked_loss(mean=lambda x, m: np.mean((x * m).sum(1) / m.sum(1))), "averages over each output's"),
        (masked_loss(mean=lambda x, m: x.mean()), "counts padding"),
        (masked_loss(mean=lambda x, m: (x * m).mean()), "divides by all places"),
        (masked_loss(mean=lambda x, m: (x * m).sum() / len(m)), "divides by the number of outputs"),
        (masked_loss(clip=lambda low, high: (low, low)), "lower clip range on both sides"),
        (masked_loss(clip=lambda low, high: (high, low)), "the wrong way round"),
        (masked_loss(clip=lambda low, high: (1, 1e9)), "does not clip"),
        (masked_loss(over=max), "takes the larger"),
        (masked_loss(over=lambda free, bounded: bounded), "without the minimum"),
        (lambda *group: -loop_loss(*group), "wrong sign"),
        (lambda p, old, *rest: loop_loss(old, p, *rest), "the wrong way up"),
        (lambda p, old, a, m, low, high: (a[:, None] * m).sum(axis=1), "shape"),
        (lambda *group: 2 * loop_loss(*group), "wrong on"),
    ],
)
def test_wrong_losses_are_named(wrong, words):
    result = check_dapo_loss(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p, old, m: np.prod(np.where(m, np.exp(p - old), 1), axis=1), "the length is missing"),
        (lambda p, old, m: (np.exp(p - old) * m).sum(1) / m.sum(1), "arithmetic mean"),
        (lambda p, old, m: np.exp(np.mean(p - old, axis=1)), "counts padding"),
        (lambda p, old, m: np.exp(np.mean((p - old) * m, axis=1)), "longest length"),
        (lambda p, old, m: np.exp(((old - p) * m).sum(1) / m.sum(1)), "the wrong way up"),
        (lambda p, old, m: ((p - old) * m).sum(1) / m.sum(1), "logarithm"),
        (lambda p, old, m: np.prod(m * np.exp(p - old), axis=1) ** (1 / m.sum(1)), "multiplies in zeros"),
        (lambda p, old, m: np.prod(np.exp(p - old), axis=1) ** (1 / m.sum(1)), "padding in the product"),
        (lambda p, old, m: np.exp(p - old), "shape"),
    ],
)
def test_wrong_ratios_are_named(wrong, words):
    result = check_sequence_ratio(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p, q: [p - q, (q - p) ** 2 / 2, np.exp(q) / np.exp(p) - 1 + p - q], "gives the values"),
        (lambda p, q: [-np.ones(len(p)), q - p, np.exp(q - p) - 1], "that log-ratio falls"),
        (lambda p, q: [p - q, p - q, 1 - np.exp(q - p)], "wrong for k₁ alone"),
        (lambda p, q: [0 * p, p - q, 1 - np.exp(q - p)], "the mean of its gradient"),
        (lambda p, q: [p / p, p - q, np.exp(q - p) - 1], "wrong sign for k₃"),
        (lambda p, q: [p / p, p - q, 1 - np.exp(p) / np.exp(q)], "the other way up"),
        (lambda p, q: [p / p, q - p, 1 - np.exp(p - q)], "the log-ratio the wrong way up"),
        (lambda p, q: [-p / p, p - q, 1 - np.exp(q - p)], "wrong sign for k₁"),
        (lambda p, q: [p / p, (q - p) ** 2 / 2, 1 - np.exp(q - p)], "k₂'s value"),
        (lambda p, q: [p / p, p - q, p - q], "wrong on"),
        (lambda p, q: p - q, "shape"),
    ],
)
def test_wrong_factors_are_named(wrong, words):
    result = check_kl_factors(wrong)
    assert not result
    assert words in result.message


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_mistake_is_named(checker):
    for words, mistake in CHECKERS[checker][2].items():
        assert checker(mistake).message.endswith(words)


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_mistake_differs_from_the_solution_and_from_the_others(checker):
    solution, draw, mistakes = CHECKERS[checker]
    rng = np.random.default_rng(0)
    cases = [draw(rng) for _ in range(10)]
    answers = [[function(*case) for case in cases] for function in (solution, *mistakes.values())]
    for one, other in combinations(range(len(answers)), 2):
        found = zip(answers[one], answers[other], strict=True)
        assert not all(np.allclose(*pair) for pair in found), (one, other)


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_result_in_place_of_a_function_is_refused(checker):
    with pytest.raises(TypeError, match="without calling it"):
        checker(np.zeros(3))
