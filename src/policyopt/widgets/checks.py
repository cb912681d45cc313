"""What the figures ask of their arguments, when they are made and whenever a value is assigned later.

Each check takes the name of an argument and its value, and returns the value as the page gets it. Else it
raises a ``ValueError`` with the name, the value and what is allowed: ``gamma is 2; it must be a number in
[0, 1]``.
"""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import traitlets

LONGEST = 60  # characters of a value in an error


def shortened(value: Any) -> str:
    """The ``repr`` of a value, cut off after 60 characters."""
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def not_allowed(name: str, value: Any, allowed: str) -> ValueError:
    """The error that says so; ``allowed`` completes "it must be"."""
    return ValueError(f"{name} is {shortened(value)}; it must be {allowed}")


def is_number(value: Any, kind: type = Real) -> bool:
    """Whether the value is a number of the kind, ``Real`` or ``Integral``; a truth value is none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """A number from ``low`` to ``high``, both allowed."""
    if not is_number(value) or not low <= value <= high:
        raise not_allowed(name, value, f"a number in [{low:g}, {high:g}]")
    return float(value)


def check_integer(name: str, value: Any, low: int, high: int, written: str | None = None) -> int:
    """An integer from ``low`` to ``high``, both allowed; ``written`` is how the error writes ``high``."""
    if not is_number(value, Integral) or not low <= value <= high:
        raise not_allowed(name, value, f"an integer from {low} to {written or high}")
    return int(value)


def check_seed(name: str, value: Any) -> int:
    """An integer from 0 to 2³¹ − 1."""
    return check_integer(name, value, 0, 2**31 - 1, "2**31 - 1")


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """One of the choices, which are all texts or all integers."""
    kind = type(choices[0])
    right = is_number(value, Integral) if kind is int else isinstance(value, kind)
    if not right or value not in choices:
        raise not_allowed(name, value, f"one of {', '.join(map(repr, choices))}")
    return kind(value)


class Checked(traitlets.TraitType):
    """A trait whose every value, None too, is what ``check(name, value, *allowed)`` makes of it."""

    def __init__(self, check: Callable[..., Any], *allowed: Any):
        super().__init__()
        self.check, self.allowed = check, allowed

    def validate(self, obj: Any, value: Any) -> Any:
        return self.check(self.name, value, *self.allowed)
