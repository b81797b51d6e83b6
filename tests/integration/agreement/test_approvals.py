"""Commands beyond their caller's limits, over gRPC on a real PostgreSQL: asked, decided by another, run once."""

from __future__ import annotations

import datetime
import json

import grpc
import pytest
import sqlalchemy
from google.protobuf import empty_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agreement_service.domain import approvals as domain
from agreement_service.usecases import republish
from recupera.agreement.v1 import (
    agreement_facts_pb2,
    agreement_pb2,
    agreement_service_pb2,
    approval_service_pb2,
    offer_service_pb2,
    offers_pb2,
)
from recupera.approvals.v1 import approvals_pb2
from servicekit import dates, ids, testing

from .test_concurrency import at_once

TUESDAY = datetime.date(2026, 10, 6)
CHRISTMAS = datetime.date(2026, 12, 25)
STATE = approvals_pb2.ApprovalRequest
APPROVE = approval_service_pb2.DecideApprovalRequest.DECISION_APPROVE
REJECT = approval_service_pb2.DecideApprovalRequest.DECISION_REJECT
ADMIN = ("agreement.read", "agreement.write", "agreement.admin")
BOSS = {"subject": "users/boss", "roles": ["manager"]}

pytestmark = pytest.mark.feature("S2-08")


def told(error):
    """Reason and metadata of an error."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
    return info.reason, dict(info.metadata)


def refusal(call, *arguments, **options):
    """Reason and metadata of a refusal."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    return told(caught.value)


def moving(api, placed, *, due_date=CHRISTMAS, request_id="", reason="asked by the debtor"):
    """A command that needs approval: a due date moved."""
    return agreement_service_pb2.ChangeDueDatesRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        titles=[f"{api.name}/titles/{placed.title_id}"],
        due_date=dates.to_proto(due_date),
        reason=reason,
        request_id=request_id,
    )


def ask(api, command, **who):
    """The name of the approval that a command is answered with."""
    reason, metadata = refusal(api, "ChangeDueDates", command, **who)
    assert reason == "APPROVAL_REQUESTED", (reason, metadata)
    return metadata["approval"]


def decide(api, name, decision=APPROVE, **options):
    request = approval_service_pb2.DecideApprovalRequest(
        name=name, decision=decision, reason=options.pop("reason", "agreed"), **options.pop("fields", {})
    )
    return api("DecideApproval", request, **{**BOSS, **options})


def undecided(api, name, decision=APPROVE, **options):
    """Why a decision was refused."""
    return refusal(decide, api, name, decision, **options)


def approval(api, name):
    return api("GetApproval", approval_service_pb2.GetApprovalRequest(name=name))


def facts_of(agency):
    return [
        item.fact.approval_changed
        for item in testing.published(agency.engine)
        if isinstance(item.fact, agreement_facts_pb2.AgreementFact)
        and item.fact.WhichOneof("fact") == "approval_changed"
    ]


@pytest.mark.feature("S2-32")
def test_w12_a_due_date_changed_without_permission_waits_for_approval_and_runs_once(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    command = moving(api, placed, request_id="once")
    reason, metadata = refusal(api, "ChangeDueDates", command)
    assert reason == "APPROVAL_REQUESTED"
    assert metadata["rule"] == "DUE_DATE_CHANGE"
    assert (metadata["limit"], metadata["asked"]) == ("nothing", "80 days")
    name = metadata["approval"]
    assert agency.title(placed).due_date == TUESDAY
    # said again, it is the same request
    assert ask(api, command) == name
    found = approval(api, name)
    assert found.state == STATE.STATE_PENDING
    assert found.method == "recupera.agreement.v1.AgreementService/ChangeDueDates"
    assert agreement_service_pb2.ChangeDueDatesRequest.FromString(found.command) == command
    assert json.loads(found.command_json)["reason"] == "asked by the debtor"
    assert found.requester == "users/1"
    assert list(found.case_ids) == [str(placed.case_id)]
    assert dates.from_proto(found.expire_date, "expire_date") == agency.today + datetime.timedelta(days=7)
    decided = decide(api, name)
    assert (decided.state, decided.decided_by, decided.reason) == (
        STATE.STATE_APPROVED,
        "users/boss",
        "agreed",
    )
    assert agency.title(placed).due_date == CHRISTMAS
    # the requester's request_id has its answer now, and nobody runs it again
    answer = api("ChangeDueDates", command)
    assert dates.from_proto(answer.titles[0].due_date, "due_date") == CHRISTMAS
    assert agency.rows("SELECT count(*) AS n FROM due_date_changes")[0].n == 1
    assert agency.rows("SELECT changed_by FROM due_date_changes")[0].changed_by == "users/1"
    assert undecided(api, name)[0] == "APPROVAL_CLOSED"
    assert [(fact.state, fact.rule) for fact in facts_of(agency)] == [
        (STATE.STATE_PENDING, "DUE_DATE_CHANGE"),
        (STATE.STATE_APPROVED, "DUE_DATE_CHANGE"),
    ]
    assert {fact.case_id for fact in facts_of(agency)} == {placed.case_id.bytes}


def test_without_a_request_id_the_same_body_waits_once(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    name = ask(api, moving(api, placed))
    assert ask(api, moving(api, placed)) == name
    assert ask(api, moving(api, placed, reason="another")) != name
    assert ask(api, moving(api, placed), subject="users/2") != name
    assert agency.rows("SELECT count(*) AS n FROM approvals")[0].n == 3


def test_a_request_id_with_another_body_is_refused(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    ask(api, moving(api, placed, request_id="one"))
    other = moving(api, placed, request_id="one", reason="another")
    assert refusal(api, "ChangeDueDates", other)[0] == "REQUEST_ID_REUSED"


def test_four_eyes(api, agency):
    """Not the requester, nobody without the authority, nobody without the command's own scope."""
    (placed,) = agency.place((TUESDAY, 100_000))
    name = ask(api, moving(api, placed), **BOSS)
    assert undecided(api, name)[0] == "APPROVER_IS_REQUESTER"
    assert undecided(api, name, subject="users/2", roles=["operator"])[0] == "APPROVER_WITHOUT_AUTHORITY"
    assert undecided(api, name, REJECT, subject="users/2", roles=[])[0] == "APPROVER_WITHOUT_AUTHORITY"
    assert (
        undecided(api, name, REJECT, subject="users/2", roles=["manager"], reason="")[0] == "INVALID_REQUEST"
    )
    assert approval(api, name).state == STATE.STATE_PENDING
    assert agency.title(placed).due_date == TUESDAY
    assert decide(api, name, subject="users/2", roles=["supervisor"]).state == STATE.STATE_APPROVED


def test_an_admin_s_command_is_approved_by_an_admin(api, agency):
    """The approver needs the scope that the command needed: here no command of this service's admins asks, so the
    method of a stored one is changed."""
    (placed,) = agency.place((TUESDAY, 100_000))
    name = ask(api, moving(api, placed))
    request = offer_service_pb2.SetLimitRequest(
        parent=api.name,
        limit=offers_pb2.Limit(kind=offers_pb2.Limit.KIND_INSTALMENTS, role="operator", maximum=3),
    )
    with agency.tx() as tx:
        tx.execute(
            sqlalchemy.text("UPDATE approvals SET method = :method, command = :command"),
            {"method": "recupera.agreement.v1.OfferService/SetLimit", "command": request.SerializeToString()},
        )
    assert undecided(api, name)[0] == "APPROVER_WITHOUT_AUTHORITY"
    assert decide(api, name, scopes=ADMIN).result.startswith(f"{api.name}/limits/")
    assert agency.rows("SELECT set_by, maximum FROM offer_limits") == [("users/1", 3)]


@pytest.mark.feature("S2-09")
def test_the_approver_s_own_limit_counts(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    set_limit(api, subject="users/boss", maximum=60)
    name = ask(api, moving(api, placed))
    reason, metadata = undecided(api, name)
    assert reason == "APPROVER_WITHOUT_AUTHORITY"
    assert (metadata["limit"], metadata["asked"]) == ("any to 60 days", "80 days")
    set_limit(api, subject="users/boss", maximum=80)
    assert decide(api, name).state == STATE.STATE_APPROVED


@pytest.mark.feature("S2-09", "S2-32")
def test_inside_the_limit_a_due_date_moves_at_once_above_and_below_it_does_not(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    set_limit(api, role="operator", minimum=-5, maximum=80)
    operator = {"roles": ["operator"]}
    above, below = CHRISTMAS + datetime.timedelta(days=1), TUESDAY - datetime.timedelta(days=6)
    ask(api, moving(api, placed, due_date=above), **operator)
    ask(api, moving(api, placed, due_date=below), **operator)
    answer = api("ChangeDueDates", moving(api, placed), **operator)
    assert answer.titles[0].state == agreement_pb2.Title.STATE_OPEN
    # from there 5 days back are allowed as well, and nothing is left of the charges of 45 days
    api("ChangeDueDates", moving(api, placed, due_date=CHRISTMAS - datetime.timedelta(days=5)), **operator)
    explained = api(
        "ExplainBalances",
        agreement_service_pb2.ExplainBalancesRequest(parent=api.name, case_ids=[str(placed.case_id)]),
    )
    assert explained.balances[0].total.units == 1_000


def test_a_due_date_moves_while_a_payment_comes(api, agency):
    """Either order: the money adds up, and the payment stands with the charges of its order."""
    set_limit(api, role="operator", maximum=100)
    for _ in range(3):
        (placed,) = agency.place((TUESDAY, 100_000))
        moved, payment = at_once(
            lambda: api("ChangeDueDates", moving(api, placed), roles=["operator"]),  # noqa: B023
            lambda: agency.pay(50_000, title_reference=placed.reference),  # noqa: B023
        )
        assert dates.from_proto(moved.titles[0].due_date, "due_date") == CHRISTMAS
        title = agency.title(placed)
        assert title.received_minor == 50_000
        charged = (title.charged_penalty_minor, title.charged_interest_minor)
        assert charged in ((2_000, 1_500), (0, 0))
        agency.reverse(payment)
        after = agency.title(placed)
        assert (after.received_minor, after.due_date) == (0, CHRISTMAS)


def test_what_was_approved_is_validated_on_today_s_balances(api, agency):
    """Paid in the meantime: the command fails, the request stays pending and is taken back."""
    (placed,) = agency.place((TUESDAY, 100_000))
    name = ask(api, moving(api, placed, request_id="late"))
    agency.pay(103_500, title_reference=placed.reference)
    assert undecided(api, name)[0] == "TITLE_NOT_OPEN"
    assert approval(api, name).state == STATE.STATE_PENDING
    withdrawn = approval_service_pb2.WithdrawApprovalRequest(name=name, reason="paid")
    assert refusal(api, "WithdrawApproval", withdrawn, **BOSS)[0] == "REQUESTER_ONLY"
    assert api("WithdrawApproval", withdrawn).state == STATE.STATE_WITHDRAWN
    assert undecided(api, name)[0] == "APPROVAL_CLOSED"


def test_rejected_and_said_again(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    command = moving(api, placed, request_id="no")
    name = ask(api, command)
    assert decide(api, name, REJECT, reason="too far").state == STATE.STATE_REJECTED
    reason, metadata = refusal(api, "ChangeDueDates", command)
    assert (reason, metadata["state"]) == ("APPROVAL_CLOSED", "REJECTED")
    assert ask(api, moving(api, placed, request_id="new")) != name
    assert agency.title(placed).due_date == TUESDAY


def test_nobody_decided_in_time(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    name, numbered = ask(api, moving(api, placed)), ask(api, moving(api, placed, request_id="x"))
    agency.set_clock(agency.today + datetime.timedelta(days=domain.VALID_DAYS))
    assert approval(api, name).state == STATE.STATE_PENDING
    agency.set_clock(agency.today + datetime.timedelta(days=1))
    assert approval(api, name).state == STATE.STATE_EXPIRED
    reason, metadata = undecided(api, name)
    assert (reason, metadata["state"]) == ("APPROVAL_CLOSED", "EXPIRED")
    again = ask(api, moving(api, placed))
    assert again != name
    assert refusal(api, "ChangeDueDates", moving(api, placed, request_id="x"))[0] == "APPROVAL_CLOSED"
    listed = {
        state: [
            one.name
            for one in api(
                "ListApprovals",
                approval_service_pb2.ListApprovalsRequest(
                    parent=api.name, state=state, case_id=str(placed.case_id)
                ),
            ).approvals
        ]
        for state in (STATE.STATE_PENDING, STATE.STATE_EXPIRED)
    }
    assert listed == {STATE.STATE_PENDING: [again], STATE.STATE_EXPIRED: [name, numbered]}


def test_approved_twice_at_once_runs_once(api, agency):
    for _ in range(3):
        (placed,) = agency.place((TUESDAY, 100_000))
        name = ask(api, moving(api, placed))

        def work(subject, name=name):
            try:
                return decide(api, name, subject=subject).state
            except grpc.RpcError as error:
                return told(error)[0]

        results = at_once(lambda: work("users/boss"), lambda: work("users/2"))
        assert sorted(map(str, results)) == [str(STATE.STATE_APPROVED), "APPROVAL_CLOSED"]
        changes = agency.rows("SELECT 1 FROM due_date_changes WHERE title_id = %s", placed.title_id)
        assert len(changes) == 1


def test_asked_at_once_waits_once(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    names = at_once(*[lambda: ask(api, moving(api, placed))] * 3)
    assert len(set(names)) == 1
    names = at_once(*[lambda: ask(api, moving(api, placed, request_id="same"))] * 3)
    assert len(set(names)) == 1
    assert agency.rows("SELECT count(*) AS n FROM approvals")[0].n == 2


def test_approved_while_the_requester_says_it_again(api, agency):
    """Whoever is first, it runs once; the requester gets the approval's name or the answer."""
    for number in range(5):
        (placed,) = agency.place((TUESDAY, 100_000))
        command = moving(api, placed, request_id=f"again-{number}")
        name = ask(api, command)

        def again(command=command):
            try:
                return api("ChangeDueDates", command).titles[0].title_reference
            except grpc.RpcError as error:
                reason, metadata = told(error)
                return f"{reason} {metadata.get('approval')}"

        decided, said = at_once(lambda: decide(api, name), again)  # noqa: B023
        assert decided.state == STATE.STATE_APPROVED
        assert said in (f"APPROVAL_REQUESTED {name}", placed.reference)
        assert api("ChangeDueDates", command).titles[0].title_reference == placed.reference
        changes = agency.rows("SELECT 1 FROM due_date_changes WHERE title_id = %s", placed.title_id)
        assert len(changes) == 1


def test_the_decision_itself_is_idempotent(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    name = ask(api, moving(api, placed))
    first = decide(api, name, fields={"request_id": "d", "etag": "1"})
    assert decide(api, name, fields={"request_id": "d", "etag": "1"}) == first
    (placed,) = agency.place((TUESDAY, 100_000))
    name = ask(api, moving(api, placed))
    assert undecided(api, name, fields={"etag": "7"})[0] == "VERSION_MISMATCH"
    assert undecided(api, name, 0)[0] == "INVALID_REQUEST"
    nothing = f"{api.name}/approvals/{ids.new()}"
    assert undecided(api, nothing)[0] == "RESOURCE_NOT_FOUND"


@pytest.mark.feature("S2-38")
def test_a_proposal_beyond_the_limit_becomes_a_proposal_when_it_is_approved(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    set_limit(api, kind=offers_pb2.Limit.KIND_INSTALMENTS, role="operator", minimum=1, maximum=3)
    request = agreement_service_pb2.ProposeAgreementRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        terms=agreement_pb2.PlanTerms(
            instalments=4, first_due_date=dates.to_proto(agency.today + datetime.timedelta(days=10))
        ),
    )
    reason, metadata = refusal(api, "ProposeAgreement", request, roles=["operator"])
    assert (reason, metadata["asked"]) == ("APPROVAL_REQUESTED", "4")
    decided = decide(api, metadata["approval"])
    proposed = api("GetAgreement", agreement_service_pb2.GetAgreementRequest(name=decided.result))
    assert proposed.state == agreement_pb2.Agreement.STATE_PROPOSED
    assert len(proposed.instalments) == 4
    request.terms.instalments = 3
    assert (
        api("ProposeAgreement", request, roles=["operator"]).state == agreement_pb2.Agreement.STATE_PROPOSED
    )


def test_republish_states_requests_again(api, agency):
    for _ in range(3):
        (placed,) = agency.place((TUESDAY, 100_000))
        name = ask(api, moving(api, placed))
    decide(api, name)
    before = {(fact.approval_id, fact.case_id, fact.state) for fact in facts_of(agency)}
    with agency.tx() as tx:
        tx.execute(sqlalchemy.text("DELETE FROM outbox"))
    progress = republish.Progress()
    while progress is not None:
        with agency.tx() as tx:
            progress = republish.step(
                tx=tx, agency=agency.agency, progress=progress, moment=agency.moment(tx), page=2
            )
    again = [(fact.approval_id, fact.case_id, fact.state) for fact in facts_of(agency)]
    assert len(again) == 3
    assert set(again) <= before


def test_a_due_date_that_cannot_move_says_why(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    (other,) = agency.place((TUESDAY, 100_000), creditor_id=ids.new(), creditor="CRED-2")
    who = {"roles": ["manager"]}

    def why(**fields):
        request = moving(api, placed)
        for field, value in fields.items():
            if isinstance(value, list):
                del getattr(request, field)[:]
                getattr(request, field).extend(value)
            else:
                getattr(request, field).CopyFrom(value)
        return refusal(api, "ChangeDueDates", request, **who)[0]

    assert why(due_date=dates.to_proto(TUESDAY)) == "DUE_DATE_UNCHANGED"
    assert why(due_date=dates.to_proto(datetime.date(2038, 1, 1))) == "INVALID_REQUEST"
    assert why(titles=[]) == "INVALID_REQUEST"
    assert why(titles=[f"{api.name}/titles/{ids.new()}"]) == "RESOURCE_NOT_FOUND"
    assert why(titles=[f"agencies/{ids.new()}/titles/{placed.title_id}"]) == "INVALID_REQUEST"
    assert why(case_ids=[str(ids.new())]) == "RESOURCE_NOT_FOUND"
    assert why(case_ids=[str(placed.case_id), str(other.case_id)]) == "CREDITORS_DIFFER"


@pytest.mark.feature("S2-32")
def test_charges_that_are_posted_stay_when_the_due_date_moves(api, agency):
    """Half is paid 45 days late, with the charges of those days; then the rest is due later."""
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(50_000, title_reference=placed.reference)
    before = agency.title(placed)
    assert (before.charged_penalty_minor, before.charged_interest_minor) == (2_000, 1_500)
    decide(api, ask(api, moving(api, placed)))
    after = agency.title(placed)
    assert (after.charged_penalty_minor, after.charged_interest_minor) == (2_000, 1_500)
    assert (after.due_date, after.accrued_through) == (CHRISTMAS, CHRISTMAS)
    agency.set_clock(CHRISTMAS)
    owed = api(
        "ExplainBalances",
        agreement_service_pb2.ExplainBalancesRequest(parent=api.name, case_ids=[str(placed.case_id)]),
    )
    assert owed.balances[0].total.units == 535  # 1035 less 500: nothing since


def set_limit(api, *, kind=offers_pb2.Limit.KIND_DUE_DATE_CHANGE, **fields):
    return api(
        "SetLimit",
        offer_service_pb2.SetLimitRequest(parent=api.name, limit=offers_pb2.Limit(kind=kind, **fields)),
        scopes=ADMIN,
    )


def test_limits_are_listed_explained_and_taken_away(api, agency):
    agency.introduce()
    creditor = f"{api.name}/creditors/{agency.creditor_id}"
    one = set_limit(api, role="operator", maximum=10)
    assert set_limit(api, role="operator", maximum=20).name == one.name
    set_limit(api, kind=offers_pb2.Limit.KIND_REFUND, creditor=creditor, maximum=5_000, currency="BRL")
    listed = api("ListLimits", offer_service_pb2.ListLimitsRequest(parent=api.name))
    assert [(row.kind, row.maximum) for row in listed.limits] == [
        (offers_pb2.Limit.KIND_DUE_DATE_CHANGE, 20),
        (offers_pb2.Limit.KIND_REFUND, 5_000),
    ]
    explained = api(
        "ExplainLimits", offer_service_pb2.ExplainLimitsRequest(name=creditor), roles=["operator"]
    )
    allowed = {row.kind: row.ranges for row in explained.allowances}
    (days,) = allowed[offers_pb2.Limit.KIND_DUE_DATE_CHANGE]
    assert (days.HasField("minimum"), days.maximum) == (False, 20)
    assert allowed[offers_pb2.Limit.KIND_REFUND][0].maximum == 5_000
    assert not allowed[offers_pb2.Limit.KIND_WRITE_OFF]
    delete = offer_service_pb2.DeleteLimitRequest(name=one.name)
    assert api("DeleteLimit", delete, scopes=ADMIN) == empty_pb2.Empty()
    assert refusal(api, "DeleteLimit", delete, scopes=ADMIN)[0] == "RESOURCE_NOT_FOUND"


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "a", "subject": "b"},
        {"minimum": 3, "maximum": 2},
        {"currency": "BRL"},
        {"kind": offers_pb2.Limit.KIND_REFUND},
        {"kind": offers_pb2.Limit.KIND_REFUND, "currency": "USD"},
        {"kind": offers_pb2.Limit.KIND_UNSPECIFIED},
        {"maximum": 10**15 + 1},
    ],
)
def test_wrong_limits_are_refused(api, fields):
    assert refusal(set_limit, api, **fields)[0] == "INVALID_REQUEST"
