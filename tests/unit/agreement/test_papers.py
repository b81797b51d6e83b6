"""Papers: a boleto whose barcode a reader reads, a Pix code a camera reads, a minute."""

import datetime
import re
import uuid

import pypdfium2
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement_service import providers
from agreement_service.domain import banks, boleto, collection, minutes, pix, texts
from agreement_service.store import instruments as store
from agreement_service.store import papers as paper_store
from agreement_service.usecases import minutes as minute_cases
from agreement_service.usecases import papers
from servicekit import errors

AGENCY, CASE, KEY = uuid.uuid4(), uuid.uuid4(), uuid.UUID("01890000-0000-7000-8000-00000000abcd")
NOW = datetime.datetime(2026, 11, 20, 13, tzinfo=datetime.UTC)
NAMES = providers.Parties(
    debtor_name="Maria Aparecida da Conceição Gonçalves",
    debtor_document_type="CPF",
    debtor_document="39053344705",
    debtor_address="Rua das Laranjeiras, 1200, ap. 34",
    debtor_city="São Paulo",
    debtor_region="SP",
    debtor_postal_code="01234567",
    creditor_name="Lojas Andrade Comércio de Móveis S.A.",
    creditor_document="12ABC34501DE35",
    creditor_address="Av. Paulista, 1000, São Paulo",
)
ACCOUNTS = {
    "001": {"branch": "4042", "account": "00061900", "wallet": "18", "agreement": "12387989"},
    "033": {"branch": "0059", "wallet": "102", "agreement": "1899775"},
    "041": {"branch": "1102", "wallet": "2", "agreement": "9000150"},
    "104": {"branch": "1234", "wallet": "14", "agreement": "123456"},
    "237": {"branch": "1172", "account": "0403005", "wallet": "06"},
    "341": {"branch": "1248", "account": "02124", "wallet": "109"},
    "748": {"branch": "0710", "account": "00129", "wallet": "1", "agreement": "65"},
    "756": {"branch": "4327", "wallet": "101", "agreement": "0229385"},
}


class Directory:
    """What `case` would answer."""

    def __init__(self, known=True):
        self.known = known

    def of(self, agency, case_ids):
        return dict.fromkeys(case_ids, NAMES) if self.known else {}


def slip(
    bank="341",
    *,
    number=10_152,
    minor=12_750,
    titles=(),
    payable=datetime.date(2026, 12, 30),
    document="16727230000197",
):
    """A registered boleto of a bank, of an instalment unless titles are given."""
    account = collection.CollectionAccount(
        bank=bank,
        beneficiary_name="Recupera Cobranças Ltda.",
        beneficiary_document=document,
        **ACCOUNTS[bank],
    )
    rules, due = banks.of(bank), datetime.date(2026, 11, 30)
    ours = rules.our_number(account, number, due)
    code = boleto.barcode(
        boleto.Slip(bank=bank, due_date=due, amount_minor=minor, free_field=rules.free_field(account, ours))
    )
    part = paper_store.InstalmentPaid(
        contract_reference="CT-2026/000123", agreement_number=2, number=1, instalments=5, due_date=due
    )
    return papers.Paper(
        instrument=store.Instrument(
            id=KEY,
            case_id=CASE,
            instalment_id=None if titles else uuid.uuid4(),
            account_id=None,
            kind="BOLETO",
            generation=1,
            state="REGISTERED",
            currency="BRL",
            amount_minor=minor,
            issue_date=datetime.date(2026, 11, 20),
            due_date=due,
            payable_until=payable,
            our_number=ours.digits,
            our_number_printed=ours.printed,
            barcode=code,
            due_at=NOW,
            act_key=ours.digits,
        ),
        account=account,
        instalment=None if titles else part,
        titles=list(titles),
    )


def code():
    """A registered Pix code."""
    one = slip()
    text = pix.static_code(
        key="contato@andrade.example",
        name="Lojas Andrade",
        city="Campinas",
        amount_minor=12_750,
        txid="ABC123",
    )
    fields = {name: getattr(one.instrument, name) for name in one.instrument.__slots__}
    pixed = store.Instrument(**{**fields, "kind": "PIX", "txid": "ABC123", "br_code": text, "barcode": ""})
    return papers.Paper(
        instrument=pixed, account=one.account, instalment=one.instalment, titles=one.titles
    ), text


def render(paper, form=papers.Format.PDF):
    return papers.render(paper, form=form, agency=AGENCY, parties=Directory())


def seen(pdf, dots=200):
    """The barcodes that a reader finds on a page, and the page's text."""
    with pypdfium2.PdfDocument(pdf) as document:
        assert len(document) == 1
        page = document[0]
        picture = page.render(scale=dots / 72, grayscale=True).to_numpy()
        found = zxingcpp.read_barcodes(picture.reshape(picture.shape[:2]))
        return [(one.format, one.text) for one in found], page.get_textpage().get_text_range()


@pytest.mark.feature("S5-26", "S3-17")
@pytest.mark.parametrize("bank", sorted(ACCOUNTS))
def test_a_reader_reads_the_barcode_of_every_banks_slip(bank):
    paper = slip(bank)
    found, text = seen(render(paper))
    assert found == [(zxingcpp.BarcodeFormat.ITF, paper.instrument.barcode)]
    line = boleto.typeable_line(paper.instrument.barcode)
    assert text.count(line) == 2  # on the receipt and on the payment form
    assert boleto.barcode_of_line(line) == found[0][1]
    rules = banks.of(bank)
    assert f"{bank}-{rules.check_digit}" in text
    assert paper.instrument.our_number_printed in text


@pytest.mark.feature("S5-26")
def test_a_slip_says_what_a_person_expects():
    _, text = seen(render(slip()))
    plain = " ".join(text.split())
    for part in (
        "Recibo do Pagador",
        "Ficha de Compensação",
        "Recupera Cobranças Ltda. · CNPJ 16.727.230/0001-97",
        "Maria Aparecida da Conceição Gonçalves",
        "CPF 390.533.447-05",
        "CEP 01234-567",
        "Lojas Andrade Comércio de Móveis S.A.",
        "CNPJ 12.ABC.345/01DE-35",
        "Av. Paulista, 1000, São Paulo",
        "30/11/2026",
        "R$ 127,50",
        "1248 / 02124-6",
        "Parcela 1 de 5 do acordo 2, contrato CT-2026/000123",
        "Não receber após 30/12/2026.",
    ):
        assert part in plain, part


def test_an_account_without_a_document_is_the_creditors():
    _, text = seen(render(slip(document="")))
    plain = " ".join(text.split())
    assert "Beneficiário Lojas Andrade Comércio de Móveis S.A. · CNPJ 12.ABC.345/01DE-35" in plain
    assert "Recupera" not in plain


def test_the_barcode_is_103_by_13_millimetres():
    dots = 300
    with pypdfium2.PdfDocument(render(slip())) as document:
        picture = document[0].render(scale=dots / 72, grayscale=True).to_numpy()
    picture = picture.reshape(picture.shape[:2])
    (found,) = zxingcpp.read_barcodes(picture)
    place = found.position
    width = (place.top_right.x - place.top_left.x) / dots * 25.4
    row = picture[:, place.top_left.x + 1]
    middle = (place.top_left.y + place.bottom_left.y) // 2
    top = bottom = middle
    while row[top - 1] < 128:
        top -= 1
    while row[bottom + 1] < 128:
        bottom += 1
    assert width == pytest.approx(103, abs=0.5)
    assert (bottom - top + 1) / dots * 25.4 == pytest.approx(13, abs=0.3)


@given(minor=st.integers(1, boleto.MAX_AMOUNT_MINOR), number=st.integers(1, 99_999_999))
@settings(max_examples=15, deadline=None)
def test_whatever_the_amount_and_number_the_reader_reads_it(minor, number):
    paper = slip(number=number, minor=minor)
    assert seen(render(paper), dots=150)[0] == [(zxingcpp.BarcodeFormat.ITF, paper.instrument.barcode)]


@pytest.mark.feature("S2-29")
def test_many_titles_fit_on_a_page_with_the_rest_summed():
    titles = [
        paper_store.TitlePaid(reference=f"NF-{n:04d}", due_date=datetime.date(2026, 1, 1), amount_minor=1_000)
        for n in range(100)
    ]
    _, text = seen(render(slip(titles=titles, minor=100_000)))
    assert "NF-0000" in text
    assert f"NF-{papers.MAX_ITEMS:04d}" not in text
    assert f"e mais {100 - papers.MAX_ITEMS} títulos" in text
    assert texts.amount(1_000 * (100 - papers.MAX_ITEMS), "BRL") in text.replace(" ", "\xa0")


def test_the_same_slip_has_the_same_bytes():
    assert render(slip()) == render(slip())


def test_a_picture_of_a_slip():
    assert render(slip(), papers.Format.PNG)[:4] == b"\x89PNG"


def test_a_camera_reads_the_pix_code():
    paper, text = code()
    found, words = seen(render(paper))
    assert found == [(zxingcpp.BarcodeFormat.QRCode, text)]
    assert pix.parse(found[0][1])["62.05"] == "ABC123"
    assert "Lojas Andrade" in words
    assert "\u200b" not in words  # what is copied from the page is the code


def test_the_pix_code_as_svg_asks_nobody_for_names():
    paper, _ = code()
    made = papers.render(paper, form=papers.Format.SVG, agency=AGENCY, parties=Directory(known=False))
    assert made.lstrip().startswith(b"<?xml")
    assert b"<svg" in made


def test_no_paper_without_names():
    with pytest.raises(papers.PartiesUnknown):
        papers.render(slip(), form=papers.Format.PDF, agency=AGENCY, parties=Directory(known=False))


@given(digits=st.text("0123456789", min_size=44, max_size=44))
def test_bars_are_405_narrow_elements_and_read_back(digits):
    code = f"{digits[:3].replace('8', '1')}9{digits[4:]}"
    code = f"{code[:4]}{boleto.mod11(code[:4] + code[5:])}{code[5:]}"
    widths = boleto.bars(code)
    assert sum(widths) == 405
    assert set(widths) == {1, 3}
    inner = widths[4:-3]
    wide = {
        "".join("1" if width == 3 else "0" for width in inner[start + shift : start + 10 : 2])
        for start in range(0, 220, 10)
        for shift in (0, 1)
    }
    assert all(pattern.count("1") == 2 for pattern in wide)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (123_456_789, "BRL", "R$\xa01.234.567,89"),
        (5, "BRL", "R$\xa00,05"),
        (-100, "BRL", "-R$\xa01,00"),
        (123_456, "EUR", "1.234,56\xa0€"),
    ],
)
def test_amounts_as_readers_write_them(minor, currency, text):
    assert texts.amount(minor, currency) == text


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        ("39053344705", "CPF", "CPF 390.533.447-05"),
        ("12ABC34501DE35", "", "CNPJ 12.ABC.345/01DE-35"),
        ("501964843", "", "NIF 501964843"),
        ("", "CPF", ""),
        ("X1", "", "X1"),
    ],
)
def test_standard_4_5_documents_as_printed(value, kind, text):
    assert texts.document(value, kind) == text


# -- minutes ---------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S1-30")
@pytest.mark.parametrize("language", minutes.LANGUAGES)
def test_the_texts_of_the_house_are_right(language):
    text = minute_cases.house_text(language)
    minutes.check_text(text, language=language)
    made = minutes.fill(text, {name: f"<{name}>" for name in minutes.FIELDS})
    assert [one["kind"] for one in made].count("schedule") == 1
    assert made[-1]["kind"] == "signatures"
    assert not any("{{" in one["text"] for one in made)


NAMED = "{{creditor.name}} {{creditor.document}} {{creditor.address}}"


@pytest.mark.feature("S1-30")
def test_an_unknown_field_is_refused_by_its_name():
    with pytest.raises(minutes.MinuteFieldUnknown) as refused:
        minutes.check_text(f"{NAMED} {{{{debtor.salary}}}}", language="pt-BR")
    assert refused.value.metadata["field"] == "debtor.salary"
    assert "debtor.name" in refused.value.metadata["allowed"]


def test_r07_a_text_in_brazil_names_the_creditor():
    with pytest.raises(minutes.MinuteFieldMissing) as refused:
        minutes.check_text("{{creditor.name}} {{creditor.document}}", language="pt-BR")
    assert refused.value.metadata["field"] == "creditor.address"
    minutes.check_text("{{creditor.name}}", language="pt-PT")


@pytest.mark.parametrize(
    "text", ["", " \n", f"{NAMED} {{{{ x", f"{NAMED} }}}}", f"{NAMED} x {{{{schedule}}}}", "x" * 50_001]
)
def test_a_text_that_cannot_be_filled(text):
    with pytest.raises((errors.InvalidRequest, minutes.MinuteFieldMissing)):
        minutes.check_text(text, language="pt-BR")


def test_what_the_text_does_not_place_comes_at_the_end():
    made = minutes.fill("# A\n\nb\nc {{ debtor.name }}", {"debtor.name": "{{today}} #x"})
    assert made == [
        {"kind": "heading", "text": "A"},
        {"kind": "text", "text": "b c {{today}} #x"},
        {"kind": "schedule", "text": ""},
        {"kind": "signatures", "text": ""},
    ]


def test_house_account_of_every_bank_is_right():
    for bank, fields in ACCOUNTS.items():
        one = collection.CollectionAccount(bank=bank, beneficiary_name="Recupera", **fields)
        assert one.check() == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"beneficiary_name": " "}, "beneficiary_name"),
        ({"beneficiary_document": "39053344705"}, "beneficiary_document"),
        ({"payable_days": 366}, "payable_days"),
        ({"bank": "999"}, "bank"),
        ({"branch": "12"}, "branch"),
        ({"bank": "", "branch": "", "account": "", "wallet": ""}, "bank"),
        ({"pix_key": "x" * 78, "pix_name": "A", "pix_city": "B"}, "pix_key"),
        ({"pix_key": "a@b.example", "pix_name": "A" * 26, "pix_city": "B"}, "pix_name"),
        ({"pix_key": "a@b.example", "pix_name": "A", "pix_city": "Çã" * 10}, "pix_city"),
        ({"pix_name": "A"}, "pix_name"),
    ],
)
def test_a_wrong_account_names_its_field(change, field):
    right = {"bank": "341", "beneficiary_name": "Recupera", **ACCOUNTS["341"]}
    found = collection.CollectionAccount(**{**right, **change}).check()
    assert field in {one.field for one in found}
    assert all(re.match("expected", one.description) for one in found)
