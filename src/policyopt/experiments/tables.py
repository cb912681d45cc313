"""What a study gave, as tables: histories, evaluations, where the numbers come from, a summary."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.experiments.storage import Result, Store
from policyopt.experiments.study import RESULTS, Cell, Study

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["evaluations", "load", "provenance", "summary"]


def stored_results(study: Study, results: str | os.PathLike) -> Iterator[tuple[Cell, Result]]:
    """The cells that are done. Their version need not be this one, but it must be one."""
    store, version = Store(Path(results) / study.name), None
    for cell in study.cells():
        result = store.read(cell, version)
        if result is not None:
            version = result.about["provenance"]["policyopt"]
            yield cell, result


def _frame(parts: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    if not parts:
        return pd.DataFrame({"label": [], "environment": [], "seed": []})
    return pd.concat(parts, ignore_index=True)


def _rows(cell: Cell, columns: Mapping[str, Any], rows: int) -> pd.DataFrame:
    import pandas as pd

    where = {"label": cell.label, "environment": cell.environment, "seed": cell.seed}
    return pd.DataFrame({**where, **columns}, index=range(rows))


def load(study: Study, results: str | os.PathLike = RESULTS, *, clock: bool = False) -> pd.DataFrame:
    """The histories of all cells that are done, a row for each of theirs: label, environment, seed, and the
    columns of the history. The same on every machine of the same kind, however the study was run.

    Args:
        study: which.
        results: the folder in which it has its own.
        clock: add ``seconds``, from the start of the training to the row. No two runs have the same.

    Raises:
        ValueError: a file is damaged, belongs to another configuration, or another version than the others
            made it; the message names it.
    """
    parts = []
    for cell, result in stored_results(study, results):
        seconds = {"seconds": result.seconds} if clock else {}
        parts.append(_rows(cell, {**result.history, **seconds}, len(result.seconds)))
    return _frame(parts)


def evaluations(study: Study, results: str | os.PathLike = RESULTS) -> pd.DataFrame:
    """The returns of the trained agents' fresh episodes: label, environment, seed, episode, return.

    Raises:
        ValueError: as for ``load``.
    """
    parts = []
    for cell, result in stored_results(study, results):
        number = len(result.returns)
        parts.append(_rows(cell, {"episode": range(number), "return": result.returns}, number))
    return _frame(parts)


def provenance(study: Study, results: str | os.PathLike = RESULTS) -> pd.DataFrame:
    """Where each cell's numbers come from, a row for each: hash, versions, commit, seconds, memory.

    Raises:
        ValueError: as for ``load``.
    """
    found = [(cell, result.about) for cell, result in stored_results(study, results)]
    return _frame([_rows(cell, {"hash": about["hash"], **about["provenance"]}, 1) for cell, about in found])


def summary(study: Study, results: str | os.PathLike = RESULTS) -> pd.DataFrame:
    """A row for each label and environment: cells done, the mean over them of the mean return of the fresh
    episodes, the worst and the best seed's, and the environment steps.

    Raises:
        ValueError: as for ``load``.
    """
    import pandas as pd

    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for cell, result in stored_results(study, results):
        steps = result.history.get("step", np.array([np.nan]))
        rows.setdefault((cell.environment, cell.label), []).append((result.returns.mean(), steps[-1]))
    table, cells = [], study.cells()
    for environment in study.environments:
        for label in study.runs:
            wanted = [cell for cell in cells if (cell.environment, cell.label) == (environment, label)]
            if not wanted:
                continue
            found = np.array(rows.get((environment, label), [])).reshape(-1, 2)
            means = found[:, 0] if len(found) else np.array([np.nan])
            table.append(
                {
                    "label": label,
                    "environment": environment,
                    "done": f"{len(found)}/{len(wanted)}",
                    "return": means.mean(),
                    "worst seed": means.min(),
                    "best seed": means.max(),
                    "steps": found[:, 1].mean() if len(found) else np.nan,
                }
            )
    return pd.DataFrame(table)
