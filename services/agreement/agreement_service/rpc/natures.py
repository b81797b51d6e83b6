"""What an agreement has beside its plan, read and shown: kind, acceptance, confession, how it is honoured."""

import copy
import datetime
import uuid
from collections.abc import Sequence

from agreement_service.domain import accounts, creditors, novations
from agreement_service.rpc import common, negotiations
from agreement_service.store import agreements as agreement_store
from agreement_service.store import novations as novation_store
from agreement_service.usecases import facts, moments
from recupera.agreement.v1 import agreement_pb2
from servicekit import dates, db, errors, ids, money

MAX_RESPONSIBLE = 120


def kind_of(value: "agreement_pb2.Agreement.Kind.ValueType") -> accounts.AgreementKind:
    if value == agreement_pb2.Agreement.KIND_UNSPECIFIED:
        return accounts.AgreementKind.PLAN
    for name, number in agreement_pb2.Agreement.Kind.items():
        if number == value:
            return accounts.AgreementKind(name.removeprefix("KIND_"))
    raise errors.invalid("kind", "expected a known kind")


def nature(message: agreement_pb2.Nature) -> novations.Nature:
    if len(message.responsible) > MAX_RESPONSIBLE or not message.responsible.isprintable():
        raise errors.invalid("nature.responsible", f"expected at most {MAX_RESPONSIBLE} printable characters")
    if message.keeps_novation:
        raise errors.invalid("nature.keeps_novation", "expected in answers only")
    return novations.Nature(
        kind=kind_of(message.kind),
        tolerance_date=common.date_of(message, "tolerance_date", "nature.tolerance_date"),
        acquirer=message.acquirer,
        contact_person_id=ids.parse(message.contact_person_id, "nature.contact_person_id")
        if message.contact_person_id
        else None,
        responsible=message.responsible,
    )


def with_terms(source: negotiations.Asked, kind: novations.Nature) -> negotiations.Asked:
    """The request itself; where titles stay unchanged and it names no terms, with those that go with that."""
    if kind.tolerance_date is None or source.HasField("terms"):
        return source
    filled = copy.deepcopy(source)
    filled.terms.instalments = 1
    filled.terms.first_due_date.CopyFrom(dates.to_proto(kind.tolerance_date))
    return filled


def channel(value: "agreement_pb2.Agreement.Channel.ValueType") -> str:
    if value == agreement_pb2.Agreement.CHANNEL_UNSPECIFIED:
        return "PHONE"
    for name, number in agreement_pb2.Agreement.Channel.items():
        if number == value:
            return name.removeprefix("CHANNEL_")
    raise errors.invalid("channel", "expected a known channel")


def document(found: novation_store.SignedDocument, now: datetime.datetime) -> agreement_pb2.SignedDocument:
    return agreement_pb2.SignedDocument(
        content_type=found.content_type,
        size=found.size_bytes,
        sha256=found.sha256,
        upload_time=dates.to_timestamp(found.uploaded_at),
        erased=found.erased or now >= found.expire_at,
    )


class Beside:
    """What some agreements have beside their plan, loaded at once."""

    def __init__(self, tx: db.Transaction, agency: uuid.UUID, agreement_ids: Sequence[uuid.UUID]) -> None:
        self._moment = moments.read(tx, agency)
        self._details = novation_store.details(tx, agency, agreement_ids)
        self._documents = novation_store.documents(tx, agency, agreement_ids)

    def show(
        self,
        shown: agreement_pb2.Agreement,
        record: agreement_store.Record,
        rows: Sequence[accounts.Instalment],
    ) -> None:
        """Fill in the fields of it that are about its life."""
        details = self._details[record.id]
        kind = details.nature
        shown.nature.kind = agreement_pb2.Agreement.Kind.Value(f"KIND_{kind.kind.value}")
        shown.nature.acquirer, shown.nature.responsible = kind.acquirer, kind.responsible
        shown.nature.contact_person_id = str(kind.contact_person_id) if kind.contact_person_id else ""
        if kind.tolerance_date is not None:
            shown.nature.tolerance_date.CopyFrom(dates.to_proto(kind.tolerance_date))
        shown.nature.keeps_novation = (
            kind.kind is accounts.AgreementKind.NOVATION
            and details.breach_policy is creditors.BreachPolicy.KEEP_NOVATION
        )
        if details.accept_channel:
            shown.accept_channel = agreement_pb2.Agreement.Channel.Value(f"CHANNEL_{details.accept_channel}")
        shown.accepted_by = details.accepted_by
        if details.grace_date is not None:
            shown.grace_date.CopyFrom(dates.to_proto(details.grace_date))
        if record.id in self._documents:
            shown.signed_document.CopyFrom(document(self._documents[record.id], self._moment.now))
        shown.paid_rate_e4 = record.paid_minor * money.RATE_UNIT // record.total_minor
        going_on = record.state in accounts.IN_FORCE
        if going_on and (due := facts.next_due_date(rows)) is not None:
            shown.next_due_date.CopyFrom(dates.to_proto(due))
        honour = accounts.honour(
            record.state,
            rows,
            broken_days=record.broken_days,
            grace_date=details.grace_date,
            business_date=self._moment.business_date,
        )
        if honour is not None:
            shown.honour = agreement_pb2.Agreement.Honour.Value(f"HONOUR_{honour.value}")
