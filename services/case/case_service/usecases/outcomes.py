"""What notify, dialer and agreement report; each fact is applied once, and only if it is news."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Any

from case_service.domain import cases as machine
from case_service.domain import contact
from case_service.store import cases, days, outcomes
from case_service.usecases import cases as commands
from case_service.usecases import facts, moments, promises
from servicekit import db, errors

LEFT = frozenset({"SENT", "DELIVERED", "UNKNOWN"})
"""Messages that left, or may have: one whose sender crashed in the act is counted as the person would count it."""
UNDER_WAY = frozenset({"REQUESTED", "SCHEDULED", "ACTING"})
"""States of a message whose reservation stays open."""


class CaseUnknown(errors.ServiceError):
    """A fact about a case that is not here (an older database was restored): it waits."""

    status = errors.Status.NOT_FOUND


class TitlesUnknown(errors.ServiceError):
    """A fact about titles that are not here (an older database was restored): it waits."""

    status = errors.Status.NOT_FOUND


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A message after a change; ``state`` and ``rule`` as in recupera.notify.v1."""

    case_id: uuid.UUID
    message_id: uuid.UUID
    person_id: uuid.UUID | None
    reservation_key: uuid.UUID | None
    state: str
    attempted: bool
    rule: str
    template: str


@dataclasses.dataclass(frozen=True)
class Novated:
    """A title that an agreement made in place of others; minor units of the case's currency, rates in percent times
    10 000 as in recupera.case.v1.ChargeTerms."""

    case_id: uuid.UUID
    title_id: uuid.UUID
    title_reference: str
    principal_minor: int
    due_date: datetime.date
    penalty_rate_e4: int
    monthly_interest_rate_e4: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A call after a change; ``state`` and ``disposition`` (empty: none) as in recupera.dialer.v1."""

    case_id: uuid.UUID
    call_id: uuid.UUID
    person_id: uuid.UUID | None
    contact_point_id: uuid.UUID | None
    reservation_key: uuid.UUID | None
    state: str
    attempted: bool
    right_party: bool
    disposition: str
    promise: contact.Promise | None
    rule: str
    version: int


def happened(
    tx: db.Transaction, agency: uuid.UUID, *, at: datetime.datetime, business_date: datetime.date
) -> moments.Moment:
    """The moment of a fact: when its service says it happened. Raises AgencyClockUnknown."""
    present = moments.read(tx, agency)
    return moments.Moment(agency=agency, now=at, business_date=business_date, zone=present.zone)


def messages_changed(
    tx: db.Transaction, moment: moments.Moment, *, messages: Sequence[Message], channel: contact.Channel
) -> None:
    """Close reservations, put messages that left on record, write timelines, and mark cases where nobody
    was reached before.

    Raises CaseUnknown.
    """
    agency = moment.agency
    case_ids = sorted({message.case_id for message in messages})
    if len(db.lock_anchors(tx, "cases", agency, case_ids, column="id")) != len(case_ids):
        raise CaseUnknown("messages of cases that are not here")
    over = [message for message in messages if message.reservation_key and message.state not in UNDER_WAY]
    outcomes.close_reservations(
        tx,
        agency,
        keys=[message.reservation_key for message in over if message.reservation_key],
        attempted=[message.attempted for message in over],
    )
    left = [message for message in messages if message.state in LEFT]
    outcomes.record_messages(
        tx,
        agency,
        [
            {
                "act_key": message.message_id,
                "case_id": message.case_id,
                "person_id": message.person_id,
                "channel": channel,
                "outcome": contact.Outcome.MESSAGE_SENT,
                "business_date": moment.business_date,
                "at": moment.now,
            }
            for message in sorted(left, key=lambda message: message.message_id)
        ],
    )
    outcomes.note_once(
        tx,
        agency,
        [
            {
                "case_id": message.case_id,
                "at": moment.now,
                "business_date": moment.business_date,
                "actor": "notify",
                "kind": "MESSAGE",
                "code": message.state,
                "details": _details(channel=channel, template=message.template, rule=message.rule),
                "subject_id": message.message_id,
            }
            for message in messages
        ],
    )
    moved = outcomes.reached_nobody(
        tx, agency, case_ids=sorted({message.case_id for message in left}), now=moment.now
    )
    facts.cases_changed(tx, moment, sorted(moved, key=lambda row: row.id))


def contact_point_suppressed(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    case_id: uuid.UUID,
    contact_point_id: uuid.UUID,
    reason: str,
) -> None:
    """The address is never used again, whoever has it. Raises CaseUnknown."""
    _lock(tx, moment, case_id)
    outcomes.bar(tx, moment.agency, contact_point_id=contact_point_id, reason=reason, now=moment.now)
    outcomes.note_once(
        tx, moment.agency, [_entry(moment, case_id, "CONTACT_POINT", reason, "notify", contact_point_id)]
    )


_OUTCOME_OF_STATE = {
    "BUSY": contact.Outcome.BUSY,
    "NO_ANSWER": contact.Outcome.NO_ANSWER,
    "INVALID_NUMBER": contact.Outcome.INVALID_NUMBER,
    "MACHINE": contact.Outcome.MACHINE,
    "ABANDONED": contact.Outcome.ABANDONED,
    "FAILED": contact.Outcome.FAILED,
    "UNKNOWN": contact.Outcome.UNKNOWN,
}


def call_ended(tx: db.Transaction, moment: moments.Moment, *, call: Call) -> None:
    """Close the reservation; a call that is over is put on record with all that follows; a number that is
    wrong is barred.

    An answered call that no agent has dispositioned yet only closes its reservation. Raises CaseUnknown,
    PromiseInvalid.
    """
    row = _lock(tx, moment, call.case_id)
    agency = moment.agency
    if call.reservation_key is not None:
        outcomes.close_call(
            tx,
            agency,
            key=call.reservation_key,
            attempted=call.attempted,
            right_party=call.right_party,
            abandoned=call.state == "ABANDONED",
            version=call.version,
        )
    if not call.attempted:
        entry = _entry(
            moment, call.case_id, "CALL_REFUSED", call.state, "dialer", call.call_id, rule=call.rule
        )
        outcomes.note_once(tx, agency, [entry])
        return
    outcome = contact.Outcome(call.disposition) if call.disposition else _OUTCOME_OF_STATE.get(call.state)
    if outcome is None:
        return
    recorded = commands.record(
        tx,
        moment,
        row=row,
        what=commands.Contact(
            act_key=call.call_id,
            person_id=call.person_id,
            channel=contact.Channel.CALL,
            outcome=outcome,
            manual=False,
            promise=call.promise,
            note="",
            version=call.version,
        ),
        actor="dialer",
    )
    if recorded is not None and outcome in contact.BARS and call.contact_point_id is not None:
        outcomes.bar(
            tx,
            agency,
            contact_point_id=call.contact_point_id,
            reason=contact.BARS[outcome],
            now=moment.now,
        )


def titles_novated(tx: db.Transaction, moment: moments.Moment, *, titles: Sequence[Novated]) -> None:
    """Take up titles that a novation made (S5-04): they are titles of their case like others, so the ladder sees them
    when the novation is kept after a breach. They come before the originals close, which therefore resolves nothing.

    The principal placed in the case grows by them. Known ones are left as they are. Raises CaseUnknown.
    """
    agency = moment.agency
    case_ids = sorted({title.case_id for title in titles})
    if len(db.lock_anchors(tx, "cases", agency, case_ids, column="id")) != len(case_ids):
        raise CaseUnknown("novated titles of cases that are not here")
    changed = outcomes.add_novated(tx, agency, [dataclasses.asdict(one) for one in titles], now=moment.now)
    facts.cases_changed(
        tx, moment, [_settled(tx, moment, row) or row for row in sorted(changed, key=lambda row: row.id)]
    )


def titles_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    case_ids: Sequence[uuid.UUID],
    title_ids: Sequence[uuid.UUID],
    versions: Sequence[int],
    states: Sequence[str],
    open_minor: Sequence[int],
    due_dates: Sequence[datetime.date] = (),
) -> None:
    """Take over open principal, states and due dates of titles (no due dates: they stay); cases whose last title was
    paid are RESOLVED_PAID, reopened ones READY.

    Raises TitlesUnknown.
    """
    agency = moment.agency
    db.lock_anchors(tx, "cases", agency, case_ids, column="id")
    if outcomes.known_titles(tx, agency, title_ids) != len(set(title_ids)):
        raise TitlesUnknown("titles that are not here")
    changed = outcomes.change_titles(
        tx,
        agency,
        case_ids=case_ids,
        title_ids=title_ids,
        versions=versions,
        states=states,
        open_minor=open_minor,
        due_dates=due_dates,
        now=moment.now,
    )
    facts.cases_changed(
        tx, moment, [_settled(tx, moment, row) or row for row in sorted(changed, key=lambda row: row.id)]
    )


def agreement_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    case_id: uuid.UUID,
    agreement_id: uuid.UUID,
    state: str,
    version: int,
) -> None:
    """Take over the agreement's state: the case is IN_AGREEMENT while one is in force, back in collection
    when it broke (with an agenda item), paid when nothing is open. Raises CaseUnknown.
    """
    _lock(tx, moment, case_id)
    if not outcomes.change_agreement(
        tx,
        moment.agency,
        case_id=case_id,
        agreement_id=agreement_id,
        state=state,
        version=version,
        in_force=sorted(contact.IN_FORCE),
    ):
        return
    outcomes.note_once(
        tx, moment.agency, [_entry(moment, case_id, "AGREEMENT", state, "agreement", agreement_id)]
    )
    if state == "BROKEN":
        days.add_agenda(
            tx, moment.agency, case_id=case_id, date=moment.business_date, reason="AGREEMENT_BROKEN"
        )
    moved = _settled(tx, moment, cases.lock(tx, moment.agency, case_id))
    if moved is not None:
        facts.cases_changed(tx, moment, [moved])


def payment_changed(
    tx: db.Transaction,
    moment: moments.Moment,
    *,
    case_id: uuid.UUID,
    payment_id: uuid.UUID,
    state: str,
    amount_minor: int,
    allocated_minor: int,
    currency: str,
    value_date: datetime.date | None,
    version: int,
) -> None:
    """Take over what a payment brought the case; promises that it fulfils are kept.

    The timeline names the payment's whole amount: the part for this case may change while earlier ones arrive.
    Raises CaseUnknown.
    """
    row = _lock(tx, moment, case_id)
    if not outcomes.change_payment(
        tx,
        moment.agency,
        case_id=case_id,
        payment_id=payment_id,
        state=state,
        allocated_minor=allocated_minor,
        value_date=value_date,
        version=version,
    ):
        return
    entries = [
        _entry(
            moment, case_id, "PAYMENT", state, "agreement", payment_id, amount_minor=str(amount_minor),
            currency=currency
        )
    ]  # fmt: skip
    kept = outcomes.keep_promises(tx, moment.agency, case_id)
    promises.count(tx, kept=len(kept))
    entries += [_entry(moment, case_id, "PROMISE", "KEPT", "agreement", key) for key in kept]
    outcomes.note_once(tx, moment.agency, entries)
    position = cases.position(row)
    if kept and position.sub_state is machine.SubState.PTP:
        moved = dataclasses.replace(position, sub_state=machine.SubState.CONTACTED)
        cases.move(tx, moment.agency, case_id, moved, now=moment.now)
        facts.cases_changed(tx, moment, [cases.lock(tx, moment.agency, case_id)])


def _lock(tx: db.Transaction, moment: moments.Moment, case_id: uuid.UUID) -> Any:
    row = cases.lock(tx, moment.agency, case_id)
    if row is None:
        raise CaseUnknown("a fact about a case that is not here", case=case_id)
    return row


def _settled(tx: db.Transaction, moment: moments.Moment, row: Any) -> Any:
    """Move the case where money and agreements put it now; its row after, None where it stays."""
    step = machine.settle(
        cases.position(row), open_titles=row.open_titles, agreement_in_force=row.agreements_in_force > 0
    )
    if step is None:
        return None
    event, moved = step
    cases.move(tx, moment.agency, row.id, moved, now=moment.now)
    cases.note(
        tx,
        moment.agency,
        [
            cases.Entry(
                case_id=row.id,
                kind="STATE_CHANGED",
                code=moved.state,
                actor="agreement",
                details={"event": event},
            )
        ],
        now=moment.now,
        business_date=moment.business_date,
    )
    return cases.lock(tx, moment.agency, row.id)


def _entry(
    moment: moments.Moment,
    case_id: uuid.UUID,
    kind: str,
    code: str,
    actor: str,
    subject_id: uuid.UUID,
    **details: str,
) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "at": moment.now,
        "business_date": moment.business_date,
        "actor": actor,
        "kind": kind,
        "code": code,
        "details": _details(**details),
        "subject_id": subject_id,
    }


def _details(**details: str) -> dict[str, str] | None:
    return {name: str(value) for name, value in details.items() if value} or None
