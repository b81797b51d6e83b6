"""Pix BR Code (standards.md 4.4)."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agreement_service.domain import pix

STATIC = (
    "00020126580014br.gov.bcb.pix0136123e4567-e12b-12d1-a456-4266554400005204000053039865802BR"
    "5913Fulano de Tal6008BRASILIA62070503***63041D3D"
)
DYNAMIC = (
    "00020101021226770014BR.GOV.BCB.PIX2555pix.example.com/qr/93598be0-1bd0-4997-8318-81776a1d8a99"
    "5204000053039865802BR5907EMPRESA6009SAO PAULO62070503***6304EEAB"
)


def test_standard_4_4_crc():
    assert pix.crc16("123456789") == "29B1"


def test_standard_4_4_static_vector():
    made = pix.static_code(key="123e4567-e12b-12d1-a456-426655440000", name="Fulano de Tal", city="BRASILIA")
    assert made == STATIC
    assert pix.parse(STATIC)["26.01"] == "123e4567-e12b-12d1-a456-426655440000"
    assert pix.amount_of(pix.parse(STATIC)) is None


def test_standard_4_4_dynamic_vector():
    found = pix.parse(DYNAMIC)
    assert found["26.25"] == "pix.example.com/qr/93598be0-1bd0-4997-8318-81776a1d8a99"
    assert found["01"] == "12"


def test_a_right_checksum_over_a_wrong_length_is_refused():
    body = STATIC[:-8].replace("62070503***", "62080503***") + "6304"
    with pytest.raises(pix.BrCodeMalformed):
        pix.parse(body + pix.crc16(body))


@pytest.mark.parametrize(
    "text", ["", "0002", STATIC[:-1] + "E", STATIC[6:], STATIC.replace("BR59", "BRé9"), "x" * 80]
)
def test_what_is_no_br_code(text):
    with pytest.raises(pix.BrCodeMalformed):
        pix.parse(text)


@pytest.mark.parametrize("missing", ["5802BR", "6008BRASILIA", "62070503***", "5204000053039865802BR"])
def test_what_is_missing_is_named(missing):
    body = STATIC[:-4].replace(missing, "")
    with pytest.raises(pix.BrCodeMalformed, match="missing fields"):
        pix.parse(body + pix.crc16(body))


@given(
    minor=st.integers(0, 10**12 - 1),
    name=st.text(min_size=1, max_size=60),
    city=st.text(min_size=1, max_size=40),
    instrument=st.uuids(),
    description=st.text(max_size=80),
)
def test_encode_and_parse_are_inverse(minor, name, city, instrument, description):
    name, city = "A" + name, "B" + city
    txid = pix.txid_of(instrument)
    code = pix.static_code(
        key="cobranca@example.com",
        name=name,
        city=city,
        amount_minor=minor,
        txid=txid,
        description=description,
    )
    found = pix.parse(code)
    assert found["62.05"] == txid
    assert (pix.amount_of(found) or 0) == minor
    assert found["59"] == pix.plain(name, 25)
    assert found["60"] == pix.plain(city, 15)


def test_accents_are_taken_off():
    assert pix.plain("Cobrança São João", 25) == "Cobranca Sao Joao"


@given(st.uuids(), st.uuids())
def test_txids_are_25_letters_and_digits_and_differ(one, other):
    first, second = pix.txid_of(one), pix.txid_of(other)
    assert len(first) == 25
    assert first.isalnum()
    assert (first == second) == (one == other)


def test_the_largest_id_fits():
    assert len(pix.txid_of(uuid.UUID(int=2**128 - 1))) == 25


@pytest.mark.parametrize("txid", ["", "with space", "x" * 26])
def test_a_wrong_txid_is_refused(txid):
    with pytest.raises(pix.BrCodeMalformed):
        pix.static_code(key="k", name="N", city="C", txid=txid)


def test_standard_4_4_dynamic_vector_is_made():
    location = "pix.example.com/qr/93598be0-1bd0-4997-8318-81776a1d8a99"
    made = pix.dynamic_code(location=location, name="EMPRESA", city="SAO PAULO")
    # the published string writes the account's GUI in capitals; readers ignore the case
    assert made.replace("br.gov.bcb.pix", "BR.GOV.BCB.PIX")[:-4] == DYNAMIC[:-4]
    assert pix.parse(made) == pix.parse(DYNAMIC) | {"63": made[-4:], "26.00": "br.gov.bcb.pix"}


def test_standard_4_4_negative_length_says_eight_for_seven_under_a_right_checksum():
    """The published bad code declares `6208` before seven characters; with `6207` the same fields are a good code."""
    bad = STATIC[:-4].replace("62070503***", "62080503***")
    with pytest.raises(pix.BrCodeMalformed):
        pix.parse(bad + pix.crc16(bad))
    mended = bad.replace("62080503***", "62070503***")
    assert pix.parse(mended + pix.crc16(mended))["62.05"] == "***"


@given(
    path=st.from_regex(r"[A-Za-z0-9./_-]{1,60}", fullmatch=True),
    minor=st.integers(0, 10**12 - 1),
    single_use=st.booleans(),
)
def test_dynamic_encode_and_parse_are_inverse(path, minor, single_use):
    location = f"pix.example.com/{path}"
    made = pix.dynamic_code(
        location=location, name="Recupera", city="SAO PAULO", amount_minor=minor, single_use=single_use
    )
    found = pix.parse(made)
    assert found["26.25"] == location
    assert found.get("01") == ("12" if single_use else None)
    assert (pix.amount_of(found) or 0) == minor


@pytest.mark.parametrize(
    "location", ["", "https://pix.example.com/qr/1", "x" * 78, "pix.example.com/ com espaço"]
)
def test_an_address_that_no_payer_could_open_is_refused(location):
    with pytest.raises(pix.BrCodeMalformed):
        pix.dynamic_code(location=location, name="N", city="C")


def test_a_code_with_key_and_address_is_refused():
    account = "0014br.gov.bcb.pix0101k2503a/b"
    body = f"00020126{len(account):02d}{account}5204000053039865802BR5901N6001C62070503***6304"
    with pytest.raises(pix.BrCodeMalformed, match="not both"):
        pix.parse(body + pix.crc16(body))


@given(st.uuids())
def test_charge_txids_fit_the_pix_api(instrument):
    assert len(pix.charge_txid_of(instrument)) == 32
    assert pix.charge_txid_of(instrument).isalnum()
