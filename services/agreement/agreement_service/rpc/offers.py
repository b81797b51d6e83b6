"""What may be offered, and by whom."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc

from agreement_service.domain import creditors
from agreement_service.rpc import common
from agreement_service.store import creditors as creditor_store
from agreement_service.usecases import creditors as creditor_cases
from recupera.agreement.v1 import offer_service_pb2, offer_service_pb2_grpc, offers_pb2
from servicekit import db, errors, names

SETTINGS = "agencies/{agency}/creditors/{creditor}/settings"


class OfferServicer(common.Methods, offer_service_pb2_grpc.OfferServiceServicer):
    """Creditors' settings, limits, payment conditions, agreement categories."""

    def GetCreditorSettings(
        self, request: offer_service_pb2.GetCreditorSettingsRequest, context: grpc.ServicerContext
    ) -> offers_pb2.CreditorSettings:
        """A creditor's settings, or the house's."""
        agency, creditor_id = common.named(SETTINGS, request.name, "creditor")
        with db.begin(self.engine, agency=agency) as tx:
            return _settings(tx, agency, creditor_id)

    def UpdateCreditorSettings(
        self, request: offer_service_pb2.UpdateCreditorSettingsRequest, context: grpc.ServicerContext
    ) -> offers_pb2.CreditorSettings:
        """Set a creditor's settings."""
        found = names.parse(SETTINGS, request.settings.name, "settings.name")
        agency, creditor_id = found["agency"], found["creditor"]
        version = common.version_of(request.settings.etag)
        only = request.update_mask.paths
        new = _settings_of(request.settings, only)

        def run(tx: db.Transaction) -> offers_pb2.CreditorSettings:
            creditor_cases.update(
                tx=tx, agency=agency, creditor_id=creditor_id, new=new, only=only, version=version
            )
            return _settings(tx, agency, creditor_id)

        return self.once(agency, request, offers_pb2.CreditorSettings, run)


def _settings(tx: db.Transaction, agency: uuid.UUID, creditor_id: uuid.UUID) -> offers_pb2.CreditorSettings:
    found, version = creditor_store.find(tx, agency, creditor_id)
    return offers_pb2.CreditorSettings(
        name=names.format(SETTINGS, agency=agency, creditor=creditor_id),
        minimum_down_payment=_floor(found.minimum_down_payment),
        maximum_instalments=found.maximum_instalments,
        minimum_instalment=_floor(found.minimum_instalment),
        charge_interest=found.charge_interest,
        default_interest=found.default_interest,
        remunerative_interest=found.remunerative_interest,
        annual_rate_e4=found.annual_rate_e4,
        confession_required=found.confession_required,
        notice_days=found.notice_days,
        missed_days=found.missed_days,
        broken_days=found.broken_days,
        validity_days=found.validity_days,
        accepted_means=sorted(found.accepted_means),
        breach_policy=offers_pb2.CreditorSettings.BreachPolicy.Value(
            f"BREACH_POLICY_{found.breach_policy.value}"
        ),
        novation_prefix=found.novation_prefix,
        etag=str(version),
    )


def _floor(floor: creditors.Floor) -> offers_pb2.CreditorSettings.Floor:
    return offers_pb2.CreditorSettings.Floor(minor=floor.minor, rate_e4=floor.rate_e4)


def _settings_of(message: offers_pb2.CreditorSettings, only: Sequence[str]) -> creditors.CreditorSettings:
    policy = creditors.DEFAULTS.breach_policy
    if not only or "breach_policy" in only:
        names_of = {number: name for name, number in offers_pb2.CreditorSettings.BreachPolicy.items()}
        name = names_of.get(message.breach_policy, "").removeprefix("BREACH_POLICY_")
        if name not in creditors.BreachPolicy.__members__:
            raise errors.invalid(
                "settings.breach_policy", f"expected {' or '.join(creditors.BreachPolicy.__members__)}"
            )
        policy = creditors.BreachPolicy(name)
    return creditors.CreditorSettings(
        minimum_down_payment=creditors.Floor(
            minor=message.minimum_down_payment.minor, rate_e4=message.minimum_down_payment.rate_e4
        ),
        maximum_instalments=message.maximum_instalments,
        minimum_instalment=creditors.Floor(
            minor=message.minimum_instalment.minor, rate_e4=message.minimum_instalment.rate_e4
        ),
        charge_interest=message.charge_interest,
        default_interest=message.default_interest,
        remunerative_interest=message.remunerative_interest,
        annual_rate_e4=message.annual_rate_e4,
        confession_required=message.confession_required,
        notice_days=message.notice_days,
        missed_days=message.missed_days,
        broken_days=message.broken_days,
        validity_days=message.validity_days,
        accepted_means=frozenset(message.accepted_means),
        breach_policy=policy,
        novation_prefix=message.novation_prefix,
    )
