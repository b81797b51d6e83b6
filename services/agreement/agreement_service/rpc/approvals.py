"""Commands that wait for a second pair of eyes: seen, decided, withdrawn."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid
from collections.abc import Mapping

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from agreement_service import providers
from agreement_service.domain import approvals as domain
from agreement_service.domain import limits
from agreement_service.rpc import common
from agreement_service.store import approvals as store
from agreement_service.usecases import approvals, moments
from recupera.agreement.v1 import approval_service_pb2, approval_service_pb2_grpc
from recupera.approvals.v1 import approvals_pb2
from recupera.options.v1 import options_pb2
from servicekit import dates, db, errors, ids, names, pagination, rpc


class ApprovalServicer(common.Methods, approval_service_pb2_grpc.ApprovalServiceServicer):
    """Approval requests. `servicers` are those whose commands it runs, by the full names of their services."""

    def __init__(
        self,
        engine: db.Engine,
        bank: providers.BankProvider,
        parties: providers.PartyDirectory,
        servicers: Mapping[str, common.Methods],
    ) -> None:
        super().__init__(engine, bank, parties)
        self.servicers = servicers

    def GetApproval(
        self, request: approval_service_pb2.GetApprovalRequest, context: grpc.ServicerContext
    ) -> approvals_pb2.ApprovalRequest:
        """One request."""
        agency, approval_id = common.named(common.APPROVAL, request.name, "approval")
        with db.begin(self.engine, agency=agency) as tx:
            return _approval(tx, agency, approval_id)

    def ListApprovals(
        self, request: approval_service_pb2.ListApprovalsRequest, context: grpc.ServicerContext
    ) -> approval_service_pb2.ListApprovalsResponse:
        """Requests in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, maximum=500, key=(uuid.UUID,))
        state = common.state_of(approvals_pb2.ApprovalRequest.State.items(), request.state)
        with db.begin(self.engine, agency=agency) as tx:
            today = moments.read(tx, agency).business_date
            rows = store.page(
                tx,
                agency,
                state=None if state is None else domain.State(state),
                case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
                date=today,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
        kept, token = page.cut(rows, key=lambda row: (row.id,))
        return approval_service_pb2.ListApprovalsResponse(
            approvals=[_shown(agency, row, today) for row in kept], next_page_token=token
        )

    def DecideApproval(
        self, request: approval_service_pb2.DecideApprovalRequest, context: grpc.ServicerContext
    ) -> approvals_pb2.ApprovalRequest:
        """Approve, which runs the command, or reject."""
        agency, approval_id = common.named(common.APPROVAL, request.name, "approval")
        authority = common.authority()
        reason = common.reason(request.reason)
        version = common.version_of(request.etag)
        decisions = approval_service_pb2.DecideApprovalRequest

        def run(tx: db.Transaction) -> approvals_pb2.ApprovalRequest:
            moment = moments.read(tx, agency)
            match request.decision:
                case decisions.DECISION_APPROVE:
                    approvals.approve(
                        tx=tx,
                        agency=agency,
                        approval_id=approval_id,
                        authority=authority,
                        run=lambda found, deciding: self._execute(tx, found, deciding, context),
                        reason=reason,
                        version=version,
                        moment=moment,
                    )
                case decisions.DECISION_REJECT:
                    approvals.reject(
                        tx=tx,
                        agency=agency,
                        approval_id=approval_id,
                        authority=authority,
                        reason=reason,
                        version=version,
                        moment=moment,
                    )
                case _:
                    raise errors.invalid("decision", "expected DECISION_APPROVE or DECISION_REJECT")
            return _approval(tx, agency, approval_id)

        return self.once(agency, request, approvals_pb2.ApprovalRequest, run)

    def WithdrawApproval(
        self, request: approval_service_pb2.WithdrawApprovalRequest, context: grpc.ServicerContext
    ) -> approvals_pb2.ApprovalRequest:
        """The requester takes it back."""
        agency, approval_id = common.named(common.APPROVAL, request.name, "approval")
        requester = rpc.caller().subject
        reason = common.reason(request.reason)

        def run(tx: db.Transaction) -> approvals_pb2.ApprovalRequest:
            approvals.withdraw(
                tx=tx,
                agency=agency,
                approval_id=approval_id,
                requester=requester,
                reason=reason,
                version=common.version_of(request.etag),
                moment=moments.read(tx, agency),
            )
            return _approval(tx, agency, approval_id)

        return self.once(agency, request, approvals_pb2.ApprovalRequest, run)

    def _execute(
        self,
        tx: db.Transaction,
        found: store.Approval,
        authority: limits.Authority,
        context: grpc.ServicerContext,
    ) -> str:
        """Run a stored command by its own method; the name in its answer. The approver needs the scope, too."""
        method = _method(found.method)
        scope = method.GetOptions().Extensions[options_pb2.access].scope
        if scope not in rpc.caller().scopes:
            raise approvals.ApproverWithoutAuthority("the approver may not do this himself", scope=scope)
        command = _command(found)
        with common.executing(
            common.Execution(tx=tx, requester=found.requester, method=found.method, authority=authority)
        ):
            answer = getattr(self.servicers[method.containing_service.full_name], method.name)(
                command, context
            )
        return str(getattr(answer, "name", ""))


def _method(full_name: str) -> MethodDescriptor:
    return descriptor_pool.Default().FindMethodByName(full_name.replace("/", "."))


def _command(found: store.Approval) -> Message:
    return message_factory.GetMessageClass(_method(found.method).input_type).FromString(found.command)


def _approval(tx: db.Transaction, agency: uuid.UUID, approval_id: uuid.UUID) -> approvals_pb2.ApprovalRequest:
    found = store.get(tx, agency, approval_id)
    if found is None:
        raise errors.ResourceNotFound("no such approval", approval=approval_id)
    return _shown(agency, found, moments.read(tx, agency).business_date)


def _shown(
    agency: uuid.UUID, found: store.Approval, business_date: datetime.date
) -> approvals_pb2.ApprovalRequest:
    shown = approvals_pb2.ApprovalRequest(
        name=names.format(common.APPROVAL, agency=agency, approval=found.id),
        method=found.method,
        command=found.command,
        command_json=json_format.MessageToJson(_command(found), indent=None, ensure_ascii=False),
        rule=found.rule,
        limit=found.allowed,
        asked=found.asked,
        requester=found.requester,
        state=approvals_pb2.ApprovalRequest.State.Value(f"STATE_{found.state_on(business_date).value}"),
        case_ids=[str(case_id) for case_id in found.case_ids],
        create_time=dates.to_timestamp(found.created_at),
        expire_date=dates.to_proto(found.expire_date),
        decided_by=found.decided_by,
        reason=found.reason,
        result=found.result,
        etag=str(found.version),
    )
    if found.decided_at is not None:
        shown.decide_time.CopyFrom(dates.to_timestamp(found.decided_at))
    return shown
