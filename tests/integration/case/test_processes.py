"""The real commands on the real broker: a clock and a day over gRPC, their facts sent, an orderly stop."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psycopg
import pytest

from case_service import rpc
from recupera.case.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc
from recupera_local import kafka as local_kafka
from recupera_local import ports
from servicekit import auth, dates
from support import databases, waiting

from .conftest import AGENCY, DATE, NOW


@contextmanager
def process(environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "case_service", *command], env={**os.environ, **environment}
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def environment(broker: local_kafka.Kafka, topics: str, tmp_path: Path) -> dict[str, str]:
    key = auth.generate_key(auth.SERVICE_ISSUER + "case")
    user = auth.generate_key()
    auth.write_key(tmp_path / "case.json", key)
    auth.write_key(tmp_path / "user.json", user)
    auth.write_jwks(tmp_path / "jwks.json", [key, user])
    (port,) = ports.free_ports(1)
    return {
        "RECUPERA_KAFKA": broker.bootstrap,
        "RECUPERA_RPC_PORT": str(port),
        "RECUPERA_JWKS_FILE": str(tmp_path / "jwks.json"),
        "RECUPERA_SERVICE_KEY_FILE": str(tmp_path / "case.json"),
        "RECUPERA_IMPORT_ADDRESS": "127.0.0.1:1",
        "RECUPERA_ALLOW_SIMULATED_CLOCK": "1",
        "RECUPERA_DRAIN_DELAY": "0",
        "RECUPERA_READY_FILE": str(tmp_path / "ready"),
        "RECUPERA_LOG_LEVEL": "WARNING",
    }


def test_serve_and_worker(
    database: Callable[..., databases.Database], environment: dict[str, str], tmp_path: Path
) -> None:
    made = database("case")
    environment["RECUPERA_DATABASE_URL_CASE"] = made.url
    token = auth.issue(
        auth.read_key(tmp_path / "user.json"),
        subject="users/tester",
        agency=AGENCY,
        scopes=["case.read", "case.admin"],
    )
    parent = f"agencies/{AGENCY}"

    def call(method: str, request: object) -> object:
        return getattr(stub, method)(request, timeout=10, metadata=[("authorization", f"Bearer {token}")])

    def outbox() -> int:
        with psycopg.connect(made.administrator_url) as connection:
            row = connection.execute("SELECT count(*) FROM outbox").fetchone()
        assert row is not None
        return int(row[0])

    with process(environment, "serve") as serve, process(environment, "worker") as worker:
        with grpc.insecure_channel(f"127.0.0.1:{environment['RECUPERA_RPC_PORT']}") as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            stub = case_service_pb2_grpc.CaseServiceStub(channel)
            clock = case_service_pb2.SetClockRequest(
                name=f"{parent}/clock",
                time_zone="America/Sao_Paulo",
                simulated=True,
                now=dates.to_timestamp(NOW),
            )
            call("SetClock", clock)
            day = call("RunDay", case_service_pb2.RunDayRequest(parent=parent, date=dates.to_proto(DATE)))
            assert isinstance(day, case_pb2.BusinessDay)
            waiting.until((tmp_path / "ready").exists, timeout=60, what="the worker has its partitions")
            waiting.until(lambda: outbox() == 0, timeout=30, what="the relay has sent all")
        for running in (serve, worker):
            running.send_signal(signal.SIGTERM)
            assert running.wait(timeout=60) == 0
    assert not (tmp_path / "ready").exists()
    for command in (["republish", "--agency", str(AGENCY)], ["replay"]):
        with process(environment, *command) as running:
            assert running.wait(timeout=60) == 0
    assert outbox() == 48  # the clock and the open day, to every partition


def test_a_missing_setting_is_named(environment: dict[str, str]) -> None:
    del environment["RECUPERA_IMPORT_ADDRESS"]
    done = subprocess.run(
        [sys.executable, "-m", "case_service", "serve"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "RECUPERA_IMPORT_ADDRESS" in done.stderr
    assert "RECUPERA_DATABASE_URL_CASE" in done.stderr


def test_an_unknown_agency_is_not_republished(
    database: Callable[..., databases.Database], environment: dict[str, str]
) -> None:
    environment["RECUPERA_DATABASE_URL_CASE"] = database("case").url
    with process(environment, "republish", "--agency", str(uuid.uuid4())) as running:
        assert running.wait(timeout=60) != 0
    assert rpc.SERVICES == ("recupera.case.v1.CaseService",)
