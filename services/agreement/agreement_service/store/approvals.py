"""Approval requests: commands that wait for a second pair of eyes."""

import dataclasses
import datetime
import uuid
from collections.abc import Sequence

import sqlalchemy as sa

from agreement_service.domain import approvals
from agreement_service.store import tables
from servicekit import db

TABLE = sa.Table(
    "approvals",
    tables.METADATA,
    sa.Column("agency", tables.UUID, primary_key=True),
    sa.Column("id", tables.UUID, primary_key=True),
    sa.Column("method", tables.TEXT),
    sa.Column("command", tables.BYTES),
    sa.Column("request_hash", tables.BYTES),
    sa.Column("request_id", tables.TEXT),
    sa.Column("requester", tables.TEXT),
    sa.Column("rule", tables.TEXT),
    sa.Column("allowed", tables.TEXT),
    sa.Column("asked", tables.TEXT),
    sa.Column("creditor_id", tables.UUID),
    sa.Column("value", tables.BIG),
    sa.Column("currency", tables.TEXT),
    sa.Column("case_ids", tables.UUIDS),
    sa.Column("state", tables.TEXT),
    sa.Column("request_date", tables.DATE),
    sa.Column("expire_date", tables.DATE),
    sa.Column("created_at", tables.INSTANT),
    sa.Column("decided_by", tables.TEXT),
    sa.Column("decided_at", tables.INSTANT),
    sa.Column("reason", tables.TEXT),
    sa.Column("result", tables.TEXT),
    sa.Column("version", tables.BIG),
    info={
        "digest": False,
        "reason": "what people asked of each other: a command holds ids made by chance, so no key finds it in another"
        " run; what an approved command did is in the tables that it wrote",
    },
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A row."""

    id: uuid.UUID
    method: str
    command: bytes
    request_hash: bytes
    request_id: str
    requester: str
    rule: str
    allowed: str
    asked: str
    creditor_id: uuid.UUID | None
    value: int | None
    currency: str
    case_ids: tuple[uuid.UUID, ...]
    state: approvals.State
    request_date: datetime.date
    expire_date: datetime.date
    created_at: datetime.datetime
    decided_by: str = ""
    decided_at: datetime.datetime | None = None
    reason: str = ""
    result: str = ""
    version: int = 1

    def state_on(self, business_date: datetime.date) -> approvals.State:
        """Its state on a business date."""
        return approvals.state_on(self.state, expire_date=self.expire_date, business_date=business_date)


_NAMES = tuple(field.name for field in dataclasses.fields(Approval))
_COLUMNS = ", ".join(_NAMES)
_INSERT = tables.sql(
    f"""
    INSERT INTO approvals (agency, {_COLUMNS}) VALUES (CAST(:agency AS uuid), {", ".join(f":{one}" for one in _NAMES)})
    ON CONFLICT DO NOTHING
    """  # noqa: S608 -- names of this module
)
_SAME = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM approvals
    WHERE agency = :agency AND requester = :requester AND method = :method AND request_id = :request_id
        AND (:request_id <> '' OR (request_hash = :request_hash AND state = 'PENDING'))
    """  # noqa: S608 -- as above
)
_EXPIRE = tables.sql(
    f"""
    UPDATE approvals SET state = 'EXPIRED', version = version + 1
    WHERE agency = :agency AND requester = :requester AND method = :method AND request_id = ''
        AND request_hash = :request_hash AND state = 'PENDING' AND expire_date < :date
    RETURNING {_COLUMNS}
    """  # noqa: S608 -- as above
)
_GET = tables.sql(f"SELECT {_COLUMNS} FROM approvals WHERE agency = :agency AND id = :id")  # noqa: S608 -- as above
_LOCK = tables.sql(
    f"SELECT {_COLUMNS} FROM approvals WHERE agency = :agency AND id = :id FOR UPDATE"  # noqa: S608 -- as above
)
_IN_STATE = {
    None: "",
    approvals.State.PENDING: "AND state = 'PENDING' AND expire_date >= CAST(:date AS date)",
    approvals.State.APPROVED: "AND state = 'APPROVED'",
    approvals.State.REJECTED: "AND state = 'REJECTED'",
    approvals.State.EXPIRED: (
        "AND (state = 'EXPIRED' OR (state = 'PENDING' AND expire_date < CAST(:date AS date)))"
    ),
    approvals.State.WITHDRAWN: "AND state = 'WITHDRAWN'",
}
"""What a request in each state looks like on a date; the first has an index of its own."""
_PAGE = {
    state: tables.sql(
        f"""
        SELECT {_COLUMNS} FROM approvals
        WHERE agency = :agency AND id > :after
            AND (CAST(:case_id AS uuid) IS NULL OR CAST(:case_id AS uuid) = ANY(case_ids)) {condition}
        ORDER BY id LIMIT :limit
        """  # noqa: S608 -- as above
    )
    for state, condition in _IN_STATE.items()
}
_DECIDE = tables.sql(
    f"""
    UPDATE approvals SET state = :state, decided_by = :decided_by, decided_at = :now, reason = :reason,
        version = version + 1
    WHERE agency = :agency AND id = :id AND state = 'PENDING' AND expire_date >= :date
    RETURNING {_COLUMNS}
    """  # noqa: S608 -- as above
)
_RESULT = tables.sql("UPDATE approvals SET result = :result WHERE agency = :agency AND id = :id")


def add(tx: db.Transaction, agency: uuid.UUID, new: Approval) -> bool:
    """Store a request. False when the same one is there: see `same`."""
    values = {name: getattr(new, name) for name in _NAMES}
    values |= {"agency": agency, "state": new.state.value, "case_ids": list(new.case_ids)}
    return bool(tx.execute(_INSERT, values).rowcount)


def same(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    requester: str,
    method: str,
    request_id: str,
    request_hash: bytes,
) -> Approval | None:
    """The request made by the same command before: of the same request_id, or without one of the same body and still
    pending."""
    found = tx.execute(
        _SAME,
        {
            "agency": agency,
            "requester": requester,
            "method": method,
            "request_id": request_id,
            "request_hash": request_hash,
        },
    ).mappings()
    return next(iter(_approvals(found.all())), None)


def expire(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    requester: str,
    method: str,
    request_hash: bytes,
    date: datetime.date,
) -> list[Approval]:
    """End the pending request of this body whose last day is over; what it has become."""
    found = tx.execute(
        _EXPIRE,
        {
            "agency": agency,
            "requester": requester,
            "method": method,
            "request_hash": request_hash,
            "date": date,
        },
    ).mappings()
    return _approvals(found.all())


def get(tx: db.Transaction, agency: uuid.UUID, approval_id: uuid.UUID) -> Approval | None:
    """One request."""
    found = tx.execute(_GET, {"agency": agency, "id": approval_id}).mappings()
    return next(iter(_approvals(found.all())), None)


def lock(tx: db.Transaction, agency: uuid.UUID, approval_id: uuid.UUID) -> Approval | None:
    """One request, held until the transaction ends."""
    found = tx.execute(_LOCK, {"agency": agency, "id": approval_id}).mappings()
    return next(iter(_approvals(found.all())), None)


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    state: approvals.State | None = None,
    case_id: uuid.UUID | None = None,
    date: datetime.date,
    after: uuid.UUID | None,
    limit: int,
) -> list[Approval]:
    """Requests in id order; `state` as it is on `date`."""
    values: dict[str, object] = {"agency": agency, "case_id": case_id, "limit": limit}
    values["after"] = after or uuid.UUID(int=0)
    if ":date" in _IN_STATE[state]:
        values["date"] = date
    return _approvals(tx.execute(_PAGE[state], values).mappings().all())


def decide(
    tx: db.Transaction,
    agency: uuid.UUID,
    approval_id: uuid.UUID,
    *,
    state: approvals.State,
    decided_by: str,
    reason: str,
    now: datetime.datetime,
    date: datetime.date,
) -> Approval | None:
    """Move a pending request that is not over on `date` to `state`; None when it is not pending any more."""
    found = tx.execute(
        _DECIDE,
        {
            "agency": agency,
            "id": approval_id,
            "state": state.value,
            "decided_by": decided_by,
            "reason": reason,
            "now": now,
            "date": date,
        },
    ).mappings()
    return next(iter(_approvals(found.all())), None)


def set_result(tx: db.Transaction, agency: uuid.UUID, approval_id: uuid.UUID, result: str) -> None:
    """Name what the approved command made."""
    tx.execute(_RESULT, {"agency": agency, "id": approval_id, "result": result})


def _approvals(rows: Sequence[sa.RowMapping]) -> list[Approval]:
    return [
        Approval(
            **{
                **row,
                "command": bytes(row["command"]),
                "request_hash": bytes(row["request_hash"]),
                "case_ids": tuple(row["case_ids"]),
                "state": approvals.State(row["state"]),
            }
        )
        for row in rows
    ]
