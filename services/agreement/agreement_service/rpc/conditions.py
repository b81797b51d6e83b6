"""Payment conditions, offers made from them, agreement categories."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import uuid
from collections.abc import Sequence

import grpc
from google.protobuf import empty_pb2
from google.type import money_pb2

from agreement_service.domain import conditions
from agreement_service.rpc import common, negotiations
from agreement_service.store import conditions as store
from agreement_service.usecases import agreements, moments
from agreement_service.usecases import conditions as cases
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2, offer_service_pb2, offers_pb2
from servicekit import dates, db, errors, ids, money, names, pagination

NAMES = {
    "value_from": "value_from_minor",
    "value_to": "value_to_minor",
    "interest_rate_e4": "interest_e4",
    "penalty_rate_e4": "penalty_e4",
    "creditor": "creditor_id",
}
"""Fields of the message that are called otherwise inside."""


class Conditions(common.Methods):
    """Payment conditions, offers made from them, agreement categories."""

    def CreatePaymentCondition(
        self, request: offer_service_pb2.CreatePaymentConditionRequest, context: grpc.ServicerContext
    ) -> offers_pb2.PaymentCondition:
        """Store a condition."""
        agency = common.agency_of(request.parent, "parent")
        new = _condition_of(agency, request.condition)

        def run(tx: db.Transaction) -> offers_pb2.PaymentCondition:
            condition_id = cases.create(tx=tx, agency=agency, new=new, moment=moments.read(tx, agency))
            return _condition(tx, agency, condition_id)

        return self.once(agency, request, offers_pb2.PaymentCondition, run)

    def UpdatePaymentCondition(
        self, request: offer_service_pb2.UpdatePaymentConditionRequest, context: grpc.ServicerContext
    ) -> offers_pb2.PaymentCondition:
        """Change a condition."""
        found = names.parse(common.CONDITION, request.condition.name, "condition.name")
        agency, condition_id = found["agency"], found["condition"]
        new = _condition_of(agency, request.condition)
        only = [NAMES.get(path, path) for path in request.update_mask.paths]

        def run(tx: db.Transaction) -> offers_pb2.PaymentCondition:
            cases.update(
                tx=tx,
                agency=agency,
                condition_id=condition_id,
                new=new,
                only=only,
                version=common.version_of(request.condition.etag),
            )
            return _condition(tx, agency, condition_id)

        return self.once(agency, request, offers_pb2.PaymentCondition, run)

    def DeletePaymentCondition(
        self, request: offer_service_pb2.DeletePaymentConditionRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        """Take a condition away."""
        agency, condition_id = common.named(common.CONDITION, request.name, "condition")

        def run(tx: db.Transaction) -> empty_pb2.Empty:
            cases.delete(
                tx=tx, agency=agency, condition_id=condition_id, version=common.version_of(request.etag)
            )
            return empty_pb2.Empty()

        return self.once(agency, request, empty_pb2.Empty, run)

    def GetPaymentCondition(
        self, request: offer_service_pb2.GetPaymentConditionRequest, context: grpc.ServicerContext
    ) -> offers_pb2.PaymentCondition:
        """One condition with its options."""
        agency, condition_id = common.named(common.CONDITION, request.name, "condition")
        with db.begin(self.engine, agency=agency) as tx:
            return _condition(tx, agency, condition_id)

    def ListPaymentConditions(
        self, request: offer_service_pb2.ListPaymentConditionsRequest, context: grpc.ServicerContext
    ) -> offer_service_pb2.ListPaymentConditionsResponse:
        """Conditions in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, maximum=500, key=(uuid.UUID,))
        creditor_id = common.creditor_of(agency, request.creditor, "creditor")
        with db.begin(self.engine, agency=agency) as tx:
            rows = store.page(
                tx,
                agency,
                creditor_id=creditor_id,
                active_only=request.active_only,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(rows, key=lambda row: (row.condition.id,))
        return offer_service_pb2.ListPaymentConditionsResponse(
            conditions=[_shown(agency, row) for row in kept], next_page_token=token
        )

    def ListOffers(
        self, request: offer_service_pb2.ListOffersRequest, context: grpc.ServicerContext
    ) -> offer_service_pb2.ListOffersResponse:
        """What cases may be offered, with amounts."""
        agency = common.agency_of(request.parent, "parent")
        case_ids = common.case_ids(request.case_ids)
        date = common.date_of(request, "date")
        with db.begin(self.engine, agency=agency) as tx:
            found = cases.offers(
                tx=tx,
                agency=agency,
                case_ids=case_ids,
                authority=common.authority(),
                date=date,
                today=moments.read(tx, agency).business_date,
            )
        return offer_service_pb2.ListOffersResponse(offers=[_offer(agency, one) for one in found])

    def CreateAgreementCategory(
        self, request: offer_service_pb2.CreateAgreementCategoryRequest, context: grpc.ServicerContext
    ) -> offers_pb2.AgreementCategory:
        """Store a category."""
        agency = common.agency_of(request.parent, "parent")

        def run(tx: db.Transaction) -> offers_pb2.AgreementCategory:
            category_id = cases.create_category(
                tx=tx,
                agency=agency,
                title=request.category.title,
                active=request.category.active,
                moment=moments.read(tx, agency),
            )
            return _category(tx, agency, category_id)

        return self.once(agency, request, offers_pb2.AgreementCategory, run)

    def UpdateAgreementCategory(
        self, request: offer_service_pb2.UpdateAgreementCategoryRequest, context: grpc.ServicerContext
    ) -> offers_pb2.AgreementCategory:
        """Change a category."""
        found = names.parse(common.CATEGORY, request.category.name, "category.name")
        agency, category_id = found["agency"], found["category"]
        only = set(request.update_mask.paths) or {"title", "active"}
        if wrong := sorted(only - {"title", "active"}):
            raise errors.invalid("update_mask", f"expected title or active, found {wrong[0]}")

        def run(tx: db.Transaction) -> offers_pb2.AgreementCategory:
            cases.update_category(
                tx=tx,
                agency=agency,
                category_id=category_id,
                title=request.category.title if "title" in only else None,
                active=request.category.active if "active" in only else None,
                version=common.version_of(request.category.etag),
            )
            return _category(tx, agency, category_id)

        return self.once(agency, request, offers_pb2.AgreementCategory, run)

    def ListAgreementCategories(
        self, request: offer_service_pb2.ListAgreementCategoriesRequest, context: grpc.ServicerContext
    ) -> offer_service_pb2.ListAgreementCategoriesResponse:
        """Categories in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            rows = store.categories(tx, agency, after=page.after[0] if page.after else None, limit=page.limit)
        kept, token = page.cut(rows, key=lambda row: (row.id,))
        return offer_service_pb2.ListAgreementCategoriesResponse(
            categories=[_category_shown(agency, row) for row in kept], next_page_token=token
        )


def negotiation(
    tx: db.Transaction,
    agency: uuid.UUID,
    request: agreement_service_pb2.ProposeAgreementRequest,
    moment: moments.Moment,
) -> agreements.Negotiation:
    """What a proposal that names an option of a condition proposes; of its own terms it may give the entry."""
    wrong = [
        errors.FieldViolation(f"terms.{one.name}", "expected none beside a condition")
        for one, _ in request.terms.ListFields()
        if one.name != "down_payment"
    ]
    wrong += [
        errors.FieldViolation(one.name, "expected none beside a condition")
        for one, _ in request.ListFields()
        if one.name in ("title_ids", "other_parties", "include_not_due", "title_charges", "draft")
    ]
    if request.nature.kind == agreement_pb2.Agreement.KIND_UNCHANGED:
        wrong.append(errors.FieldViolation("nature.kind", "expected a plan or a novation beside a condition"))
    if wrong:
        raise errors.InvalidRequest(fields=wrong)
    entry = None
    if request.terms.HasField("down_payment"):
        entry = money.from_proto(request.terms.down_payment, "terms.down_payment")
        if entry.minor <= 0:
            raise errors.invalid("terms.down_payment", "expected more than zero")
    return cases.negotiation(
        tx=tx,
        agency=agency,
        case_ids=common.case_ids(request.case_ids),
        condition_id=common.inside(agency, common.CONDITION, request.condition, "condition", "condition"),
        option_number=request.condition_option,
        entry=entry,
        validity_days=request.validity_days,
        authority=common.authority(),
        today=moment.business_date,
    )


def mark(
    tx: db.Transaction,
    agency: uuid.UUID,
    request: agreement_service_pb2.ProposeAgreementRequest,
    agreement_id: uuid.UUID,
) -> None:
    """Keep the category and the condition of a proposal."""
    if request.condition_option and not request.condition:
        raise errors.invalid("condition", "expected the condition of the option")
    cases.mark(
        tx=tx,
        agency=agency,
        agreement_id=agreement_id,
        category_id=common.inside(agency, common.CATEGORY, request.category, "category", "category")
        if request.category
        else None,
        condition_id=common.inside(agency, common.CONDITION, request.condition, "condition", "condition")
        if request.condition
        else None,
        option_number=request.condition_option if request.condition else None,
    )


def carry(tx: db.Transaction, agency: uuid.UUID, old_id: uuid.UUID, new_id: uuid.UUID) -> None:
    """Give a proposal that is counted again the category it had; its terms are its own from now on."""
    before = store.origins(tx, agency, [old_id]).get(old_id)
    if before is not None and before.category_id is not None:
        store.add_origin(tx, agency, store.Origin(agreement_id=new_id, category_id=before.category_id))


def origins(
    tx: db.Transaction, agency: uuid.UUID, agreement_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, agreement_pb2.Agreement]:
    """Category and condition of those agreements that have them, as fields of the agreement."""
    return {
        key: agreement_pb2.Agreement(
            category=names.format(common.CATEGORY, agency=agency, category=one.category_id)
            if one.category_id
            else "",
            condition=names.format(common.CONDITION, agency=agency, condition=one.condition_id)
            if one.condition_id
            else "",
            condition_option=one.option_number or 0,
        )
        for key, one in store.origins(tx, agency, agreement_ids).items()
    }


def _condition_of(agency: uuid.UUID, message: offers_pb2.PaymentCondition) -> conditions.Condition:
    def amount(field: str) -> int | None:
        if not message.HasField(field):  # type: ignore[arg-type] # a name of ours
            return None
        value: money_pb2.Money = getattr(message, field)
        found = money.from_proto(value, f"condition.{field}")
        if found.currency != message.currency:
            raise errors.invalid(f"condition.{field}", "expected the currency of the condition")
        return found.minor

    return conditions.Condition(
        id=ids.new(),
        creditor_id=common.creditor_of(agency, message.creditor, "condition.creditor"),
        description=message.description,
        active=message.active,
        is_default=message.is_default,
        currency=message.currency,
        value_from_minor=amount("value_from") or 0,
        value_to_minor=amount("value_to"),
        delay_from=message.delay_from,
        delay_to=message.delay_to if message.HasField("delay_to") else None,
        days_to_first=message.days_to_first,
        means_filter=tuple(message.means_filter),
        charge_means=message.charge_means,
        interest_e4=message.interest_rate_e4 if message.HasField("interest_rate_e4") else None,
        penalty_e4=message.penalty_rate_e4 if message.HasField("penalty_rate_e4") else None,
        options=tuple(
            conditions.Option(
                id=ids.new(),
                number=one.number,
                instalments=one.instalments,
                interval_days=one.interval_days,
                interest_discount_e4=one.interest_discount_e4,
                debt_discount_e4=one.debt_discount_e4,
                with_entry=one.with_entry,
                minimum_entry_e4=one.minimum_entry_e4,
            )
            for one in message.options
        ),
    )


def _condition(tx: db.Transaction, agency: uuid.UUID, condition_id: uuid.UUID) -> offers_pb2.PaymentCondition:
    found = store.get(tx, agency, condition_id)
    if found is None:
        raise errors.ResourceNotFound("no such payment condition", condition=condition_id)
    return _shown(agency, found)


def _shown(agency: uuid.UUID, stored: store.Stored) -> offers_pb2.PaymentCondition:
    one = stored.condition
    return offers_pb2.PaymentCondition(
        name=names.format(common.CONDITION, agency=agency, condition=one.id),
        creditor=common.creditor_name(agency, one.creditor_id),
        description=one.description,
        active=one.active,
        is_default=one.is_default,
        currency=one.currency,
        value_from=common.money_of(one.value_from_minor, one.currency),
        value_to=None if one.value_to_minor is None else common.money_of(one.value_to_minor, one.currency),
        delay_from=one.delay_from,
        delay_to=one.delay_to,
        days_to_first=one.days_to_first,
        means_filter=one.means_filter,
        charge_means=one.charge_means,
        interest_rate_e4=one.interest_e4,
        penalty_rate_e4=one.penalty_e4,
        options=[
            offers_pb2.PaymentCondition.Option(
                number=option.number,
                instalments=option.instalments,
                interval_days=option.interval_days,
                interest_discount_e4=option.interest_discount_e4,
                debt_discount_e4=option.debt_discount_e4,
                with_entry=option.with_entry,
                minimum_entry_e4=option.minimum_entry_e4,
            )
            for option in one.options
        ],
        create_time=dates.to_timestamp(stored.created_at),
        etag=str(one.version),
    )


def _offer(agency: uuid.UUID, one: cases.Offer) -> offers_pb2.Offer:
    found = one.simulation
    priced = found.priced

    def shown(minor: int) -> money_pb2.Money:
        return common.money_of(minor, found.currency)

    return offers_pb2.Offer(
        condition=names.format(common.CONDITION, agency=agency, condition=one.condition.id),
        option=one.option.number,
        description=one.condition.description,
        is_default=one.condition.is_default,
        value_fits=one.condition.value_fits(priced.debt_minor),
        debt=shown(priced.debt_minor),
        discount_on_charges=shown(priced.forgiven_charges_minor),
        discount_on_principal=shown(priced.forgiven_principal_minor),
        total=shown(priced.total_minor),
        entry=shown(one.entry_minor) if one.entry_minor else None,
        rows=negotiations.rows(found),
        charge_means=one.condition.charge_means,
        hints=[
            offers_pb2.Offer.Hint(rule=beyond.rule, limit=beyond.limit, asked=beyond.asked)
            for beyond in one.hints
        ],
    )


def _category(tx: db.Transaction, agency: uuid.UUID, category_id: uuid.UUID) -> offers_pb2.AgreementCategory:
    return _category_shown(agency, store.categories(tx, agency, category_id=category_id)[0])


def _category_shown(agency: uuid.UUID, row: store.Category) -> offers_pb2.AgreementCategory:
    return offers_pb2.AgreementCategory(
        name=names.format(common.CATEGORY, agency=agency, category=row.id),
        title=row.title,
        active=row.active,
        create_time=dates.to_timestamp(row.created_at),
        etag=str(row.version),
    )
