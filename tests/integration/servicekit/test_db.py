"""Transactions, scope, publish: on a real PostgreSQL."""

import datetime
import decimal
import enum
import os
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import sqlalchemy.exc

from recupera.case.v1 import case_facts_pb2
from servicekit import db, facts, ids, outbox, relay, testing, topics
from support import databases, ledger

ANCHOR = sa.text("INSERT INTO case_anchors (agency, case_id) VALUES (:agency, :case_id)")
ANCHORS = sa.text("SELECT agency, case_id FROM case_anchors ORDER BY case_id")
ANCHORS_OF = sa.text("SELECT agency, case_id FROM case_anchors WHERE case_id = :case_id")
PAIR = sa.text("INSERT INTO limits (agency, case_id, number) VALUES (:agency, :case_id, 1)")


def anchor(engine: sa.Engine, agency: uuid.UUID, case: uuid.UUID) -> None:
    with db.begin(engine, agency=agency) as tx:
        tx.execute(ANCHOR, {"agency": agency, "case_id": case})


FLUSH = b"H\x00\x00\x00\x04"
"""libpq's last word behind a pipeline: it asks for nothing and nobody waits for it, so it may come after the answer."""


class Wire:
    """A proxy before PostgreSQL that counts round trips: how often the client speaks after the server spoke."""

    def __init__(self, port: int) -> None:
        self.trips = 0
        self._last = "server"
        self._lock = threading.Lock()
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, target, name in ((client, server, "client"), (server, client, "server")):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._copy, args=(source, target, name), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket, name: str) -> None:
        while block := source.recv(65536):
            with self._lock:
                if name == "client" and self._last == "server" and block != FLUSH:
                    self.trips += 1
                if block != FLUSH:
                    self._last = name
            target.sendall(block)

    def count(self, work: Callable[[], object]) -> int:
        before = self.trips
        work()
        return self.trips - before


@pytest.fixture
def wired(store: Callable[..., Any]) -> tuple[Wire, sa.Engine, Any]:
    made = store()
    url = sa.make_url(made.database.url)
    wire = Wire(url.port or 5432)
    return (
        wire,
        db.create_engine(
            url.set(port=wire.port).render_as_string(hide_password=False),
            application_name="wired",
            pool_size=1,
        ),
        made,
    )


def test_a_read_is_one_round_trip_and_a_write_adds_begin_and_commit(wired: Any) -> None:
    wire, engine, made = wired
    agency, case = ids.new(), ids.new()
    anchor(made.engine, agency, case)

    def read() -> None:
        rows = db.read(engine, agency=agency, statement=ANCHORS_OF, params={"case_id": case})
        assert [tuple(row) for row in rows] == [(agency, case)]

    def write() -> None:
        with db.begin(engine, agency=agency) as tx:
            tx.execute(ANCHORS_OF, {"case_id": case})
            for number in range(50):
                tx.publish(ledger.single(agency, case, number), case_id=case)

    for _ in range(7):  # the driver prepares a statement when it comes often
        read()
        write()
    assert wire.count(read) == 1
    assert wire.count(write) == 2  # BEGIN, scope and the statement; 50 facts, NOTIFY and COMMIT
    assert wire.count(lambda: [read(), read()]) == 2
    engine.dispose()


def test_an_agency_sees_its_own_rows_and_no_scope_sees_none(store: Callable[..., Any]) -> None:
    made = store()
    ours, theirs = ids.new(), ids.new()
    for agency in (ours, theirs):
        anchor(made.engine, agency, ids.new())

    assert [row.agency for row in db.read(made.engine, agency=ours, statement=ANCHORS)] == [ours]
    assert db.read(made.engine, agency=None, statement=ANCHORS) == []
    with db.begin(made.engine, agency=theirs) as tx:
        assert [row.agency for row in tx.execute(ANCHORS)] == [theirs]
    with db.begin(made.engine, agency=None) as tx:  # a pooled connection that had a scope before
        assert tx.execute(ANCHORS).all() == []
    with made.engine.connect() as connection:
        assert connection.execute(ANCHORS).all() == []
    assert len(db.read(made.owner, agency=None, statement=ANCHORS)) == 2


def test_a_row_of_another_agency_cannot_be_written(store: Callable[..., Any]) -> None:
    made = store()
    with (
        pytest.raises(sqlalchemy.exc.ProgrammingError, match="row-level security"),
        db.begin(made.engine, agency=ids.new()) as tx,
    ):
        tx.execute(ANCHOR, {"agency": ids.new(), "case_id": ids.new()})


def test_facts_are_there_only_when_the_transaction_commits(store: Callable[..., Any]) -> None:
    made = store("case")
    agency, case = ids.new(), ids.new()

    with pytest.raises(ZeroDivisionError), db.begin(made.engine, agency=agency) as tx:  # noqa: PT012
        tx.publish(ledger.single(agency, case, 1), case_id=case)
        raise ZeroDivisionError
    assert testing.published(made.engine) == []

    with pytest.raises(sqlalchemy.exc.IntegrityError), db.begin(made.engine, agency=agency) as tx:  # noqa: PT012
        tx.publish(ledger.single(agency, case, 1), case_id=case)
        tx.execute(PAIR, [{"agency": agency, "case_id": case}] * 2)  # deferred: fails at COMMIT
    assert testing.published(made.engine) == []
    assert db.read(made.engine, agency=agency, statement=sa.text("SELECT 1")) != []

    with db.begin(made.engine, agency=agency) as tx:
        for number in (1, 2, 3):
            tx.publish(ledger.single(agency, case, number), case_id=case)
    found = testing.published(made.engine)
    assert [published.fact.version for published in found] == [1, 2, 3]
    assert {published.partition for published in found} == {topics.partition_of(case, 24)}
    assert len({published.fact.fact_id for published in found}) == 3


def test_a_savepoint_takes_its_facts_with_it(store: Callable[..., Any]) -> None:
    made = store("case")
    agency, case = ids.new(), ids.new()
    with db.begin(made.engine, agency=agency) as tx:
        tx.publish(ledger.single(agency, case, 1), case_id=case)
        with pytest.raises(ZeroDivisionError), tx.savepoint():  # noqa: PT012
            tx.execute(ANCHOR, {"agency": agency, "case_id": case})
            tx.publish(ledger.single(agency, case, 2), case_id=case)
            raise ZeroDivisionError
        with pytest.raises(sqlalchemy.exc.IntegrityError), tx.savepoint():  # noqa: PT012
            tx.publish(ledger.single(agency, case, 3), case_id=case)
            tx.execute(PAIR, [{"agency": agency, "case_id": case}] * 2)
            tx.check_constraints()
        tx.publish(ledger.single(agency, case, 4), case_id=case)
    assert [published.fact.version for published in testing.published(made.engine)] == [1, 4]
    assert db.read(made.engine, agency=agency, statement=ANCHORS) == []


def test_one_notification_a_commit_and_none_without_facts(store: Callable[..., Any]) -> None:
    made = store("case")
    agency, case = ids.new(), ids.new()
    with psycopg.connect(made.database.url, autocommit=True) as listener:
        listener.execute(f"LISTEN {outbox.CHANNEL}")
        anchor(made.engine, agency, case)
        with db.begin(made.engine, agency=agency) as tx:
            for number in range(1_000):
                tx.publish(ledger.single(agency, case, number), case_id=case)
        with db.begin(made.engine, agency=agency) as tx:
            tx.publish(ledger.single(agency, case, 1_000), case_id=case)
        with db.begin(made.engine, agency=None) as tx:
            tx.execute(sa.text("NOTIFY outbox, 'end'"))
        heard: list[str] = []
        for notification in listener.notifies(timeout=20):
            heard.append(notification.payload)
            if notification.payload == "end":
                break
    assert heard == ["", "", "end"]


def test_outbox_ids_follow_the_locks_on_anchors(store: Callable[..., Any]) -> None:
    made = store("case")
    agency, case = ids.new(), ids.new()
    anchor(made.engine, agency, case)
    first_locked, second_waits = threading.Event(), threading.Event()

    def second() -> None:
        first_locked.wait(20)
        with db.begin(made.engine, agency=agency) as tx:
            second_waits.set()
            db.lock_anchors(tx, "case_anchors", agency, [case])
            tx.publish(ledger.single(agency, case, 2), case_id=case)

    thread = threading.Thread(target=second)
    thread.start()
    with db.begin(made.engine, agency=agency) as tx:
        assert db.lock_anchors(tx, "case_anchors", agency, [case, ids.new()]) == {case}
        first_locked.set()
        second_waits.wait(20)
        tx.publish(ledger.single(agency, case, 1), case_id=case)
    thread.join(20)
    assert [published.fact.version for published in testing.published(made.engine)] == [1, 2]


def test_anchors_in_opposite_order_do_not_deadlock(store: Callable[..., Any]) -> None:
    made = store("case")
    agency = ids.new()
    cases = [ids.new() for _ in range(50)]
    for case in cases:
        anchor(made.engine, agency, case)
    failures: list[Exception] = []

    def lock(wanted: list[uuid.UUID]) -> None:
        try:
            for _ in range(50):
                with db.begin(made.engine, agency=agency) as tx:
                    assert db.lock_anchors(tx, "case_anchors", agency, wanted) == set(cases)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=lock, args=(order,)) for order in (cases, cases[::-1], cases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_what_cannot_be_published_is_refused(store: Callable[..., Any]) -> None:
    made = store("case")
    agency, case = ids.new(), ids.new()
    large = ledger.single(agency, case, 1)
    large.contact_recorded.currency = "x" * (facts.MAX_BYTES + 1)
    with db.begin(made.engine, agency=agency) as tx:
        with pytest.raises(outbox.FactTooLarge):
            tx.publish(large, case_id=case)
        with pytest.raises(outbox.WrongAgency):
            tx.publish(ledger.single(ids.new(), case, 1), case_id=case)
        with pytest.raises(ValueError, match="no fact is set"):
            tx.publish(case_facts_pb2.CaseFact(agency=agency.bytes), case_id=case)
        with pytest.raises(ValueError, match="with its partition"):
            tx.publish(ledger.chunk(agency, [(case, 1)]))
        with pytest.raises(ValueError, match="has no partition 24"):
            tx.publish(ledger.chunk(agency, [(case, 1)]), partition=24)
    assert testing.published(made.engine) == []


def test_the_same_message_published_to_every_partition_is_as_many_facts(store: Callable[..., Any]) -> None:
    made = store("case")
    agency = ids.new()
    fact = case_facts_pb2.CaseFact()
    fact.day_opened.date.year = 2026
    with db.begin(made.engine, agency=agency) as tx:
        for partition in range(24):
            tx.publish(fact, partition=partition)
    found = testing.published(made.engine)
    assert [published.partition for published in found] == list(range(24))
    assert len({published.fact.fact_id for published in found}) == 24
    assert {published.fact.agency for published in found} == {agency.bytes}
    assert not fact.fact_id


def test_a_large_chunk_is_cut(store: Callable[..., Any]) -> None:
    made = store("case")
    agency = ids.new()
    fact = case_facts_pb2.CaseFact(agency=agency.bytes)
    for number in range(500):
        fact.titles_placed.case_ids.append(ids.new().bytes)
        fact.titles_placed.title_references.append(f"{number}" + "x" * 2_000)
    fact.titles_placed.table_terms.add(penalty_rate_e4=20_000)
    with db.begin(made.engine, agency=agency) as tx:
        tx.publish(fact, partition=5)
    found = testing.published(made.engine)
    assert len(found) > 1
    assert all(published.fact.ByteSize() <= facts.CHUNK_BYTES for published in found)
    assert len({published.fact.fact_id for published in found}) == len(found)
    together = [key for published in found for key in published.fact.titles_placed.case_ids]
    assert together == list(fact.titles_placed.case_ids)
    assert all(published.fact.titles_placed.table_terms[0].penalty_rate_e4 == 20_000 for published in found)


def test_the_partition_of_a_case_is_the_same_in_sql(store: Callable[..., Any]) -> None:
    made = store()
    cases = [ids.new() for _ in range(100)]
    statement = sa.text(
        "SELECT id, crc32(uuid_send(id)) % 24 AS partition FROM unnest(CAST(:ids AS uuid[])) AS id"
    )
    rows = db.read(made.engine, agency=None, statement=statement, params={"ids": cases})
    assert {row.id: row.partition for row in rows} == {case: topics.partition_of(case, 24) for case in cases}


def test_copy_into_a_temporary_table(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()
    cases = sorted(ids.new() for _ in range(1_000))
    with db.begin(made.engine, agency=agency) as tx:
        tx.execute(sa.text("CREATE TEMPORARY TABLE slice (case_id uuid, note text) ON COMMIT DROP"))
        data = "".join(f"{case},\n" for case in cases).encode()
        blocks = [data[start : start + 1_000] for start in range(0, len(data), 1_000)]
        assert tx.copy("slice", ("case_id", "note"), blocks) == 1_000
        tx.execute(
            sa.text(
                "INSERT INTO case_anchors SELECT :agency, case_id FROM slice WHERE note IS NULL ORDER BY case_id"
            ),
            {"agency": agency},
        )
    assert [row.case_id for row in db.read(made.engine, agency=agency, statement=ANCHORS)] == cases


def test_connections_come_back_after_the_database_did(private_postgres: Any, tmp_path: Any) -> None:
    private_postgres.start()
    engine = db.create_engine(private_postgres.url(), application_name="test")
    one = sa.text("SELECT 1")
    assert db.read(engine, agency=None, statement=one)[0][0] == 1
    private_postgres.process.kill()
    for work in (
        lambda: db.read(engine, agency=None, statement=one),
        lambda: _touch(engine),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 (the kinds differ; the question is is_unavailable)
            work()
        assert db.is_unavailable(caught.value), repr(caught.value)
    private_postgres.start()
    failures = 0
    while not _works(engine):  # each broken connection of the pool fails once at most
        failures += 1
        assert failures <= db.POOL_SIZE
    engine.dispose()


def _works(engine: sa.Engine) -> bool:
    try:
        _touch(engine)
    except sqlalchemy.exc.DBAPIError as error:
        if not db.is_unavailable(error):
            raise
        return False
    return True


def _touch(engine: sa.Engine) -> None:
    with db.begin(engine, agency=None) as tx:
        tx.execute(sa.text("SELECT 1"))


def test_which_errors_are_the_servers(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()

    def error_of(statement: str) -> Exception:
        with pytest.raises(Exception) as caught, db.begin(made.engine, agency=agency) as tx:  # noqa: PT011
            tx.execute(sa.text(statement))
        return caught.value

    assert db.is_unavailable(error_of("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert db.is_unavailable(error_of("DO $$BEGIN RAISE lock_not_available; END$$"))
    assert not db.is_unavailable(error_of("SELECT 1 / 0"))
    assert not db.is_unavailable(error_of("SELECT nothing"))
    assert not db.is_unavailable(ValueError())


class Colour(enum.Enum):
    """Stored as text."""

    RED = "red"


def test_a_statement_that_comes_again_gives_the_same_rows(store: Callable[..., Any]) -> None:
    """The first time through SQLAlchemy, then past it: same rows, same types, same errors, same scope."""
    made = store()
    agency, other, case = ids.new(), ids.new(), ids.new()
    anchor(made.engine, agency, case)
    colour = sa.Enum(
        Colour, native_enum=False, values_callable=lambda kind: [member.value for member in kind]
    )
    table = sa.table("case_anchors", sa.column("agency", sa.Uuid), sa.column("case_id", sa.Uuid))
    statement = sa.select(
        table.c.case_id,
        sa.type_coerce(sa.bindparam("colour", type_=colour), colour).label("colour"),
        sa.type_coerce(sa.literal_column("""'{"a": 1}'::jsonb"""), sa.JSON).label("document"),
        sa.literal_column("12.50::numeric").label("amount"),
        sa.literal_column("'2026-11-22 12:00+03'::timestamptz").label("at"),
    ).where(table.c.case_id == sa.any_(sa.bindparam("ids", type_=sa.ARRAY(sa.Uuid))))
    text = sa.text("SELECT case_id FROM case_anchors WHERE case_id = :case_id")
    listed = sa.select(table.c.case_id).where(table.c.case_id.in_(sa.bindparam("ids", expanding=True)))
    broken = sa.text("SELECT 1 / :divisor")
    for _ in range(4):
        [row] = db.read(
            made.engine, agency=agency, statement=statement, params={"ids": [case], "colour": Colour.RED}
        )
        assert row.case_id == row._mapping[table.c.case_id] == row[0] == case
        assert row.colour is Colour.RED
        assert row.document == {"a": 1}
        assert row.amount == decimal.Decimal("12.50")
        assert row.at == datetime.datetime(2026, 11, 22, 9, tzinfo=datetime.UTC)
        assert row.at.utcoffset() == datetime.timedelta(0)
        assert row._asdict().keys() == {"case_id", "colour", "document", "amount", "at"}
        assert db.read(made.engine, agency=other, statement=text, params={"case_id": case}) == []
        assert db.read(made.engine, agency=None, statement=text, params={"case_id": case}) == []
        assert db.read(made.engine, agency=agency, statement=text, params={"case_id": case}) == [(case,)]
        assert db.read(made.engine, agency=agency, statement=listed, params={"ids": [case, other]}) == [
            (case,)
        ]
        with pytest.raises(sqlalchemy.exc.DataError, match="division by zero"):
            db.read(made.engine, agency=agency, statement=broken, params={"divisor": 0})
        with pytest.raises(sqlalchemy.exc.SQLAlchemyError, match="value is required"):
            db.read(made.engine, agency=agency, statement=text, params={})
        with db.begin(made.engine, agency=other) as tx:  # the connection is as it was
            assert tx.execute(ANCHORS).all() == []
    with made.engine.connect() as connection:  # and not left in autocommit
        connection.execute(sa.text("INSERT INTO knobs VALUES ('a', 'b')"))
        connection.rollback()
    assert ledger.knob(made.engine, "a") is None


def test_a_read_gives_the_types_of_its_columns_each_time(store: Callable[..., Any]) -> None:
    statement = sa.select(
        sa.cast(sa.bindparam("amount"), sa.Numeric(12, 2)).label("amount"),
        sa.cast(sa.bindparam("share"), sa.Float).label("share"),
        sa.cast(sa.bindparam("day"), sa.Date).label("day"),
    )
    params = {"amount": decimal.Decimal("0.10"), "share": 0.5, "day": datetime.date(2026, 1, 31)}
    made = store()
    for _ in range(3):  # through SQLAlchemy first, as text for the driver afterwards
        (row,) = db.read(made.engine, agency=None, statement=statement, params=params)
        assert row._asdict() == params
        assert [type(value) for value in row] == [decimal.Decimal, float, datetime.date]


def test_reads_from_many_threads(store: Callable[..., Any]) -> None:
    made = store()
    agencies = [ids.new() for _ in range(4)]
    cases = {agency: ids.new() for agency in agencies}
    for agency, case in cases.items():
        anchor(made.engine, agency, case)
    wrong: list[object] = []

    def read(agency: uuid.UUID) -> None:
        for _ in range(200):
            rows = db.read(made.engine, agency=agency, statement=ANCHORS)
            if rows != [(agency, cases[agency])]:
                wrong.append(rows)

    threads = [threading.Thread(target=read, args=(agency,)) for agency in agencies * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_server_that_vanished_is_given_up_within_half_a_minute(
    engine: Callable[..., sa.Engine], database: Callable[..., databases.Database]
) -> None:
    """Of the sockets themselves: libpq leaves options out that it does not know, or that the system lacks."""
    made = engine(database("case", migrated=False))
    with made.connect() as connection, relay._connect(made) as direct:
        for driver in (db.driver_connection(connection), direct):
            with socket.socket(fileno=os.dup(driver.fileno())) as wire:
                options = {
                    name: wire.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                    for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
                }
                assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert options == {
                "TCP_USER_TIMEOUT": 30_000,
                "TCP_KEEPIDLE": 15,
                "TCP_KEEPINTVL": 5,
                "TCP_KEEPCNT": 3,
            }
