"""The same request_id gives the same answer (architecture.md §8, AIP-155).

The row of request_log is inserted before anything else of the transaction: a running twin makes the insert
wait, a finished one makes it find the answer. Only successes stay, because the row rolls back with the
transaction.
"""

import datetime
import hashlib
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy
from google.protobuf.message import Message

from servicekit import auth, db, errors

M = TypeVar("M", bound=Message)

KEPT = datetime.timedelta(days=7)
MAX_REQUEST_ID = 128

_INSERT = sqlalchemy.text(
    "INSERT INTO request_log (agency, subject, method, request_id, request_hash, created_at)"
    " VALUES (:agency, :subject, :method, :request_id, :request_hash, clock_timestamp())"
    " ON CONFLICT DO NOTHING RETURNING true"
)
_FIND = sqlalchemy.text(
    "SELECT request_hash, response FROM request_log"
    " WHERE agency = :agency AND subject = :subject AND method = :method AND request_id = :request_id"
)
_ANSWER = sqlalchemy.text(
    "UPDATE request_log SET response = :response"
    " WHERE agency = :agency AND subject = :subject AND method = :method AND request_id = :request_id"
)
_PURGE = sqlalchemy.text(
    "DELETE FROM request_log WHERE agency = :agency"
    " AND created_at < clock_timestamp() - cast(:kept AS interval)"
)


def once(
    tx: db.Transaction,
    *,
    caller: auth.Caller,
    method: str,
    request: Message,
    response: type[M],
    run: Callable[[], M],
) -> M:
    """The answer of `run`, which runs at most once for (agency, subject, method, request.request_id).

    Call it first in the transaction, before etag and state are looked at. Without request_id `run` just runs.
    Raises RequestIdReused when the id was used with another body, InvalidRequest when it is not printable
    ASCII of at most 128 characters.
    """
    request_id: str = getattr(request, "request_id")  # noqa: B009
    if not request_id:
        return run()
    if len(request_id) > MAX_REQUEST_ID or not (request_id.isascii() and request_id.isprintable()):
        raise errors.invalid(
            "request_id", f"expected printable ASCII of at most {MAX_REQUEST_ID} characters, e.g. a UUID"
        )
    key = {"agency": tx.agency, "subject": caller.subject, "method": method, "request_id": request_id}
    request_hash = digest(request)
    while tx.execute(_INSERT, {**key, "request_hash": request_hash}).first() is None:
        found = tx.execute(_FIND, key).first()
        if found is None:  # purged between the two statements
            continue
        if bytes(found.request_hash) != request_hash:
            raise errors.RequestIdReused(
                "this request_id was used with another request: send a new one", request_id=request_id
            )
        return response.FromString(bytes(found.response))
    answer = run()
    tx.execute(_ANSWER, {**key, "response": answer.SerializeToString()})
    return answer


def digest(request: Message) -> bytes:
    """SHA-256 of the request without its request_id, in deterministic bytes."""
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("request_id")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).digest()


def purge(tx: db.Transaction, *, kept: datetime.timedelta = KEPT) -> int:
    """Delete the agency's answers older than `kept` (machine time); returns how many. A timer calls it for
    each agency.
    """
    return int(tx.execute(_PURGE, {"agency": tx.agency, "kept": kept}).rowcount)
