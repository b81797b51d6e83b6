"""Sections `import` and `growth`: from upload at the gateway until case and agreement have committed the last row."""

import dataclasses
import datetime
import functools
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from recupera_local import gateway_client
from recupera_local import platform as local
from recupera_local.bench import figures, handmade, memory, portfolios, scenes
from recupera_local.demo import journey
from servicekit import ids
from servicekit import kafka as kit_kafka

SIZE = 200_000
GROWTH = (20_000, 200_000)
MILLION = 1_000_000
SEED = 20_261_123
GOAL = 2.0
EXPONENT = 1.1
MEMORY_MB = 400
SERVICES = ("case", "agreement", "import")
"""Those that take part; notify and dialer have nothing to do with a portfolio before its first business day."""
PATIENCE = 1_800.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Import:
    """One import: seconds from the first byte uploaded, peak bytes of each process, processor seconds of all."""

    titles: int
    read: float
    case: float
    total: float
    peaks: Mapping[str, int]
    processor: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ByHand:
    """Seconds of the baseline, of its COPY alone, and of processors."""

    total: float
    copy: float
    processor: float


class Differs(local.PlatformFailed):
    """The platform did not write the rows that the baseline writes, so their times cannot be compared."""


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """200,000 titles beside hand-made SQL, which is run before and after; its mean counts."""
    titles = SIZE // 10 if scene.quick else SIZE
    with scene.folder("portfolio") as files, scene.platform("import", SERVICES) as platform:
        portfolio = files / "portfolio.csv"
        portfolios.write(portfolio, titles=titles, seed=SEED)
        scene.say(f"{titles:,} titles, {portfolio.stat().st_size / 1e6:.0f} MB")
        start_agency(platform)
        databases = handmade.Databases(
            scenes.server(platform),
            agency=uuid.UUID(platform.agency),
            date=portfolios.FIRST_DAY,
            batch=ids.new(),
        )
        bare = [_by_hand(scene, platform, databases, portfolio)]
        expected = databases.counts()
        databases.drop()
        ours = imported(scene, platform, portfolio, titles)
        found = handmade.counts({service: platform.owner_url(service) for service in ("case", "agreement")})
        if found != expected:
            raise Differs(f"rows written: {found}, by hand: {expected}")
        bare.append(_by_hand(scene, platform, databases, portfolio))
        databases.drop()
    by_hand = sum(seconds.total for seconds in bare) / len(bare)
    return [
        figures.Figure(
            name=f"import: {titles:,} titles", unit="s", ours=ours.total, baseline=by_hand, goal=GOAL
        ),
        figures.Figure(
            name="import: processor time, all processes",
            unit="s",
            ours=ours.processor,
            baseline=sum(seconds.processor for seconds in bare) / len(bare),
            goal=None,
        ),
        figures.Figure(
            name="import: bare COPY of the file into staging",
            unit="s",
            ours=by_hand,
            baseline=sum(seconds.copy for seconds in bare) / len(bare),
            goal=None,
        ),
    ]


def _by_hand(
    scene: scenes.Scene, platform: local.Platform, databases: handmade.Databases, portfolio: Path
) -> _ByHand:
    databases.create()
    before = memory.processor_seconds(platform)
    bare = databases.fill(portfolio)
    processor = sum(memory.spent_since(platform, before).values())
    scene.say(
        f"by hand: {bare.total:.1f} s (case {bare.case:.1f} of which COPY {bare.copy:.1f},"
        f" agreement {bare.agreement:.1f}); processor seconds {processor:.1f}"
    )
    return _ByHand(total=bare.total, copy=bare.copy, processor=processor)


def growth(scene: scenes.Scene) -> list[figures.Figure]:
    """20,000, 200,000 and, with --full, 1,000,000 titles, each on a platform of its own."""
    sizes = (2_000, 20_000) if scene.quick else (*GROWTH, MILLION) if scene.full else GROWTH
    done: list[Import] = []
    for titles in sizes:
        with scene.folder("portfolio") as files, scene.platform("growth", SERVICES) as platform:
            portfolio = files / "portfolio.csv"
            portfolios.write(portfolio, titles=titles, seed=SEED)
            start_agency(platform)
            done.append(imported(scene, platform, portfolio, titles))
    found = [
        figures.limit(
            f"growth: exponent from {sizes[0]:,} to {sizes[-1]:,} titles",
            "",
            figures.exponent([(one.titles, one.total) for one in done]),
            at_most=EXPONENT,
        ),
        figures.limit(
            f"growth: exponent of processor time, {sizes[0]:,} to {sizes[-1]:,} titles",
            "",
            figures.exponent([(one.titles, one.processor) for one in done]),
            at_most=EXPONENT,
        ),
    ]
    for one in done:
        name, size = max(one.peaks.items(), key=lambda item: item[1])
        found.append(
            figures.limit(
                f"memory: highest peak at {one.titles:,} titles ({name})", "MB", size / 1e6, at_most=MEMORY_MB
            )
        )
    return found


def start_agency(
    platform: local.Platform, day: datetime.date = portfolios.FIRST_DAY
) -> gateway_client.Gateway:
    """Give the demo agency a clock that stands still on a business date, and wait until import knows it."""
    gateway = gateway_client.Gateway(
        base_url=platform.gateway_url, token=platform.token, agency=platform.agency
    )
    noon = datetime.datetime(day.year, day.month, day.day, journey.HOUR_UTC, tzinfo=datetime.UTC)
    gateway.post(
        "clock:set",
        {
            "timeZone": journey.TIME_ZONE,
            "simulated": True,
            "now": noon.isoformat().replace("+00:00", "Z"),
            "speedThousandths": "0",
            "currency": "BRL",
        },
    )
    for service in platform.services:
        known = functools.partial(_one, platform, service, "SELECT count(*) FROM agency_clock")
        _wait(f"the clock at {service}", known)
    return gateway


def imported(scene: scenes.Scene, platform: local.Platform, portfolio: Path, titles: int) -> Import:
    """Upload the file and wait for its last row; progress on the way."""
    gateway = gateway_client.Gateway(
        base_url=platform.gateway_url, token=platform.token, agency=platform.agency
    )
    before = memory.processor_seconds(platform)
    with memory.watched(platform) as peaks:
        started = time.perf_counter()
        batch = gateway.upload(path=portfolio, kind="PORTFOLIO")["name"]
        scene.say(f"uploaded after {time.perf_counter() - started:.1f} s")
        state = _Progress(scene, gateway, batch, started)
        _wait(f"{portfolio.name} applied", state.applied)
        case = time.perf_counter() - started
        _wait("the outbox of case empty", lambda: not _one(platform, "case", "SELECT count(*) FROM outbox"))
        topic = "recupera.case.v1"
        ends = kit_kafka.ends(
            platform.bootstrap, [kit_kafka.Partition(topic, number) for number in range(24)]
        )
        _wait(
            "agreement has read all",
            lambda: _read_to(platform, {p.partition: end for p, end in ends.items()}),
        )
        total = time.perf_counter() - started
    placed = _one(platform, "agreement", "SELECT count(*) FROM titles")
    if placed != titles:
        raise Differs(f"{placed} titles at agreement, {titles} in the file")
    scene.say(
        f"{titles:,} titles: {total:.1f} s (read {state.read_after:.1f}, case {case:.1f}, agreement {total:.1f})"
        f"; peak MB: {memory.told(peaks.by_name)}"
    )
    spent = memory.spent_since(platform, before)
    scene.say(memory.spent_told(spent))
    return Import(
        titles=titles,
        read=state.read_after,
        case=case,
        total=total,
        peaks=dict(peaks.by_name),
        processor=sum(spent.values()),
    )


class _Progress:
    """The batch as the gateway shows it, and a line of progress now and then."""

    def __init__(
        self, scene: scenes.Scene, gateway: gateway_client.Gateway, batch: str, started: float
    ) -> None:
        self._scene = scene
        self._gateway = gateway
        self._batch = batch
        self._started = started
        self._said = time.perf_counter()
        self.read_after = 0.0

    def applied(self) -> bool:
        """Whether every row is in case; raises when the file is refused."""
        now: dict[str, Any] = self._gateway.get(self._batch)
        state = now["state"].removeprefix("STATE_")
        if not self.read_after and state in ("APPLYING", "APPLIED"):
            self.read_after = time.perf_counter() - self._started
        if state in ("REJECTED", "AWAITING_APPROVAL", "APPLIED_WITH_ERRORS"):
            raise Differs(f"the batch is {state}: {now.get('refusal')} {now.get('rejectsByCode')}")
        if time.perf_counter() - self._said > 5:
            self._said = time.perf_counter()
            self._scene.say(
                f"{state.lower()}: {int(now.get('rowsRead', 0)):,} rows read,"
                f" {now.get('slicesApplied', 0)} of {now.get('slices', 0)} slices applied"
            )
        return bool(state == "APPLIED")


def _read_to(platform: local.Platform, ends: Mapping[int, int]) -> bool:
    """Whether agreement has committed everything of case's topic: its stored offsets are where the topic ends."""
    with psycopg.connect(platform.owner_url("agreement")) as connection:
        rows = connection.execute(
            "SELECT partition, next_offset FROM consumer_offsets WHERE topic = 'recupera.case.v1'"
        )
        stored = {int(str(partition)): int(str(offset)) for partition, offset in rows}
    return all(stored.get(partition, 0) >= end for partition, end in ends.items())


def _one(platform: local.Platform, service: str, statement: str) -> int:
    with psycopg.connect(platform.owner_url(service)) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return int(str(row[0]))


def _wait(what: str, probe: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not probe():
        if time.monotonic() > end:
            raise local.PlatformFailed(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.1)
