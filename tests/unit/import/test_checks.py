"""Vectorised checks against the reference libraries, value by value."""

from __future__ import annotations

import datetime
import random
from decimal import Decimal

import phonenumbers
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stdnum.br import cnpj, cpf
from stdnum.pt import nif

from import_service import domain
from import_service.providers import checks

pytestmark = pytest.mark.feature("S2-41")
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def holds(document: str, kind: str) -> bool:
    found = checks.check_digits(pl.Series([document]), pl.Series([kind]))[0]
    assert isinstance(found, bool)
    return found


@pytest.mark.parametrize(
    ("kind", "document"),
    [("CPF", "39053344705"), ("CNPJ", "16727230000197"), ("CNPJ", "12ABC34501DE35"), ("NIF", "501964843")],
)
def test_standard_4_5_published_vectors(kind: str, document: str) -> None:
    # standards.md 4.5
    assert holds(document, kind)
    for digit in "0123456789":
        assert holds(document[:-1] + digit, kind) == (digit == document[-1])


@pytest.mark.parametrize("digit", "0123456789")
def test_a_cpf_of_one_digit_is_never_issued(digit: str) -> None:
    assert not holds(digit * 11, "CPF")


def test_no_document_is_neither_right_nor_wrong() -> None:
    kinds = pl.Series(["CPF", None], dtype=pl.String)
    assert checks.check_digits(pl.Series([None, "1"], dtype=pl.String), kinds).to_list() == [None, False]


def test_against_stdnum() -> None:
    """Right ones, those with one character changed, and random ones."""
    rng = random.Random(7)
    found: list[tuple[str, str]] = []
    for _ in range(3_000):
        base = "".join(rng.choices("0123456789", k=9))
        found.append(("CPF", base + cpf._calc_check_digits(base)))
        root = "".join(rng.choices(LETTERS if rng.random() < 0.5 else "0123456789", k=12))
        found.append(("CNPJ", root + cnpj.calc_check_digits(root)))
        base = rng.choice("123456789") + "".join(rng.choices("0123456789", k=7))
        found.append(("NIF", base + nif.calc_check_digit(base)))
    for kind, document in list(found):
        place = rng.randrange(len(document))
        found.append((kind, document[:place] + rng.choice(LETTERS) + document[place + 1 :]))
        found.append((kind, "".join(rng.choices(LETTERS, k=rng.randint(1, 16)))))
    modules = {"CPF": cpf, "CNPJ": cnpj, "NIF": nif}
    expected = [modules[kind].is_valid(document) and len(set(document)) > 1 for kind, document in found]
    ours = checks.check_digits(
        pl.Series([document for _, document in found]), pl.Series([kind for kind, _ in found])
    ).to_list()
    wrong = [one for one, mine, theirs in zip(found, ours, expected, strict=True) if mine != theirs]
    assert not wrong


def phone(text: str, country: str) -> str | None:
    return checks.phones(pl.Series([text]), pl.Series([country]))[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "country", "expected"),
    [
        ("(11) 98765-4321", "BR", "+5511987654321"),
        ("011 98765 4321", "BR", "+5511987654321"),
        ("+55 11 3456-7890", "BR", "+551134567890"),
        ("5511987654321", "BR", "+5511987654321"),
        ("912 345 678", "PT", "+351912345678"),
        ("+351 912345678", "BR", "+351912345678"),
        ("00351 212345678", "PT", "+351212345678"),
        ("+1 212 555 0123", "BR", "+12125550123"),
        ("0800 123 4567", "BR", "+558001234567"),
        ("123", "BR", None),
        ("98765-4321", "BR", None),
        ("(20) 98765-4321", "BR", None),
        ("912345678 ext 5", "PT", None),
        ("no number", "BR", None),
    ],
)
def test_phones(text: str, country: str, expected: str | None) -> None:
    assert phone(text, country) == expected


@given(
    st.text("0123456789", min_size=8, max_size=13),
    st.sampled_from(["", "+55", "+351"]),
    st.sampled_from(["BR", "PT"]),
)
@example("5511987654321", "", "BR")
def test_phones_against_phonenumbers(digits: str, prefix: str, country: str) -> None:
    """What the patterns take, phonenumbers takes too, as the same number."""
    ours = phone(prefix + digits, country)
    parsed = None
    try:
        number = phonenumbers.parse(prefix + digits, country)
        if phonenumbers.is_valid_number(number):
            parsed = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    except phonenumbers.NumberParseException:
        pass
    if ours != parsed:
        # the one liberty: 0 before the area code together with the country code, and 00 as the international prefix
        assert ours is not None
        assert phonenumbers.is_valid_number(phonenumbers.parse(ours))
        assert ours.removeprefix("+").endswith(digits.lstrip("0")[-8:])


def amount(text: str, convention: domain.Convention) -> int | None:
    return pl.DataFrame({"a": [text]}).select(checks.amount(pl.col("a"), convention)).item()  # type: ignore[no-any-return]


COMMA, POINT, UNKNOWN = domain.Convention.COMMA, domain.Convention.POINT, domain.Convention.UNKNOWN


@pytest.mark.parametrize(
    ("text", "convention", "expected"),
    [
        ("1.234,50", COMMA, 123450),
        ("1234,5", COMMA, 123450),
        ("1234", COMMA, 123400),
        ("1.234", COMMA, 123400),
        ("1.234.567,89", COMMA, 123456789),
        ("0,01", COMMA, 1),
        ("-0,01", COMMA, -1),
        ("+5", COMMA, 500),
        ("10.50", COMMA, None),
        ("12.34,00", COMMA, None),
        ("1,234", COMMA, None),
        ("1,234.50", POINT, 123450),
        ("1,234", POINT, 123400),
        ("10,50", POINT, None),
        ("1.234", POINT, None),
        ("1234", UNKNOWN, 123400),
        ("1.234", UNKNOWN, None),
        ("", COMMA, None),
        ("R$ 10,00", COMMA, None),
        ("1e3", POINT, None),
        ("--1", POINT, None),
        ("1O0,00", COMMA, None),
        ("١٢", COMMA, None),
        ("NaN", POINT, None),
        ("9" * 16, COMMA, None),
    ],
)
def test_amounts(text: str, convention: domain.Convention, expected: int | None) -> None:
    assert amount(text, convention) == expected


@given(st.integers(1, domain.MAX_AMOUNT_MINOR), st.booleans(), st.booleans())
def test_amounts_are_read_as_written(minor: int, comma: bool, thousands: bool) -> None:
    text = f"{Decimal(minor) / 100:,.2f}" if thousands else f"{Decimal(minor) / 100:.2f}"
    if comma:
        text = text.translate(str.maketrans(",.", ".,"))
    convention = COMMA if comma else POINT
    assert amount(text, convention) == minor
    found = checks.convention(pl.Series([text]))
    assert found == ((1, 0) if comma else (0, 1))


def test_the_convention_needs_proof() -> None:
    assert checks.convention(pl.Series(["1", "1.234", "1,234", "x", None])) == (0, 0)
    assert checks.convention(pl.Series(["1,5", "1.234,5", "1.234.567"])) == (3, 0)
    assert checks.convention(pl.Series(["1.5", "1,234.5", "1,234,567"])) == (0, 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23", datetime.date(2026, 11, 23)),
        ("23/11/2026", datetime.date(2026, 11, 23)),
        ("29/02/2028", datetime.date(2028, 2, 29)),
        ("29/02/2026", None),
        ("2026-02-30", None),
        ("2026-13-01", None),
        ("00/01/2026", None),
        ("1/1/2026", None),
        ("11/23/2026", None),
        ("2026/11/23", None),
        ("23/11/26", None),
        ("2026-11-23 10:00", None),
    ],
)
def test_dates(text: str, expected: datetime.date | None) -> None:
    assert pl.DataFrame({"d": [text]}).select(checks.date(pl.col("d"))).item() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 20000),
        ("2,5", 25000),
        ("1.0333", 10333),
        ("0", 0),
        ("1.23456", None),
        ("-1", None),
        ("1.000,5", None),
    ],
)
def test_rates(text: str, expected: int | None) -> None:
    assert pl.DataFrame({"r": [text]}).select(checks.rate(pl.col("r"))).item() == expected
