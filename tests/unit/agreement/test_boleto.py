"""Boleto: barcode, typeable line, due-date factor (standards.md 4.1, 4.2)."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import boleto

TODAY = datetime.date(2026, 11, 21)

VECTORS = [
    (
        "00193376900000135000000001238798977770016818",
        "00190.00009 01238.798977 77700.168188 3 37690000013500",
        datetime.date(2008, 2, 1),
        13_500,
    ),
    (
        "34194254800006757871090001015271248021246000",
        "34191.09008 01015.271248 80212.460002 4 25480000675787",
        datetime.date(2029, 5, 20),
        675_787,
    ),
    (
        "34192164600000127501090001015271248021246000",
        "34191.09008 01015.271248 80212.460002 2 16460000012750",
        datetime.date(2026, 11, 30),
        12_750,
    ),
]


@pytest.mark.parametrize(("code", "line", "due", "minor"), VECTORS)
def test_standard_4_1_vectors(code, line, due, minor):
    slip = boleto.Slip(bank=code[:3], due_date=due, amount_minor=minor, free_field=code[19:])
    assert boleto.barcode(slip) == code
    assert boleto.typeable_line(code) == line
    assert boleto.barcode_of_line(line) == code
    assert boleto.barcode_of_line(line.replace(".", "").replace(" ", "")) == code


def test_standard_4_1_wallet_109_vector():
    code, line = (
        "34191719500000600001090022335021234567890000",
        "34191.09008 22335.021238 45678.900007 1 71950000060000",
    )
    assert boleto.typeable_line(code) == line
    assert boleto.barcode_of_line(line) == code
    assert boleto.decode(code, today=datetime.date(2017, 6, 1)).amount_minor == 60_000


@pytest.mark.parametrize(
    ("date", "factor"),
    [
        ("2000-07-03", "1000"),
        ("2012-04-27", "5316"),
        ("2014-03-12", "6000"),
        ("2017-01-21", "7046"),
        ("2025-02-21", "9999"),
        ("2025-02-22", "1000"),
        ("2025-02-23", "1001"),
        ("2026-11-21", "1637"),
        ("2029-05-20", "2548"),
        ("2049-10-13", "9999"),
        ("2049-10-14", "1000"),
    ],
)
def test_standard_4_2_factor(date, factor):
    assert boleto.due_factor(datetime.date.fromisoformat(date)) == factor


@pytest.mark.parametrize(
    ("factor", "date"), [("9400", "2023-07-03"), ("7000", "2041-07-28"), ("1000", "2025-02-22")]
)
def test_standard_4_2_decode_window(factor, date):
    assert boleto.date_of_factor(factor, today=TODAY) == datetime.date.fromisoformat(date)


def test_standard_4_2_the_window_ends_3000_days_back_and_5500_ahead():
    first, last = datetime.date(2018, 9, 4), datetime.date(2041, 12, 12)
    for date in (first, last):
        assert boleto.date_of_factor(boleto.due_factor(date), today=TODAY) == date
    outside = boleto.due_factor(last + datetime.timedelta(days=1))
    with pytest.raises(boleto.SlipDateOutOfWindow):
        boleto.date_of_factor(outside, today=TODAY)
    with pytest.raises(boleto.SlipDateOutOfWindow):
        boleto.date_of_factor("0999", today=TODAY)
    assert boleto.date_of_factor("0000", today=TODAY) is None


@given(
    due=st.dates(boleto.FACTOR_BASE + datetime.timedelta(days=1000), datetime.date(9000, 1, 1)),
    minor=st.integers(0, boleto.MAX_AMOUNT_MINOR),
    free=st.text("0123456789", min_size=25, max_size=25),
    bank=st.text("0123456789", min_size=3, max_size=3).filter(lambda bank: bank[0] != "8"),
)
def test_line_and_barcode_are_inverse_for_every_date_and_value(due, minor, free, bank):
    code = boleto.barcode(boleto.Slip(bank=bank, due_date=due, amount_minor=minor, free_field=free))
    assert boleto.barcode_of_line(boleto.typeable_line(code)) == code
    assert boleto.decode(code, today=due).due_date == due
    assert boleto.decode(code, today=due).amount_minor == minor


@given(
    today=st.dates(datetime.date(2010, 1, 1), datetime.date(2070, 1, 1)),
    days=st.integers(-3000, 5500),
    minor=st.integers(0, boleto.MAX_AMOUNT_MINOR),
    free=st.text("0123456789", min_size=25, max_size=25),
    bank=st.text("0123456789", min_size=3, max_size=3).filter(lambda bank: bank[0] != "8"),
)
def test_encode_and_decode_are_inverse(today, days, minor, free, bank):
    due = today + datetime.timedelta(days=days)
    slip = boleto.Slip(bank=bank, due_date=due, amount_minor=minor, free_field=free)
    code = boleto.barcode(slip)
    assert boleto.barcode_of_line(boleto.typeable_line(code)) == code
    assert boleto.decode(code, today=today) == slip


@given(place=st.integers(0, 46), digit=st.integers(1, 9))
def test_any_wrong_digit_is_noticed(place, digit):
    line = "".join(character for character in VECTORS[2][1] if character.isdigit())
    wrong = line[:place] + str((int(line[place]) + digit) % 10) + line[place + 1 :]
    with pytest.raises((boleto.SlipMalformed, boleto.SlipOfCollection)) as refused:
        boleto.barcode_of_line(wrong)
    if isinstance(refused.value, boleto.SlipMalformed) and place != 3:  # 3: the currency
        block = 1 + sum(place >= end for end in (10, 21, 32))
        assert refused.value.metadata["block"] == str(block)


@pytest.mark.parametrize("text", ["8" + "0" * 43, "8" * 48])
def test_a_collection_tax_slip_is_recognised(text):
    with pytest.raises(boleto.SlipOfCollection):
        boleto.check_barcode(text) if len(text) == 44 else boleto.barcode_of_line(text)


@pytest.mark.parametrize("text", ["", "1" * 43, "x" * 44, "00183376900000135000000001238798977770016818"])
def test_what_is_no_barcode(text):
    with pytest.raises(boleto.SlipMalformed):
        boleto.check_barcode(text)


@pytest.mark.parametrize(
    "change", [{"bank": "34"}, {"free_field": "1"}, {"amount_minor": -1}, {"amount_minor": 10**10}]
)
def test_what_cannot_be_a_slip(change):
    fields = {"bank": "341", "due_date": None, "amount_minor": 1, "free_field": "0" * 25, **change}
    with pytest.raises(boleto.SlipMalformed):
        boleto.barcode(boleto.Slip(**fields))


def test_before_the_first_factor_there_is_none():
    with pytest.raises(boleto.SlipDateOutOfWindow):
        boleto.due_factor(datetime.date(2000, 7, 2))
