"""The life of agreements on a real database: kinds, confession, breach, reinstatement, lineage, promises."""

import datetime
import threading

import pytest

from agreement_service import worker
from agreement_service.domain import accounts, approvals, creditors, limits, novations, plans
from agreement_service.store import accounts as account_store
from agreement_service.store import agreements as agreement_store
from agreement_service.store import creditors as creditor_store
from agreement_service.store import promises as promise_store
from agreement_service.usecases import agreements, life, republish, titles
from recupera.agreement.v1 import agreement_pb2
from recupera.agreement.v1 import agreement_service_pb2 as service
from recupera.case.v1 import case_facts_pb2
from servicekit import blobs, dates, errors, ids, testing

TUESDAY = datetime.date(2026, 10, 6)  # 45 days before the business date, Friday 2026-11-20
FRIDAY = datetime.date(2026, 11, 20)
DAY = datetime.timedelta(days=1)
THREE = plans.Terms(instalments=3, first_due_date=datetime.date(2026, 12, 15))
NOVATION = {"nature": novations.Nature(kind=accounts.AgreementKind.NOVATION)}
PDF = b"%PDF-1.7\nsigned"


def unchanged(date):
    return {
        "terms": novations.unchanged(date),
        "options": {"nature": novations.Nature(kind=accounts.AgreementKind.UNCHANGED, tolerance_date=date)},
    }


def settle(agency, **fields):
    """The creditor's settings."""
    with agency.tx() as tx:
        found, version = creditor_store.find(tx, agency.agency, agency.creditor_id)
        assert creditor_store.put(
            tx,
            agency.agency,
            agency.creditor_id,
            creditors.CreditorSettings(**{**vars_of(found), **fields}),
            version=version,
        )


def vars_of(settings):
    return {name: getattr(settings, name) for name in settings.__slots__}


def published(agency, kind):
    return [found.fact for found in testing.published(agency.engine, kind=kind)]


def sign(agency, agreement_id, content=PDF):
    with agency.tx() as tx:
        life.sign(
            tx=tx,
            agency=agency.agency,
            agreement_id=agreement_id,
            content=content,
            version=None,
            moment=agency.moment(tx),
            bank=agency.bank,
        )


def reinstate(agency, agreement_id, *, authority=limits.SYSTEM, grace=None):
    with agency.tx() as tx:
        life.reinstate(
            tx=tx,
            agency=agency.agency,
            agreement_id=agreement_id,
            grace_date=grace,
            reason="he came back",
            version=None,
            authority=authority,
            moment=agency.moment(tx),
            bank=agency.bank,
        )


def debt(agency, placed):
    with agency.tx() as tx:
        (found,) = titles.explain(
            tx=tx, agency=agency.agency, case_ids=[placed.case_id], date=agency.moment(tx).business_date
        )
    return found.total_minor


def made_titles(agency, agreement_id):
    return agency.rows("SELECT * FROM titles WHERE origin_agreement_id = %s ORDER BY due_date", agreement_id)


# -- type A ------------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S3-10")
def test_w07_unchanged_titles_wait_for_the_tolerance_date_and_not_longer(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    tolerance = datetime.date(2026, 11, 30)  # a Monday: 55 days late
    agreement_id = agency.agree(placed.case_id, **unchanged(tolerance))
    (row,) = agency.instalments(agreement_id)
    assert (row.due_date, row.amount_minor) == (tolerance, 100_000 + 2_000 + 1_833)
    assert agency.title(placed).state == "IN_AGREEMENT"
    agency.run_day(tolerance)
    assert agency.agreement(agreement_id).state == "ACTIVE"
    agency.run_day(tolerance + DAY)
    assert agency.agreement(agreement_id).state == "BROKEN"
    assert agency.title(placed).state == "OPEN"


def test_unchanged_titles_paid_by_the_tolerance_date(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, **unchanged(datetime.date(2026, 11, 30)))
    agency.set_clock(datetime.date(2026, 11, 30))
    agency.pay(103_833, contract_reference="CT-1")
    agency.run_day(datetime.date(2026, 12, 1))
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert agency.title(placed).state == "PAID"


@pytest.mark.parametrize("days", [0, -1])
def test_w07_tolerance_of_today_or_before_is_refused(agency, days):
    (placed,) = agency.place((TUESDAY, 100_000))
    with pytest.raises(errors.InvalidRequest) as refused:
        agency.propose(placed.case_id, **unchanged(FRIDAY + days * DAY))
    assert refused.value.fields[0].field == "nature.tolerance_date"
    assert "2026-11-21" in refused.value.fields[0].description


def test_unchanged_titles_take_no_other_terms(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    options = unchanged(FRIDAY + 10 * DAY)["options"]
    with pytest.raises(errors.InvalidRequest):
        agency.propose(placed.case_id, terms=THREE, options=options)


# -- type B ------------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S3-12", "S5-02", "S5-04")
def test_a_novation_replaces_originals_by_new_titles_with_their_lineage(agency):
    first, second = agency.place((TUESDAY, 100_000), (TUESDAY + DAY, 50_000), contract="CT-9")
    agreement_id = agency.agree(first.case_id, terms=THREE, options=NOVATION)
    assert {agency.title(one).state for one in (first, second)} == {"NOVATED"}
    assert {agency.title(one).received_minor for one in (first, second)} == {0}
    new = made_titles(agency, agreement_id)
    assert [one.reference for one in new] == ["REN-CT-9-1/1", "REN-CT-9-1/2", "REN-CT-9-1/3"]
    assert [one.state for one in new] == ["IN_AGREEMENT"] * 3
    rows = agency.instalments(agreement_id)
    assert [one.principal_minor for one in new] == [row.capital_minor for row in rows]
    with agency.tx() as tx:
        up, down = titles.lineage(
            tx=tx, agency=agency.agency, title_id=first.title_id, creditor=agency.creditor_id
        )
        assert ([one.id for one in up], [one.id for one in down]) == ([], [one.id for one in new])
        up, down = titles.lineage(tx=tx, agency=agency.agency, title_id=new[0].id, creditor=None)
        assert ([one.id for one in up], down) == ([first.title_id, second.title_id], [])
        with pytest.raises(errors.ResourceNotFound):
            titles.lineage(tx=tx, agency=agency.agency, title_id=new[0].id, creditor=ids.new())
    agency.pay(rows[0].amount_minor, contract_reference="CT-9")
    assert [one.state for one in made_titles(agency, agreement_id)] == [
        "PAID",
        "IN_AGREEMENT",
        "IN_AGREEMENT",
    ]
    agency.pay(rows[1].amount_minor, title_reference="REN-CT-9-1/2")
    agency.pay(rows[2].amount_minor, contract_reference="CT-9")
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert debt(agency, first) == 0


def test_the_new_titles_are_told_before_anything_of_theirs_changes(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    kinds = [found.fact.WhichOneof("fact") for found in testing.published(agency.engine)]
    told = kinds.index("titles_novated")
    assert "titles_changed" not in kinds[:told]
    (fact,) = published(agency, "titles_novated")
    body = fact.titles_novated
    new = made_titles(agency, agreement_id)
    assert [bytes(one) for one in body.title_ids] == [one.id.bytes for one in new]
    assert list(body.principal_minor) == [one.principal_minor for one in new]
    assert [bytes(one) for one in body.table_parents] == [placed.title_id.bytes]
    assert list(body.table_currencies) == ["BRL"]


@pytest.mark.parametrize("policy", list(creditors.BreachPolicy))
@pytest.mark.feature("S5-04")
def test_a_breach_does_what_the_creditor_set_at_the_proposal(agency, policy):
    settle(agency, breach_policy=policy)
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    settle(agency, breach_policy=creditors.BreachPolicy.RESTORE_ORIGINALS)
    total = agency.agreement(agreement_id).total_minor
    agency.pay(10_000, contract_reference="CT-1")
    agency.run_day(datetime.date(2026, 12, 28))
    assert agency.agreement(agreement_id).state == "BROKEN"
    original, new = agency.title(placed), made_titles(agency, agreement_id)
    if policy is creditors.BreachPolicy.KEEP_NOVATION:
        assert (original.state, {one.state for one in new} <= {"OPEN", "PARTIALLY_PAID"}) == ("NOVATED", True)
    else:
        assert original.state == "PARTIALLY_PAID"
        assert {one.state for one in new} == {"NOVATED"}
    # a kept title is late, so its penalty counts: 2 % of 345.56 - 100.00
    penalty = 491 if policy is creditors.BreachPolicy.KEEP_NOVATION else 0
    assert debt(agency, placed) == total - 10_000 + penalty
    agency.run_day(datetime.date(2026, 12, 28))
    assert debt(agency, placed) == total - 10_000 + penalty


def test_a_payment_taken_back_after_the_originals_are_back_is_owed_on_them(agency):
    first, second = agency.place((TUESDAY, 10_000), (TUESDAY + DAY, 50_000))
    agreement_id = agency.agree(first.case_id, terms=THREE, options=NOVATION)
    payment = agency.pay(15_000, contract_reference="CT-1")
    agency.cancel(agreement_id)
    assert (agency.title(first).state, agency.title(second).state) == ("NOVATED", "PARTIALLY_PAID")
    owed = debt(agency, first)
    agency.reverse(payment)
    assert (agency.title(first).state, agency.title(second).state) == ("OPEN", "OPEN")
    assert debt(agency, first) == owed + 15_000
    assert {one.state for one in made_titles(agency, agreement_id)} == {"NOVATED"}


def test_cancelled_it_is_as_if_it_had_not_been(agency):
    settle(agency, breach_policy=creditors.BreachPolicy.KEEP_NOVATION)
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    agency.cancel(agreement_id)
    assert agency.title(placed).state == "OPEN"
    assert debt(agency, placed) == 103_667
    # and again, with other numbers
    second = agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    assert made_titles(agency, second)[0].reference == "REN-CT-1-2/1"


def test_a_withdrawn_novation_withdraws_all_that_was_asked_for(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    all_of = [(one.case_id, one.id) for one in agency.rows("SELECT case_id, id FROM titles")]
    with agency.tx() as tx:
        titles.withdraw(
            tx=tx, agency=agency.agency, withdrawn=all_of, moment=agency.moment(tx), bank=agency.bank
        )
    assert agency.agreement(agreement_id).state == "CANCELLED"
    assert agency.title(placed).state == "WITHDRAWN"
    assert debt(agency, placed) == 0


@pytest.mark.feature("S5-15")
def test_with_an_acquirer_the_debt_is_settled_and_only_his_payment_pays_his_title(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    options = {"nature": novations.Nature(kind=accounts.AgreementKind.NOVATION, acquirer="CIELO")}
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=options)
    assert agency.agreement(agreement_id).state == "FULFILLED"
    assert debt(agency, placed) == 0
    assert agency.instruments(agreement_id) == []
    assert published(agency, "titles_novated") == []
    new = made_titles(agency, agreement_id)
    debtors = agency.pay(500, contract_reference="CT-1")
    assert agency.payment(debtors).overpaid_minor == 500
    his = agency.pay(new[0].principal_minor, title_reference=new[0].reference)
    assert agency.payment(his).allocated_minor == new[0].principal_minor
    assert [one.state for one in made_titles(agency, agreement_id)] == ["PAID", "OPEN", "OPEN"]
    later = agency.summary(datetime.date(2027, 6, 1)).sums[0]
    assert later.open == sum(one.principal_minor for one in new[1:])
    told = {
        bytes(title_id)
        for fact in published(agency, "titles_changed")
        for title_id in fact.titles_changed.title_ids
    }
    assert told == {placed.title_id.bytes}
    with pytest.raises(errors.InvalidRequest):
        agency.propose(
            placed.case_id,
            terms=plans.Terms(
                instalments=3, first_due_date=datetime.date(2026, 12, 15), annual_rate_e4=120_000
            ),
            options=options,
        )


# -- confession --------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S1-27")
def test_a_required_confession_is_awaited_and_brings_it_into_force(agency):
    settle(agency, confession_required=True)
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    assert agency.agreement(agreement_id).state == "AWAITING_SIGNATURE"
    assert agency.title(placed).state == "OPEN"
    with pytest.raises(errors.InvalidRequest):
        sign(agency, agreement_id, b"MZ not a document")
    sign(agency, agreement_id)
    assert agency.agreement(agreement_id).state == "ACTIVE"
    with agency.tx() as tx:
        found = life.signed_document(
            tx=tx, agency=agency.agency, agreement_id=agreement_id, now=agency.moment(tx).now
        )
    assert b"".join(blobs.read(agency.engine, found.blob_id)) == PDF
    with pytest.raises(life.SignatureNotAwaited):
        sign(agency, agreement_id)
    with agency.tx() as tx:
        life.erase_document(
            tx=tx,
            agency=agency.agency,
            agreement_id=agreement_id,
            reason="asked for",
            version=None,
            moment=agency.moment(tx),
        )
    with pytest.raises(blobs.BlobErased):
        list(blobs.read(agency.engine, found.blob_id))
    with agency.tx() as tx, pytest.raises(life.SignedDocumentErased):
        life.signed_document(
            tx=tx, agency=agency.agency, agreement_id=agreement_id, now=agency.moment(tx).now
        )


def test_an_unsigned_agreement_expires_and_its_titles_were_never_bound(agency):
    settle(agency, confession_required=True)
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    other = agency.propose(placed.case_id, terms=THREE)
    agency.run_day(FRIDAY + 6 * DAY)
    assert agency.agreement(agreement_id).state == "EXPIRED"
    with pytest.raises(life.ProposalExpired):
        sign(agency, agreement_id)
    with pytest.raises(life.NoSignedDocument), agency.tx() as tx:
        life.signed_document(tx=tx, agency=agency.agency, agreement_id=other, now=agency.moment(tx).now)


def test_a_title_paid_while_the_signature_is_awaited_needs_a_new_proposal(agency):
    settle(agency, confession_required=True)
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    agency.pay(100, title_reference=placed.reference)
    with pytest.raises(life.TitlesChangedSinceProposal):
        sign(agency, agreement_id)
    agency.cancel(agreement_id)
    assert agency.agreement(agreement_id).state == "CANCELLED"


def together(*actions):
    """Run actions at once; what each raised."""
    gate, outcomes = threading.Barrier(len(actions)), [None] * len(actions)

    def run(place, action):
        gate.wait()
        try:
            action()
        except errors.ServiceError as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=(place, action)) for place, action in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_two_signatures_over_the_same_titles_one_wins(agency):
    settle(agency, confession_required=True)
    (placed,) = agency.place((TUESDAY, 100_000))
    waiting = [agency.agree(placed.case_id, terms=THREE, options=NOVATION) for _ in range(2)]
    outcomes = together(*[lambda key=key: sign(agency, key) for key in waiting])
    assert [type(one) for one in outcomes if one is not None] in (
        [agreements.TitlesInAgreement],
        [life.TitlesChangedSinceProposal],
    )
    assert sorted(agency.agreement(key).state for key in waiting) == ["ACTIVE", "AWAITING_SIGNATURE"]


def test_payment_against_cancellation_of_a_novation_adds_up(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    owed = agency.agreement(agreement_id).total_minor
    outcomes = together(
        lambda: agency.cancel(agreement_id), lambda: agency.pay(10_000, contract_reference="CT-1")
    )
    assert outcomes == [None, None]
    assert debt(agency, placed) == owed - 10_000


# -- breach and reinstatement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, NOVATION])
def test_reinstated_with_what_was_paid_since_it_goes_on(agency, options):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE, options=options)
    first = agency.instalments(agreement_id)[0].amount_minor
    broken = datetime.date(2026, 12, 28)
    agency.run_day(broken)
    assert agency.agreement(agreement_id).state == "BROKEN"
    agency.set_clock(broken + DAY)
    payment = agency.pay(first, contract_reference="CT-1")
    with pytest.raises(approvals.ApprovalNeeded) as needed:
        reinstate(
            agency,
            agreement_id,
            authority=limits.Authority(subject="users/1", roles=frozenset({"collector"})),
        )
    assert needed.value.rule == "REINSTATE"
    reinstate(agency, agreement_id)
    found = agency.agreement(agreement_id)
    assert (found.state, found.end_date, found.paid_minor) == ("ACTIVE", None, first)
    assert [row.state for row in agency.instalments(agreement_id)] == ["PAID_LATE", "SCHEDULED", "SCHEDULED"]
    agency.check_money()
    with pytest.raises(life.AgreementNotBroken):
        reinstate(agency, agreement_id)
    # its own payments are counted again as everywhere
    agency.reverse(payment)
    assert [row.state for row in agency.instalments(agreement_id)] == ["MISSED", "SCHEDULED", "SCHEDULED"]
    for row in agency.instalments(agreement_id):
        agency.pay(row.amount_minor, contract_reference="CT-1")
    assert agency.agreement(agreement_id).state == "FULFILLED"


def next_days(agency, agreement_id):
    return {
        row.next_day
        for row in agency.rows("SELECT next_day FROM agreement_cases WHERE agreement_id = %s", agreement_id)
    }


def test_a_day_looks_only_at_agreements_that_it_may_move_and_moves_them_as_if_it_looked_at_all(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    assert next_days(agency, agreement_id) == {datetime.date(1, 1, 1)}
    date, noted, looked = FRIDAY, datetime.date(1, 1, 1), 0
    while agency.agreement(agreement_id).state == "ACTIVE":
        date += DAY
        agency.run_day(date)
        if agency.agreement(agreement_id).state != "ACTIVE":
            break
        looked += noted <= date
        (noted,) = next_days(agency, agreement_id)
        assert noted > date
        with agency.tx() as tx:
            known = account_store.agreements(tx, agency.agency, [agreement_id])[agreement_id]
            for row in account_store.instalments(tx, agency.agency, [agreement_id])[agreement_id]:
                assert row.state is accounts.instalment_state(row, agreement=known, business_date=date)
                assert row.charged_interest_minor == (row.interest_minor if row.due_date <= date else 0)
    assert date == noted == datetime.date(2026, 12, 25)
    assert looked == 4  # at first, to be notified, due and missed
    assert next_days(agency, agreement_id) == {datetime.date(9999, 12, 31)}
    # brought back it is looked at again, and so is what a payment changed
    reinstate(agency, agreement_id)
    assert next_days(agency, agreement_id) == {datetime.date(1, 1, 1)}
    agency.run_day(date + DAY)
    assert next_days(agency, agreement_id) == {date + 11 * DAY}
    for row in agency.instalments(agreement_id):
        agency.pay(row.amount_minor, contract_reference="CT-1")
    assert agency.agreement(agreement_id).state == "FULFILLED"
    agency.run_day(date + 11 * DAY)
    assert next_days(agency, agreement_id) == {datetime.date(9999, 12, 31)}


def test_a_reinstated_agreement_is_spared_through_its_grace_and_not_longer(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    broken = datetime.date(2026, 12, 28)
    agency.run_day(broken)
    with pytest.raises(errors.InvalidRequest):
        reinstate(agency, agreement_id, grace=broken)
    reinstate(agency, agreement_id, grace=broken + 3 * DAY)
    agency.run_day(broken + 3 * DAY)
    assert agency.agreement(agreement_id).state == "ACTIVE"
    assert agency.instalments(agreement_id)[0].state == "MISSED"
    agency.run_day(broken + 4 * DAY)
    assert agency.agreement(agreement_id).state == "BROKEN"


def test_what_was_agreed_anew_is_not_reinstated(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=THREE)
    agency.run_day(datetime.date(2026, 12, 28))
    later = plans.Terms(instalments=2, first_due_date=datetime.date(2027, 1, 15))
    second = agency.agree(placed.case_id, terms=later)
    with pytest.raises(agreements.TitlesInAgreement):
        reinstate(agency, agreement_id)
    agency.cancel(second)
    with pytest.raises(novations.TitlesChangedSinceTheEnd):
        reinstate(agency, agreement_id)


@pytest.mark.feature("S3-26", "S2-39")
def test_lists_name_what_is_due_and_what_is_past_tolerance(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    (other,) = agency.place((TUESDAY, 100_000))
    plan = agency.agree(placed.case_id, terms=THREE)
    waits = agency.agree(other.case_id, **unchanged(datetime.date(2026, 11, 28)))  # a Saturday

    def listed(**filters):
        with agency.tx() as tx:
            return {one.id for one in agreement_store.page(tx, agency.agency, after=None, limit=9, **filters)}

    assert listed(due_from=datetime.date(2026, 12, 15), due_to=datetime.date(2026, 12, 15)) == {plan}
    assert listed(due_to=datetime.date(2026, 11, 30)) == {waits}
    assert listed(past_tolerance=datetime.date(2026, 11, 28)) == set()
    assert listed(past_tolerance=datetime.date(2026, 11, 29)) == {waits}
    assert listed(kind="UNCHANGED") == {waits}


# -- promises ----------------------------------------------------------------------------------------------------------


def promise(agency, placed, minor, date, *, contact_id=None, hour=13):
    """A contact in which an amount was promised by a day."""
    contact_id = contact_id or ids.new()
    fact = case_facts_pb2.CaseFact(agency=agency.agency.bytes)
    made = agency.today
    fact.occurred_at.FromDatetime(datetime.datetime.combine(made, datetime.time(hour)))
    fact.business_date.CopyFrom(dates.to_proto(made))
    said = fact.contact_recorded
    said.case_id, said.contact_id = placed.case_id.bytes, contact_id.bytes
    said.promise_date.CopyFrom(dates.to_proto(date))
    said.promise_amount_minor, said.currency = minor, "BRL"
    handler = worker.AgreementWorker()
    handler.engine, handler.wiring = agency.engine, agency.wiring
    with agency.tx() as tx:
        handler.case_facts(tx, [fact])
    return contact_id


def promises_of(agency):
    with agency.tx() as tx:
        found = promise_store.page(
            tx, agency.agency, creditor=None, case_id=None, state=None, after=None, limit=50
        )
    return [(one.contact_id, one.state.value, one.paid_minor) for one in found]


MONDAY = datetime.date(2026, 11, 23)


def test_a_promise_is_kept_by_payments_through_its_tolerance(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    key = promise(agency, placed, 5_000, MONDAY)
    agency.pay(2_000, contract_reference="CT-1")
    assert promises_of(agency) == [(key, "PENDING", 2_000)]
    agency.run_day(MONDAY + 2 * DAY)
    agency.pay(3_000, contract_reference="CT-1")
    assert promises_of(agency) == [(key, "KEPT", 5_000)]
    states = [fact.promise_changed.state for fact in published(agency, "promise_changed")]
    assert states == [1, 1, 2]


def test_a_broken_promise_is_kept_by_a_payment_reported_late_and_broken_by_its_reversal(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    key = promise(agency, placed, 5_000, MONDAY)
    agency.run_day(MONDAY + 2 * DAY)
    assert promises_of(agency) == [(key, "PENDING", 0)]
    agency.run_day(MONDAY + 3 * DAY)
    assert promises_of(agency) == [(key, "BROKEN", 0)]
    agency.pay(5_000, contract_reference="CT-1")
    assert promises_of(agency) == [(key, "BROKEN", 0)]
    late = agency.pay(5_000, contract_reference="CT-1", value_date=MONDAY + 2 * DAY)
    assert promises_of(agency) == [(key, "KEPT", 5_000)]
    agency.reverse(late)
    assert promises_of(agency) == [(key, "BROKEN", 0)]


def test_the_payment_may_come_before_the_promise_is_told(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.pay(5_000, contract_reference="CT-1")
    key = promise(agency, placed, 5_000, MONDAY)
    assert promises_of(agency) == [(key, "KEPT", 5_000)]
    promise(agency, placed, 5_000, MONDAY, contact_id=key)
    assert len(published(agency, "promise_changed")) == 1


def test_a_newer_promise_or_an_agreement_takes_its_place(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    first = promise(agency, placed, 5_000, MONDAY)
    second = promise(agency, placed, 6_000, MONDAY + DAY, hour=14)
    assert promises_of(agency) == [(first, "REPLACED", 0), (second, "PENDING", 0)]
    # told late, it is older all the same
    third = promise(agency, placed, 7_000, MONDAY, hour=12)
    assert {key: state for key, state, _ in promises_of(agency)}[third] == "REPLACED"
    agency.agree(placed.case_id, terms=THREE)
    assert {state for _, state, _ in promises_of(agency)} == {"REPLACED"}
    agency.run_day(MONDAY + 9 * DAY)
    assert {state for _, state, _ in promises_of(agency)} == {"REPLACED"}


def test_republish_tells_novated_titles_before_titles_and_promises_last(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.agree(placed.case_id, terms=THREE, options=NOVATION)
    promise(agency, placed, 5_000, MONDAY)
    before = len(testing.published(agency.engine))
    progress = republish.Progress()
    while progress is not None:
        with agency.tx() as tx:
            progress = republish.step(
                tx=tx, agency=agency.agency, progress=progress, moment=agency.moment(tx), page=2
            )
    kinds = [found.fact.WhichOneof("fact") for found in testing.published(agency.engine)[before:]]
    assert kinds[0] == "titles_novated"
    assert kinds[-1] == "promise_changed"


# -- over gRPC ---------------------------------------------------------------------------------------------------------


@pytest.mark.feature("S1-19", "S1-27", "S2-39", "S3-10", "S3-26", "S5-02", "S5-16")
def test_the_life_of_agreements_over_grpc(api, agency):
    settle(agency, confession_required=True)
    (placed,) = agency.place((TUESDAY, 100_000))
    terms = agreement_pb2.PlanTerms(instalments=2, first_due_date=dates.to_proto(datetime.date(2026, 12, 15)))
    nature = agreement_pb2.Nature(
        kind=agreement_pb2.Agreement.KIND_NOVATION,
        responsible="users/7",
        contact_person_id=str(ids.new()),
    )
    proposed = api(
        "ProposeAgreement",
        service.ProposeAgreementRequest(
            parent=api.name, case_ids=[str(placed.case_id)], terms=terms, nature=nature
        ),
    )
    assert proposed.nature == nature
    accepted = api(
        "AcceptAgreement",
        service.AcceptAgreementRequest(name=proposed.name, channel=agreement_pb2.Agreement.CHANNEL_PORTAL),
    )
    assert accepted.state == agreement_pb2.Agreement.STATE_AWAITING_SIGNATURE
    assert accepted.accept_channel == agreement_pb2.Agreement.CHANNEL_PORTAL
    assert accepted.accepted_by == "users/1"
    upload = service.UploadSignedDocumentRequest(name=proposed.name, content=PDF, request_id="sign-1")
    signed = api("UploadSignedDocument", upload)
    assert api("UploadSignedDocument", upload) == signed
    assert (signed.state, signed.honour) == (
        agreement_pb2.Agreement.STATE_ACTIVE,
        agreement_pb2.Agreement.HONOUR_ON_TIME,
    )
    assert signed.signed_document.content_type == "application/pdf"
    assert dates.from_proto(signed.next_due_date, "date") == datetime.date(2026, 12, 15)
    got = api("DownloadSignedDocument", service.DownloadSignedDocumentRequest(name=proposed.name))
    assert (got.content, got.document.sha256) == (PDF, signed.signed_document.sha256)
    title = f"{api.name}/titles/{placed.title_id}"
    lineage = api("GetTitleLineage", service.GetTitleLineageRequest(name=title))
    assert [one.origin_agreement for one in lineage.descendants] == [proposed.name] * 2
    listed = api("ListTitles", service.ListTitlesRequest(parent=api.name, case_id=str(placed.case_id))).titles
    assert [one.state for one in listed] == [
        agreement_pb2.Title.STATE_NOVATED,
        agreement_pb2.Title.STATE_IN_AGREEMENT,
        agreement_pb2.Title.STATE_IN_AGREEMENT,
    ]
    promise(agency, placed, 5_000, MONDAY)
    found = api("ListPromises", service.ListPromisesRequest(parent=api.name, case_id=str(placed.case_id)))
    assert [one.state for one in found.promises] == [agreement_pb2.Promise.STATE_PENDING]
    agency.pay(2_000, contract_reference="CT-1")
    half = api("GetAgreement", service.GetAgreementRequest(name=proposed.name))
    assert half.paid_rate_e4 == 2_000 * 1_000_000 // 103_667
    agency.run_day(datetime.date(2026, 12, 28))
    broken = api(
        "ListAgreements",
        service.ListAgreementsRequest(
            parent=api.name, past_tolerance=True, kind=agreement_pb2.Agreement.KIND_NOVATION
        ),
    ).agreements
    assert [one.honour for one in broken] == [agreement_pb2.Agreement.HONOUR_BROKEN]
    _, reason = api.refused("ReinstateAgreement", service.ReinstateAgreementRequest(name=proposed.name))
    assert reason == "APPROVAL_REQUESTED"
    erased = api(
        "EraseSignedDocument",
        service.EraseSignedDocumentRequest(name=proposed.name, reason="law"),
        scopes=("agreement.read", "agreement.write", "agreement.admin"),
    )
    assert erased.signed_document.erased


@pytest.mark.feature("S3-10")
def test_w07_a_tolerance_date_over_grpc_takes_no_terms(api, agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    tolerance = datetime.date(2026, 11, 30)
    request = service.ProposeAgreementRequest(
        parent=api.name,
        case_ids=[str(placed.case_id)],
        nature=agreement_pb2.Nature(
            kind=agreement_pb2.Agreement.KIND_UNCHANGED, tolerance_date=dates.to_proto(tolerance)
        ),
    )
    proposed = api("ProposeAgreement", request)
    assert [dates.from_proto(row.due_date, "date") for row in proposed.instalments] == [tolerance]
    assert proposed.expire_date == proposed.nature.tolerance_date
    request.nature.tolerance_date.CopyFrom(dates.to_proto(FRIDAY))
    assert api.refused("ProposeAgreement", request) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
