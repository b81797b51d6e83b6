"""Campaigns from the facts to the settled calls, through the real RPCs, worker handlers and loop."""

from recupera.dialer.v1 import dialer_pb2, dialer_service_pb2

from .conftest import AGENCY, Dialer


def make(dialer: Dialer, **fields: object) -> dialer_pb2.Campaign:
    campaign = dialer_pb2.Campaign(display_name="Monday", simulation_seed=7, **fields)
    return dialer.call(
        "CreateCampaign",
        dialer_service_pb2.CreateCampaignRequest(parent=f"agencies/{AGENCY}", campaign=campaign),
    )


def test_smoke(dialer: Dialer) -> None:
    dialer.deliver(dialer.steps_due(range(40)))
    campaign = make(dialer)
    assert campaign.list_size == 40
    for number in range(4):
        dialer.call(
            "SetAgentState",
            dialer_service_pb2.SetAgentStateRequest(
                name=f"agencies/{AGENCY}/agents/agent-{number:02d}",
                state=dialer_pb2.Agent.STATE_FREE,
                campaign=campaign.name,
            ),
        )
    dialer.call("StartCampaign", dialer_service_pb2.StartCampaignRequest(name=campaign.name))
    dialer.tick()
    print(dialer.call("GetCampaign", dialer_service_pb2.GetCampaignRequest(name=campaign.name)))
    print(dialer.rows("select state, count(*) from calls group by 1"))
