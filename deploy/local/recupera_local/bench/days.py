"""Section `day`: the first business day of 200,000 new cases, beside the same rows written by hand-made SQL.

The heaviest day there is: every case enters collection, and most have a step due. Ours is RunDay at the gateway until
the day is done: agreement's due run, then the ladder, in 24 slices, with every fact on its way. notify and dialer, who
act on these facts afterwards, are not started.
"""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from recupera_local import gateway_client
from recupera_local import platform as local
from recupera_local.bench import figures, handmade, imports, memory, portfolios, scenes
from servicekit import ids

CASES = 200_000
GOAL = 3.0


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """By hand before and after ours; its mean counts."""
    cases = CASES // 20 if scene.quick else CASES
    day = portfolios.FIRST_DAY
    with scene.folder("portfolio") as files, scene.platform("day", ("case", "agreement")) as platform:
        portfolio = files / "portfolio.csv"
        portfolios.write(portfolio, titles=cases, seed=imports.SEED, titles_of_a_case=1)
        gateway = imports.start_agency(platform)
        databases = handmade.Databases(
            scenes.server(platform), agency=uuid.UUID(platform.agency), date=day, batch=ids.new()
        )
        databases.create()
        databases.fill(portfolio)
        databases.fill_platform(platform, portfolio)
        scene.say(f"{cases:,} new cases stand")
        by_hand = [databases.run_day()]
        scene.say(f"by hand: {by_hand[-1]:.1f} s")
        expected = databases.day_written()
        ours = _run_day(scene, platform, gateway)
        written = databases.day_written(platform.owner_url("case"))
        if written != expected:
            raise imports.Differs(f"the day wrote {written}, by hand: {expected}")
        by_hand.append(databases.run_day())
        scene.say(f"by hand: {by_hand[-1]:.1f} s")
        databases.drop()
    return [
        figures.Figure(
            name=f"daily run: {cases:,} cases",
            unit="s",
            ours=ours,
            baseline=sum(by_hand) / len(by_hand),
            goal=GOAL,
        )
    ]


def _run_day(scene: scenes.Scene, platform: local.Platform, gateway: gateway_client.Gateway) -> float:
    day = portfolios.FIRST_DAY
    before = memory.processor_seconds(platform)
    started = time.perf_counter()
    gateway.post("businessDays:run", {"date": gateway_client.date_json(day), "requestId": str(ids.new())})

    def done() -> Mapping[str, Any] | None:
        answer = gateway.get(f"businessDays/{day.isoformat()}")
        return answer if answer["state"] == "STATE_DONE" else None

    answer = gateway_client.wait_for("the day", done, seconds=imports.PATIENCE)
    seconds = time.perf_counter() - started
    scene.say(
        f"the platform: {seconds:.1f} s, {answer['casesSeen']} cases, steps {answer.get('stepsByChannel')}"
    )
    scene.say(memory.spent_told(memory.spent_since(platform, before)))
    return seconds
