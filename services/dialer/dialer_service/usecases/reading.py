"""Reading."""

import datetime
from collections.abc import Mapping, Sequence
from uuid import UUID

from dialer_service import domain, store
from servicekit import db


def get_campaign(tx: db.Transaction, agency: UUID, *, campaign_id: UUID) -> domain.Campaign:
    """Raises ResourceNotFound."""
    return store.campaign(tx, agency, campaign_id)


def list_campaigns(
    tx: db.Transaction, agency: UUID, *, limit: int, before: UUID | None
) -> Sequence[domain.Campaign]:
    """Newest first."""
    return store.campaigns_page(tx, agency, limit=limit, before=before)


def count(
    tx: db.Transaction, agency: UUID, *, campaigns: Sequence[domain.Campaign], now: datetime.datetime
) -> Mapping[UUID, domain.Counts]:
    """What is on the lists of campaigns, left, due at `now`, and live."""
    found = store.counts(tx, agency, [campaign.id for campaign in campaigns], now=now)
    return {campaign.id: found.get(campaign.id, domain.Counts()) for campaign in campaigns}


def list_agents(tx: db.Transaction, agency: UUID, *, limit: int, after: str | None) -> Sequence[domain.Agent]:
    """In the order of their ids."""
    return store.agents_page(tx, agency, limit=limit, after=after)


def get_call(tx: db.Transaction, agency: UUID, *, call_id: UUID) -> domain.Call:
    """Raises ResourceNotFound."""
    return store.call(tx, agency, call_id)


def list_calls(
    tx: db.Transaction,
    agency: UUID,
    *,
    limit: int,
    after: UUID | None,
    state: domain.CallState | None,
    campaign_id: UUID | None,
    case_id: UUID | None,
) -> Sequence[domain.Call]:
    """In id order, of a state, campaign or case where given."""
    return store.calls_page(
        tx, agency, limit=limit, after=after, state=state, campaign_id=campaign_id, case_id=case_id
    )


def summarize(
    tx: db.Transaction, agency: UUID, *, date: datetime.date | None, now: datetime.datetime
) -> domain.Summary:
    """Counts of the calls of one date, or of all."""
    return store.summary(tx, agency, date=date, now=now)
