"""Facts that a rule refused, and those of the same case that came after them (architecture §6).

A parked fact keeps its case's later facts of the topic behind it, in the order of ``id``. ``replay`` applies
them in that order, one in a transaction, and stops a case at the first that is refused again.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from servicekit import db, delivery, facts, inbox, telemetry, topics

logger = logging.getLogger("recupera.parked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tried:
    """One parked fact that was tried; ``refused`` is the reason, empty where it was applied."""

    topic: str
    case_id: uuid.UUID
    fact_type: str
    refused: str


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a replay did: facts applied, and cases that stopped at a fact refused again."""

    applied: int
    refused: int


def count(engine: sa.Engine) -> Mapping[str, int]:
    """Parked facts by topic."""
    return {row.topic: row.facts for row in db.read(engine, agency=None, statement=_COUNT)}


def waiting(engine: sa.Engine) -> Mapping[str, tuple[int, float]]:
    """Parked facts by topic, and the seconds since the oldest was parked."""
    return {
        row.topic: (row.facts, float(row.age)) for row in db.read(engine, agency=None, statement=_WAITING)
    }


def replay(
    engine: sa.Engine,
    worker_class: type[Any],
    wiring: Any,
    case_id: uuid.UUID | None = None,
    tell: Callable[[Tried], None] = lambda tried: None,
) -> Replayed:
    """Apply parked facts in order, of one case or of all; a case stops at the first fact refused again.

    ``tell`` is told of each.
    What is not the fact's fault (database or a remote away) is raised; what was applied until then stays.
    """
    handlers = delivery.handlers(worker_class)
    worker = delivery.instance(worker_class, engine=engine, wiring=wiring)
    applied = refused = 0
    for row in db.read(engine, agency=None, statement=_QUEUES, params={"case_id": case_id}):
        handler = handlers.get(row.topic)
        if handler is None:
            raise LookupError(f"{worker_class.__name__} no longer consumes {row.topic}")
        while (tried := _first(engine, worker, handler, row)) is not None:
            tell(tried)
            if tried.refused:
                refused += 1
                break
            applied += 1
    logger.info("replayed", extra={"applied": applied, "refused": refused})
    return Replayed(applied, refused)


def _first(engine: sa.Engine, worker: Any, handler: delivery.Handler, queue: sa.Row[Any]) -> Tried | None:
    """Apply the first parked fact of the queue; None when there is none."""
    place = {"topic": queue.topic, "partition": queue.partition, "case_id": queue.case_id}
    found = db.read(engine, agency=None, statement=_HEAD, params=place)
    if not found:
        return None
    head = found[0]
    tried = Tried(topic=queue.topic, case_id=queue.case_id, fact_type=head.fact_type, refused="")
    message = facts.message_class(topics.catalog()[queue.topic].message).FromString(bytes(head.value))
    with (
        telemetry.attach(head.traceparent),
        telemetry.span("replay", topic=queue.topic, kind=head.fact_type, case_id=queue.case_id),
    ):
        try:
            prepared = delivery.prepare(worker, handler, [message])
            with db.begin(engine, agency=head.agency) as tx:
                inbox.lock(tx, queue.topic, queue.partition)
                if tx.execute(_TAKE, {**place, "id": head.id}).rowcount != 1:
                    return tried  # another replay took it
                delivery.call(worker, handler, tx, [message], prepared)
        except Exception as error:
            if delivery.is_transient(error):
                raise
            logger.warning(
                "parked fact refused again", extra={"reason": inbox.reason_of(error), "parked_id": head.id}
            )
            with db.begin(engine, agency=None) as tx:
                tx.execute(
                    _REFUSED,
                    {
                        "id": head.id,
                        "reason": inbox.reason_of(error),
                        "error": json.dumps(telemetry.describe(error), default=str),
                    },
                )
            return dataclasses.replace(tried, refused=inbox.reason_of(error))
    return tried


_COUNT = sa.text("SELECT topic, count(*) AS facts FROM parked GROUP BY topic")
_WAITING = sa.text(
    "SELECT topic, count(*) AS facts, extract(epoch FROM clock_timestamp() - min(parked_at)) AS age"
    " FROM parked GROUP BY topic"
)
_QUEUES = sa.text(
    "SELECT topic, partition, case_id, min(id) AS first FROM parked"
    " WHERE CAST(:case_id AS uuid) IS NULL OR case_id = :case_id"
    " GROUP BY topic, partition, case_id ORDER BY first"
)
_HEAD = sa.text(
    "SELECT id, agency, fact_type, value, traceparent FROM parked"
    " WHERE topic = :topic AND partition = :partition AND case_id = :case_id ORDER BY id LIMIT 1"
)
_TAKE = sa.text(
    "DELETE FROM parked WHERE id = :id AND id = (SELECT min(id) FROM parked"
    " WHERE topic = :topic AND partition = :partition AND case_id = :case_id)"
)
_REFUSED = sa.text(
    "UPDATE parked SET attempts = attempts + 1, reason = :reason, error = :error WHERE id = :id"
)
