"""docs/backup.md: its command and its statements run on real databases, on the tables they are meant for, past
row-level security and triggers."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from recupera_local import paths, ports
from support import databases

PAGE = (paths.REPO / "docs" / "backup.md").read_text()
COPIES = {
    "case": {"titles", "contacts", "reservations", "case_agreements", "case_payments"},
    "agreement": {"agency_clock"},
    "dialer": {"agency_clock", "case_anchors"},
    "notify": {"agency_clock"},
    "import": {"agency_clock"},
}
"""Tables whose version is another service's: raised, its facts would be ignored."""
NOT_STATED = {
    "case": {"ladders"},
    "agreement": {
        "agreement_categories",
        "collection_accounts",
        "creditor_settings",
        "drafts",
        "euro_accounts",
        "mandates",
        "minute_templates",
        "payment_conditions",
        "series",
    },
    "notify": {"messages", "messages.template_version", "templates"},
}
"""Tables, or columns, whose version no fact states."""
BEFORE, BY = 7, 1000
VALUES = {
    "uuid": "gen_random_uuid()",
    "text": "'x'",
    "date": "current_date",
    "timestamp with time zone": "now()",
    "interval": "'1 day'",
    "boolean": "true",
    "jsonb": "'{}'",
    "bytea": "''",
    "ARRAY": "'{}'",
}
"""Something for a column of each type; 1 for numbers."""


def raised(service: str) -> set[str]:
    """Columns (`table.column`) that a service's command raises."""
    return set(importlib.import_module(f"{service}_service.__main__").PROGRAM.versioned)


def counting(connection: psycopg.Connection[Any]) -> set[str]:
    """Columns of the database that hold a version."""
    rows = connection.execute(
        "SELECT table_name || '.' || column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name ~ '(^|_)version$'"
    )
    return {str(name) for (name,) in rows}


def fill(connection: psycopg.Connection[Any]) -> None:
    """A row of each of two agencies in every table that counts. As the superuser, past keys, checks and triggers: the
    values mean nothing."""
    for name in {column.split(".")[0] for column in counting(connection)}:
        table = sql.Identifier(name)
        checks = connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'", [name]
        )
        for (check,) in checks.fetchall():
            connection.execute(
                sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(check))
            )
        needed = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
            " AND table_name = %s AND is_generated = 'NEVER' AND identity_generation IS NULL"
            " AND (is_nullable = 'NO' AND column_default IS NULL OR column_name ~ '(^|_)version$')",
            [name],
        ).fetchall()
        values = [
            str(BEFORE) if column.endswith("version") else VALUES.get(kind, "1") for column, kind in needed
        ]
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            table,
            sql.SQL(", ").join(sql.Identifier(column) for column, _ in needed),
            sql.SQL(", ").join(sql.SQL(value) for value in values),  # type: ignore[arg-type]  # a constant of VALUES, which the types do not see
        )
        connection.execute("SET LOCAL session_replication_role = replica")
        for _ in range(2):
            connection.execute(insert)
        connection.execute("SET LOCAL session_replication_role = origin")


def found(connection: psycopg.Connection[Any]) -> Mapping[str, list[int]]:
    """The versions in each column."""
    return {
        column: [
            version
            for (version,) in connection.execute(
                sql.SQL("SELECT {} FROM {}").format(*map(sql.Identifier, reversed(column.split("."))))
            )
        ]
        for column in counting(connection)
    }


def raise_versions(
    service: str, made: databases.Database, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The command, with nothing but the owner's address."""
    return subprocess.run(
        [sys.executable, "-m", f"{service}_service", "raise-versions", *arguments],
        env={
            "PATH": os.environ["PATH"],
            f"RECUPERA_OWNER_DATABASE_URL_{service.upper()}": made.owner_url,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("service", ["case", "agreement", "dialer", "import"])
def test_versions_are_raised_for_every_agency_past_policies_and_triggers(
    service: str, database: Callable[..., databases.Database]
) -> None:
    made = database(service)
    with psycopg.connect(made.administrator_url) as connection:
        fill(connection)
    said = raise_versions(service, made, "--by", str(BY))
    assert said.returncode == 0, said.stderr
    for column in raised(service):
        assert f"{column}: 2 rows, each {BY} higher\n" in said.stdout
    with psycopg.connect(made.administrator_url) as connection:
        for column, versions in found(connection).items():
            assert versions == [BEFORE + BY if column in raised(service) else BEFORE] * 2, column
        sleeping = connection.execute("SELECT tgname FROM pg_trigger WHERE tgenabled <> 'O'").fetchall()
    assert not sleeping


def test_who_states_no_versions_says_so(database: Callable[..., databases.Database]) -> None:
    said = raise_versions("notify", database("notify"))
    assert (said.returncode, said.stdout) == (
        0,
        "notify states no versions of its own rows: there is nothing to raise\n",
    )


def test_nothing_is_raised_while_a_worker_runs(
    database: Callable[..., databases.Database],
) -> None:
    made = database("agreement")
    with psycopg.connect(made.administrator_url) as connection:
        fill(connection)
        connection.execute("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'agreement_worker')")
    said = raise_versions("agreement", made)
    assert said.returncode == 1
    assert "1 workers of agreement run" in said.stderr
    for wrong in ("0", "-5", "all"):
        assert raise_versions("agreement", made, "--by", wrong).returncode == 2
    with psycopg.connect(made.administrator_url) as connection:
        assert {version for versions in found(connection).values() for version in versions} == {BEFORE}


@pytest.mark.parametrize("service", ports.SERVICES)
def test_every_version_is_raised_or_there_is_a_reason_not_to(
    service: str, database: Callable[..., databases.Database]
) -> None:
    with psycopg.connect(database(service).owner_url) as connection:
        counted = counting(connection)
    left = COPIES.get(service, set()) | NOT_STATED.get(service, set())
    assert counted == raised(service) | {name if "." in name else f"{name}.version" for name in left}


def test_the_statements_run_as_the_owner_and_reach_every_agency(
    database: Callable[..., databases.Database],
) -> None:
    """Those for messages, which have to be set to UNKNOWN by hand."""
    [block] = re.findall(r"^-- notify\b.*\n((?:UPDATE .*;\n)+)", PAGE, re.MULTILINE)
    with psycopg.connect(database("notify").owner_url) as connection:
        for line in block.splitlines():
            connection.execute(line.encode())
        row = connection.execute(
            "SELECT relforcerowsecurity, pg_has_role(relowner, 'USAGE') FROM pg_class"
            " WHERE oid = 'messages'::regclass"
        ).fetchone()
    assert row == (False, True)
