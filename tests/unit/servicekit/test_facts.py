"""Chunks by reflection, topics as data, the partition of a case."""

import random
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recupera.agreement.v1 import agreement_facts_pb2
from recupera.case.v1 import case_facts_pb2, case_pb2
from servicekit import facts, ids, outbox, topics


def placed(count: int, per_case: int = 1) -> case_facts_pb2.CaseFact:
    """A chunk of titles with columns of bytes, strings and numbers, one empty column and a table."""
    fact = case_facts_pb2.CaseFact(
        fact_id=ids.new().bytes, agency=ids.new().bytes, version=7, subject=b"\x01" * 16
    )
    fact.occurred_at.seconds = 1_700_000_000
    fact.business_date.year = 2026
    fact.titles_placed.batch_id = b"\x02" * 16
    fact.titles_placed.table_contracts.add(contract_reference="c-1", currency="BRL")
    fact.titles_placed.table_contracts.add(contract_reference="c-2", currency="BRL")
    case = b""
    for number in range(count):
        if number % per_case == 0:
            case = ids.new().bytes
        fact.titles_placed.case_ids.append(case)
        fact.titles_placed.title_references.append(f"t-{number}")
        fact.titles_placed.principal_minor.append(number * 100)
        fact.titles_placed.contract_index.append(number % 2)
    return fact


def test_split_gives_a_copy_for_each_row() -> None:
    whole = placed(5)
    parts = facts.split(whole)
    assert [part.titles_placed.title_references[0] for part in parts] == [
        f"t-{number}" for number in range(5)
    ]
    for number, part in enumerate(parts):
        assert facts.rows(part) == 1
        assert part.titles_placed.case_ids == [whole.titles_placed.case_ids[number]]
        assert part.titles_placed.principal_minor == [number * 100]
        assert not part.titles_placed.due_days  # a column that was empty
        assert part.titles_placed.table_contracts == whole.titles_placed.table_contracts
        assert part.titles_placed.batch_id == whole.titles_placed.batch_id
        for field in ("fact_id", "occurred_at", "business_date", "agency", "subject", "version"):
            assert getattr(part, field) == getattr(whole, field)


@given(st.integers(1, 40), st.integers(1, 7))
def test_parts_together_are_the_whole(count: int, per_case: int) -> None:
    whole = placed(count, per_case)
    parts = facts.by_case(whole)
    assert [case.bytes for case, _ in parts] == list(dict.fromkeys(whole.titles_placed.case_ids))
    again = case_facts_pb2.CaseFact()
    again.CopyFrom(parts[0][1])
    for _, part in parts[1:]:
        for field in ("case_ids", "title_references", "principal_minor", "contract_index"):
            getattr(again.titles_placed, field).extend(getattr(part.titles_placed, field))
    assert again == whole
    if count > 1:
        halves = facts.halves(whole)
        assert halves is not None
        assert sum(facts.rows(half) for half in halves) == count


def test_a_column_of_messages_is_split_too() -> None:
    fact = case_facts_pb2.CaseFact(agency=ids.new().bytes)
    fact.cases_changed.case_ids.extend([b"\x01" * 16, b"\x02" * 16])
    fact.cases_changed.states.extend([case_pb2.Case.STATE_UNSPECIFIED, case_pb2.Case.STATE_UNSPECIFIED])
    assert [len(part.cases_changed.states) for part in facts.split(fact)] == [1, 1]


def test_other_facts_are_one_row() -> None:
    fact = case_facts_pb2.CaseFact(agency=ids.new().bytes)
    fact.slice_applied.rejects.add(row=3)
    fact.slice_applied.rejects.add(row=4)
    assert not facts.is_chunk(fact)
    assert facts.rows(fact) == 1
    assert facts.split(fact) == [fact]
    assert facts.halves(fact) is None
    assert facts.cases(fact) == [uuid.UUID(bytes=fact.agency)]
    fact.subject = b"\x05" * 16
    assert facts.cases(fact) == [uuid.UUID(bytes=fact.subject)]
    fact.hold_changed.case_id = b"\x06" * 16
    assert facts.cases(fact) == [uuid.UUID(bytes=b"\x06" * 16)]


def test_ragged_columns_are_refused() -> None:
    fact = placed(3)
    fact.titles_placed.due_days.append(1)
    with pytest.raises(ValueError, match="due_days has 1 values for 3 rows"):
        facts.split(fact)


def test_an_unknown_fact_has_no_kind() -> None:
    fact = case_facts_pb2.CaseFact.FromString(b"\xaa\x06\x00")
    assert facts.kind(fact) is None
    assert facts.rows(fact) == 1


def test_only_keeps_the_rows_of_some_cases() -> None:
    fact = placed(4)
    first = uuid.UUID(bytes=fact.titles_placed.case_ids[0])
    kept = facts.only(fact, lambda case: case != first)
    assert kept is not None
    assert kept.titles_placed.title_references == ["t-1", "t-2", "t-3"]
    assert facts.only(fact, lambda _: False) is None
    assert facts.only(fact, lambda _: True) is fact


def test_rows_become_chunks_of_one_partition() -> None:
    rng = random.Random(1)
    cases = [uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(5_000)]
    made = list(facts.by_partition(cases, case_id=lambda case: case, partitions=4))
    assert all(len(rows) <= facts.MAX_ROWS for _, rows in made)
    assert all(topics.partition_of(case, 4) == partition for partition, rows in made for case in rows)
    assert sorted(case for _, rows in made for case in rows) == sorted(cases)
    assert [len(chunk) for chunk in facts.chunks(range(1_001))] == [500, 500, 1]


def test_the_partition_of_a_case_is_crc32_of_its_bytes() -> None:
    case = uuid.UUID("01890000-0000-7000-8000-000000000001")
    assert topics.partition_of(case, 24) == zlib.crc32(case.bytes) % 24 == 4


def test_every_topic_names_a_message_of_its_producer() -> None:
    catalog = topics.load(topics.path())
    services = {topic.producer for topic in catalog.by_name.values()} - {"any"}
    assert services == {"case", "agreement", "dialer", "notify", "import"}
    for topic in catalog.by_name.values():
        assert set(topic.consumers) <= services
        assert topic.producer not in topic.consumers
        assert topic.max_bytes >= facts.MAX_BYTES * 2
        if topic.name == topics.DEAD_LETTERS:
            continue
        assert topic.partitions == 24
        kind = facts.message_class(topic.message)
        assert topic.message.rpartition(".")[0] == topic.name  # recupera.case.v1.CaseFact in recupera.case.v1
        fields = [field.name for field in kind.DESCRIPTOR.fields][:6]
        assert fields == ["fact_id", "occurred_at", "business_date", "agency", "subject", "version"]
        assert [oneof.name for oneof in kind.DESCRIPTOR.oneofs] == ["fact"]


def test_topics_may_come_from_another_file(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "topics.yaml"  # type: ignore[operator]
    file.write_text(
        "defaults: {partitions: 2, retention_ms: 1000, max_message_bytes: 2000}\n"
        "topics: [{name: t.v1, message: a.B, producer: x, consumers: [y]}]\n"
    )
    monkeypatch.setenv(topics.FILE_VARIABLE, str(file))
    assert topics.catalog()["t.v1"].partitions == 2
    with pytest.raises(ValueError, match="not in topics"):
        topics.catalog()["u.v1"]
    monkeypatch.setenv(topics.PREFIX_VARIABLE, "test-")
    assert topics.on_wire("t.v1") == "test-t.v1"


def test_outbox_rows() -> None:
    agency, case = ids.new(), ids.new()
    fact = agreement_facts_pb2.AgreementFact(subject=case.bytes)
    fact.day_done.date.year = 2026
    [row] = outbox.rows(fact, agency=agency, case_id=None, partition=None, traceparent="00-x")
    assert row.topic == "recupera.agreement.v1"
    assert row.partition == topics.partition_of(case, 24)
    assert row.key == case.bytes
    assert row.fact_type == "recupera.agreement.v1.AgreementFact.day_done"
    sent = agreement_facts_pb2.AgreementFact.FromString(row.value)
    assert sent.agency == agency.bytes
    assert sent.fact_id == row.fact_id.bytes
    assert not fact.fact_id
    fact.fact_id = b"\x01" * 16
    [row] = outbox.rows(fact, agency=agency, case_id=case, partition=3, traceparent="")
    assert (row.partition, row.fact_id.bytes, row.key) == (3, b"\x01" * 16, case.bytes)
