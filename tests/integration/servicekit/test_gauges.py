"""What a worker's gauges show while work waits, is parked or paused; counters that add only with their transaction."""

import contextlib
import datetime
import decimal
import re
import urllib.request
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.metrics import CallbackOptions
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from recupera_local import ports
from servicekit import clock, db, gauges, ids, parked, pausing, relay, telemetry
from support import ledger, waiting

TOPIC = "recupera.case.v1"
FILL = sa.text(
    """
    INSERT INTO outbox (topic, partition, key, value, fact_id, fact_type, traceparent, created_at)
    SELECT 'recupera.agreement.v1', 0, '', '', uuidv7(), 'x', '', now() - interval '1 hour'
    FROM generate_series(1, :rows)
    """
)

TAKE_OVER = sa.text(
    "UPDATE leases SET holder = uuidv7(), expires_at = now() + interval '1 day' WHERE name = 'gauges'"
)


def shown(port: int, name: str) -> Mapping[str, float]:
    """The series of a metric by its labels, without those of the scope."""
    found = {}
    for line in urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode().splitlines():
        if told := re.fullmatch(rf"{name}{{(.*)}} (\S+)", line):
            labels = [label for label in told[1].split(",") if not label.startswith("otel_scope_")]
            found[",".join(labels)] = float(told[2])
    return found


@pytest.fixture
def begin(
    worker: Callable[..., Any], store: Callable[[str], Any], broker: Any, topics: str
) -> Callable[..., Any]:
    """Start a worker whose gauges are looked up five times a second; the process, and the port of its metrics."""

    def start(receiver: Any, **variables: str) -> tuple[Any, int]:
        (port,) = ports.free_ports(1)
        process = worker(
            receiver,
            broker.bootstrap,
            LEDGER_METRICS_PORT=str(port),
            LEDGER_GAUGES_EVERY="0.2",
            **variables,
        )
        process.wait_ready()
        return process, port

    return start


def test_what_waits_is_parked_or_paused_is_shown(
    store: Callable[[str], Any], broker: Any, begin: Callable[..., Any]
) -> None:
    sender, receiver = store("case"), store("agreement")
    agency = ids.new()
    good, bad = ids.new(), ids.new()
    sending = relay.Relay(sender.engine, broker.bootstrap, source="case")
    process, port = begin(receiver, LEDGER_RELAY="0")

    def publish(case: uuid.UUID, *numbers: int) -> None:
        with db.begin(sender.engine, agency=agency) as tx:
            for number in numbers:
                tx.publish(ledger.single(agency, case, number), case_id=case)

    def until(name: str, expected: Mapping[str, float]) -> None:
        waiting.until(lambda: shown(port, name) == expected, timeout=60, what=f"{name} {expected}")

    sending.start()
    try:
        topic = f'topic="{TOPIC}"'
        until("recupera_consumer_partitions", {topic: 24})
        until("recupera_consumer_lag", {topic: 0})
        until("recupera_parked_rows", {topic: 0})
        until("recupera_outbox_rows", {"": 0})
        assert not shown(port, "recupera_consumer_paused")
        for name in ("parked", "skipped", "dead_letters", "retries"):  # before anything happened
            assert shown(port, f"recupera_facts_{name}_total") == {topic: 0}, name
        assert shown(port, "recupera_timer_failures_total")['timer="tick"'] == 0

        pausing.pause(receiver.engine, [TOPIC], reason="a test", paused_by="test")
        until("recupera_consumer_paused", {f'name="{TOPIC}"': 1})
        waiting.until(lambda: '"message": "paused"' in process.log, what="a worker that knows it")
        publish(good, 1, 2, 3)
        publish(bad, 1, 2)
        until("recupera_consumer_lag", {topic: 5})

        ledger.turn(receiver.engine, f"refuse:{bad}", "REASON")
        ledger.turn(receiver.engine, "tick", 1)
        pausing.resume(receiver.engine, None)
        until("recupera_consumer_lag", {topic: 0})
        until("recupera_consumer_paused", {})
        until("recupera_parked_rows", {topic: 2})
        waiting.until(lambda: shown(port, "recupera_parked_age_seconds")[topic] > 0, what="an age")
        until("recupera_facts_parked_total", {topic: 2})  # counted after the commit that shows the rows
        waiting.until(
            lambda: shown(port, "recupera_timer_failures_total").get('timer="tick"', 0) > 0,
            what="a failed tick",
        )

        ledger.turn(receiver.engine, f"away:{good}", 1)
        publish(good, 4)
        waiting.until(lambda: shown(port, "recupera_facts_retries_total").get(topic, 0) > 0, what="a retry")
        ledger.turn(receiver.engine, f"away:{good}", None)
        waiting.until(
            lambda: ledger.numbers(receiver.owner).get(good) == [1, 2, 3, 4], what="the fact applied"
        )

        with db.begin(receiver.owner, agency=None) as tx:
            tx.execute(FILL, {"rows": 7})
        until("recupera_outbox_rows", {"": 7})
        waiting.until(
            lambda: shown(port, "recupera_outbox_age_seconds")[""] > 3500, what="the age of the oldest"
        )
    finally:
        sending.stop()


def test_replicas_share_what_is_read_from_the_database(
    store: Callable[[str], Any], begin: Callable[..., Any]
) -> None:
    receiver = store("agreement")
    replicas = [begin(receiver, LEDGER_RELAY="0") for _ in range(2)]

    def partitions() -> list[float]:
        return sorted(
            value for _, port in replicas for value in shown(port, "recupera_consumer_partitions").values()
        )

    waiting.until(lambda: partitions() == [12, 12], timeout=60, what="half of the partitions each")

    def holders() -> list[Any]:
        return [process for process, port in replicas if shown(port, "recupera_outbox_rows")]

    waiting.until(lambda: len(holders()) == 1, timeout=60, what="one that looks")
    (holder,) = holders()
    left = next(port for process, port in replicas if process is not holder)
    holder.child.terminate()
    waiting.until(
        lambda: shown(left, "recupera_outbox_rows") == {"": 0}, timeout=60, what="the other one to look"
    )


def test_a_look_that_fails_and_a_lease_that_is_lost_hide_the_gauges(
    store: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It rests for fifty times as long as it looked: on a busy machine for longer than this test waits.
    monkeypatch.setattr(gauges, "LONGEST", 1.0)
    made = store("agreement")
    gauge = telemetry.Gauge("test.shown", "{row}", "for this test")
    fails: list[Exception] = []

    def run() -> None:
        if fails:
            raise fails[0]
        gauge.show({"x": 1}, by="name")

    def values() -> list[float]:
        return [one.value for one in gauge._observe(CallbackOptions())]

    sampler = gauges.Sampler(made.engine, own=[], shared=[gauges.Look("test", [gauge], run)], every=0.05)
    sampler.start()
    try:
        waiting.until(lambda: values() == [1], what="a value")
        fails.append(ZeroDivisionError())
        waiting.until(lambda: not values(), what="no value while the look fails")
        fails.clear()
        waiting.until(lambda: values() == [1], what="a value again")
        with db.begin(made.engine, agency=None) as tx:
            tx.execute(TAKE_OVER)
        waiting.until(lambda: not values(), what="no value without the lease")
    finally:
        sampler.stop()


def test_a_value_that_nobody_renews_is_shown_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = telemetry.Gauge("test.stale", "{row}", "for this test")
    gauge.show([(3, {})])
    assert [one.value for one in gauge._observe(CallbackOptions())] == [3]
    monkeypatch.setattr(telemetry, "SHOWN", 0.0)
    gauge.show([(3, {})])
    assert not gauge._observe(CallbackOptions())


def test_a_transaction_counts_when_it_commits(store: Callable[[str], Any]) -> None:
    made = store("agreement")
    reader = InMemoryMetricReader()
    counter = MeterProvider(metric_readers=[reader]).get_meter("test").create_counter("made")

    def counted() -> dict[str, float]:
        data = reader.get_metrics_data()
        if data is None:
            return {}
        points: Any = data.resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
        return {point.attributes["state"]: point.value for point in points}

    with db.begin(made.engine, agency=None) as tx:
        tx.count(counter, 2, state="GOOD")
        tx.count(counter, 0, state="NONE")
        with contextlib.suppress(ZeroDivisionError), tx.savepoint():
            tx.count(counter, state="UNDONE")
            raise ZeroDivisionError
        assert not counted()
    assert counted() == {"GOOD": 2}
    with contextlib.suppress(ZeroDivisionError), db.begin(made.engine, agency=None) as tx:
        tx.count(counter, state="ROLLED_BACK")
        raise ZeroDivisionError
    assert counted() == {"GOOD": 2}


def test_looks_are_cheap_however_much_waits(store: Callable[[str], Any]) -> None:
    """An outbox that Kafka did not take for a day, a heap of parked facts: bounded, by index."""
    made = store("agreement")
    with db.begin(made.owner, agency=None) as tx:
        tx.execute(FILL, {"rows": relay.COUNTED + 5})
    assert relay.waiting(made.engine)[0] == relay.COUNTED
    assert relay.waiting(made.engine)[1] > 3500
    assert parked.waiting(made.engine) == {}


def test_days_behind_are_those_of_real_clocks(store: Callable[[str], Any]) -> None:
    made = store("agreement")
    first, second = sorted([ids.new(), ids.new()])
    now = clock.machine_now()
    real = clock.AgencyClock(
        agency=first,
        time_zone="Pacific/Kiritimati",
        business_date=now.astimezone(zoneinfo.ZoneInfo("Pacific/Kiritimati")).date()
        - datetime.timedelta(days=4),
        version=1,
    )
    simulated = clock.AgencyClock(
        agency=second,
        time_zone="Europe/Lisbon",
        simulated=True,
        base_machine=now,
        base_agency=now,
        speed=decimal.Decimal("2.5"),
        business_date=now.date() - datetime.timedelta(days=400),
        version=1,
    )
    assert clock.days_behind(made.engine, hour=0) == 0
    with db.begin(made.engine, agency=None) as tx:
        clock.store(tx, real)
        clock.store(tx, simulated)
    for _ in range(3):  # the first time is not the second: a statement that comes again is compiled
        assert clock.every(made.engine) == [real, simulated]
        assert clock.days_behind(made.engine, hour=0) in (4, 5), "5 when midnight passed meanwhile"
