"""Pix BR Code: the text behind the QR (standards.md 4.4; BCB "Manual de Padrões para Iniciação do Pix").

A static code carries the key and at most the amount; a dynamic one carries the address of a charge at the bank (cob,
cobv), which says amount, due date and charges when it is read.
"""

import binascii
import re
import unicodedata
import uuid
from decimal import Decimal

from servicekit import errors, money

GUI = "br.gov.bcb.pix"
MAX_NAME = 25
MAX_CITY = 15
MAX_TXID = 25
NO_TXID = "***"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class BrCodeMalformed(errors.ServiceError):
    """Text that is no BR Code: structure, lengths or checksum are wrong."""

    status = errors.Status.INVALID_ARGUMENT


def crc16(text: str) -> str:
    """CRC-16/CCITT-FALSE, polynomial 0x1021, start 0xFFFF, four upper-case hex digits: "123456789" -> 29B1."""
    return f"{binascii.crc_hqx(text.encode('ascii'), 0xFFFF):04X}"


def plain(text: str, length: int) -> str:
    """`text` without accents and control characters, at most `length` characters."""
    decomposed = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^\x20-\x7e]", "", decomposed).strip()[:length].strip()


def txid_of(instrument: uuid.UUID) -> str:
    """25 letters and digits that name the instrument: its id in base 36."""
    digits, value = "", instrument.int
    for _ in range(MAX_TXID):
        value, place = divmod(value, 36)
        digits = _ALPHABET[place] + digits
    return digits


def charge_txid_of(instrument: uuid.UUID) -> str:
    """The txid of a charge over the Pix API (26 to 35 letters and digits): the instrument's id, 32 hex digits."""
    return instrument.hex


def _field(identifier: str, value: str) -> str:
    if not 1 <= len(value) <= 99:
        raise BrCodeMalformed(f"field {identifier} has {len(value)} characters, expected 1 to 99")
    return f"{identifier}{len(value):02d}{value}"


def static_code(
    *, key: str, name: str, city: str, amount_minor: int = 0, txid: str = NO_TXID, description: str = ""
) -> str:
    """A static BR Code. `amount_minor` in centavos, 0 leaves it to the payer; `txid` at most 25 letters and digits.

    Raises BrCodeMalformed.
    """
    if txid != NO_TXID and not re.fullmatch(r"[A-Za-z0-9]{1,25}", txid):
        raise BrCodeMalformed("expected a txid of 1 to 25 letters and digits")
    merchant, place = plain(name, MAX_NAME), plain(city, MAX_CITY)
    account = _field("00", GUI) + _field("01", key)
    if text := plain(description, 99 - len(account) - 4):
        account += _field("02", text)
    body = _field("00", "01") + _field("26", account) + _field("52", "0000") + _field("53", "986")
    if amount_minor:
        body += _field("54", str(money.from_minor(amount_minor)))
    body += _field("58", "BR") + _field("59", merchant) + _field("60", place)
    body += _field("62", _field("05", txid)) + "6304"
    return body + crc16(body)


def dynamic_code(
    *,
    location: str,
    name: str,
    city: str,
    amount_minor: int = 0,
    single_use: bool = True,
    txid: str = NO_TXID,
) -> str:
    """A dynamic BR Code of the charge at `location` (host and path without scheme, at most 77 characters).

    `single_use` writes the point of initiation 12. The amount is left out (0) where only the charge says it. Raises
    BrCodeMalformed.
    """
    if not re.fullmatch(r"(?!https?:)[\x21-\x7e]{1,77}", location):
        raise BrCodeMalformed("expected an address of 1 to 77 characters without its scheme")
    if txid != NO_TXID and not re.fullmatch(r"[A-Za-z0-9]{1,25}", txid):
        raise BrCodeMalformed("expected a txid of 1 to 25 letters and digits")
    body = _field("00", "01") + (_field("01", "12") if single_use else "")
    body += _field("26", _field("00", GUI) + _field("25", location))
    body += _field("52", "0000") + _field("53", "986")
    if amount_minor:
        body += _field("54", str(money.from_minor(amount_minor)))
    body += _field("58", "BR") + _field("59", plain(name, MAX_NAME)) + _field("60", plain(city, MAX_CITY))
    body += _field("62", _field("05", txid)) + "6304"
    return body + crc16(body)


def parse(code: str) -> dict[str, str]:
    """The fields of a BR Code by path: `26.01` key, `26.25` address of the payload, `54` amount, `62.05` txid.

    Structure and checksum are both verified: a right checksum over a wrong length is refused. Raises BrCodeMalformed.
    """
    if not code.isascii() or not code.isprintable():
        raise BrCodeMalformed("expected printable ASCII")
    fields = _split(code)
    if list(fields)[-1:] != ["63"] or list(fields)[:1] != ["00"] or fields["00"] != "01":
        raise BrCodeMalformed("expected field 00 with 01 first and field 63 last")
    if fields["63"] != crc16(code[:-4]):
        raise BrCodeMalformed("the checksum is wrong")
    found: dict[str, str] = {}
    for identifier, value in fields.items():
        if 26 <= int(identifier) <= 51 or identifier == "62":
            found |= {f"{identifier}.{inner}": text for inner, text in _split(value).items()}
        else:
            found[identifier] = value
    if found.get("26.00", "").lower() != GUI:
        raise BrCodeMalformed("expected an account of br.gov.bcb.pix in field 26")
    if ("26.01" in found) == ("26.25" in found):
        raise BrCodeMalformed("expected a key or an address in field 26, not both")
    if found.get("01", "11") not in ("11", "12"):
        raise BrCodeMalformed("expected 11 or 12 as point of initiation in field 01")
    missing = [name for name in ("52", "53", "58", "59", "60", "62.05") if name not in found]
    if missing:
        raise BrCodeMalformed(f"missing fields: {', '.join(missing)}")
    if len(found["59"]) > MAX_NAME or len(found["60"]) > MAX_CITY:
        raise BrCodeMalformed("the name has at most 25 characters, the city 15")
    if "54" in found and not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,2})?", found["54"]):
        raise BrCodeMalformed("expected an amount with a point and two decimals in field 54")
    return found


def amount_of(fields: dict[str, str]) -> int | None:
    """Centavos of a parsed code; None where the payer chooses."""
    return money.to_minor(Decimal(fields["54"])) if "54" in fields else None


def _split(text: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        head = text[at : at + 4]
        if not re.fullmatch(r"[0-9]{4}", head):
            raise BrCodeMalformed(f"expected an identifier and a length at character {at}")
        identifier, length = head[:2], int(head[2:])
        value = text[at + 4 : at + 4 + length]
        if length == 0 or len(value) != length or identifier in fields:
            raise BrCodeMalformed(f"field {identifier} is empty, cut short or there twice")
        fields[identifier] = value
        at += 4 + length
    return fields
