"""*GridWorld*: a world to paint, its values computed by sweeps or learnt step by step in the page."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import traitlets

from policyopt.widgets.balance import check_seed
from policyopt.widgets.base import Figure, figure_module

DEFAULT_LAYOUT = (".....G", ".....X", "......", "......", "S.....")
MAX_ROWS, MAX_COLUMNS = 10, 8  # a phone's width holds 8 cells that a finger can hit
METHODS = ("value iteration", "Q-learning")
RANGES = {"gamma": (0.0, 1.0), "slip": (0.0, 0.6), "step_reward": (-0.2, 0.1)}  # the sliders' ends


def check_layout(layout: Any) -> list[str]:
    """The rows of a layout, if the figure can show them."""
    if isinstance(layout, str) or not isinstance(layout, Sequence):
        raise ValueError(f"layout is {layout!r}; it must be a list of rows, such as ('S..', '.#G')")
    rows = [str(row) for row in layout]
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise ValueError(f"layout is {rows}; it must have rows of one length, at least one cell")
    if len(rows) > MAX_ROWS or len(rows[0]) > MAX_COLUMNS:
        raise ValueError(
            f"layout has {len(rows)} rows of {len(rows[0])} cells; to fit a phone it may have at most "
            f"{MAX_ROWS} rows of {MAX_COLUMNS} cells"
        )
    unknown = sorted(set("".join(rows)) - set("S.#GX"))
    if unknown:
        raise ValueError(f"layout has the character {unknown[0]!r}; allowed are S . # G X")
    return rows


def check_number(name: str, value: Any) -> float:
    low, high = RANGES[name]
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; it must be a number in [{low:g}, {high:g}]")
    return float(value)


def check_method(method: Any) -> str:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(map(repr, METHODS))}")
    return method


class _Checked(traitlets.Any):
    allow_none = False  # else None would pass unchecked


class GridWorldFigure(Figure):
    """A grid whose values are computed by value iteration, or learnt by Q-learning, in the page.

    The dynamics are those of ``policyopt.envs.GridWorld`` with goals worth +1 and pits −1; the reader paints
    the cells, moves the sliders and runs the methods sweep by sweep or step by step. Both are computed as in
    ``policyopt.tabular.value_iteration`` and ``policyopt.algorithms.q_learning``; only, of equally good
    actions Q-learning here takes one at random, not the first. A step draws from a small seeded generator of
    the page, not from NumPy's. Where a layout has no start, an episode begins in any free cell.

    The figure's element in the page carries ``policyopt``, an object for scripts and tests: ``state()``,
    ``choose(method)``, ``view("V" or "Q")``, ``sweep(count)``, ``step(count)``, ``episode(count)``,
    ``play()``, ``pause()``, ``reset()``, ``brush(name)``, ``paint(row, column)``, ``look(row, column)``,
    ``world(name)`` and ``set(name, value)`` for the sliders gamma, slip, step_reward, alpha and epsilon.

    Args:
        layout: rows as ``GridWorld`` takes them, at most 10 of at most 8 cells; a start may be missing.
        gamma: the discount factor γ in [0, 1].
        slip: the probability in [0, 0.6] of going to one of the two sides instead, half each.
        step_reward: the reward in [−0.2, 0.1] of each step that enters neither goal nor pit.
        method: "value iteration" or "Q-learning", the one shown first.
        seed: of the agent's actions and slips, an integer from 0. All may also be assigned later, the layout
            as ``world`` (``layout`` is where a notebook puts a widget).

    Raises:
        ValueError: a layout or value that is not allowed.
    """

    kind = "gridworld"
    title = "GridWorld"
    summary = (
        "A grid with a start, a goal (+1), pits (−1) and walls, in which every cell shows its value and its "
        "best action. Paint the world, then watch the values spread from the goal in sweeps of value "
        "iteration, or an agent learn them by walking, with Q-learning."
    )
    _esm = figure_module(kind)

    world = _Checked().tag(sync=True, page=True)
    gamma = _Checked().tag(sync=True, page=True)
    slip = _Checked().tag(sync=True, page=True)
    step_reward = _Checked().tag(sync=True, page=True)
    method = _Checked().tag(sync=True, page=True)
    seed = _Checked().tag(sync=True, page=True)

    def __init__(
        self,
        layout=DEFAULT_LAYOUT,
        gamma=0.9,
        slip=0.0,
        step_reward=0.0,
        method="value iteration",
        seed=0,
        **kwargs,
    ):
        super().__init__(
            world=check_layout(layout),
            gamma=check_number("gamma", gamma),
            slip=check_number("slip", slip),
            step_reward=check_number("step_reward", step_reward),
            method=check_method(method),
            seed=check_seed(seed),
            **kwargs,
        )

    @traitlets.validate("world")
    def _validate_world(self, proposal):
        return check_layout(proposal["value"])

    @traitlets.validate("gamma", "slip", "step_reward")
    def _validate_number(self, proposal):
        return check_number(proposal["trait"].name, proposal["value"])

    @traitlets.validate("method")
    def _validate_method(self, proposal):
        return check_method(proposal["value"])

    @traitlets.validate("seed")
    def _validate_seed(self, proposal):
        return check_seed(proposal["value"])

    def __repr__(self) -> str:
        size = f"{len(self.world)}×{len(self.world[0])}"
        return (
            f"GridWorldFigure({size} cells, gamma={self.gamma:g}, slip={self.slip:g}, method={self.method!r})"
        )
