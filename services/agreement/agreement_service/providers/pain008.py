"""pain.008.001.08: the file by which a creditor's bank is asked to collect direct debits (standards.md 4.7).

Made by sepaxml and validated against the XSD. Addresses are left out, which the scheme allows inside the EEA; a file
that held an unstructured one (refused since 2026-11-15) is never given out. The same input gives the same bytes.
"""

import dataclasses
import datetime
import re
from collections.abc import Sequence
from xml.etree import ElementTree

from sepaxml import SepaDD, validation

from agreement_service.domain import sepa

SCHEMA = "pain.008.001.08"
UNKNOWN_NAME = "NOTPROVIDED"
"""What the scheme asks to write where the debtor's name is not known."""


class CollectionFileMalformed(Exception):
    """The file does not fit its schema, or holds an address: nothing is given out."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Creditor:
    """Who collects: name in the SEPA set, IBAN, BIC where there is one, creditor identifier."""

    name: str
    iban: str
    bic: str
    scheme_identifier: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One collection, in cents of EUR; `scheme` CORE or B2B, `sequence` FRST, RCUR, OOFF or FNAL."""

    end_to_end_id: str
    amount_minor: int
    collection_date: datetime.date
    sequence: str
    scheme: str
    mandate_reference: str
    signature_date: datetime.date
    debtor_name: str = dataclasses.field(repr=False)
    debtor_iban: str = dataclasses.field(repr=False)
    description: str


def render(
    *,
    message_id: str,
    created_at: datetime.datetime,
    creditor: Creditor,
    collections: Sequence[Collection],
) -> bytes:
    """The file as UTF-8 XML, validated. All collections are of one scheme's rulebook a payment information block.

    Raises CollectionFileMalformed.
    """
    documents = [
        _document(creditor, scheme, [one for one in collections if one.scheme == scheme])
        for scheme in sorted({one.scheme for one in collections})
    ]
    whole = documents[0]
    initiation = _only(whole, "CstmrDrctDbtInitn")
    for other in documents[1:]:
        initiation.extend(_only(other, "CstmrDrctDbtInitn").findall(_tag("PmtInf")))
    _state(initiation, message_id, created_at, collections)
    text: bytes = ElementTree.tostring(whole, encoding="UTF-8", xml_declaration=True, default_namespace=None)
    _check(text)
    return text


def _document(creditor: Creditor, scheme: str, collections: Sequence[Collection]) -> ElementTree.Element:
    config = {
        "name": creditor.name,
        "IBAN": creditor.iban,
        "batch": True,
        "creditor_id": creditor.scheme_identifier,
        "currency": "EUR",
        "instrument": scheme,
    }
    if creditor.bic:
        config["BIC"] = creditor.bic
    made = SepaDD(config, schema=SCHEMA, clean=False)
    for one in collections:
        made.add_payment(
            {
                "name": sepa.latin(one.debtor_name) or UNKNOWN_NAME,
                "IBAN": one.debtor_iban,
                "amount": one.amount_minor,
                "type": one.sequence,
                "collection_date": one.collection_date,
                "mandate_id": one.mandate_reference,
                "mandate_date": one.signature_date,
                "description": sepa.latin(one.description, 140),
                "endtoend_id": one.end_to_end_id,
            }
        )
    return ElementTree.fromstring(made.export(validate=False))  # noqa: S314 -- made here, of our own data


def _state(
    initiation: ElementTree.Element,
    message_id: str,
    created_at: datetime.datetime,
    collections: Sequence[Collection],
) -> None:
    """Ids, instant and totals that follow from the file itself, in place of the library's random ones."""
    header = _only(initiation, "GrpHdr")
    _only(header, "MsgId").text = message_id
    instant = created_at.astimezone(datetime.UTC)
    _only(header, "CreDtTm").text = instant.strftime("%Y-%m-%dT%H:%M:%SZ")
    _only(header, "NbOfTxs").text = str(len(collections))
    total = sum(one.amount_minor for one in collections)
    _only(header, "CtrlSum").text = f"{total // 100}.{total % 100:02d}"
    blocks = sorted(initiation.findall(_tag("PmtInf")), key=_order)
    for block in initiation.findall(_tag("PmtInf")):
        initiation.remove(block)
    for number, block in enumerate(blocks, start=1):
        _only(block, "PmtInfId").text = f"{message_id[:30]}-{number:03d}"
        initiation.append(block)


def _order(block: ElementTree.Element) -> tuple[str, str, str]:
    kind = _only(block, "PmtTpInf")
    scheme = _only(_only(kind, "LclInstrm"), "Cd").text or ""
    return scheme, _only(kind, "SeqTp").text or "", _only(block, "ReqdColltnDt").text or ""


def _check(text: bytes) -> None:
    if re.search(rb"<(\w+:)?(AdrLine|PstlAdr)[ />]", text):
        raise CollectionFileMalformed("a file holds no addresses")
    try:
        validation.try_valid_xml(text, SCHEMA)
    except validation.ValidationError:
        # the text of the cause quotes names and accounts
        raise CollectionFileMalformed("the file does not fit its schema") from None


def _tag(name: str) -> str:
    return f"{{urn:iso:std:iso:20022:tech:xsd:{SCHEMA}}}{name}"


def _only(parent: ElementTree.Element, name: str) -> ElementTree.Element:
    found = parent.find(_tag(name))
    if found is None:
        raise CollectionFileMalformed(f"expected {name}")
    return found
