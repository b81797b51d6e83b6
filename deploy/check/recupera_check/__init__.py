"""The small journey that shows an installation works, through its gateway: a portfolio of three titles becomes a case,
the case an agreement, the agreement is paid in full, and every cent is accounted for.

It needs a token of an agency kept for checks. Nobody is contacted: the debtor has no address, phone or e-mail. What it
leaves is a case that is resolved and an agreement that is fulfilled, new ones each time.
"""

from __future__ import annotations

import base64
import datetime
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx

CREDITOR = "CHECK"
DOCUMENT = "11144477735"
"""A CPF with right check digits that the Receita Federal never gave to anybody: the textbooks' example."""
PRINCIPALS = (120_00, 80_50, 99_99)
"""Minor units of BRL."""
PATIENCE = 120.0
"""Seconds for each step."""
_NOT_YET = frozenset({502, 503, 504})


class CheckFailed(Exception):
    """The installation did not do what it must; the message says at which step and what it answered."""


class Refused(CheckFailed):
    """A call was answered with an error."""

    def __init__(self, call: str, status: int, reason: str, message: str) -> None:
        super().__init__(f"{call}: HTTP {status} {reason}: {message}")
        self.status = status
        self.reason = reason


class Check:
    """One journey at one gateway. `say` gets a line for each step that was seen to work."""

    def __init__(self, *, base_url: str, token: str, say: Callable[[str], None]) -> None:
        self._agency = agency_of(token)
        self._http = httpx.Client(
            base_url=base_url, timeout=30.0, headers={"authorization": f"Bearer {token}"}
        )
        self._say = say
        self._run = uuid.uuid4().hex[:12]

    def run(self) -> None:
        """The whole journey. Raises CheckFailed."""
        try:
            today = self._clock()
            case = self._place(today)
            agreement, due = self._agree(case, today)
            self._pay(agreement, case, due, today)
            self._account()
        finally:
            self._http.close()

    def _clock(self) -> datetime.date:
        """The business date of the agency, whose clock is made when there is none yet."""

        def known() -> dict[str, Any] | None:
            try:
                return self._get("clock")
            except Refused as refused:
                if refused.status != 404 and refused.reason != "AGENCY_CLOCK_UNKNOWN":
                    raise
            self._post("clock:set", timeZone="America/Sao_Paulo", currency="BRL")
            return None

        day = self._wait("the agency's clock", known)["businessDate"]
        today = datetime.date(day["year"], day["month"], day["day"])
        self._say(f"the agency's business date is {today}")
        return today

    def _place(self, today: datetime.date) -> dict[str, Any]:
        due = today - datetime.timedelta(days=40)
        rows = [
            "creditor_reference;creditor_name;contract_reference;debtor_document;debtor_name;title_reference;"
            "due_date;principal;currency"
        ]
        for number, minor in enumerate(PRINCIPALS, 1):
            rows.append(
                f"{CREDITOR};Verificação da instalação;{self._run};{DOCUMENT};Devedor de verificação;"
                f"{self._run}-{number};{due};{minor // 100}.{minor % 100:02d};BRL"
            )
        content = "\n".join([*rows, ""]).encode()

        def uploaded() -> dict[str, Any] | None:
            try:
                return self._call(
                    "POST",
                    "batches:upload",
                    params={
                        "kind": "BATCH_KIND_PORTFOLIO",
                        "fileName": f"check-{self._run}.csv",
                        "sizeBytes": len(content),
                        "requestId": f"{self._run}-upload",
                    },
                    content=content,
                    headers={"content-type": "text/csv"},
                )
            except Refused as refused:
                if refused.reason != "AGENCY_CLOCK_UNKNOWN":  # a clock made a moment ago is on its way
                    raise
                return None

        name = self._wait("the upload", uploaded)["name"]

        def applied() -> dict[str, Any] | None:
            batch = self._get(name)
            if batch["state"] in ("STATE_REJECTED", "STATE_APPLIED_WITH_ERRORS", "STATE_AWAITING_APPROVAL"):
                raise CheckFailed(f"the portfolio was not taken: {batch}")
            return batch if batch["state"] == "STATE_APPLIED" else None

        self._wait("the portfolio applied", applied)

        def found() -> dict[str, Any] | None:
            cases: list[dict[str, Any]] = self._get("cases", contractReference=self._run).get("cases", [])
            return cases[0] if cases else None

        case: dict[str, Any] = self._wait("the case", found)
        if minor_of(case["openPrincipal"]) != sum(PRINCIPALS):
            raise CheckFailed(f"the case has {case['openPrincipal']} open, expected {sum(PRINCIPALS)} cents")
        self._say(f"a portfolio of {len(PRINCIPALS)} titles became a case")
        return case

    def _agree(self, case: dict[str, Any], today: datetime.date) -> tuple[str, int]:
        """Name of the accepted agreement and the sum of its instalments in minor units."""
        case_id = case["name"].rsplit("/", 1)[1]

        def proposed() -> dict[str, Any] | None:
            try:
                return self._post(
                    "agreements",
                    caseIds=[case_id],
                    terms={
                        "instalments": 2,
                        "firstDueDate": date_json(today + datetime.timedelta(days=5)),
                    },
                    validityDays=1,
                    requestId=f"{self._run}-propose",
                )
            except Refused as refused:
                # The case stands before its titles carry a balance: they travel as facts.
                if refused.status not in (400, 404, 409):
                    raise
                self._last = str(refused)
                return None

        name = self._wait("the titles' balances", proposed)["name"]
        agreement = self._post(f"{name}:accept", requestId=f"{self._run}-accept")
        due = sum(minor_of(instalment["amount"]) for instalment in agreement["instalments"])
        if due < sum(PRINCIPALS):
            raise CheckFailed(f"the agreement's instalments make {due} cents, less than the principal")
        self._say(f"its agreement of {len(agreement['instalments'])} instalments was accepted")
        return name, due

    def _pay(self, agreement: str, case: dict[str, Any], due: int, today: datetime.date) -> None:
        self._post(
            "payments",
            creditorReference=CREDITOR,
            account="check",
            means="TRANSFER",
            bankReference=self._run,
            valueDate=date_json(today),
            amount={"currencyCode": "BRL", "units": str(due // 100), "nanos": due % 100 * 10_000_000},
            contractReference=self._run,
            requestId=f"{self._run}-pay",
        )
        self._wait(
            "the agreement fulfilled", lambda: self._get(agreement)["state"] == "STATE_FULFILLED" or None
        )
        self._wait(
            "the case resolved", lambda: minor_of(self._get(case["name"]).get("openPrincipal")) == 0 or None
        )
        self._say("one payment fulfilled the agreement and resolved the case")

    def _account(self) -> None:
        accounts = self._get("ledger:trialBalance")["accounts"]
        debit = sum(minor_of(account.get("debit")) for account in accounts)
        credit = sum(minor_of(account.get("credit")) for account in accounts)
        if debit != credit or not debit:
            raise CheckFailed(f"the books do not balance: {debit} cents debited, {credit} credited")
        self._say("the books balance")

    # -- calls -----------------------------------------------------------------------------------------------------

    def _get(self, path: str, **query: str) -> dict[str, Any]:
        return self._call("GET", path, params=query)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        full = path if path.startswith("agencies/") else f"agencies/{self._agency}/{path}"
        answer = self._http.request(method, f"/v1/{full}", **arguments)
        try:
            body = answer.json()
        except ValueError:
            body = {"message": answer.text}
        if answer.status_code != 200:
            reason = next((one["reason"] for one in body.get("details", ()) if "reason" in one), "")
            raise Refused(f"{method} {path}", answer.status_code, reason, body.get("message", ""))
        return dict(body)

    _last = ""

    def _wait(self, what: str, probe: Callable[[], Any]) -> Any:
        """What the probe answers, as soon as it is something. A gateway that is not up yet is waited for."""
        end = time.monotonic() + PATIENCE
        self._last = "nothing came"
        while True:
            try:
                if answer := probe():
                    return answer
            except httpx.TransportError as error:
                self._last = repr(error)
            except Refused as refused:
                if refused.status not in _NOT_YET:
                    raise
                self._last = str(refused)
            if time.monotonic() > end:
                raise CheckFailed(f"{what}: not within {PATIENCE:.0f} s; last: {self._last}")
            time.sleep(0.2)


def agency_of(token: str) -> str:
    """The agency that a token speaks for. Raises CheckFailed where the token has none."""
    try:
        payload = token.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["agency"])
    except (IndexError, ValueError, KeyError):
        raise CheckFailed("the token is no JWT with the claim `agency`") from None


def minor_of(value: dict[str, Any] | None) -> int:
    """Minor units of a google.type.Money in JSON; absent is zero."""
    value = value or {}
    return int(value.get("units", 0)) * 100 + int(value.get("nanos", 0)) // 10_000_000


def date_json(day: datetime.date) -> dict[str, int]:
    """A google.type.Date in JSON."""
    return {"year": day.year, "month": day.month, "day": day.day}
