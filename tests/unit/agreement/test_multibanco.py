"""Multibanco references (standards.md 4.6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import multibanco

WEIGHTS = (51, 73, 17, 89, 38, 62, 45, 53, 15, 50, 5, 49, 34, 81, 76, 27, 90, 9, 30, 3)
"""As SIBS states the same check, from the first digit of the entity on."""

entities = st.integers(0, 99_999).map(lambda number: f"{number:05d}")
numbers = st.integers(0, multibanco.NUMBERS - 1)
amounts = st.integers(1, multibanco.MAX_AMOUNT_MINOR)


def test_standard_4_6_vector():
    made = multibanco.make(entity="90150", number=1_231_234, amount_minor=43_211)
    assert made.printed == (("Entidade", "90150"), ("Referência", "123 123 451"), ("Valor", "432,11 €"))
    assert made.key == "90150123123451"


@given(entity=entities, number=numbers, amount=amounts)
def test_make_and_parse_are_inverse(entity, number, amount):
    made = multibanco.make(entity=entity, number=number, amount_minor=amount)
    printed = dict(made.printed)
    assert multibanco.parse(entity=entity, reference=printed["Referência"], amount_minor=amount) == made


@given(entity=entities, number=numbers, amount=amounts)
def test_the_check_is_the_one_that_sibs_states_with_weights(entity, number, amount):
    digits = f"{entity}{number:07d}{amount:08d}"
    check = 98 - sum(int(digit) * weight for digit, weight in zip(digits, WEIGHTS, strict=True)) % 97
    assert multibanco.make(entity=entity, number=number, amount_minor=amount).reference[7:] == f"{check:02d}"


@given(entity=entities, number=numbers, amount=amounts, place=st.integers(0, 8), step=st.integers(1, 9))
def test_one_wrong_digit_is_seen(entity, number, amount, place, step):
    good = multibanco.make(entity=entity, number=number, amount_minor=amount).reference
    wrong = good[:place] + str((int(good[place]) + step) % 10) + good[place + 1 :]
    with pytest.raises(multibanco.ReferenceMalformed):
        multibanco.parse(entity=entity, reference=wrong, amount_minor=amount)


def test_another_amount_is_refused():
    with pytest.raises(multibanco.ReferenceMalformed):
        multibanco.parse(entity="90150", reference="123123451", amount_minor=43_212)


def test_the_largest_amount():
    made = multibanco.make(entity="90150", number=0, amount_minor=99_999_999)
    assert dict(made.printed)["Valor"] == "999.999,99 €"


@pytest.mark.parametrize(
    ("entity", "number", "amount"),
    [
        ("9015", 1, 1),
        ("9015x", 1, 1),
        ("90150", -1, 1),
        ("90150", 10_000_000, 1),
        ("90150", 1, 0),
        ("90150", 1, 100_000_000),
    ],
)
def test_what_makes_no_reference(entity, number, amount):
    with pytest.raises(multibanco.ReferenceMalformed):
        multibanco.make(entity=entity, number=number, amount_minor=amount)


@pytest.mark.parametrize("text", ["", "12312345", "1231234511", "12312345a"])
def test_what_is_no_reference(text):
    with pytest.raises(multibanco.ReferenceMalformed):
        multibanco.parse(entity="90150", reference=text, amount_minor=1)
