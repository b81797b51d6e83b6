"""Facts of this service: chunks of messages of one partition and channel, and suppressed contact points."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence

from notify_service import store
from notify_service.domain import messages
from recupera.case.v1 import case_pb2
from recupera.notify.v1 import notify_facts_pb2, notify_pb2
from servicekit import dates, db, facts, topics

_CHANNELS = {
    messages.Channel.EMAIL: case_pb2.CHANNEL_EMAIL,
    messages.Channel.SMS: case_pb2.CHANNEL_SMS,
}
_REASONS = {
    messages.Reason.BOUNCED: notify_pb2.Suppression.REASON_BOUNCED,
    messages.Reason.OPT_OUT: notify_pb2.Suppression.REASON_OPT_OUT,
    messages.Reason.COMPLAINT: notify_pb2.Suppression.REASON_COMPLAINT,
}


def messages_changed(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    told: Sequence[store.Told],
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Publish `MessagesChanged` for these messages, at most 500 a chunk; the anchors of their cases are
    locked.
    """
    partitions = topics.catalog().of(store.FACT).partitions
    for channel in messages.Channel:
        rows = [one for one in told if one.channel is channel]
        for partition, chunk in facts.by_partition(
            rows, case_id=lambda one: one.case_id, partitions=partitions
        ):
            fact = _fact(agency, now, business_date)
            body = fact.messages_changed
            body.channel = _CHANNELS[channel]
            places: dict[str, int] = {}
            for one in chunk:
                body.case_ids.append(one.case_id.bytes)
                body.message_ids.append(one.id.bytes)
                body.person_ids.append(one.person_id.bytes if one.person_id else b"")
                body.states.append(notify_pb2.Message.State.Value(f"STATE_{one.state}"))
                body.reservation_keys.append(one.id.bytes)
                body.attempted.append(messages.ATTEMPTED[one.state])
                body.rules.append(one.rule)
                body.template_index.append(places.setdefault(one.template, len(places)))
            body.table_templates.extend(places)
            tx.publish(fact, partition=partition)


def contact_point_suppressed(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    person_id: uuid.UUID | None,
    contact_point_id: uuid.UUID,
    reason: messages.Reason,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Publish `ContactPointSuppressed` in the partition of the case, whose anchor is locked."""
    fact = _fact(agency, now, business_date)
    fact.subject = contact_point_id.bytes
    fact.version = 1
    body = fact.contact_point_suppressed
    body.case_id = case_id.bytes
    body.person_id = person_id.bytes if person_id else b""
    body.contact_point_id = contact_point_id.bytes
    body.reason = _REASONS[reason]
    tx.publish(fact, case_id=case_id)


def _fact(
    agency: uuid.UUID, now: datetime.datetime, business_date: datetime.date
) -> notify_facts_pb2.NotifyFact:
    return notify_facts_pb2.NotifyFact(
        agency=agency.bytes,
        occurred_at=dates.to_timestamp(now),
        business_date=dates.to_proto(business_date),
    )
