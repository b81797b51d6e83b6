"""Whether somebody may do something by himself, and the rows that say so (S2-08, S2-09, W-12, R28)."""

import datetime
import uuid
from collections.abc import Sequence

from agreement_service.domain import approvals, limits
from agreement_service.store import limits as store
from agreement_service.usecases import existing, moments
from servicekit import db, errors, ids, money

MAX_NAME = 200


def check(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    authority: limits.Authority,
    creditor_id: uuid.UUID,
    kind: limits.Kind,
    value: int,
    date: datetime.date,
    currency: str = "",
    case_ids: Sequence[uuid.UUID] = (),
) -> None:
    """Raise ApprovalNeeded when `value` lies outside what `authority` may do by itself on `date`.

    `value` in the unit of the kind (`limits.UNITS`), `currency` with amounts; both ends of a limit pass.
    """
    for needed in missing(
        tx=tx,
        agency=agency,
        authority=authority,
        creditor_id=creditor_id,
        asked=[(kind, value)],
        date=date,
        currency=currency,
        case_ids=case_ids,
    ):
        raise needed


def missing(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    authority: limits.Authority,
    creditor_id: uuid.UUID,
    asked: Sequence[tuple[limits.Kind, int]],
    date: datetime.date,
    currency: str = "",
    case_ids: Sequence[uuid.UUID] = (),
) -> list[approvals.ApprovalNeeded]:
    """What `check` would raise for each of these kinds and values, in their order."""
    if authority.system:
        return []
    rows = store.standing(
        tx,
        agency,
        authority=authority,
        kinds=[kind for kind, _ in asked],
        creditor_id=creditor_id,
        date=date,
    )
    needed = []
    for kind, value in asked:
        allowed = limits.allowed(
            rows, authority=authority, kind=kind, creditor_id=creditor_id, date=date, currency=currency
        )
        if not any(one.holds(value) for one in allowed):
            needed.append(
                approvals.ApprovalNeeded(
                    rule=kind.value,
                    limit=allowed[0].text(kind, currency),
                    asked=limits.text(kind, value, currency),
                    case_ids=case_ids,
                    measured=approvals.Measured(creditor_id, value, currency),
                )
            )
    return needed


def beyond(
    *,
    authority: limits.Authority,
    rule: str,
    limit: str,
    asked: str,
    case_ids: Sequence[uuid.UUID] = (),
) -> None:
    """A rule that is not a row (a creditor's minimum, for instance) is not kept: raise ApprovalNeeded, unless the
    command runs by an approver's decision or is the platform's own."""
    if not authority.system and not authority.approver:
        raise approvals.ApprovalNeeded(rule=rule, limit=limit, asked=asked, case_ids=case_ids)


def explain(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    authority: limits.Authority,
    creditor_id: uuid.UUID,
    currency: str,
    date: datetime.date,
) -> list[tuple[limits.Kind, Sequence[limits.Range]]]:
    """What `authority` may do by itself, a row a kind; ranges that hold nothing are left out.

    Raises ResourceNotFound, InvalidRequest.
    """
    existing.creditor(tx, agency, creditor_id)
    if currency not in money.CURRENCIES:
        raise errors.invalid("currency", f"expected {' or '.join(sorted(money.CURRENCIES))}")
    found: list[tuple[limits.Kind, Sequence[limits.Range]]] = []
    rows = store.standing(
        tx, agency, authority=authority, kinds=limits.Kind, creditor_id=creditor_id, date=date
    )
    for kind in limits.Kind:
        ranges = limits.allowed(
            rows,
            authority=authority,
            kind=kind,
            creditor_id=creditor_id,
            date=date,
            currency=currency,
        )
        found.append((kind, [one for one in ranges if one != limits.NOTHING]))
    return found


def put(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID | None,
    role: str,
    subject: str,
    kind: limits.Kind,
    minimum: int | None,
    maximum: int | None,
    currency: str,
    valid_from: datetime.date | None,
    set_by: str,
    moment: moments.Moment,
) -> limits.Limit:
    """Set a limit from a day on (None: from today); the same holder's limit of the same day is written over.

    Raises InvalidRequest naming each wrong field, ResourceNotFound.
    """
    wrong = []

    def refuse(field: str, expected: str) -> None:
        wrong.append(errors.FieldViolation(f"limit.{field}", expected))

    for field, value in (("role", role), ("subject", subject)):
        if len(value) > MAX_NAME or not value.isprintable():
            refuse(field, f"expected at most {MAX_NAME} printable characters")
    if role and subject:
        refuse("subject", "expected a role or a subject, not both")
    for field, end in (("minimum", minimum), ("maximum", maximum)):
        if end is not None and not -limits.MAX_VALUE <= end <= limits.MAX_VALUE:
            refuse(field, f"expected {-limits.MAX_VALUE} to {limits.MAX_VALUE}")
    if minimum is not None and maximum is not None and minimum > maximum:
        refuse("maximum", f"expected {minimum} or more")
    if limits.UNITS[kind] is limits.Unit.AMOUNT:
        if currency not in money.CURRENCIES:
            refuse("currency", f"expected {' or '.join(sorted(money.CURRENCIES))} for {kind.value}")
    elif currency:
        refuse("currency", f"expected none for {kind.value}")
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    if creditor_id is not None:
        existing.creditor(tx, agency, creditor_id)
    limit = limits.Limit(
        id=ids.new(),
        creditor_id=creditor_id,
        role=role,
        subject=subject,
        kind=kind,
        minimum=minimum,
        maximum=maximum,
        currency=currency,
        valid_from=valid_from or moment.business_date,
    )
    found = store.get(tx, agency, store.put(tx, agency, limit, set_by=set_by, now=moment.now))
    assert found is not None
    return found


def delete(*, tx: db.Transaction, agency: uuid.UUID, limit_id: uuid.UUID) -> None:
    """Take a limit away; what stood before it counts again. Raises ResourceNotFound."""
    if not store.delete(tx, agency, limit_id):
        raise errors.ResourceNotFound("no such limit", limit=limit_id)
