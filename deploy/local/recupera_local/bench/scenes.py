"""What every section of the bench has: a folder of its own, progress on the terminal, a platform that goes away."""

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from recupera_local import paths, ports, postgres
from recupera_local import platform as local
from servicekit import migrations, topics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """How this run of the bench is done. `quick`: small sizes, to see that it works; `full`: a million titles too."""

    quick: bool = False
    full: bool = False

    def say(self, text: str) -> None:
        """Progress."""
        print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A folder for the state of a section, removed afterwards."""
        root = paths.local() / "bench"
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
        folder.chmod(0o755)  # PostgreSQL runs as nobody under root
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def platform(self, name: str, services: Sequence[str] = ports.SERVICES) -> Iterator[local.Platform]:
        """A running platform with an empty state, durable as `make run` has it."""
        with self.folder(name) as folder:
            platform = local.Platform(state_dir=folder, ports=ports.free(), services=services, durable=True)
            self.say(f"starting a platform ({', '.join(services)})")
            platform.start()
            try:
                yield platform
            finally:
                platform.stop()


def server(platform: local.Platform) -> postgres.Postgres:
    """The platform's PostgreSQL, for databases of the bench's own."""
    return postgres.Postgres(
        folder=platform.state_dir / "postgres",
        port=platform.ports["postgres"],
        log=platform.state_dir / "log" / "postgres.log",
    )


def inherited() -> Mapping[str, str]:
    """The bench's own variables without settings of other processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RECUPERA_")}


@contextmanager
def topics_of(catalog: topics.Catalog) -> Iterator[None]:
    """Publish by another topics file than the platform's, in this process."""
    original = topics.catalog
    topics.catalog = lambda: catalog
    try:
        yield
    finally:
        topics.catalog = original


class _Operations:
    """As much of alembic's `op` as servicekit's DDL needs."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def execute(self, statement: sa.TextClause | str) -> None:
        self._connection.execute(sa.text(statement) if isinstance(statement, str) else statement)


def migrate(owner_url: str, statements: Sequence[str], *, tables: Sequence[str]) -> None:
    """Make servicekit's tables and these, with policies on `tables` and grants for the service's role."""
    engine = sa.create_engine(sa.make_url(owner_url).set(drivername="postgresql+psycopg"))
    role = migrations.service_role(owner_url)
    with engine.begin() as connection:
        operations = _Operations(connection)
        migrations.create_system_tables(operations)
        for statement in (*statements, *(migrations.policy_sql(table) for table in tables)):
            operations.execute(statement)
        operations.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        operations.execute(f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}")
    engine.dispose()
