"""python -m notify_service COMMAND: those of every service (servicekit.commands); --help has them."""

from collections.abc import Iterator
from uuid import UUID

from notify_service.settings import Settings
from servicekit import auth, client, commands, db
from servicekit import settings as settings_module

SERVICE = "notify"


def api(settings: Settings, engine: db.Engine) -> commands.Api:
    """What answers calls."""
    from notify_service import rpc, store
    from notify_service.providers import remote

    signer = auth.Signer(SERVICE, settings.service_key_file)
    contacts = remote.CaseClient(client.Channel(settings.case_address, signer))
    servicer = rpc.NotifyServicer(engine, contacts=contacts)
    return commands.Api(
        add_servicers=lambda server: rpc.add_to(server, servicer),
        services=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def work(settings: Settings, engine: db.Engine) -> commands.Work:
    """What applies facts and sends what is due."""
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
    dispatcher = dispatch.Dispatcher(
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
    )
    wiring = worker.Wiring(dispatcher=dispatcher, allow_simulated_clock=settings.allow_simulated_clock)
    return commands.Work(worker=worker.NotifyWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> Iterator[int]:
    """Messages and suppressions."""
    from notify_service import store
    from notify_service.usecases import reports

    for publish in (reports.republish_messages, reports.republish_suppressions):
        after: UUID | None = store.NO_ID
        while after is not None:
            with db.begin(engine, agency=agency) as tx:
                after = publish(tx, agency, after=after)
            yield tx.published


PROGRAM = commands.Program(
    service=SERVICE,
    description="Messages to debtors.",
    main_file=__file__,
    settings=Settings,
    api=api,
    work=work,
    republish=republish,
)

if __name__ == "__main__":
    commands.main(PROGRAM)
