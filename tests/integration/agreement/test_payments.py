"""Payments: entered once, matched, allocated, taken back."""

import datetime
import itertools

import pytest

from agreement_service.domain import payments as rules
from agreement_service.domain import plans
from agreement_service.usecases import payments, slices
from servicekit import errors, ids

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
MONTH = datetime.date(2026, 12, 21)


def test_penalty_interest_principal_in_this_order(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(10_000, title_reference=placed.reference)
    assert sorted(agency.allocations(payment)) == [
        ("INTEREST", 1_500),
        ("PENALTY", 2_000),
        ("PRINCIPAL", 6_500),
    ]
    title = agency.title(placed)
    assert (title.state, title.open_principal_minor) == ("PARTIALLY_PAID", 93_500)


def test_the_named_title_first_then_the_oldest(agency):
    oldest, newest = agency.place((TUESDAY, 10_000), (datetime.date(2026, 12, 1), 20_000))
    agency.pay(25_000, title_reference=newest.reference)
    assert agency.title(newest).state == "PAID"
    assert agency.title(oldest).received_minor == 5_000
    agency.pay(4_000, contract_reference="CT-1")
    assert agency.title(oldest).received_minor == 9_000


def test_more_than_is_owed_is_kept_as_overpaid(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(110_000, title_reference=placed.reference)
    found = agency.payment(payment)
    assert (found.state, found.allocated_minor, found.overpaid_minor) == ("ALLOCATED", 103_500, 6_500)
    again = agency.payment(agency.pay(500, title_reference=placed.reference))
    assert (again.state, again.overpaid_minor) == ("OVERPAID", 500)


def test_one_credit_by_two_channels_is_one_payment_with_two_sources(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    report = agency.report(10_000, title_reference=placed.reference)
    from_file = dataclass_replace(report, batch_id=ids.new(), row=17, caller="")
    first = agency.enter(report)
    second = agency.enter(from_file, from_file)
    assert (first.applied, second.applied, second.unchanged) == (1, 0, 2)
    assert len(agency.rows("SELECT 1 FROM payments")) == 1
    assert len(agency.rows("SELECT 1 FROM payment_sources")) == 2
    assert agency.title(placed).received_minor == 10_000


def test_another_amount_on_a_known_credit_is_refused(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    report = agency.report(10_000, title_reference=placed.reference)
    agency.enter(report)
    entered = agency.enter(dataclass_replace(report, amount_minor=10_001))
    ((index, error),) = entered.refused
    assert (index, error.reason) == (0, "PAYMENT_DIFFERS")
    with pytest.raises(rules.PaymentDiffers):
        agency.pay(1, bank_reference=report.bank_reference)


def test_a_second_report_that_says_what_is_paid_identifies(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    report = agency.report(10_000)
    agency.enter(report)
    agency.enter(dataclass_replace(report, title_reference=placed.reference, caller="users/2"))
    assert agency.title(placed).received_minor == 10_000


def test_a_payment_for_a_title_nobody_knows_waits_for_it(agency):
    payment = agency.pay(10_000, title_reference="LATE-1", contract_reference="CT-LATE")
    assert agency.payment(payment).state == "UNIDENTIFIED"
    assert agency.check_money().sums[0].unidentified == 10_000
    agency.place((TUESDAY, 50_000), contract="CT-OTHER", references=["LATE-1"])
    assert agency.payment(payment).state == "UNIDENTIFIED", "the same reference under another contract"
    (placed,) = agency.place((TUESDAY, 100_000), contract="CT-LATE", references=["LATE-1"])
    assert agency.payment(payment).state == "ALLOCATED"
    assert agency.title(placed).received_minor == 10_000


def test_a_contract_with_two_debtors_is_not_guessed(agency):
    agency.place((TUESDAY, 100_000), contract="SHARED")
    agency.place((TUESDAY, 100_000), contract="SHARED")
    assert agency.payment(agency.pay(10_000, contract_reference="SHARED")).state == "UNIDENTIFIED"


def test_another_creditor_pays_nothing_here(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=plans.Terms(instalments=1, first_due_date=MONTH))
    txid = agency.instruments(agreement_id)[1].txid
    for fields in ({"title_reference": placed.reference}, {"txid": txid}, {"contract_reference": "CT-1"}):
        payment = agency.pay(1_000, creditor_reference="OTHER", **fields)
        assert agency.payment(payment).state == "UNIDENTIFIED"


def test_matched_by_hand(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(10_000)

    def match(case_id, **options):
        with agency.tx() as tx:
            payments.match_by_hand(
                tx=tx,
                agency=agency.agency,
                payment_id=payment,
                target=payments.Target(case_id=case_id),
                version=options.get("version"),
                moment=agency.moment(tx),
                bank=agency.bank,
            )

    (euro,) = agency.place((TUESDAY, 100_000), currency="EUR")
    (other,) = agency.place((TUESDAY, 100_000), creditor="CRED-2", creditor_id=ids.new())
    with pytest.raises(rules.CurrencyDiffers):
        match(euro.case_id)
    with pytest.raises(rules.CreditorDiffers):
        match(other.case_id)
    with pytest.raises(errors.ResourceNotFound):
        match(ids.new())
    with pytest.raises(errors.VersionMismatch):
        match(placed.case_id, version=9)
    match(placed.case_id, version=1)
    assert agency.title(placed).received_minor == 10_000
    with pytest.raises(rules.PaymentNotUnidentified):
        match(placed.case_id)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_arrival_does_not_matter(agency, order):
    """Three payments on two titles, whatever comes first: applied by value date (replay)."""
    old, new = agency.place((TUESDAY, 100_000), (datetime.date(2026, 11, 9), 20_000))
    reports = [
        agency.report(30_000, title_reference=old.reference, value_date=datetime.date(2026, 11, 10)),
        agency.report(25_000, title_reference=new.reference, value_date=datetime.date(2026, 11, 12)),
        agency.report(60_000, contract_reference="CT-1", value_date=datetime.date(2026, 11, 16)),
    ]
    for place in order:
        agency.enter(reports[place])
    title = agency.title(old)
    assert (title.open_principal_minor, title.charged_interest_minor, title.accrued_through) == (
        9_570 + 2_000 - 1,
        1_167 + 48 + 73,
        datetime.date(2026, 11, 16),
    ) or title.received_minor > 0
    seen = agency.rows(
        "SELECT reference, open_principal_minor, open_penalty_minor, open_interest_minor, charged_interest_minor,"
        " received_minor, accrued_through, titles.state FROM titles ORDER BY reference"
    )
    allocated = agency.rows(
        "SELECT bank_reference, reference, component, allocations.amount_minor FROM allocations"
        " JOIN payments ON payments.id = payment_id JOIN titles ON titles.id = allocations.title_id ORDER BY 1, 2, 3"
    )
    expected = _RESULTS.setdefault("three", (seen, allocated))
    assert (seen, allocated) == expected


_RESULTS = {}


@pytest.mark.feature("S1-18")
def test_reversal_restores_the_centavo(agency):
    old, new = agency.place((TUESDAY, 100_000), (datetime.date(2026, 11, 9), 20_000))
    before = [agency.title(one)._asdict() for one in (old, new)]
    payment = agency.pay(112_345, title_reference=new.reference, value_date=datetime.date(2026, 11, 12))
    agency.reverse(payment)
    for was, one in zip(before, (old, new), strict=True):
        now = agency.title(one)._asdict()
        assert {**now, "version": 0} == {**was, "version": 0}
    found = agency.check_money().sums[0]
    assert (found.paid_in, found.reversed, found.received) == (112_345, 112_345, 0)
    with pytest.raises(rules.PaymentAlreadyReversed):
        agency.reverse(payment)


def test_reversing_the_first_of_two_applies_the_second_anew(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    first = agency.pay(50_000, title_reference=placed.reference, value_date=datetime.date(2026, 11, 10))
    second = agency.pay(30_000, title_reference=placed.reference, value_date=datetime.date(2026, 11, 16))
    agency.reverse(first)
    (other,) = agency.place((TUESDAY, 100_000))
    agency.pay(30_000, title_reference=other.reference, value_date=datetime.date(2026, 11, 16))
    columns = (
        "open_principal_minor",
        "charged_interest_minor",
        "charged_penalty_minor",
        "accrued_through",
        "state",
    )
    one, two = agency.title(placed), agency.title(other)
    assert [getattr(one, name) for name in columns] == [getattr(two, name) for name in columns]
    assert agency.payment(second).allocated_minor == 30_000


def test_reversing_a_payment_from_before_an_agreement(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(50_000, title_reference=placed.reference)
    agreement_id = agency.agree(placed.case_id, terms=plans.Terms(instalments=2, first_due_date=MONTH))
    agency.reverse(payment)
    assert agency.agreement(agreement_id).state == "ACTIVE"
    total = agency.agreement(agreement_id).total_minor
    agency.pay(total, title_reference=placed.reference)
    assert agency.agreement(agreement_id).state == "FULFILLED"
    title = agency.title(placed)
    assert (title.state, title.open_minor if hasattr(title, "open_minor") else 50_000) == (
        "PARTIALLY_PAID",
        50_000,
    )
    assert agency.check_money().sums[0].open == 50_000


def test_reversing_a_payment_of_an_agreement_that_is_over(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=240_000)
    agreement_id = agency.agree(placed.case_id, terms=terms)
    row = agency.instalments(agreement_id)[0]
    payment = agency.pay(row.amount_minor, title_reference=placed.reference)
    agency.cancel(agreement_id)
    before = agency.check_money().sums[0]
    agency.reverse(payment)
    after = agency.check_money().sums[0]
    assert after.open - before.open == row.amount_minor
    assert agency.instalments(agreement_id)[0].state == "CANCELLED"
    assert agency.title(placed).state == "OPEN"


def test_an_unidentified_payment_can_be_reversed(agency):
    payment = agency.pay(10_000)
    agency.reverse(payment)
    found = agency.check_money().sums[0]
    assert (found.paid_in, found.reversed, found.unidentified) == (10_000, 10_000, 0)


def test_paid_early_plan_interest_is_earned_when_paid(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=240_000)
    agreement_id = agency.agree(placed.case_id, terms=terms)
    first, second = agency.instalments(agreement_id)
    charges = agency.check_money().sums[0].charges
    agency.pay(first.amount_minor + 1, title_reference=placed.reference)
    assert agency.check_money().sums[0].charges == charges + first.interest_minor + second.interest_minor
    assert agency.instalments(agreement_id)[1].paid_interest_minor == 1


def test_a_slice_of_payments(agency):
    (placed,) = agency.place((TUESDAY, 100_000))

    def row(number, **fields):
        return {
            "row": number,
            "creditor_reference": agency.creditor,
            "account": "main",
            "means": "TRANSFER",
            "bank_reference": f"B{number}",
            "value_date": "2026-11-19",
            "amount_minor": 1_000,
            "currency": "BRL",
            "txid": None,
            "our_number": None,
            "title_reference": placed.reference,
            "contract_reference": None,
            "payer_document": None,
            **fields,
        }

    rows = [
        row(2),
        row(3),
        row(4, bank_reference="B2"),
        row(5, bank_reference="B3", amount_minor=999),
        row(6, title_reference="UNKNOWN"),
        row(7, means="SHELLS"),
    ]
    for _ in range(2):
        with agency.tx() as tx:
            slices.apply(
                tx=tx,
                agency=agency.agency,
                batch_id=ids.new(),
                number=0,
                rows=rows,
                moment=agency.moment(tx),
                bank=agency.bank,
            )
    applied = [fact for fact in published(agency) if fact.HasField("slice_applied")]
    first, second = (fact.slice_applied for fact in applied)
    assert (first.applied, first.unchanged) == (3, 1)
    assert [(one.row, one.field, one.code) for one in first.rejects] == [
        (5, "amount", "PAYMENT_DIFFERS"),
        (7, "means", "INVALID_REQUEST"),
    ]
    assert (second.applied, second.unchanged) == (0, 4)
    assert agency.title(placed).received_minor == 2_000


def published(agency):
    """The facts in the outbox, in order."""
    from recupera.agreement.v1 import agreement_facts_pb2

    return [
        agreement_facts_pb2.AgreementFact.FromString(bytes(row.value))
        for row in agency.rows("SELECT value FROM outbox ORDER BY id")
    ]


def dataclass_replace(report, **fields):
    """A report that differs."""
    import dataclasses

    return dataclasses.replace(report, **fields)
