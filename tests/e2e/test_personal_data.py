"""After a day's work of two agencies, nothing that was said aloud names a person: no fact, log line, metric or span
holds a name, document, e-mail address or telephone number of the portfolio (architecture.md §6, §9).
"""

from __future__ import annotations

import itertools
import re
import unicodedata
import urllib.request

import httpx
import kafka
import psycopg
import pytest

from recupera_local import ports
from servicekit import topics
from support import calls, portfolio, waiting, whole

from .conftest import Two

NAMES = ("debtor_name", "guarantor_name")
DOCUMENTS = ("debtor_document", "guarantor_document")
PHONES = ("phone_1", "phone_2", "guarantor_phone")
SHORT = 7
"""Shorter digits or names may stand anywhere by chance."""
CHANCE = re.compile(
    rb"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"  # a UUID
    rb"|\b(?:[0-9a-f]{32}|[0-9a-f]{16})\b"  # a trace or a span
    rb"|(?<![\w.])\d+\.\d{6,}"  # seconds, a sum
)
"""Random digits: nine of them are a Portuguese telephone or tax number once in a while."""


def plain(text: str) -> str:
    """Lower case, without accents: as a log of another encoding would still show it."""
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in spread if not unicodedata.combining(character))


def forms(rows: list[dict[str, str]]) -> set[bytes]:
    """What must not be found: each value of the file in the forms in which it may have been kept."""
    found: set[str] = set()
    for row in rows:
        for column in NAMES:
            name = row.get(column, "")
            if len(name) > SHORT and " " in name:
                found |= {name, plain(name), name.upper(), name.casefold()}
        for column in DOCUMENTS:
            found |= {row.get(column, ""), re.sub(r"\W", "", row.get(column, ""))}
        for column in PHONES:
            digits = re.sub(r"\D", "", row.get(column, "")).removeprefix("55").removeprefix("351")
            found |= {row.get(column, ""), digits}
        email = row.get("email", "")
        found |= {email, email.casefold()}
    return {text.encode() for text in found if len(text) > SHORT}


@pytest.fixture(scope="module")
def personal(two: Two, whole: whole.Whole, gateway: calls.Client) -> set[bytes]:
    """All forms; and the calls were made in which a careless log would show a person."""
    document = re.sub(r"\W", "", two.ours.rows[0]["debtor_document"])
    name = two.ours.rows[0]["debtor_name"]
    found = two.ours.gateway.get("cases", debtorName=name)["cases"]
    assert found
    assert two.ours.gateway.get("cases", debtorDocument=document)["cases"]
    rpc = calls.rpc("CaseService/ListCases")
    url = rpc.url(two.ours.id)
    for query in (
        {"debtorName": name, "pageSize": "nonsense"},
        {"debtorName": name, "pageToken": "x"},
        {"debtorDocument": document, "pageSize": -1},
    ):
        assert gateway.json(rpc, url, two.ours.token(), query=query).code
    assert gateway.json(rpc, url, None, query={"debtorName": name}).code
    assert gateway.json(rpc, url, whole.token(two.ours.id, scopes=[]), query={"debtorName": name}).code
    wrong = calls.rpc("CaseService/RecordContact")
    body = {"contact": {"channel": "CHANNEL_CALL", "person": name, "internalNote": f"{name} {document}"}}
    assert gateway.json(wrong, f"/v1/{two.ours.spare}/contacts", two.ours.token(), body=body).code
    return forms([*two.ours.rows, portfolio.PORTFOLIO])


def leaks(where: str, content: bytes, personal: set[bytes]) -> list[str]:
    """Where a person is named; the file is read once however many names there are."""
    hits = _pattern(personal).findall(CHANCE.sub(b" ", content))
    return [f"{where}: {hit.decode()!r}" for hit in sorted(set(hits))[:5]]


def _pattern(personal: set[bytes]) -> re.Pattern[bytes]:
    return re.compile(b"|".join(map(re.escape, sorted(personal))))


PERSONS = {b"912345678", b"39053344705"}


@pytest.mark.parametrize(
    "line",
    [
        '{"message": "called 912345678", "trace_id": "912345678abcdef0912345678abcdef0"}',
        '{"message": "called +351912345678"}',
        '{"message": "called", "to": "912345678", "took": 0.912345678}',
        '{"trace_id": "0123456789abcdef0123456789abcdef", "span_id": "0123456789abcdef912345678"}',
        "GET /v1/cases?document=39053344705&x=0189912345678abc 200 0.0123456",
        "agencies/01890000-0000-7000-8000-000000000001/numbers/912345678",
    ],
)
def test_a_persons_number_is_found_beside_random_digits(line: str) -> None:
    assert leaks("log", line.encode(), PERSONS)


@pytest.mark.parametrize(
    "line",
    [
        '{"message": "called", "trace_id": "912345678abcdef0123456789abcdef0", "span_id": "abc912345678def0"}',
        "00-0123456789abcdef0123912345678abc-0912345678abcdef-01",
        "agencies/01890000-0000-7000-8000-912345678abc/cases",
        'recupera_seconds_sum{role="serve"} 12.9123456789',
        "started_created 1.7912345678e+09",
        "2026-11-23T10:11:12.912345678Z",
    ],
)
def test_random_digits_are_no_persons(line: str) -> None:
    assert not leaks("log", line.encode(), PERSONS)


def test_the_search_finds_what_it_looks_for(two: Two, personal: set[bytes], whole: whole.Whole) -> None:
    """The same forms are found where they belong: in the file, in the mail that was sent, in case's own table."""
    assert len(personal) > 300
    assert leaks("file", two.ours.portfolio.read_bytes(), personal)
    with urllib.request.urlopen(f"{whole.parts.mailbox_url}/messages?limit=1000") as answer:
        assert leaks("mailbox", answer.read(), personal)
    with psycopg.connect(whole.parts.owner_url("case")) as connection:
        kept = str(connection.execute("SELECT * FROM people").fetchall()).encode()
    assert len(leaks("people", kept, personal)) == 5


def test_no_fact_names_a_person(personal: set[bytes], whole: whole.Whole) -> None:
    """Raw records of every topic, dead letters too: key, value and headers."""
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=whole.parts.bootstrap, enable_auto_commit=False, group_id=None
    )
    found: list[str] = []
    seen: dict[str, int] = {}
    try:
        partitions = [
            kafka.TopicPartition(topic.name, partition)
            for topic in topics.catalog().by_name.values()
            for partition in range(topic.partitions)
        ]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, records in consumer.poll(timeout_ms=1000).items():
                seen[partition.topic] = seen.get(partition.topic, 0) + len(records)
                for record in records:
                    headers = b" ".join(value for _, value in record.headers or ())
                    content = b"\0".join((record.key or b"", record.value or b"", headers))
                    found += leaks(
                        f"{partition.topic}/{partition.partition}@{record.offset}", content, personal
                    )
    finally:
        consumer.close()
    assert not found, found
    working = {topic.name for topic in topics.catalog().by_name.values() if topic.consumers}
    assert set(seen) >= working, f"topics without a single fact prove nothing: {working - set(seen)}"


def test_no_log_line_names_a_person(personal: set[bytes], whole: whole.Whole) -> None:
    gateway = whole.state_dir / "log" / "envoy.log"
    assert httpx.get(f"{whole.url}/v1/agencies/nobody/cases/seen", timeout=10).status_code == 401
    waiting.until(lambda: b"cases/seen" in gateway.read_bytes(), timeout=30, what="the gateway's log of it")
    logs = sorted((whole.state_dir / "log").iterdir())
    names = {log.stem for log in logs}
    assert names >= {
        *(f"{service}.{role}" for service, role in itertools.product(ports.SERVICES, ("serve", "worker"))),
        "envoy", "kafka", "mailbox", "migrate", "postgres",
    }  # fmt: skip
    found = [leak for log in logs for leak in leaks(log.name, log.read_bytes(), personal)]
    assert not found, found


def test_no_metric_names_a_person(personal: set[bytes], whole: whole.Whole) -> None:
    found = []
    for service, role in itertools.product(ports.SERVICES, ("serve", "worker")):
        port = whole.parts.ports[f"{service}.{role}.metrics"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            content = answer.read()
        assert b"recupera_" in content, f"{service}.{role} has no metrics"
        found += leaks(f"{service}.{role}", content, personal)
    assert not found, found


def test_no_span_and_no_pushed_metric_names_a_person(personal: set[bytes], whole: whole.Whole) -> None:
    """As OpenTelemetry's own messages: names, attributes, events, resources."""
    assert whole.collector is not None, "a platform that stood before pushes nothing: run without it"
    assert whole.collector.spans()
    found = [
        leak
        for one in whole.collector.requests()
        for leak in leaks("otlp", one.SerializeToString(), personal)
    ]
    assert not found, found
