"""What became of messages after they left: delivery, bounces, complaints, opt-outs; counts; the present
state again.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid

from notify_service import store
from notify_service.domain import mail, messages
from notify_service.usecases import facts
from servicekit import clock, db, errors

REPUBLISH_ROWS = 5_000
"""Messages in one transaction of `republish`."""

_STATES = {
    mail.Outcome.DELIVERED: messages.State.DELIVERED,
    mail.Outcome.BOUNCED: messages.State.BOUNCED,
    mail.Outcome.FAILED: messages.State.FAILED,
}
_REASONS = {
    mail.Outcome.BOUNCED: messages.Reason.BOUNCED,
    mail.Outcome.COMPLAINT: messages.Reason.COMPLAINT,
    mail.Outcome.OPT_OUT: messages.Reason.OPT_OUT,
}


class MessageNotFound(errors.ServiceError):
    """The agency has no such message."""

    status = errors.Status.NOT_FOUND


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of an agency's messages."""

    by_state: dict[str, int]
    by_rule: dict[str, int]
    messages: int
    due: int
    outbox: int
    parked: int


def report(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    message_id: uuid.UUID,
    outcome: mail.Outcome,
    code: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> store.Record:
    """Record what a provider or a mail that came back says of a message; the message afterwards.

    A bounce, a complaint and an opt-out suppress the contact point. The same report again changes nothing.
    Raises MessageNotFound, MessageNotSent, ReportTooLate.
    """
    row = store.lock_message(tx, agency, message_id)
    if row is None:
        raise MessageNotFound("no such message", id=str(message_id))
    current = row.state
    if outcome in _STATES and messages.reported(current, _STATES[outcome]):
        failure = code if outcome in (mail.Outcome.BOUNCED, mail.Outcome.FAILED) else row.failure
        told = store.report(tx, agency, message_id, state=_STATES[outcome], failure=failure)
        facts.messages_changed(tx, agency, told=[told], now=now, business_date=business_date)
    if outcome in _REASONS:
        if row.contact_point_id is None or not messages.ATTEMPTED[current]:
            raise messages.MessageNotSent("the message was not sent", state=current.value)
        for _, contact_point_id, reason in store.suppress(
            tx, agency, reasons=[(message_id, _REASONS[outcome])], now=now
        ):
            facts.contact_point_suppressed(
                tx,
                agency,
                case_id=row.case_id,
                person_id=row.person_id,
                contact_point_id=contact_point_id,
                reason=reason,
                now=now,
                business_date=business_date,
            )
    found = store.find_message(tx, agency, message_id)
    assert found is not None
    return found


def report_mail(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    raw: bytes,
    now: datetime.datetime,
    business_date: datetime.date,
) -> store.Record:
    """Record what a mail to a return or unsubscribe address says. Raises as `report`, and MailNotReport.

    A mail about another agency's message is answered as one about an unknown message.
    """
    found = mail.read(raw)
    if found.agency != agency:
        raise MessageNotFound("no such message", id=str(found.message_id))
    return report(
        tx,
        agency,
        message_id=found.message_id,
        outcome=found.outcome,
        code=found.code,
        now=now,
        business_date=business_date,
    )


def summarize(
    tx: db.Transaction, agency: uuid.UUID, *, now: datetime.datetime, date: datetime.date | None
) -> Summary:
    """Count messages by state and rule; `due` are those not settled that are due at `now`, acts under way
    included.
    """
    rows, outbox, parked = store.summarize(tx, agency, now=now, date=date)
    by_state: dict[str, int] = {}
    by_rule: dict[str, int] = {}
    for state, rule, count, _ in rows:
        by_state[state] = by_state.get(state, 0) + count
        if rule:
            by_rule[rule] = by_rule.get(rule, 0) + count
    return Summary(
        by_state=by_state,
        by_rule=by_rule,
        messages=sum(by_state.values()),
        due=sum(due for _, _, _, due in rows),
        outbox=outbox,
        parked=parked,
    )


def republish_messages(tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID) -> uuid.UUID | None:
    """Publish the present state of the next messages in id order; the id to go on after, None at the end."""
    told = store.present(tx, agency, after=after, limit=REPUBLISH_ROWS)
    agency_clock = clock.read(tx, agency)
    store.lock_cases(tx, agency, [one.case_id for one in told])
    facts.messages_changed(
        tx, agency, told=told, now=agency_clock.now(), business_date=agency_clock.business_date
    )
    return told[-1].id if len(told) == REPUBLISH_ROWS else None


def republish_suppressions(tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID) -> uuid.UUID | None:
    """Publish the next suppressed contact points in id order; the id to go on after, None at the end."""
    rows = store.list_suppressions(tx, agency, after=after, limit=REPUBLISH_ROWS)
    agency_clock = clock.read(tx, agency)
    store.lock_cases(tx, agency, [row.case_id for row in rows])
    for row in rows:
        facts.contact_point_suppressed(
            tx,
            agency,
            case_id=row.case_id,
            person_id=row.person_id,
            contact_point_id=row.contact_point_id,
            reason=row.reason,
            now=agency_clock.now(),
            business_date=agency_clock.business_date,
        )
    return rows[-1].id if len(rows) == REPUBLISH_ROWS else None
