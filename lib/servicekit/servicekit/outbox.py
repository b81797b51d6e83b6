"""The outbox: facts written in the transaction that makes them true, sent by ``relay`` afterwards
(architecture §6).
"""

from __future__ import annotations

import datetime
import uuid
from typing import Any, NamedTuple

import psycopg
from google.protobuf import message as protobuf

from servicekit import facts, ids, topics

CHANNEL = "outbox"
"""The NOTIFY channel that wakes the relay."""


class FactTooLarge(ValueError):
    """A fact of more than ``facts.MAX_BYTES`` that cannot be cut: the publisher must send less in one."""


class WrongAgency(ValueError):
    """A fact of another agency than the transaction's."""


class Row(NamedTuple):
    """One record to send; the columns of table ``outbox`` after ``id``."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    fact_id: uuid.UUID
    fact_type: str
    occurred_at: datetime.datetime | None
    traceparent: str


def rows(
    message: protobuf.Message,
    *,
    agency: uuid.UUID | None,
    case_id: uuid.UUID | None,
    partition: int | None,
    traceparent: str,
) -> list[Row]:
    """The outbox rows of a fact: one, or more where a chunk is above ``facts.CHUNK_BYTES`` and is cut in two.

    The message is not changed, so it may be published again, to another partition, as another fact.
    Raises ``FactTooLarge``, ``WrongAgency``, ValueError.
    """
    fact: Any = message
    topic = topics.catalog().of(message.DESCRIPTOR.full_name)
    which = facts.kind(message)
    if which is None:
        raise ValueError(f"{message.DESCRIPTOR.full_name}: no fact is set")
    if agency is not None and fact.agency not in (b"", agency.bytes):
        raise WrongAgency(f"a fact of another agency in a transaction of {agency}")
    key = case_id.bytes if case_id is not None else b""
    if partition is None:
        if not key:
            if facts.is_chunk(message):
                raise ValueError(f"{which}: a chunk is published with its partition")
            key = facts.cases(message)[0].bytes
        partition = topics.partition_of(uuid.UUID(bytes=key), topic.partitions)
    elif not 0 <= partition < topic.partitions:
        raise ValueError(f"{topic.name} has no partition {partition}")

    filled = [name for name in ("fact_id", "agency") if not getattr(fact, name)]
    if agency is not None and "agency" in filled:
        fact.agency = agency.bytes
    if "fact_id" in filled:
        fact.fact_id = ids.new().bytes
    try:
        value = message.SerializeToString()
        if len(value) > facts.CHUNK_BYTES and (parts := facts.halves(message)) is not None:
            first, second = parts
            second.fact_id = b""  # type: ignore[attr-defined]
            return [
                row
                for part in (first, second)
                for row in rows(
                    part, agency=agency, case_id=case_id, partition=partition, traceparent=traceparent
                )
            ]
        if len(value) > facts.MAX_BYTES:
            raise FactTooLarge(f"{message.DESCRIPTOR.full_name}.{which}: {len(value)} bytes in one fact")
        occurred = fact.occurred_at
        return [
            Row(
                topic=topic.name,
                partition=partition,
                key=key,
                value=value,
                fact_id=uuid.UUID(bytes=fact.fact_id),
                fact_type=f"{message.DESCRIPTOR.full_name}.{which}",
                occurred_at=occurred.ToDatetime(datetime.UTC) if fact.HasField("occurred_at") else None,
                traceparent=traceparent,
            )
        ]
    finally:
        for name in filled:
            fact.ClearField(name)


def insert(connection: psycopg.Connection[Any], pending: list[Row]) -> None:
    """Queue the rows' INSERT (one statement, ids in the rows' order) and one NOTIFY. Inside a pipeline
    nothing waits.
    """
    if not pending:
        return
    columns = [list(column) for column in zip(*pending, strict=True)]
    psycopg.Cursor(connection).execute(_INSERT, columns)
    psycopg.Cursor(connection).execute(_NOTIFY)


_INSERT = """
    INSERT INTO outbox (topic, partition, key, value, fact_id, fact_type, occurred_at, traceparent)
    SELECT topic, partition, key, value, fact_id, fact_type, occurred_at, traceparent
    FROM unnest(%b::text[], %b::int[], %b::bytea[], %b::bytea[], %b::uuid[], %b::text[], %b::timestamptz[],
    %b::text[])
        WITH ORDINALITY AS row (topic, partition, key, value, fact_id, fact_type, occurred_at, traceparent,
        place)
    ORDER BY place
"""
_NOTIFY = f"NOTIFY {CHANNEL}"
