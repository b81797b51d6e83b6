"""The port table, and what one is told when a port is taken."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from recupera_local import ports


def test_table_has_a_port_for_every_process_and_none_twice() -> None:
    table = ports.table().by_name
    for service in ports.SERVICES:
        assert {f"{service}.rpc", f"{service}.serve.metrics", f"{service}.worker.metrics"} <= set(table)
    assert len(set(table.values())) == len(table)


def test_free_ports_are_different_and_free() -> None:
    found = ports.free()
    assert set(found.by_name) == set(ports.table().by_name)
    assert len(set(found.by_name.values())) == len(found.by_name)
    ports.check_free(found)


RANGE = range(31_000, 31_060)
"""Few enough that two who do not know of one another draw the same; nobody else draws here."""
DRAW = f"""
import sys
from recupera_local import ports
ports.RANGE = range({RANGE.start}, {RANGE.stop})
sys.stdin.readline()
print(*ports.free_ports(int(sys.argv[1])), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def draw() -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Start a process that draws when it is told to, and then lives on."""
    started = []

    def start(count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRAW, str(count)]
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def drawn(process: subprocess.Popen[str]) -> set[int]:
    """What it drew."""
    assert process.stdout is not None
    return {int(port) for port in process.stdout.readline().split()}


def go(process: subprocess.Popen[str]) -> None:
    """Let it draw."""
    assert process.stdin is not None
    process.stdin.write("\n")


def test_no_two_processes_draw_the_same_port_while_both_live(
    draw: Callable[[int], subprocess.Popen[str]],
) -> None:
    both = draw(25), draw(25)
    for process in both:
        go(process)
    first, second = (drawn(process) for process in both)
    assert (len(first), len(second)) == (25, 25)
    assert not first & second
    assert first | second <= set(RANGE)
    both[0].kill()
    both[0].wait()
    last = draw(30)
    go(last)
    assert len(third := drawn(last)) == 30  # there are so many only with those of the process that ended
    assert not second & third


def test_port_in_use_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ports.PortInUse, match=re.escape(f"port {port} (gateway)")) as refused:
            ports.check_free(ports.Ports({"gateway": port}))
        assert "ports.yaml" in str(refused.value)
        assert "ss -ltnp" in str(refused.value)
