"""Instruments: issued, registered, copied, expired, paid; the accounts behind them."""

import concurrent.futures
import datetime
import threading

import pytest
import sqlalchemy

from agreement_service import providers
from agreement_service.domain import banks, boleto, collection, creditors, instruments, plans
from agreement_service.store import collection as collection_store
from agreement_service.store import creditors as creditor_store
from agreement_service.usecases import collection as collection_cases
from agreement_service.usecases import instruments as cases
from agreement_service.usecases import republish
from servicekit import errors, ids, testing

FRIDAY = datetime.date(2026, 11, 20)
MONDAY = datetime.date(2026, 11, 23)
TUESDAY = datetime.date(2026, 10, 6)
MONTH = datetime.date(2026, 12, 21)
TWO = plans.Terms(instalments=2, first_due_date=MONTH)
BOLETO, PIX = instruments.Kind.BOLETO, instruments.Kind.PIX
BRADESCO = collection.CollectionAccount(
    bank="237",
    branch="1172",
    account="0403005",
    wallet="06",
    beneficiary_name="Lojas Andrade S.A.",
    payable_days=5,
    pix_key="contato@andrade.example",
    pix_name="Lojas Andrade",
    pix_city="Campinas",
)


def issue(agency, placed, *, date=None, kinds=(), titles=None, account_id=None):
    """Instruments for titles outside an agreement; their ids."""
    with agency.tx() as tx:
        return cases.issue_for_titles(
            tx=tx,
            agency=agency.agency,
            case_id=placed.case_id,
            title_ids=[one.title_id for one in titles or [placed]],
            kinds=kinds,
            date=date,
            account_id=account_id,
            moment=agency.moment(tx),
            bank=agency.bank,
        )


def reissue(agency, instrument_id, *, date=None, version=None):
    with agency.tx() as tx:
        return cases.reissue(
            tx=tx,
            agency=agency.agency,
            instrument_id=instrument_id,
            date=date,
            version=version,
            moment=agency.moment(tx),
            bank=agency.bank,
        )


def cancel(agency, instrument_id, *, version=None):
    with agency.tx() as tx:
        cases.cancel(
            tx=tx,
            agency=agency.agency,
            instrument_id=instrument_id,
            version=version,
            moment=agency.moment(tx),
        )


def row(agency, instrument_id):
    return agency.rows("SELECT * FROM instruments WHERE id = %s", instrument_id)[0]


def account(agency, one=BRADESCO, *, creditor=True, default=True, description="main"):
    """A collection account of the agency's creditor, who is known by a title, or of the house."""
    if creditor:
        agency.place((TUESDAY, 100))
    with agency.tx() as tx:
        return collection_cases.create(
            tx=tx,
            agency=agency.agency,
            creditor_id=agency.creditor_id if creditor else None,
            description=description,
            account=one,
            active=True,
            is_default=default,
            moment=agency.moment(tx),
        )


class SlowBank(providers.OfflineBank):
    """A bank whose cancellations take their time."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.away = False

    def register(self, order):
        self.asked.append(("register", order.key))
        return super().register(order)

    def cancel(self, order):
        if self.away:
            raise providers.BankUnavailable
        self.asked.append(("cancel", order.key))
        return super().cancel(order)


@pytest.mark.feature("S2-29", "S2-31", "S4-17")
def test_loose_titles_get_a_slip_with_what_is_owed_on_the_date(agency):
    first, second = agency.place((TUESDAY, 100_000), (TUESDAY + datetime.timedelta(days=3), 50_000))
    slip, code = issue(agency, first, date=datetime.date(2026, 11, 28), titles=[first, second])
    made = row(agency, slip)
    assert made.due_date == datetime.date(2026, 11, 30)  # asked for a Saturday: the next business day
    parts = agency.rows(
        "SELECT * FROM instrument_titles WHERE instrument_id = %s ORDER BY amount_minor", slip
    )
    # W-15: penalty 2 % once, 1 % a month pro rata die; 55 and 52 days
    assert [part.amount_minor for part in parts] == [50_000 + 1_000 + 867, 100_000 + 2_000 + 1_833]
    assert made.amount_minor == sum(part.amount_minor for part in parts)
    assert boleto.decode(made.barcode, today=FRIDAY).amount_minor == made.amount_minor
    assert row(agency, code).kind == "PIX"
    agency.act()
    assert {one.state for one in agency.rows("SELECT state FROM instruments")} == {"REGISTERED"}


@pytest.mark.feature("S2-29")
def test_a_payment_that_names_a_loose_slip_pays_its_titles_and_closes_the_rest(agency):
    oldest, chosen, other = agency.place((TUESDAY, 30_000), (TUESDAY, 20_000), (TUESDAY, 10_000))
    slip, code = issue(agency, oldest, date=MONDAY, titles=[chosen, other])
    agency.act()
    agency.set_clock(MONDAY)
    paid = row(agency, slip)
    payment = agency.payment(
        agency.pay(paid.amount_minor, our_number=paid.our_number_printed, means="BOLETO", value_date=MONDAY)
    )
    assert payment.instrument_id == slip
    assert [agency.title(one).state for one in (oldest, chosen, other)] == ["OPEN", "PAID", "PAID"]
    assert payment.overpaid_minor == 0
    assert row(agency, slip).state == "PAID"
    assert row(agency, code).state == "CANCEL_REQUESTED"
    agency.act()
    assert row(agency, code).state == "CANCELLED"


def test_a_payment_of_a_title_makes_its_slip_unusable(agency):
    (placed,) = agency.place((TUESDAY, 30_000))
    slip, code = issue(agency, placed)
    agency.act()
    agency.pay(10_000, title_reference=placed.reference)
    assert {row(agency, one).state for one in (slip, code)} == {"CANCEL_REQUESTED"}


def test_an_agreement_makes_the_slips_of_its_titles_unusable(agency):
    (placed,) = agency.place((TUESDAY, 30_000))
    slip, code = issue(agency, placed)
    agency.agree(placed.case_id, terms=TWO)
    assert {row(agency, one).state for one in (slip, code)} == {"CANCELLED"}  # they were drafts


@pytest.mark.feature("S2-29")
def test_an_instrument_never_changes_while_payable(agency):
    (placed,) = agency.place((TUESDAY, 30_000))
    slip, _ = issue(agency, placed)
    agency.act()
    with pytest.raises(instruments.InstrumentPayable) as refused:
        issue(agency, placed, kinds=[BOLETO])
    assert refused.value.metadata["instrument"] == str(slip)
    cancel(agency, slip)
    with pytest.raises(instruments.InstrumentNotPayable):
        cancel(agency, slip)
    (again,) = issue(agency, placed, kinds=[BOLETO])
    assert row(agency, again).generation == 2


@pytest.mark.feature("S2-29", "S5-27")
def test_a_second_copy_is_registered_only_when_the_first_is_unusable(agency):
    agency.bank = bank = SlowBank()
    (placed,) = agency.place((TUESDAY, 100_000))
    slip, _ = issue(agency, placed, kinds=[BOLETO, PIX])
    agency.act()
    bank.away = True
    copy = reissue(agency, slip, date=datetime.date(2026, 12, 21))
    assert row(agency, copy).amount_minor > row(agency, slip).amount_minor
    assert row(agency, copy).our_number != row(agency, slip).our_number
    with pytest.raises(providers.BankUnavailable):
        agency.act()
    assert (row(agency, slip).state, row(agency, copy).state) == ("CANCELLING", "DRAFT")
    bank.away = False
    agency.act()
    assert (row(agency, slip).state, row(agency, copy).state) == ("CANCELLED", "REGISTERED")
    keys = [key for _, key in bank.asked]
    assert keys.index(row(agency, copy).act_key) > [*bank.asked].index(("cancel", row(agency, slip).act_key))
    with pytest.raises(instruments.InstrumentReplaced):
        reissue(agency, slip)


def test_the_copy_of_a_copy_that_still_waits(agency):
    agency.bank = bank = SlowBank()
    (placed,) = agency.place((TUESDAY, 100_000))
    (first,) = issue(agency, placed, kinds=[BOLETO])
    agency.act()
    bank.away = True
    second = reissue(agency, first)
    third = reissue(agency, second)
    with pytest.raises(providers.BankUnavailable):
        agency.act()
    assert row(agency, second).state == "CANCELLED"
    bank.away = False
    agency.act()
    assert (row(agency, first).state, row(agency, third).state) == ("CANCELLED", "REGISTERED")


def test_a_copy_does_not_wait_for_one_that_was_paid(agency):
    agency.bank = bank = SlowBank()
    (placed,) = agency.place((TUESDAY, 100_000))
    agency.agree(placed.case_id, terms=TWO)
    agency.act()
    slip = next(one for one in agency.rows("SELECT * FROM instruments ORDER BY id") if one.kind == "BOLETO")
    bank.away = True
    copy = reissue(agency, slip.id)
    agency.pay(1_000, our_number=slip.our_number)  # a part: the instalment stays open
    assert row(agency, slip.id).state == "PAID"
    agency.act()
    assert row(agency, copy).state == "REGISTERED"


def test_what_is_cancelled_while_the_bank_is_asked_is_cancelled_after(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    (slip,) = issue(agency, placed, kinds=[BOLETO])
    with agency.tx() as tx:
        claimed = cases.claim(tx, agency.agency, due="DRAFT", acting="REGISTERING", moment=agency.moment(tx))
    cancel(agency, slip)
    assert row(agency, slip).state == "REGISTERING"
    with pytest.raises(instruments.InstrumentNotPayable):
        cancel(agency, slip)
    with agency.tx() as tx:
        answers = [(one, providers.Registration.REGISTERED) for one, _ in claimed]
        moment = agency.moment(tx)
        cases.finish(
            tx,
            agency.agency,
            acting="REGISTERING",
            outcomes=[(one, answer, "") for one, answer in answers],
            moment=moment,
        )
    assert row(agency, slip).state == "CANCEL_REQUESTED"
    agency.act()
    assert row(agency, slip).state == "CANCELLED"


def test_expired_on_the_day_after_its_last_and_again_changes_nothing(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    slip, _ = issue(agency, placed, date=MONDAY)
    agency.act()
    assert row(agency, slip).payable_until == MONDAY
    agency.run_day(MONDAY)
    assert row(agency, slip).state == "REGISTERED"
    agency.run_day(MONDAY + datetime.timedelta(days=1))
    expired = row(agency, slip)
    assert expired.state == "EXPIRED"
    agency.run_day(MONDAY + datetime.timedelta(days=1))
    assert row(agency, slip).version == expired.version
    copy = reissue(agency, slip)
    agency.act()
    assert row(agency, copy).state == "REGISTERED"


def test_money_on_an_expired_slip_is_money(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    slip, _ = issue(agency, placed, date=MONDAY)
    agency.act()
    agency.run_day(MONDAY + datetime.timedelta(days=1))
    made = row(agency, slip)
    agency.pay(made.amount_minor, our_number=made.our_number, value_date=MONDAY)
    assert row(agency, slip).state == "PAID"
    assert agency.title(placed).state == "PAID"


@pytest.mark.feature("S1-29")
def test_only_the_means_that_the_creditor_accepts(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    with agency.tx() as tx:
        creditor_store.put(
            tx,
            agency.agency,
            agency.creditor_id,
            creditors.CreditorSettings(accepted_means=frozenset({"PIX", "TRANSFER"})),
            version=0,
        )
    agreement_id = agency.agree(placed.case_id, terms=TWO)
    assert {one.kind for one in agency.instruments(agreement_id)} == {"PIX"}
    (loose,) = agency.place((TUESDAY, 100_000))
    with pytest.raises(instruments.MeansNotAccepted) as refused:
        issue(agency, loose, kinds=[BOLETO])
    assert refused.value.metadata["kinds"] == "BOLETO"


@pytest.mark.feature("S5-26")
def test_a_creditors_account_numbers_its_own_slips(agency):
    account_id = account(agency)
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=TWO)
    slips = [one for one in agency.instruments(agreement_id) if one.kind == "BOLETO"]
    assert [one.our_number for one in slips] == ["00000000001", "00000000002"]
    assert {one.account_id for one in slips} == {account_id}
    bank = banks.of("237")
    for number, one in enumerate(slips, 1):
        ours = bank.our_number(BRADESCO, number, FRIDAY)
        assert one.our_number_printed == ours.printed
        assert boleto.decode(one.barcode, today=FRIDAY).free_field == bank.free_field(BRADESCO, ours)
        assert one.payable_until == providers.payable_until(one.due_date + datetime.timedelta(days=5), "BRL")
    code = next(one for one in agency.instruments(agreement_id) if one.kind == "PIX")
    assert "contato@andrade.example" in code.br_code
    assert agency.payment(agency.pay(1_000, our_number="06/00000000002-8")).instrument_id == slips[1].id


def test_the_same_number_on_two_accounts_is_not_guessed(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    issue(agency, placed, kinds=[BOLETO])  # number 1 of the provider's account
    account(agency)
    (other,) = agency.place((TUESDAY, 100_000))
    issue(agency, other, kinds=[BOLETO])  # number 1 of the creditor's
    assert agency.payment(agency.pay(1_000, our_number="1")).state == "UNIDENTIFIED"


@pytest.mark.feature("S5-26")
def test_the_house_account_serves_creditors_without_their_own_and_a_new_default_takes_over(agency):
    house = account(agency, creditor=False)
    with agency.tx() as tx:
        assert collection_store.default(tx, agency.agency, agency.creditor_id).id == house
    own = account(agency)
    second = account(agency, description="second")
    with agency.tx() as tx:
        assert collection_store.default(tx, agency.agency, agency.creditor_id).id == second
        assert not collection_store.find(tx, agency.agency, own).is_default
        assert collection_store.default(tx, agency.agency, ids.new()).id == house


@pytest.mark.feature("S5-26")
def test_the_account_is_chosen_or_refused(agency):
    account(agency)
    house = account(agency, creditor=False, default=False, description="house")
    (placed,) = agency.place((TUESDAY, 100_000))
    (slip,) = issue(agency, placed, kinds=[BOLETO], account_id=house)
    assert row(agency, slip).account_id == house
    (foreign,) = agency.place((TUESDAY, 100_000), creditor="CRED-2", creditor_id=ids.new())
    own = agency.rows("SELECT id FROM collection_accounts WHERE creditor_id IS NOT NULL")[0].id
    with pytest.raises(instruments.CollectionAccountNotUsable):
        issue(agency, foreign, account_id=own)
    with pytest.raises(errors.ResourceNotFound):
        issue(agency, foreign, account_id=ids.new())


def test_a_forecast_is_not_collected(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    with agency.tx() as tx:
        tx.execute(sqlalchemy.text("UPDATE titles SET title_type = 'FORECAST'"))
    with pytest.raises(instruments.TitleNotCollectable):
        issue(agency, placed)


def test_what_names_an_account_at_the_bank_never_changes(agency):
    account_id = account(agency)
    with agency.tx() as tx:
        found = collection_store.find(tx, agency.agency, account_id)
        with pytest.raises(errors.InvalidRequest) as refused:
            collection_cases.update(
                tx=tx,
                agency=agency.agency,
                account_id=account_id,
                wanted=found,
                only=["branch"],
                version=None,
            )
    assert refused.value.fields[0].field == "update_mask"
    with pytest.raises(collection_cases.DescriptionTaken):
        account(agency)


def test_bad_titles_and_dates_are_named(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    (bound,) = agency.place((TUESDAY, 100_000))
    agency.agree(bound.case_id, terms=TWO)
    with pytest.raises(instruments.TitleNotCollectable):
        issue(agency, bound)
    with pytest.raises(instruments.TitleNotCollectable):
        issue(agency, placed, titles=[bound])
    for date in (FRIDAY - datetime.timedelta(days=1), FRIDAY + datetime.timedelta(days=366)):
        with pytest.raises(errors.InvalidRequest) as refused:
            issue(agency, placed, date=date)
        assert refused.value.fields[0].description == "expected 2026-11-20 to 2027-11-20"
    with pytest.raises(errors.InvalidRequest):
        issue(agency, placed, titles=[placed, placed])


def test_more_than_a_slip_can_say(agency):
    (placed,) = agency.place((TUESDAY, boleto.MAX_AMOUNT_MINOR))
    with pytest.raises(instruments.AmountAboveInstrument) as refused:
        issue(agency, placed, kinds=[BOLETO])
    assert refused.value.metadata["maximum_minor"] == str(boleto.MAX_AMOUNT_MINOR)
    (code,) = issue(agency, placed)
    assert row(agency, code).kind == "PIX"


def test_an_instalment_that_is_paid_gets_none(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=TWO)
    first, second = agency.instalments(agreement_id)
    slips = [one for one in agency.instruments(agreement_id) if one.kind == "BOLETO"]
    agency.pay(first.amount_minor, our_number=slips[0].our_number)

    def ask(instalment_id, **options):
        with agency.tx() as tx:
            return cases.issue_for_instalment(
                tx=tx,
                agency=agency.agency,
                instalment_id=instalment_id,
                kinds=options.get("kinds", ()),
                date=options.get("date"),
                moment=agency.moment(tx),
                bank=agency.bank,
            )

    with pytest.raises(instruments.InstalmentNotOpen):
        ask(first.instalment_id)
    with pytest.raises(errors.ResourceNotFound):
        ask(ids.new())
    with pytest.raises(instruments.InstrumentPayable):
        ask(second.instalment_id)
    slip = next(one for one in agency.instruments(agreement_id) if one.number == 2 and one.kind == "BOLETO")
    cancel(agency, slip.id)
    (again,) = ask(second.instalment_id, date=datetime.date(2026, 12, 1))
    made = row(agency, again)
    assert (made.kind, made.generation, made.due_date) == ("BOLETO", 2, datetime.date(2026, 12, 1))


def test_a_second_copy_of_an_overdue_instalment_is_due_today(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=TWO)
    agency.act()
    late = MONTH + datetime.timedelta(days=3)
    agency.run_day(late)
    slip = next(one for one in agency.instruments(agreement_id) if one.kind == "BOLETO")
    agency.pay(
        100,
        our_number="",
        contract_reference=agency.rows("SELECT * FROM case_accounts")[0].contract_reference,
    )
    copy = row(agency, reissue(agency, slip.id))
    assert copy.due_date == late
    assert copy.amount_minor == slip.amount_minor - 100


def test_a_stale_etag_is_refused(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    slip, _ = issue(agency, placed)
    version = row(agency, slip).version
    agency.act()
    with pytest.raises(errors.VersionMismatch):
        cancel(agency, slip, version=version)
    with pytest.raises(errors.VersionMismatch):
        reissue(agency, slip, version=version)


def test_every_change_is_told(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    testing.take(agency.engine)

    def told():
        return [
            (body.states[place], body.versions[place], body.amount_minor[place])
            for found in testing.take(agency.engine)
            if found.fact.WhichOneof("fact") == "instruments_changed"
            for body in [found.fact.instruments_changed]
            for place in range(len(body.instrument_ids))
        ]

    (slip,) = issue(agency, placed, kinds=[BOLETO])
    drafted = told()
    agency.act()
    registered = told()
    cancel(agency, slip)
    requested = told()
    agency.act()
    cancelled = told()
    amount = row(agency, slip).amount_minor
    states = [one for (one,) in (drafted, registered, requested, cancelled)]
    assert [state for state, _, _ in states] == [1, 3, 8, 7]
    versions = [version for _, version, _ in states]
    assert versions == sorted(set(versions))
    assert {minor for _, _, minor in states} == {amount}
    with agency.tx() as tx:
        republish.step(
            tx=tx,
            agency=agency.agency,
            progress=republish.Progress(part="instruments"),
            moment=agency.moment(tx),
        )
    assert told() == [states[-1]]


def test_facts_name_no_one(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    issue(agency, placed)
    for found in testing.published(agency.engine, kind="instruments_changed"):
        assert {field.name for field, _ in found.fact.instruments_changed.ListFields()} == {
            "case_ids",
            "instrument_ids",
            "versions",
            "kinds",
            "states",
            "amount_minor",
            "due_days",
        }


# -- two at once -----------------------------------------------------------------------------------------------------


def at_once(*works):
    """Run all, started together; results, or the typed errors."""
    barrier = threading.Barrier(len(works))

    def run(work):
        barrier.wait()
        try:
            return work()
        except errors.ServiceError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, work) for work in works]]


def live(agency, case_id, kind="BOLETO"):
    return agency.rows(
        "SELECT * FROM instruments WHERE case_id = %s AND kind = %s AND NOT unwanted"
        " AND state IN ('DRAFT', 'REGISTERING', 'REGISTERED')",
        case_id,
        kind,
    )


def test_two_issues_at_once_give_one_slip(agency):
    for _ in range(3):
        (placed,) = agency.place((TUESDAY, 100_000))
        results = at_once(*[lambda: issue(agency, placed, kinds=[BOLETO])] * 2)  # noqa: B023
        refused = [one for one in results if isinstance(one, errors.ServiceError)]
        assert [type(one) for one in refused] == [instruments.InstrumentPayable]
        assert len(live(agency, placed.case_id)) == 1


def test_two_copies_at_once_give_one(agency):
    for _ in range(3):
        (placed,) = agency.place((TUESDAY, 100_000))
        (slip,) = issue(agency, placed, kinds=[BOLETO])
        agency.act()
        results = at_once(*[lambda: reissue(agency, slip)] * 2)  # noqa: B023
        refused = [one for one in results if isinstance(one, errors.ServiceError)]
        assert [type(one) for one in refused] == [instruments.InstrumentReplaced]
        agency.act()
        assert len(live(agency, placed.case_id)) == 1


def test_a_payment_against_a_copy_leaves_nothing_payable(agency):
    for _ in range(3):
        (placed,) = agency.place((TUESDAY, 100_000))
        (slip,) = issue(agency, placed, kinds=[BOLETO])
        agency.act()
        made = row(agency, slip)
        at_once(
            lambda: agency.pay(made.amount_minor, our_number=made.our_number, value_date=made.due_date),  # noqa: B023
            lambda: reissue(agency, slip),  # noqa: B023
        )
        agency.act()
        assert agency.title(placed).state == "PAID"
        assert row(agency, slip).state == "PAID"
        assert live(agency, placed.case_id) == []


def test_a_process_of_the_release_before_still_issues(agency):
    (placed,) = agency.place((TUESDAY, 100_000))
    agreement_id = agency.agree(placed.case_id, terms=TWO)
    with agency.tx() as tx:
        tx.execute(
            sqlalchemy.text(
                "INSERT INTO instruments (agency, id, instalment_id, kind, generation, state, amount_minor, due_date,"
                " due_at, act_key)"
                " VALUES (:agency, :id, :instalment_id, 'PIX', 9, 'DRAFT', 100, '2026-12-21', now(), 'x')"
            ),
            {
                "agency": agency.agency,
                "id": ids.new(),
                "instalment_id": agency.instalments(agreement_id)[0].instalment_id,
            },
        )
    old = agency.rows("SELECT * FROM instruments WHERE generation = 9")[0]
    assert (old.case_id, old.issue_date, old.payable_until) == (placed.case_id, FRIDAY, None)
