"""The calendar of business days."""

import datetime
import functools

import holidays

_COUNTRIES = {"BRL": "BR", "EUR": "PT"}


@functools.cache
def _holidays(currency: str) -> holidays.HolidayBase:
    return holidays.country_holidays(_COUNTRIES[currency])


@functools.lru_cache(maxsize=65_536)
def payable_until(due_date: datetime.date, currency: str) -> datetime.date:
    """The last day on which what is due can be paid without charges: the due date, or the next business day after it
    where it is a weekend or a national holiday of the currency's country (Lei 7.089/1985; PT: CC art. 279 e)."""
    calendar = _holidays(currency)
    day = due_date
    while day.weekday() >= 5 or day in calendar:
        day += datetime.timedelta(days=1)
    return day
