"""What people do on a case: change its state, place and release holds, put contacts on record."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
import zoneinfo
from collections.abc import Sequence
from typing import Any

from case_service.domain import cases as machine
from case_service.domain import contact
from case_service.store import cases, days, outcomes, rollback
from case_service.store import permission as reservations
from case_service.usecases import facts, moments, promises
from servicekit import db, errors, ids

PERSI = "PERSI"


class CaseNotFound(errors.ServiceError):
    """No such case in this agency, or none that the caller may see."""

    status = errors.Status.NOT_FOUND


class HoldNotFound(errors.ServiceError):
    """No such hold on this case."""

    status = errors.Status.NOT_FOUND


class HoldNotActive(errors.ServiceError):
    """The hold was released or has expired."""

    status = errors.Status.FAILED_PRECONDITION


class HoldAlreadyOver(errors.ServiceError):
    """The last day of the hold is before the business date."""

    status = errors.Status.INVALID_ARGUMENT


class PersonNotOnCase(errors.ServiceError):
    """The person is neither the debtor nor a guarantor of the case."""

    status = errors.Status.NOT_FOUND


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contact:
    """A contact with a person of the case. ``act_key`` identifies the act; ``version`` orders what is told
    of it.
    """

    act_key: uuid.UUID
    person_id: uuid.UUID | None
    channel: contact.Channel
    outcome: contact.Outcome
    manual: bool
    promise: contact.Promise | None
    note: str
    version: int


def open_case(tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> Any:
    """The case, locked, for a command. Raises CaseNotFound, CaseFrozen."""
    row = cases.lock(tx, agency, case_id)
    if row is None:
        raise CaseNotFound("no such case", case=case_id)
    if row.frozen_by is not None:
        raise machine.CaseFrozen("the batch that brought the case is being taken back", case=case_id)
    return row


def change_state(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    target: machine.State,
    sub_state: machine.SubState,
    reason: str,
    version: int | None,
    actor: str,
) -> None:
    """Move the case by hand along the state machine; RETURNED withdraws the titles that are open.

    ``version`` is the one the caller read (None: whatever it is). Raises CaseNotFound, CaseFrozen,
    VersionMismatch, CaseTransitionRefused, CaseStillOpen, CaseInAgreement, CaseUnderPersi.
    """
    moment = moments.read(tx, agency)
    row = open_case(tx, agency, case_id)
    if version is not None and version != row.version:
        raise errors.VersionMismatch("the case has changed", case=case_id)
    event, moved = machine.by_hand(
        cases.position(row),
        target=target,
        sub_state=sub_state,
        open_titles=row.open_titles,
        agreement_in_force=row.agreements_in_force > 0,
        persi=any(hold.type == PERSI for hold in cases.holds(tx, agency, [case_id])),
    )
    cases.move(tx, agency, case_id, moved, now=moment.now)
    if event is machine.Event.RECALLED:
        facts.titles_withdrawn(
            tx, moment, rollback.withdraw(tx, agency, case_ids=[case_id], batch_id=None, now=moment.now)
        )
    cases.note(
        tx,
        agency,
        [
            cases.Entry(
                case_id=case_id,
                kind="STATE_CHANGED",
                code=moved.state if event is not None else moved.sub_state,
                actor=actor,
                note=reason,
            )
        ],
        now=moment.now,
        business_date=moment.business_date,
    )
    facts.cases_changed(tx, moment, [cases.lock(tx, agency, case_id)])


def place_hold(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    type_: str,
    channels: Sequence[contact.Channel],
    until: datetime.date | None,
    reason: str,
    actor: str,
) -> Any:
    """Block the channels (none: all, and the case is ON_HOLD). Returns the hold.

    Raises CaseNotFound, CaseFrozen, HoldAlreadyOver, CaseTransitionRefused (the case is over).
    """
    moment = moments.read(tx, agency)
    if until is not None and until < moment.business_date:
        raise HoldAlreadyOver("the hold would be over already", business_date=moment.business_date)
    return _hold(
        tx,
        moment,
        row=open_case(tx, agency, case_id),
        type_=type_,
        channels=sorted({str(channel) for channel in channels}),
        until=until,
        reason=reason,
        actor=actor,
    )


def _hold(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    row: Any,
    type_: str,
    channels: Sequence[str],
    until: datetime.date | None,
    reason: str,
    actor: str,
) -> Any:
    before = cases.position(row)
    moved = machine.apply(before, machine.Event.HOLD_PLACED)
    hold = cases.add_hold(
        tx,
        moment.agency,
        case_id=row.id,
        type_=type_,
        channels=channels,
        until=until,
        reason=reason,
        now=moment.now,
    )
    entries = [
        cases.Entry(case_id=row.id, kind="HOLD", code=type_, actor=actor, note=reason, subject_id=hold.id)
    ]
    if not channels and moved != before:
        cases.move(tx, moment.agency, row.id, moved, now=moment.now)
        entries.append(cases.Entry(case_id=row.id, kind="STATE_CHANGED", code=moved.state, actor=actor))
    cases.note(tx, moment.agency, entries, now=moment.now, business_date=moment.business_date)
    facts.hold_changed(tx, moment, hold=hold, state_="ACTIVE")
    if not channels and moved != before:
        facts.cases_changed(tx, moment, [cases.lock(tx, moment.agency, row.id)])
    return hold


def release_hold(
    tx: db.Transaction, agency: uuid.UUID, *, case_id: uuid.UUID, hold_id: uuid.UUID, reason: str, actor: str
) -> Any:
    """Release a hold; the case goes back to where it was when no other holds all its channels. Returns the
    hold.

    Raises CaseNotFound, CaseFrozen, HoldNotFound, HoldNotActive.
    """
    moment = moments.read(tx, agency)
    row = open_case(tx, agency, case_id)
    hold = cases.release_hold(tx, agency, case_id=case_id, hold_id=hold_id)
    if hold is None:
        if cases.hold(tx, agency, case_id=case_id, hold_id=hold_id) is None:
            raise HoldNotFound("no such hold", hold=hold_id)
        raise HoldNotActive("the hold is over", hold=hold_id)
    entries = [
        cases.Entry(
            case_id=case_id, kind="HOLD", code="RELEASED", actor=actor, note=reason, subject_id=hold_id
        )
    ]
    still_held = any(not other.channels for other in cases.holds(tx, agency, [case_id]))
    back = row.state == machine.State.ON_HOLD and not still_held
    if back:
        moved = machine.apply(cases.position(row), machine.Event.HOLD_RELEASED)
        cases.move(tx, agency, case_id, moved, now=moment.now)
        entries.append(cases.Entry(case_id=case_id, kind="STATE_CHANGED", code=moved.state, actor=actor))
    cases.note(tx, agency, entries, now=moment.now, business_date=moment.business_date)
    facts.hold_changed(tx, moment, hold=hold, state_="RELEASED")
    if back:
        facts.cases_changed(tx, moment, [cases.lock(tx, agency, case_id)])
    return hold


def record_contact(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    person_id: uuid.UUID | None,
    channel: contact.Channel,
    outcome: contact.Outcome,
    promise: contact.Promise | None,
    note: str,
    actor: str,
) -> Any:
    """Put a contact that a person made on record. It counts in the caps (R26). Returns ``id`` and ``at``.

    Raises CaseNotFound, CaseFrozen, CaseNotContactable, PersonNotOnCase, PromiseInvalid.
    """
    moment = moments.read(tx, agency)
    row = open_case(tx, agency, case_id)
    if row.state in machine.TERMINAL:
        raise contact.CaseNotContactable("the case is over", case=case_id, state=row.state)
    if person_id is not None and not cases.person_of(tx, agency, case_id=case_id, person_id=person_id):
        raise PersonNotOnCase("the person is not on the case", person=person_id)
    act_key = ids.new()
    recorded = record(
        tx,
        moment,
        row=row,
        what=Contact(
            act_key=act_key,
            person_id=person_id or row.debtor_id,
            channel=channel,
            outcome=outcome,
            manual=True,
            promise=promise,
            note=note,
            version=1,
        ),
        actor=actor,
    )
    reservations.keep(
        tx,
        agency,
        [
            {
                "key": act_key,
                "case_id": case_id,
                "person_id": person_id or row.debtor_id,
                "channel": channel,
                "purpose": "COLLECTION",
                "state": "CLOSED",
                "counts": True,
                "local_date": moment.now.astimezone(_zone(moment)).date(),
                "contact_point_id": None,
                "rule": "",
                "explanation": "",
                "time_zone": moment.zone,
                "now": moment.now,
                "valid_until": None,
                "right_party_call": channel is contact.Channel.CALL and outcome in contact.RIGHT_PARTY,
            }
        ],
    )
    return recorded


def _zone(moment: moments.Moment) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(moment.zone)


def record(tx: db.Transaction, moment: moments.Moment, *, row: Any, what: Contact, actor: str) -> Any:
    """A contact on record with what follows from it: promise, sub-state, timeline, agenda, and a hold where
    the debt is disputed (nobody is contacted about a disputed debt until someone has looked; R26).

    None where this is old news. The case is locked. Raises PromiseInvalid.
    """
    if what.promise is not None:
        contact.check_promise(what.promise, business_date=moment.business_date, currency=row.currency)
    recorded = outcomes.record(
        tx,
        moment.agency,
        {
            "act_key": what.act_key,
            "case_id": row.id,
            "person_id": what.person_id,
            "channel": what.channel,
            "outcome": what.outcome,
            "manual": what.manual,
            "promise_date": what.promise.date if what.promise else None,
            "promise_amount_minor": what.promise.amount_minor if what.promise else None,
            "note": what.note,
            "business_date": moment.business_date,
            "at": moment.now,
            "version": what.version,
        },
    )
    if recorded is None:
        return None
    details = {"channel": str(what.channel)}
    if what.promise is not None:
        outcomes.add_promise(
            tx,
            moment.agency,
            case_id=row.id,
            act_key=what.act_key,
            made_on=moment.business_date,
            promise_date=what.promise.date,
            amount_minor=what.promise.amount_minor,
            currency=what.promise.currency,
        )
        promises.count(tx, made=1)
        details |= {
            "promise_date": str(what.promise.date),
            "promise_amount_minor": str(what.promise.amount_minor),
        }
    cases.note(
        tx,
        moment.agency,
        [
            cases.Entry(
                case_id=row.id,
                kind="CONTACT" if what.manual else "CALL_ENDED",
                code=what.outcome,
                actor=actor,
                details=details,
                note=what.note,
                subject_id=what.act_key,
            )
        ],
        now=moment.now,
        business_date=moment.business_date,
    )
    days.finish_agenda(tx, moment.agency, case_ids=[row.id], date=moment.business_date)
    if what.outcome is contact.Outcome.CALLBACK and what.promise is None:
        days.add_agenda(
            tx,
            moment.agency,
            case_id=row.id,
            date=moment.business_date + datetime.timedelta(days=1),
            reason="CALLBACK",
        )
    position = cases.position(row)
    moved = dataclasses.replace(position, sub_state=contact.sub_state(position.sub_state, what.outcome))
    if position.state is machine.State.IN_COLLECTION and moved != position:
        cases.move(tx, moment.agency, row.id, moved, now=moment.now)
        facts.cases_changed(tx, moment, [cases.lock(tx, moment.agency, row.id)])
    if what.outcome is contact.Outcome.DISPUTE and position.state not in machine.TERMINAL:
        _hold(
            tx,
            moment,
            row=cases.lock(tx, moment.agency, row.id),
            type_="DISPUTE",
            channels=(),
            until=None,
            reason="",
            actor=actor,
        )
    facts.contact_recorded(
        tx,
        moment,
        case_id=row.id,
        contact_id=recorded.id,
        channel_=what.channel,
        outcome=what.outcome,
        promise_date=what.promise.date if what.promise else None,
        promise_amount_minor=what.promise.amount_minor if what.promise else None,
        currency=row.currency,
    )
    return recorded
