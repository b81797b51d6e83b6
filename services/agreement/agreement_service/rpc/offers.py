"""What may be offered, and by whom."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc
from google.protobuf import empty_pb2

from agreement_service.domain import creditors, limits
from agreement_service.rpc import common, conditions
from agreement_service.store import creditors as creditor_store
from agreement_service.store import limits as limit_store
from agreement_service.usecases import creditors as creditor_cases
from agreement_service.usecases import existing, moments
from agreement_service.usecases import limits as limit_cases
from recupera.agreement.v1 import offer_service_pb2, offer_service_pb2_grpc, offers_pb2
from servicekit import dates, db, errors, names, pagination

SETTINGS = "agencies/{agency}/creditors/{creditor}/settings"
LIMIT = "agencies/{agency}/limits/{limit}"


class OfferServicer(conditions.Conditions, offer_service_pb2_grpc.OfferServiceServicer):
    """Creditors' settings, limits, payment conditions, agreement categories."""

    def GetCreditorSettings(
        self, request: offer_service_pb2.GetCreditorSettingsRequest, context: grpc.ServicerContext
    ) -> offers_pb2.CreditorSettings:
        """A creditor's settings, or the house's."""
        agency, creditor_id = common.named(SETTINGS, request.name, "creditor")
        with db.begin(self.engine, agency=agency) as tx:
            existing.creditor(tx, agency, creditor_id)
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

    def SetLimit(
        self, request: offer_service_pb2.SetLimitRequest, context: grpc.ServicerContext
    ) -> offers_pb2.Limit:
        """Set a limit from a day on."""
        agency = common.agency_of(request.parent, "parent")
        message = request.limit
        kind = _kind(message.kind, "limit.kind")
        if kind is None:
            raise errors.invalid("limit.kind", "expected a kind")

        def run(tx: db.Transaction) -> offers_pb2.Limit:
            return _limit(
                agency,
                limit_cases.put(
                    tx=tx,
                    agency=agency,
                    creditor_id=common.creditor_of(agency, message.creditor, "limit.creditor"),
                    role=message.role,
                    subject=message.subject,
                    kind=kind,
                    minimum=message.minimum if message.HasField("minimum") else None,
                    maximum=message.maximum if message.HasField("maximum") else None,
                    currency=message.currency,
                    valid_from=common.date_of(message, "valid_from"),
                    set_by=common.subject(),
                    moment=moments.read(tx, agency),
                ),
            )

        return self.once(agency, request, offers_pb2.Limit, run)

    def DeleteLimit(
        self, request: offer_service_pb2.DeleteLimitRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Take a limit away."""
        agency, limit_id = common.named(LIMIT, request.name, "limit")

        def run(tx: db.Transaction) -> empty_pb2.Empty:
            limit_cases.delete(tx=tx, agency=agency, limit_id=limit_id)
            return empty_pb2.Empty()

        return self.once(agency, request, empty_pb2.Empty, run)

    def ListLimits(
        self, request: offer_service_pb2.ListLimitsRequest, context: grpc.ServicerContext
    ) -> offer_service_pb2.ListLimitsResponse:
        """Limits in id order."""
        agency = common.agency_of(request.parent, "parent")
        kind = _kind(request.kind, "kind")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            rows = limit_store.page(
                tx,
                agency,
                kind=None if kind is None else kind.value,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(rows, key=lambda row: (row.id,))
        return offer_service_pb2.ListLimitsResponse(
            limits=[_limit(agency, row) for row in kept], next_page_token=token
        )

    def ExplainLimits(
        self, request: offer_service_pb2.ExplainLimitsRequest, context: grpc.ServicerContext
    ) -> offer_service_pb2.ExplainLimitsResponse:
        """What the caller may do by himself."""
        agency, creditor_id = common.named(common.CREDITOR, request.name, "creditor")
        with db.begin(self.engine, agency=agency) as tx:
            found = limit_cases.explain(
                tx=tx,
                agency=agency,
                authority=common.authority(),
                creditor_id=creditor_id,
                currency=request.currency or "BRL",
                date=moments.read(tx, agency).business_date,
            )
        response = offer_service_pb2.ExplainLimitsResponse()
        for kind, ranges in found:
            shown = response.allowances.add(kind=_kind_of(kind))
            for one in ranges:
                shown.ranges.add(minimum=one.minimum, maximum=one.maximum)
        return response


def _kind(value: int, field: str) -> limits.Kind | None:
    if not value:
        return None
    for name, number in offers_pb2.Limit.Kind.items():
        if number == value:
            return limits.Kind(name.removeprefix("KIND_"))
    raise errors.invalid(field, "expected a known kind")


def _kind_of(kind: limits.Kind) -> "offers_pb2.Limit.Kind.ValueType":
    return offers_pb2.Limit.Kind.Value(f"KIND_{kind.value}")


def _limit(agency: uuid.UUID, row: limits.Limit) -> offers_pb2.Limit:
    return offers_pb2.Limit(
        name=names.format(LIMIT, agency=agency, limit=row.id),
        creditor=common.creditor_name(agency, row.creditor_id),
        role=row.role,
        subject=row.subject,
        kind=_kind_of(row.kind),
        minimum=row.minimum,
        maximum=row.maximum,
        currency=row.currency,
        valid_from=dates.to_proto(row.valid_from),
    )


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
