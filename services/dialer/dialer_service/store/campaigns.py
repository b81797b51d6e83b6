"""Campaigns and their numbers."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from dialer_service import domain
from dialer_service.store import tables
from servicekit import db, errors

_CAMPAIGN = sa.select(tables.campaigns).where(
    tables.campaigns.c.agency == tables.param("agency"), tables.campaigns.c.id == tables.param("campaign_id")
)
_LOCK_CAMPAIGN = _CAMPAIGN.with_for_update(key_share=True)
"""FOR NO KEY UPDATE, here and for agents: rows that refer to the locked one can be inserted meanwhile."""
_SAVE_CAMPAIGN = (
    sa.update(tables.campaigns)
    .where(
        tables.campaigns.c.agency == tables.param("key_agency"),
        tables.campaigns.c.id == tables.param("key_id"),
        tables.campaigns.c.version == tables.param("key_version"),
    )
    .values(
        state=tables.param("state"),
        pause_reason=tables.param("pause_reason"),
        version=tables.param("version"),
    )
)
_COUNT_CALLS = (
    sa.update(tables.campaigns)
    .where(
        tables.campaigns.c.agency == tables.param("key_agency"),
        tables.campaigns.c.id == tables.param("key_id"),
    )
    .values(
        calls_made=tables.campaigns.c.calls_made + tables.param("made", sa.BigInteger),
        live_answers=tables.campaigns.c.live_answers + tables.param("answered", sa.BigInteger),
        abandoned_calls=tables.campaigns.c.abandoned_calls + tables.param("abandoned", sa.BigInteger),
    )
    .returning(tables.campaigns)
)
_WORKED = sa.text(
    """
    SELECT id FROM campaigns WHERE agency = :agency AND state IN ('RUNNING', 'DRAINING')
    UNION
    SELECT campaign_id FROM calls WHERE agency = :agency AND state IN ('QUEUED', 'DIALING', 'CONNECTED')
    ORDER BY 1
    """
)

_PAUSED = sa.text(
    """
    SELECT pause_reason, count(*) AS number FROM campaigns
    WHERE agency = :agency AND date >= :since AND state = 'PAUSED' AND pause_reason = ANY (CAST(:reasons AS text[]))
    GROUP BY pause_reason
    """
)

_COUNTS = sa.text(
    """
    SELECT campaign_id, coalesce(sum(list_size), 0) AS list_size, coalesce(sum(cases_left), 0) AS cases_left,
        coalesce(sum(cases_due), 0) AS cases_due, coalesce(sum(calls_live), 0) AS calls_live
    FROM (
        SELECT campaign_id, count(*) AS list_size, count(*) FILTER (WHERE state IN ('OPEN',
            'CALLING')) AS cases_left,
            count(*) FILTER (WHERE state = 'OPEN' AND not_before <= :now) AS cases_due, 0 AS calls_live
        FROM campaign_entries
        WHERE agency = :agency AND campaign_id = ANY (CAST(:campaign_ids AS uuid[])) GROUP BY campaign_id
        UNION ALL
        SELECT campaign_id, 0, 0, 0, count(*)
        FROM calls
        WHERE agency = :agency AND campaign_id = ANY (CAST(:campaign_ids AS uuid[]))
            AND state IN ('QUEUED', 'DIALING', 'CONNECTED', 'WRAP_UP')
        GROUP BY campaign_id
    ) AS counted GROUP BY campaign_id
    """
)


def add_campaign(tx: db.Transaction, agency: UUID, campaign: domain.Campaign) -> None:
    """Store a new campaign."""
    tx.execute(sa.insert(tables.campaigns), {"agency": agency, **dataclasses.asdict(campaign)})


def campaign(tx: db.Transaction, agency: UUID, campaign_id: UUID, *, lock: bool = False) -> domain.Campaign:
    """A campaign; locked until the transaction ends where asked. Raises ResourceNotFound."""
    statement = _LOCK_CAMPAIGN if lock else _CAMPAIGN
    row = tx.execute(statement, {"agency": agency, "campaign_id": campaign_id}).one_or_none()
    if row is None:
        raise errors.ResourceNotFound("no such campaign", campaign=campaign_id)
    return _campaign(row)


def campaigns_page(
    tx: db.Transaction, agency: UUID, *, limit: int, before: UUID | None
) -> Sequence[domain.Campaign]:
    """Campaigns, newest first, after the one with id `before`."""
    statement = (
        sa.select(tables.campaigns)
        .where(tables.campaigns.c.agency == agency)
        .order_by(tables.campaigns.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(tables.campaigns.c.id < before)
    return [_campaign(row) for row in tx.execute(statement)]


def save_campaign(tx: db.Transaction, agency: UUID, changed: domain.Campaign, *, was: int) -> None:
    """Store a campaign's new state over version `was`. Raises VersionMismatch."""
    values = {
        "key_agency": agency,
        "key_id": changed.id,
        "key_version": was,
        "state": changed.state,
        "pause_reason": changed.pause_reason,
        "version": changed.version,
    }
    if tx.execute(_SAVE_CAMPAIGN, values).rowcount != 1:
        raise errors.VersionMismatch("the campaign changed meanwhile", campaign=changed.id)


def count_calls(
    tx: db.Transaction,
    agency: UUID,
    campaign_id: UUID,
    *,
    made: int = 0,
    answered: int = 0,
    abandoned: int = 0,
) -> domain.Campaign:
    """Add to a campaign's numbers (not to its version); answers the campaign."""
    row = tx.execute(
        _COUNT_CALLS,
        {
            "key_agency": agency,
            "key_id": campaign_id,
            "made": made,
            "answered": answered,
            "abandoned": abandoned,
        },
    ).one()
    return _campaign(row)


def worked_campaigns(tx: db.Transaction, agency: UUID) -> Sequence[UUID]:
    """Campaigns that need their loop: running, draining, or with calls on the line."""
    return [row.id for row in tx.execute(_WORKED, {"agency": agency})]


def paused_campaigns(tx: db.Transaction, agency: UUID, *, since: datetime.date) -> Mapping[str, int]:
    """Campaigns of this date and later that paused themselves and still are, by reason."""
    rows = tx.execute(_PAUSED, {"agency": agency, "since": since, "reasons": list(domain.PAUSED_ITSELF)})
    return {row.pause_reason: row.number for row in rows}


def counts(
    tx: db.Transaction, agency: UUID, campaign_ids: Sequence[UUID], *, now: datetime.datetime
) -> Mapping[UUID, domain.Counts]:
    """List and live calls of campaigns; all zero for one that is not in the answer."""
    rows = tx.execute(_COUNTS, {"agency": agency, "campaign_ids": sorted(campaign_ids), "now": now})
    return {
        row.campaign_id: domain.Counts(
            list_size=int(row.list_size),
            cases_left=int(row.cases_left),
            cases_due=int(row.cases_due),
            calls_live=int(row.calls_live),
        )
        for row in rows
    }


def _campaign(row: sa.Row[Any]) -> domain.Campaign:
    return domain.Campaign(
        id=row.id,
        display_name=row.display_name,
        state=domain.CampaignState(row.state),
        pacing=domain.Pacing(row.pacing),
        date=row.date,
        script=row.script,
        max_attempts=row.max_attempts,
        retry_after=row.retry_after,
        shift_minutes=row.shift_minutes,
        minutes_per_call=row.minutes_per_call,
        simulation_seed=row.simulation_seed,
        pause_reason=row.pause_reason,
        calls_made=row.calls_made,
        live_answers=row.live_answers,
        abandoned_calls=row.abandoned_calls,
        create_time=row.create_time,
        version=row.version,
    )
