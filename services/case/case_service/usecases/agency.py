"""The agency's clock, ladder and rules of contact."""

from __future__ import annotations

import datetime
import decimal
import uuid
import zoneinfo
from collections.abc import Sequence

from case_service.domain import ladder, rules
from case_service.store import agency as agencies
from case_service.usecases import facts, moments
from servicekit import clock, db, errors, money


class ClockWentBack(errors.ServiceError):
    """A simulated clock never goes back, and a clock that was simulated ahead does not become real before
    its time.
    """

    status = errors.Status.FAILED_PRECONDITION


def set_clock(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    time_zone: str,
    simulated: bool,
    now: datetime.datetime | None,
    speed_thousandths: int,
    currency: str,
    allow_simulated: bool,
    machine_now: datetime.datetime,
) -> tuple[clock.AgencyClock, str]:
    """Create the agency's clock (with its ladder and rules of contact) or change it. Returns it with the
    agency's currency.

    ``time_zone`` and ``currency`` empty: as they are. ``now`` None: the clock goes on from where it is. The
    business date begins as the local date and then only moves with RunDay. Raises InvalidRequest,
    SimulatedClockRefused, ClockWentBack.
    """
    if simulated and not allow_simulated:
        raise clock.SimulatedClockRefused("simulated clocks are not allowed here", agency=str(agency))
    if speed_thousandths < 0 or speed_thousandths > 1_000_000_000:
        raise errors.invalid("speed_thousandths", "expected 0 to 1000000000")
    if now is not None and not simulated:
        raise errors.invalid("now", "only a simulated clock is set to an instant")
    if now is not None and not clock.FIRST <= now <= clock.LAST:
        raise errors.invalid("now", f"expected {clock.FIRST.isoformat()} to {clock.LAST.isoformat()}")
    created = agencies.create(tx, agency, currency=currency or "BRL", now=now or machine_now)
    known_currency = agencies.lock(tx, agency)
    assert known_currency is not None
    known = None if created else clock.read(tx, agency)
    time_zone = time_zone or (known.time_zone if known else "")
    _check(time_zone, currency)
    present = known.now(machine_now) if known else None
    if simulated:
        base_agency = now or present or machine_now
    else:
        base_agency = machine_now
    if present is not None and base_agency < present:
        raise ClockWentBack("the clock would go back", now=present.isoformat())
    business_date = (
        known.business_date if known else base_agency.astimezone(zoneinfo.ZoneInfo(time_zone)).date()
    )
    changed = clock.AgencyClock(
        agency=agency,
        time_zone=time_zone,
        simulated=simulated,
        base_machine=machine_now if simulated else None,
        base_agency=base_agency if simulated else None,
        speed=decimal.Decimal(speed_thousandths) / 1000 if simulated else decimal.Decimal(1),
        business_date=business_date,
        version=known.version + 1 if known else 1,
    )
    clock.store(tx, changed)
    if currency and currency != known_currency:
        agencies.set_currency(tx, agency, currency)
    if created:
        agencies.add_ladder(
            tx, agency, code=ladder.DEFAULT, display_name="Régua padrão", levels=ladder.DEFAULT_LEVELS
        )
        agencies.add_rules(tx, agency, rules.DEFAULTS)
    moment = moments.Moment(agency=agency, now=base_agency, business_date=business_date, zone=time_zone)
    facts.clock_changed(tx, moment, changed, currency or known_currency)
    return changed, currency or known_currency


def _check(time_zone: str, currency: str) -> None:
    if time_zone not in zoneinfo.available_timezones():
        raise errors.invalid("time_zone", "expected an IANA name, e.g. America/Sao_Paulo")
    if currency and currency not in money.CURRENCIES:
        raise errors.invalid("currency", f"expected one of {', '.join(sorted(money.CURRENCIES))}")


def update_ladder(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    code: str,
    display_name: str,
    levels: Sequence[ladder.Level],
    version: int | None,
) -> None:
    """Replace the levels of a ladder; ``version`` is the one the caller read, None: whatever it is.

    Raises LadderInvalid, ResourceNotFound, VersionMismatch.
    """
    ladder.check(levels)
    known = agencies.ladder_of(tx, agency, code)
    if not known:
        raise errors.ResourceNotFound("no such ladder", ladder=code)
    if not agencies.replace_levels(
        tx,
        agency,
        code=code,
        display_name=display_name or known[0].display_name,
        levels=levels,
        version=known[0].version if version is None else version,
    ):
        raise errors.VersionMismatch("the ladder has changed", ladder=code)
