"""What the dialer does, one function a thing. Each takes a transaction and never commits.

The loop of a campaign is two of them around two remote acts: `advance` (queue a call for each free agent), then permission,
`permit` (commit what will be dialled), then the exchange, and `advance` again (commit what came of it). A crash between any
two leaves calls in QUEUED or DIALING, which the loop takes up where it finds them.
"""

import collections
import datetime
import itertools
from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from dialer_service import domain, store
from recupera.dialer.v1 import dialer_facts_pb2, dialer_pb2
from servicekit import clock, dates, db, errors, ids, money

# -- facts of the case service -----------------------------------------------------------------------------


def take_clock(tx: db.Transaction, *, changed: clock.AgencyClock, allow_simulated: bool) -> None:
    """Keep a copy of the agency's clock, if newer. Raises SimulatedClockRefused."""
    clock.store(tx, changed, allow_simulated=allow_simulated)


def open_day(tx: db.Transaction, agency: UUID, *, date: datetime.date) -> None:
    """The business date moves forward to `date`; a date that is over already changes nothing."""
    clock.open_day(tx, agency, date)


def take_case_news(
    tx: db.Transaction, agency: UUID, *, news: Sequence[domain.DueOn | domain.CaseChange]
) -> None:
    """What the case service says of cases, in its order.

    Cases due a call become candidates, unique by (case, date, step), and join the lists of the date's campaigns; the
    fact is newer than what is known of a case's state. Cases in agreement, on hold, resolved or returned leave all
    lists (R26, R27).
    """
    due = [item for part in news if isinstance(part, domain.DueOn) for item in part.due]
    changes = [part for part in news if isinstance(part, domain.CaseChange)]
    store.know_cases(tx, agency, due, also=[change.case_id for change in changes])
    for is_change, run in itertools.groupby(news, key=lambda part: isinstance(part, domain.CaseChange)):
        if is_change:
            _change_cases(tx, agency, [part for part in run if isinstance(part, domain.CaseChange)])
            continue
        for part in run:
            if isinstance(part, domain.DueOn):
                store.add_candidates(tx, agency, part.date, part.due)


def _change_cases(tx: db.Transaction, agency: UUID, changes: Sequence[domain.CaseChange]) -> None:
    changed = store.change_cases(tx, agency, changes)
    rules = {case: rule for case, state in changed.items() if (rule := domain.case_rule(state))}
    store.close_cases(tx, agency, rules)


# -- campaigns -------------------------------------------------------------------------------------------------------------


def create_campaign(
    tx: db.Transaction,
    agency: UUID,
    *,
    display_name: str,
    date: datetime.date | None,
    script: str,
    max_attempts: int,
    retry_after_seconds: int,
    simulation_seed: int,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """A campaign in DRAFT over the candidates of its date (None: the business date), S4-11. Raises InvalidRequest."""
    campaign = domain.new_campaign(
        id=ids.new(),
        display_name=display_name,
        date=date or business_date,
        script=script,
        max_attempts=max_attempts,
        retry_after_seconds=retry_after_seconds,
        simulation_seed=simulation_seed,
        now=now,
    )
    store.add_campaign(tx, agency, campaign)
    store.list_campaign(tx, agency, campaign)
    _tell_campaign(tx, agency, campaign, now=now, business_date=business_date)
    return campaign


def start_campaign(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    etag: int | None,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """DRAFT or PAUSED to RUNNING. Raises ResourceNotFound, VersionMismatch, CampaignStateInvalid, CampaignDateInFuture."""
    was = _locked(tx, agency, campaign_id, etag)
    changed = was.start(business_date=business_date)
    return _moved(tx, agency, was, changed, now=now, business_date=business_date)


def move_campaign(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    target: domain.CampaignState,
    etag: int | None,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    """Pause, drain or abort: calls begun go on to their end. Raises ResourceNotFound, VersionMismatch, CampaignStateInvalid."""
    was = _locked(tx, agency, campaign_id, etag)
    changed = was.move(target, reason="OPERATOR")
    return _moved(tx, agency, was, changed, now=now, business_date=business_date)


def pause_for(
    tx: db.Transaction,
    agency: UUID,
    *,
    campaign_id: UUID,
    reason: str,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """The loop pauses its campaign for `reason`, if it is running."""
    was = store.campaign(tx, agency, campaign_id, lock=True)
    if was.state is domain.CampaignState.RUNNING:
        changed = was.move(domain.CampaignState.PAUSED, reason=reason)
        _moved(tx, agency, was, changed, now=now, business_date=business_date)


def _locked(tx: db.Transaction, agency: UUID, campaign_id: UUID, etag: int | None) -> domain.Campaign:
    campaign = store.campaign(tx, agency, campaign_id, lock=True)
    if etag is not None and etag != campaign.version:
        raise errors.VersionMismatch("the campaign changed since it was read", campaign=campaign_id)
    return campaign


def _moved(
    tx: db.Transaction,
    agency: UUID,
    was: domain.Campaign,
    changed: domain.Campaign,
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Campaign:
    store.save_campaign(tx, agency, changed, was=was.version)
    _tell_campaign(tx, agency, changed, now=now, business_date=business_date)
    return changed


# -- agents ------------------------------------------------------------------------------------------------------------------


def set_agent_state(
    tx: db.Transaction,
    agency: UUID,
    *,
    agent_id: str,
    state: domain.AgentState,
    campaign_id: UUID | None,
    now: datetime.datetime,
) -> domain.Agent:
    """An agent is FREE in a campaign, PAUSED or OFFLINE; with a call on the line, when it is over.

    Raises ResourceNotFound, CampaignNotStaffable, AgentHasCall, AgentNotSignedIn.
    """
    if campaign_id is not None and state is not domain.AgentState.OFFLINE:
        campaign = store.campaign(tx, agency, campaign_id)
        if campaign.state in domain.CAMPAIGN_OVER or campaign.state is domain.CampaignState.DRAINING:
            raise domain.CampaignNotStaffable("the campaign takes no agents", state=campaign.state)
    agent = store.lock_agent(tx, agency, agent_id, now=now)
    changed = agent.ask(state, campaign_id=campaign_id)
    store.save_agent(tx, agency, changed, now=now)
    return changed


# -- the loop of a campaign ----------------------------------------------------------------------------------------------------


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
) -> Sequence[domain.Call]:
    """One step of a campaign's loop: commit what the exchange said (`settle`), put calls without a disposition for
    `handling` in WRAP_UP, and, where asked to `begin`, queue one call for each free agent while the campaign is RUNNING.

    Answers all calls in QUEUED; those of a crashed loop are among them and go on with the same key. A campaign in
    DRAINING is COMPLETED once no call is queued, dialling or connected.
    """
    campaign = store.campaign(tx, agency, campaign_id, lock=True)
    campaign = _settle(tx, agency, campaign, outcomes, now=now, business_date=business_date)
    _wrap_up_overdue(tx, agency, campaign_id, before=now - handling, now=now)
    if begin and campaign.state is domain.CampaignState.RUNNING:
        free = store.free_agents(tx, agency, campaign.id)
        wanted = domain.calls_to_begin(free_agents=len(free), pacing=campaign.pacing)
        if wanted:
            store.begin_calls(tx, agency, campaign, free[:wanted], now=now)
    if campaign.state is domain.CampaignState.DRAINING and not store.calls_on_line(tx, agency, campaign_id):
        completed = campaign.move(domain.CampaignState.COMPLETED)
        _moved(tx, agency, campaign, completed, now=now, business_date=business_date)
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
    """Commit what permission says of queued calls; answers those to be dialled, now in DIALING with their key.

    Refused for good: BLOCKED(rule), the case leaves the lists of its date. Refused until `retry_time`: as if never begun.
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
        _tell_call(tx, agency, call, now=now, business_date=business_date)
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
    """Commit what the exchange says of calls in DIALING (None: it never heard of the call); the campaign is locked.

    Answered: CONNECTED to the agent who waits for it. Else the agent is free, and the case waits for its next try, if
    it has one. Pauses the campaign when it is over the abandon cap (R25). Answers the campaign with its numbers.
    """
    if not outcomes:
        return campaign
    dialling = store.calls_in(tx, agency, campaign.id, domain.CallState.DIALING)
    states = store.lock_cases(tx, agency, {call.case_id for call in dialling if call.id in outcomes})
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
    over = [call.id for call, _ in ended if call.state is not domain.CallState.CONNECTED]
    store.free_from_calls(tx, agency, over, now=now)
    for call, _ in ended:
        _tell_call(tx, agency, call, now=now, business_date=business_date)
    numbers = collections.Counter(call.state for call, _ in ended)
    abandoned = numbers[domain.CallState.ABANDONED]
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
        paused = counted.move(domain.CampaignState.PAUSED, reason="ABANDON_CAP")
        return _moved(tx, agency, counted, paused, now=now, business_date=business_date)
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
    store.close_cases(tx, agency, closed, date=campaign.date)


def _wrap_up_overdue(
    tx: db.Transaction, agency: UUID, campaign_id: UUID, *, before: datetime.datetime, now: datetime.datetime
) -> None:
    overdue = store.overdue_calls(tx, agency, campaign_id, before=before)
    store.save_calls(tx, agency, [(call.overdue(), call.version) for call in overdue])
    store.wrap_up_agents(tx, agency, [call.id for call in overdue], now=now)


# -- what the agent says -------------------------------------------------------------------------------------------------------


def disposition_call(
    tx: db.Transaction,
    agency: UUID,
    *,
    call_id: UUID,
    disposition: domain.Disposition,
    promise_date: datetime.date | None,
    promise_amount: money.Money | None,
    max_promise_days: int,
    now: datetime.datetime,
    business_date: datetime.date,
) -> domain.Call:
    """The agent says how a connected call went, and is free again (S1-09, S4-14, S4-16).

    When the right person was spoken to, the person's other cases of the date leave the lists (R05).
    Raises ResourceNotFound, CallNotConnected, CallAlreadyDispositioned, InvalidRequest.
    """
    seen = store.call(tx, agency, call_id)
    others: Sequence[UUID] = ()
    if disposition.right_party and seen.person_id is not None:
        others = store.cases_of_person(
            tx, agency, person_id=seen.person_id, date=seen.date, other_than=seen.case_id
        )
    store.lock_cases(tx, agency, [seen.case_id, *others])
    call = store.call(tx, agency, call_id, lock=True)
    changed = call.dispose(
        disposition,
        promise_date=promise_date,
        promise_amount=promise_amount,
        business_date=business_date,
        max_promise_days=max_promise_days,
        now=now,
    )
    store.save_calls(tx, agency, [(changed, call.version)])
    store.close_cases(tx, agency, dict.fromkeys(others, domain.RULE_REACHED), date=call.date)
    store.free_from_calls(tx, agency, [call.id], now=now)
    _tell_call(tx, agency, changed, now=now, business_date=business_date)
    return changed


# -- reading -------------------------------------------------------------------------------------------------


def get_campaign(tx: db.Transaction, agency: UUID, *, campaign_id: UUID) -> domain.Campaign:
    """Raises ResourceNotFound."""
    return store.campaign(tx, agency, campaign_id)


def list_campaigns(
    tx: db.Transaction, agency: UUID, *, limit: int, before: UUID | None
) -> Sequence[domain.Campaign]:
    """Newest first."""
    return store.campaigns_page(tx, agency, limit=limit, before=before)


def count(
    tx: db.Transaction, agency: UUID, *, campaigns: Sequence[domain.Campaign], now: datetime.datetime
) -> Mapping[UUID, domain.Counts]:
    """What is on the lists of campaigns, left, due at `now`, and live."""
    found = store.counts(tx, agency, [campaign.id for campaign in campaigns], now=now)
    return {campaign.id: found.get(campaign.id, domain.Counts()) for campaign in campaigns}


def list_agents(tx: db.Transaction, agency: UUID, *, limit: int, after: str | None) -> Sequence[domain.Agent]:
    """In the order of their ids."""
    return store.agents_page(tx, agency, limit=limit, after=after)


def get_call(tx: db.Transaction, agency: UUID, *, call_id: UUID) -> domain.Call:
    """Raises ResourceNotFound."""
    return store.call(tx, agency, call_id)


def list_calls(
    tx: db.Transaction,
    agency: UUID,
    *,
    limit: int,
    after: UUID | None,
    state: domain.CallState | None,
    campaign_id: UUID | None,
    case_id: UUID | None,
) -> Sequence[domain.Call]:
    """In id order, of a state, campaign or case where given."""
    return store.calls_page(
        tx, agency, limit=limit, after=after, state=state, campaign_id=campaign_id, case_id=case_id
    )


def summarize(
    tx: db.Transaction, agency: UUID, *, date: datetime.date | None, now: datetime.datetime
) -> domain.Summary:
    """Counts of the calls of one date, or of all."""
    return store.summary(tx, agency, date=date, now=now)


# -- facts we publish ----------------------------------------------------------------------------------------------------------


def republish(
    tx: db.Transaction,
    agency: UUID,
    *,
    after: UUID | None,
    limit: int,
    now: datetime.datetime,
    business_date: datetime.date,
) -> UUID | None:
    """Send the present state of up to `limit` calls whose outcome is known, in id order, after the call `after`.

    With the first page go all campaigns. Answers where the next page starts after; None when there is none.
    """
    if after is None:
        for campaign in _all_campaigns(tx, agency):
            _tell_campaign(tx, agency, campaign, now=now, business_date=business_date)
    page = store.calls_page(tx, agency, limit=limit, after=after, ended=True)
    store.lock_cases(tx, agency, {call.case_id for call in page})
    for call in store.calls_by_id(tx, agency, [call.id for call in page]):
        _tell_call(tx, agency, call, now=now, business_date=business_date)
    return page[-1].id if len(page) == limit else None


def _all_campaigns(tx: db.Transaction, agency: UUID) -> Iterator[domain.Campaign]:
    before: UUID | None = None
    while page := store.campaigns_page(tx, agency, limit=500, before=before):
        yield from page
        before = page[-1].id


def _tell_campaign(
    tx: db.Transaction,
    agency: UUID,
    campaign: domain.Campaign,
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    state = dialer_pb2.Campaign.State.Value(f"STATE_{campaign.state}")
    tx.publish(
        dialer_facts_pb2.DialerFact(
            occurred_at=dates.to_timestamp(now),
            business_date=dates.to_proto(business_date),
            agency=agency.bytes,
            subject=campaign.id.bytes,
            version=campaign.version,
            campaign_changed=dialer_facts_pb2.CampaignChanged(campaign_id=campaign.id.bytes, state=state),
        )
    )


def _tell_call(
    tx: db.Transaction,
    agency: UUID,
    call: domain.Call,
    *,
    now: datetime.datetime,
    business_date: datetime.date,
) -> None:
    """CallEnded; the case's anchor is locked. A call that was blocked was not attempted: its reservation does not count."""
    ended = dialer_facts_pb2.CallEnded(
        case_id=call.case_id.bytes,
        call_id=call.id.bytes,
        person_id=call.person_id.bytes if call.person_id else b"",
        contact_point_id=call.contact_point_id.bytes if call.contact_point_id else b"",
        reservation_key=call.id.bytes,
        state=dialer_pb2.Call.State.Value(f"STATE_{call.state}"),
        attempted=call.state is not domain.CallState.BLOCKED,
        rule=call.rule,
    )
    if call.disposition is not None:
        ended.disposition = dialer_pb2.Call.Disposition.Value(f"DISPOSITION_{call.disposition}")
        ended.right_party = call.disposition.right_party
    if call.promise_date is not None and call.promise_amount_minor is not None:
        ended.promise_date.CopyFrom(dates.to_proto(call.promise_date))
        ended.promise_amount_minor = call.promise_amount_minor
        ended.currency = call.currency
    tx.publish(
        dialer_facts_pb2.DialerFact(
            occurred_at=dates.to_timestamp(now),
            business_date=dates.to_proto(business_date),
            agency=agency.bytes,
            subject=call.id.bytes,
            version=call.version,
            call_ended=ended,
        ),
        case_id=call.case_id,
    )
