"""The minute of an agreement ("Acordo de confissão e pagamento faseado", S1-30): a text with merge fields in braces.

Paragraphs are apart by an empty line; one that begins with "# " is a heading; {{schedule}} and {{signatures}} stand
alone, and come at the end where the text does not place them.
"""

import re
from collections.abc import Mapping

from servicekit import errors

LANGUAGES = ("pt-BR", "pt-PT")
MAX_TEXT = 50_000
BLOCKS = ("schedule", "signatures")
FIELDS = (
    "agreement.added",
    "agreement.broken_days",
    "agreement.date",
    "agreement.debt",
    "agreement.discount",
    "agreement.down_payment",
    "agreement.expire_date",
    "agreement.first_due_date",
    "agreement.instalments",
    "agreement.last_due_date",
    "agreement.number",
    "agreement.plan_interest",
    "agreement.total",
    "contracts",
    "creditor.address",
    "creditor.document",
    "creditor.name",
    "debtor.address",
    "debtor.document",
    "debtor.name",
    "titles",
    "today",
    *BLOCKS,
)
REQUIRED = {"pt-BR": ("creditor.name", "creditor.document", "creditor.address"), "pt-PT": ("creditor.name",)}
RETENTION_DAYS = 3653
"""Ten years: the longest limitation of a confessed debt (CC BR art. 205) is outlived."""
_FIELD = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


class MinuteFieldUnknown(errors.ServiceError):
    """The text has a merge field that does not exist."""

    status = errors.Status.INVALID_ARGUMENT


class MinuteFieldMissing(errors.ServiceError):
    """A document of collection in Brazil shows who the creditor is (guard-rail R07; CDC art. 42-A)."""

    status = errors.Status.INVALID_ARGUMENT


class MinuteNotAvailable(errors.ServiceError):
    """The agreement is over, or its proposal has expired: no minute of it can be made any more."""

    status = errors.Status.FAILED_PRECONDITION


def check_text(text: str, *, language: str) -> None:
    """Refuse a text that could not be filled, or that hides the creditor.

    Raises InvalidRequest, MinuteFieldUnknown and MinuteFieldMissing naming the field.
    """
    if not text.strip() or len(text) > MAX_TEXT or "\0" in text:
        raise errors.invalid("text", f"expected 1 to {MAX_TEXT} characters")
    for name in _FIELD.findall(text):
        if name not in FIELDS:
            raise MinuteFieldUnknown("no such merge field", field=name, allowed=", ".join(FIELDS))
    for name in REQUIRED[language]:
        if name not in _FIELD.findall(text):
            raise MinuteFieldMissing("the creditor must be named", field=name)
    if "{{" in _FIELD.sub("", text) or "}}" in _FIELD.sub("", text):
        raise errors.invalid("text", "expected braces in pairs: {{field}}")
    for paragraph in paragraphs(text):
        names = _FIELD.findall(paragraph)
        alone = _FIELD.fullmatch(paragraph) is not None
        if not alone and (wrong := [name for name in names if name in BLOCKS]):
            raise errors.invalid("text", f"expected {{{{{wrong[0]}}}}} in a paragraph of its own")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, lines joined."""
    parts = re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n").strip())
    return [" ".join(part.split()) for part in parts if part.strip()]


def fill(text: str, values: Mapping[str, str]) -> list[dict[str, str]]:
    """The paragraphs with their kind (heading, text, schedule, signatures), fields filled from `values`."""
    made = []
    for paragraph in paragraphs(text):
        alone = _FIELD.fullmatch(paragraph)
        if alone is not None and alone[1] in BLOCKS:
            made.append({"kind": alone[1], "text": ""})
            continue
        kind, body = ("heading", paragraph[2:]) if paragraph.startswith("# ") else ("text", paragraph)
        made.append({"kind": kind, "text": _FIELD.sub(lambda field: values[field[1]], body)})
    there = {one["kind"] for one in made}
    return made + [{"kind": block, "text": ""} for block in BLOCKS if block not in there]
