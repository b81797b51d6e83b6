"""The outside world of the dialer: the telephone exchange, and permission to contact, each behind a small
protocol.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from dialer_service import domain
from recupera.case.v1 import case_pb2, case_service_pb2, case_service_pb2_grpc
from servicekit import client, dates, errors

# -- telephony -----------------------------------------------------------------------------------------


class ExchangeUnavailable(errors.ServiceError):
    """The exchange did not answer, so nobody knows whether the call was begun: ask it by the call's key
    later.
    """

    status = errors.Status.UNAVAILABLE
    transient = True


class CallNotKnown(errors.ServiceError):
    """The exchange never heard of the key: the call was not begun, and may be."""

    status = errors.Status.NOT_FOUND


class Exchange(Protocol):
    """A telephone exchange, or the driver of one (a real one: Asterisk ARI, architecture.md §4).

    A call is begun at most once for a key, however often it is asked for. While the line rings both methods
    answer None, and the loop asks again.
    """

    def originate(self, key: str, number: str) -> domain.Outcome | None:
        """Dial `number` (E.164). Raises ExchangeUnavailable."""

    def ask(self, key: str) -> domain.Outcome | None:
        """What became of the call. Raises ExchangeUnavailable, CallNotKnown."""


SHARES: Mapping[domain.Outcome, int] = {
    domain.Outcome.ANSWER: 35,
    domain.Outcome.NO_ANSWER: 30,
    domain.Outcome.MACHINE: 20,
    domain.Outcome.BUSY: 10,
    domain.Outcome.INVALID: 5,
}
"""How often the simulated exchange gives each outcome, in percent."""


def draw(*, seed: str, natural_key: str, date: str, attempt: str) -> domain.Outcome:
    """The simulated outcome of a try: a pure function, so a restart changes nothing."""
    digest = hashlib.sha256(f"{seed}|{natural_key}|{date}|{attempt}".encode()).digest()
    ticket = int.from_bytes(digest[:8]) % 100
    for outcome, share in SHARES.items():
        if ticket < share:
            return outcome
        ticket -= share
    raise AssertionError("the shares are 100 percent")


class SimulatedExchange:
    """An exchange that calls nobody. It needs no memory and no clock: what it says is drawn from the key
    itself (`domain.outside_key`: seed, the case's natural key, date, attempt), so `ask` says what
    `originate` said.
    """

    def originate(self, key: str, number: str) -> domain.Outcome | None:
        """The outcome, at once; nobody is called."""
        return self.ask(key)

    def ask(self, key: str) -> domain.Outcome | None:
        """The same outcome again."""
        _, seed, natural_key, date, attempt = key.split(".")
        return draw(seed=seed, natural_key=natural_key, date=date, attempt=attempt)


# -- permission ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """A call that wants permission; `key` is its id. No `person_id`: the case's holder."""

    key: UUID
    case_id: UUID
    person_id: UUID | None


class Permission(Protocol):
    """Who may be called now, at which number (architecture.md §7). No answer: no call."""

    def reserve(self, agency: UUID, asks: Sequence[Ask]) -> Sequence[domain.Answer]:
        """An answer for each, in any order; the same key gets the same answer. Raises RemoteUnavailable,
        RemoteRefused.
        """


MAX_ASKS = 500
"""Items of one ReserveContacts."""


class CasePermission:
    """Permission from the case service's ReserveContacts."""

    def __init__(self, channel: client.Channel, *, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._stub = case_service_pb2_grpc.CaseServiceStub(channel.grpc)

    def reserve(self, agency: UUID, asks: Sequence[Ask]) -> Sequence[domain.Answer]:
        """Asks of up to 500 calls in one request, more in several."""
        answers: list[domain.Answer] = []
        for start in range(0, len(asks), MAX_ASKS):
            request = case_service_pb2.ReserveContactsRequest(
                parent=f"agencies/{agency}",
                items=[
                    case_service_pb2.ContactItem(
                        key=ask.key.bytes,
                        case_id=ask.case_id.bytes,
                        person_id=ask.person_id.bytes if ask.person_id else b"",
                        channel=case_pb2.CHANNEL_CALL,
                        purpose=case_service_pb2.ContactItem.PURPOSE_COLLECTION,
                    )
                    for ask in asks[start : start + MAX_ASKS]
                ],
            )
            response = self._channel.call(
                self._stub.ReserveContacts, request, agency=agency, timeout=self._timeout
            )
            answers += [_answer(answer) for answer in response.answers]
        return answers


def _answer(answer: case_service_pb2.ContactAnswer) -> domain.Answer:
    key = UUID(bytes=answer.key)
    if answer.WhichOneof("answer") == "granted":
        granted = answer.granted
        if not granted.address:
            return domain.Refused(key=key, rule="NO_CONTACT_POINT", retry_time=None)
        return domain.Granted(
            key=key,
            contact_point_id=UUID(bytes=granted.contact_point_id) if granted.contact_point_id else None,
            person_id=UUID(bytes=granted.person_id) if granted.person_id else None,
            currency=granted.open_principal.currency_code,
            number=granted.address,
        )
    refused = answer.refused
    retry = dates.from_timestamp(refused.retry_time, "retry_time") if refused.HasField("retry_time") else None
    return domain.Refused(key=key, rule=refused.rule or "NO_PERMISSION", retry_time=retry)
