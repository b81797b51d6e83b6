"""Terms of charges: what they come to (W-03, W-15..W-17), and what the law allows in them (R09, R21)."""

import datetime
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import accounts, balances, charges, series, terms
from servicekit import errors, money

DUE = datetime.date(2026, 3, 2)


def rules(**fields):
    content = terms.Terms(source="contract 7", **fields)
    scope = terms.Scope(currency="EUR", consumer=True, valid_from=DUE)
    return charges.Rules(
        terms_id=uuid.UUID(int=1),
        source=content.source,
        penalty_rate_e4=content.penalty_rate_e4,
        penalty_minor=content.penalty_minor,
        interest_rate_e4=content.interest_rate_e4 + content.surcharge_e4,
        interest_rule=terms.interest_rule(content.interest_unit, content.day_count),
        interest_factor=content.interest_factor,
        interest_denominator=content.interest_denominator,
        late_payment_minor=content.late_payment_minor,
        expenses_minor=content.expenses_minor,
        fees_rate_e4=content.fees_rate_e4,
        grace_days=content.grace_days,
        **content.commission_values(scope),
    )


def title(minor, found, **fields):
    return accounts.Title(
        **{
            "title_id": uuid.UUID(int=2),
            "case_id": uuid.UUID(int=3),
            "reference": "T-1",
            "due_date": DUE,
            "payable_until": DUE,
            "principal_minor": minor,
            "open_principal_minor": minor,
            "penalty_rate_e4": 0,
            "monthly_rate_e4": 0,
            "own_penalty": False,
            "own_interest": False,
            "accrued_through": DUE,
            "terms_id": found.terms_id,
            "rules": found,
            **fields,
        }
    )


def late(days):
    return DUE + datetime.timedelta(days=days)


@pytest.mark.feature("S1-17")
def test_w03_subtotal_is_value_interest_and_both_expenses():
    """The manual prints 204.94 for 186.75 + 0.07 + 16.12 + 0.00; the rule gives 202.94."""
    found = title(18_675, rules(expenses_minor=1_612, interest_rate_e4=1_000, interest_unit=terms.Unit.YEAR,
                                day_count=terms.DayCount.ACTUAL_365))  # fmt: skip
    explained = balances.explain_title(found, late(137))
    amounts = {line.component: line.amount_minor for line in explained.lines}
    assert amounts == {"PRINCIPAL": 18_675, "INTEREST": 7, "COSTS": 1_612}
    assert explained.total_minor == 18_675 + 7 + 1_612 + 0


@pytest.mark.feature("S1-17")
def test_w15_default_charges_and_the_example_of_the_pix_specification():
    found = title(100_000, rules(penalty_rate_e4=20_000, interest_rate_e4=10_000))
    assert found.accrual(late(45)).penalty_minor == 2_000
    assert found.accrual(late(45)).interest_minor == 1_500
    found = title(10_000, rules(penalty_minor=300, interest_rate_e4=10_000, interest_unit=terms.Unit.DAY))
    assert 10_000 + found.accrual(late(2)).total_minor == 10_500


@pytest.mark.feature("S1-17")
def test_w16_actual_365_and_a_fee():
    year = terms.Terms(
        interest_rate_e4=100_000, interest_unit=terms.Unit.YEAR, day_count=terms.DayCount.ACTUAL_365
    )
    found = title(
        10_000,
        rules(
            interest_rate_e4=year.interest_rate_e4,
            interest_unit=year.interest_unit,
            day_count=year.day_count,
            expenses_minor=1_000,
        ),
    )
    accrual = found.accrual(late(15))
    assert (accrual.interest_minor, accrual.costs_minor) == (41, 1_000)
    assert 10_000 + accrual.total_minor == 11_041
    found.charge(late(15))
    found.receive(11_041)
    found.settle_state()
    assert found.state is accounts.TitleState.PAID


@pytest.mark.parametrize(
    ("minor", "commission"),
    [
        (18_675, 1_200),
        (30_000, 1_200),
        (100_000, 4_000),
        (375_000, 15_000),
        (500_000, 15_000),
        (5_000_000, 15_000),
        (6_000_000, 30_000),
    ],
)
def test_w17_recovery_commission_once_per_instalment(minor, commission):
    found = title(minor, rules(recovery_commission=True))
    (line,) = found.accrual(late(1)).charges
    assert line.amount_minor == commission
    assert money.half_up(line.base_minor * line.numerator, line.denominator) == commission
    entries = found.charge(late(1))
    assert [(entry.component, entry.amount_minor) for entry in entries] == [("COSTS", commission)]
    assert found.accrual(late(90)) == charges.NONE
    found.post(entries[0].contra())
    assert found.accrual(late(90)).costs_minor == commission


def test_day_counts():
    def interest(unit, count, days):
        return (
            title(1_000_000, rules(interest_rate_e4=120_000, interest_unit=unit, day_count=count))
            .accrual(late(days))
            .interest_minor
        )

    unit, count = terms.Unit, terms.DayCount
    assert interest(unit.YEAR, count.THIRTY_DAY_MONTH, 31) == 10_333  # 12 % x 31/360
    assert interest(unit.YEAR, count.THIRTY_360, 31) == 10_000  # 2 March to 2 April is a month
    assert interest(unit.YEAR, count.ACTUAL_365, 31) == 10_192
    assert interest(unit.MONTH, count.THIRTY_DAY_MONTH, 31) == 124_000
    assert interest(unit.MONTH, count.THIRTY_360, 31) == 120_000
    assert interest(unit.MONTH, count.ACTUAL_365, 31) == 122_301
    assert interest(unit.DAY, count.ACTUAL_365, 1) == 120_000


def test_fees_are_on_the_debt_of_the_day_without_costs_and_once():
    found = title(
        100_000,
        rules(penalty_rate_e4=20_000, interest_rate_e4=10_000, expenses_minor=5_000, fees_rate_e4=100_000),
    )
    assert found.accrual(late(45)).fees_minor == 10_350
    found.charge(late(45))
    assert found.accrual(late(75)).fees_minor == 0
    assert found.accrual(late(75)).interest_minor == 1_000


def test_days_of_grace_bear_nothing_then_days_count_from_the_due_date():
    found = title(100_000, rules(penalty_rate_e4=20_000, interest_rate_e4=10_000, grace_days=5))
    assert found.accrual(late(5)) == charges.NONE
    assert found.accrual(late(6)).interest_minor == 200


def test_a_fall_of_the_index_leaves_the_nominal_amount():
    index = series.table(
        series.SERIES["IPCA"],
        [
            (datetime.date(2026, 2 + place, 1), value)
            for place, value in enumerate([0, -1_000_000, 3_000_000])
        ],
    )
    found = title(100_000, charges.Rules(terms_id=uuid.UUID(int=1), correction=index))
    assert found.accrual(datetime.date(2026, 4, 20)).correction_minor == 0
    assert found.charge(datetime.date(2026, 4, 20)) == []
    assert found.accrual(datetime.date(2026, 5, 20)).correction_minor == 1_970  # 0.99 x 1.03 - 1
    found.charge(datetime.date(2026, 8, 1))
    assert (found.open_correction_minor, found.corrected_through) == (1_970, datetime.date(2026, 5, 31))


def test_what_is_not_published_is_counted_when_it_is():
    known = series.SERIES["LEGAL_BR"]

    def published(months):
        values = [(datetime.date(2024, 8, 1), 0)]
        while len(values) < months:
            values.append((series.month_after(values[-1][0]), 300_000))
        return charges.Rules(terms_id=uuid.UUID(int=1), interest=series.table(known, values))

    found = title(1_000_000, published(21))  # to April 2026
    entries = found.charge(datetime.date(2026, 5, 20))
    assert found.accrued_through == entries[0].through_date == datetime.date(2026, 4, 30)
    found.rules = published(22)
    assert found.accrual(datetime.date(2026, 5, 31)).interest_minor == 3_000


@given(
    minor=st.integers(1, 10**13),
    days=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    yearly=st.integers(0, 500_000),
)
def test_charges_posted_on_the_way_move_the_day(minor, days, yearly):
    """Posting in between rounds each stretch by itself: at most half a cent a stretch apart."""
    found = title(
        minor,
        rules(interest_rate_e4=yearly, interest_unit=terms.Unit.YEAR, day_count=terms.DayCount.ACTUAL_365),
    )
    whole = found.accrual(late(sum(days))).interest_minor
    at = 0
    for step in days:
        at += step
        found.charge(late(at))
    assert abs(found.charged_interest_minor - whole) * 2 <= len(days) + 1


def scope(**fields):
    return terms.Scope(**{"currency": "BRL", "consumer": True, "valid_from": DUE, **fields})


@pytest.mark.parametrize(
    ("content", "where", "field", "limit"),
    [
        ({"penalty_rate_e4": 20_001}, {}, "penalty_rate_e4", "20000: CDC art. 52"),
        ({"penalty_minor": 100}, {}, "penalty_minor", "0: CDC art. 52"),
        (
            {"surcharge_e4": 30_001, "interest_unit": terms.Unit.YEAR},
            {"currency": "EUR"},
            "surcharge_e4",
            "30000: DL 58/2013",
        ),
        (
            {"recovery_commission": True, "fees_rate_e4": 1},
            {"currency": "EUR"},
            "fees_rate_e4",
            "0: DL 58/2013",
        ),
        ({"late_payment_minor": 4_000}, {"currency": "EUR"}, "late_payment_minor", "0: DL 62/2013"),
        (
            {"interest_series": "PT_COMMERCIAL"},
            {"currency": "EUR"},
            "interest_series",
            "natural persons: DL 62/2013",
        ),
    ],
)
def test_above_the_law_is_refused_naming_field_limit_and_law(content, where, field, limit):
    with pytest.raises(terms.ChargeAboveLegalLimit) as refused:
        terms.Terms(source="x", **content).check(scope(**where))
    (violation,) = refused.value.fields
    assert violation.field == f"charge_terms.{field}"
    assert limit in violation.description


def test_what_the_law_allows_passes():
    terms.Terms(source="x", penalty_rate_e4=20_000, interest_rate_e4=10_000).check(scope())
    terms.Terms(source="x", penalty_rate_e4=100_000, penalty_minor=0).check(scope(consumer=False))
    terms.Terms(
        source="x",
        interest_rate_e4=80_000,
        surcharge_e4=30_000,
        interest_unit=terms.Unit.YEAR,
        recovery_commission=True,
    ).check(scope(currency="EUR"))
    terms.Terms(source="x", interest_series="PT_COMMERCIAL_62", late_payment_minor=4_000).check(
        scope(currency="EUR", consumer=False)
    )


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"source": ""}, {}),
        ({"interest_series": "IPCA"}, {}),
        ({"interest_series": "LEGAL_BR"}, {"currency": "EUR"}),
        ({"interest_series": "LEGAL_BR", "interest_rate_e4": 1}, {}),
        ({"correction_series": "LEGAL_BR"}, {}),
        ({"penalty_rate_e4": 1, "penalty_minor": 1}, {"consumer": False}),
        ({"recovery_commission": True}, {}),
        ({"surcharge_e4": 1}, {"currency": "EUR"}),
        ({"grace_days": 91}, {}),
        ({"penalty_rate_e4": -1}, {}),
    ],
)
def test_what_cannot_be_is_refused(content, where):
    with pytest.raises(errors.InvalidRequest):
        terms.Terms(**{"source": "x", **content}).check(scope(**where))
