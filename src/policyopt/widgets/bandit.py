"""*Policy gradient on a bandit*: REINFORCE on three arms, each policy a point in a triangle."""

import math
from numbers import Integral, Real
from typing import Any

import traitlets

from policyopt.widgets.base import Figure, figure_module

BASELINES = ("none", "mean", "value")
RUNS = (1, 30)
LARGEST_MEAN = 10.0
RANGES = {"noise": (0.0, 2.0), "learning_rate": (0.01, 1.0), "offset": (-5.0, 5.0)}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _check_means(means: Any) -> list[float]:
    """The three mean rewards as floats, if they are that."""
    try:
        values = list(means)
    except TypeError:
        values = []
    if len(values) != 3 or not all(_is_number(value) and abs(value) <= LARGEST_MEAN for value in values):
        raise ValueError(
            f"means is {means!r}; it must be three numbers, the mean rewards of the arms A, B and C, "
            f"each from {-LARGEST_MEAN:g} to {LARGEST_MEAN:g}"
        )
    return [float(value) for value in values]


def _check_range(name: str, value: Any) -> float:
    low, high = RANGES[name]
    if not _is_number(value) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a number from {low:g} to {high:g}")
    return float(value)


def _check_baseline(baseline: Any) -> str:
    if baseline not in BASELINES:
        raise ValueError(f"baseline is {baseline!r}; it must be one of {', '.join(BASELINES)}")
    return baseline


def _check_runs(runs: Any) -> int:
    if isinstance(runs, bool) or not isinstance(runs, Integral) or runs not in RUNS:
        raise ValueError(f"runs is {runs!r}; it must be {' or '.join(map(str, RUNS))}")
    return int(runs)


def _check_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed!r}; it must be an integer from 0 to 2**31 - 1")
    return int(seed)


class _Setting(traitlets.TraitType):
    """Any value but None, so that None reaches the checks too."""

    default_value = None


class BanditGradient(Figure):
    """REINFORCE on a bandit with three arms A, B and C, step by step, beside the exact gradient.

    The policy is a softmax of three logits that start at 0, drawn as a point of the triangle of all policies.
    A pull of arm a earns R, normal with the mean r(a) + ``offset`` and the standard deviation ``noise``, and
    moves the logits by α (R − b)(1[a] − π): Williams (1992), with the baseline b. The running mean starts at
    0 and keeps 0.9 of itself at each step, as in ``policyopt.algorithms.reinforce``. The page draws from
    small seeded generators of its own, one a run, and stops after 1000 steps.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``sample(count)``, ``exact(count)``, ``play()``, ``pause()``, ``restart()``, ``newSeed()``,
    ``cloud(shown)`` and ``set({noise, learning_rate, offset, baseline, batch, runs})``.

    Args:
        means: the mean rewards of the three arms, each from −10 to 10.
        noise: σ, the standard deviation of a reward, from 0 to 2.
        learning_rate: α, from 0.01 to 1.
        offset: added to every reward, from −5 to 5.
        baseline: b: "none" (0), "mean" (the running mean of the rewards) or "value" (exactly J(θ)).
        runs: how many runs go at once, 1 or 30. Each has random numbers of its own.
        seed: an integer from 0. All of these may also be assigned later; the figure then starts anew.

    Raises:
        ValueError: an argument is not as said here, named.
    """

    kind = "bandit"
    title = "Policy gradient on a bandit"
    summary = (
        "A policy over three arms is a point in a triangle whose corners are the policies that always choose "
        "the same arm. Sampled policy-gradient steps move the point in a wandering line, exact steps in a "
        "smooth one; a baseline takes away much of the wandering."
    )
    _esm = figure_module(kind)

    means = _Setting().tag(sync=True, page=True)
    noise = _Setting().tag(sync=True, page=True)
    learning_rate = _Setting().tag(sync=True, page=True)
    offset = _Setting().tag(sync=True, page=True)
    baseline = _Setting().tag(sync=True, page=True)
    runs = _Setting().tag(sync=True, page=True)
    seed = _Setting().tag(sync=True, page=True)

    def __init__(
        self,
        means=(1.0, 0.5, 0.0),
        noise=0.5,
        learning_rate=0.1,
        offset=0.0,
        baseline="none",
        runs=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(
            means=_check_means(means),
            noise=_check_range("noise", noise),
            learning_rate=_check_range("learning_rate", learning_rate),
            offset=_check_range("offset", offset),
            baseline=_check_baseline(baseline),
            runs=_check_runs(runs),
            seed=_check_seed(seed),
            **kwargs,
        )

    @traitlets.validate("means")
    def _validate_means(self, proposal):
        return _check_means(proposal["value"])

    @traitlets.validate(*RANGES)
    def _validate_range(self, proposal):
        return _check_range(proposal["trait"].name, proposal["value"])

    @traitlets.validate("baseline")
    def _validate_baseline(self, proposal):
        return _check_baseline(proposal["value"])

    @traitlets.validate("runs")
    def _validate_runs(self, proposal):
        return _check_runs(proposal["value"])

    @traitlets.validate("seed")
    def _validate_seed(self, proposal):
        return _check_seed(proposal["value"])

    def __repr__(self) -> str:
        means = ", ".join(f"{mean:g}" for mean in self.means)
        return (
            f"BanditGradient(means=({means}), noise={self.noise:g}, learning_rate={self.learning_rate:g}, "
            f"offset={self.offset:g}, baseline={self.baseline!r}, runs={self.runs}, seed={self.seed})"
        )
