"""The server over the wire: every refusal is typed, nothing leaks, and the process lives on (issue 3, "Bad
input").
"""

import base64
import contextlib
import datetime
import functools
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from recupera_local import ports
from servicekit import auth, client, errors, rpc, settings, telemetry
from support import echo, waiting

AGENCY = UUID("01890000-0000-7000-8000-000000000001")
OTHER = UUID("01890000-0000-7000-8000-000000000002")
THING = f"agencies/{AGENCY}/things/1"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Echo:
    """A running echo server and a client of it with a person's token."""

    def __init__(
        self,
        folder: Path,
        ready: Callable[[], bool] = lambda: True,
        *,
        keys: echo.Keys | None = None,
        port: int = 0,
    ) -> None:
        self.keys = keys or echo.Keys(folder)
        self.servicer = echo.EchoServicer()
        self.settings = settings.load(echo.EchoSettings, self.keys.environ(RECUPERA_RPC_PORT=str(port)))
        self.server = rpc.run_server(
            settings=self.settings,
            add_servicers=lambda server: echo.pb2_grpc.add_EchoServiceServicer_to_server(
                self.servicer, server
            ),
            descriptors=[echo.SERVICE],
            ready=ready,
        )
        self.address = f"127.0.0.1:{self.server.port}"
        self.channel = grpc.insecure_channel(self.address, options=[("grpc.max_receive_message_length", -1)])
        self.stub: Any = echo.pb2_grpc.EchoServiceStub(self.channel)
        self.token = self.keys.token(AGENCY)
        self.closing = contextlib.ExitStack()
        self.servicer.other = self.closing.enter_context(
            client.Channel(self.address, self.keys.signer("echo"))
        )

    def metadata(self, token: str | None = None) -> tuple[tuple[str, str], ...]:
        """With a person's token, or this one."""
        return (("authorization", f"Bearer {self.token if token is None else token}"),)

    def get(
        self, text: str = "", *, name: str = THING, token: str | None = None, timeout: float | None = 10
    ) -> Any:
        """GetThing."""
        request = echo.pb2.GetThingRequest(name=name, text=text)
        return self.stub.GetThing(request, timeout=timeout, metadata=self.metadata(token))

    def raw(self, data: bytes, method: str = f"/{echo.SERVICE}/GetThing") -> bytes:
        """Bytes as request and answer."""
        answer: bytes = self.channel.unary_unary(method, _registered_method=False)(  # type: ignore[call-arg]
            data, timeout=20, metadata=self.metadata()
        )
        return answer

    def close(self) -> None:
        """Stop everything."""
        self.servicer.release.set()
        self.closing.close()
        self.channel.close()
        self.server.stop()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Echo]:
    """A server of this test's own."""
    running = Echo(tmp_path)
    yield running
    running.close()


class Told:
    """What a client learns from a failed call."""

    def __init__(self, error: Any) -> None:
        self.code: grpc.StatusCode = error.code()
        self.text: str = error.details()
        self.everything = f"{self.text} {error.trailing_metadata()}"
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                assert info.domain == "recupera"
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                self.fields = {one.field: one.description for one in bad.field_violations}


def refused(call: Callable[[], Any]) -> Told:
    """The error of a call that must fail."""

    def complete() -> None:
        answer = call()
        if isinstance(answer, Iterator):
            list(answer)

    with pytest.raises(grpc.RpcError) as caught:
        complete()
    return Told(caught.value)


def test_a_call_reaches_its_method_with_its_caller(served: Echo) -> None:
    creditor = uuid4()
    token = served.keys.token(AGENCY, ["echo.read"], creditor=creditor)
    answer = served.get("who", token=token)
    assert answer.name == "users/7"
    assert answer.text == f"{AGENCY} {creditor} None ['echo.read']"
    assert served.get("method").name == "echo.v1.EchoService/GetThing"
    with pytest.raises(LookupError):
        rpc.caller()


def test_callers_do_not_mix(served: Echo) -> None:
    agencies = [uuid4() for _ in range(40)]
    tokens = [served.keys.token(agency, creditor=agency) for agency in agencies]
    request = echo.pb2.GetThingRequest(text="who")
    calls = [
        served.stub.GetThing.future(request, timeout=20, metadata=served.metadata(token)) for token in tokens
    ]
    assert [call.result().text.split()[0] for call in calls] == [str(agency) for agency in agencies]


def test_a_deadline_is_required(served: Echo) -> None:
    told = refused(lambda: served.get(timeout=None))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED")
    upload = echo.pb2.UploadThingRequest()
    assert (
        refused(lambda: served.stub.UploadThing(iter([upload]), metadata=served.metadata())).reason
        == "DEADLINE_REQUIRED"
    )
    download = echo.pb2.GetThingRequest()
    assert (
        refused(lambda: served.stub.DownloadThing(download, metadata=served.metadata())).reason
        == "DEADLINE_REQUIRED"
    )


def test_tokens(served: Echo) -> None:
    def with_header(*header: tuple[str, str]) -> Told:
        return refused(lambda: served.stub.GetThing(echo.pb2.GetThingRequest(), timeout=10, metadata=header))

    expired = served.keys.token(AGENCY, now=time.time() - 7_200)
    stranger = auth.issue(auth.generate_key(), subject="x", agency=AGENCY, scopes=["echo.read"])
    for told, reason in (
        (with_header(), "TOKEN_MISSING"),
        (with_header(("authorization", "")), "TOKEN_MISSING"),
        (with_header(("authorization", "Basic dTpw")), "TOKEN_INVALID"),
        (with_header(("authorization", "Bearer ")), "TOKEN_INVALID"),
        (with_header(("authorization", served.token)), "TOKEN_INVALID"),
        (with_header(("authorization", f"Bearer {stranger}")), "TOKEN_INVALID"),
        (with_header(("authorization", f"Bearer {expired}")), "TOKEN_EXPIRED"),
    ):
        assert (told.code, told.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
        assert expired not in told.everything
    lower_case = (("authorization", f"bearer {served.token}"),)
    assert (
        served.stub.GetThing(echo.pb2.GetThingRequest(name=THING), timeout=10, metadata=lower_case).name
        == THING
    )


def test_a_token_that_expires_is_refused_though_it_was_good(served: Echo) -> None:
    token = served.keys.token(AGENCY, lifetime=datetime.timedelta(seconds=5))
    assert served.get(token=token)
    seen: queue.SimpleQueue[Told] = queue.SimpleQueue()

    def gone() -> bool:
        try:
            served.get(token=token)
        except grpc.RpcError as error:
            seen.put(Told(error))
            return True
        return False

    waiting.until(gone, timeout=60, what="the token to expire")
    assert seen.get().reason == "TOKEN_EXPIRED"


def test_scopes(served: Echo) -> None:
    def call(method: str, token: str) -> str:
        request = {
            "UpdateThing": echo.pb2.UpdateThingRequest(),
            "ResetThings": echo.pb2.ListThingsRequest(),
        }.get(method, echo.pb2.GetThingRequest())
        try:
            getattr(served.stub, method)(request, timeout=10, metadata=served.metadata(token))
        except grpc.RpcError as error:
            told = Told(error)
            assert told.code is grpc.StatusCode.PERMISSION_DENIED
            assert told.reason == "SCOPE_MISSING"
            return told.metadata["scope"]
        return ""

    reader = served.keys.token(AGENCY, ["echo.read", "case.admin"])
    service = served.keys.signer().token(AGENCY)
    assert call("GetThing", reader) == ""
    assert call("UpdateThing", reader) == "echo.write"
    assert call("ResetThings", reader) == "echo.admin"
    assert call("ReserveThing", reader) == "internal"
    assert call("ReserveThing", service) == ""
    assert call("UpdateThing", service) == ""
    assert call("ResetThings", service) == "echo.admin"


def test_a_creditors_token_opens_only_what_is_made_for_creditors(served: Echo) -> None:
    token = served.keys.token(AGENCY, creditor=uuid4())
    assert served.get(token=token)
    told = refused(
        lambda: served.stub.ListThings(
            echo.pb2.ListThingsRequest(), timeout=10, metadata=served.metadata(token)
        )
    )
    assert (told.code, told.reason) == (grpc.StatusCode.PERMISSION_DENIED, "CREDITOR_NOT_ALLOWED")


@pytest.mark.parametrize(
    "foreign",
    [
        f"agencies/{OTHER}/things/1",
        f"agencies/{OTHER}",
        f"agencies/{AGENCY}0/things/1",
        "agencies/-",
        "agencies/",
    ],
)
def test_another_agencys_names_are_refused(served: Echo, foreign: str) -> None:
    def told(method: str, request: Any) -> Told:
        return refused(lambda: getattr(served.stub, method)(request, timeout=10, metadata=served.metadata()))

    pb2 = echo.pb2
    cases = {
        "name": told("GetThing", pb2.GetThingRequest(name=foreign)),
        "owner": told("GetThing", pb2.GetThingRequest(name=THING, owner=foreign)),
        "parent": told("ListThings", pb2.ListThingsRequest(parent=foreign)),
        "thing.name": told("UpdateThing", pb2.UpdateThingRequest(thing=pb2.Thing(name=foreign))),
    }
    for field, answer in cases.items():
        assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "AGENCY_MISMATCH")
        assert answer.metadata == {"field": field}
    first, second = (
        pb2.UploadThingRequest(parent=f"agencies/{AGENCY}"),
        pb2.UploadThingRequest(parent=foreign),
    )
    for requests in ([second], [first, second]):
        upload = functools.partial(
            served.stub.UploadThing, iter(requests), timeout=10, metadata=served.metadata()
        )
        assert refused(upload).reason == "AGENCY_MISMATCH"
    assert told("DownloadThing", pb2.GetThingRequest(name=foreign)).reason == "AGENCY_MISMATCH"


def test_own_names_and_no_names_pass(served: Echo) -> None:
    assert served.get(name=f"agencies/{AGENCY}").name == f"agencies/{AGENCY}"
    assert served.get(name="").name == ""
    update = echo.pb2.UpdateThingRequest(thing=echo.pb2.Thing(name=THING))
    assert served.stub.UpdateThing(update, timeout=10, metadata=served.metadata()).name == THING


def test_errors_are_typed(served: Echo) -> None:
    missing = refused(lambda: served.get("missing"))
    assert (missing.code, missing.reason, missing.text) == (
        grpc.StatusCode.NOT_FOUND,
        "RESOURCE_NOT_FOUND",
        "no such thing",
    )
    assert missing.metadata == {"thing": "17"}
    closed = refused(lambda: served.get("closed"))
    assert (closed.code, closed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "THING_ALREADY_CLOSED")
    fields = refused(lambda: served.get("fields"))
    assert (fields.code, fields.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert fields.fields == {"terms[0].rate": "expected 0 to 100", "name": "x"}


def test_an_error_about_a_thousand_fields_still_arrives(served: Echo) -> None:
    told = refused(lambda: served.get("thousand fields"))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert 1 <= len(told.fields) < 1_000
    assert int(told.metadata["field_violations_left_out"]) == 1_000 - len(told.fields)


def test_an_unexpected_error_shows_its_trace_and_nothing_else(
    served: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    request = echo.pb2.GetThingRequest(name=THING, text="crash")
    metadata = (*served.metadata(), ("traceparent", PARENT))
    told = refused(lambda: served.stub.GetThing(request, timeout=10, metadata=metadata))
    assert (told.code, told.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert told.metadata == {"trace_id": PARENT.split("-")[1]}
    assert "Joana" not in told.everything
    assert "RuntimeError" not in told.everything
    lines = [telemetry.JsonFormatter("echo", "serve").format(record) for record in caplog.records]
    assert any('"type": "RuntimeError"' in line for line in lines)
    assert not any("Joana" in line for line in lines)
    stream = refused(lambda: served.stub.DownloadThing(request, timeout=10, metadata=served.metadata()))
    assert (stream.code, stream.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert "Joana" not in stream.everything
    assert len(stream.metadata["trace_id"]) == 32


def test_a_database_that_is_away_is_unavailable(served: Echo) -> None:
    told = refused(lambda: served.get("database"))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert "127.0.0.1" not in told.everything


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe", bytes(range(255, 190, -1))])
def test_a_malformed_message(served: Echo, data: bytes) -> None:
    told = refused(lambda: served.raw(data))
    assert (told.code, told.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    stream = served.channel.stream_unary(f"/{echo.SERVICE}/UploadThing", _registered_method=False)  # type: ignore[call-arg]
    good = echo.pb2.UploadThingRequest(chunk=b"abc").SerializeToString()
    told = refused(lambda: stream(iter([good, data]), timeout=10, metadata=served.metadata()))
    assert told.reason == "MALFORMED_MESSAGE"
    assert served.get("still there").text == "still there"


def test_a_message_that_is_too_large(served: Echo) -> None:
    def of(size: int) -> bytes:
        return b"\x12" + _varint(size) + b"x" * size

    just_fits = 8 * 1024 * 1024 - len(of(1)) + 1 - 3  # the length takes three bytes more than that of 1
    assert len(of(just_fits)) == 8 * 1024 * 1024
    assert len(echo.pb2.Thing.FromString(served.raw(of(just_fits))).text) == just_fits
    told = refused(lambda: served.raw(of(just_fits + 1)))
    assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    far_too_large = refused(lambda: served.raw(of(40 * 1024 * 1024)))
    assert far_too_large.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert served.get("still there").text == "still there"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_a_method_that_nobody_has(served: Echo) -> None:
    for method in (f"/{echo.SERVICE}/Nothing", "/echo.v1.OpenService/GetThing", "/a/b", "/x"):
        told = refused(lambda: served.raw(b"", method=method))  # noqa: B023
        assert (told.code, told.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")


def test_bytes_that_are_not_grpc_do_no_harm(served: Echo) -> None:
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(4_096),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(500),
        b"",
    ):
        with socket.create_connection(("127.0.0.1", served.server.port), timeout=10) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while connection.recv(4_096):
                    pass
    assert served.get("still there").text == "still there"


def test_streams(served: Echo) -> None:
    chunk = b"x" * 1_000_000
    upload = (echo.pb2.UploadThingRequest(chunk=chunk) for _ in range(20))
    assert served.stub.UploadThing(upload, timeout=20, metadata=served.metadata()).size == 20_000_000
    down = served.stub.DownloadThing(echo.pb2.GetThingRequest(), timeout=10, metadata=served.metadata())
    assert [(thing.size, thing.text) for thing in down] == [(0, ""), (1, ""), (2, "users/7")]
    talk = served.stub.Talk(
        iter([echo.pb2.UploadThingRequest(chunk=b"a" * size) for size in (3, 1, 2)]),
        timeout=10,
        metadata=served.metadata(),
    )
    assert [thing.size for thing in talk] == [3, 1, 2]


def test_a_stream_that_fails_in_the_middle_gives_what_came_before(served: Echo) -> None:
    down = served.stub.DownloadThing(
        echo.pb2.GetThingRequest(text="closed"), timeout=10, metadata=served.metadata()
    )
    assert [next(down).size, next(down).size] == [0, 1]
    assert refused(lambda: next(down)).reason == "THING_ALREADY_CLOSED"


def test_two_open_uploads_keep_other_uploads_out_and_no_download(served: Echo) -> None:
    with _open_upload(served), _open_upload(served):
        for call in (
            lambda: served.stub.UploadThing(iter([]), timeout=10, metadata=served.metadata()),
            lambda: served.stub.Talk(iter([]), timeout=10, metadata=served.metadata()),
        ):
            told = refused(call)
            assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
            assert told.text.endswith("try again")
        assert _downloads(served)
        assert served.get("meanwhile").text == "meanwhile"
    waiting.until(lambda: _uploads(served), what="the place to be given back")


def test_two_open_downloads_keep_other_downloads_out_and_no_upload(served: Echo) -> None:
    with _open_download(served), _open_download(served):
        told = refused(
            lambda: served.stub.DownloadThing(
                echo.pb2.GetThingRequest(), timeout=10, metadata=served.metadata()
            )
        )
        assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        assert _uploads(served)
        assert served.get("meanwhile").text == "meanwhile"
    waiting.until(lambda: _downloads(served), what="the place to be given back")


def test_calls_are_answered_beside_every_stream_that_may_be_open(served: Echo) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(2):
            opened.enter_context(_open_upload(served))
            opened.enter_context(_open_download(served))
        codes = opened.enter_context(_open_reflections(served, 3))
        assert served.get("meanwhile").text == "meanwhile"
        assert _status(served, rpc.LIVENESS) == SERVING
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [codes.get(timeout=10), codes.get(timeout=10)] == [exhausted, exhausted], "one is let in"
        assert served.get("meanwhile").text == "meanwhile"


@contextlib.contextmanager
def _open_upload(served: Echo) -> Iterator[None]:
    more: queue.SimpleQueue[Any] = queue.SimpleQueue()
    more.put(echo.pb2.UploadThingRequest(chunk=b"a"))
    call = served.stub.UploadThing.future(iter(more.get, None), timeout=60, metadata=served.metadata())
    assert served.servicer.started.acquire(timeout=10)
    yield
    more.put(None)
    assert call.result().size == 1


@contextlib.contextmanager
def _open_download(served: Echo) -> Iterator[None]:
    request = echo.pb2.GetThingRequest(text="wait")
    call = served.stub.DownloadThing(request, timeout=60, metadata=served.metadata())
    assert served.servicer.started.acquire(timeout=10)
    yield
    call.cancel()
    assert served.servicer.finished.acquire(timeout=10)


@contextlib.contextmanager
def _open_reflections(served: Echo, number: int) -> Iterator["queue.SimpleQueue[grpc.StatusCode]"]:
    """So many streams, without deadline; the codes of those that ended."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    ended: queue.SimpleQueue[grpc.StatusCode] = queue.SimpleQueue()
    with contextlib.ExitStack() as open_ones:
        for _ in range(number):
            more: queue.SimpleQueue[Any] = queue.SimpleQueue()
            more.put(reflection_pb2.ServerReflectionRequest(list_services=""))
            call = stub.ServerReflectionInfo(iter(more.get, None))
            call.add_done_callback(lambda done: ended.put(done.code()))
            open_ones.callback(more.put, None)
            open_ones.callback(call.cancel)
        yield ended


class Line:
    """A connection to a server that can fall silent, as when the client's machine is gone: nobody says goodbye."""

    def __init__(self, port: int) -> None:
        self.silent = threading.Event()
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._join, daemon=True).start()

    def _join(self) -> None:
        with (
            self._listener.accept()[0] as client,
            socket.create_connection(("127.0.0.1", self._to)) as server,
        ):
            back = threading.Thread(target=self._carry, args=(server, client), daemon=True)
            back.start()
            self._carry(client, server)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if not self.silent.is_set():
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more."""
        self._listener.close()


def test_a_client_that_is_gone_gives_its_streams_place_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_KEEPALIVE", [(name, time // 50) for name, time in rpc._KEEPALIVE])
    served = Echo(tmp_path)
    line = Line(served.server.port)
    more: queue.SimpleQueue[Any] = queue.SimpleQueue()
    more.put(echo.pb2.UploadThingRequest(chunk=b"a"))
    try:
        with grpc.insecure_channel(f"127.0.0.1:{line.port}") as channel:
            stub: Any = echo.pb2_grpc.EchoServiceStub(channel)
            call = stub.UploadThing.future(iter(more.get, None), timeout=300, metadata=served.metadata())
            assert served.servicer.started.acquire(timeout=10)
            line.silent.set()
            assert served.servicer.finished.acquire(timeout=20)
            waiting.until(lambda: _uploads(served), what="the place to be given back")
            more.put(None)
            call.cancel()
    finally:
        line.close()
        served.close()


def test_an_upload_that_is_broken_off_ends_and_gives_its_place_back(
    served: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        more: queue.SimpleQueue[Any] = queue.SimpleQueue()
        more.put(echo.pb2.UploadThingRequest(chunk=b"a"))
        call = served.stub.UploadThing.future(iter(more.get, None), timeout=30, metadata=served.metadata())
        assert served.servicer.started.acquire(timeout=10)
        call.cancel()
        assert served.servicer.finished.acquire(timeout=10)
        more.put(None)
    waiting.until(lambda: _uploads(served), what="the places to be free")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def _uploads(served: Echo) -> bool:
    try:
        served.stub.UploadThing(iter([]), timeout=10, metadata=served.metadata())
    except grpc.RpcError:
        return False
    return True


def _downloads(served: Echo) -> bool:
    try:
        list(served.stub.DownloadThing(echo.pb2.GetThingRequest(), timeout=10, metadata=served.metadata()))
    except grpc.RpcError:
        return False
    return True


def _status(served: Echo, service: str) -> int:
    stub: Any = health_pb2_grpc.HealthStub(served.channel)
    return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_health_follows_readiness_and_liveness_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_READY_INTERVAL", 0.01)
    state: list[Any] = [False]

    def ready() -> bool:
        if state[0] is None:
            raise ConnectionError("away")
        return bool(state[0])

    served = Echo(tmp_path, ready)
    try:
        for wanted, expected in ((False, NOT_SERVING), (True, SERVING), (None, NOT_SERVING), (True, SERVING)):
            state[0] = wanted
            for service in ("", echo.SERVICE):
                waiting.until(lambda: _status(served, service) == expected)  # noqa: B023
            assert _status(served, rpc.LIVENESS) == SERVING
            assert served.get("x").text == "x"
    finally:
        served.close()


def test_a_drain_does_not_wait_for_a_check_that_hangs_nor_hear_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_READY_INTERVAL", 0.01)
    hang, hung, answer = threading.Event(), threading.Event(), threading.Event()

    def ready() -> bool:
        if hang.is_set():
            hung.set()
            assert answer.wait(60)
        return True

    def checking() -> bool:
        return any(thread.name == "readiness" for thread in threading.enumerate())

    served = Echo(tmp_path, ready)
    try:
        assert _status(served, "") == SERVING
        hang.set()
        assert hung.wait(10)
        threading.Thread(target=served.server.drain, kwargs={"delay": 30.0}, daemon=True).start()
        waiting.until(lambda: _status(served, "") == NOT_SERVING, what="the drain to say no")
        assert checking()
        answer.set()
        waiting.until(lambda: not checking(), what="the check that says yes")
        assert _status(served, "") == NOT_SERVING
    finally:
        answer.set()
        served.close()


def test_a_client_that_watches_health_is_told_no_and_calls_on(served: Echo) -> None:
    watch: Any = health_pb2_grpc.HealthStub(served.channel).Watch(health_pb2.HealthCheckRequest())
    with pytest.raises(grpc.RpcError) as refused:
        next(watch)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": echo.SERVICE},
    }
    with grpc.insecure_channel(
        served.address, options=[("grpc.service_config", json.dumps(config))]
    ) as watching:
        answer = echo.pb2_grpc.EchoServiceStub(watching).GetThing(
            echo.pb2.GetThingRequest(name=THING, text="x"), timeout=10, metadata=served.metadata()
        )
    assert answer.text == "x"


def test_reflection(served: Echo) -> None:
    database = ProtoReflectionDescriptorDatabase(served.channel)
    assert echo.SERVICE in database.get_services()
    assert "grpc.health.v1.Health" in database.get_services()
    assert database.FindFileContainingSymbol(echo.SERVICE).package == "echo.v1"


def test_nothing_is_open_by_mistake(tmp_path: Path) -> None:
    served_settings = settings.load(echo.EchoSettings, echo.Keys(tmp_path).environ())

    def start(add: Callable[[Any], None], names: Sequence[str]) -> None:
        rpc.run_server(settings=served_settings, add_servicers=add, descriptors=names)

    with pytest.raises(ValueError, match=r"echo.v1.OpenService.GetThing has no option"):
        start(lambda server: echo.pb2_grpc.add_OpenServiceServicer_to_server(echo.EchoServicer(), server), [])
    with pytest.raises(ValueError, match="named but not added"):
        start(lambda server: None, [echo.SERVICE])


def test_a_port_in_use_is_named(served: Echo) -> None:
    taken = settings.load(echo.EchoSettings, served.keys.environ(RECUPERA_RPC_PORT=str(served.server.port)))
    with pytest.raises(
        settings.SettingInvalid, match=f"RECUPERA_RPC_PORT: .*:{served.server.port}: stop what uses"
    ):
        rpc.run_server(
            settings=taken,
            add_servicers=lambda server: echo.pb2_grpc.add_EchoServiceServicer_to_server(
                served.servicer, server
            ),
            descriptors=[echo.SERVICE],
        )


class Process:
    """The echo service as a process, its log lines, and a channel to it."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.keys = echo.Keys(folder)
        self.lines: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.echo"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **self.keys.environ(**environ)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            waiting.until(
                lambda: self.line("serving") or self._process.poll() is not None,
                timeout=60,
                what="the process to serve",
            )
        except BaseException:
            self._process.kill()
            raise
        self.port = int(self.line("serving")["port"])
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub: Any = echo.pb2_grpc.EchoServiceStub(self.channel)
        self.metadata = (("authorization", f"Bearer {self.keys.token(AGENCY)}"),)

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(json.loads(line) for line in self._process.stderr if line.startswith("{"))

    def line(self, message: str) -> dict[str, Any]:
        """The first line with this message, or {}."""
        return next((line for line in self.lines if line["message"] == message), {})

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit status."""
        status = self._process.wait(30)
        self._reader.join()
        return status

    def close(self) -> None:
        """Kill it if it still runs."""
        self.channel.close()
        self._process.kill()
        self.wait()


def test_sigterm_drains(tmp_path: Path) -> None:
    process = Process(tmp_path, RECUPERA_DRAIN_DELAY="4")
    try:
        gate = tmp_path / "gate"
        slow = echo.pb2.GetThingRequest(name=THING, text=f"wait:{gate}")
        held = process.stub.GetThing.future(slow, timeout=60, metadata=process.metadata)
        waiting.until(Path(f"{gate}.started").exists)
        process.terminate()
        stub: Any = health_pb2_grpc.HealthStub(process.channel)
        check = health_pb2.HealthCheckRequest()
        waiting.until(lambda: stub.Check(check, timeout=10).status == NOT_SERVING, timeout=5)
        quick = echo.pb2.GetThingRequest(text="who")
        during = process.stub.GetThing(quick, timeout=10, metadata=process.metadata)
        assert during.name == "users/7", "new calls are taken until load balancers have seen NOT_SERVING"

        def refused_now() -> bool:
            with grpc.insecure_channel(f"127.0.0.1:{process.port}") as channel:
                fresh: Any = echo.pb2_grpc.EchoServiceStub(channel)
                try:
                    fresh.GetThing(quick, timeout=10, metadata=process.metadata)
                except grpc.RpcError as error:
                    return Told(error).code is grpc.StatusCode.UNAVAILABLE
                return False

        waiting.until(refused_now, what="new calls to be refused")
        assert not held.done(), "a call in flight goes on"
        gate.touch()
        assert held.result().text == f"wait:{gate}"
        assert process.wait() == 0
        assert [line["message"] for line in process.lines][-1] == "left serve"
    finally:
        process.close()


def test_probes_are_answered_beside_the_metrics(tmp_path: Path) -> None:
    port, ready_file = ports.free_ports(1)[0], tmp_path / "ready"
    process = Process(tmp_path, RECUPERA_METRICS_PORT=str(port), RECUPERA_READY_FILE=str(ready_file))

    def status(path: str) -> int:
        return httpx.get(f"http://127.0.0.1:{port}{path}").status_code

    try:
        assert (status("/live"), status("/ready"), status("/metrics")) == (200, 503, 200)
        ready_file.touch()
        assert status("/ready") == 200
        ready_file.unlink()
        assert status("/ready") == 503
    finally:
        process.close()


def test_what_a_process_pushes_and_shows(tmp_path: Path) -> None:
    collector = Collector()
    metrics_port = ports.free_ports(1)[0]
    process = Process(
        tmp_path,
        RECUPERA_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
        RECUPERA_METRICS_PORT=str(metrics_port),
    )
    try:
        metadata = (*process.metadata, ("traceparent", PARENT))
        for text in ("", "missing", "crash"):
            with contextlib.suppress(grpc.RpcError):
                process.stub.GetThing(
                    echo.pb2.GetThingRequest(name=THING, text=text), timeout=10, metadata=metadata
                )
        shown = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics").text
        assert "recupera_rpc_server_duration_seconds_count{" in shown
        assert 'reason="RESOURCE_NOT_FOUND"' in shown
        assert 'rpc_method="echo.v1.EchoService/GetThing"' in shown
        process.terminate()
        assert process.wait() == 0
        spans = collector.spans
        assert [span.name for span in spans] == ["echo.v1.EchoService/GetThing"] * 3
        assert {span.trace_id.hex() for span in spans} == {PARENT.split("-")[1]}
        assert {span.parent_span_id.hex() for span in spans} == {PARENT.split("-")[2]}
        attributes = [{one.key: one.value.string_value for one in span.attributes} for span in spans]
        assert attributes == [
            {"rpc.status": "OK"},
            {"rpc.status": "NOT_FOUND", "error.type": "RESOURCE_NOT_FOUND"},
            {"rpc.status": "INTERNAL", "error.type": "INTERNAL_ERROR"},
        ]
        assert "recupera.rpc.server.duration" in collector.metrics
        assert "Joana" not in str(spans) + shown + str(process.lines)
        failure = process.line("unexpected error")
        assert failure["trace_id"] == PARENT.split("-")[1]
        assert base64.b16encode(spans[-1].span_id).decode().lower() == failure["span_id"]
    finally:
        process.close()
        collector.close()


class Collector:
    """An OTLP collector that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: set[str] = set()
        collector = self

        class Traces(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                collector.spans += [
                    span
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
                return trace_service_pb2.ExportTraceServiceResponse()

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                collector.metrics |= {
                    metric.name
                    for resource in request.resource_metrics
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                }
                return metrics_service_pb2.ExportMetricsServiceResponse()

        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        """Stop."""
        self._server.stop(0).wait()


def test_the_client_translates(served: Echo) -> None:
    assert served.servicer.other is not None
    channel = served.servicer.other
    stub: Any = echo.pb2_grpc.EchoServiceStub(channel.grpc)

    def get(text: str, timeout: float = 10) -> Any:
        return channel.call(stub.GetThing, echo.pb2.GetThingRequest(text=text), agency=OTHER, timeout=timeout)

    assert get("who").text == f"{OTHER} None echo ['internal']"
    with pytest.raises(errors.RemoteRefused) as refusal:
        get("closed")
    assert (refusal.value.reason, refusal.value.status) == (
        "THING_ALREADY_CLOSED",
        errors.Status.FAILED_PRECONDITION,
    )
    assert (refusal.value.message, refusal.value.metadata) == ("the thing is closed", {"state": "CLOSED"})
    with pytest.raises(errors.RemoteRefused) as crash:
        get("crash")
    assert crash.value.status is errors.Status.INTERNAL
    with pytest.raises(errors.RemoteRefused) as foreign:
        channel.call(stub.GetThing, echo.pb2.GetThingRequest(name=THING), agency=OTHER, timeout=10)
    assert foreign.value.reason == "AGENCY_MISMATCH"
    with pytest.raises(errors.RemoteRefused) as large:
        get("x" * (9 * 1024 * 1024))
    assert large.value.reason == "MESSAGE_TOO_LARGE"
    with pytest.raises(errors.RemoteUnavailable, match="DEADLINE_EXCEEDED"):
        get("wait", timeout=0.2)
    served.servicer.release.set()
    with pytest.raises(errors.RemoteUnavailable) as away:
        get("database")
    assert away.value.metadata == {"remote_status": "UNAVAILABLE", "remote_reason": "DATABASE_UNAVAILABLE"}


def test_the_client_streams(served: Echo) -> None:
    assert served.servicer.other is not None
    channel = served.servicer.other
    stub: Any = echo.pb2_grpc.EchoServiceStub(channel.grpc)

    def down(text: str = "") -> Iterator[Any]:
        request = echo.pb2.GetThingRequest(text=text)
        return channel.stream(stub.DownloadThing, request, agency=AGENCY, timeout=10)

    assert [thing.size for thing in down()] == [0, 1, 2]
    with pytest.raises(errors.RemoteRefused) as middle:
        list(down("missing"))
    assert middle.value.reason == "RESOURCE_NOT_FOUND"
    early = down("wait")
    assert next(early).size == 0
    early.close()  # type: ignore[attr-defined]
    waiting.until(lambda: _downloads(served), what="the stream that was left to end")
    chunks = [echo.pb2.UploadThingRequest(chunk=b"abc")] * 4
    assert channel.upload(stub.UploadThing, chunks, agency=AGENCY, timeout=10).size == 12
    bad = [echo.pb2.UploadThingRequest(parent=f"agencies/{OTHER}")]
    with pytest.raises(errors.RemoteRefused, match="another agency"):
        channel.upload(stub.UploadThing, bad, agency=AGENCY, timeout=10)


def test_the_client_spreads_its_calls_over_all_addresses(tmp_path: Path) -> None:
    one = Echo(tmp_path)
    two = Echo(tmp_path, keys=one.keys)
    addresses = f"ipv4:127.0.0.1:{one.server.port},127.0.0.1:{two.server.port}"
    try:
        with client.Channel(addresses, one.keys.signer()) as channel:
            stub: Any = echo.pb2_grpc.EchoServiceStub(channel.grpc)

            def get(text: str) -> str:
                request = echo.pb2.GetThingRequest(text=text)
                answer = channel.call(stub.GetThing, request, agency=AGENCY, timeout=20)
                return str(answer.text)

            one.servicer.release.set()
            two.servicer.release.set()
            reached: set[int] = set()

            def all_reached() -> bool:
                get("wait")
                reached.update(
                    server.server.port for server in (one, two) if server.servicer.started.acquire(timeout=0)
                )
                return len(reached) == 2

            waiting.until(all_reached, what="calls at both")
            one.server.stop(5)
            assert [get("x") for _ in range(20)] == ["x"] * 20
    finally:
        one.close()
        two.close()


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "localhost:{}", "dns:///localhost:{}"])
def test_the_client_connects_again_to_a_server_that_was_away(tmp_path: Path, address: str) -> None:
    one = Echo(tmp_path)
    port = one.server.port
    with client.Channel(address.format(port), one.keys.signer()) as channel:
        stub: Any = echo.pb2_grpc.EchoServiceStub(channel.grpc)

        def get() -> str:
            request = echo.pb2.GetThingRequest(text="who")
            return str(channel.call(stub.GetThing, request, agency=AGENCY, timeout=10).name)

        assert get() == "services/other"
        one.close()
        with pytest.raises(errors.RemoteUnavailable, match="UNAVAILABLE"):
            get()
        two = Echo(tmp_path, keys=one.keys, port=port)

        def answered() -> bool:
            with contextlib.suppress(errors.RemoteUnavailable):
                return get() == "services/other"
            return False

        try:
            waiting.until(answered, what="the channel to connect again")
        finally:
            two.close()


def test_nobody_there(served: Echo) -> None:
    with client.Channel(f"127.0.0.1:{ports.free_ports(1)[0]}", served.keys.signer()) as channel:
        stub: Any = echo.pb2_grpc.EchoServiceStub(channel.grpc)
        with pytest.raises(errors.RemoteUnavailable, match="UNAVAILABLE"):
            channel.call(stub.GetThing, echo.pb2.GetThingRequest(), agency=AGENCY, timeout=10)


def test_a_key_that_the_other_side_does_not_know_is_not_the_inputs_fault(
    served: Echo, tmp_path: Path
) -> None:
    strangers = echo.Keys(tmp_path / "strangers")
    with client.Channel(served.address, strangers.signer()) as channel:
        stub: Any = echo.pb2_grpc.EchoServiceStub(channel.grpc)
        with pytest.raises(errors.RemoteUnavailable, match="UNAUTHENTICATED"):
            channel.call(stub.GetThing, echo.pb2.GetThingRequest(), agency=AGENCY, timeout=10)


def test_another_services_refusal_reaches_our_caller_and_its_failures_do_not(served: Echo) -> None:
    assert served.get("remote:method").name == "echo.v1.EchoService/GetThing"
    passed = refused(lambda: served.get("remote:closed"))
    assert (passed.code, passed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "THING_ALREADY_CLOSED")
    hidden = refused(lambda: served.get("remote:crash"))
    assert (hidden.code, hidden.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    away = refused(lambda: served.get("remote:database"))
    assert (away.code, away.reason) == (grpc.StatusCode.UNAVAILABLE, "REMOTE_UNAVAILABLE")
