"""python -m agreement_service serve | worker | migrate | replay [--case ID] | republish [--agency ID]"""

from uuid import UUID

from agreement_service import providers
from agreement_service.settings import Settings
from servicekit import auth, client, commands, db

SERVICE = "agreement"


def api(settings: Settings, engine: db.Engine) -> commands.Api:
    """What answers calls."""
    from agreement_service import rpc, store

    bank = providers.PROVIDERS[settings.bank_provider]()
    return commands.Api(
        add_servicers=lambda server: rpc.add_to(server, engine, bank),
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
        bank=providers.PROVIDERS[settings.bank_provider](),
        allow_simulated_clock=settings.allow_simulated_clock,
    )
    return commands.Work(worker=worker.AgreementWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> None:
    """Titles, agreements and payments, in pages."""
    from agreement_service.usecases import moments, republish

    progress: republish.Progress | None = republish.Progress()
    while progress is not None:
        with db.begin(engine, agency=agency) as tx:
            progress = republish.step(
                tx=tx, agency=agency, progress=progress, moment=moments.read(tx, agency)
            )


if __name__ == "__main__":
    commands.main(
        commands.Program(
            service=SERVICE,
            description="Money: balances, agreements, instruments, payments.",
            main_file=__file__,
            settings=Settings,
            api=api,
            work=work,
            republish=republish,
        )
    )
