"""The relay when Kafka refuses, and when there are two: on a real broker."""

import pathlib
import secrets
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from recupera.case.v1 import case_facts_pb2
from servicekit import db, ids, kafka, leases, relay, testing, topics
from support import ledger, waiting

TOPIC = "recupera.case.v1"
HOLDER = sa.text("SELECT holder FROM leases WHERE name = 'relay'")


@pytest.fixture
def sender(store: Callable[..., Any]) -> Any:
    return store("case")


def sent(bootstrap: str) -> list[tuple[int, case_facts_pb2.CaseFact]]:
    """(partition, fact) of everything in the topic, each partition in order."""
    name = topics.on_wire(TOPIC)
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    partitions = [TopicPartition(name, number) for number in range(24)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    found = []
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for partition, records in consumer.poll(timeout_ms=500).items():
            found += [
                (partition.partition, case_facts_pb2.CaseFact.FromString(record.value)) for record in records
            ]
    consumer.close()
    return found


def publish(made: Any, agency: uuid.UUID, case: uuid.UUID, numbers: range, *, note: str = "") -> None:
    with db.begin(made.engine, agency=agency) as tx:
        for number in numbers:
            fact = ledger.single(agency, case, number)
            fact.contact_recorded.currency = note
            tx.publish(fact, case_id=case)


def in_partitions(first: int, second: int) -> tuple[uuid.UUID, uuid.UUID]:
    """Two cases, one of each partition."""
    found: dict[int, uuid.UUID] = {}
    while first not in found or second not in found:
        case = ids.new()
        found[topics.partition_of(case, 24)] = case
    return found[first], found[second]


def test_a_refused_record_holds_up_only_its_partition(
    sender: Any, broker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    smaller = tmp_path / "topics.yaml"
    smaller.write_text(
        topics.path().read_text().replace("max_message_bytes: 1048576", "max_message_bytes: 100000")
    )
    monkeypatch.setenv(topics.FILE_VARIABLE, str(smaller))
    monkeypatch.setenv(topics.PREFIX_VARIABLE, f"test-{secrets.token_hex(4)}.")
    kafka.create_missing(broker.bootstrap)
    monkeypatch.setattr(relay, "HOLD", 0.5)
    agency = ids.new()
    stuck, free = in_partitions(3, 4)
    publish(sender, agency, stuck, range(1, 4))
    publish(sender, agency, stuck, range(4, 5), note="x" * 200_000)
    publish(sender, agency, stuck, range(5, 8))
    publish(sender, agency, free, range(1, 8))
    running = relay.Relay(sender.engine, broker.bootstrap, source="case")
    running.start()
    waiting.until(lambda: len(testing.published(sender.engine)) == 4, timeout=40, what="all but four")
    publish(sender, agency, free, range(8, 20))
    waiting.until(lambda: len(testing.published(sender.engine)) == 4, timeout=40, what="all but four again")
    assert [found.fact.version for found in testing.published(sender.engine)] == [4, 5, 6, 7]
    with db.begin(sender.engine, agency=None) as tx:  # what an operator would have to decide
        tx.execute(sa.text("DELETE FROM outbox WHERE octet_length(value) > 100000"))
    waiting.until(lambda: not testing.published(sender.engine), timeout=40, what="the rest")
    running.stop()
    first: dict[int, list[int]] = {3: [], 4: []}
    for partition, fact in sent(broker.bootstrap):
        if fact.version not in first[partition]:  # the inbox drops what comes twice
            first[partition].append(fact.version)
    assert first == {3: [1, 2, 3, 5, 6, 7], 4: list(range(1, 20))}


@pytest.fixture
def growing(sender: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Partition 3, held, whose backlog grows as fast as it is sent record by record; the versions published."""
    agency, (case, _), published = ids.new(), in_partitions(3, 4), list[int]()
    read = relay._read_place

    def publish_and_read(connection: Any, place: tuple[str, int]) -> list[Any]:
        published.extend(range(len(published) + 1, len(published) + 6))
        publish(sender, agency, case, range(published[-5], published[-1] + 1))
        return read(connection, place)

    monkeypatch.setattr(relay, "_read_place", publish_and_read)
    monkeypatch.setattr(relay, "PROBE_ROWS", 5)
    return published


def test_a_probe_does_not_keep_the_others_waiting(
    sender: Any, broker: Any, topics: str, growing: list[int]
) -> None:
    _, free = in_partitions(3, 4)
    publish(sender, ids.new(), free, range(1, 4))
    running = relay.Relay(sender.engine, broker.bootstrap, source="case")
    running._held[TOPIC, 3] = 0.0
    running.start()
    waiting.until(lambda: not testing.published(sender.engine), timeout=40, what="an empty outbox")
    publish(sender, ids.new(), free, range(4, 6))
    waiting.until(lambda: not testing.published(sender.engine), timeout=40, what="an empty outbox")
    running.stop()
    found = sent(broker.bootstrap)
    assert len(growing) == relay.PROBE_ROUNDS * relay.PROBE_ROWS
    assert [fact.version for partition, fact in found if partition == 3] == growing
    assert [fact.version for partition, fact in found if partition == 4] == [1, 2, 3, 4, 5]


def test_a_relay_that_is_stopped_leaves_its_probe(
    sender: Any, broker: Any, topics: str, growing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PROBE_ROUNDS", 1_000_000)
    running = relay.Relay(sender.engine, broker.bootstrap, source="case")
    running._held[TOPIC, 3] = 0.0
    running.start()
    waiting.until(lambda: len(growing) >= 15, what="some rounds")
    running.stop()
    assert db.read(sender.engine, agency=None, statement=HOLDER) == [], "it has ended, and gave its lease up"


def test_a_relay_that_lost_its_lease_probes_no_more(
    sender: Any, broker: Any, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def hold(*_args: Any, **_options: Any) -> bool:
        asked.append(len(asked) < 2)  # for the relay to begin, and for the first partition
        return asked[-1]

    monkeypatch.setattr(leases, "hold", hold)
    agency = ids.new()
    for case in in_partitions(3, 4):
        publish(sender, agency, case, range(1, 4))
    running = relay.Relay(sender.engine, broker.bootstrap, source="case")
    running._held |= {(TOPIC, 3): 0.0, (TOPIC, 4): 0.0}
    running.start()
    waiting.until(lambda: len(asked) > 3, what="the next look for the lease")
    running.stop()
    assert {partition for partition, _ in sent(broker.bootstrap)} == {3}


def test_one_relay_at_a_time_and_the_next_takes_over(sender: Any, broker: Any, topics: str) -> None:
    agency, case = ids.new(), ids.new()
    one = relay.Relay(sender.engine, broker.bootstrap, source="case")
    one.start()
    publish(sender, agency, case, range(1, 100))
    waiting.until(lambda: not testing.published(sender.engine))
    holder = db.read(sender.engine, agency=None, statement=HOLDER)[0].holder
    two = relay.Relay(sender.engine, broker.bootstrap, source="case")
    two.start()
    publish(sender, agency, case, range(100, 200))
    waiting.until(lambda: not testing.published(sender.engine))
    assert db.read(sender.engine, agency=None, statement=HOLDER)[0].holder == holder
    one.stop()
    publish(sender, agency, case, range(200, 300))
    waiting.until(lambda: not testing.published(sender.engine))
    assert db.read(sender.engine, agency=None, statement=HOLDER)[0].holder != holder
    two.stop()
    assert db.read(sender.engine, agency=None, statement=HOLDER) == []
    assert [fact.version for _, fact in sent(broker.bootstrap)] == list(range(1, 300))


def test_a_relay_without_the_lease_sends_nothing(sender: Any, broker: Any, topics: str) -> None:
    somebody = ids.new()
    assert leases.hold(sender.engine, "relay", holder=somebody)
    running = relay.Relay(sender.engine, broker.bootstrap, source="case")
    running.start()
    publish(sender, ids.new(), ids.new(), range(5))
    running.stop()
    assert len(testing.published(sender.engine)) == 5
    assert sent(broker.bootstrap) == []


def test_two_relays_at_once_keep_the_order_of_first_appearance(
    sender: Any, broker: Any, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both believe that they hold the lease, as a process does that was stopped longer than it lasts."""
    monkeypatch.setattr(leases, "hold", lambda *_args, **_options: True)
    monkeypatch.setattr(relay, "BATCH_ROWS", 37)
    agency = ids.new()
    cases = [ids.new() for _ in range(10)]
    for start in range(0, 500, 50):
        for case in cases:
            publish(sender, agency, case, range(start, start + 50))
    both = [relay.Relay(sender.engine, broker.bootstrap, source="case") for _ in range(2)]
    for running in both:
        running.start()
    waiting.until(lambda: not testing.published(sender.engine), timeout=60, what="an empty outbox")
    for running in both:
        running.stop()
    seen: dict[bytes, list[int]] = {case.bytes: [] for case in cases}
    for _, fact in sent(broker.bootstrap):
        if fact.version not in seen[fact.subject]:
            seen[fact.subject].append(fact.version)
    assert all(versions == list(range(500)) for versions in seen.values())


def test_facts_too_large_for_one_batch_are_sent_in_several(
    sender: Any, broker: Any, topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "BATCH_BYTES", 300_000)
    agency, case = ids.new(), ids.new()
    publish(sender, agency, case, range(1, 13), note="x" * 200_000)
    running = relay.Relay(sender.engine, broker.bootstrap, source="case")
    running.start()
    waiting.until(lambda: not testing.published(sender.engine), timeout=40)
    running.stop()
    assert [fact.version for _, fact in sent(broker.bootstrap)] == list(range(1, 13))
