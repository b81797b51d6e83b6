"""Every RPC over gRPC, with tokens, on a real database."""

import datetime

import pytest
from google.type import date_pb2, money_pb2

from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, ids

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
MONTH = datetime.date(2026, 12, 21)


def brl(minor: int) -> money_pb2.Money:
    return money_pb2.Money(currency_code="BRL", units=minor // 100, nanos=minor % 100 * 10_000_000)


def day(value: datetime.date) -> date_pb2.Date:
    return dates.to_proto(value)


def test_a_whole_life_over_grpc(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    case_id = str(placed.case_id)
    titles = api(
        "ListTitles", agreement_service_pb2.ListTitlesRequest(parent=api.name, case_id=case_id)
    ).titles
    assert [(title.title_reference, title.state) for title in titles] == [
        (placed.reference, agreement_pb2.Title.STATE_PAST_DUE)
    ]
    explained = api(
        "ExplainBalances", agreement_service_pb2.ExplainBalancesRequest(parent=api.name, case_ids=[case_id])
    )
    assert explained.balances[0].total == brl(103_500)
    terms = agreement_pb2.PlanTerms(instalments=3, first_due_date=day(MONTH), annual_rate_e4=120_000)
    simulated = api(
        "SimulateAgreement",
        agreement_service_pb2.SimulateAgreementRequest(parent=api.name, case_ids=[case_id], terms=terms),
    )
    assert simulated.debt == brl(103_500)
    assert sum(row.capital.units * 100 + row.capital.nanos // 10**7 for row in simulated.rows) == 103_500
    request = agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name, case_ids=[case_id], terms=terms, request_id="propose-1"
    )
    proposed = api("ProposeAgreement", request)
    assert api("ProposeAgreement", request) == proposed, "the same request_id, the same answer"
    assert proposed.state == agreement_pb2.Agreement.STATE_PROPOSED
    accepted = api(
        "AcceptAgreement",
        agreement_service_pb2.AcceptAgreementRequest(name=proposed.name, etag=proposed.etag),
    )
    assert accepted.state == agreement_pb2.Agreement.STATE_ACTIVE
    kinds = [instrument.kind for instrument in accepted.instalments[0].instruments]
    assert kinds == [agreement_pb2.Instrument.KIND_BOLETO, agreement_pb2.Instrument.KIND_PIX]
    assert len(accepted.instalments[0].instruments[0].typeable_line) == 54
    first = accepted.instalments[0]
    paid = api(
        "RecordPayment",
        agreement_service_pb2.RecordPaymentRequest(
            parent=api.name,
            creditor_reference=agency.creditor,
            account="main",
            means="PIX",
            bank_reference="E1",
            value_date=day(agency.today),
            amount=first.amount,
            txid=first.instruments[1].txid,
        ),
    )
    assert paid.state == agreement_pb2.Payment.STATE_ALLOCATED
    assert list(paid.sources) == ["callers/users/1"]
    found = api("GetAgreement", agreement_service_pb2.GetAgreementRequest(name=proposed.name))
    assert found.paid == first.amount
    assert api("GetPayment", agreement_service_pb2.GetPaymentRequest(name=paid.name)) == paid
    reversed_ = api(
        "ReversePayment", agreement_service_pb2.ReversePaymentRequest(name=paid.name, reason="MED")
    )
    assert reversed_.state == agreement_pb2.Payment.STATE_REVERSED
    listed = api(
        "ListAgreements",
        agreement_service_pb2.ListAgreementsRequest(
            parent=api.name, case_id=case_id, state=agreement_pb2.Agreement.STATE_ACTIVE
        ),
    )
    assert [one.name for one in listed.agreements] == [proposed.name]
    cancelled = api(
        "CancelAgreement", agreement_service_pb2.CancelAgreementRequest(name=proposed.name, reason="asked")
    )
    assert cancelled.state == agreement_pb2.Agreement.STATE_CANCELLED
    assert cancelled.end_date == day(agency.today)
    money = api("SummarizeMoney", agreement_service_pb2.SummarizeMoneyRequest(parent=api.name))
    assert dict(money.agreements_by_state) == {"CANCELLED": 1}
    (one,) = money.currencies
    assert one.placed == brl(100_000)
    assert one.open_principal == brl(100_000)
    assert one.reversed == first.amount


def test_payments_are_listed_and_matched(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    known = [str(agency.pay(1_000 + number)) for number in range(5)]
    pages, token = [], ""
    while True:
        page = api(
            "ListPayments",
            agreement_service_pb2.ListPaymentsRequest(
                parent=api.name, page_size=2, page_token=token, state=agreement_pb2.Payment.STATE_UNIDENTIFIED
            ),
        )
        pages += [one.name.rpartition("/")[2] for one in page.payments]
        token = page.next_page_token
        if not token:
            break
    assert pages == sorted(known)
    matched = api(
        "MatchPayment",
        agreement_service_pb2.MatchPaymentRequest(
            name=f"{api.name}/payments/{known[0]}", case_id=str(placed.case_id), etag="1"
        ),
    )
    assert matched.state == agreement_pb2.Payment.STATE_ALLOCATED


def test_titles_are_paged(api, agency):
    for _ in range(3):
        agency.place((TUESDAY, 100), (MONTH, 200))
    seen, token = [], ""
    while True:
        page = api(
            "ListTitles",
            agreement_service_pb2.ListTitlesRequest(parent=api.name, page_size=4, page_token=token),
        )
        seen += [title.name for title in page.titles]
        token = page.next_page_token
        if not token:
            break
    assert len(set(seen)) == 6


def test_rolling_back_is_for_services(api, agency):
    batch_id = ids.new()
    agency.place((TUESDAY, 100), batch_id=batch_id)
    request = agreement_service_pb2.RollBackTitlesRequest(parent=api.name, batch_id=batch_id.bytes)
    assert api.refused("RollBackTitles", request) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    assert api("RollBackTitles", request, scopes="internal").titles == 1
    assert api("RollBackTitles", request, scopes="internal").titles == 0


def test_a_creditor_sees_its_own_only(api, agency):
    (mine,) = agency.place((TUESDAY, 100_000))
    other_id = ids.new()
    (theirs,) = agency.place((TUESDAY, 100_000), creditor="CRED-2", creditor_id=other_id)
    payment = agency.pay(100, title_reference=mine.reference)
    terms = agreement_pb2.PlanTerms(instalments=1, first_due_date=day(MONTH))
    made = api(
        "ProposeAgreement",
        agreement_service_pb2.ProposeAgreementRequest(
            parent=api.name, case_ids=[str(mine.case_id)], terms=terms
        ),
    )

    def seen(method, request):
        return api(method, request, creditor=other_id)

    listed = seen("ListTitles", agreement_service_pb2.ListTitlesRequest(parent=api.name)).titles
    assert [title.case_id for title in listed] == [str(theirs.case_id)]
    assert not seen("ListPayments", agreement_service_pb2.ListPaymentsRequest(parent=api.name)).payments
    assert not seen("ListAgreements", agreement_service_pb2.ListAgreementsRequest(parent=api.name)).agreements
    for method, request in (
        ("GetAgreement", agreement_service_pb2.GetAgreementRequest(name=made.name)),
        ("GetPayment", agreement_service_pb2.GetPaymentRequest(name=f"{api.name}/payments/{payment}")),
        (
            "ExplainBalances",
            agreement_service_pb2.ExplainBalancesRequest(parent=api.name, case_ids=[str(mine.case_id)]),
        ),
    ):
        assert api.refused(method, request, creditor=other_id) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    request = agreement_service_pb2.AcceptAgreementRequest(name=made.name)
    assert api.refused("AcceptAgreement", request, creditor=other_id)[1] == "CREDITOR_NOT_ALLOWED"
    mine_seen = api(
        "ListTitles", agreement_service_pb2.ListTitlesRequest(parent=api.name), creditor=agency.creditor_id
    )
    assert [title.case_id for title in mine_seen.titles] == [str(mine.case_id)]


@pytest.mark.parametrize(
    ("method", "request_of", "code", "reason"),
    [
        (
            "GetAgreement",
            lambda n: agreement_service_pb2.GetAgreementRequest(name="x"),
            "INVALID_ARGUMENT",
            None,
        ),
        (
            "GetAgreement",
            lambda n: agreement_service_pb2.GetAgreementRequest(name=f"{n}/agreements/{ids.new()}"),
            "NOT_FOUND",
            "RESOURCE_NOT_FOUND",
        ),
        (
            "GetPayment",
            lambda n: agreement_service_pb2.GetPaymentRequest(name=f"{n}/payments/{ids.new()}"),
            "NOT_FOUND",
            "RESOURCE_NOT_FOUND",
        ),
        (
            "ExplainBalances",
            lambda n: agreement_service_pb2.ExplainBalancesRequest(parent=n),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            "SimulateAgreement",
            lambda n: agreement_service_pb2.SimulateAgreementRequest(
                parent=n, case_ids=[str(ids.new())], terms=agreement_pb2.PlanTerms(instalments=1)
            ),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            "ListPayments",
            lambda n: agreement_service_pb2.ListPaymentsRequest(parent=n, state=77),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            "AcceptAgreement",
            lambda n: agreement_service_pb2.AcceptAgreementRequest(
                name=f"{n}/agreements/{ids.new()}", etag="x"
            ),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            "RecordPayment",
            lambda n: agreement_service_pb2.RecordPaymentRequest(
                parent=n, amount=brl(100), value_date=day(TUESDAY), means="SHELLS"
            ),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
        (
            "SummarizeMoney",
            lambda n: agreement_service_pb2.SummarizeMoneyRequest(parent=n, date=day(TUESDAY)),
            "INVALID_ARGUMENT",
            "INVALID_REQUEST",
        ),
    ],
)
def test_wrong_requests_are_named(api, method, request_of, code, reason):
    found = api.refused(method, request_of(api.name))
    assert found[0] == code
    assert reason is None or found[1] == reason


def test_an_agency_without_a_clock(api, agency):
    other = ids.new()
    request = agreement_service_pb2.SummarizeMoneyRequest(parent=f"agencies/{other}")
    assert api.refused("SummarizeMoney", request, agency=other) == (
        "FAILED_PRECONDITION",
        "AGENCY_CLOCK_UNKNOWN",
    )
    assert api.refused("SummarizeMoney", request) == ("PERMISSION_DENIED", "AGENCY_MISMATCH")
