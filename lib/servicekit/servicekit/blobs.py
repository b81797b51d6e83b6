"""Files in the service's own database, as 1 MiB chunks, each with a retention and a way to erase
(architecture §5).

Blobs have no row-level policy (they are found by id only, which the service keeps under its own policy); what
is erased leaves its row, with size and hash, as evidence that it was there.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from servicekit import clock, db, errors, ids

CHUNK = 1024 * 1024
"""Bytes of a chunk."""


class BlobErased(errors.ServiceError):
    """The file was erased, or its retention is over."""

    status = errors.Status.NOT_FOUND


@dataclasses.dataclass(frozen=True)
class Blob:
    """A stored file: size in bytes, SHA-256 of the content."""

    id: uuid.UUID
    size: int
    sha256: bytes


def write(
    engine: sa.Engine,
    *,
    agency: uuid.UUID,
    kind: str,
    retention_days: int,
    chunks: Iterable[bytes],
    now: datetime.datetime | None = None,
) -> Blob:
    """Store a file of any size, a chunk a transaction, holding one chunk in memory; it can be read when this
    returns.

    ``chunks`` are blocks of any length. ``now`` (the agency's clock; the machine's when not given) begins the
    retention. When ``chunks`` raises nothing is kept.
    """
    blob_id = ids.new()
    try:
        return _write(engine, blob_id, agency, kind, retention_days, chunks, now)
    except BaseException:
        with db.begin(engine, agency=agency) as tx:
            tx.execute(_DROP, {"id": blob_id})
        raise


def _write(
    engine: sa.Engine,
    blob_id: uuid.UUID,
    agency: uuid.UUID,
    kind: str,
    retention_days: int,
    chunks: Iterable[bytes],
    now: datetime.datetime | None,
) -> Blob:
    digest = hashlib.sha256()
    size = 0
    with db.begin(engine, agency=agency) as tx:
        tx.execute(_INSERT, _row(blob_id, agency, kind, retention_days, now))
    for number, block in enumerate(_blocks(chunks)):
        digest.update(block)
        size += len(block)
        with db.begin(engine, agency=agency) as tx:
            tx.execute(_CHUNK, {"id": blob_id, "number": number, "data": block})
    blob = Blob(blob_id, size, digest.digest())
    with db.begin(engine, agency=agency) as tx:
        tx.execute(_FINISH, dataclasses.asdict(blob))
    return blob


def create(
    tx: db.Transaction,
    *,
    agency: uuid.UUID,
    kind: str,
    retention_days: int,
    chunks: Iterable[bytes],
    now: datetime.datetime | None = None,
) -> Blob:
    """Store a file in the caller's transaction: for files of a few MiB."""
    blob_id = ids.new()
    digest = hashlib.sha256()
    size = 0
    tx.execute(_INSERT, _row(blob_id, agency, kind, retention_days, now))
    for number, block in enumerate(_blocks(chunks)):
        digest.update(block)
        size += len(block)
        tx.execute(_CHUNK, {"id": blob_id, "number": number, "data": block})
    blob = Blob(blob_id, size, digest.digest())
    tx.execute(_FINISH, dataclasses.asdict(blob))
    return blob


def read(engine: sa.Engine, blob_id: uuid.UUID) -> Iterator[bytes]:
    """The content, a chunk at a time, a short query each. Raises ``errors.ResourceNotFound``,
    ``BlobErased``.
    """
    found = db.read(engine, agency=None, statement=_FIND, params={"id": blob_id})
    if not found or found[0].size < 0:
        raise errors.ResourceNotFound("no such file", blob=str(blob_id))
    if found[0].erased_at is not None:
        raise BlobErased("the file was erased", blob=str(blob_id))
    left = found[0].size
    number = 0
    while left > 0:
        rows = db.read(engine, agency=None, statement=_DATA, params={"id": blob_id, "number": number})
        if not rows:
            raise BlobErased("the file was erased", blob=str(blob_id))
        data = bytes(rows[0].data)
        yield data
        left -= len(data)
        number += 1


def erase(tx: db.Transaction, blob_id: uuid.UUID) -> bool:
    """Erase the content; the row stays as evidence. False where there was nothing left to erase."""
    erased = tx.execute(_ERASE, {"id": blob_id}).rowcount == 1
    if erased:
        tx.execute(_ERASE_CHUNKS, {"id": blob_id})
    return erased


def expire(tx: db.Transaction, now: datetime.datetime, *, limit: int = 1_000) -> int:
    """Erase the transaction's agency's files whose retention is over at ``now`` (the agency's clock); how
    many.
    """
    rows = tx.execute(_EXPIRED, {"agency": tx.agency, "now": now, "limit": limit}).all()
    for row in rows:
        erase(tx, row.id)
    return len(rows)


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of ``CHUNK``, the last one shorter."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= CHUNK:
            yield bytes(waiting[:CHUNK])
            del waiting[:CHUNK]
    if waiting:
        yield bytes(waiting)


def _row(
    blob_id: uuid.UUID, agency: uuid.UUID, kind: str, retention_days: int, now: datetime.datetime | None
) -> dict[str, Any]:
    created = now or clock.machine_now()
    return {
        "id": blob_id,
        "agency": agency,
        "kind": kind,
        "created": created,
        "expires": created + datetime.timedelta(days=retention_days),
    }


_INSERT = sa.text(
    """
    INSERT INTO blobs (id, agency, kind, size, sha256, created_at, expires_at)
    VALUES (:id, :agency, :kind, -1, '', :created, :expires)
    """
)
_CHUNK = sa.text("INSERT INTO blob_chunks (blob_id, number, data) VALUES (:id, :number, :data)")
_FINISH = sa.text("UPDATE blobs SET size = :size, sha256 = :sha256 WHERE id = :id")
_DROP = sa.text("DELETE FROM blobs WHERE id = :id")
_FIND = sa.text("SELECT size, erased_at FROM blobs WHERE id = :id")
_DATA = sa.text("SELECT data FROM blob_chunks WHERE blob_id = :id AND number = :number")
_ERASE = sa.text("UPDATE blobs SET erased_at = clock_timestamp() WHERE id = :id AND erased_at IS NULL")
_ERASE_CHUNKS = sa.text("DELETE FROM blob_chunks WHERE blob_id = :id")
_EXPIRED = sa.text(
    """
    SELECT id FROM blobs WHERE agency = :agency AND erased_at IS NULL AND expires_at <= :now
    ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
