"""May this person be contacted now, by this channel, about this case (R01-R05, R16, R25-R27). Fails closed."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
import zoneinfo
from collections.abc import Mapping, Sequence

from case_service.domain import cases, places, rules
from case_service.domain.contact import Channel

VALID = datetime.timedelta(seconds=60)
"""The act must start within this time of the grant, on the agency's clock."""

KIND: Mapping[Channel, str] = {
    Channel.CALL: "PHONE",
    Channel.SMS: "PHONE",
    Channel.WHATSAPP: "PHONE",
    Channel.EMAIL: "EMAIL",
}
"""Kind of contact point that a channel uses; letters go to the address (BatchGetParties), not through here."""


class Purpose(enum.StrEnum):
    """Why: a step of the ladder or campaign, or a reminder that belongs to an agreement or promise."""

    COLLECTION = "COLLECTION"
    AGREEMENT_REMINDER = "AGREEMENT_REMINDER"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A usable contact point."""

    id: uuid.UUID
    kind: str
    value: str
    position: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
    """Who is contacted. ``language`` pt-BR or pt-PT."""

    id: uuid.UUID
    country: str
    region: str
    postal_code: str
    points: Sequence[Point]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Debt:
    """The case. ``held_channels`` are blocked by active holds, None among them meaning all."""

    id: uuid.UUID
    state: cases.State
    open_principal_minor: int
    frozen: bool
    agreement_in_force: bool
    promise_until: datetime.date | None
    held_channels: frozenset[Channel | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Use:
    """A reservation or manual contact that counts, of the person or of the case."""

    person_id: uuid.UUID
    case_id: uuid.UUID
    local_date: datetime.date
    point_id: uuid.UUID | None
    right_party_call: bool
    abandoned: bool
    at: datetime.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class Granted:
    """Contact ``point`` before ``valid_until``; ``time_zone`` is the person's, ``local_date`` the day it
    counts on.
    """

    point: Point
    time_zone: str
    local_date: datetime.date
    valid_until: datetime.datetime


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """``rule`` refuses; asked again at ``retry_time`` the answer may differ, never for this act where it is
    None.
    """

    rule: str
    explanation: str
    local_date: datetime.date
    time_zone: str
    retry_time: datetime.datetime | None = None


def decide(
    *,
    debt: Debt,
    person: Person,
    channel: Channel,
    purpose: Purpose,
    uses: Sequence[Use],
    book: rules.Book,
    holidays: rules.Holidays,
    agency_zone: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> Granted | Refused:
    """The first rule that refuses, in this order: case, holds (R26), promise or agreement (R27), contact
    points, caps (R05, R25), windows (R01, R02, R03, R16). Windows come last, so that only a refusal by them
    alone can be asked again.

    Days are those of the person's own zone, by address before number. Of several contact points the one
    least used that day is tried first, then the first in order.
    """
    home = places.evidence(
        country=person.country,
        region=person.region,
        postal_code=person.postal_code,
        number="",
        agency_zone=agency_zone,
    )[0]
    points = [point for point in person.points if point.kind == KIND.get(channel)]
    if not places.of_address(country=person.country, region=person.region, postal_code=person.postal_code):
        home = next((place for point in points if (place := places.of_number(point.value))), home)
    today = now.astimezone(zoneinfo.ZoneInfo(home.time_zone)).date()

    def refused(rule: str, explanation: str, retry_time: datetime.datetime | None = None) -> Refused:
        return Refused(
            rule=rule,
            explanation=explanation,
            local_date=today,
            time_zone=home.time_zone,
            retry_time=retry_time,
        )

    if debt.state in cases.TERMINAL or debt.state is cases.State.RECEIVED or debt.frozen:
        return refused("CASE_CLOSED", "the case is not worked")
    if debt.state is cases.State.ON_HOLD or None in debt.held_channels or channel in debt.held_channels:
        return refused("R26", "a hold blocks the channel")
    try:
        caps = book.caps(today)
    except rules.RuleMissing:
        return refused("R05", "no caps are configured for this date")
    if purpose is Purpose.COLLECTION:
        if debt.open_principal_minor == 0:
            return refused("CASE_CLOSED", "nothing is open on the case")
        if debt.agreement_in_force:
            return refused("R27", "an agreement is in force")
        grace = datetime.timedelta(days=caps.promise_grace_days)
        if debt.promise_until is not None and business_date <= debt.promise_until + grace:
            return refused("R27", "a promise to pay is in force")
    if not points:
        return refused("NO_CONTACT_POINT", "the person has no usable contact point for the channel")

    mine = [use for use in uses if use.person_id == person.id and use.local_date == today]
    if len(mine) >= caps.attempts_per_person_per_day:
        return refused("R05", "attempts per person and day are used up")
    answered = sum(use.right_party_call for use in mine)
    if channel is Channel.CALL and answered >= caps.right_party_calls_per_day:
        return refused("R05", "the person was spoken to today")
    week_ago = today - datetime.timedelta(days=7)
    if (
        sum(use.case_id == debt.id and use.local_date > week_ago for use in uses)
        >= caps.attempts_per_case_in_7_days
    ):
        return refused("R05", "attempts on the case in 7 days are used up")
    lockout = now - datetime.timedelta(hours=caps.hours_after_abandoned_call)
    if channel is Channel.CALL and any(
        use.abandoned and use.person_id == person.id and use.at > lockout for use in uses
    ):
        return refused("R25", "a call to the person was abandoned in the last hours")

    tried = {point.id: sum(use.point_id == point.id for use in mine) for point in points}
    best: Refused | None = None
    for point in sorted(points, key=lambda point: (tried[point.id], point.position, point.value)):
        where = places.evidence(
            country=person.country,
            region=person.region,
            postal_code=person.postal_code,
            number=point.value if point.kind == "PHONE" else "",
            agency_zone=agency_zone,
        )
        try:
            closed = book.closed(where, channel, now, holidays)
        except rules.RuleMissing:
            best = best or refused("R01", "no window is configured for the place")
            continue
        if closed is None:
            return Granted(point=point, time_zone=home.time_zone, local_date=today, valid_until=now + VALID)
        code, opens = closed
        if best is None or best.retry_time is None or opens < best.retry_time:
            best = refused(code, "outside the hours in which contact is allowed", opens)
    assert best is not None
    return best
