"""Two agencies on one platform that work the same portfolio: same creditors, same debtors, same references.

Each has had a day: the file applied, the ladder run, mails sent, a campaign with calls and dispositions, an agreement
with a payment on it, an unidentified payment, a hold, a promise.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

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
    money: Mapping[str, str]

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
    day = journey.Journey(gateway=gateway, plan=plan, work_dir=folder / key, say=print, patience=300)
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
        money=_money(gateway, spare=spare, paid=case, agreement=agreement["name"], cases=cases),
    )


def _money(
    gateway: gc.Gateway,
    *,
    spare: Mapping[str, Any],
    paid: Mapping[str, Any],
    agreement: str,
    cases: Sequence[Mapping[str, Any]],
) -> Mapping[str, str]:
    """One resource of each kind of the agreement service, by kind; those of a creditor are of the spare case's."""
    parent, creditor = gateway.parent, spare["creditor"]
    creditor_id, case_id = creditor.rsplit("/", 1)[1], spare["name"].rsplit("/", 1)[1]
    tomorrow = gc.date_json(DAY + datetime.timedelta(days=1))

    def made(path: str, body: dict[str, Any]) -> str:
        return str(gateway.post(path, body, requestId=f"e2e {path[-60:]} {case_id}")["name"])

    def found_or_made(path: str, body: dict[str, Any], **query: Any) -> str:
        known = next((one for one in gateway.get(path, **query).values() if isinstance(one, list)), [])
        return str(known[0]["name"]) if known else made(path, body)

    reference = paid["creditorReference"]
    with_terms = {"instalments": 3, "firstDueDate": tomorrow, "annualRateE4": "0"}
    title = gateway.get("titles", caseId=case_id)["titles"][0]["name"]
    euro = next(
        case
        for case in cases
        if case["openPrincipal"]["currencyCode"] == "EUR" and case["state"] == "STATE_IN_COLLECTION"
    )
    euro_id = euro["name"].rsplit("/", 1)[1]
    contract = {
        "creditorReference": reference,
        "currency": "BRL",
        "validFrom": gc.date_json(DAY - datetime.timedelta(days=1)),
        "bands": [{"principalRateE4": "100000", "chargesRateE4": "100000", "costsRateE4": "0"}],
        "frequency": "FREQUENCY_DAY",
        "grouping": "GROUPING_GROUPED",
    }
    mandate = {
        "caseId": euro_id,
        "reference": f"E2E {case_id[-12:]}",
        "signatureDate": gc.date_json(DAY),
        "iban": "PT50000201231234567890154",
    }
    gateway.patch(
        f"{euro['creditor']}/euroAccount",
        {
            "holderName": "Credor SA",
            "iban": "PT50000201231234567890154",
            "schemeIdentifier": "PT73ZZZ123456",
            "multibancoEntity": "90150",
        },
    )
    found = {
        "creditor": creditor,
        "title": title,
        "instrument": gateway.get("instruments")["instruments"][0]["name"],
        "draft": made("drafts", {"request": {"parent": parent, "caseIds": [case_id], "terms": with_terms}}),
        "limit": made("limits", {"kind": "KIND_INSTALMENTS", "role": "e2e", "minimum": "1", "maximum": "3"}),
        "condition": made(
            "paymentConditions",
            {
                "creditor": creditor,
                "description": f"e2e {case_id}",
                "active": True,
                "currency": "BRL",
                "daysToFirst": 3,
                "chargeMeans": "BOLETO",
                "options": [{"number": 1, "instalments": 2, "intervalDays": 30}],
            },
        ),
        "category": made("agreementCategories", {"title": f"e2e {case_id}", "active": True}),
        "account": made(
            "collectionAccounts",
            {
                "creditorId": creditor_id,
                "description": f"e2e {case_id}",
                "beneficiaryName": "Recupera Cobrancas",
                "pixKey": "123e4567-e12b-12d1-a456-426655440000",
                "pixName": "Recupera Cobrancas",
                "pixCity": "SAO PAULO",
                "active": True,
            },
        ),
        "terms": made(
            "chargeTerms",
            {
                "creditorId": creditor_id,
                "currency": "BRL",
                "consumer": True,
                "validFrom": tomorrow,
                "penaltyRateE4": "20000",
                "interestRateE4": "10000",
                "interestUnit": "INTEREST_UNIT_MONTH",
                "dayCount": "DAY_COUNT_THIRTY_DAY_MONTH",
                "source": "e2e",
            },
        ),
        "contract": found_or_made("commissionContracts", contract, creditorReference=reference),
        "mandate": found_or_made("mandates", mandate, caseId=euro_id),
        "minute": made(f"{agreement}/minutes", {}),
        "euro_creditor": euro["creditor"],
    }
    closing = {"creditorReference": reference, "currency": "BRL", "periodEnd": gc.date_json(DAY)}
    if not gateway.get("statements").get("statements"):
        gateway.post("statements:close", closing)
    found["statement"] = gateway.get("statements")["statements"][0]["name"]
    with pytest.raises(gc.CallRefused, match="APPROVAL_REQUESTED") as refused:
        gateway.post("titles:writeOff", {"caseId": case_id, "type": "WRITE_OFF_TYPE_LOSS", "reason": "e2e"})
    asked = next(one["metadata"]["approval"] for one in refused.value.details if "metadata" in one)
    return {**found, "approval": asked}
