"""Approval requests: asked for, decided, withdrawn (R28, S2-08; state machine "Task / approval").

A request is locked before anything that its command locks; the cases it is about are locked before its fact is told.
"""

import datetime
import uuid
from collections.abc import Callable

from agreement_service.domain import approvals, limits
from agreement_service.store import accounts as account_store
from agreement_service.store import approvals as store
from agreement_service.usecases import facts, moments
from agreement_service.usecases import limits as limit_cases
from servicekit import db, errors, ids


class ApprovalRequested(errors.ServiceError):
    """The command goes beyond the caller's limits and waits for approval under the name in `approval`."""

    status = errors.Status.FAILED_PRECONDITION


class ApprovalClosed(errors.ServiceError):
    """The request was decided, withdrawn, or not decided in time; a new one needs a new command."""

    status = errors.Status.FAILED_PRECONDITION


class ApproverIsRequester(errors.ServiceError):
    """Four eyes: nobody decides what he asked for himself."""

    status = errors.Status.PERMISSION_DENIED


class ApproverWithoutAuthority(errors.ServiceError):
    """What is asked goes beyond the limits of whoever decides, too."""

    status = errors.Status.PERMISSION_DENIED


class RequesterOnly(errors.ServiceError):
    """Only whoever asked may take the request back."""

    status = errors.Status.PERMISSION_DENIED


def request(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    needed: approvals.ApprovalNeeded,
    method: str,
    command: bytes,
    request_id: str,
    request_hash: bytes,
    requester: str,
    moment: moments.Moment,
) -> uuid.UUID:
    """Store a command for approval, or find the request it made before; the request's id.

    The same command is told by its request_id, or without one by its body while that waits. Raises RequestIdReused,
    and ApprovalClosed when the request of this request_id is over.
    """
    if not request_id:
        for over in store.expire(
            tx,
            agency,
            requester=requester,
            method=method,
            request_hash=request_hash,
            date=moment.business_date,
        ):
            _publish(tx, agency, over, moment)
    measured = needed.measured
    new = store.Approval(
        id=ids.new(),
        method=method,
        command=command,
        request_hash=request_hash,
        request_id=request_id,
        requester=requester,
        rule=needed.rule,
        allowed=needed.limit,
        asked=needed.asked,
        creditor_id=measured.creditor_id if measured else None,
        value=measured.value if measured else None,
        currency=measured.currency if measured else "",
        case_ids=needed.case_ids,
        state=approvals.State.PENDING,
        request_date=moment.business_date,
        expire_date=moment.business_date + datetime.timedelta(days=approvals.VALID_DAYS),
        created_at=moment.now,
    )
    while not store.add(tx, agency, new):
        found = store.same(
            tx,
            agency,
            requester=requester,
            method=method,
            request_hash=request_hash,
            request_id=request_id,
        )
        if found is None:  # decided between the two statements
            continue
        if found.request_hash != request_hash:
            raise errors.RequestIdReused(
                "this request_id was used with another request: send a new one", request_id=request_id
            )
        state = found.state_on(moment.business_date)
        if state is not approvals.State.PENDING:
            raise _closed(found, state)
        return found.id
    _publish(tx, agency, new, moment)
    return new.id


def approve(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    approval_id: uuid.UUID,
    authority: limits.Authority,
    run: Callable[[store.Approval, limits.Authority], str],
    reason: str,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """Run the command of a pending request on the approver's authority, in this transaction, and close the request.

    `run` runs it and gives the name of what it answered; whatever it raises leaves the request pending, as the
    transaction is rolled back. Raises ResourceNotFound, VersionMismatch, ApprovalClosed, ApproverIsRequester,
    ApproverWithoutAuthority.
    """
    found = _deciding(tx, agency, approval_id, authority=authority, version=version, moment=moment)
    decided = store.decide(
        tx,
        agency,
        approval_id,
        state=approvals.State.APPROVED,
        decided_by=authority.subject,
        reason=reason,
        now=moment.now,
        date=moment.business_date,
    )
    if decided is None:
        raise _closed(found, found.state_on(moment.business_date))
    try:
        result = run(found, limits.Authority(authority.subject, authority.roles, deciding=True))
    except approvals.ApprovalNeeded as beyond:
        raise _without_authority(beyond) from None
    store.set_result(tx, agency, approval_id, result)
    _publish(tx, agency, decided, moment)


def reject(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    approval_id: uuid.UUID,
    authority: limits.Authority,
    reason: str,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """Close a pending request without running its command. Raises as `approve`."""
    found = _deciding(tx, agency, approval_id, authority=authority, version=version, moment=moment)
    if not reason:
        raise errors.invalid("reason", "expected a reason for a rejection")
    _close(tx, agency, found, approvals.State.REJECTED, by=authority.subject, reason=reason, moment=moment)


def withdraw(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    approval_id: uuid.UUID,
    requester: str,
    reason: str,
    version: int | None,
    moment: moments.Moment,
) -> None:
    """Take back one's own pending request. Raises ResourceNotFound, VersionMismatch, ApprovalClosed, RequesterOnly."""
    found = _pending(tx, agency, approval_id, version=version, moment=moment)
    if found.requester != requester:
        raise RequesterOnly("somebody else asked for this approval", approval=approval_id)
    _close(tx, agency, found, approvals.State.WITHDRAWN, by=requester, reason=reason, moment=moment)


def _pending(
    tx: db.Transaction,
    agency: uuid.UUID,
    approval_id: uuid.UUID,
    *,
    version: int | None,
    moment: moments.Moment,
) -> store.Approval:
    """The request, locked, while it waits."""
    found = store.lock(tx, agency, approval_id)
    if found is None:
        raise errors.ResourceNotFound("no such approval", approval=approval_id)
    state = found.state_on(moment.business_date)
    if state is not approvals.State.PENDING:
        raise _closed(found, state)
    if version is not None and version != found.version:
        raise errors.VersionMismatch("the approval changed since it was read", etag=found.version)
    return found


def _deciding(
    tx: db.Transaction,
    agency: uuid.UUID,
    approval_id: uuid.UUID,
    *,
    authority: limits.Authority,
    version: int | None,
    moment: moments.Moment,
) -> store.Approval:
    """The request, locked, where this person may decide it."""
    found = _pending(tx, agency, approval_id, version=version, moment=moment)
    if found.requester == authority.subject:
        raise ApproverIsRequester("whoever asked does not decide", approval=approval_id)
    deciding = limits.Authority(authority.subject, authority.roles, deciding=True)
    try:
        if found.creditor_id is not None and found.value is not None:
            limit_cases.check(
                tx=tx,
                agency=agency,
                authority=deciding,
                creditor_id=found.creditor_id,
                kind=limits.Kind(found.rule),
                value=found.value,
                currency=found.currency,
                date=moment.business_date,
            )
        else:
            limit_cases.beyond(authority=deciding, rule=found.rule, limit=found.allowed, asked=found.asked)
    except approvals.ApprovalNeeded as beyond:
        raise _without_authority(beyond) from None
    return found


def _close(
    tx: db.Transaction,
    agency: uuid.UUID,
    found: store.Approval,
    state: approvals.State,
    *,
    by: str,
    reason: str,
    moment: moments.Moment,
) -> None:
    closed = store.decide(
        tx,
        agency,
        found.id,
        state=state,
        decided_by=by,
        reason=reason,
        now=moment.now,
        date=moment.business_date,
    )
    if closed is None:
        raise _closed(found, found.state_on(moment.business_date))
    _publish(tx, agency, closed, moment)


def _publish(tx: db.Transaction, agency: uuid.UUID, changed: store.Approval, moment: moments.Moment) -> None:
    db.lock_anchors(tx, account_store.ANCHORS, agency, changed.case_ids)
    facts.approval_changed(tx, moment, changed)


def _closed(found: store.Approval, state: approvals.State) -> ApprovalClosed:
    return ApprovalClosed(
        "the approval request is over", approval=found.id, state=state.value, result=found.result
    )


def _without_authority(beyond: approvals.ApprovalNeeded) -> ApproverWithoutAuthority:
    return ApproverWithoutAuthority(
        "what is asked goes beyond the approver's own limits",
        rule=beyond.rule,
        limit=beyond.limit,
        asked=beyond.asked,
    )
