"""Worker processes: what they send arrives, and whatever happens none is left."""

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
import torch

from policyopt.processes import Budget, WorkerError, context, run_workers

SOON = 20  # seconds; it takes one or two, but the machine may be busy


def count_to(number):
    yield from range(number)


def rest_after_the_first_report(*_):
    yield os.getpid()
    time.sleep(1_000)


@pytest.fixture(autouse=True)
def no_worker_is_left():
    start = time.monotonic()
    yield
    assert multiprocessing.active_children() == []
    assert time.monotonic() - start < SOON


def running(pids):
    """Which of these processes still live; a zombie nobody has asked about does not."""
    alive = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
    return alive


def assert_soon(condition):
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- reports ---


def test_all_reports_arrive_in_each_workers_order():
    def numbered(worker, number):
        for i in range(number):
            yield worker, i

    reports = list(run_workers(numbered, [("a", 3), ("b", 0), ("c", 500)]))
    for worker, number in (("a", 3), ("b", 0), ("c", 500)):
        assert [i for name, i in reports if name == worker] == list(range(number))


def test_nothing_starts_before_the_first_report_is_asked_for():
    reports = run_workers(count_to, [(3,), (3,)])
    assert multiprocessing.active_children() == []
    assert next(reports) == 0
    assert len(multiprocessing.active_children()) == 2
    reports.close()
    run_workers(count_to, [(3,)]).close()


def test_arguments_are_copies_and_what_is_shared_is_not():
    def change(own, function, counter, tensor):
        own.append(1)
        with counter.get_lock():
            counter.value += function(20)
        tensor += 1
        yield len(own)

    own, counter, tensor = [], context.Value("q", 0), torch.zeros(3).share_memory_()
    reports = list(run_workers(change, [(own, lambda x: x + 1)] * 2, [counter, tensor]))
    assert reports == [1, 1]
    assert own == []
    assert counter.value == 42
    assert tensor.tolist() == [2, 2, 2]


def test_a_worker_has_one_thread_and_random_numbers_of_its_own():
    def describe():
        yield torch.get_num_threads(), np.random.random(), random.random()  # noqa: NPY002

    (threads, *first), (_, *second) = run_workers(describe, [()] * 2)
    assert threads == 1
    assert not set(first) & set(second)


def test_arguments_that_cannot_be_sent_are_an_error():
    with pytest.raises(ValueError, match=r"cannot be copied to another process: .*'_thread.lock'"):
        list(run_workers(count_to, [(3,), (threading.Lock(),)]))


def test_a_budget_is_claimed_and_given_back():
    budget = Budget(total=12, taken=2)
    assert budget.claim(4) == range(2, 6)
    assert budget.claim(4) == range(6, 10)
    budget.give_back(1)
    assert budget.claim(4) == range(9, 12)
    assert not budget.claim(4)
    budget.give_back(1)
    assert budget.claim(4) == range(11, 12)


def test_workers_share_a_budget():
    def spend(budget):
        while claimed := budget.claim(7):
            budget.give_back(len(claimed) // 2)
            yield len(claimed) - len(claimed) // 2

    reports = list(run_workers(spend, [()] * 3, [Budget(1_000)]))
    assert sum(reports) == 1_000


def test_workers_that_start_from_nothing(monkeypatch):
    """As they do on macOS and Windows."""
    monkeypatch.setattr("policyopt.processes.context", multiprocessing.get_context("spawn"))
    budget, tensor = Budget(10), torch.zeros(1).share_memory_()

    def spend(budget, tensor):
        tensor += len(budget.claim(10))
        yield 1

    assert list(run_workers(spend, [()], [budget, tensor])) == [1]
    assert tensor.item() == 10
    with pytest.raises(WorkerError, match=r"worker 0 died: .* exit code 3"):
        list(run_workers(lambda: os._exit(3), [()]))


# --- errors ---


class OddError(Exception):
    """It cannot be built again from its arguments alone."""

    def __init__(self, number, text):
        super().__init__(f"{text} {number}")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(lambda: FloatingPointError("bad 7"), FloatingPointError), (lambda: OddError(7, "bad"), WorkerError)],
    ids=["builtin", "odd"],
)
def test_a_workers_error_ends_them_all(error, kind):
    def fail(fails):
        yield 1
        if not fails:
            time.sleep(1_000)
        raise error()

    with pytest.raises(kind) as caught:
        list(run_workers(fail, [(False,), (True,)]))
    failure = caught.value if kind is WorkerError else caught.value.__cause__
    assert isinstance(failure, WorkerError)
    assert isinstance(failure, RuntimeError)
    assert str(failure).startswith("worker 1 failed:")
    assert "Traceback" in str(failure)
    assert "in fail" in str(failure)
    assert "bad 7" in str(failure)


def test_an_error_of_a_class_that_only_this_program_knows_is_of_that_class():
    class Mine(Exception):
        pass

    def fail():
        yield 1
        raise Mine("here")

    with pytest.raises(Mine, match="here"):
        list(run_workers(fail, [()]))


def test_a_report_that_cannot_be_sent_is_an_error():
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
        list(run_workers(lambda: [count_to(3)], [()]))


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "killed by SIGTERM"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: sys.exit(0), "exit code 0 before its work was done"),
    ],
    ids=["SIGKILL", "SIGTERM", "_exit", "exit"],
)
def test_a_workers_death_ends_them_all(end, reason):
    def die(dies):
        yield 1
        if not dies:
            time.sleep(1_000)
        end()

    with pytest.raises(WorkerError, match=f"worker 1 died: .*{reason}"):
        list(run_workers(die, [(False,), (True,), (False,)]))


def test_a_worker_may_die_with_a_lock_that_others_wait_for():
    def die(dies, lock, held):
        if dies:
            lock.acquire()
            held.set()
            os._exit(3)
        held.wait()
        lock.acquire()
        yield 1

    with pytest.raises(WorkerError, match=r"worker 0 died: .* exit code 3"):
        list(run_workers(die, [(True,), (False,)], [context.Lock(), context.Event()]))


def test_a_worker_may_die_in_the_middle_of_a_message():
    def send_half_a_report():
        class Endless:
            def __reduce__(self):
                return bytes, (bytes(2**20),)  # more than a pipe holds

        def die():
            time.sleep(0.5)
            os._exit(3)

        threading.Thread(target=die).start()
        while True:
            yield Endless()

    with contextlib.closing(run_workers(send_half_a_report, [()])) as reports:
        next(reports)
        time.sleep(1)  # nobody reads: it is stuck in a report when it dies
        with pytest.raises(WorkerError, match=r"worker 0 died: .* exit code 3"):
            list(reports)


# --- ends ---


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_is_not_a_workers_to_answer():
    def report_on():
        while True:
            yield os.getpid()
            time.sleep(0.05)

    with contextlib.closing(run_workers(report_on, [()])) as reports:
        os.kill(next(reports), signal.SIGINT)
        assert len([next(reports) for _ in range(20)]) == 20


def test_an_error_in_the_loop_ends_the_workers():
    def fail_after_two_reports():
        with contextlib.closing(run_workers(rest_after_the_first_report, [()] * 2)) as reports:
            pids.extend([next(reports), next(reports)])
            raise ZeroDivisionError

    pids = []
    with pytest.raises(ZeroDivisionError):
        fail_after_two_reports()
    assert running(pids) == []


@pytest.mark.skipif(context.get_start_method() != "forkserver", reason="there is no server here")
def test_workers_end_when_their_server_is_killed():
    with contextlib.closing(run_workers(rest_after_the_first_report, [()] * 2)) as reports:
        pids = [next(reports), next(reports)]
        psutil.Process(pids[0]).parent().kill()
        with pytest.raises(WorkerError, match=r"worker . died") as caught:
            next(reports)
    assert_soon(lambda: not running(pids))
    del caught  # until here it held everything the iterator knew, as a notebook's last error does
    assert sorted(run_workers(count_to, [(1,), (1,)])) == [0, 0]  # there is a new one


SCRIPT = """
import contextlib, os, sys, time
from policyopt.processes import run_workers

def work():
    yield os.getpid()
    time.sleep(1_000)

with contextlib.closing(run_workers(work, [()] * 2)) as reports:
    for pid in reports:
        print(pid, flush=True)
"""  # no guard, and a function of the script: both are allowed


def interrupt(process):
    os.kill(process.pid, signal.SIGINT)


def interrupt_group(process):
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does


def kill(process):
    os.kill(process.pid, signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("end", [interrupt, interrupt_group, kill], ids=lambda f: f.__name__)
def test_nothing_is_left_of_a_program_that_is_ended(end, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        family = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        assert set(workers) <= family
        end(process)
        _, errors = process.communicate(timeout=SOON)
    assert_soon(lambda: not running(family))
    if end in (interrupt, interrupt_group):
        assert errors.count("Traceback") == 1  # the program's own
        assert errors.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("seconds", [1.5, 2.5])
def test_nothing_is_left_of_a_program_interrupted_at_its_start(seconds, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        time.sleep(seconds)
        family = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        interrupt_group(process)
        assert process.wait(SOON) != 0
    assert_soon(lambda: not running(family))
