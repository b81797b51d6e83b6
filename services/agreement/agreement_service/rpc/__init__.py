"""gRPC of the agreement service: proto in, one use case, proto out. No rules, no SQL."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from agreement_service import providers
from agreement_service.rpc import agreements, common, life, offers, payments, titles
from recupera.agreement.v1 import agreement_service_pb2_grpc, offer_service_pb2_grpc
from servicekit import db


class AgreementServicer(
    titles.Titles,
    agreements.Agreements,
    life.Life,
    payments.Payments,
    agreement_service_pb2_grpc.AgreementServiceServicer,
):
    """Money: balances, agreements, instruments, payments."""


SERVICERS: Mapping[str, tuple[type[common.Methods], Callable[[Any, grpc.Server], None]]] = {
    "recupera.agreement.v1.AgreementService": (
        AgreementServicer,
        agreement_service_pb2_grpc.add_AgreementServiceServicer_to_server,
    ),
    "recupera.agreement.v1.OfferService": (
        offers.OfferServicer,
        offer_service_pb2_grpc.add_OfferServiceServicer_to_server,
    ),
}
"""Every gRPC service by its full name: its servicer, and what registers it."""
SERVICES = list(SERVICERS)


def add_to(server: grpc.Server, engine: db.Engine, bank: providers.BankProvider) -> None:
    """Register the servicers."""
    for servicer, register in SERVICERS.values():
        register(servicer(engine, bank), server)
