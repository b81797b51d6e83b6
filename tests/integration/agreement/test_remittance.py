"""Statements on real PostgreSQL: they say what the ledger says, each settlement once, whatever happens beside."""

import datetime
import random
import threading
import uuid

import psycopg
import pytest

from agreement_service.domain import accounts, novations, plans, remittance
from agreement_service.store import remittance as store
from agreement_service.usecases import remittance as cases
from agreement_service.usecases import republish
from recupera.agreement.v1 import remittance_pb2
from servicekit import errors, ids, testing
from tests.integration.agreement.test_concurrency import at_once

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
FRIDAY = datetime.date(2026, 11, 20)
SATURDAY = datetime.date(2026, 11, 21)
MONTH = datetime.date(2026, 12, 21)
BANDS = (
    remittance.Band(from_day=0, principal_rate_e4=81_500, charges_rate_e4=100_000, costs_rate_e4=500_000),
    remittance.Band(from_day=31, principal_rate_e4=123_300, charges_rate_e4=157_700, costs_rate_e4=500_000),
    remittance.Band(from_day=61, principal_rate_e4=200_000, charges_rate_e4=250_000, costs_rate_e4=1_000_000),
)


class Remittance:
    """What a creditor is paid over."""

    def __init__(self, agency):
        self.agency = agency

    def contract(self, **fields):
        creditor = fields.pop("creditor", self.agency.creditor)
        new = remittance.Contract(
            **{
                "contract_id": ids.new(),
                "currency": "BRL",
                "valid_from": datetime.date(2020, 1, 1),
                "bands": BANDS,
                "frequency": remittance.Frequency.DAY,
                "grouping": remittance.Grouping.GROUPED,
                **fields,
            }
        )
        with self.agency.tx() as tx:
            cases.add_contract(
                tx=tx,
                agency=self.agency.agency,
                creditor_reference=creditor,
                contract=new,
                by="users/1",
                moment=self.agency.moment(tx),
            )
        return new

    def close(self, end=None, *, by="users/1", slice_size=store.SLICE, creditor=None, currency="BRL"):
        with self.agency.tx() as tx:
            return cases.close(
                tx=tx,
                agency=self.agency.agency,
                creditor_reference=creditor or self.agency.creditor,
                currency=currency,
                period_end=end,
                by=by,
                moment=self.agency.moment(tx),
                slice_size=slice_size,
            )

    def next_day(self):
        """The next business date; the one before can be closed now."""
        self.agency.set_clock(self.agency.today + datetime.timedelta(days=1))
        return self.agency.today

    def close_day(self, **options):
        """Go to the next day and close what was; its one statement."""
        (made,) = self.close(self.next_day(), **options)
        return self.statement(made)

    def approve(self, statement_id, by="users/2"):
        with self.agency.tx() as tx:
            cases.approve(
                tx=tx,
                agency=self.agency.agency,
                statement_id=statement_id,
                version=None,
                by=by,
                moment=self.agency.moment(tx),
            )

    def pay(self, statement_id, reference="TED-1", date=None):
        with self.agency.tx() as tx:
            cases.mark_paid(
                tx=tx,
                agency=self.agency.agency,
                statement_id=statement_id,
                bank_reference=reference,
                date=date,
                version=None,
                moment=self.agency.moment(tx),
            )

    def statement(self, statement_id):
        with self.agency.tx() as tx:
            return store.get(tx, self.agency.agency, statement_id)

    def lines(self, statement_id):
        with self.agency.tx() as tx:
            return store.lines(tx, self.agency.agency, statement_id, after=0, limit=10**6)

    def remitted(self, *payment_ids):
        with self.agency.tx() as tx:
            return store.remitted(tx, self.agency.agency, payment_ids)

    def check(self):
        """Every settlement is in exactly one statement or waits; the totals are those of lines, ledger and chain."""
        rows = self.agency.rows
        assert not rows(
            "SELECT id FROM postings LEFT JOIN settlements_waiting AS w ON w.posting_id = id"
            " LEFT JOIN statement_lines AS l ON l.posting_id = id WHERE kind = 'RECEIVED'"
            " AND ((w.posting_id IS NULL) = (l.posting_id IS NULL) OR postings.amount_minor <>"
            " coalesce(w.amount_minor, l.amount_minor))"
        ), "in one place, with the ledger's amount"
        (sums,) = rows(
            "SELECT (SELECT coalesce(sum(amount_minor), 0) FROM postings WHERE kind = 'RECEIVED') AS ledger,"
            " (SELECT coalesce(sum(gross_minor), 0) FROM statements) AS closed,"
            " (SELECT coalesce(sum(amount_minor), 0) FROM settlements_waiting) AS waiting"
        )
        assert sums.ledger == sums.closed + sums.waiting
        chains = {}
        for row in rows("SELECT * FROM statements ORDER BY creditor_id, currency, for_case_id, number"):
            chain = chains.setdefault((row.creditor_id, row.currency, row.for_case_id), [])
            assert row.number == len(chain) + 1
            assert row.carried_in_minor == (chain[-1].carried_out_minor if chain else 0)
            chain.append(row)


@pytest.fixture
def remit(agency):
    agency.place((MONTH, 1))  # the service knows a creditor from its first title
    made = Remittance(agency)
    yield made
    made.check()


def sums(lines):
    return (
        sum(line.amount_minor for line in lines),
        sum(line.percentage_minor + line.fixed_minor for line in lines),
        sum(line.tax_added_minor for line in lines),
        sum(line.tax_retained_minor for line in lines),
    )


def expected(agency, contracts):
    """All lines as the plain rule counts them, from the ledger alone."""
    settlements = [
        remittance.Settlement(
            posting_id=row.id,
            payment_id=row.payment_id,
            case_id=row.case_id,
            unit=row.title_id or row.instalment_id,
            component=row.component,
            product=row.product,
            amount_minor=row.amount_minor,
            value_date=row.value_date,
            days_past_due=max(0, (row.value_date - row.due_date).days),
        )
        for row in agency.rows(
            """
            SELECT postings.*, case_accounts.product, coalesce(titles.due_date, (
                SELECT min(bound.due_date) FROM agreement_titles JOIN titles AS bound
                    ON bound.case_id = agreement_titles.case_id AND bound.id = agreement_titles.title_id
                WHERE agreement_titles.agreement_id = postings.agreement_id)) AS due_date
            FROM postings JOIN case_accounts ON case_accounts.case_id = postings.case_id
                LEFT JOIN titles ON titles.case_id = postings.case_id AND titles.id = postings.title_id
            WHERE kind = 'RECEIVED'
            """
        )
    ]
    return {
        line.settlement.posting_id: (
            line.contract.contract_id,
            line.days_past_due,
            line.rate_e4,
            line.percentage_minor,
            line.fixed_minor,
            line.tax_added_minor,
            line.tax_retained_minor,
        )
        for line in remittance.count(settlements, remittance.reaches(contracts))
    }


def written(agency):
    return {
        row.posting_id: (
            row.contract_id,
            row.days_past_due,
            row.rate_e4,
            row.percentage_minor,
            row.fixed_minor,
            row.tax_added_minor,
            row.tax_retained_minor,
        )
        for row in agency.rows("SELECT * FROM statement_lines")
    }


def test_a_statement_says_what_the_ledger_says(agency, remit):
    remit.contract(tax=remittance.Tax.ISS, tax_rate_e4=50_000)
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(50_000, title_reference=placed.reference)
    statement = remit.close_day()
    assert (statement.state, statement.number, statement.settlements) == ("CLOSED", 1, 3)
    assert (statement.period_start, statement.period_end) == (FRIDAY, SATURDAY)
    found = {line.component: line for line in remit.lines(statement.id)}
    assert {key: line.amount_minor for key, line in found.items()} == dict(agency.allocations(payment))
    assert {line.days_past_due for line in found.values()} == {45}
    assert found["PRINCIPAL"].percentage_minor == round(found["PRINCIPAL"].amount_minor * 0.1233)
    assert found["PENALTY"].rate_e4 == 157_700
    assert found["PRINCIPAL"].title_reference == placed.reference
    gross, commission, added, _ = sums(found.values())
    assert gross == 50_000
    assert (statement.gross_minor, statement.commission_minor, statement.tax_added_minor) == (
        gross,
        commission,
        added,
    )
    assert statement.net_minor == statement.remitted_minor == gross - commission - added
    fact = testing.published(agency.engine, kind="statement_changed")[-1].fact.statement_changed
    assert uuid.UUID(bytes=fact.statement_id) == statement.id
    assert fact.remitted_minor == statement.remitted_minor
    assert fact.state == remittance_pb2.Statement.STATE_CLOSED


def test_approved_by_another_person_then_paid_once(agency, remit):
    remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(50_000, title_reference=placed.reference)
    statement = remit.close_day()
    with pytest.raises(remittance.StatementNotApproved):
        remit.pay(statement.id)
    with pytest.raises(remittance.ApproverClosedIt):
        remit.approve(statement.id, by="users/1")
    assert not remit.remitted(payment)
    remit.approve(statement.id)
    assert remit.remitted(payment) == {payment}
    with pytest.raises(remittance.StatementNotClosed):
        remit.approve(statement.id, by="users/3")
    for reference in ("", " ", "x" * 141):
        with pytest.raises(errors.InvalidRequest):
            remit.pay(statement.id, reference)
    for wrong in (FRIDAY, SATURDAY + datetime.timedelta(days=1)):
        with pytest.raises(errors.InvalidRequest, match="") as caught:
            remit.pay(statement.id, date=wrong)
        assert "2026-11-21 to 2026-11-21" in caught.value.fields[0].description
    remit.pay(statement.id)
    assert remit.statement(statement.id).bank_reference == "TED-1"
    with pytest.raises(remittance.StatementNotApproved):
        remit.pay(statement.id)
    states = [
        fact.fact.statement_changed.state
        for fact in testing.published(agency.engine, kind="statement_changed")
    ]
    assert states == [
        remittance_pb2.Statement.STATE_CLOSED,
        remittance_pb2.Statement.STATE_APPROVED,
        remittance_pb2.Statement.STATE_PAID,
    ]


def test_a_reversal_is_clawed_back_to_the_centavo(agency, remit):
    remit.contract(
        tax=remittance.Tax.ISS,
        tax_rate_e4=33_300,
        fixed_minor=111,
        fixed_per=remittance.FixedPer.PAYMENT,
    )
    (placed,) = agency.place((TUESDAY, 100_001))
    payment = agency.pay(33_333, title_reference=placed.reference)
    first = remit.close_day()
    remit.approve(first.id)
    agency.reverse(payment)
    assert not remit.remitted(payment), "its contra entries are in no statement yet"
    second = remit.close_day()
    assert second.gross_minor == -33_333
    for field in ("commission_minor", "tax_added_minor", "net_minor"):
        assert getattr(second, field) == -getattr(first, field), field
    assert (second.remitted_minor, second.carried_out_minor) == (0, -first.net_minor)
    agency.pay(90_000, title_reference=placed.reference)
    third = remit.close_day()
    assert third.carried_in_minor == -first.net_minor
    assert third.remitted_minor == third.gross_minor - third.commission_minor - third.tax_added_minor - (
        first.net_minor
    )


def test_the_rate_that_was_given_is_taken_back_though_the_contract_changed(agency, remit):
    old = remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    payment = agency.pay(10_000, title_reference=placed.reference)
    first = remit.close_day()
    remit.contract(
        valid_from=datetime.date(2026, 1, 1),
        bands=(remittance.Band(from_day=0, principal_rate_e4=900_000, charges_rate_e4=900_000),),
    )
    agency.reverse(payment)
    second = remit.close_day()
    assert {line.contract_id for line in remit.lines(second.id)} == {old.contract_id}
    assert second.commission_minor == -first.commission_minor
    assert remit.statement(first.id) == first, "a closed statement never changes"


def test_below_the_minimum_nothing_is_paid_over_but_carried(agency, remit):
    remit.contract(minimum_minor=10_000, bands=(remittance.Band(from_day=0),))
    (placed,) = agency.place((TUESDAY, 100_000))
    nets = []
    for minor in (4_000, 5_999, 1, 12_000):
        agency.pay(minor, title_reference=placed.reference)
        nets.append(remit.close_day())
    assert [(one.net_minor, one.remitted_minor, one.carried_out_minor) for one in nets] == [
        (4_000, 0, 4_000),
        (9_999, 0, 9_999),
        (10_000, 10_000, 0),
        (12_000, 12_000, 0),
    ]
    remit.approve(nets[0].id)
    with pytest.raises(remittance.NothingToPay):
        remit.pay(nets[0].id)


def test_what_settles_later_is_in_the_next_statement_whatever_its_date(agency, remit):
    remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(1_000, title_reference=placed.reference)
    first = remit.close_day()
    late = agency.pay(2_000, title_reference=placed.reference, value_date=TUESDAY)
    (open_one,) = [one for one in statements(agency) if one.state == "OPEN"]
    assert (open_one.settlements > 0, open_one.gross_minor) == (True, 2_000), "what waits"
    second = remit.close_day()
    assert remit.statement(first.id) == first
    assert second.gross_minor == 2_000
    assert {line.payment_id for line in remit.lines(second.id)} >= {late}
    assert (second.period_start, second.period_end) == (first.period_end, agency.today)


def statements(agency, **options):
    with agency.tx() as tx:
        return store.page(tx, agency.agency, after=None, limit=1_000, **options)


def test_a_period_is_closed_once_and_ends_where_the_contract_says(agency, remit):
    with pytest.raises(errors.ResourceNotFound):
        remit.close(FRIDAY, creditor="CRED-NOBODY")
    with pytest.raises(remittance.CommissionContractMissing):
        remit.close(FRIDAY)
    remit.contract(frequency=remittance.Frequency.WEEK)
    with pytest.raises(errors.InvalidRequest) as caught:
        remit.close(FRIDAY)
    assert "Monday" in caught.value.fields[0].description
    with pytest.raises(errors.InvalidRequest) as caught:
        remit.close(datetime.date(2026, 11, 23))
    assert "2026-11-20" in caught.value.fields[0].description
    (empty,) = remit.close()
    assert remit.statement(empty).period_end == datetime.date(2026, 11, 16)
    assert remit.statement(empty).settlements == 0
    with pytest.raises(remittance.PeriodClosed):
        remit.close()
    with pytest.raises(remittance.CommissionContractExists):
        remit.contract()


def test_a_settlement_without_a_contract_stops_the_close_and_nothing_is_half_done(agency, remit):
    remit.contract(valid_from=datetime.date(2026, 11, 1))
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(1_000, title_reference=placed.reference)
    agency.pay(1_000, title_reference=placed.reference, value_date=datetime.date(2026, 10, 31))
    end = remit.next_day()
    with pytest.raises(remittance.CommissionContractMissing) as caught:
        remit.close(end, slice_size=1)
    assert caught.value.metadata["value_date"] == "2026-10-31"
    assert not agency.rows("SELECT 1 FROM statement_lines")
    assert not agency.rows("SELECT 1 FROM statements")
    remit.contract(valid_from=datetime.date(2026, 1, 1))
    (made,) = remit.close(end)
    assert remit.statement(made).gross_minor == 2_000


def test_individual_statements_a_case_each_with_its_own_balance(agency, remit):
    remit.contract(grouping=remittance.Grouping.INDIVIDUAL, minimum_minor=3_000)
    one, two = (agency.place((TUESDAY, 100_000))[0] for _ in range(2))
    agency.pay(2_000, title_reference=one.reference)
    agency.pay(9_000, title_reference=two.reference)
    made = remit.close(remit.next_day())
    by_case = {found.for_case_id: found for found in map(remit.statement, made)}
    assert {key: found.gross_minor for key, found in by_case.items()} == {
        one.case_id: 2_000,
        two.case_id: 9_000,
    }
    assert by_case[one.case_id].remitted_minor == 0
    carried = by_case[one.case_id].carried_out_minor
    agency.pay(8_000, title_reference=one.reference)
    (again,) = remit.close(remit.next_day())
    found = remit.statement(again)
    assert (found.for_case_id, found.number, found.carried_in_minor) == (one.case_id, 2, carried)
    assert found.remitted_minor == 8_000 - found.commission_minor + carried
    assert remit.close(remit.next_day()) == [], "nothing settled, nothing carried"


def test_from_grouped_to_individual_the_balance_is_not_lost(agency, remit):
    remit.contract(minimum_minor=5_000)
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(2_000, title_reference=placed.reference)
    grouped = remit.close_day()
    remit.contract(valid_from=SATURDAY, grouping=remittance.Grouping.INDIVIDUAL)
    agency.pay(9_000, title_reference=placed.reference)
    made = [remit.statement(key) for key in remit.close(remit.next_day())]
    assert [(one.for_case_id, one.settlements > 0, one.carried_in_minor) for one in made] == [
        (None, False, grouped.carried_out_minor),
        (placed.case_id, True, 0),
    ]
    assert made[0].remitted_minor == grouped.carried_out_minor
    assert sum(one.gross_minor for one in made) == 9_000


def test_a_product_has_its_own_rates(agency, remit):
    remit.contract()
    own = remit.contract(
        product="CARD",
        frequency=None,
        grouping=None,
        bands=(remittance.Band(from_day=0, principal_rate_e4=500_000, charges_rate_e4=500_000),),
    )
    card, loan = (agency.place((TUESDAY, 100_000))[0] for _ in range(2))
    with psycopg.connect(agency.owner_url) as connection:
        connection.execute("UPDATE case_accounts SET product = 'CARD' WHERE case_id = %s", [card.case_id])
    agency.pay(10_000, title_reference=card.reference)
    agency.pay(10_000, title_reference=loan.reference)
    found = remit.lines(remit.close_day().id)
    assert {line.contract_id == own.contract_id for line in found if line.case_id == card.case_id} == {True}
    assert {line.contract_id == own.contract_id for line in found if line.case_id == loan.case_id} == {False}


def test_a_success_fee_when_nothing_of_the_case_is_open(agency, remit):
    remit.contract(success_rate_e4=20_000)
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(50_000, title_reference=placed.reference)
    assert remit.close_day().success_fee_minor == 0
    last = agency.pay(60_000, title_reference=placed.reference)
    second = remit.close_day()
    received = agency.title(placed).received_minor
    assert second.success_fee_minor == (received * 2 + 50) // 100
    agency.reverse(last)
    third = remit.close_day()
    assert third.success_fee_minor == -second.success_fee_minor


def test_money_on_a_novation_is_as_old_as_the_oldest_title_it_replaced(agency, remit):
    remit.contract()
    oldest = TUESDAY - datetime.timedelta(days=90)
    placed = agency.place((TUESDAY, 40_000), (oldest, 20_000))
    terms = plans.Terms(instalments=2, first_due_date=MONTH, annual_rate_e4=120_000)
    nature = novations.Nature(kind=accounts.AgreementKind.NOVATION)
    agency.agree(placed[0].case_id, terms=terms, options={"nature": nature})
    agency.pay(20_000, contract_reference=agency.rows(
        "SELECT contract_reference FROM case_accounts WHERE case_id = %s", placed[0].case_id)[0][0])  # fmt: skip
    found = remit.lines(remit.close_day().id)
    assert {line.component for line in found} == {"PRINCIPAL", "PLAN_INTEREST"}
    assert {line.days_past_due for line in found} == {(FRIDAY - oldest).days}
    assert {line.rate_e4 for line in found} == {200_000, 250_000}


def test_lines_are_counted_as_the_plain_rule_counts_them(agency, remit):
    """Fifty payments in any order of value dates, replays, reversals, an agreement; closed in slices, between them."""
    draw = random.Random(7)
    for number, (fixed_per, retained) in enumerate(
        [(None, False), (remittance.FixedPer.PAYMENT, True), (remittance.FixedPer.SETTLEMENT, False)]
    ):
        creditor, creditor_id = f"CRED-{number}X", ids.new()
        placed = [
            agency.place(
                (TUESDAY, 40_003), (TUESDAY - datetime.timedelta(days=40), 20_001),
                creditor=creditor, creditor_id=creditor_id,
            )[0]
            for _ in range(3)
        ]  # fmt: skip
        terms = remit.contract(
            creditor=creditor,
            tax=remittance.Tax.ISS,
            tax_rate_e4=47_300,
            tax_retained=retained,
            fixed_minor=37 if fixed_per else 0,
            fixed_per=fixed_per,
        )
        plan = plans.Terms(instalments=3, first_due_date=MONTH, annual_rate_e4=120_000)
        agency.agree(placed[0].case_id, terms=plan)
        entered = []
        before = written(agency)
        for step in range(50):
            if entered and draw.random() < 0.3:
                agency.reverse(entered.pop(draw.randrange(len(entered))))
            else:
                title = draw.choice(placed)
                entered.append(
                    agency.pay(
                        draw.randint(1, 9_999),
                        title_reference=title.reference,
                        creditor_reference=creditor,
                        value_date=FRIDAY - datetime.timedelta(days=draw.randint(0, 30)),
                    )
                )
            if step % 17 == 16:
                remit.close(remit.next_day(), slice_size=draw.randint(1, 9), creditor=creditor)
        remit.close(remit.next_day(), slice_size=3, creditor=creditor)
        assert not agency.rows("SELECT 1 FROM settlements_waiting")
        found = {key: line for key, line in written(agency).items() if key not in before}
        assert any(line[3] < 0 for line in found.values())
        wanted = expected_of(agency, [terms], creditor_id)
        assert found == wanted


def expected_of(agency, contracts, creditor_id):
    mine = {
        row.id
        for row in agency.rows(
            "SELECT id FROM postings JOIN case_accounts USING (agency, case_id)"
            " WHERE kind = 'RECEIVED' AND creditor_id = %s",
            creditor_id,
        )
    }
    return {key: line for key, line in expected(agency, contracts).items() if key in mine}


def test_what_is_taken_back_waits_for_what_it_takes_back(agency, remit):
    """A transaction of the day before may commit behind one of the day after."""
    remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.set_clock(SATURDAY)
    payment = agency.pay(5_000, title_reference=placed.reference)
    agency.set_clock(FRIDAY)
    agency.reverse(payment)
    agency.set_clock(SATURDAY)
    (first,) = remit.close(SATURDAY)
    assert remit.statement(first).settlements == 0
    second = remit.close_day()
    assert (second.settlements, second.gross_minor, second.commission_minor) == (6, 0, 0)


def test_the_database_keeps_a_closed_statement_as_it_is(agency, remit, database_of_test):
    remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(50_000, title_reference=placed.reference)
    statement = remit.close_day()
    line = remit.lines(statement.id)[0]
    for wrong in (
        "UPDATE statements SET remitted_minor = 1, carried_out_minor = net_minor - 1",
        "UPDATE statements SET state = 'PAID', approved_by = 'x', approved_at = now(), pay_date = '2026-11-30',"
        " bank_reference = 'x' WHERE state = 'CLOSED'",
        "UPDATE statements SET state = 'APPROVED', approved_by = closed_by, approved_at = now()"
        " WHERE state = 'CLOSED'",
        "UPDATE statements SET state = 'CLOSED', period_start = '2026-11-21', period_end = '2026-11-22',"
        " closed_by = 'x', closed_at = now(), gross_minor = 5, net_minor = 5, remitted_minor = 5"
        " WHERE state = 'OPEN'",
        "DELETE FROM statements",
        "UPDATE statement_lines SET percentage_minor = 0",
        "DELETE FROM statement_lines",
        "TRUNCATE statement_lines",
        f"INSERT INTO statement_lines SELECT agency, posting_id, statement_id, contract_id, 0, 0, 0, 0, 0, 0, 0"
        f" FROM statement_lines WHERE posting_id = {line.posting_id}",
    ):
        with psycopg.connect(agency.owner_url) as connection, pytest.raises(psycopg.Error):
            connection.execute(wrong)
    assert remit.statement(statement.id) == statement


def test_statements_are_told_again(agency, remit):
    remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(50_000, title_reference=placed.reference)
    statement = remit.close_day()
    told = len(testing.published(agency.engine, kind="statement_changed"))
    progress = republish.Progress(part="statements")
    while progress is not None:
        with agency.tx() as tx:
            progress = republish.step(
                tx=tx, agency=agency.agency, progress=progress, moment=agency.moment(tx), page=1
            )
    (again,) = testing.published(agency.engine, kind="statement_changed")[told:]
    assert again.fact.statement_changed.gross_minor == 50_000
    assert again.fact.version == statement.version


# -- at once -----------------------------------------------------------------------------------------------------------


def test_two_closes_at_once(agency, remit):
    remit.contract()
    (placed,) = agency.place((TUESDAY, 1_000_000))
    for _ in range(5):
        agency.pay(50_000, title_reference=placed.reference)
        end = remit.next_day()
        results = at_once(*[lambda: remit.close(end)] * 3)  # noqa: B023
        assert sorted(type(one).__name__ for one in results) == ["PeriodClosed", "PeriodClosed", "list"]
        remit.check()


def test_statement_close_against_reversal(agency, remit):
    """Either the reversal is in the statement, or it is clawed back in the next one; it adds up both ways."""
    remit.contract(
        tax=remittance.Tax.ISS, tax_rate_e4=33_300, fixed_minor=50, fixed_per=remittance.FixedPer.PAYMENT
    )
    seen = set()
    for number in range(8):
        placed = [agency.place((TUESDAY, 100_000))[0] for _ in range(4)]
        entered = [agency.pay(33_333, title_reference=one.reference) for one in placed]
        end = remit.next_day()
        works = [lambda one=one: agency.reverse(one) for one in entered]
        results = at_once(
            lambda: remit.close(end, slice_size=1 + number % 4),  # noqa: B023
            *works,
        )
        assert not [one for one in results if isinstance(one, Exception)]
        (first,) = results[0]
        seen.add(remit.statement(first).gross_minor)
        agency.check_money()
        remit.check()
        rest = remit.close_day()
        assert remit.statement(first).gross_minor + rest.gross_minor == 0
        assert remit.statement(first).commission_minor + rest.commission_minor == 0
        assert remit.statement(first).tax_added_minor + rest.tax_added_minor == 0
    assert seen <= set(range(0, 4 * 33_333 + 1, 33_333)), "whole payments only"


def test_statement_close_against_payments_loses_none(agency, remit):
    remit.contract()
    placed = [agency.place((TUESDAY, 1_000_000))[0] for _ in range(4)]
    agency.pay(1, title_reference=placed[0].reference)
    stop = threading.Event()

    def pay(title):
        count = 0
        while not stop.is_set() and count < 60:
            agency.pay(1_000, title_reference=title.reference)
            count += 1
        return count

    def close():
        try:
            return [remit.close(remit.next_day(), slice_size=7) for _ in range(6)]
        finally:
            stop.set()

    closed, *counts = at_once(close, *[lambda one=one: pay(one) for one in placed])
    assert len(closed) == 6
    remit.check()
    remit.close(remit.next_day(), slice_size=11)
    assert not agency.rows("SELECT 1 FROM settlements_waiting")
    (total,) = agency.rows("SELECT sum(gross_minor) AS gross FROM statements")
    assert total.gross == 1 + 1_000 * sum(counts)


def test_two_approvals_at_once(agency, remit):
    remit.contract()
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(50_000, title_reference=placed.reference)
    statement = remit.close_day()
    results = at_once(
        lambda: remit.approve(statement.id, by="users/2"), lambda: remit.approve(statement.id, by="users/3")
    )
    assert [type(one) for one in results if one is not None] == [remittance.StatementNotClosed]


def test_a_slice_bigger_than_a_batch(agency, remit):
    remit.contract()
    placed = [agency.place((TUESDAY, 1_000_000))[0] for _ in range(20)]
    agency.enter(
        *[
            agency.report(1_003, title_reference=one.reference, bank_reference=f"{one.reference}-{number}")
            for one in placed
            for number in range(10)
        ]
    )
    statement = remit.close_day(slice_size=64)
    assert statement.gross_minor == 200 * 1_003
    assert statement.settlements == 200
    assert sums(remit.lines(statement.id))[:2] == (statement.gross_minor, statement.commission_minor)
