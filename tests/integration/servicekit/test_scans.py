"""Which agencies have work for a timer: what each agency's own question would answer, in one round trip."""

import datetime
import decimal
import uuid
from collections.abc import Callable
from typing import Any

import hypothesis
import sqlalchemy as sa
from hypothesis import strategies as st

from servicekit import clock, db, ids

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
SCAN = "agencies_to_act"
ACT = sa.text(
    "INSERT INTO acts (id, agency, state, due_at, act_key) VALUES (:id, :agency, :state, :due, CAST(:id AS text))"
)


def add_agency(made: Any, **values: Any) -> clock.AgencyClock:
    """An agency with a clock: real unless said otherwise."""
    known = clock.AgencyClock(
        **{
            "agency": ids.new(),
            "time_zone": "America/Sao_Paulo",
            "simulated": False,
            "base_machine": None,
            "base_agency": None,
            "speed": decimal.Decimal(1),
            "business_date": datetime.date(2026, 11, 22),
            "version": 1,
        }
        | values
    )
    with db.begin(made.engine, agency=None) as tx:
        clock.store(tx, known)
    return known


def add_act(made: Any, agency: uuid.UUID, due: datetime.datetime, state: str = "DUE") -> None:
    with db.begin(made.engine, agency=agency) as tx:
        tx.execute(ACT, {"id": ids.new(), "agency": agency, "state": state, "due": due})


def test_agencies_with_work_and_no_others(store: Callable[..., Any]) -> None:
    made = store()
    due, later, done, idle = (add_agency(made).agency for _ in range(4))
    add_act(made, due, NOW)
    add_act(made, due, NOW - datetime.timedelta(days=1))
    add_act(made, later, NOW + datetime.timedelta(microseconds=1))
    add_act(made, done, NOW, state="DONE")
    add_act(made, ids.new(), NOW)  # its clock is not known here yet
    assert clock.with_work(made.engine, SCAN, machine=NOW) == [due]
    assert clock.with_work(made.engine, SCAN, machine=NOW + datetime.timedelta(microseconds=1)) == [
        due,
        later,
    ]
    assert idle in clock.agencies(made.engine)


def test_each_agency_is_looked_at_in_its_own_scope_and_none_is_left(store: Callable[..., Any]) -> None:
    made = store()
    agencies = [add_agency(made).agency for _ in range(3)]
    add_act(made, agencies[1], NOW)
    with db.begin(made.engine, agency=agencies[1]) as tx:
        seen = sa.text("SELECT current_setting('app.agency') AS scope, (SELECT count(*) FROM acts) AS acts")
        assert tuple(tx.execute(seen).one()) == (str(agencies[1]), 1)
        assert tx.execute(sa.text(f"SELECT {SCAN}(:now)"), {"now": NOW}).scalars().all() == [agencies[1]]
        assert tuple(tx.execute(seen).one()) == ("", 0), "a scope must not outlive the question"


def test_now_is_the_agencys_in_sql_as_in_python(store: Callable[..., Any]) -> None:
    made = store()
    step = datetime.timedelta(milliseconds=1)

    @hypothesis.given(
        speed=st.decimals(min_value=0, max_value=1_000_000, places=3),
        elapsed=st.timedeltas(min_value=datetime.timedelta(days=-1), max_value=datetime.timedelta(days=3650)),
        base=st.datetimes(
            min_value=datetime.datetime(2020, 1, 1),  # noqa: DTZ001  hypothesis adds the zone
            max_value=datetime.datetime(2040, 1, 1),  # noqa: DTZ001  hypothesis adds the zone
            timezones=st.just(datetime.UTC),
        ),
    )
    @hypothesis.example(
        speed=decimal.Decimal(1_000_000),
        elapsed=datetime.timedelta(days=30),
        base=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    )
    @hypothesis.settings(max_examples=60, deadline=None)
    def holds(speed: decimal.Decimal, elapsed: datetime.timedelta, base: datetime.datetime) -> None:
        known = add_agency(made, simulated=True, base_machine=NOW, base_agency=base, speed=speed)
        machine = NOW + elapsed
        add_act(made, known.agency, known.now(machine) + step)
        assert known.agency not in clock.with_work(made.engine, SCAN, machine=machine)
        add_act(made, known.agency, known.now(machine) - step)
        assert known.agency in clock.with_work(made.engine, SCAN, machine=machine)

    holds()
