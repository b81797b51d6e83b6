"""The real commands on the real broker: facts in, calls, facts out, an orderly stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from dialer_service import __main__ as main
from dialer_service import rpc
from recupera.case.v1 import case_facts_pb2
from recupera.dialer.v1 import dialer_facts_pb2, dialer_pb2, dialer_service_pb2_grpc
from recupera_local import kafka as local_kafka
from recupera_local import ports
from servicekit import ids, kafka, migrations
from support import databases, waiting

from .conftest import Dialer, Keys


@contextmanager
def process(command: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "dialer_service", command], env={**os.environ, **environment}
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_serve_and_worker_on_the_real_broker(
    dialer: Dialer,
    database: Callable[..., databases.Database],
    broker: local_kafka.Kafka,
    topics: str,
    case_address: str,
    keys: Keys,
    tmp_path: Path,
) -> None:
    made = database("dialer")
    ready = tmp_path / "ready"
    (port,) = ports.free_ports(1)
    environment = {
        "RECUPERA_DATABASE_URL_DIALER": made.url,
        "RECUPERA_KAFKA": broker.bootstrap,
        "RECUPERA_RPC_PORT": str(port),
        "RECUPERA_JWKS_FILE": str(keys.jwks),
        "RECUPERA_SERVICE_KEY_FILE": str(keys.dialer),
        "RECUPERA_CASE_ADDRESS": case_address,
        "RECUPERA_ALLOW_SIMULATED_CLOCK": "1",
        "RECUPERA_DRAIN_DELAY": "0",
        "RECUPERA_READY_FILE": str(ready),
        "RECUPERA_LOG_LEVEL": "WARNING",
    }
    produce(broker.bootstrap, dialer.clock_changed(), dialer.steps_due(range(20)))
    with process("serve", environment) as serve, process("worker", environment) as worker:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as connection:
            grpc.channel_ready_future(connection).result(timeout=60)
            outside = Dialer(
                dialer.engine,
                dialer.owner,
                made,
                dialer.wiring,
                dialer_service_pb2_grpc.DialerServiceStub(connection),
                keys,
            )
            waiting.until(ready.exists, timeout=60, what="the worker has its partitions")
            waiting.until(lambda: candidates(outside) == 20, timeout=60, what="20 candidates")
            campaign = outside.make()
            outside.staff(campaign, 3)
            outside.start(campaign)

            def quiet() -> bool:
                for call in outside.connected():
                    outside.dispose(call)
                found = outside.campaign(campaign)
                return not found.cases_due and not found.calls_live

            waiting.until(quiet, timeout=60, what="the campaign is quiet")
            outside.drain(campaign)
            waiting.until(
                lambda: outside.campaign(campaign).state == dialer_pb2.Campaign.STATE_COMPLETED,
                what="the campaign is completed",
            )
            waiting.until(lambda: outside.summary().outbox == 0, timeout=30, what="an empty outbox")
            calls = {call.name.rpartition("/")[2] for call in outside.calls()}
        worker.send_signal(signal.SIGTERM)
        serve.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 0
        assert serve.wait(timeout=60) == 0
        assert not ready.exists()
    assert len(calls) == 20
    told = [fact for fact in consume(broker.bootstrap) if fact.HasField("call_ended")]
    assert {str(UUID(bytes=fact.call_ended.call_id)) for fact in told} == calls
    assert len({fact.fact_id for fact in told}) == len(told)
    assert rpc.SERVICES == ("recupera.dialer.v1.DialerService",)

    republish(environment, dialer)
    rows = databases.rows(made.url, "SELECT count(*) FROM outbox")
    assert rows == [(21,)], "the present state of 20 calls and a campaign"


def candidates(dialer: Dialer) -> int:
    try:
        return int(dialer.summary().candidates)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:  # the clock is not known yet
            return 0
        raise


def produce(bootstrap: str, *facts: case_facts_pb2.CaseFact) -> None:
    producer = kafka.Producer(bootstrap, client_id="test")
    sent = []
    for fact in facts:
        fact.fact_id = ids.new().bytes
        value = fact.SerializeToString()
        sent.append(producer.send(topic="recupera.case.v1", partition=3, key=b"", value=value, headers=[]))
    producer.settle(sent)
    producer.close()
    assert all(future.succeeded() for future in sent)


def consume(bootstrap: str) -> list[dialer_facts_pb2.DialerFact]:
    """Everything on the dialer's topic."""
    partitions = [kafka.Partition("recupera.dialer.v1", number) for number in range(24)]
    ends = kafka.ends(bootstrap, partitions)
    consumer = kafka.Consumer(
        bootstrap,
        group="test",
        client_id="test",
        subscribe=["recupera.dialer.v1"],
        max_poll_records=500,
        session_timeout_ms=10_000,
        max_poll_interval_ms=60_000,
    )
    found: list[dialer_facts_pb2.DialerFact] = []

    def read() -> bool:
        polled = consumer.poll(200)
        for partition in consumer.unpositioned():
            consumer.seek(partition, 0)
        for records in polled.values():
            found.extend(dialer_facts_pb2.DialerFact.FromString(record.value) for record in records)
        return len(found) == sum(ends.values())

    waiting.until(read, timeout=30, what="all facts")
    consumer.close()
    return found


def republish(environment: dict[str, str], dialer: Dialer) -> None:
    subprocess.run(
        [sys.executable, "-m", "dialer_service", "republish", "--agency", str(dialer.agency)],
        env={**os.environ, **environment},
        check=True,
        timeout=60,
    )


def test_migrate_makes_the_database_and_again_changes_nothing(
    database: Callable[..., databases.Database],
) -> None:
    made = database("dialer", migrated=False)
    environment = {**os.environ, "RECUPERA_OWNER_DATABASE_URL_DIALER": made.owner_url}
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "dialer_service", "migrate"], env=environment, check=True, timeout=60
        )
        newest = migrations.revisions(main.PROGRAM.migrations)[0]
        assert databases.rows(made.owner_url, "SELECT version_num FROM alembic_version") == [(newest,)]
    assert databases.rows(made.url, "SELECT count(*) FROM calls") == [(0,)]


def test_a_missing_setting_is_named_at_start() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RECUPERA_")}
    done = subprocess.run(
        [sys.executable, "-m", "dialer_service", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    for variable in ("RECUPERA_DATABASE_URL_DIALER", "RECUPERA_CASE_ADDRESS", "RECUPERA_KAFKA"):
        assert variable in done.stderr


@pytest.mark.parametrize("module", ["dialer_service.rpc", "dialer_service.__main__"])
def test_serve_never_loads_eventlet(module: str) -> None:
    code = f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('eventlet', 'nameko', 'kafka')))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
