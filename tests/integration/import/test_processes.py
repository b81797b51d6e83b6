"""The real processes, `python -m import_service serve | worker`, on the real broker, killed and started again."""

from __future__ import annotations

import dataclasses
import datetime
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from import_service.providers import slices
from recupera.case.v1 import case_facts_pb2
from recupera.imports.v1 import imports_pb2, imports_service_pb2, imports_service_pb2_grpc
from recupera_local import kafka as local_kafka
from recupera_local import ports
from servicekit import auth, dates, ids, kafka
from support import portfolio, waiting

from .conftest import AGENCY, BUSINESS_DATE, NOW

pytestmark = pytest.mark.feature("S2-41")
ROWS = 220_000
"""Six blocks of a file: it is seen between the first and the last."""


@dataclasses.dataclass
class Process:
    """One process of import."""

    running: subprocess.Popen[bytes]
    ready: Path
    log: Path

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.running.send_signal(number)
        return self.running.wait(60)

    def peak_memory(self) -> int:
        """Most resident memory so far, bytes."""
        for line in Path(f"/proc/{self.running.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")


class Platform:
    """Import's processes on one database and broker; the test stands for case."""

    def __init__(self, url: str, broker: local_kafka.Kafka, folder: Path) -> None:
        self.url = url
        self.broker = broker
        self.folder = folder
        self.port = ports.free_ports(1)[0]
        self.started: list[Process] = []
        user, case, own = (
            auth.generate_key(),
            auth.generate_key(auth.SERVICE_ISSUER + "case"),
            auth.generate_key(auth.SERVICE_ISSUER + "import"),
        )
        auth.write_jwks(folder / "jwks.json", [user, case, own])
        auth.write_key(folder / "import.json", own)
        auth.write_key(folder / "case.json", case)
        token = auth.issue(
            user,
            subject="tester",
            agency=AGENCY,
            scopes=["import.read", "import.write"],
            lifetime=datetime.timedelta(hours=1),
        )
        self.user = (("authorization", f"Bearer {token}"),)
        self._case = auth.Signer("case", folder / "case.json")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = imports_service_pb2_grpc.ImportServiceStub(self.channel)

    def start(self, command: str) -> Process:
        number = len(self.started)
        ready, log = self.folder / f"ready-{number}", self.folder / f"log-{number}"
        environment = {
            **os.environ,
            "RECUPERA_DATABASE_URL_IMPORT": self.url,
            "RECUPERA_KAFKA": self.broker.bootstrap,
            "RECUPERA_RPC_PORT": str(self.port),
            "RECUPERA_JWKS_FILE": str(self.folder / "jwks.json"),
            "RECUPERA_SERVICE_KEY_FILE": str(self.folder / "import.json"),
            "RECUPERA_READY_FILE": str(ready),
            "RECUPERA_ALLOW_SIMULATED_CLOCK": "1",
            "RECUPERA_CASE_ADDRESS": "127.0.0.1:1",
            "RECUPERA_AGREEMENT_ADDRESS": "127.0.0.1:1",
            "RECUPERA_DRAIN_DELAY": "0",
        }
        with log.open("wb") as output:
            running = subprocess.Popen(
                [sys.executable, "-m", "import_service", command], env=environment, stderr=output
            )
        self.started.append(Process(running, ready, log))
        return self.started[-1]

    def serve(self) -> Process:
        process = self.start("serve")
        health = health_pb2_grpc.HealthStub(self.channel)

        def serving() -> bool:
            assert process.running.poll() is None, process.log.read_text()[-2000:]
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        waiting.until(serving, timeout=60, what="serve to be ready")
        return process

    def work(self) -> Process:
        process = self.start("worker")

        def ready() -> bool:
            assert process.running.poll() is None, process.log.read_text()[-2000:]
            return process.ready.exists()

        waiting.until(ready, timeout=60, what="the worker to be ready")
        return process

    def bury(self) -> None:
        """As if acts.DEAD_AFTER had passed since the last heartbeat of a killed worker."""
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 hour'")

    def told(self, *facts: case_facts_pb2.CaseFact, partition: int = 0) -> None:
        """Facts of the case service."""
        producer = kafka.Producer(self.broker.bootstrap, client_id="test")
        producer.settle(
            [
                producer.send(
                    topic="recupera.case.v1",
                    partition=partition,
                    key=b"",
                    value=fact.SerializeToString(),
                    headers=[],
                )
                for fact in facts
            ]
        )
        producer.close()

    def batch(self, name: str) -> imports_pb2.Batch:
        return self.stub.GetBatch(
            imports_service_pb2.GetBatchRequest(name=name), timeout=10, metadata=self.user
        )

    def fetch(self, name: str, number: int) -> bytes:
        request = imports_service_pb2.FetchSliceRequest(name=name, slice=number)
        metadata = (("authorization", f"Bearer {self._case.token(AGENCY)}"),)
        return b"".join(one.arrow_ipc for one in self.stub.FetchSlice(request, timeout=30, metadata=metadata))


@pytest.fixture
def platform(
    database: Callable[..., Any], topics: str, broker: local_kafka.Kafka, tmp_path: Path
) -> Iterator[Platform]:
    made = Platform(database("import").url, broker, tmp_path)
    yield made
    made.channel.close()
    for process in made.started:
        process.running.kill()
        process.running.wait(10)


def clock_fact() -> case_facts_pb2.CaseFact:
    return case_facts_pb2.CaseFact(
        fact_id=ids.new().bytes,
        agency=AGENCY.bytes,
        subject=AGENCY.bytes,
        version=1,
        clock_changed=case_facts_pb2.ClockChanged(
            time_zone="America/Sao_Paulo",
            simulated=True,
            base_machine=dates.to_timestamp(NOW),
            base_agency=dates.to_timestamp(NOW),
            speed_thousandths=0,
            business_date=dates.to_proto(BUSINESS_DATE),
            currency="BRL",
        ),
    )


def applied_fact(name: str, number: int, rows: int) -> case_facts_pb2.CaseFact:
    batch_id = uuid.UUID(name.rpartition("/")[2]).bytes
    return case_facts_pb2.CaseFact(
        fact_id=ids.new().bytes,
        agency=AGENCY.bytes,
        subject=batch_id,
        slice_applied=case_facts_pb2.SliceApplied(batch_id=batch_id, slice=number, applied=rows),
    )


def test_killed_while_reading_and_told_twice(platform: Platform) -> None:
    """A worker is killed with SIGKILL in the middle of a file, the server too; every row arrives once."""
    server = platform.serve()
    worker = platform.work()
    platform.told(clock_fact())

    def upload(content: bytes, request_id: str = "upload") -> imports_pb2.Batch:
        def requests() -> Iterator[imports_service_pb2.UploadBatchRequest]:
            yield imports_service_pb2.UploadBatchRequest(
                header=imports_service_pb2.UploadHeader(
                    parent=f"agencies/{AGENCY}",
                    kind=imports_pb2.BATCH_KIND_PORTFOLIO,
                    size_bytes=len(content),
                    request_id=request_id,
                )
            )
            for start in range(0, len(content), 1024 * 1024):
                yield imports_service_pb2.UploadBatchRequest(content=content[start : start + 1024 * 1024])

        return platform.stub.UploadBatch(requests(), timeout=60, metadata=platform.user)

    def clock_known() -> bool:
        with psycopg.connect(platform.url) as connection:
            return connection.execute("SELECT count(*) FROM agency_clock").fetchone() == (1,)

    waiting.until(clock_known, timeout=30, what="the clock")
    rows = portfolio.rows(ROWS)
    rows[10]["due_date"] = "31/02/2026"
    content = portfolio.content(rows)
    name = upload(content).name

    def reading() -> bool:
        return 0 < platform.batch(name).rows_read < ROWS

    waiting.until(reading, timeout=60, what="the file to be half read")
    worker.end(signal.SIGKILL)
    server.end(signal.SIGKILL)
    platform.bury()
    platform.serve()
    # the uploader, whose answer might have been lost, asks again: the same batch
    assert upload(content).name == name
    worker = platform.work()
    waiting.until(
        lambda: platform.batch(name).state == imports_pb2.Batch.STATE_APPLYING,
        timeout=60,
        what="the file read",
    )
    batch = platform.batch(name)
    assert (batch.rows_read, batch.rows_good, batch.rows_rejected) == (ROWS, ROWS - 1, 1)
    found: list[int] = []
    facts = []
    for number in range(batch.slices):
        frame = slices.unpack([platform.fetch(name, number)])
        found += frame["row"].to_list()
        facts.append(applied_fact(name, number, frame.height))
    assert sorted(found) == [row for row in range(2, ROWS + 2) if row != 12]
    platform.told(*facts[:3], *facts[:3])
    waiting.until(lambda: platform.batch(name).slices_applied == 3, timeout=30, what="three slices")
    worker.end(signal.SIGKILL)
    platform.told(*facts)
    worker = platform.work()
    waiting.until(
        lambda: platform.batch(name).state == imports_pb2.Batch.STATE_APPLIED_WITH_ERRORS,
        timeout=60,
        what="all slices applied",
    )
    batch = platform.batch(name)
    assert (batch.rows_applied, batch.slices_applied) == (ROWS - 1, batch.slices)
    # asked to stop in the middle of a file, it stops, and the next one reads the file
    long = upload(portfolio.content(portfolio.rows(ROWS)), request_id="long").name
    waiting.until(lambda: platform.batch(long).rows_read > 0, timeout=60, what="the next file begun")
    assert worker.peak_memory() < 400 * 1024 * 1024
    assert worker.end() == 0
    assert platform.batch(long).state == imports_pb2.Batch.STATE_PARSED
    assert platform.batch(long).rows_read < ROWS
    worker = platform.work()
    waiting.until(
        lambda: platform.batch(long).state == imports_pb2.Batch.STATE_APPLYING, timeout=120, what="it read"
    )
    assert worker.end() == 0
    logs = "".join(process.log.read_text() for process in platform.started)
    assert "Conceição" not in logs
    assert "39053344705" not in logs
