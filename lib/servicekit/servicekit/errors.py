"""Errors that are answers: one class per way to fail (architecture.md §8).

A service defines `class CaseAlreadyClosed(errors.ServiceError): status = errors.Status.FAILED_PRECONDITION`
beside the function that raises it. The server turns it into a google.rpc.Status with
ErrorInfo(reason="CASE_ALREADY_CLOSED", domain="recupera", metadata) and, for bad input, BadRequest. Messages
and metadata reach clients and logs: ids, states, limits; never names, documents, addresses or numbers of
people.
"""

import dataclasses
import enum
import re
from collections.abc import Sequence
from typing import Any, ClassVar

DOMAIN = "recupera"


class Status(enum.IntEnum):
    """The codes of google.rpc.Code that a service may answer."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclasses.dataclass(frozen=True)
class FieldViolation:
    """One wrong field: `field` is its path in the request (`filter`, `terms[2].due_date`), `description` what
    was expected.
    """

    field: str
    description: str


def reason_of(class_name: str) -> str:
    """CaseAlreadyClosed -> CASE_ALREADY_CLOSED, RPCRefused -> RPC_REFUSED."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).upper()


class ServiceError(Exception):
    """Base of all errors that a caller is told about. `metadata` values are short strings, e.g. ids and
    states.
    """

    status: Status = Status.INTERNAL
    reason: str = "SERVICE_ERROR"
    transient: ClassVar[bool] = False
    """True where the same call may succeed later without anyone changing anything."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.reason = reason_of(cls.__name__)

    def __init__(self, message: str, *, fields: Sequence[FieldViolation] = (), **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = tuple(fields)
        self.metadata = {key: str(value) for key, value in metadata.items()}


class InvalidRequest(ServiceError):
    """The request is wrong whatever the state of the system: `fields` says where."""

    status = Status.INVALID_ARGUMENT

    def __init__(
        self, message: str = "", *, fields: Sequence[FieldViolation] = (), **metadata: object
    ) -> None:
        text = (
            message
            or "; ".join(f"{field.field}: {field.description}" for field in fields)
            or "the request is invalid"
        )
        super().__init__(text, fields=fields, **metadata)


def invalid(field: str, description: str) -> InvalidRequest:
    """InvalidRequest about one field."""
    return InvalidRequest(fields=[FieldViolation(field, description)])


class ResourceNotFound(ServiceError):
    """No such resource, or none that the caller may see: the two are not told apart (§1.3)."""

    status = Status.NOT_FOUND


class VersionMismatch(ServiceError):
    """The resource changed since the caller read it (stale etag): read again and decide again."""

    status = Status.ABORTED


class RequestIdReused(ServiceError):
    """The request_id was used before by the same caller with another body (architecture.md §8)."""

    status = Status.INVALID_ARGUMENT


class PermissionMissing(ServiceError):
    """The caller is known, and may not do this."""

    status = Status.PERMISSION_DENIED


class RemoteUnavailable(ServiceError):
    """Another service did not answer, or not in time, or could not be called as configured. Not the input's
    fault: try again.
    """

    status = Status.UNAVAILABLE
    transient = True


class RemoteRefused(ServiceError):
    """Another service answered with an error: `reason` and `status` are its own, `message` its text."""

    def __init__(self, reason: str, status: Status, message: str, **metadata: object) -> None:
        super().__init__(message, fields=(), **metadata)
        self.reason = reason
        self.status = status
