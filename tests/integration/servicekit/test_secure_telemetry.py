"""Spans to a collector that shows a certificate: a real process, a real gRPC server with TLS."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from support import certificates

PROGRAM = """
import dataclasses
from servicekit import telemetry

@dataclasses.dataclass
class Settings:
    otlp_endpoint: str
    listen_host: str = "127.0.0.1"
    metrics_port: int | None = None
    trace_ratio: float = 1.0
    log_level: str = "INFO"

import sys
telemetry.setup("test", "once", Settings(sys.argv[1]))
with telemetry.span("seen"):
    pass
telemetry.shutdown()
"""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Notes the names of spans."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.came = threading.Event()

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names += [span.name for span in scope.spans]
        self.came.set()
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[Collector, int, certificates.Authority]]:
    """A collector, its port and its CA."""
    authority = certificates.Authority(tmp_path / "pki")
    signed = authority.sign("collector", "localhost")
    noting = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(noting, server)
    credentials = grpc.ssl_server_credentials([(signed.key.read_bytes(), signed.certificate.read_bytes())])
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield noting, port, authority
    server.stop(0)


def send(port: int, ca: Path) -> subprocess.CompletedProcess[str]:
    """A process that makes one span; it trusts this CA as the chart says it."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, f"https://localhost:{port}"],
        env={**os.environ, "OTEL_EXPORTER_OTLP_CERTIFICATE": str(ca)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_spans_reach_a_collector_that_is_trusted_and_no_other(
    collector: tuple[Collector, int, certificates.Authority], tmp_path: Path
) -> None:
    noting, port, authority = collector
    refused = send(port, certificates.Authority(tmp_path, "stranger").file)
    assert "UNAVAILABLE" in refused.stderr
    assert noting.names == []
    answer = send(port, authority.file)
    assert answer.returncode == 0, answer.stderr
    assert noting.came.wait(20)
    assert noting.names == ["seen"]
