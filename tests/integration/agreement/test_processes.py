"""`serve` and `worker` as processes, on the real broker: a fact in, a fact out, SIGTERM ends both in good order."""

import datetime
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import kafka
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_facts_pb2
from recupera_local import ports
from servicekit import auth, dates, ids
from servicekit import topics as catalog
from support import waiting

TUESDAY = datetime.date(2026, 10, 6)


@pytest.fixture
def environ(agency: Any, broker: Any, topics: str, database_of_test: Any, tmp_path: Path) -> dict[str, str]:
    keys = [auth.generate_key(), auth.generate_key(auth.SERVICE_ISSUER + "agreement")]
    auth.write_key(tmp_path / "agreement.json", keys[1])
    auth.write_jwks(tmp_path / "jwks.json", keys)
    return {
        **os.environ,
        "RECUPERA_DATABASE_URL_AGREEMENT": database_of_test.url,
        "RECUPERA_KAFKA": broker.bootstrap,
        "RECUPERA_RPC_PORT": str(ports.free_ports(1)[0]),
        "RECUPERA_DRAIN_DELAY": "0",
        "RECUPERA_JWKS_FILE": str(tmp_path / "jwks.json"),
        "RECUPERA_SERVICE_KEY_FILE": str(tmp_path / "agreement.json"),
        "RECUPERA_IMPORT_ADDRESS": "127.0.0.1:1",
        "RECUPERA_CASE_ADDRESS": "127.0.0.1:1",
        "RECUPERA_ALLOW_SIMULATED_CLOCK": "1",
    }


@pytest.fixture
def start(environ: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    running = []

    def begin(command: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{command}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "agreement_service", command], env=environ, stdout=log, stderr=log
            )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def end(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=40)


def test_the_worker_takes_titles_from_kafka_and_answers_the_day(agency, broker, environ, start, tmp_path):
    worker = start("worker")
    fact, (placed,) = agency.fact([(TUESDAY, 100_000)])
    producer = kafka.KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
    topic = catalog.catalog()["recupera.case.v1"]

    def send(partition: int, **fields: Any) -> None:
        message = case_facts_pb2.CaseFact(
            fact_id=ids.new().bytes, agency=agency.agency.bytes, subject=agency.agency.bytes, **fields
        )
        producer.send(catalog.on_wire(topic.name), partition=partition, value=message.SerializeToString())

    partition = catalog.partition_of(placed.case_id, topic.partitions)
    send(partition, titles_placed=fact)
    date = agency.today + datetime.timedelta(days=3)
    for number in range(topic.partitions):
        send(
            number,
            day_opened=case_facts_pb2.DayOpened(date=dates.to_proto(date), partition=number),
        )
    producer.flush()
    waiting.until(lambda: agency.rows("SELECT 1 FROM titles"), timeout=60, what="the title")
    assert agency.title(placed).principal_minor == 100_000
    consumer = kafka.KafkaConsumer(
        catalog.on_wire("recupera.agreement.v1"),
        bootstrap_servers=broker.bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        group_id=None,
    )
    done: set[int] = set()

    def all_done() -> bool:
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                found = agreement_facts_pb2.AgreementFact.FromString(record.value)
                if found.HasField("day_done"):
                    assert found.day_done.partition == record.partition
                    done.add(record.partition)
        return len(done) == topic.partitions

    waiting.until(all_done, timeout=60, what="the day in every partition")
    consumer.close()
    producer.close()
    assert end(worker) == 0, (tmp_path / "worker.log").read_text()


def test_serve_is_ready_and_drains(environ, start, tmp_path):
    serve = start("serve")
    channel = grpc.insecure_channel(f"127.0.0.1:{environ['RECUPERA_RPC_PORT']}")
    stub = health_pb2_grpc.HealthStub(channel)

    def ready() -> bool:
        try:
            found = stub.Check(health_pb2.HealthCheckRequest(service=""), timeout=2)
        except grpc.RpcError:
            return False
        return found.status == health_pb2.HealthCheckResponse.SERVING

    waiting.until(ready, timeout=60, what="serving")
    maps = Path(f"/proc/{serve.pid}/maps").read_text()
    assert "eventlet" not in maps
    channel.close()
    assert end(serve) == 0, (tmp_path / "serve.log").read_text()


def test_a_missing_setting_is_named(environ, start, tmp_path):
    del environ["RECUPERA_IMPORT_ADDRESS"]
    assert start("worker").wait(timeout=60) == 1
    assert "RECUPERA_IMPORT_ADDRESS" in (tmp_path / "worker.log").read_text()
