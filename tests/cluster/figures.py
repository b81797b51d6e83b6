"""What the suite measures beside what it proves: printed at its end, for docs/operations.md."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import installation

NOTED: dict[str, str] = {}


def note(what: str, value: str) -> None:
    """Keep a figure for the end of the run."""
    NOTED[what] = value


@dataclasses.dataclass
class Usage:
    """Of a pod, the most that was seen: millicores over the metrics server's window, bytes."""

    cpu: float = 0.0
    memory: int = 0


@contextmanager
def sampling(installed: installation.Installation) -> Iterator[dict[str, Usage]]:
    """While the block runs, the most that a pod of each component took; empty where there is no metrics server."""
    most: dict[str, Usage] = collections.defaultdict(Usage)
    over = threading.Event()

    def sample() -> None:
        while not over.wait(5.0):
            for pod, (cpu, memory) in installed.usage().items():
                component = component_of(pod)
                if component:
                    most[component].cpu = max(most[component].cpu, cpu)
                    most[component].memory = max(most[component].memory, memory)

    thread = threading.Thread(target=sample, name="figures", daemon=True)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def sampled(installed: installation.Installation, *, seconds: float) -> dict[str, Usage]:
    """The same over some seconds in which nothing happens."""
    with sampling(installed) as most:
        threading.Event().wait(seconds)
    return most


def component_of(pod: str) -> str:
    """recupera-case-serve-544fdb7c49-5gp7x is of case-serve; empty for a job's pod."""
    name = pod.removeprefix(f"{installation.RELEASE}-").rsplit("-", 2)[0]
    return name if name in installation.COMPONENTS else ""
