"""The load generator's own HTTP/1.1 and HTTP/2, against servers that answer in pieces."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest

from recupera_local.bench import echo, load


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that waits for a request and answers byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                for at in range(len(answer)):
                    connection.sendall(answer[at : at + 1])
                connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]


def one_call(connect: Callable[[], load.Connection]) -> load.Load:
    connection = connect()
    with connection.socket:
        return load.run([connection], ["agencies/a/cases/c"], 0.0)


def test_json_answers_are_read_to_their_length() -> None:
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as port:
        assert len(one_call(lambda: load.JsonConnection(port, "t")).latencies) == 1


def test_a_refusal_is_not_a_call() -> None:
    with (
        answering(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n") as port,
        pytest.raises(load.Refused),
    ):
        one_call(lambda: load.JsonConnection(port, "t"))


@pytest.fixture
def echo_port() -> Iterator[int]:
    from concurrent import futures

    with futures.ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, handlers=[echo.Echo()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield port
        server.stop(None).wait()


def test_grpc_calls_one_after_another_on_several_connections(echo_port: int) -> None:
    path = "/recupera.dialer.v1.DialerService/GetCampaign"
    connections = [load.GrpcConnection(echo_port, "x" * 700, path) for _ in range(3)]
    done = load.run(connections, ["agencies/a/campaigns/1", "agencies/a/campaigns/2"], 0.3)
    for connection in connections:
        connection.socket.close()
    assert len(done.latencies) > 6
    assert done.per_second > 0


def test_a_grpc_error_is_not_a_call(echo_port: int) -> None:
    with pytest.raises(load.Refused):
        one_call(lambda: load.GrpcConnection(echo_port, "t", "/recupera.dialer.v1.DialerService/Nothing"))


def test_long_header_values_have_their_length_in_more_bytes() -> None:
    """RFC 7541 §5.1: 1337 with a prefix of 7 bits is 127, then 1210 in groups of seven bits."""
    assert load.text("a" * 10)[:1] == b"\x0a"
    assert load.text("a" * 1337)[:3] == bytes([127, 1210 % 128 + 128, 1210 // 128])
