"""The copy of the agency's clock, kept from the case service's facts."""

import datetime
import decimal
import uuid

from recupera.case.v1 import case_facts_pb2
from servicekit import clock, dates, db


def take(
    *, tx: db.Transaction, agency: uuid.UUID, fact: case_facts_pb2.CaseFact, allow_simulated: bool
) -> None:
    """Store the clock of a ClockChanged if it is newer. Raises SimulatedClockRefused."""
    changed = fact.clock_changed
    clock.store(
        tx,
        clock.AgencyClock(
            agency=agency,
            time_zone=changed.time_zone,
            simulated=changed.simulated,
            base_machine=_instant(changed, "base_machine"),
            base_agency=_instant(changed, "base_agency"),
            speed=decimal.Decimal(changed.speed_thousandths) / 1000,
            business_date=dates.from_proto(changed.business_date, "business_date"),
            version=fact.version,
        ),
        allow_simulated=allow_simulated,
    )


def open_day(*, tx: db.Transaction, agency: uuid.UUID, date: datetime.date) -> None:
    """Move the business date forward."""
    clock.open_day(tx, agency, date)


def _instant(changed: case_facts_pb2.ClockChanged, field: str) -> datetime.datetime | None:
    return dates.from_timestamp(getattr(changed, field), field) if changed.HasField(field) else None  # type: ignore[arg-type]
