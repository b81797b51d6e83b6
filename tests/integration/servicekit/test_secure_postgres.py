"""PostgreSQL with certificates: a real server with ssl=on, and what becomes of a wrong one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from recupera_local import ports, postgres, postgres_tls
from servicekit import db, relay
from support import certificates, databases

SERVICE = "agreement"
ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class Server:
    """A PostgreSQL that takes nobody in the clear, with a certificate for `localhost`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = certificates.Authority(folder / "pki")
        self._files = folder / "server"
        self.server = postgres.Postgres(
            folder=folder / "postgres",
            port=ports.free_ports(1)[0],
            log=folder / "postgres.log",
            durable=False,
            programs=postgres_tls.programs(),
        )

    def start(self) -> None:
        self.server.start()
        self._files.mkdir()
        with self.server.administrator() as connection:
            self.server.create_roles(connection, SERVICE)
            postgres.create_database(connection, "recupera", owner=f"recupera_{SERVICE}_owner")
            connection.execute(f"ALTER SYSTEM SET ssl_cert_file = '{self._files}/server.crt'")
            connection.execute(f"ALTER SYSTEM SET ssl_key_file = '{self._files}/server.key'")
            connection.execute("ALTER SYSTEM SET ssl = on")
        self.show(self.authority, "localhost")
        rules = self.server.folder / "data" / "pg_hba.conf"
        rules.write_text(
            "hostssl recupera all 127.0.0.1/32 scram-sha-256\nhost postgres postgres 127.0.0.1/32 scram-sha-256\n"
        )
        self._reload()

    def show(self, authority: certificates.Authority, host: str) -> None:
        """Take a certificate of this CA for this name from now on."""
        signed = authority.sign("server", host)
        shutil.copy(signed.certificate, self._files / "server.crt")
        shutil.copy(signed.key, self._files / "server.key")
        for file in self._files.iterdir():
            if os.geteuid() == 0:
                shutil.chown(file, "nobody", "nogroup")
            file.chmod(0o600)
        self._reload()

    def _reload(self) -> None:
        with self.server.administrator() as connection:
            connection.execute("SELECT pg_reload_conf()")

    def url(self, *, owner: bool = False, host: str = "localhost", **parameters: str) -> str:
        """The address for the service's role or the owner's, with libpq's parameters."""
        plain = self.server.url("recupera", f"recupera_{SERVICE}" + ("_owner" if owner else ""))
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return plain.replace("127.0.0.1", host) + query

    def verified(self, *, owner: bool = False, host: str = "localhost", ca: Path | None = None) -> str:
        """The address that asks for a certificate of the CA and for its name."""
        root = str(ca or self.authority.file)
        return self.url(owner=owner, host=host, sslmode="verify-full", sslrootcert=root)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server."""
    folder = tmp_path_factory.mktemp("secure")
    for part in (folder, *folder.parents[:2]):
        part.chmod(0o755)  # the server, which is nobody, passes through
    running = Server(folder)
    try:
        running.start()
        yield running
    finally:
        running.server.process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def migrate(url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The migrations as the chart's job runs them."""
    environment = {**os.environ, f"RECUPERA_OWNER_DATABASE_URL_{SERVICE.upper()}": url, **variables}
    return subprocess.run(
        [sys.executable, "-m", f"{SERVICE}_service", "migrate"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def encrypted(engine: sa.Engine) -> bool:
    """Whether the engine's connections are."""
    [row] = db.read(engine, agency=None, statement=sa.text(ENCRYPTED))
    return bool(row.ssl)


def test_the_address_asks_for_a_verified_server(secure: Server) -> None:
    answer = migrate(secure.verified(owner=True))
    assert answer.returncode == 0, answer.stderr
    assert databases.rows(secure.verified(), "SELECT count(*) FROM outbox") == [(0,)]
    engine = db.create_engine(secure.verified(), application_name="test")
    assert encrypted(engine)
    with relay._connect(engine) as own:
        assert own.execute(ENCRYPTED).fetchall() == [(True,)]
    engine.dispose()


def test_the_environment_asks_for_it_where_the_address_does_not(
    secure: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the chart says it: addresses that operators write know nothing of certificates."""
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(secure.authority.file))
    assert migrate(secure.url(owner=True)).returncode == 0
    engine = db.create_engine(secure.url(), application_name="test")
    assert encrypted(engine)
    engine.dispose()
    other = db.create_engine(secure.url(host="127.0.0.1"), application_name="test")
    with pytest.raises(sa.exc.OperationalError, match="does not match host name"):
        encrypted(other)


def test_a_wrong_server_is_refused_and_told(secure: Server, tmp_path: Path) -> None:
    stranger = certificates.Authority(tmp_path, "stranger")
    wrong = {
        "certificate verify failed": secure.verified(owner=True, ca=stranger.file),
        'does not match host name "127.0.0.1"': secure.verified(owner=True, host="127.0.0.1"),
        "does not exist": secure.verified(owner=True, ca=tmp_path / "nowhere.crt"),
    }
    password = str(sa.make_url(secure.url()).password)
    for said, url in wrong.items():
        with pytest.raises(psycopg.OperationalError, match=said):
            psycopg.connect(url)
        answer = migrate(url)
        assert answer.returncode == 1
        [line] = [json.loads(line) for line in answer.stderr.splitlines() if '"CRITICAL"' in line]
        assert said in line["error"]["text"]
        assert password not in answer.stderr


def test_nobody_is_taken_in_the_clear(secure: Server) -> None:
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(secure.url(sslmode="disable"))


def test_a_renewed_ca_is_used_by_new_connections(secure: Server, tmp_path: Path) -> None:
    trusted = tmp_path / "ca.crt"
    trusted.write_text(secure.authority.file.read_text())
    engine = db.create_engine(secure.verified(ca=trusted), application_name="test")
    assert encrypted(engine)
    renewed = certificates.Authority(tmp_path, "renewed")
    secure.show(renewed, "localhost")
    try:
        assert encrypted(engine)  # over the connection that is there
        engine.dispose()
        with pytest.raises(sa.exc.OperationalError, match="certificate verify failed"):
            encrypted(engine)
        trusted.write_text(renewed.file.read_text())
        assert encrypted(engine)
    finally:
        engine.dispose()
        secure.show(secure.authority, "localhost")
