"""Limits of what people may offer and change by themselves: dated rows."""

import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.domain import limits
from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "offer_limits",
    ["kind", "creditor_id", "role", "subject", "currency", "valid_from"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("role", tables.TEXT),
    tables.business("subject", tables.TEXT),
    tables.business("kind", tables.TEXT),
    tables.business("minimum", tables.BIG),
    tables.business("maximum", tables.BIG),
    tables.business("currency", tables.TEXT),
    tables.business("valid_from", tables.DATE),
    tables.business("set_by", tables.TEXT),
    tables.incidental("created_at", tables.INSTANT, "instant of the agency's clock when it was set"),
)
_COLUMNS = "id, creditor_id, role, subject, kind, minimum, maximum, currency, valid_from"
_STANDING = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM offer_limits
    WHERE agency = :agency AND kind = ANY(CAST(:kinds AS text[])) AND valid_from <= :date
        AND (creditor_id IS NULL OR creditor_id = :creditor_id)
        AND (subject = :subject OR (subject = '' AND (role = '' OR role = ANY(CAST(:roles AS text[])))))
    """  # noqa: S608 -- names of this module
)
_GET = tables.sql(f"SELECT {_COLUMNS} FROM offer_limits WHERE agency = :agency AND id = :id")  # noqa: S608 -- as above
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM offer_limits
    WHERE agency = :agency AND (CAST(:after AS uuid) IS NULL OR id > :after)
        AND (CAST(:kind AS text) IS NULL OR kind = :kind)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- as above
)
_PUT = tables.sql(
    """
    INSERT INTO offer_limits (agency, id, creditor_id, role, subject, kind, minimum, maximum, currency, valid_from,
        set_by, created_at)
    VALUES (CAST(:agency AS uuid), :id, :creditor_id, :role, :subject, :kind, :minimum, :maximum, :currency,
        :valid_from, :set_by, :created_at)
    ON CONFLICT (agency, kind, creditor_id, role, subject, currency, valid_from) DO UPDATE
    SET minimum = excluded.minimum, maximum = excluded.maximum, set_by = excluded.set_by,
        created_at = excluded.created_at
    RETURNING id
    """
)
_DELETE = tables.sql("DELETE FROM offer_limits WHERE agency = :agency AND id = :id")


def standing(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    authority: limits.Authority,
    kinds: Iterable[limits.Kind],
    creditor_id: uuid.UUID,
    date: datetime.date,
) -> list[limits.Limit]:
    """The rows that may count for a caller, these kinds and a creditor on a date."""
    return _limits(
        tx.execute(
            _STANDING,
            {
                "agency": agency,
                "kinds": sorted({kind.value for kind in kinds}),
                "date": date,
                "creditor_id": creditor_id,
                "subject": authority.subject,
                "roles": sorted(authority.roles),
            },
        )
        .mappings()
        .all()
    )


def get(tx: db.Transaction, agency: uuid.UUID, limit_id: uuid.UUID) -> limits.Limit | None:
    """One row."""
    found = _limits(tx.execute(_GET, {"agency": agency, "id": limit_id}).mappings().all())
    return found[0] if found else None


def page(
    tx: db.Transaction, agency: uuid.UUID, *, kind: str | None, after: uuid.UUID | None, limit: int
) -> list[limits.Limit]:
    """Rows in id order."""
    return _limits(
        tx.execute(_PAGE, {"agency": agency, "kind": kind, "after": after, "limit": limit}).mappings().all()
    )


def put(
    tx: db.Transaction, agency: uuid.UUID, limit: limits.Limit, *, set_by: str, now: datetime.datetime
) -> uuid.UUID:
    """Write a row, over the one of the same kind, holder, creditor, currency and date; the id it has."""
    return uuid.UUID(
        str(
            tx.execute(
                _PUT,
                {
                    "agency": agency,
                    "id": limit.id,
                    "creditor_id": limit.creditor_id,
                    "role": limit.role,
                    "subject": limit.subject,
                    "kind": limit.kind.value,
                    "minimum": limit.minimum,
                    "maximum": limit.maximum,
                    "currency": limit.currency,
                    "valid_from": limit.valid_from,
                    "set_by": set_by,
                    "created_at": now,
                },
            ).scalar_one()
        )
    )


def delete(tx: db.Transaction, agency: uuid.UUID, limit_id: uuid.UUID) -> bool:
    """Take a row away. False when there is none."""
    return bool(tx.execute(_DELETE, {"agency": agency, "id": limit_id}).rowcount)


def _limits(rows: Sequence[sa.RowMapping]) -> list[limits.Limit]:
    return [limits.Limit(**{**row, "kind": limits.Kind(row["kind"])}) for row in rows]
