"""What has been consumed: offsets, inbox, dead letters, in the transaction of the handler (architecture
§6).
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from google.protobuf import message as protobuf

from servicekit import db, errors, facts, ids, outbox, telemetry, topics

KEPT_BEYOND_RETENTION = datetime.timedelta(days=7)
"""A fact that Kafka may still deliver is known here: retention, and some days for clocks and cleaners."""


QUEUED = "QUEUED_BEHIND"
"""Reason of a fact that waits only because an earlier one of its case is parked."""


class PartitionLost(Exception):
    """The stored offset is not where this process thought: another consumer went on. Roll back, look
    again.
    """


@dataclasses.dataclass(frozen=True)
class Entry:
    """What ``enter`` found: ids seen for the first time, and the cases that have a parked fact in the
    partition.
    """

    fresh: set[uuid.UUID]
    parked: set[uuid.UUID]


class Entering:
    """The opening of a handler's transaction, queued in one pipeline with BEGIN and the scope.

    It moves the partition's stored offset from ``position`` to ``following`` (which locks the row, so that
    two consumers of one partition wait for each other; the one that lost the partition finds another offset),
    writes the inbox rows, and asks which cases have parked facts.
    """

    def __init__(
        self, *, topic: str, partition: int, position: int, following: int, fact_ids: Sequence[uuid.UUID]
    ) -> None:
        self._offset = (following, topic, partition, position)
        self._inbox = (topic, list(dict.fromkeys(fact_ids)))
        self._partition = (topic, partition)
        self._moved: psycopg.Cursor[Any] | None = None
        self._fresh: psycopg.Cursor[Any] | None = None
        self._parked: psycopg.Cursor[Any] | None = None

    def __call__(self, driver: psycopg.Connection[Any]) -> None:
        """Queue the statements."""
        self._moved = db.queue(driver, _MOVE, self._offset)
        if self._inbox[1]:
            self._fresh = db.queue(driver, _INBOX, self._inbox)
            self._parked = db.queue(driver, _PARKED, self._partition)

    def entry(self) -> Entry:
        """The answers, after the pipeline. Raises ``PartitionLost``."""
        assert self._moved is not None
        if self._moved.rowcount != 1:
            raise PartitionLost("{1}/{2}: the stored offset is not {3}".format(*self._offset))
        return Entry(
            fresh={row[0] for row in self._fresh} if self._fresh is not None else set(),
            parked={row[0] for row in self._parked} if self._parked is not None else set(),
        )


def fresh(engine: sa.Engine, fact_ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    """Which of these facts are not in the inbox (a look before remote work; ``Entering`` decides)."""
    rows = db.read(engine, agency=None, statement=_KNOWN, params={"ids": list(fact_ids)})
    return set(fact_ids) - {row[0] for row in rows}


def positions(engine: sa.Engine) -> Mapping[tuple[str, int], int]:
    """The stored next offset of every (topic, partition)."""
    rows = db.read(engine, agency=None, statement=_POSITIONS)
    return {(row.topic, row.partition): row.next_offset for row in rows}


def start(engine: sa.Engine, offsets: Mapping[tuple[str, int], int]) -> None:
    """Store where partitions begin that no consumer of this service has read before; others keep theirs."""
    _upsert(engine, _START, offsets)


def restart(engine: sa.Engine, offsets: Mapping[tuple[str, int], int]) -> None:
    """Store offsets over the stored ones: an operator accepts that facts between them are not applied."""
    _upsert(engine, _RESTART, offsets)


def _upsert(engine: sa.Engine, statement: sa.Executable, offsets: Mapping[tuple[str, int], int]) -> None:
    rows = [
        {"topic": topic, "partition": partition, "offset": offset}
        for (topic, partition), offset in sorted(offsets.items())
    ]
    if rows:
        with db.begin(engine, agency=None) as tx:
            tx.execute(statement, rows)


def lock(tx: db.Transaction, topic: str, partition: int) -> None:
    """Keep consumers of the partition out until the transaction ends (``replay``)."""
    tx.execute(_LOCK, {"topic": topic, "partition": partition})


def dead_letter(
    tx: db.Transaction,
    *,
    topic: str,
    partition: int,
    offset: int,
    key: bytes,
    value: bytes,
    consumer: str,
    reason: str,
    traceparent: str,
) -> None:
    """Send a record that cannot be parsed to the dead letters, with headers that say where it came from."""
    target = topics.catalog()[topics.DEAD_LETTERS]
    origin = {
        "origin_topic": topic,
        "origin_partition": str(partition),
        "origin_offset": str(offset),
        "consumer": consumer,
        "reason": reason,
    }
    headers = [text for pair in origin.items() for text in pair]
    with tx.driver.pipeline():
        db.queue(
            tx.driver,
            _DEAD_LETTER,
            (target.name, partition % target.partitions, key, value, ids.new(), traceparent, headers),
        )
        db.queue(tx.driver, f"NOTIFY {outbox.CHANNEL}")


def reason_of(error: BaseException) -> str:
    """The reason of a ServiceError, else the type of the exception."""
    return error.reason if isinstance(error, errors.ServiceError) else type(error).__name__


def park(
    tx: db.Transaction,
    message: protobuf.Message,
    *,
    topic: str,
    partition: int,
    offset: int,
    case_id: uuid.UUID,
    traceparent: str,
    error: BaseException | None,
) -> None:
    """Keep a fact about one case; ``error`` is None where it only queues behind another one."""
    fact: Any = message
    tx.execute(
        _PARK,
        {
            "topic": topic,
            "partition": partition,
            "agency": uuid.UUID(bytes=fact.agency),
            "case_id": case_id,
            "fact_id": uuid.UUID(bytes=fact.fact_id),
            "fact_type": facts.kind(message) or "",
            "offset": offset,
            "value": message.SerializeToString(),
            "traceparent": traceparent,
            "reason": QUEUED if error is None else reason_of(error),
            "error": "" if error is None else json.dumps(telemetry.describe(error), default=str),
        },
    )


def purge(engine: sa.Engine, catalog: topics.Catalog, *, limit: int = 50_000) -> int:
    """Delete inbox rows older than their topic's retention + 7 days, ``limit`` a transaction; how many."""
    deleted = 0
    for topic in catalog.by_name.values():
        kept = datetime.timedelta(milliseconds=topic.retention_ms) + KEPT_BEYOND_RETENTION
        while True:
            with db.begin(engine, agency=None) as tx:
                count = tx.execute(_PURGE, {"topic": topic.name, "kept": kept, "limit": limit}).rowcount
            deleted += count
            if count < limit:
                break
    return deleted


_MOVE = """
    UPDATE consumer_offsets SET next_offset = %s, updated_at = now()
    WHERE topic = %s AND partition = %s AND next_offset = %s
"""
_INBOX = """
    INSERT INTO inbox (fact_id, topic)
    SELECT fact_id, %s FROM unnest(%b::uuid[]) AS fact (fact_id) ORDER BY fact_id
    ON CONFLICT DO NOTHING RETURNING fact_id
"""
_PARKED = "SELECT DISTINCT case_id FROM parked WHERE topic = %s AND partition = %s"
_DEAD_LETTER = """
    INSERT INTO outbox (topic, partition, key, value, fact_id, fact_type, traceparent, headers)
    VALUES (%s, %s, %s, %s, %s, 'recupera.dead-letter', %s, %s)
"""
_KNOWN = sa.text("SELECT fact_id FROM inbox WHERE fact_id = ANY(:ids)")
_POSITIONS = sa.text("SELECT topic, partition, next_offset FROM consumer_offsets")
_START = sa.text(
    """
    INSERT INTO consumer_offsets (topic, partition, next_offset) VALUES (:topic, :partition, :offset)
    ON CONFLICT DO NOTHING
    """
)
_RESTART = sa.text(
    """
    INSERT INTO consumer_offsets (topic, partition, next_offset) VALUES (:topic, :partition, :offset)
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset, updated_at = now()
    """
)
_LOCK = sa.text("SELECT 1 FROM consumer_offsets WHERE topic = :topic AND partition = :partition FOR UPDATE")
_PURGE = sa.text(
    """
    DELETE FROM inbox WHERE fact_id IN (
        SELECT fact_id FROM inbox
        WHERE topic = :topic AND received_at < now() - CAST(:kept AS interval) LIMIT :limit
    )
    """
)
_PARK = sa.text(
    """
    INSERT INTO parked (topic, partition, agency, case_id, fact_id, fact_type, record_offset, value,
        traceparent, reason, error)
    VALUES (:topic, :partition, :agency, :case_id, :fact_id, :fact_type, :offset, :value,
        :traceparent, :reason, :error)
    """
)
