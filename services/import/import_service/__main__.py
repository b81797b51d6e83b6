"""import: serve | worker | migrate | replay | republish. The only place that wires things together."""

from __future__ import annotations

import argparse
import functools
import os
import pathlib
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from import_service.settings import Settings
from servicekit import settings

if TYPE_CHECKING:
    from import_service import worker

SERVICE = "recupera.imports.v1.ImportService"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 2 where settings are missing or wrong."""
    parser = argparse.ArgumentParser(prog="python -m import_service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="the gRPC API")
    commands.add_parser("worker", help="reads files, takes facts, takes batches back")
    commands.add_parser("migrate", help="bring the database to this version")
    replay = commands.add_parser("replay", help="apply parked facts, in order")
    replay.add_argument("--case", type=uuid.UUID, help="only the facts of this case or batch")
    republish = commands.add_parser("republish", help="publish the present state again")
    republish.add_argument("--agency", type=uuid.UUID, help="only this agency; else every agency")
    chosen = parser.parse_args(arguments)
    try:
        match chosen.command:
            case "serve":
                _serve()
            case "worker":
                _worker()
            case "migrate":
                _migrate()
            case "replay":
                _replay(chosen.case)
            case "republish":
                _republish(chosen.agency)
    except settings.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _serve() -> None:
    from import_service import rpc
    from recupera.imports.v1 import imports_service_pb2_grpc
    from servicekit import db
    from servicekit import rpc as server

    found = settings.load(Settings)
    engine = db.create_engine(found.database_url, application_name="import-serve")
    servicer = rpc.ImportServicer(engine=engine, settings=found)
    server.serve(
        settings=found,
        service="import",
        add_servicers=functools.partial(
            imports_service_pb2_grpc.add_ImportServiceServicer_to_server, servicer
        ),
        descriptors=[SERVICE],
        ready=servicer.ready,
    )
    engine.dispose()


def _worker() -> None:
    # two threads read a file as fast as many do, and each costs memory
    os.environ.setdefault("POLARS_MAX_THREADS", "2")
    from import_service import worker
    from servicekit import db, host, telemetry

    found = settings.load(Settings)
    telemetry.setup("import", "worker", found)
    engine = db.create_engine(found.database_url, application_name="import-worker")
    host.run(worker.ImportWorker, wiring=_wiring(found), settings=found, engine=engine)
    telemetry.shutdown()


def _wiring(found: Settings) -> worker.Wiring:
    from import_service import worker
    from import_service.providers import remote
    from servicekit import auth, client

    signer = auth.Signer("import", found.service_key_file)
    return worker.Wiring(
        remote=remote.Services(
            case=client.Channel(found.case_address, signer),
            agreement=client.Channel(found.agreement_address, signer),
        ),
        allow_simulated_clock=found.allow_simulated_clock,
        max_error_percent=found.max_error_percent,
        slice_retention_days=found.slice_retention_days,
    )


def _migrate() -> None:
    from servicekit import migrations, telemetry

    found = settings.load(settings.MigrationSettings, service="import")
    telemetry.setup_logging("import", "migrate", found.log_level)
    migrations.upgrade(found.owner_database_url, pathlib.Path(__file__).parents[1] / "migrations")


def _replay(case_id: uuid.UUID | None) -> None:
    from import_service import worker
    from servicekit import db, parked, telemetry

    found = settings.load(Settings)
    telemetry.setup("import", "replay", found)
    engine = db.create_engine(found.database_url, application_name="import-replay")
    parked.replay(engine, worker.ImportWorker, _wiring(found), case_id)
    engine.dispose()
    telemetry.shutdown()


def _republish(agency: uuid.UUID | None) -> None:
    from import_service import usecases
    from servicekit import clock, db, telemetry

    found = settings.load(Settings)
    telemetry.setup("import", "republish", found)
    engine = db.create_engine(found.database_url, application_name="import-republish")
    for one in [agency] if agency else clock.agencies(engine):
        with db.begin(engine, agency=one) as tx:
            usecases.republish(tx, one, clock=clock.read(tx, one))
    engine.dispose()
    telemetry.shutdown()


if __name__ == "__main__":
    sys.exit(main())
