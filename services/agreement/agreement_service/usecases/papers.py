"""Instruments on paper: read in a transaction, rendered outside it with names fetched at that moment (S2-29, S3-17,
S4-17, S5-26, S5-27; R07: the creditor's name, document and address stand on each)."""

import dataclasses
import enum
import io
import uuid

import segno

from agreement_service import providers
from agreement_service.domain import banks, boleto, collection, instruments, texts
from agreement_service.providers import documents
from agreement_service.store import collection as collection_store
from agreement_service.store import instruments as store
from agreement_service.store import papers as paper_store
from servicekit import db, errors

MAX_ITEMS = 24
"""Titles that a receipt lists one by one; the rest is summed in a line."""


class Format(enum.StrEnum):
    """What a paper is made as, by its media type."""

    PDF = "application/pdf"
    PNG = "image/png"
    SVG = "image/svg+xml"


FORMATS = {
    instruments.Kind.BOLETO: (Format.PDF, Format.PNG),
    instruments.Kind.PIX: (Format.PDF, Format.PNG, Format.SVG),
    instruments.Kind.MULTIBANCO: (Format.PDF, Format.PNG),
}


class PartiesUnknown(errors.ServiceError):
    """The case service does not know the case: no paper without the names that belong on it."""

    status = errors.Status.FAILED_PRECONDITION


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paper:
    """Everything on an instrument's paper but the names."""

    instrument: store.Instrument
    account: collection.CollectionAccount
    instalment: paper_store.InstalmentPaid | None
    titles: list[paper_store.TitlePaid]


def read(
    *,
    tx: db.Transaction,
    agency: uuid.UUID,
    instrument_id: uuid.UUID,
    form: Format,
    creditor: uuid.UUID | None,
    bank: providers.BankProvider,
) -> Paper:
    """What a paper needs. Raises ResourceNotFound, InstrumentNotRegistered, FormatNotOfTheKind."""
    found = store.find(tx, agency, instrument_id, creditor=creditor)
    if found is None:
        raise errors.ResourceNotFound("no such instrument", instrument=instrument_id)
    formats = FORMATS.get(instruments.Kind(found.kind), ())
    if form not in formats:
        raise instruments.FormatNotOfTheKind(
            "no such picture of this kind", kind=found.kind, formats=",".join(one.name for one in formats)
        )
    if found.state != instruments.State.REGISTERED:
        raise instruments.InstrumentNotRegistered("only what is registered is printed", state=found.state)
    record = collection_store.find(tx, agency, found.account_id) if found.account_id is not None else None
    return Paper(
        instrument=found,
        account=record.account if record is not None else bank.account,
        instalment=paper_store.instalment(tx, agency, found.instalment_id)
        if found.instalment_id is not None
        else None,
        titles=paper_store.titles(tx, agency, instrument_id),
    )


def render(paper: Paper, *, form: Format, agency: uuid.UUID, parties: providers.PartyDirectory) -> bytes:
    """The paper, outside any transaction. Raises PartiesUnknown, RemoteUnavailable, RemoteRefused."""
    if form is Format.SVG:
        return _qr(paper.instrument.br_code)
    known = parties.of(agency, [paper.instrument.case_id])
    if paper.instrument.case_id not in known:
        raise PartiesUnknown("the case service does not know the case", case=paper.instrument.case_id)
    data = _data(paper, known[paper.instrument.case_id])
    template = paper.instrument.kind.lower()
    return documents.pdf(template, data) if form is Format.PDF else documents.png(template, data)


def _qr(code: str) -> bytes:
    """A BR Code as SVG, error correction M, with its quiet zone (BCB, Manual de Padrões para Iniciação do Pix)."""
    made = io.BytesIO()
    segno.make(code, error="m", micro=False).save(made, kind="svg", border=4, scale=4, light="white")
    return made.getvalue()


def _data(paper: Paper, names: providers.Parties) -> dict[str, object]:
    one, account = paper.instrument, paper.account
    data: dict[str, object] = {
        "amount": texts.amount(one.amount_minor, one.currency),
        "due_date": texts.date(one.due_date),
        "issue_date": texts.date(one.issue_date),
        "payer": {
            "name": names.debtor_name,
            "document": texts.document(names.debtor_document, names.debtor_document_type),
            "address": address(names),
        },
        "creditor": {
            "name": names.creditor_name,
            "document": texts.document(names.creditor_document),
            "address": names.creditor_address,
        },
        "subject": _subject(paper),
    }
    match one.kind:
        case instruments.Kind.BOLETO:
            return data | _boleto(paper) | {"payee": _payee(account, names)}
        case instruments.Kind.PIX:
            code = {"qr": _qr(one.br_code).decode(), "code": one.br_code, "txid": one.txid}
            return data | code | {"payee": _payee(account, names)}
        case _:
            return data | {"entity": one.our_number[:5], "reference": one.our_number_printed}


def _payee(account: collection.CollectionAccount, names: providers.Parties) -> dict[str, str]:
    # an account without a document of its own is the creditor's: name and number are one company's
    own = bool(account.beneficiary_document)
    return {
        "name": account.beneficiary_name if own else names.creditor_name,
        "document": texts.document(account.beneficiary_document if own else names.creditor_document),
        "code": banks.of(account.bank).payee(account) if account.bank else "",
    }


def _boleto(paper: Paper) -> dict[str, object]:
    one = paper.instrument
    bank = banks.of(one.barcode[:3])
    rows = [(item.reference, item.due_date, item.amount_minor) for item in paper.titles]
    if paper.instalment is not None:
        rows = [(_subject(paper), paper.instalment.due_date, one.amount_minor)]
    shown, rest = rows[:MAX_ITEMS], rows[MAX_ITEMS:]
    instructions = ["Não receber valor diferente do valor do documento."]
    if one.payable_until is not None:
        instructions.insert(0, f"Não receber após {texts.date(one.payable_until)}.")
    return {
        "bank_name": bank.name,
        "bank_code": f"{bank.code}-{bank.check_digit}",
        "typeable_line": boleto.typeable_line(one.barcode),
        "bars": boleto.bars(one.barcode),
        "our_number": one.our_number_printed,
        "document_number": _document_number(paper),
        "wallet": paper.account.wallet,
        "instructions": instructions,
        "items": [
            {"text": text, "due_date": texts.date(due), "amount": texts.amount(minor, one.currency)}
            for text, due, minor in shown
        ],
        "more_items": len(rest),
        "more_amount": texts.amount(sum(minor for _, _, minor in rest), one.currency),
    }


def _subject(paper: Paper) -> str:
    """What it pays, in words."""
    part = paper.instalment
    if part is not None:
        row = "Parcela" if paper.instrument.currency == "BRL" else "Prestação"
        which = f"{row} {part.number} de {part.instalments}" if part.number else "Entrada"
        return f"{which} do acordo {part.agreement_number}, contrato {part.contract_reference}"
    if len(paper.titles) == 1:
        return f"Título {paper.titles[0].reference}"
    return f"{len(paper.titles)} títulos"


def _document_number(paper: Paper) -> str:
    """The creditor's number of the debt: agreement and row, or the title's reference."""
    part = paper.instalment
    if part is not None:
        return f"{part.agreement_number}-{part.number:02d}"
    first = paper.titles[0].reference
    return first if len(paper.titles) == 1 else f"{first} +{len(paper.titles) - 1}"


def address(names: providers.Parties) -> list[str]:
    """A debtor's address in at most two lines; what is unknown is left out."""
    place = " - ".join(part for part in (names.debtor_city, names.debtor_region) if part)
    code = names.debtor_postal_code
    if len(code) == 8:
        code = f"CEP {code[:5]}-{code[5:]}"
    second = " · ".join(part for part in (place, code) if part)
    return [line for line in (names.debtor_address, second) if line]
