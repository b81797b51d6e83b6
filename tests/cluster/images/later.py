"""Run inside an image while it is built: `later.py next|bad|broken` makes of the release in it what the suite needs."""

import importlib.util
import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

SERVICES = ("case", "agreement", "dialer", "notify", "import")
BUSY = {"case": "cases", "agreement": "titles", "dialer": "calls", "notify": "messages", "import": "batches"}
"""Of each service a table that is read and written while it is migrated."""
MIGRATION = '''"""Made for tests of upgrades."""

from alembic import op

revision = "{revision}"
down_revision = "{head}"


def upgrade() -> None:
    op.execute("ALTER TABLE {table} ADD COLUMN {column} text NOT NULL DEFAULT ''")
    op.execute("CREATE TABLE {column}_notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL)")
    {more}
'''
BROKEN = """

if __name__ == "__main__" and not {"migrate", "--help"} & set(__import__("sys").argv):
    raise SystemExit("this release is broken")
"""


def package(service: str) -> Path:
    """Where a service is installed."""
    found = importlib.util.find_spec(f"{service}_service")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def add_migration(service: str, kind: str) -> None:
    """One more migration on top of the newest."""
    folder = package(service) / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    made = MIGRATION.format(
        revision=f"{kind}_{service}",
        head=ScriptDirectory.from_config(config).get_current_head(),
        table=BUSY[service],
        column=f"{kind}_release",
        more='op.execute("SELECT 1/0")' if kind == "bad" else "",
    )
    (folder / "versions" / f"later_{kind}.py").write_text(made)


def main(kind: str) -> None:
    """Change what is installed."""
    if kind == "bad":
        add_migration("agreement", kind)
        return
    for service in SERVICES:
        if kind == "next":
            add_migration(service, kind)
        else:
            program = package(service) / "__main__.py"
            text = program.read_text()
            place = text.index("\n\nif __name__")
            program.write_text(text[:place] + BROKEN + text[place:])


main(sys.argv[1])
