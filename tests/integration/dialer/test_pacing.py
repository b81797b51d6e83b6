"""Progressive pacing: never more calls than free agents, whoever runs at once."""

import threading
from uuid import UUID

from dialer_service import worker
from recupera.dialer.v1 import dialer_pb2
from servicekit import db, errors

from .conftest import CaseService, Dialer

Agent = dialer_pb2.Agent


class Unleashed(worker.Loop):
    """The loop of a process that believes to hold the lease when it does not."""

    def _hold(self) -> bool:
        return True


def test_never_more_calls_than_free_agents_though_four_loops_run_and_agents_come_and_go(
    dialer: Dialer,
) -> None:
    campaign = dialer.run(range(120), agents=6)
    campaign_id = UUID(campaign.name.rpartition("/")[2])
    over = threading.Event()
    wrong: list[str] = []
    changed = [0]

    def loop() -> None:
        while not over.is_set():
            try:
                unleashed = Unleashed(dialer.engine, dialer.wiring, dialer.agency, campaign_id)
                while unleashed.step(begin=True):
                    pass
            except errors.VersionMismatch:
                pass  # the other loop was faster
            except Exception as error:
                if not db.is_unavailable(error):
                    wrong.append(repr(error))
                    over.set()

    def watch() -> None:
        while not over.is_set():
            (row,) = dialer.rows(
                """
                SELECT (SELECT count(*) FROM calls WHERE state IN ('QUEUED', 'DIALING', 'CONNECTED')) AS live,
                    (SELECT count(*) FROM agents WHERE state = 'BUSY') AS busy,
                    (SELECT count(*) FROM calls JOIN agents ON agents.call_id = calls.id AND agents.id = calls.agent_id
                     WHERE calls.state IN ('QUEUED', 'DIALING', 'CONNECTED')) AS matched
                """
            )
            if not row["live"] == row["busy"] == row["matched"] <= 6:
                wrong.append(str(row))
                over.set()

    def come_and_go() -> None:
        number = 0
        while not over.is_set():
            number = (number + 1) % 6
            state = Agent.STATE_PAUSED if changed[0] % 2 else Agent.STATE_FREE
            dialer.set_agent(number, state, campaign.name)
            changed[0] += 1

    threads = [threading.Thread(target=run) for run in (loop, loop, loop, loop, watch, come_and_go)]
    for thread in threads:
        thread.start()
    try:
        while not over.is_set():
            for call in dialer.connected():
                dialer.dispose(call)
            found = dialer.campaign(campaign)
            if not found.cases_due and not found.calls_live:
                break
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=60)
    assert not wrong
    assert changed[0] > 10
    assert dialer.campaign(campaign).calls_made == 120
    assert dialer.summary().by_state.get("ABANDONED", 0) == 0
    cases = [call.case_id for call in dialer.calls()]
    assert len(cases) == len(set(cases)) == 120


def test_a_tick_asks_permission_once_for_all_its_calls(dialer: Dialer, case_service: CaseService) -> None:
    dialer.run(range(40), agents=8)
    dialer.tick()
    assert len(case_service.requests[0]) == 8
    keys = [key for request in case_service.requests for key in request]
    assert len(keys) == len(set(keys)) == dialer.summary().calls


def test_a_free_agent_has_the_next_call_in_one_tick(dialer: Dialer) -> None:
    dialer.run(range(60), agents=4)
    for _ in range(3):
        dialer.tick()
        connected = dialer.connected()
        assert len(connected) == 4
        for call in connected:
            dialer.dispose(call)


def test_the_wish_of_a_busy_agent_waits_for_the_end_of_the_call(dialer: Dialer) -> None:
    campaign = dialer.run(range(30), agents=1)
    dialer.tick()
    (call,) = dialer.connected()
    asked = dialer.set_agent(0, Agent.STATE_OFFLINE)
    assert (asked.state, asked.next_state, asked.call) == (Agent.STATE_BUSY, Agent.STATE_OFFLINE, call.name)
    dialer.dispose(call)
    (row,) = dialer.rows("SELECT state, campaign_id, call_id, next_state FROM agents")
    assert dict(row) == {"state": "OFFLINE", "campaign_id": None, "call_id": None, "next_state": "FREE"}
    made = dialer.campaign(campaign).calls_made
    dialer.tick()
    assert dialer.campaign(campaign).calls_made == made


def test_campaigns_take_turns(dialer: Dialer) -> None:
    """One with many agents and no end of cases does not keep another's agent waiting for a tick."""
    dialer.deliver(dialer.steps_due(range(200), script="a"), dialer.steps_due(range(200, 210), script="b"))
    many, few = dialer.make(script="a"), dialer.make(script="b")
    for number in range(12):
        dialer.set_agent(number, Agent.STATE_FREE, few.name if number == 11 else many.name)
    dialer.start(many)
    dialer.start(few)
    dialer.tick()
    order = [row["campaign_id"] for row in dialer.rows("SELECT campaign_id FROM calls ORDER BY id")]
    assert set(order[:12]) == {UUID(campaign.name.rpartition("/")[2]) for campaign in (many, few)}


def test_the_lease_of_a_completed_campaign_is_given_back(dialer: Dialer) -> None:
    campaign = dialer.run(range(3), agents=1)
    dialer.until_quiet(campaign)
    assert dialer.rows("SELECT name FROM leases WHERE name LIKE 'campaign/%'")
    dialer.drain(campaign)
    dialer.tick()
    assert not dialer.rows("SELECT name FROM leases WHERE name LIKE 'campaign/%'")
