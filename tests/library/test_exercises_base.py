"""The checkers' common part: what is right passes, what is wrong is named, and nothing is harmed."""

import numpy as np
import pytest
import torch

from policyopt.exercises.base import Check, check


def solution(numbers, factor):
    return factor * np.cumsum(numbers)


def draw(rng):
    return rng.normal(size=rng.integers(2, 6)), float(rng.uniform(0.5, 2))


MISTAKES = {"the factor is forgotten": lambda numbers, factor: np.cumsum(numbers)}


def found(student, **options):
    return check(student, solution, draw, MISTAKES, **options)


def test_right_in_any_form():
    def as_list(numbers, factor):
        return [factor * float(total) for total in np.cumsum(numbers)]

    def as_tensor(numbers, factor):
        return torch.as_tensor(numbers).cumsum(0) * factor

    def as_list_of_tensors(numbers, factor):
        return list(as_tensor(numbers, factor))

    for student in (solution, as_list, as_tensor, as_list_of_tensors):
        result = found(student)
        assert result
        assert repr(result) == f"✓ {student.__name__} is right on 50 random inputs"


@pytest.mark.parametrize(
    ("student", "words"),
    [
        (lambda numbers, factor: np.cumsum(numbers), "the factor is forgotten"),
        (lambda numbers, factor: -factor * np.cumsum(numbers), "has the wrong sign, on 50 of 50"),
        (lambda numbers, factor: factor * np.cumsum(numbers)[::-1], "in the reverse order, on 50 of 50"),
        (lambda numbers, factor: factor * numbers, "is wrong on 50 of 50 random inputs; try it on one"),
        (lambda numbers, factor: None, "returned None; does it end in a return?"),
        (lambda numbers, factor: "text", "returned str, which is no number"),
        (lambda numbers, factor: np.cumsum(numbers)[-1], "returned a single number; expected an array"),
        (lambda numbers, factor: np.cumsum(numbers)[1:], r"returned an array of shape ("),
        (lambda numbers, factor: np.full(len(numbers), np.nan), "returned a number that is not finite"),
        (lambda numbers, factor: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda numbers: 0, "raised TypeError: "),
    ],
)  # fmt: skip
def test_wrong_answers_are_named(student, words):
    result = found(student)
    assert not result
    assert result.message.startswith("<lambda>")
    assert words in result.message
    assert repr(result) == f"✗ {result.message}"


def test_a_single_number_and_its_sign():
    result = check(lambda x: -x, lambda x: x, lambda rng: (float(rng.uniform(1, 2)),), {})
    assert "has the wrong sign" in result.message


def test_a_mistake_is_not_named_where_it_does_no_harm():
    """Where all factors are 1 an answer without them is right, and no other wrong answer is blamed on it."""
    ones = lambda rng: (rng.normal(size=3), 1.0)  # noqa: E731
    assert check(MISTAKES["the factor is forgotten"], solution, ones, MISTAKES)
    assert "try it" in check(lambda n, f: n - 7, solution, ones, MISTAKES).message


def test_a_mistake_that_breaks_is_passed_over():
    mistakes = {"divided by nothing": lambda numbers, factor: 1 / 0, **MISTAKES}
    assert "the factor" in check(MISTAKES["the factor is forgotten"], solution, draw, mistakes).message


def test_arguments_are_the_students_own():
    def spoils(numbers, factor):
        total = factor * np.cumsum(numbers)
        numbers[:] = 0
        return total

    assert "changes its arguments" in found(spoils).message


def test_inputs_are_fresh_unless_seeded():
    def record(into):
        def student(numbers, factor):
            into.append(factor)
            return solution(numbers, factor)

        return student

    first, second, third, fourth = [], [], [], []
    found(record(first)), found(record(second))
    assert first != second
    found(record(third), seed=1), found(record(fourth), seed=1)
    assert third == fourth


def test_a_result_instead_of_the_function():
    with pytest.raises(TypeError, match=r"got 3\.0; give the function itself, without calling it"):
        found(3.0)


def test_a_check_is_true_or_false():
    assert Check(True, "fine")
    assert not Check(False, "not yet")
