"""Dates and instants on the wire: google.type.Date, Timestamp, and days since 1970-01-01 in the columns of
chunks.
"""

import datetime

from google.protobuf import timestamp_pb2
from google.type import date_pb2

from servicekit import errors

_EPOCH = datetime.date(1970, 1, 1).toordinal()
_EPOCH_INSTANT = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def to_proto(value: datetime.date) -> date_pb2.Date:
    """A full google.type.Date."""
    return date_pb2.Date(year=value.year, month=value.month, day=value.day)


def from_proto(message: date_pb2.Date, field: str) -> datetime.date:
    """Read a full date found at path `field` of a request.

    Raises InvalidRequest on a partial (year or month or day 0), impossible or empty date: test `HasField`
    first where a date is optional.
    """
    try:
        return datetime.date(message.year, message.month, message.day)
    except ValueError:
        raise errors.invalid(field, "expected a full date with year, month and day") from None


def to_timestamp(value: datetime.datetime) -> timestamp_pb2.Timestamp:
    """An aware datetime to Timestamp, to the microsecond. Raises ValueError on a naive one."""
    if value.tzinfo is None:
        raise ValueError("a naive datetime has no instant")
    elapsed = value - _EPOCH_INSTANT
    return timestamp_pb2.Timestamp(
        seconds=elapsed.days * 86_400 + elapsed.seconds, nanos=elapsed.microseconds * 1_000
    )


def from_timestamp(message: timestamp_pb2.Timestamp, field: str) -> datetime.datetime:
    """A Timestamp to an aware datetime in UTC, finer than a microsecond cut off. Raises InvalidRequest out of
    range.
    """
    if not 0 <= message.nanos < 1_000_000_000:
        raise errors.invalid(field, "expected nanos from 0 to 999999999")
    try:
        return _EPOCH_INSTANT + datetime.timedelta(
            seconds=message.seconds, microseconds=message.nanos // 1_000
        )
    except OverflowError:
        raise errors.invalid(field, "expected an instant from year 1 to 9999") from None


def epoch_days(value: datetime.date) -> int:
    """Days since 1970-01-01."""
    return value.toordinal() - _EPOCH


def from_epoch_days(days: int) -> datetime.date:
    """The date `days` after 1970-01-01."""
    return datetime.date.fromordinal(days + _EPOCH)
