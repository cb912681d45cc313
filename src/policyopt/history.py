"""What a training run measured, row by row."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["History"]


class History:
    """Rows of metrics, one for each update.

    ``history["episode_return"]`` is a column as an array, ``history.last`` the newest row,
    ``history.to_frame()`` a pandas frame, ``history.plot("episode_return")`` a figure.

    Attributes:
        rows: the metrics.
        logged_at: when each row was added, by ``time.perf_counter``; NaN for rows of an earlier process. No
            metric, and not saved: it is another one in every run.
    """

    def __init__(self, rows: list[dict[str, float]] | None = None):
        self.rows: list[dict[str, float]] = list(rows or [])
        self.logged_at: list[float] = [math.nan] * len(self.rows)

    def log(self, **metrics: float | Tensor) -> None:
        """Add a row; tensors of one element become plain numbers."""
        self.rows.append({name: _number(value) for name, value in metrics.items()})
        self.logged_at.append(time.perf_counter())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> np.ndarray:
        """A column, one value for each row; NaN where a row lacks it.

        Raises:
            KeyError: no row has it; the message lists the columns there are.
        """
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.columns) or 'none yet'}")
        return np.array([row.get(name, math.nan) for row in self.rows])

    @property
    def columns(self) -> list[str]:
        """Names of all metrics, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def last(self) -> dict[str, float]:
        """The newest row; empty before the first."""
        return self.rows[-1] if self.rows else {}

    def to_frame(self) -> pd.DataFrame:
        """All rows as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=self.columns)

    def plot(self, name: str = "episode_return", x: str = "step", ax: Axes | None = None, **line) -> Axes:
        """Draw one column against another.

        Args:
            name: the column to draw.
            x: the column along the horizontal axis.
            ax: axes to draw into; new ones when None.
            line: passed on to matplotlib's ``plot``, e.g. ``label="PPO"``.
        """
        from matplotlib import pyplot as plt

        ax = ax or plt.figure().add_subplot()
        ax.plot(self[x], self[name], **line)
        ax.set_xlabel({"step": "environment steps"}.get(x, x.replace("_", " ")))
        ax.set_ylabel({"episode_return": "episode return"}.get(name, name.replace("_", " ")))
        return ax

    def state_dict(self) -> dict:
        """The rows, as plain numbers."""
        return {"rows": [dict(row) for row in self.rows]}

    def load_state_dict(self, state: dict) -> None:
        """Take the rows of a saved state."""
        self.rows = [dict(row) for row in state["rows"]]
        self.logged_at = [math.nan] * len(self.rows)

    def __repr__(self) -> str:
        return f"History({len(self)} rows: {', '.join(self.columns)})"


def _number(value: float | Tensor) -> float:
    return value.item() if isinstance(value, Tensor | np.generic) else value
