"""Drives the journey on a platform that is being killed, and says what it came to.

Every run comes from a seed: which calls of the journey are followed by which fault. The journey goes on
meanwhile, patient; a
fault is over when its process has been started again. What both runs come to is compared by `support.digest`.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kafka
import sqlalchemy as sa

from recupera_local import gateway_client as gc
from recupera_local import platform as local
from recupera_local.demo import journey
from servicekit import topics
from support import digest

SERVICES = digest.SERVICES
KILLED = (
    *(f"{service}.worker" for service in SERVICES),
    *(f"{service}.serve" for service in SERVICES),
    "kafka",
    "postgres",
)
TWICE = "messages delivered twice"
REBALANCE = "a second worker comes and goes"
PATIENCE = 240.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """After this call of the journey (counted from 1) this happens: a name of KILLED, TWICE or REBALANCE."""

    after_call: int
    what: str


def drawn(*, seed: int, faults: int, calls: int) -> list[Fault]:
    """Seeded faults over a journey of about `calls` calls: each process once before any comes again."""
    rng = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < faults:
        kinds += rng.sample(KILLED, len(KILLED))
    places = sorted(rng.sample(range(2, max(calls * 9 // 10, faults + 3)), faults))
    chosen = [Fault(place, kind) for place, kind in zip(places, kinds[:faults], strict=True)]
    extras = [Fault(rng.randrange(2, max(calls * 9 // 10, 4)), what) for what in (TWICE, TWICE, REBALANCE)]
    return sorted(chosen + extras, key=lambda fault: fault.after_call)


class Harness:
    """A platform, the journey on it, and the faults between its calls."""

    def __init__(
        self, *, platform: local.Platform, plan: journey.Plan, work_dir: Path, say: Callable[[str], None]
    ) -> None:
        self.platform = platform
        self.calls = 0
        self.kills: dict[str, int] = {}
        self._say = say
        self._faults: list[Fault] = []
        work_dir.mkdir(parents=True, exist_ok=True)
        self.gateway = _CountingGateway(
            after_call=self._after_call,
            base_url=platform.gateway_url,
            token=platform.token,
            agency=platform.agency,
            patience_seconds=PATIENCE,
        )
        self.journey = journey.Journey(
            gateway=self.gateway,
            plan=plan,
            work_dir=work_dir,
            say=say,
            settle=self.settle,
            patience=PATIENCE,
        )

    def run(self, faults: Sequence[Fault] = ()) -> None:
        """The whole journey; returns when everything it caused has come to rest."""
        self._faults = list(faults)
        self.journey.run()
        assert not self._faults, f"the journey ended before these happened: {self._faults}"
        self.settle()

    def settle(self) -> None:
        """Wait until topics, outboxes and due work are empty; parked facts or dead letters fail at once."""
        quiet = 0
        end = time.monotonic() + PATIENCE
        last: list[str] = []
        while quiet < 2:
            last = self._waiting()
            quiet = quiet + 1 if not last else 0
            if time.monotonic() > end:
                raise gc.WaitedTooLong("still not at rest: " + "; ".join(last[:10]))
            time.sleep(0.1)

    def owners(self) -> dict[str, sa.Engine]:
        """Engines of the databases' owners, who see all agencies."""
        return {
            service: sa.create_engine(
                sa.make_url(self.platform.owner_url(service)).set(drivername="postgresql+psycopg"),
                poolclass=sa.NullPool,
            )
            for service in SERVICES
        }

    def _after_call(self) -> None:
        self.calls += 1
        while self._faults and self._faults[0].after_call <= self.calls:
            self._happen(self._faults.pop(0).what)

    def _happen(self, what: str) -> None:
        self._say(f"  * {what}")
        if what == TWICE:
            send_again(self.platform.bootstrap, most=40)
        elif what == REBALANCE:
            service = SERVICES[self.calls % len(SERVICES)]
            name = self.platform.start_second_worker(service)
            self.platform.processes()[name].wait_ready()  # partitions moved; the kill moves them back
            self.platform.kill(name)
        else:
            self.kills[what] = self.kills.get(what, 0) + 1
            self.platform.kill(what)
            self.platform.start_process(what)

    def _waiting(self) -> list[str]:
        try:
            return [*self._backlog(), *self._due()]
        except (sa.exc.DBAPIError, kafka.errors.KafkaError, gc.CallRefused) as error:
            return [f"not answering: {type(error).__name__}"]

    def _backlog(self) -> list[str]:
        found = []
        ends = _end_offsets(self.platform.bootstrap)
        for service, engine in self.owners().items():
            with engine.connect() as connection:
                outbox = connection.execute(sa.text("SELECT count(*) FROM outbox")).scalar_one()
                parked = connection.execute(sa.text("SELECT count(*) FROM parked")).scalar_one()
                offsets: dict[tuple[str, int], int] = {
                    (row.topic, row.partition): row.next_offset
                    for row in connection.execute(
                        sa.text("SELECT topic, partition, next_offset FROM consumer_offsets")
                    )
                }
            engine.dispose()
            if parked:
                raise AssertionError(f"{service} parked {parked} facts")
            if outbox:
                found.append(f"{service}: {outbox} facts in the outbox")
            for topic in topics.catalog().by_name.values():
                if service not in topic.consumers:
                    continue
                for partition in range(topic.partitions):
                    end = ends.get((topic.name, partition), 0)
                    if offsets.get((topic.name, partition), 0) < end:
                        found.append(f"{service}: {topic.name}/{partition} is behind")
        return found

    def _due(self) -> list[str]:
        found = []
        messages = self.gateway.quietly().get("messages:summarize")
        if int(messages.get("due", 0)):
            found.append(f"{messages['due']} messages are due")
        money = self.gateway.quietly().get("money:summarize")
        if int(money.get("actsDue", 0)):
            found.append(f"{money['actsDue']} instruments wait at the bank")
        moving = ("STATE_APPLYING", "STATE_RECEIVED", "STATE_PARSED", "STATE_VALIDATED")
        found += [
            f"{batch['name']} is {batch['state']}"
            for batch in self.gateway.quietly().pages("batches", "batches")
            if batch["state"] in moving
        ]
        return found


class _CountingGateway(gc.Gateway):
    """Tells after each call of the journey; `quietly()` is the same without telling."""

    def __init__(self, *, after_call: Callable[[], None] | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._after_call = after_call
        self._arguments = arguments

    def quietly(self) -> gc.Gateway:
        return gc.Gateway(**self._arguments)

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = super()._call(method, path, **arguments)
        if self._after_call is not None:
            self._after_call()
        return answer


def send_again(bootstrap: str, *, most: int) -> None:
    """Produce the last `most` records of every partition once more, byte for byte, as a relay does that crashed."""
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None, consumer_timeout_ms=1500
    )
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, acks="all")
    try:
        wanted = [
            kafka.TopicPartition(topics.on_wire(topic.name), partition)
            for topic in topics.catalog().by_name.values()
            if topic.consumers
            for partition in range(topic.partitions)
        ]
        consumer.assign(wanted)
        ends = consumer.end_offsets(wanted)
        records = []
        for place in wanted:
            consumer.seek(place, max(0, ends[place] - most))
        behind = {place for place in wanted if ends[place] > 0}
        deadline = time.monotonic() + 30
        while behind and time.monotonic() < deadline:
            for place, batch in consumer.poll(timeout_ms=500).items():
                records += [record for record in batch if record.offset < ends[place]]
            behind = {place for place in behind if consumer.position(place) < ends[place]}
        for record in records:
            producer.send(
                record.topic,
                partition=record.partition,
                key=record.key,
                value=record.value,
                headers=record.headers,
            )
        producer.flush()
    finally:
        producer.close()
        consumer.close()


def _end_offsets(bootstrap: str) -> dict[tuple[str, int], int]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None)
    try:
        wanted = {
            kafka.TopicPartition(topics.on_wire(topic.name), partition): (topic.name, partition)
            for topic in topics.catalog().by_name.values()
            if topic.consumers
            for partition in range(topic.partitions)
        }
        return {wanted[place]: end for place, end in consumer.end_offsets(list(wanted)).items()}
    finally:
        consumer.close()


def acts(owners: Mapping[str, sa.Engine], statement: str, service: str) -> list[sa.Row[Any]]:
    """Rows of one service's database as its owner sees them."""
    with owners[service].connect() as connection:
        return list(connection.execute(sa.text(statement)))
