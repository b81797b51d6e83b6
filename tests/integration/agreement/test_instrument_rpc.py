"""InstrumentService over gRPC: instruments, papers, collection accounts, minutes."""

import datetime
import hashlib

import pypdfium2
import pytest
import zxingcpp
from google.protobuf import field_mask_pb2

from agreement_service.domain import minutes, plans
from recupera.agreement.v1 import (
    agreement_pb2,
    agreement_service_pb2,
    instrument_service_pb2,
    instruments_pb2,
)
from servicekit import dates, ids, names

TUESDAY = datetime.date(2026, 10, 6)
THREE = plans.Terms(
    instalments=3,
    first_due_date=datetime.date(2026, 12, 21),
    down_payment_minor=10_000,
    down_payment_date=datetime.date(2026, 11, 25),
)
ADMIN = ("agreement.read", "agreement.write", "agreement.admin")
Requests = instrument_service_pb2


def title_name(api, placed):
    return names.format("agencies/{agency}/titles/{title}", agency=api.agency.agency, title=placed.title_id)


def issued(api, placed, **fields):
    """Instruments for a title, registered."""
    request = Requests.IssueInstrumentsRequest(
        parent=api.name, case_id=str(placed.case_id), titles=[title_name(api, placed)], **fields
    )
    made = api("IssueInstruments", request).instruments
    api.agency.act()
    return made


def words(pdf):
    with pypdfium2.PdfDocument(pdf) as document:
        return " ".join(" ".join(page.get_textpage().get_text_range() for page in document).split())


@pytest.mark.feature("S2-29", "S5-26", "S5-27")
def test_issued_read_rendered_copied_and_cancelled(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    slip, code = issued(api, placed)
    assert slip.state == agreement_pb2.Instrument.STATE_DRAFT
    assert [part.title for part in slip.titles] == [title_name(api, placed)]
    assert slip.typeable_line.replace(".", "").replace(" ", "").endswith(slip.barcode[5:19])
    read = api("GetInstrument", Requests.GetInstrumentRequest(name=slip.name))
    assert read.state == agreement_pb2.Instrument.STATE_REGISTERED
    paper = api("RenderInstrument", Requests.RenderInstrumentRequest(name=slip.name))
    assert paper.content_type == "application/pdf"
    with pypdfium2.PdfDocument(paper.data) as document:
        picture = document[0].render(scale=200 / 72, grayscale=True).to_numpy()
    (found,) = zxingcpp.read_barcodes(picture.reshape(picture.shape[:2]))
    assert found.text == slip.barcode
    assert "João Conceição" in words(paper.data)
    svg = api(
        "RenderInstrument",
        Requests.RenderInstrumentRequest(name=code.name, format=Requests.RenderInstrumentRequest.FORMAT_SVG),
    )
    assert svg.content_type == "image/svg+xml"
    assert b"<svg" in svg.data
    assert api.refused(
        "RenderInstrument",
        Requests.RenderInstrumentRequest(name=slip.name, format=Requests.RenderInstrumentRequest.FORMAT_SVG),
    ) == ("INVALID_ARGUMENT", "FORMAT_NOT_OF_THE_KIND")
    copy = api(
        "ReissueInstrument",
        Requests.ReissueInstrumentRequest(
            name=slip.name, date=dates.to_proto(datetime.date(2026, 12, 1)), etag=read.etag
        ),
    )
    assert copy.generation == 2
    assert dates.from_proto(copy.due_date, "due_date") == datetime.date(2026, 12, 1)
    assert api.refused("RenderInstrument", Requests.RenderInstrumentRequest(name=copy.name)) == (
        "FAILED_PRECONDITION",
        "INSTRUMENT_NOT_REGISTERED",
    )
    gone = api("CancelInstrument", Requests.CancelInstrumentRequest(name=code.name))
    assert gone.state == agreement_pb2.Instrument.STATE_CANCEL_REQUESTED
    listed = api("ListInstruments", Requests.ListInstrumentsRequest(parent=api.name, page_size=2))
    rest = api(
        "ListInstruments",
        Requests.ListInstrumentsRequest(parent=api.name, page_size=2, page_token=listed.next_page_token),
    )
    assert [one.name for one in (*listed.instruments, *rest.instruments)] == [slip.name, code.name, copy.name]


def test_the_same_request_is_answered_once(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    first = issued(api, placed, request_id="a")
    again = issued(api, placed, request_id="a")
    assert [one.name for one in first] == [one.name for one in again]


def test_a_creditor_sees_its_own_only(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    slip, _ = issued(api, placed)
    own, other = str(api.agency.creditor_id), str(ids.new())
    request = Requests.GetInstrumentRequest(name=slip.name)
    assert api("GetInstrument", request, creditor=own).name == slip.name
    assert api.refused("GetInstrument", request, creditor=other)[0] == "NOT_FOUND"
    for method, wanted in (
        ("RenderInstrument", Requests.RenderInstrumentRequest(name=slip.name)),
        ("GetInstrument", request),
    ):
        assert api.refused(method, wanted, creditor=other) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    listing = Requests.ListInstrumentsRequest(parent=api.name)
    assert not api("ListInstruments", listing, creditor=other).instruments
    assert len(api("ListInstruments", listing, creditor=own).instruments) == 2


def test_bad_requests_name_their_field(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    both = Requests.IssueInstrumentsRequest(
        parent=api.name, titles=[title_name(api, placed)], instalment_id=str(ids.new())
    )
    assert api.refused("IssueInstruments", both) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    neither = Requests.IssueInstrumentsRequest(parent=api.name)
    assert api.refused("IssueInstruments", neither) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    foreign = names.format("agencies/{agency}/titles/{title}", agency=ids.new(), title=placed.title_id)
    request = Requests.IssueInstrumentsRequest(parent=api.name, case_id=str(placed.case_id), titles=[foreign])
    assert api.refused("IssueInstruments", request)[0] in ("INVALID_ARGUMENT", "PERMISSION_DENIED")
    missing = names.format("agencies/{agency}/instruments/{one}", agency=api.agency.agency, one=ids.new())
    for method, message in (
        ("GetInstrument", Requests.GetInstrumentRequest(name=missing)),
        ("CancelInstrument", Requests.CancelInstrumentRequest(name=missing)),
        ("ReissueInstrument", Requests.ReissueInstrumentRequest(name=missing)),
        ("RenderInstrument", Requests.RenderInstrumentRequest(name=missing)),
    ):
        assert api.refused(method, message) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


@pytest.mark.feature("S5-26")
def test_collection_accounts(api):
    account = instruments_pb2.CollectionAccount(
        creditor_id=str(api.agency.creditor_id),
        description="main",
        bank="001",
        branch="4042",
        account="00061900",
        wallet="18",
        agreement_number="1238798",
        beneficiary_name="Lojas Andrade S.A.",
        beneficiary_document="16727230000197",
        payable_days=10,
        active=True,
        is_default=True,
    )
    request = Requests.CreateCollectionAccountRequest(parent=api.name, collection_account=account)
    assert api.refused("CreateCollectionAccount", request, scopes=ADMIN)[0] == "NOT_FOUND"
    (placed,) = api.agency.place((TUESDAY, 100_000))
    made = api(
        "CreateCollectionAccount",
        Requests.CreateCollectionAccountRequest(parent=api.name, collection_account=account),
        scopes=ADMIN,
    )
    assert made.etag == "1"
    got = api("GetCollectionAccount", Requests.GetCollectionAccountRequest(name=made.name), scopes=ADMIN)
    assert got == made
    changed = api(
        "UpdateCollectionAccount",
        Requests.UpdateCollectionAccountRequest(
            collection_account=instruments_pb2.CollectionAccount(
                name=made.name, payable_days=20, etag=made.etag
            ),
            update_mask=field_mask_pb2.FieldMask(paths=["payable_days"]),
        ),
        scopes=ADMIN,
    )
    assert (changed.payable_days, changed.description) == (20, "main")
    listed = api(
        "ListCollectionAccounts",
        Requests.ListCollectionAccountsRequest(parent=api.name, creditor_id=account.creditor_id),
        scopes=ADMIN,
    )
    assert [one.name for one in listed.collection_accounts] == [made.name]
    slip = next(one for one in issued(api, placed) if one.barcode)
    assert slip.collection_account == made.name
    assert slip.our_number == "12387980000000001"
    wrong = instruments_pb2.CollectionAccount(description="x", bank="001", beneficiary_name="x", branch="1")
    assert api.refused(
        "CreateCollectionAccount",
        Requests.CreateCollectionAccountRequest(parent=api.name, collection_account=wrong),
        scopes=ADMIN,
    ) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert (
        api.refused(
            "CreateCollectionAccount",
            Requests.CreateCollectionAccountRequest(parent=api.name, collection_account=account),
        )[0]
        == "PERMISSION_DENIED"
    )


@pytest.mark.feature("S1-30")
def test_the_minute_of_an_agreement(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    agreement_id = api.agency.propose(placed.case_id, terms=THREE)
    agreement = f"{api.name}/agreements/{agreement_id}"
    made = api("RenderMinute", Requests.RenderMinuteRequest(parent=agreement))
    assert made.language == "pt-BR"
    again = api("RenderMinute", Requests.RenderMinuteRequest(parent=agreement))
    assert again.name == made.name  # the same document is kept once
    document = api("DownloadMinute", Requests.DownloadMinuteRequest(name=made.name))
    assert document.content_type == "application/pdf"
    assert hashlib.sha256(document.data).hexdigest() == made.sha256
    assert len(document.data) == made.size
    text = words(document.data)
    rows = api.agency.instalments(agreement_id)
    total = sum(row.amount_minor for row in rows)
    for part in (
        "Acordo de confissão de dívida e pagamento parcelado nº 1",
        "João Conceição, CPF 390.533.447-05",
        "Lojas Andrade S.A., CNPJ 16.727.230/0001-97",
        placed.reference,
        "21/12/2026",
        "Entrada",
        f"{total // 100_000}.{total // 100 % 1000:03d},{total % 100:02d}",
    ):
        assert part in text, part
    listed = api("ListMinutes", Requests.ListMinutesRequest(parent=agreement))
    assert [one.name for one in listed.minutes] == [made.name]
    assert api("GetMinute", Requests.GetMinuteRequest(name=made.name)) == made
    kept = api.agency.rows("SELECT expires_at - created_at AS kept FROM blobs WHERE kind = 'minute'")
    assert [one.kept.days for one in kept] == [minutes.RETENTION_DAYS]
    abroad = api("RenderMinute", Requests.RenderMinuteRequest(parent=agreement, language="pt-PT"))
    assert "pagamento faseado" in words(
        api("DownloadMinute", Requests.DownloadMinuteRequest(name=abroad.name)).data
    )


@pytest.mark.feature("S1-30")
def test_a_creditors_own_text_with_every_field(api):
    creditor = f"{api.name}/creditors/{api.agency.creditor_id}/minuteTemplates/pt-BR"
    unknown = Requests.GetMinuteTemplateRequest(name=creditor)
    assert api.refused("GetMinuteTemplate", unknown) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
    (placed,) = api.agency.place((TUESDAY, 100_000))
    house = f"{api.name}/minuteTemplates/pt-BR"
    first = api("GetMinuteTemplate", Requests.GetMinuteTemplateRequest(name=creditor))
    assert first.etag == "0"
    assert list(first.fields) == list(minutes.FIELDS)
    text = "# Texto próprio\n\n" + "\n\n".join(
        f"{name} = {{{{{name}}}}}" for name in minutes.FIELDS if name not in minutes.BLOCKS
    )

    def update(name, text, etag):
        return Requests.UpdateMinuteTemplateRequest(
            minute_template=instruments_pb2.MinuteTemplate(name=name, text=text, etag=etag)
        )

    set_ = api("UpdateMinuteTemplate", update(creditor, text, "0"), scopes=ADMIN)
    assert (set_.text, set_.etag) == (text, "1")
    assert api.refused("UpdateMinuteTemplate", update(creditor, text, "0"), scopes=ADMIN) == (
        "ABORTED",
        "VERSION_MISMATCH",
    )
    assert api.refused("UpdateMinuteTemplate", update(house, "{{x}}", ""), scopes=ADMIN) == (
        "INVALID_ARGUMENT",
        "MINUTE_FIELD_UNKNOWN",
    )
    assert api("GetMinuteTemplate", Requests.GetMinuteTemplateRequest(name=house)).etag == "0"
    french = f"{api.name}/minuteTemplates/fr-FR"
    assert api.refused("GetMinuteTemplate", Requests.GetMinuteTemplateRequest(name=french)) == (
        "INVALID_ARGUMENT",
        "INVALID_REQUEST",
    )
    agreement = f"{api.name}/agreements/{api.agency.propose(placed.case_id, terms=THREE)}"
    made = api("RenderMinute", Requests.RenderMinuteRequest(parent=agreement))
    shown = words(api("DownloadMinute", Requests.DownloadMinuteRequest(name=made.name)).data)
    assert "Texto próprio" in shown
    assert "{{" not in shown
    assert "debtor.name = João Conceição" in shown


def test_no_minute_of_what_is_over(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    agreement_id = api.agency.propose(placed.case_id, terms=THREE, validity=2)
    request = Requests.RenderMinuteRequest(parent=f"{api.name}/agreements/{agreement_id}")
    api.agency.set_clock(datetime.date(2026, 11, 23))
    assert api.refused("RenderMinute", request) == ("FAILED_PRECONDITION", "MINUTE_NOT_AVAILABLE")
    nobody = Requests.RenderMinuteRequest(parent=f"{api.name}/agreements/{ids.new()}")
    assert api.refused("RenderMinute", nobody) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")


def test_another_creditor_gets_no_minute(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    agreement = f"{api.name}/agreements/{api.agency.propose(placed.case_id, terms=THREE)}"
    made = api("RenderMinute", Requests.RenderMinuteRequest(parent=agreement))
    other = str(ids.new())
    listing = Requests.ListMinutesRequest(parent=agreement)
    assert api.refused("ListMinutes", listing, creditor=other)[0] == "NOT_FOUND"
    for method, request in (
        ("GetMinute", Requests.GetMinuteRequest(name=made.name)),
        ("DownloadMinute", Requests.DownloadMinuteRequest(name=made.name)),
    ):
        assert api.refused(method, request, creditor=other) == ("NOT_FOUND", "RESOURCE_NOT_FOUND")
        api(method, request, creditor=str(api.agency.creditor_id))


def test_personal_data_is_kept_nowhere_but_in_the_document(api, database_of_test):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    slip, _ = issued(api, placed)
    api("RenderInstrument", Requests.RenderInstrumentRequest(name=slip.name))
    for table in ("instruments", "instrument_titles", "outbox", "request_log"):
        found = api.agency.rows(f"SELECT * FROM {table} AS row WHERE row::text LIKE %s", "%39053344705%")
        assert not found, table


def test_an_agreement_shows_its_instruments_as_they_are(api):
    (placed,) = api.agency.place((TUESDAY, 100_000))
    agreement_id = api.agency.agree(placed.case_id, terms=THREE)
    shown = api(
        "GetAgreement",
        agreement_service_pb2.GetAgreementRequest(name=f"{api.name}/agreements/{agreement_id}"),
    )
    one = shown.instalments[0].instruments[0]
    assert api("GetInstrument", Requests.GetInstrumentRequest(name=one.name)) == one
