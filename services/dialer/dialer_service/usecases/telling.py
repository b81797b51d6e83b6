"""The facts that the dialer publishes."""

import datetime
from collections.abc import Iterator
from uuid import UUID

from dialer_service import domain, store
from recupera.dialer.v1 import dialer_facts_pb2, dialer_pb2
from servicekit import dates, db


def tell_campaign(
    tx: db.Transaction,
    agency: UUID,
    campaign: domain.Campaign,
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    state = dialer_pb2.Campaign.State.Value(f"STATE_{campaign.state}")
    tx.publish(
        dialer_facts_pb2.DialerFact(
            occurred_at=dates.to_timestamp(now),
            business_date=dates.to_proto(business_date),
            agency=agency.bytes,
            subject=campaign.id.bytes,
            version=campaign.version,
            campaign_changed=dialer_facts_pb2.CampaignChanged(campaign_id=campaign.id.bytes, state=state),
        )
    )


def tell_call(
    tx: db.Transaction,
    agency: UUID,
    call: domain.Call,
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """CallEnded; the case's anchor is locked. A call that was blocked was not attempted: its reservation
    does not count.
    """
    ended = dialer_facts_pb2.CallEnded(
        case_id=call.case_id.bytes,
        call_id=call.id.bytes,
        person_id=call.person_id.bytes if call.person_id else b"",
        contact_point_id=call.contact_point_id.bytes if call.contact_point_id else b"",
        reservation_key=call.id.bytes,
        state=dialer_pb2.Call.State.Value(f"STATE_{call.state}"),
        attempted=call.state is not domain.CallState.BLOCKED,
        rule=call.rule,
    )
    if call.disposition is not None:
        ended.disposition = dialer_pb2.Call.Disposition.Value(f"DISPOSITION_{call.disposition}")
        ended.right_party = call.disposition.right_party
    if call.promise_date is not None and call.promise_amount_minor is not None:
        ended.promise_date.CopyFrom(dates.to_proto(call.promise_date))
        ended.promise_amount_minor = call.promise_amount_minor
        ended.currency = call.currency
    tx.publish(
        dialer_facts_pb2.DialerFact(
            occurred_at=dates.to_timestamp(now),
            business_date=dates.to_proto(business_date),
            agency=agency.bytes,
            subject=call.id.bytes,
            version=call.version,
            call_ended=ended,
        ),
        case_id=call.case_id,
    )


def republish(
    tx: db.Transaction,
    agency: UUID,
    *,
    after: UUID | None,
    limit: int,
    now: datetime.datetime,
    business_date: datetime.date,
) -> UUID | None:
    """Send the present state of up to `limit` calls whose outcome is known, in id order, after the call
    `after`.

    With the first page go all campaigns. Answers where the next page starts after; None when there is none.
    """
    if after is None:
        for campaign in _all_campaigns(tx, agency):
            tell_campaign(tx, agency, campaign, now=now, business_date=business_date)
    page = store.calls_page(tx, agency, limit=limit, after=after, ended=True)
    store.lock_cases(tx, agency, {call.case_id for call in page})
    for call in store.calls_by_id(tx, agency, [call.id for call in page]):
        tell_call(tx, agency, call, now=now, business_date=business_date)
    return page[-1].id if len(page) == limit else None


def _all_campaigns(tx: db.Transaction, agency: UUID) -> Iterator[domain.Campaign]:
    before: UUID | None = None
    while page := store.campaigns_page(tx, agency, limit=500, before=before):
        yield from page
        before = page[-1].id
