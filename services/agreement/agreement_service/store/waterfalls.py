"""Creditors' orders of allocation, dated rows."""

import datetime
import uuid
from collections.abc import Collection, Sequence

from agreement_service.domain import accounts
from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "waterfalls",
    ["creditor_id", "valid_from"],
    tables.reference("creditor_id", "creditors", key=True),
    tables.business("valid_from", tables.DATE, key=True),
    tables.business("components", tables.TEXTS),
    tables.business("set_by", tables.TEXT),
)
_OF = tables.sql(
    """
    SELECT creditor_id, valid_from, components FROM waterfalls
    WHERE agency = :agency AND creditor_id = ANY(CAST(:creditor_ids AS uuid[])) ORDER BY creditor_id, valid_from
    """
)
_LOCK = tables.sql(
    "SELECT pg_advisory_xact_lock(hashtextextended('waterfalls ' || CAST(:creditor_id AS text), 0))"
)
_PUT = tables.sql(
    """
    INSERT INTO waterfalls (agency, creditor_id, valid_from, components, set_by)
    VALUES (CAST(:agency AS uuid), :creditor_id, :valid_from, :components, :set_by)
    ON CONFLICT (agency, creditor_id, valid_from)
        DO UPDATE SET components = excluded.components, set_by = excluded.set_by
    """
)


def of(
    tx: db.Transaction, agency: uuid.UUID, creditor_ids: Collection[uuid.UUID]
) -> dict[uuid.UUID, accounts.Waterfalls]:
    """The orders of these creditors that have any."""
    dated: dict[uuid.UUID, list[tuple[datetime.date, tuple[accounts.Component, ...]]]] = {}
    for row in tx.execute(_OF, {"agency": agency, "creditor_ids": sorted(creditor_ids)}):
        order = tuple(accounts.Component(name) for name in row.components)
        dated.setdefault(row.creditor_id, []).append((row.valid_from, order))
    return {key: accounts.Waterfalls(tuple(rows)) for key, rows in dated.items()}


def lock(tx: db.Transaction, creditor_id: uuid.UUID) -> None:
    """Let nobody else set this creditor's orders until the transaction ends."""
    tx.execute(_LOCK, {"creditor_id": creditor_id})


def put(
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    *,
    valid_from: datetime.date,
    order: Sequence[accounts.Component],
    set_by: str,
) -> None:
    """Set the order from a day on; that of the same day is written over."""
    params = {
        "agency": agency,
        "creditor_id": creditor_id,
        "valid_from": valid_from,
        "components": [component.value for component in order],
        "set_by": set_by,
    }
    tx.execute(_PUT, params)
