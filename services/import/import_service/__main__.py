"""python -m import_service COMMAND: those of every service (servicekit.commands); --help has them."""

import os
from collections.abc import Iterator
from uuid import UUID

from import_service.settings import Settings
from servicekit import auth, client, commands, db

SERVICE = "import"


def api(settings: Settings, engine: db.Engine) -> commands.Api:
    """What answers calls."""
    from import_service import rpc

    servicer = rpc.ImportServicer(engine=engine, settings=settings)
    return commands.Api(
        add_servicers=lambda server: rpc.add_to(server, servicer),
        services=rpc.SERVICES,
        ready=servicer.ready,
    )


def work(settings: Settings, engine: db.Engine) -> commands.Work:
    """What reads files, takes facts, takes batches back."""
    # two threads read a file as fast as many do, and each costs memory; polars reads this when it is loaded
    os.environ.setdefault("POLARS_MAX_THREADS", "2")
    from import_service import worker
    from import_service.providers import remote

    signer = auth.Signer(SERVICE, settings.service_key_file)
    wiring = worker.Wiring(
        remote=remote.Services(
            case=client.Channel(settings.case_address, signer),
            agreement=client.Channel(settings.agreement_address, signer),
        ),
        allow_simulated_clock=settings.allow_simulated_clock,
        max_error_percent=settings.max_error_percent,
        slice_retention_days=settings.slice_retention_days,
    )
    return commands.Work(worker=worker.ImportWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> Iterator[int]:
    """States of batches, and slices that are not applied yet."""
    from import_service import usecases
    from servicekit import clock

    with db.begin(engine, agency=agency) as tx:
        usecases.republish(tx, agency, clock=clock.read(tx, agency))
    yield tx.published


PROGRAM = commands.Program(
    service=SERVICE,
    description="Files in and out: portfolios, payments, batches, rejected rows.",
    main_file=__file__,
    settings=Settings,
    api=api,
    work=work,
    republish=republish,
    versioned=["batches.version"],
)

if __name__ == "__main__":
    commands.main(PROGRAM)
