"""Published series: index numbers, monthly and yearly rates as days (standards.md 4.8). Values here are made up unless
a test says where they are from."""

import datetime
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import series


def month(text):
    return datetime.date.fromisoformat(text + "-01")


def day(text):
    return datetime.date.fromisoformat(text)


def months(start, values):
    found, at = [], month(start)
    for value in values:
        found.append((at, value))
        at = series.month_after(at)
    return found


LEGAL = series.SERIES["LEGAL_BR"]


@pytest.mark.parametrize(
    ("selic", "ipca", "expected"),
    [
        ("1.01000000", "1.0050", 497_512),
        ("1.00000000", "1.0050", 0),  # negative is zero
        ("1.0000000050", "1", 0),  # 0.0000005 %: half-even goes down to 0
        ("1.0000000150", "1", 2),  # 0.0000015 %: and up to 0.000002
    ],
)
def test_standard_4_8_legal_rate_of_a_month(selic, ipca, expected):
    assert series.legal_rate_e6(selic_factor=Decimal(selic), ipca15_factor=Decimal(ipca)) == expected


def test_legal_rate_counts_from_its_first_day_in_proportion_to_the_days_of_the_month():
    days = series.table(LEGAL, months("2024-08", [620_000, 600_000, 310_000]))
    assert days.at(day("2024-08-29")) == 0
    two = Fraction(days.at(day("2024-08-31")), days.denominator)
    assert two == Fraction(620_000, 10**8) * 2 / 31
    whole = Fraction(days.at(day("2024-10-31")), days.denominator)
    assert whole == two + Fraction(600_000 + 310_000, 10**8)
    assert days.last_day == day("2024-10-31")
    assert days.at(day("2024-12-25")) == days.at(days.last_day)


def test_standard_4_8_pt_commercial_rate_of_the_first_half_of_2026():
    known = series.SERIES["PT_COMMERCIAL_62"]
    days = series.table(known, [(first, value) for first, value, _ in known.shipped])
    through, since = days.at(day("2026-03-31")), days.at(day("2026-03-01"))
    assert Fraction(through - since, days.denominator) == Fraction(1015, 10_000) * 30 / 365
    assert days.at(day("2026-08-01")) == days.at(day("2026-06-30"))


def test_an_index_takes_effect_with_the_month_after():
    days = series.table(series.SERIES["IPCA"], months("2026-01", [1_000_000, -500_000]))
    assert days.at(day("2025-06-10")) == days.at(day("2026-01-31")) == series.INDEX_UNIT
    assert days.at(day("2026-02-01")) == series.INDEX_UNIT * 101 // 100
    assert days.at(day("2026-03-15")) == series.INDEX_UNIT * 101 * 995 // 100_000
    assert days.last_day == day("2026-03-31")


@given(
    values=st.lists(st.integers(0, 5_000_000), min_size=1, max_size=40),
    since=st.integers(0, 1_500),
    length=st.integers(0, 900),
)
def test_monthly_rates_are_the_sum_of_their_days(values, since, length):
    published = dict(months("2024-08", values))
    days = series.table(LEGAL, list(published.items()))
    first = LEGAL.begins + datetime.timedelta(days=since - 100)
    counted = Fraction(0)
    for step in range(1, length + 1):
        one = first + datetime.timedelta(days=step)
        if not days.first_day <= one <= days.last_day:
            continue
        rate = published[one.replace(day=1)]
        size = (series.month_after(one.replace(day=1)) - one.replace(day=1)).days
        counted += Fraction(rate, 10**8) / size
    last = first + datetime.timedelta(days=length)
    assert Fraction(days.at(last) - days.at(first), days.denominator) == counted


@given(values=st.lists(st.integers(-2_000_000, 5_000_000), min_size=1, max_size=36))
def test_index_numbers_follow_the_published_variations(values):
    days = series.table(series.SERIES["IGPM"], months("2020-01", values))
    number, at = Decimal(series.INDEX_UNIT), month("2020-01")
    for value in values:
        number = (number * (1 + Decimal(value) / 10**8)).quantize(Decimal(1), ROUND_HALF_UP)
        at = series.month_after(at)
        assert days.at(at) == number
