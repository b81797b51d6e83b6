"""Cases due a call (candidates) and the call lists of campaigns (entries)."""

import datetime
from collections.abc import Mapping, Sequence
from uuid import UUID

import sqlalchemy as sa

from dialer_service import domain
from servicekit import db

_OVER = sorted(domain.CAMPAIGN_OVER)

_LIST_LOCK = "pg_advisory_xact_lock{shared}(hashtextextended('dialer list ' || :agency || ' ' || :date, 0))"
_LOCK_LIST_SHARED = sa.text("SELECT " + _LIST_LOCK.format(shared="_shared"))
_LOCK_LIST = sa.text("SELECT " + _LIST_LOCK.format(shared=""))

_ADD_CANDIDATES = sa.text(
    """
    INSERT INTO candidates (agency, case_id, person_id, date, step_id, level, script, days_past_due,
        open_principal_minor, state, rule)
    SELECT :agency, case_id, person_id, :date, step_id, level, script, days_past_due, open_principal_minor,
        'OPEN', ''
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:person_ids AS uuid[]), CAST(:step_ids AS uuid[]),
        CAST(:levels AS text[]), CAST(:scripts AS text[]), CAST(:days AS int[]),
            CAST(:principals AS bigint[]))
        AS due (case_id, person_id, step_id, level, script, days_past_due, open_principal_minor)
    ORDER BY case_id, step_id
    ON CONFLICT (agency, case_id, date, step_id) DO NOTHING
    RETURNING id
    """
)
_LIST_ENTRIES = """
    INSERT INTO campaign_entries (agency, campaign_id, case_id, candidate_id, person_id, natural_key,
        open_principal_minor, state, attempts, not_before, rule)
    SELECT :agency, campaign_id, case_id, candidate_id, person_id, natural_key, open_principal_minor,
        'OPEN', 0, to_timestamp(0), ''
    FROM (
        SELECT * FROM (
            SELECT DISTINCT ON (campaign.id, candidate.case_id) campaign.id AS campaign_id, candidate.case_id,
                candidate.id AS candidate_id, candidate.person_id, anchor.natural_key, candidate.open_principal_minor
            FROM campaigns AS campaign
            JOIN candidates AS candidate ON candidate.agency = campaign.agency
                AND candidate.date = campaign.date AND candidate.state = 'OPEN'
                AND (campaign.script = '' OR candidate.script = campaign.script)
            JOIN case_anchors AS anchor
                ON anchor.agency = candidate.agency AND anchor.case_id = candidate.case_id
            WHERE campaign.agency = :agency AND campaign.date = :date AND {which}
            ORDER BY campaign.id, candidate.case_id, candidate.open_principal_minor DESC, candidate.level,
                candidate.script
        ) AS once
        ORDER BY open_principal_minor DESC, natural_key, case_id
        LIMIT CAST(:limit AS bigint)
    ) AS listed
    ORDER BY campaign_id, case_id
    ON CONFLICT DO NOTHING
"""
_LIST_NEW = sa.text(
    _LIST_ENTRIES.format(
        which="campaign.state <> ALL (CAST(:over AS text[])) AND campaign.minutes_per_call = 0"
        " AND candidate.id = ANY (CAST(:candidates AS uuid[]))"
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
            WHERE campaign.agency = entry.agency AND campaign.id = entry.campaign_id
                AND campaign.date = :date))
    """
)
_CASES_OF_PEOPLE = sa.text(
    """
    SELECT DISTINCT case_id FROM candidates
    WHERE agency = :agency AND person_id = ANY (CAST(:person_ids AS uuid[])) AND date = :date AND state = 'OPEN'
        AND case_id <> ALL (CAST(:case_ids AS uuid[]))
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
    """Candidates of the date that were not there yet, on the lists of the campaigns of the date too.
    Answers the new ids.
    """
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
        tx.execute(
            _LIST_NEW, {"agency": agency, "date": date, "over": _OVER, "candidates": ids, "limit": None}
        )
    return ids


def list_campaign(tx: db.Transaction, agency: UUID, campaign: domain.Campaign) -> None:
    """Put the open candidates of the campaign's date and script on its list, the largest principal first, as
    many as it takes. None that arrives meanwhile is missed.
    """
    tx.execute(_LOCK_LIST, {"agency": str(agency), "date": campaign.date.isoformat()})
    tx.execute(
        _LIST_CAMPAIGN,
        {"agency": agency, "date": campaign.date, "campaign_id": campaign.id, "limit": campaign.list_limit},
    )


def close_cases(
    tx: db.Transaction, agency: UUID, rules: Mapping[UUID, str], *, date: datetime.date | None = None
) -> None:
    """Take cases off all lists (of one date, or of every date) by the rule given for each. Their anchors
    are locked.
    """
    if not rules:
        return
    ordered = sorted(rules)
    values = {"agency": agency, "case_ids": ordered, "rules": [rules[case] for case in ordered], "date": date}
    tx.execute(_CLOSE_CANDIDATES, values)
    tx.execute(_CLOSE_ENTRIES, values)


def other_cases(
    tx: db.Transaction, agency: UUID, called: Sequence[domain.Call], *, date: datetime.date
) -> Sequence[UUID]:
    """The other cases of the people of these calls that are due a call on the date."""
    people = {call.person_id for call in called if call.person_id is not None}
    if not people:
        return []
    rows = tx.execute(
        _CASES_OF_PEOPLE,
        {
            "agency": agency,
            "person_ids": sorted(people),
            "date": date,
            "case_ids": sorted({call.case_id for call in called}),
        },
    )
    return [row.case_id for row in rows]


def candidates_done(
    tx: db.Transaction, agency: UUID, *, date: datetime.date, case_ids: Sequence[UUID]
) -> None:
    """The cases were spoken to on the date: no later campaign of it lists them."""
    if case_ids:
        tx.execute(_DONE_CANDIDATES, {"agency": agency, "date": date, "case_ids": sorted(case_ids)})
