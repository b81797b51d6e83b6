"""Run the sections, print the table, write .local/bench.json. Exit code 1 when a goal is missed."""

import argparse
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from recupera_local import paths
from recupera_local import platform as local
from recupera_local.bench import figures, scenes

Section = Callable[[scenes.Scene], list[figures.Figure]]


def sections() -> Mapping[str, tuple[str, Section]]:
    """Every section: its name, what it measures, and the function."""
    from recupera_local.bench import (
        agreements,
        balances,
        calls,
        days,
        facts,
        imports,
        plans,
        remittance,
        replay,
        resources,
        scans,
        storage,
    )

    return {
        "import": ("200,000 titles until the last row is committed, beside hand-made SQL", imports.run),
        "growth": ("import of 20,000, 200,000 and (--full) 1,000,000 titles; peak memory", imports.growth),
        "day": ("the first business day of 200,000 cases, beside hand-made SQL", days.run),
        "calls": ("GetCase through Envoy beside an empty echo behind the same Envoy", calls.run),
        "facts": ("outbox to handler commit beside kafka-python by hand", facts.run),
        "simulation": ("simulations of agreements a second in one process", plans.simulation),
        "remittance": (
            "a statement of 100,000 settlements closed, beside a bare aggregate plus insert",
            remittance.run,
        ),
        "agreements": ("the daily run of 100,000 agreements, beside hand-made SQL", agreements.run),
        "balances": (
            "lines of 100,000 titles of mixed terms, beside their sum in one SQL statement",
            balances.run,
        ),
        "replay": ("a payment before 500 others of its case, beside entering those", replay.run),
        "scans": ("which of 1,000 agencies have work for a timer, beside asking each in turn", scans.run),
        "storage": ("bytes and processor time of a title, a case, a message, a call", storage.run),
        "run": ("`make run`: seconds until it is up, memory when idle", resources.run),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    known = sections()
    parser = argparse.ArgumentParser(
        prog="python -m recupera_local.bench",
        description="Speed and memory beside bare baselines.",
        epilog="sections: " + "; ".join(f"{name}: {text}" for name, (text, _) in known.items()),
    )
    parser.add_argument("--only", action="append", choices=list(known), help="this section; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, not how fast")
    parser.add_argument("--full", action="store_true", help="import a million titles too (some minutes more)")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    scene = scenes.Scene(quick=chosen.quick, full=chosen.full)
    file = paths.local() / ("bench-quick.json" if chosen.quick else "bench.json")
    found: list[figures.Figure] = []
    failed = False
    for name in chosen.only or list(known):
        text, section = known[name]
        print(f"{name}: {text}", flush=True)
        started = time.monotonic()
        busy = os.getloadavg()[0]
        try:
            measured = section(scene)
        except Exception as error:  # the other sections can still be measured
            failed = True
            print(f"  {name} could not be measured: {error}", file=sys.stderr)
            if not isinstance(error, local.PlatformFailed):
                traceback.print_exc()
            continue
        found += measured
        figures.store(file, found)
        print(
            f"  {time.monotonic() - started:.0f} s; load average {busy:.1f} before, {os.getloadavg()[0]:.1f} after,"
            f" {os.cpu_count()} cores",
            flush=True,
        )
    print(f"\n{figures.table(found)}\n\nwritten to {file}")
    return 1 if failed or any(figure.holds is False for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
