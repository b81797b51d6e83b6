"""The ledger read: trial balance and statements."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence
from typing import Any

from agreement_service.store import ledger as store
from servicekit import db, errors


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Turnover of an account, minor units of `currency`; the balance is debit less credit."""

    account: str
    currency: str
    debit_minor: int
    credit_minor: int

    @property
    def balance_minor(self) -> int:
        """Above zero: a debit balance."""
        return self.debit_minor - self.credit_minor


def trial_balance(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID | None = None,
    case_id: uuid.UUID | None = None,
    date: datetime.date | None = None,
) -> list[Balance]:
    """Every account of the agency (of a creditor, of a case, up to a business date); debits equal credits in each
    currency."""
    scope = store.Scope(until=date, creditor=creditor_id, case_id=case_id)
    return [
        Balance(
            account=row["account"],
            currency=row["currency"],
            debit_minor=row["debit"],
            credit_minor=row["credit"],
        )
        for row in store.balances(tx, agency, scope)
    ]


def postings(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID | None,
    case_id: uuid.UUID | None,
    title_id: uuid.UUID | None,
    payment_id: uuid.UUID | None,
    after: int,
    limit: int,
) -> Sequence[Any]:
    """Postings after a number, in order. A title's are read by its case: raises InvalidRequest without one."""
    if title_id is not None and case_id is None:
        raise errors.invalid("case_id", "expected the case of the title")
    return store.page(
        tx,
        agency,
        store.Scope(creditor=creditor_id, case_id=case_id),
        title_id=title_id,
        payment_id=payment_id,
        after=after,
        limit=limit,
    )
