"""DialerService over gRPC: proto -> one use case -> proto. No rules, no SQL."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

import grpc
from google.protobuf.message import Message

from dialer_service import domain, usecases
from recupera.dialer.v1 import dialer_pb2, dialer_service_pb2, dialer_service_pb2_grpc
from servicekit import auth, clock, dates, db, errors, idempotency, ids, money, names, pagination, rpc

AGENCY = "agencies/{agency}"
CAMPAIGN = "agencies/{agency}/campaigns/{campaign}"
AGENT = "agencies/{agency}/agents/{agent=text}"
CALL = "agencies/{agency}/calls/{call}"

SERVICES = (dialer_service_pb2.DESCRIPTOR.services_by_name["DialerService"].full_name,)
"""Full names of what `add_to` registers."""

M = TypeVar("M", bound=Message)

_ASKED_STATES: Mapping[int, domain.AgentState] = {
    dialer_pb2.Agent.STATE_FREE: domain.AgentState.FREE,
    dialer_pb2.Agent.STATE_PAUSED: domain.AgentState.PAUSED,
    dialer_pb2.Agent.STATE_OFFLINE: domain.AgentState.OFFLINE,
}
_PACINGS = (dialer_pb2.Campaign.PACING_UNSPECIFIED, dialer_pb2.Campaign.PACING_PROGRESSIVE)


class DialerServicer(dialer_service_pb2_grpc.DialerServiceServicer):
    """The RPCs of the dialer."""

    def __init__(self, engine: db.Engine, *, promise_max_days: int) -> None:
        self._engine = engine
        self._promise_max_days = promise_max_days

    def _once(self, request: Message, response: type[M], run: Callable[[db.Transaction], M]) -> M:
        caller = rpc.caller()
        with db.begin(self._engine, agency=caller.agency) as tx:
            return idempotency.once(
                tx,
                caller=caller,
                method=rpc.method(),
                request=request,
                response=response,
                run=lambda: run(tx),
            )

    # -- campaigns -------------------------------------------------------------------------------------

    def CreateCampaign(  # noqa: N802
        self, request: dialer_service_pb2.CreateCampaignRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Campaign:
        """https://google.aip.dev/133"""
        caller = rpc.caller()
        names.parse(AGENCY, request.parent, "parent")
        wanted = request.campaign
        if wanted.pacing not in _PACINGS:
            raise errors.invalid("campaign.pacing", "expected PACING_PROGRESSIVE")
        date = dates.from_proto(wanted.date, "campaign.date") if wanted.HasField("date") else None

        def run(tx: db.Transaction) -> dialer_pb2.Campaign:
            time = clock.read(tx, caller.agency)
            campaign = usecases.create_campaign(
                tx,
                caller.agency,
                display_name=wanted.display_name,
                date=date,
                script=wanted.script,
                max_attempts=wanted.max_attempts,
                retry_after_seconds=wanted.retry_after_seconds,
                shift_minutes=wanted.shift_minutes,
                minutes_per_call=wanted.minutes_per_call,
                simulation_seed=wanted.simulation_seed,
                now=time.now(),
                business_date=time.business_date,
            )
            return _counted(tx, caller, campaign, time)

        return self._once(request, dialer_pb2.Campaign, run)

    def GetCampaign(  # noqa: N802
        self, request: dialer_service_pb2.GetCampaignRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Campaign:
        """https://google.aip.dev/131"""
        caller = rpc.caller()
        campaign_id = names.parse(CAMPAIGN, request.name)["campaign"]
        with db.begin(self._engine, agency=caller.agency) as tx:
            campaign = usecases.get_campaign(tx, caller.agency, campaign_id=campaign_id)
            return _counted(tx, caller, campaign, clock.read(tx, caller.agency))

    def ListCampaigns(  # noqa: N802
        self, request: dialer_service_pb2.ListCampaignsRequest, context: grpc.ServicerContext
    ) -> dialer_service_pb2.ListCampaignsResponse:
        """https://google.aip.dev/132"""
        caller = rpc.caller()
        names.parse(AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(UUID,))
        with db.begin(self._engine, agency=caller.agency) as tx:
            found = usecases.list_campaigns(
                tx, caller.agency, limit=page.limit, before=page.after[0] if page.after else None
            )
            kept, next_page_token = page.cut(found, key=lambda campaign: (campaign.id,))
            if not kept:
                return dialer_service_pb2.ListCampaignsResponse()
            now = clock.read(tx, caller.agency).now()
            counts = usecases.count(tx, caller.agency, campaigns=kept, now=now)
        return dialer_service_pb2.ListCampaignsResponse(
            campaigns=[_campaign(caller.agency, campaign, counts[campaign.id]) for campaign in kept],
            next_page_token=next_page_token,
        )

    def StartCampaign(  # noqa: N802
        self, request: dialer_service_pb2.StartCampaignRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Campaign:
        """https://google.aip.dev/216"""
        caller = rpc.caller()
        campaign_id = names.parse(CAMPAIGN, request.name)["campaign"]
        etag = _etag(request.etag)

        def run(tx: db.Transaction) -> dialer_pb2.Campaign:
            time = clock.read(tx, caller.agency)
            campaign = usecases.start_campaign(
                tx,
                caller.agency,
                campaign_id=campaign_id,
                etag=etag,
                now=time.now(),
                business_date=time.business_date,
            )
            return _counted(tx, caller, campaign, time)

        return self._once(request, dialer_pb2.Campaign, run)

    def PauseCampaign(  # noqa: N802
        self, request: dialer_service_pb2.PauseCampaignRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Campaign:
        """https://google.aip.dev/216"""
        return self._move(request, domain.CampaignState.PAUSED)

    def DrainCampaign(  # noqa: N802
        self, request: dialer_service_pb2.DrainCampaignRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Campaign:
        """https://google.aip.dev/216"""
        return self._move(request, domain.CampaignState.DRAINING)

    def AbortCampaign(  # noqa: N802
        self, request: dialer_service_pb2.AbortCampaignRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Campaign:
        """https://google.aip.dev/216"""
        return self._move(request, domain.CampaignState.ABORTED)

    def _move(
        self,
        request: dialer_service_pb2.PauseCampaignRequest
        | dialer_service_pb2.DrainCampaignRequest
        | dialer_service_pb2.AbortCampaignRequest,
        target: domain.CampaignState,
    ) -> dialer_pb2.Campaign:
        caller = rpc.caller()
        campaign_id = names.parse(CAMPAIGN, request.name)["campaign"]
        etag = _etag(request.etag)

        def run(tx: db.Transaction) -> dialer_pb2.Campaign:
            time = clock.read(tx, caller.agency)
            campaign = usecases.move_campaign(
                tx,
                caller.agency,
                campaign_id=campaign_id,
                target=target,
                etag=etag,
                now=time.now(),
                business_date=time.business_date,
            )
            return _counted(tx, caller, campaign, time)

        return self._once(request, dialer_pb2.Campaign, run)

    # -- agents ----------------------------------------------------------------------------------------

    def SetAgentState(  # noqa: N802
        self, request: dialer_service_pb2.SetAgentStateRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Agent:
        """https://google.aip.dev/216"""
        caller = rpc.caller()
        agent_id = names.match(AGENT, request.name)["agent"]
        state = _ASKED_STATES.get(request.state)
        if state is None:
            raise errors.invalid("state", "expected STATE_FREE, STATE_PAUSED or STATE_OFFLINE")
        campaign_id = _optional(CAMPAIGN, request.campaign, "campaign")

        def run(tx: db.Transaction) -> dialer_pb2.Agent:
            agent = usecases.set_agent_state(
                tx,
                caller.agency,
                agent_id=agent_id,
                state=state,
                campaign_id=campaign_id,
                now=clock.read(tx, caller.agency).now(),
            )
            return _agent(caller.agency, agent)

        return self._once(request, dialer_pb2.Agent, run)

    def ListAgents(  # noqa: N802
        self, request: dialer_service_pb2.ListAgentsRequest, context: grpc.ServicerContext
    ) -> dialer_service_pb2.ListAgentsResponse:
        """https://google.aip.dev/132"""
        caller = rpc.caller()
        names.parse(AGENCY, request.parent, "parent")
        page = pagination.read(request, key=(str,))
        with db.begin(self._engine, agency=caller.agency) as tx:
            found = usecases.list_agents(
                tx, caller.agency, limit=page.limit, after=page.after[0] if page.after else None
            )
        kept, next_page_token = page.cut(found, key=lambda agent: (agent.id,))
        return dialer_service_pb2.ListAgentsResponse(
            agents=[_agent(caller.agency, agent) for agent in kept], next_page_token=next_page_token
        )

    # -- calls -----------------------------------------------------------------------------------------

    def GetCall(  # noqa: N802
        self, request: dialer_service_pb2.GetCallRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Call:
        """https://google.aip.dev/131"""
        caller = rpc.caller()
        call_id = names.parse(CALL, request.name)["call"]
        with db.begin(self._engine, agency=caller.agency) as tx:
            return _call(caller.agency, usecases.get_call(tx, caller.agency, call_id=call_id))

    def ListCalls(  # noqa: N802
        self, request: dialer_service_pb2.ListCallsRequest, context: grpc.ServicerContext
    ) -> dialer_service_pb2.ListCallsResponse:
        """https://google.aip.dev/132"""
        caller = rpc.caller()
        names.parse(AGENCY, request.parent, "parent")
        state = None
        if request.state:
            state = domain.CallState(_name(dialer_pb2.Call.State, request.state, "STATE_", "state"))
        campaign_id = _optional(CAMPAIGN, request.campaign, "campaign")
        case_id = ids.parse(request.case_id, "case_id") if request.case_id else None
        page = pagination.read(request, key=(UUID,))
        with db.begin(self._engine, agency=caller.agency) as tx:
            found = usecases.list_calls(
                tx,
                caller.agency,
                limit=page.limit,
                after=page.after[0] if page.after else None,
                state=state,
                campaign_id=campaign_id,
                case_id=case_id,
            )
        kept, next_page_token = page.cut(found, key=lambda call: (call.id,))
        return dialer_service_pb2.ListCallsResponse(
            calls=[_call(caller.agency, call) for call in kept], next_page_token=next_page_token
        )

    def DispositionCall(  # noqa: N802
        self, request: dialer_service_pb2.DispositionCallRequest, context: grpc.ServicerContext
    ) -> dialer_pb2.Call:
        """https://google.aip.dev/136"""
        caller = rpc.caller()
        call_id = names.parse(CALL, request.name)["call"]
        disposition = domain.Disposition(
            _name(dialer_pb2.Call.Disposition, request.disposition, "DISPOSITION_", "disposition")
        )
        promise_date = (
            dates.from_proto(request.promise_date, "promise_date")
            if request.HasField("promise_date")
            else None
        )
        promise_amount = (
            money.from_proto(request.promise_amount, "promise_amount")
            if request.HasField("promise_amount")
            else None
        )

        def run(tx: db.Transaction) -> dialer_pb2.Call:
            time = clock.read(tx, caller.agency)
            call = usecases.disposition_call(
                tx,
                caller.agency,
                call_id=call_id,
                disposition=disposition,
                promise_date=promise_date,
                promise_amount=promise_amount,
                max_promise_days=self._promise_max_days,
                now=time.now(),
                business_date=time.business_date,
            )
            return _call(caller.agency, call)

        return self._once(request, dialer_pb2.Call, run)

    def SummarizeCalls(  # noqa: N802
        self, request: dialer_service_pb2.SummarizeCallsRequest, context: grpc.ServicerContext
    ) -> dialer_service_pb2.SummarizeCallsResponse:
        """Counts of one business date, or of all."""
        caller = rpc.caller()
        names.parse(AGENCY, request.parent, "parent")
        date = dates.from_proto(request.date, "date") if request.HasField("date") else None
        with db.begin(self._engine, agency=caller.agency) as tx:
            now = clock.read(tx, caller.agency).now()
            summary = usecases.summarize(tx, caller.agency, date=date, now=now)
        return dialer_service_pb2.SummarizeCallsResponse(
            by_state=dict(summary.by_state),
            by_disposition=dict(summary.by_disposition),
            calls=sum(summary.by_state.values()),
            candidates=summary.candidates,
            outbox=summary.outbox,
            parked=summary.parked,
            cases_due=summary.cases_due,
            calls_live=summary.calls_live,
        )


def add_to(server: grpc.Server, servicer: DialerServicer) -> None:
    """Register the servicer."""
    dialer_service_pb2_grpc.add_DialerServiceServicer_to_server(servicer, server)


def _etag(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise errors.invalid("etag", "expected the etag of an earlier answer")
    return int(text)


def _optional(pattern: str, name: str, field: str) -> UUID | None:
    return names.parse(pattern, name, field)[field] if name else None


def _name(enum: Any, number: int, prefix: str, field: str) -> str:
    """The name of an enum value without its prefix. Raises InvalidRequest where it is unset or unknown."""
    known: dict[int, str] = {value: name.removeprefix(prefix) for name, value in enum.items() if value}
    if number not in known:
        raise errors.invalid(field, f"expected one of {', '.join(known.values())}")
    return known[number]


def _counted(
    tx: db.Transaction, caller: auth.Caller, campaign: domain.Campaign, time: clock.AgencyClock
) -> dialer_pb2.Campaign:
    counts = usecases.count(tx, caller.agency, campaigns=[campaign], now=time.now())
    return _campaign(caller.agency, campaign, counts[campaign.id])


def _campaign(agency: UUID, campaign: domain.Campaign, counts: domain.Counts) -> dialer_pb2.Campaign:
    return dialer_pb2.Campaign(
        name=names.format(CAMPAIGN, agency=agency, campaign=campaign.id),
        display_name=campaign.display_name,
        state=dialer_pb2.Campaign.State.Value(f"STATE_{campaign.state}"),
        pacing=dialer_pb2.Campaign.Pacing.Value(f"PACING_{campaign.pacing}"),
        date=dates.to_proto(campaign.date),
        script=campaign.script,
        max_attempts=campaign.max_attempts,
        retry_after_seconds=int(campaign.retry_after.total_seconds()),
        list_size=counts.list_size,
        calls_made=campaign.calls_made,
        cases_left=counts.cases_left,
        pause_reason=campaign.pause_reason,
        create_time=dates.to_timestamp(campaign.create_time),
        etag=str(campaign.version),
        simulation_seed=campaign.simulation_seed,
        shift_minutes=campaign.shift_minutes,
        minutes_per_call=campaign.minutes_per_call,
        cases_due=counts.cases_due,
        calls_live=counts.calls_live,
        live_answers=campaign.live_answers,
        abandoned_calls=campaign.abandoned_calls,
    )


def _agent(agency: UUID, agent: domain.Agent) -> dialer_pb2.Agent:
    return dialer_pb2.Agent(
        name=names.format(AGENT, agency=agency, agent=agent.id),
        state=dialer_pb2.Agent.State.Value(f"STATE_{agent.state}"),
        campaign=names.format(CAMPAIGN, agency=agency, campaign=agent.campaign_id)
        if agent.campaign_id
        else "",
        call=names.format(CALL, agency=agency, call=agent.call_id) if agent.call_id else "",
        next_state=(
            dialer_pb2.Agent.State.Value(f"STATE_{agent.next_state}")
            if agent.call_id
            else dialer_pb2.Agent.STATE_UNSPECIFIED
        ),
    )


def _call(agency: UUID, call: domain.Call) -> dialer_pb2.Call:
    answer = dialer_pb2.Call(
        name=names.format(CALL, agency=agency, call=call.id),
        state=dialer_pb2.Call.State.Value(f"STATE_{call.state}"),
        campaign=names.format(CAMPAIGN, agency=agency, campaign=call.campaign_id),
        case_id=str(call.case_id),
        agent=names.format(AGENT, agency=agency, agent=call.agent_id),
        attempt=call.attempt,
        rule=call.rule,
        date=dates.to_proto(call.date),
        outside_key=call.outside_key,
        natural_key=call.natural_key,
    )
    if call.disposition is not None:
        answer.disposition = dialer_pb2.Call.Disposition.Value(f"DISPOSITION_{call.disposition}")
    if call.promise_date is not None and call.promise_amount_minor is not None:
        answer.promise_date.CopyFrom(dates.to_proto(call.promise_date))
        answer.promise_amount.CopyFrom(money.to_proto(money.Money(call.promise_amount_minor, call.currency)))
    if call.start_time is not None:
        answer.start_time.CopyFrom(dates.to_timestamp(call.start_time))
    if call.end_time is not None:
        answer.end_time.CopyFrom(dates.to_timestamp(call.end_time))
    return answer
