"""The present state again, in chunks: how a copy starts, is repaired, or follows a restore (architecture §6)."""

from __future__ import annotations

import uuid

from case_service.store import agency as agencies
from case_service.store import cases, days, portfolio
from case_service.usecases import facts, moments
from servicekit import clock, db


def agency_state(tx: db.Transaction, agency: uuid.UUID) -> None:
    """The clock, and the business date where it is open. Raises AgencyClockUnknown."""
    moment = moments.read(tx, agency)
    found = clock.read(tx, agency)
    currency = agencies.lock(tx, agency)
    assert currency is not None
    facts.clock_changed(tx, moment, found, currency)
    if days.day(tx, agency, found.business_date):
        facts.day_opened(tx, moment, date=found.business_date, version=found.business_date.toordinal())


def next_cases(
    tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID | None, limit: int
) -> uuid.UUID | None:
    """Titles placed and states of the next ``limit`` cases in id order; the last of their ids, None when
    none was left.
    """
    moment = moments.read(tx, agency)
    placed, last = portfolio.titles_of(tx, agency, after=after, cases=limit)
    facts.titles_placed(tx, moment, placed, batch_id=None)
    if last is not None:
        facts.cases_changed(tx, moment, cases.states(tx, agency, after=after, last=last))
    return last
