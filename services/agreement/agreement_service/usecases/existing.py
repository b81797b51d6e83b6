"""What a command names has to be known here."""

import uuid

from agreement_service.store import creditors as store
from servicekit import db, errors


def creditor(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> None:
    """Raises ResourceNotFound before the creditor's first title is placed: an id that nobody has is a mistake."""
    if not store.knows(tx, agency, creditor_id):
        raise errors.ResourceNotFound("no such creditor", creditor=creditor_id)
