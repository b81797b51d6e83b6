"""Two agencies on one platform that work the same portfolio: same creditors, same debtors, same references.

Each has had a day: the file applied, the ladder run, mails sent, a campaign with calls and dispositions, an agreement
with a payment on it, an unidentified payment, a hold, a promise.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from recupera_local import agencies, examples
from recupera_local import gateway_client as gc
from recupera_local.demo import journey
from support import whole

DAY = datetime.date(2026, 11, 23)
DEBTORS = 60
SEED = 77


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agency:
    """An agency, its caller with all scopes, and the name of one resource of each kind that it has."""

    id: UUID
    token: Callable[..., str]
    gateway: gc.Gateway
    portfolio: Path
    rows: list[dict[str, str]]
    batch: str
    case: Mapping[str, Any]
    spare: str
    creditor: str
    person: str
    hold: str
    message: str
    campaign: str
    agent: str
    call: str
    agreement: str
    payment: str
    unidentified: str

    @property
    def parent(self) -> str:
        """The name of the agency."""
        return f"agencies/{self.id}"


def portfolio(folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """The file of both agencies and its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = examples.Generator(SEED, DEBTORS).portfolio()
    path = folder / "portfolio.csv"
    examples.write(path, examples.PORTFOLIO_COLUMNS, rows)
    return path, rows


def worked(running: whole.Whole, key: str, folder: Path) -> Agency:
    """Let an agency have its day; on a platform where it has had it, find the same again."""
    agency = agencies.all_agencies()[key].id

    def token(**claims: object) -> str:
        return running.token(agency, **claims)

    path, rows = portfolio(folder / key)
    own = token()
    gateway = gc.Gateway(base_url=running.url, token=lambda: own, agency=str(agency))
    plan = journey.Plan(portfolio=path, payments={}, days=[DAY], agents=2)
    day = journey.Journey(gateway=gateway, plan=plan, work_dir=folder / key, say=print, patience=120)
    day.run()

    message = next(iter(gateway.pages("messages", "messages", state="STATE_SENT")))["name"]
    call = next(iter(gateway.pages("calls", "calls", state="STATE_DISPOSITIONED")))
    cases = list(gateway.pages("cases", "cases"))
    free = [
        case
        for case in cases
        if case["state"] == "STATE_IN_COLLECTION"
        and not case["hasAgreement"]
        and case["openPrincipal"]["currencyCode"] == "BRL"
    ]
    case, held, spare = free[0], free[1], free[2]
    people = gateway.get(f"{held['name']}/people")["people"]
    hold = gateway.post(
        f"{held['name']}/holds",
        {"type": "TYPE_DISPUTE", "reason": "e2e", "requestId": f"e2e-hold {held['name']}"},
    )
    gateway.post(
        f"{held['name']}/contacts",
        {
            "contact": {
                "channel": "CHANNEL_CALL",
                "outcome": "OUTCOME_CALLBACK",
                "person": people[0]["name"],
                "manual": True,
            },
            "requestId": f"e2e-contact {held['name']}",
        },
    )
    terms = {
        "instalments": 2,
        "firstDueDate": gc.date_json(DAY + datetime.timedelta(days=1)),
        "annualRateE4": "0",
    }
    case_id = case["name"].rsplit("/", 1)[1]
    agreement = gateway.post(
        "agreements", {"caseIds": [case_id], "terms": terms, "requestId": f"e2e-propose {case['name']}"}
    )
    gateway.post(f"{agreement['name']}:accept", {"requestId": f"e2e-accept {case['name']}"})
    credit = {
        "creditorReference": case["creditorReference"],
        "account": "e2e",
        "means": "TRANSFER",
        "valueDate": gc.date_json(DAY),
        "amount": gc.money_json(500, "BRL"),
    }
    payment = gateway.post(
        "payments",
        {
            **credit,
            "bankReference": f"e2e-1 {case['contractReference']}",
            "contractReference": case["contractReference"],
            "requestId": f"e2e-payment {case['name']}",
        },
    )
    stray = gateway.post("payments", {**credit, "bankReference": f"e2e-2 {case['contractReference']}"})
    day.settle()
    return Agency(
        id=agency,
        token=token,
        gateway=gateway,
        portfolio=path,
        rows=rows,
        batch=day.batches[0],
        case=gateway.get(case["name"]),
        spare=spare["name"],
        creditor=case["creditor"],
        person=people[0]["name"],
        hold=hold["name"],
        message=message,
        campaign=call["campaign"],
        agent="agents/agent-00",
        call=call["name"],
        agreement=agreement["name"],
        payment=payment["name"],
        unidentified=stray["name"],
    )
