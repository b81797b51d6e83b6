"""python -m case_service serve | worker | migrate | replay [--case ID] | republish --agency ID"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from case_service.settings import Settings
from servicekit import auth, client, db, telemetry
from servicekit import settings as settings_module

if TYPE_CHECKING:
    from case_service import worker

SERVICE = "case"
CASES_AT_A_TIME = 2_000
"""Cases of one transaction of ``republish``."""


def main() -> None:
    """Run one command of the case service."""
    parser = argparse.ArgumentParser(
        prog="case_service", description="Cases, and the agency's clock and day."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer gRPC calls")
    commands.add_parser("worker", help="apply facts and run timers")
    commands.add_parser("migrate", help="bring the database to the newest version")
    replay = commands.add_parser("replay", help="apply parked facts in order")
    replay.add_argument("--case", type=UUID, help="of one case only")
    republish = commands.add_parser("republish", help="send clock, titles placed and states of cases again")
    republish.add_argument("--agency", type=UUID, required=True)
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "migrate":
                _migrate()
            case "serve":
                _serve(settings_module.load(Settings))
            case "worker":
                _worker(settings_module.load(Settings))
            case "replay":
                _replay(settings_module.load(Settings), arguments.case)
            case "republish":
                _republish(settings_module.load(Settings), arguments.agency)
    except settings_module.SettingsError as error:
        sys.exit(str(error))


def _migrate() -> None:
    from servicekit import migrations

    settings = settings_module.load(settings_module.MigrationSettings, service=SERVICE)
    telemetry.setup_logging(SERVICE, "migrate", settings.log_level)
    here = Path(__file__).resolve().parent
    inside = (
        here / "migrations"
    )  # where the distribution has them; in the repository they are beside the package
    migrations.upgrade(settings.owner_database_url, inside if inside.is_dir() else here.parent / "migrations")


def _serve(settings: Settings) -> None:
    from case_service import rpc, store
    from case_service.providers import calendars
    from servicekit import rpc as server

    engine = db.create_engine(settings.database_url, application_name="case serve")
    servicer = rpc.CaseServicer(
        engine, holidays=calendars.is_holiday, allow_simulated_clock=settings.allow_simulated_clock
    )
    server.serve(
        settings=settings,
        service=SERVICE,
        add_servicers=lambda to: rpc.add_to(to, servicer),
        descriptors=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def _worker(settings: Settings) -> None:
    from case_service import worker
    from servicekit import host

    telemetry.setup(SERVICE, "worker", settings)
    engine = db.create_engine(settings.database_url, application_name="case worker")
    host.run(worker.CaseWorker, wiring=_wiring(settings), settings=settings, engine=engine)
    telemetry.shutdown()


def _replay(settings: Settings, case_id: UUID | None) -> None:
    from case_service import worker
    from servicekit import parked

    telemetry.setup_logging(SERVICE, "replay", settings.log_level)
    engine = db.create_engine(settings.database_url, application_name="case replay")
    done = parked.replay(engine, worker.CaseWorker, _wiring(settings), case_id)
    sys.exit(1 if done.refused else 0)


def _republish(settings: Settings, agency: UUID) -> None:
    from case_service.usecases import republish

    telemetry.setup_logging(SERVICE, "republish", settings.log_level)
    engine = db.create_engine(settings.database_url, application_name="case republish")
    with db.begin(engine, agency=agency) as tx:
        republish.agency_state(tx, agency)
    after: UUID | None = None
    while True:
        with db.begin(engine, agency=agency) as tx:
            after = republish.next_cases(tx, agency, after=after, limit=CASES_AT_A_TIME)
        if after is None:
            return


def _wiring(settings: Settings) -> "worker.Wiring":
    from case_service import worker
    from case_service.providers import slices

    channel = client.Channel(settings.import_address, auth.Signer(SERVICE, settings.service_key_file))
    return worker.Wiring(slices=slices.RemoteSlices(channel), late_slice_minutes=settings.late_slice_minutes)


if __name__ == "__main__":
    main()
