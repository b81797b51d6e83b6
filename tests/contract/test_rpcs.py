"""Every RPC of every service, as the descriptor set has them, called wrongly over every protocol it has: each call
gets a google.rpc.Status with a stable reason in our domain, and no process ends.

One test an RPC; a new RPC is found by itself. What the calls do when they are right is in each service's own tests.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from google.rpc import code_pb2

from recupera_local import agencies, tokens
from servicekit import auth
from support import calls, whole

AGENCY = agencies.all_agencies()["demo"].id
OTHER = agencies.all_agencies()["lisboa"].id
CREDITOR = UUID("01890000-0000-7000-8000-0000000000c1")
NONSENSE = b"\xff\xff\xff\xff"
"""No protobuf message begins so: a tag cut off."""

PUBLIC = [one for one in calls.rpcs() if not one.internal]
INTERNAL = [one for one in calls.rpcs() if one.internal]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to make a call that names a resource of AGENCY, and one whose message is nonsense."""

    name: str
    call: Callable[[str | None], calls.Answer]
    malformed: Callable[[str], calls.Answer] | None


@pytest.fixture(scope="module")
def client(whole: whole.Whole) -> Iterator[calls.Client]:
    """Calls to the gateway. Whatever the tests of this file do, the processes stay the same ones."""
    before = whole.pids()
    assert len(before) > 10
    made = calls.Client(whole.url)
    yield made
    made.close()
    assert whole.healthy()
    assert whole.pids() == before


def protocols(client: calls.Client, rpc: calls.Rpc) -> list[Protocol]:
    """The protocols over which the gateway offers a method."""
    named = rpc.named(AGENCY)
    found = [
        Protocol(
            "grpc",
            lambda token: client.grpc(rpc, named, token),
            lambda token: client.grpc(rpc, NONSENSE, token),
        )
    ]
    if rpc.unary:
        found.append(
            Protocol(
                "grpc-web",
                lambda token: client.web(rpc, named, token),
                lambda token: client.web(rpc, NONSENSE, token),
            )
        )
    if rpc.path:
        url = rpc.url(AGENCY)
        malformed: Callable[[str], calls.Answer] | None = None
        if rpc.name == "UploadBatchBody":  # its body is any bytes; what can be unreadable is a parameter
            malformed = lambda token: client.json(rpc, url, token, body=b"x", query={"kind": "NONSENSE"})  # noqa: E731
        elif rpc.body:
            malformed = lambda token: client.json(rpc, url, token, body=b"{nonsense")  # noqa: E731
        elif "page_size" in rpc.input.DESCRIPTOR.fields_by_name:
            malformed = lambda token: client.json(rpc, url, token, query={"pageSize": "nonsense"})  # noqa: E731
        found.append(Protocol("json", lambda token: client.json(rpc, url, token), malformed))
    return found


def test_every_method_says_who_may_call_it() -> None:
    assert {one.owner for one in calls.rpcs()} == {"case", "agreement", "dialer", "notify", "import"}
    open_methods = [str(one) for one in calls.rpcs() if not one.scope]
    assert not open_methods, f"no option (recupera.options.v1.access): {open_methods}"
    for one in PUBLIC:
        service, right = one.scope.split(".")
        assert service == one.owner, f"{one} asks for the scope of another service: {one.scope}"
        assert right in ("read", "write", "admin"), f"{one}: {one.scope}"


def test_every_public_method_but_the_stream_has_json() -> None:
    without = [str(one) for one in PUBLIC if not one.path]
    assert without == ["ImportService/UploadBatch"]


@pytest.mark.parametrize("rpc", PUBLIC, ids=str)
def test_refusals(rpc: calls.Rpc, client: calls.Client, whole: whole.Whole) -> None:
    """Without token, expired token, wrong scope, another agency's name, a creditor's token, malformed message."""
    others = [scope for scope in tokens.ALL_SCOPES if scope != rpc.scope]
    denied, nobody = code_pb2.PERMISSION_DENIED, code_pb2.UNAUTHENTICATED
    expired = whole.token(AGENCY, lifetime=datetime.timedelta(hours=-1))
    cases = [
        ("no token", None, nobody, {"TOKEN_MISSING"}),
        ("an expired token", expired, nobody, {"TOKEN_EXPIRED"}),
        ("all scopes but this", whole.token(AGENCY, scopes=others), denied, {"PERMISSION_MISSING"}),
        ("a token of the other agency", whole.token(OTHER), denied, {"AGENCY_MISMATCH"}),
    ]
    if not rpc.creditor:
        creditor = whole.token(AGENCY, creditor=CREDITOR)
        cases.append(("a creditor's token", creditor, denied, {"CREDITOR_NOT_ALLOWED"}))
    wrong = []
    for protocol in protocols(client, rpc):
        answers = [(*case[:1], protocol.call(case[1]), *case[2:]) for case in cases]
        if protocol.malformed is not None:
            reasons = {"MALFORMED_MESSAGE", "REQUEST_UNREADABLE"}
            answers.append(
                ("nonsense", protocol.malformed(whole.token(AGENCY)), code_pb2.INVALID_ARGUMENT, reasons)
            )
        wrong += [
            f"{protocol.name}, {what}: {answer}"
            for what, answer, code, reasons in answers
            if answer.code != code
            or answer.reason not in reasons
            or answer.domain != "recupera"
            or not answer.message
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("rpc", INTERNAL, ids=str)
def test_internal_methods_are_not_routed(rpc: calls.Rpc, client: calls.Client, whole: whole.Whole) -> None:
    """Neither with a user's token of all scopes nor with a service's own."""
    request = rpc.named(AGENCY)
    service = auth.Signer("case", tokens.key_file(whole.state_dir / "keys", "case")).token(AGENCY)
    for call in (client.grpc, client.web) if rpc.unary else (client.grpc,):
        answer = call(rpc, request, whole.token(AGENCY))
        assert (answer.told, answer.domain) == ((code_pb2.UNIMPLEMENTED, "METHOD_UNKNOWN"), "recupera")
        assert call(rpc, request, service).told == (code_pb2.UNAUTHENTICATED, "TOKEN_INVALID")


@pytest.mark.parametrize("rpc", INTERNAL, ids=str)
def test_internal_methods_refuse_people(rpc: calls.Rpc, whole: whole.Whole) -> None:
    """Asked at the service itself, past the gateway, they want a service's token, of the agency that is named."""
    direct = calls.Client(whole.parts.address(rpc.owner))
    try:
        answer = direct.grpc(rpc, rpc.named(AGENCY), whole.token(AGENCY))
        assert answer.told == (code_pb2.PERMISSION_DENIED, "SCOPE_MISSING")
        signer = auth.Signer("notify", tokens.key_file(whole.state_dir / "keys", "notify"))
        answer = direct.grpc(rpc, rpc.named(AGENCY), signer.token(OTHER))
        assert answer.told == (code_pb2.PERMISSION_DENIED, "AGENCY_MISMATCH")
        assert direct.grpc(rpc, NONSENSE, signer.token(AGENCY)).told == (
            code_pb2.INVALID_ARGUMENT,
            "MALFORMED_MESSAGE",
        )
    finally:
        direct.close()


@pytest.mark.parametrize("rpc", PUBLIC, ids=str)
def test_the_services_ask_again(rpc: calls.Rpc, whole: whole.Whole) -> None:
    """What the gateway refuses, the service refuses too, were the gateway not there (defence in depth)."""
    direct = calls.Client(whole.parts.address(rpc.owner))
    try:
        request = rpc.named(AGENCY)
        denied = code_pb2.PERMISSION_DENIED
        assert direct.grpc(rpc, request, None).told == (code_pb2.UNAUTHENTICATED, "TOKEN_MISSING")
        expired = whole.token(AGENCY, lifetime=datetime.timedelta(hours=-1))
        assert direct.grpc(rpc, request, expired).told == (code_pb2.UNAUTHENTICATED, "TOKEN_EXPIRED")
        others = [scope for scope in tokens.ALL_SCOPES if scope != rpc.scope]
        answer = direct.grpc(rpc, request, whole.token(AGENCY, scopes=others))
        assert answer.told == (denied, "SCOPE_MISSING")
        if not rpc.creditor:
            answer = direct.grpc(rpc, request, whole.token(AGENCY, creditor=CREDITOR))
            assert answer.told == (denied, "CREDITOR_NOT_ALLOWED")
    finally:
        direct.close()
