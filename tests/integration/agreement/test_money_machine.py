"""Any sequence of what people do with payments, titles and agreements, on a real PostgreSQL: all money in sight."""

import datetime

import hypothesis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agreement_service.domain import limits, plans
from agreement_service.domain import writeoffs as writeoff_rules
from agreement_service.usecases import credits, ledger, payments, writeoffs
from servicekit import errors, ids

TUESDAY = datetime.date(2026, 10, 6)
MONTH = datetime.date(2026, 12, 21)


class Desk(RuleBasedStateMachine):
    """One debtor with two cases; typed refusals are answers as good as any, nothing may be half done by them."""

    agency = None

    @initialize(minors=st.lists(st.integers(1, 100_000), min_size=3, max_size=3))
    def place(self, minors):
        debtor = ids.new()
        first = self.agency.place((TUESDAY, minors[0]), (MONTH, minors[1]), debtor_id=debtor)
        second = self.agency.place((TUESDAY, minors[2]), debtor_id=debtor)
        self.titles = [*first, *second]
        self.known, self.agreements = [], []
        self.seen = self.balances()

    def balances(self):
        with self.agency.tx() as tx:
            found = ledger.trial_balance(tx=tx, agency=self.agency.agency)
        return {one.account: one.balance_minor for one in found}

    def one(self, which):
        return self.known[which % len(self.known)]

    def run(self, function, **arguments):
        before = self.balances()
        try:
            with self.agency.tx() as tx:
                return function(tx=tx, agency=self.agency.agency, moment=self.agency.moment(tx), **arguments)
        except errors.ServiceError:
            assert self.balances() == before, "refused, and yet something was done"
            return None

    @rule(
        minor=st.integers(1, 60_000),
        days=st.integers(-40, 3),
        which=st.integers(0, 2),
        named=st.booleans(),
        unconfirmed=st.booleans(),
    )
    def pay(self, minor, days, which, named, unconfirmed):
        reference = self.titles[which].reference if named else ""
        report = self.agency.report(
            minor,
            title_reference=reference,
            unconfirmed=unconfirmed,
            value_date=self.agency.today + datetime.timedelta(days=days),
        )
        self.known.append(self.agency.enter(report).payments[report.identity])

    @precondition(lambda self: self.known)
    @rule(
        which=st.integers(0, 50),
        way=st.sampled_from([payments.annul, payments.reverse, payments.unmatch]),
    )
    def take_back(self, which, way):
        reason = {} if way is payments.unmatch else {"reason": "so it is"}
        self.run(way, payment_id=self.one(which), version=None, bank=self.agency.bank, **reason)

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 50), title=st.integers(0, 2))
    def match(self, which, title):
        chosen = self.titles[title]
        target = payments.Target(case_id=chosen.case_id, title_id=chosen.title_id)
        self.run(
            payments.match_by_hand,
            payment_id=self.one(which),
            target=target,
            version=None,
            bank=self.agency.bank,
        )

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 50))
    def confirm(self, which):
        self.run(
            payments.confirm,
            payment_id=self.one(which),
            account="",
            means="",
            bank_reference="",
            value_date=None,
            amount=None,
            version=None,
            bank=self.agency.bank,
        )

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 50), minor=st.integers(1, 20_000))
    def refund(self, which, minor):
        self.run(
            credits.refund,
            payment_id=self.one(which),
            amount_minor=minor,
            currency="BRL",
            reason="asked",
            by="users/1",
            version=None,
            authority=limits.SYSTEM,
        )

    @precondition(lambda self: self.known)
    @rule(which=st.integers(0, 50), title=st.integers(0, 2))
    def credit(self, which, title):
        made = self.run(
            credits.apply_credit,
            payment_id=self.one(which),
            case_id=self.titles[title].case_id,
            amount=None,
            version=None,
            bank=self.agency.bank,
        )
        self.known += [made] if made is not None else []

    @rule(title=st.integers(0, 2), undo=st.booleans())
    def write_off(self, title, undo):
        chosen = self.titles[title]
        arguments = {"case_id": chosen.case_id, "title_ids": [chosen.title_id], "bank": self.agency.bank}
        if undo:
            self.run(writeoffs.undo, reason="too soon", **arguments)
        else:
            self.run(
                writeoffs.write_off,
                type_=writeoff_rules.WriteOffType.OTHER,
                reason="lost",
                by="users/1",
                authority=limits.SYSTEM,
                **arguments,
            )

    @rule(title=st.integers(0, 2), count=st.integers(1, 3))
    def agree(self, title, count):
        terms = plans.Terms(instalments=count, first_due_date=MONTH, annual_rate_e4=240_000)
        try:
            self.agreements.append(self.agency.agree(self.titles[title].case_id, terms=terms))
        except errors.ServiceError:
            return

    @precondition(lambda self: self.agreements)
    @rule(which=st.integers(0, 5))
    def cancel(self, which):
        try:
            self.agency.cancel(self.agreements[which % len(self.agreements)])
        except errors.ServiceError:
            return

    @invariant()
    def the_ledger_balances(self):
        if self.agency is not None and hasattr(self, "titles"):
            assert sum(self.balances().values()) == 0

    def teardown(self):
        if hasattr(self, "titles"):
            self.agency.check_money()


def test_every_sequence_keeps_all_money_in_sight(agency):
    class OfThisAgency(Desk):
        pass

    OfThisAgency.agency = agency
    run_state_machine_as_test(
        OfThisAgency,
        settings=settings(
            max_examples=8, stateful_step_count=14, deadline=None, phases=[hypothesis.Phase.generate]
        ),
    )
