"""Two at once with one payment on a real PostgreSQL: one wins, the other gets a typed error; money adds up."""

import concurrent.futures
import datetime
import threading
import uuid

import pytest

from agreement_service.domain import limits, plans
from agreement_service.domain import payments as rules
from agreement_service.domain import writeoffs as writeoff_rules
from agreement_service.usecases import credits, payments, writeoffs
from servicekit import errors, ids

TUESDAY = datetime.date(2026, 10, 6)
MONTH = datetime.date(2026, 12, 21)
ROUNDS = 4


def at_once(*works):
    """Run all, started together; results, or the typed errors."""
    barrier = threading.Barrier(len(works))

    def run(work):
        barrier.wait()
        try:
            return work()
        except errors.ServiceError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, work) for work in works]]


def doing(agency, function, **arguments):
    def run():
        with agency.tx() as tx:
            return function(tx=tx, agency=agency.agency, moment=agency.moment(tx), **arguments)

    return run


def refund(agency, payment, minor):
    return doing(
        agency,
        credits.refund,
        payment_id=payment,
        amount_minor=minor,
        currency="BRL",
        reason="asked",
        by="users/1",
        version=None,
        authority=limits.SYSTEM,
    )


def credit(agency, payment, case_id):
    return doing(
        agency,
        credits.apply_credit,
        payment_id=payment,
        case_id=case_id,
        amount=None,
        version=None,
        bank=agency.bank,
    )


def reasons(results):
    return sorted(one.reason for one in results if isinstance(one, errors.ServiceError))


def test_the_same_refund_twice(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        payment = agency.pay(110_000, title_reference=placed.reference)
        assert reasons(at_once(*[refund(agency, payment, 5_000)] * 3)) == ["MORE_THAN_OVERPAID"] * 2
        assert agency.payment(payment).refunded_minor == 5_000


def test_a_refund_against_a_credit_of_the_same_money(agency):
    for _ in range(ROUNDS):
        debtor = ids.new()
        (placed,) = agency.place((TUESDAY, 100_000), debtor_id=debtor)
        (later,) = agency.place((MONTH, 50_000), debtor_id=debtor)
        payment = agency.pay(110_000, title_reference=placed.reference)
        results = at_once(refund(agency, payment, 6_500), credit(agency, payment, later.case_id))
        assert reasons(results) == ["MORE_THAN_OVERPAID"]
        found = agency.payment(payment)
        assert found.refunded_minor + found.credited_minor == 6_500


def test_a_refund_against_the_reversal(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        payment = agency.pay(110_000, title_reference=placed.reference)
        results = at_once(refund(agency, payment, 6_500), lambda: agency.reverse(payment))  # noqa: B023
        assert reasons(results) in ([], ["PAYMENT_NOT_MATCHED"])
        assert agency.payment(payment).state == "REVERSED"
    agency.check_money()


def test_a_credit_against_the_reversal_of_its_origin(agency):
    for _ in range(ROUNDS):
        debtor = ids.new()
        (placed,) = agency.place((TUESDAY, 100_000), debtor_id=debtor)
        (later,) = agency.place((MONTH, 50_000), debtor_id=debtor)
        payment = agency.pay(110_000, title_reference=placed.reference)
        results = at_once(credit(agency, payment, later.case_id), lambda: agency.reverse(payment))  # noqa: B023
        assert set(reasons(results)) <= {"PAYMENT_NOT_MATCHED", "VERSION_MISMATCH"}
        if agency.payment(payment).state == "REVERSED":
            assert agency.title(later).received_minor == 0
        else:
            assert agency.title(later).received_minor == 6_500
        agency.check_money()


def test_the_same_match_twice(agency):
    for _ in range(ROUNDS):
        one, two = agency.place((TUESDAY, 100_000))[0], agency.place((TUESDAY, 100_000))[0]
        payment = agency.pay(7_000)
        works = [
            doing(
                agency,
                payments.match_by_hand,
                payment_id=payment,
                target=payments.Target(case_id=placed.case_id),
                version=None,
                bank=agency.bank,
            )
            for placed in (one, two)
        ]
        assert reasons(at_once(*works)) == ["PAYMENT_NOT_UNIDENTIFIED"]
        assert agency.title(one).received_minor + agency.title(two).received_minor == 7_000


def test_a_confirmation_against_the_banks_report(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        report = agency.report(7_000, title_reference=placed.reference, unconfirmed=True)
        payment = agency.enter(report).payments[report.identity]
        said = agency.report(7_000, bank_reference=report.bank_reference)
        confirm = doing(
            agency,
            payments.confirm,
            payment_id=payment,
            account="",
            means="",
            bank_reference="",
            value_date=None,
            amount=None,
            version=None,
            bank=agency.bank,
        )
        results = at_once(confirm, lambda: agency.enter(said))  # noqa: B023
        assert set(reasons(results)) <= {"PAYMENT_NOT_UNCONFIRMED"}
        assert agency.title(placed).received_minor == 7_000


def unconfirmed(agency, placed):
    """A payment of this title that waits for the bank."""
    report = agency.report(7_000, title_reference=placed.reference, unconfirmed=True)
    return agency.enter(report).payments[report.identity]


def confirm_as(agency, payment, bank_reference):
    return doing(
        agency,
        payments.confirm,
        payment_id=payment,
        account="",
        means="",
        bank_reference=bank_reference,
        value_date=None,
        amount=None,
        version=None,
        bank=agency.bank,
    )


@pytest.mark.parametrize("same_case", [True, False])
def test_two_confirmations_as_the_same_credit(agency, same_case):
    for place in range(ROUNDS):
        one = agency.place((TUESDAY, 100_000))[0]
        two = one if same_case else agency.place((TUESDAY, 100_000))[0]
        waiting = [unconfirmed(agency, one), unconfirmed(agency, two)]
        credit_ = f"E2E-SAME-{place}"
        results = at_once(*[confirm_as(agency, payment, credit_) for payment in waiting])
        (refused,) = [result for result in results if result is not None]
        assert isinstance(refused, rules.PaymentDiffers)
        states = {payment: agency.payment(payment).state.value for payment in waiting}
        assert sorted(states.values()) == ["ALLOCATED", "NEW_UNCONFIRMED"]
        assert states[uuid.UUID(str(refused.metadata["payment"]))] == "ALLOCATED"
        assert sum(agency.title(title).received_minor for title in {one, two}) == 7_000
        agency.check_money()


def test_a_confirmation_as_a_credit_that_is_being_entered(agency):
    for place in range(ROUNDS):
        one, two = agency.place((TUESDAY, 100_000))[0], agency.place((TUESDAY, 100_000))[0]
        payment, credit_ = unconfirmed(agency, one), f"E2E-SAME-{place}"
        said = agency.report(7_000, title_reference=two.reference, bank_reference=credit_)
        results = at_once(confirm_as(agency, payment, credit_), lambda: agency.enter(said))  # noqa: B023
        assert set(reasons(results)) <= {"PAYMENT_DIFFERS"}
        assert agency.title(one).received_minor + agency.title(two).received_minor == 7_000
        agency.check_money()


def test_a_payment_against_a_write_off(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        write_off = doing(
            agency,
            writeoffs.write_off,
            case_id=placed.case_id,
            title_ids=[],
            type_=writeoff_rules.WriteOffType.LOSS,
            reason="",
            by="users/1",
            authority=limits.SYSTEM,
            bank=agency.bank,
        )
        results = at_once(write_off, lambda: agency.pay(7_000, title_reference=placed.reference))  # noqa: B023
        assert reasons(results) == []
        title = agency.title(placed)
        assert (title.state, title.open_principal_minor) == ("WRITTEN_OFF", 0)
        assert title.received_minor in (0, 7_000)


def test_unmatching_against_the_cancellation_of_the_agreement(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        agreement_id = agency.agree(placed.case_id, terms=plans.Terms(instalments=2, first_due_date=MONTH))
        payment = agency.pay(20_000, title_reference=placed.reference)
        unmatch = doing(agency, payments.unmatch, payment_id=payment, version=None, bank=agency.bank)
        results = at_once(unmatch, lambda: agency.cancel(agreement_id))  # noqa: B023
        assert reasons(results) == []
        assert agency.payment(payment).state is rules_state("UNIDENTIFIED")
        assert agency.title(placed).received_minor == 0
        agency.check_money()


def rules_state(name):
    from agreement_service.domain import accounts

    return accounts.PaymentState(name)


def test_the_kinds_of_reversal_are_those_of_the_means():
    assert all(of <= rules.MEANS for of in rules.REVERSAL_MEANS.values())
