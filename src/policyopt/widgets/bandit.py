"""*Policy gradient on a bandit*: REINFORCE on three arms, each policy a point in a triangle."""

from typing import Any

from policyopt.widgets.base import Figure, figure_module
from policyopt.widgets.checks import Checked, check_choice, check_number, check_seed, is_number, not_allowed

BASELINES = ("none", "mean", "value")
RUNS = (1, 30)
LARGEST_MEAN = 10.0


def _check_means(name: str, means: Any) -> list[float]:
    """The three mean rewards as floats, if they are that."""
    try:
        values = list(means)
    except TypeError:
        values = []
    if len(values) != 3 or not all(is_number(value) and abs(value) <= LARGEST_MEAN for value in values):
        allowed = f"each in [{-LARGEST_MEAN:g}, {LARGEST_MEAN:g}]"
        raise not_allowed(name, means, f"three numbers, the mean rewards of the arms A, B and C, {allowed}")
    return [float(value) for value in values]


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

    means = Checked(_check_means).tag(sync=True, page=True)
    noise = Checked(check_number, 0.0, 2.0).tag(sync=True, page=True)
    learning_rate = Checked(check_number, 0.01, 1.0).tag(sync=True, page=True)
    offset = Checked(check_number, -5.0, 5.0).tag(sync=True, page=True)
    baseline = Checked(check_choice, BASELINES).tag(sync=True, page=True)
    runs = Checked(check_choice, RUNS).tag(sync=True, page=True)
    seed = Checked(check_seed).tag(sync=True, page=True)

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
            means=means,
            noise=noise,
            learning_rate=learning_rate,
            offset=offset,
            baseline=baseline,
            runs=runs,
            seed=seed,
            **kwargs,
        )

    def __repr__(self) -> str:
        means = ", ".join(f"{mean:g}" for mean in self.means)
        return (
            f"BanditGradient(means=({means}), noise={self.noise:g}, learning_rate={self.learning_rate:g}, "
            f"offset={self.offset:g}, baseline={self.baseline!r}, runs={self.runs}, seed={self.seed})"
        )
