"""Titles: placed set-based, explained, taken back."""

import datetime
import uuid

import psycopg
import pytest

from agreement_service.domain import plans
from agreement_service.usecases import titles
from servicekit import db, errors, ids

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
MONTH = datetime.date(2026, 12, 21)


def explain(agency, case_id, date=None):
    with agency.tx() as tx:
        return titles.explain(tx=tx, agency=agency.agency, case_ids=[case_id], date=date or agency.today)[0]


@pytest.mark.feature("S1-17")
def test_w15_default_charges(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    balance = explain(agency, placed.case_id)
    assert balance.total_minor == 103_500
    lines = {line.component: line for line in balance.subjects[0].lines}
    assert (lines["PENALTY"].amount_minor, lines["INTEREST"].amount_minor) == (2_000, 1_500)
    assert (lines["INTEREST"].base_minor, lines["INTEREST"].rate_e4, lines["INTEREST"].days) == (
        100_000,
        10_000,
        45,
    )
    one = agency.check_money().sums[0]
    assert (one.placed, one.charges, one.open) == (100_000, 3_500, 103_500)


def test_due_on_a_saturday_paid_on_the_next_business_day_bears_no_charge(agency):
    saturday = datetime.date(
        2026, 11, 14
    )  # Sunday 15 is a national holiday too, Monday the next business day
    (placed,) = agency.place((saturday, 100_000))
    assert explain(agency, placed.case_id, datetime.date(2026, 11, 16)).total_minor == 100_000
    late = explain(agency, placed.case_id, datetime.date(2026, 11, 17))
    assert late.total_minor == 100_000 + 2_000 + 100, "three days from the due date itself"
    agency.pay(100_000, title_reference=placed.reference, value_date=datetime.date(2026, 11, 16))
    assert agency.title(placed).state == "PAID"


def test_a_portuguese_holiday_counts_for_euros_only(agency):
    republic = datetime.date(2026, 10, 5)  # a Monday, holiday in Portugal
    (euro,) = agency.place((republic, 100_000), currency="EUR")
    (real,) = agency.place((republic, 100_000))
    assert explain(agency, euro.case_id, datetime.date(2026, 10, 6)).total_minor == 100_000
    assert explain(agency, real.case_id, datetime.date(2026, 10, 6)).total_minor == 100_000 + 2_000 + 33


def test_placing_twice_changes_nothing(agency):
    fact, placed = agency.fact([(TUESDAY, 100), (TUESDAY, 200)])
    agency.take(fact)
    agency.take(fact, fact)
    assert len(agency.rows("SELECT 1 FROM titles")) == 2
    assert agency.title(placed[0]).version == 1


def test_many_contracts_in_several_facts_of_one_transaction(agency):
    made = [agency.fact([(TUESDAY, 100 + number)], contract=f"C{number}") for number in range(30)]
    agency.take(*(fact for fact, _ in made))
    rows = agency.rows(
        "SELECT contract_reference, principal_minor, partition FROM titles JOIN case_accounts USING (agency, case_id)"
    )
    assert {(row.contract_reference, row.principal_minor) for row in rows} == {
        (f"C{number}", 100 + number) for number in range(30)
    }
    assert len({row.partition for row in rows}) > 5


def test_withdrawn_titles_hold_nothing(agency):
    first, second = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000))
    agency.pay(10_000, title_reference=first.reference)
    with agency.tx() as tx:
        count = titles.withdraw(
            tx=tx,
            agency=agency.agency,
            withdrawn=[(first.case_id, first.title_id), (ids.new(), ids.new())],
            moment=agency.moment(tx),
            bank=agency.bank,
        )
    assert count == 1
    assert agency.title(first).state == "WITHDRAWN"
    one = agency.check_money().sums[0]
    assert one.withdrawn == 100_000 + 3_500 - 10_000
    assert one.open == 50_000 + 1_750
    assert second.reference not in {
        row.reference for row in agency.rows("SELECT * FROM titles WHERE state <> 'OPEN'")
    }


def test_withdrawing_a_title_in_agreement_cancels_the_agreement(agency):
    first, second = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000))
    agreement_id = agency.agree(first.case_id, terms=plans.Terms(instalments=3, first_due_date=MONTH))
    with agency.tx() as tx:
        titles.withdraw(
            tx=tx,
            agency=agency.agency,
            withdrawn=[(first.case_id, first.title_id)],
            moment=agency.moment(tx),
            bank=agency.bank,
        )
    assert agency.agreement(agreement_id).state == "CANCELLED"
    assert (agency.title(first).state, agency.title(second).state) == ("WITHDRAWN", "OPEN")


def test_a_payment_of_a_withdrawn_title_that_is_reversed_goes_back_to_the_creditor(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(30_000, title_reference=placed.reference)
    with agency.tx() as tx:
        titles.withdraw(
            tx=tx,
            agency=agency.agency,
            withdrawn=[(placed.case_id, placed.title_id)],
            moment=agency.moment(tx),
            bank=agency.bank,
        )
    agency.reverse(payment)
    assert agency.title(placed).state == "WITHDRAWN"
    assert agency.check_money().sums[0].withdrawn == 103_500


def roll_back(agency, batch_id):
    with agency.tx() as tx:
        return titles.roll_back(
            tx=tx, agency=agency.agency, batch_id=batch_id, moment=agency.moment(tx), bank=agency.bank
        )


def test_a_batch_is_rolled_back_and_placed_again(agency):
    batch_id = ids.new()
    fact, placed = agency.fact([(TUESDAY, 100_000), (TUESDAY, 50_000)], batch_id=batch_id)
    agency.take(fact)
    assert roll_back(agency, batch_id) == 2
    assert roll_back(agency, batch_id) == 0
    one = agency.check_money().sums[0]
    assert (one.placed, one.open, one.withdrawn) == (150_000, 0, 150_000)
    agency.take(fact)
    one = agency.check_money().sums[0]
    assert (one.placed, one.withdrawn) == (150_000, 0)
    assert agency.title(placed[0]).state == "OPEN"


@pytest.mark.parametrize("what", ["paid", "proposed", "agreed"])
def test_a_batch_in_use_is_not_rolled_back(agency, what):
    batch_id = ids.new()
    placed, _ = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000), batch_id=batch_id)
    terms = plans.Terms(instalments=2, first_due_date=MONTH)
    if what == "paid":
        agency.pay(100, title_reference=placed.reference)
    elif what == "proposed":
        agency.propose(placed.case_id, terms=terms)
    else:
        agency.agree(placed.case_id, terms=terms)
    with pytest.raises(titles.BatchInUse):
        roll_back(agency, batch_id)
    assert agency.check_money().sums[0].withdrawn == 0


def test_explaining_a_case_nobody_knows(agency):
    with pytest.raises(errors.ResourceNotFound):
        explain(agency, uuid.uuid4())


def test_the_database_refuses_a_balance_that_does_not_add_up(agency, database_of_test):
    (placed,) = agency.place((TUESDAY, 100_000))
    with (
        psycopg.connect(database_of_test.owner_url) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute("UPDATE titles SET open_principal_minor = 1 WHERE id = %s", [placed.title_id])


@pytest.mark.parametrize("statement", ["UPDATE postings SET amount_minor = 1", "DELETE FROM postings"])
def test_the_ledger_only_grows(agency, database_of_test, statement):
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(100, title_reference=placed.reference)
    for url in (database_of_test.owner_url, database_of_test.url):
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(statement)


def test_without_scope_no_row_is_seen(agency, database_of_test):
    agency.place((TUESDAY, 100_000))
    with psycopg.connect(database_of_test.url) as connection:
        for table in ("titles", "case_accounts", "creditors", "postings", "payments", "agreements"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_another_agency_sees_and_takes_nothing(agency, database_of_test):
    (placed,) = agency.place((TUESDAY, 100_000))
    other = type(agency)(agency.engine, database_of_test.owner_url)
    with pytest.raises(errors.ResourceNotFound):
        explain(other, placed.case_id)
    payment = other.pay(100_000, title_reference=placed.reference)
    assert other.payment(payment).state == "UNIDENTIFIED"
    (theirs,) = other.place((TUESDAY, 7_000), references=[placed.reference])
    assert other.payment(payment).case_id == theirs.case_id
    assert agency.title(placed).state == "OPEN"
    with db.begin(agency.engine, agency=other.agency) as tx, pytest.raises(errors.ResourceNotFound):
        titles.explain(tx=tx, agency=agency.agency, case_ids=[placed.case_id], date=agency.today)


def test_references_of_any_text(agency):
    references = [
        'say "hi"',
        "back\\slash",
        "{a,b}",
        "NULL",
        "null",
        " ",
        "çãé",
        "a,b",
        "\\\\",
        '\\"',
        "x\ny",
        "'",
    ]
    placed = agency.place(
        *[(TUESDAY, 100 + place) for place in range(len(references))], references=references
    )
    found = {row.principal_minor: row.reference for row in agency.rows("SELECT * FROM titles")}
    assert found == {one.minor: one.reference for one in placed}
