"""Saved simulations: created at any step, opened and saved again, deleted, proposed (S1-34, S5-13, S5-30; W-09)."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service.domain import creditors
from agreement_service.store import accounts as account_store
from agreement_service.store import creditors as creditor_store
from agreement_service.store import drafts as store
from agreement_service.usecases import moments
from servicekit import db, errors, ids

MAX_BYTES = 65_536


class DraftExpired(errors.ServiceError):
    """The draft's last day is over: what it shows must be counted again, by saving it again, before it is proposed."""

    status = errors.Status.FAILED_PRECONDITION


def create(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    request: bytes,
    moment: moments.Moment,
) -> uuid.UUID:
    """Save a request as it is; its draft's id. `case_ids` are those it names, none to all.

    Raises InvalidRequest when it is too long, ResourceNotFound for a case that does not exist.
    """
    draft = store.Draft(
        id=ids.new(),
        case_ids=tuple(case_ids),
        request=_short(request),
        save_date=moment.business_date,
        expire_date=last_day(tx=tx, agency=agency, case_ids=case_ids, moment=moment),
        created_at=moment.now,
    )
    store.add(tx, agency, draft)
    return draft.id


def get(*, tx: db.Transaction, agency: uuid.UUID, draft_id: uuid.UUID) -> store.Draft:
    """A draft. Raises ResourceNotFound."""
    return _found(store.get(tx, agency, draft_id), draft_id, None)


def update(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    draft_id: uuid.UUID,
    case_ids: Sequence[uuid.UUID],
    request: bytes,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """Save a draft again: its validity begins anew.

    Raises as `create`, ResourceNotFound, VersionMismatch.
    """
    found = _found(store.get(tx, agency, draft_id, lock=True), draft_id, version)
    draft = store.Draft(
        id=found.id,
        case_ids=tuple(case_ids),
        request=_short(request),
        save_date=moment.business_date,
        expire_date=last_day(tx=tx, agency=agency, case_ids=case_ids, moment=moment),
        created_at=found.created_at,
    )
    store.update(tx, agency, draft)


def delete(*, tx: db.Transaction, agency: uuid.UUID, draft_id: uuid.UUID, version: int | None) -> None:
    """Remove a draft. Raises ResourceNotFound, VersionMismatch."""
    _found(store.get(tx, agency, draft_id, lock=True), draft_id, version)
    store.delete(tx, agency, draft_id)


def take(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    draft_id: uuid.UUID,
    version: int,
    business_date: datetime.date,
) -> store.Draft:
    """A draft to be proposed, and gone with that: usable through its last day (W-09: D + V; D + V + 1 is refused).

    `version` has to be the draft's: what is proposed (or approved) is what somebody saw. Raises ResourceNotFound,
    VersionMismatch, DraftExpired.
    """
    found = _found(store.get(tx, agency, draft_id, lock=True), draft_id, version)
    if business_date > found.expire_date:
        raise DraftExpired("the draft's last day is over: save it again", expire_date=found.expire_date)
    store.delete(tx, agency, draft_id)
    return found


def last_day(
    *, tx: db.Transaction, agency: uuid.UUID, case_ids: Sequence[uuid.UUID], moment: moments.Moment
) -> datetime.date:
    """The last day of a draft saved today: by the settings of its cases' creditor, without cases by the house's.

    Raises ResourceNotFound for a case that does not exist.
    """
    cases = account_store.cases(tx, agency, case_ids) if case_ids else {}
    if missing := sorted(set(case_ids) - set(cases)):
        raise errors.ResourceNotFound("no such case", case=missing[0])
    owners = sorted({case.creditor_id for case in cases.values()})
    days = min(
        (creditor_store.settings(tx, agency, creditor_id).validity_days for creditor_id in owners),
        default=creditors.DEFAULTS.validity_days,
    )
    return moment.business_date + datetime.timedelta(days=days)


def _found(draft: store.Draft | None, draft_id: uuid.UUID, version: int | None) -> store.Draft:
    if draft is None:
        raise errors.ResourceNotFound("no such draft", draft=draft_id)
    if version is not None and draft.version != version:
        raise errors.VersionMismatch("the draft changed since it was read", etag=draft.version)
    return draft


def _short(request: bytes) -> bytes:
    if len(request) > MAX_BYTES:
        raise errors.invalid("draft.request", f"expected at most {MAX_BYTES} bytes")
    return request
