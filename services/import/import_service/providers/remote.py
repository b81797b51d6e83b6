"""The services that are asked: case for a creditor's reference, case and agreement to take a batch back."""

from __future__ import annotations

import uuid
from typing import Protocol

from import_service import domain
from recupera.agreement.v1 import agreement_service_pb2, agreement_service_pb2_grpc
from recupera.case.v1 import case_service_pb2, case_service_pb2_grpc
from servicekit import client

TIMEOUT = 60.0
"""Seconds for a step of taking a batch back: hundreds of thousands of titles may be withdrawn in one."""


class Remote(Protocol):
    """What import asks of other services. Every method raises RemoteUnavailable and RemoteRefused."""

    def creditor_reference(self, agency: uuid.UUID, creditor: uuid.UUID) -> str | None:
        """The creditor's reference in files; None where case knows no such creditor."""

    def roll_back(self, agency: uuid.UUID, batch_id: uuid.UUID, step: domain.RollbackStep) -> None:
        """Make the call of a step; safe to repeat."""


class Services:
    """Remote over gRPC."""

    def __init__(self, *, case: client.Channel, agreement: client.Channel) -> None:
        self._case = case
        self._agreement = agreement
        self._case_stub = case_service_pb2_grpc.CaseServiceStub(case.grpc)
        self._agreement_stub = agreement_service_pb2_grpc.AgreementServiceStub(agreement.grpc)

    def creditor_reference(self, agency: uuid.UUID, creditor: uuid.UUID) -> str | None:
        """See Remote."""
        parent = f"agencies/{agency}"
        request = case_service_pb2.ListCreditorsRequest(parent=parent, page_size=1000)
        while True:
            answer = self._case.call(self._case_stub.ListCreditors, request, agency=agency, timeout=10.0)
            for one in answer.creditors:
                if one.name == f"{parent}/creditors/{creditor}":
                    return one.reference
            if not answer.next_page_token:
                return None
            request.page_token = answer.next_page_token

    def roll_back(self, agency: uuid.UUID, batch_id: uuid.UUID, step: domain.RollbackStep) -> None:
        """See Remote."""
        parent = f"agencies/{agency}"
        if step is domain.RollbackStep.BEGIN:
            self._case.call(
                self._case_stub.BeginBatchRollback,
                case_service_pb2.BeginBatchRollbackRequest(parent=parent, batch_id=batch_id.bytes),
                agency=agency,
                timeout=TIMEOUT,
            )
        elif step is domain.RollbackStep.TITLES:
            self._agreement.call(
                self._agreement_stub.RollBackTitles,
                agreement_service_pb2.RollBackTitlesRequest(parent=parent, batch_id=batch_id.bytes),
                agency=agency,
                timeout=TIMEOUT,
            )
        else:
            self._case.call(
                self._case_stub.EndBatchRollback,
                case_service_pb2.EndBatchRollbackRequest(
                    parent=parent, batch_id=batch_id.bytes, abort=step is domain.RollbackStep.ABORT
                ),
                agency=agency,
                timeout=TIMEOUT,
            )
