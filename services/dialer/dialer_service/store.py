"""Tables and all SQL of the dialer. The agency is the first argument after the transaction.

Every column says in `info` whether it is business (the same after any faults), incidental (with the reason) or a
reference (replaced by the other table's natural key). No column holds a number, a name or a document of a person.
"""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from dialer_service import domain
from servicekit import db, errors

ANCHORS = "case_anchors"

_BUSINESS = {"kind": "business"}
_UUID = {"kind": "incidental", "reason": "UUID made by the owner"}
_FOREIGN_UUID = {"kind": "incidental", "reason": "UUID made by the case service"}
_SCOPE = {"kind": "business"}
_VERSION = {"kind": "incidental", "reason": "counts changes, and a crash can add one"}
_WHEN = {"kind": "incidental", "reason": "instant at which the loop came round"}
_COPY = {
    "kind": "incidental",
    "reason": "copy of the case service's row, kept from the first change after the case was first due a call",
}
_WHO = {"kind": "incidental", "reason": "any free agent of the campaign takes the call"}

METADATA = sa.MetaData()

case_anchors = sa.Table(
    "case_anchors",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("case_id", sa.Uuid, primary_key=True, info={"kind": "reference", "to": "case.cases"}),
    sa.Column("natural_key", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_COPY),
    sa.Column("version", sa.BigInteger, nullable=False, info=_COPY),
    info={"natural_key": ["case_id"]},
)

candidates = sa.Table(
    "candidates",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Uuid, primary_key=True, info=_UUID),
    sa.Column("case_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "case_anchors"}),
    sa.Column("person_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("date", sa.Date, nullable=False, info=_BUSINESS),
    sa.Column("step_id", sa.Uuid, nullable=False, info=_FOREIGN_UUID),
    sa.Column("level", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("script", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("days_past_due", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("open_principal_minor", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("rule", sa.Text, nullable=False, info=_BUSINESS),
    info={"natural_key": ["case_id", "date", "level", "script"]},
)

campaigns = sa.Table(
    "campaigns",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Uuid, primary_key=True, info=_UUID),
    sa.Column("display_name", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("pacing", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("date", sa.Date, nullable=False, info=_BUSINESS),
    sa.Column("script", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("max_attempts", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("retry_after", sa.Interval, nullable=False, info=_BUSINESS),
    sa.Column("simulation_seed", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("pause_reason", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("calls_made", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("live_answers", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("abandoned_calls", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, info=_WHEN),
    sa.Column("version", sa.BigInteger, nullable=False, info=_VERSION),
    info={"natural_key": ["date", "script", "display_name"]},
)

entries = sa.Table(
    "campaign_entries",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("campaign_id", sa.Uuid, primary_key=True, info={"kind": "reference", "to": "campaigns"}),
    sa.Column("case_id", sa.Uuid, primary_key=True, info={"kind": "reference", "to": "case_anchors"}),
    sa.Column("candidate_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "candidates"}),
    sa.Column("person_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("natural_key", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("open_principal_minor", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("attempts", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("not_before", sa.DateTime(timezone=True), nullable=False, info=_WHEN),
    sa.Column("rule", sa.Text, nullable=False, info=_BUSINESS),
    info={"natural_key": ["campaign_id", "case_id"]},
)

agents = sa.Table(
    "agents",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Text, primary_key=True, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("campaign_id", sa.Uuid, info={"kind": "reference", "to": "campaigns"}),
    sa.Column("call_id", sa.Uuid, info=_WHO),
    sa.Column("next_state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, info=_WHEN),
    info={"natural_key": ["id"]},
)

calls = sa.Table(
    "calls",
    METADATA,
    sa.Column("agency", sa.Uuid, primary_key=True, info=_SCOPE),
    sa.Column("id", sa.Uuid, primary_key=True, info=_UUID),
    sa.Column("campaign_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "campaigns"}),
    sa.Column("case_id", sa.Uuid, nullable=False, info={"kind": "reference", "to": "case_anchors"}),
    sa.Column("date", sa.Date, nullable=False, info=_BUSINESS),
    sa.Column("attempt", sa.Integer, nullable=False, info=_BUSINESS),
    sa.Column("natural_key", sa.BigInteger, nullable=False, info=_BUSINESS),
    sa.Column("state", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("agent_id", sa.Text, nullable=False, info=_WHO),
    sa.Column("person_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("contact_point_id", sa.Uuid, info=_FOREIGN_UUID),
    sa.Column("currency", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column(
        "outside_key", sa.Text, nullable=False, info={"kind": "incidental", "reason": "carries the call's id"}
    ),
    sa.Column("rule", sa.Text, nullable=False, info=_BUSINESS),
    sa.Column("disposition", sa.Text, info=_BUSINESS),
    sa.Column("promise_date", sa.Date, info=_BUSINESS),
    sa.Column("promise_amount_minor", sa.BigInteger, info=_BUSINESS),
    sa.Column("start_time", sa.DateTime(timezone=True), info=_WHEN),
    sa.Column("end_time", sa.DateTime(timezone=True), info=_WHEN),
    sa.Column("version", sa.BigInteger, nullable=False, info=_VERSION),
    info={"natural_key": ["case_id", "date", "attempt"]},
)

_LIVE = sorted(domain.CALL_LIVE)
_OVER = sorted(domain.CAMPAIGN_OVER)

_UUIDS = sa.ARRAY(sa.Uuid)


def _param(name: str, kind: Any = None) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=kind)


# -- the 64 unsigned bits of a natural key in a bigint -------------------------------------------------------------


def _signed(key: int) -> int:
    return key - 2**64 if key >= 2**63 else key


def _unsigned(key: int) -> int:
    return key % 2**64


# -- cases ---------------------------------------------------------------------------------------------------------

_KNOW_CASES = sa.text(
    """
    INSERT INTO case_anchors (agency, case_id, natural_key, state, version)
    SELECT :agency, case_id, natural_key, '', 0
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:natural_keys AS bigint[])) AS due (case_id, natural_key)
    ORDER BY case_id
    ON CONFLICT DO NOTHING
    """
)
_CHANGE_CASES = sa.text(
    """
    UPDATE case_anchors AS anchor SET state = change.state, version = change.version
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:versions AS bigint[]), CAST(:states AS text[]))
        AS change (case_id, version, state)
    WHERE anchor.agency = :agency AND anchor.case_id = change.case_id AND anchor.version < change.version
    RETURNING anchor.case_id, anchor.state
    """
)
_CASE_STATES = sa.select(case_anchors.c.case_id, case_anchors.c.state).where(
    case_anchors.c.agency == _param("agency"), case_anchors.c.case_id == sa.any_(_param("case_ids", _UUIDS))
)


def know_cases(
    tx: db.Transaction, agency: UUID, due: Sequence[domain.Due], *, also: Sequence[UUID] = ()
) -> None:
    """Rows for cases never due a call before; the anchors of all of them, and of `also`, are locked in id order."""
    keys = {item.case_id: _signed(item.natural_key) for item in due}
    ordered = sorted(keys)
    if ordered:
        tx.execute(
            _KNOW_CASES,
            {"agency": agency, "case_ids": ordered, "natural_keys": [keys[case] for case in ordered]},
        )
    db.lock_anchors(tx, ANCHORS, agency, {*ordered, *also})


def change_cases(
    tx: db.Transaction, agency: UUID, changes: Sequence[domain.CaseChange]
) -> Mapping[UUID, str]:
    """Take over newer states of known cases (anchors are locked); answers (case, state) of those that changed."""
    newest: dict[UUID, domain.CaseChange] = {}
    for change in changes:
        if change.case_id not in newest or newest[change.case_id].version < change.version:
            newest[change.case_id] = change
    ordered = [newest[case] for case in sorted(newest)]
    rows = tx.execute(
        _CHANGE_CASES,
        {
            "agency": agency,
            "case_ids": [change.case_id for change in ordered],
            "versions": [change.version for change in ordered],
            "states": [change.state for change in ordered],
        },
    )
    return {row.case_id: row.state for row in rows}


def lock_cases(tx: db.Transaction, agency: UUID, case_ids: Iterable[UUID]) -> Mapping[UUID, str]:
    """Lock the anchors of these cases, in id order; answers their states."""
    wanted = sorted(db.lock_anchors(tx, ANCHORS, agency, case_ids))
    if not wanted:
        return {}
    rows = tx.execute(_CASE_STATES, {"agency": agency, "case_ids": wanted})
    return {row.case_id: row.state for row in rows}


# -- candidates and call lists ---------------------------------------------------------------------------------------

_LIST_LOCK = "pg_advisory_xact_lock{shared}(hashtextextended('dialer list ' || :agency || ' ' || :date, 0))"
_LOCK_LIST_SHARED = sa.text("SELECT " + _LIST_LOCK.format(shared="_shared"))
_LOCK_LIST = sa.text("SELECT " + _LIST_LOCK.format(shared=""))

_ADD_CANDIDATES = sa.text(
    """
    INSERT INTO candidates (agency, case_id, person_id, date, step_id, level, script, days_past_due,
        open_principal_minor, state, rule)
    SELECT :agency, case_id, person_id, :date, step_id, level, script, days_past_due, open_principal_minor, 'OPEN', ''
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:person_ids AS uuid[]), CAST(:step_ids AS uuid[]),
        CAST(:levels AS text[]), CAST(:scripts AS text[]), CAST(:days AS int[]), CAST(:principals AS bigint[]))
        AS due (case_id, person_id, step_id, level, script, days_past_due, open_principal_minor)
    ORDER BY case_id, step_id
    ON CONFLICT (agency, case_id, date, step_id) DO NOTHING
    RETURNING id
    """
)
_LIST_ENTRIES = """
    INSERT INTO campaign_entries (agency, campaign_id, case_id, candidate_id, person_id, natural_key,
        open_principal_minor, state, attempts, not_before, rule)
    SELECT DISTINCT ON (campaign.id, candidate.case_id) :agency, campaign.id, candidate.case_id, candidate.id,
        candidate.person_id, anchor.natural_key, candidate.open_principal_minor, 'OPEN', 0, to_timestamp(0), ''
    FROM campaigns AS campaign
    JOIN candidates AS candidate ON candidate.agency = campaign.agency AND candidate.date = campaign.date
        AND candidate.state = 'OPEN' AND (campaign.script = '' OR candidate.script = campaign.script)
    JOIN case_anchors AS anchor ON anchor.agency = candidate.agency AND anchor.case_id = candidate.case_id
    WHERE campaign.agency = :agency AND campaign.date = :date AND {which}
    ORDER BY campaign.id, candidate.case_id, candidate.open_principal_minor DESC, candidate.level, candidate.script
    ON CONFLICT DO NOTHING
"""
_LIST_NEW = sa.text(
    _LIST_ENTRIES.format(
        which="campaign.state <> ALL (CAST(:over AS text[])) AND candidate.id = ANY (CAST(:candidates AS uuid[]))"
    )
)
_LIST_CAMPAIGN = sa.text(_LIST_ENTRIES.format(which="campaign.id = :campaign_id"))

_CLOSE_CANDIDATES = sa.text(
    """
    UPDATE candidates AS candidate SET state = 'CLOSED', rule = closed.rule
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:rules AS text[])) AS closed (case_id, rule)
    WHERE candidate.agency = :agency AND candidate.case_id = closed.case_id AND candidate.state = 'OPEN'
        AND (CAST(:date AS date) IS NULL OR candidate.date = :date)
    """
)
_CLOSE_ENTRIES = sa.text(
    """
    UPDATE campaign_entries AS entry SET state = 'CLOSED', rule = closed.rule
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:rules AS text[])) AS closed (case_id, rule)
    WHERE entry.agency = :agency AND entry.case_id = closed.case_id AND entry.state = 'OPEN'
        AND (CAST(:date AS date) IS NULL OR EXISTS (
            SELECT 1 FROM campaigns AS campaign
            WHERE campaign.agency = entry.agency AND campaign.id = entry.campaign_id AND campaign.date = :date))
    """
)
_CASES_OF_PERSON = sa.text(
    """
    SELECT DISTINCT case_id FROM candidates
    WHERE agency = :agency AND person_id = :person_id AND date = :date AND state = 'OPEN' AND case_id <> :case_id
    """
)
_DONE_CANDIDATES = sa.text(
    """
    UPDATE candidates SET state = 'DONE'
    WHERE agency = :agency AND date = :date AND case_id = ANY (CAST(:case_ids AS uuid[])) AND state = 'OPEN'
    """
)


def add_candidates(
    tx: db.Transaction, agency: UUID, date: datetime.date, due: Sequence[domain.Due]
) -> Sequence[UUID]:
    """Candidates of the date that were not there yet, on the lists of the campaigns of the date too. Answers the new ids."""
    tx.execute(_LOCK_LIST_SHARED, {"agency": str(agency), "date": date.isoformat()})
    ordered = sorted(due, key=lambda item: (item.case_id, item.step_id))
    added = tx.execute(
        _ADD_CANDIDATES,
        {
            "agency": agency,
            "date": date,
            "case_ids": [item.case_id for item in ordered],
            "person_ids": [item.person_id for item in ordered],
            "step_ids": [item.step_id for item in ordered],
            "levels": [item.level for item in ordered],
            "scripts": [item.script for item in ordered],
            "days": [item.days_past_due for item in ordered],
            "principals": [item.open_principal_minor for item in ordered],
        },
    )
    ids = [row.id for row in added]
    if ids:
        tx.execute(_LIST_NEW, {"agency": agency, "date": date, "over": _OVER, "candidates": ids})
    return ids


def list_campaign(tx: db.Transaction, agency: UUID, campaign: domain.Campaign) -> None:
    """Put every open candidate of the campaign's date and script on its list; none that arrives meanwhile is missed."""
    tx.execute(_LOCK_LIST, {"agency": str(agency), "date": campaign.date.isoformat()})
    tx.execute(_LIST_CAMPAIGN, {"agency": agency, "date": campaign.date, "campaign_id": campaign.id})


def close_cases(
    tx: db.Transaction, agency: UUID, rules: Mapping[UUID, str], *, date: datetime.date | None = None
) -> None:
    """Take cases off all lists (of one date, or of every date) by the rule given for each. Their anchors are locked."""
    if not rules:
        return
    ordered = sorted(rules)
    values = {"agency": agency, "case_ids": ordered, "rules": [rules[case] for case in ordered], "date": date}
    tx.execute(_CLOSE_CANDIDATES, values)
    tx.execute(_CLOSE_ENTRIES, values)


def cases_of_person(
    tx: db.Transaction, agency: UUID, *, person_id: UUID, date: datetime.date, other_than: UUID
) -> Sequence[UUID]:
    """The person's other cases that are due a call on the date."""
    rows = tx.execute(
        _CASES_OF_PERSON, {"agency": agency, "person_id": person_id, "date": date, "case_id": other_than}
    )
    return [row.case_id for row in rows]


def candidates_done(
    tx: db.Transaction, agency: UUID, *, date: datetime.date, case_ids: Sequence[UUID]
) -> None:
    """The cases were spoken to on the date: no later campaign of it lists them."""
    if case_ids:
        tx.execute(_DONE_CANDIDATES, {"agency": agency, "date": date, "case_ids": sorted(case_ids)})


# -- campaigns -------------------------------------------------------------------------------------------------------

_CAMPAIGN = sa.select(campaigns).where(
    campaigns.c.agency == _param("agency"), campaigns.c.id == _param("campaign_id")
)
_LOCK_CAMPAIGN = _CAMPAIGN.with_for_update(key_share=True)
"""FOR NO KEY UPDATE, here and for agents: rows that refer to the locked one can be inserted meanwhile."""
_SAVE_CAMPAIGN = (
    sa.update(campaigns)
    .where(
        campaigns.c.agency == _param("key_agency"),
        campaigns.c.id == _param("key_id"),
        campaigns.c.version == _param("key_version"),
    )
    .values(state=_param("state"), pause_reason=_param("pause_reason"), version=_param("version"))
)
_COUNT_CALLS = (
    sa.update(campaigns)
    .where(campaigns.c.agency == _param("key_agency"), campaigns.c.id == _param("key_id"))
    .values(
        calls_made=campaigns.c.calls_made + _param("made", sa.BigInteger),
        live_answers=campaigns.c.live_answers + _param("answered", sa.BigInteger),
        abandoned_calls=campaigns.c.abandoned_calls + _param("abandoned", sa.BigInteger),
    )
    .returning(campaigns)
)
_WORKED = sa.text(
    """
    SELECT id FROM campaigns WHERE agency = :agency AND state IN ('RUNNING', 'DRAINING')
    UNION
    SELECT campaign_id FROM calls WHERE agency = :agency AND state IN ('QUEUED', 'DIALING', 'CONNECTED')
    ORDER BY 1
    """
)


_COUNTS = sa.text(
    """
    SELECT campaign_id, coalesce(sum(list_size), 0) AS list_size, coalesce(sum(cases_left), 0) AS cases_left,
        coalesce(sum(cases_due), 0) AS cases_due, coalesce(sum(calls_live), 0) AS calls_live
    FROM (
        SELECT campaign_id, count(*) AS list_size, count(*) FILTER (WHERE state IN ('OPEN', 'CALLING')) AS cases_left,
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
    tx.execute(sa.insert(campaigns), {"agency": agency, **dataclasses.asdict(campaign)})


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
        sa.select(campaigns).where(campaigns.c.agency == agency).order_by(campaigns.c.id.desc()).limit(limit)
    )
    if before is not None:
        statement = statement.where(campaigns.c.id < before)
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
        simulation_seed=row.simulation_seed,
        pause_reason=row.pause_reason,
        calls_made=row.calls_made,
        live_answers=row.live_answers,
        abandoned_calls=row.abandoned_calls,
        create_time=row.create_time,
        version=row.version,
    )


# -- agents ----------------------------------------------------------------------------------------------------------

_KNOW_AGENT = (
    postgresql.insert(agents)
    .values(
        agency=_param("agency"),
        id=_param("agent_id"),
        state=domain.AgentState.OFFLINE,
        campaign_id=None,
        call_id=None,
        next_state=domain.AgentState.FREE,
        since=_param("now"),
    )
    .on_conflict_do_nothing()
)
_LOCK_AGENT = (
    sa.select(agents)
    .where(agents.c.agency == _param("agency"), agents.c.id == _param("agent_id"))
    .with_for_update(key_share=True)
)
_SAVE_AGENT = (
    sa.update(agents)
    .where(agents.c.agency == _param("key_agency"), agents.c.id == _param("key_id"))
    .values(
        state=_param("state"),
        campaign_id=_param("campaign_id"),
        call_id=_param("call_id"),
        next_state=_param("next_state"),
        since=_param("since"),
    )
)
_FREE_AGENTS = (
    sa.select(agents.c.id)
    .where(
        agents.c.agency == _param("agency"),
        agents.c.campaign_id == _param("campaign_id"),
        agents.c.state == domain.AgentState.FREE,
    )
    .order_by(agents.c.since, agents.c.id)
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
    "SELECT call_id FROM agents WHERE agency = :agency AND call_id = ANY (CAST(:call_ids AS uuid[])) FOR NO KEY UPDATE"
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
    statement = sa.select(agents).where(agents.c.agency == agency).order_by(agents.c.id).limit(limit)
    if after is not None:
        statement = statement.where(agents.c.id > after)
    return [_agent(row) for row in tx.execute(statement)]


def free_agents(tx: db.Transaction, agency: UUID, campaign_id: UUID) -> Sequence[str]:
    """Agents of the campaign who can take a call, the longest free first, locked; those whom another transaction has are not."""
    return [row.id for row in tx.execute(_FREE_AGENTS, {"agency": agency, "campaign_id": campaign_id})]


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


# -- calls -----------------------------------------------------------------------------------------------------------

_NEXT_ENTRIES = sa.text(
    """
    SELECT entry.case_id, entry.person_id, entry.natural_key,
        (SELECT coalesce(max(earlier.attempt), 0) + 1 FROM calls AS earlier
         WHERE earlier.agency = entry.agency AND earlier.case_id = entry.case_id AND earlier.date = :date) AS attempt
    FROM campaign_entries AS entry
    JOIN case_anchors AS anchor ON anchor.agency = entry.agency AND anchor.case_id = entry.case_id
    WHERE entry.agency = :agency AND entry.campaign_id = :campaign_id AND entry.state = 'OPEN'
        AND entry.not_before <= :now
        AND NOT EXISTS (
            SELECT 1 FROM calls AS live
            WHERE live.agency = entry.agency AND live.state IN ('QUEUED', 'DIALING', 'CONNECTED', 'WRAP_UP')
                AND (live.case_id = entry.case_id OR live.person_id = entry.person_id))
        AND NOT EXISTS (
            SELECT 1 FROM campaign_entries AS first
            WHERE first.agency = entry.agency AND first.campaign_id = entry.campaign_id
                AND first.person_id = entry.person_id AND first.state = 'OPEN' AND first.not_before <= :now
                AND (- first.open_principal_minor, first.natural_key, first.case_id)
                    < (- entry.open_principal_minor, entry.natural_key, entry.case_id))
    ORDER BY entry.open_principal_minor DESC, entry.natural_key, entry.case_id
    LIMIT :limit
    FOR UPDATE OF entry SKIP LOCKED FOR KEY SHARE OF anchor SKIP LOCKED
    """
)
_ADD_CALLS = sa.text(
    """
    INSERT INTO calls (agency, campaign_id, case_id, date, attempt, natural_key, state, agent_id, person_id, currency,
        outside_key, rule, version)
    SELECT :agency, :campaign_id, case_id, :date, attempt, natural_key, 'QUEUED', agent_id, person_id, '', '', '', 1
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:attempts AS int[]), CAST(:natural_keys AS bigint[]),
        CAST(:agent_ids AS text[]), CAST(:person_ids AS uuid[]))
        AS begun (case_id, attempt, natural_key, agent_id, person_id)
    ORDER BY case_id
    ON CONFLICT DO NOTHING
    RETURNING id, case_id, agent_id
    """
)
_CALLING_ENTRIES = sa.text(
    """
    UPDATE campaign_entries SET state = 'CALLING', attempts = attempts + 1, rule = ''
    WHERE agency = :agency AND campaign_id = :campaign_id AND case_id = ANY (CAST(:case_ids AS uuid[]))
    """
)
_ENTRIES_OF = sa.select(entries.c.case_id, entries.c.attempts).where(
    entries.c.agency == _param("agency"),
    entries.c.campaign_id == _param("campaign_id"),
    entries.c.case_id == sa.any_(_param("case_ids", _UUIDS)),
)
_SETTLE_ENTRIES = sa.text(
    """
    UPDATE campaign_entries AS entry
    SET state = settled.state, rule = settled.rule, attempts = entry.attempts - settled.taken_back,
        not_before = coalesce(settled.not_before, entry.not_before)
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:states AS text[]), CAST(:rules AS text[]),
        CAST(:not_before AS timestamptz[]), CAST(:taken_back AS int[]))
        AS settled (case_id, state, rule, not_before, taken_back)
    WHERE entry.agency = :agency AND entry.campaign_id = :campaign_id AND entry.case_id = settled.case_id
        AND entry.state = 'CALLING'
    """
)
_CALLS_IN = (
    sa.select(calls)
    .where(
        calls.c.agency == _param("agency"),
        calls.c.campaign_id == _param("campaign_id"),
        calls.c.state == _param("state"),
    )
    .order_by(calls.c.id)
)
_LOCK_CALLS = (
    sa.select(calls)
    .where(
        calls.c.agency == _param("agency"),
        calls.c.id == sa.any_(_param("call_ids", _UUIDS)),
        calls.c.state == _param("state"),
    )
    .order_by(calls.c.id)
    .with_for_update()
)
_CALLS_BY_ID = (
    sa.select(calls)
    .where(calls.c.agency == _param("agency"), calls.c.id == sa.any_(_param("call_ids", _UUIDS)))
    .order_by(calls.c.id)
)
_OVERDUE = (
    sa.select(calls)
    .where(
        calls.c.agency == _param("agency"),
        calls.c.campaign_id == _param("campaign_id"),
        calls.c.state == domain.CallState.CONNECTED,
        calls.c.start_time <= _param("before"),
    )
    .order_by(calls.c.id)
    .with_for_update(skip_locked=True)
)
_SAVE_CALLS = sa.text(
    """
    UPDATE calls AS call SET state = saved.state, person_id = saved.person_id,
        contact_point_id = saved.contact_point_id, currency = saved.currency, outside_key = saved.outside_key,
        rule = saved.rule, disposition = saved.disposition, promise_date = saved.promise_date,
        promise_amount_minor = saved.promise_amount_minor, start_time = saved.start_time, end_time = saved.end_time,
        version = saved.version
    FROM unnest(CAST(:id AS uuid[]), CAST(:was AS bigint[]), CAST(:state AS text[]), CAST(:person_id AS uuid[]),
        CAST(:contact_point_id AS uuid[]), CAST(:currency AS text[]), CAST(:outside_key AS text[]),
        CAST(:rule AS text[]), CAST(:disposition AS text[]), CAST(:promise_date AS date[]),
        CAST(:promise_amount_minor AS bigint[]), CAST(:start_time AS timestamptz[]), CAST(:end_time AS timestamptz[]),
        CAST(:version AS bigint[]))
        AS saved (id, was, state, person_id, contact_point_id, currency, outside_key, rule, disposition, promise_date,
            promise_amount_minor, start_time, end_time, version)
    WHERE call.agency = :agency AND call.id = saved.id AND call.version = saved.was
    """
)
_SAVED = (
    "id",
    "state",
    "person_id",
    "contact_point_id",
    "currency",
    "outside_key",
    "rule",
    "disposition",
    "promise_date",
    "promise_amount_minor",
    "start_time",
    "end_time",
    "version",
)
_DROP_CALLS = sa.text(
    "DELETE FROM calls WHERE agency = :agency AND id = ANY (CAST(:call_ids AS uuid[])) AND state = 'QUEUED'"
)
_CALL = sa.select(calls).where(calls.c.agency == _param("agency"), calls.c.id == _param("call_id"))
_LOCK_CALL = _CALL.with_for_update()
_ON_LINE_LEFT = sa.text(
    """
    SELECT EXISTS (SELECT 1 FROM calls WHERE agency = :agency AND campaign_id = :campaign_id
        AND state IN ('QUEUED', 'DIALING', 'CONNECTED'))
    """
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settled:
    """Where a list entry goes after its call. `taken_back`: the try does not count."""

    case_id: UUID
    state: domain.EntryState
    rule: str = ""
    not_before: datetime.datetime | None = None
    taken_back: bool = False


def begin_calls(
    tx: db.Transaction,
    agency: UUID,
    campaign: domain.Campaign,
    agent_ids: Sequence[str],
    *,
    now: datetime.datetime,
) -> int:
    """Queue a call for each of these (locked) agents, as far as cases are due; answers how many.

    The largest open principal first; one case of a person at a time, so that what one call leads to is known before
    the next. A case that another campaign calls at this moment is left for later.
    """
    found = tx.execute(
        _NEXT_ENTRIES,
        {
            "agency": agency,
            "campaign_id": campaign.id,
            "date": campaign.date,
            "now": now,
            "limit": len(agent_ids),
        },
    ).all()
    if not found:
        return 0
    added = tx.execute(
        _ADD_CALLS,
        {
            "agency": agency,
            "campaign_id": campaign.id,
            "date": campaign.date,
            "case_ids": [row.case_id for row in found],
            "attempts": [row.attempt for row in found],
            "natural_keys": [row.natural_key for row in found],
            "agent_ids": list(agent_ids[: len(found)]),
            "person_ids": [row.person_id for row in found],
        },
    ).all()
    if not added:
        return 0
    tx.execute(
        _CALLING_ENTRIES,
        {"agency": agency, "campaign_id": campaign.id, "case_ids": sorted(row.case_id for row in added)},
    )
    tx.execute(
        _TAKE_AGENTS,
        {
            "agency": agency,
            "agent_ids": [row.agent_id for row in added],
            "call_ids": [row.id for row in added],
            "now": now,
        },
    )
    return len(added)


def entry_attempts(
    tx: db.Transaction, agency: UUID, campaign_id: UUID, case_ids: Sequence[UUID]
) -> Mapping[UUID, int]:
    """Tries of cases in a campaign."""
    rows = tx.execute(
        _ENTRIES_OF, {"agency": agency, "campaign_id": campaign_id, "case_ids": sorted(case_ids)}
    )
    return {row.case_id: row.attempts for row in rows}


def settle_entries(tx: db.Transaction, agency: UUID, campaign_id: UUID, settled: Sequence[Settled]) -> None:
    """Move entries on from CALLING."""
    if not settled:
        return
    tx.execute(
        _SETTLE_ENTRIES,
        {
            "agency": agency,
            "campaign_id": campaign_id,
            "case_ids": [entry.case_id for entry in settled],
            "states": [entry.state for entry in settled],
            "rules": [entry.rule for entry in settled],
            "not_before": [entry.not_before for entry in settled],
            "taken_back": [int(entry.taken_back) for entry in settled],
        },
    )


def calls_in(
    tx: db.Transaction, agency: UUID, campaign_id: UUID, state: domain.CallState
) -> Sequence[domain.Call]:
    """The campaign's calls in a state, in id order."""
    rows = tx.execute(_CALLS_IN, {"agency": agency, "campaign_id": campaign_id, "state": state})
    return [_call(row) for row in rows]


def lock_calls(
    tx: db.Transaction, agency: UUID, call_ids: Iterable[UUID], state: domain.CallState
) -> Sequence[domain.Call]:
    """Those of the calls that are in `state`, locked, in id order."""
    rows = tx.execute(_LOCK_CALLS, {"agency": agency, "call_ids": sorted(call_ids), "state": state})
    return [_call(row) for row in rows]


def overdue_calls(
    tx: db.Transaction, agency: UUID, campaign_id: UUID, *, before: datetime.datetime
) -> Sequence[domain.Call]:
    """Connected calls begun at or before an instant, locked."""
    rows = tx.execute(_OVERDUE, {"agency": agency, "campaign_id": campaign_id, "before": before})
    return [_call(row) for row in rows]


def save_calls(tx: db.Transaction, agency: UUID, changed: Sequence[tuple[domain.Call, int]]) -> None:
    """Store calls over the version each had. Raises VersionMismatch."""
    if not changed:
        return
    values: dict[str, Any] = {name: [getattr(call, name) for call, _ in changed] for name in _SAVED}
    values |= {"agency": agency, "was": [was for _, was in changed]}
    if tx.execute(_SAVE_CALLS, values).rowcount != len(changed):
        raise errors.VersionMismatch("a call changed meanwhile", calls=len(changed))


def wrap_up_agents(
    tx: db.Transaction, agency: UUID, call_ids: Sequence[UUID], *, now: datetime.datetime
) -> None:
    """The agents who have these calls in hand are in WRAP_UP."""
    if call_ids:
        tx.execute(_WRAP_UP_AGENTS, {"agency": agency, "call_ids": sorted(call_ids), "now": now})


def drop_calls(tx: db.Transaction, agency: UUID, call_ids: Sequence[UUID]) -> None:
    """Queued calls that were put off before anything was reserved or dialled: as if never begun."""
    if call_ids:
        tx.execute(_DROP_CALLS, {"agency": agency, "call_ids": sorted(call_ids)})


def call(tx: db.Transaction, agency: UUID, call_id: UUID, *, lock: bool = False) -> domain.Call:
    """A call; locked until the transaction ends where asked. Raises ResourceNotFound."""
    row = tx.execute(_LOCK_CALL if lock else _CALL, {"agency": agency, "call_id": call_id}).one_or_none()
    if row is None:
        raise errors.ResourceNotFound("no such call", call=call_id)
    return _call(row)


def calls_by_id(tx: db.Transaction, agency: UUID, call_ids: Sequence[UUID]) -> Sequence[domain.Call]:
    """These calls, in id order."""
    rows = tx.execute(_CALLS_BY_ID, {"agency": agency, "call_ids": sorted(call_ids)})
    return [_call(row) for row in rows]


def calls_page(
    tx: db.Transaction,
    agency: UUID,
    *,
    limit: int,
    after: UUID | None,
    state: domain.CallState | None = None,
    campaign_id: UUID | None = None,
    case_id: UUID | None = None,
    ended: bool = False,
) -> Sequence[domain.Call]:
    """Calls in id order, of a state, campaign or case where given; `ended`: those whose outcome is known."""
    statement = sa.select(calls).where(calls.c.agency == agency).order_by(calls.c.id).limit(limit)
    if after is not None:
        statement = statement.where(calls.c.id > after)
    if state is not None:
        statement = statement.where(calls.c.state == state)
    if campaign_id is not None:
        statement = statement.where(calls.c.campaign_id == campaign_id)
    if case_id is not None:
        statement = statement.where(calls.c.case_id == case_id)
    if ended:
        statement = statement.where(calls.c.state.not_in((domain.CallState.QUEUED, domain.CallState.DIALING)))
    return [_call(row) for row in tx.execute(statement)]


def calls_on_line(tx: db.Transaction, agency: UUID, campaign_id: UUID) -> bool:
    """Whether a call of the campaign is queued, dialling or connected."""
    return bool(tx.execute(_ON_LINE_LEFT, {"agency": agency, "campaign_id": campaign_id}).scalar_one())


def _call(row: sa.Row[Any]) -> domain.Call:
    return domain.Call(
        id=row.id,
        campaign_id=row.campaign_id,
        case_id=row.case_id,
        date=row.date,
        attempt=row.attempt,
        natural_key=_unsigned(row.natural_key),
        state=domain.CallState(row.state),
        agent_id=row.agent_id,
        person_id=row.person_id,
        contact_point_id=row.contact_point_id,
        currency=row.currency,
        outside_key=row.outside_key,
        rule=row.rule,
        disposition=domain.Disposition(row.disposition) if row.disposition else None,
        promise_date=row.promise_date,
        promise_amount_minor=row.promise_amount_minor,
        start_time=row.start_time,
        end_time=row.end_time,
        version=row.version,
    )


# -- readiness -----------------------------------------------------------------------------------------------

_READY = sa.text("SELECT 1")


def ready(engine: db.Engine) -> bool:
    """Whether the database answers."""
    return bool(db.read(engine, agency=None, statement=_READY))


# -- summary ---------------------------------------------------------------------------------------------------------


_SUMMARY_CALLS = sa.text(
    """
    SELECT state, coalesce(disposition, '') AS disposition, count(*) AS number FROM calls
    WHERE agency = :agency AND (CAST(:date AS date) IS NULL OR date = :date)
    GROUP BY state, disposition
    """
)
_SUMMARY_REST = sa.text(
    """
    SELECT
        (SELECT count(DISTINCT (case_id, date)) FROM candidates
         WHERE agency = :agency AND (CAST(:date AS date) IS NULL OR date = :date)) AS candidates,
        (SELECT count(*) FROM campaign_entries AS entry
         JOIN campaigns AS campaign ON campaign.agency = entry.agency AND campaign.id = entry.campaign_id
         WHERE entry.agency = :agency AND campaign.state = 'RUNNING' AND entry.state = 'OPEN'
            AND entry.not_before <= :now
            AND (CAST(:date AS date) IS NULL OR campaign.date = :date)) AS cases_due,
        (SELECT count(*) FROM outbox) AS outbox,
        (SELECT count(*) FROM parked WHERE agency = :agency) AS parked
    """
)


def summary(
    tx: db.Transaction, agency: UUID, *, date: datetime.date | None, now: datetime.datetime
) -> domain.Summary:
    """Counts of one date, or of all."""
    by_state: dict[str, int] = {}
    by_disposition: dict[str, int] = {}
    for row in tx.execute(_SUMMARY_CALLS, {"agency": agency, "date": date}):
        number = int(row.number)
        by_state[row.state] = by_state.get(row.state, 0) + number
        if row.disposition:
            by_disposition[row.disposition] = by_disposition.get(row.disposition, 0) + number
    rest = tx.execute(_SUMMARY_REST, {"agency": agency, "date": date, "now": now}).one()
    return domain.Summary(
        by_state=by_state,
        by_disposition=by_disposition,
        candidates=rest.candidates,
        cases_due=rest.cases_due,
        calls_live=sum(by_state.get(state, 0) for state in _LIVE),
        outbox=rest.outbox,
        parked=rest.parked,
    )
