"""Calls, from the queue to the disposition."""

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from dialer_service import domain
from dialer_service.store import agents, tables
from servicekit import db, errors

_NEXT_ENTRIES = sa.text(
    """
    SELECT entry.case_id, entry.person_id, entry.natural_key,
        (SELECT coalesce(max(earlier.attempt), 0) + 1 FROM calls AS earlier
         WHERE earlier.agency = entry.agency AND earlier.case_id = entry.case_id
             AND earlier.date = :date) AS attempt
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
    INSERT INTO calls (agency, campaign_id, case_id, date, attempt, natural_key, state, agent_id, person_id,
        currency,
        outside_key, rule, version)
    SELECT :agency, :campaign_id, case_id, :date, attempt, natural_key, 'QUEUED', agent_id, person_id, '',
        '', '', 1
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
_ENTRIES_OF = sa.select(tables.entries.c.case_id, tables.entries.c.attempts).where(
    tables.entries.c.agency == tables.param("agency"),
    tables.entries.c.campaign_id == tables.param("campaign_id"),
    tables.entries.c.case_id == sa.any_(tables.param("case_ids", tables.UUIDS)),
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
    sa.select(tables.calls)
    .where(
        tables.calls.c.agency == tables.param("agency"),
        tables.calls.c.campaign_id == tables.param("campaign_id"),
        tables.calls.c.state == tables.param("state"),
    )
    .order_by(tables.calls.c.id)
)
_LOCK_CALLS = (
    sa.select(tables.calls)
    .where(
        tables.calls.c.agency == tables.param("agency"),
        tables.calls.c.id == sa.any_(tables.param("call_ids", tables.UUIDS)),
        tables.calls.c.state == tables.param("state"),
    )
    .order_by(tables.calls.c.id)
    .with_for_update()
)
_CALLS_BY_ID = (
    sa.select(tables.calls)
    .where(
        tables.calls.c.agency == tables.param("agency"),
        tables.calls.c.id == sa.any_(tables.param("call_ids", tables.UUIDS)),
    )
    .order_by(tables.calls.c.id)
)
_OVERDUE = (
    sa.select(tables.calls)
    .where(
        tables.calls.c.agency == tables.param("agency"),
        tables.calls.c.campaign_id == tables.param("campaign_id"),
        tables.calls.c.state == domain.CallState.CONNECTED,
        tables.calls.c.start_time <= tables.param("before"),
    )
    .order_by(tables.calls.c.id)
    .with_for_update(skip_locked=True)
)
_SAVE_CALLS = sa.text(
    """
    UPDATE calls AS call SET state = saved.state, person_id = saved.person_id,
        contact_point_id = saved.contact_point_id, currency = saved.currency, outside_key = saved.outside_key,
        rule = saved.rule, disposition = saved.disposition, promise_date = saved.promise_date,
        promise_amount_minor = saved.promise_amount_minor, start_time = saved.start_time,
            end_time = saved.end_time,
        version = saved.version
    FROM unnest(CAST(:id AS uuid[]), CAST(:was AS bigint[]), CAST(:state AS text[]),
        CAST(:person_id AS uuid[]),
        CAST(:contact_point_id AS uuid[]), CAST(:currency AS text[]), CAST(:outside_key AS text[]),
        CAST(:rule AS text[]), CAST(:disposition AS text[]), CAST(:promise_date AS date[]),
        CAST(:promise_amount_minor AS bigint[]), CAST(:start_time AS timestamptz[]),
            CAST(:end_time AS timestamptz[]),
        CAST(:version AS bigint[]))
        AS saved (id, was, state, person_id, contact_point_id, currency, outside_key, rule, disposition,
            promise_date,
            promise_amount_minor, start_time, end_time, version)
    WHERE call.agency = :agency AND call.id = saved.id AND call.version = saved.was
    """
)
_UNKNOWN = sa.text(
    """
    SELECT count(*) FROM calls
    WHERE agency = (SELECT CAST(:agency AS uuid)) AND state = 'UNKNOWN' AND date >= :since
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
_CALL = sa.select(tables.calls).where(
    tables.calls.c.agency == tables.param("agency"), tables.calls.c.id == tables.param("call_id")
)
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


def unknown(tx: db.Transaction, agency: UUID, *, since: datetime.date) -> int:
    """Calls of this date and later that are UNKNOWN."""
    return int(tx.execute(_UNKNOWN, {"agency": agency, "since": since}).scalar_one())


def begin_calls(
    tx: db.Transaction,
    agency: UUID,
    campaign: domain.Campaign,
    agent_ids: Sequence[str],
    *,
    now: datetime.datetime,
) -> int:
    """Queue a call for each of these (locked) agents, as far as cases are due; answers how many.

    The largest open principal first; one case of a person at a time, so that what one call leads to is known
    before the next. A case that another campaign calls at this moment is left for later.
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
    agents.take_agents(tx, agency, [(row.agent_id, row.id) for row in added], now=now)
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
    statement = (
        sa.select(tables.calls)
        .where(tables.calls.c.agency == agency)
        .order_by(tables.calls.c.id)
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(tables.calls.c.id > after)
    if state is not None:
        statement = statement.where(tables.calls.c.state == state)
    if campaign_id is not None:
        statement = statement.where(tables.calls.c.campaign_id == campaign_id)
    if case_id is not None:
        statement = statement.where(tables.calls.c.case_id == case_id)
    if ended:
        statement = statement.where(
            tables.calls.c.state.not_in((domain.CallState.QUEUED, domain.CallState.DIALING))
        )
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
        natural_key=tables.unsigned(row.natural_key),
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
