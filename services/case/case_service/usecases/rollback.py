"""Taking a batch back, in two steps, so that agreement and case both can refuse before either changes anything."""

from __future__ import annotations

import uuid

from case_service.domain import cases as machine
from case_service.store import rollback
from case_service.usecases import facts, moments
from servicekit import db, errors


class BatchHasDownstreamWork(errors.ServiceError):
    """Something was done on one of the batch's cases since it was placed: ``case`` and ``what``."""

    status = errors.Status.FAILED_PRECONDITION


class BatchNotFrozen(errors.ServiceError):
    """The last step of taking a batch back comes after the first."""

    status = errors.Status.FAILED_PRECONDITION


def begin(tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID) -> int:
    """Freeze the batch's cases; how many. Again: the same. A batch without titles here has none to freeze.

    Raises AgencyClockUnknown, BatchHasDownstreamWork, CaseFrozen (another batch is being taken back).
    """
    moments.read(tx, agency)
    case_ids = rollback.cases_of_batch(tx, agency, batch_id)
    db.lock_anchors(tx, "cases", agency, case_ids, column="id")
    done = rollback.done_since(tx, agency, batch_id=batch_id, case_ids=case_ids)
    if done is not None:
        raise BatchHasDownstreamWork(f"done since: {done.what}", case=done.case_id, what=done.what)
    rollback.freeze(tx, agency, batch_id=batch_id, case_ids=case_ids)
    if rollback.frozen(tx, agency, batch_id=batch_id) != len(case_ids):
        raise machine.CaseFrozen("another batch of these cases is being taken back", batch=batch_id)
    return len(case_ids)


def end(tx: db.Transaction, agency: uuid.UUID, *, batch_id: uuid.UUID, abort: bool) -> None:
    """Withdraw the batch's titles and return the cases that have no other open ones; or (``abort``) give
    the cases back.

    Again: nothing. Raises AgencyClockUnknown, BatchNotFrozen.
    """
    moment = moments.read(tx, agency)
    case_ids = rollback.cases_of_batch(tx, agency, batch_id)
    db.lock_anchors(tx, "cases", agency, case_ids, column="id")
    if abort:
        rollback.thaw(tx, agency, batch_id, case_ids)
        return
    if not case_ids:
        return
    if rollback.frozen(tx, agency, batch_id=batch_id) != len(case_ids):
        raise BatchNotFrozen("begin first", batch=batch_id)
    facts.titles_withdrawn(
        tx, moment, rollback.withdraw(tx, agency, case_ids=case_ids, batch_id=batch_id, now=moment.now)
    )
    facts.cases_changed(
        tx,
        moment,
        rollback.returned(
            tx,
            agency,
            case_ids=case_ids,
            batch_id=batch_id,
            now=moment.now,
            business_date=moment.business_date,
        ),
    )
