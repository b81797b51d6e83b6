"""The services that notify asks right before the act: `case` for permission, `agreement` for amounts
(architecture §7).
"""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol

from notify_service.domain import balances, messages
from recupera.agreement.v1 import agreement_pb2, agreement_service_pb2, agreement_service_pb2_grpc
from recupera.case.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc
from servicekit import client, dates, errors, ids, money

TIMEOUT = 20.0
"""Seconds for a batch of up to 500."""

_CHANNELS = {
    messages.Channel.EMAIL: case_pb2.CHANNEL_EMAIL,
    messages.Channel.SMS: case_pb2.CHANNEL_SMS,
}
_PURPOSES = {
    messages.Purpose.COLLECTION: case_service_pb2.ContactItem.PURPOSE_COLLECTION,
    messages.Purpose.AGREEMENT_REMINDER: case_service_pb2.ContactItem.PURPOSE_AGREEMENT_REMINDER,
}


class Contacts(Protocol):
    """Permission to contact."""

    def reserve(
        self, agency: uuid.UUID, items: Sequence[messages.Message]
    ) -> Mapping[uuid.UUID, messages.Grant | messages.Refusal]:
        """Answers by message id, at most 500; a message without an answer is absent: no answer, no
        contact.
        """

    def knows(self, agency: uuid.UUID, case_id: uuid.UUID) -> bool:
        """Whether the agency has such a case."""


class Balances(Protocol):
    """What is owed."""

    def explain(
        self, agency: uuid.UUID, case_ids: Sequence[uuid.UUID], *, date: datetime.date
    ) -> Mapping[uuid.UUID, balances.CaseBalance]:
        """Balances to `date` by case, at most 500; cases that `agreement` does not know are absent."""


class CaseClient:
    """`case` over gRPC. Raises errors.RemoteUnavailable, errors.RemoteRefused."""

    def __init__(self, channel: client.Channel) -> None:
        self._channel = channel
        self._stub = case_service_pb2_grpc.CaseServiceStub(channel.grpc)

    def reserve(
        self, agency: uuid.UUID, items: Sequence[messages.Message]
    ) -> Mapping[uuid.UUID, messages.Grant | messages.Refusal]:
        """`ReserveContacts`; the key of a message's reservation is its id, at every attempt."""
        by_key = {item.id.bytes: item for item in items}
        request = case_service_pb2.ReserveContactsRequest(
            parent=f"agencies/{agency}",
            items=[
                case_service_pb2.ContactItem(
                    key=key,
                    case_id=item.case_id.bytes,
                    person_id=item.person_id.bytes if item.person_id else b"",
                    channel=_CHANNELS[item.channel],
                    purpose=_PURPOSES[item.purpose],
                )
                for key, item in by_key.items()
            ],
        )
        response = self._channel.call(self._stub.ReserveContacts, request, agency=agency, timeout=TIMEOUT)
        found: dict[uuid.UUID, messages.Grant | messages.Refusal] = {}
        for answer in response.answers:
            item = by_key[answer.key]
            match answer.WhichOneof("answer"):
                case "granted":
                    found[item.id] = _grant(answer.granted)
                case "refused":
                    found[item.id] = _refusal(answer.refused)
        return found

    def knows(self, agency: uuid.UUID, case_id: uuid.UUID) -> bool:
        """`BatchGetParties`; what it says of the parties is not looked at."""
        response = self._channel.call(
            self._stub.BatchGetParties,
            case_service_pb2.BatchGetPartiesRequest(parent=f"agencies/{agency}", case_ids=[case_id.bytes]),
            agency=agency,
            timeout=TIMEOUT,
        )
        return any(parties.case_id == case_id.bytes for parties in response.parties)


class AgreementClient:
    """`agreement` over gRPC. Raises errors.RemoteUnavailable, errors.RemoteRefused."""

    def __init__(self, channel: client.Channel) -> None:
        self._channel = channel
        self._stub = agreement_service_pb2_grpc.AgreementServiceStub(channel.grpc)

    def explain(
        self, agency: uuid.UUID, case_ids: Sequence[uuid.UUID], *, date: datetime.date
    ) -> Mapping[uuid.UUID, balances.CaseBalance]:
        """`ExplainBalances`, which refuses where it does not know a case, and names it: asked again without."""
        wanted = sorted({str(case) for case in case_ids})
        while wanted:
            try:
                response = self._channel.call(
                    self._stub.ExplainBalances,
                    agreement_service_pb2.ExplainBalancesRequest(
                        parent=f"agencies/{agency}", case_ids=wanted, date=dates.to_proto(date)
                    ),
                    agency=agency,
                    timeout=TIMEOUT,
                )
            except errors.RemoteRefused as error:
                unknown = error.metadata.get("case", "")
                if error.status is not errors.Status.NOT_FOUND or unknown not in wanted:
                    raise
                wanted.remove(unknown)
                continue
            return {one.case_id: one for one in (_balance(one, date) for one in response.balances)}
        return {}


def _grant(granted: case_service_pb2.ContactAnswer.Granted) -> messages.Grant:
    return messages.Grant(
        contact_point_id=ids.from_bytes(granted.contact_point_id, "contact_point_id"),
        address=granted.address,
        person_id=ids.from_bytes(granted.person_id, "person_id"),
        person_name=granted.person_name,
        language=granted.language,
        creditor_name=granted.creditor_name,
        creditor_address=granted.creditor_address,
        creditor_document=granted.creditor_document,
        contract_reference=granted.contract_reference,
        product=granted.product,
        guarantor=granted.guarantor,
        valid_until=dates.from_timestamp(granted.valid_until, "valid_until"),
    )


def _refusal(refused: case_service_pb2.ContactAnswer.Refused) -> messages.Refusal:
    return messages.Refusal(
        rule=refused.rule,
        retry_at=dates.from_timestamp(refused.retry_time, "retry_time")
        if refused.HasField("retry_time")
        else None,
    )


def _balance(found: agreement_service_pb2.CaseBalance, date: datetime.date) -> balances.CaseBalance:
    return balances.CaseBalance(
        case_id=ids.parse(found.case_id, "case_id"),
        date=date,
        total=money.from_proto(found.total, "total"),
        subjects=tuple(_subject(subject) for subject in found.subjects),
    )


def _subject(found: agreement_pb2.ExplainedBalance) -> balances.Subject:
    return balances.Subject(
        name=found.subject,
        due_date=dates.from_proto(found.due_date, "due_date"),
        days_past_due=found.days_past_due,
        total=money.from_proto(found.total, "total"),
        lines=tuple(
            balances.Line(
                component=agreement_pb2.BalanceLine.Component.Name(line.component).removeprefix("COMPONENT_"),
                amount=money.from_proto(line.amount, "amount"),
                base=money.from_proto(line.base, "base") if line.HasField("base") else None,
                rate_e4=line.rate_e4,
                days=line.days,
                source=line.source,
            )
            for line in found.lines
        ),
    )
