"""Facts that a service cannot apply, put on its topics with a raw producer: one that breaks a rule parks its case and
nothing else, and `replay` applies it and what came after it in order; bytes that are no fact go to the dead letters.
"""

from __future__ import annotations

import dataclasses
import datetime
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import kafka
import psycopg
import pytest

from recupera.agreement.v1 import agreement_facts_pb2, agreement_pb2
from recupera.case.v1 import case_facts_pb2
from recupera_local import gateway_client as gc
from recupera_local.demo import journey
from servicekit import dates, ids, topics
from support import portfolio, two_agencies, waiting, whole

TOPIC = "recupera.agreement.v1"
NOW = datetime.datetime(2026, 11, 23, 13, tzinfo=datetime.UTC)
CONTRACTS = 30
"""More than there are partitions, so that two cases share one."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A case and its one title."""

    id: uuid.UUID
    title: uuid.UUID
    partition: int


class Bench:
    """An agency of this test's own, and raw hands on topics and tables."""

    def __init__(self, running: whole.Whole, folder: Path) -> None:
        self.running = running
        self.agency = ids.new()
        token = running.token(self.agency)
        self.gateway = gc.Gateway(base_url=running.url, token=lambda: token, agency=str(self.agency))
        path = folder / "portfolio.csv"
        path.write_bytes(
            portfolio.content(
                [{**portfolio.PORTFOLIO, "contract_reference": f"K-{n}"} for n in range(CONTRACTS)]
            )
        )
        plan = journey.Plan(portfolio=path, payments={}, days=[two_agencies.DAY])
        day = journey.Journey(gateway=self.gateway, plan=plan, work_dir=folder, say=print, patience=120)
        day.set_clock(two_agencies.DAY)
        day.place_portfolio()
        self.producer = kafka.KafkaProducer(bootstrap_servers=running.parts.bootstrap, acks="all")

    def close(self) -> None:
        self.producer.close()
        self.gateway.close()

    def neighbours(self) -> tuple[Case, Case]:
        """Two cases of one partition."""
        first: dict[int, uuid.UUID] = {}
        for found in self.gateway.pages("cases", "cases"):
            case = uuid.UUID(found["name"].rsplit("/", 1)[1])
            partition = topics.partition_of(case, topics.catalog()[TOPIC].partitions)
            if partition in first:
                return self._case(first[partition], partition), self._case(case, partition)
            first[partition] = case
        raise AssertionError("thirty cases in twenty-four partitions, and no two in one")

    def _case(self, case: uuid.UUID, partition: int) -> Case:
        [title] = self.gateway.get(f"cases/{case}/titles")["titles"]
        return Case(case, uuid.UUID(title["name"].rsplit("/", 1)[1]), partition)

    def send(self, partition: int, value: bytes, *, topic: str = TOPIC, key: bytes | None = None) -> int:
        """Put a record on a topic; its offset."""
        place = self.producer.send(topic, value=value, key=key, partition=partition).get(timeout=20)
        return int(place.offset)

    def fact(self, **body: Any) -> bytes:
        """A fact of the agreement service."""
        return agreement_facts_pb2.AgreementFact(  # type: ignore[no-any-return]
            fact_id=ids.new().bytes,
            occurred_at=dates.to_timestamp(NOW),
            business_date=dates.to_proto(two_agencies.DAY),
            agency=self.agency.bytes,
            **body,
        ).SerializeToString()

    def titles(self, cases: Sequence[Case], version: int, state: str) -> bytes:
        """The titles of cases, in a state."""
        rows = len(cases)
        return self.fact(
            titles_changed=agreement_facts_pb2.TitlesChanged(
                case_ids=[case.id.bytes for case in cases],
                title_ids=[case.title.bytes for case in cases],
                versions=[version] * rows,
                states=[agreement_pb2.Title.State.Value(f"STATE_{state}")] * rows,
                open_principal_minor=[123_450] * rows,
            )
        )

    def agreement(self, case: Case, agreement: uuid.UUID, version: int, state: str) -> bytes:
        """An agreement over a case, in a state."""
        return self.fact(
            subject=agreement.bytes,
            version=version,
            agreement_changed=agreement_facts_pb2.AgreementChanged(
                case_id=case.id.bytes,
                agreement_id=agreement.bytes,
                state=agreement_pb2.Agreement.State.Value(f"STATE_{state}"),
                total_minor=123_450,
                currency="BRL",
            ),
        )

    def title_state(self, case: Case) -> str:
        """What the case service thinks of the title."""
        return str(self.gateway.get(f"cases/{case.id}/titles")["titles"][0]["state"])

    def history(self, case: Case) -> list[str]:
        """Codes of the agreements on the case's timeline, oldest first."""
        entries = self.gateway.get(f"cases/{case.id}/timeline")["entries"]
        return [entry["code"] for entry in reversed(entries) if entry["kind"] == "AGREEMENT"]

    def parked(self) -> list[tuple[uuid.UUID, str, int]]:
        """(case, reason, attempts) of facts that case parked, of this agency, in order."""
        with psycopg.connect(self.running.parts.owner_url("case")) as connection:
            return connection.execute(
                "SELECT case_id, reason, attempts FROM parked WHERE agency = %s ORDER BY id", [self.agency]
            ).fetchall()

    def hide(self, wrong: uuid.UUID, right: uuid.UUID) -> None:
        """Let the case service know a title under another id: as if an older database had been restored."""
        with psycopg.connect(self.running.parts.owner_url("case")) as connection:
            changed = connection.execute("UPDATE titles SET id = %s WHERE id = %s", [right, wrong])
            assert changed.rowcount == 1

    def replay(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m case_service replay`, as an operator types it."""
        return subprocess.run(
            [sys.executable, "-m", "case_service", "replay", *arguments],
            env=dict(self.running.parts.service_environ("case")),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def bench(whole: whole.Whole, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An agency with thirty cases. Whatever happens to its facts, every process stays the one it was."""
    before = whole.pids()
    made = Bench(whole, tmp_path_factory.mktemp("parked"))
    yield made
    made.close()
    assert whole.healthy()
    assert whole.pids() == before


def test_a_fact_that_breaks_a_rule_parks_its_case_alone(bench: Bench) -> None:
    bad, good = bench.neighbours()
    assert bad.partition == good.partition
    assert bench.title_state(good) == bench.title_state(bad)
    agreement, elsewhere = ids.new(), ids.new()
    bench.hide(bad.title, elsewhere)
    try:
        # One chunk of both cases, then more of each: the good one goes on, the bad one waits in line.
        bench.send(bad.partition, bench.titles([bad, good], 1000, "PARTIALLY_PAID"))
        bench.send(bad.partition, bench.agreement(bad, agreement, 1, "ACTIVE"), key=bad.id.bytes)
        bench.send(bad.partition, bench.agreement(good, ids.new(), 1, "ACTIVE"), key=good.id.bytes)
        waiting.until(lambda: bench.history(good) == ["ACTIVE"], what="the neighbour goes on")
        assert bench.title_state(good) == "PARTIALLY_PAID"
        assert bench.parked() == [(bad.id, "TITLES_UNKNOWN", 0), (bad.id, "QUEUED_BEHIND", 0)]
        assert bench.history(bad) == []
        assert int(bench.gateway.get("cases:summarize")["parked"]) >= 2

        # While the cause stands, a replay changes nothing and says so.
        failed = bench.replay()
        assert failed.returncode == 1, failed.stderr
        assert bench.parked() == [(bad.id, "TITLES_UNKNOWN", 1), (bad.id, "QUEUED_BEHIND", 0)]
    finally:
        bench.hide(elsewhere, bad.title)

    # The cause is mended; what still comes must not pass what waits.
    bench.send(bad.partition, bench.agreement(bad, agreement, 2, "FULFILLED"), key=bad.id.bytes)
    waiting.until(lambda: len(bench.parked()) == 3, what="the next fact waits too")
    other = bench.replay("--case", str(good.id))
    assert other.returncode == 0, other.stderr
    assert len(bench.parked()) == 3
    done = bench.replay("--case", str(bad.id))
    assert done.returncode == 0, done.stderr
    assert bench.parked() == []
    assert bench.history(bad) == ["ACTIVE", "FULFILLED"]
    waiting.until(lambda: bench.title_state(bad) == "PARTIALLY_PAID")

    # From here on its facts are applied as they come.
    bench.send(bad.partition, bench.titles([bad], 1001, "PAST_DUE"), key=bad.id.bytes)
    waiting.until(lambda: bench.title_state(bad) == "PAST_DUE", what="the case goes on")
    assert bench.parked() == []


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("no message", b"\xff\xfe nonsense", "not a message of the topic's type"),
        (
            "no ids",
            case_facts_pb2.CaseFact(fact_id=b"short", agency=b"x").SerializeToString(),
            "fact_id and agency are not UUIDs of 16 bytes",
        ),
    ],
    ids=["no message", "no ids"],
)
def test_bytes_that_are_no_fact_go_to_the_dead_letters(
    bench: Bench, name: str, value: bytes, reason: str
) -> None:
    """Every consumer of the topic reports the record with its origin, and reads on."""
    topic, partition, key = "recupera.case.v1", 5, uuid.uuid4().bytes
    reader = DeadLetters(bench.running.parts.bootstrap)
    try:
        offset = bench.send(partition, value, topic=topic, key=key)
        consumers = topics.catalog()[topic].consumers
        found = reader.take(len(consumers))
        assert {letter["consumer"] for letter in found} == {f"recupera.{service}" for service in consumers}
        for letter in found:
            assert letter["origin_topic"] == topic
            assert (letter["origin_partition"], letter["origin_offset"]) == (str(partition), str(offset))
            assert letter["reason"] == reason
            assert (letter["key"], letter["value"]) == (key, value)
    finally:
        reader.close()
    for service in consumers:
        with psycopg.connect(bench.running.parts.owner_url(service)) as connection:
            [(following,)] = connection.execute(
                "SELECT next_offset FROM consumer_offsets WHERE topic = %s AND partition = %s",
                [topic, partition],
            ).fetchall()
        assert following > offset


class DeadLetters:
    """What comes to the dead letters from now on."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = kafka.KafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None
        )
        count = topics.catalog()[topics.DEAD_LETTERS].partitions
        partitions = [kafka.TopicPartition(topics.DEAD_LETTERS, number) for number in range(count)]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            self._consumer.position(partition)

    def take(self, count: int) -> list[dict[str, Any]]:
        """That many letters: headers as text, `key` and `value` as bytes."""
        found: list[dict[str, Any]] = []

        def arrived() -> bool:
            for records in self._consumer.poll(timeout_ms=200).values():
                for record in records:
                    headers = {name: content.decode() for name, content in record.headers}
                    found.append({**headers, "key": record.key, "value": record.value})
            return len(found) >= count

        waiting.until(arrived, timeout=60, what=f"{count} dead letters; there are {found}")
        return found

    def close(self) -> None:
        self._consumer.close()
