"""A load generator that costs little: prepared bytes over plain sockets, one call at a time on each connection.

grpcio's or httpx's client would take more of the two cores than the servers, and hide the difference between them.
HTTP/2 as far as this needs it: header fields as literals, one stream after another, frames told apart (RFC 9113, 7541).
An answer that is not a success raises: gRPC errors come without a message, JSON errors with another status.
"""

import dataclasses
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _RESET = 0, 1, 4, 6, 7, 3
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WINDOW = 2**31 - 1


class Refused(Exception):
    """A call was not answered with a success."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What a round gave. Latencies in seconds."""

    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return len(self.latencies) / self.seconds


class Connection(Protocol):
    """One connection with at most one call under way."""

    socket: socket.socket

    def call(self, name: str) -> None:
        """Send a call about a resource."""
        ...

    def received(self, data: bytes) -> bool:
        """Take bytes; True when the answer is complete. Raises Refused."""
        ...


class JsonConnection:
    """GET /v1/{name} over HTTP/1.1."""

    def __init__(self, port: int, token: str) -> None:
        self.socket = _connect(port)
        self._rest = f" HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\r\n".encode()
        self._got = b""

    def call(self, name: str) -> None:
        """Send a call."""
        self._got = b""
        self.socket.sendall(b"GET /v1/" + name.encode() + self._rest)

    def received(self, data: bytes) -> bool:
        """Take bytes."""
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise Refused(self._got[:500])
        _, found, length = head.partition(b"content-length: ")
        if not found:
            raise Refused(b"no length: " + head)
        return len(body) >= int(length.split(b"\r\n", 1)[0])


class GrpcConnection:
    """A unary method whose request is `string name = 1`, over HTTP/2."""

    def __init__(self, port: int, token: str, path: str) -> None:
        self.socket = _connect(port)
        fields = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "bench"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "10S"),
            ("authorization", f"Bearer {token}"),
        )
        self._headers = b"".join(b"\x00" + text(name) + text(value) for name, value in fields)
        self._stream = -1
        self._got = b""
        self._message = False
        settings = struct.pack(">HI", 4, _WINDOW)  # SETTINGS_INITIAL_WINDOW_SIZE
        more = struct.pack(">I", _WINDOW - 65_535)
        self.socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(8, 0, 0, more))

    def call(self, name: str) -> None:
        """Send a call."""
        self._stream += 2
        self._message = False
        resource = name.encode()
        request = b"\x0a" + bytes([len(resource)]) + resource
        message = b"\x00" + struct.pack(">I", len(request)) + request
        self.socket.sendall(
            _frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + _frame(_DATA, _END_STREAM, self._stream, message)
        )

    def received(self, data: bytes) -> bool:
        """Take bytes."""
        self._got += data
        done = False
        while len(self._got) >= 9:
            length = int.from_bytes(self._got[:3], "big")
            if len(self._got) < 9 + length:
                break
            kind, flags, payload = self._got[3], self._got[4], self._got[9 : 9 + length]
            self._got = self._got[9 + length :]
            if kind == _SETTINGS and not flags & _ACK:
                self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self.socket.sendall(_frame(_PING, _ACK, 0, payload))
            elif kind == _DATA:
                self._message = True
            elif kind in (_GOAWAY, _RESET):
                raise Refused(payload)
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                if not self._message:
                    raise Refused("an answer without a message")
                done = True
        return done


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value: str) -> bytes:
    """A string literal without Huffman coding (RFC 7541 §5.2)."""
    octets = value.encode()
    if len(octets) < 127:
        return bytes([len(octets)]) + octets
    rest = len(octets) - 127
    length = bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + octets


def run(connections: Sequence[Connection], names: Sequence[str], seconds: float) -> Load:
    """Call with one name after another on all connections until the time is over; every call is waited for."""
    waiting = selectors.DefaultSelector()
    for connection in connections:
        waiting.register(connection.socket, selectors.EVENT_READ, connection)
    latencies: list[float] = []
    sent: dict[int, float] = {}
    number = 0
    started = time.perf_counter()
    for connection in connections:
        sent[id(connection)] = time.perf_counter()
        connection.call(names[number % len(names)])
        number += 1
    busy = len(connections)
    while busy:
        for key, _ in waiting.select(timeout=30):
            connection = key.data
            data = connection.socket.recv(65_536)
            if not data:
                raise Refused("the connection was closed")
            if not connection.received(data):
                continue
            now = time.perf_counter()
            latencies.append(now - sent[id(connection)])
            if now - started < seconds:
                sent[id(connection)] = now
                connection.call(names[number % len(names)])
                number += 1
            else:
                busy -= 1
    taken = time.perf_counter() - started
    waiting.close()
    return Load(taken, latencies)
