"""python -m agreement_service serve | worker | migrate | replay [--case ID] | republish --agency ID"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from agreement_service import providers
from agreement_service.settings import Settings
from servicekit import auth, client, db, telemetry
from servicekit import settings as settings_module

if TYPE_CHECKING:
    from agreement_service import worker

SERVICE = "agreement"


def main() -> None:
    """Run one command of the agreement service."""
    parser = argparse.ArgumentParser(
        prog="agreement_service", description="Money: balances, agreements, instruments, payments."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer gRPC calls")
    commands.add_parser("worker", help="apply facts, run the day, act at the bank")
    commands.add_parser("migrate", help="bring the database to the newest version")
    replay = commands.add_parser("replay", help="apply parked facts in order")
    replay.add_argument("--case", type=UUID, help="of one case only")
    republish = commands.add_parser(
        "republish", help="send the present state of titles, agreements and payments again"
    )
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
    from agreement_service import rpc, store
    from servicekit import rpc as server

    engine = db.create_engine(settings.database_url, application_name="agreement serve")
    bank = providers.PROVIDERS[settings.bank_provider]()
    server.serve(
        settings=settings,
        service=SERVICE,
        add_servicers=lambda to: rpc.add_to(to, engine, bank),
        descriptors=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def _worker(settings: Settings) -> None:
    from agreement_service import worker
    from servicekit import host

    telemetry.setup(SERVICE, "worker", settings)
    engine = db.create_engine(settings.database_url, application_name="agreement worker")
    host.run(worker.AgreementWorker, wiring=_wiring(settings), settings=settings, engine=engine)
    telemetry.shutdown()


def _replay(settings: Settings, case_id: UUID | None) -> None:
    from agreement_service import worker
    from servicekit import parked

    telemetry.setup_logging(SERVICE, "replay", settings.log_level)
    engine = db.create_engine(settings.database_url, application_name="agreement replay")
    done = parked.replay(engine, worker.AgreementWorker, _wiring(settings), case_id)
    sys.exit(1 if done.refused else 0)


def _republish(settings: Settings, agency: UUID) -> None:
    from agreement_service.usecases import moments, republish

    telemetry.setup_logging(SERVICE, "republish", settings.log_level)
    engine = db.create_engine(settings.database_url, application_name="agreement republish")
    progress: republish.Progress | None = republish.Progress()
    while progress is not None:
        with db.begin(engine, agency=agency) as tx:
            progress = republish.step(
                tx=tx, agency=agency, progress=progress, moment=moments.read(tx, agency)
            )


def _wiring(settings: Settings) -> "worker.Wiring":
    from agreement_service import worker

    channel = client.Channel(settings.import_address, auth.Signer(SERVICE, settings.service_key_file))
    return worker.Wiring(
        slices=providers.ImportSlices(channel),
        bank=providers.PROVIDERS[settings.bank_provider](),
        allow_simulated_clock=settings.allow_simulated_clock,
    )


if __name__ == "__main__":
    main()
