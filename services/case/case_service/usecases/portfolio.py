"""A slice of a portfolio batch becomes creditors, people, contracts, cases and titles."""

from __future__ import annotations

import collections
import uuid
from typing import Any

from case_service.store import portfolio
from case_service.usecases import facts, moments
from servicekit import db, errors, telemetry

_titles = telemetry.counter("recupera.case.titles_placed", "{title}", "Titles that were placed, by currency")
_cases = telemetry.counter("recupera.case.cases_opened", "{case}", "Cases that were opened, or opened again")

CHANGED = {
    "principal": "the principal of the title as placed",
    "due_date": "the due date of the title as placed",
    "currency": "the currency of the title as placed",
    "debtor_document": "the debtor of the title as placed",
}


class PlacementRaced(errors.ServiceError):
    """Another slice placed one of the titles at the same moment: the slice is applied again."""

    status = errors.Status.ABORTED
    transient = True


def apply_slice(
    tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID, slice_: int, csv: bytes
) -> None:
    """Place the rows (CSV as ``store.portfolio.stage`` takes it), publish the titles and what became of the
    slice.

    A slice that was applied before gets the answer it got then. A row with another principal, due date,
    currency or debtor than the title that is placed under its reference is rejected
    (TITLE_CHANGED_AFTER_PLACEMENT), one of a case that is being taken back too (CASE_FROZEN). Raises
    PlacementRaced, servicekit.clock.AgencyClockUnknown.
    """
    moment = moments.read(tx, agency)
    known = portfolio.slice_answer(tx, agency, batch_id=batch_id, slice_=slice_)
    if known is None:
        portfolio.stage(tx, csv)
        made = portfolio.place(
            tx,
            agency,
            batch_id=batch_id,
            actor="import",
            now=moment.now,
            business_date=moment.business_date,
        )
        counts = portfolio.count(tx)
        if made.titles != counts.new:
            raise PlacementRaced("a title was placed by another slice", batch_id=batch_id, slice=slice_)
        applied, unchanged, rejects = counts.new, counts.unchanged, _rejects(counts)
        portfolio.keep_slice_answer(
            tx,
            agency,
            batch_id=batch_id,
            slice_=slice_,
            applied=applied,
            unchanged=unchanged,
            rejects=rejects,
            business_date=moment.business_date,
        )
        placed = portfolio.placed(tx, agency)
        facts.titles_placed(tx, moment, placed, batch_id=batch_id)
        currencies = collections.Counter(currency for one in placed for currency in one.currencies)
        for currency, number in currencies.items():
            tx.count(_titles, number, currency=currency)
        tx.count(_cases, made.cases)
    else:
        applied, unchanged, rejects = known.applied, known.unchanged, known.rejects
    facts.slice_applied(
        tx,
        moment,
        batch_id=batch_id,
        slice_=slice_,
        applied=applied,
        unchanged=unchanged,
        rejects=rejects,
    )


def _rejects(counts: portfolio.Counts) -> list[dict[str, Any]]:
    found = [
        {"row": row, "field": field, "code": "TITLE_CHANGED_AFTER_PLACEMENT", "expected": CHANGED[field]}
        for row, field in counts.rejects
    ]
    found += [
        {
            "row": row,
            "field": "",
            "code": "CASE_FROZEN",
            "expected": "a case whose batch is not being taken back",
        }
        for row in counts.frozen
    ]
    return sorted(found, key=lambda reject: reject["row"])
