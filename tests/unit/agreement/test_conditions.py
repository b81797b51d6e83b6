"""Payment conditions, their options and what they stand for (S4-02..05; W-14)."""

import dataclasses
import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import accounts, conditions, plans, proposals
from servicekit import money

TODAY = datetime.date(2026, 11, 20)
CREDITOR = uuid.UUID(int=1)
CASH = conditions.Option(id=uuid.UUID(int=1), number=1, instalments=1, interval_days=0)
THREE = conditions.Option(id=uuid.UUID(int=2), number=2, instalments=3, interval_days=20)
ENTRY = dataclasses.replace(THREE, number=3, with_entry=True, minimum_entry_e4=200_000)

pytestmark = pytest.mark.feature("S4-02", "S4-03", "S4-04")


def condition(**fields):
    return conditions.Condition(
        **{
            "id": uuid.UUID(int=5),
            "creditor_id": None,
            "description": "three times",
            "active": True,
            "is_default": False,
            "currency": "BRL",
            "charge_means": "PIX",
            "options": (CASH, THREE, ENTRY),
            **fields,
        }
    )


def title(principal=100_000, days=45, **fields):
    due = TODAY - datetime.timedelta(days=days)
    return accounts.Title(
        **{
            "title_id": uuid.uuid4(),
            "case_id": uuid.UUID(int=3),
            "reference": "T-1",
            "due_date": due,
            "payable_until": due,
            "principal_minor": principal,
            "penalty_rate_e4": 20_000,
            "monthly_rate_e4": 10_000,
            "accrued_through": due,
            "open_principal_minor": principal,
            **fields,
        }
    )


def test_w14_one_instalment_has_no_interval_and_no_entry():
    wrong = {
        "interval_days": dataclasses.replace(CASH, interval_days=20),
        "with_entry": dataclasses.replace(CASH, with_entry=True, minimum_entry_e4=1),
    }
    for field, option in wrong.items():
        found = condition(options=(option,)).check()
        assert [one.field for one in found] == [f"options[0].{field}"]
    assert [
        one.field for one in condition(options=(dataclasses.replace(THREE, interval_days=0),)).check()
    ] == ["options[0].interval_days"]
    assert not condition().check()


def test_w14_an_entry_below_the_least_one_is_refused():
    assert conditions.entry(ENTRY, total_minor=99_999, creditor_minimum_minor=0, given_minor=None) == 20_000
    assert (
        conditions.entry(ENTRY, total_minor=100_000, creditor_minimum_minor=0, given_minor=20_000) == 20_000
    )
    with pytest.raises(conditions.EntryTooSmall) as refused:
        conditions.entry(ENTRY, total_minor=100_000, creditor_minimum_minor=0, given_minor=19_999)
    assert refused.value.metadata == {"entry_minor": "19999", "allowed_min_minor": "20000"}
    with pytest.raises(conditions.EntryTooSmall):
        conditions.entry(ENTRY, total_minor=100_000, creditor_minimum_minor=30_000, given_minor=20_000)
    with pytest.raises(conditions.EntryNotOfTheOption):
        conditions.entry(THREE, total_minor=100_000, creditor_minimum_minor=0, given_minor=1)
    assert conditions.entry(THREE, total_minor=100_000, creditor_minimum_minor=30_000, given_minor=None) == 0


def test_w14_an_inactive_condition_gives_nothing():
    assert condition().fits(creditor_id=CREDITOR, currency="BRL", delay=0)
    assert not condition(active=False).fits(creditor_id=CREDITOR, currency="BRL", delay=0)


def test_a_delay_outside_the_range_excludes_a_value_only_informs():
    one = condition(delay_from=31, delay_to=60, value_from_minor=100, value_to_minor=200)
    fits = [one.fits(creditor_id=CREDITOR, currency="BRL", delay=days) for days in (30, 31, 60, 61)]
    assert fits == [False, True, True, False]
    assert [one.value_fits(value) for value in (99, 100, 200, 201)] == [False, True, True, False]
    assert not one.fits(creditor_id=CREDITOR, currency="EUR", delay=31)
    assert not condition(creditor_id=uuid.UUID(int=2)).fits(creditor_id=CREDITOR, currency="BRL", delay=0)


def test_the_delay_is_that_of_the_oldest_title():
    assert conditions.delay([title(days=3), title(days=45), title(days=-9)], today=TODAY) == 45
    assert conditions.delay([title(days=-9)], today=TODAY) == 0


def test_the_condition_s_interest_and_penalty_stand_in_place_of_the_titles_own():
    """1000.00, 45 days: 20.00 and 15.00 (W-15); the condition asks 1 % and 0.5 %, half of that interest is forgiven."""
    one = title()
    half = dataclasses.replace(THREE, interest_discount_e4=500_000)
    lower = condition(penalty_e4=10_000, interest_e4=5_000)
    found = conditions.charges(lower, half, [one], date=TODAY)
    assert found == {one.title_id: proposals.Charges(penalty_minor=1_000, interest_minor=250)}
    # never above what the terms of the title give (R09), and left alone where nothing is said
    higher = condition(penalty_e4=100_000, interest_e4=100_000)
    assert conditions.charges(higher, THREE, [one], date=TODAY) == {}
    assert conditions.charges(condition(), THREE, [one], date=TODAY) == {}
    assert conditions.charges(condition(), half, [title(bears_interest=False)], date=TODAY) == {}


def test_the_plan_of_an_option():
    plain = conditions.terms(condition(days_to_first=5), THREE, today=TODAY)
    assert plans.due_dates(plain) == [TODAY + datetime.timedelta(days=days) for days in (5, 25, 45)]
    with_entry = conditions.terms(condition(days_to_first=5), ENTRY, today=TODAY, entry_minor=20_000)
    assert with_entry.down_payment_date == TODAY + datetime.timedelta(days=5)
    assert plans.due_dates(with_entry)[0] == TODAY + datetime.timedelta(days=25)
    for one in (plain, with_entry, conditions.terms(condition(), CASH, today=TODAY)):
        one.check(today=TODAY)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("description", "", "description"),
        ("currency", "USD", "currency"),
        ("active", False, "is_default"),
        ("value_to_minor", -1, "value_to"),
        ("delay_to", -1, "delay_to"),
        ("days_to_first", 366, "days_to_first"),
        ("means_filter", ("GOLD",), "means_filter"),
        ("means_filter", ("PIX", "PIX"), "means_filter"),
        ("charge_means", "", "charge_means"),
        ("interest_e4", -1, "interest_rate_e4"),
        ("penalty_e4", 1_000_001, "penalty_rate_e4"),
        ("options", (), "options"),
        ("options", (THREE, THREE), "options[1].number"),
        ("options", (dataclasses.replace(THREE, minimum_entry_e4=1),), "options[0].minimum_entry_e4"),
        ("options", (dataclasses.replace(ENTRY, minimum_entry_e4=0),), "options[0].minimum_entry_e4"),
        ("options", (dataclasses.replace(THREE, instalments=361),), "options[0].instalments"),
        ("options", (dataclasses.replace(THREE, debt_discount_e4=1_000_000),), "options[0].debt_discount_e4"),
    ],
)
def test_what_is_wrong_is_named(field, value, named):
    found = condition(**{"is_default": True, field: value}).check()
    assert [one.field for one in found] == [named]


options = st.builds(
    lambda instalments, interval, interest, debt, entry: conditions.Option(
        id=uuid.UUID(int=1),
        number=1,
        instalments=instalments,
        interval_days=interval if instalments > 1 else 0,
        interest_discount_e4=interest,
        debt_discount_e4=debt,
        with_entry=entry > 0 and instalments > 1,
        minimum_entry_e4=entry if instalments > 1 else 0,
    ),
    st.integers(1, 24),
    st.integers(1, 60),
    st.integers(0, 1_000_000),
    st.integers(0, 900_000),
    st.integers(0, 900_000),
)
rates = st.one_of(st.none(), st.integers(0, 300_000))


@given(
    options,
    rates,
    rates,
    st.lists(st.tuples(st.integers(10_000, 10**8), st.integers(-30, 900)), min_size=1, max_size=5),
)
def test_an_offer_never_asks_more_than_is_owed_and_adds_up(option, interest, penalty, owed):
    """debt = total + forgiven; the entry is what the option says at least; nothing is asked that is not owed."""
    titles = [title(principal, days) for principal, days in owed]
    one = condition(interest_e4=interest, penalty_e4=penalty, options=(option,))
    assert not one.check()
    edits = conditions.charges(one, option, titles, date=TODAY)
    whole = proposals.price(
        titles=titles, terms=conditions.terms(one, option, today=TODAY), date=TODAY, charges=edits
    )
    entry = conditions.entry(
        option, total_minor=whole.total_minor, creditor_minimum_minor=0, given_minor=None
    )
    priced = proposals.price(
        titles=titles,
        terms=conditions.terms(one, option, today=TODAY, entry_minor=entry),
        date=TODAY,
        charges=edits,
    )
    assert priced.added_minor == priced.plan_interest_minor == 0
    assert priced.debt_minor == priced.total_minor + priced.discount_minor
    assert priced.total_minor == whole.total_minor
    assert [row.number for row in priced.rows] == list(range(0 if entry else 1, option.instalments + 1))
    if entry:
        assert priced.rows[0].amount_minor * money.RATE_UNIT >= whole.total_minor * option.minimum_entry_e4
