"""python -m agreement_service COMMAND: those of every service (servicekit.commands); --help has them."""

from collections.abc import Iterator
from uuid import UUID

from agreement_service import providers
from agreement_service.settings import PixSettings, Settings
from servicekit import auth, client, commands, db
from servicekit import settings as settings_module

SERVICE = "agreement"


def bank_of(settings: Settings) -> providers.BankProvider:
    """The bank that is chosen. Raises SettingsError where its own settings are missing or wrong."""
    if settings.bank_provider == "offline":
        return providers.OfflineBank()
    from agreement_service.providers import pix_api

    chosen = settings_module.load(PixSettings)
    return pix_api.PixApi(
        pix_api.Access(
            url=chosen.pix_url,
            token_url=chosen.pix_token_url,
            client_id=chosen.pix_client_id,
            client_secret_file=chosen.pix_client_secret_file,
            certificate_file=chosen.pix_certificate_file,
            private_key_file=chosen.pix_private_key_file,
            ca_file=chosen.pix_ca_file,
            key=chosen.pix_key,
            name=chosen.pix_name,
            city=chosen.pix_city,
        )
    )


def api(settings: Settings, engine: db.Engine) -> commands.Api:
    """What answers calls."""
    from agreement_service import rpc, store

    bank = bank_of(settings)
    signer = auth.Signer(SERVICE, settings.service_key_file)
    parties = providers.CaseParties(client.Channel(settings.case_address, signer))
    return commands.Api(
        add_servicers=lambda server: rpc.add_to(server, engine, bank, parties),
        services=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def work(settings: Settings, engine: db.Engine) -> commands.Work:
    """What applies facts, runs the day and acts at the bank."""
    from agreement_service import worker

    signer = auth.Signer(SERVICE, settings.service_key_file)
    wiring = worker.Wiring(
        slices=providers.ImportSlices(client.Channel(settings.import_address, signer)),
        parties=providers.CaseParties(client.Channel(settings.case_address, signer)),
        bank=bank_of(settings),
        allow_simulated_clock=settings.allow_simulated_clock,
    )
    return commands.Work(worker=worker.AgreementWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> Iterator[int]:
    """Titles, agreements and payments, in pages."""
    from agreement_service.usecases import moments, republish

    progress: republish.Progress | None = republish.Progress()
    while progress is not None:
        with db.begin(engine, agency=agency) as tx:
            progress = republish.step(
                tx=tx, agency=agency, progress=progress, moment=moments.read(tx, agency)
            )
        yield tx.published


PROGRAM = commands.Program(
    service=SERVICE,
    description="Money: balances, agreements, instruments, payments.",
    main_file=__file__,
    settings=Settings,
    api=api,
    work=work,
    republish=republish,
    versioned=[
        "titles.version",
        "agreements.version",
        "instalments.version",
        "instruments.version",
        "payments.version",
        "promises.version",
        "approvals.version",
        "statements.version",
        "agreement_titles.title_version",  # of its title when it was proposed: another one voids the proposal
    ],
    more_settings=lambda settings: (
        [settings_module.load(PixSettings)] if settings.bank_provider == "pix-api" else []
    ),
)

if __name__ == "__main__":
    commands.main(PROGRAM)
