"""Worker processes that report to the process that started them, and never outlive it.

``torch.multiprocessing.spawn`` also hands on a worker's error, but it brings no reports, and where the
program is interrupted or killed it leaves its workers behind.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np
import torch

__all__ = [
    "Budget",
    "WorkerError",
    "context",
    "describe_exit",
    "end_with_parent",
    "main_hidden",
    "run_workers",
]

# A process in which torch has started threads cannot be forked safely. So on Linux workers are forked from a
# server that has imported this package and done nothing else; elsewhere they start from nothing.
context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")

PATIENCE = 5.0  # seconds a process may take to end when there is nothing left for it to do


class WorkerError(RuntimeError):
    """A worker failed or died; the message says which one and of what."""


class Budget:
    """A number of steps that several processes take together. Each claims some before it takes them, so there
    are never more.

    Args:
        total: how many.
        taken: how many of them are behind already.
    """

    def __init__(self, total: int, taken: int = 0):
        self.total, self._taken = total, context.Value("q", taken)

    def claim(self, steps: int) -> range:
        """The numbers of the next ``steps`` steps; at the end of the budget fewer, then none."""
        with self._taken.get_lock():
            first = self._taken.value
            self._taken.value = min(first + steps, self.total)
            return range(first, self._taken.value)

    def give_back(self, steps: int) -> None:
        """Leave so many of the claimed steps to whoever claims next."""
        with self._taken.get_lock():
            self._taken.value -= steps


def run_workers(
    work: Callable[..., Iterable[Any]], arguments: Iterable[Sequence[Any]], shared: Sequence[Any] = ()
) -> Iterator[Any]:
    """Run ``work(*arguments[i], *shared)`` in a process of its own for each i, and give what they yield, as
    it comes.

    The workers start when the first report is asked for. When the iterator is exhausted, fails or is closed,
    they have ended: hold it in a ``contextlib.closing``, so that an error in the loop over it closes it.
    Should this process be killed, they end by themselves. They run torch on one thread, ignore Ctrl-C, which
    this process answers, and do not import the user's script, which therefore needs no
    ``if __name__ == "__main__"``.

    Args:
        work: gives a worker's reports, plain values.
        arguments: for each worker its own, which are copied to it. Functions and classes of a script or a
            notebook may be among them.
        shared: given to all workers without a copy: tensors in shared memory, and what ``context`` made.

    Raises:
        ValueError: the arguments cannot be copied to another process.
        WorkerError: a worker died; the message names the signal or the exit code.
        Exception: what a worker raised, caused by a WorkerError with its traceback.
    """
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["policyopt"])
    workers: dict[BaseProcess, Connection] = {}
    try:
        for i, own in enumerate(arguments):
            receiver, sender = context.Pipe(duplex=False)
            todo = (sender, _by_value((work, own)), shared)
            process = context.Process(target=_serve, args=todo, name=f"worker {i}", daemon=True)
            workers[process] = receiver
            with sender, main_hidden():
                process.start()
        running = workers.copy()
        while running:
            ready = wait(
                [end for process, receiver in running.items() for end in (receiver, process.sentinel)]
            )
            for process, receiver in list(running.items()):
                if receiver in ready or process.sentinel in ready:
                    kind, content = _receive(process, receiver)
                    if kind == "report":
                        yield content
                    else:
                        del running[process]
        for process in workers:
            process.join(PATIENCE)
    finally:
        for process, receiver in workers.items():
            receiver.close()
            if process.is_alive():
                process.kill()
        for process in workers:
            if process.pid is not None:
                process.join(PATIENCE)
            with contextlib.suppress(ValueError):  # it runs on in spite of all
                process.close()


def _receive(process: BaseProcess, receiver: Connection) -> tuple[str, Any]:
    """A worker's next message; raises the worker's error, or a WorkerError if it has died."""
    try:
        kind, content = receiver.recv() if receiver.poll() else ("death", None)
    except (EOFError, OSError):  # it died in the middle of a message
        kind, content = "death", None
    if kind == "death":
        process.join(PATIENCE)
        raise WorkerError(f"{process.name} died: {describe_exit(process.exitcode)}")
    if kind == "error":
        trace, pickled = content
        failure = WorkerError(f"{process.name} failed:\n\n{trace}")
        try:
            error = pickle.loads(pickled)
        except Exception:
            raise failure from None
        raise error from failure
    return kind, content


def describe_exit(code: int | None) -> str:
    """How a process ended, in words, from its exit code; None if it has not."""
    if code is None:
        return "it reports no more, but has not ended"
    if code >= 0:
        return f"it left with exit code {code} before its work was done"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (", often a sign of too little memory" if name == "SIGKILL" else "")


def _by_value(items: Any) -> bytes:
    try:
        return cloudpickle.dumps(items)
    except Exception as error:  # whatever the pickling of somebody's class may raise
        raise ValueError(
            f"what a worker needs cannot be copied to another process: {error} (a function that makes an "
            "environment must not hold such things as locks, sockets or windows)"
        ) from error


@contextlib.contextmanager
def main_hidden() -> Iterator[None]:
    """Inside the block processes start without importing the user's script, which would start over in each
    of them unless it has the ``__main__`` guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# --- in the worker ---


def _serve(sender: Connection, pickled: bytes, shared: Sequence[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    np.random.seed()  # noqa: NPY002  the server has left the same state to all its workers
    gc.freeze()  # and memory, which is theirs in common until a garbage collection writes to it: 40 MB each
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        try:
            work, own = pickle.loads(pickled)
            for report in work(*own, *shared):
                sender.send(("report", report))
            sender.send(("end", None))
        except Exception as error:
            sender.send(("error", (traceback.format_exc(), _pickled_error(error))))


def _pickled_error(error: Exception) -> bytes:
    try:
        return cloudpickle.dumps(error)
    except Exception:
        return b""


def end_with_parent() -> None:
    """Wait in a thread of a worker for the end of its parent, and end the worker then."""
    multiprocessing.parent_process().join()
    os._exit(1)
