"""A small client of the gateway's JSON API, for the demo and for end-to-end tests: what a creditor's system
would write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")


class CallRefused(Exception):
    """The platform refused a call; `reason` is the ErrorInfo's, e.g. DUPLICATE_FILE."""

    def __init__(self, *, call: str, status: int, reason: str, message: str, details: list[Any]) -> None:
        super().__init__(f"{call}: {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details


class WaitedTooLong(Exception):
    """A condition did not become true in time; the message says which and what was seen last."""


class Gateway:
    """JSON calls as one caller of one agency.

    `agency` is the agency's id; paths are relative to `/v1/agencies/{agency}`.
    """

    def __init__(
        self, *, base_url: str, token: Callable[[], str], agency: str, patience_seconds: float = 0.0
    ) -> None:
        """`patience_seconds`: how long a call that found nobody is made again; mutations carry a request id,
        so a repeat is safe."""
        self._patience = patience_seconds
        self.agency = agency
        self.parent = f"agencies/{agency}"
        self._token = token
        self._http = httpx.Client(base_url=base_url, timeout=httpx.Timeout(60.0, write=600.0, read=600.0))

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        return self._call("GET", path, params=query)

    def post(self, path: str, body: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        return self._call("POST", path, json=body or {}, params=query)

    def patch(self, path: str, body: dict[str, Any], **query: Any) -> dict[str, Any]:
        return self._call("PATCH", path, json=body, params=query)

    def upload(self, *, path: Path, kind: str, **query: Any) -> dict[str, Any]:
        """Upload a file as the body of a POST, streamed; `kind` is PORTFOLIO or PAYMENTS."""
        return self._call(
            "POST",
            "batches:upload",
            file=path,
            params={
                "kind": f"BATCH_KIND_{kind}",
                "fileName": path.name,
                "sizeBytes": path.stat().st_size,
                **query,
            },
            headers={"content-type": "text/csv", "content-length": str(path.stat().st_size)},
        )

    def download(self, path: str, **query: Any) -> bytes:
        """A document: the bytes of the answer as they are."""
        return self._answer("GET", path, params=query).content

    def pages(self, path: str, field: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a paged list."""
        page_token = ""
        while True:
            answer = self.get(path, pageSize=1000, pageToken=page_token, **query)
            yield from answer.get(field, [])
            page_token = answer.get("nextPageToken", "")
            if not page_token:
                return

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._answer(method, path, **arguments).json()
        assert isinstance(answer, dict)
        return answer

    def _answer(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        end = time.monotonic() + self._patience
        while True:
            try:
                return self._answer_once(method, path, **arguments)
            except (httpx.TransportError, CallRefused) as error:
                passing = isinstance(error, httpx.TransportError) or error.status in _NOBODY_THERE
                if not passing or time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _answer_once(
        self,
        method: str,
        path: str,
        *,
        file: Path | None = None,
        headers: dict[str, str] | None = None,
        **arguments: Any,
    ) -> httpx.Response:
        url = f"/v1/{path}" if path.startswith("agencies/") else f"/v1/{self.parent}/{path}"
        headers = {"authorization": f"Bearer {self._token()}", **(headers or {})}
        if file is None:
            response = self._http.request(method, url, headers=headers, **arguments)
        else:
            with file.open("rb") as body:
                response = self._http.request(
                    method, url, headers=headers, content=_pieces(body.read), **arguments
                )
        if response.status_code == 200:
            return response
        try:
            status = response.json()
        except ValueError:
            status = {"message": response.text}
        details = status.get("details", [])
        reason = next((d["reason"] for d in details if "reason" in d), f"HTTP_{response.status_code}")
        raise CallRefused(
            call=f"{method} {path}",
            status=response.status_code,
            reason=reason,
            message=status.get("message", ""),
            details=details,
        )


# 500 stands here because a server that is killed in a call shows as a broken stream.
_NOBODY_THERE = frozenset({500, 502, 503, 504})


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(1 << 18):
        yield piece


def wait_for(what: str, probe: Callable[[], T | None], *, seconds: float = 300.0) -> T:
    """Ask `probe` until it answers something true; WaitedTooLong names `what` after `seconds`."""
    end = time.monotonic() + seconds
    pause = 0.05
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise WaitedTooLong(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def date_json(day: date) -> dict[str, int]:
    return {"year": day.year, "month": day.month, "day": day.day}


def date_of(value: dict[str, int]) -> date:
    return date(value["year"], value["month"], value["day"])


def money_json(minor: int, currency: str) -> dict[str, Any]:
    units, cents = divmod(abs(minor), 100)
    sign = -1 if minor < 0 else 1
    return {"currencyCode": currency, "units": str(sign * units), "nanos": sign * cents * 10_000_000}


def minor_of(value: dict[str, Any] | None) -> int:
    """Minor units of a google.type.Money in JSON; absent is zero."""
    if not value:
        return 0
    return int(value.get("units", 0)) * 100 + int(value.get("nanos", 0)) // 10_000_000


def decimal_text(minor: int) -> str:
    """Minor units as decimal text with two places: -5 is "-0.05"."""
    sign = "-" if minor < 0 else ""
    return f"{sign}{abs(minor) // 100}.{abs(minor) % 100:02d}"
