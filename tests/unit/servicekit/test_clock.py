"""The agency's clock: real, simulated, standing still (architecture §1.5)."""

import datetime
import decimal
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import clock

AGENCY = uuid.UUID(int=1)
MACHINE = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
START = datetime.datetime(2030, 1, 1, 2, 30, tzinfo=datetime.UTC)


def simulated(speed: str) -> clock.AgencyClock:
    return clock.AgencyClock(
        agency=AGENCY,
        time_zone="America/Sao_Paulo",
        simulated=True,
        base_machine=MACHINE,
        base_agency=START,
        speed=decimal.Decimal(speed),
        business_date=datetime.date(2029, 12, 31),
        version=3,
    )


def test_a_real_clock_is_the_machines() -> None:
    real = clock.AgencyClock(
        agency=AGENCY, time_zone="Europe/Lisbon", business_date=datetime.date(2026, 1, 1), version=1
    )
    elsewhere = MACHINE.astimezone(datetime.timezone(datetime.timedelta(hours=5)))
    assert real.now(elsewhere) == MACHINE
    assert real.now(elsewhere).tzinfo is datetime.UTC
    assert abs(real.now() - clock.machine_now()) < datetime.timedelta(seconds=5)


@pytest.mark.parametrize(
    ("speed", "after", "elapsed"),
    [
        ("1", datetime.timedelta(hours=1), datetime.timedelta(hours=1)),
        ("0", datetime.timedelta(days=40), datetime.timedelta(0)),
        ("86400", datetime.timedelta(seconds=7), datetime.timedelta(days=7)),
        ("0.5", datetime.timedelta(seconds=3), datetime.timedelta(seconds=1.5)),
        ("3", datetime.timedelta(hours=-1), datetime.timedelta(0)),
    ],
)
def test_a_simulated_clock_goes_at_its_speed(
    speed: str, after: datetime.timedelta, elapsed: datetime.timedelta
) -> None:
    assert simulated(speed).now(MACHINE + after) == START + elapsed


def test_the_local_date_is_the_zones() -> None:
    assert simulated("0").local_date(MACHINE) == datetime.date(
        2029, 12, 31
    )  # 02:30 UTC is 23:30 in São Paulo
    assert simulated("1").local_date(MACHINE + datetime.timedelta(minutes=30)) == datetime.date(2030, 1, 1)


@pytest.mark.parametrize(
    ("zone", "hour", "opens"),
    [
        ("America/Sao_Paulo", 0, "2026-11-22T03:00+00:00"),
        ("America/Sao_Paulo", 6, "2026-11-22T09:00+00:00"),
        ("America/Sao_Paulo", 23, "2026-11-23T02:00+00:00"),  # in UTC the next date has begun
        ("Pacific/Kiritimati", 5, "2026-11-21T15:00+00:00"),  # in UTC it is still the date before
        ("Europe/Lisbon", 0, "2026-11-22T00:00+00:00"),
    ],
)
def test_a_date_is_due_from_its_hour_on_in_the_agencys_zone(zone: str, hour: int, opens: str) -> None:
    date = datetime.date(2026, 11, 22)
    at = datetime.datetime.fromisoformat(opens)
    real = clock.AgencyClock(agency=AGENCY, time_zone=zone, business_date=date, version=1)
    minute, day = datetime.timedelta(minutes=1), datetime.timedelta(days=1)
    assert real.due_date(hour=hour, machine=at - minute) == date - day
    assert real.due_date(hour=hour, machine=at) == date
    assert real.due_date(hour=hour, machine=at + day - minute) == date
    assert real.due_date(hour=hour, machine=at + day) == date + day


@given(
    st.decimals("0", "100000", places=3),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_clock_never_runs_backwards(speed: decimal.Decimal, first: int, second: int) -> None:
    early, late = sorted((first, second))
    ticking = simulated(str(speed))
    assert ticking.now(MACHINE + datetime.timedelta(seconds=early)) <= ticking.now(
        MACHINE + datetime.timedelta(seconds=late)
    )


def test_impossible_clocks_are_refused() -> None:
    with pytest.raises(ValueError, match="backwards"):
        simulated("-1")
    with pytest.raises(ValueError, match="needs base_machine"):
        clock.AgencyClock(
            agency=AGENCY,
            time_zone="UTC",
            simulated=True,
            business_date=datetime.date(2026, 1, 1),
            version=1,
        )
    with pytest.raises(ValueError, match="aware"):
        clock.AgencyClock(
            agency=AGENCY,
            time_zone="UTC",
            simulated=True,
            base_machine=datetime.datetime(2026, 1, 1),  # noqa: DTZ001
            base_agency=START,
            business_date=datetime.date(2026, 1, 1),
            version=1,
        )
