"""The loop of a campaign.

It is two use cases around two remote acts: `advance` (queue a call for each free agent), then permission,
`permit` (commit what will be dialled), then the exchange, and `advance` again (commit what came of it). A
crash between any two leaves calls in QUEUED or DIALING, which the loop takes up where it finds them.
"""

import collections
import datetime
from collections.abc import Mapping, Sequence
from uuid import UUID

from dialer_service import domain, store
from dialer_service.usecases import campaigns, telling
from servicekit import db, telemetry

_answers = telemetry.counter(
    "recupera.dialer.live_answers",
    "{call}",
    "Calls that a person answered: CONNECTED to an agent, or ABANDONED",
    known={"state": (domain.CallState.CONNECTED, domain.CallState.ABANDONED)},
)


def worked_campaigns(tx: db.Transaction, agency: UUID) -> Sequence[UUID]:
    """Campaigns that need their loop: running, draining, or with calls on the line."""
    return store.worked_campaigns(tx, agency)


def dialling_calls(tx: db.Transaction, agency: UUID, *, campaign_id: UUID) -> Sequence[domain.Call]:
    """Calls that the exchange was, or was about to be, asked to dial, and whose outcome is not committed."""
    return store.calls_in(tx, agency, campaign_id, domain.CallState.DIALING)


def advance(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    outcomes: Mapping[UUID, domain.Outcome | None],
    begin: bool,
    handling: datetime.timedelta,
    now: datetime.datetime,
    business_date: datetime.date,
) -> Sequence[domain.Call] | None:
    """One step of a campaign's loop: commit what the exchange said (`settle`), put calls without a
    disposition for `handling` in WRAP_UP, and, where asked to `begin`, queue one call for each free agent
    while the campaign is RUNNING.

    Answers all calls in QUEUED; those of a crashed loop are among them and go on with the same key. A
    campaign in DRAINING is COMPLETED once no call is queued, dialling or connected. None: the campaign is
    over, and so is its loop.
    """
    campaign = store.campaign(tx, agency, campaign_id, lock=True)
    campaign = _settle(tx, agency, campaign, outcomes, now=now, business_date=business_date)
    _wrap_up_overdue(tx, agency, campaign_id, before=now - handling, now=now)
    if begin and campaign.state is domain.CampaignState.RUNNING:
        free = store.free_agents(tx, agency, campaign.id)
        wanted = domain.calls_to_begin(free_agents=len(free), pacing=campaign.pacing)
        if wanted:
            store.begin_calls(tx, agency, campaign, free[:wanted], now=now)
    if campaign.state is not domain.CampaignState.RUNNING and not store.calls_on_line(
        tx, agency, campaign_id
    ):
        if campaign.state is domain.CampaignState.DRAINING:
            completed = campaign.move(domain.CampaignState.COMPLETED)
            campaign = campaigns.moved(tx, agency, campaign, completed, now=now, business_date=business_date)
        if campaign.state in domain.CAMPAIGN_OVER:
            return None
    return store.calls_in(tx, agency, campaign.id, domain.CallState.QUEUED)


def permit(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    answers: Sequence[domain.Answer],
    now: datetime.datetime,
    business_date: datetime.date,
) -> Sequence[domain.Call]:
    """Commit what permission says of queued calls; answers those to be dialled, now in DIALING with their
    key.

    Refused for good: BLOCKED(rule), the case leaves the lists of its date. Refused until `retry_time`: as if
    never begun.
    """
    campaign = store.campaign(tx, agency, campaign_id, lock=True)
    by_key = {answer.key: answer for answer in answers}
    cases = {call.case_id for call in store.calls_in(tx, agency, campaign_id, domain.CallState.QUEUED)}
    store.lock_cases(tx, agency, cases)
    dialled: list[tuple[domain.Call, int]] = []
    blocked: list[tuple[domain.Call, int]] = []
    put_off: list[domain.Call] = []
    settled: list[store.Settled] = []
    for call in store.lock_calls(tx, agency, by_key, domain.CallState.QUEUED):
        match by_key[call.id]:
            case domain.Granted() as granted:
                changed = call.dial(
                    seed=campaign.simulation_seed,
                    person_id=granted.person_id,
                    contact_point_id=granted.contact_point_id,
                    currency=granted.currency,
                    now=now,
                )
                dialled.append((changed, call.version))
            case domain.Refused(rule=rule, retry_time=None):
                blocked.append((call.block(rule, now=now), call.version))
                settled.append(store.Settled(case_id=call.case_id, state=domain.EntryState.CLOSED, rule=rule))
            case domain.Refused(rule=rule, retry_time=retry_time):
                put_off.append(call)
                settled.append(
                    store.Settled(
                        case_id=call.case_id,
                        state=domain.EntryState.OPEN,
                        rule=rule,
                        not_before=retry_time,
                        taken_back=True,
                    )
                )
    store.save_calls(tx, agency, dialled + blocked)
    store.free_from_calls(
        tx, agency, [call.id for call, _ in blocked] + [call.id for call in put_off], now=now
    )
    store.drop_calls(tx, agency, [call.id for call in put_off])
    store.settle_entries(tx, agency, campaign_id, settled)
    store.close_cases(tx, agency, {call.case_id: call.rule for call, _ in blocked}, date=campaign.date)
    if dialled:
        store.count_calls(tx, agency, campaign_id, made=len(dialled))
    for call, _ in blocked:
        telling.tell_call(tx, agency, call, now=now, business_date=business_date)
    return [call for call, _ in dialled]


def _settle(
    tx: db.Transaction,
    agency: UUID,
    campaign: domain.Campaign,
    outcomes: Mapping[UUID, domain.Outcome | None],
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """Commit what the exchange says of calls in DIALING (None: it never heard of the call); the campaign is
    locked.

    Answered: CONNECTED to the agent who waits for it. Else the agent is free, and the case waits for its next
    try, if it has one. Pauses the campaign when it is over the abandon cap (R25). Answers the campaign with
    its numbers.
    """
    if not outcomes:
        return campaign
    dialling = store.calls_in(tx, agency, campaign.id, domain.CallState.DIALING)
    invalid = [call for call in dialling if outcomes.get(call.id) is domain.Outcome.INVALID]
    others = store.other_cases(tx, agency, invalid, date=campaign.date)
    told = {call.case_id for call in dialling if call.id in outcomes}
    states = store.lock_cases(tx, agency, told.union(others))
    locked = store.lock_calls(tx, agency, outcomes, domain.CallState.DIALING)
    there = store.agents_there(tx, agency, [call.id for call in locked])
    ended: list[tuple[domain.Call, int]] = []
    requeued: list[tuple[domain.Call, int]] = []
    for call in locked:
        outcome = outcomes[call.id]
        if outcome is None:
            requeued.append((call.requeue(), call.version))
        else:
            ended.append((call.end(outcome, agent_there=call.id in there, now=now), call.version))
    store.save_calls(tx, agency, ended + requeued)
    _leave_entries(tx, agency, campaign, [call for call, _ in ended], states, now=now)
    store.close_cases(tx, agency, dict.fromkeys(others, domain.RULE_WRONG_NUMBER), date=campaign.date)
    over = [call.id for call, _ in ended if call.state is not domain.CallState.CONNECTED]
    store.free_from_calls(tx, agency, over, now=now)
    for call, _ in ended:
        telling.tell_call(tx, agency, call, now=now, business_date=business_date)
    numbers = collections.Counter(call.state for call, _ in ended)
    abandoned = numbers[domain.CallState.ABANDONED]
    for state in (domain.CallState.CONNECTED, domain.CallState.ABANDONED):
        tx.count(_answers, numbers[state], state=state.value)
    counted = store.count_calls(
        tx,
        agency,
        campaign.id,
        made=-len(requeued),
        answered=numbers[domain.CallState.CONNECTED] + abandoned,
        abandoned=abandoned,
    )
    if counted.state is domain.CampaignState.RUNNING and domain.abandon_cap_exceeded(
        abandoned=counted.abandoned_calls, live_answers=counted.live_answers
    ):
        paused = counted.move(domain.CampaignState.PAUSED, reason=domain.PauseReason.ABANDON_CAP)
        return campaigns.moved(tx, agency, counted, paused, now=now, business_date=business_date)
    return counted


def _leave_entries(
    tx: db.Transaction,
    agency: UUID,
    campaign: domain.Campaign,
    ended: Sequence[domain.Call],
    case_states: Mapping[UUID, str],
    *,
    now: datetime.datetime,
) -> None:
    attempts = store.entry_attempts(tx, agency, campaign.id, [call.case_id for call in ended])
    settled: list[store.Settled] = []
    for call in ended:
        state, rule = domain.entry_after(
            call.state,
            attempts=attempts[call.case_id],
            max_attempts=campaign.max_attempts,
            case_state=case_states.get(call.case_id, ""),
        )
        again = now + campaign.retry_after if state is domain.EntryState.OPEN else None
        settled.append(store.Settled(case_id=call.case_id, state=state, rule=rule, not_before=again))
    store.settle_entries(tx, agency, campaign.id, settled)
    spoken_to = [entry.case_id for entry in settled if entry.state is domain.EntryState.DONE]
    store.candidates_done(tx, agency, date=campaign.date, case_ids=spoken_to)
    closed = {entry.case_id: entry.rule for entry in settled if entry.state is domain.EntryState.CLOSED}
    # other campaigns of the date may list the case too
    elsewhere = dict.fromkeys(spoken_to, domain.RULE_REACHED) | closed
    store.close_cases(tx, agency, elsewhere, date=campaign.date)


def _wrap_up_overdue(
    tx: db.Transaction, agency: UUID, campaign_id: UUID, *, before: datetime.datetime, now: datetime.datetime
) -> None:
    overdue = store.overdue_calls(tx, agency, campaign_id, before=before)
    store.save_calls(tx, agency, [(call.overdue(), call.version) for call in overdue])
    store.wrap_up_agents(tx, agency, [call.id for call in overdue], now=now)
