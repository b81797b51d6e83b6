"""pain.008.001.08: valid against its schema, the same bytes each time, no addresses (standards.md 4.7)."""

import dataclasses
import datetime
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement_service.providers import pain008

IBAN = "PT50000201231234567890154"
NOW = datetime.datetime(2026, 11, 20, 13, tzinfo=datetime.UTC)
CREDITOR = pain008.Creditor(name="Banco Azul SA", iban=IBAN, bic="", scheme_identifier="PT73ZZZ123456")
ONE = pain008.Collection(
    end_to_end_id="0192f0c1a2b37c4d8e5f60718293a4b5",
    amount_minor=10_000,
    collection_date=datetime.date(2026, 12, 10),
    sequence="FRST",
    scheme="CORE",
    mandate_reference="M-1",
    signature_date=datetime.date(2026, 11, 1),
    debtor_name="João Conceição",
    debtor_iban=IBAN,
    description="1 0192f0c1-a2b3-7c4d-8e5f-60718293a4b5",
)
NS = {"p": f"urn:iso:std:iso:20022:tech:xsd:{pain008.SCHEMA}"}


def render(*collections, creditor=CREDITOR):
    return pain008.render(
        message_id="0192f0c1a2b37c4d8e5f60718293a4b6",
        created_at=NOW,
        creditor=creditor,
        collections=collections,
    )


def texts(content, path):
    return [one.text for one in ElementTree.fromstring(content).findall(f".//{path}", NS)]


def test_standard_4_7_a_file_is_valid_and_the_same_each_time():
    content = render(ONE)
    assert content == render(ONE)
    assert texts(content, "p:GrpHdr/p:MsgId") == ["0192f0c1a2b37c4d8e5f60718293a4b6"]
    assert texts(content, "p:GrpHdr/p:CreDtTm") == ["2026-11-20T13:00:00Z"]
    assert texts(content, "p:InstdAmt") == ["100.00"]
    assert texts(content, "p:Dbtr/p:Nm") == ["Joao Conceicao"]
    assert texts(content, "p:CdtrSchmeId//p:Id/p:PrvtId/p:Othr/p:Id") == ["PT73ZZZ123456"]


def test_blocks_are_of_one_scheme_sequence_and_date():
    later = dataclasses.replace(ONE, collection_date=datetime.date(2026, 12, 11))
    company = dataclasses.replace(ONE, scheme="B2B", amount_minor=1)
    again = dataclasses.replace(ONE, sequence="RCUR", amount_minor=99)
    content = render(ONE, later, company, again, ONE)
    assert texts(content, "p:GrpHdr/p:NbOfTxs") == ["5"]
    assert texts(content, "p:GrpHdr/p:CtrlSum") == ["301.00"]
    assert texts(content, "p:PmtInf/p:NbOfTxs") == ["1", "2", "1", "1"]
    assert texts(content, "p:PmtInf/p:CtrlSum") == ["0.01", "200.00", "100.00", "0.99"]
    assert texts(content, "p:LclInstrm/p:Cd") == ["B2B", "CORE", "CORE", "CORE"]
    assert len(set(texts(content, "p:PmtInfId"))) == 4


def test_no_address_is_given_out():
    assert b"PstlAdr" not in render(ONE)
    with pytest.raises(pain008.CollectionFileMalformed):
        pain008._check(render(ONE).replace(b"<Dbtr>", b"<Dbtr><AdrLine>Rua 1</AdrLine>"))


def test_a_debtor_without_a_name_is_written_as_the_scheme_asks():
    assert texts(render(dataclasses.replace(ONE, debtor_name="")), "p:Dbtr/p:Nm") == ["NOTPROVIDED"]


def test_what_does_not_fit_the_schema_is_refused_without_quoting_it():
    with pytest.raises(pain008.CollectionFileMalformed) as refused:
        render(dataclasses.replace(ONE, debtor_iban="an account"))
    assert "account" not in str(refused.value)
    assert refused.value.__cause__ is None


@settings(deadline=None, max_examples=10)  # the schema is read anew each time
@given(st.text(max_size=100), st.integers(1, 99_999_999_999))
def test_any_name_and_amount_is_valid(name, minor):
    content = render(dataclasses.replace(ONE, debtor_name=name, amount_minor=minor))
    assert texts(content, "p:InstdAmt") == [f"{minor // 100}.{minor % 100:02d}"]
