"""The gateway: real Envoy with the rendered configuration, before a small gRPC server of the same contracts."""

import base64
import datetime
import http.client
import os
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
import yaml
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

import recupera_gateway
from recupera.case.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc
from recupera.imports.v1 import imports_pb2, imports_service_pb2, imports_service_pb2_grpc
from recupera_local import agencies, gateway, paths, ports, tokens
from support import waiting

AGENCY = agencies.demo().id
CREDITOR = UUID("01890000-0000-7000-8000-0000000000c1")
NAME = f"agencies/{AGENCY}/cases/{UUID(int=7)}"
GET_CASE = "/recupera.case.v1.CaseService/GetCase"


class Cases(case_service_pb2_grpc.CaseServiceServicer):
    """Answers with what the gateway passed on."""

    def GetCase(
        self, request: case_service_pb2.GetCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.Case:
        if request.name.endswith("missing"):
            info = error_details_pb2.ErrorInfo(
                reason="CASE_NOT_FOUND", domain="recupera", metadata={"case": "x"}
            )
            status = status_pb2.Status(code=5, message="no such case")
            status.details.add().Pack(info)
            context.abort_with_status(rpc_status.to_status(status))
        if request.name.endswith("slow"):
            waiting.until(lambda: not context.is_active(), timeout=30)
        metadata = dict(context.invocation_metadata())
        assert str(metadata["authorization"]).startswith("Bearer ")
        return case_pb2.Case(name=request.name, etag=str(round(context.time_remaining())))


class Imports(imports_service_pb2_grpc.ImportServiceServicer):
    """Counts what is uploaded, and streams."""

    def UploadBatchBody(
        self,
        request_iterator: Iterator[imports_service_pb2.UploadBatchBodyRequest],
        context: grpc.ServicerContext,
    ) -> imports_pb2.Batch:
        first = next(request_iterator)
        size = len(first.body.data)
        for request in request_iterator:
            size += len(request.body.data)
        return imports_pb2.Batch(
            name=f"{first.parent}/batches/1", file_name=first.file_name, kind=first.kind, size_bytes=size
        )


class Behind:
    """A running gateway and the server behind it."""

    def __init__(
        self,
        folder: Path,
        *,
        calls_per_second: int = 5000,
        burst: int = 10000,
        address: str = "127.0.0.1",
        spare: str = "",
    ) -> None:
        self.keys = folder / "keys"
        tokens.ensure(self.keys)
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        case_service_pb2_grpc.add_CaseServiceServicer_to_server(Cases(), self.server)
        imports_service_pb2_grpc.add_ImportServiceServicer_to_server(Imports(), self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.port, self.admin_port, self.metrics_port, self.kubelet_port = ports.free_ports(4)
        self.envoy = gateway.Gateway(
            folder=folder,
            log=folder / "gateway.log",
            settings=recupera_gateway.Settings(
                port=self.port,
                admin_port=self.admin_port,
                address=address,
                addresses={"case": f"127.0.0.1:{port}{spare}", "import": f"127.0.0.1:{port}"},
                jwks=tokens.jwks_file(self.keys),
                calls_per_second=calls_per_second,
                burst=burst,
                health_interval=0.1,
                pod=recupera_gateway.Pod(
                    metrics_port=self.metrics_port, kubelet_port=self.kubelet_port, least=1, longest=20
                ),
            ),
        )
        self.envoy.prepare()
        self.envoy.process.start()
        self.envoy.process.wait_ready()
        waiting.until(self.envoy.healthy)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.cases = case_service_pb2_grpc.CaseServiceStub(self.channel)

    def close(self) -> None:
        """Stop everything."""
        self.http.close()
        self.channel.close()
        self.envoy.process.kill()
        self.server.stop(None)

    def token(self, **changes: Any) -> str:
        """A token of the demo agency."""
        return tokens.issue(self.keys, **({"agency": AGENCY} | changes))


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    """A gateway for the module."""
    made = Behind(tmp_path_factory.mktemp("gateway"))
    yield made
    made.close()


# ---- the three protocols, one function each: -> (canonical code, reason, answer) ---------------------------------

Answer = tuple[int, str, Mapping[str, Any]]


def by_grpc(behind: Behind, token: str | None, name: str = NAME) -> Answer:
    """Native gRPC."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    request = case_service_pb2.GetCaseRequest(name=name)
    call = behind.cases.GetCase.future(request, metadata=metadata, timeout=5)
    if call.code() is grpc.StatusCode.OK:
        case = call.result()
        return 0, "", {"name": case.name, "etag": case.etag}
    status = rpc_status.from_call(call)
    assert status is not None
    assert status.message
    return call.code().value[0], _reason(status), {}


def by_grpc_web(behind: Behind, token: str | None, name: str = NAME) -> Answer:
    """gRPC-Web, as a browser sends it."""
    body = case_service_pb2.GetCaseRequest(name=name).SerializeToString()
    answer = behind.http.post(
        GET_CASE,
        content=b"\0" + struct.pack(">I", len(body)) + body,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1", **_bearer(token)},
    )
    trailers = {name.lower(): value for name, value in answer.headers.items()}
    content = answer.content
    case = case_pb2.Case()
    while content:
        kind, size = content[0], struct.unpack(">I", content[1:5])[0]
        frame, content = content[5 : 5 + size], content[5 + size :]
        if kind & 0x80:
            trailers |= dict(line.split(":", 1) for line in frame.decode().strip().split("\r\n"))
        else:
            case = case_pb2.Case.FromString(frame)
    code = int(trailers["grpc-status"])
    if code:
        details = trailers["grpc-status-details-bin"].strip()
        status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
        return code, _reason(status), {}
    return 0, "", {"name": case.name, "etag": case.etag}


def by_json(behind: Behind, token: str | None, name: str = NAME) -> Answer:
    """JSON over HTTP."""
    answer = behind.http.get(f"/v1/{name}", headers=_bearer(token))
    body = answer.json()
    if answer.status_code == 200:
        return 0, "", body
    assert answer.headers["content-type"] == "application/json"
    assert body["message"]
    [info] = body["details"]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "recupera"
    return body["code"], info["reason"], {}


PROTOCOLS = pytest.mark.parametrize("call", [by_grpc, by_grpc_web, by_json])
Call = Callable[..., Answer]


def _bearer(token: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "recupera"
    return info.reason


# ---- tests -------------------------------------------------------------------------------------------------------


@PROTOCOLS
def test_call_answers(behind: Behind, call: Call) -> None:
    code, _, answer = call(behind, behind.token(scopes=["case.read"]))
    assert (code, answer["name"]) == (0, NAME)


@PROTOCOLS
def test_service_error_keeps_its_details(behind: Behind, call: Call) -> None:
    assert call(behind, behind.token(), f"agencies/{AGENCY}/cases/missing")[:2] == (5, "CASE_NOT_FOUND")


@PROTOCOLS
def test_missing_token(behind: Behind, call: Call) -> None:
    assert call(behind, None)[:2] == (16, "TOKEN_MISSING")


@PROTOCOLS
def test_expired_token(behind: Behind, call: Call) -> None:
    assert call(behind, behind.token(lifetime=datetime.timedelta(hours=-1)))[:2] == (16, "TOKEN_EXPIRED")


@PROTOCOLS
def test_foreign_token(behind: Behind, call: Call, tmp_path: Path) -> None:
    tokens.ensure(tmp_path)
    assert call(behind, tokens.issue(tmp_path, agency=AGENCY))[:2] == (16, "TOKEN_INVALID")
    assert call(behind, "nonsense")[:2] == (16, "TOKEN_INVALID")


@PROTOCOLS
def test_service_token_opens_nothing(behind: Behind, call: Call) -> None:
    from servicekit import auth

    signer = auth.Signer("case", tokens.key_file(behind.keys, "case"))
    assert call(behind, signer.token(AGENCY))[:2] == (16, "TOKEN_INVALID")


@PROTOCOLS
def test_missing_scope(behind: Behind, call: Call) -> None:
    for scopes in ([], ["case.write"], ["xcase.read", "case.readx", "caseXread"]):
        assert call(behind, behind.token(scopes=scopes))[:2] == (7, "PERMISSION_MISSING")


@PROTOCOLS
def test_creditor_token_on_a_method_made_for_it(behind: Behind, call: Call) -> None:
    assert call(behind, behind.token(creditor=CREDITOR))[0] == 0


def test_creditor_token_on_another_method(behind: Behind) -> None:
    token = behind.token(creditor=CREDITOR)
    answer = behind.http.get(f"/v1/{NAME}/people", headers=_bearer(token))
    assert answer.status_code == 403
    assert answer.json()["details"][0]["reason"] == "CREDITOR_NOT_ALLOWED"
    with pytest.raises(grpc.RpcError) as refused:
        behind.cases.ListPeople(
            case_service_pb2.ListPeopleRequest(parent=NAME),
            metadata=[("authorization", f"Bearer {token}")],
            timeout=5,
        )
    status = rpc_status.from_call(refused.value)
    assert status is not None
    assert _reason(status) == "CREDITOR_NOT_ALLOWED"


def test_internal_and_unknown_methods_are_not_reachable(behind: Behind) -> None:
    from servicekit import auth

    for token in (behind.token(), auth.Signer("case", tokens.key_file(behind.keys, "case")).token(AGENCY)):
        with pytest.raises(grpc.RpcError) as refused:
            behind.cases.ReserveContacts(
                case_service_pb2.ReserveContactsRequest(),
                metadata=[("authorization", f"Bearer {token}")],
                timeout=5,
            )
        assert refused.value.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED)
    for path in ("/nothing", "/v1/nothing", "/v1/agencies/a/cases/b/nothing"):
        answer = behind.http.get(path, headers=_bearer(behind.token()))
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, "METHOD_UNKNOWN")


def test_bad_json(behind: Behind) -> None:
    answer = behind.http.post(
        f"/v1/{NAME}:changeState", content=b"{nonsense", headers=_bearer(behind.token())
    )
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert answer.json()["details"][0]["reason"] == "REQUEST_UNREADABLE"


@pytest.mark.parametrize(("asked", "given"), [(None, 15), (5, 5), (3600, 60)])
def test_a_deadline_comes_from_the_client_or_the_gateway(
    behind: Behind, asked: int | None, given: int
) -> None:
    case = behind.cases.GetCase(
        case_service_pb2.GetCaseRequest(name=NAME),
        metadata=[("authorization", f"Bearer {behind.token()}")],
        timeout=asked,
    )
    assert given - 2 <= int(case.etag) <= given
    assert by_json(behind, behind.token())[2]["etag"] in ("13", "14", "15")
    assert by_grpc_web(behind, behind.token())[2]["etag"] in ("13", "14", "15")


def test_deadline_over_json(behind: Behind) -> None:
    headers = {**_bearer(behind.token()), "grpc-timeout": "100m"}
    answer = behind.http.get(f"/v1/agencies/{AGENCY}/cases/slow", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (504, 4)


def test_upload_by_rest_body(behind: Behind) -> None:
    size = 40_000_000

    def body() -> Iterator[bytes]:
        for _ in range(size // 1_000_000):
            yield b"x" * 1_000_000

    answer = behind.http.post(
        f"/v1/agencies/{AGENCY}/batches:upload",
        params={"fileName": "a b.csv", "kind": "BATCH_KIND_PORTFOLIO"},
        content=body(),
        headers={"content-type": "text/csv", **_bearer(behind.token())},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["sizeBytes"] == str(size)
    assert answer.json()["fileName"] == "a b.csv"
    assert answer.json()["kind"] == "BATCH_KIND_PORTFOLIO"


def test_cors(behind: Behind) -> None:
    preflight = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-grpc-web",
    }
    allowed = behind.http.options(GET_CASE, headers={"origin": "http://localhost:3000", **preflight})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
    refused = behind.http.options(GET_CASE, headers={"origin": "https://evil.example", **preflight})
    assert "access-control-allow-origin" not in refused.headers


def test_rate_limit_is_one_for_each_subject(tmp_path: Path) -> None:
    behind = Behind(tmp_path, calls_per_second=1, burst=3)
    try:
        for call in (by_grpc, by_grpc_web, by_json):
            token = behind.token(subject=f"users/{call.__name__}")
            taken, started = 0, time.monotonic()
            while (answer := call(behind, token)[:2]) == (0, ""):
                taken += 1
                assert taken <= 3 + 1 + (time.monotonic() - started), "more than the burst and one a second"
            assert answer == (8, "RATE_LIMITED")
            assert taken >= 3
    finally:
        behind.close()


def test_service_away(tmp_path: Path) -> None:
    behind = Behind(tmp_path)
    try:
        behind.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        waiting.until(lambda: not behind.envoy.healthy())
        for call in (by_grpc, by_grpc_web, by_json):
            assert call(behind, behind.token())[:2] == (14, "SERVICE_UNAVAILABLE")
        assert behind.http.get("/health").status_code == 503
        behind.health.set("", health_pb2.HealthCheckResponse.SERVING)
        waiting.until(lambda: by_json(behind, behind.token())[0] == 0)
    finally:
        behind.close()


def test_it_has_started_when_all_services_answered(tmp_path: Path) -> None:
    behind = Behind(tmp_path)
    try:
        started = f"http://127.0.0.1:{behind.kubelet_port}/started"
        waiting.until(lambda: httpx.get(started).status_code == 200)
        behind.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        waiting.until(lambda: not behind.envoy.healthy())
        assert httpx.get(started).status_code == 503  # it is young
        waiting.until(lambda: httpx.get(started).status_code == 200, timeout=40)  # it does not wait for ever
    finally:
        behind.close()


POD = "127.0.0.2"
"""An address of this machine that is not 127.0.0.1: what listens on all addresses, as in a pod, answers there too."""
ADMIN = ("/quitquitquit", "/config_dump", "/logging?level=trace", "/healthcheck/fail", "/stats", "/clusters")


def test_only_metrics_and_probes_of_the_admin_port_are_open_at_the_address_of_the_pod(tmp_path: Path) -> None:
    behind = Behind(tmp_path, address="0.0.0.0")
    try:

        def ask(port: int, path: str, method: str = "GET") -> int:
            """The status; the path goes out as it is."""
            connection = http.client.HTTPConnection(POD, port, timeout=10)
            connection.request(method, path)
            status = connection.getresponse().status
            connection.close()
            return status

        for port in (behind.metrics_port, behind.kubelet_port, behind.port):
            for path in (
                *ADMIN,
                "/stats/prometheus/../../quitquitquit",
                "/stats/prometheus%2f..%2f..%2fstats",
            ):
                assert {ask(port, path, method) for method in ("GET", "POST")} <= {400, 401, 404}, (
                    port,
                    path,
                )
        with pytest.raises(ConnectionRefusedError):
            ask(behind.admin_port, "/ready")

        assert ask(behind.metrics_port, "/stats/prometheus?usedonly") == 200
        for path in ("/ready", "/started", "/drain"):
            assert ask(behind.metrics_port, path) == 404  # who may read metrics may not end it
        assert ask(behind.kubelet_port, "/stats/prometheus") == 404
        waiting.until(lambda: ask(behind.kubelet_port, "/started") == 200)
        assert ask(behind.kubelet_port, "/ready") == 200  # nothing of all this has told it to fail
        assert ask(behind.kubelet_port, "/drain") == 200
        assert ask(behind.kubelet_port, "/ready") == 503
    finally:
        behind.close()


def test_before_its_end_it_says_goodbye_and_waits_for_calls_in_hand(tmp_path: Path) -> None:
    behind = Behind(tmp_path)
    try:
        headers = _bearer(behind.token())
        assert "connection" not in behind.http.get(f"/v1/{NAME}", headers=headers).headers
        metadata = [("authorization", f"Bearer {behind.token()}")]
        slow = case_service_pb2.GetCaseRequest(name=f"{NAME}slow")
        in_hand = behind.cases.GetCase.future(slow, metadata=metadata, timeout=10)
        stats = f"http://127.0.0.1:{behind.admin_port}/stats?filter=http.gateway.downstream_rq_active"
        waiting.until(lambda: httpx.get(stats).text.strip().endswith(": 1"))
        with futures.ThreadPoolExecutor(1) as beside:
            drained = beside.submit(httpx.get, f"http://127.0.0.1:{behind.kubelet_port}/drain", timeout=60)
            waiting.until(lambda: httpx.get(f"http://127.0.0.1:{behind.port}/health").status_code == 503)
            while not drained.done():  # on the connection that it has, told to leave it
                answer = behind.http.get(f"/v1/{NAME}", headers=headers)
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            assert drained.result().status_code == 200
        assert in_hand.done()
    finally:
        behind.close()


def test_what_the_alerts_read_is_counted(behind: Behind) -> None:
    def counted(series: str) -> float:
        text = httpx.get(f"http://127.0.0.1:{behind.metrics_port}/stats/prometheus").text
        found = [line for line in text.splitlines() if line.startswith(series)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    # by grpcio the HTTP status is 200 whatever becomes of a call
    refused, all_ = "envoy_cluster_grpc_5{", 'envoy_cluster_grpc_total{envoy_cluster_name="case"}'
    unary = 'envoy_vhost_route_upstream_rq_time_count{envoy_virtual_host="api",envoy_route="unary"}'
    before = counted(refused), counted(all_), counted(unary)
    for call in (by_grpc, by_grpc_web, by_json):
        assert call(behind, behind.token(), f"{NAME}missing")[0] == 5
        assert call(behind, behind.token())[0] == 0
    after = before[0] + 3, before[1] + 6, before[2] + 6
    waiting.until(lambda: (counted(refused), counted(all_), counted(unary)) == after)


def test_metrics_name_no_cluster_but_the_services(behind: Behind) -> None:
    text = httpx.get(f"http://127.0.0.1:{behind.metrics_port}/stats/prometheus").text
    assert set(re.findall(r'envoy_cluster_name="([^"]+)"', text)) == {"case", "import"}


def test_whole_configuration_is_valid(tmp_path: Path) -> None:
    tokens.ensure(tmp_path)
    made = tmp_path / "envoy.yaml"
    made.write_text(
        recupera_gateway.render(
            recupera_gateway.Settings(
                port=8080,
                admin_port=8081,
                addresses={service: f"{service}.example:7000" for service in ports.SERVICES},
                jwks=tokens.jwks_file(tmp_path),
                pod=recupera_gateway.Pod(metrics_port=8082, kubelet_port=8083, least=5, longest=50),
            )
        )
    )
    gateway.validate(made)


def test_who_never_finishes_his_message_holds_no_thread_of_the_service(behind: Behind) -> None:
    done = threading.Event()

    def never() -> Iterator[bytes]:
        done.wait(60)
        yield b""

    metadata = [("authorization", f"Bearer {behind.token()}")]
    slow = behind.channel.stream_unary(GET_CASE)
    held = [slow.future(never(), metadata=metadata, timeout=50) for _ in range(8)]
    try:
        for _ in range(8):  # the service has four threads
            assert by_grpc(behind, behind.token())[0] == 0
    finally:
        done.set()
        for call in held:
            call.cancel()


class Counting(Cases):
    """Counts its calls."""

    calls = 0

    def GetCase(
        self, request: case_service_pb2.GetCaseRequest, context: grpc.ServicerContext
    ) -> case_pb2.Case:
        self.calls += 1
        return super().GetCase(request, context)


def test_the_second_address_is_used_while_no_server_of_the_first_is_healthy(tmp_path: Path) -> None:
    server, checks, counting = grpc.server(futures.ThreadPoolExecutor(2)), health.HealthServicer(), Counting()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    case_service_pb2_grpc.add_CaseServiceServicer_to_server(counting, server)
    spare = server.add_insecure_port("127.0.0.1:0")
    server.start()
    behind = Behind(tmp_path, spare=f",127.0.0.1:{spare}")
    try:
        token = behind.token()
        for _ in range(20):
            assert by_grpc(behind, token)[0] == 0
        assert counting.calls == 0

        def on_spare() -> bool:
            before = counting.calls
            assert by_grpc(behind, token)[0] == 0, "a call failed while the servers change"
            return counting.calls > before

        behind.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        waiting.until(on_spare, what="a call at the second address")
        assert all(on_spare() for _ in range(20))
        behind.health.set("", health_pb2.HealthCheckResponse.SERVING)
        waiting.until(lambda: not on_spare(), what="a call at the first address")
        assert not any(on_spare() for _ in range(20))

        behind.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        away = grpc.StatusCode.UNAVAILABLE.value[0]
        waiting.until(lambda: by_grpc(behind, token)[0] == away, what="an answer that nobody is there")
    finally:
        behind.close()
        server.stop(None)


def test_the_command_of_the_image_writes_what_envoy_takes(behind: Behind, tmp_path: Path) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "RECUPERA_JWKS_FILE": str(tokens.jwks_file(behind.keys)),
        "RECUPERA_CASE_ADDRESS": "case.example:7101,case-ready.example:7101",
        "RECUPERA_SMTP_ADDRESS": "no service of ours",
    }
    command = [sys.executable, "-m", "recupera_gateway", "--out", str(tmp_path / "envoy")]
    said = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("case: ")
    written = tmp_path / "envoy" / "envoy.yaml"
    gateway.validate(written)
    configuration = yaml.safe_load(written.read_text())
    assert configuration["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    (case,) = [one for one in configuration["static_resources"]["clusters"] if one["name"] == "case"]
    assert [
        (one["priority"], one["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"])
        for one in case["load_assignment"]["endpoints"]
    ] == [(0, "case.example"), (1, "case-ready.example")]
    del environ["RECUPERA_JWKS_FILE"]
    said = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 1
    assert "RECUPERA_JWKS_FILE" in said.stderr


def test_every_public_method_is_routed_and_no_internal_one() -> None:
    methods = {method.path: method for method in recupera_gateway.public_methods(paths.DESCRIPTOR)}
    assert methods[GET_CASE].scope == "case.read"
    assert methods[GET_CASE].creditor
    assert "/recupera.case.v1.CaseService/ReserveContacts" not in methods
    assert {method.cluster for method in methods.values()} == set(ports.SERVICES)
