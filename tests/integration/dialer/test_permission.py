"""Permission at the act: refused for good, refused for now, and what is told of it."""

import datetime
from uuid import UUID

from recupera.case.v1 import case_pb2
from recupera.dialer.v1 import dialer_pb2
from servicekit import testing

from .conftest import AGENCY, DATE, NOW, CaseService, Dialer, an_id, case

Call = dialer_pb2.Call


def ended(dialer: Dialer) -> list[testing.Published]:
    return testing.published(dialer.engine, kind="call_ended")


def test_refused_for_good_blocks_the_call_and_closes_the_case(
    dialer: Dialer, case_service: CaseService
) -> None:
    case_service.refusals[case(1)] = ("R26", None)
    campaign = dialer.run([1], agents=1, max_attempts=3)
    found = dialer.until_quiet(campaign)
    assert (found.cases_left, found.calls_made) == (0, 0)
    (call,) = dialer.calls()
    assert (call.state, call.rule, call.outside_key) == (Call.STATE_BLOCKED, "R26", "")
    (fact,) = ended(dialer)
    told = fact.fact.call_ended
    assert (told.state, told.attempted, told.rule) == (Call.STATE_BLOCKED, False, "R26")
    assert told.reservation_key == told.call_id == fact.fact.subject
    assert dialer.make(display_name="later").list_size == 0
    (agent,) = dialer.rows("SELECT state FROM agents")
    assert agent["state"] == "FREE"


def test_refused_for_now_leaves_nothing_and_waits_for_its_time(
    dialer: Dialer, case_service: CaseService
) -> None:
    later = NOW + datetime.timedelta(hours=2)
    case_service.refusals[case(1)] = ("R01", later)
    campaign = dialer.run([1], agents=1)
    found = dialer.until_quiet(campaign)
    assert (found.cases_left, found.calls_made) == (1, 0)
    assert dialer.calls() == []
    assert ended(dialer) == []
    (entry,) = dialer.rows("SELECT state, rule, attempts, not_before FROM campaign_entries")
    assert dict(entry) == {"state": "OPEN", "rule": "R01", "attempts": 0, "not_before": later}
    asked = len(case_service.asked)
    dialer.set_clock(later - datetime.timedelta(seconds=1), version=2)
    dialer.tick()
    assert len(case_service.asked) == asked
    case_service.refusals.clear()
    dialer.set_clock(later, version=3)
    assert dialer.until_quiet(campaign).calls_made == 1
    (call,) = dialer.calls()
    assert call.attempt == 1


def test_a_mixed_answer_settles_each_by_itself(dialer: Dialer, case_service: CaseService) -> None:
    case_service.refusals[case(1)] = ("R05", None)
    case_service.refusals[case(2)] = ("R01", NOW + datetime.timedelta(hours=1))
    campaign = dialer.run([1, 2, 3, 4], agents=4)
    assert dialer.until_quiet(campaign).cases_left == 1
    assert {call.case_id: call.rule for call in dialer.calls(state=Call.STATE_BLOCKED)} == {
        str(case(1)): "R05"
    }
    assert dialer.campaign(campaign).calls_made == 2


def test_a_case_that_changes_while_it_is_called_is_not_tried_again(
    dialer: Dialer, case_service: CaseService
) -> None:
    numbers = range(20)
    campaign = dialer.run(numbers, agents=20, max_attempts=3)

    def agree() -> None:
        case_service.before_answer = lambda: None
        dialer.deliver(dialer.cases_changed(numbers, case_pb2.Case.STATE_IN_AGREEMENT))

    case_service.before_answer = agree
    found = dialer.until_quiet(campaign)
    assert (found.calls_made, found.cases_left) == (20, 0)
    rows = dialer.rows("SELECT state, rule FROM campaign_entries WHERE state <> 'DONE'")
    assert {(row["state"], row["rule"]) for row in rows} == {("CLOSED", "CASE_IN_AGREEMENT")}


def test_what_is_told_of_each_call(dialer: Dialer) -> None:
    numbers = range(30)
    campaign = dialer.run(numbers, agents=3)
    dialer.until_quiet(campaign)
    calls = {call.name.rpartition("/")[2]: call for call in dialer.calls()}
    told: dict[str, list[testing.Published]] = {}
    for fact in ended(dialer):
        assert fact.key is not None
        told.setdefault(str(UUID(bytes=fact.fact.call_ended.call_id)), []).append(fact)
    assert set(told) == set(calls)
    for name, facts in told.items():
        call = calls[name]
        versions = [fact.fact.version for fact in facts]
        assert versions == sorted(set(versions))
        for fact in facts:
            body = fact.fact.call_ended
            assert str(fact.key) == call.case_id
            assert body.attempted
            assert body.contact_point_id == an_id("contact point", case_of(call, numbers)).bytes
            assert fact.fact.agency == AGENCY.bytes
        states = [fact.fact.call_ended.state for fact in facts]
        if call.state == Call.STATE_DISPOSITIONED:
            assert states == [Call.STATE_CONNECTED, Call.STATE_DISPOSITIONED]
            first, last = (fact.fact.call_ended for fact in facts)
            assert (first.right_party, first.disposition) == (False, Call.DISPOSITION_UNSPECIFIED)
            assert last.disposition == call.disposition
            assert last.right_party == (call.disposition != Call.DISPOSITION_WRONG_PERSON)
            promised = call.disposition == Call.DISPOSITION_PROMISE_TO_PAY
            assert last.HasField("promise_date") == promised == (last.promise_amount_minor > 0)
            assert last.currency == ("BRL" if promised else "")
        else:
            assert states == [call.state]
    assert {call.disposition for call in calls.values()} > {Call.DISPOSITION_UNSPECIFIED}
    assert {call.date.day for call in calls.values()} == {DATE.day}


def case_of(call: dialer_pb2.Call, numbers: range) -> object:
    return next(case(number) for number in numbers if str(case(number)) == call.case_id)


def test_the_number_is_nowhere(dialer: Dialer) -> None:
    """Only the contact point's id is kept: no column of any table, no fact, has the number."""
    campaign = dialer.run(range(20), agents=2)
    dialer.until_quiet(campaign)
    tables = [
        row["table_name"]
        for row in dialer.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        )
    ]
    assert "calls" in tables
    for table in tables:
        (row,) = dialer.rows(f"SELECT count(*) AS n FROM {table} AS t WHERE t::text LIKE '%99999%'")
        assert row["n"] == 0, table
    for published in testing.published(dialer.engine):
        assert b"99999" not in published.fact.SerializeToString()
