"""Collection accounts: made, changed, chosen (S5-26)."""

import dataclasses
import datetime
import uuid
from typing import Any

import sqlalchemy as sa

from agreement_service.domain import collection
from agreement_service.store import tables
from servicekit import db

TABLE = tables.table(
    "collection_accounts",
    ["creditor_id", "description"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("description", tables.TEXT),
    tables.business("bank", tables.TEXT),
    tables.business("branch", tables.TEXT),
    tables.business("account", tables.TEXT),
    tables.business("wallet", tables.TEXT),
    tables.business("agreement", tables.TEXT),
    tables.business("beneficiary_name", tables.TEXT),
    tables.business("beneficiary_document", tables.TEXT),
    tables.business("payable_days", tables.INT),
    tables.business("pix_key", tables.TEXT),
    tables.business("pix_name", tables.TEXT),
    tables.business("pix_city", tables.TEXT),
    tables.business("active", tables.BOOL),
    tables.business("is_default", tables.BOOL),
    tables.incidental("created_at", tables.INSTANT, "instant of the agency's clock when somebody made it"),
    tables.incidental("version", tables.BIG, "counts writes: how often somebody changed it"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of collection_accounts; creditor None: of the house."""

    account: collection.CollectionAccount
    creditor_id: uuid.UUID | None
    description: str
    active: bool
    is_default: bool
    created_at: datetime.datetime
    version: int = 1


_ACCOUNT = (
    "bank",
    "branch",
    "account",
    "wallet",
    "agreement",
    "beneficiary_name",
    "beneficiary_document",
    "payable_days",
    "pix_key",
    "pix_name",
    "pix_city",
)
_OWN = ("creditor_id", "description", "active", "is_default", "created_at", "version")
_COLUMNS = ", ".join(("id", *_ACCOUNT, *_OWN))
_INSERT = tables.sql(
    f"INSERT INTO collection_accounts (agency, {_COLUMNS}) VALUES (CAST(:agency AS uuid),"  # noqa: S608 -- names of this module
    f" {', '.join(':' + name for name in ('id', *_ACCOUNT, *_OWN))})"
    " ON CONFLICT (agency, creditor_id, description) DO NOTHING"
)
_CHANGEABLE = (
    "description",
    "beneficiary_name",
    "beneficiary_document",
    "payable_days",
    "pix_name",
    "pix_city",
    "active",
    "is_default",
)
_UPDATE = tables.sql(
    f"UPDATE collection_accounts SET {', '.join(f'{name} = :{name}' for name in _CHANGEABLE)},"  # noqa: S608 -- as above
    " version = version + 1 WHERE agency = :agency AND id = :id AND version = :version"
)
_YIELD = tables.sql(
    "UPDATE collection_accounts SET is_default = false, version = version + 1"
    " WHERE agency = :agency AND creditor_id IS NOT DISTINCT FROM CAST(:creditor_id AS uuid) AND is_default"
    " AND id <> :id"
)
_TAKEN = tables.sql(
    "SELECT EXISTS (SELECT 1 FROM collection_accounts WHERE agency = :agency AND id <> :id"
    " AND creditor_id IS NOT DISTINCT FROM CAST(:creditor_id AS uuid) AND description = :description)"
)
_FIND = tables.sql(f"SELECT {_COLUMNS} FROM collection_accounts WHERE agency = :agency AND id = :id")  # noqa: S608
_LOCK = tables.sql(
    f"SELECT {_COLUMNS} FROM collection_accounts WHERE agency = :agency AND id = :id FOR UPDATE"  # noqa: S608
)
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM collection_accounts
    WHERE agency = :agency AND (CAST(:creditor_id AS uuid) IS NULL OR creditor_id = :creditor_id)
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)
# The creditor's own comes before the house's.
_DEFAULT = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM collection_accounts
    WHERE agency = :agency AND is_default AND (creditor_id = :creditor_id OR creditor_id IS NULL)
    ORDER BY creditor_id IS NULL LIMIT 1
    """  # noqa: S608 -- column names of this module
)


def insert(tx: db.Transaction, agency: uuid.UUID, record: Record) -> bool:
    """Store a new account. False when the creditor has one of this description."""
    if record.is_default:
        _yield_default(tx, agency, record)
    return bool(tx.execute(_INSERT, {"agency": agency, **_values(record)}).rowcount)


def update(tx: db.Transaction, agency: uuid.UUID, record: Record) -> None:
    """Write what may change of an account that is locked; another default of the creditor steps back."""
    if record.is_default:
        _yield_default(tx, agency, record)
    tx.execute(_UPDATE, {"agency": agency, **_values(record)})


def taken(tx: db.Transaction, agency: uuid.UUID, record: Record) -> bool:
    """Whether another account of the creditor has this description."""
    params = {
        "agency": agency,
        "id": record.account.id,
        "creditor_id": record.creditor_id,
        "description": record.description,
    }
    return bool(tx.execute(_TAKEN, params).scalar_one())


def find(
    tx: db.Transaction, agency: uuid.UUID, account_id: uuid.UUID, *, lock: bool = False
) -> Record | None:
    """One account."""
    row = tx.execute(_LOCK if lock else _FIND, {"agency": agency, "id": account_id}).mappings().first()
    return _record(row) if row is not None else None


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor_id: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[Record]:
    """Accounts in id order."""
    params = {"agency": agency, "creditor_id": creditor_id, "after": after, "limit": limit}
    return [_record(row) for row in tx.execute(_PAGE, params).mappings()]


def default(
    tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID
) -> collection.CollectionAccount | None:
    """The account on which a creditor's instruments are issued: his own, or the house's; None where neither is."""
    row = tx.execute(_DEFAULT, {"agency": agency, "creditor_id": creditor_id}).mappings().first()
    return _record(row).account if row is not None else None


def _yield_default(tx: db.Transaction, agency: uuid.UUID, record: Record) -> None:
    tx.execute(_YIELD, {"agency": agency, "creditor_id": record.creditor_id, "id": record.account.id})


def _values(record: Record) -> dict[str, Any]:
    return {
        "id": record.account.id,
        **{name: getattr(record.account, name) for name in _ACCOUNT},
        **{name: getattr(record, name) for name in _OWN},
    }


def _record(row: sa.RowMapping) -> Record:
    return Record(
        account=collection.CollectionAccount(id=row["id"], **{name: row[name] for name in _ACCOUNT}),
        **{name: row[name] for name in _OWN},
    )
