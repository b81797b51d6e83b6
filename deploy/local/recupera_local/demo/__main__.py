"""`make demo`: starts a platform of its own, runs the main job on a file, prints what happened, checks it from outside.

Exits 0 when every check holds. State and results are under `.local/demo`; the state of a former run is removed first.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from recupera_local import agencies, paths, ports, recount, tokens
from recupera_local import gateway_client as gc
from recupera_local import platform as local
from recupera_local.demo import accounting, journey, report

FIRST_DAY = date(2026, 11, 23)
DAYS = 7
EXAMPLES = paths.REPO / "examples"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the main job of the platform on a portfolio.")
    parser.add_argument(
        "--portfolio", type=Path, help="a file in the layout portfolio-v1 (default: the example)"
    )
    parser.add_argument("--payments", type=Path, help="a file in the layout payments-v1")
    chosen = parser.parse_args(arguments)
    try:
        plan = _plan(chosen.portfolio, chosen.payments)
    except OSError as error:
        print(f"cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    folder = paths.local() / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "work"
    work.mkdir(parents=True)
    started = time.monotonic()
    print("Starting the platform (PostgreSQL, Kafka, Envoy, five services) ...", flush=True)
    platform = local.Platform(state_dir=folder / "state", ports=ports.free())
    try:
        platform.start()
        print(f"  ready after {time.monotonic() - started:.0f} s", flush=True)
        gateway = gc.Gateway(base_url=platform.gateway_url, token=platform.token, agency=platform.agency)
        done = journey.Journey(
            gateway=gateway, plan=plan, work_dir=work, say=lambda text: print(text, flush=True)
        )
        done.run()
        figures = report.collect(gateway=gateway, done=done)
        second = recount.recount(
            portfolio=plan.portfolio,
            payment_files=done.payment_files,
            gateway=gateway,
            as_of=date.fromisoformat(figures["business_date"]),
            batches=done.batches,
        )
        print("Accounting to creditors", flush=True)
        statements = accounting.Accounting(
            done=done, closer=_as(platform, "accountant"), approver=_as(platform, "manager")
        ).run()
        report.add_accounting(figures, done=done, statements=statements)
        papers = accounting.papers(gateway=gateway, statements=statements, folder=folder)
        checks = report.check(figures, second)
    except (journey.JourneyFailed, gc.CallRefused, gc.WaitedTooLong, local.PlatformFailed) as error:
        print(f"\nThe demo stopped: {error}\nLogs are in {folder / 'state'}.", file=sys.stderr)
        return 1
    finally:
        platform.stop()
    figures["checks"] = [
        {"name": c.name, "ours": c.ours, "theirs": c.theirs, "holds": c.holds} for c in checks
    ]
    (folder / "report.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    print(report.printed(figures, checks))
    print("\n  Written")
    for what, path in {**papers, "all figures": folder / "report.json"}.items():
        print(f"    {what:<22}{_shown(path)}")
    print(f"\n  {time.monotonic() - started:.0f} s in all.")
    return 0 if all(item.holds for item in checks) else 1


def _as(platform: local.Platform, person: str) -> gc.Gateway:
    """Calls in somebody's own name."""
    token = tokens.issue(platform.state_dir / "keys", agency=agencies.demo().id, subject=f"users/{person}")
    return gc.Gateway(base_url=platform.gateway_url, token=lambda: token, agency=platform.agency)


def _plan(portfolio: Path | None, payments: Path | None) -> journey.Plan:
    """The example's plan, or one over the user's files: five weekdays that end when the last payment has its value."""
    if portfolio is None and payments is None:
        days = journey.weekdays_from(FIRST_DAY, DAYS)
        return journey.Plan(
            portfolio=EXAMPLES / "portfolio.csv",
            payments={
                date.fromisoformat(path.stem.removeprefix("payments-")): [path]
                for path in sorted(EXAMPLES.glob("payments-*.csv"))
            },
            days=days,
        )
    for path in (portfolio, payments):
        if path is not None:
            path.open("rb").close()
    last = _last_value_date(payments) if payments is not None else None
    first = FIRST_DAY if last is None else last - timedelta(days=6)
    days = journey.weekdays_from(first, 5)
    return journey.Plan(
        portfolio=portfolio or EXAMPLES / "portfolio.csv",
        payments={days[-1]: [payments]} if payments is not None else {},
        days=days,
    )


def _last_value_date(path: Path) -> date | None:
    """The latest value date that can be read; the platform says what is wrong with the others."""
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    delimiter = ";" if text.split("\n", 1)[0].count(";") else ","
    found = []
    for row in csv.DictReader(text.splitlines(), delimiter=delimiter):
        parsed = recount.date_of(row.get("value_date") or "")
        if parsed is not None:
            found.append(parsed)
    return max(found, default=None)


def _shown(path: Path) -> str:
    return str(path.relative_to(paths.REPO)) if path.is_relative_to(paths.REPO) else str(path)


if __name__ == "__main__":
    sys.exit(main())
