"""Two at once on a real PostgreSQL: one wins, the other gets a typed error or the same answer; money adds up."""

import concurrent.futures
import datetime
import threading

import pytest

from agreement_service import worker
from agreement_service.domain import plans
from agreement_service.store import accounts as account_store
from agreement_service.store import payments as payment_store
from agreement_service.usecases import agreements, life, titles
from recupera.case.v1 import case_facts_pb2
from servicekit import dates, errors, ids
from support import waiting

TUESDAY = datetime.date(2026, 10, 6)
MONTH = datetime.date(2026, 12, 21)
TERMS = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=120_000)
ROUNDS = 5


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


def test_two_acceptances_of_the_same_titles(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        first, second = (agency.propose(placed.case_id, terms=TERMS) for _ in range(2))
        results = at_once(lambda: agency.accept(first), lambda: agency.accept(second))  # noqa: B023
        assert [type(one) for one in results if one is not None] == [agreements.TitlesInAgreement]
        states = sorted(agency.agreement(one).state.value for one in (first, second))
        assert states == ["ACTIVE", "PROPOSED"]
        assert len(agency.instalments(first)) == 2


def test_the_same_acceptance_twice(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.propose(placed.case_id, terms=TERMS)
    results = at_once(lambda: agency.accept(agreement_id), lambda: agency.accept(agreement_id))
    (refused,) = [one for one in results if one is not None]
    assert refused.reason in ("AGREEMENT_NOT_PROPOSED", "TITLES_IN_AGREEMENT")


def test_the_same_payment_twice_at_once(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        report = agency.report(10_000, title_reference=placed.reference)
        results = at_once(*[lambda: agency.enter(report)] * 3)  # noqa: B023
        assert sorted(one.applied for one in results) == [0, 0, 1]
        assert agency.title(placed).received_minor == 10_000


def test_two_payments_of_one_case_at_once(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        works = [
            agency.report(
                20_000, title_reference=placed.reference, value_date=TUESDAY + datetime.timedelta(days=days)
            )
            for days in (10, 20, 30)
        ]
        at_once(*[lambda one=one: agency.enter(one) for one in works])
        (twin,) = agency.place((TUESDAY, 100_000))
        agency.enter(
            *[
                agency.report(20_000, title_reference=twin.reference, value_date=report.value_date)
                for report in works
            ]
        )
        one, two = agency.title(placed), agency.title(twin)
        assert (one.open_principal_minor, one.charged_interest_minor) == (
            two.open_principal_minor,
            two.charged_interest_minor,
        )


def test_payment_against_cancellation(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        agreement_id = agency.agree(placed.case_id, terms=TERMS)
        results = at_once(
            lambda: agency.pay(60_000, title_reference=placed.reference),  # noqa: B023
            lambda: agency.cancel(agreement_id),  # noqa: B023
        )
        assert not any(isinstance(one, errors.ServiceError) for one in results)
        assert agency.agreement(agreement_id).state == "CANCELLED"
        assert (
            agency.title(placed).received_minor
            + sum(row.paid_interest_minor for row in agency.instalments(agreement_id))
            == 60_000
        )


def test_payment_against_acceptance(agency):
    for _ in range(ROUNDS):
        (placed,) = agency.place((TUESDAY, 100_000))
        agreement_id = agency.propose(placed.case_id, terms=TERMS)
        _, accepted = at_once(
            lambda: agency.pay(60_000, title_reference=placed.reference),  # noqa: B023
            lambda: agency.accept(agreement_id),  # noqa: B023
        )
        if accepted is None:
            assert agency.agreement(agreement_id).paid_minor == 60_000
        else:
            assert isinstance(accepted, life.TitlesChangedSinceProposal)


def test_the_same_reversal_twice(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(60_000, title_reference=placed.reference)
    results = at_once(*[lambda: agency.reverse(payment)] * 2)
    assert [one.reason for one in results if one is not None] == ["PAYMENT_ALREADY_REVERSED"]
    assert agency.title(placed).received_minor == 0


def test_a_payment_and_the_title_it_waits_for_never_miss_each_other(agency):
    for number in range(3 * ROUNDS):
        fact, (placed,) = agency.fact([(TUESDAY, 100_000)], references=[f"RACE-{number}"])
        report = agency.report(1_000, title_reference=f"RACE-{number}")
        at_once(lambda: agency.take(fact), lambda: agency.enter(report))  # noqa: B023
        assert agency.title(placed).received_minor == 1_000


def test_rollback_against_payment(agency):
    from servicekit import ids

    for _ in range(ROUNDS):
        batch_id = ids.new()
        (placed,) = agency.place((TUESDAY, 100_000), batch_id=batch_id)

        def roll_back(batch_id=batch_id):
            with agency.tx() as tx:
                return titles.roll_back(
                    tx=tx, agency=agency.agency, batch_id=batch_id, moment=agency.moment(tx), bank=agency.bank
                )

        result, payment = at_once(roll_back, lambda: agency.pay(1_000, title_reference=placed.reference))  # noqa: B023
        if isinstance(result, titles.BatchInUse):
            assert agency.title(placed).received_minor == 1_000
        else:
            assert agency.title(placed).state == "WITHDRAWN"
            assert agency.payment(payment).allocated_minor == 0


def test_many_slices_and_days_at_once_do_not_deadlock(agency):
    placed = [agency.place((TUESDAY, 50_000), (MONTH, 20_000))[0] for _ in range(12)]
    agreed = [agency.agree(one.case_id, terms=TERMS) for one in placed[:6]]

    def slice_of(seed):
        order = placed[seed:] + placed[:seed]
        return lambda: agency.enter(
            *[
                agency.report(700 + seed, title_reference=one.reference, bank_reference=f"{seed}-{n}")
                for n, one in enumerate(order)
            ]
        )

    works = [slice_of(seed) for seed in range(4)]
    works += [lambda: agency.cancel(agreed[0]), lambda: agency.cancel(agreed[1])]
    for one in at_once(*works):
        assert not isinstance(one, errors.ServiceError)
    assert agency.check_money().sums[0].received == 12 * (700 + 701 + 702 + 703)


@pytest.mark.parametrize("shared", [True, False])
def test_the_guard_is_given_back(agency, shared):
    for _ in range(2):
        with agency.tx() as tx:
            payment_store.guard_unidentified(tx, agency.agency, shared=shared)


def test_titles_placed_behind_a_promise_wait_for_payments_before_they_lock(agency):
    """A payment that finds nothing holds the guard and comes for the account that the promise locks."""
    (known,) = agency.place((TUESDAY, 100_000))
    said = case_facts_pb2.CaseFact(agency=agency.agency.bytes, subject=known.case_id.bytes)
    said.occurred_at.FromDatetime(datetime.datetime.combine(agency.today, datetime.time(13)))
    said.business_date.CopyFrom(dates.to_proto(agency.today))
    promise = said.contact_recorded
    promise.case_id, promise.contact_id = known.case_id.bytes, ids.new().bytes
    promise.promise_date.CopyFrom(dates.to_proto(MONTH))
    promise.promise_amount_minor, promise.currency = 1_000, "BRL"
    fact, (placed,) = agency.fact([(TUESDAY, 50_000)])
    placing = case_facts_pb2.CaseFact(agency=agency.agency.bytes, titles_placed=fact)
    handler = worker.AgreementWorker()
    handler.engine, handler.wiring = agency.engine, agency.wiring

    def take():
        with agency.tx() as tx:
            handler.case_facts(tx, [said, placing])

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with agency.tx() as tx:
            payment_store.guard_unidentified(tx, agency.agency, shared=False)
            taking = pool.submit(take)
            waiting.until(
                lambda: agency.rows("SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"),
                what="the placement to wait for the guard",
            )
            assert known.case_id in account_store.lock(tx, agency.agency, [known.case_id])
        taking.result(timeout=60)
    assert agency.title(placed).state == "OPEN"
    assert len(agency.rows("SELECT FROM promises")) == 1
