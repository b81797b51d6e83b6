"""Creditors' settings: read and set (features S1-25..29)."""

import dataclasses
import uuid
from collections.abc import Collection

from agreement_service.domain import creditors
from agreement_service.store import creditors as store
from agreement_service.usecases import existing, terms
from servicekit import db, errors

FIELDS = frozenset(field.name for field in dataclasses.fields(creditors.CreditorSettings))


def update(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID,
    new: creditors.CreditorSettings,
    only: Collection[str],
    version: int | None,
) -> None:
    """Set the fields named in `only` (none named: all) to what `new` says.

    Where default interest is switched, its open titles follow; what is posted stays. Raises ResourceNotFound before the
    creditor's first title is placed, InvalidRequest naming each wrong field, VersionMismatch.
    """
    existing.creditor(tx, agency, creditor_id)
    if unknown := sorted(set(only) - FIELDS):
        raise errors.invalid("update_mask", f"expected fields of settings, found {unknown[0]}")
    found, there = store.find(tx, agency, creditor_id)
    if version is not None and version != there:
        raise errors.VersionMismatch("the settings changed since they were read", etag=there)
    merged = dataclasses.replace(found, **{name: getattr(new, name) for name in set(only) or FIELDS})
    if wrong := merged.check():
        raise errors.InvalidRequest(
            fields=[errors.FieldViolation(f"settings.{one.field}", one.description) for one in wrong]
        )
    if not store.put(tx, agency, creditor_id, merged, version=there):
        raise errors.VersionMismatch("the settings are being changed by somebody else", etag=there)
    if (merged.charge_interest, merged.default_interest) != (found.charge_interest, found.default_interest):
        terms.apply(tx=tx, agency=agency, creditor_id=creditor_id)
