"""Envoy's configuration, made from the contracts: envoy.yaml.j2 filled from the descriptor set.

Each method's path, scope and whether a creditor's token may call it come from `google.api.http` and
`recupera.options.v1.access`; methods of scope "internal" get no route. The local platform and the chart use `render`
with their own addresses.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from google.protobuf import any_pb2, descriptor_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from recupera.options.v1 import options_pb2

TEMPLATE = "envoy.yaml.j2"
DOMAIN = "recupera"
INTERNAL = "internal"
UNARY_SECONDS = (15, 60)
"""Deadline that the gateway gives a call that came without one, and the longest that a client may ask for."""
SERVER_STREAM_SECONDS = (300, 900)
CLIENT_STREAM_SECONDS = (900, 1800)
LOCAL_ORIGINS = (r"https?://(localhost|127\.0\.0\.1)(:\d+)?",)
MAX_REQUEST_BYTES = 9 << 20
"""Of a message that is held until it is whole. Services refuse above 8 MiB, naming the limit."""
DESCRIPTOR = Path(options_pb2.__file__).parents[2] / "descriptor.pb"
"""The descriptor set of the contracts, beside the code generated from them."""


class AccessMissing(Exception):
    """A method has no `recupera.options.v1.access` option."""


@dataclass(frozen=True)
class Method:
    """A method that the gateway routes. `deadline` and `longest` in seconds; `upload`: the client streams."""

    path: str
    cluster: str
    scope: str
    creditor: bool
    deadline: int
    longest: int
    upload: bool

    @property
    def unary(self) -> bool:
        """One message each way: its time is the service's, not that of a file."""
        return self.deadline == UNARY_SECONDS[0]


@dataclass(frozen=True)
class Cluster:
    """The servers of one of our services, which may offer several gRPC services."""

    name: str
    hosts: Sequence[tuple[str, int]]
    """Where they are; a later one is used while no server of those before is healthy."""


@dataclass(frozen=True)
class Refusal:
    """What the gateway itself answers: HTTP status, canonical code, reason and text. The first that fits counts:
    `details` is a part of Envoy's own reason (%RESPONSE_CODE_DETAILS%). `grpc`: another code over gRPC.
    """

    http: int
    code: int
    reason: str
    message: str
    details: str = ""
    grpc: int | None = None

    @property
    def grpc_code(self) -> int:
        """The code over gRPC and gRPC-Web."""
        return self.code if self.grpc is None else self.grpc

    @property
    def json(self) -> Mapping[str, Any]:
        """google.rpc.Status as JSON."""
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason,
            "domain": DOMAIN,
            "metadata": {},
        }
        return {"code": self.code, "message": self.message, "details": [info]}

    @property
    def details_bin(self) -> str:
        """google.rpc.Status as the value of grpc-status-details-bin."""
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        status = status_pb2.Status(code=self.grpc_code, message=self.message, details=[info])
        return base64.b64encode(status.SerializeToString(deterministic=True)).decode().rstrip("=")


REFUSALS = (
    Refusal(
        400,
        code_pb2.INVALID_ARGUMENT,
        "REQUEST_UNREADABLE",
        "the request is not valid JSON, or not what the method takes",
    ),
    Refusal(
        401,
        code_pb2.UNAUTHENTICATED,
        "TOKEN_MISSING",
        "send a token: authorization: Bearer ..",
        "Jwt_is_missing",
    ),
    Refusal(
        401, code_pb2.UNAUTHENTICATED, "TOKEN_EXPIRED", "the token is over, get a new one", "Jwt_is_expired"
    ),
    Refusal(401, code_pb2.UNAUTHENTICATED, "TOKEN_INVALID", "the token is not valid here"),
    Refusal(
        403,
        code_pb2.PERMISSION_DENIED,
        "CREDITOR_NOT_ALLOWED",
        "a token bound to one creditor may not call this method",
        "CREDITOR_NOT_ALLOWED",
    ),
    Refusal(
        403, code_pb2.PERMISSION_DENIED, "PERMISSION_MISSING", "the token lacks the scope of this method"
    ),
    Refusal(
        404,
        code_pb2.NOT_FOUND,
        "METHOD_UNKNOWN",
        "there is no such method or path",
        grpc=code_pb2.UNIMPLEMENTED,
    ),
    Refusal(408, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the call took too long"),
    Refusal(
        413, code_pb2.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", "the request is too large for this method"
    ),
    Refusal(415, code_pb2.INVALID_ARGUMENT, "CONTENT_TYPE_UNKNOWN", "send application/json, or gRPC"),
    Refusal(429, code_pb2.RESOURCE_EXHAUSTED, "RATE_LIMITED", "too many calls, try again in a second"),
    Refusal(431, code_pb2.INVALID_ARGUMENT, "HEADERS_TOO_LARGE", "the headers of the request are too large"),
    Refusal(502, code_pb2.UNAVAILABLE, "SERVICE_UNAVAILABLE", "the service broke off, try again"),
    Refusal(503, code_pb2.UNAVAILABLE, "SERVICE_UNAVAILABLE", "the service is not available, try again"),
    Refusal(504, code_pb2.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the call took too long"),
)


def public_methods(descriptor: Path = DESCRIPTOR) -> list[Method]:
    """Every method of ours that is not internal, in the order of the contracts. Raises AccessMissing."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor.read_bytes())
    found: list[Method] = []
    for file in files.file:
        if not file.package.startswith("recupera."):
            continue
        for service in file.service:
            for method in service.method:
                path = f"/{file.package}.{service.name}/{method.name}"
                scope, creditor = _access(method, path)
                if scope == INTERNAL:
                    continue
                deadline, longest = (
                    CLIENT_STREAM_SECONDS
                    if method.client_streaming
                    else SERVER_STREAM_SECONDS
                    if method.server_streaming
                    else UNARY_SECONDS
                )
                found.append(
                    Method(
                        path,
                        scope.split(".")[0],
                        scope,
                        creditor,
                        deadline,
                        longest,
                        upload=method.client_streaming,
                    )
                )
    return found


def _access(method: descriptor_pb2.MethodDescriptorProto, path: str) -> tuple[str, bool]:
    # Read again with the generated class: the descriptor set may have been made elsewhere (an image, a release).
    options = descriptor_pb2.MethodOptions.FromString(method.options.SerializeToString())
    access = options.Extensions[options_pb2.access]
    if not access.scope:
        raise AccessMissing(
            f"{path} has no option (recupera.options.v1.access): add the scope that its callers need"
        )
    return access.scope, access.creditor


@dataclass(frozen=True, kw_only=True)
class Pod:
    """What a pod's Envoy answers at the pod's address beside calls; its admin port is open inside the pod only.

    `metrics_port`: GET /stats/prometheus and nothing else. `kubelet_port`: GET /started and /ready (200 or 503) for
    probes; GET /drain makes every connection go elsewhere, and is answered when no call is in hand, after `least`
    seconds at the earliest and `longest` at the latest.
    """

    metrics_port: int
    kubelet_port: int
    least: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What differs between places. `addresses`: host:port of each service, several by comma (a later one is used while
    no server of those before is healthy); `jwks`: the file of public keys.
    """

    port: int
    admin_port: int
    addresses: Mapping[str, str]
    jwks: Path
    descriptor: Path = DESCRIPTOR
    address: str = "127.0.0.1"
    issuer: str = "recupera"
    audience: str = "recupera"
    calls_per_second: int = 5000
    burst: int = 10000
    cors_origins: Sequence[str] = LOCAL_ORIGINS
    health_interval: float = 0.5
    pod: Pod | None = None


def render(settings: Settings) -> str:
    """Envoy's configuration as YAML text."""
    methods = public_methods(settings.descriptor)
    methods = [method for method in methods if method.cluster in settings.addresses]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    return environment.get_template(TEMPLATE).render(
        address=settings.address,
        port=settings.port,
        admin_port=settings.admin_port,
        services=list(dict.fromkeys(method.path.split("/")[1] for method in methods)),
        clusters=[
            Cluster(name, [_split(address) for address in settings.addresses[name].split(",")])
            for name in dict.fromkeys(method.cluster for method in methods)
        ],
        methods=methods,
        refusals=REFUSALS,
        issuer=settings.issuer,
        audience=settings.audience,
        jwks=_issuer_keys(settings.jwks, settings.issuer),
        descriptor=str(settings.descriptor),
        max_request_bytes=MAX_REQUEST_BYTES,
        rate={"per_second": settings.calls_per_second, "burst": settings.burst},
        cors_origins=list(settings.cors_origins),
        health_interval=settings.health_interval,
        pod=settings.pod,
    )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _issuer_keys(jwks: Path, issuer: str) -> str:
    """Only the issuer's own keys: the keys of services, in the same file, open nothing at the gateway."""
    keys = [key for key in json.loads(jwks.read_text())["keys"] if key.get("iss") == issuer]
    return json.dumps({"keys": keys})
