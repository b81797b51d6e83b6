"""`make run`, as a person uses it: it comes up, the printed calls work, Ctrl-C stops it, and nothing is left."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from recupera_local import ports, processes
from support import waiting

pytestmark = pytest.mark.timeout(900)  # it starts up to twice in a test

UP = 240.0
"""Seconds: the machine may be busy with other tests."""


class Run:
    """`make run` with a state folder and ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        table = folder / "ports.yaml"
        table.write_text(yaml.safe_dump(dict(ports.free().by_name)))
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RECUPERA_")},
            "RECUPERA_LOCAL_DIR": str(self.state),
            "RECUPERA_PORTS_FILE": str(table),
            "PYTHONPROFILEIMPORTTIME": "1",  # every module that a process loads is named in its log
        }
        self.output = folder / "output.txt"
        self.runner: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()

    def start(self) -> None:
        """Start it and wait until it says that it is up."""
        with self.output.open("wb") as output:
            self.runner = self._command(stdout=output, stderr=subprocess.STDOUT)
        waiting.until(lambda: self._up() or self.runner.poll() is not None, timeout=UP)  # type: ignore[union-attr]
        assert self._up(), self.text()
        self._seen = {self._me(), *self._me().children(recursive=True)}
        assert len(self._seen) > 4 + 2 * len(ports.SERVICES)

    def again(self) -> str:
        """What a second start says."""
        second = self._command(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text, _ = second.communicate(timeout=60)
        assert second.returncode == 1
        return str(text.decode())

    def text(self) -> str:
        """What it has printed, without the list of its own imports."""
        lines = self.output.read_text().splitlines()
        return "\n".join(line for line in lines if not line.startswith("import time:"))

    def calls(self) -> list[str]:
        """The commands that it printed."""
        return re.findall(r"^ {2}\d+\. .*\n {5}(.+)$", self.text(), re.MULTILINE)

    def works(self, call: str) -> bool:
        """Whether a printed command gives JSON that is no error."""
        done = subprocess.run(call, shell=True, capture_output=True, text=True, cwd=self.folder, check=False)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout.lstrip().startswith("{") and "google.rpc.ErrorInfo" not in done.stdout

    def loaded(self, name: str) -> set[str]:
        """The modules that a process has loaded."""
        log = (self.state / "log" / f"{name}.log").read_text()
        return set(re.findall(r"^import time:.*\| +(\S+)$", log, re.MULTILINE))

    def end(self, how: signal.Signals) -> int:
        """Send the signal; its exit code, once none of its processes is left."""
        assert self.runner is not None
        self.runner.send_signal(how)
        code = self.runner.wait(60)
        waiting.until(lambda: all(processes.gone(process) for process in self._seen), timeout=30)
        return code

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.runner is not None and self.runner.poll() is None:
            self.runner.kill()
            self.runner.wait()

    def _command(self, **options: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "recupera_local.run"]
        return subprocess.Popen(command, env=self.environ, **options)  # type: ignore[call-overload, no-any-return]

    def _up(self) -> bool:
        return "The mail that went out" in self.text()

    def _me(self) -> psutil.Process:
        assert self.runner is not None
        return psutil.Process(self.runner.pid)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A `make run`."""
    made = Run(tmp_path)
    yield made
    made.close()


def test_it_runs_as_printed_and_stops_on_ctrl_c(run: Run) -> None:
    run.start()
    calls = run.calls()
    assert len(calls) >= 8
    for call in calls:
        # A person pastes slower: what one call changes has reached every service before the next.
        waiting.until(lambda call=call: run.works(call), timeout=60, what=call)  # type: ignore[misc]  # a default that binds

    second = run.again()
    assert "runs already" in second
    assert "RECUPERA_LOCAL_DIR" in second

    assert run.end(signal.SIGINT) == 0
    assert run.text().rstrip().endswith("Stopped.")
    for service in ports.SERVICES:
        serve, worker = run.loaded(f"{service}.serve"), run.loaded(f"{service}.worker")
        assert "grpc._server" in serve
        assert not {"eventlet", "nameko"} & serve
        assert {"eventlet", "nameko"} <= worker
        assert "grpc._server" not in worker


def test_nothing_is_left_when_it_is_killed(run: Run) -> None:
    run.start()
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    run.start()  # and its state is still good
    assert run.end(signal.SIGTERM) == 0
