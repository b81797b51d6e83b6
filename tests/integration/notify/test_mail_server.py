"""What the mail server may answer, and when it goes away."""

import datetime

import pytest

from notify_service.domain import messages

from .conftest import DATE, NOW, CaseService, MailServer, Notify, address, an_id, case


def failure(notify: Notify) -> tuple[str, str, int]:
    [row] = notify.rows("SELECT state, failure, attempts FROM messages")
    return row["state"], row["failure"], row["attempts"]


def test_a_mailbox_that_does_not_exist_bounces_and_is_not_written_to_again(
    notify: Notify, mail_server: MailServer
) -> None:
    mail_server.at_rcpt[address(1)] = ["550 5.1.1 no such mailbox"]
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert failure(notify) == ("BOUNCED", "SMTP_550", 1)
    [suppressed] = notify.published("contact_point_suppressed")
    assert suppressed.contact_point_id == an_id("contact point", 1).bytes
    assert notify.told() == [("BOUNCED", 1, True, "")]

    notify.deliver(notify.steps_due([1], level="L2"))
    notify.tick()
    assert notify.told()[-1] == ("SUPPRESSED", 1, False, "BOUNCED")
    assert mail_server.mails == []


def test_a_policy_refusal_says_nothing_against_the_address(notify: Notify, mail_server: MailServer) -> None:
    mail_server.at_rcpt[address(1)] = ["550 5.7.1 sender not welcome"]
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert failure(notify) == ("FAILED", "SMTP_550", 1)
    assert notify.rows("SELECT * FROM suppressions") == []


@pytest.mark.parametrize("stage", ["at_rcpt", "at_text"])
def test_a_transient_refusal_is_tried_again_on_the_agencys_clock(
    notify: Notify, mail_server: MailServer, case_service: CaseService, stage: str
) -> None:
    getattr(mail_server, stage)[address(1)] = ["451 4.3.0 try again later"]
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert failure(notify) == ("FAILED_RETRYABLE", "SMTP_451", 1)
    notify.tick()
    assert mail_server.mails == []  # the clock stands still

    later = NOW + messages.BACKOFF[0]
    case_service.now = later
    notify.set_clock(later, version=2)
    notify.tick()
    assert failure(notify) == ("SENT", "", 2)
    [sent] = mail_server.mails
    assert sent.parsed["Message-ID"] == notify.rows("SELECT act_key FROM messages")[0]["act_key"]
    assert notify.told() == [("FAILED_RETRYABLE", 1, False, ""), ("SENT", 1, True, "")]
    first, second = (item.key for item in case_service.items)
    assert first == second  # `case` decides anew what was closed as not attempted


def test_after_so_many_transient_refusals_it_failed(
    notify: Notify, mail_server: MailServer, case_service: CaseService
) -> None:
    mail_server.at_rcpt[address(1)] = ["450 4.2.0 busy"] * 9
    notify.deliver(notify.steps_due([1]))
    now = NOW
    states = []
    for version in range(2, 8):
        notify.tick()
        states.append(failure(notify)[0])
        now += datetime.timedelta(hours=8)
        case_service.now = now
        notify.set_clock(now, version=version, date=DATE)
    assert states == ["FAILED_RETRYABLE"] * 4 + ["FAILED"] * 2
    assert failure(notify) == ("FAILED", "SMTP_450", 5)


def test_a_text_that_is_refused_failed(notify: Notify, mail_server: MailServer) -> None:
    mail_server.at_text[address(1)] = ["554 5.6.0 content"]
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert failure(notify) == ("FAILED", "SMTP_554", 1)


def test_one_refusal_does_not_touch_its_neighbours(notify: Notify, mail_server: MailServer) -> None:
    mail_server.at_rcpt[address(2)] = ["550 5.1.1 no"]
    mail_server.at_text[address(3)] = ["452 4.2.2 full"]
    notify.deliver(notify.steps_due([1, 2, 3, 4]))
    notify.tick()
    assert notify.states() == {1: "SENT", 2: "BOUNCED", 3: "FAILED_RETRYABLE", 4: "SENT"}
    assert mail_server.connections == 1


def test_a_server_that_is_away_costs_nothing(notify: Notify, mail_server: MailServer) -> None:
    mail_server.stop()
    notify.deliver(notify.steps_due([1, 2, 3]))
    notify.tick()
    notify.tick()
    assert notify.states() == {1: "REQUESTED", 2: "REQUESTED", 3: "REQUESTED"}
    assert notify.told() == []
    mail_server.start()
    notify.tick()
    assert notify.states() == {1: "SENT", 2: "SENT", 3: "SENT"}
    assert notify.rows("SELECT max(attempts) AS n FROM messages")[0]["n"] == 1
    assert len(mail_server.mails) == 3


def test_a_server_away_keeps_the_state_of_a_retry(
    notify: Notify, mail_server: MailServer, case_service: CaseService
) -> None:
    mail_server.at_rcpt[address(1)] = ["451 4.3.0 later"]
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    mail_server.stop()
    later = NOW + messages.BACKOFF[0]
    case_service.now = later
    notify.set_clock(later, version=2)
    notify.tick()
    assert failure(notify) == ("FAILED_RETRYABLE", "SMTP_451", 1)
    assert len(notify.told()) == 1
    mail_server.start()
    notify.tick()
    assert failure(notify) == ("SENT", "", 2)


@pytest.mark.parametrize("answer", ["HANG UP", "421 4.3.2 closing"])
def test_a_connection_lost_before_the_text_is_made_again_at_once(
    notify: Notify, mail_server: MailServer, answer: str
) -> None:
    numbers = [1, 2, 3]
    last = address(numbers[-1])
    mail_server.at_rcpt = {address(number): [answer] for number in numbers}
    notify.deliver(notify.steps_due(numbers))
    for _ in range(4):
        notify.tick()
    assert set(notify.states().values()) == {"SENT"}
    assert len(mail_server.mails) == len({one.to for one in mail_server.mails}) == 3
    assert last in {one.to for one in mail_server.mails}
    assert notify.rows("SELECT max(attempts) AS n FROM messages")[0]["n"] == 1


def test_a_connection_lost_with_the_text_given_is_unknown_and_never_repeated(
    notify: Notify, mail_server: MailServer
) -> None:
    mail_server.at_text[address(1)] = ["HANG UP"]
    notify.deliver(notify.steps_due([1, 2]))
    notify.tick()
    assert notify.states() == {1: "UNKNOWN", 2: "SENT"}
    assert ("UNKNOWN", 1, True, "") in notify.told()
    notify.set_clock(NOW + datetime.timedelta(days=3), version=2, date=DATE + datetime.timedelta(days=3))
    notify.tick()
    assert len(mail_server.to(1)) == 1
    assert notify.states()[1] == "UNKNOWN"


def test_an_address_that_is_none_bounces_without_the_server(
    notify: Notify, mail_server: MailServer, case_service: CaseService
) -> None:
    case_service.changes = {case(1): {"address": "a@b.example\r\nBcc: x@y.example"}}
    notify.deliver(notify.steps_due([1]))
    notify.tick()
    assert failure(notify) == ("BOUNCED", "ADDRESS_INVALID", 1)
    assert mail_server.mails == []
