"""`make run`: keep the local platform up, say where it is and what to try first, stop cleanly on Ctrl-C.

State is kept in .local (or RECUPERA_LOCAL_DIR). RECUPERA_* variables are handed on to every service: log level, or
RECUPERA_KAFKA and RECUPERA_DATABASE_URL_<SERVICE> to use a broker or databases that are there already.
"""

import fcntl
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recupera_local import agencies, paths, ports
from recupera_local import platform as local

TOKEN_REFRESH = 3600.0


class AlreadyRunning(local.PlatformFailed):
    """Another `make run` has the state folder."""


@contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the state folder. Raises AlreadyRunning."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise AlreadyRunning(
                f"the platform runs already, as process {lock.read().strip()}: stop that one with Ctrl-C or `kill`,"
                " or name another state folder with RECUPERA_LOCAL_DIR"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def authorization_file(platform: local.Platform) -> Path:
    """A file with the header that calls need, for `curl -H @file`; kept fresh while the platform runs."""
    return platform.state_dir / "authorization.txt"


def _write_authorization(platform: local.Platform) -> None:
    """Put a good token into the authorization file."""
    file = authorization_file(platform)
    file.touch(mode=0o600)
    file.write_text(f"authorization: Bearer {platform.token()}\n")


def first_calls(platform: local.Platform) -> list[tuple[str, str]]:
    """What to try first: a title and a command that can be pasted, in an order that makes sense."""
    agency = f"{platform.gateway_url}/v1/agencies/{platform.agency}"
    authorization = authorization_file(platform)
    curl = f"curl -sS -H {shlex.quote(f'@{authorization}')}"
    post = f"{curl} -H 'content-type: application/json' -X POST"
    example = paths.REPO / "examples" / "portfolio.csv"
    clock = json.dumps(
        {
            "simulated": True,
            "now": "2026-11-23T12:00:00Z",
            "speedThousandths": 1000,
            "timeZone": agencies.demo().time_zone,
            "currency": agencies.demo().currency,
        }
    )
    day = json.dumps({"date": {"year": 2026, "month": 11, "day": 23}})
    native = (
        f"{shlex.quote(sys.executable)} -m recupera_local.call {platform.gateway_url.removeprefix('http://')}"
        f' recupera.case.v1.CaseService/ListCases \'{{"parent": "agencies/{platform.agency}", "pageSize": 2}}\''
        f" {shlex.quote(str(authorization))}"
    )
    return [
        ("Give the demo agency a clock (a Monday, simulated)", f"{post} -d '{clock}' '{agency}/clock:set'"),
        (
            "Upload the example portfolio",
            f"{curl} -H 'content-type: text/csv' --data-binary {shlex.quote(f'@{example}')}"
            f" '{agency}/batches:upload?kind=BATCH_KIND_PORTFOLIO&fileName=portfolio.csv'",
        ),
        ("See what became of it", f"{curl} '{agency}/batches'"),
        ("Look at the first cases", f"{curl} '{agency}/cases?pageSize=3'"),
        ("The same by native gRPC", native),
        (
            "Run the business day: ladder, messages",
            f"{post} -d '{day}' '{agency}/businessDays:run'",
        ),
        ("What a collector should do today", f"{curl} '{agency}/agenda?pageSize=3'"),
        ("The money, to the centavo", f"{curl} '{agency}/money:summarize'"),
        ("The mail that went out", f"curl -sS '{platform.mailbox_url}/messages?limit=3'"),
    ]


def printed(platform: local.Platform, seconds: float) -> str:
    """The text for the person who typed `make run`."""
    lines = [
        f"\nRecupera is up ({seconds:.0f} s). Ctrl-C stops it; what it knows is kept in {platform.state_dir}.\n",
        f"  API      {platform.gateway_url}   gRPC, gRPC-Web and JSON",
        f"  Mailbox  {platform.mailbox_url}   every message that was sent",
        f"  Logs     {platform.state_dir / 'log'}",
        f"  Kafka    {platform.bootstrap}",
        "  Token    make token (--help: python -m recupera_local.tokens --help)",
        "\nTo try, in this order:\n",
    ]
    for number, (title, command) in enumerate(first_calls(platform), 1):
        lines.append(f"  {number}. {title}\n     {command}\n")
    return "\n".join(lines)


def main() -> int:
    """Run until Ctrl-C, SIGTERM, or a process that cannot be kept alive."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    state = paths.local()
    try:
        with only_one(state):
            platform = local.Platform(
                state_dir=state,
                ports=ports.table(),
                environ={name: value for name, value in os.environ.items() if name.startswith("RECUPERA_")},
                durable=True,
            )
            return _run(platform)
    except local.PlatformFailed as error:
        print(f"\nThe platform did not start: {error}", file=sys.stderr)
        return 1


def _run(platform: local.Platform) -> int:
    started = time.monotonic()
    print("Starting PostgreSQL, Kafka, Envoy and the services ...", flush=True)
    try:
        platform.start()
        _write_authorization(platform)
        print(printed(platform, time.monotonic() - started), flush=True)
        _watch(platform)
    except KeyboardInterrupt:
        print("\nStopping ...", flush=True)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        platform.stop()
    if platform.failure is not None:
        print(f"\nThe platform stopped: {platform.failure}", file=sys.stderr)
        return 1
    print("Stopped.", flush=True)
    return 0


def _watch(platform: local.Platform) -> None:
    """Return when a process cannot be kept alive; until then keep the token fresh."""
    written = time.monotonic()
    while platform.failure is None:
        time.sleep(0.5)
        if time.monotonic() - written > TOKEN_REFRESH:
            _write_authorization(platform)
            written = time.monotonic()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
