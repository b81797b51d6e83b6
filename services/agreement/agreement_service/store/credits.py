"""Overpaid money: what was given back, and what was used as a credit (S5-08)."""

import datetime
import uuid
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "refunds",
    ["payment_id", "number"],
    tables.reference("payment_id", "payments", key=True),
    tables.business("number", tables.INT, key=True),
    tables.business("amount_minor", tables.BIG),
    tables.business("refund_date", tables.DATE),
    tables.business("reason", tables.TEXT),
    tables.business("refunded_by", tables.TEXT),
)
_MADE_OF = tables.sql(
    """
    SELECT id FROM payments
    WHERE agency = :agency AND origin_payment_id = :id AND state IN ('ALLOCATED', 'OVERPAID', 'REFUNDED') ORDER BY id
    """
)
_COUNT = tables.sql("SELECT count(*) FROM payments WHERE agency = :agency AND origin_payment_id = :id")
_REFUND = tables.sql(
    """
    INSERT INTO refunds (agency, payment_id, number, amount_minor, refund_date, reason, refunded_by)
    SELECT CAST(:agency AS uuid), CAST(:id AS uuid), 1 + count(*), :amount_minor, :refund_date, :reason, :refunded_by
    FROM refunds WHERE agency = :agency AND payment_id = CAST(:id AS uuid)
    """
)
_REFUNDS = tables.sql(
    """
    SELECT payment_id, number, amount_minor, refund_date, reason, refunded_by FROM refunds
    WHERE agency = :agency AND payment_id = ANY(CAST(:ids AS uuid[])) ORDER BY payment_id, number
    """
)
_AVAILABLE = tables.sql(
    """
    SELECT payments.id, payments.case_id, payments.value_date, payments.currency, payments.overpaid_minor,
        payments.version
    FROM payments JOIN case_accounts
        ON case_accounts.agency = payments.agency AND case_accounts.case_id = payments.case_id
    WHERE payments.agency = :agency AND payments.overpaid_minor > 0
        AND (case_accounts.creditor_id, case_accounts.debtor_id, case_accounts.currency) = (
            SELECT creditor_id, debtor_id, currency FROM case_accounts
            WHERE agency = :agency AND case_id = :case_id)
    ORDER BY payments.value_date, payments.id
    """
)


def made_of(tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID) -> list[uuid.UUID]:
    """Credits in use that were made of this payment's overpaid money."""
    return list(tx.execute(_MADE_OF, {"agency": agency, "id": payment_id}).scalars())


def count(tx: db.Transaction, agency: uuid.UUID, payment_id: uuid.UUID) -> int:
    """How many credits were ever made of it, those annulled included."""
    return int(tx.execute(_COUNT, {"agency": agency, "id": payment_id}).scalar_one())


def refund(
    tx: db.Transaction,
    agency: uuid.UUID,
    payment_id: uuid.UUID,
    *,
    amount_minor: int,
    refund_date: datetime.date,
    reason: str,
    refunded_by: str,
) -> None:
    """Note a refund; the payment's row is locked."""
    params = {
        "agency": agency,
        "id": payment_id,
        "amount_minor": amount_minor,
        "refund_date": refund_date,
        "reason": reason,
        "refunded_by": refunded_by,
    }
    tx.execute(_REFUND, params)


def refunds(
    tx: db.Transaction, agency: uuid.UUID, ids: Iterable[uuid.UUID]
) -> dict[uuid.UUID, list[sa.RowMapping]]:
    """Refunds by payment: number, amount_minor, refund_date, reason, refunded_by."""
    grouped: dict[uuid.UUID, list[sa.RowMapping]] = {}
    for row in tx.execute(_REFUNDS, {"agency": agency, "ids": sorted(set(ids))}).mappings():
        grouped.setdefault(row["payment_id"], []).append(row)
    return grouped


def available(tx: db.Transaction, agency: uuid.UUID, case_id: uuid.UUID) -> Sequence[sa.RowMapping]:
    """Payments of the case's debtor, creditor and currency that hold overpaid money, oldest first: id, case_id,
    value_date, currency, overpaid_minor, version."""
    return tx.execute(_AVAILABLE, {"agency": agency, "case_id": case_id}).mappings().all()
