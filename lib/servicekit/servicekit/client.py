"""Calls to other services: short service tokens, a deadline on every call, errors as ours (architecture.md
§8).

    channel = client.Channel("127.0.0.1:7101", signer)
    stub = case_service_pb2_grpc.CaseServiceStub(channel.grpc)
    answer = channel.call(stub.ReserveContacts, request, agency=agency, timeout=5.0)

Blocking. In a worker call it from `prepare` or a timer, which the host runs in eventlet's tpool, never
inside a transaction (architecture.md §4).
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar, cast
from uuid import UUID

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from servicekit import auth, errors, telemetry

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")

MAX_MESSAGE = 8 * 1024 * 1024
_BALANCED = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
"""Calls go round all addresses of a name. grpcio's default keeps to one, so a service's other replicas would idle."""

_NOT_THE_INPUT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Load, network, keys or a release under way: the same call may succeed later, so facts are not parked for
it.
"""
_INPUT_AFTER_ALL = frozenset({"MESSAGE_TOO_LARGE"})

_duration = telemetry.histogram(
    "recupera.rpc.client.duration", "s", "Time from the request to the last answer"
)


class Channel:
    """Connections to one service, one to each address of its name, shared by all threads; connects when first used
    and again after a failure.
    """

    def __init__(self, address: str, signer: auth.Signer) -> None:
        self._address = address
        self._signer = signer
        self.grpc = grpc.insecure_channel(
            address,
            options=[
                ("grpc.service_config", _BALANCED),
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", 4 * MAX_MESSAGE),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
            ],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections; calls in flight are cancelled."""
        self.grpc.close()

    def call(
        self,
        stub_method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        agency: UUID,
        timeout: float,
    ) -> Response:
        """One request, one answer, within `timeout` seconds.

        Raises RemoteUnavailable where trying again may help, RemoteRefused with the other side's reason else.
        """
        name = request.DESCRIPTOR.full_name
        return self._measured(
            name, lambda: stub_method(request, timeout=timeout, metadata=self._metadata(agency))
        )

    def stream(
        self,
        stub_method: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        *,
        agency: UUID,
        timeout: float,
    ) -> Iterator[Response]:
        """One request, many answers, all within `timeout` seconds; errors as `call`, also in the middle.

        Leaving the iteration early (closing the iterator) cancels the call.
        """
        name = request.DESCRIPTOR.full_name
        answers = self._measured(
            name, lambda: stub_method(request, timeout=timeout, metadata=self._metadata(agency))
        )
        try:
            yield from answers
        except grpc.RpcError as error:
            raise self._translated(error) from None
        finally:
            answers.cancel()

    def upload(
        self,
        stub_method: "grpc.StreamUnaryMultiCallable[Request, Response]",
        requests: Iterable[Request],
        *,
        agency: UUID,
        timeout: float,
    ) -> Response:
        """Many requests, one answer, within `timeout` seconds; errors as `call`."""
        return self._measured(
            "upload", lambda: stub_method(iter(requests), timeout=timeout, metadata=self._metadata(agency))
        )

    def _metadata(self, agency: UUID) -> tuple[tuple[str, str], ...]:
        return (
            ("authorization", f"Bearer {self._signer.token(agency)}"),
            ("traceparent", telemetry.traceparent()),
        )

    def _measured(self, name: str, run: Callable[[], Result]) -> Result:
        begun = time.perf_counter()
        status, reason = "OK", ""
        with telemetry.span(f"call {name}", **{"rpc.request": name}):
            try:
                return run()
            except grpc.RpcError as error:
                translated = self._translated(error)
                status, reason = translated.status.name, translated.reason
                raise translated from None
            finally:
                _duration.record(
                    time.perf_counter() - begun, {"rpc.request": name, "rpc.status": status, "reason": reason}
                )

    def _translated(self, error: grpc.RpcError) -> errors.RemoteUnavailable | errors.RemoteRefused:
        call = cast(grpc.Call, error)  # what a stub raises is both, which the types cannot say
        code = call.code()
        reason, metadata = _error_info(call)
        if code in _NOT_THE_INPUT and reason not in _INPUT_AFTER_ALL:
            return errors.RemoteUnavailable(
                f"the service at {self._address} did not answer: {code.name}",
                remote_status=code.name,
                remote_reason=reason,
            )
        known = {status.value for status in errors.Status}
        status = errors.Status(code.value[0]) if code.value[0] in known else errors.Status.INTERNAL
        text = (
            (call.details() or code.name)
            if reason
            else f"the service at {self._address} answered {code.name}"
        )
        return errors.RemoteRefused(reason or code.name, status, text, **metadata)


def _error_info(error: grpc.Call) -> tuple[str, dict[str, str]]:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that do not fit the status: not one of our servers
        return "", {}
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info) and info.domain == errors.DOMAIN:
            reserved = {"message", "status", "reason", "fields"}
            return info.reason, {key: value for key, value in info.metadata.items() if key not in reserved}
    return "", {}
