"""Traces, metrics and JSON logs (OpenTelemetry SDK).

Everything works before and without `setup`: spans and instruments then cost next to nothing, and a trace id
is made up only when something (a log line, an INTERNAL answer, a call to another service) needs one. With
RECUPERA_OTLP_ENDPOINT spans and metrics are pushed; with RECUPERA_METRICS_PORT Prometheus reads the metrics.

No personal data: attributes and log fields are method names, states, reasons, counts and ids. Texts of
foreign exceptions can quote data (a unique violation quotes the document), so logs show their type, SQLSTATE,
constraint and places in the code instead (architecture.md §1.7).
"""

import contextlib
import contextvars
import datetime
import importlib.metadata
import itertools
import json
import logging
import os
import pathlib
import re
import socket
import ssl
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol
from uuid import UUID

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Observation

from servicekit import errors
from servicekit import settings as settings_module

Attribute = str | int | bool | UUID
AnyCounter = Counter
"""For signatures outside this module."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bucket boundaries of durations."""

SHOWN = 120.0
"""Seconds for which a gauge shows what was looked up."""

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_PLAIN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Settings(Protocol):
    """The part of ServiceSettings that `setup` reads."""

    @property
    def listen_host(self) -> str: ...
    @property
    def metrics_port(self) -> int | None: ...
    @property
    def ready_file(self) -> pathlib.Path | None: ...
    @property
    def otlp_endpoint(self) -> str | None: ...
    @property
    def trace_ratio(self) -> float: ...
    @property
    def log_level(self) -> str: ...


class _Trace:
    """A trace that nobody exports: it has ids only from the moment that somebody asks for them."""

    __slots__ = ("_ids", "_parent")

    def __init__(self, parent: str | None) -> None:
        self._parent = parent
        self._ids: tuple[str, str, str] | None = None

    def ids(self) -> tuple[str, str, str]:
        """(trace id, span id, flags) in hex."""
        if self._ids is None:
            found = _TRACEPARENT.fullmatch(self._parent) if self._parent else None
            self._ids = (
                (found[1], found[2], found[3]) if found else (os.urandom(16).hex(), os.urandom(8).hex(), "00")
            )
        return self._ids


class _State:
    tracer: trace.Tracer | None = None
    shutdowns: Sequence[Any] = ()
    prometheus: Any = None
    begun: Sequence[tuple[Counter, Mapping[str, str]]] = ()
    """Series that are to be there from `setup` on."""


_state = _State()
_quiet: contextvars.ContextVar[_Trace | None] = contextvars.ContextVar("recupera_trace", default=None)


class Span:
    """What `span` yields: `set` adds attributes to the span where there is one."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span | None) -> None:
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        """Add attributes: ids, states, counts."""
        if self._span is not None:
            self._span.set_attributes(_plain(attributes))


_NO_SPAN = Span(None)


def tracing() -> bool:
    """True when spans are exported."""
    return _state.tracer is not None


@contextlib.contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[Span]:
    """A span around the block, child of the current one. An exception marks it failed with its type (or
    reason), no text.
    """
    if _state.tracer is None:
        if _quiet.get() is not None:
            yield _NO_SPAN
            return
        token = _quiet.set(_Trace(None))
        try:
            yield _NO_SPAN
        finally:
            _quiet.reset(token)
        return
    with _state.tracer.start_as_current_span(
        name, attributes=_plain(attributes), record_exception=False, set_status_on_exception=False
    ) as started:
        try:
            yield Span(started)
        except Exception as error:
            fail(started, error)
            raise


def fail(started: trace.Span, error: BaseException) -> None:
    """Mark a span failed by the reason of a ServiceError or the type of anything else."""
    started.set_attribute(
        "error.type", error.reason if isinstance(error, errors.ServiceError) else type(error).__name__
    )
    started.set_status(trace.StatusCode.ERROR)


def server_span(name: str, parent: str | None) -> trace.Span | None:
    """For servers: begin the span of a call whose traceparent header is `parent`, and make it the current
    one.

    The context is not put back: the call has a context of its own. The caller ends the span. Without
    exporter the header is only noted, and there is no span.
    """
    tracer = _state.tracer
    if tracer is None:
        _quiet.set(_Trace(parent))
        return None
    started = tracer.start_span(name, context=_context_of(parent), kind=trace.SpanKind.SERVER)
    otel_context.attach(trace.set_span_in_context(started))
    return started


@contextlib.contextmanager
def attach(parent: str | None) -> Iterator[None]:
    """Work in the block belongs to the trace of this traceparent (of a fact or a call); None or a bad one
    starts anew.
    """
    if _state.tracer is None:
        quiet = _quiet.set(_Trace(parent))
        try:
            yield
        finally:
            _quiet.reset(quiet)
        return
    token = otel_context.attach(_context_of(parent))
    try:
        yield
    finally:
        otel_context.detach(token)


def traceparent() -> str:
    """The W3C traceparent of the current work, for headers of facts and calls."""
    return "00-{}-{}-{}".format(*_ids(make=True))


def trace_id() -> str:
    """The current trace id, 32 hex digits; made up when there is none."""
    return _ids(make=True)[0]


def counter(
    name: str, unit: str, description: str, *, known: Mapping[str, Iterable[str]] | None = None
) -> Counter:
    """A monotonic counter; may be made at import, before `setup`. `add(1, {"state": ...})`; few values per
    attribute, no ids. `known`: as for `begin`; needed where an alert reads it.
    """
    made = metrics.get_meter("recupera").create_counter(name, unit, description)
    if known is not None:
        begin(made, known)
    return made


def begin(counter: Counter, known: Mapping[str, Iterable[str]]) -> None:
    """The counter shows 0, from now (or `setup`) on, for each combination of these values of its attributes;
    {}: for its only series, without attributes.

    `increase()` of Prometheus sees the first event of a series only where it was there before.
    """
    for values in itertools.product(*known.values()):
        attributes = dict(zip(known, map(str, values), strict=True))
        counter.add(0, attributes)
        _state.begun = [*_state.begun, (counter, attributes)]


def histogram(name: str, unit: str, description: str, *, buckets: Sequence[float] = SECONDS) -> Histogram:
    """A histogram; may be made at import, before `setup`. Default buckets suit durations in seconds (unit
    "s").
    """
    return metrics.get_meter("recupera").create_histogram(
        name, unit, description, explicit_bucket_boundaries_advisory=list(buckets)
    )


class Gauge:
    """What somebody looks up now and then: the values of the last look, as long as they may be believed."""

    def __init__(self, name: str, unit: str, description: str) -> None:
        self._shown: Sequence[Observation] = ()
        self._until = 0.0
        metrics.get_meter("recupera").create_observable_gauge(name, [self._observe], unit, description)

    def show(
        self, values: Mapping[str, float] | Iterable[tuple[float, Mapping[str, str]]], *, by: str = ""
    ) -> None:
        """These are all its series from now on, for `SHOWN` seconds: each value with its attributes, or values by
        the attribute `by`."""
        if isinstance(values, Mapping):
            values = [(value, {by: key}) for key, value in values.items()]
        self._shown, self._until = (
            [Observation(value, told) for value, told in values],
            time.monotonic() + SHOWN,
        )

    def hide(self) -> None:
        """Nothing is known."""
        self._shown = ()

    def _observe(self, _options: CallbackOptions) -> Sequence[Observation]:
        return self._shown if time.monotonic() < self._until else ()


def gauge(name: str, unit: str, description: str) -> Gauge:
    """A gauge; may be made at import, before `setup`. Few values per attribute, no ids."""
    return Gauge(name, unit, description)


def setup(service: str, role: str, settings: Settings) -> None:
    """Logs, and exporters as set. Once per process, before work starts. `role` is serve, worker, migrate,
    ...
    """
    setup_logging(service, role, settings.log_level)
    if settings.otlp_endpoint is None and settings.metrics_port is None:
        return
    # the SDK is imported only where it is used: it costs every process start otherwise
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create(
        {
            "service.namespace": "recupera",
            "service.name": f"recupera-{service}",
            "service.version": importlib.metadata.version("recupera"),
            "service.instance.id": f"{socket.gethostname()}-{role}-{os.getpid()}",
            "recupera.role": role,
        }
    )
    readers: list[MetricReader] = []
    shutdowns: list[Any] = []
    if settings.metrics_port is not None:
        import prometheus_client
        from opentelemetry.exporter.prometheus import PrometheusMetricReader

        readers.append(PrometheusMetricReader())
        try:
            _state.prometheus = prometheus_client.start_http_server(
                settings.metrics_port, addr=settings.listen_host
            )
            server = _state.prometheus[0]
            server.set_app(_with_probes(server.get_app(), settings.ready_file))
        except OSError as error:
            raise settings_module.SettingInvalid(
                f"RECUPERA_METRICS_PORT: cannot listen on {settings.listen_host}:{settings.metrics_port} "
                f"({os.strerror(error.errno or 0)}): stop what uses the port, or set another one",
                "RECUPERA_METRICS_PORT",
            ) from None
    if settings.otlp_endpoint is not None:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        insecure = not settings.otlp_endpoint.startswith("https")
        readers.append(
            PeriodicExportingMetricReader(
                OTLPMetricExporter(endpoint=settings.otlp_endpoint, insecure=insecure, timeout=5)
            )
        )
        tracers = TracerProvider(
            resource=resource,
            sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
            shutdown_on_exit=False,
        )
        tracers.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=insecure, timeout=5)
            )
        )
        trace.set_tracer_provider(tracers)
        _state.tracer = tracers.get_tracer("recupera")
        shutdowns.append(tracers)
    meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
    metrics.set_meter_provider(meters)
    for begun, attributes in _state.begun:
        begun.add(0, attributes)
    shutdowns.append(meters)
    _state.shutdowns = shutdowns


def shutdown() -> None:
    """Send what is waiting and stop exporting; the last thing a process does."""
    for provider in _state.shutdowns:
        provider.shutdown()
    _state.shutdowns = ()
    if _state.prometheus is not None:
        server, thread = _state.prometheus
        server.shutdown()
        server.server_close()
        thread.join()
        _state.prometheus = None


def setup_logging(service: str, role: str, level: str = "INFO") -> None:
    """JSON lines on stderr, also for exceptions that nobody caught."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    for noisy in ("kafka", "nameko", "alembic.runtime.plugins"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    logger = logging.getLogger("recupera")

    def uncaught(
        kind: type[BaseException], error: BaseException | None, tb: TracebackType | None, thread: str = "main"
    ) -> None:
        if error is not None and not issubclass(kind, KeyboardInterrupt | SystemExit):
            logger.critical("uncaught exception", exc_info=(kind, error, tb), extra={"thread_name": thread})

    sys.excepthook = uncaught
    threading.excepthook = lambda args: uncaught(
        args.exc_type, args.exc_value, args.exc_traceback, args.thread.name if args.thread else "?"
    )


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, service, role, trace_id, span_id, fields given as
    `extra`, error.
    """

    def __init__(self, service: str, role: str) -> None:
        super().__init__()
        self._fixed = {"service": service, "role": role}

    def format(self, record: logging.LogRecord) -> str:
        """The line, without line end."""
        line: dict[str, Any] = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fixed,
        }
        ids = _ids(make=False)
        if ids[0]:
            line["trace_id"], line["span_id"] = ids[0], ids[1]
        for key, value in record.__dict__.items():
            if key not in _PLAIN_FIELDS and key not in line:
                line[key] = value
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
        return json.dumps(line, default=str, ensure_ascii=False)


def describe(error: BaseException, *, depth: int = 3) -> dict[str, Any]:
    """What may be told of an exception: type, our own reason and text, SQLSTATE and constraint, errno, places
    in the code.

    The text of a foreign exception is left out: it can quote personal data. Why a connection was not made is told.
    """
    told: dict[str, Any] = {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    }
    if isinstance(error, errors.ServiceError):
        told |= {
            "reason": error.reason,
            "text": error.message,
            **({"metadata": error.metadata} if error.metadata else {}),
        }
    elif isinstance(error, settings_module.SettingsError):
        told["text"] = str(error)
    elif isinstance(error, ssl.SSLError):
        told["text"] = getattr(error, "verify_message", "") or error.reason
    elif isinstance(error, OSError) and error.errno is not None:
        told["text"] = os.strerror(error.errno)
    origin = getattr(error, "orig", None)  # SQLAlchemy wraps the driver's error
    driver = origin if isinstance(origin, BaseException) else error
    if sqlstate := getattr(driver, "sqlstate", None):
        told["sqlstate"] = sqlstate
        diagnosis = getattr(driver, "diag", None)
        for field in ("table_name", "constraint_name"):
            if value := getattr(diagnosis, field, None):
                told[field] = value
    elif _is_no_connection(driver):
        told["text"] = str(driver).strip()
    if error.__traceback__ is not None:
        frames = traceback.extract_tb(error.__traceback__, limit=-12)
        told["where"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if following is not None and depth > 1:
        told["cause"] = describe(following, depth=depth - 1)
    return told


def _with_probes(metrics_app: Any, ready_file: pathlib.Path | None) -> Any:
    """Beside the metrics: /live, and /ready while the ready file is there. A probe that runs a command in the container
    instead would cost the node a process each time.
    """

    def app(environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Any:
        path = environ["PATH_INFO"]
        if path not in ("/live", "/ready"):
            return metrics_app(environ, start_response)
        well = path == "/live" or (ready_file is not None and ready_file.exists())
        start_response("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"ok\n" if well else b"not ready\n"]

    return app


def _is_no_connection(error: BaseException) -> bool:
    """PostgreSQL could not be reached or was not trusted: its text has hosts, roles and certificates, no data."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(error, psycopg.OperationalError)


def _plain(attributes: Mapping[str, Attribute]) -> dict[str, str | int | bool]:
    return {key: str(value) if isinstance(value, UUID) else value for key, value in attributes.items()}


def _context_of(parent: str | None) -> otel_context.Context:
    found = _TRACEPARENT.fullmatch(parent) if parent else None
    if found is None:
        return otel_context.Context()
    remote = trace.SpanContext(
        trace_id=int(found[1], 16),
        span_id=int(found[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(found[3], 16)),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote), otel_context.Context())


def _ids(*, make: bool) -> tuple[str, str, str]:
    if _state.tracer is not None:
        current = trace.get_current_span().get_span_context()
        if current.is_valid:
            return (
                format(current.trace_id, "032x"),
                format(current.span_id, "016x"),
                f"{current.trace_flags:02x}",
            )
    quiet = _quiet.get()
    if quiet is None:
        if not make:
            return "", "", ""
        quiet = _Trace(None)
    return quiet.ids()
