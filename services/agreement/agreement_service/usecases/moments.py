"""The instant and the business date of an agency, read once for each thing that is done."""

import dataclasses
import datetime
import uuid

from servicekit import clock, db


@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """`now` is the agency's instant (aware, UTC), `business_date` the day it works on."""

    now: datetime.datetime
    business_date: datetime.date


def read(tx: db.Transaction, agency: uuid.UUID) -> Moment:
    """From the agency's clock. Raises AgencyClockUnknown."""
    found = clock.read(tx, agency)
    return Moment(found.now(), found.business_date)
