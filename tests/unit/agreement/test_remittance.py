"""What is earned on settlements and what is paid over (beyond the manuals: remittance, repasse)."""

import datetime
import uuid

import hypothesis
import pytest
from hypothesis import strategies as st

from agreement_service.domain import remittance
from servicekit import errors, money

DAY = datetime.date(2026, 11, 2)
PAYMENT, CASE, TITLE = (uuid.UUID(int=number) for number in (1, 2, 3))


def contract(**fields):
    return remittance.Contract(
        **{
            "contract_id": uuid.UUID(int=9),
            "currency": "BRL",
            "valid_from": datetime.date(2026, 1, 1),
            "bands": (
                remittance.Band(
                    from_day=0, principal_rate_e4=80_000, charges_rate_e4=100_000, costs_rate_e4=500_000
                ),
                remittance.Band(
                    from_day=31, principal_rate_e4=120_000, charges_rate_e4=150_000, costs_rate_e4=500_000
                ),
                remittance.Band(
                    from_day=181, principal_rate_e4=300_000, charges_rate_e4=300_000, costs_rate_e4=1_000_000
                ),
            ),
            "frequency": remittance.Frequency.MONTH,
            "grouping": remittance.Grouping.GROUPED,
            **fields,
        }
    )


def settlement(posting_id, amount, **fields):
    return remittance.Settlement(
        **{
            "posting_id": posting_id,
            "payment_id": PAYMENT,
            "case_id": CASE,
            "unit": TITLE,
            "component": "PRINCIPAL",
            "product": "",
            "amount_minor": amount,
            "value_date": DAY,
            "days_past_due": 10,
            **fields,
        }
    )


def count(*settlements, terms=None, before=()):
    return remittance.count(settlements, remittance.reaches([terms or contract()]), before=before)


rates = st.integers(0, money.RATE_UNIT)
bands = st.builds(
    lambda days, values: tuple(
        remittance.Band(from_day=day, principal_rate_e4=p, charges_rate_e4=c, costs_rate_e4=f)
        for day, (p, c, f) in zip([0, *sorted(days)], values, strict=False)
    ),
    st.sets(st.integers(1, 2_000), max_size=6),
    st.lists(st.tuples(rates, rates, rates), min_size=7, max_size=7),
)


@st.composite
def contracts(draw):
    taxed = draw(st.booleans())
    fixed = draw(st.sampled_from([0, 1, 250]))
    return contract(
        bands=draw(bands),
        tax=remittance.Tax.ISS if taxed else None,
        tax_rate_e4=draw(st.integers(20_000, 50_000)) if taxed else 0,
        tax_retained=taxed and draw(st.booleans()),
        fixed_minor=fixed,
        fixed_per=draw(st.sampled_from(list(remittance.FixedPer))) if fixed else None,
    )


@st.composite
def ledgers(draw):
    """Payments entered and taken back, in part and whole, as the ledger would have them."""
    held: dict[tuple[int, int, str], int] = {}
    found = []
    for posting_id in range(1, draw(st.integers(1, 14)) + 1):
        key = (
            draw(st.integers(1, 3)),
            draw(st.integers(1, 2)),
            draw(st.sampled_from(["PRINCIPAL", "INTEREST", "FEES"])),
        )
        now = held.get(key, 0)
        back = now and draw(st.booleans())
        amount = (
            -(now if draw(st.booleans()) else draw(st.integers(1, now)))
            if back
            else draw(st.integers(1, 10**7))
        )
        held[key] = now + amount
        payment, unit, component = key
        found.append(
            settlement(
                posting_id,
                amount,
                payment_id=uuid.UUID(int=payment),
                unit=uuid.UUID(int=100 + unit),
                component=component,
                days_past_due=(payment * 37 + unit * 150) % 400,
            )
        )
    return found, held


@hypothesis.given(contracts(), ledgers())
def test_lines_add_up_to_the_totals_of_the_statement(terms, ledger):
    settlements, _ = ledger
    lines = count(*settlements, terms=terms)
    found = remittance.totals(lines, carried_in_minor=-5, minimum_minor=1_000)
    assert found.gross_minor == sum(one.amount_minor for one in settlements)
    assert found.net_minor == found.remitted_minor + found.carried_out_minor
    assert found.remitted_minor in (0, found.net_minor)
    assert found.remitted_minor == 0 or found.remitted_minor >= 1_000
    taken = sum(
        line.percentage_minor + line.fixed_minor + line.tax_added_minor - line.tax_retained_minor
        for line in lines
    )
    assert found.net_minor == found.gross_minor - taken - 5


@hypothesis.given(contracts(), ledgers(), st.integers(0, 14))
def test_what_is_taken_back_restores_the_centavo_also_in_a_later_statement(terms, ledger, cut):
    settlements, held = ledger
    last = len(settlements)
    back = [
        settlement(
            last + place,
            -amount,
            payment_id=uuid.UUID(int=payment),
            unit=uuid.UUID(int=100 + unit),
            component=component,
            days_past_due=0,
        )
        for place, ((payment, unit, component), amount) in enumerate(held.items(), 1)
        if amount
    ]
    everything = [*settlements, *back]
    first = count(*everything[:cut], terms=terms)
    second = count(*everything[cut:], terms=terms, before=first)
    lines = [*first, *second]
    assert lines == count(*everything, terms=terms), "where the period ends changes nothing"
    for part in ("percentage_minor", "fixed_minor", "tax_added_minor", "tax_retained_minor"):
        assert sum(getattr(line, part) for line in lines) == 0, part


@hypothesis.given(contracts(), st.integers(1, 10**9), st.integers(0, 3_000))
def test_bands_cover_every_day_and_end_before_the_next(terms, amount, days):
    band = terms.band(days)
    assert band.from_day <= days
    following = [one.from_day for one in terms.bands if one.from_day > band.from_day]
    assert not following or days < following[0]
    percentage = terms.percentage(amount, component="PRINCIPAL", days=days)
    assert 0 <= percentage <= amount
    assert abs(2 * (percentage * money.RATE_UNIT - amount * band.principal_rate_e4)) <= money.RATE_UNIT


@pytest.mark.parametrize(
    ("days", "rate"),
    [(0, 80_000), (30, 80_000), (31, 120_000), (180, 120_000), (181, 300_000), (9_999, 300_000)],
)
def test_the_edges_of_the_bands(days, rate):
    (line,) = count(settlement(1, 10_000, days_past_due=days))
    assert (line.rate_e4, line.percentage_minor) == (rate, rate // 100)


def test_rates_differ_by_what_was_settled():
    lines = count(
        *(
            settlement(place, 10_000, component=component)
            for place, component in enumerate(
                ("PRINCIPAL", "CORRECTION", "PENALTY", "INTEREST", "PLAN_INTEREST", "COSTS", "FEES"), 1
            )
        )
    )
    assert [line.percentage_minor for line in lines] == [800, 1_000, 1_000, 1_000, 1_000, 5_000, 5_000]


def test_half_a_cent_is_rounded_away_from_zero_on_both_sides():
    terms = contract(bands=(remittance.Band(from_day=0, principal_rate_e4=50_000),))
    lines = count(settlement(1, 10), settlement(2, 20), settlement(3, -10), terms=terms)
    assert [line.percentage_minor for line in lines] == [1, 1, -1]


def test_a_clawback_goes_by_the_rate_that_was_given():
    first = count(settlement(1, 10_000, days_past_due=200), settlement(2, 5_000, component="INTEREST"))
    dearer = contract(
        contract_id=uuid.UUID(int=10), bands=(remittance.Band(from_day=0, principal_rate_e4=900_000),)
    )
    (line,) = count(settlement(3, -4_000, days_past_due=0), terms=dearer, before=first)
    assert (line.percentage_minor, line.rate_e4, line.days_past_due) == (-1_200, 300_000, 200)
    assert line.contract == contract()


def test_a_fixed_amount_is_taken_once_for_a_payment_and_given_back_with_it():
    terms = contract(fixed_minor=250, fixed_per=remittance.FixedPer.PAYMENT)
    lines = count(
        settlement(1, 1_000, component="INTEREST"),
        settlement(2, 9_000),
        settlement(3, -9_000),
        settlement(4, -1_000, component="INTEREST"),
        settlement(5, 9_500),
        terms=terms,
    )
    assert [line.fixed_minor for line in lines] == [250, 0, 0, -250, 250]


def test_a_fixed_amount_for_each_title_a_payment_settles():
    terms = contract(fixed_minor=250, fixed_per=remittance.FixedPer.SETTLEMENT)
    other = uuid.UUID(int=44)
    lines = count(
        settlement(1, 1_000),
        settlement(2, 2_000, component="INTEREST"),
        settlement(3, 3_000, unit=other),
        settlement(4, -3_000, unit=other),
        terms=terms,
    )
    assert [line.fixed_minor for line in lines] == [250, 0, 250, -250]


def test_tax_is_added_or_retained():
    added = contract(tax=remittance.Tax.ISS, tax_rate_e4=50_000)
    found = remittance.totals(count(settlement(1, 100_000), terms=added))
    assert (found.commission_minor, found.tax_added_minor, found.net_minor) == (8_000, 400, 91_600)
    retained = contract(tax=remittance.Tax.ISS, tax_rate_e4=50_000, tax_retained=True)
    found = remittance.totals(count(settlement(1, 100_000), terms=retained))
    assert (found.tax_added_minor, found.tax_retained_minor, found.net_minor) == (0, 400, 92_400)


@hypothesis.given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=12),
    st.integers(0, 10**8),
    st.integers(-(10**6), 10**6),
)
def test_the_chain_of_carried_balances_adds_up(months, minimum, start):
    carried, paid = start, 0
    for net in months:
        found = remittance.Totals(gross_minor=net, carried_in_minor=carried, minimum_minor=minimum)
        assert found.remitted_minor >= 0
        carried = found.carried_out_minor
        paid += found.remitted_minor
        assert carried < max(1, minimum)
    assert paid + carried == start + sum(months)


def test_contracts_are_dated_and_a_product_has_its_own():
    def at(year, month=1, product="", number=1):
        return contract(
            contract_id=uuid.UUID(int=number), valid_from=datetime.date(year, month, 1), product=product
        )

    old, new, cards, cards_later = (
        at(2024, number=1),
        at(2026, number=2),
        at(2025, 6, "CARD", 3),
        at(2026, 6, "CARD", 4),
    )
    found = remittance.reaches([cards_later, new, cards, old])

    def on(product, *day):
        return remittance.contract_on(found, product=product, date=datetime.date(*day))

    assert on("LOAN", 2023, 12, 31) is None
    assert on("LOAN", 2024, 1, 1) is old
    assert on("", 2025, 12, 31) is old
    assert on("", 2026, 1, 1) is new
    assert on("CARD", 2025, 5, 31) is old
    assert on("CARD", 2025, 6, 1) is cards
    assert on("CARD", 2026, 3, 1) is cards, "its own, though a general one began later"
    assert on("CARD", 2026, 6, 1) is cards_later
    assert on("CARD", 2023, 1, 1) is None
    with pytest.raises(remittance.CommissionContractMissing):
        remittance.count([settlement(1, 5, value_date=datetime.date(2023, 1, 1))], found)


def test_a_success_fee_is_taken_once_and_given_back():
    terms = contract(success_rate_e4=20_000, tax=remittance.Tax.ISS, tax_rate_e4=50_000)

    def fee(resolved, received, before=None):
        return remittance.success_fee(terms, resolved=resolved, received_minor=received, before=before)

    assert fee(False, 100_000) is None
    first = fee(True, 100_000)
    assert (first.fee_minor, first.tax_added_minor) == (2_000, 100)
    assert fee(True, 100_000, first) is None
    more = fee(True, 110_000, first)
    assert (more.fee_minor, more.tax_added_minor) == (200, 10)
    back = fee(False, 40_000, first)
    assert (back.fee_minor, back.tax_added_minor) == (-2_000, -100)


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"bands": ()}, "bands", "1 to 50"),
        ({"bands": (remittance.Band(from_day=1),)}, "bands[0].from_day", "expected 0"),
        (
            {"bands": (remittance.Band(from_day=0), remittance.Band(from_day=0))},
            "bands[1].from_day",
            "expected 1 to 36500",
        ),
        (
            {"bands": (remittance.Band(from_day=0, costs_rate_e4=1_000_001),)},
            "bands[0].costs_rate_e4",
            "expected 0 to 1000000",
        ),
        ({"currency": "USD"}, "currency", "BRL or EUR"),
        ({"fixed_minor": 5}, "fixed_per", "with a fixed amount"),
        ({"fixed_minor": -5, "fixed_per": remittance.FixedPer.PAYMENT}, "fixed_amount", "expected 0 to"),
        ({"success_rate_e4": -1}, "success_rate_e4", "expected 0 to 1000000"),
        ({"tax": remittance.Tax.ISS, "tax_rate_e4": 50_001}, "tax_rate_e4", "expected 20000 to 50000"),
        ({"tax": remittance.Tax.ISS}, "tax_rate_e4", "expected 20000 to 50000"),
        ({"tax": remittance.Tax.VAT, "tax_rate_e4": 230_000}, "tax", "expected ISS in BRL"),
        ({"tax_retained": True}, "tax_retained", "with a tax only"),
        ({"frequency": None}, "frequency", "without a product"),
        ({"product": "CARD"}, "grouping", "without a product"),
        ({"product": "x" * 61}, "product", "at most 60"),
        ({"minimum_minor": -1}, "minimum_amount", "expected 0 to"),
    ],
)
def test_a_wrong_contract_names_field_and_range(fields, field, text):
    wrong = {one.field: one.description for one in contract(**fields).check()}
    assert text in wrong[field]


def test_a_right_contract():
    assert not contract().check()
    assert not contract(currency="EUR", tax=remittance.Tax.VAT, tax_rate_e4=230_000).check()
    assert not contract(product="CARD", frequency=None, grouping=None).check()


@hypothesis.given(
    st.sampled_from(list(remittance.Frequency)),
    st.dates(datetime.date(2000, 1, 10), datetime.date(2200, 1, 1)),
)
def test_a_period_ends_where_its_frequency_says(frequency, date):
    end = remittance.period_end(frequency, date)
    assert end <= date
    remittance.check_period_end(frequency, end, business_date=date, closed=None)
    with pytest.raises(remittance.PeriodClosed):
        remittance.check_period_end(frequency, end, business_date=date, closed=end)
    with pytest.raises(errors.InvalidRequest) as caught:
        remittance.check_period_end(
            frequency, date + datetime.timedelta(days=1), business_date=date, closed=None
        )
    assert caught.value.fields[0].field == "period_end"


def test_periods_by_week_and_month():
    friday = datetime.date(2026, 11, 20)
    assert remittance.period_end(remittance.Frequency.WEEK, friday) == datetime.date(2026, 11, 16)
    assert remittance.period_end(remittance.Frequency.MONTH, friday) == datetime.date(2026, 11, 1)
    for frequency, text in (("WEEK", "Monday"), ("MONTH", "first of a month")):
        with pytest.raises(errors.InvalidRequest) as caught:
            remittance.check_period_end(
                remittance.Frequency(frequency), friday, business_date=friday, closed=None
            )
        assert text in caught.value.fields[0].description
