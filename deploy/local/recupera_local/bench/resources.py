"""Sections `start` and `idle`: how long `make run` takes until it says that it is up, and the memory it then holds."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from recupera_local import paths, ports, processes
from recupera_local.bench import figures, scenes

START_SECONDS = 25
IDLE_MB = 1_600
SETTLE = 20.0
PATIENCE = 180.0
UP = "Recupera is up"


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """The first start makes the databases and formats Kafka; the second is the one of every other day."""
    with scene.folder("run") as folder:
        ports_file = folder / "ports.yaml"
        ports_file.write_text(yaml.safe_dump(dict(ports.free().by_name)))
        environ = {
            **scenes.inherited(),
            "RECUPERA_LOCAL_DIR": str(folder / "state"),
            ports.FILE_VARIABLE: str(ports_file),
        }
        subprocess.run(["make", "setup"], cwd=paths.REPO, env=environ, check=True, stdout=subprocess.DEVNULL)
        started = []
        for _ in range(2):
            with _make_run(folder / "run.log", environ) as (make, seconds):
                started.append(seconds)
                scene.say(f"make run is up after {seconds:.1f} s")
                if len(started) == 2:
                    time.sleep(SETTLE)
                    before = _processor(make)
                    time.sleep(SETTLE)
                    after = _processor(make)
                    held = _pss(make)
        total = sum(held.values())
        spent = {name: (after[name] - before.get(name, 0.0)) / SETTLE * 100 for name in after}
        scene.say(
            "idle, percent of a core: "
            + ", ".join(f"{name} {share:.1f}" for name, share in _most_first(spent).items())
        )
        scene.say(f"idle MB: {', '.join(f'{name} {size / 1e6:.0f}' for name, size in held.items())}")
    return [
        figures.limit("start: make run, first in a new folder", "s", started[0], at_most=START_SECONDS),
        figures.limit("start: make run, again", "s", started[1], at_most=START_SECONDS),
        figures.limit("idle: whole platform (PSS)", "MB", total / 1e6, at_most=IDLE_MB),
        figures.Figure(
            name="idle: processors in use",
            unit="cores",
            ours=sum(spent.values()) / 100,
            baseline=1.0,
            goal=None,
        ),
    ]


@contextmanager
def _make_run(log: Path, environ: Mapping[str, str]) -> Iterator[tuple[psutil.Process, float]]:
    """`make run`, up, and the seconds that took; ended as by Ctrl-C."""
    started = time.perf_counter()
    with log.open("w") as out:
        child = subprocess.Popen(
            ["make", "run"], cwd=paths.REPO, env=dict(environ), stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        while UP not in log.read_text():
            if child.poll() is not None or time.perf_counter() - started > PATIENCE:
                raise processes.PlatformFailed(f"make run did not get up:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield psutil.Process(child.pid), time.perf_counter() - started
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
        child.wait(timeout=60)


def _pss(top: psutil.Process) -> Mapping[str, float]:
    """Bytes of each process below `make`, the runner too, by what it is, most first."""
    return _most_first(_summed(top, lambda process: float(process.memory_full_info().pss)))


def _processor(top: psutil.Process) -> Mapping[str, float]:
    """Processor seconds of the same processes so far, those of their ended children with them."""
    return _summed(top, lambda process: float(sum(process.cpu_times()[:4])))


def _summed(top: psutil.Process, what: Callable[[psutil.Process], float]) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for process in top.children(recursive=True):
        try:
            title = _title(process.cmdline())
            found[title] = found.get(title, 0.0) + what(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _most_first(values: Mapping[str, float]) -> Mapping[str, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1]))


def _title(command: list[str]) -> str:
    """`case_service worker` of a Python command, else the program's name."""
    if "-m" in command:
        return " ".join(command[command.index("-m") + 1 :][:2])
    if not command:
        return "?"
    program = Path(command[0].split(":")[0]).name
    return "kafka" if program == "java" else program
