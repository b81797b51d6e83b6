"""ReserveContacts on a real database: caps under concurrency, keys, outcomes that close reservations."""

import concurrent.futures
import datetime
import threading
from uuid import UUID, uuid4

import pytest

from case_service.domain.contact import Channel
from case_service.usecases import cases, permission, rollback
from recupera.dialer.v1 import dialer_facts_pb2, dialer_pb2
from recupera.notify.v1 import notify_facts_pb2, notify_pb2
from servicekit import dates, db

from .conftest import DATE, NOW, House, item, row

DAY = datetime.timedelta(days=1)


@pytest.fixture
def case_id(house: House) -> UUID:
    house.place(row(0), row(1, debtor_document=f"{0:011d}"))
    house.run_day()
    found: UUID = house.case(0).id
    return found


def refusals(answers: list[permission.Answer]) -> list[str]:
    return [answer.rule for answer in answers]


def local(text: str) -> datetime.datetime:
    """A Brazilian (São Paulo) instant."""
    return datetime.datetime.fromisoformat(f"{text}-03:00")


@pytest.mark.parametrize(
    ("moment", "rule", "retry"),
    [
        ("2026-03-03T07:59:59", "R01", "2026-03-03T08:00:00"),
        ("2026-03-03T08:00:00", "", None),
        ("2026-03-03T19:59:59", "", None),
        ("2026-03-03T20:00:00", "R01", "2026-03-04T08:00:00"),
        ("2026-03-07T13:59:59", "", None),
        ("2026-03-07T14:00:00", "R01", "2026-03-09T08:00:00"),
        ("2026-04-21T10:00:00", "R01", "2026-04-22T08:00:00"),
    ],
)
@pytest.mark.parametrize("channel", [Channel.CALL, Channel.EMAIL])
def test_windows_at_their_edges(
    house: House, case_id: UUID, moment: str, rule: str, retry: str | None, channel: Channel
) -> None:
    house.set_clock(local(moment))
    (answer,) = house.reserve(item(case_id, channel=channel))
    assert answer.rule == rule
    assert answer.retry_time == (local(retry) if retry else None)


def test_a_portuguese_agency(house: House) -> None:
    lisbon = house.of(uuid4())
    lisbon.set_clock(datetime.datetime(2026, 3, 1, 8, 59, 59, tzinfo=datetime.UTC), "Europe/Lisbon", "EUR")
    lisbon.place(
        row(0, country="PT", region="", postal_code="1000-001", phone_1="+351912345678", currency="EUR")
    )
    asked = item(lisbon.case(0).id)
    (early,) = lisbon.reserve(asked)
    assert (early.rule, early.retry_time) == ("R16", datetime.datetime(2026, 3, 1, 9, tzinfo=datetime.UTC))
    lisbon.set_clock(datetime.datetime(2026, 3, 1, 9, tzinfo=datetime.UTC))
    (granted,) = lisbon.reserve(asked)
    assert (granted.rule, granted.address) == ("", "+351912345678")


def test_the_same_key_gets_the_same_answer(house: House, case_id: UUID) -> None:
    asked = item(case_id)
    (first,) = house.reserve(asked)
    (again,) = house.reserve(asked)
    assert (again.contact_point_id, again.address, again.valid_until) == (
        first.contact_point_id,
        first.address,
        first.valid_until,
    )
    assert first.valid_until == NOW + datetime.timedelta(seconds=60)
    one, other = house.reserve(asked, asked)
    assert one == other
    assert len(house.rows("SELECT 1 FROM reservations")) == 1


def test_a_grant_that_ran_out_is_decided_anew_without_counting_itself(house: House, case_id: UUID) -> None:
    asked = item(case_id)
    house.reserve(item(case_id), item(case_id), asked)
    house.set_clock(NOW + datetime.timedelta(minutes=5))
    (again,) = house.reserve(asked)
    assert again.rule == ""
    assert again.valid_until == NOW + datetime.timedelta(minutes=6)
    house.set_clock(local("2026-03-02T21:00"))
    (late,) = house.reserve(asked)
    assert late.rule == "R01"
    assert refusals(house.reserve(asked)) == ["R01"]


def test_items_are_answered_one_after_the_other(house: House, case_id: UUID) -> None:
    """Two cases of one person share the caps of the person; a foreign case is answered alone."""
    other = house.case(1).id
    answers = house.reserve(item(case_id), item(other), item(uuid4()), item(case_id), item(other))
    assert refusals(answers) == ["", "", "CASE_UNKNOWN", "", "R05"]
    (stranger,) = house.reserve(item(case_id, person_id=uuid4()))
    assert stranger.rule == "PERSON_UNKNOWN"


def test_two_callers_never_both_get_the_last_contact(house: House, case_id: UUID) -> None:
    other = house.case(1).id
    house.reserve(item(case_id), item(other))
    ready = threading.Barrier(4)

    def ask(number: int) -> str:
        ready.wait(timeout=10)
        return house.reserve(*(item(found) for found in ((case_id, other) if number % 2 else (other,))))[
            0
        ].rule

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(ask, range(4)))
    assert answers == ["", "R05", "R05", "R05"]
    assert house.one("SELECT count(*) AS n FROM reservations WHERE counts").n == 3


def test_seven_attempts_on_a_case_in_seven_days(house: House, case_id: UUID) -> None:
    for day in range(4):
        house.set_clock(NOW + day * DAY)
        assert refusals(house.reserve(item(case_id), item(case_id))) == ["", "" if day < 3 else "R05"]
    # a week after the first day its two attempts are over
    house.set_clock(NOW + 7 * DAY)
    assert refusals(house.reserve(item(case_id), item(case_id), item(case_id))) == ["", "", "R05"]


def messages(house: House, case_id: UUID, key: UUID, state: str, *, attempted: bool) -> None:
    fact = notify_facts_pb2.NotifyFact(
        agency=house.agency.bytes, occurred_at=dates.to_timestamp(NOW), business_date=dates.to_proto(DATE)
    )
    changed = fact.messages_changed
    changed.channel = 2
    changed.case_ids.append(case_id.bytes)
    changed.message_ids.append(key.bytes)
    changed.person_ids.append(house.case(0).debtor_id.bytes)
    changed.states.append(notify_pb2.Message.State.Value(f"STATE_{state}"))
    changed.reservation_keys.append(key.bytes)
    changed.attempted.append(attempted)
    changed.rules.append("")
    changed.template_index.append(0)
    changed.table_templates.append("reminder-1")
    house.deliver(fact, partition=house.partition(case_id))


@pytest.mark.feature("S1-10")
def test_what_was_not_attempted_does_not_count(house: House, case_id: UUID) -> None:
    asked = [item(case_id, channel=Channel.EMAIL) for _ in range(3)]
    assert refusals(house.reserve(*asked)) == ["", "", ""]
    assert refusals(house.reserve(item(case_id, channel=Channel.EMAIL))) == ["R05"]
    messages(house, case_id, asked[0].key, "SENT", attempted=True)
    assert refusals(house.reserve(item(case_id, channel=Channel.EMAIL))) == ["R05"]
    messages(house, case_id, asked[1].key, "SUPPRESSED", attempted=False)
    assert refusals(house.reserve(item(case_id, channel=Channel.EMAIL))) == [""]
    assert house.case(0).sub_state == "NO_CONTACT"
    found = house.timeline(case_id)
    assert ("MESSAGE", "SENT") in found
    assert ("MESSAGE", "SUPPRESSED") in found
    (record,) = house.rows("SELECT outcome, channel, manual FROM contacts")
    assert tuple(record) == ("MESSAGE_SENT", "EMAIL", False)
    messages(house, case_id, asked[0].key, "SENT", attempted=True)
    assert house.timeline(case_id).count(("MESSAGE", "SENT")) == 1


def call(house: House, case_id: UUID, key: UUID, state: str, version: int = 1, **given: object) -> None:
    fact = dialer_facts_pb2.DialerFact(
        agency=house.agency.bytes,
        version=version,
        occurred_at=dates.to_timestamp(NOW),
        business_date=dates.to_proto(DATE),
    )
    ended = fact.call_ended
    ended.case_id, ended.call_id, ended.reservation_key = case_id.bytes, key.bytes, key.bytes
    ended.person_id = house.case(0).debtor_id.bytes
    ended.state = dialer_pb2.Call.State.Value(f"STATE_{state}")
    ended.attempted = state != "BLOCKED"
    if "point" in given:
        ended.contact_point_id = given["point"].bytes  # type: ignore[attr-defined]
    if "disposition" in given:
        ended.disposition = dialer_pb2.Call.Disposition.Value(f"DISPOSITION_{given['disposition']}")
        ended.right_party = given["disposition"] != "WRONG_PERSON"
    if "promise" in given:
        ended.promise_date.CopyFrom(dates.to_proto(given["promise"]))  # type: ignore[arg-type]
        ended.promise_amount_minor, ended.currency = 50_00, "BRL"
    house.deliver(fact, partition=house.partition(case_id))


@pytest.mark.feature("S1-09", "S1-21")
def test_a_call_with_a_promise(house: House, case_id: UUID) -> None:
    house.take()
    asked = item(case_id)
    house.reserve(asked)
    call(house, case_id, asked.key, "CONNECTED")
    assert house.rows("SELECT 1 FROM contacts") == []
    call(house, case_id, asked.key, "DISPOSITIONED", 2, disposition="PROMISE_TO_PAY", promise=DATE + DAY)
    case = house.case(0)
    assert (case.state, case.sub_state, case.promise_until) == ("IN_COLLECTION", "PTP", DATE + DAY)
    assert ("CALL_ENDED", "PROMISE_TO_PAY") in house.timeline(case_id)
    (agenda,) = house.rows("SELECT state FROM agenda WHERE case_id = :case_id", case_id=case_id)
    assert agenda.state == "DONE"
    (recorded,) = house.take("contact_recorded")
    assert recorded.contact_recorded.promise_amount_minor == 50_00
    # one conversation by telephone a day, on any case of the person; the promise suppresses this one
    assert refusals(house.reserve(item(house.case(1).id), item(case_id))) == ["R05", "R27"]
    # an older version is no news
    call(house, case_id, asked.key, "CONNECTED", 1)
    assert house.case(0).sub_state == "PTP"
    assert house.one("SELECT right_party_call FROM reservations WHERE counts").right_party_call


def test_a_newer_promise_replaces_the_older(house: House, case_id: UUID) -> None:
    for days in (1, 5):
        key = uuid4()
        call(house, case_id, key, "DISPOSITIONED", 2, disposition="PROMISE_TO_PAY", promise=DATE + days * DAY)
    found = house.rows("SELECT state, promise_date FROM promises ORDER BY promise_date")
    assert [tuple(promise) for promise in found] == [("REPLACED", DATE + DAY), ("OPEN", DATE + 5 * DAY)]
    assert house.case(0).promise_until == DATE + 5 * DAY


@pytest.mark.parametrize(
    ("state", "disposition"), [("INVALID_NUMBER", None), ("DISPOSITIONED", "WRONG_PERSON")]
)
def test_a_wrong_number_is_never_used_again_by_anybody(
    house: House, case_id: UUID, state: str, disposition: str | None
) -> None:
    house.place(row(5, phone_1=row(0)["phone_1"]))
    (granted,) = house.reserve(item(case_id))
    given = {"point": granted.contact_point_id} | ({"disposition": disposition} if disposition else {})
    call(house, case_id, granted.key, state, 2, **given)
    # the person has another number in the file; the other person has none
    (again, stranger) = house.reserve(item(case_id), item(house.case(5).id))
    assert again.address == row(1)["phone_1"]
    assert stranger.rule == "NO_CONTACT_POINT"


def test_a_disputed_debt_rests_until_somebody_looked(house: House, case_id: UUID) -> None:
    call(house, case_id, uuid4(), "DISPOSITIONED", 2, disposition="DISPUTE")
    assert house.case(0).state == "ON_HOLD"
    assert refusals(house.reserve(item(case_id, channel=Channel.EMAIL))) == ["R26"]
    (hold,) = house.rows("SELECT id, type FROM holds")
    assert hold.type == "DISPUTE"
    with db.begin(house.engine, agency=house.agency) as tx:
        cases.release_hold(
            tx, house.agency, case_id=case_id, hold_id=hold.id, reason="", actor="users/tester"
        )
    assert house.case(0).sub_state == "CONTACTED"


def test_an_abandoned_call_locks_out_calls(house: House, case_id: UUID) -> None:
    asked = item(case_id)
    house.reserve(asked)
    call(house, case_id, asked.key, "ABANDONED")
    assert refusals(house.reserve(item(case_id), item(case_id, channel=Channel.EMAIL))) == ["R25", ""]


def test_a_blocked_call_leaves_a_line_only(house: House, case_id: UUID) -> None:
    call(house, case_id, uuid4(), "BLOCKED")
    assert ("CALL_REFUSED", "BLOCKED") in house.timeline(case_id)
    assert house.rows("SELECT 1 FROM contacts") == []
    assert house.case(0).sub_state == "NEW"


def test_suppressed_addresses(house: House, case_id: UUID) -> None:
    (granted,) = house.reserve(item(case_id, channel=Channel.EMAIL))
    fact = notify_facts_pb2.NotifyFact(
        agency=house.agency.bytes, occurred_at=dates.to_timestamp(NOW), business_date=dates.to_proto(DATE)
    )
    barred = fact.contact_point_suppressed
    assert granted.contact_point_id is not None
    barred.case_id, barred.contact_point_id = case_id.bytes, granted.contact_point_id.bytes
    barred.reason = 2  # OPT_OUT
    house.deliver(fact, partition=house.partition(case_id))
    (other,) = house.reserve(item(case_id, channel=Channel.EMAIL))
    assert other.address != granted.address
    assert house.one("SELECT value, reason FROM barred_contacts") == (granted.address, "OPT_OUT")


def test_manual_contacts_count(house: House, case_id: UUID) -> None:
    from case_service.domain import contact

    for _ in range(3):
        with db.begin(house.engine, agency=house.agency) as tx:
            cases.record_contact(
                tx,
                house.agency,
                case_id=case_id,
                person_id=None,
                channel=Channel.CALL,
                outcome=contact.Outcome.NO_ANSWER,
                promise=None,
                note="",
                actor="users/tester",
            )
    assert refusals(house.reserve(item(case_id))) == ["R05"]


def test_a_batch_being_taken_back_is_not_contacted(house: House) -> None:
    batch = house.place(row(7))
    with db.begin(house.engine, agency=house.agency) as tx:
        rollback.begin(tx, house.agency, batch_id=batch)
    assert refusals(house.reserve(item(house.case(7).id))) == ["CASE_CLOSED"]
