"""The agency's clock: real, or simulated (an instant and a speed). Time is an argument (architecture §1.5).

``case`` owns the clocks and publishes their changes; every other service keeps a copy in ``agency_clock``,
written only forward (``WHERE version < new``). Domain code takes ``now`` and ``business_date``; the code that
starts a use case (rpc, worker) reads them here.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import functools
import uuid
import zoneinfo
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from servicekit import errors

if TYPE_CHECKING:
    from servicekit import db

UTC = datetime.UTC
FIRST, LAST = datetime.datetime(2000, 1, 1, tzinfo=UTC), datetime.datetime(2200, 1, 1, tzinfo=UTC)
"""The instants between which a simulated clock goes: far enough from where dates end for any term to be counted."""

TABLE = sa.table(
    "agency_clock",
    sa.column("agency", sa.Uuid),
    sa.column("time_zone", sa.Text),
    sa.column("simulated", sa.Boolean),
    sa.column("base_machine", sa.DateTime(timezone=True)),
    sa.column("base_agency", sa.DateTime(timezone=True)),
    sa.column("speed", sa.Numeric),
    sa.column("business_date", sa.Date),
    sa.column("version", sa.BigInteger),
)


class AgencyClockUnknown(errors.ServiceError):
    """No clock is known for the agency: nothing that needs time may be done for it yet."""

    status = errors.Status.FAILED_PRECONDITION


class SimulatedClockRefused(errors.ServiceError):
    """A simulated clock in a process that does not allow one (``RECUPERA_ALLOW_SIMULATED_CLOCK``)."""

    status = errors.Status.FAILED_PRECONDITION


def machine_now() -> datetime.datetime:
    """The machine's instant, aware, UTC. Only the edges of a process (rpc, worker, clock) call it."""
    return datetime.datetime.now(UTC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgencyClock:
    """One agency's clock.

    ``speed`` is agency seconds per machine second: 1 as fast as the machine, 0 stands still. A real clock
    (``simulated`` false) ignores ``base_machine``, ``base_agency`` and ``speed``.
    """

    agency: uuid.UUID
    time_zone: str
    simulated: bool = False
    base_machine: datetime.datetime | None = None
    base_agency: datetime.datetime | None = None
    speed: decimal.Decimal = decimal.Decimal(1)
    business_date: datetime.date
    version: int

    def __post_init__(self) -> None:
        if self.simulated and (self.base_machine is None or self.base_agency is None):
            raise ValueError("a simulated clock needs base_machine and base_agency")
        if self.speed < 0:
            raise ValueError("a clock never runs backwards: speed is 0 or more")
        for instant in (self.base_machine, self.base_agency):
            if instant is not None and instant.tzinfo is None:
                raise ValueError("a clock's instants are aware")

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        """The agency's time zone."""
        return zoneinfo.ZoneInfo(self.time_zone)

    def now(self, machine: datetime.datetime | None = None) -> datetime.datetime:
        """The agency's instant, aware, UTC. ``machine`` is the machine's instant, read now when not given.

        A machine clock that stepped back before ``base_machine`` gives ``base_agency``; a simulated clock stands still
        at ``LAST``.
        """
        machine = machine or machine_now()
        if not self.simulated:
            return machine.astimezone(UTC)
        assert self.base_machine is not None
        assert self.base_agency is not None
        elapsed = max(machine - self.base_machine, datetime.timedelta(0))
        microseconds = int((elapsed // datetime.timedelta(microseconds=1)) * self.speed)
        left = (LAST - self.base_agency) // datetime.timedelta(microseconds=1)
        return (self.base_agency + datetime.timedelta(microseconds=min(microseconds, left))).astimezone(UTC)

    def local_date(self, machine: datetime.datetime | None = None) -> datetime.date:
        """The calendar date in the agency's zone (the business date may lag or lead it)."""
        return self.now(machine).astimezone(self.zone).date()

    def due_date(self, *, hour: int, machine: datetime.datetime | None = None) -> datetime.date:
        """The business date that should be open, days opening at ``hour`` o'clock (0 to 23) in the agency's zone:
        yesterday's date before that, today's from then on.
        """
        return (self.now(machine).astimezone(self.zone) - datetime.timedelta(hours=hour)).date()


def read(tx: db.Transaction, agency: uuid.UUID) -> AgencyClock:
    """The agency's clock as stored. Raises ``AgencyClockUnknown``."""
    row = tx.execute(_READ, {"agency": agency}).mappings().one_or_none()
    if row is None:
        raise AgencyClockUnknown("the agency has no clock yet", agency=str(agency))
    return from_row(row)


def from_row(row: Any) -> AgencyClock:
    """An ``AgencyClock`` from a row (mapping) of ``agency_clock``."""
    return AgencyClock(
        agency=row["agency"],
        time_zone=row["time_zone"],
        simulated=row["simulated"],
        base_machine=row["base_machine"],
        base_agency=row["base_agency"],
        speed=row["speed"],
        business_date=row["business_date"],
        version=row["version"],
    )


def store(tx: db.Transaction, clock: AgencyClock, *, allow_simulated: bool = True) -> bool:
    """Store a clock if its version is newer than the stored one. True when it was written.

    ``allow_simulated`` is the process's ``allow_simulated_clock`` setting; raises ``SimulatedClockRefused``.
    """
    if clock.simulated and not allow_simulated:
        raise SimulatedClockRefused("simulated clocks are not allowed here", agency=str(clock.agency))
    return tx.execute(_STORE, dataclasses.asdict(clock)).rowcount == 1


def open_day(tx: db.Transaction, agency: uuid.UUID, date: datetime.date) -> bool:
    """Move the agency's business date forward to ``date``. False when it is there or later already."""
    return tx.execute(_OPEN_DAY, {"agency": agency, "date": date}).rowcount == 1


def agencies(engine: sa.Engine) -> list[uuid.UUID]:
    """Every agency with a clock, in id order."""
    from servicekit import db

    return [row.agency for row in db.read(engine, agency=None, statement=_AGENCIES, params={})]


def with_work(engine: sa.Engine, scan: str, *, machine: datetime.datetime | None = None) -> list[uuid.UUID]:
    """Agencies for which a timer has something to do, in id order, in one round trip however many there are.

    ``scan`` is the function that a migration made for the timer (``migrations.create_scan``).
    """
    from servicekit import db

    params = {"machine": machine or machine_now()}
    return [row.agency for row in db.read(engine, agency=None, statement=_scan(scan), params=params)]


def every(engine: sa.Engine) -> list[AgencyClock]:
    """Every agency's clock, in id order."""
    from servicekit import db

    return [from_row(row._mapping) for row in db.read(engine, agency=None, statement=_EVERY, params={})]


def days_behind(engine: sa.Engine, *, hour: int) -> int:
    """Most days by which an agency's business date is behind the date that should be open, days opening at ``hour``
    o'clock (``AgencyClock.due_date``); 0 where none is. Simulated clocks do not count.
    """
    return max(
        (
            max((clock.due_date(hour=hour) - clock.business_date).days, 0)
            for clock in every(engine)
            if not clock.simulated
        ),
        default=0,
    )


_READ = sa.select(TABLE).where(TABLE.c.agency == sa.bindparam("agency"))
_STORE = sa.text(
    """
    INSERT INTO agency_clock AS stored
        (agency, time_zone, simulated, base_machine, base_agency, speed, business_date, version)
    VALUES (:agency, :time_zone, :simulated, :base_machine, :base_agency, :speed, :business_date, :version)
    ON CONFLICT (agency) DO UPDATE SET
        time_zone = excluded.time_zone, simulated = excluded.simulated, base_machine = excluded.base_machine,
        base_agency = excluded.base_agency, speed = excluded.speed,
        business_date = greatest(stored.business_date, excluded.business_date), version = excluded.version
    WHERE stored.version < excluded.version
    """
)
_OPEN_DAY = sa.text(
    "UPDATE agency_clock SET business_date = :date WHERE agency = :agency AND business_date < :date"
)
_AGENCIES = sa.select(TABLE.c.agency).order_by(TABLE.c.agency)
_EVERY = sa.select(TABLE).order_by(TABLE.c.agency)


@functools.cache
def _scan(name: str) -> sa.Executable:
    called = getattr(sa.func, name)(sa.bindparam("machine", type_=sa.DateTime(timezone=True)), type_=sa.Uuid)
    return sa.select(called.label("agency"))
