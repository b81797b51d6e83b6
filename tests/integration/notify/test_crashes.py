"""Killed in the middle of the act, or the database away with outcomes in hand: never twice, never forgotten."""

import collections
import dataclasses
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy

from notify_service.usecases import acts as usecase
from servicekit import acts, db, host

from .conftest import AGENCY, OTHER_AGENCY, SENDER, CaseService, Keys, MailServer, Notify, address

CHILD = textwrap.dedent(
    """
    import pathlib, sys
    from notify_service.domain import messages
    from notify_service.providers import mail, remote
    from notify_service.worker import dispatch
    from servicekit import acts, auth, client, db

    url, neighbours, smtp_port, sender, key_file, in_flight = sys.argv[1:]
    engine = db.create_engine(url, application_name="child")
    channel = client.Channel(neighbours, auth.Signer("notify", pathlib.Path(key_file)))
    acts.beat(engine, "child")
    dispatch.Dispatcher(
        engine=engine,
        contacts=remote.CaseClient(channel),
        balances=remote.AgreementClient(channel),
        providers={messages.Channel.EMAIL: mail.Mailer(host="127.0.0.1", port=int(smtp_port), sender=sender)},
        limits=dispatch.Limits(acts_in_flight=int(in_flight)),
    ).tick()
    """
)


@pytest.fixture
def child(
    notify: Notify, neighbours: str, mail_server: MailServer, keys: Keys
) -> Iterator[subprocess.Popen[bytes]]:
    """Another worker's dispatcher, made by the real constructors, in a process of its own; two acts in flight."""
    arguments = [notify.database.url, neighbours, str(mail_server.port), SENDER, str(keys.notify), "2"]
    process = subprocess.Popen([sys.executable, "-c", CHILD, *arguments])
    yield process
    process.kill()
    process.wait(10)


def bury(notify: Notify) -> None:
    """As if `acts.DEAD_AFTER` had passed since the last heartbeat of every worker but this one."""
    notify.rows(
        "UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE id <> :me",
        me=acts.worker_id(),
    )


def test_killed_in_the_act_is_unknown_once_and_never_sent_again(
    notify: Notify, mail_server: MailServer, request: pytest.FixtureRequest
) -> None:
    notify.deliver(notify.steps_due([1, 2, 3, 4, 5]))
    for number in range(1, 6):
        mail_server.at_text[address(number)] = ["HOLD"]
    process = request.getfixturevalue("child")
    assert mail_server.text_taken.wait(60)
    assert notify.rows("SELECT count(*) AS n FROM messages WHERE state = 'ACTING'")[0]["n"] == 2
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert len(mail_server.mails) == 1
    notify.tick()
    assert len(mail_server.mails) == 1  # its claim holds while it may be alive
    mail_server.hold_text.set()
    mail_server.at_text.clear()
    bury(notify)
    notify.tick()
    states = notify.states()
    assert sorted(states.values()) == ["SENT", "SENT", "SENT", "UNKNOWN", "UNKNOWN"]
    notify.tick()
    addresses = [one.to for one in mail_server.mails]
    assert len(addresses) == len(set(addresses)) == 4
    unknown = sorted(number for number, state in states.items() if state == "UNKNOWN")
    assert sorted(row for row in notify.told() if row[0] == "UNKNOWN") == [
        ("UNKNOWN", number, True, "") for number in unknown
    ]


def test_killed_before_the_act_is_done_by_another(notify: Notify, mail_server: MailServer) -> None:
    """Claimed, permission asked, nothing ACTING: taken over once the worker is dead, with the same reservation."""
    notify.deliver(notify.steps_due([1, 2]))
    notify.rows("INSERT INTO workers (id, name) VALUES ('01890000-0000-7000-8000-00000000dead', 'gone')")
    notify.rows("UPDATE messages SET act_worker = '01890000-0000-7000-8000-00000000dead'")
    notify.tick()
    assert set(notify.states().values()) == {"REQUESTED"}
    bury(notify)
    notify.tick()
    assert set(notify.states().values()) == {"SENT"}
    assert len(mail_server.mails) == 2


def test_a_worker_taken_for_dead_that_knows_the_outcome_says_it(
    notify: Notify, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two acts are begun; another worker gives them up; the first one sends and settles after all."""
    notify.deliver(notify.steps_due([1]))
    dispatcher = notify.make_dispatcher()
    begin = dispatcher._begin

    def given_up_meanwhile(*arguments: object) -> object:
        begun = begin(*arguments)  # type: ignore[arg-type]
        notify.rows("UPDATE messages SET state = 'UNKNOWN' WHERE state = 'ACTING'")
        return begun

    monkeypatch.setattr(dispatcher, "_begin", given_up_meanwhile)
    dispatcher.tick()
    assert notify.states() == {1: "SENT"}
    assert len(mail_server.mails) == 1


def cut(notify: Notify) -> None:
    """End every connection of the service's role, as a restart of the database does."""
    with psycopg.connect(notify.database.administrator_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = 'recupera_notify'"
        )


@pytest.mark.parametrize("moment", ["first", "last"])
def test_the_database_away_with_outcomes_in_hand(
    notify: Notify, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Cut before the commit of the outcomes of a group: nothing is UNKNOWN, nothing is sent twice, all is told once."""
    notify.deliver(notify.steps_due([1, 2, 3, 4, 5, 6]))
    dispatcher = notify.make_dispatcher(acts_in_flight=2)
    calls = 0
    method = "_begin" if moment == "first" else "_flush"
    original = getattr(dispatcher, method)

    def cutting(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            cut(notify)
        return original(*arguments)

    monkeypatch.setattr(dispatcher, method, cutting)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        dispatcher.tick()
    dispatcher._rests.clear()
    for _ in range(2):
        dispatcher.tick()
    assert set(notify.states().values()) == {"SENT"}
    addresses = [one.to for one in mail_server.mails]
    assert len(addresses) == len(set(addresses)) == 6
    assert sorted(notify.told()) == [("SENT", number, True, "") for number in range(1, 7)]


def test_a_commit_in_doubt_gives_back_what_did_not_leave(
    notify: Notify, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACTING was committed but the answer was lost: the rows are this process's and nothing left, so they go on."""
    notify.deliver(notify.steps_due([1, 2]))
    dispatcher = notify.make_dispatcher()
    advance = usecase.advance
    doubted = []

    def in_doubt(tx: db.Transaction, *arguments: object, **options: object) -> object:
        begun = advance(tx, *arguments, **options)  # type: ignore[arg-type]
        if options["following"] and not doubted:
            doubted.append(begun)
            tx.connection.commit()
            raise psycopg.OperationalError("the answer was lost")
        return begun

    monkeypatch.setattr(usecase, "advance", in_doubt)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        dispatcher.tick()
    assert set(notify.states().values()) == {"ACTING"}
    dispatcher._rests.clear()
    dispatcher.tick()
    assert notify.states() == {1: "SENT", 2: "SENT"}
    assert len(mail_server.mails) == 2


@pytest.mark.parametrize("sent", [0, 3, 4, 5])
def test_a_drain_in_the_middle_of_a_slice_sends_no_more(
    notify: Notify,
    case_service: CaseService,
    mail_server: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    sent: int,
) -> None:
    """Asked to end with everything prepared (0), inside a group of acts (3, 5), between two groups (4)."""
    notify.deliver(notify.steps_due(list(range(1, 11))))
    dispatcher = notify.make_dispatcher(acts_in_flight=4)
    with monkeypatch.context() as patched:
        patched.setattr(host, "draining", lambda: bool(case_service.items) and len(mail_server.mails) >= sent)
        dispatcher.tick()
    assert len(mail_server.mails) == sent
    expected = collections.Counter({"SENT": sent, "REQUESTED": 10 - sent})
    assert collections.Counter(notify.states().values()) == expected
    dispatcher.tick()
    assert set(notify.states().values()) == {"SENT"}
    assert sorted(one.to for one in mail_server.mails) == sorted(address(number) for number in range(1, 11))
    assert sorted(notify.told()) == [("SENT", number, True, "") for number in range(1, 11)]


def test_an_agency_that_fails_rests_and_the_others_have_their_turn(
    notify: Notify, mail_server: MailServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = dataclasses.replace(notify, agency=OTHER_AGENCY)
    other.set_clock()
    notify.deliver(notify.steps_due([1]))
    other.deliver(other.steps_due([2]))
    dispatcher = notify.make_dispatcher()
    decide = dispatcher._decide
    failing = [AGENCY]

    def wrong(agency: object, *arguments: object) -> object:
        if agency in failing:
            raise RuntimeError("a mistake of ours")
        return decide(agency, *arguments)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(dispatcher, "_decide", wrong)
    with pytest.raises(RuntimeError):
        dispatcher.tick()
    assert notify.states() == {1: "REQUESTED", 2: "SENT"}
    [line] = [one for one in caplog.records if one.getMessage() == "what is due stays due for now"]
    assert line.exc_info is not None
    dispatcher.tick()  # it rests: nothing is tried, nothing fails
    failing.clear()
    dispatcher._rests.clear()
    dispatcher.tick()
    assert notify.states() == {1: "SENT", 2: "SENT"}
    assert len(mail_server.mails) == 2
