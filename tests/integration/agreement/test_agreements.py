"""Agreements from proposal to their end."""

import dataclasses
import datetime

import pytest

from agreement_service.domain import approvals, boleto, limits, pix, plans, proposals
from agreement_service.usecases import agreements, life
from servicekit import errors, ids

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
MONTH = datetime.date(2026, 12, 21)
AGENT = limits.Authority(subject="users/agent", roles=frozenset({"agent"}))
THREE = plans.Terms(instalments=3, first_due_date=MONTH)


@pytest.mark.feature("S1-19", "S1-31")
def test_w09_a_proposal_counts_interest_to_its_last_day(agency):
    agency.set_clock(datetime.date(2026, 11, 21))
    (placed,) = agency.place((datetime.date(2026, 10, 22), 100_000))
    proposed = agency.agreement(agency.propose(placed.case_id, terms=THREE, validity=5))
    assert proposed.expire_date == datetime.date(2026, 11, 26)
    assert proposed.debt_minor == 103_167


def test_w09_usable_through_its_last_day_not_after(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    first, second = (agency.propose(placed.case_id, terms=THREE, validity=3) for _ in range(2))
    agency.set_clock(datetime.date(2026, 11, 23))
    agency.accept(first)
    agency.cancel(first)
    agency.set_clock(datetime.date(2026, 11, 24))
    with pytest.raises(life.ProposalExpired):
        agency.accept(second)
    agency.run_day(datetime.date(2026, 11, 24))
    assert agency.agreement(second).state == "EXPIRED"
    with pytest.raises(life.ProposalExpired):
        agency.accept(second)


def test_accepted_paid_and_fulfilled(agency):
    first, second = agency.place((TUESDAY, 100_000), (datetime.date(2026, 11, 9), 50_000))
    terms = plans.Terms(instalments=3, first_due_date=MONTH, annual_rate_e4=120_000)
    agreement_id = agency.agree(first.case_id, terms=terms, validity=5)
    record = agency.agreement(agreement_id)
    assert record.state == "ACTIVE"
    assert record.accept_date == agency.today
    assert {agency.title(one).state for one in (first, second)} == {"IN_AGREEMENT"}
    found = agency.check_money().sums[0]
    assert found.open == record.debt_minor, "charges are posted as agreed"
    for row in agency.instalments(agreement_id):
        agency.run_day(row.due_date)
        agency.pay(row.amount_minor, contract_reference="CT-1", value_date=row.due_date)
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert {row.state for row in agency.instalments(agreement_id)} == {"PAID"}
    assert {agency.title(one).state for one in (first, second)} == {"PAID"}
    found = agency.check_money().sums[0]
    assert (found.open, found.received) == (0, record.total_minor)


@pytest.mark.feature("S1-32")
def test_a_down_payment_activates(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(
        instalments=2, first_due_date=MONTH, down_payment_minor=30_000, down_payment_date=agency.today
    )
    agreement_id = agency.agree(placed.case_id, terms=terms)
    assert agency.agreement(agreement_id).state == "AWAITING_DOWN_PAYMENT"
    agency.pay(20_000, title_reference=placed.reference)
    assert agency.agreement(agreement_id).state == "AWAITING_DOWN_PAYMENT"
    assert agency.instalments(agreement_id)[0].state == "PARTIAL"
    agency.pay(10_000, title_reference=placed.reference)
    assert agency.agreement(agreement_id).state == "ACTIVE"


def test_a_down_payment_that_never_comes_expires_the_agreement(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(
        instalments=2, first_due_date=MONTH, down_payment_minor=30_000, down_payment_date=agency.today
    )
    agreement_id = agency.agree(placed.case_id, terms=terms, broken=10)
    agency.run_day(agency.today + datetime.timedelta(days=10))
    assert agency.agreement(agreement_id).state == "EXPIRED"
    assert agency.title(placed).state == "OPEN"


def test_the_discount_forgives_interest_first_then_penalty(agency):
    first, second = agency.place((TUESDAY, 100_000), (datetime.date(2026, 11, 9), 50_000))
    terms = plans.Terms(instalments=2, first_due_date=MONTH, discount_minor=2_500)
    agency.agree(first.case_id, terms=terms, validity=5)
    one, two = agency.title(first), agency.title(second)
    assert (one.charged_interest_minor, two.charged_interest_minor) == (1_667, 267)
    assert (one.open_interest_minor, two.open_interest_minor) == (0, 0)
    assert (one.open_penalty_minor, two.open_penalty_minor) == (2_000 - 566, 1_000)
    assert agency.check_money().sums[0].waived == 2_500


def test_a_discount_above_the_charges_needs_authority(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(instalments=2, first_due_date=MONTH, discount_minor=3_668)
    with pytest.raises(approvals.ApprovalNeeded) as caught:
        agency.propose(placed.case_id, terms=terms, authority=AGENT)
    assert caught.value.metadata == {
        "rule": "DISCOUNT_PRINCIPAL",
        "limit": "0 % to 0 %",
        "asked": "0.001 %",
    }
    agency.propose(placed.case_id, terms=dataclasses.replace(terms, discount_minor=3_667), authority=AGENT)


def test_broken_titles_come_back_less_what_was_paid(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(instalments=3, first_due_date=MONTH, annual_rate_e4=120_000, discount_minor=1_000)
    agreement_id = agency.agree(placed.case_id, terms=terms, validity=5, broken=10)
    record = agency.agreement(agreement_id)
    first, second, _ = agency.instalments(agreement_id)
    agency.run_day(first.due_date)
    agency.pay(first.amount_minor, title_reference=placed.reference, value_date=first.due_date)
    agency.run_day(second.due_date)
    assert agency.instalments(agreement_id)[1].state == "DUE"
    agency.run_day(second.due_date + datetime.timedelta(days=1))
    assert agency.instalments(agreement_id)[1].state == "MISSED"
    agency.run_day(second.due_date + datetime.timedelta(days=9))
    assert agency.agreement(agreement_id).state == "ACTIVE"
    broken = second.due_date + datetime.timedelta(days=10)
    agency.run_day(broken)
    ended = agency.agreement(agreement_id)
    assert (ended.state, ended.end_date) == ("BROKEN", broken)
    assert [row.state for row in agency.instalments(agreement_id)] == ["PAID", "DEFAULTED", "CANCELLED"]
    title = agency.title(placed)
    assert title.state == "PARTIALLY_PAID"
    assert title.waived_minor == 0, "the discount stands only when the agreement is fulfilled"
    assert title.accrued_through == broken
    found = agency.check_money().sums[0]
    assert found.received == first.amount_minor
    assert found.open == record.debt_minor + first.interest_minor + second.interest_minor - first.amount_minor
    agency.run_day(broken)
    assert agency.agreement(agreement_id).version == ended.version, "a day run twice changes nothing"
    later = agency.summary(broken + datetime.timedelta(days=30)).sums[0]
    assert later.open - found.open == (title.open_principal_minor + 50) // 100


def test_cancelled_before_its_last_day_charges_nothing_twice(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, validity=5)
    agency.cancel(agreement_id)
    assert agency.agreement(agreement_id).state == "CANCELLED"
    title = agency.title(placed)
    assert (title.state, title.accrued_through) == ("OPEN", datetime.date(2026, 11, 25))
    assert agency.check_money().sums[0].open == 103_667
    with pytest.raises(life.AgreementOver):
        agency.cancel(agreement_id)


def test_a_proposal_over_a_title_that_changed_is_refused(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.propose(placed.case_id, terms=THREE)
    agency.pay(100, title_reference=placed.reference)
    with pytest.raises(life.TitlesChangedSinceProposal):
        agency.accept(agreement_id)


def test_a_case_is_in_one_agreement_at_a_time(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    first, second = (agency.propose(placed.case_id, terms=THREE) for _ in range(2))
    agency.accept(first)
    with pytest.raises(agreements.TitlesInAgreement):
        agency.accept(second)
    with pytest.raises(agreements.TitlesInAgreement):
        agency.propose(placed.case_id, terms=THREE)
    with pytest.raises(life.AgreementNotProposed):
        agency.accept(first)


def test_cases_of_two_debtors_do_not_belong_together(agency):
    (one,), (two,) = agency.place((TUESDAY, 100)), agency.place((TUESDAY, 100))
    with pytest.raises(agreements.CasesDoNotBelongTogether):
        agency.propose(one.case_id, two.case_id, terms=THREE)


def test_one_agreement_over_two_cases_of_a_debtor(agency):
    debtor_id = ids.new()
    (one,) = agency.place((TUESDAY, 100_000), debtor_id=debtor_id)
    (two,) = agency.place((datetime.date(2026, 11, 9), 50_000), debtor_id=debtor_id)
    agreement_id = agency.agree(one.case_id, two.case_id, terms=THREE)
    payment = agency.pay(agency.agreement(agreement_id).total_minor, title_reference=two.reference)
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert {agency.title(placed).state for placed in (one, two)} == {"PAID"}
    agency.reverse(payment)
    assert agency.agreement(agreement_id).state == "ACTIVE"
    assert {agency.title(placed).state for placed in (one, two)} == {"IN_AGREEMENT"}


def test_a_stale_etag_is_refused(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.propose(placed.case_id, terms=THREE)
    with pytest.raises(errors.VersionMismatch):
        agency.accept(agreement_id, version=7)
    agency.accept(agreement_id, version=1)


def test_nothing_to_agree_on(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(103_500, title_reference=placed.reference)
    with pytest.raises(proposals.NothingToAgreeOn):
        agency.propose(placed.case_id, terms=THREE)


@pytest.mark.feature("S2-29")
def test_instruments_are_registered_and_paid(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    assert {row.state for row in agency.instruments(agreement_id)} == {"DRAFT"}
    assert agency.summary().acts_due == 6
    agency.act()
    rows = agency.instruments(agreement_id)
    assert {row.state for row in rows} == {"REGISTERED"}
    assert agency.summary().acts_due == 0
    instalment = agency.instalments(agreement_id)[0]
    slip, code = rows[0], rows[1]
    assert (slip.kind, code.kind) == ("BOLETO", "PIX")
    read = boleto.decode(boleto.barcode_of_line(boleto.typeable_line(slip.barcode)), today=agency.today)
    assert (read.due_date, read.amount_minor) == (instalment.due_date, instalment.amount_minor)
    fields = pix.parse(code.br_code)
    assert (fields["62.05"], pix.amount_of(fields)) == (code.txid, instalment.amount_minor)
    agency.pay(instalment.amount_minor, txid=code.txid)
    agency.act()
    states = {(row.kind, row.number): row.state for row in agency.instruments(agreement_id)}
    assert states["PIX", 1] == "PAID"
    assert states["BOLETO", 1] == "CANCELLED", (
        "the other instrument of a paid instalment cannot be paid any more"
    )
    second = agency.instalments(agreement_id)[1]
    slip = next(row for row in rows if row.number == 2 and row.kind == "BOLETO")
    agency.pay(second.amount_minor, our_number=slip.our_number, means="BOLETO")
    assert agency.instalments(agreement_id)[1].state == "PAID"
    agency.cancel(agreement_id)
    agency.act()
    states = {(row.kind, row.number): row.state for row in agency.instruments(agreement_id)}
    assert {states["PIX", 3], states["BOLETO", 3]} == {"CANCELLED"}


def test_a_reversed_instalment_gets_new_instruments(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    agency.act()
    code = agency.instruments(agreement_id)[1]
    payment = agency.pay(agency.instalments(agreement_id)[0].amount_minor, txid=code.txid)
    agency.reverse(payment)
    agency.act()
    rows = [row for row in agency.instruments(agreement_id) if row.number == 1]
    assert [(row.kind, row.generation, row.state) for row in rows] == [
        ("BOLETO", 1, "CANCELLED"),
        ("BOLETO", 2, "REGISTERED"),
        ("PIX", 1, "PAID"),
        ("PIX", 2, "REGISTERED"),
    ]


def test_an_act_that_was_begun_and_never_finished_is_finished(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    agency.rows("UPDATE instruments SET state = 'REGISTERING', act_worker = %s RETURNING 1", ids.new())
    agency.act()
    assert {row.state for row in agency.instruments(agreement_id)} == {"REGISTERED"}


def test_euros_have_no_slips(agency):
    (placed,) = agency.place((TUESDAY, 100_000), currency="EUR")
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    assert {one.kind for one in agency.instruments(agreement_id)} == {"MULTIBANCO"}


def test_the_notice_comes_three_days_before(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    agency.run_day(MONTH - datetime.timedelta(days=4))
    assert agency.instalments(agreement_id)[0].state == "SCHEDULED"
    agency.run_day(MONTH - datetime.timedelta(days=3))
    assert agency.instalments(agreement_id)[0].state == "NOTIFIED"
