"""Who the parties of a case are, asked at `case` at the moment of an act and never kept here."""

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from recupera.case.v1 import case_service_pb2, case_service_pb2_grpc
from servicekit import client

TIMEOUT = 10.0
MAX_CASES = 500
"""Cases of one BatchGetParties."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parties:
    """A case's debtor and creditor; personal data: for the act at hand only, never stored, published or logged.

    `debtor_document` is digits and capitals of `debtor_document_type` (CPF, CNPJ, NIF ..); empty where unknown.
    """

    debtor_name: str = dataclasses.field(repr=False)
    debtor_document_type: str = dataclasses.field(default="", repr=False)
    debtor_document: str = dataclasses.field(default="", repr=False)
    debtor_address: str = dataclasses.field(default="", repr=False)
    debtor_city: str = dataclasses.field(default="", repr=False)
    debtor_region: str = dataclasses.field(default="", repr=False)
    debtor_postal_code: str = dataclasses.field(default="", repr=False)
    creditor_name: str = ""
    creditor_document: str = ""
    creditor_address: str = ""


class PartyDirectory(Protocol):
    """Where parties are asked for, outside any transaction. Raises RemoteUnavailable, RemoteRefused."""

    def of(self, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Parties]:
        """Parties by case; a case that is not known is left out."""
        ...


class CaseParties:
    """`BatchGetParties` of the case service."""

    def __init__(self, channel: client.Channel) -> None:
        self._channel = channel
        self._stub = case_service_pb2_grpc.CaseServiceStub(channel.grpc)

    def of(self, agency: uuid.UUID, case_ids: Sequence[uuid.UUID]) -> Mapping[uuid.UUID, Parties]:
        """Asked for in pages of 500."""
        wanted = sorted(set(case_ids))
        found = {}
        for start in range(0, len(wanted), MAX_CASES):
            response = self._channel.call(
                self._stub.BatchGetParties,
                case_service_pb2.BatchGetPartiesRequest(
                    parent=f"agencies/{agency}",
                    case_ids=[case_id.bytes for case_id in wanted[start : start + MAX_CASES]],
                ),
                agency=agency,
                timeout=TIMEOUT,
            )
            for one in response.parties:
                found[uuid.UUID(bytes=one.case_id)] = Parties(
                    debtor_name=one.debtor_name,
                    debtor_document_type=one.debtor_document_type,
                    debtor_document=one.debtor_document,
                    debtor_address=one.debtor_address,
                    debtor_city=one.debtor_city,
                    debtor_region=one.debtor_region,
                    debtor_postal_code=one.debtor_postal_code,
                    creditor_name=one.creditor_name,
                    creditor_document=one.creditor_document,
                    creditor_address=one.creditor_address,
                )
        return found
