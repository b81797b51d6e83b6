"""What a decision about a contact reads, and the reservations it leaves."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from case_service.store import scoped
from servicekit import db


def lock(
    tx: db.Transaction, agency: uuid.UUID, *, case_ids: Sequence[uuid.UUID], person_ids: Sequence[uuid.UUID]
) -> None:
    """Lock the cases, then everybody on them who is asked for, each in id order: caps are of a case and of
    a person. Cases without a person named lock their debtor.
    """
    db.lock_anchors(tx, "cases", agency, case_ids, column="id")
    tx.execute(_LOCK_PEOPLE, {"agency": agency, "case_ids": case_ids, "person_ids": person_ids}).all()


def debts(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, sa.Row[Any]]:
    """Cases with what an answer tells of them."""
    return {row.id: row for row in tx.execute(_DEBTS, {"agency": agency, "case_ids": case_ids})}


def parties(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]
) -> Mapping[tuple[uuid.UUID, uuid.UUID], sa.Row[Any]]:
    """Everybody on these cases by (case, person)."""
    rows = tx.execute(_PARTIES, {"agency": agency, "case_ids": case_ids})
    return {(row.case_id, row.id): row for row in rows}


def points(tx: db.Transaction, agency: uuid.UUID, person_ids: Sequence[uuid.UUID]) -> Sequence[sa.Row[Any]]:
    """Contact points that may be used, of these people."""
    return tx.execute(_POINTS, {"agency": agency, "person_ids": person_ids}).all()


def uses(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_ids: Sequence[uuid.UUID],
    person_ids: Sequence[uuid.UUID],
    since: datetime.date,
) -> Sequence[sa.Row[Any]]:
    """Reservations that count, of these people or cases, from local date ``since`` on."""
    return tx.execute(
        _USES, {"agency": agency, "case_ids": case_ids, "person_ids": person_ids, "since": since}
    ).all()


def answers(
    tx: db.Transaction, agency: uuid.UUID, keys: Sequence[uuid.UUID]
) -> Mapping[uuid.UUID, sa.Row[Any]]:
    """What was answered to these keys before."""
    return {row.key: row for row in tx.execute(_ANSWERS, {"agency": agency, "keys": keys})}


def keep(tx: db.Transaction, agency: uuid.UUID, reservations: Sequence[Mapping[str, Any]]) -> None:
    """Keep answers, each in place of an earlier one to its key."""
    if reservations:
        tx.execute(_KEEP, [{"agency": agency, **reservation} for reservation in reservations])


_LOCK_PEOPLE = scoped.text(
    """
    SELECT id FROM people WHERE agency = @agency AND id = ANY (ARRAY(
        SELECT debtor_id FROM cases WHERE agency = @agency AND id = ANY (:case_ids)
        UNION SELECT unnest(CAST(:person_ids AS uuid[]))))
    ORDER BY id FOR NO KEY UPDATE
    """
)
_DEBTS = scoped.text(
    """
    SELECT debt.id, debt.debtor_id, debt.state, debt.currency, debt.open_principal_minor, debt.frozen_by,
           debt.agreements_in_force, debt.promise_until, debt.holds_active,
           creditor.display_name AS creditor_name, creditor.address AS creditor_address,
           creditor.document AS creditor_document, contract.reference AS contract_reference, contract.product
    FROM cases AS debt
    JOIN creditors AS creditor ON creditor.agency = @agency AND creditor.id = debt.creditor_id
    JOIN contracts AS contract ON contract.agency = @agency AND contract.id = debt.contract_id
    WHERE debt.agency = @agency AND debt.id = ANY (:case_ids)
    """
)
_PARTIES = scoped.text(
    """
    SELECT party.case_id, party.guarantor, person.id, person.display_name, person.country, person.region,
           person.postal_code
    FROM (
        SELECT id AS case_id, debtor_id AS person_id, false AS guarantor FROM cases
        WHERE agency = @agency AND id = ANY (:case_ids)
        UNION ALL
        SELECT case_id, person_id, true FROM case_guarantors WHERE agency = @agency AND case_id = ANY (:case_ids)
    ) AS party JOIN people AS person ON person.agency = @agency AND person.id = party.person_id
    """
)
_POINTS = scoped.text(
    """
    SELECT point.id, point.person_id, point.kind, point.value, point.position FROM contact_points AS point
    WHERE point.agency = @agency AND point.person_id = ANY (:person_ids) AND NOT EXISTS (
        SELECT FROM barred_contacts AS barred
        WHERE barred.agency = @agency AND barred.kind = point.kind AND barred.value = point.value)
    """
)
_USE = "key, person_id, case_id, local_date, contact_point_id, right_party_call, abandoned, reserved_at"
_USES = scoped.text(
    f"""
    SELECT {_USE} FROM reservations
    WHERE agency = @agency AND person_id = ANY (:person_ids) AND local_date >= :since AND counts
    UNION
    SELECT {_USE} FROM reservations
    WHERE agency = @agency AND case_id = ANY (:case_ids) AND local_date >= :since AND counts
    """  # noqa: S608
)
_ANSWERS = scoped.text(
    """
    SELECT reservation.key, reservation.case_id, reservation.person_id, reservation.state, reservation.counts,
           reservation.contact_point_id, reservation.rule, reservation.explanation, reservation.time_zone,
           reservation.valid_until, point.value
    FROM reservations AS reservation
    LEFT JOIN contact_points AS point ON point.agency = @agency AND point.id = reservation.contact_point_id
    WHERE reservation.agency = @agency AND reservation.key = ANY (:keys)
    """
)
_KEEP = scoped.text(
    """
    INSERT INTO reservations (agency, key, case_id, person_id, channel, purpose, state, counts, local_date,
                              contact_point_id, rule, explanation, time_zone, reserved_at, valid_until,
                              right_party_call)
    VALUES (:agency, :key, :case_id, :person_id, :channel, :purpose, :state, :counts, :local_date,
    :contact_point_id,
            :rule, :explanation, :time_zone, :now, :valid_until, :right_party_call)
    ON CONFLICT (agency, key) DO UPDATE SET
        state = excluded.state, counts = excluded.counts, local_date = excluded.local_date,
        contact_point_id = excluded.contact_point_id, rule = excluded.rule, explanation = excluded.explanation,
        time_zone = excluded.time_zone, reserved_at = excluded.reserved_at, valid_until = excluded.valid_until
    """
)
