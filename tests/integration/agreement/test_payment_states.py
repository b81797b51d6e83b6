"""Payments from report to refund: every state, each way back, and the ledger beside it."""

import datetime

import pytest

from agreement_service.domain import accounts, approvals, limits, plans
from agreement_service.domain import payments as rules
from agreement_service.domain import writeoffs as writeoff_rules
from agreement_service.usecases import credits, ledger, payments, waterfalls, writeoffs
from servicekit import errors, ids

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
MONTH = datetime.date(2026, 12, 21)
CLERK = limits.Authority(subject="users/clerk", roles=frozenset())


class Desk:
    """What a collector does with payments."""

    def __init__(self, agency):
        self.agency = agency

    def run(self, function, **arguments):
        with self.agency.tx() as tx:
            moment = self.agency.moment(tx)
            return function(tx=tx, agency=self.agency.agency, moment=moment, **arguments)

    def act(self, function, payment_id, **arguments):
        return self.run(
            function, payment_id=payment_id, **{"version": None, "bank": self.agency.bank, **arguments}
        )

    def annul(self, payment_id):
        self.act(payments.annul, payment_id, reason="typed twice")

    def unmatch(self, payment_id):
        self.act(payments.unmatch, payment_id)

    def match(self, payment_id, **target):
        self.act(payments.match_by_hand, payment_id, target=payments.Target(**target))

    def confirm(self, payment_id, **said):
        said = {"account": "", "means": "", "bank_reference": "", "value_date": None, "amount": None, **said}
        self.act(payments.confirm, payment_id, **said)

    def refund(self, payment_id, minor, authority=limits.SYSTEM):
        self.run(
            credits.refund,
            payment_id=payment_id,
            amount_minor=minor,
            currency="BRL",
            reason="asked",
            by="users/1",
            version=None,
            authority=authority,
        )

    def credit(self, payment_id, case_id, minor=None, chosen=()):
        amount = None if minor is None else (minor, "BRL")
        return self.act(credits.apply_credit, payment_id, case_id=case_id, amount=amount, chosen=chosen)

    def record(self, minor, **fields):
        report = self.agency.report(minor, **fields)
        return self.run(payments.record, report=report, bank=self.agency.bank)

    def report(self, case_id, minor, **fields):
        said = {
            "account": "",
            "means": "PIX",
            "bank_reference": "",
            "value_date": self.agency.today,
            "currency": "BRL",
            "caller": "debtors/1",
            "proof": b"",
            "proof_type": "",
            **fields,
        }
        return self.run(payments.report_proof, case_id=case_id, amount_minor=minor, **said)

    def write_off(self, case_id, *title_ids, authority=limits.SYSTEM):
        return self.run(
            writeoffs.write_off,
            case_id=case_id,
            title_ids=list(title_ids),
            type_=writeoff_rules.WriteOffType.LOSS,
            reason="bankrupt",
            by="users/1",
            authority=authority,
            bank=self.agency.bank,
        )

    def undo(self, case_id, *title_ids):
        return self.run(
            writeoffs.undo,
            case_id=case_id,
            title_ids=list(title_ids),
            reason="too soon",
            bank=self.agency.bank,
        )

    def balances(self, **scope):
        with self.agency.tx() as tx:
            found = ledger.trial_balance(tx=tx, agency=self.agency.agency, **scope)
        return {one.account: one.balance_minor for one in found}


@pytest.fixture
def desk(agency):
    return Desk(agency)


def state_of(agency, payment_id):
    found = agency.payment(payment_id)
    return found.state.value, found.allocated_minor, found.overpaid_minor


BALANCE = (
    "open_principal_minor",
    "open_penalty_minor",
    "open_interest_minor",
    "charged_penalty_minor",
    "charged_interest_minor",
    "received_minor",
    "written_off_minor",
    "accrued_through",
    "state",
)


def balance_of(agency, placed):
    row = agency.title(placed)
    return [getattr(row, name) for name in BALANCE]


# -- reported, unconfirmed, confirmed ----------------------------------------------------------------------------------


def test_money_that_the_bank_has_is_not_of_tomorrow(agency, desk):
    tomorrow = agency.today + datetime.timedelta(days=1)
    with pytest.raises(errors.InvalidRequest, match="value_date"):
        desk.record(100, value_date=tomorrow)
    desk.record(100, value_date=agency.today)
    desk.record(100, value_date=tomorrow, unconfirmed=True)


def test_a_collectors_entry_waits_for_the_banks_file(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    report = agency.report(10_000, title_reference=placed.reference, unconfirmed=True)
    payment = desk.run(payments.record, report=report, bank=agency.bank)
    assert state_of(agency, payment) == ("NEW_UNCONFIRMED", 0, 0)
    assert agency.title(placed).received_minor == 0
    assert agency.check_money().sums[0].paid_in == 0
    # the bank's word counts: it was a cent more, a day earlier
    bank = agency.report(
        10_001,
        bank_reference=report.bank_reference,
        value_date=agency.today - datetime.timedelta(days=1),
        batch_id=ids.new(),
        row=2,
        caller="",
    )
    entered = agency.enter(bank)
    assert (entered.applied, entered.unchanged, entered.refused) == (0, 1, [])
    assert state_of(agency, payment) == ("ALLOCATED", 10_001, 0)
    assert agency.title(placed).received_minor == 10_001
    assert agency.check_money().sums[0].paid_in == 10_001
    assert agency.enter(bank).unchanged == 1


def test_a_confirmed_entry_that_finds_nothing_waits(agency, desk):
    report = agency.report(5_000, unconfirmed=True)
    payment = desk.run(payments.record, report=report, bank=agency.bank)
    desk.confirm(payment)
    assert state_of(agency, payment) == ("UNIDENTIFIED", 0, 0)
    assert agency.check_money().sums[0].unidentified == 5_000
    with pytest.raises(rules.PaymentNotUnconfirmed):
        desk.confirm(payment)


def test_a_debtors_proof_moves_no_money_until_it_is_confirmed(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    proof = b"%PDF-1.7 receipt"
    payment = desk.report(placed.case_id, 10_000, proof=proof, proof_type="application/pdf")
    assert state_of(agency, payment) == ("REPORTED", 0, 0)
    assert agency.check_money().sums[0].paid_in == 0
    with pytest.raises(rules.PaymentNotConfirmed):
        agency.reverse(payment)
    desk.confirm(payment, account="main", bank_reference="E2E-REAL", amount=(9_999, "BRL"))
    found = agency.payment(payment)
    assert (found.identity[1:], found.amount_minor) == (("main", "PIX", "E2E-REAL"), 9_999)
    assert agency.title(placed).received_minor == 9_999
    # the bank's file names the same credit afterwards
    again = agency.report(9_999, bank_reference="E2E-REAL", title_reference=placed.reference)
    assert agency.enter(again).unchanged == 1
    assert agency.title(placed).received_minor == 9_999


def test_a_proof_with_the_end_to_end_id_is_confirmed_by_the_bank_itself(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = desk.report(placed.case_id, 10_000, account="main", bank_reference="E2E-KNOWN")
    agency.enter(agency.report(10_000, bank_reference="E2E-KNOWN"))
    assert state_of(agency, payment) == ("ALLOCATED", 10_000, 0)
    with pytest.raises(rules.PaymentDiffers):
        desk.report(placed.case_id, 10_000, account="main", bank_reference="E2E-KNOWN")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"proof": b"x" * (rules.MAX_PROOF + 1), "proof_type": "image/png"}, "proof"),
        ({"proof": b"x", "proof_type": "text/html"}, "proof_type"),
        ({"means": "SHELLS"}, "means"),
    ],
)
def test_bad_proofs_are_refused(agency, desk, fields, field):
    (placed,) = agency.place((TUESDAY, 100_000))
    with pytest.raises(errors.InvalidRequest) as caught:
        desk.report(placed.case_id, 10_000, **fields)
    assert [one.field for one in caught.value.fields] == [field]
    assert agency.rows("SELECT 1 FROM payments") == []


# -- annulled, unmatched, reversed -------------------------------------------------------------------------------------


def test_an_annulled_payment_leaves_no_trace_in_balances(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    before = balance_of(agency, placed)
    report = agency.report(30_000, title_reference=placed.reference)
    payment = agency.enter(report).payments[report.identity]
    desk.annul(payment)
    assert balance_of(agency, placed) == before
    found = agency.check_money().sums[0]
    assert (found.paid_in, found.reversed, found.received) == (0, 0, 0)
    with pytest.raises(rules.PaymentAnnulled):
        desk.annul(payment)
    (refused,) = agency.enter(report).refused
    assert refused[1].reason == "PAYMENT_ANNULLED"
    desk.confirm(payment)
    assert state_of(agency, payment) == ("ALLOCATED", 30_000, 0)
    assert agency.check_money().sums[0].paid_in == 30_000


def test_unmatching_gives_the_money_back_to_the_queue(agency, desk):
    wrong, right = agency.place((TUESDAY, 100_000))[0], agency.place((TUESDAY, 80_000))[0]
    before = balance_of(agency, wrong)
    report = agency.report(30_000, title_reference=wrong.reference)
    payment = agency.enter(report).payments[report.identity]
    desk.unmatch(payment)
    assert balance_of(agency, wrong) == before
    assert state_of(agency, payment) == ("UNIDENTIFIED", 0, 0)
    assert agency.check_money().sums[0].unidentified == 30_000
    # its references were wrong: reported again it stays where it is
    agency.enter(report)
    assert state_of(agency, payment) == ("UNIDENTIFIED", 0, 0)
    with pytest.raises(rules.PaymentNotMatched):
        desk.unmatch(payment)
    desk.match(payment, case_id=right.case_id)
    assert agency.title(right).received_minor == 30_000


def test_unmatching_a_payment_from_before_an_agreement(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(50_000, title_reference=placed.reference)
    agency.agree(placed.case_id, terms=plans.Terms(instalments=2, first_due_date=MONTH))
    desk.unmatch(payment)
    assert agency.check_money().sums[0].unidentified == 50_000


@pytest.mark.parametrize("fulfilled", [False, True])
def test_a_reversal_behind_an_epoch_opens_the_instalment_of_an_agreement_that_goes_on(
    agency, desk, fulfilled
):
    """The epoch ended for another title's sake: the agreement is not over, its instalment is owed again."""
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=240_000)
    agreement_id = agency.agree(placed.case_id, terms=terms)
    first, second = agency.instalments(agreement_id)
    payment = agency.pay(first.amount_minor, title_reference=placed.reference)
    if fulfilled:
        agency.pay(second.amount_minor, title_reference=placed.reference)
        assert agency.agreement(agreement_id).state == "FULFILLED"
    (other,) = agency.place((TUESDAY, 7_000), case_id=placed.case_id, contract="CT-1")
    desk.write_off(other.case_id, other.title_id)
    agency.reverse(payment)
    agreement = agency.agreement(agreement_id)
    assert (agreement.state, agreement.paid_minor) == ("ACTIVE", second.amount_minor if fulfilled else 0)
    row = agency.instalments(agreement_id)[0]
    assert (row.state, row.open_minor) == ("SCHEDULED", first.amount_minor)
    assert agency.title(placed).state == "IN_AGREEMENT"
    agency.check_money()
    agency.pay(agreement.total_minor - agreement.paid_minor, title_reference=placed.reference)
    assert agency.agreement(agreement_id).state == "FULFILLED"


@pytest.mark.parametrize("count", [1, 3])
def test_later_payments_apply_anew_when_one_is_unmatched(agency, desk, count):
    (placed,) = agency.place((TUESDAY, 100_000))
    first = agency.pay(50_000, title_reference=placed.reference, value_date=datetime.date(2026, 11, 10))
    days = [datetime.date(2026, 11, 12 + place) for place in range(count)]
    for day in days:
        agency.pay(10_000, title_reference=placed.reference, value_date=day)
    desk.unmatch(first)
    (twin,) = agency.place((TUESDAY, 100_000))
    for day in days:
        agency.pay(10_000, title_reference=twin.reference, value_date=day)
    assert balance_of(agency, placed) == balance_of(agency, twin)


@pytest.mark.feature("S1-18")
def test_standard_4_4_a_pix_that_goes_back_reverses_its_settlement(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    before = balance_of(agency, placed)
    for kind in (rules.ReversalKind.PIX_RETURN, rules.ReversalKind.MED):
        payment = agency.pay(20_000, title_reference=placed.reference)
        agency.reverse(payment, kind=kind)
        assert agency.payment(payment).reverse_kind == kind
        assert balance_of(agency, placed) == before


def test_a_reversal_of_a_kind_that_the_means_cannot_have(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(20_000, title_reference=placed.reference)
    with pytest.raises(errors.InvalidRequest) as caught:
        agency.reverse(payment, kind=rules.ReversalKind.BOUNCED_CHEQUE)
    assert "PIX_RETURN or MED or OTHER" in caught.value.fields[0].description
    cheque = agency.pay(20_000, title_reference=placed.reference, means="CHEQUE")
    agency.reverse(cheque, kind=rules.ReversalKind.BOUNCED_CHEQUE)


# -- chosen titles -----------------------------------------------------------------------------------------------------


def test_titles_chosen_by_hand_are_paid_first(agency, desk):
    old, middle, new = agency.place((TUESDAY, 10_000), (MONTH, 20_000), (MONTH, 30_000))
    payment = desk.record(
        25_000, case_id=new.case_id, chosen=((new.title_id, 5_000), (middle.title_id, 4_000))
    )
    assert [agency.title(one).received_minor for one in (new, middle)] == [
        5_000,
        4_000 + 25_000 - 9_000 - 10_350,
    ]
    assert agency.title(old).state == "PAID"
    assert agency.payment(payment).allocated_minor == 25_000
    # an earlier payment of the oldest frees what this one had put there; the chosen keep theirs
    agency.pay(10_350, title_reference=old.reference, value_date=agency.today)
    earlier = agency.pay(1_000, title_reference=old.reference, value_date=TUESDAY)
    agency.reverse(earlier)
    assert agency.title(new).received_minor >= 5_000


def test_chosen_titles_that_cannot_be(agency, desk):
    (placed,) = agency.place((TUESDAY, 10_000))
    (other,) = agency.place((TUESDAY, 10_000))
    for chosen, wrong in (
        (((placed.title_id, 0),), errors.InvalidRequest),
        (((placed.title_id, 101),), errors.InvalidRequest),
        (((placed.title_id, 1), (placed.title_id, 2)), errors.InvalidRequest),
        (((other.title_id, 1),), rules.TitleNotOfCase),
    ):
        with pytest.raises(wrong):
            desk.record(100, case_id=placed.case_id, chosen=chosen)
    with pytest.raises(errors.InvalidRequest):
        desk.record(100, chosen=((placed.title_id, 1),))


def test_matched_to_a_title_an_instalment_or_references(agency, desk):
    old, new = agency.place((TUESDAY, 10_000), (MONTH, 20_000))
    desk.match(agency.pay(1_000), case_id=new.case_id, title_id=new.title_id)
    desk.match(agency.pay(1_100), title_reference=new.reference)
    desk.match(agency.pay(1_200), case_id=new.case_id, chosen=((new.title_id, 1_200),))
    assert (agency.title(new).received_minor, agency.title(old).received_minor) == (3_300, 0)
    agreement_id = agency.agree(new.case_id, terms=plans.Terms(instalments=2, first_due_date=MONTH))
    row = agency.instalments(agreement_id)[0]
    desk.match(agency.pay(500), instalment_id=row.instalment_id)
    assert agency.agreement(agreement_id).paid_minor == 500
    payment = agency.pay(700)
    with pytest.raises(rules.PaymentTargetUnclear):
        desk.match(payment, title_reference="NOBODY")
    with pytest.raises(errors.ResourceNotFound):
        desk.match(payment, instalment_id=ids.new())
    with pytest.raises(rules.TitleNotOfCase):
        desk.match(payment, case_id=new.case_id, title_id=ids.new())
    for target in ({}, {"title_id": new.title_id}, {"case_id": new.case_id, "title_reference": "X"}):
        with pytest.raises(errors.InvalidRequest):
            desk.match(payment, **target)


# -- refunds and credits -----------------------------------------------------------------------------------------------


def test_overpaid_money_is_refunded_in_parts_and_never_twice(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(110_000, title_reference=placed.reference)
    desk.refund(payment, 2_500)
    desk.refund(payment, 3_000)
    assert state_of(agency, payment) == ("ALLOCATED", 103_500, 1_000)
    with pytest.raises(rules.MoreThanOverpaid) as caught:
        desk.refund(payment, 1_001)
    assert caught.value.metadata["overpaid_minor"] == "1000"
    for wrong in (0, -1):
        with pytest.raises(errors.InvalidRequest):
            desk.refund(payment, wrong)
    found = agency.check_money().sums[0]
    assert (found.paid_in, found.refunded, found.overpaid) == (110_000, 5_500, 1_000)
    for way in (desk.annul, desk.unmatch):
        with pytest.raises(rules.PaymentSpent):
            way(payment)
    # taken back by the bank after all: only what was not given back already
    agency.reverse(payment)
    found = agency.check_money().sums[0]
    assert (found.reversed, found.refunded, found.received, found.overpaid) == (104_500, 5_500, 0, 0)


def test_all_given_back_is_refunded(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(103_500, title_reference=placed.reference)
    payment = agency.pay(700, title_reference=placed.reference)
    assert state_of(agency, payment) == ("OVERPAID", 0, 700)
    desk.refund(payment, 700)
    assert state_of(agency, payment) == ("REFUNDED", 0, 0)
    assert agency.check_money().sums[0].refunded == 700


def test_refunded_money_is_not_there_when_payments_apply_anew(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    first = agency.pay(100_000, title_reference=placed.reference, value_date=datetime.date(2026, 11, 19))
    second = agency.pay(10_000, title_reference=placed.reference)
    desk.refund(second, 4_000)
    agency.reverse(first)
    assert state_of(agency, second) == ("ALLOCATED", 6_000, 0)
    agency.check_money()


def test_a_refund_beyond_the_limit_needs_approval(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(110_000, title_reference=placed.reference)
    with pytest.raises(approvals.ApprovalNeeded) as caught:
        desk.refund(payment, 100, authority=CLERK)
    assert caught.value.rule == "REFUND"
    assert agency.payment(payment).refunded_minor == 0


def test_unidentified_money_is_not_refunded(agency, desk):
    payment = agency.pay(700)
    with pytest.raises(rules.PaymentNotMatched):
        desk.refund(payment, 700)


@pytest.mark.feature("S5-08")
def test_overpaid_money_is_used_as_a_credit(agency, desk):
    debtor = ids.new()
    (placed,) = agency.place((TUESDAY, 100_000), debtor_id=debtor)
    payment = agency.pay(110_000, title_reference=placed.reference)
    (later, other) = agency.place((MONTH, 4_000), (MONTH, 50_000), debtor_id=debtor)
    (stranger,) = agency.place((MONTH, 4_000))
    with agency.tx() as tx:
        (held,) = credits.available(tx=tx, agency=agency.agency, case_id=later.case_id)
    assert (held.payment_id, held.overpaid_minor) == (payment, 6_500)
    with pytest.raises(rules.DebtorDiffers):
        desk.credit(payment, stranger.case_id)
    with pytest.raises(rules.MoreThanOverpaid):
        desk.credit(payment, later.case_id, 6_501)
    credit = desk.credit(payment, later.case_id, 5_000, chosen=((other.title_id, 2_000),))
    assert (agency.title(other).received_minor, agency.title(later).received_minor) == (2_000, 3_000)
    assert state_of(agency, payment) == ("ALLOCATED", 103_500, 1_500)
    found = agency.check_money().sums[0]
    assert (found.paid_in, found.received, found.overpaid) == (110_000, 108_500, 1_500)
    for way in (agency.reverse, desk.unmatch, lambda one: desk.refund(one, 1)):
        with pytest.raises(rules.PaymentIsCredit):
            way(credit)
    rest = desk.credit(payment, later.case_id)
    assert agency.payment(rest).amount_minor == 1_500
    desk.annul(credit)
    assert state_of(agency, payment) == ("ALLOCATED", 103_500, 5_000)
    assert state_of(agency, credit) == ("ANNULLED", 0, 0)
    agency.check_money()
    # the money itself goes back: what was made of it goes with it
    agency.reverse(payment)
    found = agency.check_money().sums[0]
    assert (found.reversed, found.received, found.overpaid) == (110_000, 0, 0)
    assert state_of(agency, rest) == ("ANNULLED", 0, 0)


# -- written off -------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S5-25")
def test_titles_are_settled_without_cash_and_owe_again(agency, desk):
    old, new = agency.place((TUESDAY, 100_000), (MONTH, 50_000))
    agency.pay(10_000, title_reference=old.reference)
    before = [balance_of(agency, one) for one in (old, new)]
    assert desk.write_off(old.case_id, old.title_id) == (93_500, "BRL")
    assert agency.title(old).state == "WRITTEN_OFF"
    found = agency.check_money().sums[0]
    assert found.written_off == 93_500
    with pytest.raises(writeoff_rules.NothingOpen):
        desk.write_off(old.case_id, old.title_id)
    assert desk.undo(old.case_id, old.title_id) == (93_500, "BRL")
    assert [balance_of(agency, one) for one in (old, new)] == before
    assert agency.check_money().sums[0].written_off == 0
    with pytest.raises(writeoff_rules.NotWrittenOff):
        desk.undo(old.case_id, old.title_id)
    # all that is open of the case, twice over
    assert desk.write_off(old.case_id) == (143_500, "BRL")
    desk.undo(old.case_id, old.title_id, new.title_id)
    assert [balance_of(agency, one) for one in (old, new)] == before
    rows = agency.rows(
        "SELECT number, amount_minor FROM write_offs WHERE title_id = %s ORDER BY 1", old.title_id
    )
    assert [tuple(row) for row in rows] == [(1, 93_500), (2, 93_500)]


def test_write_offs_that_cannot_be(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    (other,) = agency.place((TUESDAY, 100_000))
    with pytest.raises(approvals.ApprovalNeeded) as caught:
        desk.write_off(placed.case_id, authority=CLERK)
    assert (caught.value.rule, caught.value.asked) == ("WRITE_OFF", "1000.00 BRL")
    with pytest.raises(errors.ResourceNotFound):
        desk.write_off(placed.case_id, other.title_id)
    with pytest.raises(errors.ResourceNotFound):
        desk.write_off(ids.new())
    with pytest.raises(errors.InvalidRequest):
        desk.undo(placed.case_id)
    with pytest.raises(writeoff_rules.NotWrittenOff):
        desk.undo(placed.case_id, placed.title_id)
    agency.agree(placed.case_id, terms=plans.Terms(instalments=2, first_due_date=MONTH))
    with pytest.raises(writeoff_rules.TitleBound):
        desk.write_off(placed.case_id, placed.title_id)
    with pytest.raises(writeoff_rules.NothingOpen):
        desk.write_off(placed.case_id)


def test_a_payment_of_a_written_off_title_that_is_reversed_is_owed_again(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(10_000, title_reference=placed.reference)
    desk.write_off(placed.case_id)
    agency.reverse(payment)
    title = agency.title(placed)
    assert (title.received_minor, title.written_off_minor, title.open_principal_minor) == (0, 93_500, 6_500)
    agency.check_money()


# -- order of allocation -----------------------------------------------------------------------------------------------

PRINCIPAL_FIRST = ("PRINCIPAL", "CORRECTION", "COSTS", "FEES", "INTEREST", "PENALTY")


def set_order(desk, order, valid_from, version=None):
    desk.run(
        waterfalls.update,
        creditor_id=desk.agency.creditor_id,
        order=[accounts.Component(one) for one in order],
        valid_from=valid_from,
        version=version,
        set_by="users/1",
    )


def test_a_creditors_order_holds_from_its_day_on(agency, desk):
    (placed,) = agency.place((TUESDAY, 100_000))
    tomorrow = agency.today + datetime.timedelta(days=1)
    set_order(desk, PRINCIPAL_FIRST, tomorrow, version=0)
    today = agency.pay(3_600, title_reference=placed.reference)
    assert sorted(agency.allocations(today)) == [("INTEREST", 1_500), ("PENALTY", 2_000), ("PRINCIPAL", 100)]
    later = agency.pay(5_000, title_reference=placed.reference, value_date=tomorrow)
    assert agency.allocations(later) == [("PRINCIPAL", 5_000)]
    # a payment of an earlier day arrives: the later one is counted again, by the order of its own day
    agency.pay(1_000, title_reference=placed.reference, value_date=TUESDAY)
    assert agency.allocations(later) == [("PRINCIPAL", 5_000)]


def test_orders_that_cannot_be(agency, desk):
    agency.place((TUESDAY, 100))
    tomorrow = agency.today + datetime.timedelta(days=1)
    for order in (
        PRINCIPAL_FIRST[1:],
        ("PENALTY", "INTEREST", "COSTS", "FEES", "CORRECTION", "PRINCIPAL"),
        ("COSTS", "PENALTY", "FEES", "INTEREST", "CORRECTION", "PRINCIPAL"),
        ("COSTS", "COSTS", "PENALTY", "INTEREST", "CORRECTION", "PRINCIPAL"),
    ):
        with pytest.raises(waterfalls.WaterfallNotLawful):
            set_order(desk, order, tomorrow)
    with pytest.raises(errors.InvalidRequest):
        set_order(desk, PRINCIPAL_FIRST, agency.today)
    set_order(desk, PRINCIPAL_FIRST, tomorrow)
    with pytest.raises(errors.VersionMismatch):
        set_order(desk, PRINCIPAL_FIRST, tomorrow, version=0)
    set_order(desk, PRINCIPAL_FIRST, tomorrow, version=1)


# -- facts -------------------------------------------------------------------------------------------------------------


def published(agency):
    """Facts in the outbox since the last look."""
    from recupera.agreement.v1 import agreement_facts_pb2

    rows = agency.rows("SELECT value FROM outbox ORDER BY id")
    return [agreement_facts_pb2.AgreementFact.FromString(bytes(row.value)) for row in rows]


def test_the_facts_tell_what_an_earlier_payment_changed(agency):
    """One fact for each payment and a row for each title that is another now; nothing of what stayed as it was."""
    old, new = agency.place((TUESDAY, 10_000), (MONTH, 50_000))
    (stranger,) = agency.place((TUESDAY, 10_000))
    agency.pay(1_000, title_reference=stranger.reference)
    second = agency.pay(10_350, contract_reference="CT-1", value_date=datetime.date(2026, 11, 20))
    last = agency.pay(5_000, title_reference=new.reference, value_date=datetime.date(2026, 11, 21))
    before = len(published(agency))
    first = agency.pay(4_000, contract_reference="CT-1", value_date=datetime.date(2026, 10, 20))
    facts = published(agency)[before:]
    told = {
        fact.payment_changed.payment_id: fact.payment_changed
        for fact in facts
        if fact.HasField("payment_changed")
    }
    assert set(told) == {first.bytes, second.bytes}, "the last one paid its title as before"
    assert {fact.allocated_minor for fact in told.values()} == {4_000, 10_350}
    (titles,) = [fact.titles_changed for fact in facts if fact.HasField("titles_changed")]
    shown = dict(zip(titles.title_ids, titles.open_principal_minor, strict=True))
    assert shown == {one.title_id.bytes: agency.title(one).open_principal_minor for one in (old, new)}
    assert agency.payment(last).version == 2


def test_the_facts_tell_a_case_that_it_lost_a_payment(agency, desk):
    (placed,) = agency.place((TUESDAY, 10_000))
    agency.pay(10_350, title_reference=placed.reference)
    payment = agency.pay(70, title_reference=placed.reference)
    before = len(published(agency))
    desk.unmatch(payment)
    (fact,) = [one.payment_changed for one in published(agency)[before:] if one.HasField("payment_changed")]
    assert (fact.case_id, fact.allocated_minor) == (placed.case_id.bytes, 0)


# -- the ledger --------------------------------------------------------------------------------------------------------


def test_open_by_the_ledger_is_open_by_the_balances(agency, desk):
    debtor = ids.new()
    old, _ = agency.place((TUESDAY, 100_000), (MONTH, 50_000), debtor_id=debtor)
    agency.pay(30_000, title_reference=old.reference)
    agency.pay(500)
    terms = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=240_000)
    agreement_id = agency.agree(old.case_id, terms=terms)
    agency.pay(agency.agreement(agreement_id).total_minor + 900, title_reference=old.reference)
    (written,) = agency.place((TUESDAY, 7_000))
    desk.write_off(written.case_id)
    found = desk.balances()
    assert sum(found.values()) == 0
    (row,) = agency.rows(
        "SELECT sum(open_principal_minor + open_penalty_minor + open_interest_minor) AS open FROM titles"
    )
    receivable = sum(minor for account, minor in found.items() if account.startswith("RECEIVABLE:"))
    assert receivable == row.open
    assert (found["CLEARING"], found["OVERPAID"]) == (-500, -900)
    assert found["PLACED"] == -157_000
    assert found["WRITTEN_OFF"] == 7_000
    one_case = desk.balances(case_id=written.case_id)
    assert one_case == {"PLACED": -7_000, "RECEIVABLE:PRINCIPAL": 0, "WRITTEN_OFF": 7_000}
    assert desk.balances(creditor_id=agency.creditor_id) == found
    assert desk.balances(creditor_id=ids.new()) == {}
    assert desk.balances(date=agency.today - datetime.timedelta(days=1)) == {}


def test_a_posting_without_two_sides_is_refused_by_the_database(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    import psycopg

    for kind, component in (("CHARGED", "CASH"), ("PAID_IN", "PRINCIPAL"), ("GIVEN", "CASH")):
        with pytest.raises(psycopg.errors.CheckViolation):
            agency.rows(
                "INSERT INTO postings (agency, case_id, component, kind, amount_minor, currency, business_date,"
                " value_date) VALUES (%s, %s, %s, %s, 1, 'BRL', current_date, current_date)",
                agency.agency,
                placed.case_id,
                component,
                kind,
            )


def test_the_sides_of_every_kind_are_those_of_the_domain(agency, desk):
    from agreement_service.domain import ledger as two_sides

    debtor = ids.new()
    (placed,) = agency.place((TUESDAY, 100_000), debtor_id=debtor)
    payment = agency.pay(110_000, title_reference=placed.reference)
    (later,) = agency.place((MONTH, 4_000), debtor_id=debtor)
    desk.refund(payment, 100)
    desk.annul(desk.credit(payment, later.case_id))
    agency.reverse(payment)
    desk.write_off(later.case_id)
    terms = plans.Terms(instalments=1, first_due_date=MONTH, discount_minor=100)
    agency.cancel(agency.agree(placed.case_id, terms=terms))
    seen = set()
    for row in agency.rows("SELECT kind, component, amount_minor, debit, credit FROM postings"):
        kinds = two_sides.Kind if row.kind in two_sides.Kind.__members__ else accounts.Kind
        assert two_sides.sides(kinds(row.kind), row.component, row.amount_minor) == (row.debit, row.credit)
        seen.add(row.kind)
    assert seen >= {
        "PLACED",
        "PAID_IN",
        "OVERPAID",
        "CREDITED",
        "REFUNDED",
        "REVERSED",
        "CHARGED",
        "RECEIVED",
    }
    assert seen >= {"WAIVED", "WRITTEN_OFF"}
