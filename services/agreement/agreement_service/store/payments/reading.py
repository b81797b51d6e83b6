"""Payments read: by id, by identity, in lists, with what they did."""

import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from agreement_service.domain import accounts
from agreement_service.domain import payments as rules
from agreement_service.store import tables
from agreement_service.store.payments.rows import (
    COLUMNS,
    EVERYTHING,
    Filter,
    Payment,
    identities_of,
    payments_of,
)
from servicekit import db

_BY_IDENTITY = tables.sql(
    f"""
    SELECT payments.* FROM unnest(CAST(:creditor_references AS text[]), CAST(:accounts AS text[]),
        CAST(:means AS text[]), CAST(:bank_references AS text[]))
        AS wanted (creditor_reference, account, means, bank_reference)
    CROSS JOIN LATERAL (
        SELECT {COLUMNS} FROM payments
        WHERE payments.agency = :agency AND payments.creditor_reference = wanted.creditor_reference
            AND payments.account = wanted.account AND payments.means = wanted.means
            AND payments.bank_reference = wanted.bank_reference OFFSET 0
    ) AS payments
    """  # noqa: S608 -- column names of this module
)
_BY_ID = f"SELECT {COLUMNS} FROM payments WHERE agency = :agency AND id = ANY(CAST(:ids AS uuid[]))"  # noqa: S608
_GET = tables.sql(_BY_ID)
_LOCK = tables.sql(_BY_ID + " ORDER BY id FOR UPDATE")
_LATER = tables.sql(
    f"""
    SELECT {COLUMNS} FROM payments JOIN case_accounts
        ON case_accounts.agency = payments.agency AND case_accounts.case_id = payments.case_id
            AND case_accounts.epoch = payments.epoch
    WHERE payments.agency = :agency AND payments.case_id = ANY(CAST(:case_ids AS uuid[]))
        AND payments.value_date >= :since AND payments.state IN ('ALLOCATED', 'OVERPAID', 'REFUNDED')
    """  # noqa: S608 -- column names of this module
)
_ENTRIES = tables.sql(
    """
    SELECT payment_id, case_id, title_id, instalment_id, component, kind, from_date, through_date, base_minor,
        numerator, denominator, rule, CAST(sum(amount_minor) AS bigint) AS amount_minor
    FROM postings WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[])) AND component <> 'CASH'
    GROUP BY payment_id, case_id, title_id, instalment_id, component, kind, from_date, through_date, base_minor,
        numerator, denominator, rule
    HAVING sum(amount_minor) <> 0 ORDER BY max(id)
    """
)
_CREDITOR = """(CAST(:creditor AS uuid) IS NULL OR payments.creditor_reference = (SELECT creditors.creditor_reference
    FROM creditors WHERE creditors.agency = payments.agency AND creditors.creditor_id = :creditor))"""
_PAGE = tables.sql(
    f"""
    SELECT {COLUMNS} FROM payments
    WHERE agency = :agency AND {_CREDITOR} AND (CAST(:states AS text[]) IS NULL OR state = ANY(:states))
        AND (CAST(:reverse_kind AS text) IS NULL OR reverse_kind = :reverse_kind)
        AND (CAST(:case_id AS uuid) IS NULL OR case_id = :case_id)
        AND (CAST(:creditor_reference AS text) IS NULL OR creditor_reference = :creditor_reference)
        AND (CAST(:since AS date) IS NULL OR value_date >= :since)
        AND (CAST(:until AS date) IS NULL OR value_date <= :until)
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
_GET_ONE = tables.sql(
    f"SELECT {COLUMNS} FROM payments WHERE agency = :agency AND id = :id AND {_CREDITOR}"  # noqa: S608
)
_ALLOCATIONS = tables.sql(
    """
    SELECT payment_id, case_id, title_id, instalment_id, component, amount_minor FROM allocations
    WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[]))
    ORDER BY payment_id, instalment_id, title_id, component
    """
)
_GET_SOURCES = tables.sql(
    """
    SELECT payment_id, kind, batch_id, row, caller FROM payment_sources
    WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[]))
    ORDER BY payment_id, kind, batch_id, row, caller
    """
)


def by_identity(
    tx: db.Transaction, agency: uuid.UUID, identities: Iterable[rules.Identity]
) -> dict[rules.Identity, Payment]:
    """Payments by what identifies the credit."""
    wanted = sorted(set(identities))
    found = payments_of(tx.execute(_BY_IDENTITY, {"agency": agency, **identities_of(wanted)}).mappings())
    return {payment.identity: payment for payment in found}


def get(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID], *, lock: bool = False
) -> dict[uuid.UUID, Payment]:
    """Payments by id."""
    rows = tx.execute(_LOCK if lock else _GET, {"agency": agency, "ids": sorted(set(ids))}).mappings()
    return {payment.id: payment for payment in payments_of(rows)}


def find(
    tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID, *, creditor: uuid.UUID | None
) -> Payment | None:
    """One payment, of the creditor where one is given."""
    params = {"agency": agency, "id": payment_id, "creditor": creditor}
    return next(iter(payments_of(tx.execute(_GET_ONE, params).mappings())), None)


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor: uuid.UUID | None = None,
    only: Filter = EVERYTHING,
    after: uuid.UUID | None,
    limit: int,
) -> list[Payment]:
    """Payments in id order."""
    params = {
        "agency": agency,
        "creditor": creditor,
        "states": list(only.states) or None,
        "reverse_kind": only.reverse_kind,
        "case_id": only.case_id,
        "creditor_reference": only.creditor_reference,
        "since": only.since,
        "until": only.until,
        "after": after,
        "limit": limit,
    }
    return payments_of(tx.execute(_PAGE, params).mappings())


def later(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, since: datetime.date
) -> list[Payment]:
    """Applied payments of these cases' present epochs with a value date of `since` or later."""
    params = {"agency": agency, "case_ids": sorted(set(case_ids)), "since": since}
    return payments_of(tx.execute(_LATER, params).mappings())


def entries(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> Mapping[uuid.UUID, list[accounts.Entry]]:
    """What these payments did, net of contra entries, in the order in which it was done."""
    grouped: dict[uuid.UUID, list[accounts.Entry]] = {}
    wanted = sorted(set(ids))
    if wanted:
        for row in tx.execute(_ENTRIES, {"agency": agency, "ids": wanted}).mappings():
            fields = dict(row)
            payment_id = fields.pop("payment_id")
            fields["component"] = accounts.Component(fields["component"])
            fields["kind"] = accounts.Kind(fields["kind"])
            grouped.setdefault(payment_id, []).append(accounts.Entry(**fields))
    return grouped


def allocations(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[sa.RowMapping]]:
    """Allocations by payment."""
    return _grouped(tx.execute(_ALLOCATIONS, {"agency": agency, "ids": sorted(set(ids))}).mappings().all())


def sources(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[sa.RowMapping]]:
    """Sources by payment."""
    return _grouped(tx.execute(_GET_SOURCES, {"agency": agency, "ids": sorted(set(ids))}).mappings().all())


def _grouped(rows: Sequence[sa.RowMapping]) -> dict[uuid.UUID, list[sa.RowMapping]]:
    grouped: dict[uuid.UUID, list[sa.RowMapping]] = {}
    for row in rows:
        grouped.setdefault(row["payment_id"], []).append(row)
    return grouped
