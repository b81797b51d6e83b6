"""The commands every service has: serve, worker, migrate, and what an operator does by hand (docs/operations.md).

A service's `__main__` says what its own parts are, in functions that import what they need when they are called:
`serve` never loads nameko and eventlet, `worker` never a gRPC server.
"""

import argparse
import contextlib
import dataclasses
import gc
import getpass
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

from servicekit import clock, db, errors, telemetry
from servicekit import settings as settings_module

S = TypeVar("S", bound=settings_module.ServiceSettings)

PROGRESS = 5.0
"""Seconds between two lines of progress."""
ABOVE_ALL = 1_000_000
"""More than the version of any row: what `raise-versions` adds."""


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
class Command(Generic[S]):
    """A command of one service only. `run` prints to stdout and gives the exit code; a `ServiceError` that it raises is
    told in a line, with 1."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[S, db.Engine, argparse.Namespace], int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program(Generic[S]):
    """A service as its commands see it. `main_file` is its `__main__.py`: the migrations are found from there."""

    service: str
    description: str
    main_file: str
    settings: type[S]
    api: Callable[[S, db.Engine], Api]
    work: Callable[[S, db.Engine], Work]
    republish: Callable[[db.Engine, UUID], Iterator[int]]
    """Sends the present state of one agency again; after each transaction, how many facts it published."""
    commands: Sequence[Command[S]] = ()
    more_settings: Callable[[S], Sequence[object]] = lambda settings: ()
    """Further settings that are in use beside `settings`: `doctor` looks at their certificates too."""
    versioned: Sequence[str] = ()
    """Columns (`table.column`) with versions of this service's own rows that facts state, and what notes one of these:
    what `raise-versions` raises. Never copies of others' versions."""

    @property
    def migrations(self) -> Path:
        """In the distribution inside the package; in the repository beside it."""
        here = Path(self.main_file).resolve().parent
        inside = here / "migrations"
        return inside if inside.is_dir() else here.parent / "migrations"


def main(program: Program[S], arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with 1 and a line for each setting that is missing or wrong, or for what stands in the
    way."""
    # Process 1 of a container has no default for it: told to stop while it starts, it would go on.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    chosen = _parser(program).parse_args(arguments)
    try:
        if chosen.command == "migrate":
            _migrate(program)
            return
        if chosen.command == "raise-versions":
            with _telling(program.service, chosen.command):
                sys.exit(_raise_versions(program, by=chosen.by))
        settings = settings_module.load(program.settings)
        engine = db.create_engine(
            settings.database_url, application_name=f"{program.service} {chosen.command}"
        )
        match chosen.command:
            case "serve":
                _serve(program, settings, engine)
            case "worker":
                _worker(program, settings, engine)
            case _:
                with _telling(program.service, chosen.command):
                    sys.exit(_operate(program, settings, engine, chosen))
    except settings_module.SettingsError as error:
        sys.exit(str(error))


def _parser(program: Program[S]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {program.service}_service", description=program.description
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="answer gRPC calls")
    commands.add_parser("worker", help="apply facts and run timers")
    commands.add_parser("migrate", help="bring the database to the newest version")
    doctor = commands.add_parser(
        "doctor", help="look at everything the service needs; 1 when something fails"
    )
    doctor.add_argument(
        "--production", action="store_true", help="refuse what is good enough for development only"
    )
    doctor.add_argument("--json", action="store_true", help="for machines")
    pause = commands.add_parser(
        "pause", help="stop reading topics, stop timers; in every replica, until resumed"
    )
    pause.add_argument(
        "names", nargs="+", metavar="NAME", help="a topic or timer of this service; '*' is all of them"
    )
    pause.add_argument("--reason", required=True, help="why, for those who find it paused")
    pause.add_argument("--by", default=_operator(), help="who pauses (default: %(default)s)")
    resume = commands.add_parser("resume", help="go on with what was paused")
    which = resume.add_mutually_exclusive_group(required=True)
    which.add_argument("names", nargs="*", default=[], metavar="NAME", help="as they were paused")
    which.add_argument("--all", action="store_true", help="everything that is paused")
    commands.add_parser("paused", help="what is paused, since when, by whom, why, and what can be")
    replay = commands.add_parser("replay", help="apply parked facts in order; 1 when some were refused again")
    replay.add_argument("--case", type=UUID, help="of one case only")
    republish = commands.add_parser("republish", help="send the present state again")
    republish.add_argument("--agency", type=UUID, help="of one agency only")
    lost = commands.add_parser(
        "accept-lost-range",
        help="after `republish` at the producers: read on where Kafka begins now; 1 when something is lost",
    )
    lost.add_argument("--yes", action="store_true", help="do it; without, it is only shown")
    higher = commands.add_parser(
        "raise-versions",
        help="after a restore, as the tables' owner: versions above all that the service had stated",
    )
    higher.add_argument("--by", type=_positive, default=ABOVE_ALL, help="default: %(default)s")
    for one in program.commands:
        one.arguments(commands.add_parser(one.name, help=one.help))
    return parser


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
    migrations.upgrade(settings.owner_database_url, program.migrations)


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


@contextlib.contextmanager
def _telling(service: str, command: str) -> Iterator[None]:
    """Around a command whose output a person reads: a refusal, or a database or Kafka that is away, is a line of it."""
    telemetry.setup_logging(service, command)
    logging.getLogger().handlers[0].setLevel(logging.CRITICAL)
    try:
        yield
    except errors.ServiceError as error:
        details = "".join(f", {name} {value}" for name, value in error.metadata.items())
        sys.exit(f"{error.reason}: {error.message}{details}")
    except Exception as error:
        if db.is_unavailable(error):
            sys.exit("The database did not answer; nothing was done since. Look with `doctor`.")
        from servicekit import kafka

        if isinstance(error, kafka.Unavailable):
            sys.exit(f"Kafka did not answer ({type(error).__name__}). Look with `doctor`.")
        raise


def _operate(program: Program[S], settings: S, engine: db.Engine, chosen: argparse.Namespace) -> int:
    own = {one.name: one for one in program.commands}
    match chosen.command:
        case "doctor":
            return _doctor(program, settings, engine, chosen)
        case "pause":
            return _pause(program, settings, engine, chosen)
        case "resume":
            return _resume(engine, chosen)
        case "paused":
            return _paused(program, settings, engine)
        case "replay":
            return _replay(program, settings, engine, chosen.case)
        case "republish":
            return _republish(program, engine, chosen.agency)
        case "accept-lost-range":
            return _accept_lost_range(program, settings, engine, yes=chosen.yes)
        case name:
            return own[name].run(settings, engine, chosen)


def say(line: str) -> None:
    """A line for the operator, at once: they may read it through a pipe or `kubectl logs`."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _operator() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = f"uid {os.getuid()}"
    return f"{user} at {socket.gethostname()}"


def _doctor(program: Program[S], settings: S, engine: db.Engine, chosen: argparse.Namespace) -> int:
    from servicekit import doctor

    patient = doctor.Patient(
        service=program.service,
        settings=[settings, settings.kafka, *program.more_settings(settings)],
        engine=engine,
        kafka=settings.kafka,
        jwks_file=settings.jwks_file,
        key_file=settings.service_key_file,
        migrations=program.migrations,
        production=chosen.production,
    )
    findings = list(doctor.examine(patient))
    say(doctor.as_json(patient, findings) if chosen.json else doctor.as_text(patient, findings))
    return 1 if any(one.level is doctor.Level.FAIL for one in findings) else 0


def _pausable(program: Program[S], settings: S, engine: db.Engine) -> list[str]:
    from servicekit import host

    return host.pausable(program.work(settings, engine).worker)


def _pause(program: Program[S], settings: S, engine: db.Engine, chosen: argparse.Namespace) -> int:
    from servicekit import pausing, topics

    known = _pausable(program, settings, engine)
    if unknown := sorted(set(chosen.names) - {*known, pausing.ALL}):
        sys.exit(
            f"{program.service} has no topic or timer {', '.join(unknown)}; nothing was paused. It has:\n  "
            + "\n  ".join(known)
        )
    made = pausing.pause(engine, chosen.names, reason=chosen.reason, paused_by=chosen.by)
    before = {one.name: one for one in pausing.paused(engine)}
    for name in sorted(set(chosen.names)):
        if name in made:
            say(f"paused {name}")
        else:
            found = before[name]
            say(f"{name} was paused already, {_since(found)} by {found.paused_by}: {found.reason}")
    say("Workers rest within 3 seconds, each after the transaction or act in hand.")
    read = [
        name for name in known if name in topics.catalog().by_name and {name, pausing.ALL} & set(chosen.names)
    ]
    if read:
        days = min(topics.catalog()[name].retention_ms for name in read) / 86_400_000
        say(f"Kafka keeps the facts for {days:g} days: resume before.")
    return 0


def _resume(engine: db.Engine, chosen: argparse.Namespace) -> int:
    from servicekit import pausing

    gone = pausing.resume(engine, None if chosen.all else chosen.names)
    for name in gone:
        say(f"resumed {name}")
    missed = sorted(set(chosen.names) - set(gone))
    for name in missed:
        say(f"{name} was not paused")
    if not gone and not missed:
        say("nothing was paused")
    if left := pausing.paused(engine):
        say(f"still paused: {', '.join(one.name for one in left)}")
    return 1 if missed else 0


def _paused(program: Program[S], settings: S, engine: db.Engine) -> int:
    from servicekit import pausing

    found = pausing.paused(engine)
    for one in found:
        say(f"{one.name}\n    {_since(one)} by {one.paused_by}: {one.reason}")
    if not found:
        say("nothing is paused")
    say(f"can be paused: {', '.join(_pausable(program, settings, engine))}, or '*' for all")
    return 0


def _since(found: Any) -> str:
    return f"since {found.paused_at:%Y-%m-%d %H:%M} UTC"


def _replay(program: Program[S], settings: S, engine: db.Engine, case_id: UUID | None) -> int:
    from servicekit import parked

    work = program.work(settings, engine)
    waiting = sum(facts for facts, _ in parked.waiting(engine).values())
    say(f"{waiting} facts are parked" + (f"; trying those of case {case_id}" if case_id else ""))
    applied, progress = 0, _Progress()

    def tell(tried: parked.Tried) -> None:
        nonlocal applied
        applied += not tried.refused
        if tried.refused:
            say(f"refused again: {tried.fact_type} of case {tried.case_id} ({tried.topic}): {tried.refused}")
        progress.say(f"{applied} applied so far")

    done = parked.replay(engine, work.worker, work.wiring, case_id, tell)
    left = sum(facts for facts, _ in parked.waiting(engine).values())
    say(f"applied {done.applied}, refused again {done.refused}, still parked {left}")
    if done.refused:
        say(
            "Later facts of a refused one's case wait behind it. Column `error` of table `parked` says where it failed."
        )
    return 1 if done.refused else 0


def _republish(program: Program[S], engine: db.Engine, agency: UUID | None) -> int:
    known = clock.agencies(engine)
    if agency is not None and agency not in known:
        raise clock.AgencyClockUnknown("the agency is not known here", agency=agency)
    if not known:
        say("no agency is known here: there is nothing to send")
        return 0
    total, progress = 0, _Progress()
    for one in known if agency is None else [agency]:
        published = transactions = 0
        for facts in program.republish(engine, one):
            published, transactions = published + facts, transactions + 1
            progress.say(f"agency {one}: {published} facts so far")
        say(f"agency {one}: {published} facts in {transactions} transactions")
        total += published
    say(f"{total} facts are written; the relay of a running worker sends them (doctor: outbox)")
    return 0


def _accept_lost_range(program: Program[S], settings: S, engine: db.Engine, *, yes: bool) -> int:
    from servicekit import host, topics

    lost = host.lost_ranges(engine, settings.kafka)
    if not lost:
        say("nothing is lost: Kafka has every stored offset")
        return 0
    for partition, (stored, first) in sorted(lost.items()):
        say(
            f"{partition.topic}/{partition.partition}: stored offset {stored} is gone, Kafka begins at {first}"
        )
    producers = sorted({topics.catalog()[partition.topic].producer for partition in lost})
    if not yes:
        say(
            "Nothing was changed. What was lost comes again, as its present state, from\n"
            + "".join(f"  python -m {name}_service republish\n" for name in producers)
            + f"Then stop every worker of {program.service} and run this again with --yes."
        )
        return 1
    _refuse_while_workers_run(program, engine)
    for partition, first in sorted(host.accept_lost_range(engine, settings.kafka).items()):
        say(f"{partition.topic}/{partition.partition}: is read on from {first}")
    say("Start the workers again.")
    return 0


def _raise_versions(program: Program[S], *, by: int) -> int:
    from servicekit import versions

    if not program.versioned:
        say(f"{program.service} states no versions of its own rows: there is nothing to raise")
        return 0
    settings = settings_module.load(settings_module.MigrationSettings, service=program.service)
    engine = db.create_engine(
        settings.owner_database_url, application_name=f"{program.service} raise-versions"
    )
    _refuse_while_workers_run(program, engine)
    for column, rows in versions.raise_all(engine, program.versioned, by=by).items():
        say(f"{column}: {rows} rows, each {by} higher")
    say("Start the workers, then `republish`: copies take higher versions only.")
    return 0


def _refuse_while_workers_run(program: Program[S], engine: db.Engine) -> None:
    from servicekit import acts

    if alive := acts.alive(engine):
        sys.exit(
            f"{alive} workers of {program.service} run, or stopped less than"
            f" {acts.DEAD_AFTER.seconds} seconds ago; nothing was changed. Scale them to 0 and try again."
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)


class _Progress:
    """Says a line when some seconds have passed since the last."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def say(self, line: str) -> None:
        """Now and then."""
        if time.monotonic() - self._said >= PROGRESS:
            self._said = time.monotonic()
            say(line)
