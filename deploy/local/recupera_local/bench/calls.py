"""Section `calls`: GetCase through Envoy, as JSON and as gRPC, beside an empty grpcio echo behind the same Envoy."""

import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import psycopg

import recupera_gateway
from recupera_local import gateway, ports, processes, tokens
from recupera_local import platform as local
from recupera_local.bench import figures, handmade, imports, load, portfolios, scenes
from servicekit import ids

TITLES = 200_000
NAMES = 20_000
CONNECTIONS = 8
ROUNDS = 5
SECONDS = 4.0
GOAL = 0.4
GOAL_P99 = 4.0
GET_CASE = "/recupera.case.v1.CaseService/GetCase"
ECHO = "/recupera.dialer.v1.DialerService/GetCampaign"


def run(scene: scenes.Scene) -> list[figures.Figure]:
    """Rounds of each in turn; calls of all rounds together."""
    with scene.platform("calls", ["case"]) as platform, scene.folder("portfolio") as files:
        imports.start_agency(platform)
        portfolio = files / "portfolio.csv"
        portfolios.write(portfolio, titles=TITLES // 50 if scene.quick else TITLES, seed=imports.SEED)
        handmade.fill_case(
            platform.url("case"),
            portfolio,
            {"agency": uuid.UUID(platform.agency), "date": portfolios.FIRST_DAY, "batch": ids.new()},
        )
        names = _names(platform)
        scene.say(f"{len(names):,} cases are asked for")
        with _behind(platform) as port:
            return _measure(scene, port, platform.token(), names)


def _measure(scene: scenes.Scene, port: int, token: str, names: Sequence[str]) -> list[figures.Figure]:
    campaigns = [name.replace("/cases/", "/campaigns/") for name in names]
    kinds: Mapping[str, tuple[Callable[[], load.Connection], Sequence[str]]] = {
        "echo JSON": (lambda: load.JsonConnection(port, token), campaigns),
        "GetCase JSON": (lambda: load.JsonConnection(port, token), names),
        "echo gRPC": (lambda: load.GrpcConnection(port, token, ECHO), campaigns),
        "GetCase gRPC": (lambda: load.GrpcConnection(port, token, GET_CASE), names),
    }
    done: dict[str, list[load.Load]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        opened: dict[str, list[load.Connection]] = {}
        for kind, (connect, _) in kinds.items():
            opened[kind] = [connect() for _ in range(CONNECTIONS)]
            for connection in opened[kind]:
                stack.enter_context(connection.socket)
        for number in range(2 if scene.quick else ROUNDS + 1):
            for kind, (_, asked) in kinds.items():
                result = load.run(opened[kind], asked, 1.0 if scene.quick or not number else SECONDS)
                if number:  # the first round warms up
                    done[kind].append(result)
            if number:
                told = ", ".join(f"{kind} {rounds[-1].per_second:,.0f}/s" for kind, rounds in done.items())
                scene.say(f"round {number}: {told}")
    found = []
    for protocol in ("JSON", "gRPC"):
        ours, bare = (_together(done[f"{kind} {protocol}"]) for kind in ("GetCase", "echo"))
        found += [
            figures.Figure(
                name=f"GetCase over {protocol}",
                unit="calls/s",
                ours=ours.per_second,
                baseline=bare.per_second,
                goal=GOAL,
                at_most=False,
            ),
            figures.Figure(
                name=f"GetCase over {protocol}: p99",
                unit="ms",
                ours=figures.percentile(ours.latencies, 0.99) * 1000,
                baseline=figures.percentile(bare.latencies, 0.99) * 1000,
                goal=GOAL_P99,
            ),
        ]
    return found


def _together(rounds: Sequence[load.Load]) -> load.Load:
    return load.Load(
        sum(one.seconds for one in rounds), [latency for one in rounds for latency in one.latencies]
    )


def _names(platform: local.Platform) -> list[str]:
    with psycopg.connect(platform.owner_url("case")) as connection:
        found = [row[0] for row in connection.execute("SELECT id FROM cases ORDER BY id")]
    random.Random(imports.SEED).shuffle(found)
    return [f"agencies/{platform.agency}/cases/{case}" for case in found[:NAMES]]


@contextmanager
def _behind(platform: local.Platform) -> Iterator[int]:
    """An Envoy, configured as the platform's, before the platform's case service and the echo; its port."""
    free = ports.free(("gateway", "admin", "echo"))
    folder = platform.state_dir / "bench"
    bare = processes.Process(
        name="echo",
        command=[sys.executable, "-m", "recupera_local.bench.echo", str(free["echo"])],
        log=folder / "echo.log",
        environ=scenes.inherited(),
        ready=lambda: processes.listening(free["echo"]),
    )
    envoy = gateway.Gateway(
        folder=folder,
        log=folder / "envoy.log",
        settings=recupera_gateway.Settings(
            port=free["gateway"],
            admin_port=free["admin"],
            addresses={"case": platform.address("case"), "dialer": f"127.0.0.1:{free['echo']}"},
            jwks=tokens.jwks_file(platform.state_dir / "keys"),
            calls_per_second=1_000_000,
            burst=1_000_000,
        ),
    )
    envoy.prepare()
    try:
        processes.start_all([bare, envoy.process])
        while not envoy.healthy():
            time.sleep(0.05)
        yield free["gateway"]
    finally:
        processes.stop_all([bare, envoy.process])
