"""The real processes: `python -m notify_service worker | serve`, on the real broker, killed and started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from kafka import KafkaConsumer, TopicPartition

from recupera.notify.v1 import notify_facts_pb2, notify_service_pb2, notify_service_pb2_grpc
from recupera_local import ports
from servicekit import facts, ids, kafka
from servicekit import topics as catalog
from support import databases, waiting

from .conftest import (
    AGENCY,
    SENDER,
    Keys,
    MailServer,
    Notify,
    address,
    case,
    partition_of,
)

CASE_TOPIC = "recupera.case.v1"


@dataclass
class Process:
    """One process of notify."""

    running: subprocess.Popen[bytes]
    ready: Path
    log: Path

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.running.send_signal(number)
        return self.running.wait(60)


@pytest.fixture
def start(
    notify: Notify,
    neighbours: str,
    mail_server: MailServer,
    keys: Keys,
    topics: str,
    broker: Any,
    tmp_path: Path,
) -> Iterator[Callable[..., Process]]:
    """Start `worker` or `serve` on the database, mail server and neighbours of the test."""
    started: list[Process] = []
    notify.rows(
        "DELETE FROM consumer_offsets"
    )  # the clock came without a broker; this one's topics are empty

    def make(command: str, rpc_port: int = 0) -> Process:
        ready = tmp_path / f"ready-{len(started)}"
        log = tmp_path / f"log-{len(started)}"
        environment = {
            **os.environ,
            "RECUPERA_DATABASE_URL_NOTIFY": notify.database.url,
            "RECUPERA_KAFKA": broker.bootstrap,
            "RECUPERA_RPC_PORT": str(rpc_port),
            "RECUPERA_JWKS_FILE": str(keys.jwks),
            "RECUPERA_SERVICE_KEY_FILE": str(keys.notify),
            "RECUPERA_READY_FILE": str(ready),
            "RECUPERA_ALLOW_SIMULATED_CLOCK": "1",
            "RECUPERA_CASE_ADDRESS": neighbours,
            "RECUPERA_AGREEMENT_ADDRESS": neighbours,
            "RECUPERA_SMTP_ADDRESS": f"127.0.0.1:{mail_server.port}",
            "RECUPERA_SMTP_SENDER": SENDER,
            "RECUPERA_DRAIN_DELAY": "0",
        }
        with log.open("wb") as output:
            running = subprocess.Popen(
                [sys.executable, "-m", "notify_service", command], env=environment, stderr=output
            )
        process = Process(running, ready, log)
        started.append(process)
        return process

    yield make
    for process in started:
        process.running.kill()
        process.running.wait(10)


def ready(process: Process) -> None:
    def is_ready() -> bool:
        assert process.running.poll() is None, process.log.read_text()[-2000:]
        return process.ready.exists()

    waiting.until(is_ready, timeout=60, what="the worker to be ready")


def produce(bootstrap: str, *records: tuple[int, Any]) -> None:
    """Facts of the case service, by partition."""
    producer = kafka.Producer(bootstrap, client_id="test")
    sent = []
    for partition, fact in records:
        fact.fact_id = ids.new().bytes
        value = fact.SerializeToString()
        sent.append(producer.send(topic=CASE_TOPIC, partition=partition, key=b"", value=value, headers=[]))
    producer.settle(sent)
    producer.close()


def by_partition(notify: Notify, numbers: list[int]) -> list[tuple[int, Any]]:
    return [
        (partition, notify.steps_due(rows))
        for partition, rows in facts.by_partition(numbers, case_id=case, partitions=24)
    ]


def told(bootstrap: str) -> list[tuple[bytes, int]]:
    """(message, state) of all rows in notify's topic."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    name = catalog.on_wire("recupera.notify.v1")
    partitions = [TopicPartition(name, number) for number in range(24)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    found = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                body = notify_facts_pb2.NotifyFact.FromString(record.value).messages_changed
                found += list(zip(body.message_ids, body.states, strict=True))
    consumer.close()
    return found


def test_from_topic_to_mail_to_topic(
    notify: Notify, mail_server: MailServer, broker: Any, start: Callable[..., Process]
) -> None:
    worker = start("worker")
    ready(worker)
    numbers = list(range(1, 61))
    produce(broker.bootstrap, *by_partition(notify, numbers))
    waiting.until(lambda: len(mail_server.mails) == 60, timeout=60, what="60 mails")
    waiting.until(
        lambda: databases.rows(notify.database.owner_url, "SELECT count(*) FROM outbox") == [(0,)], timeout=30
    )
    assert worker.end() == 0
    assert set(notify.states().values()) == {"SENT"}
    assert len(told(broker.bootstrap)) == 60
    log = worker.log.read_text()
    assert address(1) not in log
    assert "Fulana" not in log


def test_killed_again_and_again_no_mail_twice_none_forgotten(
    notify: Notify, mail_server: MailServer, broker: Any, start: Callable[..., Process]
) -> None:
    """SIGKILL while mails leave: at most a group of acts is UNKNOWN for each kill; all others were sent once."""
    records = by_partition(notify, list(range(1, 301)))
    kills = 3
    for kill in range(kills):
        wanted = len(mail_server.mails) + 30
        worker = start("worker")
        if kill == 0:
            ready(worker)
            produce(broker.bootstrap, *records)
            produce(broker.bootstrap, *records)  # again, under new ids
        waiting.until(lambda many=wanted: len(mail_server.mails) >= many, timeout=60, what="some mails")  # type: ignore[misc]
        worker.end(signal.SIGKILL)
        # as if acts.DEAD_AFTER had passed
        notify.rows("UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 hour'")
    worker = start("worker")
    ready(worker)
    waiting.until(
        lambda: set(notify.states().values()) <= {"SENT", "UNKNOWN"}, timeout=60, what="all messages settled"
    )
    assert worker.end() == 0
    states = notify.states()
    addresses = [one.to for one in mail_server.mails]
    assert len(addresses) == len(set(addresses))
    sent = {address(number) for number, state in states.items() if state == "SENT"}
    assert sent <= set(addresses)
    unknown = [number for number, state in states.items() if state == "UNKNOWN"]
    assert len(unknown) <= 10 * kills
    assert len(states) == 300


def test_facts_of_another_version_and_rubbish_do_not_stop_it(
    notify: Notify, mail_server: MailServer, broker: Any, start: Callable[..., Process]
) -> None:
    """A fact of an unknown kind is passed over; rubbish goes to the dead letters; the rest goes on."""
    worker = start("worker")
    ready(worker)
    partition = partition_of(1)
    unknown = notify.case_fact()
    produce(broker.bootstrap, (partition, unknown))
    producer = kafka.Producer(broker.bootstrap, client_id="test")
    rubbish = producer.send(topic=CASE_TOPIC, partition=partition, key=b"", value=b"\xff\xff", headers=[])
    producer.settle([rubbish])
    producer.close()
    produce(broker.bootstrap, (partition, notify.steps_due([1])))
    waiting.until(lambda: len(mail_server.mails) == 1, timeout=60, what="the mail")
    assert worker.end() == 0


def test_serve_answers_and_drains(notify: Notify, start: Callable[..., Process], keys: Keys) -> None:
    port = ports.free_ports(1)[0]
    server = start("serve", port)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(timeout=60)
        stub = notify_service_pb2_grpc.NotifyServiceStub(channel)
        answer = stub.SummarizeMessages(
            notify_service_pb2.SummarizeMessagesRequest(parent=f"agencies/{AGENCY}"),
            timeout=10,
            metadata=(("authorization", f"Bearer {keys.token()}"),),
        )
        assert answer.messages == 0
    assert server.end() == 0


def test_a_missing_setting_is_named() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "notify_service", "worker"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert found.returncode != 0
    assert b"RECUPERA_SMTP_ADDRESS" in found.stderr
