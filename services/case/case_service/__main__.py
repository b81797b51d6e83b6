"""python -m case_service serve | worker | migrate | replay [--case ID] | republish [--agency ID]"""

from uuid import UUID

from case_service.settings import Settings
from servicekit import auth, client, commands, db

SERVICE = "case"
CASES_AT_A_TIME = 2_000
"""Cases of one transaction of ``republish``."""


def api(settings: Settings, engine: db.Engine) -> commands.Api:
    """What answers calls."""
    from case_service import rpc, store
    from case_service.providers import calendars

    servicer = rpc.CaseServicer(
        engine, holidays=calendars.is_holiday, allow_simulated_clock=settings.allow_simulated_clock
    )
    return commands.Api(
        add_servicers=lambda server: rpc.add_to(server, servicer),
        services=rpc.SERVICES,
        ready=lambda: store.ready(engine),
    )


def work(settings: Settings, engine: db.Engine) -> commands.Work:
    """What applies facts and runs timers."""
    from case_service import worker
    from case_service.providers import slices

    channel = client.Channel(settings.import_address, auth.Signer(SERVICE, settings.service_key_file))
    wiring = worker.Wiring(
        slices=slices.RemoteSlices(channel), late_slice_minutes=settings.late_slice_minutes
    )
    return commands.Work(worker=worker.CaseWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> None:
    """Clock, titles as placed and states of cases."""
    from case_service.usecases import republish

    with db.begin(engine, agency=agency) as tx:
        republish.agency_state(tx, agency)
    after: UUID | None = None
    while True:
        with db.begin(engine, agency=agency) as tx:
            after = republish.next_cases(tx, agency, after=after, limit=CASES_AT_A_TIME)
        if after is None:
            return


if __name__ == "__main__":
    commands.main(
        commands.Program(
            service=SERVICE,
            description="Cases, and the agency's clock and day.",
            main_file=__file__,
            settings=Settings,
            api=api,
            work=work,
            republish=republish,
        )
    )
