"""The state machine of a message, its decisions and its waits."""

import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_service.domain import balances, messages
from servicekit import money

NOW = datetime.datetime(2026, 3, 2, 13, 0, tzinfo=datetime.UTC)
DATE = datetime.date(2026, 3, 2)
State = messages.State
Verdict = messages.Verdict


def a_message(**fields: object) -> messages.Message:
    given_fields: dict[str, object] = {
        "id": uuid.UUID(int=1),
        "case_id": uuid.UUID(int=2),
        "person_id": None,
        "channel": messages.Channel.EMAIL,
        "purpose": messages.Purpose.COLLECTION,
        "template": "reminder-1",
        "date": DATE,
        "state": State.REQUESTED,
        "attempts": 0,
        "agreement_id": None,
        "instalment_number": None,
        "instalment_due_date": None,
        **fields,
    }
    return messages.Message(**given_fields)  # type: ignore[arg-type]


def a_grant(**fields: object) -> messages.Grant:
    given_fields: dict[str, object] = {
        "contact_point_id": uuid.UUID(int=3),
        "address": "a@example.org",
        "person_id": uuid.UUID(int=4),
        "person_name": "Fulano",
        "language": "pt-BR",
        "creditor_name": "Credor",
        "creditor_address": "Rua 1",
        "creditor_document": "16727230000197",
        "contract_reference": "C-1",
        "product": "",
        "guarantor": False,
        "valid_until": NOW + datetime.timedelta(seconds=60),
        **fields,
    }
    return messages.Grant(**given_fields)  # type: ignore[arg-type]


def a_balance(minor: int = 100_00, *subjects: balances.Subject) -> balances.CaseBalance:
    return balances.CaseBalance(
        case_id=uuid.UUID(int=2), date=DATE, total=money.Money(minor, "BRL"), subjects=subjects
    )


def decide(**fields: object) -> messages.Decision:
    given_fields: dict[str, object] = {
        "message": a_message(),
        "answer": a_grant(),
        "balance": a_balance(),
        "suppressed": (),
        "now": NOW,
        **fields,
    }
    return messages.decide(**given_fields)  # type: ignore[arg-type]


def test_permitted_owed_and_identified_is_an_act() -> None:
    assert isinstance(decide(), messages.Act)


def test_the_rule_that_refuses_is_named() -> None:
    assert decide(answer=messages.Refusal(rule="R05", retry_at=None)) == messages.Suppress(rule="R05")
    later = NOW + datetime.timedelta(hours=1)
    assert decide(answer=messages.Refusal(rule="R01", retry_at=later)) == messages.Defer(until=later)


@given(st.sets(st.sampled_from(messages.Reason), min_size=1))
def test_one_reason_is_named_the_strongest_first(reasons: set[messages.Reason]) -> None:
    strongest = min(reasons, key=list(messages.Reason).index)
    assert decide(suppressed=reasons) == messages.Suppress(rule=strongest.value)


@pytest.mark.parametrize(
    ("minor", "expected"),
    [(0, "NOTHING_OWED"), (-1, "NOTHING_OWED"), (1, None)],
)
def test_the_smallest_amount_owed_is_owed(minor: int, expected: str | None) -> None:
    decision = decide(balance=a_balance(minor))
    assert decision == messages.Suppress(rule=expected) if expected else isinstance(decision, messages.Act)


def test_no_answer_about_the_amount_is_no_message() -> None:
    assert decide(balance=None) == messages.Defer(until=NOW + messages.UNKNOWN_BALANCE_WAIT)


@pytest.mark.parametrize("field", ["creditor_name", "creditor_address", "creditor_document"])
def test_r07_holds_at_the_act_too(field: str) -> None:
    assert decide(answer=a_grant(**{field: " "})) == messages.Suppress(rule="R07")


@pytest.mark.parametrize(("seconds", "kind"), [(-1, messages.Renew), (0, messages.Act), (1, messages.Act)])
def test_a_reservation_ends_at_its_instant(seconds: int, kind: type) -> None:
    grant = a_grant(valid_until=NOW + datetime.timedelta(seconds=seconds))
    assert isinstance(decide(answer=grant), kind)


def test_a_reminder_needs_its_own_instalment_open() -> None:
    agreement = uuid.UUID(int=9)
    due = DATE + datetime.timedelta(days=3)

    def subject(of: uuid.UUID, on: datetime.date, minor: int) -> balances.Subject:
        return balances.Subject(
            name=f"agencies/x/agreements/{of}",
            due_date=on,
            days_past_due=0,
            total=money.Money(minor, "BRL"),
            lines=(),
        )

    reminder = a_message(agreement_id=agreement, instalment_number=1, instalment_due_date=due)
    mine = subject(agreement, due, 50_00)
    found = decide(message=reminder, balance=a_balance(50_00, mine))
    assert isinstance(found, messages.Act)
    assert found.instalment == mine
    for other in (
        subject(agreement, due + datetime.timedelta(days=1), 50_00),
        subject(uuid.UUID(int=8), due, 50_00),
        subject(agreement, due, 0),
    ):
        assert decide(message=reminder, balance=a_balance(50_00, other)) == messages.Suppress(
            rule="NOTHING_OWED"
        )


@given(
    st.sampled_from(sorted(messages.DUE)),
    st.integers(0, 10),
    st.sampled_from(Verdict),
    st.integers(1, 10),
)
def test_every_outcome_of_an_act_is_a_transition(
    state: State, attempts: int, verdict: Verdict, attempts_max: int
) -> None:
    message = a_message(state=state, attempts=attempts, failure="SMTP_451")
    settled = messages.settle(
        message=message, verdict=verdict, code="SMTP_451", now=NOW, attempts_max=attempts_max
    )
    assert settled.state in messages.TRANSITIONS[State.ACTING]
    assert settled.state in messages.TRANSITIONS[State.UNKNOWN] | {State.UNKNOWN}
    counted = verdict is not Verdict.AWAY
    assert settled.attempts == attempts + counted
    assert (settled.due_at is not None) == (settled.state is State.FAILED_RETRYABLE and counted)
    if verdict is Verdict.TRANSIENT:
        final = settled.attempts >= attempts_max
        assert settled.state is (State.FAILED if final else State.FAILED_RETRYABLE)
    if verdict is Verdict.AWAY:
        assert (settled.state, settled.failure) == (state, "SMTP_451")


@given(st.integers(1, 50))
def test_waits_never_shrink(attempts: int) -> None:
    assert messages.backoff(attempts) <= messages.backoff(attempts + 1)
    assert messages.backoff(attempts) in messages.BACKOFF


def test_the_first_wait_and_the_last() -> None:
    assert messages.backoff(1) == datetime.timedelta(minutes=5)
    assert messages.backoff(4) == messages.backoff(40) == datetime.timedelta(hours=8)


@given(st.lists(st.sampled_from(State), min_size=1, max_size=8))
def test_from_any_path_final_states_stay(path: list[State]) -> None:
    """Walk along allowed transitions only; nothing leaves SUPPRESSED, FAILED, BOUNCED, EXPIRED, and nothing leads from
    UNKNOWN straight into another act.
    """
    current = State.REQUESTED
    for wanted in path:
        if wanted in messages.TRANSITIONS[current]:
            assert current not in {State.SUPPRESSED, State.FAILED, State.BOUNCED, State.EXPIRED}
            assert not (current is State.UNKNOWN and wanted is State.ACTING)
            assert not (current in {State.SENT, State.DELIVERED} and wanted in messages.DUE | {State.ACTING})
            current = wanted


@given(st.sampled_from(State), st.sampled_from([State.DELIVERED, State.BOUNCED, State.FAILED]))
def test_reports_follow_the_state_machine(current: State, outcome: State) -> None:
    if current is outcome:
        assert not messages.reported(current, outcome)
    elif current in {State.SENT, State.UNKNOWN} or (current is State.DELIVERED):
        assert messages.reported(current, outcome)
    else:
        with pytest.raises((messages.MessageNotSent, messages.ReportTooLate)):
            messages.reported(current, outcome)


def test_what_never_reached_a_server_does_not_count_as_contact() -> None:
    attempted = {state for state, counts in messages.ATTEMPTED.items() if counts}
    assert attempted == {
        State.ACTING,
        State.SENT,
        State.DELIVERED,
        State.BOUNCED,
        State.FAILED,
        State.UNKNOWN,
    }


@pytest.mark.parametrize(("days", "over"), [(0, False), (7, False), (8, True), (-1, False)])
def test_validity_ends_after_its_last_day(days: int, over: bool) -> None:
    business_date = DATE + datetime.timedelta(days=days)
    assert messages.expired(date=DATE, business_date=business_date, validity_days=7) is over
