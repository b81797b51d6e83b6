"""Taking a batch back: frozen first, refused when anything was done since, withdrawn or given back."""

from uuid import UUID, uuid4

import pytest

from case_service.domain import cases as machine
from case_service.domain import contact
from case_service.usecases import cases, rollback
from servicekit import db

from .conftest import House, item, row


def begin(house: House, batch: UUID) -> int:
    with db.begin(house.engine, agency=house.agency) as tx:
        return rollback.begin(tx, house.agency, batch_id=batch)


def end(house: House, batch: UUID, *, abort: bool = False) -> None:
    with db.begin(house.engine, agency=house.agency) as tx:
        rollback.end(tx, house.agency, batch_id=batch, abort=abort)


def test_withdrawn_and_returned(house: House) -> None:
    house.place(row(9))
    batch = house.place(row(0), row(1), row(2, contract_reference="K-9", debtor_document=f"{9:011d}"))
    house.take()
    assert begin(house, batch) == 3
    assert begin(house, batch) == 3
    end(house, batch)
    end(house, batch)
    facts = house.take()
    assert sum(len(fact.titles_withdrawn.title_ids) for fact in facts) == 3
    assert sum(len(fact.cases_changed.case_ids) for fact in facts) == 2
    assert [house.case(number).state for number in (0, 1, 9)] == ["RETURNED", "RETURNED", "READY"]
    grown = house.case(9)
    assert (grown.open_titles, grown.open_principal_minor, grown.frozen_by) == (1, 100_00, None)
    # the same file again is placed anew
    house.place(row(0))
    assert (house.case(0).state, house.case(0).open_titles) == ("READY", 1)


def test_given_back_as_they_were(house: House) -> None:
    batch = house.place(row(0))
    before = house.case(0)
    begin(house, batch)
    assert house.case(0).frozen_by == batch
    with pytest.raises(machine.CaseFrozen), db.begin(house.engine, agency=house.agency) as tx:
        cases.place_hold(
            tx,
            house.agency,
            case_id=before.id,
            type_="DISPUTE",
            channels=[],
            until=None,
            reason="",
            actor="users/tester",
        )
    end(house, batch, abort=True)
    assert house.case(0) == before


def test_new_titles_for_a_frozen_case_are_refused_by_row(house: House) -> None:
    batch = house.place(row(0))
    begin(house, batch)
    house.take()
    house.place(row(0, title_reference="T-9"), row(1))
    (applied,) = house.take("slice_applied")
    assert (applied.slice_applied.applied, applied.slice_applied.rejects[0].code) == (1, "CASE_FROZEN")


@pytest.mark.parametrize("work", ["step", "contact", "hold", "reservation", "agreement", "payment"])
def test_refused_when_anything_was_done_since(house: House, work: str) -> None:
    batch = house.place(row(0))
    case_id = house.case(0).id
    with db.begin(house.engine, agency=house.agency) as tx:
        if work == "contact":
            cases.record_contact(
                tx,
                house.agency,
                case_id=case_id,
                person_id=None,
                channel=contact.Channel.CALL,
                outcome=contact.Outcome.NO_ANSWER,
                promise=None,
                note="",
                actor="users/tester",
            )
        if work == "hold":
            cases.place_hold(
                tx,
                house.agency,
                case_id=case_id,
                type_="DISPUTE",
                channels=[contact.Channel.SMS],
                until=None,
                reason="",
                actor="users/tester",
            )
    if work == "step":
        house.run_day()
    if work == "reservation":
        house.reserve(item(case_id))
    if work == "agreement":
        house.agreement_changed(case_id, "ACTIVE", version=1, agreement=uuid4())
    if work == "payment":
        fact = house.agreement_fact()
        fact.payment_changed.case_id = case_id.bytes
        fact.payment_changed.payment_id = uuid4().bytes
        fact.payment_changed.state = 3
        house.deliver(fact, partition=house.partition(case_id))
    with pytest.raises(rollback.BatchHasDownstreamWork) as refusal:
        begin(house, batch)
    assert refusal.value.metadata["case"] == str(case_id)
    assert house.case(0).frozen_by is None


def test_the_last_step_comes_after_the_first(house: House) -> None:
    batch = house.place(row(0))
    with pytest.raises(rollback.BatchNotFrozen):
        end(house, batch)
    assert begin(house, uuid4()) == 0


def test_what_was_done_before_the_batch_does_not_count(house: House) -> None:
    house.place(row(0))
    case_id = house.case(0).id
    with db.begin(house.engine, agency=house.agency) as tx:
        cases.record_contact(
            tx,
            house.agency,
            case_id=case_id,
            person_id=None,
            channel=contact.Channel.CALL,
            outcome=contact.Outcome.NO_ANSWER,
            promise=None,
            note="",
            actor="users/tester",
        )
    batch = house.place(row(0, title_reference="T-9"))
    assert begin(house, batch) == 1
    end(house, batch)
    assert (house.case(0).state, house.case(0).open_titles) == ("READY", 1)
