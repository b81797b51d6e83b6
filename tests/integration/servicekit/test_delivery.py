"""Exactly once, in order, parked, replayed: the delivery of facts on a real PostgreSQL, records given by hand."""

import dataclasses
import datetime
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_facts_pb2
from servicekit import db, delivery, errors, facts, host, ids, inbox, kafka, parked, telemetry, topics
from support import ledger, waiting

TOPIC = "recupera.case.v1"
PARKED = sa.text("SELECT case_id, reason, fact_type, attempts, error FROM parked ORDER BY id")
OUTBOX = sa.text("SELECT topic, partition, key, value, headers FROM outbox ORDER BY id")


class Feed:
    """One partition as a list of records: what Kafka would give, given by hand."""

    def __init__(self, made: Any, partition: int = 0, worker_class: type[Any] = ledger.LedgerWorker) -> None:
        self.made = made
        self.partition = partition
        self.records: list[delivery.Record] = []
        self.worker = delivery.instance(worker_class, engine=made.engine, wiring={})
        self.handler = delivery.handlers(worker_class)[TOPIC]
        inbox.start(made.engine, {(TOPIC, partition): 0})

    @property
    def stored(self) -> int:
        return inbox.positions(self.made.engine)[TOPIC, self.partition]

    def add(self, *messages: Any) -> None:
        for message in messages:
            if isinstance(message, bytes):
                value = message
            else:
                if not message.fact_id:
                    message.fact_id = ids.new().bytes
                value = message.SerializeToString()
            self.records.append(delivery.Record(len(self.records), b"key", value, [("traceparent", b"")]))

    def batch(self, position: int | None = None) -> delivery.Batch:
        start = self.stored if position is None else position
        return delivery.Batch(
            handler=self.handler,
            partition=self.partition,
            position=start,
            records=self.records[start:],
            consumer="recupera.agreement",
        )

    def deliver(self, *, limit: int = 100, position: int | None = None) -> None:
        batch = self.batch(position)
        delivery.deliver(self.made.engine, self.worker, batch, delivery.Streak(limit), lambda: False)
        assert batch.done


def parked_rows(made: Any) -> list[tuple[uuid.UUID, str]]:
    return [(row.case_id, row.reason) for row in db.read(made.engine, agency=None, statement=PARKED)]


def test_a_batch_of_one_agency_is_one_transaction(store: Callable[..., Any]) -> None:
    feed = Feed(store())
    agency, other = ids.new(), ids.new()
    case = ids.new()
    feed.add(*(ledger.single(agency, case, number) for number in range(300)))
    feed.add(ledger.single(other, case, 300))
    feed.add(*(ledger.single(agency, case, number) for number in range(301, 310)))
    feed.deliver()
    rows = ledger.applied(feed.made.owner)
    assert [row.number for row in rows] == list(range(310))
    assert {row.agency for row in rows} == {agency, other}
    assert len({row.transaction for row in rows}) == 3
    assert feed.stored == 310


def test_a_transaction_holds_no_more_rows_than_it_may(store: Callable[..., Any]) -> None:
    feed = Feed(store())
    agency = ids.new()
    for start in range(0, 25_000, 500):
        feed.add(ledger.chunk(agency, [(ids.new(), number) for number in range(start, start + 500)]))
    feed.deliver()
    rows = ledger.applied(feed.made.owner)
    assert [row.number for row in rows] == list(range(25_000))
    assert len({row.transaction for row in rows}) == 3


def test_duplicates_are_not_applied_again(store: Callable[..., Any]) -> None:
    feed = Feed(store())
    agency, case = ids.new(), ids.new()
    messages = [ledger.single(agency, case, number) for number in range(5)]
    feed.add(*messages[:3], messages[1], messages[0])  # twice in one batch
    feed.deliver()
    feed.add(*messages)  # and again in a later one
    feed.deliver()
    assert ledger.numbers(feed.made.owner) == {case: [0, 1, 2, 3, 4]}
    assert feed.stored == 10


def test_an_unknown_fact_is_skipped_and_not_remembered(store: Callable[..., Any]) -> None:
    feed = Feed(store())
    agency, case = ids.new(), ids.new()
    unknown = case_facts_pb2.CaseFact(agency=agency.bytes, fact_id=ids.new().bytes)
    newer = unknown.SerializeToString() + b"\xaa\x06\x00"  # field 101, a message: a fact of a later version
    feed.add(ledger.single(agency, case, 1), newer, ledger.single(agency, case, 2))
    feed.deliver()
    assert ledger.numbers(feed.made.owner) == {case: [1, 2]}
    inboxed = db.read(feed.made.engine, agency=None, statement=sa.text("SELECT count(*) AS n FROM inbox"))
    assert inboxed[0].n == 2


def test_a_refused_fact_is_parked_and_its_case_queues_behind_it(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency, good, bad = ids.new(), ids.new(), ids.new()
    ledger.turn(made.engine, f"refuse:{bad}", 1)
    feed.add(
        ledger.single(agency, good, 1),
        ledger.single(agency, bad, 1),
        ledger.single(agency, good, 2),
        ledger.single(agency, bad, 2),
        ledger.chunk(agency, [(good, 3), (bad, 3), (good, 4)]),
    )
    feed.deliver()
    feed.add(ledger.chunk(agency, [(bad, 4), (good, 5), (bad, 5)]), ledger.single(agency, bad, 6))
    feed.deliver()
    assert ledger.numbers(made.owner) == {good: [1, 2, 3, 4, 5]}
    assert parked_rows(made) == [
        (bad, "CASE_REFUSED"),
        *[(bad, inbox.QUEUED)] * 4,
    ]
    assert parked.count(made.engine) == {TOPIC: 5}

    again = parked.replay(made.engine, ledger.LedgerWorker, {})
    assert again == parked.Replayed(applied=0, refused=1)
    assert db.read(made.engine, agency=None, statement=PARKED)[0].attempts == 1

    ledger.turn(made.engine, f"refuse:{bad}", None)
    assert parked.replay(made.engine, ledger.LedgerWorker, {}, case_id=good).applied == 0
    assert parked.replay(made.engine, ledger.LedgerWorker, {}, case_id=bad) == parked.Replayed(5, 0)
    assert ledger.numbers(made.owner)[bad] == [1, 2, 3, 4, 5, 6]
    feed.add(ledger.single(agency, bad, 7))
    feed.deliver()
    assert ledger.numbers(made.owner)[bad] == [1, 2, 3, 4, 5, 6, 7]
    assert parked_rows(made) == []


def test_a_replay_stops_a_case_at_the_first_fact_refused_again(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency, first, second = ids.new(), ids.new(), ids.new()
    for case in (first, second):
        ledger.turn(made.engine, f"bug:{case}", 1)
        feed.add(*(ledger.single(agency, case, number) for number in range(3)))
    feed.deliver()
    ledger.turn(made.engine, f"bug:{second}", None)
    assert parked.replay(made.engine, ledger.LedgerWorker, {}) == parked.Replayed(applied=3, refused=1)
    assert ledger.numbers(made.owner) == {second: [0, 1, 2]}
    assert parked_rows(made) == [(first, "ZeroDivisionError"), (first, inbox.QUEUED), (first, inbox.QUEUED)]


def test_consumers_and_replay_do_not_overtake_each_other(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency, case = ids.new(), ids.new()
    ledger.turn(made.engine, f"refuse:{case}", 1)
    feed.add(*(ledger.single(agency, case, number) for number in range(20)))
    feed.deliver()
    ledger.turn(made.engine, f"refuse:{case}", None)
    feed.add(*(ledger.single(agency, case, number) for number in range(20, 120)))
    results: list[Any] = []

    def consume() -> None:
        for stop in range(25, 121, 5):
            batch = delivery.Batch(
                handler=feed.handler,
                partition=0,
                position=feed.stored,
                records=feed.records[feed.stored : stop],
                consumer="x",
            )
            delivery.deliver(made.engine, feed.worker, batch, delivery.Streak(1_000), lambda: False)

    def replay() -> None:
        while len(ledger.applied(made.owner)) < 20:
            results.append(parked.replay(made.engine, ledger.LedgerWorker, {}))

    threads = [
        threading.Thread(target=consume),
        threading.Thread(target=replay),
        threading.Thread(target=replay),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    parked.replay(made.engine, ledger.LedgerWorker, {})
    assert ledger.numbers(made.owner) == {case: list(range(120))}


def test_a_deferred_constraint_parks_only_its_case(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency = ids.new()
    cases = [ids.new() for _ in range(5)]
    ledger.turn(made.engine, f"twice:{cases[2]}", 1)
    feed.add(ledger.chunk(agency, [(case, 1) for case in cases]))
    feed.deliver()
    assert set(ledger.numbers(made.owner)) == {*cases} - {cases[2]}
    assert parked_rows(made) == [(cases[2], "IntegrityError")]
    told = db.read(made.engine, agency=None, statement=PARKED)[0].error
    assert "limits_agency_case_id_number_key" in told
    assert str(cases[2]) not in told  # the database's text, which quotes values, is not kept


def test_a_case_that_changed_meanwhile_is_tried_again(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency, case = ids.new(), ids.new()
    ledger.turn(made.engine, f"aborted:{case}", 1)
    feed.add(ledger.single(agency, case, 1))
    feed.deliver()
    assert ledger.numbers(made.owner) == {case: [1]}


def test_what_cannot_be_parsed_goes_to_the_dead_letters(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made, partition=7)
    agency, case = ids.new(), ids.new()
    ragged = ledger.chunk(agency, [(case, 1), (ids.new(), 2)])
    ragged.cases_changed.open_principal_minor.append(3)
    without_agency = ledger.single(agency, case, 1)
    without_agency.agency = b"short"
    ledger.turn(made.engine, f"refuse:{case}", 1)
    feed.add(b"\xff\xff\xff", without_agency, ragged)
    feed.deliver()
    ledger.turn(made.engine, f"refuse:{case}", None)
    feed.add(ledger.single(agency, case, 1))
    feed.deliver()
    assert ledger.numbers(made.owner) == {case: [1]}
    letters = db.read(made.engine, agency=None, statement=OUTBOX)
    assert [row.topic for row in letters] == [topics.DEAD_LETTERS] * 3
    assert bytes(letters[0].value) == b"\xff\xff\xff"
    headers = dict(zip(letters[2].headers[::2], letters[2].headers[1::2], strict=True))
    assert headers["origin_topic"] == TOPIC
    assert headers["origin_partition"] == "7"
    assert headers["origin_offset"] == "2"
    assert headers["consumer"] == "recupera.agreement"
    assert parked_rows(made) == []


def test_many_refused_in_a_row_stop_the_consumer(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency, case, good = ids.new(), ids.new(), ids.new()
    cases = [ids.new() for _ in range(10)]
    for case in cases:
        ledger.turn(made.engine, f"refuse:{case}", 1)
    feed.add(*(ledger.single(agency, case, 1) for case in cases[:3]), ledger.single(agency, good, 1))
    feed.add(*(ledger.single(agency, case, 1) for case in cases[3:]))
    with pytest.raises(delivery.TooManyParked):
        feed.deliver(limit=5)
    assert feed.stored == 9  # three, a good one, five
    assert len(parked_rows(made)) == 8


def test_whoever_lost_the_partition_does_not_commit(store: Callable[..., Any]) -> None:
    made = store()
    slow, quick = Feed(made), Feed(made)
    agency, case = ids.new(), ids.new()
    messages = [ledger.single(agency, case, number) for number in range(10)]
    for feed in (slow, quick):
        feed.add(*messages)
    ledger.turn(made.engine, "sleep once", 1)
    outcome: list[BaseException | None] = []

    def deliver(feed: Feed) -> None:
        try:
            feed.deliver(position=0)
            outcome.append(None)
        except inbox.PartitionLost as error:
            outcome.append(error)

    threads = [threading.Thread(target=deliver, args=(feed,)) for feed in (slow, quick)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(type(error).__name__ for error in outcome) == ["NoneType", "PartitionLost"]
    assert ledger.numbers(made.owner) == {case: list(range(10))}
    assert slow.stored == 10


def test_gaps_in_offsets_do_no_harm(store: Callable[..., Any]) -> None:
    feed = Feed(store())
    agency, case = ids.new(), ids.new()
    feed.add(*(ledger.single(agency, case, number) for number in range(6)))
    feed.records = [record for record in feed.records if record.offset not in (0, 3)]
    batch = delivery.Batch(
        handler=feed.handler, partition=0, position=0, records=feed.records, consumer="recupera.agreement"
    )
    delivery.deliver(feed.made.engine, feed.worker, batch, delivery.Streak(9), lambda: False)
    assert ledger.numbers(feed.made.owner) == {case: [1, 2, 4, 5]}
    assert feed.stored == 6


class Fetching(host.Worker):
    """A worker with remote work before the transaction."""

    name = "agreement_worker"

    def fetch(self, messages: Sequence[Any]) -> list[int]:
        """The remote's answers; `away` and `refuses` make it fail."""
        self.wiring.setdefault("fetched", []).append([message.version for message in messages])
        if self.wiring.get("away"):
            raise errors.RemoteUnavailable("told to")
        if any(message.version == self.wiring.get("refuses") for message in messages):
            raise errors.RemoteRefused("NO_SUCH_SLICE", errors.Status.NOT_FOUND, "told to")
        return [message.version * 10 for message in messages]

    @host.consume(TOPIC, prepare="fetch")
    def case_facts(self, tx: db.Transaction, messages: Sequence[Any], prepared: list[int]) -> None:
        """Note what was fetched."""
        for message, number in zip(messages, prepared, strict=True):
            tx.execute(
                ledger.INSERT,
                {"agency": tx.agency, "pid": 0, "cases": [facts.cases(message)[0]], "numbers": [number]},
            )


def test_remote_work_runs_before_and_only_for_what_is_new(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made, worker_class=Fetching)
    agency, case, other = ids.new(), ids.new(), ids.new()
    messages = [ledger.single(agency, case, number) for number in (1, 2)]
    feed.add(*messages)
    feed.deliver()
    feed.add(messages[1], ledger.single(agency, case, 3))
    feed.deliver()
    assert feed.worker.wiring["fetched"] == [[1, 2], [3]]
    assert ledger.numbers(made.owner) == {case: [10, 20, 30]}

    feed.worker.wiring["refuses"] = 4
    feed.add(ledger.single(agency, case, 4), ledger.single(agency, other, 5), ledger.single(agency, case, 6))
    feed.deliver()
    assert ledger.numbers(made.owner) == {case: [10, 20, 30], other: [50]}
    assert parked_rows(made) == [(case, "NO_SUCH_SLICE"), (case, inbox.QUEUED)]

    feed.worker.wiring["refuses"] = None
    assert parked.replay(made.engine, Fetching, feed.worker.wiring).applied == 2
    assert ledger.numbers(made.owner)[case] == [10, 20, 30, 40, 60]


def test_when_a_remote_is_away_nothing_is_lost_and_nothing_parked(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made, worker_class=Fetching)
    agency, case = ids.new(), ids.new()
    feed.add(ledger.single(agency, case, 1), ledger.single(agency, case, 2))
    feed.worker.wiring["away"] = True
    batch = feed.batch()
    for _ in range(3):
        with pytest.raises(errors.RemoteUnavailable):
            delivery.deliver(made.engine, feed.worker, batch, delivery.Streak(9), lambda: False)
    assert feed.stored == 0
    feed.worker.wiring["away"] = False
    delivery.deliver(made.engine, feed.worker, batch, delivery.Streak(9), lambda: False)
    assert ledger.numbers(made.owner) == {case: [10, 20]}
    assert parked_rows(made) == []


def test_when_the_connection_breaks_the_same_batch_goes_on(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made)
    agency, case = ids.new(), ids.new()
    feed.add(ledger.single(agency, case, 1), ledger.single(agency, case, 2))
    batch = feed.batch()
    failed: list[Exception] = []

    def deliver() -> None:
        try:
            delivery.deliver(made.engine, feed.worker, batch, delivery.Streak(9), lambda: False)
        except Exception as error:
            failed.append(error)

    administrator = db.create_engine(made.database.administrator_url, application_name="administrator")
    ledger.turn(made.engine, "sleep once", 3)
    thread = threading.Thread(target=deliver)
    thread.start()
    kill = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction' AND application_name = 'test'"
    )
    waiting.until(
        lambda: db.read(administrator, agency=None, statement=kill), what="the handler's transaction"
    )
    thread.join(30)
    administrator.dispose()
    assert len(failed) == 1
    assert delivery.is_transient(failed[0])
    ledger.turn(made.engine, "sleep once", None)
    delivery.deliver(made.engine, feed.worker, batch, delivery.Streak(9), lambda: False)
    assert ledger.numbers(made.owner) == {case: [1, 2]}


class Tracing(host.Worker):
    """A worker that notes in which trace it works."""

    name = "agreement_worker"

    @host.consume(TOPIC)
    def case_facts(self, tx: db.Transaction, messages: Sequence[Any]) -> None:
        """Note it, and publish on."""
        self.wiring.setdefault("traces", []).append((len(messages), telemetry.trace_id()))
        fact = agreement_facts_pb2.AgreementFact(subject=messages[0].subject)
        fact.day_done.date.year = 2026
        tx.publish(fact)


def test_a_fact_carries_its_trace_on(store: Callable[..., Any]) -> None:
    made = store()
    feed = Feed(made, worker_class=Tracing)
    agency, case = ids.new(), ids.new()
    trace = "0af7651916cd43dd8448eb211c80319c"
    feed.add(ledger.single(agency, case, 1), ledger.single(agency, case, 2))
    parent = [("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())]
    feed.records = [dataclasses.replace(record, headers=parent) for record in feed.records]
    feed.deliver()
    assert feed.worker.wiring["traces"] == [(2, trace)]
    sent = sa.text("SELECT traceparent FROM outbox")
    assert db.read(made.engine, agency=None, statement=sent)[0].traceparent.split("-")[1] == trace


def test_the_inbox_is_kept_for_retention_and_a_week(store: Callable[..., Any]) -> None:
    made = store()
    old, new = ids.new(), ids.new()
    with db.begin(made.engine, agency=None) as tx:
        tx.execute(
            sa.text("INSERT INTO inbox (fact_id, topic, received_at) VALUES (:id, :topic, now() - :age)"),
            [
                {"id": old, "topic": TOPIC, "age": datetime.timedelta(days=15)},
                {"id": new, "topic": TOPIC, "age": datetime.timedelta(days=13)},
            ],
        )
    assert inbox.purge(made.engine, topics.catalog()) == 1
    assert inbox.fresh(made.engine, [old, new]) == {old}


def test_a_worker_consumes_what_topics_yaml_says() -> None:
    host.check(ledger.LedgerWorker)

    class Wrong(host.Worker):
        name = "dialer_worker"

        @host.consume("recupera.dialer.v1")
        def own(self, tx: db.Transaction, messages: Sequence[Any]) -> None:
            """Its own topic."""

    with pytest.raises(ValueError, match="does not list dialer"):
        host.check(Wrong)


def test_checksums_are_fast() -> None:
    kafka.require_crc32c()
