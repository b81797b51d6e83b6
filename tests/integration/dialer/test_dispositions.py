"""What the agent says of a call."""

import datetime

import grpc
import pytest
from google.type import money_pb2

from recupera.dialer.v1 import dialer_pb2
from servicekit import dates, testing

from .conftest import DATE, NOW, Dialer, disposition_of
from .test_campaigns import refused

Agent = dialer_pb2.Agent
Call = dialer_pb2.Call
BRL = money_pb2.Money(currency_code="BRL", units=50)


@pytest.fixture
def connected(dialer: Dialer) -> dialer_pb2.Call:
    """The one call of a campaign with one agent."""
    dialer.run(range(20), agents=1)
    dialer.tick()
    (call,) = dialer.connected()
    return call


@pytest.mark.feature("S1-09", "S4-14")
def test_a_promise_to_pay(dialer: Dialer, connected: dialer_pb2.Call) -> None:
    until = dates.to_proto(DATE + datetime.timedelta(days=2))
    call = dialer.dispose(connected, Call.DISPOSITION_PROMISE_TO_PAY, promise_date=until, promise_amount=BRL)
    assert (call.state, call.promise_date, call.promise_amount) == (Call.STATE_DISPOSITIONED, until, BRL)
    told = testing.published(dialer.engine, kind="call_ended")[-1].fact.call_ended
    assert (told.promise_date, told.promise_amount_minor, told.currency) == (until, 50_00, "BRL")
    (agent,) = dialer.rows("SELECT state, call_id FROM agents")
    assert dict(agent) == {"state": "FREE", "call_id": None}


def test_the_same_request_twice_is_one_disposition(dialer: Dialer, connected: dialer_pb2.Call) -> None:
    request = disposition_of(connected, Call.DISPOSITION_REFUSAL)
    request.request_id = "refusal-1"
    first = dialer.call("DispositionCall", request)
    facts = len(testing.published(dialer.engine))
    dialer.tick()
    moved_on = dialer.connected()
    assert dialer.call("DispositionCall", request) == first
    assert dialer.connected() == moved_on, "the agent's next call is untouched"
    assert len(testing.published(dialer.engine, kind="call_ended")) >= facts - 2
    assert dialer.summary().by_disposition == {"REFUSAL": 1}
    request.disposition = Call.DISPOSITION_CALLBACK
    with pytest.raises(grpc.RpcError) as error:
        dialer.call("DispositionCall", request)
    assert refused(error) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


def test_a_second_disposition_is_refused(dialer: Dialer, connected: dialer_pb2.Call) -> None:
    dialer.dispose(connected, Call.DISPOSITION_REFUSAL)
    with pytest.raises(grpc.RpcError) as error:
        dialer.dispose(connected, Call.DISPOSITION_REFUSAL)
    assert refused(error) == (grpc.StatusCode.FAILED_PRECONDITION, "CALL_ALREADY_DISPOSITIONED")


def test_a_call_that_reached_nobody_has_none(dialer: Dialer, connected: dialer_pb2.Call) -> None:
    for _ in range(5):
        dialer.dispose(dialer.connected()[0], Call.DISPOSITION_REFUSAL)
        dialer.tick()
    lost = next(call for call in dialer.calls() if call.state in (Call.STATE_NO_ANSWER, Call.STATE_BUSY))
    with pytest.raises(grpc.RpcError) as error:
        dialer.dispose(lost, Call.DISPOSITION_REFUSAL)
    assert refused(error) == (grpc.StatusCode.FAILED_PRECONDITION, "CALL_NOT_CONNECTED")


@pytest.mark.parametrize(
    ("disposition", "fields"),
    [
        (Call.DISPOSITION_UNSPECIFIED, {}),
        (99, {}),
        (Call.DISPOSITION_PROMISE_TO_PAY, {}),
        (Call.DISPOSITION_PROMISE_TO_PAY, {"promise_date": dates.to_proto(DATE)}),
        (Call.DISPOSITION_PROMISE_TO_PAY, {"promise_amount": BRL}),
        (
            Call.DISPOSITION_PROMISE_TO_PAY,
            {"promise_date": dates.to_proto(DATE - datetime.timedelta(days=1)), "promise_amount": BRL},
        ),
        (
            Call.DISPOSITION_PROMISE_TO_PAY,
            {"promise_date": dates.to_proto(DATE + datetime.timedelta(days=31)), "promise_amount": BRL},
        ),
        (
            Call.DISPOSITION_PROMISE_TO_PAY,
            {"promise_date": dates.to_proto(DATE), "promise_amount": money_pb2.Money(currency_code="BRL")},
        ),
        (
            Call.DISPOSITION_PROMISE_TO_PAY,
            {
                "promise_date": dates.to_proto(DATE),
                "promise_amount": money_pb2.Money(currency_code="EUR", units=1),
            },
        ),
        (Call.DISPOSITION_REFUSAL, {"promise_amount": BRL}),
    ],
)
def test_bad_dispositions_are_refused_and_the_call_stays(
    dialer: Dialer, connected: dialer_pb2.Call, disposition: int, fields: dict[str, object]
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        dialer.call("DispositionCall", _request(connected, disposition, fields))
    assert refused(error) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert dialer.connected() == [connected]


def _request(call: dialer_pb2.Call, disposition: int, fields: dict[str, object]) -> object:
    request = disposition_of(call, Call.DISPOSITION_REFUSAL, **fields)
    request.disposition = disposition  # type: ignore[assignment]
    return request


def test_a_wrong_person_names_the_contact_point(dialer: Dialer, connected: dialer_pb2.Call) -> None:
    dialer.dispose(connected, Call.DISPOSITION_WRONG_PERSON)
    told = testing.published(dialer.engine, kind="call_ended")[-1].fact.call_ended
    assert (told.right_party, told.disposition) == (False, Call.DISPOSITION_WRONG_PERSON)
    (row,) = dialer.rows("SELECT contact_point_id FROM calls WHERE disposition IS NOT NULL")
    assert told.contact_point_id == row["contact_point_id"].bytes


def test_without_a_disposition_in_time_the_call_shows_in_wrap_up(
    dialer: Dialer, connected: dialer_pb2.Call
) -> None:
    dialer.set_clock(NOW + datetime.timedelta(minutes=14, seconds=59), version=2)
    dialer.tick()
    assert dialer.connected() == [connected]
    dialer.set_clock(NOW + datetime.timedelta(minutes=15), version=3)
    dialer.tick()
    (waiting,) = dialer.calls(state=Call.STATE_WRAP_UP)
    assert waiting.name == connected.name
    assert dialer.set_agent(5, Agent.STATE_OFFLINE).state == Agent.STATE_OFFLINE
    (agent,) = dialer.rows("SELECT state FROM agents WHERE call_id IS NOT NULL")
    assert agent["state"] == "WRAP_UP"
    assert dialer.dispose(waiting, Call.DISPOSITION_CALLBACK).state == Call.STATE_DISPOSITIONED
    (agent,) = dialer.rows("SELECT state FROM agents WHERE id = 'agent-00'")
    assert agent["state"] == "FREE"


def test_a_call_left_in_wrap_up_can_be_dispositioned_later(
    dialer: Dialer, connected: dialer_pb2.Call
) -> None:
    dialer.set_clock(NOW + datetime.timedelta(minutes=15), version=2)
    dialer.tick()
    assert dialer.set_agent(0, Agent.STATE_OFFLINE).call == ""
    assert [call.name for call in dialer.calls(state=Call.STATE_WRAP_UP)] == [connected.name]
    campaign = dialer_pb2.Campaign(name=connected.campaign)
    dialer.drain(campaign)
    dialer.tick()
    assert dialer.campaign(campaign).state == dialer_pb2.Campaign.STATE_COMPLETED
    assert dialer.dispose(connected, Call.DISPOSITION_REFUSAL).state == Call.STATE_DISPOSITIONED
    (agent,) = dialer.rows("SELECT state FROM agents")
    assert agent["state"] == "OFFLINE"
