"""Cases: read, listed, moved; titles, people, timeline, holds, contacts and promises of one case."""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from case_service.domain import cases
from case_service.store import scoped
from servicekit import db

_CASE = """
    SELECT debt.id, debt.state, debt.sub_state, debt.held_state, debt.held_sub_state, debt.currency,
           debt.placed_principal_minor, debt.open_principal_minor, debt.open_titles, debt.oldest_due_date,
           debt.agreements_in_force, debt.holds_active, debt.promise_until, debt.last_step_date, debt.last_level,
           debt.frozen_by, debt.version, debt.created_at, debt.updated_at,
           debt.creditor_id, creditor.display_name AS creditor_name, creditor.reference AS creditor_reference,
           debt.debtor_id, debtor.display_name AS debtor_name,
           contract.reference AS contract_reference, contract.product, clock.business_date
    FROM cases AS debt
    JOIN contracts AS contract ON contract.agency = @agency AND contract.id = debt.contract_id
    JOIN creditors AS creditor ON creditor.agency = @agency AND creditor.id = debt.creditor_id
    JOIN people AS debtor ON debtor.agency = @agency AND debtor.id = debt.debtor_id
    JOIN agency_clock AS clock ON clock.agency = debt.agency
    WHERE debt.agency = @agency
"""

GET = scoped.text(
    f"{_CASE} AND debt.id = :id AND (CAST(:creditor AS uuid) IS NULL OR debt.creditor_id = :creditor)"
)
"""One case by ``agency``, ``id`` and ``creditor`` (None: any)."""

_LIST_FILTERS: Mapping[str, str] = {
    "state": "debt.state = :state",
    "creditor": "debt.creditor_id = :creditor",
    "min_days": "debt.oldest_due_date <= clock.business_date - CAST(:min_days AS integer)",
    "max_days": """(debt.oldest_due_date IS NULL
        OR debt.oldest_due_date >= clock.business_date - CAST(:max_days AS integer))""",
    # Contract -> cases by the natural key of titles, which begins with the contract.
    "contract_reference": """debt.id IN (
        SELECT title.case_id FROM creditors AS owner
        JOIN contracts AS named ON named.agency = @agency AND named.creditor_id = owner.id
             AND named.reference = :contract_reference
        JOIN titles AS title ON title.agency = @agency AND title.contract_id = named.id AND NOT title.withdrawn
        WHERE owner.agency = @agency)""",
    "debtor_document": """debt.debtor_id IN (
        SELECT id FROM people WHERE agency = @agency AND document_type IN ('CPF', 'CNPJ', 'NIF')
        AND document = :debtor_document)""",
    "debtor_name": "debt.debtor_id IN (SELECT find_debtors(@agency, :debtor_name))",
    "after": "debt.id > :after",
}


def list_statement(wanted: Mapping[str, Any]) -> tuple[sa.TextClause, dict[str, Any]]:
    """Cases in id order; ``wanted`` names filters of ``_LIST_FILTERS`` (None: not asked) and ``limit``."""
    asked = {name: value for name, value in wanted.items() if value is not None}
    conditions = "".join(f" AND {_LIST_FILTERS[name]}" for name in asked if name != "limit")
    return scoped.text(f"{_CASE}{conditions} ORDER BY debt.id LIMIT :limit"), asked


def lock(tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> sa.Row[Any] | None:
    """Lock the case (its anchor) until the transaction ends and read it. None where there is none."""
    if not db.lock_anchors(tx, "cases", agency, [case_id], column="id"):
        return None
    return tx.execute(GET, {"agency": agency, "id": case_id, "creditor": None}).one_or_none()


def position(row: sa.Row[Any]) -> cases.Position:
    """Where the case of a row stands."""
    return cases.Position(
        state=cases.State(row.state),
        sub_state=cases.SubState(row.sub_state),
        held_state=None if row.held_state is None else cases.State(row.held_state),
        held_sub_state=cases.SubState(row.held_sub_state),
    )


def move(
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    moved: cases.Position,
    *,
    now: datetime.datetime,
) -> int:
    """Store where the case stands now. Returns its version."""
    return int(
        tx.execute(
            _MOVE,
            {
                "agency": agency,
                "id": case_id,
                "state": moved.state,
                "sub_state": moved.sub_state,
                "held_state": moved.held_state,
                "held_sub_state": moved.held_sub_state,
                "now": now,
            },
        ).scalar_one()
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the timeline. ``details`` are amounts, dates and codes; ``subject_id`` the thing it is about."""

    case_id: uuid.UUID
    kind: str
    code: str
    actor: str
    details: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""
    subject_id: uuid.UUID | None = None


def note(
    tx: db.Transaction,
    agency: uuid.UUID,
    entries: Sequence[Entry],
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """Write lines into timelines, in order."""
    if entries:
        tx.execute(
            _NOTE,
            [
                {
                    "agency": agency,
                    "case_id": entry.case_id,
                    "at": now,
                    "business_date": business_date,
                    "actor": entry.actor,
                    "kind": entry.kind,
                    "code": entry.code,
                    "details": dict(entry.details) or None,
                    "note": entry.note,
                    "subject_id": entry.subject_id,
                }
                for entry in entries
            ],
        )


def add_hold(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    type_: str,
    channels: Sequence[str],
    until: datetime.date | None,
    reason: str,
    now: datetime.datetime,
) -> sa.Row[Any]:
    """Add an active hold."""
    row = tx.execute(
        _ADD_HOLD,
        {
            "agency": agency,
            "case_id": case_id,
            "type": type_,
            "channels": list(channels),
            "until": until,
            "reason": reason,
            "now": now,
        },
    ).one()
    tx.execute(_HOLDS_CHANGED, {"agency": agency, "case_id": case_id})
    return row


def release_hold(
    tx: db.Transaction, agency: uuid.UUID, *, case_id: uuid.UUID, hold_id: uuid.UUID
) -> sa.Row[Any] | None:
    """Release a hold; None where it is not active."""
    row = tx.execute(_RELEASE_HOLD, {"agency": agency, "case_id": case_id, "id": hold_id}).one_or_none()
    if row is not None:
        tx.execute(_HOLDS_CHANGED, {"agency": agency, "case_id": case_id})
    return row


def holds(tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]) -> Sequence[sa.Row[Any]]:
    """Active holds of cases."""
    return tx.execute(_ACTIVE_HOLDS, {"agency": agency, "case_ids": case_ids}).all()


def hold(
    tx: db.Transaction, agency: uuid.UUID, *, case_id: uuid.UUID, hold_id: uuid.UUID
) -> sa.Row[Any] | None:
    """One hold of a case, whatever its state."""
    return tx.execute(_HOLD, {"agency": agency, "case_id": case_id, "id": hold_id}).one_or_none()


def person_of(tx: db.Transaction, agency: uuid.UUID, *, case_id: uuid.UUID, person_id: uuid.UUID) -> bool:
    """Whether the person is the debtor or a guarantor of the case."""
    return (
        tx.execute(_PERSON_OF, {"agency": agency, "case_id": case_id, "person_id": person_id}).first()
        is not None
    )


def states(
    tx: db.Transaction, agency: uuid.UUID, *, after: uuid.UUID | None, last: uuid.UUID
) -> Sequence[sa.Row[Any]]:
    """States of the cases after ``after`` up to ``last``, in id order."""
    return tx.execute(_STATES, {"agency": agency, "after": after, "last": last}).all()


_STATES = scoped.text(
    """
    SELECT id, version, state, sub_state, open_principal_minor FROM cases
    WHERE agency = @agency AND (CAST(:after AS uuid) IS NULL OR id > :after) AND id <= :last ORDER BY id
    """
)
_MOVE = scoped.text(
    """
    UPDATE cases SET state = :state, sub_state = :sub_state, held_state = :held_state, held_sub_state =
    :held_sub_state,
           version = version + 1, updated_at = :now
    WHERE agency = @agency AND id = :id RETURNING version
    """
)
_NOTE = scoped.text(
    """
    INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code, details, note, subject_id)
    VALUES (:agency, :case_id, :at, :business_date, :actor, :kind, :code, :details, :note, :subject_id)
    """
).bindparams(sa.bindparam("details", type_=sa.JSON(none_as_null=True)))
_HOLD_COLUMNS = "id, case_id, type, state, channels, until, reason, created_at"
_ADD_HOLD = scoped.text(
    f"""
    INSERT INTO holds (agency, case_id, type, state, channels, until, reason, created_at)
    VALUES (:agency, :case_id, :type, 'ACTIVE', :channels, :until, :reason, :now) RETURNING {_HOLD_COLUMNS}
    """  # noqa: S608
)
_RELEASE_HOLD = scoped.text(
    f"""
    UPDATE holds SET state = 'RELEASED'
    WHERE agency = @agency AND case_id = :case_id AND id = :id AND state = 'ACTIVE' RETURNING {_HOLD_COLUMNS}
    """  # noqa: S608
)
_HOLDS_CHANGED = scoped.text(
    """
    UPDATE cases SET holds_active = (
        SELECT count(*) FROM holds WHERE agency = @agency AND case_id = :case_id AND state = 'ACTIVE')
    WHERE agency = @agency AND id = :case_id
    """
)
_ACTIVE_HOLDS = scoped.text(
    f"SELECT {_HOLD_COLUMNS} FROM holds WHERE agency = @agency AND case_id = ANY (:case_ids) AND state = 'ACTIVE'"  # noqa: S608
)
_HOLD = scoped.text(
    f"SELECT {_HOLD_COLUMNS} FROM holds WHERE agency = @agency AND case_id = :case_id AND id = :id"  # noqa: S608
)
_PERSON_OF = scoped.text(
    """
    SELECT 1 FROM cases WHERE agency = @agency AND id = :case_id AND debtor_id = :person_id
    UNION ALL
    SELECT 1 FROM case_guarantors WHERE agency = @agency AND case_id = :case_id AND person_id = :person_id
    """
)

EXISTS = scoped.text(
    "SELECT 1 FROM cases WHERE agency = @agency AND id = :case_id"
    " AND (CAST(:creditor AS uuid) IS NULL OR creditor_id = :creditor)"
)

TITLES = scoped.text(
    """
    SELECT title.id, title.title_reference, title.title_type, title.issue_date, title.due_date,
    title.principal_minor,
           title.open_principal_minor, title.state, debt.currency
    FROM cases AS debt
    JOIN titles AS title ON title.agency = @agency AND title.case_id = debt.id
    WHERE debt.agency = @agency AND debt.id = :case_id
      AND (CAST(:creditor AS uuid) IS NULL OR debt.creditor_id = :creditor)
      AND (CAST(:after_due AS date) IS NULL OR (title.due_date, title.id) > (:after_due, :after_id))
    ORDER BY title.due_date, title.id LIMIT :limit
    """
)
PEOPLE = scoped.text(
    """
    SELECT person.id, party.role, person.display_name, person.document_type, person.document,
           point.id AS point_id, point.kind, point.value, point.provenance, barred.reason AS invalid_reason
    FROM (
        SELECT debtor_id AS person_id, 'HOLDER' AS role, 0 AS place FROM cases WHERE agency = @agency AND id
        = :case_id
        UNION ALL
        SELECT person_id, 'GUARANTOR', 1 FROM case_guarantors WHERE agency = @agency AND case_id = :case_id
    ) AS party
    JOIN people AS person ON person.agency = @agency AND person.id = party.person_id
    LEFT JOIN contact_points AS point ON point.agency = @agency AND point.person_id = person.id
    LEFT JOIN barred_contacts AS barred ON barred.agency = @agency AND barred.kind = point.kind
         AND barred.value = point.value
    ORDER BY party.place, person.id, point.kind DESC, point.position, point.id
    """
)
TIMELINE = scoped.text(
    """
    SELECT id, at, business_date, actor, kind, code, details, note, subject_id FROM timeline
    WHERE agency = @agency AND case_id = :case_id AND (CAST(:after AS uuid) IS NULL OR id < :after)
    ORDER BY id DESC LIMIT :limit
    """
)
HOLDS = scoped.text(
    f"SELECT {_HOLD_COLUMNS} FROM holds WHERE agency = @agency AND case_id = :case_id ORDER BY id"  # noqa: S608
)
CREDITORS = scoped.text(
    """
    SELECT id, reference, display_name, document, address FROM creditors
    WHERE agency = @agency AND (CAST(:after AS uuid) IS NULL OR id > :after) ORDER BY id LIMIT :limit
    """
)
SUMMARY = scoped.text(
    """
    WITH debts AS (
        SELECT state, currency, count(*) AS cases, sum(placed_principal_minor)::bigint AS placed,
               sum(open_principal_minor)::bigint AS open
        FROM cases WHERE agency = @agency GROUP BY state, currency
    )
    SELECT (SELECT jsonb_agg(to_jsonb(debts)) FROM debts) AS debts,
           (SELECT count(DISTINCT debtor_id) FROM cases WHERE agency = @agency) AS debtors,
           (SELECT count(*) FROM titles WHERE agency = @agency) AS titles,
           (SELECT count(*) FROM promises WHERE agency = @agency) AS promises,
           (SELECT count(*) FROM contacts WHERE agency = @agency) AS contacts,
           (SELECT count(*) FROM outbox) AS outbox,
           (SELECT count(*) FROM parked WHERE agency = @agency) AS parked
    """
)
PARTIES = scoped.text(
    """
    SELECT debt.id, debtor.display_name, debtor.document_type, debtor.document, debtor.address, debtor.city,
           debtor.region, debtor.postal_code, creditor.display_name AS creditor_name,
           creditor.document AS creditor_document, creditor.address AS creditor_address
    FROM cases AS debt
    JOIN people AS debtor ON debtor.agency = @agency AND debtor.id = debt.debtor_id
    JOIN creditors AS creditor ON creditor.agency = @agency AND creditor.id = debt.creditor_id
    WHERE debt.agency = @agency AND debt.id = ANY (:case_ids)
    """
)
