"""One PostgreSQL and one Kafka for all tests of a pytest run, xdist workers included; started when first asked for.

Each server has a keeper process (`python -m recupera_local.testbed KIND FOLDER PID`), because a child dies with its
parent and any xdist worker may end first. The keeper waits for process PID, the pytest that was typed, and then stops
its server and removes its folder. If the keeper itself is killed, the kernel ends the server.
"""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from recupera_local import kafka, paths, ports, postgres, processes

START_TIMEOUT = 120.0


class TestbedFailed(processes.PlatformFailed):
    """A server for the tests did not start. The text has the end of its log."""

    __test__ = False


class Testbed:
    """The servers of the pytest run whose controlling process is `controller`."""

    __test__ = False

    def __init__(self, *, folder: Path, controller: int) -> None:
        self.folder = folder
        self._controller = controller

    @classmethod
    def of_run(cls, controller: int) -> "Testbed":
        """The testbed of a run; folders that killed runs left are removed."""
        root = paths.local() / "test"
        root.mkdir(parents=True, exist_ok=True)
        for left in root.iterdir():
            if left.name.isdigit() and not Path(f"/proc/{left.name}").exists():
                shutil.rmtree(left, ignore_errors=True)
        folder = root / str(controller)
        folder.mkdir(exist_ok=True)
        return cls(folder=folder, controller=controller)

    @property
    def server(self) -> postgres.Postgres:
        """The run's PostgreSQL, started if need be. It survives the death of processes, not that of the machine."""
        return self._make_postgres(self._address("postgres")["port"])

    @property
    def broker(self) -> kafka.Kafka:
        """The run's Kafka, started if need be."""
        address = self._address("kafka")
        return self._make_kafka(address["port"], address["controller_port"])

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold a lock among all workers of the run."""
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def keep(self, kind: str) -> None:
        """The keeper: start the server, tell its address, and stop it when the run is over or somebody asks."""
        if kind == "postgres":
            port = ports.free_ports(1)[0]
            server: postgres.Postgres | kafka.Kafka = self._make_postgres(port)
            address = {"port": port}
        else:
            port, controller_port = ports.free_ports(2)
            server = self._make_kafka(port, controller_port)
            address = {"port": port, "controller_port": controller_port}
        run = os.pidfd_open(self._controller)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            server.start()
            told = self.folder / f"{kind}.json.new"
            told.write_text(json.dumps(address | {"keeper": os.getpid()}))
            told.rename(self._told(kind))
            while server.process.alive:
                if select.select([run], [], [], 1.0)[0]:
                    break
        finally:
            self._told(kind).unlink(missing_ok=True)
            server.process.kill()
            shutil.rmtree(server.folder, ignore_errors=True)
            if not any(folder.is_dir() for folder in self.folder.glob("*")):
                shutil.rmtree(self.folder, ignore_errors=True)

    def _address(self, kind: str) -> Mapping[str, int]:
        with self.locked(kind):
            if not self._told(kind).exists():
                self._start_keeper(kind)
            address: Mapping[str, int] = json.loads(self._told(kind).read_text())
            if not psutil.pid_exists(address["keeper"]):
                raise TestbedFailed(
                    f"the {kind} that the tests share was killed; tests that kill take a private one"
                )
            return address

    def _start_keeper(self, kind: str) -> None:
        with self._log(f"{kind}-keeper").open("ab") as log:
            keeper = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "recupera_local.testbed",
                    kind,
                    str(self.folder),
                    str(self._controller),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + START_TIMEOUT
        while not self._told(kind).exists():
            if keeper.poll() is not None or time.monotonic() > end:
                keeper.kill()
                raise TestbedFailed(
                    f"{kind} for the tests did not start:\n{self._log(f'{kind}-keeper').read_text()}"
                )
            time.sleep(0.02)

    def _told(self, kind: str) -> Path:
        return self.folder / f"{kind}.json"

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _make_postgres(self, port: int) -> postgres.Postgres:
        return postgres.Postgres(
            folder=self.folder / "postgres", port=port, log=self._log("postgres"), durable=False
        )

    def _make_kafka(self, port: int, controller_port: int) -> kafka.Kafka:
        return kafka.Kafka(
            folder=self.folder / "kafka", port=port, controller_port=controller_port, log=self._log("kafka")
        )


def main() -> None:
    """The keeper's command."""
    kind, folder, controller = sys.argv[1:]
    try:
        Testbed(folder=Path(folder), controller=int(controller)).keep(kind)
    except processes.PlatformFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
