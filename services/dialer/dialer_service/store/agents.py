"""Agents: presence, and the call in hand."""

import datetime
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from dialer_service import domain
from dialer_service.store import tables
from servicekit import db

_KNOW_AGENT = (
    postgresql.insert(tables.agents)
    .values(
        agency=tables.param("agency"),
        id=tables.param("agent_id"),
        state=domain.AgentState.OFFLINE,
        campaign_id=None,
        call_id=None,
        next_state=domain.AgentState.FREE,
        since=tables.param("now"),
    )
    .on_conflict_do_nothing()
)
_LOCK_AGENT = (
    sa.select(tables.agents)
    .where(tables.agents.c.agency == tables.param("agency"), tables.agents.c.id == tables.param("agent_id"))
    .with_for_update(key_share=True)
)
_SAVE_AGENT = (
    sa.update(tables.agents)
    .where(tables.agents.c.agency == tables.param("key_agency"), tables.agents.c.id == tables.param("key_id"))
    .values(
        state=tables.param("state"),
        campaign_id=tables.param("campaign_id"),
        call_id=tables.param("call_id"),
        next_state=tables.param("next_state"),
        since=tables.param("since"),
    )
)
_FREE_AGENTS = (
    sa.select(tables.agents.c.id)
    .where(
        tables.agents.c.agency == tables.param("agency"),
        tables.agents.c.campaign_id == tables.param("campaign_id"),
        tables.agents.c.state == domain.AgentState.FREE,
    )
    .order_by(tables.agents.c.since, tables.agents.c.id)
    .with_for_update(key_share=True, skip_locked=True)
)
_TAKE_AGENTS = sa.text(
    """
    UPDATE agents AS agent SET state = 'BUSY', call_id = taken.call_id, next_state = 'FREE', since = :now
    FROM unnest(CAST(:agent_ids AS text[]), CAST(:call_ids AS uuid[])) AS taken (agent_id, call_id)
    WHERE agent.agency = :agency AND agent.id = taken.agent_id
    """
)
_FREE_FROM_CALLS = sa.text(
    """
    UPDATE agents SET state = next_state, call_id = NULL, next_state = 'FREE', since = :now,
        campaign_id = CASE WHEN next_state = 'OFFLINE' THEN NULL ELSE campaign_id END
    WHERE agency = :agency AND call_id = ANY (CAST(:call_ids AS uuid[]))
    """
)
_WRAP_UP_AGENTS = sa.text(
    """
    UPDATE agents SET state = 'WRAP_UP', since = :now
    WHERE agency = :agency AND call_id = ANY (CAST(:call_ids AS uuid[])) AND state = 'BUSY'
    """
)
_AGENTS_WITH = sa.text(
    """
    SELECT call_id FROM agents WHERE agency = :agency AND call_id = ANY (CAST(:call_ids AS uuid[]))
    FOR NO KEY UPDATE
    """
)


def lock_agent(tx: db.Transaction, agency: UUID, agent_id: str, *, now: datetime.datetime) -> domain.Agent:
    """An agent, locked; OFFLINE where never seen before (users belong to identity)."""
    tx.execute(_KNOW_AGENT, {"agency": agency, "agent_id": agent_id, "now": now})
    return _agent(tx.execute(_LOCK_AGENT, {"agency": agency, "agent_id": agent_id}).one())


def save_agent(tx: db.Transaction, agency: UUID, agent: domain.Agent, *, now: datetime.datetime) -> None:
    """Store a locked agent."""
    tx.execute(
        _SAVE_AGENT,
        {
            "key_agency": agency,
            "key_id": agent.id,
            "state": agent.state,
            "campaign_id": agent.campaign_id,
            "call_id": agent.call_id,
            "next_state": agent.next_state,
            "since": now,
        },
    )


def agents_page(tx: db.Transaction, agency: UUID, *, limit: int, after: str | None) -> Sequence[domain.Agent]:
    """Agents in the order of their ids."""
    statement = (
        sa.select(tables.agents)
        .where(tables.agents.c.agency == agency)
        .order_by(tables.agents.c.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tables.agents.c.id > after)
    return [_agent(row) for row in tx.execute(statement)]


def free_agents(tx: db.Transaction, agency: UUID, campaign_id: UUID) -> Sequence[str]:
    """Agents of the campaign who can take a call, the longest free first, locked; those whom another
    transaction has are not.
    """
    return [row.id for row in tx.execute(_FREE_AGENTS, {"agency": agency, "campaign_id": campaign_id})]


def take_agents(
    tx: db.Transaction, agency: UUID, taken: Sequence[tuple[str, UUID]], *, now: datetime.datetime
) -> None:
    """These free agents (agent, call) have these calls in hand."""
    tx.execute(
        _TAKE_AGENTS,
        {
            "agency": agency,
            "agent_ids": [agent for agent, _ in taken],
            "call_ids": [call for _, call in taken],
            "now": now,
        },
    )


def wrap_up_agents(
    tx: db.Transaction, agency: UUID, call_ids: Sequence[UUID], *, now: datetime.datetime
) -> None:
    """The agents who have these calls in hand are in WRAP_UP."""
    if call_ids:
        tx.execute(_WRAP_UP_AGENTS, {"agency": agency, "call_ids": sorted(call_ids), "now": now})


def free_from_calls(
    tx: db.Transaction, agency: UUID, call_ids: Sequence[UUID], *, now: datetime.datetime
) -> None:
    """The agents who have these calls in hand go where they asked to, else become FREE."""
    if call_ids:
        tx.execute(_FREE_FROM_CALLS, {"agency": agency, "call_ids": sorted(call_ids), "now": now})


def agents_there(tx: db.Transaction, agency: UUID, call_ids: Sequence[UUID]) -> frozenset[UUID]:
    """Those of the calls whose agent waits for them; the agents are locked."""
    if not call_ids:
        return frozenset()
    return frozenset(
        row.call_id for row in tx.execute(_AGENTS_WITH, {"agency": agency, "call_ids": sorted(call_ids)})
    )


def _agent(row: sa.Row[Any]) -> domain.Agent:
    return domain.Agent(
        id=row.id,
        state=domain.AgentState(row.state),
        campaign_id=row.campaign_id,
        call_id=row.call_id,
        next_state=domain.AgentState(row.next_state),
    )
