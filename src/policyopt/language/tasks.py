"""Tasks for a language model: prompts, reference answers, and rewards that can be checked.

A task draws its problems once, from a seed, and keeps some of them apart: a problem that is held out is never
trained on.
"""

from __future__ import annotations

import math
import numbers
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from policyopt.settings import check_seed

__all__ = ["TASKS", "Addition", "Brackets", "Problem", "RewardFunction", "SortDigits", "Task", "make_task"]


class Problem(NamedTuple):
    """What is asked, and one right answer."""

    prompt: str
    answer: str


RewardFunction = Callable[[Sequence[Problem], Sequence[str]], Sequence[float]]
"""Problems and the outputs written for them, one for one, to a reward for each."""


def _check_whole(least: int, most: float = math.inf, **values: int) -> None:
    """Raise ``ValueError`` unless each value is a whole number from ``least`` to ``most``; it names the
    value.
    """
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not least <= value <= most:
            upper = "" if most == math.inf else f" and ≤ {most}"
            raise ValueError(f"{name} is {value!r}; it must be a whole number ≥ {least}{upper}")


class Task(ABC):
    """Problems of one kind.

    Args:
        num_problems: how many different problems are drawn; all there are, if those are fewer.
        held_out: how many of them are kept apart.
        seed: of the draw and of the split.
        settings: what else a subclass was made with, by name; it sets its own attributes before it calls
            this.

    Attributes:
        train: the problems to train on.
        held_out: the others.
        settings: everything the task was made with. ``repr`` shows it, and tells one run from another.

    Raises:
        ValueError: nothing would be left to train on, or nothing held out; a number that is not whole; a
            problem was drawn twice.
    """

    name: str
    instruction: str  # in words, for a model that reads them
    characters: str  # everything that prompts and answers are made of
    max_new_tokens: int  # enough for every answer in characters and its end token

    def __init__(self, num_problems: int = 4096, held_out: int = 256, seed: int = 0, **settings: Any):
        _check_whole(2, num_problems=num_problems)
        _check_whole(1, held_out=held_out)
        self.settings = {**settings, "num_problems": num_problems, "held_out": held_out, "seed": seed}
        problems = self.draw(random.Random(check_seed(seed)), num_problems)
        twice = len(problems) - len({problem.prompt for problem in problems})
        if twice:  # one of them might be trained on and the other held out
            raise ValueError(f"draw gave {twice} of {len(problems)} problems again; all must be different")
        if held_out >= len(problems):
            raise ValueError(
                f"held_out is {held_out!r}; of {len(problems)} problems at least 1 and at most "
                f"{len(problems) - 1} can be held out"
            )
        self.held_out: list[Problem] = problems[:held_out]
        self.train: list[Problem] = problems[held_out:]

    @abstractmethod
    def draw(self, rng: random.Random, count: int) -> list[Problem]:
        """``count`` different problems in random order, or all there are."""

    @abstractmethod
    def reward(self, problem: Problem, output: str) -> float:
        """How good an output is, in [0, 1]."""

    def rewards(self, problems: Sequence[Problem], outputs: Sequence[str]) -> list[float]:
        """``reward`` of each: a ``RewardFunction``. Problems and outputs must be as many."""
        return [self.reward(problem, output) for problem, output in zip(problems, outputs, strict=True)]

    def wrong_answer(self, problem: Problem, rng: random.Random) -> str:
        """A wrong answer of the right form: that of another problem.

        Raises:
            ValueError: every answer of the training part is right for this problem too.
        """
        for _ in range(100):  # nearly always the first will do
            answer = rng.choice(self.train).answer
            if self.reward(problem, answer) < 1:
                return answer
        answers = sorted({other.answer for other in self.train})
        wrong = [answer for answer in answers if self.reward(problem, answer) < 1]
        if not wrong:
            raise ValueError(
                f"there is no wrong answer to {problem.prompt!r}: each of the {len(self.train)} problems to "
                "train on has one that is right for it; more problems would help"
            )
        return rng.choice(wrong)

    def demonstrations(self, count: int, wrong: float = 0.0, seed: int = 0) -> list[Problem]:
        """Problems of the training part with answers to learn from.

        Args:
            count: how many, drawn with replacement.
            wrong: the share whose answer is wrong, to the nearest whole number of them.
            seed: of the draw.

        Raises:
            ValueError: a count below 1; a share outside [0, 1]; no wrong answer can be found.
        """
        _check_whole(1, count=count)
        if not 0 <= wrong <= 1:
            raise ValueError(f"wrong is {wrong!r}; it must be a share in [0, 1]")
        rng = random.Random(check_seed(seed))
        problems = rng.choices(self.train, k=count)
        spoiled = set(rng.sample(range(count), round(wrong * count)))
        return [
            Problem(problem.prompt, self.wrong_answer(problem, rng)) if i in spoiled else problem
            for i, problem in enumerate(problems)
        ]

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}({settings})"


def _different(draw_one: Callable[[], Problem], count: int, rng: random.Random) -> list[Problem]:
    """Up to ``count`` different problems in random order; fewer when a hundred draws for each that was found
    bring no new one.
    """
    found: dict[str, Problem] = {}
    in_vain = 0
    while len(found) < count and in_vain <= 100 * len(found):
        problem = draw_one()
        in_vain = in_vain + 1 if problem.prompt in found else 0
        found[problem.prompt] = problem
    problems = list(found.values())
    rng.shuffle(problems)  # likely ones came up first, and the first are held out
    return problems


class Addition(Task):
    """``23+58=`` is answered ``81``. The reward is 1 for the sum and nothing else, otherwise 0.

    Args:
        low: the least summand.
        high: the greatest.
        num_problems, held_out, seed: as for every task.

    Raises:
        ValueError: 0 ≤ low ≤ high ≤ 1,000,000,000 does not hold.
    """

    name = "addition"
    instruction = "Add the two numbers. Answer with the sum only."
    characters = "0123456789+="

    def __init__(
        self, low: int = 10, high: int = 99, num_problems: int = 10_000, held_out: int = 512, seed: int = 0
    ):
        _check_whole(0, 10**9, low=low, high=high)
        if low > high:
            raise ValueError(f"low is {low!r} and high {high!r}; low ≤ high must hold")
        self.low, self.high = low, high
        self.max_new_tokens = len(str(2 * high)) + 1
        super().__init__(num_problems, held_out, seed, low=low, high=high)

    def draw(self, rng: random.Random, count: int) -> list[Problem]:
        """Pairs of summands, both orders counting as different."""
        summands = range(self.low, self.high + 1)
        size = len(summands)
        # A pair is a number below size², its summands the two digits in base ``size``: no list of all pairs.
        pairs = (divmod(k, size) for k in rng.sample(range(size**2), min(count, size**2)))
        return [Problem(f"{summands[a]}+{summands[b]}=", str(summands[a] + summands[b])) for a, b in pairs]

    def wrong_answer(self, problem: Problem, rng: random.Random) -> str:
        """The sum with one digit changed: a slip, from which there is still something to learn."""
        while True:
            place = rng.randrange(len(problem.answer))
            answer = problem.answer[:place] + rng.choice("0123456789") + problem.answer[place + 1 :]
            if answer != problem.answer and answer == str(int(answer)):
                return answer

    def reward(self, problem: Problem, output: str) -> float:
        """1 or 0; spaces around the sum do not count."""
        return float(output.strip() == problem.answer)


class SortDigits(Task):
    """``5213>`` is answered ``1235``. The reward is the share of places with the right digit; an output of
    another length has 0.

    Args:
        shortest: digits at least.
        longest: digits at most.
        num_problems, held_out, seed: as for every task.

    Raises:
        ValueError: 1 ≤ shortest ≤ longest does not hold.
    """

    name = "sort_digits"
    instruction = "Sort the digits from the smallest to the largest. Answer with the digits only."
    characters = "0123456789>"

    def __init__(
        self,
        shortest: int = 3,
        longest: int = 6,
        num_problems: int = 4096,
        held_out: int = 256,
        seed: int = 0,
    ):
        _check_whole(1, shortest=shortest, longest=longest)
        if shortest > longest:
            raise ValueError(
                f"shortest is {shortest!r} and longest {longest!r}; shortest ≤ longest must hold"
            )
        self.shortest, self.longest = shortest, longest
        self.max_new_tokens = longest + 1
        super().__init__(num_problems, held_out, seed, shortest=shortest, longest=longest)

    def draw(self, rng: random.Random, count: int) -> list[Problem]:
        """Strings of digits, each length as likely until there are no more of it."""

        def draw_one() -> Problem:
            digits = "".join(rng.choices("0123456789", k=rng.randint(self.shortest, self.longest)))
            return Problem(f"{digits}>", "".join(sorted(digits)))

        return _different(draw_one, count, rng)

    def reward(self, problem: Problem, output: str) -> float:
        """The share of digits in their place, in [0, 1]."""
        output, answer = output.strip(), problem.answer
        if len(output) != len(answer):
            return 0.0
        return sum(a == b for a, b in zip(output, answer, strict=True)) / len(answer)


PAIRS = {"(": ")", "[": "]", "{": "}"}


def closing(text: str) -> str | None:
    """The shortest text that balances a text of brackets; None if none can, because a bracket closes what is
    not open.
    """
    awaited: list[str] = []
    for character in text:
        if character in PAIRS:
            awaited.append(PAIRS[character])
        elif not awaited or awaited.pop() != character:
            return None
    return "".join(reversed(awaited))


class Brackets(Task):
    """``([]{:`` is to be continued until every bracket is closed: ``})`` does, and so does ``()})``. The
    reward is 1 if it is, otherwise 0: many outputs are right, the shortest is the reference. An output of
    ``max_new_tokens`` brackets has 0 however they stand: it was cut off, not ended.

    Args:
        longest: brackets in a prompt at most.
        num_problems, held_out, seed: as for every task.

    Raises:
        ValueError: ``longest`` is below 1.
    """

    name = "brackets"
    instruction = "Close all open brackets. Answer with the missing brackets only."
    characters = "()[]{}:"

    def __init__(self, longest: int = 8, num_problems: int = 4096, held_out: int = 256, seed: int = 0):
        _check_whole(1, longest=longest)
        self.longest = longest
        self.max_new_tokens = longest + 3  # one more pair than need be
        super().__init__(num_problems, held_out, seed, longest=longest)

    def draw(self, rng: random.Random, count: int) -> list[Problem]:
        """Prompts in which something is still open."""

        def draw_one() -> Problem:
            text, awaited = "", []
            length = rng.randint(1, self.longest)
            while len(text) < length:
                at_least = 1 if len(text) < length - 1 else 2  # the last character must not close everything
                if len(awaited) >= at_least and rng.random() < 0.4:
                    text += awaited.pop()
                else:
                    text += rng.choice("([{")
                    awaited.append(PAIRS[text[-1]])
            return Problem(f"{text}:", "".join(reversed(awaited)))

        return _different(draw_one, count, rng)

    def reward(self, problem: Problem, output: str) -> float:
        """1 if prompt and output together are balanced, otherwise 0."""
        output = output.strip()
        balanced = closing(problem.prompt.removesuffix(":") + output) == ""
        return float(balanced and len(output) < self.max_new_tokens)


TASKS: dict[str, type[Task]] = {task.name: task for task in (Addition, SortDigits, Brackets)}


def make_task(name: str, **settings) -> Task:
    """A task by its name.

    Raises:
        ValueError: there is no such task; the message lists those there are.
    """
    if name == "style":  # its reward is learned; it builds on this module, so it is not in TASKS
        from policyopt.language.style import Style

        return Style(**settings)
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; there are {', '.join(TASKS)} and style")
    return TASKS[name](**settings)
