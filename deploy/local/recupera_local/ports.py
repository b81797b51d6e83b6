"""The ports of the local platform: a table for `make run`, free ones for tests."""

import fcntl
import functools
import os
import random
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from recupera_local import processes

SERVICES = ("case", "agreement", "dialer", "notify", "import")
"""The services in the order of their ports; the package of each is <name>_service, its folder services/<name>."""

FILE_VARIABLE = "RECUPERA_PORTS_FILE"

RANGE = range(12_000, 30_000)
"""Where free ports are drawn: below the range from which the kernel takes outgoing ones."""

_drawn: set[int] = set()
_drawing = threading.Lock()


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
    """`count` different ports that nobody listens on.

    They are this process's own until it ends: whoever else draws does not get them, also before somebody listens on
    them and after what did was killed.
    """
    found: list[int] = []
    with _drawing:
        while len(found) < count:
            port = random.SystemRandom().choice(RANGE)
            if port not in _drawn and is_free(port) and _reserve(port):
                _drawn.add(port)
                found.append(port)
    return found


def _reserve(port: int) -> bool:
    """Lock the port's byte of the file of all; the kernel gives it free when this process ends, however it ends."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):  # which of the two depends on the system
        return False
    return True


@functools.cache
def _reservations() -> int:
    """The file whose bytes stand for ports, open for good: to close it would give up all locks on it.

    One file and not one for each port: a run draws hundreds, and a process may have few files open.
    """
    path = Path(tempfile.gettempdir()) / "recupera-ports"
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        try:  # without O_CREAT, which Linux refuses for a file of another user in /tmp
            return os.open(path, flags)
        except FileNotFoundError:
            try:
                made = os.open(path, flags | os.O_CREAT | os.O_EXCL)
            except FileExistsError:  # another process was faster
                continue
            os.fchmod(made, 0o666)  # whoever else uses the machine draws from the same ports
            return made


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
