"""Collecting in euro on a real database: references, mandates, collection files, returns."""

import concurrent.futures
import dataclasses
import datetime
import threading
import uuid
from typing import Any
from xml.etree import ElementTree

import pypdfium2
import pytest

from agreement_service import worker
from agreement_service.domain import creditors, multibanco, plans, sepa
from agreement_service.store import mandates as store
from agreement_service.usecases import collections, instruments, mandates, papers
from agreement_service.usecases import creditors as creditor_cases
from recupera.agreement.v1 import agreement_service_pb2, mandate_service_pb2, mandates_pb2
from servicekit import dates, errors

FRIDAY = datetime.date(2026, 11, 20)
IBAN = "PT50000201231234567890154"
NS = {"p": "urn:iso:std:iso:20022:tech:xsd:pain.008.001.08"}


def day(number: int) -> datetime.date:
    return FRIDAY + datetime.timedelta(days=number)


class Desk:
    """An agency that collects in euro."""

    def __init__(self, agency: Any) -> None:
        self.agency = agency
        agency.place((FRIDAY, 1_000))  # the creditor is known by its first title

    def open_account(self, **fields: Any) -> None:
        with self.agency.tx() as tx:
            mandates.set_euro_account(
                tx=tx,
                agency=self.agency.agency,
                creditor_id=self.agency.creditor_id,
                new=store.EuroAccount(
                    **{
                        "holder_name": "Banco Azul SA",
                        "iban": IBAN,
                        "scheme_identifier": "PT73ZZZ123456",
                        **fields,
                    }
                ),
                version=None,
            )

    def place(self, minor: int = 30_000) -> uuid.UUID:
        (placed,) = self.agency.place(
            (datetime.date(2026, 10, 1), minor), currency="EUR", penalty_e4=0, monthly_e4=0
        )
        return placed.case_id

    def agree(self, case_id: uuid.UUID, instalments: int = 3) -> uuid.UUID:
        made = self.agency.agree(
            case_id, terms=plans.Terms(instalments=instalments, first_due_date=day(20), annual_rate_e4=0)
        )
        self.agency.act()
        return made

    def sign(self, case_id: uuid.UUID, **fields: Any) -> uuid.UUID:
        with self.agency.tx() as tx:
            made = mandates.create(
                tx=tx,
                agency=self.agency.agency,
                **{
                    "case_id": case_id,
                    "reference": f"M-{case_id.hex[-12:]}",
                    "signature_date": FRIDAY,
                    "scheme": sepa.Scheme.CORE,
                    "one_off": False,
                    "iban": IBAN,
                    **fields,
                },
                moment=self.agency.moment(tx),
                bank=self.agency.bank,
            )
        self.agency.act()
        return made

    def collect(self, through: datetime.date) -> uuid.UUID:
        with self.agency.tx() as tx:
            return collections.collect(
                tx=tx,
                agency=self.agency.agency,
                creditor_id=self.agency.creditor_id,
                due_through=through,
                moment=self.agency.moment(tx),
            )

    def write(self) -> None:
        worker.write_collection_files(self.agency.engine, self.agency.wiring, self.agency.agency)

    def content(self, file_id: uuid.UUID) -> ElementTree.Element:
        found = collections.content(self.agency.engine, self.agency.agency, file_id)
        return ElementTree.fromstring(b"".join(found))

    def come_back(self, key: str, code: str, **fields: Any) -> None:
        with self.agency.tx() as tx:
            mandates.come_back(
                tx=tx,
                agency=self.agency.agency,
                end_to_end_id=key,
                reason_code=code,
                return_date=fields.get("return_date"),
                moment=self.agency.moment(tx),
                bank=self.agency.bank,
            )
        self.agency.act()

    def cancel(self, mandate_id: uuid.UUID) -> None:
        with self.agency.tx() as tx:
            mandates.cancel(
                tx=tx,
                agency=self.agency.agency,
                mandate_id=mandate_id,
                version=None,
                moment=self.agency.moment(tx),
            )
        self.agency.act()

    def mandate(self, mandate_id: uuid.UUID) -> store.Mandate:
        with self.agency.tx() as tx:
            return store.get(tx, self.agency.agency, [mandate_id])[mandate_id]

    def debits(self) -> list[Any]:
        return self.agency.rows(
            "SELECT direct_debits.*, instruments.txid, instruments.due_date, instruments.generation,"
            " instruments.state AS instrument FROM direct_debits JOIN instruments ON id = instrument_id"
            " ORDER BY instruments.due_date, instruments.generation"
        )


@pytest.fixture
def desk(agency: Any) -> Desk:
    return Desk(agency)


def of_kind(agency: Any, agreement_id: uuid.UUID, kind: str) -> list[Any]:
    return [one for one in agency.instruments(agreement_id) if one.kind == kind]


@pytest.mark.feature("S1-05")
def test_an_agreement_in_euro_has_multibanco_references(agency, desk):
    agreement = desk.agree(desk.place())
    found = of_kind(agency, agreement, "MULTIBANCO")
    assert [one.state for one in found] == ["REGISTERED"] * 3
    for one in found:
        reference = multibanco.parse(
            entity=one.our_number[:5], reference=one.our_number[5:], amount_minor=one.amount_minor
        )
        assert reference.entity == "90150"
        assert one.our_number_printed == multibanco.spaced(reference.reference)
    assert {one.kind for one in agency.instruments(agreement)} == {"MULTIBANCO"}
    assert len({one.our_number for one in found}) == 3
    assert all(one.payable_until is None for one in found)


@pytest.mark.feature("S1-29")
@pytest.mark.parametrize("accepted", [{"MULTIBANCO"}, {"SEPA_DD"}, {"TRANSFER"}, {"MULTIBANCO", "SEPA_DD"}])
def test_instruments_are_of_the_means_that_the_creditor_accepts(agency, desk, accepted):
    desk.open_account()
    case_id = desk.place()
    desk.sign(case_id)
    with agency.tx() as tx:
        creditor_cases.update(
            tx=tx,
            agency=agency.agency,
            creditor_id=agency.creditor_id,
            new=dataclasses.replace(creditors.DEFAULTS, accepted_means=frozenset(accepted)),
            only=["accepted_means"],
            version=None,
        )
    agreement = desk.agree(case_id)
    assert {one.kind for one in agency.instruments(agreement)} == accepted - {"TRANSFER"}


def test_references_are_of_the_creditors_own_entity(agency, desk):
    desk.open_account(multibanco_entity="11223")
    agreement = desk.agree(desk.place(), 1)
    assert of_kind(agency, agreement, "MULTIBANCO")[0].our_number[:5] == "11223"


def test_loose_titles_have_a_reference_and_its_paper(agency, desk):
    case_id = desk.place(43_211)
    (title,) = agency.rows("SELECT id FROM titles WHERE case_id = %s", case_id)
    with agency.tx() as tx:
        (instrument_id,) = instruments.issue_for_titles(
            tx=tx,
            agency=agency.agency,
            case_id=case_id,
            title_ids=[title.id],
            kinds=(),
            date=None,
            moment=agency.moment(tx),
            bank=agency.bank,
        )
    agency.act()
    with agency.tx() as tx:
        paper = papers.read(
            tx=tx,
            agency=agency.agency,
            instrument_id=instrument_id,
            form=papers.Format.PDF,
            creditor=None,
            bank=agency.bank,
        )
    printed = papers.render(paper, form=papers.Format.PDF, agency=agency.agency, parties=agency.parties)
    text = pypdfium2.PdfDocument(printed)[0].get_textpage().get_text_range()
    (row,) = agency.rows("SELECT * FROM instruments WHERE id = %s", instrument_id)
    assert row.our_number[:5] in text
    assert row.our_number_printed in text
    assert "432,11" in text
    payment = agency.pay(43_211, means="MULTIBANCO", currency="EUR", our_number=row.our_number_printed)
    assert agency.payment(payment).instrument_id == instrument_id


def test_no_reference_says_more_than_999_999_99(agency, desk):
    agreement = desk.agree(desk.place(100_000_000), 1)
    assert agency.instruments(agreement) == []


@pytest.mark.parametrize("write", ["{0}{1}", "{1}", "{0} {2}", "{2}"])
def test_a_payment_by_reference_finds_its_instalment(agency, desk, write):
    agreement = desk.agree(desk.place())
    second = of_kind(agency, agreement, "MULTIBANCO")[1]
    entity, reference = second.our_number[:5], second.our_number[5:]
    payment = agency.pay(
        second.amount_minor,
        means="MULTIBANCO",
        currency="EUR",
        our_number=write.format(entity, reference, multibanco.spaced(reference)),
    )
    assert agency.payment(payment).instrument_id == second.id
    assert of_kind(agency, agreement, "MULTIBANCO")[1].state == "PAID"
    again = agency.pay(second.amount_minor, means="MULTIBANCO", currency="EUR", our_number=second.our_number)
    assert (
        agency.payment(again).state.value == "ALLOCATED"
    )  # references are paid twice: the next instalment takes it


@pytest.mark.parametrize("signed_first", [True, False])
def test_a_mandate_gives_each_instalment_a_direct_debit(agency, desk, signed_first):
    desk.open_account()
    case_id = desk.place()
    if signed_first:
        desk.sign(case_id)
    agreement = desk.agree(case_id)
    if not signed_first:
        desk.sign(case_id)
    found = of_kind(agency, agreement, "SEPA_DD")
    assert [(one.state, one.amount_minor) for one in found] == [("REGISTERED", 10_000)] * 3
    assert [one.state for one in desk.debits()] == ["DUE"] * 3
    assert {one.notice_date for one in desk.debits()} == {FRIDAY}
    assert len(of_kind(agency, agreement, "MULTIBANCO")) == 3


def test_a_file_collects_what_falls_due_once(agency, desk):
    desk.open_account(bic="BCOMPTPL")
    case_id = desk.place()
    mandate = desk.sign(case_id)
    desk.agree(case_id)
    agency.set_clock(day(10))
    file_id = desk.collect(day(20))
    with pytest.raises(collections.CollectionFileNotReady):
        collections.content(agency.engine, agency.agency, file_id)
    with pytest.raises(collections.NothingToCollect):
        desk.collect(day(20))
    desk.write()
    found = desk.content(file_id)
    assert found.findtext(".//p:GrpHdr/p:NbOfTxs", namespaces=NS) == "1"
    assert found.findtext(".//p:GrpHdr/p:CtrlSum", namespaces=NS) == "100.00"
    assert found.findtext(".//p:SeqTp", namespaces=NS) == "FRST"
    assert found.findtext(".//p:ReqdColltnDt", namespaces=NS) == day(20).isoformat()
    assert found.findtext(".//p:Dbtr/p:Nm", namespaces=NS) == "Joao Conceicao"
    assert found.findtext(".//p:CdtrAgt//p:BICFI", namespaces=NS) == "BCOMPTPL"
    assert found.find(".//p:PstlAdr", NS) is None
    (row,) = agency.rows("SELECT * FROM collection_files")
    assert (row.state, row.transactions, row.total_minor, row.number) == ("READY", 1, 10_000, 1)
    assert desk.mandate(mandate).last_collection_date == day(20)
    before = agency.rows("SELECT count(*) AS files FROM blobs")[0].files
    desk.write()
    assert agency.rows("SELECT count(*) AS files FROM blobs")[0].files == before


def test_a_file_that_case_did_not_answer_for_is_written_later(agency, desk):
    class Away:
        def of(self, agency: uuid.UUID, case_ids: Any) -> Any:
            raise errors.RemoteUnavailable("case is away")

    desk.open_account()
    case_id = desk.place()
    desk.sign(case_id)
    desk.agree(case_id)
    agency.set_clock(day(10))
    file_id = desk.collect(day(20))
    there, agency.parties = agency.parties, Away()
    with pytest.raises(errors.RemoteUnavailable):
        desk.write()
    assert agency.rows("SELECT state FROM collection_files")[0].state == "WRITING"
    agency.parties = there
    desk.write()
    first = desk.content(file_id)
    assert first.findtext(".//p:EndToEndId", namespaces=NS) == desk.debits()[0].txid


def test_sequences_follow_the_life_of_a_mandate(agency, desk):
    desk.open_account()
    case_id = desk.place()
    mandate = desk.sign(case_id)
    agreement = desk.agree(case_id)
    for row in agency.instalments(agreement):
        agency.set_clock(row.due_date - datetime.timedelta(days=5))
        desk.collect(row.due_date)
    assert [one.sequence for one in desk.debits()] == ["FRST", "RCUR", "FNAL"]
    assert desk.mandate(mandate).state is sepa.MandateState.USED


def test_a_one_off_mandate_serves_one_instalment(agency, desk):
    desk.open_account()
    case_id = desk.place()
    mandate = desk.sign(case_id, one_off=True)
    desk.agree(case_id)
    (debit,) = desk.debits()
    agency.set_clock(day(10))
    desk.collect(debit.due_date)
    assert desk.debits()[0].sequence == "OOFF"
    assert desk.mandate(mandate).state is sepa.MandateState.USED


def test_the_notice_of_fourteen_days_moves_the_collection(agency, desk):
    desk.open_account()
    case_id = desk.place()
    desk.agree(case_id)
    agency.set_clock(day(19))
    desk.sign(case_id)  # the debtor is told today of what falls due tomorrow
    desk.collect(day(20))
    assert desk.debits()[0].collection_date == sepa.target_day(day(33))


def test_a_payment_by_end_to_end_id_and_its_return(agency, desk):
    desk.open_account()
    case_id = desk.place()
    mandate = desk.sign(case_id)
    agreement = desk.agree(case_id)
    agency.set_clock(day(10))
    desk.collect(day(20))
    asked = desk.debits()[0]
    agency.set_clock(day(21))
    payment = agency.pay(10_000, means="SEPA_DD", currency="EUR", txid=asked.txid)
    assert agency.payment(payment).instrument_id == asked.instrument_id
    assert agency.instalments(agreement)[0].state.value in ("PAID", "PAID_LATE")
    desk.come_back(asked.txid, "AM04")
    assert agency.payment(payment).state.value == "REVERSED"
    assert agency.payment(payment).reverse_reason == "AM04"
    assert agency.payment(payment).reverse_kind == "SDD_RETURN"
    old, new = desk.debits()[:2]
    assert (old.state, old.reason_code, old.return_date) == ("RETURNED", "AM04", day(21))
    assert (new.state, new.generation, new.due_date) == ("DUE", 2, old.due_date)
    assert desk.mandate(mandate).state is sepa.MandateState.ACTIVE
    with pytest.raises(mandates.DirectDebitNotAsked):
        desk.come_back(asked.txid, "AM04")
    desk.collect(day(21))
    again = next(one for one in desk.debits() if one.generation == 2)
    assert (again.state, again.sequence) == ("ASKED", "FRST")


def test_a_rejection_before_any_payment_is_presented_twice_more(agency, desk):
    desk.open_account()
    case_id = desk.place(10_000)
    desk.sign(case_id)
    desk.agree(case_id, 1)
    for presentation in range(sepa.MAX_PRESENTATIONS):
        agency.set_clock(day(20 + 20 * presentation - 5))
        desk.collect(day(20 + 20 * presentation))
        asked = next(one for one in desk.debits() if one.state == "ASKED")
        desk.come_back(asked.txid, "AM04")
    assert [one.state for one in desk.debits()] == ["RETURNED"] * 3
    assert [one.instrument for one in desk.debits()] == ["CANCELLED"] * 3


@pytest.mark.parametrize(
    ("code", "state"), [("MD06", "SUSPENDED"), ("AC04", "CANCELLED"), ("MD01", "CANCELLED")]
)
def test_a_return_for_good_stops_the_mandate(agency, desk, code, state):
    desk.open_account()
    case_id = desk.place()
    mandate = desk.sign(case_id)
    desk.agree(case_id)
    agency.set_clock(day(10))
    desk.collect(day(20))
    desk.come_back(desk.debits()[0].txid, code)
    found = desk.mandate(mandate)
    assert (found.state.value, found.reason_code) == (state, code)
    assert [one.state for one in desk.debits()] == ["RETURNED", "DROPPED", "DROPPED"]
    with pytest.raises(collections.NothingToCollect):
        desk.collect(day(24))


def test_a_withdrawn_mandate_collects_nothing_more(agency, desk):
    desk.open_account()
    case_id = desk.place()
    mandate = desk.sign(case_id)
    agreement = desk.agree(case_id)
    desk.cancel(mandate)
    assert [one.state for one in desk.debits()] == ["DROPPED"] * 3
    assert {one.state for one in of_kind(agency, agreement, "SEPA_DD")} == {"CANCELLED"}
    assert {one.state for one in of_kind(agency, agreement, "MULTIBANCO")} == {"REGISTERED"}
    with pytest.raises(mandates.MandateOver):
        desk.cancel(mandate)
    desk.sign(case_id, reference="M-2")
    assert [one.state for one in desk.debits()].count("DUE") == 3


def test_an_instalment_paid_otherwise_is_not_collected(agency, desk):
    desk.open_account()
    case_id = desk.place()
    desk.sign(case_id)
    agreement = desk.agree(case_id)
    first = of_kind(agency, agreement, "MULTIBANCO")[0]
    agency.pay(10_000, means="MULTIBANCO", currency="EUR", our_number=first.our_number)
    agency.act()
    agency.set_clock(day(10))
    with pytest.raises(collections.NothingToCollect):
        desk.collect(day(20))


def test_a_lapsed_mandate_is_not_used(agency, desk):
    desk.open_account()
    case_id = desk.place()
    mandate = desk.sign(case_id, signature_date=datetime.date(2023, 12, 1))
    assert desk.mandate(mandate).state_on(day(0)) is sepa.MandateState.ACTIVE
    desk.agree(case_id)
    agency.set_clock(datetime.date(2026, 12, 2))
    with pytest.raises(collections.NothingToCollect):
        desk.collect(day(20))
    assert desk.mandate(mandate).state_on(datetime.date(2026, 12, 2)) is sepa.MandateState.LAPSED


def test_a_new_mandate_takes_the_place_of_one_that_lapsed_or_is_suspended(agency, desk):
    desk.open_account()
    case_id = desk.place()
    lapsed = desk.sign(case_id, signature_date=datetime.date(2023, 12, 1))
    desk.agree(case_id)
    agency.set_clock(datetime.date(2026, 12, 2))
    second = desk.sign(case_id, reference="M-2")
    assert desk.mandate(lapsed).state is sepa.MandateState.LAPSED
    assert [one.mandate_id for one in desk.debits() if one.state == "DUE"] == [second] * 3
    desk.collect(day(20))
    desk.come_back(next(one.txid for one in desk.debits() if one.state == "ASKED"), "AC01")
    third = desk.sign(case_id, reference="M-3")
    assert desk.mandate(second).state is sepa.MandateState.CANCELLED
    assert [one.mandate_id for one in desk.debits() if one.state == "DUE"] == [third] * 2  # AC01 is for good


def test_what_is_in_a_file_is_not_asked_for_under_another_mandate(agency, desk):
    desk.open_account()
    case_id = desk.place(10_000)
    used = desk.sign(case_id, one_off=True)
    desk.agree(case_id, 1)
    agency.set_clock(day(10))
    desk.collect(day(20))
    newer = desk.sign(case_id, reference="M-2")
    assert [one.state for one in desk.debits()] == ["ASKED"]
    desk.come_back(desk.debits()[0].txid, "AM04")
    assert desk.mandate(used).state is sepa.MandateState.USED
    assert [(one.state, one.mandate_id) for one in desk.debits()] == [("RETURNED", used), ("DUE", newer)]


def test_what_makes_no_mandate(agency, desk):
    case_id = desk.place()
    with pytest.raises(mandates.EuroAccountMissing):
        desk.sign(case_id)
    desk.open_account()
    with pytest.raises(sepa.IbanInvalid):
        desk.sign(case_id, iban="PT50000201231234567890155")
    with pytest.raises(errors.InvalidRequest):
        desk.sign(case_id, signature_date=day(1))
    with pytest.raises(mandates.MandateAlreadyLapsed):
        desk.sign(case_id, signature_date=datetime.date(2020, 1, 1))
    with pytest.raises(errors.ResourceNotFound):
        desk.sign(uuid.uuid4())
    (reais,) = agency.place((day(0), 1_000))
    with pytest.raises(mandates.MandateNotInEuro):
        desk.sign(reais.case_id)
    desk.sign(case_id)
    with pytest.raises(mandates.MandateKnown):
        desk.sign(case_id, reference="another")
    with pytest.raises(errors.InvalidRequest):
        desk.collect(day(15))


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"holder_name": ""}, errors.InvalidRequest),
        ({"holder_name": "Crédito"}, errors.InvalidRequest),
        ({"iban": "PT1"}, sepa.IbanInvalid),
        ({"bic": "X"}, errors.InvalidRequest),
        ({"scheme_identifier": "PT99"}, sepa.CreditorIdentifierInvalid),
        ({"multibanco_entity": "1234"}, errors.InvalidRequest),
        ({"pre_notice_days": 15}, errors.InvalidRequest),
    ],
)
def test_a_wrong_account_is_refused(desk, fields, wrong):
    with pytest.raises(wrong):
        desk.open_account(**fields)


def test_no_iban_leaves_in_facts(agency, desk):
    desk.open_account()
    case_id = desk.place()
    desk.sign(case_id)
    desk.agree(case_id)
    assert not agency.rows("SELECT 1 FROM outbox WHERE position(%s IN value) > 0", IBAN.encode())


def at_once(*works: Any) -> list[Any]:
    """Run all, started together; results, or the typed errors."""
    barrier = threading.Barrier(len(works))

    def run(work: Any) -> Any:
        barrier.wait()
        try:
            return work()
        except errors.ServiceError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, work) for work in works]]


def test_two_files_at_once_ask_for_each_debit_once(agency, desk):
    desk.open_account()
    for _ in range(5):
        case_id = desk.place()
        desk.sign(case_id)
        desk.agree(case_id)
    agency.set_clock(day(10))
    results = at_once(*[lambda: desk.collect(day(20))] * 3)
    assert sum(isinstance(one, uuid.UUID) for one in results) == 1
    assert {type(one) for one in results if not isinstance(one, uuid.UUID)} == {collections.NothingToCollect}
    (row,) = agency.rows("SELECT * FROM collection_files")
    assert (row.transactions, row.total_minor) == (5, 50_000)


def test_a_return_against_a_withdrawal(agency, desk):
    desk.open_account()
    for number in range(3):
        case_id = desk.place()
        mandate = desk.sign(case_id, reference=f"R-{number}")
        agreement = desk.agree(case_id)
        agency.set_clock(day(10))
        desk.collect(day(20))
        key = next(one.txid for one in desk.debits() if one.state == "ASKED" and one.mandate_id == mandate)
        payment = agency.pay(10_000, means="SEPA_DD", currency="EUR", txid=key)
        results = at_once(lambda: desk.cancel(mandate), lambda: desk.come_back(key, "AM04"))  # noqa: B023
        assert results == [None, None]
        assert desk.mandate(mandate).state is sepa.MandateState.CANCELLED
        assert agency.payment(payment).state.value == "REVERSED"
        live = [one for one in desk.debits() if one.mandate_id == mandate and one.state == "DUE"]
        assert live == []
        assert len(agency.instalments(agreement)) == 3
        agency.set_clock(FRIDAY)


ADMIN = ("agreement.read", "agreement.write", "agreement.admin")


def test_collecting_over_grpc(agency, desk, api):
    account = mandates_pb2.EuroAccount(
        name=f"{api.name}/creditors/{agency.creditor_id}/euroAccount",
        holder_name="Banco Azul SA",
        iban="PT50 0002 0123 1234 5678 9015 4",
        scheme_identifier="PT73ZZZ123456",
        multibanco_entity="11223",
    )
    asked = mandate_service_pb2.UpdateEuroAccountRequest(euro_account=account, request_id="account-1")
    assert api.refused("UpdateEuroAccount", asked)[0] == "PERMISSION_DENIED"
    set_ = api("UpdateEuroAccount", asked, scopes=ADMIN)
    assert (set_.iban, set_.pre_notice_days, set_.etag) == (IBAN, 14, "1")
    assert api("UpdateEuroAccount", asked, scopes=ADMIN) == set_
    account.etag = "7"
    stale = mandate_service_pb2.UpdateEuroAccountRequest(euro_account=account)
    assert api.refused("UpdateEuroAccount", stale, scopes=ADMIN) == ("ABORTED", "VERSION_MISMATCH")
    assert api("GetEuroAccount", mandate_service_pb2.GetEuroAccountRequest(name=account.name)) == set_
    other = f"{api.name}/creditors/{uuid.uuid4()}/euroAccount"
    stranger = mandate_service_pb2.UpdateEuroAccountRequest(euro_account=account)
    stranger.euro_account.name, stranger.euro_account.etag = other, ""
    assert api.refused("UpdateEuroAccount", stranger, scopes=ADMIN)[0] == "NOT_FOUND"
    assert (
        api.refused("GetEuroAccount", mandate_service_pb2.GetEuroAccountRequest(name=other))[0] == "NOT_FOUND"
    )
    case_id = desk.place()
    agreement = desk.agree(case_id)
    signed = mandate_service_pb2.CreateMandateRequest(
        parent=api.name,
        case_id=str(case_id),
        reference="M-1",
        signature_date=dates.to_proto(FRIDAY),
        iban=IBAN,
        request_id="mandate-1",
    )
    mandate = api("CreateMandate", signed)
    assert api("CreateMandate", signed) == mandate
    assert mandate.state == mandates_pb2.Mandate.STATE_ACTIVE
    assert mandate.scheme == mandates_pb2.Mandate.SCHEME_CORE
    assert mandate.iban_end == "0154"
    assert IBAN not in str(mandate)
    assert api("GetMandate", mandate_service_pb2.GetMandateRequest(name=mandate.name)) == mandate
    for case in ("", str(case_id)):
        listed = api("ListMandates", mandate_service_pb2.ListMandatesRequest(parent=api.name, case_id=case))
        assert list(listed.mandates) == [mandate]
    agency.act()
    shown = api(
        "GetAgreement",
        agreement_service_pb2.GetAgreementRequest(name=f"{api.name}/agreements/{agreement}"),
    )
    by_kind = {one.kind: one for one in shown.instalments[0].instruments}
    kinds = type(shown.instalments[0].instruments[0])
    assert by_kind[kinds.KIND_MULTIBANCO].entity == "11223"
    assert len(by_kind[kinds.KIND_MULTIBANCO].reference) == len("123 123 451")
    key = by_kind[kinds.KIND_SEPA_DD].end_to_end_id
    agency.set_clock(day(10))
    wanted = mandate_service_pb2.CreateCollectionFileRequest(
        parent=api.name,
        creditor_id=str(agency.creditor_id),
        due_through=dates.to_proto(day(20)),
        request_id="file-1",
    )
    file = api("CreateCollectionFile", wanted, scopes=ADMIN)
    assert api("CreateCollectionFile", wanted, scopes=ADMIN) == file
    assert (file.state, file.number, file.transactions) == (mandates_pb2.CollectionFile.STATE_DRAFT, 1, 1)
    download = mandate_service_pb2.DownloadCollectionFileRequest(name=file.name)
    assert api.refused("DownloadCollectionFile", download, scopes=ADMIN) == (
        "FAILED_PRECONDITION",
        "COLLECTION_FILE_NOT_READY",
    )
    desk.write()
    ready = api("GetCollectionFile", mandate_service_pb2.GetCollectionFileRequest(name=file.name))
    assert ready.state == mandates_pb2.CollectionFile.STATE_READY
    body = api("DownloadCollectionFile", download, scopes=ADMIN)
    assert body.content_type == "application/xml"
    assert IBAN.encode() in body.data
    files = api("ListCollectionFiles", mandate_service_pb2.ListCollectionFilesRequest(parent=api.name))
    assert list(files.collection_files) == [ready]
    in_file = api("ListDirectDebits", mandate_service_pb2.ListDirectDebitsRequest(parent=file.name))
    assert [one.end_to_end_id for one in in_file.direct_debits] == [key]
    all_ = api("ListDirectDebits", mandate_service_pb2.ListDirectDebitsRequest(parent=api.name, page_size=2))
    assert len(all_.direct_debits) == 2
    assert all_.next_page_token
    came = mandate_service_pb2.RecordReturnRequest(
        parent=api.name, end_to_end_id=key, reason_code="MD01", request_id="return-1"
    )
    returned = api("RecordReturn", came)
    assert returned.state == mandates_pb2.DirectDebit.STATE_RETURNED
    assert returned.collection_file == file.name
    assert api("RecordReturn", came) == returned
    came.reason_code, came.request_id = "XX00", ""
    assert api.refused("RecordReturn", came) == ("INVALID_ARGUMENT", "RETURN_CODE_UNKNOWN")
    ended = api("GetMandate", mandate_service_pb2.GetMandateRequest(name=mandate.name))
    assert ended.state == mandates_pb2.Mandate.STATE_CANCELLED
    cancel = mandate_service_pb2.CancelMandateRequest(name=mandate.name)
    assert api.refused("CancelMandate", cancel) == ("FAILED_PRECONDITION", "MANDATE_OVER")
