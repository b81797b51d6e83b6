"""Negotiations: counted, added to, forgiven, planned (S1-25, S1-26, S3-09, S3-11, S4-03, S5-07, S5-09, S5-19; W-04,
W-06, W-09)."""

import dataclasses
import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import accounts, creditors, limits, plans, proposals

TODAY = datetime.date(2026, 11, 20)
MONTH = datetime.date(2026, 12, 21)
CASE = uuid.UUID(int=1)
COMPONENTS = ("principal", "correction", "penalty", "interest", "costs", "fees")


def title(number, due_date=datetime.date(2026, 10, 6), minor=100_000, **fields):
    return accounts.Title(
        **{
            "title_id": uuid.UUID(int=1_000 + number),
            "case_id": CASE,
            "reference": f"T-{number:03d}",
            "due_date": due_date,
            "payable_until": due_date,
            "principal_minor": minor,
            "penalty_rate_e4": 20_000,
            "monthly_rate_e4": 10_000,
            "accrued_through": due_date,
            "open_principal_minor": minor,
            **fields,
        }
    )


def terms(**fields):
    return plans.Terms(**{"instalments": 3, "first_due_date": MONTH, **fields})


def priced(*titles, date=TODAY, **fields):
    charges = fields.pop("charges", None)
    return proposals.price(titles=titles, terms=terms(**fields), date=date, charges=charges)


def holds(item):
    """What a title holds once its agreement is accepted."""
    own = sum(getattr(item, f"{name}_minor") for name in COMPONENTS)
    return own + sum(item.added().values()) - sum(item.waived().values())


@pytest.mark.feature("S3-11")
def test_w06_additions_become_charges_of_the_titles():
    no_charges = {"penalty_rate_e4": 0, "monthly_rate_e4": 0}
    found = priced(
        title(1, minor=20_000, **no_charges),
        title(2, minor=10_000, **no_charges),
        method=plans.Method.EQUAL_PRINCIPAL,
        accretion_rate_e4=50_000,
        penalty_rate_e4=50_000,
        discount_minor=1_000,
        charges_minor=500,
        fees_minor=1_000,
    )
    assert [row.amount_minor for row in found.rows] == [13_167, 10_167, 10_166]
    assert (found.debt_minor, found.added_minor, found.discount_minor) == (30_000, 4_500, 1_000)
    assert found.total_minor == 33_500
    first, second = found.agreed
    component = accounts.Component
    assert first.added() == {
        component.COSTS: 333,
        component.FEES: 667,
        component.PENALTY: 1_000,
        component.INTEREST: 1_000,
    }
    assert second.added() == {
        component.COSTS: 167,
        component.FEES: 333,
        component.PENALTY: 500,
        component.INTEREST: 500,
    }
    assert first.waived() == {component.INTEREST: 1_000}, "charges are forgiven before principal"
    assert second.waived() == {}
    assert holds(first) + holds(second) == 33_500


def test_w09_interest_runs_to_the_date():
    one = title(1, due_date=datetime.date(2026, 10, 22))
    assert priced(one, date=datetime.date(2026, 11, 26)).debt_minor == 103_167


def test_w04_more_than_the_debt_forgives_nothing():
    found = priced(title(1), annual_rate_e4=120_000)
    assert found.total_minor > found.debt_minor
    assert found.forgiven_e4 == 0
    found = priced(title(1), discount_minor=20_700)
    assert (found.debt_minor, found.total_minor) == (103_500, 82_800)
    assert found.forgiven_e4 == 200_000


def test_the_discount_forgives_charges_oldest_first_then_principal_in_proportion():
    found = priced(title(1, minor=200_000), title(2), discount_minor=10_500 + 30_001)
    first, second = found.agreed
    component = accounts.Component
    assert first.waived() == {
        component.INTEREST: 3_000,
        component.PENALTY: 4_000,
        component.PRINCIPAL: 20_001,
    }
    assert second.waived() == {
        component.INTEREST: 1_500,
        component.PENALTY: 2_000,
        component.PRINCIPAL: 10_000,
    }
    assert (found.forgiven_charges_minor, found.forgiven_principal_minor) == (10_500, 30_001)


@pytest.mark.feature("S5-09")
def test_penalty_and_interest_of_a_title_are_edited():
    one, two = title(1), title(2)
    found = priced(
        one, two, charges={one.title_id: proposals.Charges(penalty_minor=500, interest_minor=4_000)}
    )
    first, second = found.agreed
    assert first.waived() == {accounts.Component.PENALTY: 1_500}
    assert first.added() == {accounts.Component.INTEREST: 2_500}
    assert (found.debt_minor, found.edited_minor, found.discount_minor) == (207_000, 2_500, 1_500)
    assert holds(first) == 104_500
    assert holds(second) == 103_500
    assert found.total_minor == 208_000


@pytest.mark.feature("S5-09")
def test_a_percentage_is_of_the_edited_sum():
    one = title(1)
    found = priced(
        one,
        penalty_rate_e4=100_000,
        charges={one.title_id: proposals.Charges(penalty_minor=0, interest_minor=0)},
    )
    assert found.added.penalty_minor == 10_000
    assert found.total_minor == 110_000


def test_what_needs_authority():
    found = priced(title(1), discount_minor=13_500, penalty_rate_e4=10_000, fees_minor=10_350)
    agreed = terms(discount_minor=13_500, penalty_rate_e4=10_000, fees_minor=10_350, annual_rate_e4=120_001)
    assert dict(found.asked(agreed)) == {
        limits.Kind.INSTALMENTS: 3,
        limits.Kind.INSTALMENT_AMOUNT: 30_000,
        limits.Kind.DOWN_PAYMENT: 0,
        limits.Kind.DISCOUNT_CHARGES: 906_954,  # 13 500 of 3 500 + 1 035 + 10 350, rounded up
        limits.Kind.PENALTY: 10_000,
        limits.Kind.INTEREST: 10_001,
        limits.Kind.COMMISSION: 100_000,
    }


def test_a_part_paid_down_is_rounded_against_whoever_asks():
    agreed = terms(down_payment_minor=33_333, down_payment_date=TODAY)
    asked = dict(priced(title(1), down_payment_minor=33_333, down_payment_date=TODAY).asked(agreed))
    assert asked[limits.Kind.DOWN_PAYMENT] == 322_057  # of 103 500
    assert asked[limits.Kind.INSTALMENT_AMOUNT] == 23_389
    assert limits.Kind.DOWN_PAYMENT not in dict(priced(title(1), instalments=1).asked(terms(instalments=1)))


def test_a_discount_of_principal_needs_authority():
    found = priced(title(1), discount_minor=3_501)
    asked = dict(found.asked(terms(discount_minor=3_501)))
    assert asked[limits.Kind.DISCOUNT_CHARGES] == 1_000_000
    assert asked[limits.Kind.DISCOUNT_PRINCIPAL] == 10


def choose(*titles, ids=(), not_due=False, date=TODAY):
    return proposals.choose(
        titles, title_ids=[one.title_id for one in ids], include_not_due=not_due, business_date=date
    )


OLD, NEW, NEXT = title(1), title(2, datetime.date(2026, 11, 1)), title(3, datetime.date(2026, 12, 1))
EXPECTED = title(4, title_type="FORECAST")
BOUND = title(5, agreement_id=uuid.UUID(int=7))
PAID = title(6, open_principal_minor=0, received_minor=100_000, state=accounts.TitleState.PAID)


def test_without_a_choice_all_that_is_open():
    assert choose(NEXT, NEW, OLD, EXPECTED, BOUND, PAID) == [OLD, NEW, NEXT]
    with pytest.raises(proposals.NothingToAgreeOn):
        choose(EXPECTED, BOUND, PAID)


@pytest.mark.feature("S3-09", "S5-03")
def test_titles_are_chosen_one_by_one():
    assert choose(NEW, OLD, NEXT, ids=[NEW, OLD]) == [OLD, NEW]
    assert choose(NEW, OLD, NEXT, ids=[NEXT, OLD], not_due=True) == [OLD, NEXT]


@pytest.mark.feature("S5-07")
@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (EXPECTED, "expected a title that is billed, not a forecast"),
        (BOUND, "expected a title outside an agreement"),
        (PAID, "expected an open title, not one that is PAID"),
        (NEXT, "expected a title past due, or include_not_due"),
        (title(9), "expected a title of the cases"),
    ],
)
def test_titles_that_cannot_be_negotiated_say_why(wanted, why):
    with pytest.raises(proposals.TitlesNotEligible) as caught:
        choose(OLD, NEXT, EXPECTED, BOUND, PAID, ids=[OLD, wanted])
    assert [(one.field, one.description) for one in caught.value.fields] == [("title_ids[1]", why)]


def test_titles_not_yet_due_are_taken_beside_one_that_is():
    with pytest.raises(proposals.TitlesNotEligible):
        choose(OLD, NEXT, ids=[NEXT], not_due=True)
    assert choose(OLD, NEXT, ids=[NEXT], not_due=True, date=None) == [NEXT]


def test_a_title_is_chosen_once():
    with pytest.raises(proposals.TitlesNotEligible) as caught:
        choose(OLD, ids=[OLD, OLD])
    assert caught.value.fields[0].description == "expected each title once"


@pytest.mark.parametrize(
    ("settings", "fields", "field"),
    [
        ({"maximum_instalments": 2}, {}, "terms.instalments"),
        ({"minimum_instalment": creditors.Floor(minor=34_501)}, {}, "terms.instalments"),
        ({"minimum_instalment": creditors.Floor(rate_e4=333_334)}, {}, "terms.instalments"),
        ({"minimum_down_payment": creditors.Floor(minor=1)}, {}, "terms.down_payment"),
        (
            {"minimum_down_payment": creditors.Floor(rate_e4=100_000)},
            {"down_payment_minor": 10_349, "down_payment_date": TODAY},
            "terms.down_payment",
        ),
        ({"remunerative_interest": False}, {"annual_rate_e4": 1}, "terms.annual_rate_e4"),
        ({"charge_interest": False}, {"annual_rate_e4": 1}, "terms.annual_rate_e4"),
        ({"accepted_means": frozenset({"PIX"})}, {"means": "BOLETO"}, "terms.means"),
    ],
)
def test_a_plan_outside_the_creditors_settings_is_refused(settings, fields, field):
    agreed = terms(**fields)
    with pytest.raises(proposals.OutsideCreditorSettings) as caught:
        proposals.check_creditor(
            creditors.CreditorSettings(**settings), terms=agreed, priced=priced(title(1), **fields)
        )
    assert [one.field for one in caught.value.fields] == [field]


def test_w14_an_entry_below_the_minimum_is_refused_and_at_it_passes():
    settings = creditors.CreditorSettings(minimum_down_payment=creditors.Floor(rate_e4=100_000))
    for minor, passes in ((10_350, True), (10_349, False)):
        fields = {"down_payment_minor": minor, "down_payment_date": TODAY}
        found = priced(title(1), **fields)
        if passes:
            proposals.check_creditor(settings, terms=terms(**fields), priced=found)
        else:
            with pytest.raises(proposals.OutsideCreditorSettings):
                proposals.check_creditor(settings, terms=terms(**fields), priced=found)


def test_one_payment_of_everything_needs_no_down_payment():
    settings = creditors.CreditorSettings(minimum_down_payment=creditors.Floor(minor=10_000))
    proposals.check_creditor(settings, terms=terms(instalments=1), priced=priced(title(1), instalments=1))


def test_the_creditors_usual_rate_counts_where_terms_name_none():
    settings = creditors.CreditorSettings(annual_rate_e4=120_000)
    assert proposals.with_defaults(settings, terms()).annual_rate_e4 == 120_000
    assert proposals.with_defaults(settings, terms(annual_rate_e4=1)).annual_rate_e4 == 1
    free = terms(method=plans.Method.INTEREST_FREE)
    assert proposals.with_defaults(settings, free) == free
    silent = dataclasses.replace(settings, remunerative_interest=False)
    assert proposals.with_defaults(silent, terms()) == terms()


@st.composite
def negotiations(draw):
    titles = [
        title(
            number,
            due_date=TODAY - datetime.timedelta(days=draw(st.integers(-60, 400))),
            minor=draw(st.integers(1, 10**8)),
            open_costs_minor=(costs := draw(st.integers(0, 10**4))),
            charged_costs_minor=costs,
            open_correction_minor=(correction := draw(st.integers(0, 10**4))),
            charged_correction_minor=correction,
        )
        for number in range(draw(st.integers(1, 6)))
    ]
    charges = {
        one.title_id: proposals.Charges(
            penalty_minor=draw(st.none() | st.integers(0, 10**6)),
            interest_minor=draw(st.none() | st.integers(0, 10**6)),
        )
        for one in titles
        if draw(st.booleans())
    }
    agreed = terms(
        instalments=draw(st.integers(1, 24)),
        method=draw(st.sampled_from([plans.Method.PRICE, plans.Method.SAC])),
        annual_rate_e4=draw(st.integers(0, 600_000)),
        discount_minor=draw(st.integers(0, 10**8)),
        discount_rate_e4=draw(st.integers(0, 900_000)),
        accretion_rate_e4=draw(st.integers(0, 200_000)),
        penalty_rate_e4=draw(st.integers(0, 200_000)),
        charges_minor=draw(st.integers(0, 10**5)),
        fees_minor=draw(st.integers(0, 10**5)),
    )
    return titles, charges, agreed


@given(negotiations())
def test_titles_hold_the_capital_of_the_plan(made):
    titles, charges, agreed = made
    try:
        found = proposals.price(titles=titles, terms=agreed, date=TODAY, charges=charges)
    except (plans.DiscountTooLarge, plans.InstalmentTooSmall):
        return
    capital = sum(row.capital_minor for row in found.rows)
    assert sum(holds(item) for item in found.agreed) == capital
    assert found.debt_minor + found.added_minor - found.discount_minor == capital
    assert found.total_minor == capital + found.plan_interest_minor
    for item in found.agreed:
        added, waived = item.added(), item.waived()
        for component in accounts.WATERFALL:
            own = getattr(item, f"{component.lower()}_minor")
            assert 0 <= waived.get(component, 0) <= own + added.get(component, 0)
    assert found.forgiven_principal_minor < found.principal_minor
    assert sum(item.waived_principal_minor for item in found.agreed) == found.forgiven_principal_minor


def accepted(titles, found):
    """The account of an agreement in force over what was priced."""
    agreement = accounts.Agreement(
        agreement_id=uuid.UUID(int=5),
        case_id=CASE,
        case_ids=(CASE,),
        state=accounts.AgreementState.PROPOSED,
        currency="BRL",
        expire_date=found.date,
        notice_days=3,
        missed_days=1,
        broken_days=10,
    )
    account = accounts.Account(titles=list(titles))
    account.accept(
        agreement=agreement,
        agreed=found.agreed,
        instalments=[
            accounts.Instalment(
                instalment_id=uuid.UUID(int=100 + row.number),
                agreement_id=agreement.agreement_id,
                number=row.number,
                due_date=row.due_date,
                payable_until=row.due_date,
                capital_minor=row.capital_minor,
                interest_minor=row.interest_minor,
            )
            for row in found.rows
        ],
        business_date=TODAY,
    )
    return account


def payment(number, minor, date):
    return accounts.Payment(
        payment_id=uuid.UUID(int=9_000 + number),
        case_id=CASE,
        title_id=None,
        key=accounts.PaymentKey(date, ("C", "A", "PIX", f"{number:06d}")),
        amount_minor=minor,
    )


@given(negotiations())
def test_accepted_and_paid_everything_is_zero(made):
    titles, charges, agreed = made
    try:
        found = proposals.price(titles=titles, terms=agreed, date=TODAY, charges=charges)
    except (plans.DiscountTooLarge, plans.InstalmentTooSmall):
        return
    account = accepted(titles, found)
    assert sum(one.open_minor for one in account.titles) == found.total_minor - found.plan_interest_minor
    paid = [payment(row.number, row.amount_minor, row.due_date) for row in found.rows]
    for one in paid:
        account.settle(new=[one], business_date=one.key.value_date)
    assert account.agreement.state is accounts.AgreementState.FULFILLED
    assert not any(one.open_minor for one in (*account.titles, *account.instalments))
    assert not any(one.overpaid_minor for one in paid)
    assert sum(one.received_minor for one in account.titles) == found.total_minor - found.plan_interest_minor


@given(negotiations(), st.integers(0, 10**8))
def test_ended_it_gives_everything_back(made, minor):
    titles, charges, agreed = made
    try:
        found = proposals.price(titles=titles, terms=agreed, date=TODAY, charges=charges)
    except (plans.DiscountTooLarge, plans.InstalmentTooSmall):
        return
    account = accepted(titles, found)
    if minor:
        account.settle(new=[payment(1, minor, TODAY)], business_date=TODAY)
    if account.agreement.state is accounts.AgreementState.FULFILLED:
        return
    earned = sum(row.charged_interest_minor - row.paid_interest_minor for row in account.instalments)
    account.end(state=accounts.AgreementState.CANCELLED, date=TODAY)
    own = {item.title_id: item for item in found.agreed}
    for one in account.titles:
        assert one.waived_minor == 0
        assert one.agreement_id is None
        if not minor:
            for component in accounts.WATERFALL:
                assert one.open_of(component) == getattr(own[one.title_id], f"{component.lower()}_minor")
    kept = sum(one.open_minor + one.received_minor for one in account.titles)
    assert found.debt_minor <= kept - earned <= found.debt_minor + found.added_minor
