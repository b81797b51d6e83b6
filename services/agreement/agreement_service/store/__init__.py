"""All SQL of the agreement service, a module for each part. The agency is the first argument after the transaction."""

from agreement_service.store import (  # noqa: F401 -- METADATA holds the tables of all
    approvals,
    collection,
    conditions,
    creditors,
    credits,
    drafts,
    due_dates,
    instruments,
    limits,
    mandates,
    minutes,
    novations,
    promises,
    remittance,
    tables,
    terms,
    waterfalls,
    writeoffs,
)
from agreement_service.store.tables import METADATA as METADATA
from servicekit import db

_READY = tables.sql("SELECT 1 FROM case_accounts LIMIT 1")


def ready(engine: db.Engine) -> bool:
    """Whether the database answers and is migrated. Raises what the database raises."""
    db.read(engine, agency=None, statement=_READY)
    return True
