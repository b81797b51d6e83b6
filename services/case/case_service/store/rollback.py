"""Taking titles back: those of a batch, or all of a recalled case."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from case_service.store import scoped
from servicekit import db


def cases_of_batch(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID) -> Sequence[uuid.UUID]:
    """Cases with titles that the batch brought, in id order."""
    return tx.execute(_CASES, {"agency": agency, "batch_id": batch_id}).scalars().all()


def done_since(
    tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID, case_ids: Sequence[uuid.UUID]
) -> sa.Row[Any] | None:
    """Something that was done on one of the cases after the batch was placed: ``case_id``, ``what``. None:
    nothing.
    """
    return tx.execute(_DONE_SINCE, {"agency": agency, "batch_id": batch_id, "case_ids": case_ids}).first()


def freeze(
    tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID, case_ids: Sequence[uuid.UUID]
) -> None:
    """Nothing is done on these cases until the batch is taken back or given back."""
    tx.execute(_FREEZE, {"agency": agency, "batch_id": batch_id, "case_ids": case_ids})


def thaw(tx: db.Transaction, agency: uuid.UUID, batch_id: uuid.UUID, case_ids: Sequence[uuid.UUID]) -> int:
    """Give the frozen cases back as they were; how many."""
    return tx.execute(_THAW, {"agency": agency, "batch_id": batch_id, "case_ids": case_ids}).rowcount


def frozen(tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID) -> int:
    """Cases of the batch that are frozen for it."""
    return int(tx.execute(_FROZEN, {"agency": agency, "batch_id": batch_id}).scalar_one())


def withdraw(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_ids: Sequence[uuid.UUID],
    batch_id: uuid.UUID | None,
    now: datetime.datetime,
) -> Sequence[sa.Row[Any]]:
    """Withdraw the batch's titles on these cases, or (None) all that are not. The totals of the cases
    follow. Rows: partition, case ids and title ids as strings of 16 bytes each.
    """
    return tx.execute(
        _WITHDRAW, {"agency": agency, "case_ids": case_ids, "batch_id": batch_id, "now": now}
    ).all()


def returned(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_ids: Sequence[uuid.UUID],
    batch_id: uuid.UUID,
    now: datetime.datetime,
    business_date: datetime.date,
) -> Sequence[sa.Row[Any]]:
    """Those of the cases that have no open title left are RETURNED, with a line in their timeline; their rows."""
    return tx.execute(
        _RETURN,
        {
            "agency": agency,
            "case_ids": case_ids,
            "batch_id": batch_id,
            "now": now,
            "business_date": business_date,
        },
    ).all()


_CASES = scoped.text(
    """
    SELECT DISTINCT case_id FROM titles WHERE agency = @agency AND batch_id = :batch_id AND NOT withdrawn
    ORDER BY case_id
    """
)
# Ids of timeline lines and marks of slices are made by this database in time order, whatever the agency's
# clock says.
_DONE_SINCE = scoped.text(
    """
    WITH mark AS (
        SELECT mark AS placed FROM placed_slices WHERE agency = @agency AND batch_id = :batch_id ORDER BY
        mark LIMIT 1)
    SELECT case_id, kind || ' ' || code AS what FROM timeline, mark
    WHERE agency = @agency AND case_id = ANY (:case_ids) AND id > mark.placed
      AND NOT (kind = 'STATE_CHANGED' AND code IN ('READY', 'IN_COLLECTION'))
    UNION ALL
    SELECT case_id, 'RESERVATION ' || channel FROM reservations
    WHERE agency = @agency AND case_id = ANY (:case_ids) AND state = 'OPEN'
    UNION ALL
    SELECT debt.id, 'STEP ' || debt.last_level FROM cases AS debt
    WHERE debt.agency = @agency AND debt.id = ANY (:case_ids) AND debt.last_step_date >= (
        SELECT max(business_date) FROM placed_slices WHERE agency = @agency AND batch_id = :batch_id)
    UNION ALL
    SELECT debt.id, 'STATE ' || debt.state FROM cases AS debt
    WHERE debt.agency = @agency AND debt.id = ANY (:case_ids)
      AND (debt.state NOT IN ('READY', 'IN_COLLECTION') OR debt.agreements_in_force > 0)
    LIMIT 1
    """
)
_FREEZE = scoped.text(
    "UPDATE cases SET frozen_by = :batch_id WHERE agency = @agency AND id = ANY (:case_ids) AND frozen_by IS NULL"
)
_THAW = scoped.text(
    "UPDATE cases SET frozen_by = NULL WHERE agency = @agency AND id = ANY (:case_ids) AND frozen_by = :batch_id"
)
_FROZEN = scoped.text("SELECT count(*) FROM cases WHERE agency = @agency AND frozen_by = :batch_id")
_WITHDRAW = scoped.text(
    """
    WITH taken AS (
        UPDATE titles SET withdrawn = true, state = 'WITHDRAWN', open_principal_minor = 0
        WHERE agency = @agency AND case_id = ANY (:case_ids) AND NOT withdrawn
          AND (CAST(:batch_id AS uuid) IS NULL OR batch_id = :batch_id)
        RETURNING new.id AS title_id, new.case_id, old.open_principal_minor AS minor
    ), sums AS (
        SELECT case_id, sum(minor)::bigint AS minor, (count(*) FILTER (WHERE minor > 0))::integer AS titles,
               array_agg(title_id) AS ids
        FROM taken GROUP BY case_id
    ), totals AS (
        UPDATE cases SET
            open_principal_minor = open_principal_minor - sums.minor, open_titles = open_titles - sums.titles,
            oldest_due_date = (
                SELECT min(due_date) FROM titles
                WHERE titles.agency = @agency AND titles.case_id = cases.id AND open_principal_minor > 0
                  AND titles.id <> ALL (sums.ids)),
            frozen_by = NULL, version = version + 1, updated_at = :now
        FROM sums WHERE cases.agency = @agency AND cases.id = sums.case_id
    )
    SELECT (crc32(uuid_send(case_id)) % 24)::integer AS partition,
           string_agg(uuid_send(case_id), ''::bytea) AS case_ids, string_agg(uuid_send(title_id), ''::bytea)
           AS title_ids
    FROM (SELECT * FROM taken ORDER BY case_id, title_id) AS row GROUP BY 1 ORDER BY 1
    """
)
_RETURN = scoped.text(
    """
    WITH back AS (
        UPDATE cases SET state = 'RETURNED', sub_state = '', version = version + 1, updated_at = :now
        WHERE agency = @agency AND id = ANY (:case_ids) AND open_titles = 0 AND state IN ('READY', 'IN_COLLECTION')
        RETURNING id, version, state, sub_state, open_principal_minor
    ), noted AS (
        INSERT INTO timeline (agency, case_id, at, business_date, actor, kind, code, subject_id)
        SELECT :agency, id, :now, :business_date, 'import', 'STATE_CHANGED', 'RETURNED', :batch_id FROM back
        ORDER BY id
    )
    SELECT * FROM back ORDER BY id
    """
)
