"""All SQL of the case service: the tables in ``tables``, then one module for each thing that is stored.

The agency is the first argument after the transaction, and a condition of every statement (``scoped``);
row-level security is the second wall.
"""

import sqlalchemy as sa

from case_service.store.tables import METADATA as METADATA
from servicekit import db

_READY = sa.text("SELECT 1 FROM agency_clock LIMIT 1")


def ready(engine: db.Engine) -> bool:
    """Whether the database answers and has its tables; raises where it does not."""
    db.read(engine, agency=None, statement=_READY)
    return True
