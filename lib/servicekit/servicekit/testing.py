"""For the tests of services: facts straight from outboxes to handlers, on real databases, without Kafka in
between.

``drain`` moves what services published to the workers that consume it, through the same code as the host
(inbox, stored offsets, parking), until nothing is left: a platform of several services in one process, in a
fixed order. Tests of the host itself, and of journeys, use the real broker.
"""

from __future__ import annotations

import collections
import dataclasses
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf import message as protobuf

from servicekit import db, delivery, facts, inbox, outbox, topics


class FactsParked(AssertionError):
    """A handler refused facts that the test did not expect it to refuse."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A service in a test: its engine, its worker class and what ``__main__`` would wire."""

    engine: sa.Engine
    worker: type[Any]
    wiring: Any = None


@dataclasses.dataclass(frozen=True)
class Published:
    """A record of an outbox: the fact, its topic and partition, and the case or subject it was published
    for.
    """

    topic: str
    partition: int
    key: uuid.UUID | None
    fact: Any


def published(engine: sa.Engine, *, kind: str | None = None) -> list[Published]:
    """What waits in a service's outbox, in order; with ``kind`` only facts of that name
    (``titles_placed``).
    """
    return [
        found for found in _outbox(engine, delete=False) if kind is None or facts.kind(found.fact) == kind
    ]


def take(engine: sa.Engine) -> list[Published]:
    """The same, and empties the outbox."""
    return _outbox(engine, delete=True)


def deliver(
    engine: sa.Engine,
    worker: type[Any],
    wiring: Any,
    messages: Iterable[protobuf.Message],
    *,
    partition: int | None = None,
    allow_parked: bool = False,
) -> None:
    """Give facts to a worker's handler, as the host would. Chunks need ``partition``.

    Facts with the same ``fact_id`` as an earlier one are duplicates; an empty one is filled. Raises
    ``FactsParked`` where one is refused (unless ``allow_parked``), and what the host would try again.
    """
    records: list[tuple[str, int, bytes, bytes]] = []
    for message in messages:
        agency = uuid.UUID(bytes=message.agency)  # type: ignore[attr-defined]
        rows = outbox.rows(message, agency=agency, case_id=None, partition=partition, traceparent="")
        records += [(row.topic, row.partition, row.key, row.value) for row in rows]
    _deliver(Service(engine, worker, wiring), records, allow_parked=allow_parked)


def drain(services: Sequence[Service], *, allow_parked: bool = False, rounds: int = 100) -> int:
    """Move facts between these services until none is left; how many were delivered.

    Raises AssertionError when they never come to rest.
    """
    delivered = 0
    for _ in range(rounds):
        moved = 0
        for source in services:
            records = [
                (
                    found.topic,
                    found.partition,
                    found.key.bytes if found.key else b"",
                    found.fact.SerializeToString(),
                )
                for found in take(source.engine)
            ]
            moved += len(records)
            for target in services:
                consumed = delivery.handlers(target.worker)
                mine = [record for record in records if record[0] in consumed]
                delivered += len(mine)
                _deliver(target, mine, allow_parked=allow_parked)
        if not moved:
            return delivered
    raise AssertionError(f"facts still flow after {rounds} rounds")


def _deliver(
    target: Service, records: Sequence[tuple[str, int, bytes, bytes]], *, allow_parked: bool
) -> None:
    handlers = delivery.handlers(target.worker)
    worker = delivery.instance(target.worker, engine=target.engine, wiring=target.wiring)
    streak = delivery.Streak(limit=1_000_000)
    before = _parked(target.engine)
    for (topic, partition), values in _by_partition(records).items():
        place = (topic, partition)
        inbox.start(target.engine, {place: 0})
        position = inbox.positions(target.engine)[place]
        batch = delivery.Batch(
            handler=handlers[topic],
            partition=partition,
            position=position,
            records=[
                delivery.Record(position + number, key, value) for number, (key, value) in enumerate(values)
            ],
            consumer=getattr(target.worker, "name", ""),
        )
        delivery.deliver(target.engine, worker, batch, streak, stop=lambda: False)
    if not allow_parked and (parked := [row for row in _parked(target.engine) if row not in before]):
        raise FactsParked(
            "; ".join(f"{row.fact_type} of {row.case_id}: {row.reason} {row.error}" for row in parked)
        )


def _by_partition(
    records: Iterable[tuple[str, int, bytes, bytes]],
) -> dict[tuple[str, int], list[tuple[bytes, bytes]]]:
    found: dict[tuple[str, int], list[tuple[bytes, bytes]]] = collections.defaultdict(list)
    for topic, partition, key, value in records:
        found[topic, partition].append((key, value))
    return found


def _outbox(engine: sa.Engine, *, delete: bool) -> list[Published]:
    with db.begin(engine, agency=None) as tx:
        rows = tx.execute(_TAKE if delete else _LOOK).all()
    return [
        Published(
            topic=row.topic,
            partition=row.partition,
            key=uuid.UUID(bytes=bytes(row.key)) if row.key else None,
            fact=facts.message_class(topics.catalog()[row.topic].message).FromString(bytes(row.value)),
        )
        for row in sorted(rows, key=lambda row: row.id)
        if row.topic != topics.DEAD_LETTERS
    ]


def _parked(engine: sa.Engine) -> list[sa.Row[Any]]:
    return db.read(engine, agency=None, statement=_PARKED)


_LOOK = sa.text("SELECT id, topic, partition, key, value FROM outbox")
_TAKE = sa.text("DELETE FROM outbox RETURNING id, topic, partition, key, value")
_PARKED = sa.text("SELECT id, case_id, fact_type, reason, error FROM parked ORDER BY id")
