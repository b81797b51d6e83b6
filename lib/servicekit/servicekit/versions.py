"""Versions of a service's own rows, raised after a restore: docs/backup.md says when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from servicekit import db


def raise_all(engine: sa.Engine, columns: Sequence[str], *, by: int) -> Mapping[str, int]:
    """Add ``by`` to each of ``columns`` (``table.column``) in every row of every agency, in one transaction. Rows by
    column.

    ``engine`` is of the tables' owner, and cannot be of the service's role: row-level security shows that one agency at
    a time, and triggers that hold the books against every change (a closed statement) cannot know that this is none;
    only an owner may set them aside. That locks each table against writers until all is committed.
    """
    done = {}
    with db.begin(engine, agency=None) as tx:
        for name in columns:
            table, column = name.split(".")
            tx.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            raised = tx.execute(sa.text(f"UPDATE {table} SET {column} = {column} + :by"), {"by": by})  # noqa: S608 -- names of a service's __main__
            tx.execute(sa.text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))
            done[name] = raised.rowcount
    return done
