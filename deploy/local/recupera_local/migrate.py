"""A step of the platform's start: the migrations of every service, and the topics; all in one process.

Run by the runner as `python -m recupera_local.migrate` with RECUPERA_KAFKA and, for each database to be migrated,
RECUPERA_OWNER_DATABASE_URL_<SERVICE>. Databases and roles exist before.
"""

import concurrent.futures
import os
import sys
from pathlib import Path

from recupera_local import paths, ports
from servicekit import kafka, migrations


def folder(service: str) -> Path:
    """Where a service keeps its migrations."""
    return paths.REPO / "services" / service / "migrations"


def migrate() -> None:
    """Bring every database that is named up to date."""
    for service in ports.SERVICES:
        url = os.environ.get(f"RECUPERA_OWNER_DATABASE_URL_{service.upper()}")
        if url:
            migrations.upgrade(url, folder(service))


def main() -> int:
    """Migrate the databases, and beside that create the topics that are missing."""
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        topics = beside.submit(kafka.create_missing, os.environ["RECUPERA_KAFKA"])
        migrate()
        topics.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
