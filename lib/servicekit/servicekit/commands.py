"""The commands every service has: serve, worker, migrate, replay, republish.

A service's `__main__` says what its own parts are, in functions that import what they need when they are called:
`serve` never loads nameko and eventlet, `worker` never a gRPC server.
"""

import argparse
import dataclasses
import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

from servicekit import clock, db, telemetry
from servicekit import settings as settings_module

S = TypeVar("S", bound=settings_module.ServiceSettings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Api:
    """What `serve` answers with: registers its servicers at a gRPC server, full names of the services, whether it can
    answer now."""

    add_servicers: Callable[[Any], None]
    services: Sequence[str]
    ready: Callable[[], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What `worker` and `replay` run: the nameko class and what it is wired to."""

    worker: type[Any]
    wiring: object


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Generic[S]):
    """A service as its commands see it. `main_file` is its `__main__.py`: the migrations are found from there."""

    service: str
    description: str
    main_file: str
    settings: type[S]
    api: Callable[[S, db.Engine], Api]
    work: Callable[[S, db.Engine], Work]
    republish: Callable[[db.Engine, UUID], None]
    """Sends the present state of one agency again."""


def main(program: Program[S], arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with 1 and a line for each setting that is missing or wrong."""
    parser = argparse.ArgumentParser(prog=f"{program.service}_service", description=program.description)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer gRPC calls")
    commands.add_parser("worker", help="apply facts and run timers")
    commands.add_parser("migrate", help="bring the database to the newest version")
    replay = commands.add_parser("replay", help="apply parked facts in order; 1 when some were refused again")
    replay.add_argument("--case", type=UUID, help="of one case only")
    republish = commands.add_parser("republish", help="send the present state again")
    republish.add_argument("--agency", type=UUID, help="of one agency only")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "migrate":
            _migrate(program)
            return
        settings = settings_module.load(program.settings)
        engine = db.create_engine(
            settings.database_url, application_name=f"{program.service} {chosen.command}"
        )
        match chosen.command:
            case "serve":
                _serve(program, settings, engine)
            case "worker":
                _worker(program, settings, engine)
            case "replay":
                _replay(program, settings, engine, chosen.case)
            case "republish":
                telemetry.setup_logging(program.service, "republish", settings.log_level)
                for agency in [chosen.agency] if chosen.agency else clock.agencies(engine):
                    program.republish(engine, agency)
    except settings_module.SettingsError as error:
        sys.exit(str(error))


def settle_collector() -> None:
    """Look for garbage in cycles seldom: what is loaded at start stays, what a slice makes goes together.

    A fifth of the daily run of agreements went there (docs/benchmarks.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def _migrate(program: Program[S]) -> None:
    from servicekit import migrations

    settings = settings_module.load(settings_module.MigrationSettings, service=program.service)
    telemetry.setup_logging(program.service, "migrate", settings.log_level)
    here = Path(program.main_file).resolve().parent
    inside = here / "migrations"  # in the distribution; in the repository they are beside the package
    migrations.upgrade(settings.owner_database_url, inside if inside.is_dir() else here.parent / "migrations")


def _serve(program: Program[S], settings: S, engine: db.Engine) -> None:
    from servicekit import rpc

    api = program.api(settings, engine)
    settle_collector()
    rpc.serve(
        settings=settings,
        service=program.service,
        add_servicers=api.add_servicers,
        descriptors=api.services,
        ready=api.ready,
    )


def _worker(program: Program[S], settings: S, engine: db.Engine) -> None:
    from servicekit import host

    telemetry.setup(program.service, "worker", settings)
    work = program.work(settings, engine)
    settle_collector()
    host.run(work.worker, wiring=work.wiring, settings=settings, engine=engine)
    telemetry.shutdown()


def _replay(program: Program[S], settings: S, engine: db.Engine, case_id: UUID | None) -> None:
    from servicekit import parked

    telemetry.setup_logging(program.service, "replay", settings.log_level)
    work = program.work(settings, engine)
    done = parked.replay(engine, work.worker, work.wiring, case_id)
    sys.exit(1 if done.refused else 0)
