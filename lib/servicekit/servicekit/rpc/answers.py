"""How an error becomes the answer of a call: google.rpc.Status with ErrorInfo and BadRequest (§8)."""

from __future__ import annotations

import logging

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from servicekit import db, errors, telemetry

_MAX_TEXT = 400
_MAX_DETAILS = 4_096
"""Bytes of details: trailing metadata above 8 KiB is refused by clients and proxies."""

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


class DatabaseUnavailable(errors.ServiceError):
    """The service's database does not answer just now: try again."""

    status = errors.Status.UNAVAILABLE


class InternalError(errors.ServiceError):
    """Something unexpected; the log line with the trace id tells what."""

    status = errors.Status.INTERNAL


def told(error: Exception, method: str) -> errors.ServiceError:
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


class Answer(grpc.Status):
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
