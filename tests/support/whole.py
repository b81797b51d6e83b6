"""The one whole platform that the end-to-end tests of a pytest run share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
import psutil

from recupera_local import platform, ports, tokens
from support import otlp

STANDING = "RECUPERA_TEST_PLATFORM"
"""State folder of a platform that stands already, whose ports RECUPERA_PORTS_FILE tells: used, and not stopped."""


class Whole:
    """A running platform, seen from outside: addresses, tokens, processes. No test may stop a part of it."""

    def __init__(self, parts: platform.Platform, collector: otlp.Collector | None = None) -> None:
        self.parts = parts
        self.collector = collector
        """Takes the spans and metrics of all services; None where the platform stands already."""
        self.url = parts.gateway_url
        self.state_dir = parts.state_dir

    def token(self, agency: UUID, **claims: object) -> str:
        """A token as the identity service would issue it; all scopes unless `scopes` says less."""
        return tokens.issue(self.state_dir / "keys", agency=agency, **claims)  # type: ignore[arg-type]

    def healthy(self) -> bool:
        """The gateway sees every service answer its health checks."""
        return httpx.get(f"{self.url}/health", timeout=10).status_code == 200

    def pids(self) -> dict[str, int]:
        """Which process stands behind each port of ours; one that died and was started again has another."""
        names = {port: name for name, port in self.parts.ports.by_name.items()}
        return {
            names[found.laddr.port]: found.pid
            for found in psutil.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN and found.laddr.port in names and found.pid
        }


@contextmanager
def started(state_dir: Path) -> Iterator[Whole]:
    """A platform with all its services, on free ports; stopped in the end."""
    if STANDING in os.environ:
        yield Whole(platform.Platform(state_dir=Path(os.environ[STANDING]), ports=ports.table()))
        return
    collector = otlp.Collector()
    parts = platform.Platform(
        state_dir=state_dir, ports=ports.free(), environ={"RECUPERA_OTLP_ENDPOINT": collector.endpoint}
    )
    parts.start()
    try:
        yield Whole(parts, collector)
    finally:
        parts.stop()
        collector.close()
