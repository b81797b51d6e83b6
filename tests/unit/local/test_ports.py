"""The port table, and what one is told when a port is taken."""

import re
import socket

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


def test_port_in_use_is_named_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ports.PortInUse, match=re.escape(f"port {port} (gateway)")) as refused:
            ports.check_free(ports.Ports({"gateway": port}))
        assert "ports.yaml" in str(refused.value)
        assert "ss -ltnp" in str(refused.value)
