"""Two runs of one journey, one undisturbed and one with faults, and how they differ; `make soak` calls it
for any size and seed."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from fault import harness

from recupera_local import examples, ports
from recupera_local import platform as local
from recupera_local.demo import journey
from support import digest

FIRST_DAY = datetime.date(2026, 11, 23)
MESSAGES_A_GROUP = 10
"""Messages that notify may have in the act at one moment (services/notify/README.md)."""
SAME_ACT = {"UNKNOWN": "SENT"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the run with faults came to, against the undisturbed one."""

    difference: str
    undeclared: list[str]
    doubled_messages: list[str]
    lost_messages: list[str]
    unknown_messages: int
    messages_in_flight_at_most: int
    digest: str
    seconds: tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Run:
    state: digest.State
    calls: int
    kills: dict[str, int]
    message_states: dict[str, str]
    mailbox: collections.Counter[str]
    undeclared: list[str]
    seconds: float


def compare(*, work_dir: Path, titles: int, faults: int, seed: int, say: Callable[[str], None]) -> Outcome:
    """Run the journey twice on platforms of their own. Raises when a run does not come to rest."""
    folder = work_dir / "files"
    folder.mkdir(parents=True)
    portfolio, *payments = examples.make(folder, debtors=max(10, titles * 10 // 23), seed=seed)
    days = journey.weekdays_from(FIRST_DAY, 5)
    plan = journey.Plan(
        portfolio=portfolio,
        payments={day: [path for path in payments if path.stem.endswith(day.isoformat())] for day in days},
        days=days,
        agents=3,
        by_instrument=False,
    )
    say(f"undisturbed, {titles} titles")
    quiet = _run(work_dir / "quiet", plan, faults=0, seed=seed, calls=0, say=say)
    say(f"  {quiet.calls} calls in {quiet.seconds:.0f} s; now with {faults} kills, seed {seed}")
    disturbed = _run(work_dir / "disturbed", plan, faults=faults, seed=seed, calls=quiet.calls, say=say)
    say(f"  {disturbed.calls} calls in {disturbed.seconds:.0f} s; killed: {disturbed.kills}")
    sent = {
        key for key, state in disturbed.message_states.items() if state in ("SENT", "DELIVERED", "BOUNCED")
    }
    return Outcome(
        difference=digest.differences(quiet.state, disturbed.state),
        undeclared=disturbed.undeclared,
        doubled_messages=[key for key, count in disturbed.mailbox.items() if count > 1],
        lost_messages=sorted(sent - set(disturbed.mailbox)),
        unknown_messages=list(disturbed.message_states.values()).count("UNKNOWN"),
        messages_in_flight_at_most=MESSAGES_A_GROUP
        * sum(disturbed.kills.get(name, 0) for name in ("notify.worker", "postgres")),
        digest=quiet.state.digest(),
        seconds=(quiet.seconds, disturbed.seconds),
    )


def _run(
    folder: Path, plan: journey.Plan, *, faults: int, seed: int, calls: int, say: Callable[[str], None]
) -> _Run:
    started = time.monotonic()
    platform = local.Platform(state_dir=folder / "state", ports=ports.free())
    try:
        platform.start()
        driven = harness.Harness(platform=platform, plan=plan, work_dir=folder / "work", say=say)
        driven.run(harness.drawn(seed=seed, faults=faults, calls=calls) if faults else ())
        owners = driven.owners()
        undeclared = [line for service, owner in owners.items() for line in digest.undeclared(service, owner)]
        messages = harness.acts(
            owners, "SELECT act_key, state FROM messages WHERE act_key IS NOT NULL", "notify"
        )
        mails = httpx.get(f"{platform.mailbox_url}/messages", params={"limit": 100_000}).json()["messages"]
        return _Run(
            state=digest.State(owners, same=SAME_ACT),
            calls=driven.calls,
            kills=driven.kills,
            message_states={row.act_key: row.state for row in messages},
            mailbox=collections.Counter(mail["message_id"] for mail in mails),
            undeclared=undeclared,
            seconds=time.monotonic() - started,
        )
    finally:
        platform.stop()
        shutil.rmtree(folder / "state", ignore_errors=True)


def main() -> int:
    """`python -m fault.runs --titles 300 --faults 12 --seed 1`: prints the difference, exits 1 when there is one."""
    parser = argparse.ArgumentParser(
        description="The journey undisturbed and under faults; both must come to the same."
    )
    parser.add_argument("--titles", type=int, default=300)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="how many seeds, counting up from --seed")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="recupera-soak-") as folder:
            outcome = compare(
                work_dir=Path(folder), titles=arguments.titles, faults=arguments.faults, seed=seed, say=print
            )
        wrong = [outcome.difference, *outcome.undeclared, *outcome.doubled_messages, *outcome.lost_messages]
        if any(wrong) or outcome.unknown_messages > outcome.messages_in_flight_at_most:
            failed += 1
            print(f"seed {seed}: NOT THE SAME\n{outcome}")
        else:
            print(
                f"seed {seed}: the same; {outcome.unknown_messages} messages unknown, digest {outcome.digest[:16]}"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
