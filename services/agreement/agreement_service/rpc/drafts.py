"""Saved simulations."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import datetime
import uuid
from collections.abc import Sequence

import grpc

from agreement_service.rpc import common, negotiations
from agreement_service.store import drafts as draft_store
from agreement_service.usecases import drafts, moments, titles
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, ids, names, pagination

PROPOSE = "recupera.agreement.v1.AgreementService/ProposeAgreement"


class Drafts(common.Methods):
    """Saved simulations."""

    def CreateDraft(
        self, request: agreement_service_pb2.CreateDraftRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.Draft:
        """Save a simulation."""
        agency = common.agency_of(request.parent, "parent")
        saved = request.draft.request

        def run(tx: db.Transaction) -> agreement_service_pb2.Draft:
            draft_id = drafts.create(
                tx=tx,
                agency=agency,
                case_ids=_draft_cases(agency, saved),
                request=saved.SerializeToString(deterministic=True),
                moment=moments.read(tx, agency),
            )
            return _draft(tx, agency, drafts.get(tx=tx, agency=agency, draft_id=draft_id))

        return self.once(agency, request, agreement_service_pb2.Draft, run)

    def GetDraft(
        self, request: agreement_service_pb2.GetDraftRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.Draft:
        """A saved simulation on today's balances."""
        agency, draft_id = common.named(common.DRAFT, request.name, "draft")
        with db.begin(self.engine, agency=agency) as tx:
            return _draft(tx, agency, drafts.get(tx=tx, agency=agency, draft_id=draft_id))

    def ListDrafts(
        self, request: agreement_service_pb2.ListDraftsRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ListDraftsResponse:
        """Drafts in id order."""
        agency = common.agency_of(request.parent, "parent")
        page = pagination.read(request, maximum=500, key=(uuid.UUID,))
        with db.begin(self.engine, agency=agency) as tx:
            found = draft_store.page(
                tx,
                agency,
                case_id=ids.parse(request.case_id, "case_id") if request.case_id else None,
                after=page.after[0] if page.after else None,
                limit=page.limit,
            )
            kept, token = page.cut(found, key=lambda draft: (draft.id,))
            shown = _drafts(tx, agency, kept, today=moments.read(tx, agency).business_date)
        return agreement_service_pb2.ListDraftsResponse(drafts=shown, next_page_token=token)

    def UpdateDraft(
        self, request: agreement_service_pb2.UpdateDraftRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.Draft:
        """Save a simulation again."""
        agency, draft_id = common.named(common.DRAFT, request.draft.name, "draft")
        saved = request.draft.request

        def run(tx: db.Transaction) -> agreement_service_pb2.Draft:
            drafts.update(
                tx=tx,
                agency=agency,
                draft_id=draft_id,
                case_ids=_draft_cases(agency, saved),
                request=saved.SerializeToString(deterministic=True),
                version=common.version_of(request.draft.etag),
                moment=moments.read(tx, agency),
            )
            return _draft(tx, agency, drafts.get(tx=tx, agency=agency, draft_id=draft_id))

        return self.once(agency, request, agreement_service_pb2.Draft, run)

    def DeleteDraft(
        self, request: agreement_service_pb2.DeleteDraftRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.DeleteDraftResponse:
        """Remove a saved simulation."""
        agency, draft_id = common.named(common.DRAFT, request.name, "draft")

        def run(tx: db.Transaction) -> agreement_service_pb2.DeleteDraftResponse:
            drafts.delete(tx=tx, agency=agency, draft_id=draft_id, version=common.version_of(request.etag))
            return agreement_service_pb2.DeleteDraftResponse()

        return self.once(agency, request, agreement_service_pb2.DeleteDraftResponse, run)


def _draft_cases(agency: uuid.UUID, saved: agreement_service_pb2.SimulateAgreementRequest) -> list[uuid.UUID]:
    """The cases a draft names, none to all; what else it holds may be incomplete."""
    if saved.parent and common.agency_of(saved.parent, "draft.request.parent") != agency:
        raise errors.invalid("draft.request.parent", "expected the draft's own agency")
    if len(saved.case_ids) > titles.MAX_CASES:
        raise errors.invalid("draft.request.case_ids", f"expected at most {titles.MAX_CASES} cases")
    return [
        ids.parse(value, f"draft.request.case_ids[{place}]") for place, value in enumerate(saved.case_ids)
    ]


def _draft(tx: db.Transaction, agency: uuid.UUID, found: draft_store.Draft) -> agreement_service_pb2.Draft:
    """A draft with its simulation."""
    moment = moments.read(tx, agency)
    today = moment.business_date
    shown = _drafts(tx, agency, [found], today=today)[0]
    date = found.expire_date
    if today > date:
        date = drafts.last_day(tx=tx, agency=agency, case_ids=found.case_ids, moment=moment)
    try:
        simulation = negotiations.simulate(tx, agency, shown.request, date=date, today=today)
    except errors.ServiceError as problem:
        shown.problem_reason, shown.problem = problem.reason, problem.message
    else:
        shown.simulation.CopyFrom(negotiations.simulation(agency, simulation))
    return shown


def _drafts(
    tx: db.Transaction, agency: uuid.UUID, found: Sequence[draft_store.Draft], *, today: datetime.date
) -> list[agreement_service_pb2.Draft]:
    if not found:
        return []
    called = {draft.id: names.format(common.DRAFT, agency=agency, draft=draft.id) for draft in found}
    waiting = draft_store.waiting(tx, agency, list(called.values()), method=PROPOSE, date=today)
    shown = []
    for draft in found:
        name = called[draft.id]
        state = agreement_pb2.Agreement.STATE_DRAFT
        if today > draft.expire_date:
            state = agreement_pb2.Agreement.STATE_EXPIRED
        elif name in waiting:
            state = agreement_pb2.Agreement.STATE_AWAITING_APPROVAL
        shown.append(
            agreement_service_pb2.Draft(
                name=name,
                state=state,
                request=agreement_service_pb2.SimulateAgreementRequest.FromString(draft.request),
                save_date=dates.to_proto(draft.save_date),
                expire_date=dates.to_proto(draft.expire_date),
                create_time=dates.to_timestamp(draft.created_at),
                etag=str(draft.version),
                approval=names.format(common.APPROVAL, agency=agency, approval=waiting[name])
                if name in waiting
                else "",
            )
        )
    return shown
