"""The relay: sends the outbox to Kafka, in id order, and deletes what was acknowledged (architecture §6).

It runs on a native thread of the worker process (never on nameko's hub), in one replica at a time (a lease),
over a connection of its own, which must be direct: a transaction pooler breaks LISTEN. Woken by NOTIFY, else
every 200 ms.

Two relays for a moment (a process stopped longer than its lease) do no harm: each sends what is left of a
partition in order from its first row, so the first time that a fact appears in Kafka it is in order, and the
inbox drops the rest.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import psycopg
import sqlalchemy as sa

from servicekit import acts, db, facts, ids, kafka, leases, outbox, telemetry

BATCH_ROWS = 2_000
BATCH_BYTES = 8 * 1024 * 1024
POLL = 0.2
"""Seconds between looks when nobody notifies."""
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
HOLD = 30.0
"""Seconds until a partition is tried again whose first record Kafka refused; the others go on."""
PROBE_ROWS = 200
PROBE_ROUNDS = 5
"""So many times ``PROBE_ROWS`` records one by one without a refusal, and the rest goes the usual way."""
RENEW = leases.LEASE / 5
COUNTED = 100_000
"""Rows of the outbox that are counted: more are told as so many."""

logger = logging.getLogger("recupera.relay")

_sent = telemetry.counter(
    "recupera.relay.sent", "{record}", "Records acknowledged by Kafka and deleted from the outbox"
)
_failed = telemetry.counter(
    "recupera.relay.failures", "{failure}", "Failures after which the relay started again"
)
_lag = telemetry.histogram(
    "recupera.relay.lag",
    "s",
    "Age of the oldest record of a batch when it was acknowledged",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
    id: int
    topic: str
    partition: int
    key: bytes
    value: bytes
    fact_id: uuid.UUID
    fact_type: str
    occurred_at: datetime.datetime | None
    traceparent: str
    headers: list[str] | None
    created_at: datetime.datetime


class Incomplete(Exception):
    """Not every record was acknowledged; what was is deleted, the rest will be sent again."""


def waiting(engine: sa.Engine) -> tuple[int, float]:
    """Rows of the outbox (at most ``COUNTED``), and how old the oldest is in seconds (0 where there is none)."""
    (row,) = db.read(engine, agency=None, statement=_WAITING, params={"counted": COUNTED})
    return row.waiting, float(row.age)


class Relay:
    """Sends one service's outbox while it holds the lease ``relay``."""

    def __init__(self, engine: sa.Engine, bootstrap: kafka.Where, *, source: str) -> None:
        self._engine = engine
        self._bootstrap = bootstrap
        self._source = f"recupera/{source}"
        self._holder = ids.new()
        self._held: dict[tuple[str, int], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 20.0) -> None:
        """Send what is being sent, give the lease up, end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                if not leases.hold(self._engine, "relay", holder=self._holder):
                    failures = 0
                    self._stop.wait(1.0)
                    continue
                self._work()
                failures = 0
            except Exception as error:
                _failed.add(1, {"reason": type(error).__name__})
                pause = BACKOFF[min(failures, len(BACKOFF) - 1)]
                failures += 1
                log = logger.error if failures >= len(BACKOFF) else logger.warning
                log("relay starts again", exc_info=error, extra={"failures": failures, "pause": pause})
                self._stop.wait(pause)
        try:
            leases.release(self._engine, "relay", holder=self._holder)
        except Exception as error:
            logger.warning("lease runs out by itself", exc_info=error)

    def _work(self) -> None:
        """Send until stopped, until the lease is lost, until a held partition is due, or until something
        fails.
        """
        with _connect(self._engine) as connection:
            for place in self._due():
                if self._stop.is_set() or not leases.hold(self._engine, "relay", holder=self._holder):
                    return
                self._probe(connection, place)
            producer = kafka.Producer(self._bootstrap, client_id=f"{self._source}-relay")
            try:
                connection.execute(f"LISTEN {outbox.CHANNEL}")
                renewed = time.monotonic()
                acknowledged: list[int] = []
                while not self._stop.is_set() and not self._due():
                    if time.monotonic() - renewed > RENEW.total_seconds():
                        if not leases.hold(self._engine, "relay", holder=self._holder):
                            logger.warning("another process is the relay now")
                            break
                        renewed = time.monotonic()
                    rows = _exchange(connection, acknowledged, but=list(self._held))
                    acknowledged = []
                    if rows:
                        acknowledged = self._send(connection, producer, rows)
                    else:
                        for _notification in connection.notifies(timeout=POLL, stop_after=1):
                            pass
                _delete(connection, acknowledged)
            finally:
                producer.close()

    def _due(self) -> list[tuple[str, int]]:
        now = time.monotonic()
        return [place for place, due in self._held.items() if due <= now]

    def _probe(self, connection: psycopg.Connection[Any], place: tuple[str, int]) -> None:
        """Send what waits for a held partition record by record: what is before the refused one passes. When
        all does, or much of it (others wait, and the lease runs), the partition is free again."""
        producer = kafka.Producer(self._bootstrap, client_id=f"{self._source}-relay", batch_bytes=0)
        try:
            for _ in range(PROBE_ROUNDS):
                if self._stop.is_set():
                    return
                if not (rows := _read_place(connection, place)):
                    break
                _delete(connection, self._send(connection, producer, rows))
            del self._held[place]
        except Incomplete as error:
            if place not in self._held or not isinstance(error.__cause__, kafka.Refused):
                raise
            self._held[place] = time.monotonic() + HOLD
            logger.critical(
                "Kafka refuses a record: its partition waits, the others go on",
                exc_info=error,
                extra={"topic": place[0], "partition": place[1], "outbox_id": rows[0].id},
            )
        finally:
            producer.close()

    def _send(
        self, connection: psycopg.Connection[Any], producer: kafka.Producer, rows: Sequence[_Row]
    ) -> list[int]:
        """Send a batch; the acknowledged ids. When not all are, each partition's prefix is deleted,
        partitions whose record Kafka refused are held, and ``Incomplete`` is raised."""
        futures: list[Any] = []
        failure: Exception | None = None
        with telemetry.span("relay", records=len(rows)):
            try:
                for row in rows:
                    futures.append(self._queue(producer, row))  # noqa: PERF401 (what was sent must be known)
                producer.settle(futures)
            except kafka.Unavailable as error:
                failure = error
            acknowledged = _prefix(rows, futures)
            if len(acknowledged) < len(rows):
                _delete(connection, acknowledged)
                answers = [(row, future.exception) for row, future in zip(rows, futures, strict=False)]
                if len(futures) < len(rows):
                    answers.append((rows[len(futures)], failure))
                refused = [(row, error) for row, error in answers if isinstance(error, kafka.Refused)]
                for row, _ in refused:
                    self._held[row.topic, row.partition] = 0.0
                others = (error for _, error in answers if error is not None)
                cause = refused[0][1] if refused else failure or next(others, None)
                raise Incomplete(f"{len(acknowledged)} of {len(rows)} acknowledged") from cause
        _sent.add(len(rows))
        _lag.record((datetime.datetime.now(datetime.UTC) - rows[0].created_at).total_seconds())
        return acknowledged

    def _queue(self, producer: kafka.Producer, row: _Row) -> Any:
        return producer.send(
            topic=row.topic,
            partition=row.partition,
            key=row.key,
            value=row.value,
            headers=_headers(row, self._source),
        )


def _prefix(rows: Sequence[_Row], futures: Sequence[Any]) -> list[int]:
    """Ids of each partition's records up to its first one that was not acknowledged."""
    broken: set[tuple[str, int]] = set()
    acknowledged = []
    for row, future in zip(rows, futures, strict=False):
        place = (row.topic, row.partition)
        if place in broken:
            continue
        if future.is_done and future.succeeded():
            acknowledged.append(row.id)
        else:
            broken.add(place)
    return acknowledged


def _headers(row: _Row, source: str) -> list[tuple[str, bytes]]:
    time_text = (row.occurred_at or row.created_at).isoformat()
    headers = facts.cloud_event(
        fact_id=row.fact_id, kind=row.fact_type, source=source, time=time_text, traceparent=row.traceparent
    )
    if row.headers:
        extra = iter(row.headers)
        headers += [(name, text.encode()) for name, text in zip(extra, extra, strict=True)]
    return headers


def _connect(engine: sa.Engine) -> psycopg.Connection[Any]:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(
        url,
        autocommit=True,
        application_name=f"relay-{acts.worker_id()}",
        options="-c TimeZone=UTC",
        **db.DEAD_PEER,
    )


def _exchange(
    connection: psycopg.Connection[Any], acknowledged: Sequence[int], *, but: Sequence[tuple[str, int]]
) -> list[_Row]:
    """Delete what was acknowledged and read what is next, but not of these partitions, in one round trip."""
    with connection.pipeline():
        if acknowledged:
            db.queue(connection, _DELETE, (list(acknowledged),))
        names, numbers = [topic for topic, _ in but], [partition for _, partition in but]
        cursor = db.queue(connection, _NEXT, (names, numbers, BATCH_ROWS, BATCH_BYTES), binary=True)
    return [_Row(*row) for row in cursor.fetchall()]


def _read_place(connection: psycopg.Connection[Any], place: tuple[str, int]) -> list[_Row]:
    cursor = db.queue(connection, _OF_PLACE, (*place, PROBE_ROWS, BATCH_BYTES), binary=True)
    return [_Row(*row) for row in cursor.fetchall()]


def _delete(connection: psycopg.Connection[Any], acknowledged: Sequence[int]) -> None:
    if acknowledged:
        db.queue(connection, _DELETE, (list(acknowledged),))


_WAITING = sa.text(
    """
    SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT :counted) AS counted) AS waiting, coalesce(
        (SELECT extract(epoch FROM clock_timestamp() - created_at) FROM outbox ORDER BY id LIMIT 1), 0) AS age
    """
)
_DELETE = "DELETE FROM outbox WHERE id = ANY(%b::bigint[])"
_READ = """
    SELECT id, topic, partition, key, value, fact_id, fact_type, occurred_at, traceparent, headers, created_at
    FROM (
        SELECT first.*, sum(octet_length(value)) OVER (ORDER BY id) - octet_length(value) AS before
        FROM (SELECT * FROM outbox WHERE {} ORDER BY id LIMIT %b) AS first
    ) AS sized
    WHERE before < %b
    ORDER BY id
"""
_NEXT = _READ.format("(topic, partition) NOT IN (SELECT * FROM unnest(%b::text[], %b::int[]))")
_OF_PLACE = _READ.format("topic = %b AND partition = %b")
