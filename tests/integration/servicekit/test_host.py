"""The whole way of a fact on real parts: outbox, relay, Kafka, worker processes that are killed (architecture §6)."""

import contextlib
import json
import random
import secrets
import signal
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.structs import TopicPartition

from recupera.case.v1 import case_facts_pb2
from recupera_local import ports
from servicekit import db, gauges, host, ids, inbox, kafka, relay, topics
from support import ledger, waiting

TOPIC = "recupera.case.v1"
COUNT = sa.text("SELECT count(*) AS n FROM applied")
LEFT = sa.text("SELECT count(*) AS n FROM outbox")
PARKED = sa.text("SELECT case_id, reason FROM parked ORDER BY id")


def count(made: Any, statement: sa.Executable = COUNT) -> int:
    return int(db.read(made.owner, agency=None, statement=statement)[0].n)


@contextlib.contextmanager
def relayed(made: Any, bootstrap: str) -> Iterator[relay.Relay]:
    """The relay of the publishing service."""
    running = relay.Relay(made.engine, bootstrap, source="case")
    running.start()
    try:
        yield running
    finally:
        running.stop()


def publish(made: Any, agency: uuid.UUID, rows: list[tuple[uuid.UUID, int]]) -> None:
    """One transaction with a fact for each (case, number)."""
    with db.begin(made.engine, agency=agency) as tx:
        for case, number in rows:
            tx.publish(ledger.single(agency, case, number), case_id=case)


def produce(bootstrap: str, records: list[tuple[int, bytes]]) -> None:
    """Records past the outbox: duplicates, rubbish."""
    producer = kafka.Producer(bootstrap, client_id="test")
    producer.settle(
        [
            producer.send(topic=TOPIC, partition=partition, key=b"", value=value, headers=[])
            for partition, value in records
        ]
    )
    producer.close()


def records_of(bootstrap: str, topic: str) -> list[Any]:
    """All records of a topic, as kafka-python gives them."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    name = topics.on_wire(topic)
    partitions = [TopicPartition(name, number) for number in consumer.partitions_for_topic(name)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    found: list[Any] = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for records in consumer.poll(timeout_ms=500).values():
            found += records
    consumer.close()
    return found


def logged(process: Any, message: str) -> list[dict[str, Any]]:
    """The worker's log lines that begin so; one that is being written is left for later."""
    whole = process.log[: process.log.rfind("\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"].startswith(message)]


def scraped(port: int) -> dict[str, float]:
    """The sums of a worker's metrics over their attributes, by name."""
    found: dict[str, float] = {}
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0].removesuffix("_total")
            found[name] = found.get(name, 0.0) + float(value)
    return found


def test_facts_travel_with_their_headers_and_in_order(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    agency = ids.new()
    cases = [ids.new() for _ in range(20)]
    process = worker(receiver, broker.bootstrap)
    process.wait_ready()
    with relayed(sender, broker.bootstrap):
        for number in range(1, 31):
            publish(sender, agency, [(case, number) for case in cases])
        waiting.until(lambda: count(receiver) == 600, what="600 facts")
        waiting.until(lambda: count(sender, LEFT) == 0, what="an empty outbox")
    assert ledger.numbers(receiver.owner) == {case: list(range(1, 31)) for case in cases}

    record = records_of(broker.bootstrap, TOPIC)[0]
    headers = {name: value.decode() for name, value in record.headers}
    assert uuid.UUID(headers["ce_id"]).version == 7
    assert headers["ce_type"] == "recupera.case.v1.CaseFact.contact_recorded"
    assert headers["ce_source"] == "recupera/case"
    assert headers["ce_time"]
    assert headers["traceparent"].startswith("00-")
    assert uuid.UUID(bytes=record.key) in cases

    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert not process.ready.exists()
    assert logged(process, "draining")


@pytest.mark.parametrize("tick", ["fails", "panics"])
def test_timers_beat_beside_long_handlers_and_failures(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any], tick: str
) -> None:
    sender, receiver = store("case"), store("agreement")
    process = worker(receiver, broker.bootstrap)
    process.wait_ready()
    ledger.turn(receiver.engine, "tick", tick)
    ledger.turn(receiver.engine, "sleep once", 4)
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        waiting.until(lambda: ledger.knob(receiver.owner, "ticks"), what="a first tick")
        before = int(ledger.knob(receiver.owner, "ticks") or 0)
        waiting.until(lambda: count(receiver) == 1, what="the slow fact")
    assert int(ledger.knob(receiver.owner, "ticks") or 0) - before >= 8
    assert logged(process, "timer failed")
    assert process.child.poll() is None


def test_nothing_is_lost_or_applied_twice_when_workers_are_killed(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    """Kills, orderly stops and newcomers in any order while facts flow, duplicates and chunks among them."""
    seed = 20261122
    rng = random.Random(seed)
    sender, receiver = store("case"), store("agreement")
    agencies = [ids.new(), ids.new()]
    cases = [(rng.choice(agencies), ids.new()) for _ in range(150)]
    ledger.turn(receiver.engine, "sleep", 0.02)
    workers = [worker(receiver, broker.bootstrap), worker(receiver, broker.bootstrap)]
    for process in workers:
        process.wait_ready()
    rounds = 12
    number = 0
    duplicates: list[tuple[int, bytes]] = []
    with relayed(sender, broker.bootstrap) as first:
        for step in range(rounds):
            for _ in range(4):
                number += 1
                for agency in agencies:
                    publish(sender, agency, [(case, number) for owner, case in cases if owner == agency])
            victim = workers[step % 2]
            victim.signal(signal.SIGKILL if step % 3 else signal.SIGTERM)
            if step == 5:
                first.stop()  # the relay too: what it sent and did not delete is sent again
            duplicates += _some_sent(sender, rng)
            victim.wait()
            workers[step % 2] = worker(receiver, broker.bootstrap)
        second = relay.Relay(sender.engine, broker.bootstrap, source="case")
        second.start()
        waiting.until(lambda: count(sender, LEFT) == 0, timeout=60, what="an empty outbox")
        second.stop()
        produce(broker.bootstrap, duplicates)
        expected = number * len(cases)
        waiting.until(lambda: count(receiver) >= expected, timeout=120, what=f"{expected} facts")
    sent = [(record.partition, record.value) for record in records_of(broker.bootstrap, TOPIC)]
    produce(broker.bootstrap, sent[:500])
    waiting.until(lambda: _behind(broker.bootstrap, receiver) == 0, timeout=60, what="all records read")
    found = ledger.numbers(receiver.owner)
    assert found == {case: list(range(1, number + 1)) for _, case in cases}, f"seed {seed}"
    assert db.read(receiver.engine, agency=None, statement=PARKED) == []


def _some_sent(made: Any, rng: random.Random) -> list[tuple[int, bytes]]:
    rows = db.read(
        made.owner, agency=None, statement=sa.text("SELECT partition, value FROM outbox LIMIT 100")
    )
    return [(row.partition, bytes(row.value)) for row in rows if rng.random() < 0.3]


def _behind(bootstrap: str, receiver: Any) -> int:
    stored = {kafka.Partition(*place): offset for place, offset in inbox.positions(receiver.engine).items()}
    ends = kafka.ends(bootstrap, list(stored))
    return sum(ends[place] - offset for place, offset in stored.items())


def test_progress_that_was_not_told_before_a_partition_left_is_told_when_it_is_back(
    store: Callable[[str], Any], broker: Any, topics: str
) -> None:
    """Lag and scaling go by what Kafka was told."""
    made = store("agreement")
    options = host.Options()
    consumer = kafka.Consumer(
        broker.bootstrap,
        group="recupera.agreement",
        client_id="test",
        subscribe=[TOPIC],
        max_poll_records=options.max_poll_records,
        session_timeout_ms=options.session_timeout_ms,
        max_poll_interval_ms=options.max_poll_interval_ms,
    )
    loop = host._Loop()
    loop._context = host._Context(
        engine=made.engine,
        wiring=None,
        bootstrap=broker.bootstrap,
        group="recupera.agreement",
        options=options,
        ready=lambda: None,
        progress=gauges.Progress(),
        is_paused=lambda _name: False,
    )

    def joined() -> bool:
        consumer.poll(100)
        loop._position(consumer)
        return consumer.is_ready()

    try:
        waiting.until(joined, timeout=60, what="partitions")
        place = kafka.Partition(TOPIC, 3)
        loop._report(consumer)
        assert _told(broker.bootstrap) == inbox.positions(made.engine)
        inbox.restart(made.engine, {tuple(place): 7})  # as a handler's transaction leaves it
        loop._positions[place] = 7
        consumer.forget(place)  # as when the partition goes to another worker
        loop._report(consumer)
        assert _told(broker.bootstrap)[place] == 0
        loop._position(consumer)
        loop._report(consumer)
        assert _told(broker.bootstrap) == inbox.positions(made.engine)
        assert _told(broker.bootstrap)[place] == 7
    finally:
        consumer.close()


def _told(bootstrap: str) -> dict[tuple[str, int], int]:
    """How far the group is by what it told Kafka."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        group = topics.on_wire("recupera.agreement")
        found = admin.list_group_offsets({group: None})[group]
    finally:
        admin.close()
    return {(TOPIC, place.partition): at.offset for place, at in found.items()}


def test_a_handler_longer_than_the_poll_interval_keeps_its_partitions(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    variables = {"LEDGER_MAX_POLL_INTERVAL_MS": "3000", "LEDGER_SESSION_TIMEOUT_MS": "2500"}
    process = worker(receiver, broker.bootstrap, **variables)
    process.wait_ready()
    ledger.turn(receiver.engine, "sleep once", 8)
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, number) for number in range(50)])
        waiting.until(lambda: count(receiver) == 50, timeout=40, what="the slow batch")
        publish(sender, agency, [(case, number) for number in range(50, 60)])
        waiting.until(lambda: count(receiver) == 60, what="the next one")
    assert ledger.numbers(receiver.owner) == {case: list(range(60))}
    assert len({row.pid for row in ledger.applied(receiver.owner)}) == 1
    assert len(logged(process, "partitions assigned")) == 1


def test_a_stopped_process_that_wakes_up_commits_nothing_of_its_lost_partitions(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    process = worker(receiver, broker.bootstrap, LEDGER_SESSION_TIMEOUT_MS="2000")
    process.wait_ready()
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        waiting.until(lambda: count(receiver) == 1)
        process.signal(signal.SIGSTOP)
        other = worker(receiver, broker.bootstrap, LEDGER_SESSION_TIMEOUT_MS="2000")
        publish(sender, agency, [(case, number) for number in range(2, 30)])
        waiting.until(lambda: count(receiver) == 29, timeout=60, what="the other worker")
        process.signal(signal.SIGCONT)
        for number in range(30, 60):
            publish(sender, agency, [(case, number)])
        waiting.until(lambda: count(receiver) == 59, timeout=60, what="both workers")
    assert ledger.numbers(receiver.owner) == {case: list(range(1, 60))}
    assert process.child.poll() is None
    assert other.child.poll() is None


def test_when_the_database_is_away_the_worker_waits_and_goes_on(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any], private_postgres: Any
) -> None:
    sender = store("case")
    private_postgres.start()
    receiver = _private(private_postgres)
    process = worker(receiver, broker.bootstrap, LEDGER_SESSION_TIMEOUT_MS="3000")
    process.wait_ready()
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        waiting.until(lambda: count(receiver) == 1)
        private_postgres.process.kill()
        publish(sender, agency, [(case, number) for number in range(2, 20)])
        waiting.until(lambda: len(logged(process, "retried in place")) >= 3, what="retries")
        private_postgres.start()
        waiting.until(lambda: _count_or_zero(receiver) == 19, timeout=60, what="the rest")
    assert ledger.numbers(receiver.owner) == {case: list(range(1, 20))}
    assert process.child.poll() is None
    assert len(logged(process, "partitions assigned")) == 1
    assert db.read(receiver.owner, agency=None, statement=PARKED) == []
    receiver.engine.dispose()
    receiver.owner.dispose()


def test_when_the_database_stays_away_the_worker_ends(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any], private_postgres: Any
) -> None:
    sender = store("case")
    private_postgres.start()
    receiver = _private(private_postgres)
    process = worker(receiver, broker.bootstrap, LEDGER_RETRY_LIMIT="2")
    process.wait_ready()
    private_postgres.process.kill()
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        assert process.wait() == 1
    assert logged(process, "worker stopped")[0]["error"]["type"].endswith("GivenUp")
    receiver.engine.dispose()
    receiver.owner.dispose()


def test_a_worker_that_starts_while_the_database_is_away_waits_for_it(
    broker: Any, topics: str, worker: Callable[..., Any], private_postgres: Any
) -> None:
    private_postgres.start()
    receiver = _private(private_postgres)
    private_postgres.process.kill()
    process, ended = worker(receiver, broker.bootstrap), worker(receiver, broker.bootstrap)
    for one in (process, ended):
        waiting.until(lambda one=one: len(logged(one, "the database is away")) >= 2, timeout=60, what="tries")
    ended.signal(signal.SIGTERM)
    assert ended.wait() == 0, "whoever is told to end does not wait"
    private_postgres.start()
    process.wait_ready()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    receiver.engine.dispose()
    receiver.owner.dispose()


def test_a_panic_in_a_handler_ends_the_worker(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    agency, case = ids.new(), ids.new()
    ledger.turn(receiver.engine, f"panic:{case}", "yes")
    process = worker(receiver, broker.bootstrap)
    process.wait_ready()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        assert process.wait() == 1
        [stopped] = logged(process, "worker stopped")
        assert stopped["error"]["cause"]["type"].endswith("Panic")
        ledger.turn(receiver.engine, f"panic:{case}", None)
        worker(receiver, broker.bootstrap)
        waiting.until(lambda: count(receiver) == 1, timeout=60, what="the fact, by the next worker")


def _private(server: Any) -> Any:
    from servicekit import migrations
    from support import databases

    server.create_service_databases(["agreement"])
    name, role = "recupera_agreement", "recupera_agreement"
    made = databases.Database(
        name=name,
        service="agreement",
        url=server.url(name, role),
        owner_url=server.url(name, f"{role}_owner"),
        administrator_url=server.url(name),
    )
    migrations.upgrade(made.owner_url, ledger.MIGRATIONS)

    class Private:
        database = made
        engine = db.create_engine(made.url, application_name="test")
        owner = db.create_engine(made.owner_url, application_name="test")

    return Private


def _count_or_zero(made: Any) -> int:
    try:
        return count(made)
    except sa.exc.DBAPIError:
        return 0


def test_when_kafka_dies_everything_goes_on_after_it_came_back(
    store: Callable[[str], Any],
    private_broker: Any,
    worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender, receiver = store("case"), store("agreement")
    private_broker.start()
    kafka.create_missing(private_broker.bootstrap)
    process = worker(receiver, private_broker.bootstrap)
    process.wait_ready()
    agency, case = ids.new(), ids.new()
    with relayed(sender, private_broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        waiting.until(lambda: count(receiver) == 1)
        private_broker.process.kill()
        for number in range(2, 40):
            publish(sender, agency, [(case, number)])
        private_broker.start()
        waiting.until(lambda: count(receiver) == 39, timeout=90, what="what was published meanwhile")
    assert ledger.numbers(receiver.owner) == {case: list(range(1, 40))}
    assert process.child.poll() is None


def test_a_lost_range_stops_the_worker_with_an_alarm(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    agency = ids.new()
    case = ids.new()
    partition = _partition_of(case)
    process = worker(receiver, broker.bootstrap)
    process.wait_ready()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1), (case, 2)])
        waiting.until(lambda: count(receiver) == 2)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        publish(sender, agency, [(case, number) for number in (3, 4, 5)])
        waiting.until(lambda: count(sender, LEFT) == 0)
        _delete_before(broker.bootstrap, partition, 4)

        stopped = worker(receiver, broker.bootstrap)
        assert stopped.wait() == 1
        [alarm] = logged(stopped, "consumer stopped")
        assert alarm["level"] == "CRITICAL"
        assert "republish" in alarm["message"]
        assert alarm["republish"] == ["case"]
        assert alarm["lost"] == [f"{TOPIC}/{partition}@2"]

        place = kafka.Partition(TOPIC, partition)
        assert host.accept_lost_range(receiver.engine, broker.bootstrap) == {place: 4}
        again = worker(receiver, broker.bootstrap)
        again.wait_ready()
        waiting.until(lambda: count(receiver) == 3)
    assert ledger.numbers(receiver.owner) == {case: [1, 2, 5]}


def _partition_of(case: uuid.UUID) -> int:
    return topics.partition_of(case, 24)


def _delete_before(bootstrap: str, partition: int, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_records({TopicPartition(topics.on_wire(TOPIC), partition): offset})
    admin.close()


def test_what_kafka_kept_from_before_the_first_start_is_read(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, number) for number in range(5)])
        waiting.until(lambda: count(sender, LEFT) == 0)
    worker(receiver, broker.bootstrap)
    waiting.until(lambda: count(receiver) == 5, timeout=40)
    assert ledger.numbers(receiver.owner) == {case: list(range(5))}


def test_a_topic_made_after_the_worker_started_is_found(
    store: Callable[[str], Any], broker: Any, worker: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(topics.PREFIX_VARIABLE, f"test-{secrets.token_hex(4)}.")
    sender, receiver = store("case"), store("agreement")
    process = worker(receiver, broker.bootstrap)
    waiting.until(lambda: logged(process, "working"), timeout=60)
    kafka.create_missing(broker.bootstrap)
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(case, 1)])
        waiting.until(lambda: count(receiver) == 1, timeout=60)


def test_parked_and_dead_letters_over_kafka(
    store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    agency, good, bad = ids.new(), ids.new(), ids.new()
    ledger.turn(receiver.engine, f"refuse:{bad}", 1)
    [port] = ports.free_ports(1)
    process = worker(receiver, broker.bootstrap, LEDGER_METRICS_PORT=str(port))
    process.wait_ready()
    with relayed(sender, broker.bootstrap):
        publish(sender, agency, [(good, 1), (bad, 1), (bad, 2), (good, 2)])
        newer = case_facts_pb2.CaseFact(agency=agency.bytes, fact_id=ids.new().bytes).SerializeToString()
        unknown = newer + b"\xaa\x06\x00"  # field 101: a kind of fact that this version does not know
        produce(broker.bootstrap, [(_partition_of(good), b"\xff rubbish"), (_partition_of(good), unknown)])
        publish(sender, agency, [(good, 3)])
        waiting.until(lambda: ledger.numbers(receiver.owner).get(good) == [1, 2, 3])
        waiting.until(lambda: len(db.read(receiver.engine, agency=None, statement=PARKED)) == 2)
        waiting.until(lambda: records_of(broker.bootstrap, "recupera.dead-letters.v1"), what="a dead letter")
    [letter] = records_of(broker.bootstrap, "recupera.dead-letters.v1")
    headers = {name: value.decode() for name, value in letter.headers}
    assert letter.value == b"\xff rubbish"
    assert headers["origin_topic"] == TOPIC
    assert headers["origin_partition"] == str(_partition_of(good))
    assert headers["consumer"] == "recupera.agreement"
    assert ledger.numbers(receiver.owner) == {good: [1, 2, 3]}
    waiting.until(lambda: _behind(broker.bootstrap, receiver) == 0, what="all records read")
    counted = scraped(port)
    assert counted["recupera_facts_handled"] == 3
    assert counted["recupera_facts_parked"] == 2
    assert counted["recupera_facts_skipped"] == 1
    assert counted["recupera_facts_dead_letters"] == 1
    assert counted["recupera_relay_sent"] >= 1  # the dead letter, by the worker's own relay
    assert counted["recupera_relay_lag_seconds_count"] >= 1


def test_a_fact_does_not_wait_for_the_relay_to_look(
    store: Callable[[str], Any],
    broker: Any,
    topics: str,
    worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NOTIFY wakes it: no fact has to wait until it would look again."""
    monkeypatch.setattr(relay, "POLL", 12.0)
    sender, receiver = store("case"), store("agreement")
    process = worker(receiver, broker.bootstrap)
    process.wait_ready()
    agency, case = ids.new(), ids.new()
    with relayed(sender, broker.bootstrap):
        for number in range(10):
            publish(sender, agency, [(case, number)])
            waiting.until(
                lambda number=number: count(receiver) == number + 1,  # type: ignore[misc]  # a default that binds
                timeout=10,
                what="the fact",
            )
