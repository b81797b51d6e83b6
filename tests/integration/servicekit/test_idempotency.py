"""The same request_id gives the same answer, whatever happens at the same time (architecture.md §8)."""

import datetime
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy
from psycopg import sql

from servicekit import auth, db, errors, idempotency, migrations
from support import databases, echo, waiting

AGENCY = UUID("01890000-0000-7000-8000-000000000001")
OTHER = UUID("01890000-0000-7000-8000-000000000002")
METHOD = "echo.v1.EchoService/GetThing"

COUNT = sqlalchemy.text("SELECT count(*) FROM runs")
RUN = sqlalchemy.text("INSERT INTO runs VALUES (:text)")


@pytest.fixture
def kit(database: Callable[..., databases.Database]) -> databases.Database:
    """A database with servicekit's tables, and a table `runs` that counts what ran."""
    made = database("kit", migrated=False)
    with psycopg.connect(made.owner_url) as connection:
        for statement in migrations.SYSTEM_TABLES:
            connection.execute(statement)
        connection.execute("CREATE TABLE runs (text text)")
        role = sql.Identifier(migrations.service_role(made.owner_url))
        connection.execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON request_log, runs TO {}").format(role)
        )
    return made


@pytest.fixture
def store(kit: databases.Database) -> Iterator[sqlalchemy.Engine]:
    """An engine for the service's role with enough connections for eight twins."""
    made = db.create_engine(kit.url, application_name="twins", pool_size=10)
    yield made
    made.dispose()


def caller(subject: str = "users/1", agency: UUID = AGENCY) -> auth.Caller:
    """Who calls."""
    return auth.Caller(
        subject=subject, agency=agency, scopes=frozenset(), roles=frozenset(), creditor=None, service=None
    )


def call(
    engine: sqlalchemy.Engine,
    request_id: str,
    *,
    text: str = "a",
    who: auth.Caller | None = None,
    method: str = METHOD,
    during: Callable[[], None] = lambda: None,
) -> str:
    """One call as a servicer makes it: the answer holds a value of this run's own."""
    who = who or caller()
    request = echo.pb2.GetThingRequest(name="agencies/1", text=text, request_id=request_id)
    with db.begin(engine, agency=who.agency) as tx:

        def run() -> Any:
            tx.execute(RUN, {"text": text})
            during()
            return echo.pb2.Thing(name=str(uuid4()))

        answer = idempotency.once(
            tx, caller=who, method=method, request=request, response=echo.pb2.Thing, run=run
        )
    return str(answer.name)


def runs(engine: sqlalchemy.Engine) -> int:
    """How often something ran and was committed."""
    with db.begin(engine, agency=None) as tx:
        return int(tx.execute(COUNT).scalar_one())


def test_a_repeat_gets_the_first_answer_and_runs_nothing(store: sqlalchemy.Engine) -> None:
    first = call(store, "one")
    assert call(store, "one") == first
    assert call(store, "two") != first
    assert runs(store) == 2


def test_without_an_id_every_call_runs(store: sqlalchemy.Engine) -> None:
    assert call(store, "") != call(store, "")
    assert runs(store) == 2


def test_the_key_is_agency_subject_method_and_id(store: sqlalchemy.Engine) -> None:
    answers = {
        call(store, "one"),
        call(store, "one", who=caller(subject="users/2")),
        call(store, "one", who=caller(agency=OTHER)),
        call(store, "one", method="echo.v1.EchoService/Other"),
    }
    assert len(answers) == 4


def test_another_body_is_refused(store: sqlalchemy.Engine) -> None:
    call(store, "one")
    with pytest.raises(errors.RequestIdReused) as caught:
        call(store, "one", text="b")
    assert (caught.value.status, caught.value.reason) == (errors.Status.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert runs(store) == 1


@pytest.mark.parametrize("request_id", ["x" * 129, "ção", "a\0b", "a\nb"])
def test_ids_that_cannot_be_kept_are_refused(store: sqlalchemy.Engine, request_id: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        call(store, request_id)
    assert caught.value.fields[0].field == "request_id"


def test_a_failure_is_not_kept(store: sqlalchemy.Engine) -> None:
    def fail() -> None:
        raise errors.VersionMismatch("changed since")

    with pytest.raises(errors.VersionMismatch):
        call(store, "one", during=fail)
    assert runs(store) == 0
    assert call(store, "one", text="another body is fine now")
    assert runs(store) == 1


def blocked(kit: databases.Database) -> int:
    """How many twins wait for another."""
    waiting_now = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'twins' AND wait_event_type = 'Lock'"
    )
    return int(str(databases.rows(kit.administrator_url, waiting_now)[0][0]))


def test_twins_at_the_same_time_one_runs_and_all_get_its_answer(
    kit: databases.Database, store: sqlalchemy.Engine
) -> None:
    def until_the_others_wait() -> None:
        waiting.until(lambda: blocked(kit) == 7, what="seven twins to wait")

    start = threading.Barrier(8)

    def twin() -> str:
        start.wait()
        return call(store, "one", during=until_the_others_wait)

    with futures.ThreadPoolExecutor(8) as pool:
        answers = [future.result() for future in [pool.submit(twin) for _ in range(8)]]
    assert len(set(answers)) == 1
    assert runs(store) == 1


def test_a_twin_runs_when_the_first_one_fails(kit: databases.Database, store: sqlalchemy.Engine) -> None:
    first_runs = threading.Event()

    def fail_once_the_other_waits() -> None:
        first_runs.set()
        waiting.until(lambda: blocked(kit) == 1, what="the twin to wait")
        raise errors.VersionMismatch("changed since")

    with futures.ThreadPoolExecutor(2) as pool:
        failing = pool.submit(call, store, "one", during=fail_once_the_other_waits)
        assert first_runs.wait(20)
        second = pool.submit(call, store, "one")
        assert second.result()
        with pytest.raises(errors.VersionMismatch):
            failing.result()
    assert runs(store) == 1


def test_a_twin_with_another_body_is_refused_after_waiting(
    kit: databases.Database, store: sqlalchemy.Engine
) -> None:
    first_runs = threading.Event()

    def until_the_other_waits() -> None:
        first_runs.set()
        waiting.until(lambda: blocked(kit) == 1, what="the twin to wait")

    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, store, "one", during=until_the_other_waits)
        assert first_runs.wait(20)
        with pytest.raises(errors.RequestIdReused):
            pool.submit(call, store, "one", text="b").result()
        assert first.result()
    assert runs(store) == 1


def test_answers_are_kept_seven_days_each_agencys_by_itself(
    kit: databases.Database, store: sqlalchemy.Engine
) -> None:
    old, young = call(store, "old"), call(store, "young")
    theirs = call(store, "old", who=caller(agency=OTHER))
    with psycopg.connect(kit.owner_url) as owner:
        owner.execute("UPDATE request_log SET created_at = now() - interval '6 days 23 hours'")
        owner.execute(
            "UPDATE request_log SET created_at = now() - interval '7 days 1 minute' WHERE request_id = 'old'"
        )
    with db.begin(store, agency=AGENCY) as tx:
        assert idempotency.purge(tx) == 1
    assert call(store, "young") == young
    assert call(store, "old") != old
    assert call(store, "old", who=caller(agency=OTHER)) == theirs
    with db.begin(store, agency=OTHER) as tx:
        assert idempotency.purge(tx, kept=datetime.timedelta(days=30)) == 0
