"""Connections to Kafka that fail: nothing of them stays behind, and none is waited for without end."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servicekit import db, kafka, settings
from support import certificates, waiting

CASE = "recupera.case.v1"
CONNECT: dict[str, Callable[[kafka.Where], Any]] = {
    "producer": lambda where: kafka.Producer(where, client_id="test"),
    "consumer": lambda where: kafka.Consumer(
        where, group="test", client_id="test", subscribe=[CASE], max_poll_records=100
    ),
    "ends": kafka.Ends,
    "topics": kafka.create_missing,
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """pytest keeps what is logged, and with kafka-python's errors the sockets they came from: keep texts only."""
    make = logging.getLogRecordFactory()

    def texts(*args: Any, **named: Any) -> logging.LogRecord:
        record = make(*args, **named)
        if isinstance(record.args, tuple):
            record.args = tuple(arg if isinstance(arg, int | float) else str(arg) for arg in record.args)
        record.exc_info = None
        return record

    logging.setLogRecordFactory(texts)
    yield
    logging.setLogRecordFactory(make)


def held() -> tuple[int, int]:
    """Threads of kafka-python's, and open descriptors."""
    gc.collect()  # kafka-python leaves what it has closed to it
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("kafka-io")]
    return len(threads), len(list(Path("/proc/self/fd").iterdir()))


def wait_for(before: tuple[int, int]) -> None:
    """Until no more is held than before; what earlier tests left may go meanwhile."""
    waiting.until(
        lambda: all(now <= then for now, then in zip(held(), before, strict=True)),
        what=f"{before} threads and descriptors",
    )


def closed_port() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("name", CONNECT)
def test_a_client_that_cannot_connect_leaves_nothing_behind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "BOOTSTRAP_MS", 200)
    where = closed_port()
    before = held()
    for _ in range(5):
        with pytest.raises(kafka.Unreachable):
            CONNECT[name](where)
    wait_for(before)


def test_a_consumer_that_fails_after_it_connected_leaves_nothing_behind(
    broker: Any, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise kafka.driver_errors.KafkaTimeoutError("metadata")

    monkeypatch.setattr(kafka.KafkaConsumer, "topics", fail)
    before = held()
    for _ in range(3):
        with pytest.raises(kafka.Unavailable, match="metadata"):
            CONNECT["consumer"](broker.bootstrap)
    wait_for(before)


def test_a_broker_whose_machine_is_gone_is_noticed(broker: Any, topics: str) -> None:
    ends = kafka.Ends(broker.bootstrap)
    try:
        ends.of([kafka.Partition(CASE, 0)])
        found = options_towards(int(broker.bootstrap.rpartition(":")[2]))
    finally:
        ends.close()
    assert found
    names = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
    for no_delay, keepalive, *figures in found:
        assert no_delay
        assert keepalive
        assert figures == [db.DEAD_PEER[name] for name in names]


def options_towards(port: int) -> list[list[int]]:
    """`kafka.SOCKET_OPTIONS` as each connection of this process to the port has them."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            one = socket.socket(fileno=int(path.name))
            try:
                if one.getpeername()[1:2] == (port,):
                    found.append([one.getsockopt(level, option) for level, option, _ in kafka.SOCKET_OPTIONS])
            finally:
                one.detach()
    return found


@pytest.fixture
def mute() -> Iterator[str]:
    """A broker that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("name", CONNECT)
def test_a_broker_that_does_not_answer_a_handshake_is_given_up(
    name: str, mute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "BOOTSTRAP_MS", 1_000)
    monkeypatch.setattr(kafka, "HANDSHAKE", 0.2)
    where = settings.Brokers(bootstrap=mute, security="SSL", ca_file=certificates.Authority(tmp_path).file)
    before = held()
    ended = threading.Event()

    def connect() -> None:
        with pytest.raises(kafka.Unreachable, match="Handshake failed"):
            CONNECT[name](where)
        ended.set()

    threading.Thread(target=connect, daemon=True).start()
    assert ended.wait(20)
    wait_for(before)
