"""Migrations: alembic without an ini file or an env.py in each service (architecture §5, platform.md).

A service's folder ``migrations`` holds ``versions/*.py`` only. Each migration runs in its own transaction
with a ``lock_timeout``; an advisory lock keeps two migrations of one database apart; grants for the service's
role follow.
"""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory

from servicekit import clock
from servicekit.db import policy_sql

__all__ = [
    "PAUSED",
    "SYSTEM_TABLES",
    "create_paused",
    "create_system_tables",
    "policy_sql",
    "revisions",
    "service_role",
    "upgrade",
]

_ADVISORY_LOCK = 0x5EC0_9E4A

logger = logging.getLogger("recupera.migrations")
SYSTEM_TABLES = (
    """
    CREATE TABLE outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL,
        partition integer NOT NULL,
        key bytea NOT NULL,
        value bytea NOT NULL,
        fact_id uuid NOT NULL,
        fact_type text NOT NULL,
        occurred_at timestamptz,
        traceparent text NOT NULL,
        headers text[],
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE inbox (
        fact_id uuid PRIMARY KEY,
        topic text NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX inbox_received_at ON inbox USING brin (received_at)",
    """
    CREATE TABLE consumer_offsets (
        topic text NOT NULL,
        partition integer NOT NULL,
        next_offset bigint NOT NULL CHECK (next_offset >= 0),
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, partition)
    )
    """,
    """
    CREATE TABLE parked (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL,
        partition integer NOT NULL,
        agency uuid NOT NULL,
        case_id uuid NOT NULL,
        fact_id uuid NOT NULL,
        fact_type text NOT NULL,
        record_offset bigint NOT NULL,
        value bytea NOT NULL,
        traceparent text NOT NULL,
        reason text NOT NULL,
        error text NOT NULL,
        attempts integer NOT NULL DEFAULT 0,
        parked_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX parked_by_case ON parked (topic, partition, case_id, id)",
    """
    CREATE TABLE leases (
        name text PRIMARY KEY,
        holder uuid NOT NULL,
        expires_at timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE workers (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT now(),
        heartbeat_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE request_log (
        agency uuid NOT NULL,
        subject text NOT NULL,
        method text NOT NULL,
        request_id text NOT NULL,
        request_hash bytea NOT NULL,
        response bytea,
        created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (agency, subject, method, request_id)
    )
    """,
    policy_sql("request_log"),
    "CREATE INDEX request_log_created_at ON request_log USING brin (created_at)",
    """
    CREATE TABLE blobs (
        id uuid PRIMARY KEY,
        agency uuid NOT NULL,
        kind text NOT NULL,
        size bigint NOT NULL CHECK (size >= -1),  -- -1 while it is being written
        sha256 bytea NOT NULL,
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        erased_at timestamptz
    )
    """,
    "CREATE INDEX blobs_expires_at ON blobs (expires_at) WHERE erased_at IS NULL",
    """
    CREATE TABLE blob_chunks (
        blob_id uuid NOT NULL REFERENCES blobs (id) ON DELETE CASCADE,
        number integer NOT NULL CHECK (number >= 0),
        data bytea NOT NULL,
        PRIMARY KEY (blob_id, number)
    )
    """,
    "ALTER TABLE blob_chunks ALTER COLUMN data SET STORAGE EXTERNAL",
    """
    CREATE TABLE agency_clock (
        agency uuid PRIMARY KEY,
        time_zone text NOT NULL,
        simulated boolean NOT NULL,
        base_machine timestamptz,
        base_agency timestamptz,
        speed numeric NOT NULL CHECK (speed >= 0),
        business_date date NOT NULL,
        version bigint NOT NULL,
        CHECK (NOT simulated OR (base_machine IS NOT NULL AND base_agency IS NOT NULL))
    )
    """,
)
"""DDL of the tables that servicekit itself needs in every service's database, as each first migration makes them."""
PAUSED = """
    CREATE TABLE paused (
        name text PRIMARY KEY,
        reason text NOT NULL,
        paused_by text NOT NULL,
        paused_at timestamptz NOT NULL DEFAULT now()
    )
    """
"""DDL of what an operator has paused; a table of its own because databases with the first ones were there before."""


def create_system_tables(op: Any) -> None:
    """Create servicekit's tables; ``op`` is ``alembic.op``. Called by each service's first migration."""
    for statement in SYSTEM_TABLES:
        op.execute(sa.text(statement))


def create_paused(op: Any) -> None:
    """Create the table of paused topics and timers; ``op`` is ``alembic.op``."""
    op.execute(sa.text(PAUSED))


def create_scan(op: Any, name: str, work: str) -> None:
    """Create the function ``name(machine)`` for ``clock.with_work``: agencies for which the condition ``work`` holds.

    ``scan.agency`` and ``scan.now`` (on the agency's clock) stand for the agency that is looked at, each in a scope of
    its own: policies hold inside as everywhere. ``work`` must find its rows by an index, since it is asked several
    times a second, and no plan without one is taken: a table may grow before its statistics do.
    """
    op.execute(
        sa.text(
            f"""
            CREATE FUNCTION {name}(machine timestamptz) RETURNS SETOF uuid LANGUAGE plpgsql
            SET enable_seqscan = off AS $$
            DECLARE
                scan record;
            BEGIN
                FOR scan IN
                    SELECT agency, CASE WHEN simulated
                        THEN base_agency + interval '1 second' * least(
                            extract(epoch FROM greatest(machine - base_machine, interval '0')) * speed,
                            extract(epoch FROM timestamptz '{clock.LAST.isoformat()}' - base_agency)
                        )
                        ELSE machine
                    END AS now FROM agency_clock ORDER BY agency
                LOOP
                    PERFORM set_config('app.agency', CAST(scan.agency AS text), true);
                    IF {work} THEN
                        RETURN NEXT scan.agency;
                    END IF;
                END LOOP;
                PERFORM set_config('app.agency', '', true);
            END $$
            """  # noqa: S608  constants of a migration
        )
    )


def revisions(script_location: str | pathlib.Path) -> list[str]:
    """The migrations that this release has, newest first."""
    config = Config()
    config.set_main_option("script_location", str(script_location))
    return [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]


def service_role(owner_url: str) -> str:
    """The role that the service uses, from the owner's: ``recupera_case_owner`` -> ``recupera_case``."""
    owner = sa.make_url(owner_url).username or ""
    if not owner.endswith("_owner"):
        raise ValueError("the owner's role is named <service role>_owner")
    return owner.removesuffix("_owner")


def upgrade(owner_url: str, script_location: str | pathlib.Path, *, revision: str = "head") -> None:
    """Bring one service's database to ``revision`` as its owner, then grant the service's role what it needs.

    Safe to run from several processes at once, and again: what is there already is left as it is. A database that a
    later release has migrated is left as it is too.
    """
    role = service_role(owner_url)
    config = Config()
    config.set_main_option("script_location", str(script_location))
    scripts = ScriptDirectory.from_config(config)

    def pending(current: Any, _context: MigrationContext) -> list[RevisionStep]:
        known = {script.revision for script in scripts.walk_revisions()}
        if newer := {one for one in (current or ()) if one not in known}:
            # A later release was here, and this one is back: its tables suit us, and nothing is to be done.
            logger.warning("the database is newer than this release", extra={"revisions": sorted(newer)})
            return []
        return list(scripts._upgrade_revs(revision, current))

    engine = sa.create_engine(
        sa.make_url(owner_url).set(drivername="postgresql+psycopg"),
        poolclass=sa.NullPool,
        connect_args={
            "application_name": "migrate",
            "options": "-c lock_timeout=5s -c statement_timeout=15min",
        },
    )
    with engine.connect() as guard, engine.connect() as connection:
        guard.execution_options(isolation_level="AUTOCOMMIT")
        guard.execute(sa.text("SET lock_timeout = 0"))
        guard.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        with EnvironmentContext(config, scripts, fn=pending, destination_rev=revision) as environment:
            environment.configure(connection=connection, transaction_per_migration=True)
            environment.run_migrations()
        connection.commit()
        for statement in _grants(role):
            connection.execute(sa.text(statement))
        connection.commit()
    engine.dispose()


def _grants(role: str) -> list[str]:
    name = sa.create_engine("postgresql+psycopg://").dialect.identifier_preparer.quote(role)
    return [
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        f"REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {name}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}",
        f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {name}",
    ]
