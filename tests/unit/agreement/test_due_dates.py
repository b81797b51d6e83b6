"""Due dates that move (S2-32)."""

import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import accounts, due_dates

DUE = datetime.date(2026, 10, 6)

pytestmark = pytest.mark.feature("S2-32")


def title(**fields):
    return accounts.Title(
        **{
            "title_id": uuid.UUID(int=1),
            "case_id": uuid.UUID(int=2),
            "reference": "T-1",
            "due_date": DUE,
            "payable_until": DUE,
            "principal_minor": 100_000,
            "penalty_rate_e4": 20_000,
            "monthly_rate_e4": 10_000,
            "accrued_through": DUE,
            "open_principal_minor": 100_000,
            **fields,
        }
    )


def move(one, days):
    due_date = DUE + datetime.timedelta(days=days)
    return due_dates.move(one, due_date=due_date, payable_until=due_date)


def owed(one, days):
    return sum(one.owed(DUE + datetime.timedelta(days=days)).values())


def test_charges_count_from_the_new_due_date():
    one = title()
    assert owed(one, 45) == 103_500  # W-15
    change = move(one, 30)
    assert (change.days, change.old_due_date, one.version) == (30, DUE, 2)
    assert [owed(one, days) for days in (30, 45, 75)] == [100_000, 102_500, 103_500]
    move(one, -15)
    assert owed(one, 30) == 103_500


@pytest.mark.parametrize(
    "fields",
    [
        {"open_principal_minor": 0, "received_minor": 100_000, "state": accounts.TitleState.PAID},
        {"agreement_id": uuid.UUID(int=9), "state": accounts.TitleState.IN_AGREEMENT},
    ],
)
def test_a_title_that_is_not_open_does_not_move(fields):
    with pytest.raises(due_dates.TitleNotOpen):
        move(title(**fields), 1)


def test_to_where_it_is_it_does_not_move():
    with pytest.raises(due_dates.DueDateUnchanged):
        move(title(), 0)


@given(
    st.integers(0, 400),
    st.integers(0, 99_999),
    st.integers(-400, 400).filter(bool),
    st.integers(-400, 800),
)
def test_no_day_is_charged_twice_and_nothing_posted_changes(charged_on, paid, days, asked_on):
    """Charges posted through some day and part of it paid; then the due date moves: until that day nothing accrues, and
    from the new due date on no more than a title of that principal would have borne."""
    one = title()
    one.charge(DUE + datetime.timedelta(days=charged_on))
    one.receive(paid)
    posted = (one.open_minor, one.charged_penalty_minor, one.charged_interest_minor, one.received_minor)
    move(one, days)
    assert posted == (
        one.open_minor,
        one.charged_penalty_minor,
        one.charged_interest_minor,
        one.received_minor,
    )
    fresh = title(open_principal_minor=one.open_principal_minor)
    move(fresh, days)
    date = DUE + datetime.timedelta(days=asked_on)
    accrual = one.accrual(date)
    if asked_on <= (max(charged_on, days) if one.charged_interest_minor else days):
        assert accrual.interest_minor == 0
    assert accrual.interest_minor <= fresh.accrual(date).interest_minor
    if one.charged_penalty_minor:
        assert accrual.penalty_minor == 0
