"""What needs one owner among replicas holds a row lease: the outbox relay, a campaign's loop (architecture
§2).

Times are the database's clock, so machines need not agree. The holder is this process; it renews by calling
``hold`` again. A process that was stopped longer than ``LEASE`` may believe for a moment that it still holds:
what it does under a lease must stay right when done twice.
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable

import sqlalchemy as sa

from servicekit import acts, db

LEASE = datetime.timedelta(seconds=15)


def hold(
    engine: sa.Engine, name: str, *, lease: datetime.timedelta = LEASE, holder: uuid.UUID | None = None
) -> bool:
    """Take the lease ``name`` if it is free or over, or renew it; True while this process holds it."""
    params = {"name": name, "holder": holder or acts.worker_id(), "lease": lease}
    return _run(engine, lambda tx: tx.execute(_HOLD, params).rowcount == 1)


def release(engine: sa.Engine, name: str, *, holder: uuid.UUID | None = None) -> None:
    """Give the lease up, if this process holds it."""
    params = {"name": name, "holder": holder or acts.worker_id()}
    _run(engine, lambda tx: tx.execute(_RELEASE, params).rowcount == 1)


def _run(engine: sa.Engine, work: Callable[[db.Transaction], bool]) -> bool:
    with db.begin(engine, agency=None) as tx:
        return work(tx)


_HOLD = sa.text(
    """
    INSERT INTO leases AS held (name, holder, expires_at)
    VALUES (:name, :holder, clock_timestamp() + CAST(:lease AS interval))
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
    WHERE held.holder = excluded.holder OR held.expires_at <= clock_timestamp()
    """
)
_RELEASE = sa.text("DELETE FROM leases WHERE name = :name AND holder = :holder")
