"""Section `scans`: which of 1,000 agencies have work for a timer, as an idle worker asks several times a second.

The baseline is the same question put bare to each agency in turn: psycopg, a prepared statement, the scope in the same
round trip.
"""

import dataclasses
import datetime
import decimal
import time
import uuid

import psycopg

from recupera_local.bench import figures, money, scenes
from servicekit import clock, db, ids

AGENCIES = 1_000
ROUNDS = 20
GOAL = 0.25
SCAN = "agencies_to_ask_bank"
SCOPE = "SELECT set_config('app.agency', %s, false)"
BARE = """
    SELECT EXISTS (
        SELECT FROM instruments
        WHERE agency = %s AND state IN ('DRAFT', 'REGISTERING', 'CANCEL_REQUESTED', 'CANCELLING')
          AND (due_at <= %s OR state IN ('REGISTERING', 'CANCELLING'))
    )
"""


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """The mean of some rounds over the same agencies, after one that warms up."""
    count = AGENCIES // 10 if scene.quick else AGENCIES
    with money.database(scene, "scans") as engine:
        agencies = _add(engine, count)
        now = clock.machine_now()
        ours, bare = [], []
        with psycopg.connect(_url(engine), autocommit=True, prepare_threshold=1) as connection:
            for _ in range(ROUNDS + 1):
                started = time.perf_counter()
                if clock.with_work(engine, SCAN):
                    raise RuntimeError("an agency has work")
                between = time.perf_counter()
                if any(_asked(connection, agency, now) for agency in agencies):
                    raise RuntimeError("an agency has work")
                ours.append(between - started)
                bare.append(time.perf_counter() - between)
    scene.say(f"{count} agencies: {1000 * ours[-1]:.1f} ms; asked in turn: {1000 * bare[-1]:.1f} ms")
    return [
        figures.Figure(
            name=f"which of {count:,} agencies have work, beside asking each in turn",
            unit="s",
            ours=sum(ours[1:]) / ROUNDS,
            baseline=sum(bare[1:]) / ROUNDS,
            goal=GOAL,
        )
    ]


def _add(engine: db.Engine, count: int) -> list[uuid.UUID]:
    with db.begin(engine, agency=None) as tx:
        model = dataclasses.replace(
            clock.read(tx, money.AGENCY),
            simulated=False,
            base_machine=None,
            base_agency=None,
            speed=decimal.Decimal(1),
        )
        for _ in range(count - 1):
            clock.store(tx, dataclasses.replace(model, agency=ids.new()))
    return clock.agencies(engine)


def _url(engine: db.Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


def _asked(connection: psycopg.Connection, agency: uuid.UUID, now: datetime.datetime) -> bool:
    with connection.pipeline():
        connection.execute(SCOPE, (str(agency),))
        cursor = connection.execute(BARE, (agency, now))
    (found,) = cursor.fetchone() or (None,)
    return bool(found)
