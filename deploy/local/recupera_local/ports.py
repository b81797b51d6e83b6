"""The ports of the local platform: a table for `make run`, free ones for tests."""

import os
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from recupera_local import processes

SERVICES = ("case", "agreement", "dialer", "notify", "import")
"""The services in the order of their ports; the package of each is <name>_service, its folder services/<name>."""

FILE_VARIABLE = "RECUPERA_PORTS_FILE"


class PortInUse(processes.PlatformFailed):
    """Somebody else listens on a port of the table. The text says which one and what to do."""


@dataclass(frozen=True)
class Ports:
    """A port for each part, by the names of ports.yaml: gateway, postgres, .., case.rpc, case.worker.metrics."""

    by_name: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.by_name[name]


def table_file() -> Path:
    """The table: ports.yaml beside this module, or the file that RECUPERA_PORTS_FILE names."""
    return Path(os.environ.get(FILE_VARIABLE) or Path(__file__).with_name("ports.yaml"))


def table() -> Ports:
    """The fixed ports."""
    return Ports({str(name): int(port) for name, port in yaml.safe_load(table_file().read_text()).items()})


def free(names: Sequence[str] | None = None) -> Ports:
    """A free port for each name (default: all names of the table)."""
    wanted = list(names if names is not None else table().by_name)
    return Ports(dict(zip(wanted, free_ports(len(wanted)), strict=True)))


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on, below the range from which the kernel takes outgoing ones."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12000, 30000)
        if port not in found and is_free(port):
            found.append(port)
    return found


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def check_free(ports: Ports) -> None:
    """Raise PortInUse, naming every port of the table that is taken and where to change it."""
    taken = [f"{port} ({name})" for name, port in ports.by_name.items() if not is_free(port)]
    if taken:
        raise PortInUse(
            f"in use by another program: port {', '.join(taken)}. Stop that program"
            f" (find it with `ss -ltnp`), or change the port in {table_file()}"
        )
