"""*GridWorld*: a world to paint, its values computed by sweeps or learnt step by step in the page."""

from collections.abc import Sequence
from typing import Any

from policyopt.widgets.base import Figure, figure_module
from policyopt.widgets.checks import Checked, check_choice, check_number, check_seed, not_allowed

DEFAULT_LAYOUT = (".....G", ".....X", "......", "......", "S.....")
MAX_ROWS, MAX_COLUMNS = 10, 8  # a phone's width holds 8 cells that a finger can hit
METHODS = ("value iteration", "Q-learning")
RANGES = {"gamma": (0.0, 1.0), "slip": (0.0, 0.6), "step_reward": (-0.2, 0.1)}  # the sliders' ends


def check_layout(layout: Any) -> list[str]:
    """The rows of a layout, if the figure can show them."""
    if isinstance(layout, str) or not isinstance(layout, Sequence):
        raise not_allowed("layout", layout, "a list of rows, such as ('S..', '.#G')")
    rows = [str(row) for row in layout]
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        raise not_allowed("layout", rows, "one or more rows of one length, at least one cell")
    if len(rows) > MAX_ROWS or len(rows[0]) > MAX_COLUMNS:
        raise ValueError(
            f"layout has {len(rows)} rows of {len(rows[0])} cells; to fit a phone it may have at most "
            f"{MAX_ROWS} rows of {MAX_COLUMNS} cells"
        )
    unknown = sorted(set("".join(rows)) - set("S.#GX"))
    if unknown:
        raise ValueError(f"layout has the character {unknown[0]!r}; allowed are S . # G X")
    return rows


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

    world = Checked(lambda name, layout: check_layout(layout)).tag(sync=True, page=True)
    gamma = Checked(check_number, *RANGES["gamma"]).tag(sync=True, page=True)
    slip = Checked(check_number, *RANGES["slip"]).tag(sync=True, page=True)
    step_reward = Checked(check_number, *RANGES["step_reward"]).tag(sync=True, page=True)
    method = Checked(check_choice, METHODS).tag(sync=True, page=True)
    seed = Checked(check_seed).tag(sync=True, page=True)

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
            world=layout,
            gamma=gamma,
            slip=slip,
            step_reward=step_reward,
            method=method,
            seed=seed,
            **kwargs,
        )

    def __repr__(self) -> str:
        size = f"{len(self.world)}×{len(self.world[0])}"
        return (
            f"GridWorldFigure({size} cells, gamma={self.gamma:g}, slip={self.slip:g}, method={self.method!r})"
        )
