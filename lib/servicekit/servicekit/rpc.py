"""The gRPC server of every service: grpcio, a small thread pool, and one guard around every method (§8).

The guard wraps each method once, when it is registered; what it needs per method (scope, where the resource
name is, metric attributes) is worked out then. For each call it asks for a deadline, verifies the token,
checks scope, creditor and agency, and turns whatever the method raises into an answer: a ServiceError into
its google.rpc.Status, a database that is away into UNAVAILABLE, anything else into INTERNAL with a trace id
and no text. A method without `recupera.options.v1.access` stops the start: nothing is open by mistake.

Also here: health (service name `liveness` is SERVING as long as the process answers, the others as long as
it is ready), reflection, and a stop that lets calls in flight finish.
"""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NoReturn, Protocol
from uuid import UUID

import grpc
from google.api import resource_pb2
from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from recupera.options.v1 import options_pb2
from servicekit import auth, db, errors, settings, telemetry

THREADS = 4
STREAMS = 2
"""Streams at a time, uploads and downloads together: each holds a thread, and unary calls need the others."""
MAX_MESSAGE = 8 * 1024 * 1024
LIVENESS = "liveness"

_TRANSPORT_LIMIT = 4 * MAX_MESSAGE
"""Up to here a message that is too large gets a typed answer; above it the transport refuses without
details.
"""
_NO_DEADLINE = 10 * 365 * 86_400.0
"""grpcio gives a call without deadline some 10^18 seconds."""
_MAX_TEXT = 400
_MAX_DETAILS = 4_096
"""Bytes of details: trailing metadata above 8 KiB is refused by clients and proxies."""
_READY_INTERVAL = 1.0

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_PASSED_ON = frozenset(
    {
        errors.Status.INVALID_ARGUMENT,
        errors.Status.NOT_FOUND,
        errors.Status.ALREADY_EXISTS,
        errors.Status.FAILED_PRECONDITION,
        errors.Status.ABORTED,
        errors.Status.RESOURCE_EXHAUSTED,
    }
)
"""What another service's refusal may be for our caller too; the rest is our mistake, so INTERNAL."""

_log = logging.getLogger(__name__)
_duration = telemetry.histogram(
    "recupera.rpc.server.duration", "s", "Time from the request to the last answer"
)


class DeadlineRequired(errors.ServiceError):
    """The call has no deadline: say how long you will wait (architecture.md §8)."""

    status = errors.Status.INVALID_ARGUMENT


class DeadlinePassed(errors.ServiceError):
    """The deadline passed before the call was begun; nothing was done."""

    status = errors.Status.DEADLINE_EXCEEDED


class MalformedMessage(errors.ServiceError):
    """The bytes of the request are not the message that the method takes."""

    status = errors.Status.INVALID_ARGUMENT


class MessageTooLarge(errors.ServiceError):
    """One message of the request is above 8 MiB."""

    status = errors.Status.RESOURCE_EXHAUSTED


class ScopeMissing(errors.ServiceError):
    """The token does not carry the scope of the method."""

    status = errors.Status.PERMISSION_DENIED


class AgencyMismatch(errors.ServiceError):
    """The request names a resource of another agency than the token's."""

    status = errors.Status.PERMISSION_DENIED


class CreditorNotAllowed(errors.ServiceError):
    """The token is bound to one creditor, and the method is not for creditors."""

    status = errors.Status.PERMISSION_DENIED


class TooManyStreams(errors.ServiceError):
    """The server has as many streams open as it can hold: try again, here or on another replica."""

    status = errors.Status.RESOURCE_EXHAUSTED


class MethodUnknown(errors.ServiceError):
    """The server has no such method."""

    status = errors.Status.UNIMPLEMENTED


class DatabaseUnavailable(errors.ServiceError):
    """The service's database does not answer just now: try again."""

    status = errors.Status.UNAVAILABLE


class InternalError(errors.ServiceError):
    """Something unexpected; the log line with the trace id tells what."""

    status = errors.Status.INTERNAL


class Settings(telemetry.Settings, Protocol):
    """The part of ServiceSettings that a server reads."""

    @property
    def rpc_port(self) -> int: ...
    @property
    def jwks_file(self) -> Any: ...
    @property
    def drain_delay(self) -> float: ...


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    caller: auth.Caller
    method: str


_current: contextvars.ContextVar[_Call] = contextvars.ContextVar("recupera_call")


def caller() -> auth.Caller:
    """Who makes the current call. Raises LookupError outside a call."""
    return _current.get().caller


def method() -> str:
    """The full name of the current method, `recupera.case.v1.CaseService/GetCase`: the method of
    `idempotency.once`.
    """
    return _current.get().method


class Server:
    """A running server; `port` is the one it listens on."""

    def __init__(
        self,
        server: grpc.Server,
        port: int,
        checks: health.HealthServicer,
        watched: Sequence[str],
        ready: Callable[[], bool],
    ) -> None:
        self.port = port
        self._server = server
        self._health = checks
        self._watched = watched
        self._ready = ready
        self._over = threading.Event()
        self._announced: bool | None = None
        self._announce()
        self._watcher = threading.Thread(target=self._watch, name="readiness", daemon=True)
        self._watcher.start()

    def drain(self, *, delay: float, grace: float = 25.0) -> None:
        """Answer NOT_SERVING, keep taking calls for `delay` s, then refuse new ones and let those in flight
        finish for at most `grace` s.
        """
        self._over.set()
        self._watcher.join()
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
        if ready is self._announced:
            return
        self._announced = ready
        status = (
            health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
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
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    telemetry.setup(service, "serve", settings)
    server = run_server(settings=settings, add_servicers=add_servicers, descriptors=descriptors, ready=ready)
    stopping.wait()
    _log.info("draining")
    server.drain(delay=settings.drain_delay)
    _log.info("stopped")
    telemetry.shutdown()


def run_server(
    *,
    settings: Settings,
    add_servicers: Callable[[grpc.Server], None],
    descriptors: Sequence[str],
    ready: Callable[[], bool] = lambda: True,
    threads: int = THREADS,
    streams: int = STREAMS,
) -> Server:
    """Start a server and return; telemetry and signals are the caller's. Port 0 takes a free one."""
    server = grpc.server(
        futures.ThreadPoolExecutor(threads, thread_name_prefix="rpc"),
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _TRANSPORT_LIMIT),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ],
    )
    guarded = _GuardedServer(
        server, _Guard(auth.Verifier(settings.jwks_file), threading.BoundedSemaphore(streams))
    )
    add_servicers(guarded)
    if unregistered := set(descriptors) - guarded.services:
        raise ValueError(f"services named but not added: {', '.join(sorted(unregistered))}")
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    checks.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(
        [*descriptors, health.SERVICE_NAME, reflection.SERVICE_NAME],
        _CappedServer(server, threading.BoundedSemaphore(1)),
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Refused:
    """Stands for a request that could not be read: what to answer."""

    error: errors.ServiceError


class _Plan:
    """What the guard knows of a method before the first call."""

    def __init__(self, described: MethodDescriptor) -> None:
        options = described.GetOptions()
        if not options.HasExtension(options_pb2.access) or not options.Extensions[options_pb2.access].scope:
            raise ValueError(f"{described.full_name} has no option (recupera.options.v1.access) with a scope")
        access = options.Extensions[options_pb2.access]
        self.method = f"{described.containing_service.full_name}/{described.name}"
        self.scope: str = access.scope
        self.creditor: bool = access.creditor
        self.for_services = not self.scope.endswith(".admin")
        self.paths = _resource_paths(described.input_type)
        self.ok = {"rpc.method": self.method, "rpc.status": "OK", "reason": ""}

    def permit(self, who: auth.Caller) -> None:
        """Raises ScopeMissing, CreditorNotAllowed."""
        if self.scope not in who.scopes and not (who.service is not None and self.for_services):
            raise ScopeMissing(f"the token lacks the scope {self.scope}", scope=self.scope)
        if who.creditor is not None and not self.creditor:
            raise CreditorNotAllowed("a token of a creditor cannot call this method")

    def check_agency(self, who: auth.Caller, request: Message) -> None:
        """Raises AgencyMismatch."""
        for path in self.paths:
            value: Any = request
            for name in path:
                value = getattr(value, name)
            if not value:
                continue
            for one in (value,) if isinstance(value, str | bytes) else value:
                if not _of_agency(one, who.agency):
                    raise AgencyMismatch(
                        f"{'.'.join(path)} names a resource of another agency than the token's",
                        field=".".join(path),
                    )


def _of_agency(value: str | bytes, agency: UUID) -> bool:
    if isinstance(value, bytes):
        return value == agency.bytes
    if value.startswith("agencies/"):
        return value[9:45] == str(agency) and value[45:46] in ("", "/")
    return True  # not a name, or of a form that the method itself refuses


def _resource_paths(message: Descriptor) -> list[tuple[str, ...]]:
    """Where the request names resources: its own fields and those of the messages it holds directly
    (UpdateCase).
    """
    paths: list[tuple[str, ...]] = [(field.name,) for field in message.fields if _names_resource(field)]
    for field in message.fields:
        if field.message_type is not None and not field.is_repeated and field.message_type is not message:
            paths += [
                (field.name, inner.name) for inner in field.message_type.fields if _names_resource(inner)
            ]
    return paths


def _names_resource(field: FieldDescriptor) -> bool:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return field.name == "agency"
    return field.type == FieldDescriptor.TYPE_STRING and (
        field.name in ("name", "names", "parent", "agency")
        or field.GetOptions().HasExtension(resource_pb2.resource_reference)
    )


class _Guard:
    """Wraps the handlers of methods."""

    def __init__(self, verifier: auth.Verifier, streams: threading.BoundedSemaphore) -> None:
        self._verify = verifier.verify
        self._streams = streams

    def wrap(self, plan: _Plan, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler of the same kind that lets through only what the plan permits."""
        read = _reader(handler.request_deserializer)
        write = handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(plan, handler.unary_unary), read, write)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(plan, handler.unary_stream, uploads=False), read, write
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._upload(plan, handler.stream_unary), read, write)
        assert handler.stream_stream is not None
        return grpc.stream_stream_rpc_method_handler(
            self._streaming(plan, handler.stream_stream, uploads=True), read, write
        )

    def _unary(self, plan: _Plan, behavior: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            watch = _Watch(plan, context)
            try:
                who = self._admit(plan, context, watch)
                if type(request) is _Refused:
                    raise request.error
                plan.check_agency(who, request)
                response = behavior(request, context)
            except Exception as error:
                watch.answer(error)
            watch.done(plan.ok)
            return response

        return guarded

    def _upload(
        self, plan: _Plan, behavior: Callable[[Any, grpc.ServicerContext], Any]
    ) -> Callable[..., Any]:
        def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            watch = _Watch(plan, context)
            try:
                who = self._admit(plan, context, watch)
                with _Slot(self._streams):
                    response = behavior(_checked(plan, who, requests), context)
            except Exception as error:
                watch.answer(error)
            watch.done(plan.ok)
            return response

        return guarded

    def _streaming(
        self, plan: _Plan, behavior: Callable[[Any, grpc.ServicerContext], Iterable[Any]], *, uploads: bool
    ) -> Callable[..., Iterator[Any]]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            watch = _Watch(plan, context)
            try:
                who = self._admit(plan, context, watch)
                if uploads:
                    request = _checked(plan, who, request)
                elif type(request) is _Refused:
                    raise request.error
                else:
                    plan.check_agency(who, request)
                with _Slot(self._streams):
                    yield from behavior(request, context)
            except GeneratorExit:
                watch.done({**plan.ok, "rpc.status": "CANCELLED"})
                raise
            except Exception as error:
                watch.answer(error)
            watch.done(plan.ok)

        return guarded

    def _admit(self, plan: _Plan, context: grpc.ServicerContext, watch: _Watch) -> auth.Caller:
        remaining = context.time_remaining()
        if remaining is None or remaining > _NO_DEADLINE:
            raise DeadlineRequired("the call has no deadline: say how long you will wait")
        if remaining <= 0:
            raise DeadlinePassed("the deadline passed before the call was begun")
        if not watch.authorization:
            raise auth.TokenMissing("the call has no `authorization: Bearer <token>`")
        scheme, _, token = watch.authorization.partition(" ")
        if scheme not in ("Bearer", "bearer") or not token:
            raise auth.TokenInvalid("expected `authorization: Bearer <token>`")
        who = self._verify(token)
        plan.permit(who)
        _current.set(_Call(who, plan.method))
        return who


class _Watch:
    """Time, span and answer of one call. grpcio gives each call a context of its own, so nothing is reset."""

    __slots__ = ("_begun", "_context", "_plan", "_span", "authorization")

    def __init__(self, plan: _Plan, context: grpc.ServicerContext) -> None:
        self._begun = time.perf_counter()
        self._plan = plan
        self._context = context
        self.authorization = ""
        parent = None
        for key, value in context.invocation_metadata():
            if key == "authorization":
                self.authorization = str(value)
            elif key == "traceparent":
                parent = str(value)
        self._span = telemetry.server_span(plan.method, parent)

    def done(self, attributes: Mapping[str, str]) -> None:
        _duration.record(time.perf_counter() - self._begun, attributes)
        if self._span is not None:
            self._span.set_attribute("rpc.status", attributes["rpc.status"])
            self._span.end()

    def answer(self, error: Exception) -> NoReturn:
        """Answer the call with the error; always raises."""
        if type(error) is grpc.RpcError:  # grpcio's own: the client went away in the middle of an upload
            self.done({**self._plan.ok, "rpc.status": "CANCELLED"})
            raise error
        told = _told(error, self._plan.method)
        if self._span is not None:
            telemetry.fail(self._span, told)
        self.done({"rpc.method": self._plan.method, "rpc.status": told.status.name, "reason": told.reason})
        self._context.abort_with_status(_Answer(told))


class _Slot:
    """One of the few streams that may be open at a time."""

    __slots__ = ("_free",)

    def __init__(self, free: threading.BoundedSemaphore) -> None:
        self._free = free

    def __enter__(self) -> None:
        if not self._free.acquire(blocking=False):
            raise TooManyStreams("the server holds as many streams as it can: try again")

    def __exit__(self, *_: object) -> None:
        self._free.release()


def _told(error: Exception, method: str) -> errors.ServiceError:
    """What the caller is told of an error."""
    if isinstance(error, errors.RemoteRefused):
        if error.status in _PASSED_ON:
            return error
    elif isinstance(error, errors.ServiceError):
        return error
    elif db.is_unavailable(error):
        _log.warning("the database is unavailable", exc_info=error, extra={"method": method})
        return DatabaseUnavailable("the service's database does not answer just now: try again")
    _log.error("unexpected error", exc_info=error, extra={"method": method})
    trace = telemetry.trace_id()
    return InternalError(f"internal error; its trace id is {trace}", trace_id=trace)


class _Answer(grpc.Status):
    """A google.rpc.Status with ErrorInfo and, where fields are wrong, BadRequest, as grpcio takes it."""

    def __init__(self, error: errors.ServiceError) -> None:
        self.code = _CODES[int(error.status)]
        self.details = error.message[:_MAX_TEXT]
        status = status_pb2.Status(code=int(error.status), message=self.details)
        info = error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=errors.DOMAIN,
            metadata={key: value[:_MAX_TEXT] for key, value in error.metadata.items()},
        )
        bad = error_details_pb2.BadRequest()
        for field in error.fields:
            bad.field_violations.add(field=field.field, description=field.description[:_MAX_TEXT])
            if bad.ByteSize() > _MAX_DETAILS - info.ByteSize():
                del bad.field_violations[-1]
                info.metadata["field_violations_left_out"] = str(
                    len(error.fields) - len(bad.field_violations)
                )
                break
        for detail in (info, bad) if error.fields else (info,):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)


def _reader(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """The deserialiser that gives `_Refused` where grpcio would end the call with INTERNAL."""
    assert deserialize is not None

    def read(data: bytes) -> Any:
        if len(data) > MAX_MESSAGE:
            return _Refused(
                MessageTooLarge(
                    f"a message of {len(data)} bytes is above {MAX_MESSAGE}", limit_bytes=MAX_MESSAGE
                )
            )
        try:
            return deserialize(data)
        except DecodeError:
            return _Refused(MalformedMessage("the bytes of the request are not the message of this method"))

    return read


def _checked(plan: _Plan, who: auth.Caller, requests: Iterator[Any]) -> Iterator[Any]:
    for request in requests:
        if type(request) is _Refused:
            raise request.error
        plan.check_agency(who, request)
        yield request


class _GuardedServer(grpc.Server):
    """What `add_..Servicer_to_server` is given: methods reach the real server with the guard around them."""

    def __init__(self, server: grpc.Server, guard: _Guard) -> None:
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
            name: self._guard.wrap(_Plan(described.methods_by_name[name]), handler)
            for name, handler in method_handlers.items()
        }
        _add(self._server, service_name, guarded)
        self.services.add(service_name)

    def add_insecure_port(self, address: str) -> int:
        raise NotImplementedError

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def stop(self, grace: float | None) -> threading.Event:
        raise NotImplementedError


class _CappedServer(_GuardedServer):
    """For reflection, which is open to all: only the number of streams is limited."""

    def __init__(self, server: grpc.Server, streams: threading.BoundedSemaphore) -> None:
        self._server = server
        self._streams = streams

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Cap the streams of the service's methods and add them."""
        _add(
            self._server,
            service_name,
            {name: self._cap(handler) for name, handler in method_handlers.items()},
        )

    def _cap(self, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        behavior = handler.stream_stream
        assert behavior is not None

        def capped(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                with _Slot(self._streams):
                    yield from behavior(requests, context)
            except TooManyStreams as error:
                context.abort_with_status(_Answer(error))

        return grpc.stream_stream_rpc_method_handler(
            capped, handler.request_deserializer, handler.response_serializer
        )


def _add(server: grpc.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
    server.add_registered_method_handlers(service, dict(handlers))


class _Unknown(grpc.GenericRpcHandler):
    """Asked last: a method that nobody has."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that answers METHOD_UNKNOWN whatever is sent."""
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    @staticmethod
    def _refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort_with_status(_Answer(MethodUnknown("the server has no such method")))
