"""Terms of charges on a real PostgreSQL: the same in SQL as in the domain, resolved, edited, refused."""

import datetime
from collections import Counter

import pytest
from google.type import money_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agreement_service.domain import accounts, approvals, balances, creditors, limits, series, terms
from agreement_service.store import accounts as account_store
from agreement_service.usecases import charges, moments, summary
from agreement_service.usecases import creditors as creditor_cases
from agreement_service.usecases import terms as term_cases
from recupera.agreement.v1 import agreement_pb2, terms_pb2, terms_service_pb2
from servicekit import dates, errors, ids
from tests.integration.agreement.conftest import FRIDAY, Agency

START = datetime.date(2026, 1, 1)
MADE_UP = {
    "IPCA": "\n".join(
        f"2026-{month:02};{value}" for month, value in enumerate(["0,5", "-0,3", "1.2", "0"], 1)
    ),
    "LEGAL_BR": "\n".join(
        f"{2024 + (7 + step) // 12}-{(7 + step) % 12 + 1:02};0,{31 + step}" for step in range(20)
    ),
    "PT_COMMERCIAL": "2025-07;9.5\n2026-01;9.15",
}
"""Made up, but for the rate of the first half of 2026; LEGAL_BR ends with March 2026."""
SUPERVISOR = limits.Authority(subject="users/9", roles=frozenset({"supervisor"}), deciding=True)


def put(
    agency,
    *,
    currency="BRL",
    consumer=False,
    valid_from=START,
    creditor=False,
    product="",
    title=None,
    **content,
):
    """Set terms."""
    with agency.tx() as tx:
        return term_cases.put(
            tx=tx,
            agency=agency.agency,
            scope=terms.Scope(
                creditor_id=agency.creditor_id if creditor or product or title else None,
                product=product,
                title_id=title,
                currency=currency,
                consumer=consumer,
                valid_from=valid_from,
            ),
            content=terms.Terms(**{"source": "contract 7", **content}),
            set_by="users/1",
            moment=agency.moment(tx),
        )


def publish(agency, code, text=None, **options):
    """Import a series."""
    with agency.tx() as tx:
        return term_cases.import_series(
            tx=tx,
            agency=agency.agency,
            code=code,
            content=(text or MADE_UP[code]).encode(),
            **{"source": "made up", "replace": False, **options},
            moment=agency.moment(tx),
        )


def explain(agency, placed, date):
    """One title's lines."""
    with agency.tx() as tx:
        return charges.explain_one(tx=tx, agency=agency.agency, title_id=placed.title_id, date=date)


def columns(agency, placed, date):
    """Lines of many titles, from SQL, as (title, component, amount, base, numerator, denominator, from, through,
    source, rule, series, terms)."""
    with agency.tx() as tx:
        found = charges.explain_many(
            tx=tx, agency=agency.agency, title_ids=[str(one.title_id) for one in placed], date=date
        )
    lines = Counter()
    for part in found.parts:
        for place, title in enumerate(part.titles):
            source = found.sources[part.sources[place]]

            def day(column, place=place):
                return dates.from_epoch_days(column[place]) if len(column) else None

            lines[
                (
                    found.title_ids[title],
                    part.component,
                    part.amounts[place],
                    part.bases[place] if part.bases else 0,
                    part.numerators[place] if part.numerators else 0,
                    part.denominators[place] if part.denominators else source.denominator,
                    day(part.from_days),
                    day(part.through_days)
                    or (
                        day(part.from_days)
                        and max(day(part.from_days), dates.from_epoch_days(source.through_day))
                    ),
                    source.text,
                    source.rule,
                    source.series,
                    source.terms_id,
                )
            ] += 1
    return lines


def counted(agency, placed, date):
    """The same from the domain."""
    with agency.tx() as tx:
        titles = account_store.titles(
            tx, agency.agency, {one.case_id for one in placed}, also=[one.title_id for one in placed]
        )
        posted = account_store.posted_charges(tx, agency.agency, titles)
    return Counter(
        (
            str(title.title_id),
            line.component,
            line.amount_minor,
            line.base_minor,
            line.numerator,
            line.denominator,
            line.from_date,
            line.through_date,
            line.source,
            line.rule,
            line.series,
            line.terms_id,
        )
        for title in titles
        for line in balances.explain_title(title, date, posted.get(title.title_id, ())).lines
    )


RATES = st.sampled_from([0, 1, 333, 10_000, 20_000, 105_000])
DAYS = st.integers(0, 200).map(lambda days: START + datetime.timedelta(days=days))


@st.composite
def contents(draw, currency, consumer):
    """Terms that may be set."""
    chosen = draw(st.sampled_from(list(terms.Unit)))
    content = {
        "interest_unit": chosen,
        "day_count": draw(st.sampled_from(list(terms.DayCount))),
        "grace_days": draw(st.sampled_from([0, 0, 3])),
        "expenses_minor": draw(st.sampled_from([0, 1_000])),
    }
    rates = [code for code in ("LEGAL_BR", "PT_COMMERCIAL") if series.SERIES[code].currency == currency]
    if draw(st.booleans()) and not (currency == "EUR" and consumer):
        content["interest_series"] = rates[0]
    else:
        content["interest_rate_e4"] = draw(RATES)
        if currency == "EUR" and chosen is terms.Unit.YEAR:
            content["surcharge_e4"] = draw(st.sampled_from([0, 30_000]))
    bank = currency == "EUR" and draw(st.booleans())
    content["recovery_commission"] = bank
    if not bank and not content.get("surcharge_e4"):
        content["fees_rate_e4"] = draw(st.sampled_from([0, 100_000, 33_333]))
        fixed = not (currency == "BRL" and consumer) and draw(st.booleans())
        if fixed:
            content["penalty_minor"] = draw(st.sampled_from([0, 300]))
        else:
            content["penalty_rate_e4"] = draw(st.sampled_from([0, 10_001, 20_000]))
        if currency == "EUR" and not consumer:
            content["late_payment_minor"] = draw(st.sampled_from([0, 4_000]))
    if currency == "BRL" and draw(st.booleans()):
        content["correction_series"] = "IPCA"
    return content


@st.composite
def worlds(draw):
    """Terms, titles under them, and payments."""
    kinds = [(currency, consumer) for currency in ("BRL", "EUR") for consumer in (True, False)]
    set_terms = []
    for _ in range(draw(st.integers(0, 5))):
        currency, consumer = draw(st.sampled_from(kinds))
        set_terms.append(
            {
                "currency": currency,
                "consumer": consumer,
                "valid_from": draw(DAYS),
                "creditor": draw(st.booleans()),
                "product": draw(st.sampled_from(["", "", "CARD"])),
                **draw(contents(currency, consumer)),
            }
        )
    cases = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "kind": st.sampled_from(kinds),
                    "product": st.sampled_from(["", "CARD"]),
                    "penalty_e4": st.one_of(st.none(), RATES),
                    "monthly_e4": st.one_of(st.none(), RATES),
                    "rows": st.lists(
                        st.tuples(
                            DAYS,
                            st.one_of(st.integers(1, 10**7), st.integers(1, 10**12)),
                        ),
                        min_size=1,
                        max_size=6,
                    ),
                    "paid": st.one_of(st.just(0), st.integers(1, 10**7)),
                    "paid_day": DAYS,
                }
            ),
            min_size=1,
            max_size=10,
        )
    )
    return set_terms, cases, draw(st.booleans()), draw(DAYS), draw(st.integers(0, 500))


@pytest.mark.feature("S1-17")
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(world=worlds())
def test_sql_counts_as_the_domain_does(agency, world):
    """Lines of ExplainTitles, and what SummarizeMoney says is open, are what the domain counts, to the cent."""
    set_terms, cases, terms_first, date, later = world
    one = Agency(agency.engine, agency.owner_url)
    one.creditor_id = ids.new()
    for code in MADE_UP:
        publish(one, code)
    placed = one.place((START, 1))  # a creditor is known from its first title on
    if terms_first:
        for content in set_terms:
            put(one, **content)
    for case in cases:
        currency, consumer = case["kind"]
        placed += one.place(
            *case["rows"],
            currency=currency,
            natural_person=consumer,
            product=case["product"],
            penalty_e4=case["penalty_e4"],
            monthly_e4=case["monthly_e4"],
        )
    if not terms_first:
        for content in set_terms:
            put(one, **content)
    at = len(placed)
    for case in reversed(cases):
        at -= len(case["rows"])
        if case["paid"]:
            one.pay(
                case["paid"],
                currency=case["kind"][0],
                title_reference=placed[at].reference,
                value_date=case["paid_day"],
            )
    expected = counted(one, placed, date)
    assert columns(one, placed, date) == expected
    today = one.today
    asked = max(today, date) + datetime.timedelta(days=later)
    with one.tx() as tx:
        sums = summary.summarize(tx=tx, agency=one.agency, date=asked, business_date=today).sums
    assert sum(entry.open for entry in sums) == sum(
        line[2] * times for line, times in counted(one, placed, asked).items()
    )
    one.check_money()


@pytest.mark.feature("S1-17")
def test_every_charge_can_be_counted_again_from_its_line(agency):
    publish(agency, "IPCA")
    (placed,) = agency.place((datetime.date(2026, 1, 20), 123_457))
    put(agency, creditor=True, correction_series="IPCA", expenses_minor=700, fees_rate_e4=100_000)
    agency.pay(20_000, title_reference=placed.reference, value_date=datetime.date(2026, 3, 10))
    found = explain(agency, placed, FRIDAY).explained
    kinds = Counter(line.component for line in found.lines)
    assert kinds == {
        "PRINCIPAL": 1, "CORRECTION": 2, "PENALTY": 1, "INTEREST": 2, "COSTS": 1, "FEES": 1, "PAID": 1,
    }  # fmt: skip
    for line in found.lines:
        assert line.source
        if line.rule:
            assert line.amount_minor == (2 * line.base_minor * line.numerator + line.denominator) // (
                2 * line.denominator
            )
    row = agency.title(placed)
    assert (
        found.total_minor
        == row.open_principal_minor
        + row.open_correction_minor
        + row.open_penalty_minor
        + sum(line.amount_minor for line in found.lines if line.rule and "charged before" not in line.source)
        + row.open_interest_minor
        + row.open_costs_minor
        + row.open_fees_minor
    )


@pytest.mark.feature("S1-17")
def test_the_most_specific_terms_count_and_a_title_keeps_its_own_rates(agency):
    old, new = datetime.date(2026, 2, 2), datetime.date(2026, 6, 2)
    (bare_old, bare_new) = agency.place((old, 100_000), (new, 100_000), penalty_e4=None, monthly_e4=None)
    (carded,) = agency.place((new, 100_000), product="CARD", penalty_e4=None, monthly_e4=None)
    (own,) = agency.place((new, 100_000), penalty_e4=10_000, monthly_e4=None)
    put(agency, penalty_minor=100)
    put(agency, creditor=True, penalty_minor=200)
    put(agency, creditor=True, valid_from=datetime.date(2026, 6, 1), penalty_minor=300)
    put(agency, product="CARD", penalty_minor=400)
    late = agency.place((new, 100_000), product="CARD", penalty_e4=None, monthly_e4=None)[0]

    def penalty(placed):
        lines = explain(agency, placed, FRIDAY).explained.lines
        return sum(line.amount_minor for line in lines if line.component == "PENALTY")

    assert [penalty(one) for one in (bare_old, bare_new, carded, own, late)] == [200, 300, 400, 1_000, 400]
    put(agency, title=bare_old.title_id, penalty_minor=500)
    put(agency, creditor=True, penalty_minor=600)
    assert [penalty(one) for one in (bare_old, bare_new)] == [500, 300]
    row = agency.title(bare_new)
    put(agency, creditor=True, valid_from=datetime.date(2026, 6, 1), penalty_minor=310)
    assert penalty(bare_new) == 310
    assert agency.title(bare_new).version == row.version + 1


@pytest.mark.feature("S1-17")
def test_new_terms_never_change_what_is_posted(agency):
    (placed,) = agency.place((datetime.date(2026, 6, 2), 100_000), penalty_e4=None, monthly_e4=None)
    put(agency, creditor=True, penalty_rate_e4=20_000, interest_rate_e4=10_000)
    paid = agency.pay(10_000, title_reference=placed.reference, value_date=FRIDAY)
    before = agency.title(placed)
    put(agency, creditor=True, penalty_rate_e4=50_000, interest_rate_e4=90_000)
    after = agency.title(placed)
    assert (after.charged_penalty_minor, after.charged_interest_minor) == (
        2_000,
        before.charged_interest_minor,
    )
    later = FRIDAY + datetime.timedelta(days=30)
    (line,) = [
        line
        for line in explain(agency, placed, later).explained.lines
        if line.component == "INTEREST" and line.terms_id
    ]
    assert line.amount_minor == round(after.open_principal_minor * 0.09)
    agency.reverse(paid)
    assert agency.title(placed).charged_penalty_minor == 2_000


def test_placed_above_the_cap_a_natural_person_is_charged_the_cap(agency):
    """R09: CDC art. 52 §1."""
    (person,) = agency.place((START, 100_000), penalty_e4=100_000, natural_person=True)
    (company,) = agency.place((START, 100_000), penalty_e4=100_000)
    assert (agency.title(person).penalty_rate_e4, agency.title(company).penalty_rate_e4) == (20_000, 100_000)
    with pytest.raises(terms.ChargeAboveLegalLimit):
        put(agency, consumer=True, penalty_rate_e4=20_001)
    with pytest.raises(terms.ChargeAboveLegalLimit):
        edit(agency, [person], penalty=20_001)


@pytest.mark.feature("S1-26")
def test_a_creditor_that_charges_no_default_interest(agency):
    def switch(**fields):
        with agency.tx() as tx:
            creditor_cases.update(
                tx=tx,
                agency=agency.agency,
                creditor_id=agency.creditor_id,
                new=creditors.CreditorSettings(**fields),
                only=list(fields),
                version=None,
            )

    (before,) = agency.place((START, 100_000))
    switch(default_interest=False)
    (after,) = agency.place((START, 100_000))
    for placed in (before, after):
        components = {line.component for line in explain(agency, placed, FRIDAY).explained.lines}
        assert components == {"PRINCIPAL", "PENALTY"}
    switch(default_interest=True)
    components = {line.component for line in explain(agency, before, FRIDAY).explained.lines}
    assert components == {"PRINCIPAL", "PENALTY", "INTEREST"}


def edit(agency, placed, *, penalty=None, monthly=None, authority=limits.SYSTEM):
    """EditTitleTerms."""
    with agency.tx() as tx:
        return charges.edit_terms(
            tx=tx,
            agency=agency.agency,
            title_ids=[one.title_id for one in placed],
            penalty_rate_e4=penalty,
            monthly_rate_e4=monthly,
            reason="agreed by phone",
            changed_by="users/1",
            authority=authority,
            moment=agency.moment(tx),
        )


@pytest.mark.feature("S5-09")
def test_interest_and_penalty_of_chosen_titles(agency):
    first, second, other = agency.place((START, 100_000), (START, 200_000), (START, 300_000))
    found = edit(agency, [second, first], penalty=10_000, monthly=0)
    assert [one.title.title_id for one in found] == [second.title_id, first.title_id]
    assert [one.explained.total_minor for one in found] == [202_000, 101_000]
    assert agency.title(other).penalty_rate_e4 == 20_000
    (change, _) = agency.rows("SELECT * FROM title_term_changes ORDER BY title_id")
    assert (change.old_penalty_rate_e4, change.penalty_rate_e4, change.old_monthly_rate_e4) == (
        20_000,
        10_000,
        10_000,
    )
    edit(agency, [first], monthly=20_000)
    row = agency.title(first)
    assert (row.penalty_rate_e4, row.monthly_rate_e4) == (10_000, 20_000)


def test_edits_that_are_refused_change_nothing(agency):
    (placed,) = agency.place((START, 100_000))
    with pytest.raises(errors.InvalidRequest):
        edit(agency, [placed])
    with pytest.raises(errors.InvalidRequest):
        edit(agency, [placed, placed], monthly=1)
    with pytest.raises(errors.InvalidRequest):
        edit(agency, [placed], monthly=-1)
    with pytest.raises(errors.ResourceNotFound), agency.tx() as tx:
        charges.explain_one(tx=tx, agency=agency.agency, title_id=ids.new(), date=FRIDAY)
    agency.pay(200_000, title_reference=placed.reference)
    with pytest.raises(charges.TitleClosed):
        edit(agency, [placed], monthly=1)
    assert agency.rows("SELECT * FROM title_term_changes") == []


def add(agency, placed, minor, component=accounts.Component.COSTS, currency="BRL", authority=limits.SYSTEM):
    """AddExpense."""
    with agency.tx() as tx:
        return charges.add_expense(
            tx=tx,
            agency=agency.agency,
            title_id=placed.title_id,
            component=component,
            amount_minor=minor,
            currency=currency,
            reason="notary",
            changed_by="users/1",
            authority=authority,
            moment=moments.read(tx, agency.agency),
            bank=agency.bank,
        )


def waive(agency, placed, minor=None, component=accounts.Component.INTEREST, authority=limits.SYSTEM):
    """WaiveCharges."""
    with agency.tx() as tx:
        return charges.waive_charges(
            tx=tx,
            agency=agency.agency,
            title_id=placed.title_id,
            component=component,
            amount_minor=minor,
            currency="BRL",
            reason="goodwill",
            changed_by="users/1",
            authority=authority,
            moment=moments.read(tx, agency.agency),
            bank=agency.bank,
        )


@pytest.mark.feature("S1-17", "S1-18")
def test_w16_full_payment_resolves_and_its_reversal_reopens(agency):
    (placed,) = agency.place((FRIDAY - datetime.timedelta(days=15), 10_000), penalty_e4=None, monthly_e4=None)
    put(
        agency,
        creditor=True,
        interest_rate_e4=100_000,
        interest_unit=terms.Unit.YEAR,
        day_count=terms.DayCount.ACTUAL_365,
        expenses_minor=1_000,
    )
    before = agency.title(placed)._asdict()

    def owed():
        found = explain(agency, placed, FRIDAY).explained
        return {line.component: line.amount_minor for line in found.lines}, found.total_minor

    assert owed() == ({"PRINCIPAL": 10_000, "INTEREST": 41, "COSTS": 1_000}, 11_041)
    payment = agency.pay(11_041, title_reference=placed.reference)
    paid = agency.title(placed)
    assert (paid.state, paid.open_principal_minor, paid.received_minor) == ("PAID", 0, 11_041)
    assert (paid.charged_interest_minor, paid.charged_costs_minor) == (41, 1_000)
    assert agency.payment(payment).overpaid_minor == 0
    agency.reverse(payment)
    reopened = agency.title(placed)._asdict()
    assert reopened["state"] == "OPEN"
    assert {**reopened, "version": 0} == {**before, "version": 0}
    assert owed() == ({"PRINCIPAL": 10_000, "INTEREST": 41, "COSTS": 1_000}, 11_041)
    agency.pay(11_041, title_reference=placed.reference)
    assert agency.title(placed).state == "PAID"


@pytest.mark.feature("S1-17")
def test_expenses_are_charged_and_charges_forgiven(agency):
    (placed,) = agency.place((FRIDAY - datetime.timedelta(days=45), 100_000))
    assert add(agency, placed, 2_500).explained.total_minor == 106_000
    found = waive(agency, placed, 1_000)
    assert found.explained.total_minor == 105_000
    assert (found.title.open_interest_minor, found.title.waived_minor) == (500, 1_000)
    with pytest.raises(charges.WaivedAboveCharged) as refused:
        waive(agency, placed, 501)
    assert refused.value.metadata["highest"] == "500"
    assert waive(agency, placed, component=accounts.Component.PENALTY).title.open_penalty_minor == 0
    assert explain(agency, placed, FRIDAY).explained.total_minor == 103_000
    paid = agency.pay(103_000, title_reference=placed.reference)
    assert agency.title(placed).state == "PAID"
    agency.reverse(paid)
    assert explain(agency, placed, FRIDAY).explained.total_minor == 103_000
    kinds = [row.kind for row in agency.rows("SELECT kind FROM charge_changes ORDER BY number")]
    assert kinds == ["CHARGED", "WAIVED", "WAIVED"]


def test_waiving_needs_a_second_person(agency):
    (placed,) = agency.place((START, 100_000))
    alone = limits.Authority(subject="users/1", roles=frozenset({"agent"}))
    with pytest.raises(approvals.ApprovalNeeded):
        waive(agency, placed, 100, authority=alone)
    assert waive(agency, placed, 100, authority=SUPERVISOR).title.waived_minor == 100


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        ("IPCA", "2026-13;1", "content[1]"),
        ("IPCA", "month;value\n2026-01;x", "content[2]"),
        ("IPCA", "2026-01;1\n2026-01;1", "content[2]"),
        ("IPCA", "2026-01;1,1234567", "content[1]"),
        ("IPCA", "2026-01;101", "content[1]"),
        ("IPCA", "2026-01;1;1", "content[1]"),
        ("IPCA", "2026-01;1\n2026-03;1", "content"),
        ("LEGAL_BR", "2024-09;1", "content"),
        ("PT_COMMERCIAL", "2025-06;9", "content[1]"),
        ("IPCA", "", "content"),
    ],
)
def test_a_series_that_is_wrong_is_refused_naming_the_row(agency, code, text, said):
    with pytest.raises(errors.InvalidRequest) as refused:
        publish(agency, code, text or "month;value")
    assert refused.value.fields[0].field == said
    assert agency.rows("SELECT * FROM series_values") == []


def test_published_values_are_not_changed_silently(agency):
    assert publish(agency, "IPCA", "01/2026;0,33\n02/2026;0.5") == 2
    assert publish(agency, "IPCA", '"data";"valor"\n"01/02/2026";"0,50"\n"01/03/2026";"0,1"') == 1
    with pytest.raises(term_cases.SeriesValueDiffers) as refused:
        publish(agency, "IPCA", "2026-02;0.51\n2026-04;0.1")
    assert refused.value.metadata["month"] == "2026-02"
    assert len(agency.rows("SELECT * FROM series_values")) == 3
    assert publish(agency, "IPCA", "2026-02;0.51", replace=True, source="IBGE, corrected") == 1
    (old,) = agency.rows("SELECT * FROM series_replaced")
    assert (old.period, old.value_e6) == (datetime.date(2026, 2, 1), 500_000)
    assert publish(agency, "LEGAL_BR", "2024-08;1.01;1.005\n2024-09;1.0;1.1") == 2
    assert [
        row.value_e6 for row in agency.rows("SELECT value_e6 FROM series_values WHERE code = 'LEGAL_BR'")
    ] == [
        497_512,
        0,
    ]


def test_standard_4_8_pt_commercial_terms_bring_their_rate(agency):
    """Aviso 822/2026: 10.15 % in the first half of 2026, and 40 EUR (DL 62/2013 art. 7)."""
    put(agency, currency="EUR", interest_series="PT_COMMERCIAL_62", late_payment_minor=4_000)
    due = datetime.date(2026, 3, 2)
    (placed,) = agency.place((due, 1_000_000), currency="EUR", penalty_e4=None, monthly_e4=None)
    found = explain(agency, placed, due + datetime.timedelta(days=30)).explained
    amounts = {line.component: line.amount_minor for line in found.lines}
    assert amounts == {"PRINCIPAL": 1_000_000, "INTEREST": 8_342, "COSTS": 4_000}
    late = explain(agency, placed, FRIDAY).explained
    (line,) = [line for line in late.lines if line.component == "INTEREST"]
    assert (line.through_date, line.series) == (datetime.date(2026, 6, 30), "PT_COMMERCIAL_62")


def test_explaining_many_refuses_what_it_does_not_know(agency):
    (placed,) = agency.place((START, 100_000))
    with agency.tx() as tx:
        for wrong in ([], [str(placed.title_id)] * 2):
            with pytest.raises(errors.InvalidRequest):
                charges.explain_many(tx=tx, agency=agency.agency, title_ids=wrong, date=FRIDAY)
        with pytest.raises(errors.ResourceNotFound):
            charges.explain_many(
                tx=tx, agency=agency.agency, title_ids=[str(placed.title_id), str(ids.new())], date=FRIDAY
            )
        with pytest.raises(errors.ResourceNotFound):
            charges.explain_many(
                tx=tx,
                agency=agency.agency,
                title_ids=[str(placed.title_id)],
                date=FRIDAY,
                creditor=ids.new(),
            )


@pytest.mark.feature("S1-17")
@pytest.mark.feature("S5-09")
def test_terms_over_the_wire(agency, api):
    admin = ("agreement.read", "agreement.write", "agreement.admin")
    agency.place((START, 1))
    sent = terms_pb2.ChargeTerms(
        creditor_id=str(agency.creditor_id),
        currency="BRL",
        consumer=True,
        valid_from=dates.to_proto(datetime.date(2024, 1, 1)),
        penalty_rate_e4=20_000,
        interest_series="LEGAL_BR",
        source="clause 9",
    )
    request = terms_service_pb2.SetChargeTermsRequest(
        parent=api.name, charge_terms=sent, request_id=str(ids.new())
    )
    assert api.refused("SetChargeTerms", request)[0] == "PERMISSION_DENIED"
    made = api("SetChargeTerms", request, scopes=admin)
    assert api("SetChargeTerms", request, scopes=admin) == made
    assert api("GetChargeTerms", terms_service_pb2.GetChargeTermsRequest(name=made.name)) == made
    listed = api("ListChargeTerms", terms_service_pb2.ListChargeTermsRequest(parent=api.name))
    assert list(listed.charge_terms) == [made]
    request.charge_terms.penalty_rate_e4 = 20_001
    request.request_id = str(ids.new())
    refused = api.refused("SetChargeTerms", request, scopes=admin)
    assert refused == ("INVALID_ARGUMENT", "CHARGE_ABOVE_LEGAL_LIMIT")

    (placed,) = agency.place(
        (datetime.date(2026, 3, 2), 100_000), natural_person=True, penalty_e4=None, monthly_e4=None
    )
    series_name = f"{api.name}/series/LEGAL_BR"
    request = terms_service_pb2.ImportSeriesRequest(
        name=series_name, content=MADE_UP["LEGAL_BR"].encode(), source="made up", request_id=str(ids.new())
    )
    found = api("ImportSeries", request, scopes=admin)
    assert len(found.values) == 20
    assert api("GetSeries", terms_service_pb2.GetSeriesRequest(name=series_name)) == found
    unknown = terms_service_pb2.GetSeriesRequest(name=f"{api.name}/series/X")
    assert api.refused("GetSeries", unknown) == ("NOT_FOUND", "SERIES_UNKNOWN")

    title = f"{api.name}/titles/{placed.title_id}"
    one = api("ExplainTitle", terms_service_pb2.ExplainTitleRequest(name=title))
    line = next(line for line in one.balance.lines if line.series)
    assert (line.series, line.terms, line.days) == ("LEGAL_BR", made.name, 29)
    assert "Lei 14.905/2024" in line.source
    assert (one.terms, one.HasField("penalty_rate_e4")) == (made.name, False)
    many = api(
        "ExplainTitles",
        terms_service_pb2.ExplainTitlesRequest(parent=api.name, title_ids=[str(placed.title_id)]),
    )
    total = sum(sum(part.amount_minor) for part in many.lines)
    assert total == one.open.units * 100 + one.open.nanos // 10_000_000

    edited = api(
        "EditTitleTerms",
        terms_service_pb2.EditTitleTermsRequest(
            parent=api.name,
            title_ids=[str(placed.title_id)],
            monthly_interest_rate_e4=0,
            reason="agreed",
            request_id=str(ids.new()),
        ),
    )
    assert [one.component for one in edited.titles[0].balance.lines] == [
        agreement_pb2.BalanceLine.COMPONENT_PRINCIPAL,
        agreement_pb2.BalanceLine.COMPONENT_PENALTY,
    ]
    cost = api(
        "AddExpense",
        terms_service_pb2.AddExpenseRequest(
            name=title,
            amount=money_pb2.Money(currency_code="BRL", units=15),
            component=agreement_pb2.BalanceLine.COMPONENT_COSTS,
            reason="notary",
            request_id=str(ids.new()),
        ),
    )
    assert cost.open.units == 1_035
    waiver = terms_service_pb2.WaiveChargesRequest(
        name=title, component=agreement_pb2.BalanceLine.COMPONENT_COSTS, reason="x", request_id=str(ids.new())
    )
    assert api.refused("WaiveCharges", waiver) == ("FAILED_PRECONDITION", "APPROVAL_REQUESTED")
