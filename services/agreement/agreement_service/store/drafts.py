"""Saved simulations (S1-34, S5-13)."""

import dataclasses
import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import db

TABLE = sa.Table(
    "drafts",
    tables.METADATA,
    sa.Column("agency", tables.UUID, primary_key=True),
    sa.Column("id", tables.UUID, primary_key=True),
    sa.Column("case_ids", tables.UUIDS),
    sa.Column("request", tables.BYTES),
    sa.Column("save_date", tables.DATE),
    sa.Column("expire_date", tables.DATE),
    sa.Column("created_at", tables.INSTANT),
    sa.Column("version", tables.BIG),
    info={
        "digest": False,
        "reason": "what somebody is working on: a request holds ids made by chance, so no key finds it in another run;"
        " what became of it is an agreement",
    },
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A row: the request as it was saved, the day, and the last day on which it can be proposed."""

    id: uuid.UUID
    case_ids: tuple[uuid.UUID, ...]
    request: bytes
    save_date: datetime.date
    expire_date: datetime.date
    created_at: datetime.datetime
    version: int = 1


_COLUMNS = "id, case_ids, request, save_date, expire_date, created_at, version"
_INSERT = tables.sql(
    """
    INSERT INTO drafts (agency, id, case_ids, request, save_date, expire_date, created_at)
    VALUES (CAST(:agency AS uuid), :id, CAST(:case_ids AS uuid[]), :request, :save_date, :expire_date, :created_at)
    """
)
_GET = tables.sql(f"SELECT {_COLUMNS} FROM drafts WHERE agency = :agency AND id = :id")  # noqa: S608 -- above
_LOCK = tables.sql(
    f"SELECT {_COLUMNS} FROM drafts WHERE agency = :agency AND id = :id FOR UPDATE"  # noqa: S608 -- above
)
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM drafts
    WHERE agency = :agency AND (CAST(:case_id AS uuid) IS NULL OR :case_id = ANY(case_ids))
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- above
)
_UPDATE = tables.sql(
    """
    UPDATE drafts SET case_ids = CAST(:case_ids AS uuid[]), request = :request, save_date = :save_date,
        expire_date = :expire_date, version = version + 1
    WHERE agency = :agency AND id = :id
    """
)
_DELETE = tables.sql("DELETE FROM drafts WHERE agency = :agency AND id = :id")
_WAITING = tables.sql(
    """
    SELECT DISTINCT ON (names.place) names.place, approvals.id
    FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS names (name, place) JOIN approvals
        ON position(convert_to(names.name, 'UTF8') IN approvals.command) > 0
    WHERE approvals.agency = :agency AND approvals.state = 'PENDING' AND approvals.expire_date >= :date
        AND approvals.method = :method
    ORDER BY names.place, approvals.id DESC
    """
)


def add(tx: db.Transaction, agency: uuid.UUID, draft: Draft) -> None:
    """Store a new one."""
    tx.execute(_INSERT, {"agency": agency, **_values(draft), "created_at": draft.created_at})


def get(tx: db.Transaction, agency: uuid.UUID, draft_id: uuid.UUID, *, lock: bool = False) -> Draft | None:
    """One draft, locked until the transaction ends where asked."""
    row = tx.execute(_LOCK if lock else _GET, {"agency": agency, "id": draft_id}).mappings().first()
    return _draft(row) if row is not None else None


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Draft]:
    """Drafts in id order, those of a case where one is given."""
    params = {"agency": agency, "case_id": case_id, "after": after, "limit": limit}
    return [_draft(row) for row in tx.execute(_PAGE, params).mappings()]


def update(tx: db.Transaction, agency: uuid.UUID, draft: Draft) -> None:
    """Save a locked one again; its version counts up."""
    tx.execute(_UPDATE, {"agency": agency, **_values(draft)})


def delete(tx: db.Transaction, agency: uuid.UUID, draft_id: uuid.UUID) -> None:
    """Remove one."""
    tx.execute(_DELETE, {"agency": agency, "id": draft_id})


def waiting(
    tx: db.Transaction, agency: uuid.UUID, names: Sequence[str], *, method: str, date: datetime.date
) -> dict[str, uuid.UUID]:
    """The approval that a call of `method` waits for, by the name of the draft it proposes; the newest of several."""
    params = {"agency": agency, "names": list(names), "method": method, "date": date}
    return {names[row.place - 1]: row.id for row in tx.execute(_WAITING, params)}


def _values(draft: Draft) -> dict[str, object]:
    return {
        "id": draft.id,
        "case_ids": _sorted(draft.case_ids),
        "request": draft.request,
        "save_date": draft.save_date,
        "expire_date": draft.expire_date,
    }


def _sorted(case_ids: Iterable[uuid.UUID]) -> list[uuid.UUID]:
    return sorted(set(case_ids))


def _draft(row: sa.RowMapping) -> Draft:
    return Draft(**{**row, "case_ids": tuple(row["case_ids"])})
