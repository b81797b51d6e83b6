"""Counts, and whether the database answers."""

import datetime
from uuid import UUID

import sqlalchemy as sa

from dialer_service import domain
from servicekit import db

_LIVE = sorted(domain.CALL_LIVE)
_READY = sa.text("SELECT 1")


def ready(engine: db.Engine) -> bool:
    """Whether the database answers."""
    return bool(db.read(engine, agency=None, statement=_READY))


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
