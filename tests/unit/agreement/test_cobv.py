"""Pix charge with a due date: what is to be paid when (standards.md 4.4, Pix API 2.9.0)."""

import datetime

import holidays
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import cobv

BRAZIL = holidays.country_holidays("BR")
DUE = datetime.date(2026, 11, 24)
"""A Tuesday."""


def business(date):
    return date.weekday() < 5 and date not in BRAZIL


def charge(**fields):
    return cobv.Charge(**{"original_minor": 10_000, "due_date": DUE, **fields})


def total(made, date):
    return cobv.payable(made, date, business).total_minor


@pytest.mark.parametrize(
    ("due", "validity", "last"),
    [
        ("2020-10-20", 4, "2020-10-26"),
        ("2020-12-25", 0, "2020-12-28"),
        ("2020-12-25", 1, "2020-12-29"),
        ("2020-12-25", 3, "2020-12-31"),
        ("2020-12-25", 4, "2021-01-04"),
        ("2021-08-27", 5, "2021-09-01"),
        ("2021-08-28", 5, "2021-09-06"),
    ],
)
def test_standard_4_4_validity_rolls_with_the_due_date(due, validity, last):
    made = charge(due_date=datetime.date.fromisoformat(due), validity_days=validity)
    end = datetime.date.fromisoformat(last)
    assert cobv.last_day(made, business) == end
    assert total(made, end) == 10_000
    with pytest.raises(cobv.ChargeNotPayable):
        cobv.payable(made, end + datetime.timedelta(days=1), business)


def test_w15_of_the_pix_api_three_percent_and_one_percent_a_day_for_two_days():
    made = charge(
        penalty=cobv.Penalty(cobv.PenaltyMode.PERCENT, 300),
        interest=cobv.Interest(cobv.InterestMode.PERCENT_A_DAY, 100),
    )
    found = cobv.payable(made, DUE + datetime.timedelta(days=2), business)
    assert (found.penalty_minor, found.interest_minor, found.total_minor) == (300, 200, 10_500)
    assert total(made, DUE) == 10_000


def test_penalty_and_interest_count_from_the_rolled_due_date():
    christmas = datetime.date(2020, 12, 25)
    made = charge(
        due_date=christmas,
        penalty=cobv.Penalty(cobv.PenaltyMode.AMOUNT, 250),
        interest=cobv.Interest(cobv.InterestMode.AMOUNT_A_DAY, 7),
    )
    assert total(made, datetime.date(2020, 12, 28)) == 10_000
    assert total(made, datetime.date(2020, 12, 30)) == 10_000 + 250 + 2 * 7


@pytest.mark.parametrize(
    ("mode", "value", "late", "interest"),
    [
        (1, 150, 5, 750),
        (2, 10, 5, 50),
        (3, 100, 15, 50),
        (4, 1200, 15, 49),  # 12 % a year of 365 days
        (5, 150, 5, 450),  # due on Tuesday, paid on Sunday: three business days
        (6, 10, 5, 30),
        (7, 210, 15, 110),  # 2.1 % a month of 21 business days, 11 of them
        (8, 2520, 15, 110),
    ],
)
def test_modes_of_interest(mode, value, late, interest):
    made = charge(interest=cobv.Interest(cobv.InterestMode(mode), value))
    found = cobv.payable(made, DUE + datetime.timedelta(days=late), business)
    assert found.interest_minor == interest


def test_dated_discounts_take_the_earliest_date_that_is_not_over():
    until = ((DUE - datetime.timedelta(days=10), 500), (DUE, 100), (DUE - datetime.timedelta(days=5), 300))
    for mode, unit in ((1, 1), (2, 1)):
        made = charge(discount=cobv.Discount(cobv.DiscountMode(mode), until=until))
        assert made.check() == []
        found = [
            cobv.payable(made, DUE - datetime.timedelta(days=days), business).discount_minor
            for days in (11, 10, 9, 5, 4, 0)
        ]
        assert found == [500 * unit, 500 * unit, 300 * unit, 300 * unit, 100 * unit, 100 * unit]
        assert cobv.payable(made, DUE + datetime.timedelta(days=1), business).discount_minor == 0


def test_a_discount_until_the_due_date_rolls_with_it():
    saturday = datetime.date(2026, 11, 21)
    made = charge(
        due_date=saturday, discount=cobv.Discount(cobv.DiscountMode.AMOUNT_UNTIL, until=((saturday, 500),))
    )
    assert total(made, datetime.date(2026, 11, 23)) == 9_500


@pytest.mark.parametrize(
    ("mode", "value", "discount"),
    [(3, 20, 140), (4, 20, 80), (5, 20, 140), (6, 20, 80)],
)
def test_discounts_a_day_of_anticipation(mode, value, discount):
    made = charge(discount=cobv.Discount(cobv.DiscountMode(mode), value))
    paid = DUE - datetime.timedelta(days=7)  # four business days: 20 November is a holiday
    assert cobv.payable(made, paid, business).discount_minor == discount


def test_abatement_is_taken_off_early_and_late():
    for rule in (
        cobv.Abatement(cobv.AbatementMode.AMOUNT, 1_000),
        cobv.Abatement(cobv.AbatementMode(2), 1_000),
    ):
        made = charge(abatement=rule, penalty=cobv.Penalty(cobv.PenaltyMode.PERCENT, 200))
        assert total(made, DUE) == 9_000
        assert total(made, DUE + datetime.timedelta(days=1)) == 9_200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"original_minor": 0}, "valor.original"),
        ({"original_minor": 10**12}, "valor.original"),
        ({"validity_days": -1}, "calendario.validadeAposVencimento"),
        ({"abatement": cobv.Abatement(cobv.AbatementMode.AMOUNT, 10_000)}, "valor.abatimento"),
        ({"abatement": cobv.Abatement(cobv.AbatementMode.PERCENT, 10_000)}, "valor.abatimento"),
        ({"penalty": cobv.Penalty(cobv.PenaltyMode.PERCENT, 0)}, "valor.multa"),
        ({"discount": cobv.Discount(cobv.DiscountMode.AMOUNT_UNTIL)}, "valor.desconto.descontoDataFixa"),
        (
            {"discount": cobv.Discount(cobv.DiscountMode.AMOUNT_UNTIL, 5, ((DUE, 5),))},
            "valor.desconto.valorPerc",
        ),
        (
            {"discount": cobv.Discount(cobv.DiscountMode.AMOUNT_A_DAY, 5, ((DUE, 5),))},
            "valor.desconto.descontoDataFixa",
        ),
        ({"discount": cobv.Discount(cobv.DiscountMode.AMOUNT_A_DAY)}, "valor.desconto.valorPerc"),
        (
            {
                "discount": cobv.Discount(
                    cobv.DiscountMode.AMOUNT_UNTIL, until=((DUE + datetime.timedelta(days=1), 5),)
                )
            },
            "valor.desconto.descontoDataFixa[0].data",
        ),
        (
            {"discount": cobv.Discount(cobv.DiscountMode.PERCENT_UNTIL, until=((DUE, 10_000),))},
            "valor.desconto.descontoDataFixa[0].valorPerc",
        ),
    ],
)
def test_what_the_api_refuses_is_named(fields, field):
    assert [one.field for one in charge(**fields).check()] == [field]


def test_a_good_charge_has_nothing_wrong():
    assert charge(penalty=cobv.Penalty(cobv.PenaltyMode.PERCENT, 200)).check() == []


@given(
    original=st.integers(1, 10**9),
    days=st.integers(-60, 30),
    interest=st.sampled_from(cobv.InterestMode),
    rate=st.integers(1, 10_000),
    due=st.dates(datetime.date(2025, 1, 1), datetime.date(2027, 12, 1)),
)
def test_it_never_falls_from_one_day_to_the_next_and_never_below_the_original(
    original, days, interest, rate, due
):
    made = cobv.Charge(
        original_minor=original,
        due_date=due,
        validity_days=40,
        penalty=cobv.Penalty(cobv.PenaltyMode.PERCENT, 200),
        interest=cobv.Interest(interest, rate),
    )
    date = due + datetime.timedelta(days=days)
    today, tomorrow = total(made, date), total(made, date + datetime.timedelta(days=1))
    assert original <= today <= tomorrow
    assert isinstance(today, int)


@given(
    mode=st.sampled_from([3, 4, 5, 6]),
    value=st.integers(1, 9_999),
    days=st.integers(0, 400),
    original=st.integers(1, 10**6),
)
def test_no_discount_makes_it_negative(mode, value, days, original):
    made = cobv.Charge(
        original_minor=original, due_date=DUE, discount=cobv.Discount(cobv.DiscountMode(mode), value)
    )
    assert total(made, DUE - datetime.timedelta(days=days)) >= 0
