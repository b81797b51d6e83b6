"""Business counters: what came about, added when the transaction commits (docs/telemetry.md)."""

from collections.abc import Iterable

from agreement_service.domain import accounts
from agreement_service.store import payments as payment_store
from servicekit import db, telemetry

_agreements = telemetry.counter(
    "recupera.agreement.agreements", "{agreement}", "Agreements, by the state they came into"
)
_payments = telemetry.counter(
    "recupera.agreement.payments", "{payment}", "Payments that became money here, by means"
)
_received = telemetry.counter(
    "recupera.agreement.received", "1", "Minor units of the payments that became money here, by currency"
)


def agreements(tx: db.Transaction, states: Iterable[accounts.AgreementState]) -> None:
    """Agreements came into these states."""
    for state in states:
        tx.count(_agreements, state=state.value)


def payments(tx: db.Transaction, received: Iterable[payment_store.Payment]) -> None:
    """The bank reported or confirmed these for the first time. What is reversed later is not taken off."""
    for one in received:
        tx.count(_payments, means=one.means)
        tx.count(_received, one.amount_minor, currency=one.currency)
