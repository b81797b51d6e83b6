"""Children of the runner: they start in order, are ready before what needs them, and never outlive it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from recupera_local import processes
from support import waiting

PROGRAM = """
import pathlib, signal, subprocess, sys, time
print("starting", sys.argv[1:], flush=True)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


def child(
    folder: Path, name: str, *, after: tuple[str, ...] = (), program: str = PROGRAM
) -> processes.Process:
    """A child that is ready when it has made a file."""
    made = folder / f"{name}.ready"
    return processes.Process(
        name=name,
        command=[sys.executable, "-c", program, str(made)],
        log=folder / f"{name}.log",
        ready=made.exists,
        after=after,
        start_timeout=10,
    )


def test_children_start_when_what_they_need_is_ready_and_stop_in_reverse(tmp_path: Path) -> None:
    first, last = child(tmp_path, "first"), child(tmp_path, "last", after=("first", "step"))
    step = processes.Process(
        name="step",
        command=[
            sys.executable,
            "-c",
            f"assert {str(tmp_path / 'first.ready')!r}; open({str(tmp_path / 's')!r}, 'w')",
        ],
        log=tmp_path / "step.log",
        after=("first",),
    )
    last.before = lambda: (tmp_path / "s").rename(tmp_path / "moved")
    processes.start_all([last, step, first])
    assert first.alive
    assert last.alive
    assert (tmp_path / "moved").exists()
    last_ended_first = []
    first.ask_to_stop = lambda: (
        last_ended_first.append(not last.alive),
        processes.Process.ask_to_stop(first),
    )  # type: ignore[method-assign, assignment]
    processes.stop_all([first, step, last])
    assert all(last_ended_first)
    assert not first.alive
    assert not last.alive


def test_a_child_that_ends_before_it_is_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    bad = child(tmp_path, "bad", program="import sys; sys.exit('the reason why')")
    with pytest.raises(processes.ProcessFailed, match=r"bad ended with exit code 1(.|\n)*the reason why"):
        processes.start_all([bad])


def test_a_child_that_is_never_ready_is_reported(tmp_path: Path) -> None:
    late = child(tmp_path, "late", program="import time; time.sleep(600)")
    late.start_timeout = 0.3
    with pytest.raises(processes.ProcessFailed, match="late was not ready within"):
        processes.start_all([late])
    late.kill()


def test_a_child_that_does_not_listen_to_sigterm_is_killed(tmp_path: Path) -> None:
    deaf = child(
        tmp_path, "deaf", program="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PROGRAM
    )
    deaf.stop_timeout = 0.3
    processes.start_all([deaf])
    deaf.stop()
    assert not deaf.alive


def test_a_child_started_from_a_thread_that_ends_lives_on(tmp_path: Path) -> None:
    made = child(tmp_path, "made")
    thread = threading.Thread(target=made.start)
    thread.start()
    thread.join()
    made.wait_ready()
    assert made.alive
    made.kill()
    assert not made.alive


def test_a_child_that_was_started_is_no_longer_the_one_that_asks_for_its_protection(tmp_path: Path) -> None:
    made = processes.Process(name="made", command=["sleep", "600"], log=tmp_path / "log")
    for _ in range(20):
        made.start()
        assert psutil.Process(made.pid).cmdline() == ["sleep", "600"]
        made.kill()


def test_a_child_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    made = processes.Process(name="made", command=["no such program"], log=tmp_path / "log")
    with pytest.raises(processes.ProcessFailed, match=r"made ended with exit code 127(.|\n)*no such program"):
        processes.start_all([made])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_its_runner(tmp_path: Path, how: signal.Signals) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from recupera_local import processes\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "made = processes.Process(name='made', command=['sleep', '600'], log=folder / 'log', ready=lambda: True)\n"
        "made.start()\n"
        "(folder / 'new').write_text(str(made.pid)); (folder / 'new').rename(folder / 'pid')\n"
        "time.sleep(600)\n"
    )
    runner = subprocess.Popen([sys.executable, "-c", program])
    waiting.until((tmp_path / "pid").exists)
    made = psutil.Process(int((tmp_path / "pid").read_text()))
    assert made.is_running()
    os.kill(runner.pid, how)
    runner.wait()
    waiting.until(lambda: processes.gone(made))
