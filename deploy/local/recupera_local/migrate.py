"""A step of the platform's start: the migrations of every service, and the topics; all in one process.

Run by the runner as `python -m recupera_local.migrate` with RECUPERA_KAFKA and, for each database to be migrated,
RECUPERA_OWNER_DATABASE_URL_<SERVICE>. Databases and roles exist before; Kafka may still be starting.
"""

import concurrent.futures
import os
import sys
import time
from pathlib import Path

from recupera_local import paths, ports, processes
from servicekit import kafka, migrations, settings

KAFKA_TIMEOUT = 120.0


def folder(service: str) -> Path:
    """Where a service keeps its migrations."""
    return paths.REPO / "services" / service / "migrations"


def migrate() -> None:
    """Bring every database that is named up to date."""
    for service in ports.SERVICES:
        url = os.environ.get(f"RECUPERA_OWNER_DATABASE_URL_{service.upper()}")
        if url:
            migrations.upgrade(url, folder(service))


def create_topics(brokers: settings.Brokers) -> None:
    """Create the topics that are missing, once the first of the brokers listens. Raises PlatformFailed."""
    host, _, port = kafka.bootstrap_servers(brokers)[0].rpartition(":")
    end = time.monotonic() + KAFKA_TIMEOUT
    while not processes.listening(int(port), host):
        if time.monotonic() > end:
            raise processes.PlatformFailed(f"Kafka does not answer at {brokers.bootstrap}")
        time.sleep(0.05)
    kafka.create_missing(brokers)


def main() -> int:
    """Migrate the databases, and beside that create the topics."""
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        topics = beside.submit(create_topics, settings.load(settings.Brokers))
        migrate()
        topics.result()
    return 0


if __name__ == "__main__":
    sys.exit(main())
