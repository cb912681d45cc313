"""What rules ask of the stored results: numbers of whole studies, or an error that says what is missing."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from policyopt.experiments.stats import (
    Interval,
    TimeToThreshold,
    first_crossing,
    interval,
    mean_score,
    time_to_threshold,
)
from policyopt.experiments.storage import Result
from policyopt.experiments.studies import STUDIES
from policyopt.experiments.study import RESULTS, Study
from policyopt.experiments.tables import stored_results

__all__ = ["SOLVED", "Evidence", "MissingEvidence"]

# The mean return of 100 episodes from which a task counts as solved. Gymnasium names those of CartPole and
# Acrobot; Pendulum has none, −200 is a pendulum that swings up and stays there.
SOLVED = {"CartPole-v1": 475.0, "Acrobot-v1": -100.0, "Pendulum-v1": -200.0}


class MissingEvidence(LookupError):
    """A study that a rule needs has not been run, or not whole."""


class Evidence:
    """The stored results of studies, read once, and only whole ones.

    Every method raises ``MissingEvidence`` where a cell of the study it needs is missing, and ``ValueError``
    where one is damaged or belongs to another configuration, or to another version than the others.

    Args:
        results: the folder in which the studies have their own.
    """

    def __init__(self, results: str | PathLike = RESULTS):
        self.results = Path(results)
        self._studies: dict[str, dict[tuple[str, str], list[Result]]] = {}

    def require(self, study: str) -> None:
        """See that a study is whole."""
        self._read(STUDIES[study])

    def cells(self, study: str, label: str, environment: str) -> list[Result]:
        """The results of a label in an environment, one for each seed, in their order."""
        found = self._read(STUDIES[study])
        if (label, environment) not in found:
            raise KeyError(f"study {study} has no run {label!r} in {environment}")
        return found[label, environment]

    def _read(self, study: Study) -> dict[tuple[str, str], list[Result]]:
        if study.name not in self._studies:
            stored, total, found = list(stored_results(study, self.results)), len(study.cells()), {}
            if len(stored) < total:
                raise MissingEvidence(
                    f"study {study.name}: {len(stored)} of {total} cells are done; "
                    f"policyopt study run {study.name}"
                )
            for cell, result in stored:
                found.setdefault((cell.label, cell.environment), []).append(result)
            self._studies[study.name] = found
        return self._studies[study.name]

    def final(self, study: str, label: str, environment: str) -> np.ndarray:
        """The mean return of each trained agent's fresh episodes, greedy, ``[seeds]``."""
        return np.array(
            [result.returns.mean(dtype=float) for result in self.cells(study, label, environment)]
        )

    def solved(self, study: str, label: str, environment: str) -> np.ndarray:
        """Whether each trained agent solves the task, ``[seeds]`` bool."""
        return self.final(study, label, environment) >= SOLVED[environment]

    @cached_property
    def chance(self) -> dict[str, float]:
        """What the random policy earns on average in each task of the benchmark."""
        return {
            environment: float(self.final("benchmark", "random", environment).mean())
            for environment in SOLVED
        }

    def score(self, study: str, label: str, environment: str) -> np.ndarray:
        """The final returns on a scale all tasks share: 0 is chance, 1 is solved, ``[seeds]``."""
        chance = self.chance[environment]
        return (self.final(study, label, environment) - chance) / (SOLVED[environment] - chance)

    def scores(self, study: str, label: str, environments: Sequence[str]) -> np.ndarray:
        """``score`` for several tasks, ``[seeds, tasks]``."""
        return np.stack([self.score(study, label, environment) for environment in environments], axis=1)

    def column(self, study: str, label: str, environment: str, name: str) -> list[np.ndarray]:
        """A column of the histories, one array for each seed; ``seconds`` is the clock's."""
        return [
            result.seconds if name == "seconds" else result.history[name]
            for result in self.cells(study, label, environment)
        ]

    def last(self, study: str, label: str, environment: str, name: str) -> np.ndarray:
        """The last row of a column, ``[seeds]``."""
        return np.array([values[-1] for values in self.column(study, label, environment, name)], dtype=float)

    def times(
        self,
        runs: Sequence[tuple[str, str]],
        environment: str,
        by: str = "step",
        of: str = "episode_return",
        level: float | None = None,
    ) -> dict[tuple[str, str], TimeToThreshold]:
        """How long runs take until their training return reaches a level, for several labels up to one
        horizon: the shortest time for which a label with censored runs was watched; where there is none, the
        last crossing of all.

        Args:
            runs: pairs of a study and a label.
            environment: the task.
            by: the column that counts, e.g. ``"step"`` or ``"seconds"``.
            of: the column that is to reach the level.
            level: what counts as solved in this environment, when None.
        """
        crossings, level = {}, SOLVED[environment] if level is None else level
        for study, label in runs:
            clocks = self.column(study, label, environment, by)
            returns = self.column(study, label, environment, of)
            pairs = zip(clocks, returns, strict=True)
            found = [first_crossing(clock, values, level) for clock, values in pairs]
            crossings[study, label] = tuple(map(np.array, zip(*found, strict=True)))
        censored = [times.max() for times, reached in crossings.values() if not reached.all()]
        horizon = min(censored) if censored else max(times.max() for times, _ in crossings.values())
        return {run: time_to_threshold(*crossing, horizon=horizon) for run, crossing in crossings.items()}

    def mean(self, study: str, label: str, environment: str) -> Interval:
        """The mean of the final returns over seeds and its interval."""
        return interval(self.final(study, label, environment)[:, None], mean_score)
