"""Dated rule data for contact (guard-rails R01, R02, R03, R05, R16, R25, R27), and how it is read.

Legal content is configuration: every agency gets these rows in table ``contact_rules`` when its clock is
set, and may change them there. A rule holds from ``valid_from`` until before ``valid_to``.
"""

from __future__ import annotations

import dataclasses
import datetime
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from case_service.domain import places
from case_service.domain.contact import Channel

DAY = datetime.timedelta(days=1)
MIDNIGHT = datetime.time(0)
HORIZON = 400
"""Steps after which the search for an open window ends: more than a year of closed days is never."""

Holidays = Callable[[str, str, datetime.date], bool]
"""(country, region, date) -> is it a public holiday there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """A row of ``contact_rules``. ``region`` empty: all of the country; ``country`` empty: everywhere.

    ``parameters`` of a window rule: {"windows": {"0".."6" (Monday..Sunday): [["08:00", "20:00"], ..]},
    "holidays": "closed" | "open"}; a window is half-open and may pass midnight (["22:00", "06:00"]). Of a
    cap rule: its numbers.
    """

    code: str
    country: str
    region: str
    channels: tuple[Channel, ...]
    valid_from: datetime.date
    valid_to: datetime.date | None
    parameters: Mapping[str, Any]
    source: str

    def holds(self, date: datetime.date) -> bool:
        """Whether the rule is in force on ``date``."""
        return self.valid_from <= date and (self.valid_to is None or date < self.valid_to)


def _week(
    weekdays: str | None, saturday: str | None = None, sunday: str | None = None
) -> dict[str, list[list[str]]]:
    days = {str(day): weekdays for day in range(5)} | {"5": saturday, "6": sunday}
    return {day: [window.split("-")] for day, window in days.items() if window}


_ALL = (Channel.CALL, Channel.SMS, Channel.WHATSAPP, Channel.EMAIL)
_SPOKEN = (Channel.CALL,)
_LONG_AGO = datetime.date(2000, 1, 1)


def _window(
    code: str, country: str, region: str, channels: tuple[Channel, ...], week: dict[str, list[list[str]]],
    source: str,
    holidays: str = "closed",
) -> Rule:  # fmt: skip
    return Rule(
        code=code, country=country, region=region, channels=channels, valid_from=_LONG_AGO, valid_to=None,
        parameters={"windows": week, "holidays": holidays}, source=source,
    )  # fmt: skip


DEFAULTS: Sequence[Rule] = (
    _window("R01", "BR", "SP", _ALL, _week("08:00-20:00", "08:00-14:00"), "Lei SP 15.426/2014"),
    _window("R02", "BR", "RJ", _ALL, _week("09:00-19:00"), "Lei RJ 7.868/2018"),
    _window("R02", "BR", "ES", _ALL, _week("08:00-19:00"), "Lei ES 10.626/2017"),
    _window("R02", "BR", "AM", _ALL, _week("08:00-18:00", "08:00-14:00"), "Lei AM 306/2016 and its newer report"),
    _window("R02", "BR", "AL", _ALL, _week("08:00-20:00"), "Lei AL 7.782/2016"),
    _window("R03", "BR", "", _ALL, _week("08:00-20:00", "08:00-14:00"), "practice: as R01"),
    _window("R16", "PT", "", _ALL, _week("09:00-22:00", "09:00-22:00", "09:00-22:00"),
            "Banco de Portugal, Aviso 7/2021", "open"),
    Rule(
        code="R05", country="", region="", channels=_ALL, valid_from=_LONG_AGO, valid_to=None,
        parameters={"right_party_calls_per_day": 1, "attempts_per_person_per_day": 3,
        "attempts_per_case_in_7_days": 7},
        source="CDC 42, 71; house default",
    ),
    Rule(
        code="R25", country="", region="", channels=_SPOKEN, valid_from=_LONG_AGO, valid_to=None,
        parameters={"hours_after_abandoned_call": 72}, source="Ofcom, persistent misuse",
    ),
    Rule(
        code="R27", country="", region="", channels=_ALL, valid_from=_LONG_AGO, valid_to=None,
        parameters={"promise_grace_days": 2}, source="S1-28; payment in clearing D+1/2",
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Caps:
    """R05: per person and day answered right-party calls and attempts, per case attempts in 7 days. R25:
    hours without a call after one was abandoned. R27: days after a promise's date in which its payment may
    still be on its way.
    """

    right_party_calls_per_day: int
    attempts_per_person_per_day: int
    attempts_per_case_in_7_days: int
    hours_after_abandoned_call: int
    promise_grace_days: int


class RuleMissing(LookupError):
    """No rule says what is allowed: then nothing is (fails closed)."""


class Book:
    """The rules of one agency."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def caps(self, date: datetime.date) -> Caps:
        """The caps in force on ``date``. Raises RuleMissing."""
        numbers: dict[str, int] = {}
        for code in ("R05", "R25", "R27"):
            rule = next((rule for rule in self._rules if rule.code == code and rule.holds(date)), None)
            if rule is None:
                raise RuleMissing(code)
            numbers |= rule.parameters
        return Caps(**{field.name: int(numbers[field.name]) for field in dataclasses.fields(Caps)})

    def window_rule(self, place: places.Place, channel: Channel, date: datetime.date) -> Rule:
        """The window rule of the region, else of the country. Raises RuleMissing."""
        for region in (place.region, ""):
            for rule in self._rules:
                if (
                    "windows" in rule.parameters
                    and rule.country == place.country
                    and rule.region == region
                    and channel in rule.channels
                    and rule.holds(date)
                ):
                    return rule
        raise RuleMissing(f"window of {place.country} {place.region} {channel}")

    def closed(
        self, where: Sequence[places.Place], channel: Channel, now: datetime.datetime, holidays: Holidays
    ) -> tuple[str, datetime.datetime] | None:
        """None where contact is allowed at ``now`` in every place; else the rule that refuses and the next
        instant (UTC) that is allowed in all of them. Raises RuleMissing.
        """
        refused: str | None = None
        instant = now
        for _ in range(HORIZON):
            moved = instant
            for place in where:
                code, opens = self._opens(place, channel, moved, holidays)
                if opens > moved:
                    refused = refused or code
                    moved = opens
            if moved == instant:
                return None if refused is None else (refused, instant.astimezone(datetime.UTC))
            instant = moved
        raise RuleMissing("no window opens")

    def _opens(
        self, place: places.Place, channel: Channel, instant: datetime.datetime, holidays: Holidays
    ) -> tuple[str, datetime.datetime]:
        """The first instant at or after ``instant`` inside a window of the place, with the rule."""
        zone = zoneinfo.ZoneInfo(place.time_zone)
        local = instant.astimezone(zone)
        first = self.window_rule(place, channel, local.date())
        for offset in range(-1, HORIZON):
            date = local.date() + offset * DAY
            rule = self.window_rule(place, channel, date)
            if rule.parameters["holidays"] == "closed" and holidays(place.country, place.region, date):
                continue
            for start, end in _windows(rule, date, zone):
                if instant < end:
                    return first.code, max(instant, start)
        raise RuleMissing("no window opens")


def _windows(
    rule: Rule, date: datetime.date, zone: zoneinfo.ZoneInfo
) -> list[tuple[datetime.datetime, datetime.datetime]]:
    """Windows that begin on ``date``, half-open, as instants in UTC, in order."""
    found = []
    for opens, closes in rule.parameters["windows"].get(str(date.weekday()), ()):
        start, end = datetime.time.fromisoformat(opens), datetime.time.fromisoformat(closes)
        last = date if end > start else date + DAY
        found.append(
            (
                datetime.datetime.combine(date, start, zone).astimezone(datetime.UTC),
                datetime.datetime.combine(last, end, zone).astimezone(datetime.UTC),
            )
        )
    return sorted(found)
