"""Databases and worker processes of the ledger, the small service with which servicekit is tested."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from servicekit import db, migrations
from support import databases, ledger, waiting


@dataclasses.dataclass(frozen=True)
class Store:
    """One database of the ledger: engines for the service's role and for the owner."""

    database: databases.Database
    engine: sa.Engine
    owner: sa.Engine


@pytest.fixture
def store(database: Callable[..., databases.Database]) -> Iterator[Callable[[str], Store]]:
    """Make databases with the ledger's tables: `store("agreement")`."""
    with ExitStack() as made:

        def make(service: str = "agreement") -> Store:
            created = database(service, migrated=False)
            migrations.upgrade(created.owner_url, ledger.MIGRATIONS)
            engine = db.create_engine(created.url, application_name="test")
            owner = db.create_engine(created.owner_url, application_name="test-owner")
            made.callback(engine.dispose)
            made.callback(owner.dispose)
            return Store(created, engine, owner)

        yield make


class Process:
    """A worker process of the ledger."""

    def __init__(self, child: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
        self.child = child
        self.ready = ready
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote."""
        return self._log.read_text()

    def wait_ready(self) -> None:
        """Until it has its partitions."""
        waiting.until(lambda: self.ready.exists() or self.child.poll() is not None, timeout=60, what="ready")
        assert self.child.poll() is None, self.log

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.child.send_signal(number)

    def wait(self, timeout: float = 40.0) -> int:
        """Until it ends; its exit code."""
        return self.child.wait(timeout)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start worker processes: `worker(store, bootstrap, LEDGER_RETRY_LIMIT="5")`; killed after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(where: Store, bootstrap: str, **variables: str) -> Process:
        number = len(started)
        ready, log = tmp_path / f"ready-{number}", tmp_path / f"worker-{number}.log"
        environment = os.environ | {
            "RECUPERA_KAFKA": bootstrap,
            "LEDGER_DATABASE_URL": where.database.url,
            "RECUPERA_READY_FILE": str(ready),
            "PYTHONPATH": str(Path(ledger.__file__).parents[1]),
            "PYTHONWARNINGS": "ignore",
            **variables,
        }
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "support.ledger"], env=environment, stderr=output, stdout=output
            )
        started.append(child)
        return Process(child, ready, log)

    yield start
    for child in started:
        child.kill()
        child.wait()
