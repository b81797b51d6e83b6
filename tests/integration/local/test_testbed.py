"""The servers that the tests share, and that they end with their run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from recupera_local import kafka, postgres, processes, testbed
from support import databases, waiting


def test_service_role_owns_nothing_and_cannot_pass_row_level_security(
    database: Callable[..., databases.Database],
) -> None:
    made = database("shape", migrated=False)
    [[role, superuser, bypass]] = databases.rows(
        made.url, "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
    )
    assert (role, superuser, bypass) == ("recupera_shape", False, False)
    with psycopg.connect(made.owner_url) as owner:
        owner.execute("CREATE TABLE thing (agency int); ALTER TABLE thing ENABLE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY scope ON thing USING (agency = 1)")
        owner.execute("INSERT INTO thing VALUES (1), (2)")
        owner.execute("GRANT SELECT ON thing TO recupera_shape")
    assert databases.rows(made.url, "SELECT agency FROM thing") == [(1,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        databases.rows(made.url, "DROP TABLE thing")


def test_every_database_is_fresh(database: Callable[..., databases.Database]) -> None:
    first, second = database("shape", migrated=False), database("shape", migrated=False)
    with psycopg.connect(first.owner_url) as owner:
        owner.execute("CREATE TABLE only_here (id int)")
    assert databases.rows(second.url, "SELECT to_regclass('only_here')") == [(None,)]


def test_other_services_role_may_not_connect(database: Callable[..., databases.Database]) -> None:
    mine, other = database("shape", migrated=False), database("other", migrated=False)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        databases.rows(mine.url.replace(mine.name, other.name), "SELECT 1")


def test_postgres_survives_sigkill(private_postgres: postgres.Postgres) -> None:
    private_postgres.start()
    private_postgres.create_service_databases(["shape"])
    owner = private_postgres.url("recupera_shape", "recupera_shape_owner")
    with psycopg.connect(owner) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
    private_postgres.process.kill()
    private_postgres.start()
    assert databases.rows(owner, "SELECT n FROM kept") == [(1,)]


def test_broker_survives_sigkill(private_broker: kafka.Kafka) -> None:
    from kafka import KafkaConsumer, KafkaProducer
    from kafka.admin import KafkaAdminClient, NewTopic

    private_broker.start()
    admin = KafkaAdminClient(bootstrap_servers=private_broker.bootstrap)
    admin.create_topics([NewTopic("kept", 1, 1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=private_broker.bootstrap, acks="all")
    producer.send("kept", b"value").get(timeout=30)
    producer.close()
    private_broker.process.kill()
    private_broker.start()
    consumer = KafkaConsumer(
        "kept",
        bootstrap_servers=private_broker.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=30_000,
    )
    assert next(consumer).value == b"value"
    consumer.close()


@pytest.mark.parametrize("kind", ["server", "broker"])
@pytest.mark.parametrize("victim", ["run", "keeper"])
def test_nothing_is_left_when_the_run_or_the_keeper_is_killed(kind: str, victim: str, tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    bed = testbed.Testbed(folder=tmp_path, controller=run.pid)
    try:
        assert getattr(bed, kind).ready()
        children = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(tmp_path) in " ".join(process.info["cmdline"] or [])
        ]
        keeper = next(process for process in children if "recupera_local.testbed" in process.info["cmdline"])
        children += keeper.children(recursive=True)
        assert len(children) >= 2
        os.kill(run.pid if victim == "run" else keeper.pid, signal.SIGKILL)
        run.wait() if victim == "run" else None
        waiting.until(lambda: all(processes.gone(child) for child in children))
    finally:
        run.kill()
        run.wait()
