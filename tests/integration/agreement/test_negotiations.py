"""Negotiations on a real PostgreSQL: titles chosen, added to, forgiven; proposals counted again; drafts."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime

import grpc
import psycopg
import pytest
from google.type import money_pb2

from agreement_service.domain import approvals, creditors, limits, plans, proposals
from agreement_service.store import creditors as creditor_store
from agreement_service.usecases import agreements
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2, approval_service_pb2
from recupera.approvals.v1 import approvals_pb2
from servicekit import dates, errors, ids

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
FUTURE = datetime.date(2026, 12, 1)
MONTH = datetime.date(2026, 12, 21)
AGENT = limits.Authority(subject="users/agent", roles=frozenset({"agent"}))
FREE = {"penalty_e4": 0, "monthly_e4": 0}
W06 = plans.Terms(
    instalments=3,
    first_due_date=MONTH,
    method=plans.Method.EQUAL_PRINCIPAL,
    accretion_rate_e4=50_000,
    penalty_rate_e4=50_000,
    discount_minor=1_000,
    charges_minor=500,
    fees_minor=1_000,
)
THREE = plans.Terms(instalments=3, first_due_date=MONTH)


def simulate(agency, *case_ids, terms=THREE, authority=limits.SYSTEM, **choice):
    with agency.tx() as tx:
        return agreements.simulate(
            tx=tx,
            agency=agency.agency,
            negotiation=agreements.Negotiation(case_ids=list(case_ids), terms=terms, **choice),
            authority=authority,
            date=agency.today,
            today=agency.today,
        )


def recalculate(agency, agreement_id, *, terms=None):
    with agency.tx() as tx:
        return agreements.recalculate(
            tx=tx,
            agency=agency.agency,
            agreement_id=agreement_id,
            terms=terms,
            currencies=frozenset(),
            validity_days=0,
            version=None,
            authority=limits.SYSTEM,
            moment=agency.moment(tx),
        )


def set_creditor(agency, **fields):
    with agency.tx() as tx:
        assert creditor_store.put(
            tx, agency.agency, agency.creditor_id, creditors.CreditorSettings(**fields), version=0
        )


@pytest.mark.feature("S3-15", "S3-11")
def test_w06_accepted_and_paid(agency):
    one, two = agency.place((TUESDAY, 20_000), (TUESDAY, 10_000), contract="W06", **FREE)
    agreement_id = agency.agree(one.case_id, terms=W06)
    record = agency.agreement(agreement_id)
    assert [row.amount_minor for row in agency.instalments(agreement_id)] == [13_167, 10_167, 10_166]
    assert (record.debt_minor, record.added_minor, record.discount_minor, record.total_minor) == (
        30_000,
        4_500,
        1_000,
        33_500,
    )
    title = agency.title(one)
    assert (title.charged_costs_minor, title.charged_fees_minor) == (333, 667)
    assert (title.charged_penalty_minor, title.charged_interest_minor) == (1_000, 1_000)
    assert title.waived_minor == 1_000
    for row in agency.instalments(agreement_id):
        agency.pay(row.amount_minor, contract_reference="W06")
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert [agency.title(placed).state for placed in (one, two)] == ["PAID", "PAID"]
    assert agency.check_money().sums[0].open == 0


def test_w06_cancelled_what_was_added_disappears_as_far_as_it_is_not_paid(agency):
    (placed,) = agency.place((TUESDAY, 30_000), contract="W06", **FREE)
    agreement_id = agency.agree(placed.case_id, terms=W06)
    agency.pay(1_200, contract_reference="W06")  # costs 500 and 700 of the fees
    agency.cancel(agreement_id)
    title = agency.title(placed)
    assert (title.charged_costs_minor, title.charged_fees_minor) == (500, 700)
    assert (title.charged_penalty_minor, title.charged_interest_minor) == (0, 0)
    assert (title.open_principal_minor, title.waived_minor, title.received_minor) == (30_000, 0, 1_200)
    agency.check_money()


def test_forgiven_principal_comes_back_with_the_breach(agency):
    one, two = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000), contract="P", **FREE)
    terms = dataclasses.replace(THREE, discount_minor=30_000)
    agreement_id = agency.agree(one.case_id, terms=terms)
    assert [agency.title(placed).open_principal_minor for placed in (one, two)] == [80_000, 40_000]
    agency.pay(40_000, contract_reference="P")
    agency.cancel(agreement_id)
    assert [agency.title(placed).open_principal_minor for placed in (one, two)] == [60_000, 50_000]
    agency.check_money()


def test_forgiving_principal_needs_authority_and_a_limit_gives_it(agency):
    (placed,) = agency.place((TUESDAY, 100_000), **FREE)
    terms = dataclasses.replace(THREE, discount_rate_e4=200_000)
    found = simulate(agency, placed.case_id, terms=terms, authority=AGENT)
    assert [(one.rule, one.asked) for one in found.needed] == [("DISCOUNT_PRINCIPAL", "20 %")]
    assert found.priced.forgiven_e4 == 200_000
    with pytest.raises(approvals.ApprovalNeeded):
        agency.propose(placed.case_id, terms=terms, authority=AGENT)
    assert agency.rows("SELECT id FROM agreements") == []


@pytest.mark.feature("S3-09", "S5-03")
def test_titles_are_chosen_from_several_cases(agency):
    debtor = ids.new()
    old, other = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000), debtor_id=debtor, **FREE)
    late, future = agency.place((TUESDAY, 30_000), (FUTURE, 20_000), debtor_id=debtor, **FREE)
    chosen = {"title_ids": [old.title_id, future.title_id]}
    with pytest.raises(proposals.TitlesNotEligible) as caught:
        simulate(agency, old.case_id, late.case_id, **chosen)
    assert [one.field for one in caught.value.fields] == ["title_ids[1]"]
    agreement_id = agency.agree(old.case_id, late.case_id, terms=THREE, include_not_due=True, **chosen)
    assert agency.agreement(agreement_id).debt_minor == 120_000
    states = [agency.title(placed).state for placed in (old, other, late, future)]
    assert states == ["IN_AGREEMENT", "OPEN", "OPEN", "IN_AGREEMENT"]
    with pytest.raises(errors.InvalidRequest) as wrong:
        simulate(agency, old.case_id, late.case_id, title_ids=[other.title_id])
    assert [one.field for one in wrong.value.fields] == ["case_ids[1]"]


@pytest.mark.feature("S5-06")
def test_titles_of_other_parties_only_when_asked(agency):
    (one,) = agency.place((TUESDAY, 100_000))
    (two,) = agency.place((TUESDAY, 50_000))
    with pytest.raises(agreements.CasesDoNotBelongTogether):
        agency.propose(one.case_id, two.case_id, terms=THREE)
    agreement_id = agency.agree(one.case_id, two.case_id, terms=THREE, other_parties=True)
    assert agency.agreement(agreement_id).case_ids == tuple(sorted([one.case_id, two.case_id]))
    (foreign,) = agency.place((TUESDAY, 50_000), creditor="CRED-2", creditor_id=ids.new())
    (mine,) = agency.place((TUESDAY, 50_000))
    with pytest.raises(agreements.CasesDoNotBelongTogether):
        agency.propose(mine.case_id, foreign.case_id, terms=THREE, other_parties=True)


@pytest.mark.feature("S5-07")
def test_forecast_titles_are_refused(agency):
    one, forecast = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000), **FREE)
    with psycopg.connect(agency.owner_url) as connection:
        connection.execute("UPDATE titles SET title_type = 'FORECAST' WHERE id = %s", [forecast.title_id])
    assert simulate(agency, one.case_id).priced.debt_minor == 100_000
    with pytest.raises(proposals.TitlesNotEligible) as caught:
        simulate(agency, one.case_id, title_ids=[one.title_id, forecast.title_id])
    assert caught.value.fields[0].description == "expected a title that is billed, not a forecast"


@pytest.mark.feature("S5-10")
def test_one_title_to_one_title_needs_nothing_special(agency):
    one, other = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000), **FREE)
    terms = plans.Terms(instalments=1, first_due_date=MONTH)
    agreement_id = agency.agree(one.case_id, terms=terms, title_ids=[one.title_id])
    (row,) = agency.instalments(agreement_id)
    assert (row.due_date, row.amount_minor) == (MONTH, 100_000)
    assert agency.title(other).state == "OPEN"


@pytest.mark.feature("S2-37", "S5-03")
@pytest.mark.parametrize(
    ("means", "kinds"),
    [("", ["BOLETO", "PIX"]), ("BOLETO", ["BOLETO"]), ("PIX", ["PIX"]), ("CHEQUE", []), ("TRANSFER", [])],
)
def test_instruments_are_of_the_means_agreed(agency, means, kinds):
    (placed,) = agency.place((TUESDAY, 100_000), **FREE)
    terms = plans.Terms(instalments=1, first_due_date=MONTH, means=means)
    agreement_id = agency.agree(placed.case_id, terms=terms)
    assert agency.agreement(agreement_id).terms.means == means
    assert [one.kind for one in agency.instruments(agreement_id)] == kinds


@pytest.mark.feature("S5-08")
def test_credits_pay_the_first_instalments_at_acceptance(agency):
    debtor = ids.new()
    (paid,) = agency.place((TUESDAY, 10_000), debtor_id=debtor, contract="PAID", **FREE)
    payment_id = agency.pay(50_000, contract_reference="PAID")
    (placed,) = agency.place((TUESDAY, 90_000), debtor_id=debtor, **FREE)
    found = simulate(agency, placed.case_id, use_credits=True)
    assert (found.available_credit_minor, found.used_credit_minor) == (40_000, 40_000)
    assert simulate(agency, placed.case_id).used_credit_minor == 0
    agreement_id = agency.propose(placed.case_id, terms=THREE, use_credits=True)
    assert agency.payment(payment_id).overpaid_minor == 40_000, "a proposal takes nothing"
    agency.accept(agreement_id)
    assert agency.payment(payment_id).overpaid_minor == 0
    rows = [(one.state, one.open_minor) for one in agency.instalments(agreement_id)]
    assert rows == [("PAID", 0), ("PARTIAL", 20_000), ("SCHEDULED", 30_000)]
    assert agency.title(paid).state == "PAID"
    agency.check_money()


def test_credits_of_more_than_the_agreement_stay(agency):
    debtor = ids.new()
    agency.place((TUESDAY, 10_000), debtor_id=debtor, contract="PAID", **FREE)
    payment_id = agency.pay(50_000, contract_reference="PAID")
    (placed,) = agency.place((TUESDAY, 30_000), debtor_id=debtor, **FREE)
    agreement_id = agency.agree(placed.case_id, terms=THREE, use_credits=True)
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert agency.payment(payment_id).overpaid_minor == 10_000
    agency.check_money()


@pytest.mark.feature("S5-09")
def test_edited_charges_of_a_title(agency):
    one, _ = agency.place((TUESDAY, 100_000), (TUESDAY, 100_000))
    edited = {one.title_id: proposals.Charges(penalty_minor=0, interest_minor=9_000)}
    agreement_id = agency.agree(one.case_id, terms=THREE, charges=edited)
    title = agency.title(one)
    assert (title.open_penalty_minor, title.open_interest_minor, title.waived_minor) == (0, 9_000, 2_000)
    assert agency.agreement(agreement_id).total_minor == 100_000 + 9_000 + 100_000 + 2_000 + 1_667
    with pytest.raises(errors.InvalidRequest) as caught:
        simulate(agency, agency.place((TUESDAY, 100))[0].case_id, charges=edited)
    assert caught.value.fields[0].field == "title_charges[0].title_id"
    agency.check_money()


def test_the_creditors_settings_hold(agency):
    set_creditor(
        agency,
        minimum_down_payment=creditors.Floor(rate_e4=100_000),
        maximum_instalments=6,
        annual_rate_e4=120_000,
        validity_days=9,
        broken_days=7,
        missed_days=2,
        notice_days=1,
    )
    (placed,) = agency.place((TUESDAY, 100_000), **FREE)
    with pytest.raises(proposals.OutsideCreditorSettings) as caught:
        simulate(agency, placed.case_id, terms=dataclasses.replace(THREE, instalments=7))
    assert [one.field for one in caught.value.fields] == ["terms.instalments", "terms.down_payment"]
    terms = dataclasses.replace(THREE, down_payment_minor=10_000, down_payment_date=agency.today)
    found = simulate(agency, placed.case_id, terms=terms)
    assert found.minimum_down_payment_minor == 10_000
    assert found.priced.rows[1].interest_minor == 900, "the creditor's usual rate"
    record = agency.agreement(agency.propose(placed.case_id, terms=terms, validity=0, broken=0))
    assert record.expire_date == agency.today + datetime.timedelta(days=9)
    assert (record.notice_days, record.missed_days, record.broken_days) == (1, 2, 7)
    assert record.annual_rate_e4 == 120_000


@pytest.mark.feature("S5-30")
def test_w09_an_expired_proposal_is_counted_again(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = dataclasses.replace(
        W06, method=plans.Method.SAC, period_days=30, first_cheque_number=77, annual_rate_e4=120_000
    )
    agreement_id = agency.propose(
        placed.case_id, terms=terms, options={"note": "by phone", "settlement_type": "SWAP"}
    )
    with pytest.raises(agreements.ProposalNotExpired):
        recalculate(agency, agreement_id)
    agency.set_clock(agency.today + datetime.timedelta(days=6))
    again = agency.agreement(recalculate(agency, agreement_id))
    before = agency.agreement(agreement_id)
    assert again.expire_date == before.expire_date + datetime.timedelta(days=6)
    assert again.terms == before.terms
    assert (again.note, again.settlement_type) == ("by phone", "SWAP")
    assert again.debt_minor - before.debt_minor == 200, "6 days of 1 % a month"
    agency.set_clock(MONTH)
    with pytest.raises(errors.InvalidRequest) as caught:
        recalculate(agency, agreement_id, terms=dataclasses.replace(terms, first_due_date=TUESDAY))
    assert caught.value.fields[0].field == "terms.first_due_date"


def test_terms_are_kept_whole(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    dates_given = (MONTH, datetime.date(2027, 1, 5), datetime.date(2027, 3, 1))
    for terms in (
        W06,
        dataclasses.replace(THREE, due_dates=dates_given, business_days=True),
        dataclasses.replace(THREE, first_amount_minor=50_000, last_amount_minor=20_000),
        dataclasses.replace(THREE, period_months=2, penalty_rate_e4=1, discount_rate_e4=2),
    ):
        assert agency.agreement(agency.propose(placed.case_id, terms=terms)).terms == terms
    total = agency.agreement(agency.propose(placed.case_id, terms=THREE)).total_minor
    rows = tuple(
        plans.EditedRow(due_date=date, amount_minor=amount)
        for date, amount in zip(dates_given, (1_000, 2_000, total - 3_000), strict=True)
    )
    edited = dataclasses.replace(THREE, rows=rows)
    agreement_id = agency.propose(placed.case_id, terms=edited)
    assert agency.agreement(agreement_id).terms == edited
    assert [(one.due_date, one.amount_minor) for one in agency.instalments(agreement_id)] == [
        (row.due_date, row.amount_minor) for row in rows
    ]


def test_a_proposal_of_the_release_before_is_read_from_its_columns(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = dataclasses.replace(
        THREE,
        annual_rate_e4=120_000,
        discount_minor=100,
        down_payment_minor=5,
        down_payment_date=agency.today,
    )
    agreement_id = agency.propose(placed.case_id, terms=terms)
    with psycopg.connect(agency.owner_url) as connection:
        connection.execute("UPDATE agreements SET terms = NULL WHERE id = %s", [agreement_id])
    assert agency.agreement(agreement_id).terms == terms


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"note": "x" * 501}, "note"),
        ({"note": "\0"}, "note"),
        ({"settlement_type": "lower"}, "settlement_type"),
        ({"settlement_type": "X" * 41}, "settlement_type"),
    ],
)
def test_what_is_written_beside_a_proposal_is_checked(agency, options, field):
    (placed,) = agency.place((TUESDAY, 100_000))
    with pytest.raises(errors.InvalidRequest) as caught:
        agency.propose(placed.case_id, terms=THREE, options=options)
    assert [one.field for one in caught.value.fields] == [field]


# -- over gRPC -----------------------------------------------------------------------------------------------------


def brl(minor):
    return money_pb2.Money(currency_code="BRL", units=minor // 100, nanos=minor % 100 * 10_000_000)


def day(value):
    return dates.to_proto(value)


def asked(api, *placed, **fields):
    terms = fields.pop("terms", agreement_pb2.PlanTerms(instalments=3, first_due_date=day(MONTH)))
    return agreement_service_pb2.SimulateAgreementRequest(
        parent=api.name, case_ids=sorted({str(one.case_id) for one in placed}), terms=terms, **fields
    )


def create(api, request, **fields):
    return api(
        "CreateDraft",
        agreement_service_pb2.CreateDraftRequest(
            parent=api.name, draft=agreement_service_pb2.Draft(request=request), **fields
        ),
    )


def get(api, draft):
    return api("GetDraft", agreement_service_pb2.GetDraftRequest(name=draft.name))


def update(api, draft, request, etag=None):
    changed = agreement_service_pb2.Draft(
        name=draft.name, request=request, etag=draft.etag if etag is None else etag
    )
    return api("UpdateDraft", agreement_service_pb2.UpdateDraftRequest(draft=changed))


def decide(api, approval):
    request = approval_service_pb2.DecideApprovalRequest(
        name=approval, decision=approval_service_pb2.DecideApprovalRequest.DECISION_APPROVE, reason="agreed"
    )
    return api("DecideApproval", request, subject="users/boss", roles=["manager"])


def propose(api, draft, **fields):
    return agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name, draft=draft.name, draft_etag=draft.etag, **fields
    )


@pytest.mark.feature("S1-33", "S3-14", "S5-14")
def test_a_simulation_tells_everything(api, agency):
    (placed,) = agency.place((TUESDAY, 30_000), **FREE)
    terms = agreement_pb2.PlanTerms(
        instalments=3,
        first_due_date=day(MONTH),
        method=agreement_pb2.PlanTerms.METHOD_EQUAL_PRINCIPAL,
        accretion_rate_e4=50_000,
        penalty_rate_e4=50_000,
        discount=brl(1_000),
        charges=brl(500),
        fees=brl(1_000),
        first_cheque_number=41,
    )
    found = api("SimulateAgreement", asked(api, placed, terms=terms))
    assert [row.amount for row in found.rows] == [brl(13_167), brl(10_167), brl(10_166)]
    assert [row.once for row in found.rows] == [brl(3_000), brl(0), brl(0)]
    assert found.added == agreement_pb2.AddedCharges(
        accretion=brl(1_500), penalty=brl(1_500), charges=brl(500), fees=brl(1_000), edited=brl(0)
    )
    assert (found.debt, found.discount, found.total) == (brl(30_000), brl(1_000), brl(33_500))
    assert found.forgiven_e4 == 0
    assert found.date == day(agency.today)
    (title,) = found.titles
    assert (title.principal, title.charges, title.added, title.forgiven) == (
        brl(30_000),
        brl(0),
        brl(4_500),
        brl(1_000),
    )
    terms.rows.add(due_date=day(MONTH), amount=brl(33_499))
    terms.instalments = 1
    assert api.refused("SimulateAgreement", asked(api, placed, terms=terms)) == (
        "INVALID_ARGUMENT",
        "ROWS_DO_NOT_ADD_UP",
    )


@pytest.mark.feature("S5-12")
def test_cheques_are_numbered_from_the_first(api, agency):
    (placed,) = agency.place((TUESDAY, 30_000))
    terms = agreement_pb2.PlanTerms(
        instalments=3,
        first_due_date=day(MONTH),
        down_payment=brl(1_000),
        down_payment_date=day(agency.today),
        first_cheque_number=100,
    )
    found = api("SimulateAgreement", asked(api, placed, terms=terms))
    assert [row.cheque_number for row in found.rows] == [0, 100, 101, 102]
    proposed = api(
        "ProposeAgreement",
        agreement_service_pb2.ProposeAgreementRequest(
            parent=api.name, case_ids=[str(placed.case_id)], terms=terms
        ),
    )
    assert [one.cheque_number for one in proposed.instalments] == [0, 100, 101, 102]
    assert proposed.terms.first_cheque_number == 100


@pytest.mark.feature("S5-11", "S5-14")
def test_note_and_settlement_type_stay_with_the_agreement(api, agency):
    (placed,) = agency.place((TUESDAY, 30_000))
    request = agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        terms=agreement_pb2.PlanTerms(instalments=1, first_due_date=day(MONTH)),
        note="agreed by phone",
    )
    proposed = api("ProposeAgreement", request)
    assert (proposed.note, proposed.settlement_type) == ("agreed by phone", "RENEGOTIATION")
    request.settlement_type = "EXCHANGE"
    assert api("ProposeAgreement", request).settlement_type == "EXCHANGE"
    listed = api(
        "ListAgreements",
        agreement_service_pb2.ListAgreementsRequest(
            parent=api.name, expire_to=day(agency.today + datetime.timedelta(days=4))
        ),
    )
    assert not listed.agreements
    listed = api(
        "ListAgreements",
        agreement_service_pb2.ListAgreementsRequest(
            parent=api.name, expire_from=day(agency.today + datetime.timedelta(days=5))
        ),
    )
    assert len(listed.agreements) == 2


@pytest.mark.feature("S1-34", "S5-13")
def test_a_draft_is_saved_at_any_step_and_goes_on(api, agency):
    placed = agency.place((TUESDAY, 100_000), (TUESDAY, 50_000))
    empty = create(api, agreement_service_pb2.SimulateAgreementRequest())
    assert empty.state == agreement_pb2.Agreement.STATE_DRAFT
    assert empty.problem_reason == "INVALID_REQUEST"
    assert "case_ids" in empty.problem or "first_due_date" in empty.problem
    begun = asked(api, placed[0], terms=agreement_pb2.PlanTerms(instalments=3))
    begun.title_ids.append(str(placed[0].title_id))
    draft = update(api, empty, begun)
    assert draft.request == begun, "byte by byte"
    assert draft.problem == "terms.first_due_date: expected a date"
    begun.terms.first_due_date.CopyFrom(day(MONTH))
    draft = update(api, draft, begun)
    assert draft.problem == ""
    assert draft.simulation.debt == brl(103_667), "to the draft's last day"
    assert draft.simulation.date == draft.expire_date
    assert get(api, draft) == draft
    listed = api(
        "ListDrafts",
        agreement_service_pb2.ListDraftsRequest(parent=api.name, case_id=str(placed[0].case_id)),
    ).drafts
    assert [one.name for one in listed] == [draft.name]
    assert listed[0].request == begun
    other = str(ids.new())
    assert not api(
        "ListDrafts", agreement_service_pb2.ListDraftsRequest(parent=api.name, case_id=other)
    ).drafts
    proposed = api("ProposeAgreement", propose(api, draft))
    assert proposed.state == agreement_pb2.Agreement.STATE_PROPOSED
    assert (proposed.debt, proposed.expire_date) == (brl(103_667), draft.expire_date)
    assert len(proposed.titles) == 1
    assert api.refused("GetDraft", agreement_service_pb2.GetDraftRequest(name=draft.name)) == (
        "NOT_FOUND",
        "RESOURCE_NOT_FOUND",
    )


@pytest.mark.feature("S5-30")
def test_w09_a_draft_is_usable_through_its_last_day(api, agency):
    agency.set_clock(datetime.date(2026, 11, 21))
    (placed,) = agency.place((datetime.date(2026, 10, 22), 100_000))
    draft = create(api, asked(api, placed))
    assert draft.expire_date == day(datetime.date(2026, 11, 26))
    assert draft.simulation.debt == brl(103_167)
    agency.set_clock(datetime.date(2026, 11, 27))
    expired = get(api, draft)
    assert expired.state == agreement_pb2.Agreement.STATE_EXPIRED
    assert expired.simulation.date == day(datetime.date(2026, 12, 2))
    assert api.refused("ProposeAgreement", propose(api, draft)) == ("FAILED_PRECONDITION", "DRAFT_EXPIRED")
    again = update(api, expired, expired.request)
    assert again.state == agreement_pb2.Agreement.STATE_DRAFT
    assert again.expire_date == day(datetime.date(2026, 12, 2))
    agency.set_clock(datetime.date(2026, 12, 2))
    proposed = api("ProposeAgreement", propose(api, again))
    assert proposed.debt == again.simulation.debt == brl(103_367)


def test_a_draft_that_changed_is_not_overwritten_nor_proposed(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    draft = create(api, asked(api, placed), request_id="once")
    assert create(api, asked(api, placed), request_id="once") == draft
    update(api, draft, asked(api, placed))
    mismatch = ("ABORTED", "VERSION_MISMATCH")
    stale = agreement_service_pb2.Draft(name=draft.name, request=draft.request, etag=draft.etag)
    assert api.refused("UpdateDraft", agreement_service_pb2.UpdateDraftRequest(draft=stale)) == mismatch
    assert api.refused("ProposeAgreement", propose(api, draft)) == mismatch
    deleting = agreement_service_pb2.DeleteDraftRequest(name=draft.name, etag=draft.etag)
    assert api.refused("DeleteDraft", deleting) == mismatch
    api("DeleteDraft", agreement_service_pb2.DeleteDraftRequest(name=draft.name))
    assert api.refused("DeleteDraft", agreement_service_pb2.DeleteDraftRequest(name=draft.name)) == (
        "NOT_FOUND",
        "RESOURCE_NOT_FOUND",
    )


def test_a_draft_takes_no_terms_beside_it(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    draft = create(api, asked(api, placed))
    beside = propose(api, draft, case_ids=[str(placed.case_id)])
    assert api.refused("ProposeAgreement", beside) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    blind = agreement_service_pb2.ProposeAgreementRequest(parent=api.name, draft=draft.name)
    assert api.refused("ProposeAgreement", blind) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    unknown = asked(api)
    unknown.case_ids.append(str(ids.new()))
    refused = agreement_service_pb2.CreateDraftRequest(
        parent=api.name, draft=agreement_service_pb2.Draft(request=unknown)
    )
    assert api.refused("CreateDraft", refused) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


def test_a_draft_whose_proposal_waits_for_approval_says_so(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000), **FREE)
    terms = agreement_pb2.PlanTerms(instalments=3, first_due_date=day(MONTH), discount_rate_e4=300_000)
    draft = create(api, asked(api, placed, terms=terms))
    assert [one.rule for one in draft.simulation.needed_approvals] == ["DISCOUNT_PRINCIPAL"]
    request = propose(api, draft, request_id="beyond")
    assert api.refused("ProposeAgreement", request) == ("FAILED_PRECONDITION", "APPROVAL_REQUESTED")
    waiting = get(api, draft)
    assert waiting.state == agreement_pb2.Agreement.STATE_AWAITING_APPROVAL
    assert waiting.approval.startswith(f"{api.name}/approvals/")
    assert api("ListDrafts", agreement_service_pb2.ListDraftsRequest(parent=api.name)).drafts[0].approval
    approved = decide(api, waiting.approval)
    assert approved.state == approvals_pb2.ApprovalRequest.STATE_APPROVED
    proposed = api("GetAgreement", agreement_service_pb2.GetAgreementRequest(name=approved.result))
    assert proposed.state == agreement_pb2.Agreement.STATE_PROPOSED
    assert (proposed.debt, proposed.total) == (brl(100_000), brl(70_000))
    assert api("ProposeAgreement", request) == proposed, "the requester is told what became of it"
    assert api.refused("GetDraft", agreement_service_pb2.GetDraftRequest(name=draft.name))[0] == "NOT_FOUND"


def test_what_is_approved_is_what_was_asked(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000), **FREE)
    terms = agreement_pb2.PlanTerms(instalments=3, first_due_date=day(MONTH), discount_rate_e4=300_000)
    draft = create(api, asked(api, placed, terms=terms))
    api.refused("ProposeAgreement", propose(api, draft, request_id="beyond"))
    approval = get(api, draft).approval
    terms.discount_rate_e4 = 900_000
    update(api, draft, asked(api, placed, terms=terms))
    with pytest.raises(grpc.RpcError) as caught:
        decide(api, approval)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert agency.rows("SELECT id FROM agreements") == []
    assert get(api, draft).state == agreement_pb2.Agreement.STATE_AWAITING_APPROVAL


def test_two_proposals_of_one_draft_at_once(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    draft = create(api, asked(api, placed))

    def call():
        try:
            return api("ProposeAgreement", propose(api, draft)).name
        except grpc.RpcError as error:
            return error.code()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = [future.result(timeout=60) for future in [pool.submit(call) for _ in range(3)]]
    assert sorted(str(one) for one in found if isinstance(one, grpc.StatusCode)) == [
        "StatusCode.NOT_FOUND",
        "StatusCode.NOT_FOUND",
    ]
    assert len(agency.rows("SELECT id FROM agreements")) == 1


@pytest.mark.feature("S5-30")
def test_an_expired_proposal_is_counted_again_over_grpc(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    proposed = api(
        "ProposeAgreement",
        agreement_service_pb2.ProposeAgreementRequest(
            parent=api.name,
            case_ids=[str(placed.case_id)],
            terms=agreement_pb2.PlanTerms(instalments=1, first_due_date=day(MONTH)),
        ),
    )
    request = agreement_service_pb2.RecalculateProposalRequest(name=proposed.name, etag=proposed.etag)
    assert api.refused("RecalculateProposal", request) == ("FAILED_PRECONDITION", "PROPOSAL_NOT_EXPIRED")
    agency.set_clock(datetime.date(2026, 11, 30))
    again = api("RecalculateProposal", request)
    assert again.name != proposed.name
    assert again.expire_date == day(datetime.date(2026, 12, 5))
