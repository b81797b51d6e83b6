"""Novations: what left the originals is what the new titles hold, whatever is paid, ended, brought back."""

import copy
import dataclasses
import datetime
import uuid

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agreement_service.domain import accounts, confessions, creditors, novations
from servicekit import errors

CASE = uuid.UUID(int=1)
DUE = datetime.date(2026, 10, 6)
TODAY = datetime.date(2026, 11, 20)
RESTORE = creditors.BreachPolicy.RESTORE_ORIGINALS
KEEP = creditors.BreachPolicy.KEEP_NOVATION
BROKEN = accounts.AgreementState.BROKEN


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


def agreed_of(one, date, forgive):
    parts = {"PRINCIPAL": 0, **one.owed(date)}
    charges = {name: amount for name, amount in parts.items() if name != "PRINCIPAL"}
    waived = {f"waived_{name.lower()}_minor": amount for name, amount in charges.items()} if forgive else {}
    return accounts.AgreedTitle(
        title_id=one.title_id,
        case_id=one.case_id,
        title_version=1,
        **{f"{name.lower()}_minor": amount for name, amount in parts.items()},
        **waived,
    )


def novate(account, *, count=3, interest=0, forgive=False, policy=RESTORE, number=0, acquirer="", date=TODAY):
    """Agree by novation on all open titles; whether there was enough to agree on."""
    made = accounts.Agreement(
        agreement_id=uuid.UUID(int=5_000 + number),
        case_id=CASE,
        case_ids=(CASE,),
        state=accounts.AgreementState.PROPOSED,
        currency="BRL",
        expire_date=date + datetime.timedelta(days=5),
        notice_days=3,
        missed_days=1,
        broken_days=10,
        kind=accounts.AgreementKind.NOVATION,
        breach_policy=policy,
        acquirer=acquirer,
    )
    agreed = [agreed_of(one, made.expire_date, forgive) for one in account.titles if one.open_minor]
    total = sum(sum(novations.gone(item).values()) for item in agreed)
    if total < count:
        return False
    rows = [
        accounts.Instalment(
            instalment_id=uuid.UUID(int=10_000 * (number + 1) + place),
            agreement_id=made.agreement_id,
            number=place + 1,
            due_date=date + datetime.timedelta(days=30 * (place + 1)),
            payable_until=date + datetime.timedelta(days=30 * (place + 1)),
            capital_minor=total // count if place < count - 1 else total - total // count * (count - 1),
            interest_minor=interest,
        )
        for place in range(count)
    ]
    account.accept(agreement=made, agreed=agreed, instalments=rows, business_date=date)
    new = novations.new_titles(
        account=account,
        agreement=made,
        named=novations.references(
            prefix="REN", contract="CT", number=number + 1, instalments=range(1, count + 1)
        ),
        title_ids={place: uuid.UUID(int=50_000 * (number + 1) + place) for place in range(1, count + 1)},
    )
    account.add(new)
    novations.novate(account, new=new, date=date)
    return True


def over(account):
    """What the next transaction loads after an agreement ended: nothing is bound."""
    account.ended += account.instalments
    account.agreement, account.instalments, account.agreed, account.originals = None, [], [], []


def check(account):
    for one in account.titles:
        parts = [one.open_of(component) for component in accounts.WATERFALL]
        charged = sum(getattr(one, f"charged_{name.lower()}_minor") for name in accounts.CHARGES)
        gone = one.received_minor + one.waived_minor + one.withdrawn_minor + one.written_off_minor
        assert min(*parts, charged, gone, one.novated_minor) >= 0
        assert one.principal_minor + charged == sum(parts) + gone + one.novated_minor
    for row in (*account.instalments, *account.ended):
        assert 0 <= row.paid_interest_minor <= row.charged_interest_minor <= row.interest_minor
        assert 0 <= row.paid_capital_minor <= row.capital_minor
    made = sum(one.principal_minor for one in account.titles if one.origin_agreement_id)
    assert sum(one.novated_minor for one in account.titles) == made
    ledger = {}
    for posting in account.postings:
        if posting.entry.title_id is not None:
            sign = 1 if posting.entry.kind == "CHARGED" else -1
            key = (posting.entry.title_id, posting.entry.component)
            ledger[key] = ledger.get(key, 0) + sign * posting.entry.amount_minor
    for one in account.titles:
        for component in accounts.WATERFALL:
            placed = one.principal_minor if component == "PRINCIPAL" else 0
            assert placed + ledger.get((one.title_id, component), 0) == one.open_of(component)


@pytest.mark.feature("S3-12", "S5-04")
def test_originals_leave_circulation_without_cash_and_new_titles_hold_the_full_sum():
    account = accounts.Account(titles=[title(1, 100_000), title(2, 50_000)])
    assert novate(account)
    originals, new = account.titles[:2], account.titles[2:]
    assert [one.state for one in originals] == ["NOVATED", "NOVATED"]
    assert [one.received_minor for one in originals] == [0, 0]
    assert (
        sum(one.open_principal_minor for one in new) == sum(one.novated_minor for one in originals) == 155_500
    )
    assert [one.reference for one in new] == ["REN-CT-1/1", "REN-CT-1/2", "REN-CT-1/3"]
    assert [one.state for one in new] == ["IN_AGREEMENT"] * 3
    check(account)


def test_references_sort_as_the_instalments_do():
    named = novations.references(prefix="REN", contract="A/7", number=2, instalments=range(13))
    assert (named[0], named[12]) == ("REN-A/7-2/00", "REN-A/7-2/12")
    assert sorted(named.values()) == [named[k] for k in range(13)]


def test_an_instalment_is_paid_on_its_own_title():
    account = accounts.Account(titles=[title(1, 90_000)])
    assert novate(account, interest=100)
    first, second = account.instalments[:2]
    account.settle(new=[payment(1, first.amount_minor + 50)], business_date=TODAY)
    assert [one.state for one in account.titles[1:3]] == ["PAID", "IN_AGREEMENT"]
    assert (second.paid_interest_minor, second.paid_capital_minor) == (50, 0)
    check(account)


def test_a_breach_gives_the_originals_back_less_what_was_paid_oldest_first():
    account = accounts.Account(titles=[title(1, 10_000), title(2, 50_000, DUE + datetime.timedelta(days=10))])
    assert novate(account, forgive=True)
    account.settle(new=[payment(1, 15_000)], business_date=TODAY)
    novations.end(account, state=BROKEN, date=TODAY + datetime.timedelta(days=45))
    older, younger = account.titles[:2]
    assert (older.open_principal_minor, younger.open_principal_minor) == (0, 45_000)
    assert younger.state == "PARTIALLY_PAID"
    assert all(one.open_minor == 0 for one in account.titles[2:])
    # the discount is owed again, on the older one too
    assert older.open_penalty_minor == 200
    assert sum(one.waived_minor for one in account.titles) == 0
    check(account)


def test_a_kept_novation_stays_as_ordinary_titles():
    account = accounts.Account(titles=[title(1, 90_000)])
    assert novate(account, policy=KEEP, interest=60)
    first = account.instalments[0]
    account.settle(new=[payment(1, 60)], business_date=first.due_date)
    date = first.due_date + datetime.timedelta(days=10)
    novations.end(account, state=BROKEN, date=date)
    assert account.titles[0].state == "NOVATED"
    assert [one.state for one in account.titles[1:]] == ["OPEN"] * 3
    assert account.titles[1].accrued_through == date
    check(account)


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
def test_a_novation_undone_otherwise_never_stays(state):
    account = accounts.Account(titles=[title(1, 90_000)])
    assert novate(account, policy=KEEP)
    novations.end(account, state=accounts.AgreementState(state), date=TODAY)
    assert account.titles[0].open_minor == 93_300
    check(account)


@pytest.mark.feature("S5-15")
def test_with_an_acquirer_the_debtor_owes_nothing_and_pays_nothing_of_it():
    account = accounts.Account(titles=[title(1, 90_000)])
    assert novate(account, acquirer="VISANET")
    assert account.agreement.state == "FULFILLED"
    assert {row.state for row in account.instalments} == {"RENEGOTIATED"}
    over(account)
    first = account.titles[1]
    later = title(9, 1_000, TODAY)
    account.add([later])
    stranger = payment(1, 5_000)
    account.settle(new=[stranger], business_date=TODAY)
    assert (later.open_minor, first.received_minor, stranger.overpaid_minor) == (0, 0, 4_000)
    his = payment(2, first.principal_minor + 7, named=first.title_id)
    account.settle(new=[his], business_date=TODAY)
    assert (first.state, his.overpaid_minor) == ("PAID", 7)
    assert first.accrual(TODAY + datetime.timedelta(days=400)).total_minor == 0
    check(account)


@given(
    minors=st.lists(st.integers(10, 80_000), min_size=1, max_size=4),
    count=st.integers(1, 6),
    interest=st.integers(0, 500),
    forgive=st.booleans(),
)
def test_paying_all_of_a_novation_leaves_nothing(minors, count, interest, forgive):
    account = accounts.Account(titles=[title(k, minor) for k, minor in enumerate(minors)])
    hypothesis.assume(novate(account, count=count, interest=interest, forgive=forgive))
    total = sum(row.amount_minor for row in account.instalments)
    last = payment(1, total)
    account.settle(new=[last], business_date=TODAY)
    assert account.agreement.state == "FULFILLED"
    assert last.overpaid_minor == 0
    assert all(one.open_minor == 0 for one in account.titles)
    check(account)


@given(
    minors=st.lists(st.integers(10, 80_000), min_size=1, max_size=4),
    paid=st.integers(1, 300_000),
    forgive=st.booleans(),
    interest=st.integers(0, 500),
)
def test_restored_with_a_payment_taken_back_is_as_if_nothing_had_been(minors, paid, forgive, interest):
    """Restore gives back the centavo: what the debtor owes is what he owed, less what he paid, plus what was earned."""
    account = accounts.Account(titles=[title(k, minor) for k, minor in enumerate(minors)])
    before = sum(sum(one.owed(TODAY + datetime.timedelta(days=5)).values()) for one in account.titles)
    hypothesis.assume(novate(account, forgive=forgive, interest=interest))
    one = payment(1, min(paid, sum(row.amount_minor for row in account.instalments) - 1))
    account.settle(new=[one], business_date=TODAY)
    earned = sum(row.charged_interest_minor for row in account.instalments)
    novations.end(account, state=BROKEN, date=TODAY)
    assert sum(title.open_minor for title in account.titles) == before + earned - one.allocated_minor
    check(account)


@given(
    minors=st.lists(st.integers(100, 80_000), min_size=1, max_size=3),
    parts=st.lists(st.integers(1, 40_000), max_size=3),
    since=st.lists(st.integers(1, 40_000), max_size=3),
    forgive=st.booleans(),
    policy=st.sampled_from([RESTORE, KEEP]),
    novation=st.booleans(),
)
def test_reinstated_is_as_if_it_had_not_been_broken(minors, parts, since, forgive, policy, novation):
    def begin():
        account = accounts.Account(titles=[title(k, minor) for k, minor in enumerate(minors)])
        if not novate(account, forgive=forgive, policy=policy, interest=70):
            return None
        if not novation:
            made = account.agreement
            account = accounts.Account(titles=[title(k, minor) for k, minor in enumerate(minors)])
            agreed = [agreed_of(one, made.expire_date, forgive) for one in account.titles]
            rows = [
                accounts.Instalment(
                    instalment_id=uuid.UUID(int=10_000 + place),
                    agreement_id=made.agreement_id,
                    number=1,
                    due_date=TODAY + datetime.timedelta(days=30),
                    payable_until=TODAY + datetime.timedelta(days=30),
                    capital_minor=sum(sum(novations.gone(item).values()) for item in agreed),
                    interest_minor=70,
                )
                for place in range(1)
            ]
            made = dataclasses.replace(
                made, kind=accounts.AgreementKind.PLAN, state=accounts.AgreementState.PROPOSED
            )
            account.accept(agreement=made, agreed=agreed, instalments=rows, business_date=TODAY)
        account.settle(new=[payment(k, minor) for k, minor in enumerate(parts)], business_date=TODAY)
        return account

    account, other = begin(), begin()
    hypothesis.assume(account is not None and account.agreement.state == "ACTIVE")
    end_date = TODAY + datetime.timedelta(days=45)
    kept = copy.copy((account.agreement, account.instalments, account.agreed, account.originals))
    ended = novations.end(account, state=BROKEN, date=end_date)
    account.agreement, account.instalments, account.agreed, account.originals = kept
    grace = end_date + datetime.timedelta(days=20)
    after = [payment(50 + k, minor, end_date + datetime.timedelta(days=1)) for k, minor in enumerate(since)]
    loose = accounts.Account(titles=account.titles, ended=account.instalments, postings=account.postings)
    loose.settle(new=after, business_date=end_date + datetime.timedelta(days=2))
    account.postings = loose.postings
    today = end_date + datetime.timedelta(days=3)
    novations.reinstate(account, ended=ended, payments=after, grace_date=grace, business_date=today)
    check(account)
    again = [payment(50 + k, minor, end_date + datetime.timedelta(days=1)) for k, minor in enumerate(since)]
    other.settle(new=again, business_date=today)

    def money(one):
        return [
            (t.reference, t.open_minor, t.received_minor, t.waived_minor, t.novated_minor, t.state)
            for t in one.titles
        ]

    if account.agreement.state == other.agreement.state == "ACTIVE":
        assert money(account) == money(other)
    assert [row.paid_minor for row in account.instalments] == [row.paid_minor for row in other.instalments]
    assert account.agreement.end_date is None
    for row in account.instalments:
        seen = accounts.instalment_state(row, agreement=account.agreement, business_date=grace)
        assert seen != "DEFAULTED"


def test_what_was_settled_otherwise_since_cannot_be_brought_back():
    account = accounts.Account(titles=[title(1, 90_000)])
    assert novate(account)
    kept = copy.copy((account.agreement, account.instalments, account.agreed, account.originals))
    ended = novations.end(account, state=BROKEN, date=TODAY)
    account.write_off([account.titles[0].title_id], date=TODAY)
    account.agreement, account.instalments, account.agreed, account.originals = kept
    with pytest.raises(novations.TitlesChangedSinceTheEnd):
        novations.reinstate(account, ended=ended, payments=[], grace_date=TODAY, business_date=TODAY)


@pytest.mark.parametrize(
    ("today", "refused"),
    [
        (datetime.date(2026, 11, 20), True),
        (datetime.date(2026, 11, 19), False),
        (datetime.date(2026, 11, 21), True),
    ],
)
def test_w07_a_tolerance_date_of_today_or_before_is_refused(today, refused):
    nature = novations.Nature(
        kind=accounts.AgreementKind.UNCHANGED, tolerance_date=datetime.date(2026, 11, 20)
    )
    assert bool(nature.check(today=today)) is refused


def test_what_belongs_to_another_kind_is_refused():
    wrong = novations.Nature(tolerance_date=TODAY, acquirer="X" * 61).check(today=DUE)
    assert [one.field for one in wrong] == ["nature.tolerance_date", "nature.acquirer", "nature.acquirer"]
    assert novations.Nature(kind=accounts.AgreementKind.UNCHANGED).check(today=DUE)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"%PDF-1.7", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
    ],
)
def test_a_confession_is_what_its_first_bytes_say(content, found):
    assert confessions.content_type(content) == found


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04", b"%PDF-" + bytes(confessions.MAX_BYTES)])
def test_anything_else_is_no_confession(content):
    with pytest.raises(errors.InvalidRequest):
        confessions.content_type(content)


class Novations(RuleBasedStateMachine):
    """Agree, pay, reverse, end, agree again: balances, ledger and the identity over originals and new titles hold."""

    @initialize(minors=st.lists(st.integers(50, 50_000), min_size=1, max_size=3))
    def begin(self, minors):
        self.account = accounts.Account(titles=[title(k, minor) for k, minor in enumerate(minors)])
        self.date, self.numbers, self.agreements = TODAY, 0, 0
        self.payments = []

    def running(self):
        return self.account.agreement is not None

    @precondition(lambda self: not self.running())
    @rule(
        count=st.integers(1, 4),
        interest=st.integers(0, 90),
        forgive=st.booleans(),
        policy=st.sampled_from([RESTORE, KEEP]),
    )
    def agree(self, count, interest, forgive, policy):
        began = novate(
            self.account,
            count=count,
            interest=interest,
            forgive=forgive,
            policy=policy,
            number=self.agreements,
            date=self.date,
        )
        if began:
            self.agreements += 1
            self.payments = []

    @rule(minor=st.integers(1, 60_000))
    def pay(self, minor):
        self.numbers += 1
        one = payment(self.numbers, minor, self.date)
        self.account.settle(new=[one], later=[], business_date=self.date)
        self.payments.append(one)

    @precondition(lambda self: self.payments)
    @rule(data=st.data())
    def reverse(self, data):
        one = data.draw(st.sampled_from(self.payments))
        later = [other for other in self.payments if other.key > one.key]
        self.account.settle(removed=[one], later=later, business_date=self.date)
        self.payments.remove(one)

    @precondition(lambda self: self.running() and self.account.agreement.state in accounts.IN_FORCE)
    @rule(state=st.sampled_from(["BROKEN", "CANCELLED", "EXPIRED"]))
    def stop(self, state):
        novations.end(self.account, state=accounts.AgreementState(state), date=self.date)
        over(self.account)
        self.payments = []

    @precondition(lambda self: self.running() and self.account.agreement.state == "FULFILLED")
    @rule()
    def leave(self):
        over(self.account)
        self.payments = []

    @rule(days=st.integers(1, 20))
    def wait(self, days):
        self.date += datetime.timedelta(days=days)

    @invariant()
    def holds(self):
        if hasattr(self, "account"):
            check(self.account)


TestNovations = Novations.TestCase
TestNovations.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
