"""Where numbers come from: versions, machine, seconds, memory."""

import math
import multiprocessing.process
import os
import platform
import subprocess
import threading
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import policyopt

__all__ = ["Usage", "commit", "describe_machine"]

SAMPLE_SECONDS = 0.1  # between two looks at the processes that a cell starts


def commit() -> str | None:
    """The commit of the source this package runs from, with ``-dirty`` where tracked files have changed;
    None when it is installed from elsewhere or there is no git.
    """
    place = Path(policyopt.__file__).parent
    git = ["git", "-C", str(place)]
    commands = (
        ["ls-files", "--error-unmatch", "__init__.py"],  # not the repository of whoever installed it
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    )
    try:
        for command in commands:
            done = subprocess.run([*git, *command], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def describe_machine() -> dict[str, Any]:
    """Versions and processor."""
    libraries = {name: metadata.version(name) for name in ("numpy", "torch", "gymnasium")}
    return {
        "policyopt": policyopt.__version__,
        "python": platform.python_version(),
        **libraries,
        "system": platform.system(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class Usage:
    """What a block costs this process and the processes it starts: seconds, processor seconds, memory.

    Those that ``policyopt.processes`` starts are forked from a server, so the operating system does not
    count them as this one's. On Linux they are looked at every ``SAMPLE_SECONDS``: what each did after the
    last look is missing. Elsewhere they are not counted.
    """

    def __enter__(self) -> "Usage":
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._others: dict[int, tuple[float, float]] = {}  # by process: processor seconds, peak in MB
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._sampler.join()

    def describe(self) -> dict[str, Any]:
        """When it began, wall and processor seconds until now, and the sum of the processes' peaks in MB."""
        others = list(self._others.values())
        peak = _peak_memory() + sum(memory for _, memory in others)
        return {
            "started": self._started,
            "wall_seconds": round(time.perf_counter() - self._wall, 3),
            "cpu_seconds": round(time.process_time() - self._cpu + sum(cpu for cpu, _ in others), 3),
            "peak_memory_mb": None if math.isnan(peak) else round(peak, 1),
        }

    def _sample(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        while not self._ended.wait(SAMPLE_SECONDS):
            # active_children() would also reap them, which is the business of whoever started them
            for process in list(multiprocessing.process._children):
                try:
                    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                except (OSError, ValueError):  # it has ended, or this is no Linux
                    continue
                if not math.isnan(memory := _peak_memory(process.pid)):
                    seconds = (int(fields[11]) + int(fields[12])) / ticks
                    self._others[process.pid] = (seconds, memory)


def _peak_memory(process: int | str = "self") -> float:
    """In MB; NaN where it cannot be known."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        return float(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        pass
    if process != "self" or platform.system() != "Darwin":
        return math.nan
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
