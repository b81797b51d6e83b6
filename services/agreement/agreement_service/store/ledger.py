"""The ledger read: sums, trial balance, statements; and the postings of titles as they are issued."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import db

_SUMS = tables.sql(
    "SELECT currency, kind, sum(amount_minor) AS amount FROM postings WHERE agency = :agency GROUP BY currency, kind"
)
_SCOPE = """
    postings.agency = :agency AND (CAST(:until AS date) IS NULL OR postings.business_date <= :until)
        AND (CAST(:case_id AS uuid) IS NULL OR postings.case_id = :case_id)
        AND (CAST(:creditor AS uuid) IS NULL OR (
            SELECT case_accounts.creditor_id FROM case_accounts
            WHERE case_accounts.agency = postings.agency AND case_accounts.case_id = postings.case_id
        ) = :creditor OR (postings.case_id IS NULL AND (
            SELECT creditors.creditor_id FROM payments JOIN creditors ON creditors.agency = payments.agency
                AND creditors.creditor_reference = payments.creditor_reference
            WHERE payments.agency = postings.agency AND payments.id = postings.payment_id) = :creditor))
"""
_BALANCES = tables.sql(
    f"""
    SELECT currency, account, CAST(sum(debit) AS bigint) AS debit, CAST(sum(credit) AS bigint) AS credit
    FROM (
        SELECT currency, debit AS account, sum(abs(amount_minor)) AS debit, 0 AS credit
        FROM postings WHERE {_SCOPE} GROUP BY 1, 2
        UNION ALL
        SELECT currency, credit AS account, 0, sum(abs(amount_minor))
        FROM postings WHERE {_SCOPE} GROUP BY 1, 2
    ) AS sides GROUP BY currency, account ORDER BY currency, account
    """  # noqa: S608 -- text of this module
)
_PAGE = tables.sql(
    f"""
    SELECT postings.id, postings.case_id, postings.title_id, postings.instalment_id, postings.component,
        postings.kind, postings.amount_minor, postings.currency, postings.debit, postings.credit,
        postings.business_date, postings.value_date, postings.payment_id, postings.agreement_id
    FROM postings WHERE {_SCOPE} AND (CAST(:title_id AS uuid) IS NULL OR postings.title_id = :title_id)
        AND (CAST(:payment_id AS uuid) IS NULL OR postings.payment_id = :payment_id)
        AND postings.id > :after
    ORDER BY postings.id LIMIT :limit
    """  # noqa: S608 -- text of this module
)
_ISSUE = tables.sql(
    """
    INSERT INTO postings (agency, case_id, component, kind, amount_minor, currency, business_date, value_date,
        agreement_id)
    SELECT CAST(:agency AS uuid), case_id, 'PRINCIPAL', 'ISSUED', :amount_minor, currency,
        CAST(:business_date AS date), CAST(:business_date AS date), CAST(:agreement_id AS uuid)
    FROM case_accounts WHERE agency = :agency AND case_id = :case_id
    """
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What of the ledger is read: up to a business date, of a creditor, of a case; None: all."""

    until: datetime.date | None = None
    creditor: uuid.UUID | None = None
    case_id: uuid.UUID | None = None


def sums(tx: db.Transaction, agency: uuid.UUID) -> dict[str, dict[str, int]]:
    """Signed sums by currency and kind."""
    found: dict[str, dict[str, int]] = {}
    for row in tx.execute(_SUMS, {"agency": agency}):
        found.setdefault(row.currency, {})[row.kind] = int(row.amount)
    return found


def balances(tx: db.Transaction, agency: uuid.UUID, scope: Scope) -> Sequence[sa.RowMapping]:
    """Turnover of every account by currency: currency, account, debit, credit."""
    return tx.execute(_BALANCES, {"agency": agency, **_params(scope)}).mappings().all()


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    scope: Scope,
    *,
    title_id: uuid.UUID | None,
    payment_id: uuid.UUID | None,
    after: int,
    limit: int,
) -> Sequence[sa.Row[Any]]:
    """Postings in the order in which they were made."""
    params = {
        "agency": agency,
        **_params(scope),
        "title_id": title_id,
        "payment_id": payment_id,
        "after": after,
        "limit": limit,
    }
    return tx.execute(_PAGE, params).all()


def issue(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    case_id: uuid.UUID,
    agreement_id: uuid.UUID,
    amount_minor: int,
    business_date: datetime.date,
) -> None:
    """Post the principal of the titles that a novation puts in place of others, one row for all of them: what leaves as
    NOVATED comes back as theirs."""
    params = {
        "agency": agency,
        "case_id": case_id,
        "agreement_id": agreement_id,
        "amount_minor": amount_minor,
        "business_date": business_date,
    }
    tx.execute(_ISSUE, params)


def _params(scope: Scope) -> dict[str, Any]:
    return {"until": scope.until, "creditor": scope.creditor, "case_id": scope.case_id}
