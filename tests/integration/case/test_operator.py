"""Business days opened by the worker's timer, and by hand with `run-day`."""

import datetime
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa
from opentelemetry.metrics import CallbackOptions

from case_service import __main__ as main
from case_service import worker
from case_service.store import days as stored
from case_service.usecases import agency as agency_usecases
from case_service.usecases import days
from servicekit import auth, clock, commands, dates, db, delivery

from .conftest import DATE, NOW, House, row

DAY = datetime.timedelta(days=1)
Operate = Callable[..., tuple[int, str]]


@pytest.fixture
def operate(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operate:
    """Run a command of case: its exit code and what it said."""
    key = auth.generate_key(auth.SERVICE_ISSUER + "case")
    auth.write_key(tmp_path / "case.json", key)
    auth.write_jwks(tmp_path / "jwks.json", [key])
    for name, value in {
        "DATABASE_URL_CASE": house.database.url,
        "KAFKA": "127.0.0.1:1",
        "RPC_PORT": "0",
        "JWKS_FILE": tmp_path / "jwks.json",
        "SERVICE_KEY_FILE": tmp_path / "case.json",
        "IMPORT_ADDRESS": "127.0.0.1:1",
    }.items():
        monkeypatch.setenv(f"RECUPERA_{name}", str(value))

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        handlers, level, hook = logging.root.handlers[:], logging.root.level, sys.excepthook
        thread_hook = threading.excepthook
        try:
            with pytest.raises(SystemExit) as ended:
                commands.main(main.PROGRAM, arguments)
        finally:
            logging.root.handlers[:], sys.excepthook, threading.excepthook = handlers, hook, thread_hook
            logging.root.setLevel(level)
            logging.captureWarnings(False)
        code, said = ended.value.code, capsys.readouterr()
        return (1, f"{said.out}{code}") if isinstance(code, str) else (int(code or 0), said.out + said.err)

    return run


def run_day(operate: Operate, agency: UUID, date: datetime.date, *more: str) -> tuple[int, list[str]]:
    code, said = operate("run-day", "--agency", str(agency), "--date", date.isoformat(), *more)
    return code, said.splitlines()


def test_a_day_is_opened_and_run_by_hand_and_twice_changes_nothing(house: House, operate: Operate) -> None:
    house.place(row(0), row(1))
    house.take()
    code, said = run_day(operate, house.agency, DATE)
    assert code == 0
    assert said[:2] == [
        f"agency {house.agency}: {DATE} is open",
        "0 of 24 slices are done: 0 cases seen, 0 agenda items",
    ]
    assert said[2].startswith("The others (partitions 0, 1, 2, ")
    assert len(house.take("day_opened")) == 24
    before = house.digest()
    code, said = run_day(operate, house.agency, DATE)
    assert (code, said[0]) == (0, f"agency {house.agency}: {DATE} was open already")
    assert house.digest() == before
    assert house.take() == []

    late = house.partition(house.case(0).id)
    house.day_done(DATE, [number for number in range(24) if number != late])
    code, said = run_day(operate, house.agency, DATE, "--wait", "0.1")
    assert code == 1
    assert said[1].startswith("23 of 24 slices are done: ")
    assert said[2].startswith(f"The others (partitions {late}) run once agreement has run the date there")
    with db.begin(house.engine, agency=house.agency) as tx:
        stored.clear(tx, house.agency, date=DATE, partition=late)
    house.take()
    code, said = run_day(
        operate, house.agency, DATE, "--wait", "30"
    )  # what agreement has cleared is run here
    assert (code, said[1:]) == (0, ["24 of 24 slices are done: 2 cases seen, 2 agenda items"])
    before = house.digest()
    assert run_day(operate, house.agency, DATE)[0] == 0
    assert house.digest() == before


def test_what_cannot_be_opened_is_said_in_a_line(house: House, operate: Operate) -> None:
    assert run_day(operate, house.agency, DATE + 2 * DAY)[0] == 0
    code, said = run_day(operate, house.agency, DATE)
    assert (code, said) == (
        1,
        [f"BUSINESS_DATE_BACKWARD: the business date is later already, business_date {DATE + 2 * DAY}"],
    )
    code, said = run_day(operate, house.agency, DATE + 365 * DAY)
    assert code == 1
    assert said[0].startswith("BUSINESS_DATE_TOO_FAR: ")
    stranger = uuid4()
    assert run_day(operate, stranger, DATE) == (
        1,
        [f"AGENCY_CLOCK_UNKNOWN: the agency has no clock yet, agency {stranger}"],
    )
    code, text = operate("run-day", "--agency", str(house.agency), "--date", "23/11/2026")
    assert code == 2
    assert "'23/11/2026' is not a date, expected YYYY-MM-DD" in text
    assert operate("run-day", "--date", DATE.isoformat())[0] == 2


# ---- the timer --------------------------------------------------------------------------------------------------


class Machine:
    """The machine's clock, as the test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        monkeypatch.setattr(clock, "machine_now", lambda: self.now)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def real(house: House, machine: Machine, zone: str = "America/Sao_Paulo") -> House:
    """Another agency, with a real clock."""
    made = house.of(uuid4())
    with db.begin(made.engine, agency=made.agency) as tx:
        agency_usecases.set_clock(
            tx,
            made.agency,
            time_zone=zone,
            simulated=False,
            now=None,
            speed_thousandths=1_000,
            currency="BRL",
            allow_simulated=False,
            machine_now=machine.now,
        )
    return made


def due(house: House, hour: int = 0) -> datetime.date | None:
    with db.begin(house.engine, agency=house.agency) as tx:
        return days.open_due(tx, house.agency, hour=hour)


def tick(house: House, **wiring: Any) -> None:
    """The timer of a worker."""
    made = worker.Wiring(slices=house.cut, late_slice_minutes=10, **wiring)
    delivery.instance(worker.CaseWorker, engine=house.engine, wiring=made).open_days()


def opened(house: House) -> list[datetime.date]:
    return sorted({dates.from_proto(fact.day_opened.date, "date") for fact in house.take("day_opened")})


def test_a_date_opens_at_its_hour_in_the_agencys_zone(house: House, machine: Machine) -> None:
    agency, lisbon = real(house, machine), real(house, machine, "Europe/Lisbon")
    assert due(agency) is None  # its first date is opened by people
    machine.now = NOW.replace(day=3, hour=0, minute=1)
    assert due(lisbon) == DATE + DAY
    assert due(agency) is None  # it is 21:01 there
    machine.now = NOW.replace(day=3, hour=3, minute=0)
    assert due(agency, hour=5) is None
    assert due(agency) == DATE + DAY
    assert due(agency) is None
    machine.now = NOW.replace(day=4, hour=7, minute=59)
    assert due(agency, hour=5) is None
    machine.now = NOW.replace(day=4, hour=8, minute=0)
    assert due(agency, hour=5) == DATE + 2 * DAY
    machine.now = NOW + 9 * DAY
    assert due(agency) == DATE + 9 * DAY  # the dates between are passed over
    machine.now = NOW + 5 * DAY  # the machine's clock was wrong: nothing goes back
    assert due(agency) is None


@pytest.mark.parametrize(
    ("zone", "opens"),
    [
        ("America/Sao_Paulo", NOW.replace(day=3, hour=9, minute=0)),
        ("Pacific/Kiritimati", NOW.replace(day=3, hour=16, minute=0)),  # 06:00 of the 4th there
    ],
)
def test_an_agency_is_not_behind_before_its_hour(
    house: House, machine: Machine, zone: str, opens: datetime.datetime
) -> None:
    """The gauge and the timer go by the same rule, `clock.AgencyClock.due_date`."""
    agency = real(house, machine, zone)
    made = worker.Wiring(slices=house.cut, late_slice_minutes=10, day_opens_hour=6)
    looking = delivery.instance(worker.CaseWorker, engine=house.engine, wiring=made)

    def behind() -> list[float]:
        looking.look_at_days()
        return [one.value for one in worker._behind._observe(CallbackOptions())]

    machine.now = opens - datetime.timedelta(minutes=1)
    assert behind() == [0]
    machine.now = opens
    assert behind() == [1]
    machine.now = opens + DAY - datetime.timedelta(minutes=1)
    assert behind() == [1]
    machine.now = opens + DAY
    assert behind() == [2]
    tick(house, day_opens_hour=6)
    assert behind() == [0]
    with db.begin(agency.engine, agency=agency.agency) as tx:
        days.run_day(tx, agency.agency, date=DATE + 5 * DAY)
    assert behind() == [0]  # ahead is not behind


def test_the_timer_leaves_simulated_clocks_alone_and_one_bad_agency_does_not_keep_others(
    house: House, machine: Machine
) -> None:
    agencies = [real(house, machine) for _ in range(3)]
    house.take()
    bad = sorted(agencies, key=lambda one: one.agency)[0]
    with db.begin(house.engine, agency=None) as tx:
        tx.execute(
            sa.text("UPDATE agency_clock SET time_zone = 'No/Where' WHERE agency = :of"),
            {"of": bad.agency},
        )
    machine.now = NOW + DAY
    with pytest.raises(LookupError):
        tick(house, day_opens_hour=3)
    found = house.rows("SELECT agency, business_date FROM agency_clock")
    assert {one.agency: one.business_date for one in found} == {
        house.agency: DATE,  # simulated
        bad.agency: DATE,
        **{one.agency: DATE + DAY for one in agencies if one is not bad},
    }


def test_replicas_at_midnight_open_the_day_once(house: House, machine: Machine) -> None:
    agency = real(house, machine)
    house.take()
    machine.now = NOW + DAY
    failures: list[Exception] = []
    ready = threading.Barrier(4)

    def replica() -> None:
        ready.wait()
        try:
            tick(house)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=replica) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(agency.take("day_opened")) == 24
    assert opened(agency) == []
