"""Logs are JSON with trace ids and without the texts of foreign exceptions; traces cost nothing until asked
for.
"""

import json
import logging
import ssl
import subprocess
import sys
import threading
from typing import Any
from uuid import UUID

import prometheus_client.parser
import psycopg
import pytest

from servicekit import errors, settings, telemetry

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "Joana Prado 123.456.789-09"


def line(record: logging.LogRecord) -> dict[str, Any]:
    """The JSON of a record."""
    text = telemetry.JsonFormatter("case", "serve").format(record)
    assert "\n" not in text
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def record(
    message: str = "hello %s", *args: object, error: BaseException | None = None, **extra: object
) -> logging.LogRecord:
    """A log record."""
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.getLogger("x").makeRecord(
        "x", logging.INFO, "f.py", 7, message, args or ("world",), exc_info, extra=extra
    )


def test_a_line() -> None:
    told = line(record(case_id=UUID(int=5), count=2))
    assert told["message"] == "hello world"
    assert told["time"].endswith("+00:00")
    assert (told["level"], told["logger"], told["service"], told["role"]) == ("INFO", "x", "case", "serve")
    assert (told["case_id"], told["count"]) == (str(UUID(int=5)), 2)
    assert "trace_id" not in told


def test_lines_of_one_work_share_its_trace() -> None:
    with telemetry.attach(PARENT):
        assert line(record())["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        with telemetry.span("inner"):
            assert telemetry.trace_id() == "0af7651916cd43dd8448eb211c80319c"
        assert telemetry.traceparent() == PARENT
    with telemetry.span("outer", case_id=UUID(int=1)) as outer:
        outer.set(state="OPEN")
        one = telemetry.trace_id()
        assert line(record())["trace_id"] == one
        assert telemetry.traceparent().split("-")[1] == one
    with telemetry.span("another"):
        assert telemetry.trace_id() != one


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        "x",
        PARENT + "-more",
        PARENT.upper(),
        "ff" + PARENT[2:],
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_a_bad_traceparent_starts_a_new_trace(parent: str | None) -> None:
    with telemetry.attach(parent):
        made = telemetry.trace_id()
        assert len(made) == 32
        assert made != "0af7651916cd43dd8448eb211c80319c"
        assert telemetry.trace_id() == made


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error, as it is after having been raised."""
    try:
        raise error from cause
    except type(error) as caught:
        return caught


def test_foreign_texts_are_left_out() -> None:
    told = line(record(error=raised(RuntimeError(SECRET), cause=raised(ValueError(SECRET)))))
    assert SECRET not in json.dumps(told, ensure_ascii=False)
    assert told["error"]["type"] == "RuntimeError"
    assert told["error"]["cause"]["type"] == "ValueError"
    assert told["error"]["where"][-1].endswith(" raised")


def test_our_own_texts_are_told() -> None:
    told = telemetry.describe(raised(errors.ResourceNotFound("no such case", case="7")))
    assert (told["reason"], told["text"], told["metadata"]) == (
        "RESOURCE_NOT_FOUND",
        "no such case",
        {"case": "7"},
    )
    assert telemetry.describe(settings.SettingInvalid("RECUPERA_X: bad"))["text"] == "RECUPERA_X: bad"
    assert (
        telemetry.describe(FileNotFoundError(2, "No such file", SECRET))["text"]
        == "No such file or directory"
    )
    assert telemetry.describe(psycopg.errors.UniqueViolation(SECRET))["sqlstate"] == "23505"
    assert telemetry.describe(psycopg.OperationalError("no such host"))["text"] == "no such host"
    assert "text" not in telemetry.describe(psycopg.errors.AdminShutdown(SECRET))
    with pytest.raises(ssl.SSLError) as refused:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(__file__)
    assert telemetry.describe(refused.value)["text"] == refused.value.reason


def test_uncaught_exceptions_are_lines_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    try:
        telemetry.setup_logging("case", "worker", "INFO")
        thread = threading.Thread(target=lambda: raised_in_thread(), name="relay")
        thread.start()
        thread.join()
        error = raised(RuntimeError(SECRET))
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [(told["level"], told["thread_name"], told["error"]["type"]) for told in lines] == [
        ("CRITICAL", "relay", "KeyError"),
        ("CRITICAL", "main", "RuntimeError"),
    ]
    assert SECRET not in str(lines)


def raised_in_thread() -> None:
    """Fails."""
    raise KeyError(SECRET)


KNOWN = """
import types
import prometheus_client
from servicekit import telemetry
early = telemetry.counter("early", "{x}", "", known={"a": ("1", "2"), "b": ("3",)})
plain = telemetry.counter("plain", "{x}", "", known={})
unknown = telemetry.counter("unknown", "{x}", "")
telemetry.setup("x", "worker", types.SimpleNamespace(
    listen_host="127.0.0.1", metrics_port=0, ready_file=None, otlp_endpoint=None, trace_ratio=1.0, log_level="INFO"))
late = telemetry.counter("late", "{x}", "", known={"a": ("1",)})
telemetry.begin(unknown, {"a": ("9",)})
plain.add(2)
early.add(1, {"a": "2", "b": "3"})
print(prometheus_client.generate_latest().decode())
"""


def test_a_counter_shows_what_it_may_count_from_the_start() -> None:
    """Also one made at import, before there is anything to show it to."""
    answer = subprocess.run(
        [sys.executable, "-c", KNOWN], capture_output=True, text=True, timeout=60, check=True
    )
    found = {
        (family.name, sample.labels.get("a"), sample.labels.get("b")): sample.value
        for family in prometheus_client.parser.text_string_to_metric_families(answer.stdout)
        for sample in family.samples
        if family.type == "counter" and not family.name.startswith(("python_", "process_"))
    }
    assert found == {
        ("early", "1", "3"): 0,
        ("early", "2", "3"): 1,
        ("plain", None, None): 2,
        ("late", "1", None): 0,
        ("unknown", "9", None): 0,
    }
