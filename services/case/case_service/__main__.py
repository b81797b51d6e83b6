"""python -m case_service COMMAND: those of every service (servicekit.commands) and run-day; --help has them all."""

import argparse
import datetime
import time
from collections.abc import Iterator
from uuid import UUID

from case_service.settings import Settings
from servicekit import auth, client, commands, db

SERVICE = "case"
CASES_AT_A_TIME = 2_000
"""Cases of one transaction of ``republish``."""
LOOK = 1.0
"""Seconds between two looks whether a day is done."""


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
        slices=slices.RemoteSlices(channel),
        late_slice_minutes=settings.late_slice_minutes,
        day_opens_hour=settings.day_opens_hour,
    )
    return commands.Work(worker=worker.CaseWorker, wiring=wiring)


def republish(engine: db.Engine, agency: UUID) -> Iterator[int]:
    """Clock, titles as placed and states of cases."""
    from case_service.usecases import republish

    with db.begin(engine, agency=agency) as tx:
        republish.agency_state(tx, agency)
    yield tx.published
    after: UUID | None = None
    while True:
        with db.begin(engine, agency=agency) as tx:
            after = republish.next_cases(tx, agency, after=after, limit=CASES_AT_A_TIME)
        yield tx.published
        if after is None:
            return


def run_day_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run-day` takes."""
    parser.add_argument("--agency", type=UUID, required=True, help="id of the agency")
    parser.add_argument("--date", type=_date, required=True, help="YYYY-MM-DD, its new business date")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="until the day is done; 1 when it is not by then",
    )


def run_day(settings: Settings, engine: db.Engine, chosen: argparse.Namespace) -> int:
    """Open the date and run what may run here; what is open or done already stays as it is."""
    from case_service.store import days as stored
    from case_service.usecases import days

    agency, date = chosen.agency, chosen.date
    with db.begin(engine, agency=agency) as tx:
        was_open = bool(stored.day(tx, agency, date))
        days.run_day(tx, agency, date=date)
    commands.say(f"agency {agency}: {date} {'was open already' if was_open else 'is open'}")
    until = time.monotonic() + chosen.wait
    while True:
        ran = True
        while ran:
            with db.begin(engine, agency=agency) as tx:
                ran = days.run_cleared(tx, agency, partition=None, limit=1) > 0
        with db.begin(engine, agency=agency) as tx:
            slices = stored.day(tx, agency, date)
        waiting = [row.partition for row in slices if row.state != stored.DONE]
        if not waiting or time.monotonic() >= until:
            break
        time.sleep(min(LOOK, max(until - time.monotonic(), 0.0)))
    done = [row for row in slices if row.state == stored.DONE]
    cases, planned = sum(row.cases_seen for row in done), sum(row.agenda_items for row in done)
    commands.say(f"{len(done)} of {len(slices)} slices are done: {cases} cases seen, {planned} agenda items")
    if not waiting:
        return 0
    commands.say(
        f"The others (partitions {', '.join(str(one) for one in waiting)}) run once agreement has run the date there:"
        " a worker of each service has to be alive (`doctor`). Where the day was opened long ago, and no lag is left,"
        f" `python -m case_service republish --agency {agency}` tells agreement again."
    )
    return 1 if chosen.wait else 0


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date, expected YYYY-MM-DD") from None


PROGRAM = commands.Program(
    service=SERVICE,
    description="Cases, and the agency's clock and day.",
    main_file=__file__,
    settings=Settings,
    api=api,
    work=work,
    republish=republish,
    versioned=[
        "cases.version",
        "agency_clock.version",
    ],
    commands=[
        commands.Command(
            name="run-day",
            help="open an agency's business day by hand, or run it again; twice changes nothing",
            arguments=run_day_arguments,
            run=run_day,
        )
    ],
)

if __name__ == "__main__":
    commands.main(PROGRAM)
