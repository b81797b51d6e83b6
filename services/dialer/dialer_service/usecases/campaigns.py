"""Campaigns and agents, by hand."""

import datetime
from uuid import UUID

from dialer_service import domain, store
from dialer_service.usecases import telling
from servicekit import db, errors, ids


def create_campaign(
    tx: db.Transaction,
    agency: UUID,
    *,
    display_name: str,
    date: datetime.date | None,
    script: str,
    max_attempts: int,
    retry_after_seconds: int,
    shift_minutes: int,
    minutes_per_call: int,
    simulation_seed: int,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """A campaign in DRAFT over the candidates of its date (None: the business date), S4-11. Raises
    InvalidRequest.
    """
    campaign = domain.new_campaign(
        id=ids.new(),
        display_name=display_name,
        date=date or business_date,
        script=script,
        max_attempts=max_attempts,
        retry_after_seconds=retry_after_seconds,
        shift_minutes=shift_minutes,
        minutes_per_call=minutes_per_call,
        simulation_seed=simulation_seed,
        now=now,
    )
    store.add_campaign(tx, agency, campaign)
    store.list_campaign(tx, agency, campaign)
    telling.tell_campaign(tx, agency, campaign, now=now, business_date=business_date)
    return campaign


def start_campaign(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    etag: int | None,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """DRAFT or PAUSED to RUNNING. Raises ResourceNotFound, VersionMismatch, CampaignStateInvalid,
    CampaignDateInFuture.
    """
    was = _locked(tx, agency, campaign_id, etag)
    changed = was.start(business_date=business_date)
    return moved(tx, agency, was, changed, now=now, business_date=business_date)


def move_campaign(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    target: domain.CampaignState,
    etag: int | None,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """Pause, drain or abort: calls begun go on to their end. Raises ResourceNotFound, VersionMismatch,
    CampaignStateInvalid.
    """
    was = _locked(tx, agency, campaign_id, etag)
    changed = was.move(target, reason=domain.PauseReason.OPERATOR)
    return moved(tx, agency, was, changed, now=now, business_date=business_date)


def pause_for(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    reason: domain.PauseReason,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """The loop pauses its campaign for `reason`, if it is running."""
    was = store.campaign(tx, agency, campaign_id, lock=True)
    if was.state is domain.CampaignState.RUNNING:
        changed = was.move(domain.CampaignState.PAUSED, reason=reason)
        moved(tx, agency, was, changed, now=now, business_date=business_date)


def _locked(tx: db.Transaction, agency: UUID, campaign_id: UUID, etag: int | None) -> domain.Campaign:
    campaign = store.campaign(tx, agency, campaign_id, lock=True)
    if etag is not None and etag != campaign.version:
        raise errors.VersionMismatch("the campaign changed since it was read", campaign=campaign_id)
    return campaign


def moved(
    tx: db.Transaction,
    agency: UUID,
    was: domain.Campaign,
    changed: domain.Campaign,
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    store.save_campaign(tx, agency, changed, was=was.version)
    telling.tell_campaign(tx, agency, changed, now=now, business_date=business_date)
    return changed


def set_agent_state(
    tx: db.Transaction,
    agency: UUID,
    *,
    agent_id: str,
    state: domain.AgentState,
    campaign_id: UUID | None,
    now: datetime.datetime,
) -> domain.Agent:
    """An agent is FREE in a campaign, PAUSED or OFFLINE; with a call on the line, when it is over.

    Raises ResourceNotFound, CampaignNotStaffable, AgentHasCall, AgentNotSignedIn.
    """
    if campaign_id is not None and state is not domain.AgentState.OFFLINE:
        campaign = store.campaign(tx, agency, campaign_id)
        if campaign.state in domain.CAMPAIGN_OVER or campaign.state is domain.CampaignState.DRAINING:
            raise domain.CampaignNotStaffable("the campaign takes no agents", state=campaign.state)
    agent = store.lock_agent(tx, agency, agent_id, now=now)
    changed = agent.ask(state, campaign_id=campaign_id)
    store.save_agent(tx, agency, changed, now=now)
    return changed
