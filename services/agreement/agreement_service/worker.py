"""The agreement service's worker: facts of case and import, acts at the bank. No rules, no SQL."""

import dataclasses
import datetime
import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from agreement_service import providers
from agreement_service.providers import pain008
from agreement_service.store import instruments as instrument_store
from agreement_service.store import mandates as mandate_store
from agreement_service.usecases import (
    clocks,
    collections,
    daily,
    instruments,
    moments,
    promises,
    slices,
    titles,
)
from recupera.case.v1 import case_facts_pb2
from recupera.imports.v1 import imports_facts_pb2, imports_pb2
from servicekit import acts, clock, dates, db, errors, facts, host, telemetry

_acts = telemetry.counter(
    "recupera.agreement.acts",
    "{act}",
    "Acts at the bank, by act and outcome",
    known={"act": [acting for _, acting in instruments.ACTS], "outcome": providers.Registration},
)

logger = logging.getLogger("recupera.agreement")

SliceRows = Mapping[tuple[bytes, int], Sequence[dict[str, Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wiring:
    """What `__main__` gives the worker."""

    slices: providers.Slices
    parties: providers.PartyDirectory
    bank: providers.BankProvider
    allow_simulated_clock: bool


class AgreementWorker(host.Worker):
    """Takes over titles, runs the day, enters payments, acts at the bank."""

    name = "agreement_worker"
    wiring: Any

    @host.consume("recupera.case.v1")
    def case_facts(self, tx: db.Transaction, found: Sequence[case_facts_pb2.CaseFact]) -> None:
        """Clock, placed and withdrawn titles, the business day; in order, placed titles together."""
        agency = uuid.UUID(bytes=found[0].agency)
        if any(facts.kind(fact) == "titles_placed" for fact in found):
            titles.expect(tx=tx, agency=agency)  # what comes before them locks accounts
        placed: list[case_facts_pb2.TitlesPlaced] = []
        for fact in found:
            kind = facts.kind(fact)
            if kind == "titles_placed":
                placed.append(fact.titles_placed)
                continue
            if kind in ("clock_changed", "day_opened", "titles_withdrawn"):
                self._place(tx, agency, placed)
                placed = []
            match kind:
                case "clock_changed":
                    clocks.take(
                        tx=tx, agency=agency, fact=fact, allow_simulated=self.wiring.allow_simulated_clock
                    )
                case "day_opened":
                    date = dates.from_proto(fact.day_opened.date, "date")
                    clocks.open_day(tx=tx, agency=agency, date=date)
                    daily.run(
                        tx=tx,
                        agency=agency,
                        date=date,
                        partition=fact.day_opened.partition,
                        moment=moments.read(tx, agency),
                        bank=self.wiring.bank,
                    )
                case "titles_withdrawn":
                    body = fact.titles_withdrawn
                    titles.withdraw(
                        tx=tx,
                        agency=agency,
                        withdrawn=[
                            (uuid.UUID(bytes=case_id), uuid.UUID(bytes=title_id))
                            for case_id, title_id in zip(body.case_ids, body.title_ids, strict=True)
                        ],
                        moment=moments.read(tx, agency),
                        bank=self.wiring.bank,
                    )
                case "contact_recorded" if fact.contact_recorded.HasField("promise_date"):
                    said = fact.contact_recorded
                    promises.make(
                        tx=tx,
                        agency=agency,
                        case_id=uuid.UUID(bytes=said.case_id),
                        contact_id=uuid.UUID(bytes=said.contact_id),
                        made_at=fact.occurred_at.ToDatetime(datetime.UTC),
                        made_date=dates.from_proto(fact.business_date, "business_date"),
                        promise_date=dates.from_proto(said.promise_date, "promise_date"),
                        amount_minor=said.promise_amount_minor,
                        currency=said.currency,
                        moment=moments.read(tx, agency),
                    )
        self._place(tx, agency, placed)

    def fetch_slices(self, found: Sequence[imports_facts_pb2.ImportFact]) -> SliceRows:
        """Rows of the payment slices that are ready: outside the transaction."""
        return {
            (fact.slice_ready.batch_id, fact.slice_ready.slice): self.wiring.slices.payments(
                uuid.UUID(bytes=fact.agency),
                uuid.UUID(bytes=fact.slice_ready.batch_id),
                fact.slice_ready.slice,
            )
            for fact in found
            if _is_payments(fact)
        }

    @host.consume("recupera.imports.v1", prepare="fetch_slices", max_records=1)
    def import_facts(
        self, tx: db.Transaction, found: Sequence[imports_facts_pb2.ImportFact], rows: SliceRows
    ) -> None:
        """Payments of the slices that are ready."""
        agency = uuid.UUID(bytes=found[0].agency)
        for fact in found:
            if _is_payments(fact):
                ready = fact.slice_ready
                slices.apply(
                    tx=tx,
                    agency=agency,
                    batch_id=uuid.UUID(bytes=ready.batch_id),
                    number=ready.slice,
                    rows=rows[ready.batch_id, ready.slice],
                    moment=moments.read(tx, agency),
                    bank=self.wiring.bank,
                )

    @host.looks_at(acts.DUE_AGE)
    def look_at_acts(self) -> None:
        """How long the oldest act at the bank, or file to be written, is due on a real clock."""
        waiting = acts.Waiting("WRITING", *(acting for _, acting in instruments.ACTS))
        for one in clock.every(self.engine):
            if one.simulated:
                continue
            now = one.now()
            with db.begin(self.engine, agency=one.agency) as tx:
                for states in instruments.ACTS:
                    since = instrument_store.oldest_due(tx, one.agency, states=states, now=now)
                    waiting.due(states[1], since, now=now)
                waiting.due("WRITING", mandate_store.oldest_file_due(tx, one.agency, now=now), now=now)
        waiting.show()

    @host.timer(interval=0.5)
    def act(self) -> None:
        """Register and cancel instruments at the bank."""
        host.each(
            clock.with_work(self.engine, "agencies_to_ask_bank"),
            lambda agency: act_at_bank(self.engine, self.wiring, agency),
        )

    @host.timer(interval=2)
    def write_collections(self) -> None:
        """Write the collection files that were asked for."""
        host.each(
            clock.with_work(self.engine, "agencies_to_collect"),
            lambda agency: write_collection_files(self.engine, self.wiring, agency),
        )

    def _place(
        self, tx: db.Transaction, agency: uuid.UUID, placed: Sequence[case_facts_pb2.TitlesPlaced]
    ) -> None:
        if placed:
            titles.place(
                tx=tx, agency=agency, placed=placed, moment=moments.read(tx, agency), bank=self.wiring.bank
            )


def act_at_bank(engine: db.Engine, wiring: Wiring, agency: uuid.UUID) -> None:
    """Do all acts of an agency that are due: claim and commit, ask the bank, commit the answers (architecture §7).

    Raises BankUnavailable, RemoteUnavailable: what was not answered stays in its acting state, to be looked up.
    """
    for due, acting in instruments.ACTS:
        while not host.draining():
            with db.begin(engine, agency=agency) as tx:
                moment = moments.read(tx, agency)
                claimed = instruments.claim(tx, agency, due=due, acting=acting, moment=moment)
            if not claimed:
                break
            outcomes = []
            away: Exception | None = None
            try:
                asked = instruments.payers_wanted(wiring.bank, [one for one, _ in claimed], acting)
                payers = wiring.parties.of(agency, asked) if asked else {}
                for instrument, begun in claimed:
                    outcome, code = instruments.act(
                        bank=wiring.bank,
                        instrument=instrument,
                        acting=acting,
                        begun=begun,
                        today=moment.business_date,
                        payer=payers.get(instrument.case_id),
                    )
                    outcomes.append((instrument, outcome, code))
            except (providers.BankUnavailable, errors.RemoteUnavailable) as error:
                logger.warning("the bank did not answer", extra={"act": acting})
                away = error
            with db.begin(engine, agency=agency) as tx:
                instruments.finish(
                    tx, agency, acting=acting, outcomes=outcomes, moment=moments.read(tx, agency)
                )
            for _, outcome, _ in outcomes:
                _acts.add(1, {"act": acting, "outcome": outcome.value})
            if away is not None:
                raise away  # the agency rests: each try claims more, and what is claimed has to be looked up


def write_collection_files(engine: db.Engine, wiring: Wiring, agency: uuid.UUID) -> None:
    """Write an agency's collection files that are due: claim and commit, ask who the debtors are, commit the file.

    Raises RemoteUnavailable, RemoteRefused, CollectionFileMalformed when all were tried.
    """
    with db.begin(engine, agency=agency) as tx:
        moment = moments.read(tx, agency)
        claimed = collections.claim(tx, agency, moment=moment)
    failure: Exception | None = None
    for file in claimed:
        try:
            collections.write(engine, agency, file=file, directory=wiring.parties, moment=moment)
        except (errors.RemoteUnavailable, errors.RemoteRefused, pain008.CollectionFileMalformed) as error:
            # it stays in WRITING and is written at another tick; nothing of it has left the house
            logger.error("a collection file was not written", exc_info=error, extra={"file": str(file.id)})
            failure = error
    if failure is not None:
        raise failure


def _is_payments(fact: imports_facts_pb2.ImportFact) -> bool:
    return facts.kind(fact) == "slice_ready" and fact.slice_ready.kind == imports_pb2.BATCH_KIND_PAYMENTS
