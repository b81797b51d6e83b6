"""Asking for messages: by steps of the ladder, by instalments, by a person. Nothing is sent here."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable, Sequence

from notify_service import store
from notify_service.domain import messages
from notify_service.usecases import facts, texts
from recupera.agreement.v1 import agreement_facts_pb2, agreement_pb2
from recupera.case.v1 import case_facts_pb2, case_pb2
from servicekit import dates, db, errors

CHANNELS = {case_pb2.CHANNEL_EMAIL: messages.Channel.EMAIL, case_pb2.CHANNEL_SMS: messages.Channel.SMS}
"""Channels of the ladder on which this service acts."""


class TemplateUnknown(errors.ServiceError):
    """No template of this code, neither the agency's nor the platform's."""

    status = errors.Status.NOT_FOUND


class TemplateNotForRequests(errors.ServiceError):
    """The template belongs to an instalment: it is sent when the instalment is notified, not on request."""

    status = errors.Status.FAILED_PRECONDITION


class CaseUnknown(errors.ServiceError):
    """The agency has no such case."""

    status = errors.Status.NOT_FOUND


def request_steps(
    tx: db.Transaction, agency: uuid.UUID, *, chunks: Iterable[case_facts_pb2.StepsDue]
) -> None:
    """Make a message for each step of the ladder that is an e-mail or an SMS, in one statement over all
    chunks.

    The same (case, step, template, date) is made once, whatever comes twice.
    """
    requests = [request for chunk in chunks for request in _of_steps(chunk)]
    store.add_messages(tx, agency, requests)


def _of_steps(chunk: case_facts_pb2.StepsDue) -> Iterable[messages.NewMessage]:
    date = dates.from_proto(chunk.date, "date")
    for place, case_id in enumerate(chunk.case_ids):
        step = chunk.table_steps[chunk.step_index[place]]
        if step.channel in CHANNELS:
            person = chunk.person_ids[place] if chunk.person_ids else b""
            yield messages.NewMessage(
                case_id=uuid.UUID(bytes=case_id),
                person_id=uuid.UUID(bytes=person) if person else None,
                channel=CHANNELS[step.channel],
                purpose=messages.Purpose.COLLECTION,
                template=step.template,
                step_id=uuid.UUID(bytes=step.step_id),
                occasion=f"LADDER:{step.level}",
                date=date,
            )


def request_reminders(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    chunks: Sequence[tuple[datetime.datetime, datetime.date, agreement_facts_pb2.InstalmentsChanged]],
) -> None:
    """Make an `agreement-reminder` for each instalment that became NOTIFIED; (occurred at, business date,
    chunk).

    One message for each case that the agreement covers: its holder is written to once for each case.
    """
    for occurred_at, business_date, chunk in chunks:
        requests = [
            messages.NewMessage(
                case_id=uuid.UUID(bytes=case_id),
                person_id=None,
                channel=messages.Channel.EMAIL,
                purpose=messages.Purpose.AGREEMENT_REMINDER,
                template=messages.AGREEMENT_REMINDER,
                step_id=uuid.UUID(bytes=chunk.instalment_ids[place]),
                occasion=f"INSTALMENT:{chunk.numbers[place]}",
                date=business_date,
                agreement_id=uuid.UUID(bytes=chunk.agreement_ids[place]),
                instalment_number=chunk.numbers[place],
                instalment_due_date=dates.from_epoch_days(chunk.due_days[place]),
            )
            for place, case_id in enumerate(chunk.case_ids)
            if chunk.states[place] == agreement_pb2.Instalment.STATE_NOTIFIED
        ]
        told = store.add_messages(tx, agency, requests)
        _tell(tx, agency, told, now=occurred_at, business_date=business_date)


def request_message(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    template: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> store.Record:
    """Make a message to the holder of a case; the one that is there where the same was asked for today.

    The caller made sure that the case is the agency's. Raises TemplateUnknown, TemplateNotForRequests.
    """
    if template == messages.AGREEMENT_REMINDER:
        raise TemplateNotForRequests("reminders of instalments are sent by themselves", template=template)
    channel = texts.channel_of(tx, agency, code=template)
    if channel is None:
        raise TemplateUnknown("no template of this code", template=template)
    told = store.add_messages(
        tx,
        agency,
        [
            messages.NewMessage(
                case_id=case_id,
                person_id=None,
                channel=channel,
                purpose=messages.Purpose.COLLECTION,
                template=template,
                step_id=messages.NO_STEP,
                occasion="REQUEST",
                date=business_date,
            )
        ],
    )
    _tell(tx, agency, told, now=now, business_date=business_date)
    message_id = store.find_request(
        tx, agency, case_id=case_id, step_id=messages.NO_STEP, template=template, date=business_date
    )
    assert message_id is not None
    found = store.find_message(tx, agency, message_id)
    assert found is not None
    return found


def _tell(
    tx: db.Transaction,
    agency: uuid.UUID,
    told: Sequence[store.Told],
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Tell that messages were asked for, for the case's timeline (S1-10)."""
    store.lock_cases(tx, agency, [one.case_id for one in told])
    facts.messages_changed(tx, agency, told=told, now=now, business_date=business_date)
