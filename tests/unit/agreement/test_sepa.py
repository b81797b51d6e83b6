"""SEPA direct debit: identifiers, dates, sequences, returns (standards.md 4.7)."""

import datetime

import holidays
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import sepa

FRIDAY = datetime.date(2026, 11, 20)
days = st.dates(datetime.date(2020, 1, 1), datetime.date(2060, 12, 31))


def test_standard_4_7_identifiers():
    assert sepa.creditor_identifier("ES23ZZZ47690558N") == "ES23ZZZ47690558N"
    assert sepa.creditor_identifier("pt73 zzz 123456") == "PT73ZZZ123456"
    assert sepa.creditor_identifier("PT73ABC123456") == "PT73ABC123456"  # the business code is not checked
    assert sepa.iban("PT50 0002 0123 1234 5678 9015 4") == "PT50000201231234567890154"


@pytest.mark.parametrize("text", ["", "PT50000201231234567890155", "PT5000020123123456789015", "XX00"])
def test_a_wrong_iban_is_refused_without_quoting_it(text):
    with pytest.raises(sepa.IbanInvalid) as refused:
        sepa.iban(text)
    assert refused.value.fields[0].field == "iban"
    assert not text or text not in str(refused.value) + str(refused.value.metadata)


@pytest.mark.parametrize("text", ["", "PT74ZZZ123456", "PT73"])
def test_a_wrong_creditor_identifier_is_refused(text):
    with pytest.raises(sepa.CreditorIdentifierInvalid):
        sepa.creditor_identifier(text)


@pytest.mark.parametrize("text", ["", "x" * 36, "/a", "a/", "a//b", "ação", " a", "a\n"])
def test_a_wrong_mandate_reference_is_refused(text):
    with pytest.raises(sepa.MandateReferenceInvalid):
        sepa.mandate_reference(text)


def test_target_days_are_those_of_the_european_central_bank():
    for year in range(2002, 2060):
        closed = holidays.financial_holidays("ECB", years=year)
        date = datetime.date(year, 1, 1)
        while date.year == year:
            assert sepa.is_target_day(date) == (date.weekday() < 5 and date not in closed), date
            date += datetime.timedelta(days=1)


def test_a_collection_is_at_least_one_target_day_ahead():
    asked = sepa.collection_date(
        due_date=FRIDAY, today=FRIDAY, notice_date=FRIDAY - datetime.timedelta(days=30)
    )
    assert asked == datetime.date(2026, 11, 23)
    christmas = datetime.date(2026, 12, 24)
    asked = sepa.collection_date(
        due_date=christmas, today=christmas, notice_date=christmas - datetime.timedelta(days=30)
    )
    assert asked == datetime.date(2026, 12, 28)


def test_a_collection_waits_fourteen_days_after_the_notice():
    asked = sepa.collection_date(due_date=FRIDAY, today=FRIDAY, notice_date=FRIDAY)
    assert asked == FRIDAY + datetime.timedelta(days=14)
    sooner = sepa.collection_date(due_date=FRIDAY, today=FRIDAY, notice_date=FRIDAY, pre_notice_days=2)
    assert sooner == datetime.date(2026, 11, 23)


@given(due=days, today=days, notice=days, pre_notice=st.integers(0, 30))
def test_collection_dates_keep_every_rule(due, today, notice, pre_notice):
    asked = sepa.collection_date(due_date=due, today=today, notice_date=notice, pre_notice_days=pre_notice)
    assert sepa.is_target_day(asked)
    assert asked >= due
    assert asked > today
    assert (asked - notice).days >= pre_notice


@pytest.mark.parametrize(
    ("one_off", "before", "more", "expected"),
    [
        (True, 0, False, "OOFF"),
        (False, 0, True, "FRST"),
        (False, 0, False, "FRST"),
        (False, 1, True, "RCUR"),
        (False, 1, False, "FNAL"),
    ],
)
def test_sequences(one_off, before, more, expected):
    assert sepa.sequence(one_off=one_off, collected_before=before, more_to_come=more).value == expected


def test_a_mandate_lapses_after_36_months_idle():
    signed = datetime.date(2024, 2, 29)
    assert sepa.lapses_after(signed, None) == datetime.date(2027, 2, 28)
    state = {"signature_date": signed, "last_collection_date": None}
    active = sepa.MandateState.ACTIVE
    assert sepa.state_on(active, date=datetime.date(2027, 2, 28), **state) is active
    assert sepa.state_on(active, date=datetime.date(2027, 3, 1), **state) is sepa.MandateState.LAPSED
    used = {"signature_date": signed, "last_collection_date": datetime.date(2025, 6, 1)}
    assert sepa.state_on(active, date=datetime.date(2028, 6, 1), **used) is active
    cancelled = sepa.MandateState.CANCELLED
    assert sepa.state_on(cancelled, date=datetime.date(2030, 1, 1), **state) is cancelled


def test_return_codes_say_what_follows():
    for code in ("AM04", "AC01", "AC04", "AC06", "MD01", "MD06", "MD07", "MS02", "MS03", "SL01"):
        assert sepa.return_reason(code).meaning
    assert sepa.may_present([])
    assert sepa.may_present(["AM04", "MS03"])
    assert not sepa.may_present(["AM04"] * sepa.MAX_PRESENTATIONS)
    assert not sepa.may_present(["MD06"])
    with pytest.raises(sepa.ReturnCodeUnknown):
        sepa.return_reason("XX99")


@given(st.text(max_size=200))
def test_names_are_written_in_the_sepa_set(text):
    found = sepa.latin(text)
    assert len(found) <= sepa.MAX_NAME
    assert found == found.strip()
    assert all(one.isascii() and (one.isalnum() or one in "/?:().,'+ -") for one in found)


def test_accents_are_taken_off_names():
    assert sepa.latin("João Conceição & Filhos, Lda.") == "Joao Conceicao Filhos, Lda."


@pytest.mark.parametrize(
    ("state", "sent", "code", "after"),
    [
        ("ACTIVE", "RCUR", "AM04", "ACTIVE"),
        ("USED", "FNAL", "AM04", "ACTIVE"),
        ("USED", "OOFF", "MS03", "ACTIVE"),
        ("USED", "RCUR", "AM04", "USED"),
        ("ACTIVE", "FRST", "AC01", "SUSPENDED"),
        ("USED", "FNAL", "MD06", "SUSPENDED"),
        ("ACTIVE", "RCUR", "MD01", "CANCELLED"),
        ("CANCELLED", "RCUR", "AM04", "CANCELLED"),
        ("CANCELLED", "RCUR", "MD06", "CANCELLED"),
    ],
)
def test_what_a_return_does_to_its_mandate(state, sent, code, after):
    found = sepa.state_after(sepa.MandateState(state), sepa.Sequence(sent), sepa.return_reason(code))
    assert found.value == after
