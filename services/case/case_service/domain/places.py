"""Where a person is: zone and region by address, else by telephone number (R04). All evidence counts; rules
apply at each place that the evidence names, so the strictest wins.

Sources: time zones of the IANA data base by UF; area codes by Anatel's numbering plan (PGCN); Portuguese
postal codes by CTT (9000-9499 Madeira, 9500-9999 Açores).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

BRAZIL = "BR"
PORTUGAL = "PT"

ZONE_OF_UF: Mapping[str, str] = {
    "AC": "America/Rio_Branco",
    "AL": "America/Maceio",
    "AM": "America/Manaus",
    "AP": "America/Belem",
    "BA": "America/Bahia",
    "CE": "America/Fortaleza",
    "DF": "America/Sao_Paulo",
    "ES": "America/Sao_Paulo",
    "GO": "America/Sao_Paulo",
    "MA": "America/Fortaleza",
    "MG": "America/Sao_Paulo",
    "MS": "America/Campo_Grande",
    "MT": "America/Cuiaba",
    "PA": "America/Belem",
    "PB": "America/Fortaleza",
    "PE": "America/Recife",
    "PI": "America/Fortaleza",
    "PR": "America/Sao_Paulo",
    "RJ": "America/Sao_Paulo",
    "RN": "America/Fortaleza",
    "RO": "America/Porto_Velho",
    "RR": "America/Boa_Vista",
    "RS": "America/Sao_Paulo",
    "SC": "America/Sao_Paulo",
    "SE": "America/Maceio",
    "SP": "America/Sao_Paulo",
    "TO": "America/Araguaina",
}

_UF_OF_DDD = {
    "SP": "11 12 13 14 15 16 17 18 19",
    "RJ": "21 22 24",
    "ES": "27 28",
    "MG": "31 32 33 34 35 37 38",
    "PR": "41 42 43 44 45 46",
    "SC": "47 48 49",
    "RS": "51 53 54 55",
    "DF": "61",
    "GO": "62 64",
    "TO": "63",
    "MT": "65 66",
    "MS": "67",
    "AC": "68",
    "RO": "69",
    "BA": "71 73 74 75 77",
    "SE": "79",
    "PE": "81 87",
    "AL": "82",
    "PB": "83",
    "RN": "84",
    "CE": "85 88",
    "PI": "86 89",
    "PA": "91 93 94",
    "AM": "92 97",
    "RR": "95",
    "AP": "96",
    "MA": "98 99",
}
UF_OF_DDD: Mapping[str, str] = {ddd: uf for uf, codes in _UF_OF_DDD.items() for ddd in codes.split()}


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Place:
    """``country`` ISO 3166 alpha-2; ``region`` UF in Brazil, empty elsewhere; ``time_zone`` IANA."""

    country: str
    region: str
    time_zone: str


def of_address(*, country: str, region: str, postal_code: str) -> Place | None:
    """The place of an address; None where it names none."""
    if country == BRAZIL and (zone := ZONE_OF_UF.get(region)):
        return Place(BRAZIL, region, zone)
    if country == PORTUGAL:
        if postal_code[:2] in ("90", "91", "92", "93", "94"):
            return Place(PORTUGAL, "", "Atlantic/Madeira")
        if postal_code[:1] == "9":
            return Place(PORTUGAL, "", "Atlantic/Azores")
        return Place(PORTUGAL, "", "Europe/Lisbon")
    return None


def of_number(number: str) -> Place | None:
    """The place of an E.164 number: DDD in Brazil, mainland in Portugal but for 291 (Madeira) and 292, 295,
    296 (Açores).
    """
    if number.startswith("+55") and (uf := UF_OF_DDD.get(number[3:5])):
        return Place(BRAZIL, uf, ZONE_OF_UF[uf])
    if number.startswith("+351"):
        area = number[4:7]
        zone = {
            "291": "Atlantic/Madeira",
            "292": "Atlantic/Azores",
            "295": "Atlantic/Azores",
            "296": "Atlantic/Azores",
        }
        return Place(PORTUGAL, "", zone.get(area, "Europe/Lisbon"))
    return None


def evidence(
    *, country: str, region: str, postal_code: str, number: str, agency_zone: str
) -> tuple[Place, ...]:
    """Every place that address and number name, the address first; without any, the country in the agency's
    zone.

    A mobile number of mainland Portugal says nothing against an address on the islands.
    """
    address = of_address(country=country, region=region, postal_code=postal_code)
    by_number = of_number(number) if number else None
    if by_number is not None and address is not None and address.country == by_number.country == PORTUGAL:
        by_number = None if by_number.time_zone == "Europe/Lisbon" else by_number
    found = tuple(dict.fromkeys(place for place in (address, by_number) if place is not None))
    return found or (Place(country or BRAZIL, "", agency_zone),)
