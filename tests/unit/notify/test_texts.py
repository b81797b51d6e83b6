"""Templates: the lint, the sandbox, amounts and dates in both languages."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_service.domain import messages, templates
from notify_service.providers import texts
from servicekit import money

GOOD = "{{ creditor.name }} {{ creditor.address }} {{ creditor.document }} {{ unsubscribe }}"


def a_template(body: str = GOOD, **fields: object) -> templates.Template:
    given_fields: dict[str, object] = {
        "code": "reminder-1",
        "language": "pt-BR",
        "channel": messages.Channel.EMAIL,
        "subject": "Olá",
        "body": body,
        "version": 1,
        **fields,
    }
    return templates.Template(**given_fields)  # type: ignore[arg-type]


def refusal(template: templates.Template) -> str:
    with pytest.raises(templates.TemplateRefused) as error:
        texts.lint(template)
    return (
        " ".join(f"{field.field} {field.description}" for field in error.value.fields) or error.value.message
    )


@pytest.mark.feature("S2-20")
@pytest.mark.parametrize("key", sorted(texts.defaults()), ids="-".join)
def test_the_platforms_own_templates_pass_the_lint(key: tuple[str, str]) -> None:
    texts.lint(texts.defaults()[key])


def test_both_languages_have_all_of_them() -> None:
    codes = {
        language: {code for code, of in texts.defaults() if of == language}
        for language in templates.LANGUAGES
    }
    assert codes["pt-BR"] == codes["pt-PT"] == {"reminder-1", "reminder-2", "notice-1", "agreement-reminder"}


@pytest.mark.parametrize("missing", ["creditor.name", "creditor.address", "creditor.document"])
def test_r07_every_text_shows_the_creditor(missing: str) -> None:
    assert missing in refusal(a_template(GOOD.replace("{{ " + missing + " }}", "")))


def test_r07_is_asked_of_every_kind_of_reader() -> None:
    """Shown to holders only is not enough: a guarantor gets the text too."""
    body = "{% if not person.guarantor %}{{ creditor.name }}{% endif %}" + GOOD.replace(
        "{{ creditor.name }}", ""
    )
    assert "creditor.name" in refusal(a_template(body))


def test_an_email_shows_how_to_unsubscribe() -> None:
    assert "unsubscribe" in refusal(a_template(GOOD.replace("{{ unsubscribe }}", "")))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ debtor.cpf }}", "unknown: debtor"),
        ("{{ person.cpf }}", "cannot be rendered"),
        ("{{ instalment.number }}", "unknown: instalment"),
        ("{% if %}", "line 1"),
        ("{{ creditor.name | nosuch }}", "nosuch"),
        ("{{ 'a' * 1000000000 }}", "arithmetic"),
        ("{{ range(9) }}", "unknown: range"),
        ("{{ creditor.name.upper() }}", "calls"),
        ("{{ ''.__class__ }}", "cannot be rendered"),
        ("{{ person['__class__'] }}", "cannot be rendered"),
        ("{{ creditor.name ~ creditor.name }}", "concatenation"),
        ("{% macro a() %}{% endmacro %}", "macros"),
        ("{% include 'x' %}", "includes"),
        ("{% extends 'x' %}", "inheritance"),
        ("{% import 'x' as y %}", "imports"),
        ("{% block a %}{% endblock %}", "blocks"),
        (
            "{% for a in balance.lines %}{% for b in balance.lines %}{% for c in balance.lines %}x{% endfor %}"
            "{% endfor %}{% endfor %}",
            "at most 2 loops",
        ),
    ],
)
def test_what_a_template_must_not_do(source: str, expected: str) -> None:
    assert expected in refusal(a_template(GOOD + source))


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "Reminder"},
        {"code": "a--b"},
        {"code": "a" * 61},
        {"language": "en"},
        {"subject": " "},
        {"subject": "x" * 201},
        {"body": " "},
        {"body": GOOD + "x" * 20_000},
        {"channel": messages.Channel.SMS},
    ],
)
def test_names_and_sizes(fields: dict[str, object]) -> None:
    refusal(a_template(**{"body": GOOD, **fields}))  # type: ignore[arg-type]


def test_an_sms_has_no_subject_and_needs_no_unsubscribe_line() -> None:
    body = "{{ creditor.name }} {{ creditor.address }} {{ creditor.document }}: {{ balance.total }}"
    texts.lint(a_template(body, channel=messages.Channel.SMS, subject=""))


def test_only_reminders_of_instalments_know_the_instalment() -> None:
    texts.lint(a_template(GOOD + "{{ instalment.amount }}", code=messages.AGREEMENT_REMINDER))


@pytest.mark.parametrize(
    ("minor", "currency", "language", "expected"),
    [
        (1234_56, "BRL", "pt-BR", "R$\xa01.234,56"),
        (1, "BRL", "pt-BR", "R$\xa00,01"),
        (12345_67, "EUR", "pt-PT", "12\xa0345,67\xa0€"),
        (-5_00, "EUR", "pt-PT", "-5,00\xa0€"),
    ],
)
def test_amounts_are_written_as_people_do(minor: int, currency: str, language: str, expected: str) -> None:
    assert texts.amount(money.Money(minor, currency), language) == expected


@given(st.integers(-(10**15), 10**15))
def test_no_cent_is_lost_in_writing(minor: int) -> None:
    written = texts.amount(money.Money(minor, "BRL"), "pt-BR")
    digits = "".join(character for character in written if character.isdigit())
    assert int(digits) == abs(minor)
    assert written.startswith("-") == (minor < 0)


def test_dates() -> None:
    assert texts.day(datetime.date(2026, 3, 2), "pt-BR") == "02/03/2026"
    assert texts.day(datetime.date(2026, 12, 31), "pt-PT") == "31/12/2026"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("16727230000197", "16.727.230/0001-97"),
        ("12ABC34501DE35", "12.ABC.345/01DE-35"),
        ("39053344705", "390.533.447-05"),
        ("501964843", "501964843"),
    ],
)
def test_documents_as_printed(text: str, expected: str) -> None:
    assert texts.document(text) == expected


def test_a_name_cannot_break_the_subject() -> None:
    sample = texts._samples("pt-BR", reminder=False)[0]
    sample["creditor"] = {**sample["creditor"], "name": "A\r\nBcc: x@y.example " + "z" * 300}
    found = texts.render(a_template(subject="{{ creditor.name }}"), sample)
    assert "\n" not in found.subject
    assert "\r" not in found.subject
    assert len(found.subject) == templates.MAX_SUBJECT


def test_what_a_name_holds_is_text_not_template() -> None:
    sample = texts._samples("pt-BR", reminder=False)[0]
    sample["person"] = {**sample["person"], "name": "{{ creditor.document }}"}
    assert texts.render(a_template("{{ person.name }}"), sample).body == "{{ creditor.document }}\n"
