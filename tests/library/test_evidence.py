"""What rules read of stored studies: whole ones only, and numbers worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from policyopt.evaluation import evaluate
from policyopt.experiments import evidence as module
from policyopt.experiments.evidence import SOLVED, Evidence, MissingEvidence
from policyopt.experiments.storage import Result, Store, pack_result
from policyopt.experiments.study import Study, run_study

NAN = float("nan")
CARTPOLE, ACROBOT, PENDULUM = TASKS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")


def study(name, labels, environments=TASKS):
    return Study(name, {label: ("trainers:train", {"scale": 1}) for label in labels}, environments, range(2))


BENCHMARK, OTHER = study("benchmark", ["random", "ours"]), study("other", ["fast", "slow"], [CARTPOLE])

RETURNS = {  # of two episodes, for each of two seeds
    ("random", CARTPOLE): [[10, 30], [20, 40]],  # 25 on average
    ("random", ACROBOT): [[-500, -500], [-500, -500]],
    ("random", PENDULUM): [[-1300, -1100], [-1200, -1200]],
    ("ours", CARTPOLE): [[475, 475], [150, 350]],
    ("ours", ACROBOT): [[-100, -100], [-300, -300]],
    ("ours", PENDULUM): [[-300, -100], [-1200, -1200]],
}
CURVES = {  # steps, seconds and training returns, for each of two seeds
    "ours": (([100, 200, 300], [1, 2, 4], [NAN, 475, 100]), ([100, 200, 300], [1, 2, 4], [NAN, 20, 474])),
    "fast": (([100, 400, 500], [0.5, 2, 2.5], [500] * 3), ([100, 400, 500], [0.5, 2, 2.5], [20, 480, 480])),
    "slow": (([50, 150], [6, 7], [20, 20]), ([50, 250], [2, 3], [20, 20])),
}


def write(folder, cell, run=None):
    curve = CURVES.get(cell.label, CURVES["slow"])[cell.seed]
    steps, seconds, returns = (np.array(values, dtype=float) for values in curve)
    played = np.array(RETURNS.get((cell.label, cell.environment), [[0], [0]])[cell.seed], dtype=float)
    about = {"run": run or cell.run, "provenance": {"policyopt": "0.1"}}
    result = Result({"step": steps.astype(int), "episode_return": returns}, played, seconds, about)
    (folder / cell.study).mkdir(exist_ok=True)
    Store(folder / cell.study).write(cell, pack_result(result))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder with both studies, whole."""
    monkeypatch.setattr(module, "STUDIES", {"benchmark": BENCHMARK, "other": OTHER})
    for cell in BENCHMARK.cells() + OTHER.cells():
        write(tmp_path, cell)
    return tmp_path


# --- only whole studies ---


def test_what_run_study_wrote_is_read(tmp_path, monkeypatch):
    import trainers

    made = Study("made", {"a": ("trainers:train", {"scale": 3})}, [CARTPOLE], range(2), eval_episodes=2)
    monkeypatch.setattr(module, "STUDIES", {"made": made})
    run_study(made, tmp_path, jobs=1, quiet=True)
    evidence = Evidence(tmp_path)
    evidence.require("made")
    for seed, noise in enumerate(evidence.column("made", "a", CARTPOLE, "noise")):
        expected = 3 * np.random.default_rng(seed).normal(size=5)
        assert noise.tolist() == expected.astype(np.float32).tolist()
    played = [evaluate(trainers.Agent(seed), CARTPOLE, 2, seed=1_000_000 + seed).mean() for seed in range(2)]
    assert evidence.final("made", "a", CARTPOLE).tolist() == played


QUESTIONS = {
    "require": lambda evidence: evidence.require("benchmark"),
    "cells": lambda evidence: evidence.cells("benchmark", "ours", ACROBOT),
    "final": lambda evidence: evidence.final("benchmark", "ours", ACROBOT),
    "solved": lambda evidence: evidence.solved("benchmark", "ours", ACROBOT),
    "chance": lambda evidence: evidence.chance,
    "score": lambda evidence: evidence.score("other", "fast", CARTPOLE),  # which needs chance
    "scores": lambda evidence: evidence.scores("benchmark", "ours", TASKS),
    "column": lambda evidence: evidence.column("benchmark", "ours", CARTPOLE, "step"),
    "last": lambda evidence: evidence.last("benchmark", "ours", CARTPOLE, "step"),
    "times": lambda evidence: evidence.times([("other", "fast"), ("benchmark", "ours")], CARTPOLE),
    "mean": lambda evidence: evidence.mean("benchmark", "ours", CARTPOLE),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_one_missing_cell_and_there_is_no_number(results, ask):
    ask(Evidence(results))
    gone = BENCHMARK.cells()[-1]
    Store(results / "benchmark").path(gone).unlink()
    evidence = Evidence(results)
    for _ in range(2):
        with pytest.raises(MissingEvidence) as caught:
            ask(evidence)
        message = "study benchmark: 11 of 12 cells are done; policyopt study run benchmark"
        assert str(caught.value) == message
    evidence.require("other")
    write(results, gone)  # nothing was remembered of the study while it was not whole
    ask(evidence)


def test_a_study_nobody_ran_and_a_failed_cell_are_missing(results):
    store, cell = Store(results / "other"), OTHER.cells()[0]
    store.path(cell).unlink()
    store.write_error(cell, {"type": "ValueError", "message": "", "traceback": ""}, {"policyopt": "0.1"})
    with pytest.raises(MissingEvidence, match="3 of 4 cells"):
        Evidence(results).require("other")
    with pytest.raises(MissingEvidence, match="0 of 4 cells"):
        Evidence(results / "nowhere").require("other")
    assert not (results / "nowhere").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path, cell: path.write_bytes(b"junk"), "damaged"),
        (lambda path, cell: path.write_bytes(path.read_bytes()[:-30]), "damaged"),
        (
            lambda path, cell: write(path.parents[1], cell, {**cell.run, "config.scale": 7}),
            "another configuration: its config.scale is 7, this study's is 1",
        ),
    ],
    ids=["junk", "cut off", "configuration"],
)
def test_a_spoilt_cell_is_an_error(results, spoil, message):
    cell = BENCHMARK.cells()[3]
    path = Store(results / "benchmark").path(cell)
    spoil(path, cell)
    with pytest.raises(ValueError, match=message) as caught:
        Evidence(results).final("benchmark", "random", CARTPOLE)  # of a cell that is not spoilt
    assert str(path) in str(caught.value)


def test_a_study_is_read_once(results):
    evidence = Evidence(results)
    first = evidence.final("other", "fast", CARTPOLE)
    for path in (results / "other").iterdir():
        path.unlink()
    assert evidence.final("other", "fast", CARTPOLE).tolist() == first.tolist()


def test_cells_are_in_the_seeds_order_and_unknown_runs_are_refused(results):
    evidence = Evidence(results)
    cells = evidence.cells("other", "slow", CARTPOLE)
    assert [cell.about["run"]["seed"] for cell in cells] == [0, 1]
    with pytest.raises(KeyError, match="study other has no run 'slow' in Acrobot-v1"):
        evidence.cells("other", "slow", ACROBOT)


# --- numbers ---


def test_returns_and_scores_by_hand(results):
    evidence = Evidence(results)
    assert evidence.final("benchmark", "random", CARTPOLE).tolist() == [20, 30]
    assert evidence.final("benchmark", "ours", CARTPOLE).tolist() == [475, 250]
    assert evidence.mean("benchmark", "ours", CARTPOLE) == (362.5, 250, 475)  # of two draws all may be one
    for task in TASKS:  # the first exactly reaches it
        assert evidence.solved("benchmark", "ours", task).tolist() == [True, False]
    assert evidence.chance == {CARTPOLE: 25, ACROBOT: -500, PENDULUM: -1200}
    assert evidence.score("benchmark", "ours", CARTPOLE).tolist() == [1, 0.5]  # (250 − 25) / (475 − 25)
    assert evidence.score("other", "slow", CARTPOLE).tolist() == [-25 / 450] * 2
    scores = evidence.scores("benchmark", "ours", (PENDULUM, ACROBOT, CARTPOLE))
    assert scores.tolist() == [[1, 1, 1], [0, 0.5, 0.5]]
    assert SOLVED == {CARTPOLE: 475, ACROBOT: -100, PENDULUM: -200}


def test_columns_by_hand(results):
    evidence = Evidence(results)
    steps = evidence.column("other", "slow", CARTPOLE, "step")
    assert [values.tolist() for values in steps] == [[50, 150], [50, 250]]
    seconds = evidence.column("other", "slow", CARTPOLE, "seconds")
    assert [values.tolist() for values in seconds] == [[6, 7], [2, 3]]
    assert evidence.last("other", "slow", CARTPOLE, "step").tolist() == [150, 250]
    assert evidence.last("other", "slow", CARTPOLE, "seconds").tolist() == [7, 3]
    assert evidence.last("benchmark", "ours", CARTPOLE, "episode_return").tolist() == [100, 474]


OURS, FAST, SLOW = ("benchmark", "ours"), ("other", "fast"), ("other", "slow")


@pytest.mark.parametrize(
    ("runs", "by", "horizon", "means"),
    [
        # Nobody is censored: up to the last crossing, and the mean is that of 100 and 400.
        ([FAST], "step", 400, [250]),
        # Ours crosses at 200, or not by 300: 200 + 100/2. The other: 100 + 200/2.
        ([OURS, FAST], "step", 300, [250, 200]),
        # Slow was watched for 250, longer than ours until it crossed, shorter than ours until it was lost.
        ([OURS, FAST, SLOW], "step", 250, [225, 175, 250]),
        ([SLOW], "step", 250, [250]),
        # Ours at 2 s, or not by 4 s: 2 + 2/2. The other at 0.5 s and 2 s.
        ([OURS, FAST], "seconds", 4, [3, 1.25]),
        ([FAST], "seconds", 2, [1.25]),
    ],
)
def test_times_by_hand(results, runs, by, horizon, means):
    times = Evidence(results).times(runs, CARTPOLE, by)
    assert list(times) == runs
    assert [time.horizon for time in times.values()] == [horizon] * len(runs)
    assert [time.restricted_mean.point for time in times.values()] == means
    shares = {OURS: 0.5, FAST: 1, SLOW: 0}
    assert [time.reached.point for time in times.values()] == [shares[run] for run in runs]


def test_times_use_the_tasks_own_threshold(monkeypatch):
    evidence = Evidence()
    result = SimpleNamespace(
        history={"step": np.array([10, 20]), "episode_return": np.array([-101.0, -100.0])}
    )
    monkeypatch.setattr(evidence, "cells", lambda *where: [result, result])
    for task, share, mean in ((ACROBOT, 1, 20), (PENDULUM, 1, 10), (CARTPOLE, 0, 20)):
        time = evidence.times([("any", "run")], task)["any", "run"]
        assert (time.reached.point, time.restricted_mean.point) == (share, mean)
