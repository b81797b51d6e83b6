"""Write-offs of titles, one row each, and the entries that they made."""

import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "write_offs",
    ["title_id", "number"],
    tables.reference("case_id", "case_accounts"),
    tables.reference("title_id", "titles", key=True),
    tables.business("number", tables.INT, key=True),
    tables.business("type", tables.TEXT),
    tables.business("reason", tables.TEXT),
    tables.business("amount_minor", tables.BIG),
    tables.business("write_off_date", tables.DATE),
    tables.business("written_off_by", tables.TEXT),
    tables.business("undo_date", tables.DATE),
    tables.business("undo_reason", tables.TEXT),
)
_ADD = tables.sql(
    """
    INSERT INTO write_offs (agency, case_id, title_id, number, type, reason, amount_minor, write_off_date,
        written_off_by)
    SELECT CAST(:agency AS uuid), new.case_id, new.title_id, 1 + (
            SELECT count(*) FROM write_offs AS earlier
            WHERE earlier.agency = :agency AND earlier.title_id = new.title_id),
        :type, :reason, new.amount, :date, :by
    FROM unnest(CAST(:case_ids AS uuid[]), CAST(:title_ids AS uuid[]), CAST(:amounts AS bigint[]))
        AS new (case_id, title_id, amount)
    ORDER BY new.title_id
    """
)
_STANDING = tables.sql(
    """
    SELECT case_id, title_id, number, type, reason, amount_minor, write_off_date FROM write_offs
    WHERE agency = :agency AND title_id = ANY(CAST(:title_ids AS uuid[])) AND undo_date IS NULL
    ORDER BY title_id, number
    """
)
_UNDO = tables.sql(
    """
    UPDATE write_offs SET undo_date = :date, undo_reason = :reason
    WHERE agency = :agency AND title_id = ANY(CAST(:title_ids AS uuid[])) AND undo_date IS NULL
    """
)
_ENTRIES = tables.sql(
    """
    SELECT case_id, title_id, component, CAST(sum(amount_minor) AS bigint) AS amount_minor FROM postings
    WHERE agency = :agency AND case_id = ANY(CAST(:case_ids AS uuid[]))
        AND title_id = ANY(CAST(:title_ids AS uuid[])) AND kind = 'WRITTEN_OFF'
    GROUP BY case_id, title_id, component HAVING sum(amount_minor) <> 0 ORDER BY max(id)
    """
)


def add(
    tx: db.Transaction,
    agency: uuid.UUID,
    written: Sequence[tuple[uuid.UUID, uuid.UUID, int]],
    *,
    type_: str,
    reason: str,
    date: datetime.date,
    by: str,
) -> None:
    """Note write-offs (case, title, amount); the cases are locked."""
    params = {
        "agency": agency,
        "case_ids": [case_id for case_id, _, _ in written],
        "title_ids": [title_id for _, title_id, _ in written],
        "amounts": [amount for _, _, amount in written],
        "type": type_,
        "reason": reason,
        "date": date,
        "by": by,
    }
    tx.execute(_ADD, params)


def standing(
    tx: db.Transaction, agency: uuid.UUID, title_ids: Iterable[uuid.UUID]
) -> Sequence[sa.RowMapping]:
    """Write-offs of these titles that are not undone."""
    return tx.execute(_STANDING, {"agency": agency, "title_ids": sorted(set(title_ids))}).mappings().all()


def undo(
    tx: db.Transaction,
    agency: uuid.UUID,
    title_ids: Iterable[uuid.UUID],
    *,
    date: datetime.date,
    reason: str,
) -> None:
    """Note that they are undone."""
    params = {"agency": agency, "title_ids": sorted(set(title_ids)), "date": date, "reason": reason}
    tx.execute(_UNDO, params)


def entries(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], title_ids: Iterable[uuid.UUID]
) -> Sequence[sa.RowMapping]:
    """What is written off of these titles, net of contra entries: case_id, title_id, component, amount_minor."""
    params = {
        "agency": agency,
        "case_ids": sorted(set(case_ids)),
        "title_ids": sorted(set(title_ids)),
    }
    return tx.execute(_ENTRIES, params).mappings().all()
