"""What a debtor holds in his hands, fetched as a creditor's system does it: through the gateway, as a plain file."""

from __future__ import annotations

import urllib.request

import pypdfium2
import pytest
import zxingcpp

from support import whole

from .conftest import Two


def download(two: Two, whole: whole.Whole, name: str) -> tuple[str, bytes]:
    """The media type and the bytes behind a name."""
    request = urllib.request.Request(
        f"{whole.url}/v1/{name}", headers={"authorization": f"Bearer {two.ours.token()}"}
    )
    with urllib.request.urlopen(request) as answer:
        return answer.headers["content-type"], answer.read()


@pytest.mark.feature("S2-29", "S5-26")
def test_a_slip_names_its_payer_and_is_read_by_a_reader(two: Two, whole: whole.Whole) -> None:
    slips = [
        one
        for one in two.ours.gateway.get("instruments", state="STATE_REGISTERED", pageSize=200)["instruments"]
        if one["kind"] == "KIND_BOLETO"
    ]
    media, paper = download(two, whole, f"{slips[0]['name']}:render")
    assert media == "application/pdf"
    with pypdfium2.PdfDocument(paper) as document:
        page = document[0]
        picture = page.render(scale=200 / 72, grayscale=True).to_numpy()
        text = " ".join(page.get_textpage().get_text_range().split())
    (found,) = zxingcpp.read_barcodes(picture.reshape(picture.shape[:2]))
    assert found.text == slips[0]["barcode"]
    row = next(
        row
        for row in two.ours.rows
        if row["contract_reference"]
        == two.ours.gateway.get(f"cases/{slips[0]['caseId']}")["contractReference"]
    )
    assert row["debtor_name"] in text
    assert row["creditor_name"] in text


@pytest.mark.feature("S1-30")
def test_the_minute_of_an_agreement_is_a_pdf(two: Two, whole: whole.Whole) -> None:
    made = two.ours.gateway.post(f"{two.ours.agreement}/minutes", {})
    media, paper = download(two, whole, f"{made['name']}:download")
    assert media == "application/pdf"
    assert len(paper) == int(made["size"])
    with pypdfium2.PdfDocument(paper) as document:
        assert "Acordo de confissão" in document[0].get_textpage().get_text_range()
