"""How much memory processes have had at most, asked of the kernel: no sample can miss a peak. And processor time."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from recupera_local import platform as local

INTERVAL = 0.5
PARTS = ("postgres", "kafka", "envoy", "mailbox", "migrate")
"""Processes of the platform that are not ours, or only for development."""


class Peaks:
    """Bytes of resident memory (VmHWM: its highest ever) of each Python process of a platform, children too.

    Resident memory counts pages shared with other processes in full: it is never below PSS.
    """

    def __init__(self, platform: local.Platform) -> None:
        self._platform = platform
        self._stop = threading.Event()
        self.by_name: dict[str, int] = {}

    def look(self) -> None:
        """Take what the kernel has noted so far."""
        for name, process in self._platform.processes().items():
            if name in PARTS or process.pid is None:
                continue
            try:
                parent = psutil.Process(process.pid)
                pids = [(name, process.pid)]
                pids += [(f"{name} child", child.pid) for child in parent.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for label, pid in pids:
                self.by_name[label] = max(self.by_name.get(label, 0), _highest(pid))

    def watch(self) -> None:
        """Look again and again: a process that ends takes what the kernel knew of it with it."""
        while not self._stop.wait(INTERVAL):
            self.look()

    def stop(self) -> None:
        """Look a last time."""
        self._stop.set()
        self.look()


@contextmanager
def watched(platform: local.Platform) -> Iterator[Peaks]:
    """Peaks of the platform's processes until the block is left."""
    peaks = Peaks(platform)
    thread = threading.Thread(target=peaks.watch, name="memory", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        peaks.stop()
        thread.join()


def _highest(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def processor_seconds(platform: local.Platform) -> Mapping[str, float]:
    """Seconds of processor time that each process of the platform has taken so far, its children's with it."""
    found = {}
    for name, process in platform.processes().items():
        if process.pid is None:
            continue
        parent = psutil.Process(process.pid)
        total = 0.0
        for one in [parent, *parent.children(recursive=True)]:
            try:
                total += sum(one.cpu_times()[:4])
            except psutil.NoSuchProcess:
                continue
        found[name] = total
    return found


def spent_since(platform: local.Platform, before: Mapping[str, float]) -> Mapping[str, float]:
    """Processor seconds of each process since `before`."""
    return {name: seconds - before.get(name, 0.0) for name, seconds in processor_seconds(platform).items()}


def spent_told(spent: Mapping[str, float]) -> str:
    """Processor seconds as text, the busiest first."""
    busiest = sorted(spent.items(), key=lambda item: -item[1])[:6]
    return f"processor seconds {sum(spent.values()):.1f}: " + ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in busiest
    )


def told(by_name: Mapping[str, int]) -> str:
    """`case.worker 210, import.worker 305` in MB, the highest first."""
    ordered = sorted(by_name.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {size / 1e6:.0f}" for name, size in ordered)
