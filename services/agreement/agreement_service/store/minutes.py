"""Texts of minutes, and the minutes made: their PDFs are blobs."""

import dataclasses
import datetime
import uuid
from typing import Any

import sqlalchemy as sa

from agreement_service.store import tables
from servicekit import blobs, db, ids

TEMPLATES = tables.table(
    "minute_templates",
    ["creditor_id", "language"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.reference("creditor_id", "creditors"),
    tables.business("language", tables.TEXT),
    tables.business("text", tables.TEXT),
    tables.incidental("version", tables.BIG, "counts writes: how often somebody set it"),
)
MINUTES = tables.table(
    "minutes",
    ["agreement_id", "language", "sha256"],
    tables.incidental("id", tables.UUID, "UUID made by this service", key=True),
    tables.reference("agreement_id", "agreements"),
    tables.business("language", tables.TEXT),
    tables.incidental("blob_id", tables.UUID, "UUID made by servicekit"),
    tables.business("sha256", tables.BYTES),
    tables.business("size", tables.INT),
    tables.incidental("created_at", tables.INSTANT, "instant of the agency's clock when somebody made it"),
)
KIND = "minute"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text as set; version 0: nobody has."""

    text: str = ""
    version: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """One row of minutes."""

    id: uuid.UUID
    agreement_id: uuid.UUID
    language: str
    blob_id: uuid.UUID
    sha256: bytes
    size: int
    created_at: datetime.datetime


_TEMPLATE = tables.sql(
    "SELECT text, version FROM minute_templates WHERE agency = :agency AND language = :language"
    " AND creditor_id IS NOT DISTINCT FROM CAST(:creditor_id AS uuid)"
)
_INSERT_TEMPLATE = tables.sql(
    "INSERT INTO minute_templates (agency, id, creditor_id, language, text)"
    " VALUES (CAST(:agency AS uuid), :id, CAST(:creditor_id AS uuid), :language, :text) ON CONFLICT DO NOTHING"
)
_UPDATE_TEMPLATE = tables.sql(
    "UPDATE minute_templates SET text = :text, version = version + 1 WHERE agency = :agency"
    " AND creditor_id IS NOT DISTINCT FROM CAST(:creditor_id AS uuid) AND language = :language AND version = :version"
)
_COLUMNS = "id, agreement_id, language, blob_id, sha256, size, created_at"
_SAME = tables.sql(
    f"SELECT {_COLUMNS} FROM minutes WHERE agency = :agency AND agreement_id = :agreement_id"  # noqa: S608 -- names of this module
    " AND language = :language AND sha256 = :sha256"
)
_INSERT = tables.sql(
    f"INSERT INTO minutes (agency, {_COLUMNS}) VALUES (CAST(:agency AS uuid), :id, :agreement_id, :language, :blob_id,"  # noqa: S608
    " :sha256, :size, :created_at)"
)
_CREDITOR = """(CAST(:creditor AS uuid) IS NULL OR EXISTS (SELECT 1 FROM agreements JOIN case_accounts
    ON case_accounts.agency = agreements.agency AND case_accounts.case_id = agreements.case_id
    WHERE agreements.agency = minutes.agency AND agreements.id = minutes.agreement_id
        AND case_accounts.creditor_id = :creditor))"""
_FIND = tables.sql(
    f"SELECT {_COLUMNS} FROM minutes WHERE agency = :agency AND agreement_id = :agreement_id AND id = :id"  # noqa: S608
    f" AND {_CREDITOR}"
)
_PAGE = tables.sql(
    f"""
    SELECT {_COLUMNS} FROM minutes WHERE agency = :agency AND agreement_id = :agreement_id
        AND (CAST(:after AS uuid) IS NULL OR id > :after)
    ORDER BY id LIMIT :limit
    """  # noqa: S608 -- column names of this module
)


def template(
    tx: db.Transaction, agency: uuid.UUID, *, creditor_id: uuid.UUID | None, language: str
) -> Template:
    """The text of a creditor (None: of the house) in a language."""
    params = {"agency": agency, "creditor_id": creditor_id, "language": language}
    row = tx.execute(_TEMPLATE, params).mappings().first()
    return Template(**row) if row is not None else Template()


def put_template(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    creditor_id: uuid.UUID | None,
    language: str,
    text: str,
    version: int,
) -> bool:
    """Set a text over that of `version` (0: none yet). False when it is of another version by now."""
    params = {"agency": agency, "creditor_id": creditor_id, "language": language, "text": text}
    if version == 0:
        return bool(tx.execute(_INSERT_TEMPLATE, {**params, "id": ids.new()}).rowcount)
    return bool(tx.execute(_UPDATE_TEMPLATE, {**params, "version": version}).rowcount)


def keep(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    agreement_id: uuid.UUID,
    language: str,
    document: bytes,
    sha256: bytes,
    retention_days: int,
    now: datetime.datetime,
) -> Minute:
    """Keep a PDF, once: the same document again is the same minute. The agreement's account is locked."""
    known = {"agency": agency, "agreement_id": agreement_id, "language": language, "sha256": sha256}
    row = tx.execute(_SAME, known).mappings().first()
    if row is not None:
        return _minute(row)
    blob = blobs.create(
        tx, agency=agency, kind=KIND, retention_days=retention_days, chunks=[document], now=now
    )
    values: dict[str, Any] = {
        "id": ids.new(),
        "agreement_id": agreement_id,
        "language": language,
        "blob_id": blob.id,
        "sha256": blob.sha256,
        "size": blob.size,
        "created_at": now,
    }
    tx.execute(_INSERT, {"agency": agency, **values})
    return Minute(**values)


def find(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    agreement_id: uuid.UUID,
    minute_id: uuid.UUID,
    creditor: uuid.UUID | None = None,
) -> Minute | None:
    """One minute of an agreement, of this creditor where one is given."""
    params = {"agency": agency, "agreement_id": agreement_id, "id": minute_id, "creditor": creditor}
    row = tx.execute(_FIND, params).mappings().first()
    return _minute(row) if row is not None else None


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    agreement_id: uuid.UUID,
    after: uuid.UUID | None,
    limit: int,
) -> list[Minute]:
    """Minutes of an agreement in id order."""
    params = {
        "agency": agency,
        "agreement_id": agreement_id,
        "after": after,
        "limit": limit,
    }
    return [_minute(row) for row in tx.execute(_PAGE, params).mappings()]


def _minute(row: sa.RowMapping) -> Minute:
    return Minute(**{**row, "sha256": bytes(row["sha256"])})
