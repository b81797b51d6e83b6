"""State machine "Call", dispositions and promises, what comes next for the case."""

import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialer_service import domain
from servicekit import errors, money

State = domain.CallState
Outcome = domain.Outcome
NOW = datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC)
DATE = datetime.date(2026, 3, 2)
CALL = domain.Call(
    id=uuid.UUID(int=5),
    campaign_id=uuid.UUID(int=1),
    case_id=uuid.UUID(int=2),
    date=DATE,
    attempt=1,
    natural_key=2**64 - 1,
    state=State.QUEUED,
    agent_id="agent-00",
    person_id=uuid.UUID(int=3),
)
BRL = money.Money(50_00, "BRL")


def dialled() -> domain.Call:
    return CALL.dial(seed=7, person_id=None, contact_point_id=uuid.UUID(int=4), currency="BRL", now=NOW)


def connected() -> domain.Call:
    return dialled().end(Outcome.ANSWER, agent_there=True, now=NOW)


def dispose(
    call: domain.Call,
    disposition: domain.Disposition = domain.Disposition.REFUSAL,
    *,
    date: datetime.date | None = None,
    amount: money.Money | None = None,
    days: int = 30,
) -> domain.Call:
    return call.dispose(
        disposition,
        promise_date=date,
        promise_amount=amount,
        business_date=DATE,
        max_promise_days=days,
        now=NOW,
    )


def test_a_granted_call_keeps_its_key_and_never_the_number() -> None:
    call = dialled()
    assert (call.state, call.version, call.start_time) == (State.DIALING, 2, NOW)
    assert call.outside_key == f"{call.id.hex}.7.ffffffffffffffff.20260302.1"
    assert call.person_id == CALL.person_id
    assert not any("number" in name for name in domain.Call.__dataclass_fields__)
    granted = domain.Granted(
        key=call.id, contact_point_id=None, person_id=None, currency="BRL", number="+5511999990000"
    )
    assert "99999" not in repr(granted)


def test_a_call_the_exchange_never_heard_of_is_dialled_again_with_the_same_key() -> None:
    call = dialled()
    again = call.requeue()
    assert (again.state, again.start_time) == (State.QUEUED, None)
    assert (
        again.dial(seed=7, person_id=None, contact_point_id=None, currency="BRL", now=NOW).outside_key
        == call.outside_key
    )


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.ANSWER, State.CONNECTED),
        (Outcome.NO_ANSWER, State.NO_ANSWER),
        (Outcome.BUSY, State.BUSY),
        (Outcome.INVALID, State.INVALID_NUMBER),
        (Outcome.MACHINE, State.MACHINE),
        (Outcome.FAILED, State.FAILED),
        (Outcome.UNKNOWN, State.UNKNOWN),
    ],
)
def test_outcomes(outcome: domain.Outcome, state: domain.CallState) -> None:
    call = dialled().end(outcome, agent_there=True, now=NOW)
    assert call.state is state
    assert (call.end_time is None) == (state is State.CONNECTED)


def test_an_answer_without_an_agent_is_abandoned() -> None:
    call = dialled().end(Outcome.ANSWER, agent_there=False, now=NOW)
    assert (call.state, call.rule) == (State.ABANDONED, "R25")


def test_a_refused_call_is_blocked_by_its_rule() -> None:
    call = CALL.block("R05", now=NOW)
    assert (call.state, call.rule, call.outside_key) == (State.BLOCKED, "R05", "")


@pytest.mark.feature("S1-09", "S4-14")
@pytest.mark.parametrize(
    "disposition", [d for d in domain.Disposition if d is not domain.Disposition.PROMISE_TO_PAY]
)
def test_dispositions_without_a_promise(disposition: domain.Disposition) -> None:
    call = dispose(connected(), disposition)
    assert (call.state, call.disposition, call.end_time) == (State.DISPOSITIONED, disposition, NOW)
    assert call.version == connected().version + 2
    for fields in ({"date": DATE}, {"amount": BRL}, {"date": DATE, "amount": BRL}):
        with pytest.raises(errors.InvalidRequest):
            dispose(connected(), disposition, **fields)  # type: ignore[arg-type]


@pytest.mark.feature("S1-09")
@pytest.mark.parametrize("days", [0, 1, 30])
def test_a_promise_within_its_days(days: int) -> None:
    until = DATE + datetime.timedelta(days=days)
    call = dispose(connected(), domain.Disposition.PROMISE_TO_PAY, date=until, amount=BRL)
    assert (call.promise_date, call.promise_amount_minor, call.currency) == (until, 50_00, "BRL")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"date": DATE - datetime.timedelta(days=1), "amount": BRL}, ["promise_date"]),
        ({"date": DATE + datetime.timedelta(days=31), "amount": BRL}, ["promise_date"]),
        ({"amount": BRL}, ["promise_date"]),
        ({"date": DATE}, ["promise_amount"]),
        ({"date": DATE, "amount": money.Money(0, "BRL")}, ["promise_amount"]),
        ({"date": DATE, "amount": money.Money(-1, "BRL")}, ["promise_amount"]),
        ({"date": DATE, "amount": money.Money(1, "EUR")}, ["promise_amount.currency_code"]),
        ({}, ["promise_date", "promise_amount"]),
    ],
)
def test_a_wrong_promise_says_what_is_wrong(fields: dict[str, object], wrong: list[str]) -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        dispose(connected(), domain.Disposition.PROMISE_TO_PAY, **fields)  # type: ignore[arg-type]
    assert [violation.field for violation in refused.value.fields] == wrong


def test_only_a_call_that_reached_somebody_has_a_disposition_and_only_one() -> None:
    with pytest.raises(domain.CallNotConnected):
        dispose(dialled())
    with pytest.raises(domain.CallNotConnected):
        dispose(dialled().end(Outcome.BUSY, agent_there=True, now=NOW))
    with pytest.raises(domain.CallAlreadyDispositioned):
        dispose(dispose(connected()))


def test_an_overdue_call_waits_in_wrap_up_and_can_still_be_dispositioned() -> None:
    overdue = connected().overdue()
    assert overdue.state is State.WRAP_UP
    assert dispose(overdue).state is State.DISPOSITIONED


def test_only_the_wrong_person_is_not_a_right_party() -> None:
    assert [d for d in domain.Disposition if not d.right_party] == [domain.Disposition.WRONG_PERSON]


@given(path=st.lists(st.sampled_from(State), max_size=10))
def test_only_the_moves_of_the_state_machine_are_made(path: list[domain.CallState]) -> None:
    wanted = {
        (State.QUEUED, State.DIALING),
        (State.QUEUED, State.BLOCKED),
        (State.DIALING, State.QUEUED),
        (State.CONNECTED, State.WRAP_UP),
        (State.WRAP_UP, State.DISPOSITIONED),
        *(
            (State.DIALING, end)
            for end in (
                State.CONNECTED,
                State.BUSY,
                State.NO_ANSWER,
                State.INVALID_NUMBER,
                State.MACHINE,
                State.FAILED,
                State.ABANDONED,
                State.UNKNOWN,
            )
        ),
    }
    call = CALL
    for target in path:
        if (call.state, target) in wanted:
            moved = call.move(target)
            assert (moved.state, moved.version) == (target, call.version + 1)
            call = moved
        else:
            with pytest.raises(domain.CallStateInvalid):
                call.move(target)


def test_every_state_has_its_moves_and_ends_are_ends() -> None:
    assert set(domain.CALL_MOVES) == set(State)
    ends = {state for state, moves in domain.CALL_MOVES.items() if not moves}
    assert ends == domain.CALL_ENDINGS | {State.BLOCKED, State.DISPOSITIONED}
    assert ends.isdisjoint(domain.CALL_LIVE)


RETRIED = [State.BUSY, State.NO_ANSWER, State.INVALID_NUMBER, State.MACHINE, State.FAILED]


@given(state=st.sampled_from(RETRIED), attempts=st.integers(1, 10), most=st.integers(1, 10))
def test_a_case_is_tried_until_its_tries_are_used_up(
    state: domain.CallState, attempts: int, most: int
) -> None:
    after = domain.entry_after(state, attempts=attempts, max_attempts=most, case_state="IN_COLLECTION")
    assert after == ((domain.EntryState.OPEN if attempts < most else domain.EntryState.EXHAUSTED), "")


@pytest.mark.parametrize(
    "case_state",
    [
        "IN_AGREEMENT",
        "ON_HOLD",
        "RESOLVED_PAID",
        "RESOLVED_SETTLED",
        "RESOLVED_OTHER",
        "RETURNED",
        "TIME_BARRED",
    ],
)
def test_a_case_that_may_not_be_called_leaves_the_list(case_state: str) -> None:
    """R26, R27."""
    after = domain.entry_after(State.BUSY, attempts=1, max_attempts=3, case_state=case_state)
    assert after == (domain.EntryState.CLOSED, f"CASE_{case_state}")


@pytest.mark.parametrize("case_state", ["", "READY", "IN_COLLECTION", "LEGAL"])
def test_other_states_may_be_called(case_state: str) -> None:
    assert domain.case_rule(case_state) == ""


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (State.CONNECTED, (domain.EntryState.DONE, "")),
        (State.ABANDONED, (domain.EntryState.CLOSED, "R25")),
        (State.UNKNOWN, (domain.EntryState.CLOSED, "UNKNOWN")),
    ],
)
def test_reached_abandoned_and_unknown_calls_are_not_repeated(
    state: domain.CallState, after: tuple[domain.EntryState, str]
) -> None:
    assert domain.entry_after(state, attempts=1, max_attempts=3, case_state="") == after
