"""Engines: every task in a fresh process, on this machine or on a Ray cluster.

joblib hands the tasks out. Here its workers are threads, which only wait for the processes they start; on a
cluster they are Ray's. A task's process is forked from a server that has imported this package and done
nothing else: it starts in milliseconds, has nothing of the task before it, and its peak memory is its own.
"""

import contextlib
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
import torch

from policyopt.processes import PATIENCE, context, describe_exit, end_with_parent, main_hidden

__all__ = ["ENGINES", "Task", "check_engine", "run_apart"]

ENGINES = ("local", "ray")

Task = tuple[str, Callable, tuple]  # a name, a function, its arguments
Outcome = tuple[str, Any]  # "done" and what the function returned, or "failed" and what is known of the error


def check_engine(engine: str, jobs: int, address: str | None) -> None:
    """Check the choice of an engine, before anything is started.

    Raises:
        ValueError: names what is wrong: the engine, the number of jobs, the address, or that Ray is missing.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(map(repr, ENGINES))}")
    if not isinstance(jobs, int) or isinstance(jobs, bool) or (jobs < 1 and jobs != -1):
        raise ValueError(f"jobs is {jobs!r}; it must be a whole number ≥ 1, or -1 for one on each core")
    if address is not None and engine != "ray":
        raise ValueError(f"address is {address!r} and engine is {engine!r}; only 'ray' has an address")
    if engine == "ray":
        try:
            import ray  # noqa: F401
        except ImportError:
            raise ValueError("engine 'ray' needs Ray: pip install 'policyopt[ray]'") from None


def run_apart(
    tasks: Iterable[Task], jobs: int = -1, engine: str = "local", address: str | None = None
) -> Iterator[tuple[str, Outcome]]:
    """Run each task in a process of its own and give its name and outcome as soon as it ends.

    A task is asked for when there is a worker for it. The processes run torch on one thread, ignore Ctrl-C,
    which this process answers, may start processes of their own, and end when this one does. Hold the
    iterator in a ``contextlib.closing``: when it is closed they have ended.

    Args:
        tasks: names, functions and arguments.
        jobs: how many at once; −1 for one on each core of the machine or of the cluster.
        engine: ``"local"`` or ``"ray"``.
        address: of a running Ray cluster, e.g. ``"auto"``; when None, Ray is started on this machine.

    Raises:
        ValueError: as ``check_engine`` has it.
    """
    check_engine(engine, jobs, address)
    from joblib import Parallel, delayed

    processes = Processes()
    backend = contextlib.nullcontext({"backend": "threading", "n_jobs": jobs})
    call: Callable = processes.call
    if engine == "ray":
        backend, call = _ray(jobs, address), _call_on_a_cluster

    def calls() -> Iterator[tuple]:
        for name, function, arguments in tasks:
            if processes.stopped:
                return
            yield delayed(call)(name, cloudpickle.dumps((function, arguments)), sys.path)

    with backend as options:
        parallel = Parallel(**options, pre_dispatch="n_jobs", batch_size=1, return_as="generator_unordered")
        outcomes = parallel(calls())
        try:
            for outcome in outcomes:  # noqa: UP028  `yield from` would close them first, the processes second
                yield outcome
        finally:
            processes.stop()
            with warnings.catch_warnings():  # joblib warns of results that nobody wants any more
                warnings.simplefilter("ignore", UserWarning)
                outcomes.close()


@contextlib.contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[dict[str, Any]]:
    """What joblib needs to work through Ray, which is left as it was found."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray
    from ray.util.joblib.ray_backend import RayBackend

    ours = not ray.is_initialized()
    if ours:
        local = {} if address else {"num_cpus": None if jobs == -1 else jobs, "include_dashboard": False}
        ray.init(address=address or "local", logging_level="WARNING", log_to_driver=False, **local)
    try:
        cores = int(ray.cluster_resources()["CPU"])
        workers = cores if jobs == -1 else min(jobs, cores)
        backend = RayBackend(ray_remote_args={"num_cpus": 1})
        # joblib rules it out for pools of forked processes; without it results would come only at the end.
        backend.supports_return_generator = True
        yield {"backend": backend, "n_jobs": workers}
    finally:
        if ours:
            ray.shutdown()


def _call_on_a_cluster(*call: Any) -> tuple[str, Outcome]:
    return Processes().call(*call)


# Processes are not safe to start and to wait for from several threads at once.
_lock = threading.Lock()


class Processes:
    """Calls functions in processes of their own, from several threads, until it is stopped."""

    def __init__(self):
        self.stopped, self._running = False, set()

    def call(self, name: str, task: bytes, path: list[str]) -> tuple[str, Outcome]:
        """Call a pickled function and wait; ``path`` is where its modules are looked for, too."""
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_serve, args=(sender, task, path), name=name)
        with receiver:
            with _lock, sender, main_hidden():
                if self.stopped:
                    return name, _failure("Stopped", "the run was stopped")
                if context.get_start_method() == "forkserver":
                    context.set_forkserver_preload(["policyopt", "policyopt.experiments.study"])
                process.start()
                self._running.add(process)
            try:
                outcome = receiver.recv()
            except (EOFError, OSError):
                outcome = None
            except BaseException:  # Ctrl-C
                self.stop()
                raise
        with _lock:
            process.join(PATIENCE)
            outcome = outcome or _failure("ProcessDied", describe_exit(process.exitcode))
            self._end(process)
        return name, outcome

    def stop(self) -> None:
        """Kill what still runs, and start no more."""
        with _lock:
            self.stopped = True
            for process in list(self._running):
                self._end(process)

    def _end(self, process: Any) -> None:
        self._running.discard(process)
        process.kill()
        process.join(PATIENCE)


def _failure(kind: str, message: str, trace: str = "") -> Outcome:
    return "failed", {"type": kind, "message": message, "traceback": trace}


# --- in the task's process ---


def _serve(sender: Any, task: bytes, path: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    sys.path.extend(place for place in path if place not in sys.path)
    try:
        function, arguments = pickle.loads(task)
        outcome = "done", function(*arguments)
    except Exception as error:
        outcome = _failure(type(error).__name__, str(error), traceback.format_exc()[-4000:])
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        sender.send(outcome)
