"""Payments' states, write-offs, waterfalls and the ledger over gRPC."""

import datetime

import pytest
from google.type import date_pb2, money_pb2

from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2, ledger_pb2, ledger_service_pb2
from servicekit import dates, ids

TUESDAY = datetime.date(2026, 10, 6)
MONTH = datetime.date(2026, 12, 21)
ADMIN = ("agreement.read", "agreement.admin")
COMPONENT = agreement_pb2.BalanceLine.Component


def brl(minor: int) -> money_pb2.Money:
    return money_pb2.Money(currency_code="BRL", units=minor // 100, nanos=minor % 100 * 10_000_000)


def day(value: datetime.date) -> date_pb2.Date:
    return dates.to_proto(value)


def name(api, payment_id):
    return f"{api.name}/payments/{payment_id}"


@pytest.mark.feature("S1-20")
def test_a_proof_is_uploaded_read_and_confirmed(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    request = agreement_service_pb2.ReportPaymentRequest(
        parent=api.name,
        case_id=str(placed.case_id),
        means="PIX",
        value_date=day(agency.today),
        amount=brl(10_000),
        proof=b"\x89PNG of a receipt",
        proof_type="image/png",
        request_id="proof-1",
    )
    reported = api("ReportPayment", request)
    assert api("ReportPayment", request) == reported
    assert (reported.state, reported.has_proof) == (agreement_pb2.Payment.STATE_REPORTED, True)
    proof = api("GetPaymentProof", agreement_service_pb2.GetPaymentProofRequest(name=reported.name))
    assert (proof.content, proof.content_type) == (b"\x89PNG of a receipt", "image/png")
    confirmed = api(
        "ConfirmPayment",
        agreement_service_pb2.ConfirmPaymentRequest(
            name=reported.name, account="main", bank_reference="E2E-1", etag=reported.etag
        ),
    )
    assert (confirmed.state, confirmed.bank_reference) == (agreement_pb2.Payment.STATE_ALLOCATED, "E2E-1")
    bare = agency.pay(100)
    assert api.refused(
        "GetPaymentProof", agreement_service_pb2.GetPaymentProofRequest(name=name(api, bare))
    ) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


@pytest.mark.feature("S1-18")
def test_the_tabs_of_the_payments_grid(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    allocated = agency.pay(1_000, title_reference=placed.reference)
    cheque = agency.pay(1_001, title_reference=placed.reference, means="CHEQUE")
    early = agency.pay(1_002, value_date=TUESDAY)
    waiting = agency.pay(1_003, unconfirmed=True, title_reference=placed.reference)
    mistake = agency.pay(1_004, title_reference=placed.reference)
    reversed_ = api(
        "ReversePayment",
        agreement_service_pb2.ReversePaymentRequest(
            name=name(api, cheque),
            reason="no funds",
            kind=agreement_pb2.Payment.REVERSAL_KIND_BOUNCED_CHEQUE,
        ),
    )
    assert reversed_.reversal_kind == agreement_pb2.Payment.REVERSAL_KIND_BOUNCED_CHEQUE
    assert (reversed_.reverse_date, reversed_.reverse_reason) == (day(agency.today), "no funds")
    annulled = api(
        "AnnulPayment",
        agreement_service_pb2.AnnulPaymentRequest(name=name(api, mistake), reason="typed twice"),
    )
    assert annulled.state == agreement_pb2.Payment.STATE_ANNULLED
    states = agreement_pb2.Payment.State

    def listed(**fields):
        request = agreement_service_pb2.ListPaymentsRequest(parent=api.name, **fields)
        return {one.name.rpartition("/")[2] for one in api("ListPayments", request).payments}

    def are(*payments):
        return {str(one) for one in payments}

    new = [states.STATE_UNIDENTIFIED, states.STATE_ALLOCATED, states.STATE_OVERPAID, states.STATE_REFUNDED]
    unconfirmed = [states.STATE_NEW_UNCONFIRMED, states.STATE_REPORTED]
    assert listed() == are(allocated, cheque, early, waiting, mistake)
    assert listed(states=[*new, *unconfirmed]) == are(allocated, early, waiting)
    assert listed(states=new) == are(allocated, early)
    assert listed(states=unconfirmed) == are(waiting)
    assert listed(state=states.STATE_ANNULLED) == are(mistake)
    assert listed(reversal_kind=agreement_pb2.Payment.REVERSAL_KIND_BOUNCED_CHEQUE) == are(cheque)
    assert listed(case_id=str(placed.case_id)) == are(allocated, cheque, mistake)
    assert listed(creditor_reference="NOBODY") == set()
    assert listed(to_date=day(TUESDAY)) == are(early)
    assert listed(from_date=day(agency.today)) == are(allocated, cheque, waiting, mistake)


def test_chosen_titles_unmatch_refund_and_credit(api, agency):
    debtor = ids.new()
    old, new = agency.place((TUESDAY, 100_000), (MONTH, 5_000), debtor_id=debtor)
    (later,) = agency.place((MONTH, 3_000), debtor_id=debtor)
    paid = api(
        "RecordPayment",
        agreement_service_pb2.RecordPaymentRequest(
            parent=api.name,
            creditor_reference=agency.creditor,
            account="main",
            means="TRANSFER",
            bank_reference="TED-1",
            value_date=day(agency.today),
            amount=brl(110_000),
            case_id=str(old.case_id),
            allocations=[agreement_pb2.TitleShare(title_id=str(new.title_id), amount=brl(5_000))],
        ),
    )
    assert (paid.overpaid, paid.case_id) == (brl(1_500), str(old.case_id))
    assert paid.chosen[0].title_id == str(new.title_id)
    refused = api.refused(
        "RefundPayment",
        agreement_service_pb2.RefundPaymentRequest(name=paid.name, amount=brl(500), reason="asked"),
    )
    assert refused == ("FAILED_PRECONDITION", "APPROVAL_REQUESTED")
    assert api("GetPayment", agreement_service_pb2.GetPaymentRequest(name=paid.name)).refunded == brl(0)
    credit = api(
        "ApplyCredit",
        agreement_service_pb2.ApplyCreditRequest(name=paid.name, case_id=str(later.case_id), request_id="c"),
    )
    assert (credit.means, credit.origin_payment, credit.amount) == ("CREDIT", paid.name, brl(1_500))
    assert agency.title(later).received_minor == 1_500
    assert api("GetPayment", agreement_service_pb2.GetPaymentRequest(name=paid.name)).credited == brl(1_500)
    assert api.refused("UnmatchPayment", agreement_service_pb2.UnmatchPaymentRequest(name=paid.name)) == (
        "FAILED_PRECONDITION",
        "PAYMENT_SPENT",
    )
    api("AnnulPayment", agreement_service_pb2.AnnulPaymentRequest(name=credit.name))
    waiting = api("UnmatchPayment", agreement_service_pb2.UnmatchPaymentRequest(name=paid.name))
    assert (waiting.state, waiting.case_id) == (agreement_pb2.Payment.STATE_UNIDENTIFIED, "")
    matched = api(
        "MatchPayment",
        agreement_service_pb2.MatchPaymentRequest(name=paid.name, title_reference=later.reference),
    )
    assert matched.case_id == str(later.case_id)


def test_write_off_and_undo(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    request = ledger_service_pb2.WriteOffTitlesRequest(
        parent=api.name,
        case_id=str(placed.case_id),
        type=ledger_pb2.WRITE_OFF_TYPE_PAID_TO_CREDITOR,
        reason="receipt seen",
    )
    assert api.refused("WriteOffTitles", request) == ("FAILED_PRECONDITION", "APPROVAL_REQUESTED")
    assert agency.title(placed).state == "OPEN"
    request.type = ledger_pb2.WRITE_OFF_TYPE_UNSPECIFIED
    assert api.refused("WriteOffTitles", request) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    undo = ledger_service_pb2.UndoWriteOffRequest(
        parent=api.name, case_id=str(placed.case_id), title_ids=[str(placed.title_id)]
    )
    assert api.refused("UndoWriteOff", undo) == ("FAILED_PRECONDITION", "NOT_WRITTEN_OFF")


def test_a_waterfall_is_read_and_set(api, agency):
    agency.introduce()
    waterfall = f"{api.name}/creditors/{agency.creditor_id}/waterfall"
    found = api("GetWaterfall", ledger_service_pb2.GetWaterfallRequest(name=waterfall))
    legal = ["COSTS", "FEES", "PENALTY", "INTEREST", "CORRECTION", "PRINCIPAL"]
    assert [COMPONENT.Name(one).removeprefix("COMPONENT_") for one in found.components] == legal
    assert (list(found.orders), found.etag) == ([], "0")
    request = ledger_service_pb2.UpdateWaterfallRequest(
        name=waterfall,
        valid_from=day(agency.today + datetime.timedelta(days=1)),
        components=[*found.components[4:], *found.components[:4]],
        etag=found.etag,
    )
    assert api.refused("UpdateWaterfall", request) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    (order,) = api("UpdateWaterfall", request, scopes=ADMIN).orders
    assert list(order.components) == list(request.components)
    request.ClearField("etag")
    for components, reason in (
        (list(found.components)[::-1], "WATERFALL_NOT_LAWFUL"),
        ([COMPONENT.COMPONENT_PAID], "INVALID_REQUEST"),
    ):
        request.ClearField("components")
        request.components.extend(components)
        assert api.refused("UpdateWaterfall", request, scopes=ADMIN) == ("INVALID_ARGUMENT", reason)


def test_trial_balance_and_statement(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    other_creditor = ids.new()
    (other,) = agency.place((TUESDAY, 7_000), creditor="CRED-2", creditor_id=other_creditor)
    agency.pay(10_000, title_reference=placed.reference)
    agency.pay(600, creditor_reference="CRED-2")

    def balance(**claims):
        request = ledger_service_pb2.GetTrialBalanceRequest(parent=api.name)
        answer = api("GetTrialBalance", request, **claims)
        return {one.account: one.balance.units * 100 + one.balance.nanos // 10**7 for one in answer.accounts}

    assert sum(balance().values()) == 0
    assert balance(creditor=other_creditor) == {
        "BANK": 600,
        "CLEARING": -600,
        "PLACED": -7_000,
        "RECEIVABLE:PRINCIPAL": 7_000,
    }
    seen, token = [], ""
    while True:
        page = api(
            "ListPostings",
            ledger_service_pb2.ListPostingsRequest(
                parent=api.name, case_id=str(placed.case_id), page_size=2, page_token=token
            ),
        )
        seen += [(one.kind, one.component) for one in page.postings]
        token = page.next_page_token
        if not token:
            break
    assert seen == [
        ("PLACED", "PRINCIPAL"),
        ("CHARGED", "PENALTY"),
        ("CHARGED", "INTEREST"),
        ("RECEIVED", "PENALTY"),
        ("RECEIVED", "INTEREST"),
        ("RECEIVED", "PRINCIPAL"),
    ]
    request = ledger_service_pb2.ListPostingsRequest(parent=api.name, case_id=str(other.case_id))
    assert list(api("ListPostings", request, creditor=agency.creditor_id).postings) == []
    assert len(api("ListPostings", request, creditor=other_creditor).postings) == 1
    request = ledger_service_pb2.ListPostingsRequest(parent=api.name, title_id=str(placed.title_id))
    assert api.refused("ListPostings", request) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
