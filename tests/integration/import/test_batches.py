"""Batches after the upload: refusals, approval, applying twice, taking back, reading again after a death."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
import sqlalchemy as sa

from import_service import domain, usecases
from import_service import worker as worker_module
from recupera.imports.v1 import imports_pb2, imports_service_pb2
from servicekit import acts, db, errors, ids, testing
from support import portfolio

from .conftest import AGENCY, OTHER, Site
from .test_uploads import refused

pytestmark = pytest.mark.feature("S2-41")
Batch = imports_pb2.Batch
Step = domain.RollbackStep


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "EMPTY_FILE"),
        (portfolio.content(portfolio.rows(1)).splitlines()[0], "EMPTY_FILE"),
        (b"PK\x03\x04\x00\x00", "BINARY_FILE"),
        (portfolio.text(portfolio.rows(1)).encode("utf-16"), "WRONG_ENCODING"),
        (portfolio.content(portfolio.rows(1)) + b"\xe7", "WRONG_ENCODING"),
        (b"a;b\n1;2\n", "WRONG_LAYOUT"),
        (b";".join([b"c"] * 300) + b"\n", "TOO_MANY_COLUMNS"),
        (portfolio.content(portfolio.rows(1)) + b"x" * 5_000_000 + b"\n", "LINE_TOO_LONG"),
    ],
)
def test_files_that_are_refused(site: Site, content: bytes, code: str) -> None:
    batch = site.read(content)
    assert (batch.state, batch.refusal_code) == (Batch.STATE_REJECTED, code)
    assert batch.refusal
    assert (batch.rows_read, batch.slices) == (0, 0)
    assert site.download(batch.name).decode("utf-8-sig").strip()
    # the worker lives on
    assert site.read(portfolio.content(portfolio.rows(2))).state == Batch.STATE_APPLYING


def test_a_long_line_far_down_takes_back_what_was_read(site: Site) -> None:
    content = portfolio.content(portfolio.rows(60_000)) + b"x" * 70_000 + b"\n"
    batch = site.read(content)
    assert (batch.state, batch.refusal_code) == (Batch.STATE_REJECTED, "LINE_TOO_LONG")
    assert (batch.rows_read, batch.slices, list(batch.good_totals)) == (0, 0, [])
    assert site.states() == ["RECEIVED", "PARSED", "REJECTED"]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"expected_rows": 4}, "CONTROL_ROWS_DIFFER"),
        ({"expected_total": "1"}, "CONTROL_TOTAL_DIFFERS"),
        ({"expected_rows": 3, "expected_total": "3703.50"}, None),
    ],
)
def test_control_totals(site: Site, header: dict[str, Any], code: str | None) -> None:
    batch = site.read(portfolio.content(portfolio.rows(3)), **header)
    assert batch.state == (Batch.STATE_AWAITING_APPROVAL if code else Batch.STATE_APPLYING)
    assert batch.refusal_code == (code or "")
    if "expected_total" in header:
        assert batch.expected_total.currency_code == "BRL"


def waiting_batch(site: Site) -> Batch:
    return site.read(portfolio.content(portfolio.rows(3)), expected_rows=99)


def test_approval_needs_the_present_etag_and_state(site: Site) -> None:
    batch = waiting_batch(site)
    service = imports_service_pb2
    stale = service.ApproveBatchRequest(name=batch.name, etag="1")
    assert refused(lambda: site.call(site.stub.ApproveBatch, stale)).reason == "VERSION_MISMATCH"
    approve = service.ApproveBatchRequest(name=batch.name, etag=batch.etag, request_id="a")
    first = site.call(site.stub.ApproveBatch, approve)
    assert first.state == Batch.STATE_APPLYING
    assert site.call(site.stub.ApproveBatch, approve) == first
    assert len(site.ready_slices()) == first.slices
    again = refused(lambda: site.call(site.stub.ApproveBatch, service.ApproveBatchRequest(name=batch.name)))
    assert (again.code, again.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BATCH_STATE_FORBIDS")
    assert again.metadata["state"] == "APPLYING"


def test_a_waiting_batch_is_refused(site: Site) -> None:
    batch = waiting_batch(site)
    done = site.call(site.stub.RejectBatch, imports_service_pb2.RejectBatchRequest(name=batch.name))
    assert (done.state, done.refusal_code) == (Batch.STATE_REJECTED, "CONTROL_ROWS_DIFFER")
    assert not site.ready_slices()
    assert refused(lambda: site.slice(batch.name, 0)).reason == "BLOB_ERASED"
    assert site.read(portfolio.content(portfolio.rows(3))).state == Batch.STATE_APPLYING


def test_a_batch_without_a_good_row(site: Site) -> None:
    rows = [{**row, "due_date": "x"} for row in portfolio.rows(2)]
    batch = site.read(portfolio.content(rows))
    assert batch.state == Batch.STATE_AWAITING_APPROVAL
    done = site.call(site.stub.ApproveBatch, imports_service_pb2.ApproveBatchRequest(name=batch.name))
    assert (done.state, done.rows_rejected, done.slices) == (Batch.STATE_APPLIED_WITH_ERRORS, 2, 0)


def test_slices_are_closed_once(site: Site) -> None:
    documents = ["39053344705", "16727230000197", "501964843"]
    rows = [{**row, "debtor_document": documents[index % 3]} for index, row in enumerate(portfolio.rows(30))]
    batch = site.read(portfolio.content(rows))
    ready = site.ready_slices()
    assert len(ready) == batch.slices > 1
    same = ids.new().bytes
    for _ in range(2):
        site.applied(batch.name, 0, applied=ready[0][1].rows, fact_id=same)
    site.applied(batch.name, 0, applied=0, rejects=[(2, "principal", "X")])  # told again as another fact
    found = site.get(batch.name)
    assert (found.slices_applied, found.rows_applied, found.rows_rejected) == (1, ready[0][1].rows, 0)
    for _, one in ready[1:]:
        site.applied(batch.name, one.slice, applied=0, unchanged=one.rows)
    found = site.get(batch.name)
    assert found.state == Batch.STATE_APPLIED
    assert found.rows_applied + found.rows_unchanged == 30
    assert found.HasField("applied_time")


def test_a_fact_about_a_slice_that_nobody_made_is_parked(site: Site) -> None:
    batch = site.read(portfolio.content(portfolio.rows(1)))
    with pytest.raises(testing.FactsParked, match="SLICE_UNKNOWN"):
        site.applied(batch.name, 77, applied=1)


class Died(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("at", range(1, 5))
def test_a_reading_that_dies_is_done_again_from_the_start(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    rows = portfolio.rows(45_000)
    for row in rows[::997]:
        row["due_date"] = "x"
    content = portfolio.content(rows)
    name = site.upload(content).name
    count = 0
    for use_case in ("add_part", "finish_reading"):
        real = getattr(usecases, use_case)

        def dying(*args: Any, real: Any = real, **kwargs: Any) -> Any:
            nonlocal count
            result = real(*args, **kwargs)
            count += 1
            if count == at:
                raise Died  # before the transaction commits
            return result

        monkeypatch.setattr(worker_module.usecases, use_case, dying)
    with pytest.raises(Died):
        site.worker.read_files()
    monkeypatch.undo()
    seen = site.get(name)
    assert seen.state == Batch.STATE_PARSED
    assert not site.ready_slices()
    # another process, which finds the first one dead
    monkeypatch.setattr(acts, "_worker", None)
    site.new_worker().read_files()
    batch = site.get(name)
    assert batch.state == Batch.STATE_APPLYING
    assert (batch.rows_read, batch.rows_rejected) == (45_000, len(rows[::997]))
    assert [total.units for total in batch.good_totals] == [(45_000 - len(rows[::997])) * 123450 // 100]
    ready = site.ready_slices()
    assert sum(one.rows for _, one in ready) == batch.rows_good
    assert sorted(one.slice for _, one in ready) == list(range(batch.slices))
    assert site.states() == ["RECEIVED", "PARSED", "VALIDATED", "APPLYING"]
    with db.begin(site.engine, agency=AGENCY) as tx:  # the first reading's slices are erased
        kept = "SELECT count(*) FROM blobs WHERE kind = 'slice' AND erased_at IS NULL"
        assert tx.execute(sa.text(kept)).scalar_one() == batch.slices


def test_a_reader_that_was_taken_for_dead_stops(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    name = site.upload(portfolio.content(portfolio.rows(45_000))).name
    real = usecases.add_part
    taken: list[int] = []

    def overtaken(*args: Any, **kwargs: Any) -> None:
        if not taken:
            taken.append(1)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(worker_module.usecases, "add_part", real)
                patch.setattr(acts, "_worker", None)
                site.new_worker().read_files()
                assert site.get(name).state == Batch.STATE_APPLYING
        real(*args, **kwargs)

    monkeypatch.setattr(worker_module.usecases, "add_part", overtaken)
    site.worker.read_files()
    batch = site.get(name)
    assert (batch.state, batch.rows_read) == (Batch.STATE_APPLYING, 45_000)
    assert sum(one.rows for _, one in site.ready_slices()) == 45_000


def test_progress_can_be_seen(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    name = site.upload(portfolio.content(portfolio.rows(90_000))).name
    real = usecases.add_part
    seen: list[int] = []

    def watched(*args: Any, **kwargs: Any) -> None:
        seen.append(site.get(name).rows_read)
        real(*args, **kwargs)

    monkeypatch.setattr(worker_module.usecases, "add_part", watched)
    site.worker.read_files()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


def applied_batch(site: Site) -> Batch:
    batch = site.read(portfolio.content(portfolio.rows(5)))
    return site.apply_all(batch.name)


def roll_back(site: Site, batch: Batch) -> Batch:
    request = imports_service_pb2.RollBackBatchRequest(name=batch.name, etag=batch.etag)
    return site.call(site.stub.RollBackBatch, request)  # type: ignore[no-any-return]


def test_a_batch_is_taken_back(site: Site) -> None:
    batch = applied_batch(site)
    assert roll_back(site, batch).state == Batch.STATE_ROLLING_BACK
    site.worker.roll_back()
    assert site.get(batch.name).state == Batch.STATE_ROLLED_BACK
    assert [step for _, step in site.remote.calls] == [Step.BEGIN, Step.TITLES, Step.END]
    assert site.upload(portfolio.content(portfolio.rows(5))).name != batch.name


@pytest.mark.parametrize(
    ("step", "calls"), [(Step.BEGIN, [Step.BEGIN]), (Step.TITLES, [Step.BEGIN, Step.TITLES, Step.ABORT])]
)
def test_a_refusal_leaves_the_batch_applied_and_says_why(site: Site, step: Step, calls: list[Step]) -> None:
    batch = applied_batch(site)
    site.remote.errors[step] = [
        errors.RemoteRefused("BATCH_IN_USE", errors.Status.FAILED_PRECONDITION, "a payment was allocated")
    ]
    roll_back(site, batch)
    site.worker.roll_back()
    found = site.get(batch.name)
    assert (found.state, found.refusal_code) == (Batch.STATE_APPLIED, "BATCH_IN_USE")
    assert found.refusal == "a payment was allocated"
    assert [one for _, one in site.remote.calls] == calls
    # asked again, without the reason in the way
    roll_back(site, found)
    site.worker.roll_back()
    found = site.get(batch.name)
    assert (found.state, found.refusal_code) == (Batch.STATE_ROLLED_BACK, "")


@pytest.mark.parametrize("step", [Step.BEGIN, Step.TITLES, Step.END])
@pytest.mark.parametrize("error", [errors.RemoteUnavailable("away"), Died()])
def test_taking_back_goes_on_after_a_failure(site: Site, step: Step, error: Any) -> None:
    batch = applied_batch(site)
    site.remote.errors[step] = [error]
    roll_back(site, batch)
    with pytest.raises(type(error)):
        site.worker.roll_back()
    assert site.get(batch.name).state == Batch.STATE_ROLLING_BACK
    site.new_worker().roll_back()
    assert site.get(batch.name).state == Batch.STATE_ROLLED_BACK
    steps = [one for _, one in site.remote.calls]
    assert steps.count(step) == 2
    assert steps[-1] is Step.END


def test_what_cannot_be_taken_back(site: Site) -> None:
    batch = site.read(portfolio.content(portfolio.rows(2)))
    found = refused(lambda: roll_back(site, batch))
    assert (found.reason, found.metadata["state"]) == ("BATCH_STATE_FORBIDS", "APPLYING")
    payments = site.read(
        portfolio.content(portfolio.rows(2, portfolio.PAYMENT)), kind=imports_pb2.BATCH_KIND_PAYMENTS
    )
    done = site.apply_all(payments.name, payments=True)
    assert refused(lambda: roll_back(site, done)).reason == "BATCH_NOT_REVERSIBLE"


def test_files_are_erased_when_their_time_is_over(site: Site, make_site: Callable[..., Site]) -> None:
    import datetime

    from servicekit import blobs

    from .conftest import NOW

    rows = portfolio.rows(50)
    rows[0]["due_date"] = "x"
    batch = site.read(portfolio.content(rows))
    with db.begin(site.engine, agency=AGENCY) as tx:
        assert blobs.expire(tx, NOW + datetime.timedelta(days=31)) == batch.slices
        assert blobs.expire(tx, NOW + datetime.timedelta(days=91)) == 1
    download = imports_service_pb2.DownloadRejectsRequest(name=batch.name)
    assert refused(lambda: list(site.call(site.stub.DownloadRejects, download))).reason == "BLOB_ERASED"
    assert site.rejects(batch.name) == [(2, "due_date", "IMPOSSIBLE_DATE")]


def test_the_present_state_is_published_again(site: Site) -> None:
    from servicekit import clock

    open_batch = site.read(portfolio.content(portfolio.rows(3)))
    done = applied_batch(site)
    testing.take(site.engine)
    with db.begin(site.engine, agency=AGENCY) as tx:
        assert usecases.republish(tx, AGENCY, clock=clock.read(tx, AGENCY)) == 2
    assert sorted(site.states()) == ["APPLIED", "APPLYING"]
    assert [one.batch_id.hex() for _, one in site.ready_slices()] == [
        open_batch.name.rpartition("/")[2].replace("-", "")
    ] * open_batch.slices
    assert done.slices


def test_an_agency_that_fails_does_not_keep_the_others_from_their_turn(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    creditor = ids.new()
    first = site.upload(portfolio.content(portfolio.rows(2)), creditor=creditor)
    second = site.upload(portfolio.content(portfolio.rows(2)), agency=OTHER)

    def away(*_: object) -> str:
        raise errors.RemoteUnavailable("case is away")

    with monkeypatch.context() as patched:
        patched.setattr(site.remote, "creditor_reference", away)
        with pytest.raises(errors.RemoteUnavailable):
            site.worker.read_files()
    assert site.get(first.name).state == Batch.STATE_RECEIVED
    assert site.get(second.name, OTHER).state == Batch.STATE_APPLYING
    site.worker.read_files()
    assert site.get(first.name).refusal_code == "CREDITOR_UNKNOWN"
