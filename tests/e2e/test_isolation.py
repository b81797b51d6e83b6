"""Two agencies with the same creditors, debtors and references: neither reads or changes anything of the other, by any
RPC or in any table; and a token that is bound to a creditor sees that creditor's cases and files only.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from google.protobuf import json_format
from google.rpc import code_pb2
from psycopg import sql

from notify_service.domain import mail
from recupera_local import examples, tokens
from recupera_local import gateway_client as gc
from servicekit import auth
from support import calls, digest, two_agencies, whole

from .conftest import Two

UUIDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
UNSCOPED = digest.SYSTEM_TABLES - {"request_log"}
"""Tables of servicekit that are read across agencies, by the relay, the host, housekeeping (architecture.md §7)."""

NOT_FOUND = "NOT_FOUND"
EMPTY = "EMPTY"
OWN = "OWN"
"""An answer about one's own agency, with nothing of the other in it."""


@dataclasses.dataclass(frozen=True)
class Try:
    """A call under one's own parent with ids of the other agency, and what must come of it: NOT_FOUND, EMPTY, OWN,
    or a reason."""

    fields: Mapping[str, Any]
    outcome: str


def opt_out(agency: uuid.UUID, message: str) -> str:
    """A mail to the unsubscribe address of a message, in base64."""
    to = mail.unsubscribe_address(agency, uuid.UUID(message), "recupera.example")
    return base64.b64encode(f"To: {to}\r\nSubject: stop\r\n\r\n".encode()).decode()


def tries(two: Two, whole: whole.Whole) -> dict[str, list[Try]]:
    """For every RPC."""
    ours, other = two.ours, two.other
    own = {"parent": ours.parent}

    def moved(name: str) -> str:
        return ours.parent + name.removeprefix(other.parent)

    def identity(name: str) -> str:
        return name.rsplit("/", 1)[1]

    def raw(name: str) -> str:
        return base64.b64encode(uuid.UUID(identity(name)).bytes).decode()

    case, case_id = {"parent": moved(other.case["name"])}, identity(other.case["name"])
    own_case = ours.spare
    terms = {
        "terms": {
            "instalments": 2,
            "firstDueDate": gc.date_json(two_agencies.DAY),
            "annualRateE4": "0",
        }
    }
    natural = {
        "creditorReference": other.case["creditorReference"],
        "account": "isolation",
        "means": "PIX",
        "valueDate": gc.date_json(two_agencies.DAY),
        "amount": gc.money_json(100, "BRL"),
    }
    txid = next(
        instrument["txid"]
        for instalment in other.gateway.get(other.agreement)["instalments"]
        for instrument in instalment["instruments"]
        if instrument["kind"] == "KIND_PIX"
    )
    clock = ours.gateway.get("clock")
    ladder = ours.gateway.get("ladders/default")
    template = ours.gateway.get("templates")["templates"][0]
    return {
        "CaseService/GetCase": [Try({"name": case["parent"]}, NOT_FOUND)],
        "CaseService/ListCases": [
            Try({**own, "creditor": moved(other.creditor)}, EMPTY),
            Try({**own, "contractReference": other.case["contractReference"]}, OWN),
        ],
        "CaseService/ListTitles": [Try(case, NOT_FOUND)],
        "CaseService/ListPeople": [Try(case, NOT_FOUND)],
        "CaseService/ListTimeline": [Try(case, NOT_FOUND)],
        "CaseService/ListCreditors": [Try(own, OWN)],
        "CaseService/ChangeCaseState": [
            Try({"name": case["parent"], "state": "STATE_RETURNED", "reason": "x"}, NOT_FOUND)
        ],
        "CaseService/PlaceHold": [Try({**case, "type": "TYPE_DISPUTE", "reason": "x"}, NOT_FOUND)],
        "CaseService/ReleaseHold": [
            Try({"name": moved(other.hold), "reason": "x"}, NOT_FOUND),
            Try({"name": f"{own_case}/holds/{identity(other.hold)}", "reason": "x"}, NOT_FOUND),
        ],
        "CaseService/ListHolds": [Try(case, NOT_FOUND)],
        "CaseService/RecordContact": [
            Try({**case, "contact": {"channel": "CHANNEL_CALL", "outcome": "OUTCOME_CALLBACK"}}, NOT_FOUND),
            Try(
                {
                    "parent": own_case,
                    "contact": {
                        "channel": "CHANNEL_CALL",
                        "outcome": "OUTCOME_CALLBACK",
                        "person": f"{own_case}/people/{identity(other.person)}",
                    },
                },
                NOT_FOUND,
            ),
        ],
        "CaseService/GetLadder": [Try({"name": f"{ours.parent}/ladders/default"}, OWN)],
        "CaseService/UpdateLadder": [Try({"ladder": ladder}, OWN)],
        "CaseService/RunDay": [Try({**own, "date": gc.date_json(two_agencies.DAY)}, OWN)],
        "CaseService/GetBusinessDay": [Try({"name": f"{ours.parent}/businessDays/{two_agencies.DAY}"}, OWN)],
        "CaseService/ListAgenda": [Try(own, OWN)],
        "CaseService/GetClock": [Try({"name": f"{ours.parent}/clock"}, OWN)],
        "CaseService/SetClock": [
            Try(
                {
                    "name": f"{ours.parent}/clock",
                    "timeZone": clock["timeZone"],
                    "simulated": True,
                    "now": clock["now"],
                    "speedThousandths": "0",
                    "currency": clock["currency"],
                },
                OWN,
            )
        ],
        "CaseService/SummarizeCases": [Try(own, OWN)],
        "CaseService/ReserveContacts": [
            Try(
                {
                    **own,
                    "items": [
                        {
                            "key": base64.b64encode(uuid.uuid4().bytes).decode(),
                            "caseId": raw(other.case["name"]),
                            "channel": "CHANNEL_EMAIL",
                            "purpose": "PURPOSE_COLLECTION",
                        }
                    ],
                },
                "CASE_UNKNOWN",
            )
        ],
        "CaseService/BatchGetParties": [Try({**own, "caseIds": [raw(other.case["name"])]}, EMPTY)],
        "CaseService/BeginBatchRollback": [Try({**own, "batchId": raw(other.batch)}, EMPTY)],
        "CaseService/EndBatchRollback": [
            Try({**own, "batchId": raw(other.batch)}, EMPTY),
            Try({**own, "batchId": raw(other.batch), "abort": True}, EMPTY),
        ],
        "AgreementService/ListTitles": [Try({**own, "caseId": case_id}, EMPTY)],
        "AgreementService/ExplainBalances": [Try({**own, "caseIds": [case_id]}, NOT_FOUND)],
        "AgreementService/SimulateAgreement": [Try({**own, "caseIds": [case_id], **terms}, NOT_FOUND)],
        "AgreementService/ProposeAgreement": [Try({**own, "caseIds": [case_id], **terms}, NOT_FOUND)],
        "AgreementService/AcceptAgreement": [Try({"name": moved(other.agreement)}, NOT_FOUND)],
        "AgreementService/CancelAgreement": [Try({"name": moved(other.agreement), "reason": "x"}, NOT_FOUND)],
        "AgreementService/GetAgreement": [Try({"name": moved(other.agreement)}, NOT_FOUND)],
        "AgreementService/ListAgreements": [Try({**own, "caseId": case_id}, EMPTY), Try(own, OWN)],
        "AgreementService/RecordPayment": [
            Try({**own, **natural, "bankReference": "isolation 1", "txid": txid}, OWN),
            Try(
                {
                    **own,
                    **natural,
                    "bankReference": "isolation 2",
                    "contractReference": other.case["contractReference"],
                },
                OWN,
            ),
        ],
        "AgreementService/MatchPayment": [
            Try({"name": moved(other.unidentified), "caseId": identity(own_case)}, NOT_FOUND),
            Try({"name": ours.unidentified, "caseId": case_id}, NOT_FOUND),
        ],
        "AgreementService/ReversePayment": [Try({"name": moved(other.payment), "reason": "x"}, NOT_FOUND)],
        "AgreementService/GetPayment": [Try({"name": moved(other.payment)}, NOT_FOUND)],
        "AgreementService/ListPayments": [Try(own, OWN)],
        "AgreementService/SummarizeMoney": [Try(own, OWN)],
        "AgreementService/RollBackTitles": [Try({**own, "batchId": raw(other.batch)}, EMPTY)],
        **money_tries(two, terms),
        "DialerService/CreateCampaign": [Try({**own, "campaign": {"displayName": "isolation"}}, OWN)],
        "DialerService/GetCampaign": [Try({"name": moved(other.campaign)}, NOT_FOUND)],
        "DialerService/ListCampaigns": [Try(own, OWN)],
        "DialerService/StartCampaign": [Try({"name": moved(other.campaign)}, NOT_FOUND)],
        "DialerService/PauseCampaign": [Try({"name": moved(other.campaign)}, NOT_FOUND)],
        "DialerService/DrainCampaign": [Try({"name": moved(other.campaign)}, NOT_FOUND)],
        "DialerService/AbortCampaign": [Try({"name": moved(other.campaign)}, NOT_FOUND)],
        "DialerService/SetAgentState": [
            Try(
                {
                    "name": f"{ours.parent}/agents/agent-77",
                    "state": "STATE_FREE",
                    "campaign": moved(other.campaign),
                },
                NOT_FOUND,
            )
        ],
        "DialerService/ListAgents": [Try(own, OWN)],
        "DialerService/GetCall": [Try({"name": moved(other.call)}, NOT_FOUND)],
        "DialerService/ListCalls": [
            Try({**own, "campaign": moved(other.campaign)}, EMPTY),
            Try({**own, "caseId": case_id}, EMPTY),
            Try(own, OWN),
        ],
        "DialerService/DispositionCall": [
            Try({"name": moved(other.call), "disposition": "DISPOSITION_REFUSAL"}, NOT_FOUND)
        ],
        "DialerService/SummarizeCalls": [Try(own, OWN)],
        "ImportService/UploadBatch": [Try({"header": own}, "INVALID_REQUEST")],
        "ImportService/UploadBatchBody": [
            Try(
                {
                    **own,
                    "kind": "BATCH_KIND_PORTFOLIO",
                    "body": {
                        "contentType": "text/csv",
                        "data": base64.b64encode(other.portfolio.read_bytes()).decode(),
                    },
                },
                "DUPLICATE_FILE",  # of our own batch: the file is the same
            )
        ],
        "ImportService/GetBatch": [Try({"name": moved(other.batch)}, NOT_FOUND)],
        "ImportService/ListBatches": [Try(own, OWN)],
        "ImportService/ApproveBatch": [Try({"name": moved(other.batch)}, NOT_FOUND)],
        "ImportService/RejectBatch": [Try({"name": moved(other.batch)}, NOT_FOUND)],
        "ImportService/RollBackBatch": [Try({"name": moved(other.batch)}, NOT_FOUND)],
        "ImportService/ListRejectedRows": [Try({"parent": moved(other.batch)}, NOT_FOUND)],
        "ImportService/DownloadRejects": [Try({"name": moved(other.batch)}, NOT_FOUND)],
        "ImportService/FetchSlice": [Try({"name": moved(other.batch), "slice": 0}, NOT_FOUND)],
        "NotifyService/GetMessage": [Try({"name": moved(other.message)}, NOT_FOUND)],
        "NotifyService/ListMessages": [Try({**own, "caseId": case_id}, EMPTY), Try(own, OWN)],
        "NotifyService/ListTemplates": [Try(own, OWN)],
        "NotifyService/PublishTemplate": [
            Try(
                {
                    **own,
                    "template": {
                        key: template[key] for key in ("code", "language", "channel", "subject", "body")
                    },
                },
                OWN,
            )
        ],
        "NotifyService/RequestMessage": [
            Try({**own, "caseId": case_id, "template": "reminder-1"}, NOT_FOUND)
        ],
        "NotifyService/ReportDelivery": [
            Try({"name": moved(other.message), "outcome": "OUTCOME_BOUNCED", "code": "SMTP_550"}, NOT_FOUND)
        ],
        "NotifyService/ReportMail": [
            Try({**own, "mail": opt_out(agency, identity(other.message))}, NOT_FOUND)
            for agency in (other.id, ours.id)
        ],
        "NotifyService/ListSuppressions": [Try(own, OWN)],
        "NotifyService/SummarizeMessages": [Try(own, OWN)],
    }


def money_tries(two: Two, terms: Mapping[str, Any]) -> dict[str, list[Try]]:
    """For every RPC about agreements and money beyond the first ones."""
    ours, other = two.ours, two.other
    own = {"parent": ours.parent}
    theirs = {
        kind: ours.parent + name.removeprefix(other.parent)
        for kind, name in {
            **other.money,
            "case": other.case["name"],
            "agreement": other.agreement,
            "payment": other.payment,
            "unidentified": other.unidentified,
        }.items()
    }
    ids = {kind: name.rsplit("/", 1)[1] for kind, name in theirs.items()}
    own_case_id = ours.spare.rsplit("/", 1)[1]
    day, later = gc.date_json(two_agencies.DAY), gc.date_json(two_agencies.DAY + datetime.timedelta(days=9))
    amount = gc.money_json(100, "BRL")
    reason = {"reason": "x"}

    def named(kind: str, outcome: str = NOT_FOUND, **fields: Any) -> list[Try]:
        return [Try({"name": theirs[kind], **fields}, outcome)]

    def listed(**fields: Any) -> list[Try]:
        return [Try({**own, **fields}, EMPTY), Try(own, OWN)]

    return {
        "AgreementService/ReportPayment": [
            Try({**own, "caseId": ids["case"], "means": "PIX", "valueDate": day, "amount": amount}, NOT_FOUND)
        ],
        "AgreementService/GetPaymentProof": named("payment"),
        "AgreementService/ConfirmPayment": named("payment"),
        "AgreementService/AnnulPayment": named("payment", **reason),
        "AgreementService/UnmatchPayment": named("payment"),
        "AgreementService/RefundPayment": named("payment", amount=amount, **reason),
        "AgreementService/ApplyCredit": [
            *named("payment", caseId=own_case_id),
            Try({"name": ours.payment, "caseId": ids["case"]}, NOT_FOUND),
        ],
        "AgreementService/RecalculateProposal": named("agreement"),
        "AgreementService/CreateDraft": [
            Try({**own, "draft": {"request": {**own, "caseIds": [ids["case"]], **terms}}}, NOT_FOUND)
        ],
        "AgreementService/GetDraft": named("draft"),
        "AgreementService/ListDrafts": [Try(own, OWN)],
        "AgreementService/UpdateDraft": [
            Try(
                {"draft": {"name": theirs["draft"], "request": {**own, "caseIds": [own_case_id], **terms}}},
                NOT_FOUND,
            )
        ],
        "AgreementService/DeleteDraft": named("draft"),
        "AgreementService/ChangeDueDates": [
            Try(
                {**own, "caseIds": [ids["case"]], "titles": [theirs["title"]], "dueDate": later, **reason},
                NOT_FOUND,
            )
        ],
        "AgreementService/UploadSignedDocument": named(
            "agreement", content=base64.b64encode(b"%PDF-1.7 x").decode()
        ),
        "AgreementService/DownloadSignedDocument": named("agreement"),
        "AgreementService/EraseSignedDocument": named("agreement", **reason),
        "AgreementService/ReinstateAgreement": named("agreement", **reason),
        "AgreementService/GetTitleLineage": named("title"),
        "AgreementService/ListPromises": listed(caseId=ids["case"]),
        "ApprovalService/GetApproval": named("approval"),
        "ApprovalService/ListApprovals": listed(caseId=ids["case"]),
        "ApprovalService/DecideApproval": named("approval", decision="DECISION_REJECT", **reason),
        "ApprovalService/WithdrawApproval": named("approval", **reason),
        "InstrumentService/GetInstrument": named("instrument"),
        "InstrumentService/ListInstruments": listed(caseId=ids["case"]),
        "InstrumentService/IssueInstruments": [
            Try({**own, "caseId": ids["case"], "titles": [theirs["title"]]}, NOT_FOUND)
        ],
        "InstrumentService/CancelInstrument": named("instrument"),
        "InstrumentService/ReissueInstrument": named("instrument"),
        "InstrumentService/RenderInstrument": named("instrument"),
        "InstrumentService/CreateCollectionAccount": [
            Try(
                {
                    **own,
                    "collectionAccount": {
                        "creditorId": ids["creditor"],
                        "description": "isolation",
                        "beneficiaryName": "X",
                        "pixKey": "123e4567-e12b-12d1-a456-426655440000",
                        "pixName": "X",
                        "pixCity": "X",
                        "active": True,
                    },
                },
                NOT_FOUND,
            )
        ],
        "InstrumentService/GetCollectionAccount": named("account"),
        "InstrumentService/ListCollectionAccounts": listed(creditorId=ids["creditor"]),
        "InstrumentService/UpdateCollectionAccount": [
            Try(
                {
                    "collectionAccount": {"name": theirs["account"], "description": "x"},
                    "updateMask": "description",
                },
                NOT_FOUND,
            )
        ],
        "InstrumentService/GetMinuteTemplate": [
            Try({"name": f"{theirs['creditor']}/minuteTemplates/pt-BR"}, NOT_FOUND)
        ],
        "InstrumentService/UpdateMinuteTemplate": [
            Try(
                {"minuteTemplate": {"name": f"{theirs['creditor']}/minuteTemplates/pt-BR", "text": "x"}},
                NOT_FOUND,
            )
        ],
        "InstrumentService/RenderMinute": [Try({"parent": theirs["agreement"]}, NOT_FOUND)],
        "InstrumentService/GetMinute": named("minute"),
        "InstrumentService/ListMinutes": [Try({"parent": theirs["agreement"]}, NOT_FOUND)],
        "InstrumentService/DownloadMinute": named("minute"),
        "LedgerService/GetWaterfall": [Try({"name": f"{theirs['creditor']}/waterfall"}, NOT_FOUND)],
        "LedgerService/UpdateWaterfall": [
            Try(
                {
                    "name": f"{theirs['creditor']}/waterfall",
                    "validFrom": later,
                    "components": [
                        f"COMPONENT_{name}"
                        for name in ("FEES", "COSTS", "PENALTY", "INTEREST", "CORRECTION", "PRINCIPAL")
                    ],
                },
                NOT_FOUND,
            )
        ],
        "LedgerService/GetTrialBalance": listed(caseId=ids["case"]),
        "LedgerService/ListPostings": listed(caseId=ids["case"]),
        "LedgerService/WriteOffTitles": [
            Try({**own, "caseId": ids["case"], "type": "WRITE_OFF_TYPE_LOSS", **reason}, NOT_FOUND)
        ],
        "LedgerService/UndoWriteOff": [
            Try({**own, "caseId": ids["case"], "titleIds": [ids["title"]], **reason}, NOT_FOUND)
        ],
        "MandateService/GetEuroAccount": [Try({"name": f"{theirs['euro_creditor']}/euroAccount"}, NOT_FOUND)],
        "MandateService/UpdateEuroAccount": [
            Try(
                {
                    "euroAccount": {
                        "name": f"{theirs['euro_creditor']}/euroAccount",
                        "holderName": "X",
                        "iban": "PT50000201231234567890154",
                        "multibancoEntity": "90150",
                    }
                },
                NOT_FOUND,
            )
        ],
        "MandateService/CreateMandate": [
            Try(
                {
                    **own,
                    "caseId": ids["case"],
                    "reference": "ISOLATION",
                    "signatureDate": day,
                    "iban": "PT50000201231234567890154",
                },
                NOT_FOUND,
            )
        ],
        "MandateService/GetMandate": named("mandate"),
        "MandateService/ListMandates": [Try(own, OWN)],
        "MandateService/CancelMandate": named("mandate"),
        "MandateService/CreateCollectionFile": [
            Try({**own, "creditorId": ids["euro_creditor"], "dueThrough": later}, NOT_FOUND)
        ],
        "MandateService/GetCollectionFile": [
            Try({"name": f"{ours.parent}/collectionFiles/{ids['minute']}"}, NOT_FOUND)
        ],
        "MandateService/ListCollectionFiles": [Try(own, OWN)],
        "MandateService/DownloadCollectionFile": [
            Try({"name": f"{ours.parent}/collectionFiles/{ids['minute']}"}, NOT_FOUND)
        ],
        "MandateService/ListDirectDebits": [Try(own, OWN)],
        "MandateService/RecordReturn": [
            Try({**own, "endToEndId": "ISOLATION", "reasonCode": "AM04"}, NOT_FOUND)
        ],
        "OfferService/GetCreditorSettings": [Try({"name": f"{theirs['creditor']}/settings"}, NOT_FOUND)],
        "OfferService/UpdateCreditorSettings": [
            Try(
                {
                    "settings": {"name": f"{theirs['creditor']}/settings", "brokenDays": 9},
                    "updateMask": "brokenDays",
                },
                NOT_FOUND,
            )
        ],
        "OfferService/SetLimit": [
            Try(
                {
                    **own,
                    "limit": {"kind": "KIND_INSTALMENTS", "creditor": theirs["creditor"], "maximum": "3"},
                },
                NOT_FOUND,
            )
        ],
        "OfferService/DeleteLimit": named("limit"),
        "OfferService/ListLimits": [Try(own, OWN)],
        "OfferService/ExplainLimits": named("creditor"),
        "OfferService/CreatePaymentCondition": [
            Try(
                {
                    **own,
                    "condition": {
                        "creditor": theirs["creditor"],
                        "description": "isolation",
                        "currency": "BRL",
                        "daysToFirst": 1,
                        "chargeMeans": "BOLETO",
                        "options": [{"number": 1, "instalments": 1}],
                    },
                },
                NOT_FOUND,
            )
        ],
        "OfferService/UpdatePaymentCondition": [
            Try(
                {
                    "condition": {"name": theirs["condition"], "description": "x"},
                    "updateMask": "description",
                },
                NOT_FOUND,
            )
        ],
        "OfferService/DeletePaymentCondition": named("condition"),
        "OfferService/GetPaymentCondition": named("condition"),
        "OfferService/ListPaymentConditions": [Try(own, OWN)],
        "OfferService/ListOffers": [Try({**own, "caseIds": [ids["case"]]}, NOT_FOUND)],
        "OfferService/CreateAgreementCategory": [Try({**own, "category": {"title": "isolation"}}, OWN)],
        "OfferService/UpdateAgreementCategory": [
            Try({"category": {"name": theirs["category"], "title": "x"}, "updateMask": "title"}, NOT_FOUND)
        ],
        "OfferService/ListAgreementCategories": [Try(own, OWN)],
        "RemittanceService/CreateCommissionContract": [
            Try(
                {
                    **own,
                    "contract": {
                        "creditorReference": other.case["creditorReference"],
                        "currency": "BRL",
                        "validFrom": later,
                        "bands": [{"principalRateE4": "1"}],
                        "frequency": "FREQUENCY_DAY",
                        "grouping": "GROUPING_GROUPED",
                    },
                },
                OWN,
            )
        ],
        "RemittanceService/ListCommissionContracts": [Try(own, OWN)],
        "RemittanceService/CloseStatement": [
            Try(
                {**own, "creditorReference": "NOBODY", "currency": "BRL"},
                NOT_FOUND,
            )
        ],
        "RemittanceService/ApproveStatement": named("statement"),
        "RemittanceService/MarkStatementPaid": named("statement", bankReference="x"),
        "RemittanceService/GetStatement": named("statement"),
        "RemittanceService/ListStatements": [Try(own, OWN)],
        "RemittanceService/ListStatementLines": [Try({"parent": theirs["statement"]}, NOT_FOUND)],
        "RemittanceService/ExportStatement": named("statement", format="FORMAT_CSV"),
        "TermsService/SetChargeTerms": [
            Try(
                {
                    **own,
                    "chargeTerms": {
                        "creditorId": ids["creditor"],
                        "currency": "BRL",
                        "validFrom": later,
                        "penaltyRateE4": "10000",
                        "source": "isolation",
                    },
                },
                NOT_FOUND,
            )
        ],
        "TermsService/GetChargeTerms": named("terms"),
        "TermsService/ListChargeTerms": listed(creditorId=ids["creditor"]),
        "TermsService/ImportSeries": [
            Try(
                {
                    "name": f"{ours.parent}/series/IPCA",
                    "content": base64.b64encode(b"month;value\n2026-09;0,50\n").decode(),
                    "source": "isolation",
                },
                OWN,
            )
        ],
        "TermsService/GetSeries": [Try({"name": f"{ours.parent}/series/IPCA"}, OWN)],
        "TermsService/ExplainTitles": [Try({**own, "titleIds": [ids["title"]]}, NOT_FOUND)],
        "TermsService/ExplainTitle": named("title"),
        "TermsService/EditTitleTerms": [
            Try({**own, "titleIds": [ids["title"]], "penaltyRateE4": "10000", **reason}, NOT_FOUND)
        ],
        "TermsService/AddExpense": named("title", amount=amount, component="COMPONENT_COSTS", **reason),
        "TermsService/WaiveCharges": named("title", component="COMPONENT_PENALTY", **reason),
    }


# ---- every RPC ---------------------------------------------------------------------------------------------------


def owners(whole: whole.Whole) -> dict[str, sa.Engine]:
    """Engines of the databases' owners, who see all agencies."""
    return {
        service: sa.create_engine(
            sa.make_url(whole.parts.owner_url(service)).set(drivername="postgresql+psycopg"),
            poolclass=sa.NullPool,
        )
        for service in digest.SERVICES
    }


def rows_of(whole: whole.Whole, agency: uuid.UUID) -> list[str]:
    """The agency's business rows in all databases."""
    return [line for line in digest.State(owners(whole)).lines() if f"agency={agency}" in line]


def ids_of(whole: whole.Whole, agency: uuid.UUID) -> set[str]:
    """All ids of the agency's rows."""
    found: set[str] = set()
    for service, engine in owners(whole).items():
        with engine.connect() as connection:
            for table in digest.metadata(service).tables.values():
                if isinstance(table.columns.get("id", sa.Column("x", sa.Text)).type, sa.Uuid):
                    mine = sa.select(table.c.id).where(table.c.agency == agency)
                    found |= {str(key) for key in connection.execute(mine).scalars()}
    return found


def wrong(tried: Try, answer: calls.Answer, theirs: set[str]) -> str:
    """What is wrong with an answer; empty where nothing is."""
    if tried.outcome == NOT_FOUND:
        return "" if answer.code == code_pb2.NOT_FOUND and answer.reason else "expected NOT_FOUND"
    if tried.outcome not in (EMPTY, OWN):
        refused = [one["refused"]["rule"] for one in answer.body.get("answers", ()) if "refused" in one]
        return "" if tried.outcome in (answer.reason, *refused) else f"expected {tried.outcome}"
    if answer.code:
        return f"expected {tried.outcome}"
    if tried.outcome == EMPTY:
        return f"not empty: {answer.body}" if any(answer.body.values()) else ""
    seen = set(UUIDS.findall(json.dumps(answer.body))) & theirs
    return f"ids of the other agency: {seen}" if seen else ""


def test_no_rpc_reaches_the_other_agency(two: Two, whole: whole.Whole, gateway: calls.Client) -> None:
    """Every RPC, under one's own name with ids of the other: nothing is found, and not a row of the other changes."""
    planned = tries(two, whole)
    assert set(planned) == {str(rpc) for rpc in calls.rpcs()}
    before, theirs = rows_of(whole, two.other.id), ids_of(whole, two.other.id)
    assert len(before) > 1000
    assert len(theirs) > 500
    shared = theirs & ids_of(whole, two.ours.id)
    assert not shared
    signer = auth.Signer("notify", tokens.key_file(whole.state_dir / "keys", "notify"))
    problems = []
    for rpc in calls.rpcs():
        direct = calls.Client(whole.parts.address(rpc.owner)) if rpc.internal else gateway
        for tried in planned[str(rpc)]:
            token = signer.token(two.ours.id) if rpc.internal else two.ours.token()
            answer = direct.grpc(rpc, json_format.ParseDict(tried.fields, rpc.input()), token)
            if problem := wrong(tried, answer, theirs):
                problems.append(f"{rpc} {dict(tried.fields)}: {problem}: {answer}")
            if tried.outcome == "DUPLICATE_FILE":
                assert answer.metadata["batch"] == two.ours.batch
        if rpc.internal:
            direct.close()
    assert not problems, "\n".join(problems)
    gc.wait_for(
        "what our own calls caused", lambda: not int(two.ours.gateway.get("cases:summarize")["outbox"])
    )
    assert rows_of(whole, two.other.id) == before


def test_the_name_of_the_other_agency_opens_nothing(
    two: Two, whole: whole.Whole, gateway: calls.Client
) -> None:
    """Names as the other agency has them, with our token: refused before anything is looked up."""
    found = []
    for name in ("GetCase", "ListPeople", "ListTimeline", "ListHolds", "ListTitles"):
        rpc = calls.rpc(f"CaseService/{name}")
        field = "name" if name.startswith("Get") else "parent"
        answer = gateway.grpc(rpc, rpc.input(**{field: two.other.case["name"]}), two.ours.token())
        found.append(answer.told)
        assert not answer.body
    assert set(found) == {(code_pb2.PERMISSION_DENIED, "AGENCY_MISMATCH")}


# ---- every table -------------------------------------------------------------------------------------------------

TABLES = """
    SELECT c.relname, c.relrowsecurity, c.relowner::regrole::text, r.rolsuper, r.rolbypassrls
    FROM information_schema.columns AS column_
    JOIN pg_class AS c ON c.relname = column_.table_name AND c.relkind IN ('r', 'p')
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = column_.table_schema
    JOIN pg_roles AS r ON r.rolname = current_user
    WHERE column_.table_schema = 'public' AND column_.column_name = 'agency'
    ORDER BY c.relname
"""


def at_one_moment(first: psycopg.Connection, second: psycopg.Connection) -> None:
    """Let the transactions that both begin now see the same, whatever others commit meanwhile."""
    for connection in (first, second):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    [(snapshot,)] = first.execute("SELECT pg_export_snapshot()").fetchall()
    second.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))


@pytest.mark.parametrize("service", digest.SERVICES)
def test_no_table_gives_rows_of_another_agency(service: str, two: Two, whole: whole.Whole) -> None:
    """As the service's own role: without a scope no row, with one agency's scope only its rows, of every table; and no
    row of another agency can be written."""
    filled = set()
    with (
        psycopg.connect(whole.parts.url(service)) as role,
        psycopg.connect(whole.parts.owner_url(service)) as own,
    ):
        [(user, member)] = role.execute(
            "SELECT current_user::text, pg_has_role(current_user, %s, 'MEMBER')",
            [f"recupera_{service}_owner"],
        ).fetchall()
        assert not member, "the service's role can become the owner"
        found = role.execute(TABLES).fetchall()  # type: ignore[arg-type]
        tables = [row for row in found if row[0] not in UNSCOPED]
        missing = {table.name for table in digest.metadata(service).tables.values()} - {
            row[0] for row in tables
        }
        assert not missing, f"business tables without a column agency: {missing}"
        for table, secured, owner, superuser, bypasses in tables:
            assert secured, f"{table} has no row-level security"
            assert owner != user
            assert not superuser
            assert not bypasses
            count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
            agencies = sql.SQL("SELECT DISTINCT agency FROM {}").format(sql.Identifier(table))
            role.rollback()
            assert role.execute(count).fetchall() == [(0,)], f"{table} gives rows without a scope"
            for agency in (two.ours.id, two.other.id):
                role.rollback()
                own.rollback()
                at_one_moment(role, own)  # the services are at work
                role.execute("SELECT set_config('app.agency', %s, true)", [str(agency)])
                seen = {row[0] for row in role.execute(agencies).fetchall()}
                assert seen <= {agency}, f"{table} gives rows of {seen}"
                where = sql.SQL("{} WHERE agency = {}").format(count, sql.Literal(agency))
                assert role.execute(count).fetchall() == own.execute(where).fetchall()
                if seen:
                    role.rollback()
                    role.execute("SELECT set_config('app.agency', %s, true)", [str(agency)])
                    filled.add(table)
                    other = two.other.id if agency == two.ours.id else two.ours.id
                    change = sql.SQL("UPDATE {} SET agency = {}").format(
                        sql.Identifier(table), sql.Literal(other)
                    )
                    refusals = (psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation)
                    with pytest.raises(refusals):
                        role.execute(change)
        role.rollback()
    assert 2 * len(filled) >= len(tables), f"only these have rows, the test proves little: {filled}"


# ---- creditors ---------------------------------------------------------------------------------------------------


def listed(
    gateway: calls.Client, name: str, request: Mapping[str, Any], token: str, field: str
) -> Sequence[Any]:
    """The items of a list, all on one page."""
    rpc = calls.rpc(name)
    answer = gateway.grpc(rpc, json_format.ParseDict({**request, "pageSize": 1000}, rpc.input()), token)
    assert answer.code == 0, answer
    assert "nextPageToken" not in answer.body
    return answer.body.get(field, [])  # type: ignore[no-any-return]


def test_a_creditor_sees_its_own(two: Two, whole: whole.Whole, gateway: calls.Client, tmp_path: Path) -> None:
    """A token bound to a creditor: its cases, titles, balances and files; the others' are not found."""
    ours = two.ours
    creditors = {
        one["name"]: one["reference"]
        for one in ours.gateway.pages("creditors", "creditors")
        if one["reference"] != "LUZ"
    }
    mine, reference = ours.creditor, creditors[ours.creditor]
    theirs = next(name for name in creditors if name != mine)
    bound = ours.token(creditor=uuid.UUID(mine.rsplit("/", 1)[1]), subject="users/creditor")
    strange = ours.token(creditor=uuid.UUID(theirs.rsplit("/", 1)[1]), subject="users/another")
    parent = {"parent": ours.parent}

    everything = list(ours.gateway.pages("cases", "cases"))
    own = {case["name"] for case in everything if case["creditor"] == mine}
    assert 0 < len(own) < len(everything)
    assert {c["name"] for c in listed(gateway, "CaseService/ListCases", parent, bound, "cases")} == own
    assert not listed(gateway, "CaseService/ListCases", {**parent, "creditor": theirs}, bound, "cases")
    foreign = next(case["name"] for case in everything if case["creditor"] == theirs)
    for name, field in (("GetCase", "name"), ("ListTitles", "parent")):
        rpc = calls.rpc(f"CaseService/{name}")
        assert gateway.grpc(rpc, rpc.input(**{field: foreign}), bound).code == code_pb2.NOT_FOUND
        assert gateway.grpc(rpc, rpc.input(**{field: next(iter(own))}), bound).code == 0

    ids = {name.rsplit("/", 1)[1] for name in own}
    titles = listed(gateway, "AgreementService/ListTitles", parent, bound, "titles")
    assert {title["caseId"] for title in titles} == ids
    for name, field in (("ListAgreements", "agreements"), ("ListPayments", "payments")):
        all_of_them = listed(gateway, f"AgreementService/{name}", parent, ours.token(), field)
        seen = {one["name"] for one in listed(gateway, f"AgreementService/{name}", parent, bound, field)}
        other = {one["name"] for one in listed(gateway, f"AgreementService/{name}", parent, strange, field)}
        assert seen
        assert not seen & other
        assert seen | other <= {one["name"] for one in all_of_them}
    explain = calls.rpc("AgreementService/ExplainBalances")
    answer = gateway.grpc(
        explain, explain.input(parent=ours.parent, case_ids=[foreign.rsplit("/", 1)[1]]), bound
    )
    assert not answer.body.get("balances"), answer

    unique = {"title_reference": f"own-{uuid.uuid4()}"}
    rows = [row | unique for row in ours.rows if row["creditor_reference"] == reference][:1]
    stranger = next(row for row in ours.rows if row["creditor_reference"] == creditors[theirs])
    batch = upload(whole.url, ours, bound, [*rows, stranger], tmp_path)
    seen = {one["name"] for one in listed(gateway, "ImportService/ListBatches", parent, bound, "batches")}
    assert batch in seen
    assert ours.batch not in seen
    assert not listed(gateway, "ImportService/ListBatches", parent, strange, "batches")
    get = calls.rpc("ImportService/GetBatch")
    for token, name in ((strange, batch), (bound, ours.batch)):
        assert gateway.grpc(get, get.input(name=name), token).code == code_pb2.NOT_FOUND
    rejected = listed(gateway, "ImportService/ListRejectedRows", {"parent": batch}, bound, "rejectedRows")
    assert [row["code"] for row in rejected] == ["CREDITOR_MISMATCH"]


def upload(
    base_url: str, agency: two_agencies.Agency, token: str, rows: list[dict[str, str]], folder: Path
) -> str:
    """The batch of an upload with this token, once its rows are read."""
    path = folder / "creditor.csv"
    examples.write(path, examples.PORTFOLIO_COLUMNS, rows)
    bound = gc.Gateway(base_url=base_url, token=lambda: token, agency=str(agency.id))
    name = bound.upload(path=path, kind="PORTFOLIO")["name"]
    gc.wait_for(f"{name} read", lambda: bound.get(name)["state"] not in ("STATE_RECEIVED", "STATE_PARSED"))
    bound.close()
    return str(name)
