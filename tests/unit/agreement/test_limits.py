"""Limits and whose authority a command has (S2-08, S2-09, R28; W-12)."""

import dataclasses
import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import approvals, limits

DAY = datetime.date(2026, 11, 20)
CREDITOR, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
ROLES = ("operator", "supervisor", "manager")
SUBJECTS = ("users/1", "users/2")

pytestmark = pytest.mark.feature("S2-08", "S2-09")


def row(minimum=None, maximum=None, **fields):
    return limits.Limit(
        **{
            "id": uuid.UUID(int=9),
            "creditor_id": None,
            "role": "",
            "subject": "",
            "kind": limits.Kind.DISCOUNT_CHARGES,
            "minimum": minimum,
            "maximum": maximum,
            "currency": "",
            "valid_from": DAY,
            **fields,
        }
    )


def passes(value, *rows, roles=("operator",), subject="users/1", kind=limits.Kind.DISCOUNT_CHARGES, **fields):
    authority = limits.Authority(subject, frozenset(roles), **fields)
    allowed = limits.allowed(rows, authority=authority, kind=kind, creditor_id=CREDITOR, date=DAY)
    return any(one.holds(value) for one in allowed)


def test_w12_both_ends_pass_above_and_below_do_not():
    own = row(1, 30_000, role="operator")
    assert [passes(value, own) for value in (0, 1, 30_000, 30_001)] == [False, True, True, False]


def test_a_user_s_row_counts_before_his_roles():
    wide, narrow = row(0, 100, role="operator"), row(0, 10, subject="users/1")
    assert not passes(11, wide, narrow)
    assert passes(11, wide, narrow, subject="users/2")
    assert passes(101, row(0, 10, role="operator"), row(0, 200, subject="users/1"))


def test_of_several_roles_the_widest_counts():
    rows = [row(0, 10, role="operator"), row(0, 50, role="supervisor")]
    assert passes(50, *rows, roles=("operator", "supervisor"))
    assert not passes(51, *rows, roles=("operator", "supervisor"))
    assert not passes(11, *rows)
    authority = limits.Authority("users/1", frozenset({"operator", "supervisor"}))
    allowed = limits.allowed(
        rows, authority=authority, kind=limits.Kind.DISCOUNT_CHARGES, creditor_id=CREDITOR, date=DAY
    )
    assert allowed[0].text(limits.Kind.DISCOUNT_CHARGES) == "0 % to 0.005 %"


def test_a_creditor_s_row_counts_before_a_general_one():
    rows = [row(0, 100, role="operator"), row(0, 10, role="operator", creditor_id=CREDITOR)]
    assert not passes(11, *rows)
    assert passes(11, rows[0], dataclasses.replace(rows[1], creditor_id=OTHER))


def test_the_newest_row_that_is_valid_counts():
    old = row(0, 10, role="operator", valid_from=DAY - datetime.timedelta(days=30))
    new = row(0, 20, role="operator")
    later = row(0, 90, role="operator", valid_from=DAY + datetime.timedelta(days=1))
    assert passes(20, old, new, later)
    assert not passes(21, old, new, later)


def test_everybody_s_row_counts_where_nothing_is_said_of_the_caller():
    everybody = row(0, 5)
    assert not passes(6, everybody)
    assert passes(6, everybody, row(0, 10, role="operator"))


def test_without_rows_the_house_s_default():
    assert passes(1_000_000)
    assert not passes(1_000_001)
    assert not passes(1, kind=limits.Kind.DISCOUNT_PRINCIPAL)
    for kind in (limits.Kind.WRITE_OFF, limits.Kind.REFUND, limits.Kind.REINSTATE):
        assert not any(passes(value, kind=kind) for value in (-1, 0, 1))
    assert set(limits.HOUSE) == set(limits.UNITS) == set(limits.Kind)


def test_amounts_count_in_their_currency_only():
    rows = [row(0, 100, kind=limits.Kind.REFUND, currency="BRL", role="operator")]
    authority = limits.Authority("users/1", frozenset({"operator"}))
    for currency, holds in (("BRL", True), ("EUR", False)):
        allowed = limits.allowed(
            rows,
            authority=authority,
            kind=limits.Kind.REFUND,
            creditor_id=CREDITOR,
            date=DAY,
            currency=currency,
        )
        assert any(one.holds(100) for one in allowed) is holds


def test_an_approver_s_role_approves_anything_unless_a_row_says_otherwise():
    kind = limits.Kind.WRITE_OFF
    assert passes(10**9, kind=kind, roles=("manager",), deciding=True)
    assert not passes(1, kind=kind, roles=("manager",))
    assert not passes(1, kind=kind, roles=("operator",), deciding=True)
    limited = row(0, 10, role="manager")
    assert not passes(11, limited, roles=("manager",), deciding=True)
    assert passes(11, limited, row(0, 5), roles=("supervisor",), deciding=True)


def test_values_and_ranges_are_said_in_their_units():
    kinds = limits.Kind
    assert limits.text(kinds.DISCOUNT_CHARGES, 67_000) == "6.7 %"
    assert limits.text(kinds.DISCOUNT_CHARGES, 1_000_000) == "100 %"
    assert limits.text(kinds.REFUND, 100_000, "EUR") == "1000.00 EUR"
    assert limits.Range(None, 30).text(kinds.DUE_DATE_CHANGE) == "any to 30 days"
    assert limits.Range(1, None).text(kinds.INSTALMENTS) == "1 to any"
    assert limits.NOTHING.text(kinds.WRITE_OFF, "BRL") == "nothing"


def test_the_platform_itself_has_no_limits():
    allowed = limits.allowed(
        [row(0, 0)],
        authority=limits.SYSTEM,
        kind=limits.Kind.DISCOUNT_CHARGES,
        creditor_id=CREDITOR,
        date=DAY,
    )
    assert allowed == [limits.EVERYTHING]


def test_an_approval_request_ends_only_once():
    for state, after in approvals.TRANSITIONS.items():
        assert state not in after
        assert not after or state is approvals.State.PENDING
    states = approvals.State
    for stored in states:
        late = approvals.state_on(stored, expire_date=DAY, business_date=DAY + datetime.timedelta(days=1))
        assert late is (states.EXPIRED if stored is states.PENDING else stored)
        assert approvals.state_on(stored, expire_date=DAY, business_date=DAY) is stored


ends = st.one_of(st.none(), st.integers(-100, 100))


@st.composite
def rows(draw):
    low, high = draw(ends), draw(ends)
    if low is not None and high is not None and low > high:
        low, high = high, low
    holder = draw(
        st.sampled_from([{}, *({"role": one} for one in ROLES), *({"subject": one} for one in SUBJECTS)])
    )
    return row(
        low,
        high,
        creditor_id=draw(st.sampled_from([None, CREDITOR, OTHER])),
        kind=draw(st.sampled_from([limits.Kind.DISCOUNT_CHARGES, limits.Kind.INSTALMENTS])),
        valid_from=DAY + datetime.timedelta(days=draw(st.integers(-2, 2))),
        **holder,
    )


@given(
    st.lists(rows(), max_size=12),
    st.sets(st.sampled_from(ROLES)),
    st.sampled_from(SUBJECTS),
    st.booleans(),
    st.integers(-120, 120),
)
def test_whoever_is_asked_the_answer_follows_the_order_of_the_rules(
    given_rows, roles, subject, deciding, value
):
    """A second reading of the rule, row by row; and rows of others, of other kinds and of later days change nothing."""
    kind = limits.Kind.DISCOUNT_CHARGES
    authority = limits.Authority(subject, frozenset(roles), deciding=deciding)

    def ask(found):
        return limits.allowed(found, authority=authority, kind=kind, creditor_id=CREDITOR, date=DAY)

    standing = [
        one
        for one in given_rows
        if one.kind is kind
        and one.valid_from <= DAY
        and one.creditor_id != OTHER
        and (one.subject in ("", subject))
        and (not one.role or one.role in roles)
    ]
    allowed = ask(given_rows)
    assert allowed
    assert allowed == ask(standing)

    def best(of):
        for creditor in (CREDITOR, None):
            dated = [one for one in of if one.creditor_id == creditor]
            if dated:
                newest = max(one.valid_from for one in dated)
                return next(one for one in dated if one.valid_from == newest).range
        return None

    own = best([one for one in standing if one.subject])
    if own is not None:
        expected = [own]
    else:
        expected = []
        for role in roles:
            of_role = best([one for one in standing if one.role == role])
            if of_role is not None:
                expected.append(of_role)
            elif deciding and role in limits.APPROVERS:
                expected.append(limits.EVERYTHING)
        if not expected:
            general = best([one for one in standing if not one.role and not one.subject])
            expected = [limits.HOUSE[kind] if general is None else general]
    assert any(one.holds(value) for one in allowed) == any(one.holds(value) for one in expected)
    assert all(allowed[0].width >= one.width for one in allowed)


@given(
    st.lists(rows(), max_size=8),
    st.sets(st.sampled_from(ROLES)),
    st.sampled_from(ROLES),
    st.integers(-120, 120),
)
def test_one_more_role_never_takes_authority_of_roles_away(given_rows, roles, role, value):
    """Where roles have rows: another role can only widen."""
    given_rows = [one for one in given_rows if one.role]
    with_rows = {one.role for one in given_rows if one.kind is limits.Kind.DISCOUNT_CHARGES}
    roles &= {
        one
        for one in with_rows
        if any(
            r.role == one
            and r.valid_from <= DAY
            and r.creditor_id != OTHER
            and r.kind is limits.Kind.DISCOUNT_CHARGES
            for r in given_rows
        )
    }
    if roles and passes(value, *given_rows, roles=roles):
        assert passes(value, *given_rows, roles={*roles, role})
