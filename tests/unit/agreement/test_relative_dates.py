"""Dates counted from the business date (W-10, S5-05)."""

import calendar
import contextlib
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import plans, relative_dates
from servicekit import errors

W10 = datetime.date(2022, 10, 1)  # a Saturday
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2200, 12, 31))
SHIFTS = st.integers(-500, 500)


def on(day, text):
    return relative_dates.resolve(text, business_date=day, field="due_from")


def iso(text):
    return datetime.date.fromisoformat(text)


@pytest.mark.feature("S5-05")
def test_w10_relative_dates():
    assert on(W10, "today-1d") == iso("2022-09-30"), "the manual prints 31/09/2022"
    assert on(W10, "today+10d") == iso("2022-10-11"), "the manual prints 10/10/2022"


@pytest.mark.feature("S5-05")
@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("today", "2022-10-01"),
        ("first_of_week", "2022-09-26"),
        ("last_of_week", "2022-10-02"),
        ("first_of_month", "2022-10-01"),
        ("last_of_month", "2022-10-31"),
        ("first_of_year", "2022-01-01"),
        ("last_of_year", "2022-12-31"),
        ("last_of_month+1m", "2022-11-30"),
        ("last_of_month-1y", "2021-10-31"),
        ("first_of_year-1d", "2021-12-31"),
        ("today+0d", "2022-10-01"),
        ("2026-11-30", "2026-11-30"),
    ],
)
def test_w10_constants_shifts_and_fixed_dates(text, day):
    assert on(W10, text) == iso(day)


def test_w10_months_and_years_are_clamped_to_the_months_end():
    assert on(iso("2024-02-29"), "today+1y") == iso("2025-02-28")
    assert on(iso("2024-01-31"), "today+1m") == iso("2024-02-29")
    assert on(iso("2026-02-10"), "last_of_month+1m") == iso("2026-03-28"), "shifted is the 28th of February"


@given(day=DAYS, count=SHIFTS)
def test_w10_a_shift_of_days_is_counted_in_days(day, count):
    assert (on(day, f"today{count:+d}d") - day).days == count


@given(day=DAYS, count=SHIFTS, constant=st.sampled_from(["today", "last_of_month", "first_of_week"]))
def test_w10_a_shift_of_months_keeps_the_day_or_takes_the_months_last(day, count, constant):
    start, found = on(day, constant), on(day, f"{constant}{count:+d}m")
    assert found == plans.add_months(start, count)
    assert (found.year * 12 + found.month) - (start.year * 12 + start.month) == count
    assert found.day == min(start.day, calendar.monthrange(found.year, found.month)[1])
    assert on(day, f"{constant}{count:+d}y") == on(day, f"{constant}{12 * count:+d}m")


@given(day=DAYS)
def test_w10_periods_hold_the_day_and_follow_one_another(day):
    for period in ("week", "month", "year"):
        first, last = on(day, f"first_of_{period}"), on(day, f"last_of_{period}")
        assert first <= day <= last
        next_day = last + datetime.timedelta(days=1)
        assert on(next_day, f"first_of_{period}") == next_day
    assert on(day, "first_of_week").weekday() == 0
    assert (on(day, "last_of_week") - on(day, "first_of_week")).days == 6


@given(day=DAYS, written=DAYS)
def test_w10_a_fixed_date_is_itself_on_every_day(day, written):
    assert on(day, written.isoformat()) == written


@given(text=st.text(max_size=30))
def test_w10_any_text_is_a_date_or_refused(text):
    with contextlib.suppress(errors.InvalidRequest):
        assert isinstance(on(W10, text), datetime.date)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "today-1",
        "today-1w",
        "today - 1d",
        "today-1d+1m",
        "TODAY",
        "2026-11-30+1d",
        "20261130",
        "2026-W48-1",
        "today+١d",
        "today\n",
        "",
    ],
)
def test_w10_anything_else_is_refused_naming_what_is_expected(text):
    with pytest.raises(errors.InvalidRequest) as caught:
        on(W10, text)
    (wrong,) = caught.value.fields
    assert wrong.field == "due_from"
    for part in ("2026-11-30", "today", "first_of_week", "last_of_year", "d, m or y"):
        assert part in wrong.description


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-13-01", "0000-01-01", "today+999999y", "today-999999d", "today-999999m"]
)
def test_w10_a_day_that_is_none_is_refused(text):
    with pytest.raises(errors.InvalidRequest) as caught:
        on(W10, text)
    assert caught.value.fields[0].description == "expected a day of the years 1 to 9999"
