"""Calls as a client makes them, over the three protocols of the gateway, and every RPC that there is.

`rpcs()` reads the descriptor set, so that a test over all of it sees a new RPC by itself. An `Answer` is what a caller
is told, whatever the protocol: code, reason, wrong fields.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import grpc
import httpx
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from recupera.options.v1 import options_pb2
from recupera_local import paths

INTERNAL = "internal"
TIMEOUT = 30.0
NOBODY = UUID(int=7)
"""The id of nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rpc:
    """A method of the contracts. `verb` and `path` are those of google.api.http, empty without; `scope` is empty where
    the method has no access option.
    """

    service: str
    name: str
    scope: str
    creditor: bool
    client_streaming: bool
    server_streaming: bool
    verb: str
    path: str
    body: str
    input: type[message.Message]
    output: type[message.Message]

    def __str__(self) -> str:
        return f"{self.service.rsplit('.', 1)[1]}/{self.name}"

    @property
    def grpc_path(self) -> str:
        """The path of a gRPC call."""
        return f"/{self.service}/{self.name}"

    @property
    def owner(self) -> str:
        """The folder name of the service: case, agreement, .., import."""
        domain = self.service.split(".")[1]
        return "import" if domain == "imports" else domain

    @property
    def internal(self) -> bool:
        """For service tokens only; the gateway does not route it."""
        return self.scope == INTERNAL

    @property
    def unary(self) -> bool:
        """One message in, one out."""
        return not self.client_streaming and not self.server_streaming

    def named(self, agency: object) -> message.Message:
        """A request that names nothing but a resource of this agency, which need not exist."""
        request: Any = self.input()
        if self.name == "UploadBatch":
            request.header.parent = f"agencies/{agency}"
        elif self.path:
            field, pattern = self.path[self.path.index("{") + 1 : self.path.index("}")].split("=")
            target = request
            *outer, last = field.split(".")
            for part in outer:
                target = getattr(target, part)
            setattr(target, last, resource(pattern, agency))
        elif "parent" in self.input.DESCRIPTOR.fields_by_name:
            request.parent = f"agencies/{agency}"
        else:
            request.name = f"agencies/{agency}/batches/{NOBODY}"
        return request  # type: ignore[no-any-return]

    def url(self, agency: object) -> str:
        """The path of a JSON call that names a resource of this agency."""
        start, end = self.path.index("{"), self.path.index("}")
        pattern = self.path[start + 1 : end].split("=")[1]
        return self.path[:start] + resource(pattern, agency) + self.path[end + 1 :]


def resource(pattern: str, agency: object) -> str:
    """agencies/*/cases/* -> the name of a case, of this agency, that does not exist."""
    special = {"businessDays": "2026-11-23", "ladders": "default", "agents": "agent-99"}
    parts = pattern.split("/")
    for place, part in enumerate(parts):
        if part == "*":
            parts[place] = str(agency) if place == 1 else special.get(parts[place - 1], str(NOBODY))
    return "/".join(parts)


@functools.cache
def rpcs() -> Sequence[Rpc]:
    """Every method of our services in protos/gen/descriptor.pb."""
    files = descriptor_pb2.FileDescriptorSet.FromString(paths.DESCRIPTOR.read_bytes())
    ours = [file for file in files.file if file.package.startswith("recupera.")]
    for file in ours:
        importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return [
        _described(file.package, service, method)
        for file in ours
        for service in file.service
        for method in service.method
    ]


def _described(
    package: str, service: descriptor_pb2.ServiceDescriptorProto, method: descriptor_pb2.MethodDescriptorProto
) -> Rpc:
    pool = descriptor_pool.Default()
    access = method.options.Extensions[options_pb2.access]
    http = method.options.Extensions[annotations_pb2.http]
    verb = http.WhichOneof("pattern") or ""
    return Rpc(
        service=f"{package}.{service.name}",
        name=method.name,
        scope=access.scope,
        creditor=access.creditor,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        verb=verb.upper(),
        path=getattr(http, verb) if verb else "",
        body=http.body,
        input=message_factory.GetMessageClass(pool.FindMessageTypeByName(method.input_type.lstrip("."))),
        output=message_factory.GetMessageClass(pool.FindMessageTypeByName(method.output_type.lstrip("."))),
    )


def rpc(name: str) -> Rpc:
    """`rpc("CaseService/GetCase")`."""
    [found] = [one for one in rpcs() if str(one) == name]
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a call was told: canonical code (0 is OK), reason, wrong fields; or what it answers, as JSON."""

    code: int
    reason: str = ""
    domain: str = ""
    message: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fields: Sequence[str] = ()
    body: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def told(self) -> tuple[int, str]:
        """(code, reason)."""
        return self.code, self.reason


def told(status: status_pb2.Status) -> Answer:
    """What a google.rpc.Status says."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return Answer(
        code=status.code,
        reason=info.reason,
        domain=info.domain,
        message=status.message,
        metadata=dict(info.metadata),
        fields=[violation.field for violation in bad.field_violations],
    )


class Client:
    """Calls to one address: the gateway, or a service's own server. `close()` it."""

    def __init__(self, base_url: str) -> None:
        address = base_url.removeprefix("http://")
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
        self.http = httpx.Client(base_url=f"http://{address}", timeout=60)

    def close(self) -> None:
        """Drop the connections."""
        self.channel.close()
        self.http.close()

    def grpc(
        self,
        called: Rpc,
        request: message.Message | bytes,
        token: str | None,
        *,
        timeout: float | None = TIMEOUT,
    ) -> Answer:
        """Native gRPC; bytes are sent as they are, as one message."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        metadata = [("authorization", f"Bearer {token}")] if token is not None else []
        out: list[message.Message] = []
        try:
            out.extend(map(called.output.FromString, self._start(called, body, metadata, timeout)))
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            if status is None:
                return Answer(code=error.code().value[0], message=error.details() or "")
            return told(status)
        return Answer(code=0, body=json_format.MessageToDict(out[-1]) if out else {})

    def _start(self, called: Rpc, body: bytes, metadata: Any, timeout: float | None) -> Any:
        path = called.grpc_path
        if called.client_streaming:
            return [self.channel.stream_unary(path)(iter([body]), metadata=metadata, timeout=timeout)]
        if called.server_streaming:
            return self.channel.unary_stream(path)(body, metadata=metadata, timeout=timeout)
        return [self.channel.unary_unary(path)(body, metadata=metadata, timeout=timeout)]

    def web(self, called: Rpc, request: message.Message | bytes, token: str | None) -> Answer:
        """gRPC-Web, as a browser sends it; for unary methods."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        answer = self.http.post(
            called.grpc_path,
            content=b"\0" + struct.pack(">I", len(body)) + body,
            headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1", **bearer(token)},
        )
        trailers = {name.lower(): value for name, value in answer.headers.items()}
        content, out = answer.content, called.output()
        while content:
            kind, size = content[0], struct.unpack(">I", content[1:5])[0]
            frame, content = content[5 : 5 + size], content[5 + size :]
            if kind & 0x80:
                trailers |= dict(line.split(":", 1) for line in frame.decode().strip().split("\r\n"))
            else:
                out = called.output.FromString(frame)
        code = int(trailers["grpc-status"])
        if not code:
            return Answer(code=0, body=json_format.MessageToDict(out))
        details = trailers.get("grpc-status-details-bin", "").strip()
        found = told(status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4))))
        return found if found.code == code else dataclasses.replace(found, code=code)

    def json(
        self,
        called: Rpc,
        url: str,
        token: str | None,
        *,
        body: Mapping[str, Any] | bytes | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Answer:
        """JSON over HTTP; bytes are sent as they are."""
        content = (
            body if isinstance(body, bytes) else json.dumps(body or {}).encode() if called.body else None
        )
        answer = self.http.request(
            called.verb,
            url,
            content=content,
            params=query,
            headers={
                **({"content-type": "application/json"} if content is not None else {}),
                **bearer(token),
            },
        )
        if answer.status_code == 200:
            # A stream of HttpBody comes as the file itself.
            is_json = answer.headers["content-type"].startswith("application/json")
            return Answer(code=0, body=answer.json() if is_json else {"file": answer.text})
        assert answer.headers["content-type"] == "application/json", answer.text
        found = answer.json()
        info: dict[str, Any] = {}
        fields: list[str] = []
        for detail in found.get("details", []):
            if detail["@type"].endswith("google.rpc.ErrorInfo"):
                info = detail
            if detail["@type"].endswith("google.rpc.BadRequest"):
                fields = [violation["field"] for violation in detail["fieldViolations"]]
        return Answer(
            code=found["code"],
            reason=info.get("reason", ""),
            domain=info.get("domain", ""),
            message=found.get("message", ""),
            metadata=info.get("metadata", {}),
            fields=fields,
        )


def bearer(token: str | None) -> dict[str, str]:
    """The header that carries a token."""
    return {"authorization": f"Bearer {token}"} if token is not None else {}
