"""python -m notify_service serve | worker | migrate | replay [--case ID] | republish [--agency ID]"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from notify_service.settings import Settings
from servicekit import auth, client, clock, db, telemetry
from servicekit import settings as settings_module

if TYPE_CHECKING:
    from notify_service import worker

SERVICE = "notify"


def main() -> None:
    """Run one command of notify."""
    parser = argparse.ArgumentParser(prog="notify_service", description="Messages to debtors.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer gRPC calls")
    commands.add_parser("worker", help="apply facts and send what is due")
    commands.add_parser("migrate", help="bring the database to the newest version")
    replay = commands.add_parser("replay", help="apply parked facts in order")
    replay.add_argument("--case", type=UUID, help="of one case only")
    republish = commands.add_parser("republish", help="send the present state of messages again")
    republish.add_argument("--agency", type=UUID, help="of one agency only")
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
    from notify_service import rpc, store
    from notify_service.providers import remote
    from servicekit import rpc as server

    engine = db.create_engine(settings.database_url, application_name="notify serve")
    signer = auth.Signer(SERVICE, settings.service_key_file)
    contacts = remote.CaseClient(client.Channel(settings.case_address, signer))
    servicer = rpc.NotifyServicer(engine, contacts=contacts)
    server.serve(
        settings=settings,
        service=SERVICE,
        add_servicers=lambda to: rpc.add_to(to, servicer),
        descriptors=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def _worker(settings: Settings) -> None:
    from notify_service import worker
    from servicekit import host

    telemetry.setup(SERVICE, "worker", settings)
    engine = db.create_engine(settings.database_url, application_name="notify worker")
    host.run(worker.NotifyWorker, wiring=_wiring(settings, engine), settings=settings, engine=engine)
    telemetry.shutdown()


def _replay(settings: Settings, case_id: UUID | None) -> None:
    from notify_service import worker
    from servicekit import parked

    telemetry.setup_logging(SERVICE, "replay", settings.log_level)
    engine = db.create_engine(settings.database_url, application_name="notify replay")
    done = parked.replay(engine, worker.NotifyWorker, _wiring(settings, engine), case_id)
    sys.exit(1 if done.refused else 0)


def _republish(settings: Settings, agency: UUID | None) -> None:
    from notify_service import store
    from notify_service.usecases import reports

    telemetry.setup_logging(SERVICE, "republish", settings.log_level)
    engine = db.create_engine(settings.database_url, application_name="notify republish")
    for one in [agency] if agency else clock.agencies(engine):
        for publish in (reports.republish_messages, reports.republish_suppressions):
            after: UUID | None = store.NO_ID
            while after is not None:
                with db.begin(engine, agency=one) as tx:
                    after = publish(tx, one, after=after)


def _wiring(settings: Settings, engine: db.Engine) -> "worker.Wiring":
    from notify_service import worker
    from notify_service.domain import messages
    from notify_service.providers import mail, remote
    from notify_service.worker import dispatch

    signer = auth.Signer(SERVICE, settings.service_key_file)
    host, _, port = settings.smtp_address.rpartition(":")
    if not host or not port.isdecimal():
        raise settings_module.SettingInvalid(
            "RECUPERA_SMTP_ADDRESS: expected host:port", "RECUPERA_SMTP_ADDRESS"
        )
    mailer = mail.Mailer(
        host=host,
        port=int(port),
        sender=settings.smtp_sender,
        sender_name=settings.smtp_sender_name,
        public_url=settings.public_url,
        starttls=settings.smtp_starttls,
        username=settings.smtp_username,
        password=settings.smtp_password,
    )
    return worker.Wiring(
        dispatcher=dispatch.Dispatcher(
            engine=engine,
            contacts=remote.CaseClient(client.Channel(settings.case_address, signer)),
            balances=remote.AgreementClient(client.Channel(settings.agreement_address, signer)),
            providers={messages.Channel.EMAIL: mailer},
            limits=dispatch.Limits(
                slice_size=settings.notify_slice,
                acts_in_flight=settings.notify_acts_in_flight,
                attempts_max=settings.notify_attempts,
                validity_days=settings.notify_validity_days,
                evidence_days=settings.notify_evidence_days,
            ),
        ),
        allow_simulated_clock=settings.allow_simulated_clock,
    )


if __name__ == "__main__":
    main()
