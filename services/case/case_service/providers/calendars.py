"""Public holidays of a country and its regions, from the library ``holidays``."""

from __future__ import annotations

import datetime
import functools

import holidays


def is_holiday(country: str, region: str, date: datetime.date) -> bool:
    """Whether ``date`` is a public holiday of the country (ISO 3166) or, in Brazil, of the state (UF).

    A country that the library does not know has none: its windows still hold.
    """
    return date in _calendar(country, region)


@functools.lru_cache(maxsize=256)
def _calendar(country: str, region: str) -> frozenset[datetime.date] | holidays.HolidayBase:
    try:
        return holidays.country_holidays(country, subdiv=region if country == "BR" and region else None)
    except NotImplementedError:
        return frozenset()
