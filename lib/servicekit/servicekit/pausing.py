"""What an operator has paused: topics that are not read and timers that do not tick, until they are resumed.

A row of the service's database, so that it holds for every replica and for those that start later. A worker reads
the table every ``EVERY`` seconds; the relay, the heartbeat and housekeeping go on whatever is paused.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import threading
from collections.abc import Sequence

import sqlalchemy as sa

from servicekit import db

ALL = "*"
"""The name that pauses every topic and every timer of the service."""
EVERY = 2.0

logger = logging.getLogger("recupera.pausing")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pause:
    """One row: ``name`` is a topic, a timer's method, or ``ALL``."""

    name: str
    reason: str
    paused_by: str
    paused_at: datetime.datetime


def paused(engine: sa.Engine) -> list[Pause]:
    """What is paused, by name."""
    rows = db.read(engine, agency=None, statement=_PAUSED)
    return [
        Pause(name=row.name, reason=row.reason, paused_by=row.paused_by, paused_at=row.paused_at)
        for row in rows
    ]


def pause(engine: sa.Engine, names: Sequence[str], *, reason: str, paused_by: str) -> list[str]:
    """Pause; the names that were not paused before. One that was keeps its first reason."""
    with db.begin(engine, agency=None) as tx:
        return [
            name
            for name in sorted(set(names))
            if tx.execute(_PAUSE, {"name": name, "reason": reason, "paused_by": paused_by}).rowcount == 1
        ]


def resume(engine: sa.Engine, names: Sequence[str] | None) -> list[str]:
    """Resume these, or with None all; the names that were paused."""
    with db.begin(engine, agency=None) as tx:
        gone = tx.execute(_RESUME, {"all": names is None, "names": list(names or ())})
        return sorted(row.name for row in gone)


class Watch:
    """What is paused, as a worker knows it: read every ``EVERY`` seconds on a thread of its own.

    Until it was read once everything counts as paused, so that a worker that starts while the database is away does
    nothing an operator has stopped. Afterwards the last answer holds.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._names: frozenset[str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pausing", daemon=True)

    def start(self) -> None:
        """Read once, then go on reading beside."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()

    def is_paused(self, name: str) -> bool:
        """Whether a topic or timer is to rest."""
        names = self._names
        return names is None or name in names or ALL in names

    def _run(self) -> None:
        while not self._stop.wait(EVERY):
            self._look()

    def _look(self) -> None:
        try:
            found = {one.name: one.reason for one in paused(self._engine)}
        except Exception as error:
            logger.warning("what is paused could not be read", exc_info=error)
            return
        before, self._names = self._names or frozenset(), frozenset(found)
        for name in sorted(self._names - before):
            logger.warning("paused", extra={"paused": name})
        for name in sorted(before - self._names):
            logger.warning("resumed", extra={"paused": name})


_PAUSED = sa.text("SELECT name, reason, paused_by, paused_at FROM paused ORDER BY name")
_PAUSE = sa.text(
    "INSERT INTO paused (name, reason, paused_by) VALUES (:name, :reason, :paused_by) ON CONFLICT DO NOTHING"
)
_RESUME = sa.text("DELETE FROM paused WHERE :all OR name = ANY(:names) RETURNING name")
