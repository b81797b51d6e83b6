"""A creditor's order of allocation: set from a day on, within what the law allows (CC BR 354, CC PT 785)."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service.domain import accounts
from agreement_service.domain.accounts import waterfalls as rules
from agreement_service.store import waterfalls as store
from agreement_service.usecases import existing, moments
from servicekit import db, errors


class WaterfallNotLawful(errors.ServiceError):
    """The law does not let a payment be counted in this order."""

    status = errors.Status.INVALID_ARGUMENT


def find(*, tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> accounts.Waterfalls:
    """A creditor's orders; none where it set nothing: the law's own. Raises ResourceNotFound."""
    existing.creditor(tx, agency, creditor_id)
    return store.of(tx, agency, [creditor_id]).get(creditor_id, rules.LEGAL)


def update(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    order: Sequence[accounts.Component],
    valid_from: datetime.date,
    version: int | None,
    set_by: str,
    moment: moments.Moment,
) -> None:
    """Set the order for payments with a value date of `valid_from` or later, which is after the business date: what was
    allocated is not counted anew. The same day again is written over.

    Raises ResourceNotFound, InvalidRequest, WaterfallNotLawful, VersionMismatch (`version`: number of orders that were
    seen).
    """
    if valid_from <= moment.business_date:
        raise errors.invalid("valid_from", f"expected a day after {moment.business_date}")
    if not rules.lawful(order):
        raise WaterfallNotLawful(
            "expected every component once, costs and fees before penalty and interest, correction and principal last"
            " (or earlier, together)",
            fields=[errors.FieldViolation("components", "expected an order that the law allows")],
        )
    store.lock(tx, creditor_id)
    there = len(find(tx=tx, agency=agency, creditor_id=creditor_id).dated)
    if version is not None and version != there:
        raise errors.VersionMismatch("the orders changed since they were read", etag=there)
    store.put(tx, agency, creditor_id, valid_from=valid_from, order=order, set_by=set_by)
