"""Creditors' settings, limits, payment conditions, agreement categories on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
import datetime

import grpc
import pytest
from google.protobuf import field_mask_pb2
from google.rpc import error_details_pb2
from google.type import money_pb2
from grpc_status import rpc_status

from agreement_service.domain import creditors
from agreement_service.store import creditors as creditor_store
from agreement_service.usecases import creditors as creditor_cases
from agreement_service.usecases import titles
from recupera.agreement.v1 import (
    agreement_pb2,
    agreement_service_pb2,
    offer_service_pb2,
    offers_pb2,
)
from servicekit import dates, errors, ids

from .test_concurrency import at_once

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
ADMIN = ("agreement.read", "agreement.write", "agreement.admin")
Option = offers_pb2.PaymentCondition.Option

SET = creditors.CreditorSettings(
    minimum_down_payment=creditors.Floor(minor=5_000, rate_e4=100_000),
    maximum_instalments=24,
    minimum_instalment=creditors.Floor(minor=3_000),
    charge_interest=True,
    default_interest=False,
    remunerative_interest=True,
    annual_rate_e4=120_000,
    confession_required=True,
    notice_days=5,
    missed_days=2,
    broken_days=20,
    validity_days=7,
    accepted_means=frozenset({"PIX", "BOLETO"}),
    breach_policy=creditors.BreachPolicy.KEEP_NOVATION,
    novation_prefix="ACORDO",
)


@pytest.fixture(autouse=True)
def introduced(agency):
    """The creditor is known."""
    agency.introduce()


def put(agency, new, *, only=(), version=None):
    with agency.tx() as tx:
        creditor_cases.update(
            tx=tx,
            agency=agency.agency,
            creditor_id=agency.creditor_id,
            new=new,
            only=only,
            version=version,
        )


def read(agency):
    with agency.tx() as tx:
        return creditor_store.settings(tx, agency.agency, agency.creditor_id)


@pytest.mark.feature("S1-25", "S1-26", "S1-28", "S1-29")
def test_settings_are_the_house_s_until_set_and_then_as_set(agency):
    assert read(agency) == creditors.DEFAULTS
    put(agency, SET, version=0)
    assert read(agency) == SET
    put(agency, creditors.DEFAULTS, only=["maximum_instalments", "breach_policy"], version=1)
    assert read(agency) == dataclasses.replace(
        SET, maximum_instalments=360, breach_policy=creditors.BreachPolicy.RESTORE_ORIGINALS
    )
    with agency.tx() as tx:
        assert creditor_store.settings(tx, agency.agency, ids.new()) == creditors.DEFAULTS


def test_settings_read_before_somebody_changed_them_are_not_written(agency):
    put(agency, SET, version=0)
    with pytest.raises(errors.VersionMismatch):
        put(agency, creditors.DEFAULTS, version=0)
    put(agency, SET)
    with pytest.raises(errors.VersionMismatch):
        put(agency, creditors.DEFAULTS, version=1)
    assert read(agency) == SET


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maximum_instalments", 361),
        ("maximum_instalments", 0),
        ("broken_days", 1),
        ("accepted_means", frozenset()),
        ("accepted_means", frozenset({"GOLD"})),
        ("novation_prefix", "a b"),
        ("annual_rate_e4", -1),
    ],
)
def test_wrong_settings_name_the_field(agency, field, value):
    with pytest.raises(errors.InvalidRequest) as refused:
        put(agency, dataclasses.replace(SET, **{field: value}))
    assert [one.field for one in refused.value.fields] == [f"settings.{field}"]
    assert read(agency) == creditors.DEFAULTS


def test_an_unknown_field_in_the_mask_is_refused(agency):
    with pytest.raises(errors.InvalidRequest, match="update_mask"):
        put(agency, SET, only=["name"])


def test_a_creditor_that_nobody_knows_is_refused(api, agency):
    creditor = f"{api.name}/creditors/{ids.new()}"
    settings = offer_service_pb2.GetCreditorSettingsRequest(name=f"{creditor}/settings")
    assert api.refused("GetCreditorSettings", settings)[0] == "NOT_FOUND"
    explain = offer_service_pb2.ExplainLimitsRequest(name=creditor)
    assert api.refused("ExplainLimits", explain)[0] == "NOT_FOUND"
    assert refusal(create, api, creditor=creditor)[0] == "RESOURCE_NOT_FOUND"


@pytest.mark.feature("S1-26")
def test_titles_follow_the_switch_of_default_interest(agency):
    """45 days late: 20.00 and 15.00; without default interest the penalty alone, also for titles placed later."""
    before = agency.place((TUESDAY, 100_000))

    def owed(placed):
        with agency.tx() as tx:
            (found,) = titles.explain(
                tx=tx, agency=agency.agency, case_ids=[placed[0].case_id], date=agency.today
            )
        return found.total_minor

    assert owed(before) == 103_500
    put(agency, dataclasses.replace(creditors.DEFAULTS, default_interest=False), only=["default_interest"])
    after = agency.place((TUESDAY, 100_000))
    assert (owed(before), owed(after)) == (102_000, 102_000)
    put(agency, creditors.DEFAULTS, only=["default_interest"])
    assert (owed(before), owed(after)) == (103_500, 103_500)


# -- over gRPC ---------------------------------------------------------------------------------------------------------


def brl(minor):
    return money_pb2.Money(currency_code="BRL", units=minor // 100, nanos=minor % 100 * 10_000_000)


def refusal(call, *arguments, **options):
    """Reason of a refusal and the fields it names."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    fields = []
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
        if detail.Unpack(bad):
            fields = [one.field for one in bad.field_violations]
    return info.reason, fields


def condition(**fields):
    return offers_pb2.PaymentCondition(
        **{
            "description": "to be paid in November",
            "active": True,
            "currency": "BRL",
            "charge_means": "PIX",
            "days_to_first": 5,
            "options": [
                Option(number=1, instalments=1, debt_discount_e4=100_000),
                Option(number=2, instalments=3, interval_days=20),
                Option(number=3, instalments=3, interval_days=20, with_entry=True, minimum_entry_e4=200_000),
            ],
            **fields,
        }
    )


def create(api, **fields):
    return api(
        "CreatePaymentCondition",
        offer_service_pb2.CreatePaymentConditionRequest(parent=api.name, condition=condition(**fields)),
        scopes=ADMIN,
    )


def update(api, changed, *paths):
    return api(
        "UpdatePaymentCondition",
        offer_service_pb2.UpdatePaymentConditionRequest(
            condition=changed, update_mask=field_mask_pb2.FieldMask(paths=paths)
        ),
        scopes=ADMIN,
    )


def offers(api, *placed, **options):
    request = offer_service_pb2.ListOffersRequest(
        parent=api.name, case_ids=[str(one.case_id) for one in placed], **options.pop("fields", {})
    )
    return list(api("ListOffers", request, **options).offers)


def proposal(api, placed, made, option, **fields):
    return agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        condition=made.name,
        condition_option=option,
        **fields,
    )


@pytest.mark.feature("S1-25", "S1-29")
def test_settings_over_grpc(api, agency):
    name = f"{api.name}/creditors/{agency.creditor_id}/settings"
    found = api("GetCreditorSettings", offer_service_pb2.GetCreditorSettingsRequest(name=name))
    assert (found.etag, found.maximum_instalments, found.novation_prefix) == ("0", 360, "REN")
    found.maximum_instalments = 12
    del found.accepted_means[:]
    found.accepted_means.extend(["PIX", "BOLETO"])
    found.minimum_down_payment.rate_e4 = 100_000
    request = offer_service_pb2.UpdateCreditorSettingsRequest(settings=found, request_id="one")
    changed = api("UpdateCreditorSettings", request, scopes=ADMIN)
    assert (changed.etag, changed.maximum_instalments, list(changed.accepted_means)) == (
        "1",
        12,
        ["BOLETO", "PIX"],
    )
    assert api("UpdateCreditorSettings", request, scopes=ADMIN) == changed
    request.request_id = "two"
    assert refusal(api, "UpdateCreditorSettings", request, scopes=ADMIN)[0] == "VERSION_MISMATCH"
    changed.breach_policy = offers_pb2.CreditorSettings.BREACH_POLICY_UNSPECIFIED
    request = offer_service_pb2.UpdateCreditorSettingsRequest(settings=changed)
    assert refusal(api, "UpdateCreditorSettings", request, scopes=ADMIN)[1] == ["settings.breach_policy"]
    request.update_mask.paths.append("notice_days")
    request.settings.notice_days = 9
    again = api("UpdateCreditorSettings", request, scopes=ADMIN)
    assert (again.notice_days, again.maximum_instalments, again.etag) == (9, 12, "2")


@pytest.mark.feature("S4-02", "S4-04", "S4-05")
def test_conditions_are_made_changed_listed_and_taken_away(api, agency):
    creditor = f"{api.name}/creditors/{agency.creditor_id}"
    own = create(
        api, creditor=creditor, is_default=True, value_from=brl(100), value_to=brl(500_000), delay_to=90
    )
    general = create(api, description="anybody")
    assert own.etag == "1"
    assert (own.delay_to, general.HasField("delay_to"), general.HasField("value_to")) == (90, False, False)
    assert refusal(create, api, creditor=creditor)[0] == "CONDITION_EXISTS"
    assert (
        refusal(create, api, creditor=creditor, description="x", is_default=True)[0]
        == "DEFAULT_CONDITION_EXISTS"
    )
    wrong = refusal(create, api, description="x", options=[Option(number=1, instalments=1, interval_days=20)])
    assert wrong == ("INVALID_REQUEST", ["condition.options[0].interval_days"])
    other = f"{api.name}/creditors/{ids.new()}"
    for wanted, seen in ((creditor, [own, general]), (other, [general]), ("", [own, general])):
        request = offer_service_pb2.ListPaymentConditionsRequest(parent=api.name, creditor=wanted)
        assert list(api("ListPaymentConditions", request).conditions) == seen
    changed = update(
        api, offers_pb2.PaymentCondition(name=own.name, options=own.options[1:], etag="1"), "options"
    )
    assert [one.number for one in changed.options] == [2, 3]
    assert (changed.etag, changed.description, changed.is_default) == ("2", own.description, True)
    stale = offers_pb2.PaymentCondition(name=own.name, description="y", etag="1")
    assert refusal(update, api, stale, "description")[0] == "VERSION_MISMATCH"
    stale.etag = ""
    assert refusal(update, api, stale, "currency") == ("INVALID_REQUEST", ["update_mask"])
    get = offer_service_pb2.GetPaymentConditionRequest(name=own.name)
    assert api("GetPaymentCondition", get) == changed
    gone = offer_service_pb2.DeletePaymentConditionRequest(name=own.name)
    api("DeletePaymentCondition", gone, scopes=ADMIN)
    assert refusal(api, "GetPaymentCondition", get)[0] == "RESOURCE_NOT_FOUND"
    active = offer_service_pb2.ListPaymentConditionsRequest(parent=api.name, active_only=True, page_size=1)
    assert [one.name for one in api("ListPaymentConditions", active).conditions] == [general.name]


def test_two_default_conditions_at_once(api, agency):
    def work(description):
        try:
            return create(api, description=description, is_default=True).name
        except grpc.RpcError as error:
            return error.details()

    results = at_once(*[lambda number=number: work(f"default {number}") for number in range(3)])
    refused = [one for one in results if not one.startswith("agencies/")]
    assert len(refused) == 2
    assert agency.rows("SELECT count(*) AS n FROM payment_conditions WHERE is_default")[0].n == 1


@pytest.mark.feature("S4-02", "S4-03", "S4-04", "S4-05", "S4-16")
def test_what_a_case_may_be_offered(api, agency):
    """1000.00, 45 days late: to the proposal's last day, 5 days on, 20.00 and 16.67 (W-09)."""
    (placed,) = agency.place((TUESDAY, 100_000))
    other = create(api, description="another")
    default = create(api, is_default=True)
    create(api, description="too early", delay_from=46)
    create(api, description="too late", delay_to=44)
    create(api, description="inactive", active=False)
    create(api, description="in euro", currency="EUR")
    create(api, description="of another", creditor=f"{api.name}/creditors/{agency.introduce(ids.new())}")
    found = offers(api, placed)
    assert [(one.condition, one.option) for one in found] == [
        (made.name, number) for made in (default, other) for number in (1, 2, 3)
    ]
    assert [one.is_default for one in found] == [True] * 3 + [False] * 3
    cash, three, entry = found[:3]
    assert {one.debt.units for one in found} == {1_036}
    # 10 % of 1036.67: the charges go first, then principal
    assert (cash.discount_on_charges, cash.discount_on_principal) == (brl(3_667), brl(6_700))
    assert cash.total == brl(93_300)
    assert [row.due_date.day for row in cash.rows] == [25]
    assert [(hint.rule, hint.limit, hint.asked) for hint in cash.hints] == [
        ("DISCOUNT_PRINCIPAL", "0 % to 0 %", "6.7 %")
    ]
    assert (three.total, len(three.rows), list(three.hints)) == (brl(103_667), 3, [])
    assert [dates.from_proto(row.due_date, "") for row in three.rows] == [
        agency.today + datetime.timedelta(days=days) for days in (5, 25, 45)
    ]
    assert entry.entry == entry.rows[0].amount == brl(20_734)
    assert [row.number for row in entry.rows] == [0, 1, 2, 3]
    assert sum(row.amount.units * 100 + row.amount.nanos // 10_000_000 for row in entry.rows) == 103_667
    assert offers(api, placed, roles=["manager"])[0].hints
    today = offers(api, placed, fields={"date": dates.to_proto(agency.today)})
    assert today[1].total == brl(103_500)


@pytest.mark.feature("S4-03")
def test_the_condition_s_own_interest_is_offered_in_place_of_the_titles(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    create(api, interest_rate_e4=5_000, penalty_rate_e4=0, options=[Option(number=1, instalments=1)])
    (found,) = offers(api, placed)
    assert (found.debt, found.total) == (brl(103_667), brl(100_500))
    assert (found.discount_on_charges, found.discount_on_principal) == (brl(3_167), brl(0))


@pytest.mark.feature("S1-25")
def test_what_the_creditor_does_not_allow_is_not_offered(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    create(api)
    put(agency, dataclasses.replace(creditors.DEFAULTS, maximum_instalments=2))
    assert [one.option for one in offers(api, placed)] == [1]
    floor = creditors.Floor(rate_e4=300_000)
    put(agency, dataclasses.replace(creditors.DEFAULTS, minimum_down_payment=floor))
    found = {one.option: one for one in offers(api, placed)}
    assert sorted(found) == [1, 3]
    assert found[3].entry == brl(31_101)


@pytest.mark.feature("S2-09")
def test_an_offer_hints_at_what_the_caller_may_not_do_alone(api, agency):
    """Longest term, least instalment, least part paid down, by role and creditor: below or above asks approval."""
    (placed,) = agency.place((TUESDAY, 100_000))
    made = create(api)
    kinds = offers_pb2.Limit
    for kind, fields in (
        (kinds.KIND_INSTALMENTS, {"maximum": 2}),
        (kinds.KIND_INSTALMENT_AMOUNT, {"minimum": 30_000, "currency": "BRL"}),
        (kinds.KIND_DOWN_PAYMENT, {"minimum": 250_000}),
    ):
        limit = offers_pb2.Limit(
            kind=kind, role="operator", creditor=f"{api.name}/creditors/{agency.creditor_id}", **fields
        )
        request = offer_service_pb2.SetLimitRequest(parent=api.name, limit=limit)
        api("SetLimit", request, scopes=ADMIN)
    found = {one.option: one for one in offers(api, placed, roles=["operator"])}
    said = {key: [(one.rule, one.limit, one.asked) for one in offer.hints] for key, offer in found.items()}
    assert said[3] == [
        ("INSTALMENTS", "any to 2", "3"),
        ("INSTALMENT_AMOUNT", "300.00 BRL to any", "276.44 BRL"),
        ("DOWN_PAYMENT", "25 % to any", "20.0005 %"),
    ]
    assert [rule for rule, _, _ in said[2]] == ["INSTALMENTS", "DOWN_PAYMENT"]
    assert [rule for rule, _, _ in said[1]] == ["DISCOUNT_PRINCIPAL"]
    assert not offers(api, placed)[1].hints
    asked = proposal(api, placed, made, 3)
    assert refusal(api, "ProposeAgreement", asked, roles=["operator"])[0] == "APPROVAL_REQUESTED"


@pytest.mark.feature("S3-01", "S4-16")
def test_an_option_is_proposed_accepted_and_paid(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    made = create(api)
    category = api(
        "CreateAgreementCategory",
        offer_service_pb2.CreateAgreementCategoryRequest(
            parent=api.name, category=offers_pb2.AgreementCategory(title="campaign", active=True)
        ),
        scopes=ADMIN,
    )
    offered = {one.option: one for one in offers(api, placed)}
    proposed = api("ProposeAgreement", proposal(api, placed, made, 3, category=category.name))
    assert (proposed.condition, proposed.condition_option) == (made.name, 3)
    assert proposed.category == category.name
    assert proposed.total == offered[3].total
    assert [row.amount for row in proposed.instalments] == [row.amount for row in offered[3].rows]
    accepted = api("AcceptAgreement", agreement_service_pb2.AcceptAgreementRequest(name=proposed.name))
    assert accepted.state == agreement_pb2.Agreement.STATE_AWAITING_DOWN_PAYMENT
    for row in accepted.instalments:
        agency.pay(row.amount.units * 100 + row.amount.nanos // 10_000_000, contract_reference="CT-1")
    fulfilled = api("GetAgreement", agreement_service_pb2.GetAgreementRequest(name=proposed.name))
    assert fulfilled.state == agreement_pb2.Agreement.STATE_FULFILLED
    assert fulfilled.category == category.name
    gone = offer_service_pb2.DeletePaymentConditionRequest(name=made.name)
    assert refusal(api, "DeletePaymentCondition", gone, scopes=ADMIN)[0] == "CONDITION_IN_USE"


@pytest.mark.feature("S4-04", "S4-16")
def test_w14_a_proposal_has_to_fit_its_option(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    made = create(api)

    def why(option, **fields):
        return refusal(api, "ProposeAgreement", proposal(api, placed, made, option, **fields))

    given = agreement_pb2.PlanTerms
    assert why(3, terms=given(down_payment=brl(20_733)))[0] == "ENTRY_TOO_SMALL"
    assert why(2, terms=given(down_payment=brl(20_733)))[0] == "ENTRY_NOT_OF_THE_OPTION"
    assert why(3, terms=given(down_payment=brl(103_667)))[0] == "DOWN_PAYMENT_TOO_LARGE"
    assert why(3, terms=given(instalments=2))[1] == ["terms.instalments"]
    assert why(9)[0] == "RESOURCE_NOT_FOUND"
    assert why(1)[0] == "APPROVAL_REQUESTED"
    more = api("ProposeAgreement", proposal(api, placed, made, 3, terms=given(down_payment=brl(50_000))))
    assert more.instalments[0].amount == brl(50_000)
    update(api, offers_pb2.PaymentCondition(name=made.name), "active")
    assert why(2)[0] == "CONDITION_DOES_NOT_FIT"
    bare = agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        terms=given(instalments=1, first_due_date=dates.to_proto(agency.today)),
    )
    bare.condition_option = 2
    assert refusal(api, "ProposeAgreement", bare)[1] == ["condition"]


@pytest.mark.feature("S3-01")
def test_categories(api, agency):
    def make(title, **fields):
        return api(
            "CreateAgreementCategory",
            offer_service_pb2.CreateAgreementCategoryRequest(
                parent=api.name, category=offers_pb2.AgreementCategory(title=title, **fields)
            ),
            scopes=ADMIN,
        )

    def change(*paths, **fields):
        return api(
            "UpdateAgreementCategory",
            offer_service_pb2.UpdateAgreementCategoryRequest(
                category=offers_pb2.AgreementCategory(**fields),
                update_mask=field_mask_pb2.FieldMask(paths=paths),
            ),
            scopes=ADMIN,
        )

    first, second = make("campaign", active=True), make("court", active=True)
    assert refusal(make, "court")[0] == "CATEGORY_EXISTS"
    assert refusal(make, "")[1] == ["category.title"]
    assert refusal(change, "title", name=first.name, title="court")[0] == "CATEGORY_EXISTS"
    closed = change("active", name=first.name, etag="1")
    assert (closed.title, closed.active, closed.etag) == ("campaign", False, "2")
    assert refusal(change, "active", name=first.name, active=True, etag="1")[0] == "VERSION_MISMATCH"
    listed = api(
        "ListAgreementCategories", offer_service_pb2.ListAgreementCategoriesRequest(parent=api.name)
    ).categories
    assert list(listed) == [closed, second]
    (placed,) = agency.place((TUESDAY, 100_000))
    request = agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        terms=agreement_pb2.PlanTerms(instalments=1, first_due_date=dates.to_proto(agency.today)),
        category=first.name,
    )
    assert refusal(api, "ProposeAgreement", request)[0] == "CATEGORY_INACTIVE"
    request.category = f"{api.name}/agreementCategories/{ids.new()}"
    assert refusal(api, "ProposeAgreement", request)[0] == "RESOURCE_NOT_FOUND"
    request.category = second.name
    assert api("ProposeAgreement", request).category == second.name
