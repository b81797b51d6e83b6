"""Dates and instants travel unchanged, and bad ones are refused by field."""

import datetime

import pytest
from google.protobuf import timestamp_pb2
from google.type import date_pb2
from hypothesis import given
from hypothesis import strategies as st

from servicekit import dates, errors


@given(st.dates())
def test_dates_survive_the_wire_and_the_columns(value: datetime.date) -> None:
    assert dates.from_proto(dates.to_proto(value), "d") == value
    assert dates.from_epoch_days(dates.epoch_days(value)) == value


def test_epoch_days() -> None:
    assert dates.epoch_days(datetime.date(1970, 1, 1)) == 0
    assert dates.epoch_days(datetime.date(2026, 11, 22)) == 20779
    assert dates.epoch_days(datetime.date(1969, 12, 31)) == -1


@pytest.mark.parametrize(
    ("year", "month", "day"), [(0, 0, 0), (2026, 0, 0), (2026, 2, 0), (0, 2, 1), (2026, 2, 30), (-1, 1, 1)]
)
def test_partial_and_impossible_dates_are_refused(year: int, month: int, day: int) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        dates.from_proto(date_pb2.Date(year=year, month=month, day=day), "terms.due_date")
    assert caught.value.fields[0].field == "terms.due_date"


@given(st.datetimes(timezones=st.timezones()))
def test_instants_survive_the_wire(value: datetime.datetime) -> None:
    try:
        utc = value.astimezone(datetime.UTC)
    except OverflowError:
        return
    assert dates.from_timestamp(dates.to_timestamp(value), "t") == utc


def test_an_instant_is_aware_and_in_range() -> None:
    with pytest.raises(ValueError, match="naive"):
        dates.to_timestamp(datetime.datetime(2026, 1, 1))  # noqa: DTZ001
    for seconds, nanos in ((10**15, 0), (-(10**15), 0), (0, -1), (0, 10**9)):
        with pytest.raises(errors.InvalidRequest):
            dates.from_timestamp(timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos), "t")
    read = dates.from_timestamp(timestamp_pb2.Timestamp(seconds=-1, nanos=999_999_999), "t")
    assert read == datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=datetime.UTC)
