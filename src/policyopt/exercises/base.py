"""What the checkers share: fresh inputs, a comparison, and a name for what went wrong.

A checker does not only say that an answer is wrong. It also knows the usual mistakes as functions of their
own: where the student's answers agree with one of them, it says which.
"""

import copy
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Check", "Mistakes", "check"]

Mistakes = Mapping[str, Callable]


@dataclass(frozen=True)
class Check:
    """What a checker found. It is true if the answer is right, and shows its message in a notebook.

    Attributes:
        passed: whether the answer is right.
        message: what was found, in words.
    """

    passed: bool
    message: str

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.message}"


def check(
    student: Callable,
    solution: Callable,
    draw: Callable[[np.random.Generator], tuple],
    mistakes: Mistakes,
    *,
    tolerance: float = 1e-5,
    trials: int = 50,
    seed: int | None = None,
) -> Check:
    """Compare a student's function with the solution on random inputs.

    Args:
        student: what was written.
        solution: what is right. Both get the same positional arguments, each its own copy.
        draw: makes the arguments from a NumPy generator.
        mistakes: wrong functions by what is said of them. The first whose answers are the student's wherever
            they can be told from the solution's is named. One that raises an error is passed over.
        tolerance: how far a number may be off, absolutely and relatively.
        trials: how many inputs are drawn.
        seed: of the inputs; None draws others every time.

    Returns:
        What was found.

    Raises:
        TypeError: ``student`` is not a function.
    """
    if not callable(student):
        raise TypeError(f"got {student!r}; give the function itself, without calling it")
    name = getattr(student, "__name__", "the function")
    rng = np.random.default_rng(secrets.randbits(64) if seed is None else seed)
    cases = [draw(rng) for _ in range(trials)]
    answers = []
    for arguments in cases:
        given = copy.deepcopy(arguments)
        try:
            answer = student(*given)
        except Exception as error:
            return Check(False, f"{name} raised {type(error).__name__}: {error}")
        expected = solution(*copy.deepcopy(arguments))
        problem = _form(answer, expected)
        if problem:
            return Check(False, f"{name} {problem}")
        if not all(_equal(one, other, 0.0) for one, other in zip(given, arguments, strict=True)):
            return Check(False, f"{name} changes its arguments; work on a copy of them")
        answers.append((arguments, _array(answer), _array(expected)))
    wrong = [case for case in answers if not _equal(case[1], case[2], tolerance)]
    if not wrong:
        return Check(True, f"{name} is right on {trials} random inputs")
    for words, mistake in mistakes.items():
        if _explains(mistake, answers, tolerance):
            return Check(False, f"{name}: {words}")
    if not all(np.isfinite(answer).all() for _, answer, _ in wrong):
        return Check(False, f"{name} returned a number that is not finite, where a finite one was expected")
    share = f"{len(wrong)} of {trials} random inputs"
    if all(_equal(-answer, right, tolerance) for _, answer, right in answers):
        return Check(False, f"{name} has the wrong sign, on {share}")
    if all(right.ndim and _equal(answer[::-1], right, tolerance) for _, answer, right in answers):
        return Check(False, f"{name} returns its answers in the reverse order, on {share}")
    return Check(False, f"{name} is wrong on {share}; try it on one small enough to work by hand")


def _explains(mistake: Callable, answers: list, tolerance: float) -> bool:
    """Whether the mistake gives the student's answers, and not only where it does no harm."""
    told_apart = False
    for arguments, answer, right in answers:
        try:
            expected = _array(mistake(*copy.deepcopy(arguments)))
        except Exception:  # e.g. a division by zero that the mistake makes
            return False
        if not _equal(expected, answer, tolerance):
            return False
        told_apart |= not _equal(expected, right, tolerance)
    return told_apart


def _form(answer: Any, expected: Any) -> str:
    """What is wrong with the kind or the shape of an answer; nothing if it can be compared."""
    if answer is None:
        return "returned None; does it end in a return?"
    try:
        array = _array(answer)
    except (TypeError, ValueError, RuntimeError):
        return f"returned {type(answer).__name__}, which is no number and no array of numbers"
    shape = _array(expected).shape
    if array.shape != shape:
        got, wanted = (f"an array of shape {x}" if x else "a single number" for x in (array.shape, shape))
        return f"returned {got}; expected {wanted}"
    return ""


def _array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, list | tuple) and any(isinstance(item, torch.Tensor) for item in value):
        value = [_array(item) for item in value]
    return np.asarray(value, dtype=float)


def _equal(one: Any, other: Any, tolerance: float) -> bool:
    if not isinstance(one, np.ndarray | torch.Tensor | list | tuple | float | int):
        return True  # no number: nothing that could be changed is handed to a student in another form
    one, other = _array(one), _array(other)
    return one.shape == other.shape and np.allclose(
        one, other, atol=tolerance, rtol=tolerance, equal_nan=True
    )
