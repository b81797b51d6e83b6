"""An OTLP collector that keeps what it is sent: spans, and which metrics with which attributes."""

from __future__ import annotations

import threading
from concurrent import futures
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector:
    """Listens on a port of its own from the moment that it is made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._traces: list[Any] = []
        self._metrics: dict[str, Any] = {}
        collector = self

        class Traces(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                with collector._lock:
                    collector._traces.append(request)
                return trace_service_pb2.ExportTraceServiceResponse()

        class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                with collector._lock:  # cumulative: the last that a process sent is all that it has to say
                    for resource in request.resource_metrics:
                        told = {one.key: one.value.string_value for one in resource.resource.attributes}
                        collector._metrics[told["service.instance.id"]] = resource
                return metrics_service_pb2.ExportMetricsServiceResponse()

        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._server.start()

    def close(self) -> None:
        """Stop."""
        self._server.stop(0).wait()

    def requests(self) -> list[Any]:
        """All that was sent, as it was sent: traces, and the last metrics of each process."""
        with self._lock:
            return [*self._traces, *self._metrics.values()]

    def spans(self) -> list[Any]:
        """Every span."""
        with self._lock:
            return [
                span
                for request in self._traces
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    def resources(self) -> list[dict[str, str]]:
        """What each process that sent spans or metrics says of itself."""
        with self._lock:
            found = [resource.resource for resource in self._metrics.values()]
            found += [resource.resource for request in self._traces for resource in request.resource_spans]
        return [{one.key: one.value.string_value for one in resource.attributes} for resource in found]

    def metrics(self) -> dict[str, Any]:
        """The metrics by name, of whichever process sent it last."""
        with self._lock:
            return {
                metric.name: metric
                for resource in self._metrics.values()
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }
