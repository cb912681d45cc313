"""A notebook kernel's peak memory; for tools/notebooks.py, and as a pytest plug-in beside nbval.

Binder gives a reader 1-2 GB, so a notebook stays under 1 GB. As a plug-in (`-p kernel_memory`) this fails the
cell that crosses the limit and ends the run with a line for each notebook.
"""

import os
import time
from pathlib import Path

import psutil
import pytest

LIMIT = 1_000_000_000  # bytes


def peak_memory(pid: int) -> int:
    """Bytes of resident memory held at most; those held now where the system keeps no peak."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return psutil.Process(pid).memory_info().rss
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def table(rows: dict[str, tuple[int, float]]) -> list[str]:
    """One line a notebook: peak memory, seconds, name."""
    return [
        f"{peak / 1e6:6.0f} MB peak  {seconds:6.1f} s  {name}"
        for name, (peak, seconds) in sorted(rows.items())
    ]


class KernelMemory:
    """Reads the kernel's peak after each cell that nbval ran."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[int, float]] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        # nbval skips PNG and JPEG, which no two builds of a library draw alike; so are the other pictures.
        for item in report.result or []:
            if hasattr(item.parent, "skip_compare"):
                item.parent.skip_compare = (*item.parent.skip_compare, "image/gif", "image/svg+xml")
                break

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item):
        started, peak = time.perf_counter(), 0
        name = Path(os.path.relpath(item.path, item.config.rootpath)).as_posix()
        before, seconds = self.rows.get(name, (0, 0.0))
        try:
            result = yield
        finally:
            kernel = getattr(item.parent, "kernel", None)
            if kernel is not None and kernel.is_alive():
                peak = peak_memory(kernel.km.provisioner.pid)
                self.rows[name] = (max(before, peak), seconds + time.perf_counter() - started)
        if before < LIMIT <= peak:
            item.raise_cell_error(
                f"The kernel has held {peak / 1e6:.0f} MB after this cell; "
                f"a notebook may need less than {LIMIT / 1e6:.0f} MB, for Binder gives little more."
            )
        return result

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["kernel_memory"] = self.rows

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        for name, row in getattr(node, "workeroutput", {}).get("kernel_memory", {}).items():
            self.rows[name] = tuple(row)

    def pytest_terminal_summary(self, terminalreporter) -> None:
        for line in table(self.rows):
            terminalreporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    # nbval leaves the /dev/null it gives its kernels to the garbage collector.
    config.addinivalue_line("filterwarnings", "ignore:unclosed file .*name='/dev/null':ResourceWarning")
    config.pluginmanager.register(KernelMemory())
