"""Slices of payment files, applied as a whole."""

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agreement_service import providers
from agreement_service.domain import payments as rules
from agreement_service.usecases import facts, moments, payments
from servicekit import db, errors


def apply(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    batch_id: uuid.UUID,
    number: int,
    rows: Sequence[Mapping[str, Any]],
    moment: moments.Moment,
    bank: providers.BankProvider,
) -> None:
    """Enter the payments of a slice and say so to the import service, with the rows that were refused."""
    reports = [_report(row, batch_id) for row in rows]
    entered = payments.enter(tx=tx, agency=agency, reports=reports, moment=moment, bank=bank)
    fact = facts.header(moment, subject=batch_id)
    body = fact.slice_applied
    body.batch_id = batch_id.bytes
    body.slice = number
    body.applied = entered.applied
    body.unchanged = entered.unchanged
    for index, error in entered.refused:
        field, expected = _explained(error)
        body.rejects.add(row=int(rows[index]["row"]), field=field, code=error.reason, expected=expected)
    tx.publish(fact)


def _explained(error: errors.ServiceError) -> tuple[str, str]:
    if isinstance(error, rules.PaymentDiffers):
        return "amount", "the amount and currency under which this credit is known"
    if isinstance(error, rules.PaymentAnnulled):
        return "bank_reference", "a payment that was not annulled; ConfirmPayment brings it back"
    violation = error.fields[0]
    return violation.field, violation.description


def _report(row: Mapping[str, Any], batch_id: uuid.UUID) -> payments.Report:
    value_date = row["value_date"]
    return payments.Report(
        creditor_reference=row["creditor_reference"] or "",
        account=row["account"] or "",
        means=row["means"] or "",
        bank_reference=row["bank_reference"] or "",
        value_date=value_date
        if isinstance(value_date, datetime.date)
        else datetime.date.fromisoformat(str(value_date)),
        amount_minor=int(row["amount_minor"]),
        currency=row["currency"] or "",
        txid=row["txid"] or "",
        our_number=row["our_number"] or "",
        title_reference=row["title_reference"] or "",
        contract_reference=row["contract_reference"] or "",
        batch_id=batch_id,
        row=int(row["row"]),
    )
