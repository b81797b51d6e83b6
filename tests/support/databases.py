"""A fresh database for a test, cloned in 20 ms from a template on which the service's migrations ran once a run."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from recupera_local import paths, ports, postgres, testbed
from servicekit import migrations


@dataclass(frozen=True, kw_only=True)
class Database:
    """A database with both roles of its service, as on the real platform."""

    name: str
    service: str
    url: str = field(repr=False)
    """For the service's role: owns nothing, row-level security holds for it."""
    owner_url: str = field(repr=False)
    """For the role that owns the tables; row-level security does not hold for it."""
    administrator_url: str = field(repr=False)
    """For the superuser."""


@contextmanager
def fresh(bed: testbed.Testbed, service: str, *, migrated: bool = True) -> Iterator[Database]:
    """A database for `service`, gone afterwards. `migrated=False`: an empty one, the service may be any word."""
    server = bed.server
    template = _template(bed, server, service, migrated=migrated)
    name = f"test_{service}_{secrets.token_hex(6)}"
    with server.administrator() as connection:
        postgres.create_database(connection, name, owner=f"recupera_{service}_owner", template=template)
    try:
        yield _described(server, name, service)
    finally:
        with server.administrator() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )


def _template(bed: testbed.Testbed, server: postgres.Postgres, service: str, *, migrated: bool) -> str:
    name = f"template_{service}" if migrated else f"empty_{service}"
    done = bed.folder / f"{name}.done"
    with bed.locked(name):
        if not done.exists():
            with server.administrator() as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )
                with bed.locked("roles"):
                    server.create_roles(connection, service)
                postgres.create_database(connection, name, owner=f"recupera_{service}_owner")
            if migrated:
                assert service in ports.SERVICES, f"{service} has no migrations; ask for migrated=False"
                migrations.upgrade(
                    _described(server, name, service).owner_url,
                    str(paths.REPO / "services" / service / "migrations"),
                )
            done.touch()
    return name


def _described(server: postgres.Postgres, name: str, service: str) -> Database:
    return Database(
        name=name,
        service=service,
        url=server.url(name, f"recupera_{service}"),
        owner_url=server.url(name, f"recupera_{service}_owner"),
        administrator_url=server.url(name),
    )


def rows(url: str, statement: str, *parameters: object) -> list[tuple[object, ...]]:
    """What a statement gives, in a connection and transaction of its own."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement, parameters).fetchall()
