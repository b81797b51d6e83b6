"""The agency's present: instant and business date, read from its clock once a use case."""

from __future__ import annotations

import dataclasses
import datetime
import uuid

from servicekit import clock, db


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """``now`` aware, UTC, on the agency's clock; ``zone`` IANA name of the agency."""

    agency: uuid.UUID
    now: datetime.datetime
    business_date: datetime.date
    zone: str


def read(tx: db.Transaction, agency: uuid.UUID) -> Moment:
    """The agency's moment. Raises servicekit.clock.AgencyClockUnknown."""
    found = clock.read(tx, agency)
    return Moment(agency=agency, now=found.now(), business_date=found.business_date, zone=found.time_zone)
