"""The money identity of an agency (issue 3), novations included:

placed + charges + issued = open + received + waived + written_off + withdrawn + novated
paid_in - reversed - refunded = received + unidentified + overpaid
issued = novated
"""

import dataclasses
import datetime
import uuid

from agreement_service.store import instruments as instrument_store
from agreement_service.store import ledger
from agreement_service.store import summary as store
from servicekit import db, errors

_KINDS = {
    "PLACED": "placed",
    "ISSUED": "issued",
    "CHARGED": "charges",
    "RECEIVED": "received",
    "WAIVED": "waived",
    "WRITTEN_OFF": "written_off",
    "WITHDRAWN": "withdrawn",
    "NOVATED": "novated",
    "PAID_IN": "paid_in",
    "REVERSED": "reversed",
    "REFUNDED": "refunded",
}
"""Sums of the ledger, by kind of posting."""


@dataclasses.dataclass(kw_only=True)
class Sums:
    """One currency's sums, minor units."""

    currency: str
    placed: int = 0
    charges: int = 0
    open: int = 0
    open_principal: int = 0
    received: int = 0
    waived: int = 0
    written_off: int = 0
    withdrawn: int = 0
    novated: int = 0
    issued: int = 0
    paid_in: int = 0
    reversed: int = 0
    refunded: int = 0
    unidentified: int = 0
    overpaid: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """The identity by currency, and counts to wait and to report by."""

    sums: list[Sums]
    agreements_by_state: dict[str, int]
    payments: int
    payments_unidentified: int
    titles: int
    outbox: int
    parked: int
    acts_due: int


def summarize(
    *, tx: db.Transaction, agency: uuid.UUID, date: datetime.date, business_date: datetime.date
) -> Summary:
    """The identity as of `date`: the ledger as it is, charges and plan interest counted to `date`.

    What is open comes from the balances, what is unidentified and overpaid from the payments, everything else from the
    ledger: two sides that must agree.
    Raises InvalidRequest for a date before the business date.
    """
    if date < business_date:
        raise errors.invalid("date", f"expected {business_date} or later")
    found: dict[str, Sums] = {}

    def of(currency: str) -> Sums:
        return found.setdefault(currency, Sums(currency=currency))

    titles = 0
    for row in store.balances(tx, agency, date=date):
        sums = of(row["currency"])
        titles += row["titles"]
        sums.open += int(row["open"] + row["accrued"])
        sums.open_principal += int(row["open_principal"])
        sums.charges += int(row["accrued"])
    for row in store.plans(tx, agency, date=date):
        sums = of(row["currency"])
        sums.open += int(row["open"] + row["accrued"])
        sums.charges += int(row["accrued"])
    for currency, posted in ledger.sums(tx, agency).items():
        sums = of(currency)
        for kind, name in _KINDS.items():
            setattr(sums, name, getattr(sums, name) + posted.get(kind, 0))
    payments = unidentified = 0
    for row in store.cash(tx, agency):
        sums = of(row["currency"])
        payments += row["payments"]
        sums.overpaid += int(row["overpaid"])
        if row["state"] == "UNIDENTIFIED":
            sums.unidentified += int(row["amount"])
            unidentified += row["payments"]
    outbox, parked = store.waiting(tx, agency)
    return Summary(
        sums=[found[key] for key in sorted(found)],
        agreements_by_state=store.agreements(tx, agency),
        payments=payments,
        payments_unidentified=unidentified,
        titles=titles,
        outbox=outbox,
        parked=parked,
        acts_due=instrument_store.waiting(tx, agency),
    )
