"""From a step of the ladder to a mail on a real server, and everything that may stand in between."""

import collections
import contextlib
import datetime
import hashlib
from collections.abc import Mapping
from uuid import UUID

import pytest

from notify_service.domain import mail as domain_mail
from notify_service.domain import messages
from notify_service.usecases import acts
from recupera.case.v1 import case_pb2
from servicekit import blobs, db, facts

from .conftest import (
    AGENCY,
    DATE,
    NOW,
    AgreementService,
    CaseService,
    MailServer,
    Notify,
    address,
    an_id,
    case,
    person,
)


@pytest.mark.feature("S2-20", "S2-43")
def test_a_step_becomes_a_mail(
    notify: Notify, mail_server: MailServer, agreement_service: AgreementService
) -> None:
    notify.deliver(notify.steps_due([1]))
    notify.tick()

    [sent] = mail_server.mails
    [row] = notify.rows("SELECT * FROM messages")
    assert row["state"] == "SENT"
    assert sent.to == address(1)
    assert sent.mail_from == domain_mail.return_address(AGENCY, row["id"], "recupera.example")
    assert sent.parsed["Message-ID"] == row["act_key"] == f"<{row['id']}@recupera.example>"
    assert sent.parsed["Subject"] == "Lembrete de pagamento: Credor Exemplo S.A."
    assert "u." in sent.parsed["List-Unsubscribe"]
    text = sent.parsed.get_content()
    for part in (
        "Fulana de Tal 1",
        "R$\xa0103,30",
        "16.727.230/0001-97",
        "Rua das Amostras, 100",
        "02/03/2026",
    ):
        assert part in text
    assert notify.told() == [("SENT", 1, True, "")]
    assert agreement_service.asked == [(str(case(1)), DATE)]


def test_evidence_is_kept_and_holds_the_text(notify: Notify, mail_server: MailServer) -> None:
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    [row] = notify.rows("SELECT * FROM message_evidence")
    content = b"".join(blobs.read(notify.engine, row["text_blob"]))
    assert bytes(row["text_sha256"]) == hashlib.sha256(content).digest()
    received = mail_server.mails[0].parsed.get_content().replace("\r\n", "\n")
    assert content.decode().partition("\n\n")[2].strip() == received.strip()
    assert row["total_minor"] == 103_30
    assert [line["amount_minor"] for line in row["balance"]["subjects"][0]["lines"]] == [100_00, 2_30, 1_00]


def test_nothing_personal_is_stored_in_rows_or_facts(notify: Notify) -> None:
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    stored = str(notify.rows("SELECT * FROM messages")) + str(notify.rows("SELECT * FROM message_evidence"))
    told = b"".join(fact.SerializeToString() for fact in notify.published("messages_changed"))
    for secret in (address(1), "Fulana"):
        assert secret not in stored
        assert secret.encode() not in told


def test_the_same_step_twice_is_one_mail(notify: Notify, mail_server: MailServer) -> None:
    fact = notify.steps_due([1, 2])
    notify.deliver(fact)
    again = type(fact)()
    again.CopyFrom(fact)
    again.fact_id = b""
    notify.tick()
    notify.deliver(again)
    notify.tick()
    assert len(mail_server.mails) == 2
    assert notify.rows("SELECT count(*) AS n FROM messages")[0]["n"] == 2


def test_steps_of_other_channels_are_not_ours(notify: Notify) -> None:
    from recupera.case.v1 import case_pb2

    notify.deliver(notify.steps_due([1], channel=case_pb2.CHANNEL_CALL))
    assert notify.rows("SELECT * FROM messages") == []


def test_sms_without_a_provider_is_suppressed_by_name(notify: Notify, case_service: CaseService) -> None:
    from recupera.case.v1 import case_pb2

    notify.deliver(notify.steps_due([1], channel=case_pb2.CHANNEL_SMS))
    notify.tick()
    assert notify.told() == [("SUPPRESSED", 1, False, "NO_PROVIDER")]
    assert case_service.items == []


def test_a_refusal_suppresses_with_its_rule(
    notify: Notify, case_service: CaseService, mail_server: MailServer
) -> None:
    case_service.refusals = {case(1): ("R27", None)}
    notify.deliver(notify.steps_due([1, 2]))
    notify.tick()
    assert notify.states() == {1: "SUPPRESSED", 2: "SENT"}
    assert sorted(notify.told()) == [("SENT", 2, True, ""), ("SUPPRESSED", 1, False, "R27")]
    assert [one.to for one in mail_server.mails] == [address(2)]


class Counted(collections.Counter[tuple[str, str]]):
    """Stands for a counter by channel and rule."""

    def add(self, number: int, attributes: Mapping[str, str]) -> None:
        assert set(attributes) == {"channel", "rule"}
        self[attributes["channel"], attributes["rule"]] += number


@pytest.fixture
def suppressed(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """What the metric recupera_notify_suppressed_total would show."""
    counted = Counted()
    monkeypatch.setattr(acts, "_suppressed", counted)
    return counted


def test_what_rules_suppress_is_counted_by_channel_and_rule(
    notify: Notify, case_service: CaseService, agreement_service: AgreementService, suppressed: Counted
) -> None:
    later = NOW + datetime.timedelta(hours=20)
    case_service.refusals = {case(1): ("R27", None), case(2): ("R27", None), case(3): ("R01", later)}
    case_service.changes = {case(5): {"creditor_document": " "}}
    agreement_service.totals = {case(4): 0}
    notify.deliver(notify.steps_due(range(1, 8)), notify.steps_due([8], channel=case_pb2.CHANNEL_SMS))
    notify.deliver(notify.steps_due([9], date=DATE - datetime.timedelta(days=8), level="L2"))
    notify.tick()
    expected = {
        ("EMAIL", "R27"): 2,
        ("EMAIL", "NOTHING_OWED"): 1,
        ("EMAIL", "R07"): 1,
        ("SMS", "NO_PROVIDER"): 1,
    }
    assert suppressed == expected
    assert notify.states() == {
        **dict.fromkeys((1, 2, 4, 5, 8), "SUPPRESSED"),
        3: "SCHEDULED",  # it waits for its hour
        6: "SENT",
        7: "SENT",
        9: "EXPIRED",
    }
    notify.tick()
    assert suppressed == expected


def test_what_is_not_committed_is_not_counted(
    notify: Notify, case_service: CaseService, suppressed: Counted
) -> None:
    notify.deliver(notify.steps_due([1]))
    claim = {"limit": 10, "validity_days": 7}
    with contextlib.suppress(ZeroDivisionError), db.begin(notify.engine, agency=AGENCY) as tx:
        acts.claim(tx, AGENCY, channels=(), **claim)
        raise ZeroDivisionError
    assert notify.states() == {1: "REQUESTED"}
    assert suppressed == {}
    with db.begin(notify.engine, agency=AGENCY) as tx:
        claimed = acts.claim(tx, AGENCY, channels=messages.Channel, **claim)
    decided = [(one, messages.Suppress(rule="R26")) for one in claimed.messages]
    for _ in range(2):  # a commit whose answer was lost is done again, and changes nothing
        with db.begin(notify.engine, agency=AGENCY) as tx:
            acts.leave(tx, AGENCY, decided=decided, people={}, now=NOW, business_date=DATE)
    assert suppressed == {("EMAIL", "R26"): 1}


def test_a_refusal_with_a_time_waits_on_the_agencys_clock(
    notify: Notify, case_service: CaseService, mail_server: MailServer
) -> None:
    later = NOW + datetime.timedelta(hours=20)
    case_service.refusals = {case(1): ("R01", later)}
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    [row] = notify.rows("SELECT state, due_at FROM messages")
    assert (row["state"], row["due_at"]) == ("SCHEDULED", later)
    case_service.refusals = {}
    notify.tick()
    assert mail_server.mails == []
    notify.set_clock(later, version=2, date=DATE + datetime.timedelta(days=1))
    case_service.now = later
    notify.tick()
    assert notify.states() == {1: "SENT"}
    assert len({item.key for item in case_service.items}) == 1


def test_nothing_owed_nothing_sent(
    notify: Notify, agreement_service: AgreementService, mail_server: MailServer
) -> None:
    agreement_service.totals = {case(1): 0}
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert notify.told() == [("SUPPRESSED", 1, False, "NOTHING_OWED")]
    assert mail_server.mails == []


def test_no_balance_no_message_and_it_stays_due(
    notify: Notify,
    case_service: CaseService,
    agreement_service: AgreementService,
    mail_server: MailServer,
) -> None:
    agreement_service.unknown = {case(1), case(2)}
    notify.deliver(notify.steps_due([1]))
    notify.deliver(notify.steps_due([2, 3]))
    notify.tick()
    assert notify.states() == {1: "SCHEDULED", 2: "SCHEDULED", 3: "SENT"}
    assert len(mail_server.mails) == 1
    agreement_service.unknown = set()
    case_service.now = NOW + datetime.timedelta(minutes=5)
    notify.set_clock(case_service.now, version=2)
    notify.tick()
    assert set(notify.states().values()) == {"SENT"}


@pytest.mark.parametrize("who", ["case", "agreement"])
def test_a_neighbour_away_leaves_messages_due(
    notify: Notify,
    case_service: CaseService,
    agreement_service: AgreementService,
    mail_server: MailServer,
    who: str,
) -> None:
    neighbour = case_service if who == "case" else agreement_service
    neighbour.away = True
    notify.deliver(notify.steps_due([1, 2]))
    notify.tick()
    assert notify.states() == {1: "REQUESTED", 2: "REQUESTED"}
    assert mail_server.mails == []
    neighbour.away = False
    notify.tick()
    assert notify.states() == {1: "SENT", 2: "SENT"}
    assert notify.rows("SELECT max(attempts) AS n FROM messages")[0]["n"] == 1


def test_a_reservation_that_ran_out_is_asked_for_again(
    notify: Notify, case_service: CaseService, mail_server: MailServer
) -> None:
    """`case` is behind this service's idea of the time: nothing leaves on a reservation that is over."""
    notify.deliver(notify.steps_due([1]))
    notify.set_clock(NOW + datetime.timedelta(seconds=61), version=2)
    for _ in range(3):
        notify.tick()
    assert mail_server.mails == []
    assert notify.told() == []
    case_service.now = NOW + datetime.timedelta(seconds=61)
    notify.tick()
    assert notify.states() == {1: "SENT"}
    assert len({item.key for item in case_service.items}) == 1


def test_a_reservation_that_runs_out_between_answer_and_act_is_not_used(
    notify: Notify, case_service: CaseService, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify.deliver(notify.steps_due([1, 2]))
    dispatcher = notify.make_dispatcher(acts_in_flight=1)
    begin = dispatcher._begin
    later = NOW + datetime.timedelta(seconds=61)

    def late(*arguments: object) -> object:
        if mail_server.mails:
            notify.set_clock(later, version=2)
        return begin(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dispatcher, "_begin", late)
    dispatcher._slice(AGENCY)
    assert sorted(notify.states().values()) == ["REQUESTED", "SENT"]
    case_service.now = later
    dispatcher._slice(AGENCY)
    assert sorted(notify.states().values()) == ["SENT", "SENT"]


def test_a_creditor_without_identity_is_not_named_half(
    notify: Notify, case_service: CaseService, mail_server: MailServer
) -> None:
    case_service.changes = {case(1): {"creditor_address": " "}}
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert notify.told() == [("SUPPRESSED", 1, False, "R07")]
    assert mail_server.mails == []


@pytest.mark.parametrize(("template", "language"), [("no-such", "pt-BR"), ("reminder-1", "en")])
def test_no_template_no_message(
    notify: Notify, case_service: CaseService, mail_server: MailServer, template: str, language: str
) -> None:
    case_service.changes = {case(1): {"language": language}}
    notify.deliver(notify.steps_due([1], template=template))
    notify.tick()
    assert notify.told() == [("SUPPRESSED", 1, False, "NO_TEMPLATE")]
    assert mail_server.mails == []


def test_the_persons_language_is_used(
    notify: Notify, case_service: CaseService, mail_server: MailServer
) -> None:
    case_service.changes = {case(1): {"language": "pt-PT", "creditor_document": "501964843"}}
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert "Exmo(a). Senhor(a) Fulana de Tal 1" in mail_server.mails[0].parsed.get_content()
    assert notify.rows("SELECT language FROM messages")[0]["language"] == "pt-PT"


def test_too_old_is_expired(notify: Notify, mail_server: MailServer) -> None:
    notify.deliver(notify.steps_due([1], date=DATE - datetime.timedelta(days=8)))
    notify.deliver(notify.steps_due([2], date=DATE - datetime.timedelta(days=7)))
    notify.tick()
    assert notify.states() == {1: "EXPIRED", 2: "SENT"}
    assert ("EXPIRED", 1, False, "") in notify.told()


def test_an_instalment_notified_becomes_a_reminder(
    notify: Notify, agreement_service: AgreementService, case_service: CaseService, mail_server: MailServer
) -> None:
    from recupera.agreement.v1 import agreement_pb2
    from recupera.case.v1 import case_service_pb2

    due = DATE + datetime.timedelta(days=3)
    agreement_service.instalments = {
        case(1): [
            (an_id("agreement", 1), due, 50_00),
            (an_id("agreement", 1), due + datetime.timedelta(days=30), 60_00),
        ]
    }
    notify.deliver(notify.instalments_changed([(1, 1, due)]))
    notify.deliver(notify.instalments_changed([(2, 1, due)], agreement_pb2.Instalment.STATE_SCHEDULED))
    notify.tick()
    [sent] = mail_server.mails
    assert sent.parsed["Subject"] == "Parcela 1 do seu acordo vence em 05/03/2026"
    assert "Valor da parcela: R$\xa050,00" in sent.parsed.get_content()
    assert [item.purpose for item in case_service.items] == [
        case_service_pb2.ContactItem.PURPOSE_AGREEMENT_REMINDER
    ]
    assert case_service.items[0].person_id == b""
    assert notify.told() == [("REQUESTED", 1, False, ""), ("SENT", 1, True, "")]
    assert notify.rows("SELECT person_id FROM messages")[0]["person_id"] == person(1)


def test_an_instalment_paid_meanwhile_is_not_reminded(
    notify: Notify, agreement_service: AgreementService, mail_server: MailServer
) -> None:
    due = DATE + datetime.timedelta(days=3)
    agreement_service.instalments = {
        case(1): [(an_id("agreement", 1), due + datetime.timedelta(days=30), 60_00)]
    }
    notify.deliver(notify.instalments_changed([(1, 1, due)]))
    notify.tick()
    assert notify.told()[-1] == ("SUPPRESSED", 1, False, "NOTHING_OWED")
    assert mail_server.mails == []


def test_a_reminder_text_on_a_ladder_does_not_fit(notify: Notify, mail_server: MailServer) -> None:
    notify.deliver(notify.steps_due([1], template="agreement-reminder"))
    notify.tick()
    assert notify.told() == [("SUPPRESSED", 1, False, "NO_TEMPLATE")]


def test_many_go_over_one_connection_a_slice_and_few_facts(notify: Notify, mail_server: MailServer) -> None:
    numbers = list(range(1, 401))
    notify.deliver(notify.steps_due(numbers))
    dispatcher = notify.make_dispatcher(slice_size=200)
    assert dispatcher._slice(AGENCY)
    assert mail_server.connections == 1
    assert dispatcher._slice(AGENCY)
    assert not dispatcher._slice(AGENCY)
    assert mail_server.connections == 2
    assert set(notify.states().values()) == {"SENT"}
    assert sorted(one.to for one in mail_server.mails) == sorted(address(number) for number in numbers)
    chunks = notify.published("messages_changed")
    assert len(chunks) < 100
    assert sum(len(chunk.case_ids) for chunk in chunks) == 400


def test_chunks_hold_cases_of_one_partition(notify: Notify) -> None:
    from servicekit import testing, topics

    notify.deliver(notify.steps_due(list(range(1, 60))))
    notify.tick()
    for found in testing.published(notify.engine, kind="messages_changed"):
        for key in found.fact.messages_changed.case_ids:
            assert topics.partition_of(UUID(bytes=key), 24) == found.partition
        assert facts.rows(found.fact) <= 500


def test_nothing_is_seen_without_scope(notify: Notify) -> None:
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    import sqlalchemy

    with notify.engine.connect() as connection:
        for table in ("messages", "message_evidence", "templates", "suppressions", "case_anchors"):
            assert connection.execute(sqlalchemy.text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_messages_can_be_asked_for_before_the_clock_is_known(notify: Notify) -> None:
    notify.agency = UUID("01890000-0000-7000-8000-000000000003")
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert notify.states() == {1: "REQUESTED"}
    notify.set_clock()
    notify.tick()
    assert notify.states() == {1: "SENT"}
