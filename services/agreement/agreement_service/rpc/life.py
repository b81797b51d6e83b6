"""The life of agreements: accepted, ended."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import grpc

from agreement_service.rpc import agreements, common
from agreement_service.usecases import life, moments
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import db


class Life(common.Methods):
    """The life of agreements: accepted, ended."""

    def AcceptAgreement(
        self, request: agreement_service_pb2.AcceptAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """The debtor says yes."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.accept(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)

    def CancelAgreement(
        self, request: agreement_service_pb2.CancelAgreementRequest, context: grpc.ServicerContext
    ) -> agreement_pb2.Agreement:
        """End a proposal or an agreement in force."""
        agency, agreement_id = common.named(common.AGREEMENT, request.name, "agreement")

        def run(tx: db.Transaction) -> agreement_pb2.Agreement:
            life.cancel(
                tx=tx,
                agency=agency,
                agreement_id=agreement_id,
                reason=common.reason(request.reason),
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
                bank=self.bank,
            )
            return agreements.agreement(tx, agency, agreement_id)

        return self.once(agency, request, agreement_pb2.Agreement, run)
