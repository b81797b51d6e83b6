"""The guard around every method: deadline, token, scope, creditor, agency, telemetry and errors (§8).

It wraps each method once, when it is registered; what it needs to know of a method (scope, where its requests
name resources, metric attributes) is worked out then, so that a call costs little.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import grpc
from google.api import resource_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message

from recupera.options.v1 import options_pb2
from servicekit import auth, errors, telemetry
from servicekit.rpc import answers

F = TypeVar("F", bound=Callable[..., Any])
MAX_MESSAGE = 8 * 1024 * 1024
_NO_DEADLINE = 10 * 365 * 86_400.0
"""grpcio gives a call without deadline some 10^18 seconds."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class _Refused:
    """Stands for a request that could not be read: what to answer."""

    error: errors.ServiceError


class Plan:
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


class Guard:
    """Wraps the handlers of methods."""

    def __init__(self, verifier: auth.Verifier, *, uploads: Streams, downloads: Streams) -> None:
        """Streams in which the client sends are of `uploads`, the others of `downloads`."""
        self._verify = verifier.verify
        self._uploads = uploads
        self._downloads = downloads

    def wrap(self, plan: Plan, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler of the same kind that lets through only what the plan permits."""
        read = _reader(handler.request_deserializer)
        write = handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(plan, handler.unary_unary), read, write)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(plan, handler.unary_stream, self._downloads), read, write
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._upload(plan, handler.stream_unary), read, write)
        assert handler.stream_stream is not None
        return grpc.stream_stream_rpc_method_handler(
            self._streaming(plan, handler.stream_stream, self._uploads), read, write
        )

    def _unary(self, plan: Plan, behavior: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
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

    def _upload(self, plan: Plan, behavior: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
        @self._uploads.served
        def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            watch = _Watch(plan, context)
            try:
                who = self._admit(plan, context, watch)
                with self._uploads.place():
                    response = behavior(_checked(plan, who, requests), context)
            except Exception as error:
                watch.answer(error)
            watch.done(plan.ok)
            return response

        return guarded

    def _streaming(
        self, plan: Plan, behavior: Callable[[Any, grpc.ServicerContext], Iterable[Any]], streams: Streams
    ) -> Callable[..., Iterator[Any]]:
        @streams.served
        def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            watch = _Watch(plan, context)
            try:
                who = self._admit(plan, context, watch)
                if streams is self._uploads:
                    request = _checked(plan, who, request)
                elif type(request) is _Refused:
                    raise request.error
                else:
                    plan.check_agency(who, request)
                with streams.place():
                    yield from behavior(request, context)
            except GeneratorExit:
                watch.done({**plan.ok, "rpc.status": "CANCELLED"})
                raise
            except Exception as error:
                watch.answer(error)
            watch.done(plan.ok)

        return guarded

    def _admit(self, plan: Plan, context: grpc.ServicerContext, watch: _Watch) -> auth.Caller:
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

    def __init__(self, plan: Plan, context: grpc.ServicerContext) -> None:
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
        told = answers.told(error, self._plan.method)
        if self._span is not None:
            telemetry.fail(self._span, told)
        self.done({"rpc.method": self._plan.method, "rpc.status": told.status.name, "reason": told.reason})
        self._context.abort_with_status(answers.Answer(told))


class Streams:
    """Streams of one kind: so many at a time, in threads of their own, so that calls keep theirs.

    Who waited for a place in vain, `wait` seconds, is refused with TooManyStreams; one thread more is there for that.
    """

    def __init__(self, name: str, places: int, *, wait: float = 0.0) -> None:
        self._free = threading.BoundedSemaphore(places)
        self._threads = futures.ThreadPoolExecutor(places + 1, thread_name_prefix=name)
        self._wait = wait

    def served(self, behavior: F) -> F:
        """The behavior, run in these threads."""
        behavior.experimental_thread_pool = self._threads  # type: ignore[attr-defined] # grpcio looks for it here
        return behavior

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places."""
        if not self._free.acquire(timeout=self._wait):
            raise TooManyStreams("the server holds as many streams as it can: try again")
        try:
            yield
        finally:
            self._free.release()


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


def _checked(plan: Plan, who: auth.Caller, requests: Iterator[Any]) -> Iterator[Any]:
    for request in requests:
        if type(request) is _Refused:
            raise request.error
        plan.check_agency(who, request)
        yield request
