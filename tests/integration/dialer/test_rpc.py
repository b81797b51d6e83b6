"""The RPCs: names, etags, request ids, pages, and that no agency sees another's."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
import sqlalchemy

from recupera.dialer.v1 import dialer_pb2, dialer_service_pb2
from servicekit import db
from support import digest

from .conftest import AGENCY, OTHER_AGENCY, Dialer, case
from .test_campaigns import refused

Code = grpc.StatusCode
pb = dialer_service_pb2
HERE = f"agencies/{AGENCY}"
NOBODY = "01890000-0000-7000-8000-00000000dead"


def test_every_column_is_declared_and_nothing_more(dialer: Dialer) -> None:
    assert digest.undeclared("dialer", dialer.owner) == []
    real = set(sqlalchemy.inspect(dialer.owner).get_table_names()) - digest.SYSTEM_TABLES
    assert real == set(digest.metadata("dialer").tables)
    for name, table in digest.metadata("dialer").tables.items():
        columns = {column["name"] for column in sqlalchemy.inspect(dialer.owner).get_columns(name)}
        assert columns == {column.name for column in table.c}


def test_without_a_scope_no_table_shows_a_row(dialer: Dialer) -> None:
    campaign = dialer.run(range(5), agents=2)
    dialer.tick()
    assert campaign
    for table in digest.metadata("dialer").tables:
        with db.begin(dialer.engine, agency=None) as tx:
            assert tx.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
        with db.begin(dialer.engine, agency=OTHER_AGENCY) as tx:
            assert tx.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
        with db.begin(dialer.engine, agency=AGENCY) as tx:
            assert tx.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar_one() > 0


def requests(campaign: str, call: str, parent: str) -> dict[str, Any]:
    agency = parent
    return {
        "CreateCampaign": pb.CreateCampaignRequest(
            parent=parent, campaign=dialer_pb2.Campaign(display_name="of somebody")
        ),
        "GetCampaign": pb.GetCampaignRequest(name=campaign),
        "ListCampaigns": pb.ListCampaignsRequest(parent=parent),
        "StartCampaign": pb.StartCampaignRequest(name=campaign),
        "PauseCampaign": pb.PauseCampaignRequest(name=campaign),
        "DrainCampaign": pb.DrainCampaignRequest(name=campaign),
        "AbortCampaign": pb.AbortCampaignRequest(name=campaign),
        "SetAgentState": pb.SetAgentStateRequest(
            name=f"{agency}/agents/ana", state=dialer_pb2.Agent.STATE_FREE, campaign=campaign
        ),
        "ListAgents": pb.ListAgentsRequest(parent=parent),
        "GetCall": pb.GetCallRequest(name=call),
        "ListCalls": pb.ListCallsRequest(parent=parent),
        "DispositionCall": pb.DispositionCallRequest(
            name=call, disposition=dialer_pb2.Call.DISPOSITION_REFUSAL
        ),
        "SummarizeCalls": pb.SummarizeCallsRequest(parent=parent),
    }


METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["DialerService"].methods]


def test_the_table_has_every_rpc() -> None:
    assert set(requests("", "", "")) == set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_no_agency_reads_or_changes_another_s(dialer: Dialer, method: str) -> None:
    campaign = dialer.run(range(10), agents=1)
    dialer.tick()
    (call,) = dialer.connected()
    before = dialer.settled()
    foreign = dialer.keys.token(OTHER_AGENCY)
    with pytest.raises(grpc.RpcError) as error:
        dialer.call(method, requests(campaign.name, call.name, HERE)[method], token=foreign)
    assert refused(error) == (Code.PERMISSION_DENIED, "AGENCY_MISMATCH")

    # under the caller's own agency the same ids are of nothing
    there = f"agencies/{OTHER_AGENCY}"
    other = Dialer(
        dialer.engine, dialer.owner, dialer.database, dialer.wiring, dialer.stub, dialer.keys, OTHER_AGENCY
    )
    other.set_clock()
    own = requests(campaign.name.replace(HERE, there), call.name.replace(HERE, there), there)[method]
    if method.startswith(("List", "Summarize", "Create")):
        answer = str(other.call(method, own))
        assert str(AGENCY) not in answer
        assert "agent-00" not in answer
    else:
        with pytest.raises(grpc.RpcError) as error:
            other.call(method, own)
        assert refused(error) == (Code.NOT_FOUND, "RESOURCE_NOT_FOUND")
    settled = [line for line in dialer.settled() if str(OTHER_AGENCY) not in line]
    assert settled == before


@pytest.mark.parametrize("method", METHODS)
def test_scopes(dialer: Dialer, method: str) -> None:
    with pytest.raises(grpc.RpcError) as error:
        dialer.call(
            method, requests("", "", HERE)[method], token=dialer.keys.token(AGENCY, "case.read", "case.write")
        )
    assert refused(error)[0] == Code.PERMISSION_DENIED


def test_an_agency_without_a_clock_is_told_so(dialer: Dialer) -> None:
    other = Dialer(
        dialer.engine, dialer.owner, dialer.database, dialer.wiring, dialer.stub, dialer.keys, OTHER_AGENCY
    )
    with pytest.raises(grpc.RpcError) as error:
        other.make()
    assert refused(error) == (Code.FAILED_PRECONDITION, "AGENCY_CLOCK_UNKNOWN")


def test_a_stale_etag_is_refused_and_a_good_one_is_not(dialer: Dialer) -> None:
    campaign = dialer.make()
    started = dialer.call("StartCampaign", pb.StartCampaignRequest(name=campaign.name, etag=campaign.etag))
    with pytest.raises(grpc.RpcError) as error:
        dialer.call("PauseCampaign", pb.PauseCampaignRequest(name=campaign.name, etag=campaign.etag))
    assert refused(error) == (Code.ABORTED, "VERSION_MISMATCH")
    dialer.call("PauseCampaign", pb.PauseCampaignRequest(name=campaign.name, etag=started.etag))
    with pytest.raises(grpc.RpcError) as error:
        dialer.call("AbortCampaign", pb.AbortCampaignRequest(name=campaign.name, etag="x1"))
    assert refused(error) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("method", "build"),
    [
        (
            "CreateCampaign",
            lambda _: pb.CreateCampaignRequest(parent=HERE, campaign=dialer_pb2.Campaign(display_name="x")),
        ),
        ("StartCampaign", lambda name: pb.StartCampaignRequest(name=name)),
        ("AbortCampaign", lambda name: pb.AbortCampaignRequest(name=name)),
        (
            "SetAgentState",
            lambda name: pb.SetAgentStateRequest(
                name=f"{HERE}/agents/ana", state=dialer_pb2.Agent.STATE_FREE, campaign=name
            ),
        ),
    ],
)
def test_a_request_id_gives_its_first_answer_again(
    dialer: Dialer, method: str, build: Callable[[str], Any]
) -> None:
    request = build(dialer.make().name)
    request.request_id = "the one"
    first = dialer.call(method, request)
    assert dialer.call(method, request) == first
    assert dialer.rows("SELECT count(*) AS n FROM campaigns")[0]["n"] <= 2


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetCampaign", pb.GetCampaignRequest(name=f"{HERE}/campaigns/{NOBODY}")),
        ("StartCampaign", pb.StartCampaignRequest(name=f"{HERE}/campaigns/{NOBODY}")),
        ("GetCall", pb.GetCallRequest(name=f"{HERE}/calls/{NOBODY}")),
        (
            "DispositionCall",
            pb.DispositionCallRequest(
                name=f"{HERE}/calls/{NOBODY}", disposition=dialer_pb2.Call.DISPOSITION_REFUSAL
            ),
        ),
        (
            "SetAgentState",
            pb.SetAgentStateRequest(
                name=f"{HERE}/agents/ana",
                state=dialer_pb2.Agent.STATE_FREE,
                campaign=f"{HERE}/campaigns/{NOBODY}",
            ),
        ),
    ],
)
def test_what_does_not_exist_is_not_found(dialer: Dialer, method: str, request_: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        dialer.call(method, request_)
    assert refused(error) == (Code.NOT_FOUND, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetCampaign", pb.GetCampaignRequest(name=f"{HERE}/campaigns/monday")),
        ("CreateCampaign", pb.CreateCampaignRequest(parent=HERE)),
        (
            "CreateCampaign",
            pb.CreateCampaignRequest(
                parent=HERE,
                campaign=dialer_pb2.Campaign(display_name="x", pacing=7),  # type: ignore[arg-type]
            ),
        ),
        (
            "CreateCampaign",
            pb.CreateCampaignRequest(
                parent=HERE,
                campaign=dialer_pb2.Campaign(display_name="x", date={"year": 2026, "month": 2, "day": 30}),
            ),
        ),
        (
            "SetAgentState",
            pb.SetAgentStateRequest(name=f"{HERE}/agents/a b", state=dialer_pb2.Agent.STATE_FREE),
        ),
        (
            "SetAgentState",
            pb.SetAgentStateRequest(name=f"{HERE}/agents/ana", state=dialer_pb2.Agent.STATE_BUSY),
        ),
        ("SetAgentState", pb.SetAgentStateRequest(name=f"{HERE}/agents/ana")),
        ("ListCalls", pb.ListCallsRequest(parent=HERE, case_id="7")),
        ("ListCalls", pb.ListCallsRequest(parent=HERE, state=77)),  # type: ignore[arg-type]
        ("ListCalls", pb.ListCallsRequest(parent=HERE, campaign="monday")),
        ("ListCalls", pb.ListCallsRequest(parent=HERE, page_size=-1)),
        ("ListCalls", pb.ListCallsRequest(parent=HERE, page_token="!!")),
        ("SummarizeCalls", pb.SummarizeCallsRequest(parent=HERE, date={"year": 2026})),
    ],
)
def test_bad_requests_are_refused(dialer: Dialer, method: str, request_: Any) -> None:
    with pytest.raises(grpc.RpcError) as error:
        dialer.call(method, request_)
    assert refused(error) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_an_agent_of_no_campaign_cannot_be_free(dialer: Dialer) -> None:
    with pytest.raises(grpc.RpcError) as error:
        dialer.set_agent(1, dialer_pb2.Agent.STATE_FREE)
    assert refused(error) == (Code.FAILED_PRECONDITION, "AGENT_NOT_SIGNED_IN")


def test_calls_are_listed_in_pages_and_by_filter(dialer: Dialer) -> None:
    campaign = dialer.run(range(25), agents=3)
    dialer.until_quiet(campaign)
    whole = [call.name for call in dialer.calls()]
    assert whole == sorted(whole)
    request = pb.ListCallsRequest(parent=HERE, page_size=7)
    found: list[str] = []
    while True:
        page = dialer.call("ListCalls", request)
        assert len(page.calls) <= 7
        found += [call.name for call in page.calls]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == whole
    assert [call.case_id for call in dialer.calls(case_id=str(case(3)))] == [str(case(3))]
    assert dialer.calls(case_id=str(case(99))) == []
    reached = dialer.calls(state=dialer_pb2.Call.STATE_DISPOSITIONED, campaign=campaign.name)
    assert {call.state for call in reached} == {dialer_pb2.Call.STATE_DISPOSITIONED}
    one = dialer.call("GetCall", pb.GetCallRequest(name=reached[0].name))
    assert one == reached[0]
    request = pb.ListCallsRequest(
        parent=HERE, page_size=7, page_token=page.next_page_token or request.page_token
    )
    request.campaign = campaign.name
    with pytest.raises(grpc.RpcError) as error:
        dialer.call("ListCalls", request)
    assert refused(error) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_agents_are_listed_in_pages(dialer: Dialer) -> None:
    campaign = dialer.make()
    dialer.staff(campaign, 5)
    first = dialer.call("ListAgents", pb.ListAgentsRequest(parent=HERE, page_size=3))
    second = dialer.call(
        "ListAgents", pb.ListAgentsRequest(parent=HERE, page_size=3, page_token=first.next_page_token)
    )
    names = [agent.name for agent in (*first.agents, *second.agents)]
    assert names == [f"{HERE}/agents/agent-{number:02d}" for number in range(5)]
    assert second.next_page_token == ""
    assert {agent.campaign for agent in first.agents} == {campaign.name}


def test_a_draft_cannot_drain(dialer: Dialer) -> None:
    campaign = dialer.make()
    with pytest.raises(grpc.RpcError) as error:
        dialer.drain(campaign)
    assert refused(error) == (Code.FAILED_PRECONDITION, "CAMPAIGN_STATE_INVALID")
