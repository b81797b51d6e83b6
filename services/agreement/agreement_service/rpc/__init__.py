"""gRPC of the agreement service: proto in, one use case, proto out. No rules, no SQL."""

import grpc

from agreement_service import providers
from agreement_service.rpc import agreements, life, payments, titles
from recupera.agreement.v1 import agreement_service_pb2_grpc
from servicekit import db

SERVICES = ["recupera.agreement.v1.AgreementService"]


class AgreementServicer(
    titles.Titles,
    agreements.Agreements,
    life.Life,
    payments.Payments,
    agreement_service_pb2_grpc.AgreementServiceServicer,
):
    """Money: balances, agreements, instruments, payments."""


def add_to(server: grpc.Server, engine: db.Engine, bank: providers.BankProvider) -> None:
    """Register the servicers."""
    agreement_service_pb2_grpc.add_AgreementServiceServicer_to_server(AgreementServicer(engine, bank), server)
