"""Acts outside (mail, call, bank, webhook) as rows with a due time, claimed by a timer (architecture §7).

A service's act table has, besides its own columns: ``id uuid, agency uuid, state text, due_at timestamptz``
(on the agency's clock), ``act_key text`` (the key by which the other side knows the act) and ``act_worker
uuid``. The timer claims due rows and commits them as acting, acts, and commits the outcome. A row whose
worker died in between is ``abandoned``: the service asks the other side by its key, or, where that cannot be
asked, sets it UNKNOWN.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import threading
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from servicekit import db, ids, telemetry

BEAT = datetime.timedelta(seconds=5)
DEAD_AFTER = datetime.timedelta(seconds=30)
"""A worker whose heartbeat is older (database clock) is dead: what it was acting on is abandoned."""

logger = logging.getLogger("recupera.acts")

DUE_AGE = telemetry.gauge(
    "recupera.acts.due_age", "s", "Age of the oldest act that is due and not done, by act"
)
UNKNOWN = telemetry.gauge(
    "recupera.acts.unknown", "{act}", "Acts of the last days of which nobody can say whether they were done"
)
UNKNOWN_DAYS = 7
"""Business days back to which acts in UNKNOWN are counted."""

_worker: tuple[int, uuid.UUID] | None = None


def worker_id() -> uuid.UUID:
    """This process's id, made once per process."""
    global _worker
    if _worker is None or _worker[0] != os.getpid():
        _worker = (os.getpid(), ids.new())
    return _worker[1]


def claim(
    tx: db.Transaction,
    table: str,
    *,
    agency: uuid.UUID,
    due_state: str,
    acting_state: str,
    now: datetime.datetime,
    limit: int,
) -> list[sa.RowMapping]:
    """Take up to ``limit`` rows that are in ``due_state`` and due at ``now`` (the agency's clock), oldest
    first.

    They are set to ``acting_state`` with this process as ``act_worker`` and returned whole, as they are now,
    by due time. Rows that another worker is claiming are passed over. Act only after the transaction is
    committed.
    """
    found = tx.execute(
        _claim(table),
        {
            "of_agency": agency,  # "agency" would be taken for a column to be written
            "due_state": due_state,
            "acting_state": acting_state,
            "now": now,
            "limit": limit,
            "worker": worker_id(),
        },
    )
    return sorted(found.mappings().all(), key=lambda row: (row["due_at"], row["id"]))


def abandoned(
    tx: db.Transaction,
    table: str,
    *,
    agency: uuid.UUID,
    acting_state: str,
    mine: bool = False,
    limit: int = 500,
) -> list[sa.RowMapping]:
    """Rows in ``acting_state`` whose worker is dead, locked until the transaction ends; reconcile by
    ``act_key``.

    With ``mine`` also those of this process: for the start of a tick of the only timer that acts on the
    table, where they can only be left over from a tick that failed.
    """
    found = tx.execute(
        _abandoned(table),
        {
            "of_agency": agency,
            "acting_state": acting_state,
            "dead_after": DEAD_AFTER,
            "mine": worker_id() if mine else None,
            "limit": limit,
        },
    )
    return list(found.mappings().all())


def oldest_due(
    tx: db.Transaction, table: str, *, agency: uuid.UUID, states: Sequence[str], now: datetime.datetime
) -> datetime.datetime | None:
    """Since when the oldest act in these states is due at ``now``; None where none is."""
    found: datetime.datetime | None = tx.execute(
        _oldest_due(table, tuple(states)), {"of_agency": agency, "now": now}
    ).scalar_one()
    return found


class Waiting:
    """What a service's look fills the gauges of acts with."""

    def __init__(self, *names: str) -> None:
        """``names`` are the acts that can be due."""
        self._due = dict.fromkeys(names, 0.0)
        self._unknown: dict[tuple[str, str], int] = {}

    def due(self, act: str, since: datetime.datetime | None, *, now: datetime.datetime) -> None:
        """The oldest act of this name at an agency is due since then; None where none is."""
        if since is not None:
            self._due[act] = max(self._due[act], (now - since).total_seconds())

    def unknown(self, act: str, kind: str, number: int) -> None:
        """So many acts of one kind are UNKNOWN at an agency."""
        self._unknown[act, kind] = number + self._unknown.get((act, kind), 0)

    def show(self) -> None:
        """Show what was put in."""
        DUE_AGE.show(self._due, by="act")
        UNKNOWN.show([(number, {"act": act, "kind": kind}) for (act, kind), number in self._unknown.items()])


def beat(engine: sa.Engine, name: str) -> None:
    """Say that this process lives."""
    with db.begin(engine, agency=None) as tx:
        tx.execute(_BEAT, {"id": worker_id(), "name": name})


class Heartbeat:
    """A thread that says that this process lives, every ``BEAT``; the row goes away in an orderly stop."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Say it once, so that nothing is claimed by a worker nobody knows; then go on beside."""
        beat(self._engine, self._name)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and take the row away: what is still acting is abandoned at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        try:
            with db.begin(self._engine, agency=None) as tx:
                tx.execute(_GONE, {"id": worker_id()})
        except Exception as error:
            if not db.is_unavailable(error):
                raise
            logger.warning("heartbeat row left behind", exc_info=error)

    def _run(self) -> None:
        while not self._stop.wait(BEAT.total_seconds()):
            try:
                beat(self._engine, self._name)
            except Exception as error:
                logger.warning("no heartbeat", exc_info=error)


def alive(engine: sa.Engine) -> int:
    """Worker processes of the service whose heart beats."""
    (row,) = db.read(engine, agency=None, statement=_ALIVE, params={"dead_after": DEAD_AFTER})
    return int(row.alive)


def forget_dead(engine: sa.Engine, *, after: datetime.timedelta = datetime.timedelta(days=1)) -> int:
    """Delete rows of workers that are dead for long; how many."""
    with db.begin(engine, agency=None) as tx:
        return tx.execute(_FORGET, {"after": after}).rowcount


def _table(name: str) -> Any:
    return sa.table(
        name,
        sa.column("id", sa.Uuid),
        sa.column("agency", sa.Uuid),
        sa.column("state", sa.Text),
        sa.column("due_at", sa.DateTime(timezone=True)),
        sa.column("act_worker", sa.Uuid),
    )


def _of_agency() -> Any:
    """The agency in a sub-query, as in the policy: a value that the statistics have not seen misleads the planner."""
    return sa.select(sa.cast(sa.bindparam("of_agency"), sa.Uuid)).scalar_subquery()


@functools.cache
def _claim(name: str) -> sa.Executable:
    table = _table(name)
    due = (
        sa.select(table.c.id)
        .where(
            table.c.agency == _of_agency(),
            table.c.state == sa.bindparam("due_state"),
            table.c.due_at <= sa.bindparam("now"),
        )
        .order_by(table.c.due_at, table.c.id)
        .limit(sa.bindparam("limit"))
        .with_for_update(skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return (
        sa.update(table)
        .where(table.c.agency == _of_agency(), table.c.id.in_(sa.select(due.c.id)))
        .values(state=sa.bindparam("acting_state"), act_worker=sa.bindparam("worker"))
        .returning(sa.text(f"{name}.*"))
    )


@functools.cache
def _oldest_due(name: str, states: tuple[str, ...]) -> sa.Executable:
    # states as literals: the planner sees that the partial index on what is due holds them all
    of_states: list[Any] = [sa.literal_column(f"'{state}'") for state in states]
    table = _table(name)
    return sa.select(sa.func.min(table.c.due_at)).where(
        table.c.agency == _of_agency(), table.c.state.in_(of_states), table.c.due_at <= sa.bindparam("now")
    )


@functools.cache
def _abandoned(name: str) -> sa.Executable:
    table = _table(name)
    alive = (
        sa.select(sa.literal(1))
        .select_from(_WORKERS)
        .where(
            _WORKERS.c.id == table.c.act_worker,
            _WORKERS.c.heartbeat_at
            > sa.func.clock_timestamp() - sa.bindparam("dead_after", type_=sa.Interval),
        )
        .exists()
    )
    return (
        sa.select(sa.text(f"{name}.*"))
        .select_from(table)
        .where(
            table.c.agency == _of_agency(),
            table.c.state == sa.bindparam("acting_state"),
            sa.or_(~alive, table.c.act_worker == sa.bindparam("mine")),
        )
        .order_by(table.c.due_at, table.c.id)
        .limit(sa.bindparam("limit"))
        .with_for_update(of=table, skip_locked=True)
    )


_WORKERS = sa.table(
    "workers", sa.column("id", sa.Uuid), sa.column("heartbeat_at", sa.DateTime(timezone=True))
)
_BEAT = sa.text(
    """
    INSERT INTO workers (id, name, started_at, heartbeat_at)
    VALUES (:id, :name, clock_timestamp(), clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET heartbeat_at = clock_timestamp()
    """
)
_ALIVE = sa.text(
    "SELECT count(*) AS alive FROM workers WHERE heartbeat_at > clock_timestamp() - CAST(:dead_after AS interval)"
)
_GONE = sa.text("DELETE FROM workers WHERE id = :id")
_FORGET = sa.text("DELETE FROM workers WHERE heartbeat_at < clock_timestamp() - CAST(:after AS interval)")
