"""Plans (W-01, W-02, standards.md 4.9)."""

import datetime
import itertools
from decimal import Decimal

import numpy_financial
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agreement_service.domain import plans
from servicekit import errors

START = datetime.date(2026, 11, 20)


def terms(**fields):
    return plans.Terms(**{"instalments": 3, "first_due_date": datetime.date(2026, 12, 20), **fields})


@pytest.mark.feature("S1-31", "S1-32", "S1-33")
def test_w01_webcollections_simulator():
    rows = plans.schedule(
        debt_minor=191_000,
        terms=plans.Terms(
            instalments=3,
            first_due_date=datetime.date(2021, 5, 21),
            annual_rate_e4=10_000,
            down_payment_minor=11_000,
            down_payment_date=datetime.date(2021, 4, 21),
        ),
    )
    printed = [
        (
            row.number,
            str(row.due_date),
            row.amount_minor,
            row.capital_minor,
            row.interest_minor,
            row.closing_minor,
        )
        for row in rows
    ]
    assert printed == [
        (0, "2021-04-21", 11_000, 11_000, 0, 180_000),
        (1, "2021-05-21", 60_100, 59_950, 150, 120_050),
        (2, "2021-06-21", 60_100, 60_000, 100, 60_050),
        (3, "2021-07-21", 60_100, 60_050, 50, 0),
    ]
    assert rows[0].opening_minor == 191_000, "the seed prints the balance before the down payment"
    assert sum(row.amount_minor for row in rows) == 191_300
    assert sum(row.interest_minor for row in rows) == 300


def test_w02_one_per_cent_a_month():
    rows = plans.schedule(debt_minor=1_000_000, terms=terms(instalments=12, annual_rate_e4=120_000))
    assert {row.amount_minor for row in rows[:-1]} == {88_849}
    assert (rows[0].interest_minor, rows[0].capital_minor) == (10_000, 78_849)
    assert (rows[-1].amount_minor, rows[-1].capital_minor, rows[-1].interest_minor) == (88_847, 87_967, 880)
    assert sum(row.interest_minor for row in rows) == 66_186
    assert sum(row.amount_minor for row in rows) == 1_066_186


def test_w02_zero_rate():
    rows = plans.schedule(debt_minor=100_000, terms=terms())
    assert [row.amount_minor for row in rows] == [33_333, 33_333, 33_334]


def test_month_end_is_kept_from_the_first_due_date():
    first = datetime.date(2027, 1, 31)
    found = [plans.add_months(first, months) for months in (0, 1, 2, 3, 13)]
    assert [str(date) for date in found] == [
        "2027-01-31",
        "2027-02-28",
        "2027-03-31",
        "2027-04-30",
        "2028-02-29",
    ]


@given(
    debt=st.integers(1, 10**11),
    count=st.integers(1, 60),
    rate=st.integers(0, 600_000),
    down=st.integers(0, 10**10),
    discount=st.integers(0, 10**9),
)
def test_the_rows_always_add_up(debt, count, rate, down, discount):
    assume(discount < debt)
    agreed = terms(
        instalments=count,
        annual_rate_e4=rate,
        down_payment_minor=down,
        down_payment_date=START if down else None,
        discount_minor=discount,
    )
    try:
        rows = plans.schedule(debt_minor=debt, terms=agreed)
    except (plans.DownPaymentTooLarge, plans.InstalmentTooSmall):
        return
    assert sum(row.capital_minor for row in rows) == debt - discount
    assert rows[-1].closing_minor == 0
    for before, after in itertools.pairwise(rows):
        assert before.closing_minor == after.opening_minor
    assert all(row.capital_minor > 0 and row.interest_minor >= 0 for row in rows)
    assert all(one.due_date < other.due_date for one, other in itertools.pairwise(rows[1:]))


@given(debt=st.integers(100_000, 10**9), count=st.integers(1, 60), rate=st.integers(1_000, 600_000))
def test_numpy_financial_counts_the_same(debt, count, rate):
    monthly = Decimal(rate) / 12_000_000
    expected = -numpy_financial.pmt(monthly, count, Decimal(debt))
    found = plans.level_amount_minor(capital_minor=debt, annual_rate_e4=rate, instalments=count)
    assert abs(Decimal(found) - Decimal(str(expected))) <= Decimal("0.51")


def test_an_instalment_below_a_cent_is_refused():
    with pytest.raises(plans.InstalmentTooSmall):
        plans.schedule(debt_minor=5, terms=terms(instalments=10))


def test_a_down_payment_of_everything_is_refused():
    with pytest.raises(plans.DownPaymentTooLarge):
        plans.schedule(debt_minor=100, terms=terms(down_payment_minor=100, down_payment_date=START))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"instalments": 0}, "instalments"),
        ({"instalments": 361}, "instalments"),
        ({"annual_rate_e4": -1}, "annual_rate_e4"),
        ({"down_payment_minor": -1}, "down_payment"),
        ({"down_payment_minor": 1}, "down_payment_date"),
        ({"down_payment_date": START}, "down_payment_date"),
        ({"discount_minor": -1}, "discount"),
        ({"first_due_date": START - datetime.timedelta(days=1)}, "first_due_date"),
        ({"first_due_date": datetime.date(9999, 12, 1)}, "first_due_date"),
        ({"down_payment_minor": 1, "down_payment_date": datetime.date(2026, 12, 21)}, "down_payment_date"),
    ],
)
def test_wrong_terms_name_the_field(fields, field):
    with pytest.raises(errors.InvalidRequest) as caught:
        terms(**fields).check(today=START)
    assert f"terms.{field}" in {violation.field for violation in caught.value.fields}
