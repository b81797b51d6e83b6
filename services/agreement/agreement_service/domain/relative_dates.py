"""Dates as rules: written once, counted from the business date of the day they are used on (S5-05, W-10)."""

import calendar
import datetime
import re
from collections.abc import Callable

from agreement_service.domain import plans
from servicekit import errors

_DAY = datetime.timedelta(days=1)
_CONSTANTS: dict[str, Callable[[datetime.date], datetime.date]] = {
    "today": lambda day: day,
    "first_of_week": lambda day: day - day.weekday() * _DAY,
    "last_of_week": lambda day: day + (6 - day.weekday()) * _DAY,
    "first_of_month": lambda day: day.replace(day=1),
    "last_of_month": lambda day: day.replace(day=calendar.monthrange(day.year, day.month)[1]),
    "first_of_year": lambda day: day.replace(month=1, day=1),
    "last_of_year": lambda day: day.replace(month=12, day=31),
}
"""Weeks begin on Monday."""
_RELATIVE = re.compile(rf"({'|'.join(_CONSTANTS)})(?:([+-][0-9]{{1,6}})([dmy]))?")
_FIXED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def resolve(text: str, *, business_date: datetime.date, field: str) -> datetime.date:
    """The day that `text`, found in `field` of a request, says on a business date.

    A date (2026-11-30), or a constant with at most one shift: today-1d, first_of_week+7d, last_of_month+1m. A shift of
    months or years keeps the day of the month, clamped to the month's last (`plans.add_months`): last_of_month+1m on
    2026-02-10 is 2026-03-28. Raises InvalidRequest: neither of the two, no such day, a day outside the years 1 to 9999.
    """
    try:
        if _FIXED.fullmatch(text):
            return datetime.date.fromisoformat(text)
        if found := _RELATIVE.fullmatch(text):
            constant, count, unit = found.groups()
            return _shifted(_CONSTANTS[constant](business_date), int(count or 0), unit)
    except (ValueError, OverflowError):
        raise errors.invalid(field, "expected a day of the years 1 to 9999") from None
    raise errors.invalid(
        field,
        f"expected a date such as 2026-11-30, or one of {', '.join(_CONSTANTS)}, then at most one shift: + or -, up to"
        " six digits, and d, m or y (today-1d, last_of_month+1m)",
    )


def _shifted(day: datetime.date, count: int, unit: str | None) -> datetime.date:
    if unit in ("m", "y"):
        return plans.add_months(day, count if unit == "m" else 12 * count)
    return day + count * _DAY
