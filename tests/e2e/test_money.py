"""Money from outside: one debt through the whole of the agreement service, by JSON over the gateway, on an agency of
its own: negotiated beyond limits, novated, signed, paid in part, broken, reinstated; another written off; then the
ledger, and the account given to the creditor.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import datetime
import hashlib
import io
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import openpyxl
import pypdfium2
import pytest

from recupera_local import examples
from recupera_local import gateway_client as gc
from recupera_local.demo import journey
from servicekit import ids
from support import whole

DAYS = journey.weekdays_from(datetime.date(2026, 11, 23), 7)
DEBTORS = 40
SEED = 11
BRL = "BRL"
SIGNED = b"%PDF-1.7\nConfissao de divida, assinada.\n%%EOF\n"
VALIDITY_DAYS = 5
"""Of a draft and a proposal, where the creditor says nothing else: interest is counted to the last one (W-09)."""
COMMISSION_E4 = 120_000
ISS_E4 = 50_000

Money = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Refused:
    """A refusal as a program of a creditor sees it."""

    reason: str
    fields: dict[str, str]
    metadata: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Desk:
    """An agency with a small portfolio, and those who work there: whoever negotiates, his supervisor, whoever keeps the
    accounts and the manager who agrees."""

    day: journey.Journey
    collector: gc.Gateway
    supervisor: gc.Gateway
    accountant: gc.Gateway
    manager: gc.Gateway

    def cases(self, currency: str) -> list[dict[str, Any]]:
        """Cases of a currency that are worked on, the largest debt first."""
        found = [
            case
            for case in self.collector.pages("cases", "cases")
            if case["openPrincipal"]["currencyCode"] == currency
            and case["state"] == "STATE_IN_COLLECTION"
            and not case.get("hasAgreement")
        ]
        return sorted(found, key=lambda case: -gc.minor_of(case["openPrincipal"]))

    def until(self, day: datetime.date) -> None:
        """The business days up to `day`, each run."""
        while self.today < day:
            self.next_day()

    def next_day(self) -> None:
        """One business day more."""
        tomorrow = DAYS[DAYS.index(self.today) + 1]
        self.day.set_clock(tomorrow)
        self.day.run_day(tomorrow)
        self.day.settle()

    @property
    def today(self) -> datetime.date:
        """The business date."""
        return gc.date_of(self.collector.get("money:summarize")["date"])


def refused(call: Callable[..., object], *arguments: Any, **query: Any) -> Refused:
    """What a call is refused with."""
    with pytest.raises(gc.CallRefused) as caught:
        call(*arguments, **query)
    fields: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for detail in caught.value.details:
        metadata |= detail.get("metadata", {})
        fields |= {one["field"]: one["description"] for one in detail.get("fieldViolations", [])}
    return Refused(caught.value.reason, fields, metadata)


@pytest.fixture(scope="module")
def desk(whole: whole.Whole, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """An agency of this test's own, its portfolio placed on the first day."""
    folder = tmp_path_factory.mktemp("money")
    agency = ids.new()
    path = folder / "portfolio.csv"
    examples.write(path, examples.PORTFOLIO_COLUMNS, examples.Generator(SEED, DEBTORS).portfolio())

    def caller(subject: str, *roles: str) -> gc.Gateway:
        token = whole.token(agency, subject=f"users/{subject}", roles=roles)
        return gc.Gateway(base_url=whole.url, token=lambda: token, agency=str(agency))

    people = {
        "collector": caller("collector", "collector"),
        "supervisor": caller("supervisor", "supervisor"),
        "accountant": caller("accountant"),
        "manager": caller("manager", "manager"),
    }
    day = journey.Journey(
        gateway=people["collector"],
        plan=journey.Plan(portfolio=path, payments={}, days=DAYS),
        work_dir=folder,
        say=print,
        patience=120,
    )
    day.set_clock(DAYS[0])
    day.place_portfolio()
    day.run_day(DAYS[0])
    day.settle()
    yield Desk(day=day, **people)
    for person in people.values():
        person.close()


@pytest.mark.timeout(600)
def test_a_debt_travels_the_whole_way(desk: Desk) -> None:
    lead, lost, *_ = desk.cases(BRL)
    euro, *_ = desk.cases("EUR")
    settings_of_the_creditor(desk, lead)
    draft = saved_and_reopened(desk, lead)
    agreement = proposed_beyond_a_limit(desk, draft)
    agreement = accepted_and_signed(desk, agreement)
    documents(desk, agreement)
    paid = first_payment_by_txid(desk, lead, agreement)
    broken_and_restored(desk, lead, agreement, paid)
    reinstated(desk, agreement)
    written_off(desk, lost)
    paid_in_euro(desk, euro)
    identities_hold(desk)
    account_to_creditor(desk, lead)


def settings_of_the_creditor(desk: Desk, case: Mapping[str, Any]) -> None:
    """A confession and a tenth paid down; at most three instalments for collectors."""
    name = f"{case['creditor']}/settings"
    wrong = refused(desk.manager.patch, name, {"brokenDays": 400}, updateMask="brokenDays")
    assert wrong.reason == "INVALID_REQUEST"
    assert wrong.fields == {"settings.broken_days": "expected 1 to 365"}
    answer = desk.manager.patch(
        name,
        {
            "confessionRequired": True,
            "minimumDownPayment": {"rateE4": "100000"},
            "maximumInstalments": 12,
            "brokenDays": 2,
        },
        updateMask="confessionRequired,minimumDownPayment,maximumInstalments,brokenDays",
    )
    assert answer["confessionRequired"]
    assert answer["acceptedMeans"], "what is not in the mask stays"
    desk.manager.post("limits", {"kind": "KIND_INSTALMENTS", "role": "collector", "maximum": "3"})
    allowances = desk.collector.get(f"{case['creditor']}:explainLimits")["allowances"]
    assert {"kind": "KIND_INSTALMENTS", "ranges": [{"maximum": "3"}]} in allowances


def saved_and_reopened(desk: Desk, case: Mapping[str, Any]) -> dict[str, Any]:
    """What does not suit the creditor is refused; the draft is saved, read again, saved anew."""
    request: dict[str, Any] = {
        "parent": desk.collector.parent,
        "caseIds": [identity(case["name"])],
        "terms": {"instalments": 13, "firstDueDate": gc.date_json(DAYS[2]), "method": "METHOD_PRICE"},
        "date": gc.date_json(desk.today + datetime.timedelta(days=VALIDITY_DAYS)),
    }
    wrong = refused(desk.collector.post, "agreements:simulate", request)
    assert wrong.reason == "OUTSIDE_CREDITOR_SETTINGS"
    assert wrong.fields["terms.instalments"] == "expected 1 to 12"
    least = wrong.fields["terms.down_payment"].removeprefix("expected ").removesuffix(" or more")
    request["terms"] |= {
        "instalments": 4,
        "downPayment": gc.money_json(int(least.replace(".", "")), BRL),
        "downPaymentDate": gc.date_json(DAYS[0]),
    }
    saved = desk.collector.post("drafts", {"request": request})
    reopened = desk.collector.get(saved["name"])
    assert reopened["request"] == saved["request"]
    simulation = reopened["simulation"]
    assert [one["rule"] for one in simulation["neededApprovals"]] == ["INSTALMENTS"]
    assert sum(gc.minor_of(row["amount"]) for row in simulation["rows"]) == gc.minor_of(simulation["total"])
    again = desk.collector.patch(saved["name"], {"request": request, "etag": reopened["etag"]})
    stale = refused(desk.collector.patch, saved["name"], {"request": request, "etag": reopened["etag"]})
    assert stale.reason == "VERSION_MISMATCH"
    return again


def proposed_beyond_a_limit(desk: Desk, draft: Mapping[str, Any]) -> dict[str, Any]:
    """Four instalments where three are the limit: asked for, not by himself, approved by somebody else, once."""
    body = {
        "draft": draft["name"],
        "draftEtag": draft["etag"],
        "nature": {"kind": "KIND_NOVATION"},
        "requestId": str(uuid.uuid4()),
    }
    asked = refused(desk.collector.post, "agreements", body)
    assert asked.reason == "APPROVAL_REQUESTED"
    assert (asked.metadata["rule"], asked.metadata["limit"], asked.metadata["asked"]) == (
        "INSTALMENTS",
        "any to 3",
        "4",
    )
    approval = asked.metadata["approval"]
    assert desk.collector.get(draft["name"])["state"] == "STATE_AWAITING_APPROVAL"
    own = refused(desk.collector.post, f"{approval}:decide", {"decision": "DECISION_APPROVE"})
    assert own.reason == "APPROVER_IS_REQUESTER"
    decided = desk.supervisor.post(f"{approval}:decide", {"decision": "DECISION_APPROVE"})
    assert decided["state"] == "STATE_APPROVED"
    assert decided["decidedBy"] == "users/supervisor"
    twice = refused(desk.supervisor.post, f"{approval}:decide", {"decision": "DECISION_APPROVE"})
    assert twice.reason == "APPROVAL_CLOSED"
    agreement = desk.collector.get(decided["result"])
    assert agreement["state"] == "STATE_PROPOSED"
    assert desk.collector.post("agreements", body)["name"] == agreement["name"], "said again: the same answer"
    return agreement


def accepted_and_signed(desk: Desk, agreement: Mapping[str, Any]) -> dict[str, Any]:
    """Accepted, it awaits the signature; with the document the originals are replaced, a title an instalment."""
    name, case_id = agreement["name"], agreement["caseIds"][0]
    early = refused(desk.collector.post, f"{name}:uploadSignedDocument", {"content": encoded(SIGNED)})
    assert early.reason == "SIGNATURE_NOT_AWAITED"
    accepted = desk.collector.post(f"{name}:accept", {"etag": agreement["etag"], "channel": "CHANNEL_PHONE"})
    assert accepted["state"] == "STATE_AWAITING_SIGNATURE"
    before = titles(desk, case_id)
    no_document = refused(
        desk.collector.post, f"{name}:uploadSignedDocument", {"content": encoded(b"GIF89a")}
    )
    assert list(no_document.fields) == ["content"]
    signed = desk.collector.post(f"{name}:uploadSignedDocument", {"content": encoded(SIGNED)})
    assert signed["state"] == "STATE_AWAITING_DOWN_PAYMENT"
    kept = desk.collector.get(f"{name}:downloadSignedDocument")
    assert base64.b64decode(kept["content"]) == SIGNED
    assert base64.b64decode(kept["document"]["sha256"]) == hashlib.sha256(SIGNED).digest()
    after = titles(desk, case_id)
    assert {after[one]["state"] for one in before} == {"STATE_NOVATED"}
    new = [one for one in after.values() if one.get("originAgreement") == name]
    capital = sum(gc.minor_of(row["capital"]) for row in signed["instalments"])
    assert len(new) == len(signed["instalments"]) == 5
    assert sum(gc.minor_of(one["principal"]) for one in new) == capital
    lineage = desk.collector.get(f"{new[0]['name']}:lineage")
    assert {one["name"] for one in lineage["ancestors"]} == set(before)

    def registered() -> dict[str, Any] | None:
        now = desk.collector.get(name)
        instruments = [one for row in now["instalments"] for one in row["instruments"]]
        return now if all(one["state"] == "STATE_REGISTERED" for one in instruments) else None

    now = gc.wait_for("the instruments registered", registered, seconds=60)
    assert {one["kind"] for one in now["instalments"][0]["instruments"]} == {"KIND_BOLETO", "KIND_PIX"}
    return now


def documents(desk: Desk, agreement: Mapping[str, Any]) -> None:
    """Slip, code and minute as somebody prints them; a payable slip is not issued beside itself."""
    row = agreement["instalments"][0]
    kinds = {one["kind"]: one for one in row["instruments"]}
    slip = desk.collector.download(f"{kinds['KIND_BOLETO']['name']}:render", format="FORMAT_PDF")
    assert slip.startswith(b"%PDF")
    assert digits(kinds["KIND_BOLETO"]["typeableLine"]) in digits(text_of(slip))
    code = desk.collector.download(f"{kinds['KIND_PIX']['name']}:render", format="FORMAT_SVG")
    assert b"<svg" in code[:200]
    beside = refused(
        desk.collector.post, "instruments:issue", {"instalmentId": row["id"], "kinds": ["KIND_BOLETO"]}
    )
    assert beside.reason == "INSTRUMENT_PAYABLE"
    minute = desk.collector.post(f"{agreement['name']}/minutes", {})
    content = desk.collector.download(f"{minute['name']}:download")
    assert content.startswith(b"%PDF")
    assert hashlib.sha256(content).hexdigest() == minute["sha256"]
    assert len(content) == int(minute["size"])
    same = desk.collector.post(f"{agreement['name']}/minutes", {})
    assert same["name"] == minute["name"], "the same document is kept once"


def first_payment_by_txid(desk: Desk, case: Mapping[str, Any], agreement: Mapping[str, Any]) -> int:
    """The down payment comes in by Pix: the agreement is in force."""
    row = agreement["instalments"][0]
    txid = next(one["txid"] for one in row["instruments"] if one["kind"] == "KIND_PIX")
    body = {
        "creditorReference": case["creditorReference"],
        "account": "001-4321-0012345",
        "means": "PIX",
        "bankReference": f"E{txid[:20]}",
        "valueDate": gc.date_json(desk.today),
        "amount": row["amount"],
        "txid": txid,
    }
    unnamed = refused(desk.collector.post, "payments", body | {"bankReference": ""})
    assert list(unnamed.fields) == ["bank_reference"]
    payment = desk.collector.post("payments", body)
    assert payment["state"] == "STATE_ALLOCATED"
    assert payment["allocated"] == row["amount"]
    assert {one["instalmentId"] for one in payment["allocations"]} == {row["id"]}
    assert desk.collector.post("payments", body)["name"] == payment["name"], "a credit is entered once"
    now = desk.collector.get(agreement["name"])
    assert now["state"] == "STATE_ACTIVE"
    assert now["instalments"][0]["state"] == "STATE_PAID"
    return gc.minor_of(row["amount"])


def broken_and_restored(desk: Desk, case: Mapping[str, Any], agreement: Mapping[str, Any], paid: int) -> None:
    """Two days late it breaks, not before; the originals owe what they owed, less what was paid."""
    name, case_id = agreement["name"], identity(case["name"])
    desk.until(DAYS[3])
    late = desk.collector.get(name)
    assert (late["state"], late["honour"]) == ("STATE_ACTIVE", "HONOUR_LATE")
    desk.until(DAYS[4])
    broken = desk.collector.get(name)
    assert broken["state"] == "STATE_BROKEN"
    assert gc.date_of(broken["endDate"]) == desk.today
    open_titles = {
        one["name"]: one for one in titles(desk, case_id).values() if gc.minor_of(one["openPrincipal"])
    }
    assert not [one for one in open_titles.values() if one.get("originAgreement")]
    [balance] = desk.collector.post("balances:explain", {"caseIds": [case_id]})["balances"]
    assert gc.minor_of(balance["total"]) == gc.minor_of(agreement["debt"]) - paid
    over = refused(desk.collector.post, f"{name}:cancel", {"reason": "e2e"})
    assert over.reason == "AGREEMENT_OVER"


def reinstated(desk: Desk, agreement: Mapping[str, Any]) -> None:
    """Nobody makes a broken agreement live again by himself."""
    name = agreement["name"]
    ended = refused(
        desk.collector.post, f"{name}:reinstate", {"reason": "e2e", "graceDate": gc.date_json(desk.today)}
    )
    assert list(ended.fields) == ["grace_date"]
    grace = desk.today + datetime.timedelta(days=10)
    body = {"reason": "paid tomorrow", "graceDate": gc.date_json(grace)}
    assert (
        approved(desk, f"{name}:reinstate", body, rule="REINSTATE", limit="nothing", asked="0 days") == name
    )
    now = desk.collector.get(name)
    assert now["state"] == "STATE_ACTIVE"
    assert gc.date_of(now["graceDate"]) == grace
    desk.next_day()
    assert desk.collector.get(name)["state"] == "STATE_ACTIVE"


def written_off(desk: Desk, case: Mapping[str, Any]) -> None:
    """A loss is written off by two people."""
    case_id = identity(case["name"])
    [balance] = desk.collector.post("balances:explain", {"caseIds": [case_id]})["balances"]
    owed = sum(gc.minor_of(one["openPrincipal"]) for one in titles(desk, case_id).values())
    body = {"caseId": case_id, "type": "WRITE_OFF_TYPE_LOSS", "reason": "e2e"}
    approved(
        desk,
        "titles:writeOff",
        body,
        rule="WRITE_OFF",
        limit="nothing",
        asked=f"{gc.decimal_text(owed)} BRL",
    )
    assert {one["state"] for one in titles(desk, case_id).values()} == {"STATE_WRITTEN_OFF"}
    [balance] = desk.collector.post("balances:explain", {"caseIds": [case_id]})["balances"]
    assert gc.minor_of(balance["total"]) == 0
    nothing = refused(desk.collector.post, "titles:writeOff", body)
    assert nothing.reason == "NOTHING_OPEN"


def paid_in_euro(desk: Desk, case: Mapping[str, Any]) -> None:
    """A part of a debt in EUR, which names its contract."""
    body = {
        "creditorReference": case["creditorReference"],
        "account": "PT-0001",
        "means": "TRANSFER",
        "bankReference": "PT-1",
        "valueDate": gc.date_json(desk.today),
        "contractReference": case["contractReference"],
        "amount": gc.money_json(12_34, "EUR"),
    }
    payment = desk.collector.post("payments", body)
    assert payment["state"] == "STATE_ALLOCATED"


def identities_hold(desk: Desk) -> None:
    """Debits equal credits, and what came in is somewhere, in each currency."""
    desk.day.settle()
    summary = desk.accountant.get("money:summarize")
    accounts = desk.accountant.get("ledger:trialBalance")["accounts"]
    currencies = {one["currency"] for one in summary["currencies"]}
    assert currencies == {BRL, "EUR"}
    for one in summary["currencies"]:
        rows = [row for row in accounts if row["currency"] == one["currency"]]
        assert total(rows, "debit") == total(rows, "credit") > 0
        assert total([one], "placed", "issued", "charges") == total(
            [one], "open", "received", "waived", "writtenOff", "withdrawn", "novated"
        )
        assert total([one], "issued") == total([one], "novated")
        assert total([one], "paidIn") - total([one], "reversed", "refunded") == total(
            [one], "received", "unidentified", "overpaid"
        )


def account_to_creditor(desk: Desk, case: Mapping[str, Any]) -> None:
    """Commission agreed, the period closed by one and approved by another; the files say what the ledger says."""
    contract = {
        "creditorReference": case["creditorReference"],
        "currency": BRL,
        "validFrom": gc.date_json(DAYS[0]),
        "bands": [{"principalRateE4": str(COMMISSION_E4), "chargesRateE4": str(COMMISSION_E4)}],
        "tax": "TAX_ISS",
        "taxRateE4": "60000",
        "frequency": "FREQUENCY_DAY",
        "grouping": "GROUPING_GROUPED",
    }
    period = {"creditorReference": case["creditorReference"], "currency": BRL}
    missing = refused(desk.accountant.post, "statements:close", period)
    assert (missing.reason, missing.metadata["currency"]) == ("COMMISSION_CONTRACT_MISSING", BRL)
    tax = refused(desk.accountant.post, "commissionContracts", contract)
    assert tax.fields == {"contract.tax_rate_e4": "expected 20000 to 50000"}
    desk.accountant.post("commissionContracts", contract | {"taxRateE4": str(ISS_E4)})
    ahead = gc.date_json(desk.today + datetime.timedelta(days=1))
    assert list(refused(desk.accountant.post, "statements:close", period | {"periodEnd": ahead}).fields) == [
        "period_end"
    ]
    [closed] = desk.accountant.post("statements:close", period)["statements"]
    own = refused(desk.accountant.post, f"{closed['name']}:approve", {"etag": closed["etag"]})
    assert own.reason == "APPROVER_CLOSED_IT"
    statement = desk.manager.post(f"{closed['name']}:approve", {"etag": closed["etag"]})
    assert statement["state"] == "STATE_APPROVED"

    received = received_of(desk, case["creditorReference"], until=gc.date_of(statement["periodEnd"]))
    lines = list(desk.accountant.pages(f"{statement['name']}/lines", "lines"))
    assert sum(received) == total(lines, "amount") == gc.minor_of(statement["gross"]) > 0
    commission = sum(half_up(gc.minor_of(line["amount"]) * COMMISSION_E4, 1_000_000) for line in lines)
    assert gc.minor_of(statement["commission"]) == commission
    assert gc.minor_of(statement["remitted"]) == (
        gc.minor_of(statement["gross"]) - commission - total([statement], "taxAdded")
    )
    exported = {
        kind: desk.accountant.download(f"{statement['name']}:export", format=f"FORMAT_{kind}")
        for kind in ("CSV", "XLSX", "PDF")
    }
    assert sum(amounts_of_csv(exported["CSV"])) == sum(amounts_of_xlsx(exported["XLSX"])) == sum(received)
    gross = gc.decimal_text(gc.minor_of(statement["gross"])).replace(".", ",")
    assert gross in text_of(exported["PDF"]).replace(".", "")
    again = refused(desk.accountant.post, "statements:close", period)
    assert again.reason == "PERIOD_CLOSED"


def approved(desk: Desk, path: str, body: Mapping[str, Any], *, rule: str, limit: str, asked: str) -> str:
    """Said by the collector, decided by the supervisor; the name of what came of it."""
    beyond = refused(desk.collector.post, path, dict(body))
    assert beyond.reason == "APPROVAL_REQUESTED"
    assert beyond.metadata | {"rule": rule, "limit": limit, "asked": asked} == beyond.metadata
    decided = desk.supervisor.post(f"{beyond.metadata['approval']}:decide", {"decision": "DECISION_APPROVE"})
    assert decided["state"] == "STATE_APPROVED"
    return str(decided.get("result", ""))


def received_of(desk: Desk, creditor: str, *, until: datetime.date) -> list[int]:
    """RECEIVED postings of a creditor's payments before a business date, minor units."""
    return [
        gc.minor_of(posting["amount"])
        for payment in desk.accountant.pages("payments", "payments", creditorReference=creditor)
        for posting in desk.accountant.pages("postings", "postings", paymentId=identity(payment["name"]))
        if posting["kind"] == "RECEIVED" and gc.date_of(posting["businessDate"]) < until
    ]


def amounts_of_csv(content: bytes) -> Iterator[int]:
    """Received amounts of the lines, minor units."""
    for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig")), delimiter=";"):
        yield int(Decimal(row["Valor recebido (BRL)"].replace(".", "").replace(",", ".")) * 100)


def amounts_of_xlsx(content: bytes) -> Iterator[int]:
    """The same of a workbook's sheet of lines; the last row is their sum."""
    book = openpyxl.load_workbook(io.BytesIO(content), read_only=True)
    headings, *rows, below = book.worksheets[-1].iter_rows(values_only=True)
    column = headings.index("Valor recebido (BRL)")
    amounts = [round(Decimal(str(row[column])) * 100) for row in rows]
    assert sum(amounts) == round(Decimal(str(below[column])) * 100)
    yield from amounts


def titles(desk: Desk, case_id: str) -> dict[str, dict[str, Any]]:
    """A case's titles by name."""
    return {one["name"]: one for one in desk.collector.pages("titles", "titles", caseId=case_id)}


def total(rows: Sequence[Money], *fields: str) -> int:
    """Sum of amounts, minor units."""
    return sum(gc.minor_of(row.get(field)) for row in rows for field in fields)


def text_of(pdf: bytes) -> str:
    """All that stands in a PDF."""
    return "".join(page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(pdf))


def digits(text: str) -> str:
    """Its digits only."""
    return re.sub(r"\D", "", text)


def half_up(numerator: int, denominator: int) -> int:
    """A positive fraction, rounded as commercial people do."""
    return (2 * numerator + denominator) // (2 * denominator)


def encoded(content: bytes) -> str:
    """Bytes as JSON has them."""
    return base64.b64encode(content).decode()


def identity(name: str) -> str:
    """The last part of a resource name."""
    return name.rsplit("/", 1)[1]
