"""The minute of an agreement: its text per creditor and language, its PDF with the schedule (S1-30)."""

import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from importlib import resources

from agreement_service import providers
from agreement_service.domain import accounts, minutes, texts
from agreement_service.providers import documents
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import instruments as instrument_store
from agreement_service.store import minutes as store
from agreement_service.store import papers as paper_store
from agreement_service.usecases import existing, moments, papers
from servicekit import db, errors

MAX_TITLES = 40
"""Titles that a minute names one by one."""
_OVER = frozenset(
    {
        accounts.AgreementState.EXPIRED,
        accounts.AgreementState.BROKEN,
        accounts.AgreementState.CANCELLED,
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """Everything in a minute but the names."""

    record: agreement_store.Record
    rows: Sequence[accounts.Instalment]
    contracts: Sequence[str]
    titles: Sequence[paper_store.TitlePaid]
    language: str
    text: str
    moment: moments.Moment


def house_text(language: str) -> str:
    """The text that holds where nobody has set another."""
    return (resources.files("agreement_service") / "templates" / f"minute.{language}.txt").read_text("utf-8")


def template(
    tx: db.Transaction, agency: uuid.UUID, *, creditor_id: uuid.UUID | None, language: str
) -> store.Template:
    """The text of a creditor (None: of the agency) in a language; version 0 where it is another's: the agency's, or the
    house's. Raises InvalidRequest, ResourceNotFound before the creditor's first title is placed."""
    _check_language(language, "name")
    if creditor_id is not None:
        existing.creditor(tx, agency, creditor_id)
    found = store.template(tx, agency, creditor_id=creditor_id, language=language)
    if found.version:
        return found
    own = store.template(tx, agency, creditor_id=None, language=language)
    return store.Template(text=own.text or house_text(language))


def set_template(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    creditor_id: uuid.UUID | None,
    language: str,
    text: str,
    version: int | None,
) -> None:
    """Set a text. Raises InvalidRequest, ResourceNotFound, MinuteFieldUnknown, MinuteFieldMissing, VersionMismatch."""
    template(tx, agency, creditor_id=creditor_id, language=language)
    minutes.check_text(text, language=language)
    found = store.template(tx, agency, creditor_id=creditor_id, language=language)
    expected = found.version if version is None else version
    if expected != found.version or not store.put_template(
        tx, agency, creditor_id=creditor_id, language=language, text=text, version=expected
    ):
        raise errors.VersionMismatch("the text changed since it was read", etag=found.version)


def read(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    agreement_id: uuid.UUID,
    language: str,
    moment: moments.Moment,
) -> Draft:
    """What a minute says besides names; language empty: by the agreement's currency.

    Raises ResourceNotFound, InvalidRequest, MinuteNotAvailable.
    """
    record = agreement_store.get(tx, agency, [agreement_id]).get(agreement_id)
    if record is None:
        raise errors.ResourceNotFound("no such agreement", agreement=agreement_id)
    language = language or ("pt-BR" if record.currency == "BRL" else "pt-PT")
    _check_language(language, "language")
    expired = record.state is accounts.AgreementState.PROPOSED and moment.business_date > record.expire_date
    if record.state in _OVER or expired:
        raise minutes.MinuteNotAvailable("the agreement is over", state=record.state.value)
    owner = instrument_store.owners(tx, agency, [agreement_id])[agreement_id]
    rows = account_store.instalments(tx, agency, [agreement_id])[agreement_id]
    return Draft(
        record=record,
        rows=sorted(rows, key=lambda one: one.number),
        contracts=paper_store.contracts(tx, agency, record.case_ids),
        titles=paper_store.agreed(tx, agency, agreement_id),
        language=language,
        text=template(tx, agency, creditor_id=owner.creditor_id, language=language).text,
        moment=moment,
    )


def render(draft: Draft, *, agency: uuid.UUID, parties: providers.PartyDirectory) -> bytes:
    """The PDF, outside any transaction. Raises PartiesUnknown, RemoteUnavailable, RemoteRefused."""
    case_id = draft.record.case_id
    known = parties.of(agency, [case_id])
    if case_id not in known:
        raise papers.PartiesUnknown("the case service does not know the case", case=case_id)
    names, values = known[case_id], _values(draft, known[case_id])
    paragraphs = minutes.fill(draft.text, values)
    currency = draft.record.currency
    return documents.pdf(
        "minute",
        {
            "language": draft.language,
            "title": next(one["text"] for one in paragraphs if one["text"])[:120],
            "paragraphs": paragraphs,
            "creditor": names.creditor_name,
            "debtor": names.debtor_name,
            "rows": [
                {
                    "number": str(row.number) if row.number else "Entrada",
                    "due_date": texts.date(row.due_date),
                    "capital": texts.amount(row.capital_minor, currency),
                    "interest": texts.amount(row.interest_minor, currency),
                    "amount": texts.amount(row.amount_minor, currency),
                }
                for row in draft.rows
            ],
            "totals": {
                "capital": texts.amount(sum(row.capital_minor for row in draft.rows), currency),
                "interest": texts.amount(sum(row.interest_minor for row in draft.rows), currency),
                "amount": texts.amount(sum(row.amount_minor for row in draft.rows), currency),
            },
        },
    )


def keep(
    *, tx: db.Transaction, agency: uuid.UUID, draft: Draft, document: bytes, moment: moments.Moment
) -> store.Minute:
    """Keep the PDF for ten years, once. Raises VersionMismatch where the agreement changed since it was read."""
    record = draft.record
    account_store.lock(tx, agency, record.case_ids)
    now = agreement_store.get(tx, agency, [record.id])[record.id]
    if now.version != record.version:
        raise errors.VersionMismatch("the agreement changed meanwhile", etag=now.version)
    return store.keep(
        tx,
        agency,
        agreement_id=record.id,
        language=draft.language,
        document=document,
        sha256=hashlib.sha256(document).digest(),
        retention_days=minutes.RETENTION_DAYS,
        now=moment.now,
    )


def find(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    agreement_id: uuid.UUID,
    minute_id: uuid.UUID,
    creditor: uuid.UUID | None,
) -> store.Minute:
    """One minute. Raises ResourceNotFound."""
    found = store.find(tx, agency, agreement_id=agreement_id, minute_id=minute_id, creditor=creditor)
    if found is None:
        raise errors.ResourceNotFound("no such minute", minute=minute_id)
    return found


def page(
    tx: db.Transaction,
    agency: uuid.UUID,
    *,
    agreement_id: uuid.UUID,
    creditor: uuid.UUID | None,
    after: uuid.UUID | None,
    limit: int,
) -> list[store.Minute]:
    """Minutes of an agreement in id order. Raises ResourceNotFound where there is no such agreement."""
    if agreement_id not in agreement_store.get(tx, agency, [agreement_id], creditor=creditor):
        raise errors.ResourceNotFound("no such agreement", agreement=agreement_id)
    return store.page(tx, agency, agreement_id=agreement_id, after=after, limit=limit)


def _check_language(language: str, field: str) -> None:
    if language not in minutes.LANGUAGES:
        raise errors.invalid(field, f"expected a language of {', '.join(minutes.LANGUAGES)}")


def _values(draft: Draft, names: providers.Parties) -> dict[str, str]:
    record, currency = draft.record, draft.record.currency
    references = [one.reference for one in draft.titles[:MAX_TITLES]]
    more = len(draft.titles) - len(references)
    titles = ", ".join(references) + (f" e mais {more}" if more else "")
    address = ", ".join(papers.address(names))
    later = [row for row in draft.rows if row.number]
    return {
        "agreement.broken_days": str(record.broken_days),
        "agreement.date": texts.date(record.accept_date or record.propose_date),
        "agreement.debt": texts.amount(record.debt_minor, currency),
        "agreement.added": texts.amount(record.added_minor, currency),
        "agreement.discount": texts.amount(record.discount_minor, currency),
        "agreement.down_payment": texts.amount(record.down_payment_minor, currency),
        "agreement.expire_date": texts.date(record.expire_date),
        "agreement.first_due_date": texts.date(draft.rows[0].due_date),
        "agreement.instalments": str(len(later)),
        "agreement.last_due_date": texts.date(draft.rows[-1].due_date),
        "agreement.number": str(record.number),
        "agreement.plan_interest": texts.amount(record.plan_interest_minor, currency),
        "agreement.total": texts.amount(record.total_minor, currency),
        "contracts": ", ".join(draft.contracts),
        "creditor.address": names.creditor_address,
        "creditor.document": texts.document(names.creditor_document),
        "creditor.name": names.creditor_name,
        "debtor.address": address,
        "debtor.document": texts.document(names.debtor_document, names.debtor_document_type),
        "debtor.name": names.debtor_name,
        "titles": titles,
        "today": texts.date(draft.moment.business_date),
    }
