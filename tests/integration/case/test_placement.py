"""A slice of a portfolio becomes creditors, people, contact points, contracts, cases and titles; once."""

import concurrent.futures
import datetime
import hashlib
import threading
from uuid import uuid4

import pytest

from case_service.usecases import portfolio, republish
from recupera.imports.v1 import imports_facts_pb2
from servicekit import db, testing

from .conftest import COLUMNS, DATE, House, arrow, row

DAY = datetime.timedelta(days=1)


def test_rows_become_cases(house: House) -> None:
    house.take()
    guarantor = {
        "guarantor_document_type": "CPF",
        "guarantor_document": "99999999999",
        "guarantor_name": "Avalista",
        "guarantor_phone": "+5511900000000",
    }
    batch = house.place(
        row(0),
        row(1, contract_reference="K-0", debtor_document=f"{0:011d}", due_date=DATE, principal_minor=50),
        row(2, currency="EUR", contract_reference="K-0", debtor_document=f"{0:011d}"),
        row(3, **guarantor),
    )
    applied = house.take()
    assert {fact.WhichOneof("fact") for fact in applied} == {"titles_placed", "slice_applied"}
    (closed,) = [fact.slice_applied for fact in applied if fact.HasField("slice_applied")]
    assert (closed.batch_id, closed.slice, closed.applied, closed.unchanged) == (batch.bytes, 0, 4, 0)

    placed = {}
    for fact in applied:
        chunk = fact.titles_placed
        for number, title in enumerate(chunk.title_references):
            contract = chunk.table_contracts[chunk.contract_index[number]]
            terms = chunk.table_terms[chunk.terms_index[number]]
            placed[title] = (
                chunk.principal_minor[number],
                contract.contract_reference,
                contract.currency,
                contract.creditor_reference,
                terms.penalty_rate_e4,
                terms.monthly_interest_rate_e4,
            )
            assert chunk.batch_id == batch.bytes
    assert placed == {
        "T-0": (10_000, "K-0", "BRL", "LUZ", 20_000, 10_000),
        "T-1": (50, "K-0", "BRL", "LUZ", 20_000, 10_000),
        "T-2": (10_000, "K-0", "EUR", "LUZ", 20_000, 10_000),
        "T-3": (10_000, "K-3", "BRL", "LUZ", 20_000, 10_000),
    }

    found = house.rows("SELECT * FROM cases WHERE agency = :agency ORDER BY currency, placed_principal_minor")
    assert [(case.currency, case.open_titles, case.placed_principal_minor) for case in found] == [
        ("BRL", 1, 10_000),
        ("BRL", 2, 10_050),
        ("EUR", 1, 10_000),
    ]
    assert {case.state for case in found} == {"READY"}
    assert found[1].oldest_due_date == DATE - 10 * DAY
    key = int.from_bytes(hashlib.sha256(b"LUZ|K-0|BRL").digest()[:8])
    assert found[1].natural_key & 0xFFFF_FFFF_FFFF_FFFF == key
    assert house.one("SELECT count(*) AS n FROM people WHERE agency = :agency").n == 3
    assert house.one("SELECT count(*) AS n FROM people WHERE agency = :agency AND NOT debtor").n == 1
    assert house.one("SELECT count(*) AS n FROM case_guarantors WHERE agency = :agency").n == 1
    assert house.timeline(found[0].id) == [("STATE_CHANGED", "READY")]


@pytest.mark.feature("S1-07")
def test_contact_points_are_kept_once_a_person(house: House) -> None:
    house.place(
        row(0), row(1, debtor_document=f"{0:011d}", phone_1=row(0)["phone_1"], phone_2="+551133334444")
    )
    found = house.rows("SELECT kind, value, position, provenance FROM contact_points WHERE agency = :agency")
    assert sorted((point.kind, point.value) for point in found) == [
        ("EMAIL", "debtor0@example.com"),
        ("EMAIL", "debtor1@example.com"),
        ("PHONE", "+551133334444"),
        ("PHONE", "+5511900000000"),
    ]


def test_the_same_titles_again_change_nothing(house: House) -> None:
    house.place(row(0), row(1))
    before = house.rows("SELECT * FROM cases ORDER BY id")
    house.take()
    house.place(row(0), row(1), row(1))
    (fact,) = house.take()
    assert (fact.slice_applied.applied, fact.slice_applied.unchanged) == (0, 3)
    assert house.rows("SELECT * FROM cases ORDER BY id") == before


def test_a_slice_sent_again_gets_the_same_answer(house: House) -> None:
    batch = house.place(row(0), row(0, principal_minor=1))
    first = house.take("slice_applied")
    house.deliver(house.slice_ready(batch), partition=0)
    (again,) = house.take()
    assert again.slice_applied == first[0].slice_applied
    assert again.slice_applied.rejects[0].code == "TITLE_CHANGED_AFTER_PLACEMENT"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"principal_minor": 99_99}, "principal"),
        ({"due_date": DATE}, "due_date"),
        ({"currency": "EUR"}, "currency"),
        ({"debtor_document": f"{7:011d}"}, "debtor_document"),
    ],
)
def test_a_title_that_changed_is_refused_by_row(house: House, change: dict[str, object], field: str) -> None:
    house.place(row(0))
    house.take()
    house.place(row(0, row=7, **change), row(1))
    (applied,) = house.take("slice_applied")
    assert applied.slice_applied.applied == 1
    (reject,) = applied.slice_applied.rejects
    assert (reject.row, reject.field, reject.code) == (7, field, "TITLE_CHANGED_AFTER_PLACEMENT")
    assert house.case(0).placed_principal_minor == 100_00


def test_a_case_grows_and_a_paid_one_opens_again(house: House) -> None:
    house.place(row(0))
    house.titles_changed(("T-0", 0), state="PAID")
    assert house.case(0).state == "RESOLVED_PAID"
    house.place(row(0, title_reference="T-9", due_date=DATE + DAY))
    case = house.case(0)
    assert (case.state, case.open_titles, case.open_principal_minor) == ("READY", 1, 100_00)
    assert (case.placed_principal_minor, case.oldest_due_date) == (200_00, DATE + DAY)


def test_a_guarantor_who_is_a_debtor_has_the_debtors_data_whichever_came_first(house: House) -> None:
    guarantor = {"guarantor_document_type": "CPF", "guarantor_document": f"{1:011d}", "guarantor_name": "?"}
    house.place(row(0, **guarantor), batch=uuid4())
    house.place(row(1), batch=uuid4())
    house.place(
        row(2, guarantor_document_type="CPF", guarantor_document=f"{0:011d}", guarantor_name="?"),
        batch=uuid4(),
    )
    found = house.rows(
        "SELECT display_name, region, debtor FROM people WHERE agency = :agency ORDER BY document"
    )
    assert [(person.display_name, person.region, person.debtor) for person in found] == [
        (f"Conceição Araújo {number}", "SP", True) for number in range(3)
    ]


def test_texts_with_quotes_breaks_and_nothing_survive(house: House) -> None:
    name = 'Ana "Bia", \n d\'Ávila; \\N'
    house.place(row(0, debtor_name=name, city="", address=None))
    person = house.one("SELECT display_name, city, address FROM people WHERE agency = :agency")
    assert person == (name, "", "")


def test_payment_slices_are_not_ours(house: House) -> None:
    fact = imports_facts_pb2.ImportFact(agency=house.agency.bytes, subject=uuid4().bytes)
    fact.slice_ready.kind = 2  # BATCH_KIND_PAYMENTS
    house.take()
    house.deliver(fact, partition=0)
    assert house.take() == []


def test_an_agency_without_a_clock_waits(house: House) -> None:
    other = house.of(uuid4())
    batch = uuid4()
    with pytest.raises(testing.FactsParked, match="AGENCY_CLOCK_UNKNOWN"):
        other.place(row(0), batch=batch)
    assert other.rows("SELECT 1 FROM cases") == []


def test_what_breaks_in_the_middle_leaves_nothing(house: House) -> None:
    house.place(row(0))
    house.take()
    csv = house.cut.fetch(house.agency, batch_id=next(iter(house.cut.arrow))[0], slice_=0, columns=COLUMNS)

    class Killed(Exception):
        pass

    def killed() -> None:
        with db.begin(house.engine, agency=house.agency) as tx:
            portfolio.apply_slice(
                tx, house.agency, batch_id=uuid4(), slice_=0, csv=csv.replace(b"T-0", b"T-8")
            )
            raise Killed

    with pytest.raises(Killed):
        killed()
    assert house.take() == []
    assert house.case(0).open_titles == 1
    assert len(house.rows("SELECT 1 FROM placed_slices")) == 1


def test_two_slices_of_one_contract_at_the_same_time(house: House) -> None:
    """One title reference of one contract under two debtors, in two transactions: one places it, one starts
    again.
    """
    frames = []
    for debtor in (1, 2):
        batch = uuid4()
        shared = {"debtor_document": f"{debtor:011d}", "contract_reference": "K-1", "title_reference": "T-1"}
        frames.append((batch, row(debtor, **shared)))
    ready = threading.Barrier(2)

    def apply(number: int) -> str:
        batch, found = frames[number]
        house.cut.arrow[batch, 0] = arrow(found)
        csv = house.cut.fetch(house.agency, batch_id=batch, slice_=0, columns=COLUMNS)
        ready.wait(timeout=10)
        for _ in range(2):
            try:
                with db.begin(house.engine, agency=house.agency) as tx:
                    portfolio.apply_slice(tx, house.agency, batch_id=batch, slice_=0, csv=csv)
            except portfolio.PlacementRaced:
                continue
            return "applied"
        return "raced twice"

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(apply, range(2))) == ["applied", "applied"]
    assert len(house.rows("SELECT 1 FROM titles WHERE agency = :agency")) == 1
    answers = [fact.slice_applied for fact in house.take("slice_applied")]
    assert sorted((answer.applied, len(answer.rejects)) for answer in answers) == [(0, 1), (1, 0)]


def test_republished_titles_are_those_that_were_placed(house: House) -> None:
    house.take()
    house.place(*(row(number) for number in range(30)))

    def titles(facts: list[object]) -> set[tuple[object, ...]]:
        return {
            (case_id, title_id, principal, due, chunk.table_contracts[contract].contract_reference)
            for fact in facts
            for chunk in [fact.titles_placed]  # type: ignore[attr-defined]
            for case_id, title_id, principal, due, contract in zip(
                chunk.case_ids,
                chunk.title_ids,
                chunk.principal_minor,
                chunk.due_days,
                chunk.contract_index,
                strict=True,
            )
        }

    placed = titles(house.take("titles_placed"))
    assert len(placed) == 30
    after, rounds = None, 0
    while True:
        with db.begin(house.engine, agency=house.agency) as tx:
            after = republish.next_cases(tx, house.agency, after=after, limit=7)
        if after is None:
            break
        rounds += 1
    assert rounds == 5
    facts = house.take()
    assert titles([fact for fact in facts if fact.HasField("titles_placed")]) == placed
    states = [state for fact in facts for state in fact.cases_changed.states]
    assert len(states) == 30


def test_what_charges_follow_from_is_published(house: House) -> None:
    """No rate is not a rate of zero; natural persons, products and kinds of titles are told apart."""
    house.take()
    house.place(
        row(0, penalty_rate_e4=None, monthly_interest_rate_e4=0),
        row(
            1, debtor_document_type="NIF", debtor_document="123456789", product="LOAN", title_type="FORECAST"
        ),
        row(2, debtor_document_type="NIF", debtor_document="501964843", penalty_rate_e4=None),
        row(3, debtor_document_type="CNPJ", debtor_document="16727230000197", monthly_interest_rate_e4=None),
    )

    def seen() -> dict[str, tuple[object, ...]]:
        found = {}
        for fact in house.take():
            chunk = fact.titles_placed
            for number, title in enumerate(chunk.title_references):
                contract = chunk.table_contracts[chunk.contract_index[number]]
                terms = chunk.table_terms[chunk.terms_index[number]]
                found[title] = (
                    contract.product,
                    contract.natural_person,
                    chunk.table_types[chunk.type_index[number]],
                    None if terms.no_penalty else terms.penalty_rate_e4,
                    None if terms.no_monthly_interest else terms.monthly_interest_rate_e4,
                )
        return found

    placed = {
        "T-0": ("CARD", True, "INVOICE", None, 0),
        "T-1": ("LOAN", True, "FORECAST", 20_000, 10_000),
        "T-2": ("CARD", False, "INVOICE", None, 10_000),
        "T-3": ("CARD", False, "INVOICE", 20_000, None),
    }
    assert seen() == placed
    with db.begin(house.engine, agency=house.agency) as tx:
        republish.next_cases(tx, house.agency, after=None, limit=10)
    assert seen() == placed
