"""RemittanceService over gRPC, with tokens: contracts, statements, their files."""

import csv
import datetime
import io
import itertools
import re
import tracemalloc
import uuid

import openpyxl
import psycopg
import pypdfium2
import pytest
from google.type import money_pb2

from agreement_service.store import remittance as store
from agreement_service.usecases import statement_files
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2, remittance_pb2
from recupera.agreement.v1 import remittance_service_pb2 as service
from servicekit import dates, ids

TUESDAY = datetime.date(2026, 10, 6)
SATURDAY = datetime.date(2026, 11, 21)
ADMIN = ("agreement.admin", "agreement.read")
FORMATS = service.ExportStatementRequest


def brl(minor, currency="BRL"):
    sign = -1 if minor < 0 else 1
    units, cents = divmod(abs(minor), 100)
    return money_pb2.Money(currency_code=currency, units=sign * units, nanos=sign * cents * 10_000_000)


def minor(amount):
    return amount.units * 100 + amount.nanos // 10_000_000


def contract(agency, **fields):
    return remittance_pb2.CommissionContract(
        **{
            "creditor_reference": agency.creditor,
            "currency": "BRL",
            "valid_from": dates.to_proto(datetime.date(2026, 1, 1)),
            "bands": [
                remittance_pb2.CommissionBand(
                    principal_rate_e4=100_000, charges_rate_e4=200_000, costs_rate_e4=1_000_000
                )
            ],
            "frequency": remittance_pb2.CommissionContract.FREQUENCY_DAY,
            "grouping": remittance_pb2.CommissionContract.GROUPING_GROUPED,
            "tax": remittance_pb2.CommissionContract.TAX_ISS,
            "tax_rate_e4": 50_000,
            **fields,
        }
    )


def create(api, agency, **fields):
    request = service.CreateCommissionContractRequest(parent=api.name, contract=contract(agency, **fields))
    return api("CreateCommissionContract", request, scopes=ADMIN)


def close(api, agency, **options):
    agency.set_clock(agency.today + datetime.timedelta(days=1))
    request = service.CloseStatementRequest(
        parent=api.name, creditor_reference=agency.creditor, currency="BRL", request_id="close"
    )
    return api("CloseStatement", request, scopes=ADMIN, **options)


def export(api, name, form, **options):
    pieces = list(
        api(
            "ExportStatement",
            service.ExportStatementRequest(name=name, format=form),
            scopes=("agreement.read",),
            **options,
        )
    )
    assert all(len(piece.data) <= 1 << 20 for piece in pieces)
    (kind,) = {piece.content_type for piece in pieces}
    return kind, b"".join(piece.data for piece in pieces)


@pytest.mark.feature("S1-18")
def test_from_contract_to_paid(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    made = create(api, agency, minimum_amount=brl(100), success_rate_e4=10_000)
    assert made.creator == "users/1"
    listed = api(
        "ListCommissionContracts", service.ListCommissionContractsRequest(parent=api.name), scopes=ADMIN
    )
    assert list(listed.contracts) == [made]
    payment = agency.pay(50_000, title_reference=placed.reference)
    closed = close(api, agency)
    assert closed.closed == 1
    (statement,) = closed.statements
    assert statement.state == remittance_pb2.Statement.STATE_CLOSED
    assert dates.from_proto(statement.period_end, "") == SATURDAY
    assert minor(statement.gross) == 50_000
    assert minor(statement.net) == 50_000 - minor(statement.commission) - minor(statement.tax_added)
    assert statement.closer == "users/1"
    approve = service.ApproveStatementRequest(name=statement.name, etag=statement.etag)
    assert api.refused("ApproveStatement", approve, scopes=ADMIN) == (
        "PERMISSION_DENIED",
        "APPROVER_CLOSED_IT",
    )
    approved = api("ApproveStatement", approve, scopes=ADMIN, subject="users/2")
    assert approved.approver == "users/2"
    assert api.refused("ApproveStatement", approve, scopes=ADMIN, subject="users/3") == (
        "ABORTED",
        "VERSION_MISMATCH",
    )
    shown = api("GetPayment", agreement_service_pb2.GetPaymentRequest(name=f"{api.name}/payments/{payment}"))
    assert shown.state == agreement_pb2.Payment.STATE_REMITTED
    filtered = agreement_service_pb2.ListPaymentsRequest(
        parent=api.name, state=agreement_pb2.Payment.STATE_REMITTED
    )
    assert api.refused("ListPayments", filtered)[1] == "INVALID_REQUEST"
    paid = service.MarkStatementPaidRequest(name=statement.name, bank_reference="TED 4711", request_id="paid")
    first = api("MarkStatementPaid", paid, scopes=ADMIN)
    assert api("MarkStatementPaid", paid, scopes=ADMIN) == first, "the same request_id, the same answer"
    assert (first.state, first.bank_reference) == (remittance_pb2.Statement.STATE_PAID, "TED 4711")
    assert api("GetStatement", service.GetStatementRequest(name=statement.name)) == first
    everything = api("ListStatements", service.ListStatementsRequest(parent=api.name)).statements
    assert [one.state for one in everything] == [
        remittance_pb2.Statement.STATE_PAID,
        remittance_pb2.Statement.STATE_OPEN,
    ]
    agency.reverse(payment)
    (waiting,) = api(
        "ListStatements",
        service.ListStatementsRequest(parent=api.name, state=remittance_pb2.Statement.STATE_OPEN),
    ).statements
    assert minor(waiting.gross) == -50_000


def test_lines_are_paged_with_success_fees_behind(api, agency):
    (placed,) = agency.place((TUESDAY, 10_000))
    create(api, agency, success_rate_e4=10_000)
    for amount in (1_000, 2_000, 30_000):
        agency.pay(amount, title_reference=placed.reference)
    (statement,) = close(api, agency).statements
    pages, token = [], ""
    while True:
        page = api(
            "ListStatementLines",
            service.ListStatementLinesRequest(parent=statement.name, page_size=2, page_token=token),
        )
        pages.append(list(page.lines))
        token = page.next_page_token
        if not token:
            break
    lines = list(itertools.chain.from_iterable(pages))
    assert [len(page) for page in pages[:-1]] == [2] * (len(pages) - 1)
    assert len(lines) == statement.settlements + 1
    assert lines[-1].kind == remittance_pb2.StatementLine.KIND_SUCCESS_FEE
    assert minor(lines[-1].percentage) == minor(statement.success_fee) > 0
    assert sum(minor(line.amount) for line in lines[:-1]) == minor(statement.gross)
    assert lines[0].title_reference == placed.reference
    assert lines[0].payment.startswith(api.name)


def test_a_creditor_reads_its_own_statements_only(api, agency):
    other_id = ids.new()
    (mine,) = agency.place((TUESDAY, 100_000))
    agency.place((TUESDAY, 100_000), creditor="CRED-2", creditor_id=other_id)
    create(api, agency)
    create(api, agency, creditor_reference="CRED-2")
    agency.pay(5_000, title_reference=mine.reference)
    (statement,) = close(api, agency).statements
    for creditor, seen in ((agency.creditor_id, 2), (other_id, 0)):
        listed = api("ListStatements", service.ListStatementsRequest(parent=api.name), creditor=creditor)
        assert len(listed.statements) == seen
        contracts = api(
            "ListCommissionContracts",
            service.ListCommissionContractsRequest(parent=api.name),
            creditor=creditor,
        ).contracts
        assert len(contracts) == 1
    for method, request in (
        ("GetStatement", service.GetStatementRequest(name=statement.name)),
        ("ListStatementLines", service.ListStatementLinesRequest(parent=statement.name)),
    ):
        api(method, request, creditor=agency.creditor_id)
        assert api.refused(method, request, creditor=other_id) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    assert export(api, statement.name, FORMATS.FORMAT_CSV, creditor=agency.creditor_id)
    with pytest.raises(Exception, match="no such statement"):
        export(api, statement.name, FORMATS.FORMAT_CSV, creditor=other_id)
    approve = service.ApproveStatementRequest(name=statement.name)
    assert (
        api.refused("ApproveStatement", approve, scopes=ADMIN, creditor=agency.creditor_id)[1]
        == "CREDITOR_NOT_ALLOWED"
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"currency": "USD"}, "INVALID_REQUEST"),
        ({"bands": []}, "INVALID_REQUEST"),
        ({"fixed_amount": brl(100, "EUR")}, "INVALID_REQUEST"),
        ({"fixed_amount": brl(100)}, "INVALID_REQUEST"),
        ({"tax": 9}, "INVALID_REQUEST"),
        ({"tax": 2, "tax_rate_e4": 230_000}, "INVALID_REQUEST"),
        ({"creditor_reference": "NOBODY"}, "RESOURCE_NOT_FOUND"),
        ({"valid_from": None}, "INVALID_REQUEST"),
        ({"product": "CARD"}, "INVALID_REQUEST"),
    ],
)
def test_a_wrong_contract_is_refused(api, agency, fields, reason):
    agency.place((TUESDAY, 100_000))
    request = service.CreateCommissionContractRequest(parent=api.name, contract=contract(agency, **fields))
    assert api.refused("CreateCommissionContract", request, scopes=ADMIN)[1] == reason
    assert not agency.rows("SELECT 1 FROM commission_contracts")


def test_only_an_administrator_changes_something(api, agency):
    agency.place((TUESDAY, 100_000))
    for method, request in (
        ("CreateCommissionContract", service.CreateCommissionContractRequest(parent=api.name)),
        ("CloseStatement", service.CloseStatementRequest(parent=api.name)),
        ("ApproveStatement", service.ApproveStatementRequest(name=f"{api.name}/statements/{ids.new()}")),
        ("MarkStatementPaid", service.MarkStatementPaidRequest(name=f"{api.name}/statements/{ids.new()}")),
    ):
        assert api.refused(method, request) == ("PERMISSION_DENIED", "SCOPE_MISSING")


def test_an_open_statement_has_no_lines_and_no_file(api, agency):
    agency.place((TUESDAY, 100_000))
    create(api, agency)
    close(api, agency)
    (waiting,) = api(
        "ListStatements",
        service.ListStatementsRequest(parent=api.name, state=remittance_pb2.Statement.STATE_OPEN),
    ).statements
    request = service.ListStatementLinesRequest(parent=waiting.name)
    assert api.refused("ListStatementLines", request) == ("FAILED_PRECONDITION", "STATEMENT_OPEN")
    with pytest.raises(Exception, match="still collects"):
        export(api, waiting.name, FORMATS.FORMAT_PDF)
    with pytest.raises(Exception, match="FORMAT_CSV"):
        export(api, waiting.name, 0)


@pytest.fixture
def exported(api, agency):
    """A statement whose references look like formulas, with a reversal and a success fee."""
    (first,) = agency.place((TUESDAY, 100_000), contract="=1+1", references=["@SUM(A1)"])
    (second,) = agency.place((TUESDAY, 3_000), contract="CT-2", references=["+5541999"])
    create(api, agency, success_rate_e4=10_000, fixed_amount=brl(150), fixed_per=1)
    back = agency.pay(7_777, title_reference=first.reference, bank_reference="E2E-SECRET")
    agency.pay(1_000_00, title_reference=first.reference)
    agency.pay(50_000, title_reference=second.reference)
    agency.reverse(back)
    (statement,) = close(api, agency).statements
    return statement


def comma(minor):
    return f"{'-' * (minor < 0)}{abs(minor) // 100},{abs(minor) % 100:02}"


def test_the_csv_has_every_line_and_no_formula(api, agency, exported):
    kind, data = export(api, exported.name, FORMATS.FORMAT_CSV)
    assert kind == "text/csv; charset=utf-8"
    assert data.startswith(b"\xef\xbb\xbf")
    head, *rows = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=";")
    assert head[:4] == ["Tipo", "Contrato", "Título", "Parcela"]
    assert len(rows) == exported.settlements + 1
    by = {name: [row[place] for row in rows] for place, name in enumerate(head)}
    assert {"'=1+1", "CT-2"} == set(by["Contrato"])
    assert {"'@SUM(A1)", "'+5541999", ""} == set(by["Título"])
    assert {"Recebimento", "Estorno", "Comissão de êxito"} == set(by["Tipo"])
    for row in rows:
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r"))
            assert not cell.startswith("-") or re.fullmatch(r"-\d+,\d\d", cell)

    def total(name):
        return sum(int(cell.replace(",", "")) for cell in by[name] if cell)

    assert total("Valor recebido (BRL)") == minor(exported.gross)
    assert total("Comissão") + total("Valor fixo") == minor(exported.commission) + minor(exported.success_fee)
    assert total("ISS a somar") == minor(exported.tax_added)
    assert total("Líquido") == minor(exported.net)
    assert b"E2E-SECRET" not in data
    assert "20/11/2026" in by["Data do pagamento"]


def test_the_workbook_has_the_totals_and_every_line(api, agency, exported):
    _, data = export(api, exported.name, FORMATS.FORMAT_XLSX)
    book = openpyxl.load_workbook(io.BytesIO(data))
    summary, lines = book.worksheets
    assert (summary.title, lines.title) == ("Resumo", "Lançamentos")
    found = {row[0].value: row[1].value for row in summary.iter_rows()}
    assert found["Credor"] == agency.creditor
    assert round(found["Valor a repassar"] * 100) == minor(exported.remitted)
    assert found["Período"] == "20/11/2026 a 20/11/2026"
    head, *rows, last = list(lines.iter_rows())
    assert len(rows) == exported.settlements + 1
    place = {cell.value: number for number, cell in enumerate(head)}
    assert lines.freeze_panes == "A2"
    for row in rows:
        for cell in row:
            assert cell.data_type != "f"
            assert cell.hyperlink is None
    assert rows[0][place["Contrato"]].value == "=1+1"
    assert rows[0][place["Contrato"]].data_type == "s"
    assert rows[0][place["Data do pagamento"]].is_date
    received = rows[0][place["Valor recebido (BRL)"]]
    assert received.number_format.startswith("#,##0.00")
    column = place["Valor recebido (BRL)"]
    assert round(sum(row[column].value or 0 for row in rows) * 100) == minor(exported.gross)
    assert round(last[column].value * 100) == minor(exported.gross)
    assert last[0].value == "Total"


def test_the_pdf_says_what_is_paid_over(api, agency, exported):
    kind, data = export(api, exported.name, FORMATS.FORMAT_PDF)
    assert kind == "application/pdf"
    assert export(api, exported.name, FORMATS.FORMAT_PDF)[1] == data, "the same bytes each time"
    text = "".join(page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(data)).replace(
        "\u00a0", " "
    )
    for part in ("Prestação de contas", agency.creditor, "Fechada", "20/11/2026", "Valor a repassar"):
        assert part in text
    whole = comma(minor(exported.remitted))
    assert whole[-6:] in text
    assert "E2E-SECRET" not in text
    assert "primeiros" not in text


def test_a_statement_in_euros_is_in_portuguese_of_portugal(api, agency):
    (placed,) = agency.place((TUESDAY, 1_234_567), currency="EUR")
    create(
        api,
        agency,
        currency="EUR",
        tax=remittance_pb2.CommissionContract.TAX_VAT,
        tax_rate_e4=230_000,
    )
    agency.pay(1_234_567, title_reference=placed.reference, currency="EUR")
    agency.set_clock(SATURDAY)
    request = service.CloseStatementRequest(
        parent=api.name, creditor_reference=agency.creditor, currency="EUR"
    )
    (statement,) = api("CloseStatement", request, scopes=ADMIN).statements
    assert minor(statement.tax_added) == pytest.approx(minor(statement.commission) * 0.23, abs=2)
    _, data = export(api, statement.name, FORMATS.FORMAT_CSV)
    head = data.decode("utf-8-sig").splitlines()[0]
    assert "Prestação;" in head
    assert "IVA a somar" in head
    text = "".join(
        page.get_textpage().get_text_bounded()
        for page in pypdfium2.PdfDocument(export(api, statement.name, FORMATS.FORMAT_PDF)[1])
    ).replace("\u00a0", " ")
    assert "Valor a entregar" in text
    assert "12 345,67 €" in text


def test_a_long_pdf_says_that_there_is_more(api, agency, exported, monkeypatch):
    monkeypatch.setattr(statement_files, "PDF_LINES", 3)
    _, data = export(api, exported.name, FORMATS.FORMAT_PDF)
    text = "".join(page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(data))
    assert f"primeiros 3 de {exported.settlements} lançamentos" in " ".join(text.split())


@pytest.mark.parametrize(("form", "few", "many"), [("csv", 10_000, 100_000), ("xlsx", 1_000, 8_000)])
def test_files_are_made_in_bounded_memory(form, few, many, agency, api, exported):
    with agency.tx() as tx:
        statement_id = uuid.UUID(exported.name.rpartition("/")[2])
        statement = store.get(tx, agency.agency, statement_id)
        line = store.lines(tx, agency.agency, statement_id, after=0, limit=1)[0]

    def peak(lines):
        tracemalloc.start()
        try:
            size = sum(map(len, getattr(statement_files, form)(statement, itertools.repeat(line, lines))))
            return size, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    (small, before), (big, after) = peak(few), peak(many)
    assert big > 5 * small
    assert after < before * 1.3 + 200_000


def test_lines_keep_to_their_agency(api, agency, exported):
    """Row-level security of every new table."""
    with psycopg.connect(
        str(agency.engine.url.render_as_string(hide_password=False)).replace("+psycopg", "")
    ) as other:
        other.execute("SELECT set_config('app.agency', %s, false)", [str(ids.new())])
        for table in (
            "commission_contracts",
            "commission_bands",
            "statements",
            "statement_lines",
            "statement_fees",
            "settlements_waiting",
        ):
            assert other.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # type: ignore[arg-type]
