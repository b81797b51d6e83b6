"""The gRPC server of every service: grpcio, a small thread pool, and one guard around every method (§8).

The guard wraps each method once, when it is registered; what it needs per method (scope, where the resource
name is, metric attributes) is worked out then. For each call it asks for a deadline, verifies the token,
checks scope, creditor and agency, and turns whatever the method raises into an answer: a ServiceError into
its google.rpc.Status, a database that is away into UNAVAILABLE, anything else into INTERNAL with a trace id
and no text. A method without `recupera.options.v1.access` stops the start: nothing is open by mistake.

Also here: health by Check (service name `liveness` is SERVING as long as the process answers, the others as
long as it is ready), reflection, and a stop that lets calls in flight finish.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NoReturn, Protocol, cast

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from servicekit import auth, errors, settings, telemetry
from servicekit.rpc import answers, guard
from servicekit.rpc.guard import caller, method

__all__ = ["Server", "Settings", "caller", "method", "run_server", "serve"]

THREADS = 3
"""More only take the interpreter from one another: four answer fewer calls (docs/benchmarks.md)."""
UPLOADS = DOWNLOADS = 2
"""Streams at a time, in threads of their own: people's slow uploads keep no call and no worker's slice waiting."""
LIVENESS = "liveness"

_TRANSPORT_LIMIT = 4 * guard.MAX_MESSAGE
"""Up to here a message that is too large gets a typed answer; above it the transport refuses without
details.
"""
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 30_000),
)
"""A client whose machine is gone says no goodbye, and grpcio alone would ask for a sign of life after two hours: its
stream ends after 40 s. One that is there and silent has 60 s: grpcio 1.85 heeds the second figure only as the time that
TCP has (TCP_USER_TIMEOUT), and waits for the answer to its ping as long as the third says.
"""
_READY_INTERVAL = 1.0
_DOWNLOAD_WAIT = 2.0
"""Seconds for a place: a worker's slice is sent in less."""
_REFLECTION_WAIT = 0.5
"""Seconds for a place: reflection clients open the next stream just before the last one has ended."""

_log = logging.getLogger(__name__)


class MethodUnknown(errors.ServiceError):
    """The server has no such method."""

    status = errors.Status.UNIMPLEMENTED


class Settings(telemetry.Settings, Protocol):
    """The part of ServiceSettings that a server reads."""

    @property
    def rpc_port(self) -> int: ...
    @property
    def jwks_file(self) -> Path: ...
    @property
    def drain_delay(self) -> float: ...


class Server:
    """A running server; `port` is the one it listens on."""

    def __init__(
        self,
        server: grpc.Server,
        port: int,
        checks: _Health,
        watched: Sequence[str],
        ready: Callable[[], bool],
    ) -> None:
        self.port = port
        self._server = server
        self._health = checks
        self._watched = watched
        self._ready = ready
        self._over = threading.Event()
        self._setting = threading.Lock()
        self._announced: bool | None = None
        self._announce()
        self._watcher = threading.Thread(target=self._watch, name="readiness", daemon=True)
        self._watcher.start()

    def drain(self, *, delay: float, grace: float = 25.0) -> None:
        """Answer NOT_SERVING, keep taking calls for `delay` s, then refuse new ones and let those in flight
        finish for at most `grace` s.
        """
        self._over.set()
        self._watcher.join(timeout=1.0)  # a check may hang; what it says later is not heard
        self._set(ready=False)
        if delay > 0:
            time.sleep(delay)
        self._server.stop(grace).wait()

    def stop(self, grace: float = 0.0) -> None:
        """Stop: calls in flight have `grace` seconds."""
        self.drain(delay=0, grace=grace)

    def _watch(self) -> None:
        while not self._over.wait(_READY_INTERVAL):
            self._announce()

    def _announce(self) -> None:
        try:
            ready = self._ready()
        except Exception:
            if self._announced is not False:
                _log.warning("the readiness check failed", exc_info=True)
            ready = False
        self._set(ready=ready)

    def _set(self, *, ready: bool) -> None:
        with self._setting:
            if ready is self._announced or (ready and self._over.is_set()):
                return
            self._announced = ready
            status = (
                health_pb2.HealthCheckResponse.SERVING
                if ready
                else health_pb2.HealthCheckResponse.NOT_SERVING
            )
            for name in self._watched:
                self._health.set(name, status)
        _log.info("serving" if ready else "not serving", extra={"port": self.port})


def serve(
    *,
    settings: Settings,
    service: str,
    add_servicers: Callable[[grpc.Server], None],
    descriptors: Sequence[str],
    ready: Callable[[], bool],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return: NOT_SERVING, `settings.drain_delay` s in which
    new calls are still taken, then at most 25 s for those in flight. Telemetry is set up before and flushed
    after.

    `add_servicers` calls the generated `add_..Servicer_to_server`; `descriptors` are the full names of the
    services it adds; `ready` is asked once a second and may raise. Raises SettingInvalid when the port is
    in use.
    """
    stopping = _stop_signals()
    telemetry.setup(service, "serve", settings)
    server = run_server(settings=settings, add_servicers=add_servicers, descriptors=descriptors, ready=ready)
    os.read(stopping, 1)
    _log.info("draining")
    server.drain(delay=settings.drain_delay)
    _log.info("stopped")
    telemetry.shutdown()


def _stop_signals() -> int:
    """A descriptor that can be read once SIGTERM or SIGINT has come.

    Not an Event set by the handler: a signal between Python's look for signals and the wait on the lock is
    seen only when the wait ends (run: on a busy machine, several SIGTERMs of a dozen were never noticed).
    The byte is there either way.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


def run_server(
    *,
    settings: Settings,
    add_servicers: Callable[[grpc.Server], None],
    descriptors: Sequence[str],
    ready: Callable[[], bool] = lambda: True,
) -> Server:
    """Start a server and return; telemetry and signals are the caller's. Port 0 takes a free one."""
    server = grpc.server(
        futures.ThreadPoolExecutor(THREADS, thread_name_prefix="rpc"),
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _TRANSPORT_LIMIT),
            ("grpc.max_send_message_length", guard.MAX_MESSAGE),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            *_KEEPALIVE,
        ],
    )
    guarded = _GuardedServer(
        server,
        guard.Guard(
            auth.Verifier(settings.jwks_file),
            uploads=guard.Streams("upload", UPLOADS),
            downloads=guard.Streams("download", DOWNLOADS, wait=_DOWNLOAD_WAIT),
        ),
    )
    add_servicers(cast(grpc.Server, guarded))
    if unregistered := set(descriptors) - guarded.services:
        raise ValueError(f"services named but not added: {', '.join(sorted(unregistered))}")
    checks = _Health(experimental_non_blocking=False)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    checks.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        [*descriptors, health.SERVICE_NAME, reflection.SERVICE_NAME],
        cast(grpc.Server, _CappedServer(server, guard.Streams("reflection", 1, wait=_REFLECTION_WAIT))),
    )
    server.add_generic_rpc_handlers([_Unknown()])
    port = _listen(server, settings)
    server.start()
    return Server(server, port, checks, ["", *descriptors], ready)


def _listen(server: grpc.Server, wanted: Settings) -> int:
    address = f"{wanted.listen_host}:{wanted.rpc_port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise settings.SettingInvalid(
            f"RECUPERA_RPC_PORT: cannot listen on {address}: stop what uses the port, or set another one",
            "RECUPERA_RPC_PORT",
            "RECUPERA_LISTEN_HOST",
        )
    return port


class _GuardedServer:
    """What `add_..Servicer_to_server` is given in place of the server, of which it uses these two methods:
    what it adds reaches the real server with the guard around it.
    """

    def __init__(self, server: grpc.Server, guard: guard.Guard) -> None:
        self._server = server
        self._guard = guard
        self.services: set[str] = set()

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Nothing: generated code gives the same methods to `add_registered_method_handlers`, which guards
        them.
        """

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Guard the methods of one service and add them. Raises ValueError where one has no access option."""
        described = descriptor_pool.Default().FindServiceByName(service_name)
        guarded = {
            name: self._guard.wrap(guard.Plan(described.methods_by_name[name]), handler)
            for name, handler in method_handlers.items()
        }
        self._server.add_registered_method_handlers(service_name, guarded)
        self.services.add(service_name)


class _Health(health.HealthServicer):
    """Check as the package has it, and no Watch.

    The package's Watch hangs the whole server when a client leaves while a status is set (grpc/grpc#43403: the
    status waits for its sending, whose end is told by the thread that waits for the status), and a watch that
    is open keeps a drain waiting. Kubernetes and Envoy ask Check; a client that watches takes this answer for
    "healthy", as the standard says (gRPC proposal A17).
    """

    def Watch(  # noqa: N802  # gRPC's name of the method
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Callable[..., Any] | None = None,
    ) -> NoReturn:
        """Refuse with UNIMPLEMENTED."""
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "health is told by Check only")


class _CappedServer(_GuardedServer):
    """For reflection, which is open to all: only the number of streams is limited."""

    def __init__(self, server: grpc.Server, streams: guard.Streams) -> None:
        self._server = server
        self._streams = streams

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Cap the streams of the service's methods and add them."""
        capped = {name: self._cap(handler) for name, handler in method_handlers.items()}
        self._server.add_registered_method_handlers(service_name, capped)

    def _cap(self, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        behavior = handler.stream_stream
        assert behavior is not None

        @self._streams.served
        def capped(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                with self._streams.place():
                    yield from behavior(requests, context)
            except guard.TooManyStreams as error:
                context.abort_with_status(answers.Answer(error))

        return grpc.stream_stream_rpc_method_handler(
            capped, handler.request_deserializer, handler.response_serializer
        )


class _Unknown(grpc.GenericRpcHandler):
    """Asked last: a method that nobody has."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that answers METHOD_UNKNOWN whatever is sent."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    @staticmethod
    def _refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort_with_status(answers.Answer(MethodUnknown("the server has no such method")))
