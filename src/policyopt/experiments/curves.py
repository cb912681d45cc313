"""Learning curves of a study: the mean over seeds and how sure one may be of it, as a table and drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from policyopt.experiments.stats import mean_curve
from policyopt.experiments.study import RESULTS, Study
from policyopt.experiments.tables import load

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["label_steps", "learning_curves", "plot_curves"]


def learning_curves(
    study: Study,
    results: str | os.PathLike = RESULTS,
    column: str = "episode_return",
    x: str = "step",
    points: int = 60,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """A column's mean over seeds, with a pointwise bootstrap interval: ``label``, ``environment``, ``seeds``,
    ``x`` (under its own name), ``mean``, ``low``, ``high``.

    Rows of different runs need not lie at the same steps: each curve is interpolated to a common grid, from
    where all runs have begun to where the first of them ends.

    Args:
        study: which.
        results: the folder in which it has its own.
        column: what is drawn.
        x: ``"step"``, or ``"seconds"`` from the start of the training.
        points: of the grid.
        confidence: of the interval at any one point.

    Raises:
        ValueError: a stored cell is damaged or of another configuration; fewer than two points.
        KeyError: no history has the column.
    """
    import pandas as pd

    if points < 2:
        raise ValueError(f"points is {points!r}; it must be at least 2")
    table = load(study, results, clock=True)
    for name in (column, x):
        if name not in table:
            raise KeyError(f"no column {name!r}; there are {', '.join(table.columns[3:])}")
    parts = []
    for (label, environment), rows in table.groupby(["label", "environment"], sort=False):
        runs = [run.dropna() for _, run in rows[["seed", x, column]].groupby("seed")]
        runs = [run for run in runs if len(run) > 0]
        if len(runs) < 2:
            continue
        grid = np.linspace(max(run[x].iloc[0] for run in runs), min(run[x].iloc[-1] for run in runs), points)
        values = np.stack([np.interp(grid, run[x], run[column]) for run in runs])  # [seeds, points]
        mean, low, high = mean_curve(values, confidence)
        where = {"label": label, "environment": environment, "seeds": len(runs)}
        parts.append(pd.DataFrame({**where, x: grid, "mean": mean, "low": low, "high": high}))
    if not parts:
        raise ValueError(f"study {study.name} has no label with at least two runs of {column!r}")
    return pd.concat(parts, ignore_index=True)


def plot_curves(
    curves: pd.DataFrame, ax: Axes | None = None, colors: Mapping[str, str] | None = None, **line
) -> Axes:
    """Draw curves of one environment: a line for each label, and its interval as a band.

    Args:
        curves: rows of ``learning_curves``, those to be drawn.
        ax: axes to draw into; new ones when None.
        colors: by label; matplotlib's own for those without.
        line: passed on to matplotlib's ``plot``.

    Raises:
        ValueError: the curves are of several environments.
    """
    from matplotlib import pyplot as plt

    if curves.environment.nunique() != 1:
        raise ValueError(f"curves are of {sorted(set(curves.environment))}; draw one environment at a time")
    ax = ax or plt.figure().add_subplot()
    x = curves.columns[3]
    for label, rows in curves.groupby("label", sort=False):
        (drawn,) = ax.plot(rows[x], rows["mean"], color=(colors or {}).get(label), label=label, **line)
        ax.fill_between(rows[x], rows.low, rows.high, color=drawn.get_color(), alpha=0.2, linewidth=0)
    ax.set_xlabel({"step": "environment steps"}.get(x, x))
    ax.set_ylabel("episode return")
    if x == "step":
        label_steps(ax)
    return ax


def label_steps(ax: Axes) -> None:
    """Write the steps along an axis in thousands: 0, 10k, 20k."""
    ax.xaxis.set_major_formatter(lambda steps, _: f"{steps / 1000:g}k" if steps else "0")
