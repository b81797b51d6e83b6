"""Work on an installation: the demo's journey for an agency of its own, and whether everything is right after it.

Nothing here tries a call again, unless it is told to (`patience`): a journey during an upgrade fails where a creditor's
system would.
"""

from __future__ import annotations

import collections
import datetime
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import kafka
import sqlalchemy as sa
from cluster import figures, installation, load

from recupera.case.v1 import case_facts_pb2, case_pb2
from recupera_local import examples, ports, recount
from recupera_local import gateway_client as gc
from recupera_local.demo import journey, report
from servicekit import topics

FIRST_DAY = datetime.date(2026, 11, 23)


class Work:
    """A portfolio worked by one agency: placed, then its days, payments in between; a seed makes the files."""

    def __init__(
        self,
        installed: installation.Installation,
        folder: Path,
        *,
        debtors: int,
        days: int,
        seed: int,
        patience: float = 0.0,
    ) -> None:
        self.agency = uuid.uuid4()
        self._installed = installed
        folder.mkdir(parents=True, exist_ok=True)
        portfolio, *payments = examples.make(folder, debtors=debtors, seed=seed)
        weekdays = journey.weekdays_from(FIRST_DAY, days)
        self.journey = journey.Journey(
            gateway=installed.gateway(self.agency, patience=patience),
            plan=journey.Plan(
                portfolio=portfolio,
                payments={
                    day: [path for path in payments if path.stem.endswith(day.isoformat())]
                    for day in weekdays
                },
                days=weekdays,
                agents=3,
            ),
            work_dir=folder,
            say=lambda text: print(text, flush=True),
        )

    def place(self) -> None:
        """Set the agency's clock and import the portfolio."""
        self.journey.set_clock(self.journey.plan.days[0])
        self.journey.place_portfolio()

    def work(self) -> None:
        """All days."""
        for day in self.journey.plan.days:
            self.journey.work_day(day)

    @contextmanager
    def working(self, *, place: bool = False) -> Iterator[None]:
        """The days (`place`: the import too) go by while the block runs; it ends with them, and raises what stopped
        them."""
        stopped: list[BaseException] = []

        def go() -> None:
            try:
                if place:
                    self.place()
                self.work()
            except BaseException as error:  # handed to the thread that waits
                stopped.append(error)

        thread = threading.Thread(target=go, name="work", daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if stopped:
            raise stopped[0]

    def cases(self) -> list[str]:
        """Names of its cases."""
        return [case["name"] for case in self.journey.gateway.pages("cases", "cases")]

    def check(self, *, unknown: int = 0) -> None:
        """Everything came to rest and is right: money recounted, copies equal, each message sent once.

        `unknown`: so many messages may be UNKNOWN, which is what becomes of those that were in the act when notify was
        killed; each of them is in the mail box once or not at all.
        """
        await_rest(self._installed)
        figures = report.collect(gateway=self.journey.gateway, done=self.journey) | {"statements": []}
        second = recount.recount(
            portfolio=self.journey.plan.portfolio,
            payment_files=self.journey.payment_files,
            gateway=self.journey.gateway,
            as_of=datetime.date.fromisoformat(figures["business_date"]),
            batches=self.journey.batches,
        )
        wrong = [
            f"{one.name}: {one.ours} against {one.theirs}"
            for one in report.check(figures, second)
            if not one.holds and "statement" not in one.name  # statements are the demo's
        ]
        assert not wrong, "\n".join(wrong)
        copies_are_equal(self._installed)
        self.mailed_once(unknown=unknown)

    def mailed_once(self, *, unknown: int = 0) -> None:
        """Each message that is sent is in the mail box once; else nothing of this agency, but for what is UNKNOWN."""
        query = sa.text("SELECT act_key, state FROM messages WHERE agency = :agency AND act_key IS NOT NULL")
        with self._installed.owners()["notify"].connect() as connection:
            rows = connection.execute(query, {"agency": self.agency}).all()
        sent = {row.act_key for row in rows if row.state in ("SENT", "DELIVERED", "BOUNCED")}
        mailbox = collections.Counter(mail["message_id"] for mail in self._installed.backing.mails())
        assert sent, "no message was sent: this shows nothing"
        assert not [key for key in sent if mailbox[key] != 1], (
            "messages missing in the mail box, or there twice"
        )
        unsure = [row.act_key for row in rows if row.state == "UNKNOWN"]
        assert len(unsure) <= unknown, f"{len(unsure)} messages are UNKNOWN"
        assert not [key for key in unsure if mailbox[key] > 1], "UNKNOWN messages were sent twice"
        others = {row.act_key for row in rows} - sent - set(unsure)
        assert not [key for key in others if mailbox[key]], (
            "messages in the mail box that are not said to be sent"
        )


def await_rest(installed: installation.Installation, *, seconds: float = 240.0) -> None:
    """Until every fact is sent and applied: outboxes empty, every consumer at the end of its topics, in its own
    table and in what it told Kafka. Fails when a fact was parked."""
    last: list[str] = []

    def resting() -> bool:
        last[:] = backlog(installed)
        return not last

    try:
        installation.until("rest", resting, seconds=seconds)
    except gc.WaitedTooLong:
        raise AssertionError("still not at rest: " + "; ".join(last[:10])) from None


def backlog(installed: installation.Installation) -> list[str]:
    """What is under way, in words; empty when nothing is. Raises AssertionError for parked facts."""
    found = []
    for service, engine in installed.owners().items():
        [left] = _rows(
            engine, "SELECT (SELECT count(*) FROM outbox) AS outbox, (SELECT count(*) FROM parked) AS parked"
        )
        assert not left.parked, f"{service} parked {left.parked} facts"
        if left.outbox:
            found.append(f"{service}: {left.outbox} facts in the outbox")
    ends, told = offsets(installed)
    for service, engine in installed.owners().items():
        rows = _rows(engine, "SELECT topic, partition, next_offset FROM consumer_offsets")
        applied = {(row.topic, row.partition): row.next_offset for row in rows}
        found += [
            f"{service}: {place} ends at {end}, applied {applied.get(place)}, told {told.get((service, *place))}"
            for place, end in ends.items()
            if end
            and service in topics.catalog()[place[0]].consumers
            and (applied.get(place, 0), told.get((service, *place), 0)) != (end, end)
        ]
    return found


def offsets(
    installed: installation.Installation,
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, str, int], int]]:
    """Where each partition of each topic ends, and how far each service told Kafka that it is."""
    names = {
        topics.on_wire(topic.name): topic.name
        for topic in topics.catalog().by_name.values()
        if topic.consumers
    }
    consumer = kafka.KafkaConsumer(
        *names, bootstrap_servers=installed.bootstrap, enable_auto_commit=False, group_id=None
    )
    admin = kafka.KafkaAdminClient(bootstrap_servers=installed.bootstrap)
    try:
        # Asked for partitions that it has not heard of yet, the client fails with KeyError.
        places = [
            kafka.TopicPartition(name, partition)
            for name in names
            for partition in installation.until(name, lambda name=name: consumer.partitions_for_topic(name))
        ]
        ends = {
            (names[place.topic], place.partition): end for place, end in consumer.end_offsets(places).items()
        }
        groups = admin.list_group_offsets({f"recupera.{service}": None for service in ports.SERVICES})
        told = {
            (group.removeprefix("recupera."), names[place.topic], place.partition): at.offset
            for group, by_place in groups.items()
            for place, at in by_place.items()
            if place.topic in names
        }
        return ends, told
    finally:
        admin.close()
        consumer.close()


COPIES = (
    (
        "titles: open principal, due date",
        ("case", "SELECT id, open_principal_minor, due_date FROM titles WHERE NOT withdrawn"),
        (
            "agreement",
            "SELECT id, open_principal_minor, due_date FROM titles WHERE state <> 'WITHDRAWN'",
        ),
    ),
    (
        "cases: state",
        ("case", "SELECT id, state FROM cases"),
        ("dialer", "SELECT case_id AS id, state FROM case_anchors WHERE version > 0"),
    ),
)
"""Of each copy: the owner's rows, the copy's; the copy may have fewer (dialer: of cases that changed after a call)."""


def copies_are_equal(installed: installation.Installation) -> None:
    """What a service keeps of another one's is what that one has."""
    owners = installed.owners()
    for what, one, other in COPIES:
        left, right = (
            {row.id: tuple(row) for row in _rows(owners[service], query)} for service, query in (one, other)
        )
        both = left.keys() & right.keys()
        assert both, f"{what}: nothing to compare"
        assert not [row for row in right if row not in left], f"{what}: rows that {one[0]} does not have"
        wrong = [f"{one[0]} {left[key]}, {other[0]} {right[key]}" for key in both if left[key] != right[key]]
        assert not wrong, f"{what}: {len(wrong)} of {len(both)} differ:\n" + "\n".join(wrong[:10])


def holds_are_whole(installed: installation.Installation, held: dict[str, list[str]]) -> None:
    """What the writers of a load were told is there once, and its facts went out in order.

    `held`: of each case the names of the holds that were placed, one after another, each released before the next.
    """
    cases = {
        uuid.UUID(name.rsplit("/", 1)[1]): [uuid.UUID(one.rsplit("/", 1)[1]) for one in placed]
        for name, placed in held.items()
    }
    with installed.owners()["case"].connect() as connection:
        query = sa.text(
            "SELECT id, case_id, state FROM holds WHERE case_id = ANY(:cases) AND reason = 'load'"
        )
        rows = connection.execute(query, {"cases": list(cases)}).all()
    told = {hold for placed in cases.values() for hold in placed}
    assert {row.id for row in rows} == told, "holds lost, or placed without an answer"
    state = {row.id: row.state for row in rows}
    seen: dict[uuid.UUID, list[tuple[uuid.UUID, int]]] = {case: [] for case in cases}
    known: set[bytes] = set()
    versions: dict[uuid.UUID, int] = {}
    for fact in facts_of_case(installed):
        if fact.fact_id in known:  # at least once; those who read it know it by its id
            continue
        known.add(fact.fact_id)
        match fact.WhichOneof("fact"):
            case "hold_changed":
                case = uuid.UUID(bytes=fact.hold_changed.case_id)
                if case in seen:
                    seen[case].append((uuid.UUID(bytes=fact.hold_changed.hold_id), fact.hold_changed.state))
            case "cases_changed":
                for key, version in zip(
                    fact.cases_changed.case_ids, fact.cases_changed.versions, strict=True
                ):
                    case = uuid.UUID(bytes=key)
                    assert version > versions.get(case, 0), f"facts of case {case} out of order"
                    versions[case] = version
    for case, placed in cases.items():
        active = [hold for hold in placed if state[hold] == "ACTIVE"]
        assert active in ([], placed[-1:]), "holds that were released are active"  # the load ended in between
        both = [
            (hold, one)
            for hold in placed
            for one in (case_pb2.Hold.STATE_ACTIVE, case_pb2.Hold.STATE_RELEASED)
        ]
        assert seen[case] == (both[:-1] if active else both), f"facts of case {case}"


def facts_of_case(installed: installation.Installation) -> Iterator[case_facts_pb2.CaseFact]:
    """Every fact of the case service's topic, partition by partition in order."""
    topic = topics.on_wire("recupera.case.v1")
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=installed.bootstrap,
        enable_auto_commit=False,
        group_id=None,
        auto_offset_reset="earliest",
    )
    try:
        places = [kafka.TopicPartition(topic, one) for one in sorted(consumer.partitions_for_topic(topic))]
        ends = consumer.end_offsets(places)
        for place in places:
            consumer.assign([place])
            consumer.seek_to_beginning(place)
            while consumer.position(place) < ends[place]:
                for record in consumer.poll(timeout_ms=1000).get(place, ()):
                    yield case_facts_pb2.CaseFact.FromString(record.value)
    finally:
        consumer.close()


def _rows(engine: sa.Engine, query: str) -> Sequence[sa.Row[tuple[object, ...]]]:
    with engine.connect() as connection:
        found = connection.execute(sa.text(query)).all()
    engine.dispose()
    return found


@contextmanager
def disturbed(installed: installation.Installation, folder: Path, what: str) -> Iterator[None]:
    """Calls and a portfolio's import and days while the block runs; after it no call has failed and all is right."""
    quiet = Work(installed, folder / f"{what}-calls", debtors=20, days=1, seed=7)
    quiet.place()
    busy = Work(installed, folder / f"{what}-work", debtors=60, days=2, seed=11)
    cases = quiet.cases()
    token = installed.token_of(quiet.agency)
    with load.running(installed.gateway_url, token=token, agency=str(quiet.agency), cases=cases) as calls:
        calls.wait_for_calls(100)
        with busy.working(place=True):
            yield
        calls.wait_for_calls(100)
    assert not calls.failures, f"{calls.summary()}\n{calls.failed()}"
    figures.note(f"calls during: {what}", calls.summary())
    busy.check()
    holds_are_whole(installed, calls.holds)
