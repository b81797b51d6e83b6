"""What servicekit keeps as rows: acts, heartbeats, leases, blobs, clocks; migrations. On a real
PostgreSQL.
"""

import datetime
import hashlib
import pathlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from servicekit import acts, blobs, clock, db, errors, host, ids, leases, migrations
from support import ledger, waiting

NOW = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
ACT = sa.text(
    "INSERT INTO acts (id, agency, state, due_at, act_key, note) VALUES (:id, :agency, 'DUE', :due, :key, 'note')"
)
STATES = sa.text("SELECT state, count(*) AS n FROM acts GROUP BY state")


def add_acts(made: Any, agency: uuid.UUID, count: int, due: datetime.datetime = NOW) -> list[uuid.UUID]:
    added = [ids.new() for _ in range(count)]
    with db.begin(made.engine, agency=agency) as tx:
        tx.execute(ACT, [{"id": act, "agency": agency, "due": due, "key": f"key-{act}"} for act in added])
    return added


def claim(made: Any, agency: uuid.UUID, *, limit: int = 10, now: datetime.datetime = NOW) -> list[Any]:
    with db.begin(made.engine, agency=agency) as tx:
        return acts.claim(
            tx, "acts", agency=agency, due_state="DUE", acting_state="ACTING", now=now, limit=limit
        )


def test_due_acts_are_claimed_once_in_order_of_due_time(store: Callable[..., Any]) -> None:
    made = store()
    agency, other = ids.new(), ids.new()
    late = add_acts(made, agency, 2, NOW - datetime.timedelta(hours=1))
    early = add_acts(made, agency, 2, NOW - datetime.timedelta(hours=2))
    add_acts(made, agency, 1, NOW + datetime.timedelta(seconds=1))
    add_acts(made, other, 1)
    first = claim(made, agency, limit=3)
    assert [row["id"] for row in first] == [*early, late[0]]
    assert {row["state"] for row in first} == {"ACTING"}
    assert {row["act_worker"] for row in first} == {acts.worker_id()}
    assert first[0]["act_key"] == f"key-{early[0]}"
    assert first[0]["note"] == "note"
    assert [row["id"] for row in claim(made, agency)] == [late[1]]
    assert claim(made, agency) == []
    assert len(claim(made, other)) == 1


def test_two_claims_at_once_share_nothing(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()
    add_acts(made, agency, 200)
    claimed: list[uuid.UUID] = []

    def work() -> None:
        while rows := claim(made, agency, limit=7):
            claimed.extend(row["id"] for row in rows)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(claimed) == len(set(claimed)) == 200


def test_acts_of_a_dead_worker_are_abandoned(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()
    add_acts(made, agency, 3)
    heartbeat = acts.Heartbeat(made.engine, "test")
    heartbeat.start()
    claim(made, agency)

    def abandoned(**options: Any) -> int:
        with db.begin(made.engine, agency=agency) as tx:
            return len(acts.abandoned(tx, "acts", agency=agency, acting_state="ACTING", **options))

    assert abandoned() == 0
    assert abandoned(mine=True) == 3  # the only timer that acts on the table, at the start of its tick
    with db.begin(made.engine, agency=None) as tx:
        tx.execute(sa.text("UPDATE workers SET heartbeat_at = now() - interval '31 seconds'"))
    assert abandoned() == 3
    acts.beat(made.engine, "test")
    assert abandoned() == 0
    heartbeat.stop()
    assert abandoned() == 3
    with db.begin(made.engine, agency=None) as tx:
        old = "INSERT INTO workers (id, name, heartbeat_at) VALUES (:id, 'old', now() - interval '2d')"
        tx.execute(sa.text(old), {"id": ids.new()})
    assert acts.forget_dead(made.engine) == 1


def test_acts_of_a_killed_process_are_found(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()
    add_acts(made, agency, 2)
    script = f"""
import sys, time, uuid, datetime
from servicekit import acts, db
engine = db.create_engine({made.database.url!r}, application_name="child")
acts.Heartbeat(engine, "child").start()
agency = uuid.UUID({str(agency)!r})
with db.begin(engine, agency=agency) as tx:
    acts.claim(tx, "acts", agency=agency, due_state="DUE", acting_state="ACTING",
               now=datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC), limit=10)
print("acting", flush=True)
time.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"acting\n"
    with db.begin(made.engine, agency=agency) as tx:
        assert acts.abandoned(tx, "acts", agency=agency, acting_state="ACTING") == []
    child.kill()
    child.wait()
    with db.begin(made.engine, agency=None) as tx:  # its last heartbeat gets old
        tx.execute(sa.text("UPDATE workers SET heartbeat_at = heartbeat_at - :age"), {"age": acts.DEAD_AFTER})
    with db.begin(made.engine, agency=agency) as tx:
        rows = acts.abandoned(tx, "acts", agency=agency, acting_state="ACTING")
        assert len(rows) == 2
        with db.begin(made.engine, agency=agency) as other:  # who reconciles has them alone
            assert acts.abandoned(other, "acts", agency=agency, acting_state="ACTING") == []


def test_a_lease_has_one_holder(store: Callable[..., Any]) -> None:
    made = store()
    one, two = ids.new(), ids.new()
    short = datetime.timedelta(milliseconds=400)
    assert leases.hold(made.engine, "loop", holder=one)
    assert not leases.hold(made.engine, "loop", holder=two)
    assert leases.hold(made.engine, "other", holder=two)
    assert leases.hold(made.engine, "loop", holder=one, lease=short)  # renewed, shorter
    waiting.until(lambda: leases.hold(made.engine, "loop", holder=two), timeout=10)
    assert not leases.hold(made.engine, "loop", holder=one)
    leases.release(made.engine, "loop", holder=one)  # not its own any more
    assert not leases.hold(made.engine, "loop", holder=one)
    leases.release(made.engine, "loop", holder=two)
    assert leases.hold(made.engine, "loop")


def test_of_many_only_one_gets_a_free_lease(store: Callable[..., Any]) -> None:
    made = store()
    got: list[bool] = []
    threads = [
        threading.Thread(target=lambda: got.append(leases.hold(made.engine, "loop", holder=ids.new())))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == [False] * 7 + [True]


def blocks(size: int, block: int) -> Iterator[bytes]:
    pattern = bytes(range(256)) * 4096
    left = size
    while left > 0:
        yield pattern[: min(block, left)]
        left -= min(block, left)


@pytest.mark.parametrize(("size", "block"), [(0, 1), (1, 1), (1024 * 1024, 77_777), (2_500_000, 1_000_000)])
def test_a_blob_comes_back_as_it_was(store: Callable[..., Any], size: int, block: int) -> None:
    made = store()
    content = b"".join(blocks(size, block))
    blob = blobs.write(
        made.engine, agency=ids.new(), kind="file", retention_days=5, chunks=blocks(size, block), now=NOW
    )
    assert blob.size == size
    assert blob.sha256 == hashlib.sha256(content).digest()
    assert b"".join(blobs.read(made.engine, blob.id)) == content
    chunks = db.read(made.engine, agency=None, statement=sa.text("SELECT count(*) AS n FROM blob_chunks"))
    assert chunks[0].n == -(-size // blobs.CHUNK)


def test_what_fails_while_it_is_written_leaves_nothing(store: Callable[..., Any]) -> None:
    made = store()

    def broken() -> Iterator[bytes]:
        yield b"x" * 3_000_000
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        blobs.write(made.engine, agency=ids.new(), kind="file", retention_days=5, chunks=broken())
    left = sa.text("SELECT (SELECT count(*) FROM blobs) + (SELECT count(*) FROM blob_chunks) AS n")
    assert db.read(made.engine, agency=None, statement=left)[0].n == 0


def test_blobs_are_erased_and_expire_by_the_agencys_clock(store: Callable[..., Any]) -> None:
    made = store()
    agency, other = ids.new(), ids.new()
    with db.begin(made.engine, agency=agency) as tx:
        short = blobs.create(tx, agency=agency, kind="a", retention_days=1, chunks=[b"one"], now=NOW)
        long = blobs.create(tx, agency=agency, kind="a", retention_days=30, chunks=[b"two"], now=NOW)
    theirs = blobs.write(made.engine, agency=other, kind="a", retention_days=1, chunks=[b"x"], now=NOW)
    later = NOW + datetime.timedelta(days=2)
    with db.begin(made.engine, agency=agency) as tx:
        assert blobs.expire(tx, NOW + datetime.timedelta(hours=23)) == 0
        assert blobs.expire(tx, later) == 1
    with pytest.raises(blobs.BlobErased):
        list(blobs.read(made.engine, short.id))
    assert list(blobs.read(made.engine, long.id)) == [b"two"]
    assert list(blobs.read(made.engine, theirs.id)) == [b"x"]
    with db.begin(made.engine, agency=agency) as tx:
        assert blobs.erase(tx, long.id)
        assert not blobs.erase(tx, long.id)
    kept = sa.text("SELECT size FROM blobs WHERE erased_at IS NOT NULL ORDER BY size")
    assert [row.size for row in db.read(made.engine, agency=None, statement=kept)] == [3, 3]
    with pytest.raises(errors.ResourceNotFound):
        list(blobs.read(made.engine, ids.new()))


def agency_clock(agency: uuid.UUID, version: int, **changes: Any) -> clock.AgencyClock:
    fields: dict[str, Any] = {"time_zone": "America/Sao_Paulo", "business_date": datetime.date(2026, 1, 5)}
    return clock.AgencyClock(agency=agency, version=version, **(fields | changes))


def test_a_clock_is_written_only_forward(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()
    simulated = agency_clock(
        agency, 2, simulated=True, base_machine=NOW, base_agency=NOW - datetime.timedelta(days=300), speed=0
    )
    with db.begin(made.engine, agency=agency) as tx:
        with pytest.raises(clock.AgencyClockUnknown):
            clock.read(tx, agency)
        assert clock.store(tx, simulated)
        assert not clock.store(tx, agency_clock(agency, 2))
        assert not clock.store(tx, agency_clock(agency, 1))
        assert clock.read(tx, agency).now() == NOW - datetime.timedelta(days=300)
        assert clock.open_day(tx, agency, datetime.date(2026, 1, 6))
        assert not clock.open_day(tx, agency, datetime.date(2026, 1, 6))
        assert not clock.open_day(tx, agency, datetime.date(2026, 1, 5))
        assert clock.store(tx, agency_clock(agency, 3))
        assert clock.read(tx, agency).business_date == datetime.date(2026, 1, 6)
        assert not clock.read(tx, agency).simulated
        with pytest.raises(clock.SimulatedClockRefused):
            clock.store(tx, simulated, allow_simulated=False)
    assert clock.agencies(made.engine) == [agency]


def test_housekeeping_goes_over_every_agency(store: Callable[..., Any]) -> None:
    made = store()
    agency = ids.new()
    with db.begin(made.engine, agency=agency) as tx:
        clock.store(tx, agency_clock(agency, 1))
        blobs.create(
            tx,
            agency=agency,
            kind="a",
            retention_days=1,
            chunks=[b"x"],
            now=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        )
    host.housekeep(made.engine)
    erased = sa.text("SELECT count(*) AS n FROM blobs WHERE erased_at IS NOT NULL")
    assert db.read(made.engine, agency=None, statement=erased)[0].n == 1


def test_migrations_run_once_whoever_runs_them(database: Callable[..., Any]) -> None:
    made = database("case", migrated=False)
    failures: list[Exception] = []

    def upgrade() -> None:
        try:
            migrations.upgrade(made.owner_url, ledger.MIGRATIONS)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with psycopg.connect(made.owner_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0003",)]
    with psycopg.connect(made.url) as connection:
        connection.execute("DELETE FROM outbox")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE outbox")
    with psycopg.connect(made.url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM alembic_version")


def test_a_failing_migration_leaves_what_was_before(
    database: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    made = database("case", migrated=False)
    versions = tmp_path / "versions"
    versions.mkdir()
    for number, statement in (
        ("0001", "CREATE TABLE first (id int)"),
        ("0002", "CREATE TABLE second (id int)"),
    ):
        broken = 'op.execute("SELECT 1 / 0")' if number == "0002" else "pass"
        before = f'"{int(number) - 1:04}"' if number != "0001" else "None"
        (versions / f"{number}_x.py").write_text(
            f'from alembic import op\nrevision = "{number}"\ndown_revision = {before}\n'
            f'def upgrade():\n    op.execute("{statement}")\n    {broken}\n'
        )
    with pytest.raises(sa.exc.DBAPIError):
        migrations.upgrade(made.owner_url, tmp_path)
    with psycopg.connect(made.owner_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        assert [row[0] for row in tables] == ["alembic_version", "first"]


def test_a_migration_does_not_wait_long_for_a_lock(
    database: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    made = database("case", migrated=False)
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001_x.py").write_text(
        'from alembic import op\nrevision = "0001"\ndown_revision = None\n'
        'def upgrade():\n    op.execute("ALTER TABLE busy ADD COLUMN note text")\n'
    )
    with psycopg.connect(made.owner_url) as connection:
        connection.execute("CREATE TABLE busy (id int)")
        connection.commit()
        connection.execute("SELECT * FROM busy")  # a transaction that goes on
        started = time.monotonic()
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            migrations.upgrade(made.owner_url, tmp_path)
        assert time.monotonic() - started < 20


def test_a_release_that_is_back_leaves_the_newer_tables_alone(
    database: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    made = database("case", migrated=False)
    folders = {"before": ["0001"], "after": ["0001", "0002"]}
    for name, numbers in folders.items():
        (tmp_path / name / "versions").mkdir(parents=True)
        for number, before in zip(numbers, (None, "0001"), strict=False):
            (tmp_path / name / "versions" / f"{number}_x.py").write_text(
                f'from alembic import op\nrevision = "{number}"\ndown_revision = {before!r}\n'
                f'def upgrade():\n    op.execute("CREATE TABLE of_{number} (id int)")\n'
            )
    for name in ("before", "after", "before"):
        migrations.upgrade(made.owner_url, tmp_path / name)
    with psycopg.connect(made.owner_url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
    with psycopg.connect(made.url) as connection:
        assert connection.execute("SELECT count(*) FROM of_0002").fetchone() == (0,)


def test_only_the_owners_role_migrates() -> None:
    with pytest.raises(ValueError, match="_owner"):
        migrations.upgrade("postgresql://recupera_case@127.0.0.1:1/x", "nowhere")
