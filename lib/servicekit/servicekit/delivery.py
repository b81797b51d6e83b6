"""How facts reach handlers: one transaction for each run of one agency; what fails is done again alone
(architecture §6).

No Kafka and no nameko here: ``host`` brings records of one partition and polls on while this works. State,
stored offset, inbox, parked rows and outbox of a run commit together, and only if the partition's stored
offset is still where this process thinks it is. So whatever dies, wherever, nothing is applied twice and
nothing is lost.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf import message as protobuf

from servicekit import db, errors, facts, inbox, telemetry, topics

MAX_RECORDS = 2_000
"""Records of one transaction, unless the handler says less."""
MAX_ROWS = 10_000
"""Rows (chunks count theirs) of one transaction, unless the handler says less: it commits within 10
seconds.
"""
ABORTED_ATTEMPTS = 3
"""How often a fact is tried that met a version changed under it (ABORTED), before it is parked."""

ATTRIBUTE = "recupera_handler"

logger = logging.getLogger("recupera.delivery")

_handled = telemetry.counter("recupera.facts.handled", "{fact}", "Facts applied by a handler")
_duplicates = telemetry.counter(
    "recupera.facts.duplicates", "{fact}", "Facts seen before and not applied again"
)
_skipped = telemetry.counter("recupera.facts.skipped", "{fact}", "Facts of a kind this version does not know")
_parked = telemetry.counter("recupera.facts.parked", "{fact}", "Facts parked or queued behind a parked one")
_dead = telemetry.counter("recupera.facts.dead_letters", "{record}", "Records that could not be parsed")
_seconds = telemetry.histogram("recupera.facts.run", "s", "Time of one handler's transaction")

RARE = (_skipped, _parked, _dead)
"""Counters by topic that alerts read."""


class TooManyParked(Exception):
    """So many facts in a row were refused that something else must be wrong: the consumer stops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Handler:
    """A worker's method for one topic. ``prepare`` names a method(facts) that runs before the transaction."""

    topic: str
    method: str
    prepare: str | None = None
    max_records: int = MAX_RECORDS
    max_rows: int = MAX_ROWS


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record."""

    offset: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Fact:
    record: Record
    message: Any
    fact_id: uuid.UUID
    agency: uuid.UUID
    rows: int
    known: bool


class Batch:
    """Records of one partition, in order, from ``position`` (the stored offset) on; emptied as they are
    applied.

    Reading it again after an exception goes on where it stopped.
    """

    def __init__(
        self, *, handler: Handler, partition: int, position: int, records: Sequence[Record], consumer: str
    ) -> None:
        self.handler = handler
        self.partition = partition
        self.position = position
        self.consumer = consumer
        self._kind = facts.message_class(topics.catalog()[handler.topic].message)
        self._waiting = collections.deque(_parse(self._kind, record) for record in records)

    @property
    def done(self) -> bool:
        """True when nothing is left."""
        return not self._waiting

    def next_run(self) -> list[_Fact | _Unparsable]:
        """The next records for one transaction: of one agency, within the handler's limits; not taken off
        yet.
        """
        run: list[_Fact | _Unparsable] = []
        rows = 0
        for item in self._waiting:
            if isinstance(item, _Unparsable):
                return run or [item]
            rows += item.rows
            first = run[0] if run else None
            if isinstance(first, _Fact) and (
                item.agency != first.agency
                or rows > self.handler.max_rows
                or len(run) == self.handler.max_records
            ):
                break
            run.append(item)
        return run

    def advance(self, count: int) -> None:
        """Take off the first ``count`` records: they are committed."""
        for _ in range(count):
            self.position = self._waiting.popleft().record.offset + 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Unparsable:
    record: Record
    reason: str


def _parse(kind: type[protobuf.Message], record: Record) -> _Fact | _Unparsable:
    try:
        message: Any = kind.FromString(record.value)
        return _Fact(
            record=record,
            message=message,
            fact_id=uuid.UUID(bytes=message.fact_id),
            agency=uuid.UUID(bytes=message.agency),
            rows=facts.rows(message),
            known=facts.kind(message) is not None,
        )
    except protobuf.DecodeError:
        return _Unparsable(record, "not a message of the topic's type")
    except ValueError:
        return _Unparsable(record, "fact_id and agency are not UUIDs of 16 bytes")


class Streak:
    """Counts facts refused in a row, over all partitions of a process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0

    def applied(self) -> None:
        """Something was applied."""
        self._count = 0

    def refused(self) -> None:
        """Something was parked. Raises ``TooManyParked`` at the limit, and starts counting anew."""
        self._count += 1
        if self._count >= self._limit:
            self._count = 0
            raise TooManyParked(f"{self._limit} facts in a row were refused")


def handlers(worker_class: type[Any]) -> Mapping[str, Handler]:
    """The consuming methods of a worker class, by topic (what ``host.consume`` noted on them)."""
    found: dict[str, Handler] = {}
    for name in dir(worker_class):
        handler = getattr(getattr(worker_class, name), ATTRIBUTE, None)
        if isinstance(handler, Handler):
            if handler.topic in found:
                raise ValueError(f"{worker_class.__name__} consumes {handler.topic} twice")
            if handler.prepare is not None and not callable(getattr(worker_class, handler.prepare, None)):
                raise ValueError(f"{worker_class.__name__} has no method {handler.prepare}")
            found[handler.topic] = handler
    return found


def instance(worker_class: type[Any], *, engine: sa.Engine, wiring: Any) -> Any:
    """A worker outside the host, as the host would make it."""
    worker = worker_class()
    worker.engine = engine
    worker.wiring = wiring
    return worker


def is_transient(error: BaseException) -> bool:
    """True where the fact is not why it failed (database or a remote away): try again in place."""
    if isinstance(error, errors.ServiceError):
        return error.transient
    return db.is_unavailable(error)


def prepare(worker: Any, handler: Handler, messages: Sequence[Any]) -> Any:
    """What the handler's ``prepare`` gives for these facts; None without one. Outside any transaction."""
    return getattr(worker, handler.prepare)(messages) if handler.prepare else None


def call(worker: Any, handler: Handler, tx: db.Transaction, messages: Sequence[Any], prepared: Any) -> None:
    """Call the worker's method."""
    method = getattr(worker, handler.method)
    if handler.prepare:
        method(tx, messages, prepared)
    else:
        method(tx, messages)


def deliver(engine: sa.Engine, worker: Any, batch: Batch, streak: Streak, stop: Callable[[], bool]) -> None:
    """Apply a batch, run by run, until it is done or ``stop()``.

    Raises ``inbox.PartitionLost`` (look up the stored offset and seek), ``TooManyParked``, or what
    ``is_transient`` says to try again; the batch then holds what is left.
    """
    while not batch.done and not stop():
        run = batch.next_run()
        if isinstance(run[0], _Unparsable):
            _bury(engine, batch, run[0])
            batch.advance(1)
            continue
        _Run(engine, worker, batch, [item for item in run if isinstance(item, _Fact)], streak).apply()


def _bury(engine: sa.Engine, batch: Batch, item: _Unparsable) -> None:
    entering = inbox.Entering(
        topic=batch.handler.topic,
        partition=batch.partition,
        position=batch.position,
        following=item.record.offset + 1,
        fact_ids=(),
    )
    with db.begin(engine, agency=None, opening=entering) as tx:
        entering.entry()
        inbox.dead_letter(
            tx,
            topic=batch.handler.topic,
            partition=batch.partition,
            offset=item.record.offset,
            key=item.record.key,
            value=item.record.value,
            consumer=batch.consumer,
            reason=item.reason,
            traceparent=facts.header(item.record.headers, "traceparent"),
        )
    _dead.add(1, {"topic": batch.handler.topic})
    logger.error(
        "record sent to the dead letters",
        extra={
            "topic": batch.handler.topic,
            "partition": batch.partition,
            "offset": item.record.offset,
            "reason": item.reason,
        },
    )


class _Changed(Exception):
    """Between the look before remote work and the transaction some facts became known."""


class _Run:
    """One transaction's records: all at once, and when that fails one record at a time, a chunk one case at a
    time.
    """

    def __init__(
        self, engine: sa.Engine, worker: Any, batch: Batch, items: Sequence[_Fact], streak: Streak
    ) -> None:
        self.engine = engine
        self.worker = worker
        self.batch = batch
        self.handler = batch.handler
        self.items = items
        self.streak = streak

    def apply(self) -> None:
        """Apply all; the batch is advanced as transactions commit."""
        started = time.perf_counter()
        try:
            with self._traced(self.items):
                self._together()
        except inbox.PartitionLost:
            raise
        except Exception as error:
            if is_transient(error):
                raise
            level = logging.DEBUG if isinstance(error, _Changed) else logging.WARNING
            logger.log(
                level,
                "a run failed; its records are done one by one",
                extra={
                    "topic": self.handler.topic,
                    "partition": self.batch.partition,
                    "offset": self.batch.position,
                    "records": len(self.items),
                    "reason": inbox.reason_of(error),
                },
            )
            for item in self.items:
                with self._traced([item]):
                    self._alone(item)
        _seconds.record(time.perf_counter() - started, {"topic": self.handler.topic})

    def _traced(self, items: Sequence[_Fact]) -> _Traced:
        return _Traced(self.handler, self.batch.partition, items)

    def _entering(self, items: Sequence[_Fact]) -> inbox.Entering:
        return inbox.Entering(
            topic=self.handler.topic,
            partition=self.batch.partition,
            position=self.batch.position,
            following=items[-1].record.offset + 1,
            fact_ids=[item.fact_id for item in items if item.known],
        )

    def _fresh(self, items: Sequence[_Fact], fresh: set[uuid.UUID]) -> list[_Fact]:
        left = set(fresh)
        taken = []
        for item in items:
            if item.known and item.fact_id in left:
                left.remove(item.fact_id)
                taken.append(item)
        return taken

    def _together(self) -> None:
        looked: list[_Fact] | None = None
        prepared: Any = None
        if self.handler.prepare is not None:
            known = inbox.fresh(self.engine, [item.fact_id for item in self.items if item.known])
            looked = self._fresh(self.items, known)
            if looked:
                prepared = prepare(self.worker, self.handler, [item.message for item in looked])
        entering = self._entering(self.items)
        queued = 0
        with db.begin(self.engine, agency=self.items[0].agency, opening=entering) as tx:
            entry = entering.entry()
            fresh = self._fresh(self.items, entry.fresh)
            messages = [item.message for item in fresh]
            if entry.parked and fresh:
                if looked is not None and any(
                    not entry.parked.isdisjoint(facts.cases(item.message)) for item in fresh
                ):
                    raise _Changed  # one by one, so that what is prepared is what is handled
                messages, queued = self._queue_behind(tx, fresh, entry.parked)
            if looked is not None and len(looked) != len(fresh):
                raise _Changed
            if messages:
                call(self.worker, self.handler, tx, messages, prepared)
        self.batch.advance(len(self.items))
        if messages:
            self.streak.applied()
        self._count(self.items, fresh, messages, queued)

    def _queue_behind(
        self, tx: db.Transaction, fresh: Sequence[_Fact], parked: set[uuid.UUID]
    ) -> tuple[list[Any], int]:
        """Park what belongs to cases that have a parked fact; the rest is to be handled."""
        left: list[Any] = []
        queued = 0
        for item in fresh:
            if parked.isdisjoint(facts.cases(item.message)):
                left.append(item.message)
                continue
            for case, part in facts.by_case(item.message):
                if case in parked:
                    self._park(tx, item, case, part, None)
                    queued += 1
            if facts.is_chunk(item.message):
                rest = facts.only(item.message, lambda case: case not in parked)
                if rest is not None:
                    left.append(rest)
        return left, queued

    def _alone(self, item: _Fact) -> None:
        """One record; where it fails, each of its cases by itself in a savepoint, and what fails is
        parked.
        """
        parts = self._parts(item)
        if parts is None:
            unparsable = _Unparsable(item.record, "columns of different lengths, or ids that are not UUIDs")
            _bury(self.engine, self.batch, unparsable)
            self.batch.advance(1)
            return
        prepared = [self._prepared(part) for _, part in parts] if item.known else []
        entering = self._entering([item])
        parked = applied = 0
        with db.begin(self.engine, agency=item.agency, opening=entering) as tx:
            entry = entering.entry()
            fresh = self._fresh([item], entry.fresh)
            if fresh:
                for (case, part), ready in zip(parts, prepared, strict=True):
                    error: BaseException | None = None
                    if case not in entry.parked:
                        error = ready if isinstance(ready, Exception) else self._attempt(tx, part, ready)
                        if error is None:
                            applied += 1
                            continue
                    self._park(tx, item, case, part, error)
                    entry.parked.add(case)
                    parked += 1
        self.batch.advance(1)
        self._count([item], fresh, [item.message] if applied else [], parked)
        if applied:
            self.streak.applied()
        elif parked:
            self.streak.refused()

    def _parts(self, item: _Fact) -> list[tuple[uuid.UUID, Any]] | None:
        if not item.known:
            return []
        try:
            return facts.by_case(item.message)
        except ValueError:
            return None

    def _prepared(self, part: Any) -> Any:
        """What is prepared for a part, or the error for which it will be parked."""
        try:
            return prepare(self.worker, self.handler, [part])
        except Exception as error:
            if is_transient(error):
                raise
            return error

    def _attempt(self, tx: db.Transaction, part: Any, prepared: Any) -> Exception | None:
        """Handle one case's part in a savepoint; the error for which it is to be parked."""
        for attempt in range(1, ABORTED_ATTEMPTS + 1):
            try:
                with tx.savepoint():
                    call(self.worker, self.handler, tx, [part], prepared)
                    tx.check_constraints()
                return None
            except Exception as error:
                if is_transient(error):
                    raise
                aborted = isinstance(error, errors.ServiceError) and error.status == errors.Status.ABORTED
                if not aborted or attempt == ABORTED_ATTEMPTS:
                    return error
        raise AssertionError("unreachable")

    def _park(
        self, tx: db.Transaction, item: _Fact, case: uuid.UUID, part: Any, error: BaseException | None
    ) -> None:
        inbox.park(
            tx,
            part,
            topic=self.handler.topic,
            partition=self.batch.partition,
            offset=item.record.offset,
            case_id=case,
            traceparent=facts.header(item.record.headers, "traceparent"),
            error=error,
        )
        if error is not None:
            logger.error(
                "fact parked",
                extra={
                    "topic": self.handler.topic,
                    "partition": self.batch.partition,
                    "offset": item.record.offset,
                    "kind": facts.kind(part),
                    "case_id": str(case),
                    "reason": inbox.reason_of(error),
                },
                exc_info=error,
            )

    def _count(
        self, items: Sequence[_Fact], fresh: Sequence[_Fact], handled: Sequence[Any], parked: int
    ) -> None:
        topic = self.handler.topic
        known = sum(item.known for item in items)
        if known < len(items):
            _skipped.add(len(items) - known, {"topic": topic})
        if len(fresh) < known:
            _duplicates.add(known - len(fresh), {"topic": topic})
        kinds = collections.Counter(facts.kind(message) or "" for message in handled)
        for kind, count in kinds.items():
            _handled.add(count, {"topic": topic, "kind": kind})
        if parked:
            _parked.add(parked, {"topic": topic})


class _Traced:
    """The span of a run; it belongs to the trace of its facts where they all come from one."""

    def __init__(self, handler: Handler, partition: int, items: Sequence[_Fact]) -> None:
        parents = {facts.header(item.record.headers, "traceparent") for item in items}
        self._attached = telemetry.attach(parents.pop() if len(parents) == 1 else None)
        self._span = telemetry.span(
            "consume", topic=handler.topic, partition=partition, agency=items[0].agency, facts=len(items)
        )

    def __enter__(self) -> None:
        self._attached.__enter__()
        self._span.__enter__()

    def __exit__(self, *error: Any) -> None:
        try:
            self._span.__exit__(*error)
        finally:
            self._attached.__exit__(*error)
