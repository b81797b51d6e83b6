"""Due dates of titles changed."""
# ruff: noqa: N802 -- methods carry the names of the RPCs

import grpc

from agreement_service.domain import accounts
from agreement_service.rpc import common
from agreement_service.usecases import due_dates, moments
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2
from servicekit import dates, db, errors, names


class DueDates(common.Methods):
    """Due dates of titles changed."""

    def ChangeDueDates(
        self, request: agreement_service_pb2.ChangeDueDatesRequest, context: grpc.ServicerContext
    ) -> agreement_service_pb2.ChangeDueDatesResponse:
        """Move the due date of titles."""
        agency = common.agency_of(request.parent, "parent")
        case_ids = common.case_ids(request.case_ids)
        title_ids = [
            common.inside(agency, common.TITLE, name, f"titles[{place}]", "title")
            for place, name in enumerate(request.titles)
        ]
        due_date = common.date_of(request, "due_date")
        if due_date is None:
            raise errors.invalid("due_date", "expected a date")
        reason = common.reason(request.reason)

        def run(tx: db.Transaction) -> agreement_service_pb2.ChangeDueDatesResponse:
            moment = moments.read(tx, agency)
            moved, currency = due_dates.change(
                tx=tx,
                agency=agency,
                case_ids=case_ids,
                title_ids=title_ids,
                due_date=due_date,
                reason=reason,
                authority=common.authority(),
                changed_by=common.subject(),
                moment=moment,
            )
            response = agreement_service_pb2.ChangeDueDatesResponse()
            for one in moved:
                state = accounts.title_state_on(
                    one.state, payable_until=one.payable_until, business_date=moment.business_date
                )
                response.titles.add(
                    name=names.format(common.TITLE, agency=agency, title=one.title_id),
                    case_id=str(one.case_id),
                    title_reference=one.reference,
                    state=agreement_pb2.Title.State.Value(f"STATE_{state.value}"),
                    due_date=dates.to_proto(one.due_date),
                    principal=common.money_of(one.principal_minor, currency),
                    open_principal=common.money_of(one.open_principal_minor, currency),
                )
            return response

        return self.once(agency, request, agreement_service_pb2.ChangeDueDatesResponse, run)
