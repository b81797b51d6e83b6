"""The business day: opened for all, run slice by slice behind the agreement service, once, never skipped."""

import collections
import datetime
from uuid import uuid4

import pytest

from case_service import worker
from case_service.domain import contact
from case_service.store import days as stored
from case_service.usecases import agency as agency_usecases
from case_service.usecases import cases, days
from servicekit import clock, dates, db, delivery, errors, testing

from .conftest import DATE, NOW, House, row

DAY = datetime.timedelta(days=1)


def due(days_past_due: int) -> datetime.date:
    return DATE - days_past_due * DAY


def steps(facts: list[object]) -> dict[str, int]:
    """Steps due by level, from the facts."""
    found: collections.Counter[str] = collections.Counter()
    for fact in facts:
        chunk = fact.steps_due  # type: ignore[attr-defined]
        found.update(chunk.table_steps[index].level for index in chunk.step_index)
    return dict(found)


@pytest.mark.feature("S2-18", "S2-19", "S2-21")
def test_the_first_run_takes_cases_in_and_the_ladder_acts(house: House) -> None:
    ages = [0, 1, 4, 5, 14, 15, 29, 30, 59, 60, 120, 121, 5000]
    house.place(*(row(number, due_date=due(age)) for number, age in enumerate(ages)))
    house.take()
    house.run_day()
    facts = house.take()
    assert steps(facts) == {
        "reminder-1": 2,
        "call-1": 2,
        "reminder-2": 2,
        "call-2": 2,
        "notice-1": 2,
        "call-3": 2,
    }
    for fact in facts:
        if fact.HasField("steps_due"):
            chunk = fact.steps_due
            assert dates.from_proto(chunk.date, "date") == DATE
            assert list(chunk.open_principal_minor) == [100_00] * len(chunk.case_ids)
            assert all(chunk.person_ids)
            assert all(chunk.natural_keys)
    moved = [state for fact in facts for state in fact.cases_changed.states]
    assert len(moved) == len(ages)
    assert {case.state for case in house.rows("SELECT state FROM cases")} == {"IN_COLLECTION"}
    agenda = house.rows("SELECT level, days_past_due, reason, state FROM agenda ORDER BY days_past_due")
    assert [tuple(item) for item in agenda] == [
        (level, age, "LADDER", "PLANNED")
        for level, age in [
            ("call-1", 5),
            ("call-1", 14),
            ("call-2", 30),
            ("call-2", 59),
            ("call-3", 121),
            ("call-3", 5000),
        ]
    ]
    slices = house.rows("SELECT * FROM day_slices")
    assert len(slices) == 24
    assert {found.state for found in slices} == {"DONE"}
    assert sum(found.cases_seen for found in slices) == len(ages)


def test_twice_changes_nothing(house: House) -> None:
    house.place(*(row(number, due_date=due(number)) for number in range(40)))
    house.run_day()
    before = house.digest()
    house.run_day()
    house.day_done()
    assert house.digest() == before


def test_a_level_waits_since_the_last_step(house: House) -> None:
    house.place(row(0, due_date=due(5)))
    seen = []
    for day in range(12):
        date = DATE + day * DAY
        house.set_clock(NOW + day * DAY)
        house.run_day(date)
        seen.append(steps(house.take()))
    # call-1 every two days until day 14 past due, then reminder-2 after seven
    expected = [{"call-1": 1} if day % 2 == 0 and day < 10 else {} for day in range(12)]
    assert seen == expected


def test_suppressed_by_promise_hold_and_agreement(house: House) -> None:
    house.place(*(row(number) for number in range(5)))
    house.run_day(partitions=[])
    promised, held, held_channel, agreed, other = (house.case(number).id for number in range(5))
    with db.begin(house.engine, agency=house.agency) as tx:
        cases.record_contact(
            tx,
            house.agency,
            case_id=promised,
            person_id=None,
            channel=contact.Channel.CALL,
            outcome=contact.Outcome.PROMISE_TO_PAY,
            promise=contact.Promise(date=DATE + DAY, amount_minor=100, currency="BRL"),
            note="",
            actor="users/tester",
        )
        for case_id, channels in ((held, []), (held_channel, [contact.Channel.CALL])):
            cases.place_hold(
                tx,
                house.agency,
                case_id=case_id,
                type_="COMPLAINT",
                channels=channels,
                until=DATE + DAY,
                reason="",
                actor="users/tester",
            )
    house.agreement_changed(agreed, "ACTIVE", version=1, agreement=uuid4())
    house.take()
    house.day_done()
    asked = [case for fact in house.take() for case in fact.steps_due.case_ids]
    assert asked == [other.bytes]

    # both holds are over after their last day, the promise after its date and two days of grace
    for day, acting in ((1, {other.bytes}), (2, {held.bytes, held_channel.bytes}), (4, {promised.bytes})):
        date = DATE + day * DAY
        house.set_clock(NOW + day * DAY)
        house.run_day(date)
        found = {case for fact in house.take() for case in fact.steps_due.case_ids}
        assert acting <= found | ({other.bytes} if day == 1 else set()), day
        assert promised.bytes not in found or day == 4
    assert house.case(1).state == "IN_COLLECTION"
    assert ("HOLD", "EXPIRED") in house.timeline(held)
    assert {hold.state for hold in house.rows("SELECT state FROM holds")} == {"EXPIRED"}


def test_promises_are_due_then_broken_or_kept(house: House) -> None:
    house.place(row(0), row(1))
    house.run_day()
    for number in (0, 1):
        with db.begin(house.engine, agency=house.agency) as tx:
            cases.record_contact(
                tx,
                house.agency,
                case_id=house.case(number).id,
                person_id=None,
                channel=contact.Channel.CALL,
                outcome=contact.Outcome.PROMISE_TO_PAY,
                promise=contact.Promise(date=DATE + DAY, amount_minor=50_00, currency="BRL"),
                note="",
                actor="users/tester",
            )
    assert house.case(0).sub_state == "PTP"
    paid = house.agreement_fact(version=1, date=DATE + DAY)
    paid.payment_changed.case_id = house.case(1).id.bytes
    paid.payment_changed.payment_id = uuid4().bytes
    paid.payment_changed.state = 3  # STATE_ALLOCATED
    paid.payment_changed.allocated_minor = 50_00
    paid.payment_changed.currency = "BRL"
    paid.payment_changed.value_date.CopyFrom(dates.to_proto(DATE + DAY))
    house.deliver(paid, partition=house.partition(house.case(1).id))
    assert house.case(1).sub_state == "CONTACTED"
    assert house.case(1).promise_until is None

    for day in (1, 2, 3, 4):
        house.set_clock(NOW + day * DAY)
        house.run_day(DATE + day * DAY)
    reasons = house.rows(
        "SELECT date, case_id, reason FROM agenda WHERE reason LIKE 'PROMISE%' ORDER BY date"
    )
    assert [tuple(found) for found in reasons] == [
        (DATE + DAY, house.case(0).id, "PROMISE_DUE"),
        (DATE + 4 * DAY, house.case(0).id, "PROMISE_BROKEN"),
    ]
    states = house.rows("SELECT state FROM promises ORDER BY case_id = :zero DESC", zero=house.case(0).id)
    assert [found.state for found in states] == ["BROKEN", "KEPT"]
    assert house.case(0).sub_state == "CONTACTED"


def test_a_day_done_before_the_date_is_open_is_remembered(house: House) -> None:
    house.place(row(0))
    house.take()
    house.day_done(DATE)
    assert [fact for fact in house.take() if fact.HasField("steps_due")] == []
    house.open_day(DATE)
    with db.begin(house.engine, agency=house.agency) as tx:
        assert days.run_cleared(tx, house.agency, partition=None) == 24
    assert steps(house.take()) == {"call-1": 1}
    with db.begin(house.engine, agency=house.agency) as tx:
        assert days.run_cleared(tx, house.agency, partition=None) == 0


@pytest.mark.parametrize("broken", ["run_cleared", "late"])
def test_an_agency_that_fails_does_not_keep_the_others_from_their_turn(
    house: House, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    other = house.of(uuid4())
    other.set_clock()
    houses = sorted([house, other], key=lambda one: one.agency)
    for one in houses:
        one.day_done(DATE)
        one.open_day(DATE)
    original = getattr(days, broken)
    seen = []

    def wrong(tx: db.Transaction, agency: object, **options: object) -> object:
        if agency == houses[0].agency:
            raise RuntimeError("a mistake of ours")
        seen.append(agency)
        return original(tx, agency, **options)

    monkeypatch.setattr(days, broken, wrong)
    ticking = delivery.instance(worker.CaseWorker, engine=house.engine, wiring=house.wiring)
    with pytest.raises(RuntimeError):
        ticking.run_cleared_slices() if broken == "run_cleared" else ticking.watch_days()
    assert set(seen) == {houses[1].agency}
    if broken == "run_cleared":
        done = [len(one.rows("SELECT FROM day_slices WHERE state = 'DONE'")) for one in houses]
        assert done == [0, 24]


def test_a_later_days_done_never_skips_the_earlier_slice(house: House) -> None:
    house.place(row(0, due_date=due(4)))
    partition = house.partition(house.case(0).id)
    house.open_day(DATE)
    house.set_clock(NOW + DAY)
    house.open_day(DATE + DAY)
    house.take()
    house.day_done(DATE + DAY, [partition])
    facts = [fact for fact in house.take() if fact.HasField("steps_due")]
    assert [dates.from_proto(fact.steps_due.date, "date") for fact in facts] == [DATE]
    assert steps(facts) == {"reminder-1": 1}
    states = house.rows("SELECT date, state FROM day_slices WHERE partition = :p ORDER BY date", p=partition)
    assert [found.state for found in states] == ["DONE", "DONE"]
    house.day_done(DATE, [partition])
    assert house.take() == []


def test_dates_only_move_forward_and_not_too_far(house: House) -> None:
    house.run_day(DATE)
    with pytest.raises(days.BusinessDateTooFar):
        house.open_day(DATE + 365 * DAY)
    house.open_day(DATE + 3 * DAY)
    with pytest.raises(days.BusinessDateBackward):
        house.open_day(DATE + DAY)
    house.open_day(DATE)
    opened = [dates.from_proto(fact.day_opened.date, "date") for fact in house.take("day_opened")]
    assert sorted(opened) == [DATE] * 24 + [DATE + 3 * DAY] * 24


def test_an_agency_without_a_clock_has_no_days(house: House) -> None:
    other = house.of(uuid4())
    with pytest.raises(clock.AgencyClockUnknown):
        other.open_day(DATE)
    with pytest.raises(testing.FactsParked):
        other.day_done(DATE, [0])


def test_a_run_that_dies_leaves_nothing(house: House) -> None:
    house.place(*(row(number) for number in range(20)))
    house.open_day()
    house.take()
    before = house.digest()

    class Killed(Exception):
        pass

    def killed() -> None:
        with db.begin(house.engine, agency=house.agency) as tx:
            for partition in range(24):
                days.day_done(tx, house.agency, date=DATE, partition=partition)
            raise Killed

    with pytest.raises(Killed):
        killed()
    assert house.digest() == before
    house.day_done()
    assert sum(steps(house.take()).values()) == 20


def test_late_slices_are_found(house: House) -> None:
    house.open_day()
    with db.begin(house.engine, agency=house.agency) as tx:
        assert days.late(tx, house.agency, minutes=10) == {}
        assert days.late(tx, house.agency, minutes=0) == {DATE: 24}


def test_cases_of_a_batch_being_taken_back_are_left_alone(house: House) -> None:
    from case_service.usecases import rollback

    batch = house.place(row(0))
    with db.begin(house.engine, agency=house.agency) as tx:
        assert rollback.begin(tx, house.agency, batch_id=batch) == 1
    house.take()
    house.run_day()
    assert steps(house.take()) == {}
    assert house.case(0).state == "READY"


def test_the_ladder_is_the_agencys_own(house: House) -> None:
    from case_service.domain import ladder

    house.place(row(0))
    only = ladder.Level(
        code="sms",
        display_name="SMS",
        from_days=-5,
        to_days=500,
        minimum_wait_days=1,
        channel=contact.Channel.SMS,
        template="sms-1",
    )
    with db.begin(house.engine, agency=house.agency) as tx:
        agency_usecases.update_ladder(
            tx, house.agency, code="default", display_name="", levels=[only], version=1
        )
    with pytest.raises(errors.VersionMismatch), db.begin(house.engine, agency=house.agency) as tx:
        agency_usecases.update_ladder(
            tx, house.agency, code="default", display_name="", levels=[only], version=1
        )
    house.take()
    house.run_day()
    facts = house.take()
    assert steps(facts) == {"sms": 1}
    (chunk,) = [fact.steps_due for fact in facts if fact.HasField("steps_due")]
    assert chunk.table_steps[0].template == "sms-1"
    assert house.rows("SELECT 1 FROM agenda") == []
    assert stored.PARTITIONS == 24
