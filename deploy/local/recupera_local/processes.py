"""One child process of the local platform, and the promise that it never outlives its runner.

Each child is started through `setpriv --pdeathsig` (util-linux, part of every Debian): the kernel signals it when the
thread that started it ends, also when that thread's process is killed with SIGKILL. So one thread of ours, which lives
as long as the process does, starts them all. Their output goes to one log file each.
"""

import concurrent.futures
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

UNPRIVILEGED = (
    "--reuid=nobody",
    "--regid=nogroup",
    "--clear-groups",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
    "--securebits=+no_setuid_fixup",  # or access(2), with which it looks for its programs, ignores that right
)
"""PostgreSQL refuses to run as root: under root it runs as nobody, with root's right to pass through folders."""


_STARTER = concurrent.futures.ThreadPoolExecutor(1, "starter")


class PlatformFailed(Exception):
    """The local platform cannot start or go on. The text is for the person who started it: what, and what to do."""


class ProcessFailed(PlatformFailed):
    """A child ended, or did not become ready in time. The text has the end of its log."""


@dataclass(kw_only=True)
class Process:
    """A child process: how it is started, how one sees that it is ready, how it is stopped.

    `ready` is asked until it answers True; a child without it is a step, done when it exits with 0.
    `before` is called right before it starts. `death_signal` is what the kernel sends it when the runner dies;
    `stop_signal` asks it to end in good order.
    """

    name: str
    command: Sequence[str]
    log: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    before: Callable[[], None] | None = None
    after: Sequence[str] = ()
    unprivileged: bool = False
    death_signal: str = "KILL"
    stop_signal: signal.Signals = signal.SIGTERM
    start_timeout: float = 120.0
    stop_timeout: float = 30.0

    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started: float = 0.0
    is_ready: bool = False

    @property
    def pid(self) -> int | None:
        """The running child's process id."""
        return self._child.pid if self._child is not None and self.alive else None

    @property
    def started(self) -> bool:
        """It was started and nobody has stopped or killed it since (it may have died by itself)."""
        return self._child is not None

    @property
    def alive(self) -> bool:
        """It is running."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """How it ended by itself, None while it runs."""
        return None if self._child is None else self._child.poll()

    @property
    def ending(self) -> str:
        """How it ended by itself, in words."""
        code = self.returncode
        if code is None:
            return "nothing, it runs"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def start(self) -> None:
        """Start it; returns at once."""
        if self.alive:
            raise ProcessFailed(f"{self.name} is already running")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.before is not None:
            self.before()
        self._child = _STARTER.submit(self._spawn).result()
        self._started = time.monotonic()
        self.is_ready = False

    def _spawn(self) -> subprocess.Popen[bytes]:
        privileges = UNPRIVILEGED if self.unprivileged and os.geteuid() == 0 else ()
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                ["setpriv", *privileges, f"--pdeathsig={self.death_signal}", "--", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environ),
                process_group=0,  # Ctrl-C is for the runner, which stops its children in order
            )
        # It outlives a runner that is killed now: setpriv asks for the signal last before it gives way to the command.
        # The command line, which anybody may read, is empty while the kernel changes programs.
        command = Path(f"/proc/{child.pid}/cmdline")
        while child.poll() is None and command.read_bytes().partition(b"\0")[0] in (b"", b"setpriv"):
            time.sleep(0.001)
        return child

    def check(self) -> bool:
        """Whether it is ready (a step: done). Raises ProcessFailed when it ended or its time is over."""
        if self.is_ready and self.ready is None:
            return True
        code = self.returncode
        if code is not None:
            if self.ready is None and code == 0:
                self.is_ready = True
                return True
            raise ProcessFailed(f"{self.name} ended with {self.ending} before it was ready.\n{self.tail()}")
        if not self.is_ready and self.ready is not None:
            self.is_ready = self.ready()
        if not self.is_ready and time.monotonic() - self._started > self.start_timeout:
            raise ProcessFailed(
                f"{self.name} was not ready within {self.start_timeout:.0f} seconds.\n{self.tail()}"
            )
        return self.is_ready

    def wait_ready(self) -> None:
        """Wait until it is ready; raises ProcessFailed as `check` does."""
        while not self.check():
            time.sleep(0.02)

    def ask_to_stop(self) -> None:
        """Send the stop signal and return at once."""
        if self._child is not None and self.alive:
            self._child.send_signal(self.stop_signal)

    def stop(self) -> None:
        """End it in good order; after `stop_timeout` seconds by SIGKILL."""
        self.ask_to_stop()
        if self._child is not None:
            try:
                self._child.wait(self.stop_timeout)
            except subprocess.TimeoutExpired:
                self.kill()
        self._child = None
        self.is_ready = False

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it and all its own children (PostgreSQL's backends) are gone."""
        if self._child is None:
            return
        children: list[psutil.Process] = []
        if self.alive:
            children = psutil.Process(self._child.pid).children(recursive=True)
            self._child.kill()
        self._child.wait()
        end = time.monotonic() + 5
        while not all(gone(child) for child in children):
            if time.monotonic() > end:
                for child in children:
                    if not gone(child):
                        child.kill()
            time.sleep(0.01)
        self._child = None
        self.is_ready = False

    def tail(self, lines: int = 25) -> str:
        """The end of its log, with the log's path."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join([f"The end of {self.log}:", *(f"  {line}" for line in text)])

    def memory_pss(self) -> int:
        """Bytes of memory of it and its own children, shared pages divided among those who share them (PSS)."""
        if self.pid is None:
            return 0
        total = 0
        parent = psutil.Process(self.pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total


def start_all(processes: Sequence[Process]) -> None:
    """Start the processes side by side, each after those it names in `after` are ready; wait until all are.

    Raises ProcessFailed at the first that ends or is late; what was started stays for the caller to stop.
    """
    by_name = {process.name: process for process in processes}
    waiting = [process for process in processes if not process.started]
    while True:
        startable = [
            process
            for process in waiting
            if all(by_name[name].is_ready for name in process.after if name in by_name)
        ]
        for process in startable:
            waiting.remove(process)
            process.start()
        checks = [process.check() for process in processes if process.started]
        if not waiting and all(checks):
            return
        time.sleep(0.02)


def stop_all(processes: Sequence[Process]) -> None:
    """Stop the processes, last one first; those that do not depend on one another side by side."""
    left = [process for process in processes if process.started]
    while left:
        needed = {name for process in left for name in process.after}
        now = [process for process in left if process.name not in needed] or left
        for process in now:
            process.ask_to_stop()
        for process in now:
            process.stop()
        left = [process for process in left if process not in now]


def gone(process: psutil.Process) -> bool:
    """Whether it has ended; a zombie, which whoever adopted it has yet to collect, has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def listening(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=0.2):
            return True
    except OSError:
        return False
