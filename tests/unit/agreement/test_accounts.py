"""Accounts: any sequence of commands keeps every balance exact; order of arrival and reversal leave no trace."""

import copy
import datetime
import itertools
import uuid

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agreement_service.domain import accounts
from agreement_service.domain.accounts import waterfalls

CASE = uuid.UUID(int=1)
AGREEMENT = uuid.UUID(int=2)
DUE = datetime.date(2026, 10, 6)
TODAY = datetime.date(2026, 11, 20)


def title(number, minor, due=DUE):
    return accounts.Title(
        title_id=uuid.UUID(int=100 + number),
        case_id=CASE,
        reference=f"T{number}",
        due_date=due,
        payable_until=due,
        principal_minor=minor,
        penalty_rate_e4=20_000,
        monthly_rate_e4=10_000,
        accrued_through=due,
        open_principal_minor=minor,
    )


def payment(number, minor, date=TODAY, named=None):
    return accounts.Payment(
        payment_id=uuid.UUID(int=1_000 + number),
        case_id=CASE,
        title_id=named,
        key=accounts.PaymentKey(date, ("C", "A", "PIX", f"{number:06d}")),
        amount_minor=minor,
    )


def agreement(state=accounts.AgreementState.PROPOSED):
    return accounts.Agreement(
        agreement_id=AGREEMENT,
        case_id=CASE,
        case_ids=(CASE,),
        state=state,
        currency="BRL",
        expire_date=TODAY + datetime.timedelta(days=5),
        notice_days=3,
        missed_days=1,
        broken_days=10,
    )


def agree(account, *, discount=0, interest=0, count=3, number=0):
    """Agree on all open titles: `count` instalments, plan interest of `interest` each."""
    made = dataclass_replace(agreement(), agreement_id=uuid.UUID(int=5_000 + number))
    agreed, total = [], 0
    for one in account.titles:
        if not one.open_minor:
            continue
        accrual = one.accrual(made.expire_date)
        penalty = one.open_penalty_minor + accrual.penalty_minor
        interest_part = one.open_interest_minor + accrual.interest_minor
        waived_interest = min(discount, interest_part)
        waived_penalty = min(discount - waived_interest, penalty)
        discount -= waived_interest + waived_penalty
        total += one.open_principal_minor + penalty + interest_part - waived_interest - waived_penalty
        agreed.append(
            accounts.AgreedTitle(
                title_id=one.title_id,
                case_id=CASE,
                title_version=1,
                principal_minor=one.open_principal_minor,
                penalty_minor=penalty,
                interest_minor=interest_part,
                waived_penalty_minor=waived_penalty,
                waived_interest_minor=waived_interest,
            )
        )
    if total < count:
        return False
    part = total // count
    rows = [
        accounts.Instalment(
            instalment_id=uuid.UUID(int=10_000 * (number + 1) + place),
            agreement_id=made.agreement_id,
            number=place + 1,
            due_date=TODAY + datetime.timedelta(days=30 * (place + 1)),
            payable_until=TODAY + datetime.timedelta(days=30 * (place + 1)),
            capital_minor=part if place < count - 1 else total - part * (count - 1),
            interest_minor=interest,
        )
        for place in range(count)
    ]
    account.accept(agreement=made, agreed=agreed, instalments=rows, business_date=TODAY)
    return True


def dataclass_replace(one, **fields):
    import dataclasses

    return dataclasses.replace(one, **fields)


def check(account):
    """Every balance is what the rules say it is."""
    for one in account.titles:
        parts = (one.open_principal_minor, one.open_penalty_minor, one.open_interest_minor)
        assert min(*parts, one.charged_penalty_minor, one.charged_interest_minor) >= 0
        assert min(one.received_minor, one.waived_minor, one.withdrawn_minor) >= 0
        assert one.principal_minor + one.charged_penalty_minor + one.charged_interest_minor == (
            sum(parts) + one.received_minor + one.waived_minor + one.withdrawn_minor + one.written_off_minor
        )
    for row in (*account.instalments, *account.ended):
        assert 0 <= row.paid_interest_minor <= row.charged_interest_minor <= row.interest_minor
        assert 0 <= row.paid_capital_minor <= row.capital_minor


def snapshot(account):
    return copy.deepcopy((account.titles, account.instalments, account.agreement))


def test_penalty_then_interest_then_principal():
    account = accounts.Account(titles=[title(1, 100_000)])
    one = payment(1, 10_000)
    account.settle(new=[one], business_date=TODAY)
    received = [(entry.component, entry.amount_minor) for entry in one.entries if entry.kind == "RECEIVED"]
    assert received == [("PENALTY", 2_000), ("INTEREST", 1_500), ("PRINCIPAL", 6_500)]


@given(
    amounts=st.lists(st.tuples(st.integers(1, 80_000), st.integers(-40, 0)), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    in_agreement=st.booleans(),
)
def test_the_order_of_arrival_leaves_no_trace(amounts, order, in_agreement):
    def run(numbers):
        account = accounts.Account(titles=[title(1, 100_000), title(2, 30_000, TODAY)])
        if in_agreement:
            agree(account, interest=150, discount=1_000)
        made = {
            number: payment(number, minor, TODAY + datetime.timedelta(days=days))
            for number, (minor, days) in enumerate(amounts)
        }
        done = []
        for number in numbers:
            later = [one for one in done if one.key > made[number].key]
            account.settle(new=[made[number]], later=later, business_date=TODAY)
            done.append(made[number])
        check(account)
        return snapshot(account), sorted((one.key, one.entries) for one in done)

    shuffled = list(range(len(amounts)))
    order.shuffle(shuffled)
    by_date = sorted(shuffled, key=lambda number: (amounts[number][1], number))
    assert run(shuffled) == run(by_date)


@given(
    amounts=st.lists(st.tuples(st.integers(1, 80_000), st.integers(-40, 0)), min_size=1, max_size=5),
    which=st.integers(0, 4),
    in_agreement=st.booleans(),
)
def test_a_reversed_payment_leaves_no_trace(amounts, which, in_agreement):
    def opened():
        account = accounts.Account(titles=[title(1, 100_000), title(2, 30_000, TODAY)])
        if in_agreement:
            agree(account, interest=150)
        return account

    def made():
        return [
            payment(number, minor, TODAY + datetime.timedelta(days=days))
            for number, (minor, days) in enumerate(amounts)
        ]

    gone = which % len(amounts)
    account, paid = opened(), made()
    account.settle(new=paid, business_date=TODAY)
    removed = paid[gone]
    later = [one for one in paid if one.key > removed.key]
    account.settle(removed=[removed], later=later, business_date=TODAY)
    without, others = opened(), [one for place, one in enumerate(made()) if place != gone]
    without.settle(new=others, business_date=TODAY)
    assert snapshot(account) == snapshot(without)
    assert (removed.state, removed.allocated_minor, removed.overpaid_minor) == ("REVERSED", 0, 0)


@given(
    amounts=st.lists(st.tuples(st.integers(1, 90_000), st.integers(-40, 0)), min_size=2, max_size=6),
    order=st.randoms(use_true_random=False),
    which=st.integers(0, 5),
    share=st.integers(0, 100),
)
def test_a_refund_leaves_the_same_as_if_that_money_had_never_come(amounts, order, which, share):
    """Whatever comes in whatever order, and one is reversed afterwards: what was refunded pays nothing."""

    def made(number, refunded=0):
        minor, days = amounts[number]
        one = payment(number, minor, TODAY + datetime.timedelta(days=days))
        one.refunded_minor = refunded
        return one

    def opened():
        return accounts.Account(titles=[title(1, 60_000), title(2, 30_000, TODAY)])

    shuffled = list(range(len(amounts)))
    order.shuffle(shuffled)
    account, done = opened(), {}
    for number in shuffled:
        done[number] = made(number)
        later = [one for one in done.values() if one.key > done[number].key]
        account.settle(new=[done[number]], later=later, business_date=TODAY)
    spender = done[which % len(amounts)]
    part = spender.overpaid_minor * share // 100
    spender.refunded_minor += part
    spender.overpaid_minor -= part
    spender.settle_state()
    (gone,) = [one for number, one in done.items() if number == (which + 1) % len(amounts)]
    later = [one for one in done.values() if one.key > gone.key]
    account.settle(removed=[gone], later=later, business_date=TODAY)
    check(account)
    again = [
        made(number, part if done[number] is spender else 0) for number in done if done[number] is not gone
    ]
    expected = opened()
    expected.settle(new=again, business_date=TODAY)
    assert snapshot(account) == snapshot(expected)
    mine = sorted((one.key, one.entries, one.state) for one in done.values() if one is not gone)
    assert mine == sorted((one.key, one.entries, one.state) for one in again)


@given(
    shares=st.lists(st.integers(1, 40_000), min_size=2, max_size=2),
    amount=st.integers(80_000, 200_000),
    earlier=st.integers(1, 100_000),
)
def test_chosen_titles_get_their_share_first_and_every_centavo_is_somewhere(shares, amount, earlier):
    account = accounts.Account(titles=[title(1, 60_000), title(2, 50_000), title(3, 40_000)])
    chosen = account.titles[2], account.titles[1]
    one = payment(2, amount)
    one.chosen = tuple((of.title_id, most) for of, most in zip(chosen, shares, strict=True))
    account.settle(new=[one], business_date=TODAY)
    before = payment(1, earlier, TODAY - datetime.timedelta(days=3))
    account.settle(new=[before], later=[one], business_date=TODAY)
    check(account)
    assert one.allocated_minor + one.overpaid_minor == amount
    keys = [(entry.title_id, entry.component, entry.kind) for entry in one.entries]
    assert len(set(keys)) == len(keys), "one entry a title and component"
    got = {of.title_id: 0 for of in account.titles}
    for entry in one.entries:
        got[entry.title_id] += entry.amount_minor if entry.kind == "RECEIVED" else 0
    for of, most in zip(chosen, shares, strict=True):
        assert got[of.title_id] >= most or not of.open_minor


def test_standard_4_8_lawful_orders():
    """CC BR 354, CC PT 785: 8 orders of members within each of the 3 orders of groups, and no others."""
    pairs = [("COSTS", "FEES"), ("PENALTY", "INTEREST"), ("CORRECTION", "PRINCIPAL")]
    found = 0
    for order in itertools.permutations(accounts.WATERFALL):
        place = {component.value: at for at, component in enumerate(order)}
        together = all(abs(place[one] - place[two]) == 1 for one, two in pairs)
        expected = together and place["COSTS"] < place["PENALTY"]
        assert waterfalls.lawful(order) is expected
        found += expected
    assert found == 3 * 8
    assert waterfalls.lawful(accounts.WATERFALL)


@given(
    minor=st.integers(1, 400_000),
    count=st.integers(1, 12),
    interest=st.integers(0, 500),
    discount=st.integers(0, 3_000),
)
def test_paying_all_of_an_agreement_leaves_nothing(minor, count, interest, discount):
    account = accounts.Account(titles=[title(1, minor), title(2, 777)])
    if not agree(account, count=count, interest=interest, discount=discount):
        return
    total = sum(row.amount_minor for row in account.instalments)
    paid = payment(1, total + 5)
    account.settle(new=[paid], business_date=TODAY)
    assert (paid.allocated_minor, paid.overpaid_minor) == (total, 5)
    assert account.agreement.state == "FULFILLED"
    assert {one.state for one in account.titles} == {"PAID"}


@pytest.mark.parametrize(
    ("days", "paid", "state"),
    [
        (-4, 0, "SCHEDULED"),
        (-3, 0, "NOTIFIED"),
        (-1, 0, "NOTIFIED"),
        (-1, 1, "PARTIAL"),
        (0, 0, "DUE"),
        (0, 1, "PARTIAL"),
        (2, 0, "DUE"),  # Saturday, Sunday, Monday: the day after the weekend is in time
        (3, 0, "MISSED"),
        (3, 1, "MISSED"),
        (9, 0, "MISSED"),
        (10, 0, "DEFAULTED"),
    ],
)
def test_states_of_an_instalment(days, paid, state):
    saturday = datetime.date(2026, 11, 28)
    row = accounts.Instalment(
        instalment_id=uuid.UUID(int=9),
        agreement_id=AGREEMENT,
        number=1,
        due_date=saturday,
        payable_until=saturday + datetime.timedelta(days=2),
        capital_minor=100,
        interest_minor=0,
        paid_capital_minor=paid,
    )
    found = accounts.instalment_state(
        row, agreement=agreement(), business_date=saturday + datetime.timedelta(days=days)
    )
    assert found == state


class Money(RuleBasedStateMachine):
    """Titles, payments, reversals, agreements in any order, with the checks of the database after each step."""

    @initialize(minors=st.lists(st.integers(1, 100_000), min_size=1, max_size=4), gap=st.integers(0, 60))
    def open(self, minors, gap):
        self.account = accounts.Account(
            titles=[
                title(number, minor, DUE + datetime.timedelta(days=gap * number))
                for number, minor in enumerate(minors)
            ]
        )
        self.live, self.behind, self.gone, self.count = [], [], [], 0
        self.written = {}
        self.paid_in = 0
        self.accepted = False

    @rule(minor=st.integers(1, 60_000), days=st.integers(-30, 30), named=st.integers(0, 3))
    def pay(self, minor, days, named):
        self.count += 1
        chosen = self.account.titles[named % len(self.account.titles)].title_id
        made = payment(self.count, minor, TODAY + datetime.timedelta(days=days), chosen)
        later = [one for one in self.live if one.key > made.key]
        self.account.settle(new=[made], later=later, business_date=TODAY)
        self.live.append(made)

    @precondition(lambda self: self.live)
    @rule(which=st.integers(0, 50), becomes=st.sampled_from(["REVERSED", "ANNULLED", "UNIDENTIFIED"]))
    def reverse(self, which, becomes):
        gone = self.live.pop(which % len(self.live))
        self.gone.append(gone)
        later = [one for one in self.live if one.key > gone.key]
        becomes = accounts.PaymentState(becomes)
        self.account.settle(removed=[gone], later=later, business_date=TODAY, becomes=becomes)
        assert gone.state is becomes

    @precondition(lambda self: any(one.overpaid_minor for one in (*self.live, *self.behind)))
    @rule(which=st.integers(0, 50), part=st.integers(1, 1_000), as_credit=st.booleans())
    def spend(self, which, part, as_credit):
        holding = [one for one in (*self.live, *self.behind) if one.overpaid_minor]
        spent = holding[which % len(holding)]
        part = min(part, spent.overpaid_minor)
        spent.overpaid_minor -= part
        if as_credit:
            spent.credited_minor += part
        else:
            spent.refunded_minor += part
        spent.settle_state()

    @rule(which=st.integers(0, 3))
    def write_off(self, which):
        chosen = self.account.titles[which % len(self.account.titles)]
        if chosen.agreement_id is not None or not chosen.open_minor:
            return
        before = len(self.account.postings)
        self.account.write_off([chosen.title_id], date=TODAY)
        entries = [post.entry for post in self.account.postings[before:]]
        self.written.setdefault(chosen.title_id, []).extend(entries)
        assert not chosen.open_minor
        self._epoch()

    @precondition(lambda self: self.written)
    @rule(which=st.integers(0, 3))
    def undo_write_off(self, which):
        title_id = sorted(self.written)[which % len(self.written)]
        chosen = self.account.title(title_id)
        if chosen.agreement_id is not None:
            return
        self.account.undo_write_off(self.written.pop(title_id), date=TODAY)
        assert not chosen.written_off_minor
        self._epoch()

    @precondition(lambda self: self.behind)
    @rule(which=st.integers(0, 50))
    def reverse_behind(self, which):
        gone = self.behind.pop(which % len(self.behind))
        self.gone.append(gone)
        oldest = {row.instalment_id: self.account.titles[0].title_id for row in self.account.ended}
        self.account.reverse_behind(gone, oldest=oldest, in_force=[], date=TODAY)

    @precondition(
        lambda self: self.account.agreement is None or self.account.agreement.state not in accounts.IN_FORCE
    )
    @rule(interest=st.integers(0, 400), discount=st.integers(0, 2_000), count=st.integers(1, 4))
    def accept(self, interest, discount, count):
        if self.account.agreement is not None:
            self._leave()
        self.count += 1
        if agree(self.account, interest=interest, discount=discount, count=count, number=self.count):
            self._epoch()

    @precondition(
        lambda self: self.account.agreement is not None and self.account.agreement.state in accounts.IN_FORCE
    )
    @rule(days=st.integers(0, 100), state=st.sampled_from(["BROKEN", "CANCELLED", "EXPIRED"]))
    def end(self, days, state):
        date = TODAY + datetime.timedelta(days=days)
        waived = sum(one.waived_minor for one in self.account.titles)
        forgiven = sum(item.waived_penalty_minor + item.waived_interest_minor for item in self.account.agreed)
        self.account.end(state=accounts.AgreementState(state), date=date)
        assert sum(one.waived_minor for one in self.account.titles) == waived - forgiven
        self._leave()

    def _leave(self):
        self.account = accounts.Account(
            titles=self.account.titles,
            ended=[*self.account.ended, *self.account.instalments],
            postings=self.account.postings,
        )
        for one in self.account.titles:
            one.agreement_id = None
        self._epoch()

    def _epoch(self):
        self.behind += self.live
        self.live = []

    @invariant()
    def balances_are_exact(self):
        if not hasattr(self, "account"):
            return
        check(self.account)
        for one in (*self.live, *self.behind):
            received = sum(entry.amount_minor for entry in one.entries if entry.kind == "RECEIVED")
            spent = one.refunded_minor + one.credited_minor
            assert one.allocated_minor + one.overpaid_minor + spent == one.amount_minor
            assert min(one.allocated_minor, one.overpaid_minor) >= 0
            assert received == one.allocated_minor
        for one in self.gone:
            assert (one.allocated_minor, one.overpaid_minor, one.entries) == (0, 0, [])
        taken = sum(one.allocated_minor for one in (*self.live, *self.behind))
        plan = sum(row.paid_interest_minor for row in (*self.account.instalments, *self.account.ended))
        assert taken == sum(one.received_minor for one in self.account.titles) + plan

    @invariant()
    def the_ledger_has_every_change(self):
        if not hasattr(self, "account"):
            return
        for one in self.account.titles:
            posted = [post.entry for post in self.account.postings if post.entry.title_id == one.title_id]
            charged = sum(entry.amount_minor for entry in posted if entry.kind == "CHARGED")
            taken = sum(entry.amount_minor for entry in posted if entry.kind != "CHARGED")
            assert one.open_minor == one.principal_minor + charged - taken


TestMoney = Money.TestCase
TestMoney.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, phases=[hypothesis.Phase.generate]
)
