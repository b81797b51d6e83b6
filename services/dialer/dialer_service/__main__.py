"""python -m dialer_service COMMAND: those of every service (servicekit.commands); --help has them."""

import datetime
from collections.abc import Iterator
from uuid import UUID

from dialer_service import providers
from dialer_service.settings import Settings
from servicekit import auth, client, clock, commands, db

SERVICE = "dialer"
PAGE = 500
"""Calls of one transaction of `republish`."""


def api(settings: Settings, engine: db.Engine) -> commands.Api:
    """What answers calls."""
    from dialer_service import rpc, store

    servicer = rpc.DialerServicer(engine, promise_max_days=settings.promise_max_days)
    return commands.Api(
        add_servicers=lambda server: rpc.add_to(server, servicer),
        services=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def work(settings: Settings, engine: db.Engine) -> commands.Work:
    """What applies facts and runs the loops of campaigns."""
    from dialer_service import worker

    channel = client.Channel(settings.case_address, auth.Signer(SERVICE, settings.service_key_file))
    wiring = worker.Wiring(
        exchange=providers.SimulatedExchange(),
        permission=providers.CasePermission(channel, timeout=settings.permission_timeout),
        handling=datetime.timedelta(seconds=settings.handling_seconds),
        allow_simulated_clock=settings.allow_simulated_clock,
    )
    return commands.Work(worker=worker.DialerWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> Iterator[int]:
    """Calls and campaigns."""
    from dialer_service import usecases

    after: UUID | None = None
    while True:
        with db.begin(engine, agency=agency) as tx:
            agency_clock = clock.read(tx, agency)
            after = usecases.republish(
                tx,
                agency,
                after=after,
                limit=PAGE,
                now=agency_clock.now(),
                business_date=agency_clock.business_date,
            )
        yield tx.published
        if after is None:
            return


PROGRAM = commands.Program(
    service=SERVICE,
    description="Calls: campaigns, agents, dispositions.",
    main_file=__file__,
    settings=Settings,
    api=api,
    work=work,
    republish=republish,
    versioned=[
        "campaigns.version",
        "calls.version",
    ],
)

if __name__ == "__main__":
    commands.main(PROGRAM)
