"""Calls through the gateway from several threads, none of which tries again: what fails is a failure, with its text.

Readers ask every service, half of them over JSON (HTTP/1.1, connections kept), half over native gRPC (HTTP/2, one
channel a thread). Writers place and release holds of a case each, with a request id: what was answered must be there
once, what was not answered must be named as a failure.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import httpx

from recupera.agreement.v1 import agreement_service_pb2, agreement_service_pb2_grpc
from recupera.case.v1 import case_service_pb2, case_service_pb2_grpc
from recupera.dialer.v1 import dialer_service_pb2, dialer_service_pb2_grpc
from recupera.imports.v1 import imports_service_pb2, imports_service_pb2_grpc
from recupera.notify.v1 import notify_service_pb2, notify_service_pb2_grpc
from support import waiting

DEADLINE = 10.0
PAUSE = 0.04
"""Seconds between two calls of a thread: the load is steady, and leaves the machine room for what is tested."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """A call that was not answered with a success. `at` is seconds since the load began."""

    at: float
    call: str
    text: str

    def __str__(self) -> str:
        return f"{self.at:6.2f} s  {self.call}: {self.text}"


class Load:
    """What was called so far."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.seconds: list[float] = []
        """Of each call that succeeded."""
        self.holds: dict[str, list[str]] = {}
        """Of each case, the holds placed and released again, as they were named in the answers."""
        self.started = time.monotonic()
        self._over = threading.Event()
        self._lock = threading.Lock()

    @property
    def calls(self) -> int:
        """Calls that were answered with a success."""
        return len(self.seconds)

    def percentile(self, share: float) -> float:
        """Seconds within which this share of the calls was answered."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def summary(self) -> str:
        """Calls, failures, latency, for a person."""
        took = time.monotonic() - self.started
        return (
            f"{self.calls} calls in {took:.0f} s ({self.calls / took:.0f}/s), {len(self.failures)} failed; "
            f"p50 {self.percentile(0.5) * 1000:.0f} ms, p99 {self.percentile(0.99) * 1000:.0f} ms, "
            f"slowest {max(self.seconds) * 1000:.0f} ms"
        )

    def failed(self) -> str:
        """The failures, one a line; empty when there are none."""
        return "\n".join(str(one) for one in sorted(self.failures, key=lambda one: one.at)[:40])

    def wait_for_calls(self, more: int, *, seconds: float = 60.0) -> None:
        """Until this many more calls were made: the load is under way."""
        wanted = self.calls + len(self.failures) + more
        waiting.until(
            lambda: self.calls + len(self.failures) >= wanted,
            timeout=seconds,
            what=f"{more} more calls",
        )

    def _run(self, calls: Iterator[tuple[str, Callable[[], object]]], close: Callable[[], None]) -> None:
        """One thread: one call after another."""
        for name, call in calls:
            if self._over.is_set():
                break
            begun = time.monotonic()
            try:
                call()
            except Exception as error:  # whatever it is, it is what the caller met
                with self._lock:
                    self.failures.append(Failure(begun - self.started, name, told(error)))
            else:
                with self._lock:
                    self.seconds.append(time.monotonic() - begun)
            self._over.wait(PAUSE)
        close()


def told(error: Exception) -> str:
    """What a failure says."""
    if isinstance(error, grpc.RpcError):
        call: Any = error  # what a stub raises is a grpc.Call too
        return f"{call.code().name}: {call.details()}"
    return f"{type(error).__name__}: {error}"


@contextmanager
def running(
    url: str,
    *,
    token: str,
    agency: str,
    cases: Sequence[str],
    readers: int = 6,
    writers: int = 2,
) -> Iterator[Load]:
    """Load on the gateway at `url` while the block runs; the block ends when the last call in hand is answered.

    `cases` are names of cases of the agency; each writer has one of its own.
    """
    load = Load()
    clients: list[tuple[Iterator[tuple[str, Callable[[], object]]], Callable[[], None]]] = []
    for number in range(readers):
        make = json_reads if number % 2 else grpc_reads
        clients.append(make(url, token=token, agency=agency, cases=cases, start=number))
    clients.extend(holds(load, url, token=token, case=cases[number]) for number in range(writers))
    threads = [
        threading.Thread(target=load._run, args=client, name=f"load-{number}", daemon=True)
        for number, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load._over.set()
        for thread in threads:
            thread.join()


def json_reads(
    url: str, *, token: str, agency: str, cases: Sequence[str], start: int
) -> tuple[Iterator[tuple[str, Callable[[], object]]], Callable[[], None]]:
    """Endless JSON reads of all five services over one kept connection."""
    client = httpx.Client(base_url=url, timeout=DEADLINE, headers={"authorization": f"Bearer {token}"})

    def get(path: str) -> None:
        answer = client.get(f"/v1/{path}")
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code} {answer.text[:300]}")

    def calls() -> Iterator[tuple[str, Callable[[], object]]]:
        number = start
        while True:
            case = cases[number % len(cases)]
            number += 1
            for path in (
                case,
                f"{case}/timeline",
                f"agencies/{agency}/titles?pageSize=5",
                f"agencies/{agency}/campaigns",
                f"agencies/{agency}/messages?pageSize=5",
                f"agencies/{agency}/batches",
            ):
                yield f"GET {path.split('?')[0].rsplit('/', 1)[-1]}", lambda path=path: get(path)  # type: ignore[misc]

    return calls(), client.close


def grpc_reads(
    url: str, *, token: str, agency: str, cases: Sequence[str], start: int
) -> tuple[Iterator[tuple[str, Callable[[], object]]], Callable[[], None]]:
    """Endless native gRPC reads of all five services over one channel."""
    # gRPC shares connections between channels of the same arguments; this keeps each thread to one of its own.
    channel = grpc.insecure_channel(
        url.removeprefix("http://"),
        options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
    )
    parent = f"agencies/{agency}"
    case = case_service_pb2_grpc.CaseServiceStub(channel)
    agreement = agreement_service_pb2_grpc.AgreementServiceStub(channel)
    dialer = dialer_service_pb2_grpc.DialerServiceStub(channel)
    notify = notify_service_pb2_grpc.NotifyServiceStub(channel)
    importing = imports_service_pb2_grpc.ImportServiceStub(channel)

    def call(method: Any, request: Any) -> Callable[[], object]:
        metadata = [("authorization", f"Bearer {token}")]
        return lambda: method(request, metadata=metadata, timeout=DEADLINE)

    def calls() -> Iterator[tuple[str, Callable[[], object]]]:
        number = start
        while True:
            name = cases[number % len(cases)]
            number += 1
            yield "GetCase", call(case.GetCase, case_service_pb2.GetCaseRequest(name=name))
            yield (
                "ListTitles",
                call(
                    agreement.ListTitles, agreement_service_pb2.ListTitlesRequest(parent=parent, page_size=5)
                ),
            )
            yield "ListAgents", call(dialer.ListAgents, dialer_service_pb2.ListAgentsRequest(parent=parent))
            yield (
                "ListMessages",
                call(notify.ListMessages, notify_service_pb2.ListMessagesRequest(parent=parent, page_size=5)),
            )
            yield (
                "ListBatches",
                call(importing.ListBatches, imports_service_pb2.ListBatchesRequest(parent=parent)),
            )

    return calls(), channel.close


def holds(
    load: Load, url: str, *, token: str, case: str
) -> tuple[Iterator[tuple[str, Callable[[], object]]], Callable[[], None]]:
    """Endless pairs: place a hold on the case, release it. Each is a fact that other services copy, in order."""
    client = httpx.Client(base_url=url, timeout=DEADLINE, headers={"authorization": f"Bearer {token}"})
    placed = load.holds.setdefault(case, [])

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = client.post(f"/v1/{path}", json={**body, "requestId": str(uuid.uuid4())})
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code} {answer.text[:300]}")
        return answer.json()  # type: ignore[no-any-return]

    def place() -> None:
        body = {"type": "TYPE_COMPLAINT", "reason": "load"}
        placed.append(str(post(f"{case}/holds", body)["name"]))

    def calls() -> Iterator[tuple[str, Callable[[], object]]]:
        while True:
            before = len(placed)
            yield "PlaceHold", place
            if len(placed) > before:
                yield "ReleaseHold", lambda: post(f"{placed[-1]}:release", {"reason": "load"})

    return calls(), client.close
