"""The ledger's two sides (issue 4): which account a posting debits and which one it credits.

A posting moves its amount, minor units of one currency, from the account it credits to the account it debits; a
negative amount (a contra entry) moves it back. Accounts are kept by agency, creditor, case and, for what is owed and
what was charged, component:

    RECEIVABLE:<component>  what debtors owe (a debit balance)
    PLACED                  principal handed over by the creditor
    CHARGES:<component>     what was added to it
    WAIVED WITHDRAWN WRITTEN_OFF   what left without cash
    NOVATED                 what left by novation, less the titles issued for it: zero in sum
    BANK                    money received, not given back
    CLEARING                money that is not allocated: a credit balance, that of unidentified payments
    OVERPAID                money that is more than was owed: a credit balance

Debits and credits of every row are equal, so all balances sum to zero; what is open by the ledger (RECEIVABLE) is what
the titles and instalments hold. The same table in SQL generates the columns (migration 0007); a test holds both
together.
"""

import enum

from agreement_service.domain import accounts


class Kind(enum.StrEnum):
    """Postings beside those that move a title or an instalment (accounts.Kind)."""

    PLACED = "PLACED"
    """Principal of the titles of one placement; one row a case."""
    ISSUED = "ISSUED"
    """Principal of titles that a novation put in place of others; one row a case."""
    PAID_IN = "PAID_IN"
    """A payment came in; negative: it was annulled, it had not."""
    OVERPAID = "OVERPAID"
    """Part of a payment that is more than was owed."""
    CREDITED = "CREDITED"
    """Overpaid money is used again as a credit."""
    REFUNDED = "REFUNDED"
    """Overpaid money was given back."""
    REVERSED = "REVERSED"
    """The bank took a payment back."""


CASH = frozenset({Kind.PAID_IN, Kind.OVERPAID, Kind.CREDITED, Kind.REFUNDED, Kind.REVERSED})
"""Kinds whose component is CASH."""

_SIDES = {
    Kind.PLACED: ("RECEIVABLE:{0}", "PLACED"),
    Kind.ISSUED: ("RECEIVABLE:{0}", "NOVATED"),
    Kind.PAID_IN: ("BANK", "CLEARING"),
    Kind.OVERPAID: ("CLEARING", "OVERPAID"),
    Kind.CREDITED: ("OVERPAID", "CLEARING"),
    Kind.REFUNDED: ("OVERPAID", "BANK"),
    Kind.REVERSED: ("CLEARING", "BANK"),
    accounts.Kind.CHARGED: ("RECEIVABLE:{0}", "CHARGES:{0}"),
    accounts.Kind.RECEIVED: ("CLEARING", "RECEIVABLE:{0}"),
    accounts.Kind.WAIVED: ("WAIVED", "RECEIVABLE:{0}"),
    accounts.Kind.WITHDRAWN: ("WITHDRAWN", "RECEIVABLE:{0}"),
    accounts.Kind.WRITTEN_OFF: ("WRITTEN_OFF", "RECEIVABLE:{0}"),
    accounts.Kind.NOVATED: ("NOVATED", "RECEIVABLE:{0}"),
}


def sides(kind: Kind | accounts.Kind, component: str, amount_minor: int) -> tuple[str, str]:
    """The accounts that a posting debits and credits by its absolute amount."""
    debit, credit = (side.format(component) for side in _SIDES[kind])
    return (debit, credit) if amount_minor > 0 else (credit, debit)
