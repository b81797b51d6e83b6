"""The business day: opened for all, run slice by slice behind the due and breach run, never skipped."""

from __future__ import annotations

import collections
import datetime
import uuid

from case_service.domain import cases as machine
from case_service.domain import ladder, rules
from case_service.store import agency as agencies
from case_service.store import cases, days
from case_service.usecases import facts, moments, promises
from servicekit import clock, db, errors

AHEAD = datetime.timedelta(days=31)
"""How far a business date may be ahead of the agency's calendar: it never goes back, so a slip of the year
would be for good.
"""


class BusinessDateBackward(errors.ServiceError):
    """Dates only move forward: this one was passed over."""

    status = errors.Status.FAILED_PRECONDITION


class BusinessDateTooFar(errors.ServiceError):
    """The date is too far ahead of the agency's clock."""

    status = errors.Status.FAILED_PRECONDITION


def run_day(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date) -> None:
    """Open the date and tell all; a date that is open stays as it is.

    Raises AgencyClockUnknown, BusinessDateBackward, BusinessDateTooFar.
    """
    agencies.lock(tx, agency)
    known = clock.read(tx, agency)
    if days.day(tx, agency, date):
        return
    if date < known.business_date:
        raise BusinessDateBackward("the business date is later already", business_date=known.business_date)
    if date > known.local_date() + AHEAD:
        raise BusinessDateTooFar("the date is too far ahead of the agency's clock", date=date)
    days.open_day(tx, agency, date)
    clock.open_day(tx, agency, date)
    moment = moments.Moment(agency=agency, now=known.now(), business_date=date, zone=known.time_zone)
    facts.day_opened(tx, moment, date=date, version=date.toordinal())


def open_due(tx: db.Transaction, agency: uuid.UUID, *, hour: int) -> datetime.date | None:
    """Open the agency's calendar date where it is past the business date and ``hour`` o'clock there; that date.

    Dates that were missed meanwhile are passed over: the runs of a date catch up with everything before it. A simulated
    clock is left to those who set it, and the first date of an agency to its people. Raises AgencyClockUnknown.
    """
    known = clock.read(tx, agency)
    date = known.due_date(hour=hour)
    if known.simulated or date <= known.business_date:
        return None
    run_day(tx, agency, date=date)
    return date


def day_done(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date, partition: int) -> None:
    """The due and breach run of ``date`` is over in the partition: run its slices of this and of earlier
    dates.

    A date that is not open here yet is remembered, and runs once it is. Raises AgencyClockUnknown.
    """
    if not 0 <= partition < days.PARTITIONS:
        raise errors.invalid("partition", "expected a partition of the topic")
    moments.read(tx, agency)
    days.clear(tx, agency, date=date, partition=partition)
    run_cleared(tx, agency, partition=partition)


def run_cleared(
    tx: db.Transaction, agency: uuid.UUID, *, partition: int | None, limit: int | None = None
) -> int:
    """Run slices that may run, oldest date first; how many. A slice in the hands of another process is left
    to it.
    """
    found = days.cleared(tx, agency, partition=partition)[:limit]
    for row in found:
        _run_slice(tx, agency, date=row.date, partition=row.partition)
    return len(found)


def late(tx: db.Transaction, agency: uuid.UUID, *, minutes: int) -> dict[datetime.date, int]:
    """Dates with slices not done ``minutes`` machine minutes after they were opened, with how many."""
    return {row.date: row.slices for row in days.late(tx, agency, minutes=minutes)}


def _run_slice(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date, partition: int) -> None:
    present = moments.read(tx, agency)
    moment = moments.Moment(agency=agency, now=present.now, business_date=date, zone=present.zone)
    grace = rules.Book(agencies.rules_of(tx, agency)).caps(date).promise_grace_days
    _expire_holds(tx, moment, partition=partition)
    days.lock_slice(tx, agency, partition=partition)
    judged = days.run_promises(tx, agency, date=date, partition=partition, grace_days=grace, now=moment.now)
    promises.count(tx, kept=judged.kept, broken=judged.broken)
    worked = days.run_ladder(
        tx, agency, ladder=ladder.DEFAULT, date=date, partition=partition, grace_days=grace, now=moment.now
    )
    levels = agencies.ladder_of(tx, agency, ladder.DEFAULT)
    facts.collection_entered(tx, moment, partition=partition, worked=worked)
    facts.steps_due(tx, moment, partition=partition, date=date, worked=worked, levels=levels)
    days.close_slice(
        tx,
        agency,
        date=date,
        partition=partition,
        cases_seen=worked.cases_seen,
        agenda_items=judged.agenda_items + worked.agenda_items,
        steps=collections.Counter(levels[position].channel for position in worked.step_levels),
    )


def _expire_holds(tx: db.Transaction, moment: moments.Moment, *, partition: int) -> None:
    over = days.expired_holds(tx, moment.agency, date=moment.business_date, partition=partition)
    db.lock_anchors(tx, "cases", moment.agency, [hold.case_id for hold in over], column="id")
    moved = []
    for hold in over:
        days.expire_hold(tx, moment.agency, case_id=hold.case_id, hold_id=hold.id)
        row = cases.lock(tx, moment.agency, hold.case_id)
        assert row is not None
        entries = [
            cases.Entry(case_id=hold.case_id, kind="HOLD", code="EXPIRED", actor="system", subject_id=hold.id)
        ]
        still_held = any(not other.channels for other in cases.holds(tx, moment.agency, [hold.case_id]))
        if row.state == machine.State.ON_HOLD and not still_held:
            position = machine.apply(cases.position(row), machine.Event.HOLD_RELEASED)
            cases.move(tx, moment.agency, hold.case_id, position, now=moment.now)
            entries.append(
                cases.Entry(case_id=hold.case_id, kind="STATE_CHANGED", code=position.state, actor="system")
            )
            moved.append(cases.lock(tx, moment.agency, hold.case_id))
        cases.note(tx, moment.agency, entries, now=moment.now, business_date=moment.business_date)
        facts.hold_changed(tx, moment, hold=hold, state_="EXPIRED")
    facts.cases_changed(tx, moment, moved)
