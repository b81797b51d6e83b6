"""The money identity, counted from two sides: what is open from the balances, the rest from the ledger.

Charges accrue by store/charges.py, exactly as domain/charges.py says.
"""

import datetime
import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from agreement_service.store import accounts, charges, tables
from servicekit import db

_BALANCES = charges.sql(
    f"""
    WITH {charges.SERIES}
    SELECT case_accounts.currency, count(*) AS titles, sum(counted.principal_minor) AS placed,
        sum(counted.open_minor) AS open, sum(counted.open_principal_minor) AS open_principal,
        sum(counted.accrued) AS accrued
    FROM (
        SELECT titles.agency, titles.case_id, titles.principal_minor, titles.open_principal_minor,
            {accounts.OPEN} AS open_minor, {charges.TOTAL} AS accrued
        FROM {charges.ACCRUED} WHERE titles.agency = :agency
    ) AS counted JOIN case_accounts
        ON case_accounts.agency = counted.agency AND case_accounts.case_id = counted.case_id
    GROUP BY case_accounts.currency ORDER BY case_accounts.currency
    """  # noqa: S608 -- text of this module
)
_PLANS = tables.sql(
    """
    SELECT agreements.currency, sum(charged_interest_minor - paid_interest_minor) AS open,
        sum(CASE WHEN agreements.state IN ('AWAITING_DOWN_PAYMENT', 'ACTIVE') AND instalments.due_date <= :date
            THEN interest_minor - charged_interest_minor ELSE 0 END) AS accrued
    FROM instalments JOIN agreements
        ON agreements.agency = instalments.agency AND agreements.id = instalments.agreement_id
    WHERE instalments.agency = :agency GROUP BY agreements.currency
    """
)
_LEDGER = tables.sql(
    "SELECT currency, kind, sum(amount_minor) AS amount FROM postings WHERE agency = :agency GROUP BY currency, kind"
)
_CASH = tables.sql(
    """
    SELECT currency, state, count(*) AS payments, sum(amount_minor) AS amount, sum(overpaid_minor) AS overpaid
    FROM payments WHERE agency = :agency GROUP BY currency, state
    """
)
_AGREEMENTS = tables.sql(
    "SELECT state, count(*) AS agreements FROM agreements WHERE agency = :agency GROUP BY state"
)
_WAITING = tables.sql(
    "SELECT (SELECT count(*) FROM outbox) AS outbox,"
    " (SELECT count(*) FROM parked WHERE parked.agency = :agency) AS parked"
)


def balances(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date) -> Sequence[sa.RowMapping]:
    """By currency: titles, placed, open (posted), open_principal, accrued (not posted, counted to `date`)."""
    return tx.execute(_BALANCES, {"agency": agency, "date": date}).mappings().all()


def plans(tx: db.Transaction, agency: uuid.UUID, *, date: datetime.date) -> Sequence[sa.RowMapping]:
    """Plan interest by currency: open (charged, unpaid), accrued (due by `date`, not charged yet)."""
    return tx.execute(_PLANS, {"agency": agency, "date": date}).mappings().all()


def ledger(tx: db.Transaction, agency: uuid.UUID) -> Sequence[sa.RowMapping]:
    """Sums of the ledger by currency and kind."""
    return tx.execute(_LEDGER, {"agency": agency}).mappings().all()


def cash(tx: db.Transaction, agency: uuid.UUID) -> Sequence[sa.RowMapping]:
    """Payments by currency and state: number, amount, overpaid."""
    return tx.execute(_CASH, {"agency": agency}).mappings().all()


def agreements(tx: db.Transaction, agency: uuid.UUID) -> dict[str, int]:
    """Number of agreements by state."""
    return {row.state: row.agreements for row in tx.execute(_AGREEMENTS, {"agency": agency})}


def waiting(tx: db.Transaction, agency: uuid.UUID) -> tuple[int, int]:
    """Facts in the outbox, and facts of the agency that are parked."""
    row = tx.execute(_WAITING, {"agency": agency}).one()
    return row.outbox, row.parked
