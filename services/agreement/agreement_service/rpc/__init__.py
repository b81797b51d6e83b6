"""gRPC of the agreement service: proto in, one use case, proto out. No rules, no SQL."""

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from agreement_service import providers
from agreement_service.rpc import (
    agreements,
    approvals,
    common,
    drafts,
    due_dates,
    instruments,
    ledger,
    life,
    mandates,
    offers,
    payments,
    remittance,
    terms,
    titles,
)
from recupera.agreement.v1 import (
    agreement_service_pb2_grpc,
    approval_service_pb2_grpc,
    instrument_service_pb2_grpc,
    ledger_service_pb2_grpc,
    mandate_service_pb2_grpc,
    offer_service_pb2_grpc,
    remittance_service_pb2_grpc,
    terms_service_pb2_grpc,
)
from servicekit import db


class AgreementServicer(
    titles.Titles,
    agreements.Agreements,
    drafts.Drafts,
    life.Life,
    due_dates.DueDates,
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
    "recupera.agreement.v1.InstrumentService": (
        instruments.InstrumentServicer,
        instrument_service_pb2_grpc.add_InstrumentServiceServicer_to_server,
    ),
    "recupera.agreement.v1.LedgerService": (
        ledger.LedgerServicer,
        ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server,
    ),
    "recupera.agreement.v1.MandateService": (
        mandates.MandateServicer,
        mandate_service_pb2_grpc.add_MandateServiceServicer_to_server,
    ),
    "recupera.agreement.v1.RemittanceService": (
        remittance.RemittanceServicer,
        remittance_service_pb2_grpc.add_RemittanceServiceServicer_to_server,
    ),
    "recupera.agreement.v1.TermsService": (
        terms.TermsServicer,
        terms_service_pb2_grpc.add_TermsServiceServicer_to_server,
    ),
}
"""Every gRPC service whose commands may wait for approval, by its full name: its servicer, and what registers it."""
SERVICES = [*SERVICERS, "recupera.agreement.v1.ApprovalService"]


def add_to(
    server: grpc.Server,
    engine: db.Engine,
    bank: providers.BankProvider,
    parties: providers.PartyDirectory,
) -> None:
    """Register the servicers."""
    made = {name: servicer(engine, bank, parties) for name, (servicer, _) in SERVICERS.items()}
    for name, (_, register) in SERVICERS.items():
        register(made[name], server)
    approval_service_pb2_grpc.add_ApprovalServiceServicer_to_server(
        approvals.ApprovalServicer(engine, bank, parties, made), server
    )
