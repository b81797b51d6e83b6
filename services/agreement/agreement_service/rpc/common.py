"""What the servicers share: names, amounts, etags read and written; a mutation done once."""

import contextlib
import contextvars
import dataclasses
import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from google.type import money_pb2

from agreement_service import providers
from agreement_service.domain import approvals, balances, limits
from agreement_service.usecases import approvals as approval_cases
from agreement_service.usecases import moments, titles
from recupera.agreement.v1 import agreement_pb2
from servicekit import dates, db, errors, idempotency, ids, money, names, rpc

AGENCY = "agencies/{agency}"
TITLE = "agencies/{agency}/titles/{title}"
AGREEMENT = "agencies/{agency}/agreements/{agreement}"
DRAFT = "agencies/{agency}/drafts/{draft}"
CHARGE_TERMS = "agencies/{agency}/chargeTerms/{charge_terms}"
PAYMENT = "agencies/{agency}/payments/{payment}"
CREDITOR = "agencies/{agency}/creditors/{creditor}"
CONDITION = "agencies/{agency}/paymentConditions/{condition}"
CATEGORY = "agencies/{agency}/agreementCategories/{category}"
APPROVAL = "agencies/{agency}/approvals/{approval}"
MAX_REASON = 500

M = TypeVar("M", bound=Message)


@dataclasses.dataclass(frozen=True, slots=True)
class Execution:
    """An approved command being run: in which transaction, for whom, as which method, on whose authority."""

    tx: db.Transaction
    requester: str
    method: str
    authority: limits.Authority


_execution: contextvars.ContextVar[Execution | None] = contextvars.ContextVar(
    "agreement_execution", default=None
)


@contextlib.contextmanager
def executing(execution: Execution) -> Iterator[None]:
    """Within, `Methods.once` and `authority` follow the execution instead of the call."""
    token = _execution.set(execution)
    try:
        yield
    finally:
        _execution.reset(token)


class Methods:
    """A part of a servicer: the database, the bank, and whom to ask who the parties of a case are."""

    def __init__(
        self, engine: db.Engine, bank: providers.BankProvider, parties: providers.PartyDirectory
    ) -> None:
        self.engine = engine
        self.bank = bank
        self.parties = parties

    def once(
        self, agency: uuid.UUID, request: Message, response: type[M], run: Callable[[db.Transaction], M]
    ) -> M:
        """Do a mutation once for its request_id, in one transaction.

        One that goes beyond its caller's limits is rolled back and stored for approval: raises ApprovalRequested.
        Where it runs because it was approved, it runs in the transaction of the decision, and its answer is kept for
        the requester's request_id.
        """
        execution = _execution.get()
        if execution is not None:
            return idempotency.once(
                execution.tx,
                caller=dataclasses.replace(rpc.caller(), subject=execution.requester),
                method=execution.method,
                request=request,
                response=response,
                run=lambda: run(execution.tx),
            )
        try:
            return self._once(agency, request, response, run)
        except approvals.ApprovalNeeded as needed:
            beyond = needed
        try:
            with db.begin(self.engine, agency=agency) as tx:
                approval_id = approval_cases.request(
                    tx=tx,
                    agency=agency,
                    needed=beyond,
                    method=rpc.method(),
                    command=request.SerializeToString(deterministic=True),
                    request_id=getattr(request, "request_id"),  # noqa: B009 -- of any message
                    request_hash=idempotency.digest(request),
                    requester=rpc.caller().subject,
                    moment=moments.read(tx, agency),
                )
        except approval_cases.ApprovalClosed as closed:
            if closed.metadata["state"] != approvals.State.APPROVED.value:
                raise
            try:  # approved since the command was tried above: its answer is there
                return self._once(agency, request, response, run)
            except approvals.ApprovalNeeded:  # or was: answers are kept for some days only
                raise closed from None
        raise approval_cases.ApprovalRequested(
            "beyond the caller's limits: it waits for approval",
            approval=names.format(APPROVAL, agency=agency, approval=approval_id),
            rule=beyond.rule,
            limit=beyond.limit,
            asked=beyond.asked,
        )

    def _once(
        self, agency: uuid.UUID, request: Message, response: type[M], run: Callable[[db.Transaction], M]
    ) -> M:
        with db.begin(self.engine, agency=agency) as tx:
            return idempotency.once(
                tx,
                caller=rpc.caller(),
                method=rpc.method(),
                request=request,
                response=response,
                run=lambda: run(tx),
            )


def authority() -> limits.Authority:
    """On whose authority the current call does what it does: the caller's, or the approver's where an approved command
    runs."""
    execution = _execution.get()
    if execution is not None:
        return execution.authority
    caller = rpc.caller()
    return limits.Authority(subject=caller.subject, roles=caller.roles)


def subject() -> str:
    """Who asked for what the current call does: the caller, or the requester where an approved command runs."""
    execution = _execution.get()
    return rpc.caller().subject if execution is None else execution.requester


def agency_of(name: str, field: str) -> uuid.UUID:
    return names.parse(AGENCY, name, field)["agency"]


def named(pattern: str, name: str, kind: str) -> tuple[uuid.UUID, uuid.UUID]:
    found = names.parse(pattern, name)
    return found["agency"], found[kind]


def creditor_of(agency: uuid.UUID, name: str, field: str) -> uuid.UUID | None:
    """The creditor of a name in the same agency; None where the name is empty."""
    return inside(agency, CREDITOR, name, field, "creditor") if name else None


def creditor_name(agency: uuid.UUID, creditor_id: uuid.UUID | None) -> str:
    return "" if creditor_id is None else names.format(CREDITOR, agency=agency, creditor=creditor_id)


def inside(agency: uuid.UUID, pattern: str, name: str, field: str, kind: str) -> uuid.UUID:
    """The id in a name that a field gives beside `parent` or `name`: it has to be of the same agency."""
    found = names.parse(pattern, name, field)
    if found["agency"] != agency:
        raise errors.invalid(field, "expected a resource of the same agency")
    return found[kind]


def case_ids(values: Sequence[str]) -> list[uuid.UUID]:
    if not 1 <= len(values) <= titles.MAX_CASES:
        raise errors.invalid("case_ids", f"expected 1 to {titles.MAX_CASES} cases")
    return [ids.parse(value, f"case_ids[{place}]") for place, value in enumerate(values)]


def version_of(etag: str, field: str = "etag") -> int | None:
    if not etag:
        return None
    if not etag.isascii() or not etag.isdigit() or len(etag) > 18:
        raise errors.invalid(field, "expected the etag of an earlier answer, unchanged")
    return int(etag)


def reason(text: str) -> str:
    if len(text) > MAX_REASON or "\0" in text:
        raise errors.invalid("reason", f"expected at most {MAX_REASON} characters")
    return text


def date_of(request: Message, field: str, path: str = "") -> datetime.date | None:
    return dates.from_proto(getattr(request, field), path or field) if request.HasField(field) else None


def state_of(states: Sequence[tuple[str, int]], value: int) -> str | None:
    if not value:
        return None
    for name, number in states:
        if number == value:
            return name.removeprefix("STATE_")
    raise errors.invalid("state", "expected a known state")


def money_of(minor: int, currency: str) -> money_pb2.Money:
    return money.to_proto(money.Money(minor, currency))


def component(name: str) -> "agreement_pb2.BalanceLine.Component.ValueType":
    return agreement_pb2.BalanceLine.Component.Value(f"COMPONENT_{name}")


def explained(
    agency: uuid.UUID, subject: balances.Explained, currency: str
) -> agreement_pb2.ExplainedBalance:
    if subject.title_id is not None:
        name = names.format(TITLE, agency=agency, title=subject.title_id)
    else:
        assert subject.agreement_id is not None
        name = names.format(AGREEMENT, agency=agency, agreement=subject.agreement_id)
    return agreement_pb2.ExplainedBalance(
        subject=name,
        due_date=dates.to_proto(subject.due_date),
        days_past_due=subject.days_past_due,
        total=money_of(subject.total_minor, currency),
        lines=[
            agreement_pb2.BalanceLine(
                component=component(line.component),
                amount=money_of(line.amount_minor, currency),
                base=money_of(line.base_minor, currency) if line.base_minor else None,
                rate_e4=line.rate_e4,
                days=line.days,
                source=line.source,
                rule=line.rule,
                numerator=line.numerator,
                denominator=line.denominator,
                from_date=dates.to_proto(line.from_date) if line.from_date else None,
                through_date=dates.to_proto(line.through_date) if line.through_date else None,
                series=line.series,
                terms=names.format(CHARGE_TERMS, agency=agency, charge_terms=line.terms_id)
                if line.terms_id
                else "",
            )
            for line in subject.lines
        ],
    )
