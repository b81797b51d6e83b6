"""Texts: Jinja in a sandbox, money and dates in the person's language, and the lint at publication (S2-20,
R07).

A template may name only what `context` gives, and only read it: no calls, macros, includes, arithmetic or
own loops over loops, so that a text that passed the lint renders in bounded time whoever wrote it.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import importlib.resources
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import babel.dates
import babel.numbers
import jinja2
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from notify_service.domain import balances, messages, templates
from servicekit import errors, money

FILTERS = ("capitalize", "default", "first", "join", "last", "length", "lower", "trim", "upper")
"""Jinja filters that a template may use."""
MAX_LOOPS = 2
"""Loops inside each other."""
MAX_LINES = 50
"""Titles listed in one text, oldest first; the others are in the total and counted in
`balance.lines_left_out`.
"""

_FORBIDDEN: Mapping[type[jinja2.nodes.Node], str] = {
    jinja2.nodes.Call: "calls",
    jinja2.nodes.CallBlock: "calls",
    jinja2.nodes.Macro: "macros",
    jinja2.nodes.Include: "includes",
    jinja2.nodes.Import: "imports",
    jinja2.nodes.FromImport: "imports",
    jinja2.nodes.Extends: "inheritance",
    jinja2.nodes.Block: "blocks",
    jinja2.nodes.BinExpr: "arithmetic",
    jinja2.nodes.Concat: "concatenation",
    jinja2.nodes.FilterBlock: "filter blocks",
}
_COMPARISONS = (jinja2.nodes.And, jinja2.nodes.Or)
_LABELS: Mapping[str, Mapping[str, str]] = {
    "pt-BR": {
        "PRINCIPAL": "Principal",
        "PENALTY": "Multa",
        "INTEREST": "Juros de mora",
        "PLAN_INTEREST": "Juros do parcelamento",
        "PAID": "Pago",
        "WAIVED": "Abatimento",
    },
    "pt-PT": {
        "PRINCIPAL": "Capital",
        "PENALTY": "Cláusula penal",
        "INTEREST": "Juros de mora",
        "PLAN_INTEREST": "Juros do plano",
        "PAID": "Pago",
        "WAIVED": "Perdão",
    },
}


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Nothing can be called; an unknown name is an error."""

    def is_safe_callable(self, obj: Any) -> bool:
        """Never."""
        return False


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    # text/plain: nothing to escape; what reaches a header is checked in `render`
    found = _Sandbox(undefined=jinja2.StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
    found.globals.clear()
    found.filters = {name: found.filters[name] for name in FILTERS}
    return found


_SANDBOX = _environment()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A rendered message, in memory for the act only: it names the person."""

    subject: str = dataclasses.field(repr=False)
    body: str = dataclasses.field(repr=False)

    @property
    def content(self) -> bytes:
        """What is kept as evidence: subject, empty line, body; UTF-8."""
        return f"{self.subject}\n\n{self.body}".encode()

    @property
    def sha256(self) -> bytes:
        """Of `content`."""
        return hashlib.sha256(self.content).digest()


def amount(value: money.Money, language: str) -> str:
    """`R$ 1.234,56` in pt-BR, `1 234,56 €` in pt-PT (spaces that do not break)."""
    return babel.numbers.format_currency(
        money.from_minor(value.minor), value.currency, locale=language.replace("-", "_")
    )


def day(value: datetime.date, language: str) -> str:
    """`22/11/2026` in both languages."""
    return babel.dates.format_date(value, "dd/MM/yyyy", locale=language.replace("-", "_"))


def document(text: str) -> str:
    """CNPJ `12.ABC.345/01DE-35` and CPF `390.533.447-05` as printed; any other document as it is (standards
    4.5).
    """
    if len(text) == 14:
        return f"{text[:2]}.{text[2:5]}.{text[5:8]}/{text[8:12]}-{text[12:]}"
    if len(text) == 11:
        return f"{text[:3]}.{text[3:6]}.{text[6:9]}-{text[9:]}"
    return text


def context(
    *,
    grant: messages.Grant,
    balance: balances.CaseBalance,
    instalment: balances.Subject | None,
    instalment_number: int | None,
    unsubscribe: str,
) -> dict[str, Any]:
    """What a template may name: `creditor`, `person`, `contract`, `balance`, `unsubscribe`, and `instalment`
    in reminders.
    """
    language = grant.language
    labels = _LABELS[language]
    found: dict[str, Any] = {
        "creditor": {
            "name": grant.creditor_name,
            "address": grant.creditor_address,
            "document": document(grant.creditor_document),
        },
        "person": {"name": grant.person_name, "guarantor": grant.guarantor},
        "contract": {"reference": grant.contract_reference, "product": grant.product},
        "balance": {
            "total": amount(balance.total, language),
            "date": day(balance.date, language),
            "days_past_due": max((subject.days_past_due for subject in balance.subjects), default=0),
            "lines": [
                {
                    "due_date": day(subject.due_date, language),
                    "days_past_due": subject.days_past_due,
                    "total": amount(subject.total, language),
                    "parts": [
                        {
                            "label": labels.get(line.component, line.component),
                            "amount": amount(line.amount, language),
                        }
                        for line in subject.lines
                    ],
                }
                for subject in balance.subjects[:MAX_LINES]
            ],
            "lines_left_out": max(len(balance.subjects) - MAX_LINES, 0),
        },
        "unsubscribe": unsubscribe,
    }
    if instalment is not None:
        found["instalment"] = {
            "number": instalment_number,
            "due_date": day(instalment.due_date, language),
            "amount": amount(instalment.total, language),
        }
    return found


def render(template: templates.Template, values: Mapping[str, Any]) -> Text:
    """Render a template; the subject is cut to its limit. Raises TemplateRefused where it names what is not
    there, or gets too long.
    """
    try:
        subject = _limited(template.subject, values, templates.MAX_TEXT)
        body = _limited(template.body, values, templates.MAX_TEXT)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, ArithmeticError) as error:
        raise templates.TemplateRefused(
            "the template cannot be rendered", problem=type(error).__name__, template=template.name
        ) from None
    return Text(
        subject=" ".join(subject.split())[: templates.MAX_SUBJECT],
        body=body.replace("\r\n", "\n").rstrip() + "\n",
    )


def lint(template: templates.Template) -> None:
    """Refuse a template that would fail, or break a rule, when a message is rendered.

    It compiles; names only what it may; renders with sample data of every kind (holder and guarantor, one
    title and several); every rendering shows the creditor's name, address and document (R07, CDC art. 42-A),
    an e-mail also how to unsubscribe. Raises TemplateRefused with the field.
    """
    templates.check_names(template)
    reminder = template.code == messages.AGREEMENT_REMINDER
    for field, source in (("template.subject", template.subject), ("template.body", template.body)):
        _check_source(field, source, reminder=reminder)
    for sample in _samples(template.language, reminder=reminder):
        text = render(template, sample)
        missing = [f"creditor.{name}" for name, value in sample["creditor"].items() if value not in text.body]
        if template.channel is messages.Channel.EMAIL and sample["unsubscribe"] not in text.body:
            missing.append("unsubscribe")
        if missing:
            raise templates.TemplateRefused(
                "the template leaves out what every message must show",
                fields=[
                    errors.FieldViolation(
                        "template.body", f"expected {', '.join(missing)} in every text (R07)"
                    )
                ],
            )


def _check_source(field: str, source: str, *, reminder: bool) -> None:
    def refuse(description: str) -> templates.TemplateRefused:
        return templates.TemplateRefused(
            "the template is refused", fields=[errors.FieldViolation(field, description)]
        )

    try:
        parsed = _SANDBOX.parse(source)
        _SANDBOX.compile(source)
    except jinja2.TemplateSyntaxError as error:
        raise refuse(f"line {error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:  # e.g. an unknown filter or test
        raise refuse(str(error.message)) from None
    known = {"creditor", "person", "contract", "balance", "unsubscribe"} | (
        {"instalment"} if reminder else set()
    )
    if unknown := jinja2.meta.find_undeclared_variables(parsed) - known:
        raise refuse(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
    for kind, what in _FORBIDDEN.items():
        for node in parsed.find_all(kind):
            if not isinstance(node, _COMPARISONS):
                raise refuse(f"line {node.lineno}: {what} are not allowed")
    if _loops(parsed) > MAX_LOOPS:
        raise refuse(f"expected at most {MAX_LOOPS} loops inside each other")


def _loops(node: jinja2.nodes.Node) -> int:
    inner = max((_loops(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, jinja2.nodes.For)


def _limited(source: str, values: Mapping[str, Any], limit: int) -> str:
    parts: list[str] = []
    length = 0
    for part in _compiled(source).generate(values):
        length += len(part)
        if length > limit:
            raise ValueError("too long")
        parts.append(part)
    return "".join(parts)


@functools.lru_cache(maxsize=512)
def _compiled(source: str) -> jinja2.Template:
    return _SANDBOX.from_string(source)


def _samples(language: str, *, reminder: bool) -> list[dict[str, Any]]:
    """Contexts that a template meets."""
    currency = "BRL" if language == "pt-BR" else "EUR"
    due = datetime.date(2026, 1, 10)

    def subject(number: int) -> balances.Subject:
        return balances.Subject(
            name=f"agencies/{uuid.UUID(int=1)}/titles/{uuid.UUID(int=number)}",
            due_date=due,
            days_past_due=30,
            total=money.Money(10_330, currency),
            lines=tuple(
                balances.Line(
                    component=component,
                    amount=money.Money(100, currency),
                    base=None,
                    rate_e4=0,
                    days=0,
                    source="",
                )
                for component in _LABELS[language]
            ),
        )

    def sample(titles: int, *, guarantor: bool, product: str) -> dict[str, Any]:
        subjects = tuple(subject(number) for number in range(titles))
        return context(
            grant=messages.Grant(
                contact_point_id=uuid.UUID(int=2),
                address="",
                person_id=uuid.UUID(int=3),
                person_name="Fulano de Tal",
                language=language,
                creditor_name="Credor Exemplo",
                creditor_address="Rua das Amostras, 100",
                creditor_document="16727230000197" if language == "pt-BR" else "501964843",
                contract_reference="CONTRATO-1",
                product=product,
                guarantor=guarantor,
                valid_until=datetime.datetime(2026, 2, 9, tzinfo=datetime.UTC),
            ),
            balance=balances.CaseBalance(
                case_id=uuid.UUID(int=4),
                date=datetime.date(2026, 2, 9),
                total=money.Money(10_330 * titles, currency),
                subjects=subjects,
            ),
            instalment=subjects[0] if reminder else None,
            instalment_number=1 if reminder else None,
            unsubscribe="mailto:sair@recupera.example",
        )

    return [
        sample(1, guarantor=False, product="Cartão"),
        sample(MAX_LINES + 1, guarantor=True, product=""),
    ]


@functools.cache
def defaults() -> Mapping[tuple[str, str], templates.Template]:
    """The templates that come with the platform, by (code, language): version 1, each passed the lint."""
    found = {}
    for language in templates.LANGUAGES:
        folder = importlib.resources.files("notify_service") / "templates" / language
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            template = _parse(file.name.removesuffix(".txt"), language, file.read_text(encoding="utf-8"))
            found[template.code, template.language] = template
    return found


def _parse(code: str, language: str, text: str) -> templates.Template:
    head, _, body = text.partition("\n\n")
    return templates.Template(
        code=code,
        language=language,
        channel=messages.Channel.EMAIL,
        subject=head.removeprefix("Subject: ").strip(),
        body=body,
        version=templates.DEFAULT_VERSION,
    )


Catalog = Callable[[str, str], templates.Template | None]
"""(code, language) -> the template in force."""


def catalog(own: Sequence[templates.Template]) -> Catalog:
    """The templates in force of an agency: its own where it published one, else those of the platform."""
    found = {**defaults(), **{(template.code, template.language): template for template in own}}
    return lambda code, language: found.get((code, language))
