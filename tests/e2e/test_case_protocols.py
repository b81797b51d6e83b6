"""The protocols and their errors, by hand, in `case`: the same call over native gRPC, gRPC-Web and JSON gives the same
answer and is refused the same way.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from google.rpc import code_pb2

from support import calls, whole

from .conftest import Two

Call = Callable[..., calls.Answer]
"""(name of an RPC of case, request as JSON with `name` or `parent` in it) -> what it was told."""


@pytest.fixture(params=["grpc", "grpc-web", "json"])
def call(request: pytest.FixtureRequest, gateway: calls.Client, two: Two) -> Call:
    """Makes a call as our agency over one protocol."""
    own = two.ours.token()

    def make(name: str, fields: dict[str, Any], token: str | None = own) -> calls.Answer:
        rpc = calls.rpc(f"CaseService/{name}")
        if request.param == "json":
            rest = {key: value for key, value in fields.items() if key not in ("name", "parent")}
            start, end = rpc.path.index("{"), rpc.path.index("}")
            url = rpc.path[:start] + str(fields.get("name") or fields["parent"]) + rpc.path[end + 1 :]
            return gateway.json(rpc, url, token, **({"body": rest} if rpc.body else {"query": rest}))
        message = json_format.ParseDict(fields, rpc.input())
        return (gateway.grpc if request.param == "grpc" else gateway.web)(rpc, message, token)

    return make


@pytest.fixture
def case(two: Two, call: Call) -> dict[str, Any]:
    """A case in collection that may be changed, as it is now."""
    return dict(call("GetCase", {"name": two.ours.spare}).body)


def new_id() -> str:
    """A request id."""
    return str(uuid.uuid4())


# ---- answers -----------------------------------------------------------------------------------------------------


def test_a_case_reads_the_same(call: Call, two: Two) -> None:
    answer = call("GetCase", {"name": two.ours.case["name"]})
    assert answer.code == 0
    for field in (
        "name",
        "contractReference",
        "creditorReference",
        "debtorDisplayName",
        "oldestDueDate",
        "state",
    ):
        assert answer.body[field] == two.ours.case[field]
    principal = answer.body["openPrincipal"]
    assert int(principal["units"]) == int(two.ours.case["openPrincipal"]["units"]) > 0
    assert principal["currencyCode"] == "BRL"


def test_pages(call: Call, two: Two) -> None:
    seen: list[str] = []
    token = ""
    while True:
        body = call("ListCases", {"parent": two.ours.parent, "pageSize": 25, "pageToken": token}).body
        assert len(body["cases"]) <= 25
        seen += [case["name"] for case in body["cases"]]
        token = body.get("nextPageToken", "")
        if not token:
            break
    assert len(seen) == len(set(seen)) == int(two.ours.gateway.get("cases:summarize")["cases"]) > 50
    assert seen == sorted(seen)


def test_a_page_token_of_another_query(call: Call, two: Two) -> None:
    first = call("ListCases", {"parent": two.ours.parent, "pageSize": 1}).body["nextPageToken"]
    for wrong in (
        {"pageToken": "nonsense"},
        {"pageToken": first, "state": "STATE_IN_COLLECTION"},
        {"pageToken": first[:-2]},
    ):
        answer = call("ListCases", {"parent": two.ours.parent, **wrong})
        assert answer.told == (code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert answer.fields == ["page_token"]
    # nor is the token of one agency worth anything in the other
    answer = call("ListCases", {"parent": two.other.parent, "pageToken": first}, two.other.token())
    assert answer.fields == ["page_token"]
    assert call("ListCases", {"parent": two.ours.parent, "pageSize": -1}).fields == ["page_size"]


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["cases/abc", "cases/00000000-0000-0000-0000-00000000000G", "cases/01890000-0000-7000-8000-0000000000"],
)
def test_a_wrong_resource_name(call: Call, two: Two, name: str) -> None:
    answer = call("GetCase", {"name": f"{two.ours.parent}/{name}"})
    assert answer.told == (code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert answer.fields == ["name"]
    answer = call("PlaceHold", {"parent": f"{two.ours.parent}/{name}", "type": "TYPE_DISPUTE", "reason": "x"})
    assert answer.fields == ["parent"]


def test_a_case_that_is_not_there(call: Call, two: Two) -> None:
    answer = call("GetCase", {"name": f"{two.ours.parent}/cases/{calls.NOBODY}"})
    assert answer.told == (code_pb2.NOT_FOUND, "CASE_NOT_FOUND")


def test_wrong_fields_are_named(call: Call, two: Two, case: dict[str, Any]) -> None:
    answer = call("PlaceHold", {"parent": case["name"], "reason": "x"})
    assert answer.told == (code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert answer.fields == ["type"]
    answer = call(
        "PlaceHold",
        {"parent": case["name"], "type": "TYPE_DISPUTE", "until": {"year": 2026, "month": 2, "day": 31}},
    )
    assert answer.fields == ["until"]
    answer = call("ListCases", {"parent": two.ours.parent, "debtorName": "ab"})
    assert answer.fields == ["debtor_name"]
    answer = call(
        "RecordContact", {"parent": case["name"], "contact": {"channel": "CHANNEL_CALL", "person": "nobody"}}
    )
    assert answer.fields == ["contact.outcome"]


def test_a_stale_etag(call: Call, case: dict[str, Any]) -> None:
    """The second of two who read the same version is refused, and nothing changes."""
    change = {"name": case["name"], "reason": "protocols"}
    states = ["SUB_STATE_CONTACTED", "SUB_STATE_CALLBACK", "SUB_STATE_NEGOTIATING"]
    first, second = [state for state in states if state != case["subState"]][:2]
    target = {"state": "STATE_IN_COLLECTION", "subState": first}
    other = {"state": "STATE_IN_COLLECTION", "subState": second}
    changed = call("ChangeCaseState", {**change, **target, "etag": case["etag"]})
    assert changed.code == 0, changed
    assert changed.body["etag"] != case["etag"]
    stale = call("ChangeCaseState", {**change, **other, "etag": case["etag"]})
    assert stale.told == (code_pb2.ABORTED, "VERSION_MISMATCH")
    now = call("GetCase", {"name": case["name"]}).body
    assert (now["etag"], now["subState"]) == (changed.body["etag"], first)
    assert call("ChangeCaseState", {**change, **other, "etag": "nonsense"}).fields == ["etag"]


def test_the_same_request_id(call: Call, two: Two, case: dict[str, Any]) -> None:
    """The same again gives the same answer and one hold; another body under the same id is refused."""
    hold = {"parent": case["name"], "type": "TYPE_COMPLAINT", "reason": "protocols", "requestId": new_id()}
    first = call("PlaceHold", hold)
    assert first.code == 0, first
    assert call("PlaceHold", hold) == first
    other = call("PlaceHold", {**hold, "type": "TYPE_FRAUD"})
    assert other.told == (code_pb2.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    holds = call("ListHolds", {"parent": case["name"]}).body["holds"]
    assert [one["name"] for one in holds if one["state"] == "STATE_ACTIVE"] == [first.body["name"]]
    released = call("ReleaseHold", {"name": first.body["name"], "requestId": new_id()})
    assert released.body["state"] == "STATE_RELEASED"
    again = call("ReleaseHold", {"name": first.body["name"], "requestId": new_id()})
    assert again.told == (code_pb2.FAILED_PRECONDITION, "HOLD_NOT_ACTIVE")
    # ids of one caller do not meet those of another
    assert call("PlaceHold", {**hold, "type": "TYPE_FRAUD"}, two.ours.token(subject="users/e2e")).code == 0
    call("ReleaseHold", {"name": call("ListHolds", {"parent": case["name"]}).body["holds"][-1]["name"]})
    assert call("PlaceHold", {**hold, "requestId": "á"}).fields == ["request_id"]


def test_an_oversized_message(call: Call, case: dict[str, Any]) -> None:
    """9 MiB: refused with a type, whoever refuses it, and the next call is answered."""
    answer = call("PlaceHold", {"parent": case["name"], "type": "TYPE_DISPUTE", "reason": "x" * (9 << 20)})
    assert answer.code in (code_pb2.RESOURCE_EXHAUSTED, code_pb2.INVALID_ARGUMENT), answer
    assert answer.reason in ("MESSAGE_TOO_LARGE", "REQUEST_TOO_LARGE")
    assert call("GetCase", {"name": case["name"]}).code == 0


def test_an_unknown_method(gateway: calls.Client, two: Two, whole: whole.Whole) -> None:
    rpc = dataclasses.replace(calls.rpc("CaseService/GetCase"), name="GetNothing")
    request = rpc.input(name=two.ours.case["name"])
    for call in (gateway.grpc, gateway.web):
        assert call(rpc, request, two.ours.token()).told == (code_pb2.UNIMPLEMENTED, "METHOD_UNKNOWN")
    direct = calls.Client(whole.parts.address("case"))
    try:
        assert direct.grpc(rpc, request, two.ours.token()).told == (code_pb2.UNIMPLEMENTED, "METHOD_UNKNOWN")
    finally:
        direct.close()


# ---- deadlines ---------------------------------------------------------------------------------------------------


@pytest.fixture
def direct(whole: whole.Whole) -> Iterator[calls.Client]:
    """Calls to the service itself."""
    made = calls.Client(whole.parts.address("case"))
    yield made
    made.close()


def test_a_call_without_a_deadline(direct: calls.Client, gateway: calls.Client, two: Two) -> None:
    """At the service it is refused; the gateway gives each call one that came without."""
    rpc = calls.rpc("CaseService/GetCase")
    request = rpc.input(name=two.ours.case["name"])
    answer = direct.grpc(rpc, request, two.ours.token(), timeout=None)
    assert (answer.told, answer.domain) == (
        (code_pb2.INVALID_ARGUMENT, "DEADLINE_REQUIRED"),
        "recupera",
    )
    assert direct.grpc(rpc, request, two.ours.token(), timeout=10).code == 0
    assert gateway.grpc(rpc, request, two.ours.token(), timeout=None).code == 0


def test_an_oversized_message_at_the_service(direct: calls.Client, two: Two) -> None:
    rpc = calls.rpc("CaseService/PlaceHold")
    request = rpc.input(parent=two.ours.case["name"], reason="x" * (9 << 20))
    answer = direct.grpc(rpc, request, two.ours.token())
    assert answer.told == (code_pb2.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert direct.grpc(calls.rpc("CaseService/GetCase"), b"\xff\xff", two.ours.token()).told == (
        code_pb2.INVALID_ARGUMENT,
        "MALFORMED_MESSAGE",
    )
