"""Collection accounts: made, changed, taken out of use (S5-26)."""

import dataclasses
import uuid
from collections.abc import Collection

from agreement_service.domain import collection
from agreement_service.store import collection as store
from agreement_service.usecases import existing, moments
from servicekit import db, errors, ids

MAX_DESCRIPTION = 100
CHANGEABLE = (
    "description",
    "beneficiary_name",
    "beneficiary_document",
    "payable_days",
    "pix_name",
    "pix_city",
    "active",
    "is_default",
)
"""What may change of an account: instruments that were issued on it keep what names it at the bank."""


class DescriptionTaken(errors.ServiceError):
    """The creditor has an account of this description."""

    status = errors.Status.ALREADY_EXISTS


def create(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID | None,
    description: str,
    account: collection.CollectionAccount,
    active: bool,
    is_default: bool,
    moment: moments.Moment,
) -> uuid.UUID:
    """Store an account; a new default takes the place of the creditor's old one. Its id.

    Raises ResourceNotFound before the creditor's first title is placed, InvalidRequest naming each wrong field and what
    its bank expects, DescriptionTaken.
    """
    if creditor_id is not None:
        existing.creditor(tx, agency, creditor_id)
    record = store.Record(
        account=dataclasses.replace(account, id=ids.new()),
        creditor_id=creditor_id,
        description=description,
        active=active,
        is_default=is_default,
        created_at=moment.now,
    )
    _check(record)
    if not store.insert(tx, agency, record):
        raise DescriptionTaken("the creditor has an account of this description")
    assert record.account.id is not None
    return record.account.id


def update(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    account_id: uuid.UUID,
    wanted: store.Record,
    only: Collection[str],
    version: int | None,
) -> None:
    """Take over from `wanted` the fields of `only` (none: all of CHANGEABLE).

    Raises ResourceNotFound, VersionMismatch, InvalidRequest, DescriptionTaken.
    """
    if fixed := sorted(set(only) - set(CHANGEABLE)):
        raise errors.invalid("update_mask", f"{fixed[0]} never changes: expected {', '.join(CHANGEABLE)}")
    found = store.find(tx, agency, account_id, lock=True)
    if found is None:
        raise errors.ResourceNotFound("no such collection account", collection_account=account_id)
    if version is not None and version != found.version:
        raise errors.VersionMismatch("the account changed since it was read", etag=found.version)
    fields = set(only or CHANGEABLE)
    own = {field: getattr(wanted, field) for field in fields & {"description", "active", "is_default"}}
    account = {field: getattr(wanted.account, field) for field in fields - set(own)}
    record = dataclasses.replace(found, account=dataclasses.replace(found.account, **account), **own)
    _check(record)
    if store.taken(tx, agency, record):
        raise DescriptionTaken("the creditor has an account of this description")
    store.update(tx, agency, record)


def _check(record: store.Record) -> None:
    wrong = [
        errors.FieldViolation(f"collection_account.{_WIRE.get(one.field, one.field)}", one.description)
        for one in record.account.check()
    ]
    if not record.description.strip() or len(record.description) > MAX_DESCRIPTION:
        wrong.append(
            errors.FieldViolation(
                "collection_account.description", f"expected 1 to {MAX_DESCRIPTION} characters"
            )
        )
    if record.is_default and not record.active:
        wrong.append(errors.FieldViolation("collection_account.is_default", "expected an active account"))
    if wrong:
        raise errors.InvalidRequest(fields=wrong)


_WIRE = {"agreement": "agreement_number"}
