"""Promises to pay: made in a contact, kept by payments or broken by time, replaced by a newer one or an agreement."""

import datetime
import uuid
from collections.abc import Iterable

from agreement_service import providers
from agreement_service.domain import promises
from agreement_service.store import accounts as account_store
from agreement_service.store import promises as store
from agreement_service.usecases import facts, moments
from servicekit import db, errors


class CaseUnknown(errors.ServiceError):
    """A promise in a case whose titles are not here (an older database was restored): it waits."""

    status = errors.Status.NOT_FOUND


def make(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_id: uuid.UUID,
    contact_id: uuid.UUID,
    made_at: datetime.datetime,
    made_date: datetime.date,
    promise_date: datetime.date,
    amount_minor: int,
    currency: str,
    moment: moments.Moment,
) -> None:
    """A person promised an amount (minor units) by a day. It is judged at once: its payment may have arrived before it.

    The same contact again changes nothing, or what was promised. Raises CaseUnknown.
    """
    if case_id not in account_store.lock(tx, agency, [case_id]):
        raise CaseUnknown("a promise of a case that is not here", case=case_id)
    tolerance = providers.payable_until(promise_date, currency) + datetime.timedelta(
        days=promises.TOLERANCE_DAYS
    )
    changed = store.make(
        tx,
        agency,
        case_id=case_id,
        contact_id=contact_id,
        made_at=made_at,
        made_date=made_date,
        promise_date=promise_date,
        tolerance_date=tolerance,
        amount_minor=amount_minor,
        currency=currency,
    )
    if changed:
        judged = store.judge(tx, agency, [case_id], date=moment.business_date)
        _publish(tx, moment, [*changed, *judged])


def replace(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, moment: moments.Moment
) -> None:
    """An agreement over these cases took the place of promises that wait. The cases are locked."""
    _publish(tx, moment, store.replace(tx, agency, case_ids))


def judge(
    tx: db.Transaction, agency: uuid.UUID, case_ids: Iterable[uuid.UUID], *, moment: moments.Moment
) -> None:
    """Payments of these cases changed, or a day is over: promises are kept or broken by what was paid, whenever it was
    reported. The cases are locked."""
    _publish(tx, moment, store.judge(tx, agency, case_ids, date=moment.business_date))


def _publish(tx: db.Transaction, moment: moments.Moment, changed: Iterable[store.Promise]) -> None:
    newest: dict[tuple[uuid.UUID, uuid.UUID], store.Promise] = {}
    for one in changed:
        known = newest.get((one.case_id, one.contact_id))
        if known is None or known.version < one.version:
            newest[one.case_id, one.contact_id] = one
    for key in sorted(newest):
        facts.promise_changed(tx, moment, newest[key])
