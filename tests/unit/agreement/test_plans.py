"""Plans (W-01, W-02, W-04, W-06, W-07, W-14; standards.md 4.9)."""

import dataclasses
import datetime
import itertools
from decimal import Decimal

import numpy_financial
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agreement_service.domain import plans
from servicekit import errors, money

START = datetime.date(2026, 11, 20)


def terms(**fields):
    return plans.Terms(**{"instalments": 3, "first_due_date": datetime.date(2026, 12, 20), **fields})


@pytest.mark.feature("S1-31", "S1-32", "S1-33")
def test_w01_webcollections_simulator():
    rows = plans.schedule(
        debt_minor=191_000,
        terms=plans.Terms(
            instalments=3,
            first_due_date=datetime.date(2021, 5, 21),
            annual_rate_e4=10_000,
            down_payment_minor=11_000,
            down_payment_date=datetime.date(2021, 4, 21),
        ),
    )
    printed = [
        (
            row.number,
            str(row.due_date),
            row.amount_minor,
            row.capital_minor,
            row.interest_minor,
            row.closing_minor,
        )
        for row in rows
    ]
    assert printed == [
        (0, "2021-04-21", 11_000, 11_000, 0, 180_000),
        (1, "2021-05-21", 60_100, 59_950, 150, 120_050),
        (2, "2021-06-21", 60_100, 60_000, 100, 60_050),
        (3, "2021-07-21", 60_100, 60_050, 50, 0),
    ]
    assert rows[0].opening_minor == 191_000, "the seed prints the balance before the down payment"
    assert sum(row.amount_minor for row in rows) == 191_300
    assert sum(row.interest_minor for row in rows) == 300


def test_w02_one_per_cent_a_month():
    rows = plans.schedule(debt_minor=1_000_000, terms=terms(instalments=12, annual_rate_e4=120_000))
    assert {row.amount_minor for row in rows[:-1]} == {88_849}
    assert (rows[0].interest_minor, rows[0].capital_minor) == (10_000, 78_849)
    assert (rows[-1].amount_minor, rows[-1].capital_minor, rows[-1].interest_minor) == (88_847, 87_967, 880)
    assert sum(row.interest_minor for row in rows) == 66_186
    assert sum(row.amount_minor for row in rows) == 1_066_186


def test_w02_zero_rate():
    rows = plans.schedule(debt_minor=100_000, terms=terms())
    assert [row.amount_minor for row in rows] == [33_333, 33_333, 33_334]


def test_month_end_is_kept_from_the_first_due_date():
    first = datetime.date(2027, 1, 31)
    found = [plans.add_months(first, months) for months in (0, 1, 2, 3, 13)]
    assert [str(date) for date in found] == [
        "2027-01-31",
        "2027-02-28",
        "2027-03-31",
        "2027-04-30",
        "2028-02-29",
    ]


@given(
    debt=st.integers(1, 10**11),
    count=st.integers(1, 60),
    rate=st.integers(0, 600_000),
    down=st.integers(0, 10**10),
    discount=st.integers(0, 10**9),
)
def test_the_rows_always_add_up(debt, count, rate, down, discount):
    assume(discount < debt)
    agreed = terms(
        instalments=count,
        annual_rate_e4=rate,
        down_payment_minor=down,
        down_payment_date=START if down else None,
        discount_minor=discount,
    )
    try:
        rows = plans.schedule(debt_minor=debt, terms=agreed)
    except (plans.DownPaymentTooLarge, plans.InstalmentTooSmall):
        return
    assert sum(row.capital_minor for row in rows) == debt - discount
    assert rows[-1].closing_minor == 0
    for before, after in itertools.pairwise(rows):
        assert before.closing_minor == after.opening_minor
    assert all(row.capital_minor > 0 and row.interest_minor >= 0 for row in rows)
    assert all(one.due_date < other.due_date for one, other in itertools.pairwise(rows[1:]))


@given(debt=st.integers(100_000, 10**9), count=st.integers(1, 60), rate=st.integers(1_000, 600_000))
def test_numpy_financial_counts_the_same(debt, count, rate):
    monthly = Decimal(rate) / 12_000_000
    expected = -numpy_financial.pmt(monthly, count, Decimal(debt))
    found = plans.level_amount_minor(capital_minor=debt, annual_rate_e4=rate, instalments=count)
    assert abs(Decimal(found) - Decimal(str(expected))) <= Decimal("0.51")


def test_an_instalment_below_a_cent_is_refused():
    with pytest.raises(plans.InstalmentTooSmall):
        plans.schedule(debt_minor=5, terms=terms(instalments=10))


def test_a_down_payment_of_everything_is_refused():
    with pytest.raises(plans.DownPaymentTooLarge):
        plans.schedule(debt_minor=100, terms=terms(down_payment_minor=100, down_payment_date=START))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"instalments": 0}, "instalments"),
        ({"instalments": 361}, "instalments"),
        ({"annual_rate_e4": -1}, "annual_rate_e4"),
        ({"down_payment_minor": -1}, "down_payment"),
        ({"down_payment_minor": 1}, "down_payment_date"),
        ({"down_payment_date": START}, "down_payment_date"),
        ({"discount_minor": -1}, "discount"),
        ({"first_due_date": START - datetime.timedelta(days=1)}, "first_due_date"),
        ({"first_due_date": datetime.date(9999, 12, 1)}, "first_due_date"),
        ({"down_payment_minor": 1, "down_payment_date": datetime.date(2026, 12, 21)}, "down_payment_date"),
    ],
)
def test_wrong_terms_name_the_field(fields, field):
    with pytest.raises(errors.InvalidRequest) as caught:
        terms(**fields).check(today=START)
    assert f"terms.{field}" in {violation.field for violation in caught.value.fields}


def both(method, **fields):
    return terms(method=plans.Method(method), **fields)


@pytest.mark.feature("S3-15")
def test_w06_what_falls_on_the_first_instalment_and_what_is_spread():
    agreed = both(
        "EQUAL_PRINCIPAL",
        accretion_rate_e4=50_000,
        penalty_rate_e4=50_000,
        discount_minor=1_000,
        charges_minor=500,
        fees_minor=1_000,
    )
    rows = plans.schedule(debt_minor=20_000 + 10_000, terms=agreed)
    assert [row.amount_minor for row in rows] == [13_167, 10_167, 10_166]
    assert sum(row.amount_minor for row in rows) == 33_500
    assert [row.once_minor for row in rows] == [3_000, 0, 0]
    assert [(row.opening_minor, row.closing_minor) for row in rows] == [
        (33_500, 20_333),
        (20_333, 10_166),
        (10_166, 0),
    ]


def test_w06_a_discount_in_percent_is_spread_too():
    rows = plans.schedule(debt_minor=30_000, terms=both("EQUAL_PRINCIPAL", discount_rate_e4=100_000))
    assert [row.amount_minor for row in rows] == [9_000, 9_000, 9_000]


@pytest.mark.feature("S3-14")
def test_w07_edited_rows_must_sum_to_the_total():
    dates = [datetime.date(2026, 12, 20), datetime.date(2027, 1, 5), datetime.date(2027, 3, 1)]

    def edited(*amounts):
        rows = tuple(
            plans.EditedRow(due_date=date, amount_minor=amount)
            for date, amount in zip(dates, amounts, strict=True)
        )
        return plans.schedule(debt_minor=100_000, terms=terms(rows=rows))

    rows = edited(50_000, 20_000, 30_000)
    assert [(row.due_date, row.amount_minor) for row in rows] == list(
        zip(dates, [50_000, 20_000, 30_000], strict=True)
    )
    with pytest.raises(plans.RowsDoNotAddUp) as caught:
        edited(50_000, 20_000, 30_001)
    assert caught.value.metadata == {"difference_minor": "1", "total_minor": "100000"}
    assert caught.value.fields[0].field == "terms.rows"
    assert caught.value.fields[0].description.endswith("difference 0.01")
    with pytest.raises(plans.RowsDoNotAddUp) as caught:
        edited(50_000, 20_000, 29_000)
    assert caught.value.metadata["difference_minor"] == "-1000"


def test_w07_rows_written_as_calculated_are_split_as_calculated():
    agreed = terms(instalments=12, annual_rate_e4=240_000, penalty_rate_e4=20_000, fees_minor=777)
    calculated = plans.schedule(debt_minor=345_678, terms=agreed)
    rows = tuple(plans.EditedRow(due_date=row.due_date, amount_minor=row.amount_minor) for row in calculated)
    assert plans.schedule(debt_minor=345_678, terms=dataclasses.replace(agreed, rows=rows)) == calculated


def test_w07_a_row_that_does_not_pay_its_interest_is_refused():
    agreed = terms(instalments=2, annual_rate_e4=1_200_000)
    total = sum(row.amount_minor for row in plans.schedule(debt_minor=100_000, terms=agreed))
    rows = tuple(
        plans.EditedRow(
            due_date=datetime.date(2026, 12, 20) + datetime.timedelta(days=day), amount_minor=amount
        )
        for day, amount in ((0, 100), (1, total - 100))
    )
    with pytest.raises(plans.InstalmentTooSmall) as caught:
        plans.schedule(debt_minor=100_000, terms=dataclasses.replace(agreed, rows=rows))
    assert caught.value.fields[0].field == "terms.rows[0].amount"


def test_w14_one_instalment_has_no_interval():
    with pytest.raises(errors.InvalidRequest) as caught:
        terms(instalments=1, period_days=30).check(today=START)
    assert caught.value.fields == (
        errors.FieldViolation("terms.period_days", "expected 0 with one instalment"),
    )
    terms(instalments=1).check(today=START)


def test_standard_4_9_sac():
    rows = plans.schedule(debt_minor=120_000, terms=both("SAC", instalments=4, annual_rate_e4=120_000))
    assert [row.capital_minor for row in rows] == [30_000] * 4
    assert [row.interest_minor for row in rows] == [1_200, 900, 600, 300]


def test_standard_4_9_interest_free_and_equal_principal_differ_in_the_cent():
    free = plans.schedule(debt_minor=100_001, terms=both("INTEREST_FREE"))
    equal = plans.schedule(debt_minor=100_001, terms=both("EQUAL_PRINCIPAL"))
    assert [row.amount_minor for row in free] == [33_334, 33_334, 33_333]
    assert [row.amount_minor for row in equal] == [33_334, 33_334, 33_333]
    free = plans.schedule(debt_minor=100_000, terms=both("INTEREST_FREE"))
    equal = plans.schedule(debt_minor=100_000, terms=both("EQUAL_PRINCIPAL"))
    assert [row.amount_minor for row in free] == [33_333, 33_333, 33_334], "the last takes the residue"
    assert [row.amount_minor for row in equal] == [33_334, 33_333, 33_333], "the earliest take the cents"


@pytest.mark.feature("S2-37")
def test_standard_4_9_a_larger_entry_recalculates_the_rest():
    agreed = terms(instalments=10, annual_rate_e4=120_000)
    larger = dataclasses.replace(agreed, down_payment_minor=40_000, down_payment_date=START)
    rest = plans.schedule(debt_minor=60_000, terms=agreed)
    rows = plans.schedule(debt_minor=100_000, terms=larger)
    assert rows[0].amount_minor == 40_000
    assert [row.amount_minor for row in rows[1:]] == [row.amount_minor for row in rest]


def test_standard_4_9_first_amount_different():
    rows = plans.schedule(
        debt_minor=100_000, terms=terms(instalments=4, annual_rate_e4=120_000, first_amount_minor=50_000)
    )
    assert (rows[0].amount_minor, rows[0].interest_minor, rows[0].closing_minor) == (50_000, 1_000, 51_000)
    rest = plans.level_amount_minor(capital_minor=51_000, annual_rate_e4=120_000, instalments=3)
    assert {row.amount_minor for row in rows[1:-1]} == {rest}
    assert abs(rows[-1].amount_minor - rest) <= 3


@pytest.mark.parametrize("method", ["PRICE", "SAC"])
def test_standard_4_9_balloon_last(method):
    rows = plans.schedule(
        debt_minor=100_000,
        terms=both(method, instalments=6, annual_rate_e4=120_000, last_amount_minor=60_000),
    )
    assert rows[-1].amount_minor == 60_000
    assert rows[-1].closing_minor == 0
    assert rows[-1].interest_minor == 594, "1 % of what was still owed, 594.06 cents"
    others = [row.amount_minor for row in rows[:-1]]
    assert max(others) - min(others) <= (3 if method == "PRICE" else 500)


@pytest.mark.parametrize(
    ("field", "amount"), [("first_amount", 1_000), ("first_amount", 101_000), ("last_amount", 101_000)]
)
def test_fixed_amounts_name_what_is_allowed(field, amount):
    agreed = terms(instalments=3, annual_rate_e4=120_000)
    with pytest.raises(plans.FixedAmountOutOfRange) as caught:
        plans.schedule(debt_minor=100_000, terms=dataclasses.replace(agreed, **{f"{field}_minor": amount}))
    assert caught.value.fields[0].field == f"terms.{field}"
    low, high = (int(caught.value.metadata[f"allowed_{side}_minor"]) for side in ("min", "max"))
    assert not low <= amount <= high
    for allowed in (low, high):
        plans.schedule(debt_minor=100_000, terms=dataclasses.replace(agreed, **{f"{field}_minor": allowed}))


def test_periods_in_days_and_in_months():
    days = plans.schedule(debt_minor=90_000, terms=terms(period_days=20, annual_rate_e4=360_000))
    assert [str(row.due_date) for row in days] == ["2026-12-20", "2027-01-09", "2027-01-29"]
    assert days[0].interest_minor == 1_800, "36 % a year is 2 % for 20 days of 360"
    months = plans.schedule(
        debt_minor=90_000,
        terms=terms(first_due_date=datetime.date(2026, 12, 31), period_months=2, annual_rate_e4=120_000),
    )
    assert [str(row.due_date) for row in months] == ["2026-12-31", "2027-02-28", "2027-04-30"]
    assert months[0].interest_minor == 1_800
    assert {row.amount_minor for row in months[:-1]} == {
        plans.level_amount_minor(capital_minor=90_000, annual_rate_e4=120_000, instalments=3, period=2)
    }
    thirty = plans.schedule(debt_minor=90_000, terms=terms(period_days=30, annual_rate_e4=120_000))
    monthly = plans.schedule(debt_minor=90_000, terms=terms(annual_rate_e4=120_000))
    assert [row.amount_minor for row in thirty] == [row.amount_minor for row in monthly]


def test_standard_4_9_a_business_day_shift_does_not_change_interest():
    def monday(date):
        return date + datetime.timedelta(days=(7 - date.weekday()) % 7 if date.weekday() > 4 else 0)

    plain = plans.schedule(debt_minor=90_000, terms=terms(annual_rate_e4=120_000), business_day=monday)
    moved = plans.schedule(
        debt_minor=90_000, terms=terms(annual_rate_e4=120_000, business_days=True), business_day=monday
    )
    assert [str(row.due_date) for row in plain] == ["2026-12-20", "2027-01-20", "2027-02-20"]
    assert [str(row.due_date) for row in moved] == ["2026-12-21", "2027-01-20", "2027-02-22"]
    assert [row.interest_minor for row in plain] == [row.interest_minor for row in moved]


def test_due_dates_one_by_one():
    dates = (datetime.date(2026, 12, 20), datetime.date(2026, 12, 24), datetime.date(2027, 3, 1))
    agreed = terms(due_dates=dates)
    agreed.check(today=START)
    assert tuple(row.due_date for row in plans.schedule(debt_minor=90_000, terms=agreed)) == dates


@pytest.mark.parametrize(
    ("debt", "agreed", "expected"),
    [(20_494, 20_594, 0), (10_000, 9_000, 100_000), (30_000, 20_000, 333_333), (100, 0, 1_000_000)],
)
def test_w04_forgiven_is_never_negative(debt, agreed, expected):
    assert plans.forgiven_e4(debt_minor=debt, agreed_minor=agreed) == expected


def test_a_discount_of_everything_is_refused():
    with pytest.raises(plans.DiscountTooLarge) as caught:
        plans.schedule(debt_minor=100, terms=terms(discount_rate_e4=1_000_000))
    assert caught.value.metadata["allowed_max_minor"] == "99"
    assert caught.value.fields == (errors.FieldViolation("terms.discount", "expected at most 0.99"),)


@st.composite
def any_terms(draw):
    count = draw(st.integers(1, 48))
    method = draw(st.sampled_from(list(plans.Method)))
    down = draw(st.one_of(st.just(0), st.integers(1, 10**8)))
    period = draw(st.sampled_from(["", "period_months", "period_days"])) if count > 1 else ""
    fields = {period: draw(st.integers(1, 12))} if period else {}
    if count > 1:
        fields["first_amount_minor"] = draw(st.one_of(st.just(0), st.integers(1, 10**8)))
    if count > 2:
        fields["last_amount_minor"] = draw(st.one_of(st.just(0), st.integers(1, 10**8)))
    return terms(
        instalments=count,
        method=method,
        annual_rate_e4=0 if method in plans.WITHOUT_INTEREST else draw(st.integers(0, 2_000_000)),
        down_payment_minor=down,
        down_payment_date=START if down else None,
        discount_minor=draw(st.integers(0, 10**6)),
        accretion_rate_e4=draw(st.integers(0, 200_000)),
        penalty_rate_e4=draw(st.integers(0, 200_000)),
        discount_rate_e4=draw(st.integers(0, 500_000)),
        charges_minor=draw(st.integers(0, 10**5)),
        fees_minor=draw(st.integers(0, 10**5)),
        **fields,
    )


REFUSALS = (
    plans.DiscountTooLarge,
    plans.DownPaymentTooLarge,
    plans.InstalmentTooSmall,
    plans.FixedAmountOutOfRange,
)


@given(debt=st.integers(1, 10**10), agreed=any_terms())
def test_every_method_adds_up(debt, agreed):
    agreed.check(today=START)
    extra = plans.added(debt_minor=debt, terms=agreed)
    try:
        rows = plans.schedule(debt_minor=debt, terms=agreed)
    except REFUSALS:
        return
    assert sum(row.capital_minor for row in rows) == debt + extra.total_minor - extra.discount_minor
    assert rows[0].opening_minor == debt + extra.total_minor - extra.discount_minor
    assert rows[-1].closing_minor == 0
    for before, after in itertools.pairwise(rows):
        assert before.closing_minor == after.opening_minor
    assert all(row.capital_minor > 0 and row.interest_minor >= 0 for row in rows)
    assert all(type(value) is int for row in rows for value in (row.capital_minor, row.interest_minor))
    assert len(rows) == agreed.instalments + bool(agreed.down_payment_minor)
    by_number = {row.number: row for row in rows}
    if agreed.first_amount_minor:
        assert by_number[1].amount_minor == agreed.first_amount_minor
    if agreed.last_amount_minor:
        assert rows[-1].amount_minor == agreed.last_amount_minor
    assert by_number[1].once_minor == extra.once_minor
    if agreed.method in plans.WITHOUT_INTEREST:
        assert not any(row.interest_minor for row in rows)


@given(debt=st.integers(10**4, 10**9), agreed=any_terms(), data=st.data())
def test_w07_edited_rows_keep_sum_and_interest(debt, agreed, data):
    try:
        rows = plans.schedule(debt_minor=debt, terms=agreed)
    except REFUSALS:
        return
    instalments = [row for row in rows if row.number]
    total = sum(row.amount_minor for row in instalments)
    weights = data.draw(st.lists(st.integers(1, 100), min_size=len(instalments), max_size=len(instalments)))
    amounts = money.allocate(total, weights)
    assume(all(amounts))
    edited = dataclasses.replace(
        agreed,
        rows=tuple(
            plans.EditedRow(due_date=row.due_date, amount_minor=amount)
            for row, amount in zip(instalments, amounts, strict=True)
        ),
    )
    try:
        found = plans.schedule(debt_minor=debt, terms=edited)
    except plans.InstalmentTooSmall:
        return
    assert [row.amount_minor for row in found if row.number] == amounts
    assert sum(row.interest_minor for row in found) == sum(row.interest_minor for row in rows)
    assert found[-1].closing_minor == 0
    assert all(row.capital_minor > 0 for row in found)


@given(
    debt=st.integers(10**5, 10**9),
    count=st.integers(2, 60),
    rate=st.integers(1_000, 600_000),
    share=st.integers(1, 90),
)
def test_numpy_financial_counts_the_same_with_a_balloon(debt, count, rate, share):
    """Its future value is what is left for the balloon; interest of a row is its ipmt."""
    left = debt * share // 100
    monthly = Decimal(rate) / 12_000_000
    expected = -numpy_financial.pmt(monthly, count, Decimal(debt), -Decimal(left))
    found = plans.level_amount_minor(
        capital_minor=debt, annual_rate_e4=rate, instalments=count, left_minor=left
    )
    assert abs(Decimal(found) - Decimal(str(expected))) <= Decimal("0.51")


@given(debt=st.integers(10**5, 10**9), count=st.integers(2, 48), rate=st.integers(1_000, 600_000))
def test_numpy_financial_splits_the_rows_the_same(debt, count, rate):
    """Rounding once a row moves the balance by less than a cent a row, grown by the interest on it."""
    rows = plans.schedule(debt_minor=debt, terms=terms(instalments=count, annual_rate_e4=rate))
    monthly = rate / 12_000_000
    allowed = count * (1 + monthly) ** count + 1
    for row in rows:
        expected = -float(numpy_financial.ipmt(monthly, row.number, count, debt))
        assert abs(row.interest_minor - expected) <= allowed
    present = numpy_financial.npv(monthly, [0, *(row.amount_minor for row in rows)])
    assert abs(present - debt) <= allowed, "what is paid is worth what was owed"


@given(debt=st.integers(10**5, 10**9), count=st.integers(2, 48), rate=st.integers(1_000, 600_000))
def test_numpy_financial_values_sac_the_same(debt, count, rate):
    rows = plans.schedule(debt_minor=debt, terms=both("SAC", instalments=count, annual_rate_e4=rate))
    present = numpy_financial.npv(rate / 12_000_000, [0, *(row.amount_minor for row in rows)])
    assert abs(present - debt) <= count


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": plans.Method.EQUAL_PRINCIPAL, "annual_rate_e4": 1}, "annual_rate_e4"),
        ({"method": plans.Method.INTEREST_FREE, "annual_rate_e4": 1}, "annual_rate_e4"),
        ({"period_months": 13}, "period_months"),
        ({"means": "GOLD"}, "means"),
        ({"means": "PIX", "first_cheque_number": 1}, "first_cheque_number"),
        ({"first_cheque_number": -1}, "first_cheque_number"),
        ({"period_days": 366}, "period_days"),
        ({"period_days": -1}, "period_days"),
        ({"period_days": 1, "period_months": 1}, "period_days"),
        ({"accretion_rate_e4": 1_000_001}, "accretion_rate_e4"),
        ({"penalty_rate_e4": -1}, "penalty_rate_e4"),
        ({"discount_rate_e4": 1_000_001}, "discount_rate_e4"),
        ({"charges_minor": -1}, "charges"),
        ({"fees_minor": -1}, "fees"),
        ({"first_amount_minor": -1}, "first_amount"),
        ({"instalments": 1, "first_amount_minor": 1}, "first_amount"),
        ({"instalments": 2, "first_amount_minor": 1, "last_amount_minor": 1}, "last_amount"),
        ({"due_dates": (datetime.date(2026, 12, 20),)}, "due_dates"),
        ({"instalments": 1, "due_dates": (datetime.date(2026, 12, 21),)}, "due_dates"),
        ({"instalments": 2, "due_dates": (datetime.date(2026, 12, 20),) * 2}, "due_dates[1]"),
        (
            {
                "instalments": 1,
                "rows": (plans.EditedRow(due_date=datetime.date(2026, 12, 20), amount_minor=0),),
            },
            "rows[0].amount",
        ),
        (
            {
                "instalments": 1,
                "due_dates": (datetime.date(2026, 12, 20),),
                "rows": (plans.EditedRow(due_date=datetime.date(2026, 12, 20), amount_minor=1),),
            },
            "due_dates",
        ),
    ],
)
def test_wrong_choices_name_the_field(fields, field):
    with pytest.raises(errors.InvalidRequest) as caught:
        terms(**fields).check(today=START)
    assert f"terms.{field}" in {violation.field for violation in caught.value.fields}
