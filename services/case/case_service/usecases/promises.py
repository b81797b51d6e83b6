"""Promises are counted, added when the transaction commits (docs/telemetry.md)."""

from __future__ import annotations

from servicekit import db, telemetry

_promises = telemetry.counter(
    "recupera.case.promises",
    "{promise}",
    "Promises to pay, by what they came to: OPEN when made, KEPT, BROKEN",
)


def count(tx: db.Transaction, *, made: int = 0, kept: int = 0, broken: int = 0) -> None:
    """So many came to be so."""
    for state, number in (("OPEN", made), ("KEPT", kept), ("BROKEN", broken)):
        tx.count(_promises, number, state=state)
