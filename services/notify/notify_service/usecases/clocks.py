"""The copy of the agency's clock, from the facts of `case`, which owns it."""

from __future__ import annotations

import decimal
import uuid

from recupera.case.v1 import case_facts_pb2
from servicekit import clock, dates, db


def apply(
    tx: db.Transaction, agency: uuid.UUID, *, fact: case_facts_pb2.CaseFact, allow_simulated: bool
) -> None:
    """Store a `ClockChanged` or `DayOpened`; an older one changes nothing. Raises
    clock.SimulatedClockRefused.
    """
    if fact.HasField("day_opened"):
        clock.open_day(tx, agency, dates.from_proto(fact.day_opened.date, "date"))
        return
    changed = fact.clock_changed
    clock.store(
        tx,
        clock.AgencyClock(
            agency=agency,
            time_zone=changed.time_zone,
            simulated=changed.simulated,
            base_machine=dates.from_timestamp(changed.base_machine, "base_machine")
            if changed.simulated
            else None,
            base_agency=dates.from_timestamp(changed.base_agency, "base_agency")
            if changed.simulated
            else None,
            speed=decimal.Decimal(changed.speed_thousandths) / 1000,
            business_date=dates.from_proto(changed.business_date, "business_date"),
            version=fact.version,
        ),
        allow_simulated=allow_simulated,
    )
