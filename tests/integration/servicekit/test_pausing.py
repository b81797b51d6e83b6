"""What an operator pauses rests, in every replica; after `resume` nothing is lost, doubled or out of order."""

import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from servicekit import db, ids, pausing, relay
from support import ledger, waiting

TOPIC = "recupera.case.v1"
LEFT = sa.text("SELECT count(*) AS n FROM outbox")
BEAT = sa.text("SELECT max(heartbeat_at) AS at FROM workers")


def pause(made: Any, *names: str) -> list[str]:
    return pausing.pause(made.engine, names, reason="a test", paused_by="tests")


def publish(made: Any, agency: uuid.UUID, cases: Sequence[uuid.UUID], number: int) -> None:
    with db.begin(made.engine, agency=agency) as tx:
        for case in cases:
            tx.publish(ledger.single(agency, case, number), case_id=case)


def sent(made: Any) -> bool:
    return bool(db.read(made.owner, agency=None, statement=LEFT)[0].n == 0)


def ticks(made: Any) -> int:
    return int(ledger.knob(made.owner, "ticks") or 0)


def beaten(made: Any) -> Any:
    """When the worker's heart beat last: it does so every five seconds, whatever is paused."""
    return db.read(made.owner, agency=None, statement=BEAT)[0].at


@pytest.fixture
def sender(store: Callable[[str], Any], broker: Any, topics: str) -> Iterator[Any]:
    """The service that publishes, with its relay."""
    made = store("case")
    running = relay.Relay(made.engine, broker.bootstrap, source="case")
    running.start()
    yield made
    running.stop()


def test_a_paused_topic_waits_whole_while_workers_come_and_go(
    sender: Any, store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    receiver = store("agreement")
    agency, cases = ids.new(), [ids.new() for _ in range(60)]
    first = worker(receiver, broker.bootstrap)
    first.wait_ready()
    publish(sender, agency, cases, 1)
    waiting.until(lambda: len(ledger.applied(receiver.owner)) == 60, what="the first facts")

    assert pause(receiver, TOPIC) == [TOPIC]
    waiting.until(lambda: '"paused": "recupera.case.v1"' in first.log, what="the worker knows of the pause")
    for number in (2, 3, 4):
        publish(sender, agency, cases, number)
    waiting.until(lambda: sent(sender), what="facts in Kafka")
    second = worker(receiver, broker.bootstrap)  # a rebalance: partitions move while they are paused
    second.wait_ready()
    first.signal(signal.SIGKILL)
    first.wait()
    before = ticks(receiver)
    # timers go on; in the time of fifty ticks the facts, which are there, would have been applied many times over
    waiting.until(lambda: ticks(receiver) > before + 50, timeout=90, what="ticks while the topic is paused")
    assert len(ledger.applied(receiver.owner)) == 60

    assert pausing.resume(receiver.engine, [TOPIC]) == [TOPIC]
    waiting.until(lambda: len(ledger.applied(receiver.owner)) >= 240, what="the facts that waited")
    publish(sender, agency, cases, 5)
    waiting.until(lambda: len(ledger.applied(receiver.owner)) >= 300, what="facts after the pause")
    assert ledger.numbers(receiver.owner) == {case: [1, 2, 3, 4, 5] for case in cases}


def test_a_pause_in_the_middle_of_a_backlog_stops_at_the_next_transaction(
    sender: Any, store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    receiver = store("agreement")
    agencies = [ids.new(), ids.new()]
    case_of = {agency: ids.new() for agency in agencies}
    # facts of two agencies in turns in one partition: each is a transaction of its own
    count = 60
    with db.begin(sender.engine, agency=None) as tx:
        for number in range(1, count + 1):
            for agency in agencies:
                tx.publish(ledger.single(agency, case_of[agency], number), partition=7)
    waiting.until(lambda: sent(sender), what="facts in Kafka")
    ledger.turn(receiver.engine, "sleep", 0.2)
    process = worker(receiver, broker.bootstrap)
    waiting.until(lambda: len(ledger.applied(receiver.owner)) > 3, timeout=60, what="some facts")
    pause(receiver, pausing.ALL)
    waiting.until(lambda: '"paused": "*"' in process.log, what="the worker knows of the pause")
    ledger.turn(receiver.engine, "sleep", None)
    process.signal(signal.SIGTERM)  # it ends in order while all is paused
    assert process.wait() == 0
    applied, quiet = len(ledger.applied(receiver.owner)), ticks(receiver)
    assert 3 < applied < 2 * count

    after = worker(receiver, broker.bootstrap)  # one that starts into the pause holds to it
    after.wait_ready()
    assert (len(ledger.applied(receiver.owner)), ticks(receiver)) == (applied, quiet)
    assert pausing.resume(receiver.engine, None) == [pausing.ALL]
    waiting.until(lambda: len(ledger.applied(receiver.owner)) >= 2 * count, what="the rest")
    assert ledger.numbers(receiver.owner) == {case: list(range(1, count + 1)) for case in case_of.values()}
    waiting.until(lambda: ticks(receiver) > quiet, what="ticks again")


def test_a_paused_timer_does_not_tick_and_facts_go_on(
    sender: Any, store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    receiver = store("agreement")
    process = worker(receiver, broker.bootstrap)
    process.wait_ready()
    waiting.until(lambda: ticks(receiver), what="a tick")
    pause(receiver, "tick")
    waiting.until(lambda: '"paused": "tick"' in process.log, what="the worker knows of the pause")
    beat = beaten(receiver)
    waiting.until(lambda: beaten(receiver) > beat, what="a heartbeat; the tick in hand has ended meanwhile")
    quiet, beat = ticks(receiver), beaten(receiver)
    publish(sender, ids.new(), [ids.new()], 1)
    waiting.until(lambda: len(ledger.applied(receiver.owner)) == 1, what="a fact")
    waiting.until(lambda: beaten(receiver) > beat, what="a heartbeat, in the time of fifty ticks")
    assert ticks(receiver) == quiet
    pausing.resume(receiver.engine, ["tick"])
    waiting.until(lambda: ticks(receiver) > quiet, what="ticks again")


def test_a_topic_whose_facts_keep_failing_can_be_paused_before_the_worker_gives_up(
    sender: Any, store: Callable[[str], Any], broker: Any, topics: str, worker: Callable[..., Any]
) -> None:
    receiver = store("agreement")
    agency, case = ids.new(), ids.new()
    process = worker(receiver, broker.bootstrap, LEDGER_RETRY_LIMIT="600")
    process.wait_ready()
    ledger.turn(receiver.engine, f"away:{case}", "a remote")
    publish(sender, agency, [case], 1)
    waiting.until(lambda: "retried in place" in process.log, what="a retry")
    pause(receiver, TOPIC)
    waiting.until(lambda: '"paused": "recupera.case.v1"' in process.log, what="the worker knows of the pause")
    ledger.turn(receiver.engine, f"away:{case}", None)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert ledger.applied(receiver.owner) == []
    pausing.resume(receiver.engine, None)
    worker(receiver, broker.bootstrap)
    waiting.until(lambda: len(ledger.applied(receiver.owner)) == 1, timeout=60, what="the fact")


def test_pausing_twice_keeps_the_first_reason_and_resuming_tells_what_was_paused(
    store: Callable[[str], Any],
) -> None:
    made = store("agreement")
    assert pause(made, "b", "a", "a") == ["a", "b"]
    assert pausing.pause(made.engine, ["b", "c"], reason="another", paused_by="somebody") == ["c"]
    assert [(one.name, one.reason, one.paused_by) for one in pausing.paused(made.engine)] == [
        ("a", "a test", "tests"),
        ("b", "a test", "tests"),
        ("c", "another", "somebody"),
    ]
    assert pausing.resume(made.engine, ["a", "x"]) == ["a"]
    assert pausing.resume(made.engine, None) == ["b", "c"]
    assert pausing.paused(made.engine) == []


def test_until_it_could_be_read_everything_counts_as_paused(
    database: Callable[..., Any], store: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    empty = database("agreement", migrated=False)
    engine = db.create_engine(empty.url, application_name="test")
    unread = pausing.Watch(engine)
    unread.start()
    assert unread.is_paused("anything")
    unread.stop()
    engine.dispose()

    made = store("agreement")
    watch = pausing.Watch(made.engine)
    watch.start()
    assert not watch.is_paused("tick")
    pause(made, "tick")
    waiting.until(lambda: watch.is_paused("tick"), what="the pause is read")
    assert not watch.is_paused("another")
    with db.connect(made.owner) as connection, connection.begin():
        connection.execute(sa.text("DROP TABLE paused"))
    caplog.clear()
    waiting.until(lambda: "what is paused could not be read" in caplog.text, what="a look that fails")
    assert watch.is_paused("tick")
    assert not watch.is_paused("another")
    watch.stop()
