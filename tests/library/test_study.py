"""Studies: the same numbers whatever the engine and whatever was broken off; nothing lost; errors that say
what is wrong.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import types
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

import policyopt
from policyopt import cli
from policyopt.algorithms.a3c import A3CConfig
from policyopt.algorithms.ppo import PPOConfig
from policyopt.evaluation import evaluate
from policyopt.experiments import study as study_module
from policyopt.experiments.studies import STUDIES
from policyopt.experiments.study import Study, failures, run_study, status
from policyopt.experiments.tables import evaluations, load, provenance, summary
from policyopt.processes import context
from policyopt.tuned import tuned_config

SOON = 20  # seconds; it takes one or two, but the machine may be busy


def fake(trainer="train", seeds=3, labels=("one", "two"), **config):
    """A study of a trainer in ``trainers.py``."""
    runs = {label: (f"trainers:{trainer}", {"scale": i + 1, **config}) for i, label in enumerate(labels)}
    return Study("fake", runs, ["CartPole-v1"], range(seeds), eval_episodes=2)


@pytest.fixture
def unbroken(tmp_path_factory):
    """The tables of an unbroken run of ``fake()`` in one process at a time."""
    folder = tmp_path_factory.mktemp("unbroken")
    run_study(fake(), folder, jobs=1, quiet=True)
    return tables(fake(), folder)


def tables(study, folder):
    return load(study, folder), evaluations(study, folder)


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".running.tmp")


@pytest.fixture
def background(monkeypatch):
    """Starts processes that run a study, and kills those that are left."""
    monkeypatch.setitem(
        sys.modules, "__main__", types.ModuleType("__main__")
    )  # pytest's need not start again
    context.set_forkserver_preload(["policyopt", "policyopt.experiments.study", "joblib", "tqdm.auto"])
    names = {"_forkserver_address", "_forkserver_authkey"}  # the second since Python 3.14
    started = []

    def start(*arguments):
        import trainers

        forkserver.ensure_running()
        server = {name: value for name, value in vars(forkserver._forkserver).items() if name in names}
        process = context.Process(target=trainers.run_study, args=(server, *arguments))
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


# --- what is stored ---


def test_what_is_stored_comes_back(tmp_path):
    import trainers

    study = fake(seeds=2)
    counts = run_study(study, tmp_path, jobs=1, quiet=True)
    assert counts == {"cells": 4, "done": 4, "failed": 0, "running": 0, "missing": 0}
    assert files(tmp_path / "fake") == [
        f"{x}__CartPole-v1__{seed}.npz" for x in ("one", "two") for seed in "01"
    ]
    history = load(study, tmp_path)
    assert list(history) == ["label", "environment", "seed", "step", "noise", "drawn", "late"]
    assert len(history) == 4 * 5
    cell = history[(history.label == "two") & (history.seed == 1)]
    assert cell.step.tolist() == [10, 20, 30, 40, 50]
    expected = np.random.default_rng(1).normal(size=5) * 2
    assert cell.noise.tolist() == expected.astype(np.float32).tolist()
    assert cell.late.isna().tolist() == [True] * 3 + [False] * 2
    returns = evaluations(study, tmp_path)
    cell = returns[(returns.label == "one") & (returns.seed == 1)]
    expected = evaluate(trainers.Agent(1), "CartPole-v1", 2, seed=1_000_001)
    assert cell["return"].tolist() == expected.tolist()
    assert cell.episode.tolist() == [0, 1]


def test_a_summary(tmp_path):
    study = fake(seeds=2)
    run_study(dataclasses.replace(study, seeds=range(1)), tmp_path, jobs=1, quiet=True)
    table = summary(study, tmp_path)
    assert table.label.tolist() == ["one", "two"]
    assert table.done.tolist() == ["1/2", "1/2"]
    assert table["return"].tolist() == [evaluations(study, tmp_path)["return"][:2].mean()] * 2
    assert table.steps.tolist() == [50, 50]
    assert summary(study, tmp_path / "nowhere").done.tolist() == ["0/2", "0/2"]
    assert load(study, tmp_path / "nowhere").empty


def test_where_numbers_come_from(tmp_path):
    study = fake(seeds=1)
    run_study(study, tmp_path, jobs=1, quiet=True)
    table = provenance(study, tmp_path)
    assert len(table) == 2
    assert (table.policyopt == policyopt.__version__).all()
    assert (table.wall_seconds > 0).all()
    assert (table.wall_seconds >= table.train_seconds).all()
    assert (table.cpu_seconds > 0).all()
    assert table.cpu.map(len).gt(0).all()
    if sys.platform == "linux":
        assert table.peak_memory_mb.between(10, 2_000).all()
    assert table.hash.nunique() == 2
    other = dataclasses.replace(study, eval_episodes=3)
    assert all(a.run != b.run for a, b in zip(study.cells(), other.cells(), strict=True))


def test_each_cell_has_a_process_of_its_own_with_one_thread(tmp_path):
    study = fake("describe", seeds=2)
    run_study(study, tmp_path, jobs=2, quiet=True)
    history = load(study, tmp_path)
    assert history.pid.nunique() == 4
    assert os.getpid() not in set(history.pid)
    assert (history.threads == 1).all()


def test_columns_can_be_chosen(tmp_path):
    study = dataclasses.replace(fake(seeds=1), columns=["late", "step", "clip_fraction"])
    run_study(study, tmp_path, jobs=1, quiet=True)
    assert list(load(study, tmp_path)) == ["label", "environment", "seed", "step", "late"]


@pytest.mark.parametrize(
    ("rows", "at_most", "kept"),
    [
        (5, None, [0, 1, 2, 3, 4]),
        (5, 5, [0, 1, 2, 3, 4]),
        (5, 4, [0, 2, 4]),
        (5, 1, [4]),
        (6, 3, [1, 3, 5]),
        (0, 3, []),
    ],
)
def test_long_histories_can_be_thinned(rows, at_most, kept):
    assert study_module._spread(rows, at_most).tolist() == kept


def test_a_thinned_history_keeps_its_last_row(tmp_path):
    study = dataclasses.replace(fake(seeds=1, labels=("one",)), max_rows=3)
    run_study(study, tmp_path, jobs=1, quiet=True)
    assert load(study, tmp_path).step.tolist() == [10, 30, 50]


def test_the_clock_runs_beside_the_numbers(tmp_path):
    """Seconds to each row, from the start of the training; no part of what two runs have in common."""
    study = fake(seeds=1, labels=("one",), seconds=0.2)
    run_study(study, tmp_path, jobs=1, quiet=True)
    table = load(study, tmp_path, clock=True)
    assert list(table)[-1] == "seconds"
    assert table.seconds.is_monotonic_increasing
    seconds = provenance(study, tmp_path).train_seconds[0]
    assert 0.2 <= table.seconds.iloc[0] <= table.seconds.iloc[-1] <= seconds + 0.001
    assert "seconds" not in load(study, tmp_path)


def test_a_timed_study_runs_one_cell_at_a_time(tmp_path):
    study = dataclasses.replace(fake(seconds=0.3, labels=("one",)), timed=True)
    run_study(study, tmp_path, jobs=2, quiet=True)
    about = provenance(study, tmp_path)
    paths = sorted((tmp_path / "fake").glob("*.npz"), key=lambda path: path.stat().st_mtime)
    written = np.array([path.stat().st_mtime for path in paths])
    assert (np.diff(written) > 0.3).all()
    assert len(about) == 3


def test_a_label_may_have_no_run_in_an_environment(tmp_path):
    runs = {
        "both": ("trainers:train", {"scale": 1}),
        "one": ("trainers:train", lambda environment: {"scale": 2} if environment == "CartPole-v1" else None),
    }
    study = Study("partly", runs, ["CartPole-v1", "Acrobot-v1"], range(1), eval_episodes=1)
    assert [(cell.label, cell.environment) for cell in study.cells()] == [
        ("both", "CartPole-v1"),
        ("one", "CartPole-v1"),
        ("both", "Acrobot-v1"),
    ]
    table = summary(study, tmp_path)
    assert table[["label", "environment"]].values.tolist() == [
        ["both", "CartPole-v1"],
        ["one", "CartPole-v1"],
        ["both", "Acrobot-v1"],
    ]
    assert table.done.tolist() == ["0/1"] * 3


def test_the_algorithms_of_the_course(tmp_path):
    """PPO gives what it gives outside a study; A3C may start its workers, and what they do is counted."""
    ppo_config = PPOConfig(total_steps=512, num_envs=2, horizon=128, epochs=1)
    runs = {
        "PPO": ("ppo", lambda env: ppo_config),
        "A3C": ("a3c", A3CConfig(total_steps=3_000, num_workers=1)),
    }
    study = Study("real", runs, ["CartPole-v1"], [3], eval_episodes=2)
    assert run_study(study, tmp_path, jobs=1, quiet=True)["done"] == 2
    agent, history = policyopt.ppo.train("CartPole-v1", ppo_config, 3)
    stored = load(study, tmp_path)
    expected = history.to_frame().astype({name: "f4" for name in set(history.columns) - {"step"}})
    stored_ppo = stored[stored.label == "PPO"][list(expected)].reset_index(drop=True)
    pd.testing.assert_frame_equal(stored_ppo, expected, check_exact=True, check_dtype=False)
    returns = evaluations(study, tmp_path)
    assert returns[returns.label == "PPO"]["return"].tolist() == (
        evaluate(agent, "CartPole-v1", 2, seed=1_000_003).tolist()
    )
    assert stored[stored.label == "A3C"].step.max() == 3_000
    if sys.platform == "linux":
        where = provenance(study, tmp_path).set_index("label")
        # Its one worker did the training; the cell's own process only waited.
        assert where.peak_memory_mb["A3C"] > 1.3 * where.peak_memory_mb["PPO"]
        assert where.train_cpu_seconds["A3C"] > 0.1


# --- the same whatever happens ---


def test_one_job_and_two_give_the_same(tmp_path, unbroken):
    run_study(fake(), tmp_path, jobs=2, quiet=True)
    assert_same(tables(fake(), tmp_path), unbroken)


def test_ray_gives_the_same(tmp_path, unbroken):
    pytest.importorskip("ray")
    run_study(fake(), tmp_path, jobs=2, engine="ray", quiet=True)
    assert_same(tables(fake(), tmp_path), unbroken)


def kill(process):
    """Killed as it connects to the server that it shares with this process, it takes the server with it.
    Start nothing else until that is over: the server is there when it has started a process and seen it end.
    """
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL, 255)  # the last: nobody was left to see it end
    deadline, exitcode = time.monotonic() + SOON, None
    while exitcode != 0:
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError, EOFError):
            probe = context.Process(target=str)
            probe.start()
            probe.join()
            exitcode = probe.exitcode


def test_killed_twenty_times_and_resumed(tmp_path, background):
    study, moments, killed, partial = fake(seconds=0.02), random.Random(0), 0, 0
    background(study, tmp_path / "first").join()  # its server had to be started, too
    background(study, tmp_path / "whole").join()
    unbroken = tables(study, tmp_path / "whole")
    for attempt in range(20):
        folder = tmp_path / str(attempt)
        process = background(study, folder)
        cells = moments.randrange(6)
        while process.is_alive() and status(study, folder)["done"] < cells:
            time.sleep(0.001)
        time.sleep(moments.random() * 0.02)
        kill(process)
        killed += process.exitcode != 0
        partial += 0 < status(study, folder)["done"] < 6
        assert run_study(study, folder, jobs=2, quiet=True)["done"] == 6
        assert_same(tables(study, folder), unbroken)
        assert len(files(folder)) == 6  # no temporary file is left
    assert killed >= 10
    assert partial >= 1


def test_two_runs_at_once_share_the_cells(tmp_path, background):
    log = tmp_path / "log"
    study = fake(seeds=15, labels=("one",), seconds=0.05, log=str(log))
    processes = [background(study, tmp_path, 1) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(map(int, log.read_text().split())) == list(range(15))
    assert status(study, tmp_path)["done"] == 15


def test_what_another_process_runs_is_left_to_it_until_it_ends(tmp_path, background):
    study = fake("hang", seeds=1, labels=("one",), pids=str(tmp_path))
    process = background(study, tmp_path, 1)
    wait_for(lambda: status(study, tmp_path)["running"] == 1)
    assert run_study(study, tmp_path, jobs=1, quiet=True)["running"] == 1  # at once
    process.kill()
    process.join()
    assert status(study, tmp_path)["missing"] == 1


def wait_for(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_done_is_not_done_again(tmp_path):
    log = tmp_path / "log"
    study = fake(seeds=2, labels=("one",), log=str(log))
    for _ in range(2):
        run_study(study, tmp_path, jobs=1, quiet=True)
    assert len(log.read_text().split()) == 2
    run_study(dataclasses.replace(study, seeds=range(3)), tmp_path, jobs=1, quiet=True)  # a study may grow
    assert log.read_text().split() == ["0", "1", "2"]


# --- what goes wrong ---


def test_a_failing_cell_is_recorded_and_does_not_stop_the_others(tmp_path):
    mended = tmp_path / "mended"
    study = fake("fail", labels=("one",), mended=str(mended))
    assert run_study(study, tmp_path, jobs=1, quiet=True) == {
        "cells": 3, "done": 2, "failed": 1, "running": 0, "missing": 0
    }  # fmt: skip
    [(name, error)] = failures(study, tmp_path).items()
    assert name == "one__CartPole-v1__1"
    assert (error["type"], error["message"]) == ("FloatingPointError", "the loss is nan")
    assert 'raise FloatingPointError("the loss is nan")' in error["traceback"]
    mended.touch()
    assert run_study(study, tmp_path, jobs=1, quiet=True)["failed"] == 1  # not again unless asked
    assert run_study(study, tmp_path, jobs=1, quiet=True, retry_failed=True)["done"] == 3
    assert failures(study, tmp_path) == {}
    assert not list(tmp_path.rglob("*.error.json"))


def test_a_failure_of_another_configuration_is_forgotten(tmp_path):
    study = fake("fail", labels=("one",), mended=str(tmp_path / "mended"))
    run_study(study, tmp_path, jobs=1, quiet=True)
    for path in tmp_path.rglob("*.npz"):
        path.unlink()
    assert status(study, tmp_path)["failed"] == 1
    other = fake("fail", labels=("one",), mended=str(tmp_path))
    assert status(other, tmp_path)["missing"] == 3
    assert run_study(other, tmp_path, jobs=1, quiet=True)["done"] == 3


def test_a_history_of_objects_is_a_failure(tmp_path):
    study = fake("note", seeds=1, labels=("one",))
    run_study(study, tmp_path, jobs=1, quiet=True)
    [error] = failures(study, tmp_path).values()
    assert error["message"] == "the history's column 'note' does not consist of numbers"


def test_a_cell_that_dies_is_a_failed_one(tmp_path):
    study = fake("die", seeds=1)
    assert run_study(study, tmp_path, jobs=2, quiet=True)["failed"] == 2
    for error in failures(study, tmp_path).values():
        assert error["type"] == "ProcessDied"
        assert "killed by SIGKILL, often a sign of too little memory" in error["message"]


def test_a_cell_of_another_configuration_is_refused(tmp_path):
    run_study(fake(seeds=1), tmp_path, jobs=1, quiet=True)
    before = (tmp_path / "fake" / "two__CartPole-v1__0.npz").read_bytes()
    other = fake(seeds=1, scale=1)
    message = (
        r"two__CartPole-v1__0.npz belongs to another configuration: its config.scale is 2, "
        "this study's is 1; to run the cell again, delete the file"
    )
    for use in (functools.partial(run_study, quiet=True), load, summary):
        with pytest.raises(ValueError, match=message):
            use(other, tmp_path)
    assert (tmp_path / "fake" / "two__CartPole-v1__0.npz").read_bytes() == before


def test_a_cell_of_another_version_is_refused(tmp_path, monkeypatch):
    study = fake(seeds=1)
    run_study(study, tmp_path, jobs=1, quiet=True)
    expected = load(study, tmp_path)
    monkeypatch.setattr(policyopt, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"one.*npz was made by policyopt \S+, not by 99.0; to run"):
        run_study(study, tmp_path, quiet=True)
    pd.testing.assert_frame_equal(load(study, tmp_path), expected)  # to be read it need not be this version


def test_cells_of_several_versions_are_no_table(tmp_path):
    study = fake(seeds=1)
    run_study(study, tmp_path, jobs=1, quiet=True)
    path = tmp_path / "fake" / "two__CartPole-v1__0.npz"
    with np.load(path) as file:
        content = dict(file)
    about = json.loads(content["about"].tobytes())
    about["provenance"]["policyopt"] = "0.0.1"
    np.savez_compressed(path, **{**content, "about": np.frombuffer(json.dumps(about).encode(), "u1")})
    with pytest.raises(ValueError, match=r"two.*npz was made by policyopt 0.0.1, not by"):
        load(study, tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a zip", "pickle", "other"])
def test_a_damaged_file_is_refused(content, tmp_path):
    study = fake(seeds=1)
    path = tmp_path / "fake" / "one__CartPole-v1__0.npz"
    path.parent.mkdir()
    if content == "pickle":
        np.savez(path, about=np.array({"run": 1}, dtype=object))
    elif content == "other":
        np.savez(path, weights=np.zeros(3))
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=r"one.*npz is not a cell of a study, or it is damaged; to run the cell"
    ):
        run_study(study, tmp_path, quiet=True)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(OSError, match=r"cannot write results to .*results/fake: Not a directory"):
        run_study(fake(), tmp_path / "results", quiet=True)
    (tmp_path / "fake").touch()
    with pytest.raises(OSError, match=r"cannot write results to .*fake: File exists"):
        run_study(fake(), tmp_path, quiet=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_to_be_read_only(tmp_path):
    (tmp_path / "fake").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="cannot write results to"):
        run_study(fake(), tmp_path, quiet=True)


def test_a_full_disk(tmp_path, monkeypatch, unbroken):
    writes = iter(range(100))

    def fsync(file):
        if next(writes) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("policyopt.files.os.fsync", fsync)
        with pytest.raises(OSError, match=r"cannot write .*npz: No space left on device"):
            run_study(fake(), tmp_path, jobs=1, quiet=True)
    assert len(files(tmp_path)) == 2
    assert status(fake(), tmp_path) == {"cells": 6, "done": 2, "failed": 0, "running": 0, "missing": 4}
    run_study(fake(), tmp_path, jobs=1, quiet=True)
    assert_same(tables(fake(), tmp_path), unbroken)


def test_an_error_while_claiming_is_not_lost(tmp_path, monkeypatch):
    def claim(store, cell):
        raise OSError("no locks available")

    monkeypatch.setattr(study_module.Store, "claim", claim)
    with pytest.raises(OSError, match="no locks available"):
        run_study(fake(), tmp_path, jobs=2, quiet=True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupting_ends_the_processes_and_keeps_what_is_done(jobs, tmp_path):
    runs = {"quick": ("trainers:train", {"scale": 1}), "slow": ("trainers:hang", {"pids": str(tmp_path)})}
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from policyopt import cli\n"
        "from policyopt.experiments.studies import STUDIES\n"
        "from policyopt.experiments.study import Study\n"
        f"STUDIES['x'] = Study('x', {runs!r}, ['CartPole-v1'], [0], 2)\n"
        f"cli.main(['study', 'run', 'x', '--results', {str(tmp_path)!r}, '--jobs', '{jobs}', '--quiet'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        wait_for(
            lambda: list(tmp_path.rglob("quick*.npz")) and any(p.name.isdigit() for p in tmp_path.iterdir())
        )
        [pid] = [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, err = process.communicate(timeout=SOON)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.decode().strip() == "policyopt: interrupted"
    assert out.decode().startswith("1/2 quick__CartPole-v1__0: done")
    assert not psutil.pid_exists(pid)
    assert len(list(tmp_path.rglob("*.npz"))) == 1


# --- what cannot be asked for ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, r"Study.name is 'a/b'"),
        ({"runs": {}}, "Study.runs is empty"),
        ({"environments": "CartPole-v1"}, "must be lists of names, not one string"),
        ({"seeds": []}, "Study.seeds is empty"),
        ({"seeds": [-1]}, "seed is -1"),
        ({"seeds": [1, 1]}, "two cells have the file name one__CartPole-v1__1"),
        ({"eval_episodes": 0}, "Study.eval_episodes is 0"),
        ({"max_rows": 0}, "Study.max_rows is 0"),
        ({"runs": {"a b": ("ppo", PPOConfig()), "a/b": ("ppo", PPOConfig())}}, "labels must differ"),
        ({"runs": {"PPO": ("ppo", {"gamma": 1})}}, r"Study.runs\['PPO'\] has the config .* be a dataclass$"),
        (
            {"runs": {"x": ("m:f", {"net": object()})}},
            r"Study.runs\['x'\] has a config that is not plain values",
        ),
    ],
)
def test_studies_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(fake(), **change)


@pytest.mark.parametrize("algorithm", ["pppo", "trainers:nothing", "no.such:train"])
def test_algorithms_that_do_not_exist(algorithm, tmp_path):
    with pytest.raises(ValueError, match=f"no algorithm '{algorithm}' .*; it must be a module of"):
        run_study(Study("s", {"x": (algorithm, PPOConfig())}, ["CartPole-v1"]), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"engine": "dask"}, "engine is 'dask'; it must be one of 'local', 'ray'"),
        ({"jobs": 0}, "jobs is 0; it must be a whole number ≥ 1, or -1"),
        ({"address": "auto"}, "only 'ray' has an address"),
    ],
)
def test_engines_that_do_not_exist(choice, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_study(fake(), tmp_path, **choice)


def test_ray_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"engine 'ray' needs Ray: pip install 'policyopt\[ray\]'"):
        run_study(fake(), tmp_path, engine="ray")
    assert run_study(fake(seeds=1), tmp_path, quiet=True)["done"] == 2


# --- the command, and the declared studies ---


def test_the_declared_studies_are_named_as_they_are():
    assert "smoke" in STUDIES
    for name, study in STUDIES.items():
        assert study.name == name
        for algorithm, _ in study.runs.values():
            assert callable(study_module.find_train(algorithm))


def test_settings_may_depend_on_the_environment():
    environments = ["CartPole-v1", "Acrobot-v1"]
    study = Study("tuned", {"PPO": ("ppo", functools.partial(tuned_config, "ppo"))}, environments, [0])
    assert [cell.config for cell in study.cells()] == [tuned_config("ppo", name) for name in environments]


def test_the_command(tmp_path, capsys, monkeypatch):
    mended = tmp_path / "mended"
    monkeypatch.setitem(STUDIES, "fake", fake("fail", seeds=2, labels=("one",), mended=str(mended)))

    def command(*arguments):
        with contextlib.suppress(SystemExit):
            cli.main(["study", *arguments, "fake", "--results", str(tmp_path)])
        return capsys.readouterr()

    assert "2 cells, 0 done, 0 failed, 0 running, 2 missing" in command("status").out
    with pytest.raises(SystemExit) as caught:
        cli.main(["study", "run", "fake", "--results", str(tmp_path), "--quiet"])
    assert caught.value.code == 1
    printed = capsys.readouterr()
    assert "failed (FloatingPointError: the loss is nan); about 0 min left" in printed.out
    assert "policyopt study status fake says why cells failed" in printed.err
    assert "one__CartPole-v1__1 failed: FloatingPointError" in command("status").out
    assert "1/2" in command("summary").out
    mended.touch()
    printed = command("resume", "--jobs", "1")
    assert "2 cells, 2 done" in printed.out
    assert "2/2" in printed.err  # the progress bar
    assert "2/2" in command("summary").out
    with pytest.raises(SystemExit) as caught:
        cli.main(["study", "run", "nope"])
    assert caught.value.code == 2
    assert "there is no study 'nope'; there are benchmark" in capsys.readouterr().err
    assert threading.active_count() < 20
