"""What the agreement service tells moves cases: open principal, agreements, payments; by version, set-based."""

import datetime
from uuid import UUID, uuid4

import pytest

from case_service.domain import cases as machine
from case_service.store import portfolio
from case_service.usecases import cases
from servicekit import dates, db, testing

from .conftest import DATE, House, row

DAY = datetime.timedelta(days=1)


def test_open_principal_follows_the_titles(house: House) -> None:
    house.place(
        row(0), row(1, contract_reference="K-0", debtor_document=f"{0:011d}", due_date=DATE - 20 * DAY)
    )
    house.run_day()
    assert house.case().oldest_due_date == DATE - 20 * DAY
    house.titles_changed(("T-1", 40_00), version=1)
    case = house.case()
    assert (case.open_principal_minor, case.open_titles) == (140_00, 2)
    house.titles_changed(("T-1", 0), version=3, state="PAID")
    case = house.case()
    assert (case.open_principal_minor, case.open_titles) == (100_00, 1)
    assert case.oldest_due_date == DATE - 10 * DAY
    # what is older than what is known is no news
    house.titles_changed(("T-1", 70_00), version=2)
    assert house.case() == case
    house.titles_changed(("T-0", 0), version=1, state="PAID")
    case = house.case()
    assert (case.state, case.open_titles, case.oldest_due_date) == ("RESOLVED_PAID", 0, None)
    # a bounced payment opens the title again
    house.titles_changed(("T-0", 100_00), version=2, state="PAST_DUE")
    case = house.case()
    assert (case.state, case.open_principal_minor, case.oldest_due_date) == ("READY", 100_00, DATE - 10 * DAY)
    assert [code for kind, code in house.timeline(case.id) if kind == "STATE_CHANGED"] == [
        "READY",
        "IN_COLLECTION",
        "RESOLVED_PAID",
        "READY",
    ]


@pytest.mark.feature("S2-32")
def test_a_due_date_moved_by_the_money_moves_the_case(house: House) -> None:
    """The ladder counts from the oldest due date as it is now; a fact without due dates leaves them."""
    house.place(
        row(0), row(1, contract_reference="K-0", debtor_document=f"{0:011d}", due_date=DATE - 20 * DAY)
    )
    house.run_day()
    house.titles_changed(("T-1", 100_00), version=1, state="OPEN", due_date=DATE + 5 * DAY)
    assert house.case().oldest_due_date == DATE - 10 * DAY
    house.titles_changed(("T-0", 100_00), version=1, state="OPEN", due_date=DATE + 9 * DAY)
    case = house.case()
    assert case.oldest_due_date == DATE + 5 * DAY
    assert (case.open_principal_minor, case.open_titles) == (200_00, 2)
    house.titles_changed(("T-1", 40_00), version=2)
    assert house.case().oldest_due_date == DATE + 5 * DAY
    # older than what is known: no news
    house.titles_changed(("T-1", 40_00), version=1, due_date=DATE - 30 * DAY)
    assert house.case().oldest_due_date == DATE + 5 * DAY


def test_many_titles_of_a_case_in_one_fact(house: House) -> None:
    house.place(*(row(n, contract_reference="K-0", debtor_document=f"{0:011d}") for n in range(20)))
    house.take()
    case_id = house.case().id
    fact = house.agreement_fact()
    for found in house.rows("SELECT id FROM titles ORDER BY id"):
        fact.titles_changed.case_ids.append(case_id.bytes)
        fact.titles_changed.title_ids.append(found.id.bytes)
        fact.titles_changed.versions.append(1)
        fact.titles_changed.states.append(5)  # PAID
        fact.titles_changed.open_principal_minor.append(0)
    house.deliver(fact, partition=house.partition(case_id))
    assert house.case().state == "RESOLVED_PAID"
    (changed,) = house.take("cases_changed")
    assert list(changed.cases_changed.open_principal_minor) == [0]
    assert changed.cases_changed.versions == [house.case().version]


def test_titles_that_are_not_here_wait_for_replay(house: House) -> None:
    house.place(row(0))
    fact = house.agreement_fact()
    fact.titles_changed.case_ids.append(house.case().id.bytes)
    fact.titles_changed.title_ids.append(uuid4().bytes)
    fact.titles_changed.versions.append(1)
    fact.titles_changed.states.append(5)
    fact.titles_changed.open_principal_minor.append(0)
    with pytest.raises(testing.FactsParked, match="TITLES_UNKNOWN"):
        house.deliver(fact, partition=house.partition(house.case().id))
    assert house.case().state == "READY"


def test_an_agreement_takes_the_case_and_a_breach_gives_it_back(house: House) -> None:
    house.place(row(0))
    house.run_day()
    case_id, agreement = house.case().id, uuid4()
    house.agreement_changed(case_id, "PROPOSED", version=1, agreement=agreement)
    assert house.case().state == "IN_COLLECTION"
    house.agreement_changed(case_id, "AWAITING_DOWN_PAYMENT", version=2, agreement=agreement)
    assert (house.case().state, house.case().sub_state) == ("IN_AGREEMENT", "")
    house.agreement_changed(case_id, "ACTIVE", version=3, agreement=agreement)
    house.agreement_changed(case_id, "BROKEN", version=4, agreement=agreement, date=DATE + DAY)
    case = house.case()
    assert (case.state, case.sub_state, case.agreements_in_force) == ("IN_COLLECTION", "CONTACTED", 0)
    (agenda,) = house.rows("SELECT date FROM agenda WHERE reason = 'AGREEMENT_BROKEN'")
    assert agenda.date == DATE + DAY
    house.agreement_changed(case_id, "ACTIVE", version=3, agreement=agreement)
    assert house.case().state == "IN_COLLECTION"
    codes = [code for kind, code in house.timeline(case_id) if kind == "AGREEMENT"]
    assert codes == ["PROPOSED", "AWAITING_DOWN_PAYMENT", "ACTIVE", "BROKEN"]


def test_paid_through_an_agreement(house: House) -> None:
    house.place(row(0))
    house.run_day()
    case_id, agreement = house.case().id, uuid4()
    house.agreement_changed(case_id, "ACTIVE", version=1, agreement=agreement)
    house.titles_changed(("T-0", 0), state="PAID")
    assert house.case().state == "IN_AGREEMENT"
    house.agreement_changed(case_id, "FULFILLED", version=2, agreement=agreement)
    assert house.case().state == "RESOLVED_PAID"


def test_agreement_and_payment_while_on_hold(house: House) -> None:
    house.place(row(0))
    house.run_day()
    case_id = house.case().id
    with db.begin(house.engine, agency=house.agency) as tx:
        cases.place_hold(
            tx,
            house.agency,
            case_id=case_id,
            type_="HARDSHIP",
            channels=[],
            until=None,
            reason="",
            actor="users/tester",
        )
    house.agreement_changed(case_id, "ACTIVE", version=1, agreement=uuid4())
    assert (house.case().state, house.case().held_state) == ("ON_HOLD", "IN_AGREEMENT")
    (hold,) = house.rows("SELECT id FROM holds")
    with db.begin(house.engine, agency=house.agency) as tx:
        cases.release_hold(
            tx, house.agency, case_id=case_id, hold_id=hold.id, reason="", actor="users/tester"
        )
    assert house.case().state == "IN_AGREEMENT"


def test_payments_stand_in_the_timeline_once(house: House) -> None:
    house.place(row(0))
    fact = house.agreement_fact()
    fact.payment_changed.case_id = house.case().id.bytes
    fact.payment_changed.payment_id = uuid4().bytes
    fact.payment_changed.state = 3
    fact.payment_changed.allocated_minor = 12_34
    fact.payment_changed.currency = "BRL"
    fact.payment_changed.value_date.CopyFrom(dates.to_proto(DATE))
    for _ in range(2):
        fact.fact_id = uuid4().bytes
        house.deliver(fact, partition=house.partition(house.case().id))
    assert house.timeline(house.case().id).count(("PAYMENT", "ALLOCATED")) == 1
    unidentified = house.agreement_fact()
    unidentified.payment_changed.payment_id = uuid4().bytes
    unidentified.payment_changed.state = 2
    house.deliver(unidentified, partition=0)


def test_a_recalled_case_withdraws_its_titles(house: House) -> None:
    house.place(row(0))
    house.run_day()
    house.take()
    with db.begin(house.engine, agency=house.agency) as tx:
        cases.change_state(
            tx,
            house.agency,
            case_id=house.case().id,
            target=machine.State.RETURNED,
            sub_state=machine.SubState.NONE,
            reason="recalled by the creditor",
            version=None,
            actor="users/tester",
        )
    case = house.case()
    assert (case.state, case.open_titles, case.open_principal_minor) == ("RETURNED", 0, 0)
    (withdrawn,) = house.take("titles_withdrawn")
    assert len(withdrawn.titles_withdrawn.title_ids) == 1
    # placed again, the same reference is another title of the same case
    house.place(row(0))
    assert house.case().state == "READY"
    assert house.case().id == case.id
    assert house.one("SELECT count(*) AS n FROM titles WHERE title_reference = 'T-0'").n == 2


def novated(house: House, case_id, *rows: tuple[int, str, int, datetime.date]):
    """A TitlesNovated of a case: rows are (id, reference, principal in cents, due date)."""
    fact = house.agreement_fact()
    body = fact.titles_novated
    body.table_currencies.append("BRL")
    for number, reference, minor, due in rows:
        body.case_ids.append(case_id.bytes)
        body.title_ids.append(UUID(int=number).bytes)
        body.title_references.append(reference)
        body.principal_minor.append(minor)
        body.due_days.append(dates.epoch_days(due))
        body.agreement_ids.append(UUID(int=99).bytes)
        body.penalty_rates_e4.append(20_000)
        body.monthly_rates_e4.append(10_000)
        body.currency_index.append(0)
    return fact


@pytest.mark.feature("S3-12", "S5-04")
def test_titles_of_a_novation_are_titles_of_their_case_and_originals_resolve_nothing(house: House) -> None:
    house.place(row(0))
    house.run_day()
    case_id = house.case().id
    fact = novated(
        house,
        case_id,
        (1, "REN-K-0-1/1", 60_00, DATE + 30 * DAY),
        (2, "REN-K-0-1/2", 50_00, DATE + 60 * DAY),
    )
    for _ in range(2):
        house.deliver(fact, partition=house.partition(case_id))
        case = house.case()
        assert (case.open_principal_minor, case.open_titles, case.placed_principal_minor) == (
            210_00,
            3,
            210_00,
        )
        fact.fact_id = uuid4().bytes
    house.titles_changed(("T-0", 0), version=1, state="NOVATED")
    case = house.case()
    assert (case.state, case.open_principal_minor, case.open_titles) == ("IN_COLLECTION", 110_00, 2)
    assert case.oldest_due_date == DATE + 30 * DAY
    house.titles_changed(("REN-K-0-1/1", 0), version=2, state="PAID")
    house.titles_changed(("REN-K-0-1/2", 0), version=2, state="PAID")
    assert house.case().state == "RESOLVED_PAID"


def test_titles_of_a_novation_are_not_placed_again_by_republish(house: House) -> None:
    house.place(row(0))
    house.run_day()
    case_id = house.case().id
    house.deliver(
        novated(house, case_id, (1, "REN-K-0-1/1", 60_00, DATE + 30 * DAY)),
        partition=house.partition(case_id),
    )
    with db.begin(house.engine, agency=house.agency) as tx:
        placed, _ = portfolio.titles_of(tx, house.agency, after=None, cases=10)
    assert [list(one.title_references) for one in placed] == [["T-0"]]
