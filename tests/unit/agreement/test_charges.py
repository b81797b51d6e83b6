"""Late charges (W-09, W-15, standards.md 4.8) and the calendar of business days."""

import datetime
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service import providers
from agreement_service.domain import charges


def accrue(date, **fields):
    position = {
        "open_principal_minor": 100_000,
        "penalty_rate_e4": 20_000,
        "monthly_rate_e4": 10_000,
        "due_date": datetime.date(2026, 10, 22),
        "payable_until": datetime.date(2026, 10, 22),
        "accrued_through": datetime.date(2026, 10, 22),
        "corrected_through": datetime.date(2026, 10, 22),
        **fields,
    }
    position.setdefault("debt_minor", position["open_principal_minor"])
    return charges.accrue(charges.Position(**position), date)


def test_w15_default_charges():
    found = accrue(datetime.date(2026, 10, 22) + datetime.timedelta(days=45))
    assert (found.penalty_minor, found.interest_minor, found.total_minor) == (2_000, 1_500, 3_500)


def test_w09_thirty_five_days_late():
    found = accrue(datetime.date(2026, 11, 26))
    assert (found.penalty_minor, found.interest_minor) == (2_000, 1_167)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"date": datetime.date(2026, 10, 22)}, (0, 0)),
        ({"open_principal_minor": 0, "date": datetime.date(2026, 12, 1)}, (0, 0)),
        ({"date": datetime.date(2026, 10, 23)}, (2_000, 33)),
        ({"penalty_charged": True, "date": datetime.date(2026, 10, 23)}, (0, 33)),
        ({"payable_until": datetime.date(2026, 10, 26), "date": datetime.date(2026, 10, 26)}, (0, 0)),
        ({"payable_until": datetime.date(2026, 10, 26), "date": datetime.date(2026, 10, 27)}, (2_000, 167)),
        ({"accrued_through": datetime.date(2026, 12, 1), "date": datetime.date(2026, 11, 1)}, (2_000, 0)),
    ],
)
def test_boundaries(fields, expected):
    date = fields.pop("date")
    found = accrue(date, **fields)
    assert (found.penalty_minor, found.interest_minor) == expected


@given(base=st.integers(0, 10**13), rate=st.integers(0, 10**7), days=st.integers(0, 20_000))
def test_half_up_as_decimal_does_it(base, rate, days):
    exact = Decimal(base) * rate * days / Decimal(30_000_000)
    rounded = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    assert charges.interest_minor(base_minor=base, monthly_rate_e4=rate, days=days) == rounded
    penalty = int((Decimal(base) * rate / 1_000_000).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    assert charges.penalty_minor(base_minor=base, rate_e4=rate) == penalty


@pytest.mark.parametrize(
    ("due", "currency", "until"),
    [
        ("2026-11-19", "BRL", "2026-11-19"),
        (
            "2026-11-20",
            "BRL",
            "2026-11-23",
        ),  # Consciência Negra, national since 2024 (Lei 14.759/2023); a Friday
        ("2026-11-20", "EUR", "2026-11-20"),
        ("2026-11-21", "EUR", "2026-11-23"),  # Saturday
        ("2026-12-25", "BRL", "2026-12-28"),  # Christmas, then a weekend
        ("2026-10-05", "EUR", "2026-10-06"),  # Implantação da República
        ("2026-10-05", "BRL", "2026-10-05"),
        ("2026-09-07", "BRL", "2026-09-08"),  # Independência
        ("2026-12-31", "BRL", "2026-12-31"),
        ("2027-01-01", "BRL", "2027-01-04"),
    ],
)
def test_the_next_business_day(due, currency, until):
    assert str(providers.payable_until(datetime.date.fromisoformat(due), currency)) == until
