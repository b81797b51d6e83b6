"""The worker's handlers, as the host calls them, and what they publish."""

import datetime
import decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agreement_service import providers, worker
from agreement_service.domain import accounts, plans
from agreement_service.store import accounts as account_store
from agreement_service.store import daily as daily_store
from agreement_service.usecases import republish, titles
from recupera.agreement.v1 import agreement_pb2
from recupera.case.v1 import case_facts_pb2
from recupera.imports.v1 import imports_facts_pb2, imports_pb2
from servicekit import clock, dates, delivery, errors, ids, testing

TUESDAY = datetime.date(2026, 10, 6)
MONTH = datetime.date(2026, 12, 21)
TERMS = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=120_000)


def case_fact(agency, **fields):
    return case_facts_pb2.CaseFact(agency=agency.agency.bytes, subject=agency.agency.bytes, **fields)


def deliver(agency, *facts, partition=0, wiring=None):
    testing.deliver(
        agency.engine, worker.AgreementWorker, wiring or agency.wiring, facts, partition=partition
    )


def facts_of(agency, kind):
    return [found for found in testing.published(agency.engine) if found.fact.WhichOneof("fact") == kind]


def test_the_clock_is_taken_only_forward(agency):
    changed = case_facts_pb2.ClockChanged(
        time_zone="Europe/Lisbon",
        simulated=True,
        base_machine=dates.to_timestamp(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)),
        base_agency=dates.to_timestamp(datetime.datetime(2027, 1, 4, 10, tzinfo=datetime.UTC)),
        speed_thousandths=1500,
        business_date=dates.to_proto(datetime.date(2027, 1, 4)),
        currency="EUR",
    )
    deliver(agency, case_fact(agency, clock_changed=changed, version=7))
    changed.time_zone = "America/Manaus"
    deliver(agency, case_fact(agency, clock_changed=changed, version=6))
    with agency.tx() as tx:
        found = clock.read(tx, agency.agency)
    assert (found.time_zone, found.speed, found.version) == ("Europe/Lisbon", decimal.Decimal("1.5"), 7)
    assert found.business_date == datetime.date(2027, 1, 4)


def test_placed_withdrawn_and_placed_again_in_one_batch(agency):
    placed, (one,) = agency.fact([(TUESDAY, 100_000)])
    withdrawn = case_facts_pb2.TitlesWithdrawn(case_ids=[one.case_id.bytes], title_ids=[one.title_id.bytes])
    again, (two,) = agency.fact([(TUESDAY, 100_000)], case_id=one.case_id, references=[one.reference])
    deliver(
        agency,
        case_fact(agency, titles_placed=placed),
        case_fact(agency, titles_withdrawn=withdrawn),
        case_fact(agency, titles_placed=again),
    )
    assert (agency.title(one).state, agency.title(two).state) == ("WITHDRAWN", "OPEN")
    payment = agency.pay(103_500, title_reference=one.reference)
    assert agency.title(two).state == "PAID"
    assert agency.payment(payment).title_id == two.title_id


def test_day_opened_answers_day_done_behind_the_days_facts(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=TERMS)
    partition = agency.rows("SELECT partition FROM case_accounts")[0].partition
    testing.take(agency.engine)
    opened = case_facts_pb2.DayOpened(date=dates.to_proto(MONTH), partition=partition)
    deliver(agency, case_fact(agency, day_opened=opened), partition=partition)
    found = [item for item in testing.published(agency.engine) if item.partition == partition]
    assert [item.fact.WhichOneof("fact") for item in found] == ["instalments_changed", "day_done"]
    assert found[0].fact.instalments_changed.states[0] == agreement_pb2.Instalment.STATE_DUE
    assert found[1].fact.day_done == type(found[1].fact.day_done)(
        date=dates.to_proto(MONTH), partition=partition
    )
    with agency.tx() as tx:
        assert clock.read(tx, agency.agency).business_date == MONTH
    before = agency.agreement(agreement_id)
    testing.take(agency.engine)
    deliver(agency, case_fact(agency, day_opened=opened), partition=partition)
    assert [item.fact.WhichOneof("fact") for item in testing.take(agency.engine)] == ["day_done"]
    assert agency.agreement(agreement_id) == before


def test_an_agreement_over_two_partitions_breaks_once_and_before_either_day_is_done(agency):
    debtor_id = ids.new()
    made = []
    while (
        len(
            {
                agency.rows("SELECT partition FROM case_accounts WHERE case_id = %s", one.case_id)[0]
                for one in made
            }
        )
        < 2
    ):
        made += agency.place((TUESDAY, 100_000), debtor_id=debtor_id)
    cases = [one.case_id for one in made]
    agreement_id = agency.agree(*cases, terms=TERMS)
    testing.take(agency.engine)
    agency.run_day(MONTH + datetime.timedelta(days=10))
    assert agency.agreement(agreement_id).state == "BROKEN"
    order = {}
    for item in testing.published(agency.engine):
        order.setdefault(item.partition, []).append(item.fact.WhichOneof("fact"))
    for kinds in order.values():
        assert kinds[-1] == "day_done"
        assert kinds.count("day_done") == 1
    assert sum(kinds.count("agreement_changed") for kinds in order.values()) == len(cases)


def test_slices_of_payments_and_of_others(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    asked = []

    class Slices:
        def payments(self, of_agency, batch_id, number):
            asked.append((of_agency, batch_id, number))
            return [
                {
                    "row": 2,
                    "creditor_reference": agency.creditor,
                    "account": "main",
                    "means": "PIX",
                    "bank_reference": "E1",
                    "value_date": "2026-11-20",
                    "amount_minor": 500,
                    "currency": "BRL",
                    "txid": None,
                    "our_number": None,
                    "title_reference": placed.reference,
                    "contract_reference": None,
                    "payer_document": None,
                }
            ]

    batch_id = ids.new()

    def ready(kind, number):
        fact = imports_facts_pb2.ImportFact(agency=agency.agency.bytes, subject=batch_id.bytes)
        fact.slice_ready.batch_id = batch_id.bytes
        fact.slice_ready.slice = number
        fact.slice_ready.kind = kind
        fact.slice_ready.rows = 1
        return fact

    wiring = worker.Wiring(
        slices=Slices(), parties=agency.parties, bank=agency.bank, allow_simulated_clock=True
    )
    deliver(
        agency,
        ready(imports_pb2.BATCH_KIND_PORTFOLIO, 0),
        ready(imports_pb2.BATCH_KIND_PAYMENTS, 1),
        wiring=wiring,
    )
    assert asked == [(agency.agency, batch_id, 1)]
    assert agency.title(placed).received_minor == 500
    (applied,) = facts_of(agency, "slice_applied")
    assert (applied.fact.slice_applied.slice, applied.fact.slice_applied.applied) == (1, 1)


def test_facts_of_a_life(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=TERMS)
    states = [item.fact.agreement_changed.state for item in facts_of(agency, "agreement_changed")]
    assert states == [agreement_pb2.Agreement.STATE_PROPOSED, agreement_pb2.Agreement.STATE_ACTIVE]
    active = facts_of(agency, "agreement_changed")[-1].fact
    assert dates.from_proto(active.agreement_changed.next_due_date, "d") == MONTH
    assert active.version == agency.agreement(agreement_id).version
    testing.take(agency.engine)
    payment = agency.pay(agency.agreement(agreement_id).total_minor, title_reference=placed.reference)
    kinds = [item.fact.WhichOneof("fact") for item in testing.published(agency.engine)]
    assert kinds == [
        "instruments_changed",
        "titles_changed",
        "instalments_changed",
        "agreement_changed",
        "payment_changed",
    ]
    (paid,) = facts_of(agency, "titles_changed")
    assert list(paid.fact.titles_changed.states) == [agreement_pb2.Title.STATE_PAID]
    assert list(paid.fact.titles_changed.open_principal_minor) == [0]
    (changed,) = facts_of(agency, "payment_changed")
    assert changed.fact.payment_changed.allocated_minor == agency.payment(payment).amount_minor
    assert changed.fact.payment_changed.case_id == placed.case_id.bytes


def test_republish_sends_the_present_state(agency):
    made = [agency.place((TUESDAY, 100_000), (MONTH, 1_000)) for _ in range(5)]
    agreement_id = agency.agree(made[0][0].case_id, terms=TERMS)
    agency.pay(500, title_reference=made[1][0].reference)
    agency.pay(500)
    testing.take(agency.engine)
    progress = republish.Progress()
    while progress is not None:
        with agency.tx() as tx:
            progress = republish.step(
                tx=tx, agency=agency.agency, progress=progress, moment=agency.moment(tx), page=3
            )
    rows = [
        title_id
        for item in facts_of(agency, "titles_changed")
        for title_id in item.fact.titles_changed.title_ids
    ]
    assert len(rows) == len(set(rows)) == 10
    (agreed,) = facts_of(agency, "agreement_changed")
    assert agreed.fact.agreement_changed.agreement_id == agreement_id.bytes
    assert len(facts_of(agency, "payment_changed")) == 2
    assert (
        sum(len(item.fact.instalments_changed.numbers) for item in facts_of(agency, "instalments_changed"))
        == 2
    )


def test_facts_carry_no_personal_data(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.agree(placed.case_id, terms=TERMS)
    agency.pay(500, title_reference=placed.reference, caller="users/maria.silva@example.com")
    for item in testing.published(agency.engine):
        assert b"maria" not in item.fact.SerializeToString()


RATES = st.sampled_from([0, 1, 3_333, 10_000, 20_000, 99_999])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(1, 10**11), st.integers(0, 900), RATES, RATES, st.integers(0, 2), st.booleans()
        ),
        min_size=1,
        max_size=12,
    ),
    ahead=st.integers(0, 400),
)
def test_the_summary_in_sql_is_the_domains_formula(agency, rows, ahead):
    """Per title and component, rounded half-up, then summed: SQL and domain agree to the cent."""
    before = agency.summary(agency.today + datetime.timedelta(days=ahead)).sums
    facts = []
    for minor, age, penalty, monthly, paid, bound in rows:
        due = agency.today - datetime.timedelta(days=age - 30)
        fact, (placed,) = agency.fact([(due, minor)], penalty_e4=penalty, monthly_e4=monthly)
        facts.append((fact, placed, paid, bound))
    agency.take(*(fact for fact, *_ in facts))
    for _, placed, paid, bound in facts:
        if paid:
            agency.pay(
                max(1, placed.minor * paid // 5), title_reference=placed.reference, value_date=agency.today
            )
        if bound and placed.minor > 100 and agency.title(placed).open_principal_minor > 10:
            agency.agree(placed.case_id, terms=TERMS)
    date = agency.today + datetime.timedelta(days=ahead)
    with agency.tx() as tx:
        explained = titles.explain(
            tx=tx, agency=agency.agency, case_ids=[placed.case_id for _, placed, *_ in facts], date=date
        )
    unbound = sum(
        subject.total_minor for case in explained for subject in case.subjects if subject.title_id is not None
    )
    open_in_agreement = sum(
        row.open_principal_minor + row.open_penalty_minor + row.open_interest_minor
        for _, placed, *_ in facts
        if (row := agency.title(placed)).agreement_id is not None
    )
    plan = sum(
        row.interest_minor - row.paid_interest_minor
        for _, placed, *_ in facts
        if (row_title := agency.title(placed)).agreement_id is not None
        for row in agency.instalments(row_title.agreement_id)
        if row.due_date <= date or row.paid_interest_minor
    )
    now = agency.summary(date).sums[0].open
    assert now - (before[0].open if before else 0) == unbound + open_in_agreement + plan
    agency.check_money()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    days=st.integers(-20, 20),
    paid=st.integers(0, 3),
    gap=st.integers(0, 6),
    grace=st.none() | st.integers(8, 20),
)
def test_the_daily_states_in_sql_are_the_domains(agency, days, paid, gap, grace):
    (placed,) = agency.place((TUESDAY, 100_000))
    first = MONTH + datetime.timedelta(days=gap)
    agreement_id = agency.agree(placed.case_id, terms=plans.Terms(instalments=1, first_due_date=first))
    if paid:
        agency.pay(paid * 20_000, title_reference=placed.reference)
    date = first + datetime.timedelta(days=days)
    with agency.tx() as tx:
        if grace is not None:
            spared = account_store.agreements(tx, agency.agency, [agreement_id])[agreement_id]
            spared.grace_date = first + datetime.timedelta(days=grace)
            spared.version += 1
            account_store.write_agreements(tx, agency.agency, [spared])
        daily_store.move(tx, agency.agency, {agreement_id}, date=date)
    (row,) = agency.instalments(agreement_id)
    with agency.tx() as tx:
        agreement = account_store.agreements(tx, agency.agency, [agreement_id])[agreement_id]
    assert row.state == accounts.instalment_state(row, agreement=agreement, business_date=date)


@pytest.mark.parametrize("partition", [0, 23])
def test_a_day_without_agreements_is_done_at_once(agency, partition):
    opened = case_facts_pb2.DayOpened(date=dates.to_proto(MONTH), partition=partition)
    deliver(agency, case_fact(agency, day_opened=opened), partition=partition)
    (done,) = facts_of(agency, "day_done")
    assert done.partition == partition


def states_at(agency, house):
    rows = agency.rows("SELECT state FROM instruments WHERE agency = %s ORDER BY state", house.agency)
    return [row.state for row in rows]


def test_a_bank_that_is_away_lets_the_agency_rest_and_the_others_have_their_turn(agency):
    """What was answered before is committed; what was not stays begun."""

    class Bank(providers.OfflineBank):
        asked = 0

        def register(self, order):
            self.asked += 1
            if self.asked == 2:
                raise providers.BankUnavailable("429")
            return super().register(order)

    other = type(agency)(agency.engine, agency.owner_url)
    assert agency.agency < other.agency
    for one in (agency, other):
        (placed,) = one.place((TUESDAY, 100_000))
        one.agree(placed.case_id, terms=TERMS)
    agency.bank = Bank()
    ticking = delivery.instance(worker.AgreementWorker, engine=agency.engine, wiring=agency.wiring)
    with pytest.raises(providers.BankUnavailable):
        ticking.act()
    assert states_at(agency, agency) == ["REGISTERED"] + ["REGISTERING"] * 3
    assert states_at(agency, other) == ["REGISTERED"] * 4
    ticking.act()
    assert states_at(agency, agency) == ["REGISTERED"] * 4


def test_a_collection_file_that_fails_does_not_keep_other_agencies_waiting(agency, monkeypatch):
    written = []

    def write(engine, wiring, of_agency):
        written.append(of_agency)
        if of_agency == agency.agency:
            raise errors.RemoteUnavailable("case is away")

    other = type(agency)(agency.engine, agency.owner_url)
    monkeypatch.setattr(worker, "write_collection_files", write)
    monkeypatch.setattr(clock, "with_work", lambda engine, scan: [agency.agency, other.agency])
    ticking = delivery.instance(worker.AgreementWorker, engine=agency.engine, wiring=agency.wiring)
    with pytest.raises(errors.RemoteUnavailable):
        ticking.write_collections()
    assert written == [agency.agency, other.agency]
