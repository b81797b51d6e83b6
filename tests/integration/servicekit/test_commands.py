"""What an operator types: what each command says, what it gives back, and that doctor finds what is wrong."""

import argparse
import dataclasses
import datetime
import json
import logging
import os
import re
import signal
import socket
import ssl
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from kafka.admin import KafkaAdminClient

from servicekit import auth, clock, commands, db, doctor, ids, inbox, kafka, settings
from servicekit import topics as catalog
from support import certificates, ledger, waiting

CASES, AGREEMENTS = "recupera.case.v1", "recupera.agreement.v1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """The ledger's, in the place of agreement's."""

    service: ClassVar[str] = "agreement"


class Operator:
    """Runs commands of the ledger as a person would, in this process."""

    def __init__(self, made: Any, program: commands.Program[Any], capsys: pytest.CaptureFixture[str]) -> None:
        self.made = made
        self._program = program
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what was said."""
        self._capsys.readouterr()
        handlers, level, hook = (
            logging.root.handlers[:],
            logging.root.level,
            (sys.excepthook, threading.excepthook),
        )
        ending = signal.getsignal(signal.SIGTERM)
        try:
            commands.main(self._program, arguments)
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            logging.root.handlers[:], (sys.excepthook, threading.excepthook) = handlers, hook
            logging.root.setLevel(level)
            logging.captureWarnings(False)
            signal.signal(signal.SIGTERM, ending)
        said = self._capsys.readouterr()
        return (1, f"{said.out}{code}") if isinstance(code, str) else (int(code), said.out + said.err)

    def doctor(self, *arguments: str) -> tuple[int, list[dict[str, str]]]:
        """The exit code and the findings."""
        code, said = self.run("doctor", "--json", *arguments)
        answer = json.loads(said)
        levels = [one["level"] for one in answer["findings"]]
        assert answer["level"] == max(levels, key=["ok", "warn", "fail"].index)
        assert (code == 1) == (answer["level"] == "fail")
        return code, answer["findings"]

    def wrong(self, *arguments: str) -> list[str]:
        """Level, check and text of the findings that are not ok, but for the worker, which no test here runs."""
        _, findings = self.doctor(*arguments)
        assert all(
            bool(one["todo"]) or "not looked at" in one["text"] for one in findings if one["level"] != "ok"
        )
        return [
            f"{one['level']} {one['check']} {one['text']}"
            for one in findings
            if one["level"] != "ok" and one["check"] != "workers"
        ]

    def change(self, statement: str, *parameters: object) -> None:
        """As the superuser."""
        with psycopg.connect(self.made.database.administrator_url) as connection:
            connection.execute(statement, parameters)


@pytest.fixture
def operator(
    store: Callable[[str], Any],
    broker: Any,
    topics: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Operator:
    """Of a service that lacks nothing but a worker."""
    made = store("agreement")
    own = auth.generate_key(auth.SERVICE_ISSUER + "agreement")
    auth.write_key(tmp_path / "agreement.json", own)
    auth.write_jwks(tmp_path / "jwks.json", [own, auth.generate_key()])
    (tmp_path / "migrations").symlink_to(ledger.MIGRATIONS)
    for name in [name for name in os.environ if name.startswith("RECUPERA_") and "TOPIC" not in name]:
        if name != "RECUPERA_TEST_CONTROLLER":
            monkeypatch.delenv(name)
    for name, value in {
        "DATABASE_URL_AGREEMENT": made.database.url,
        "KAFKA": broker.bootstrap,
        "RPC_PORT": "0",
        "JWKS_FILE": tmp_path / "jwks.json",
        "SERVICE_KEY_FILE": tmp_path / "agreement.json",
    }.items():
        monkeypatch.setenv(f"RECUPERA_{name}", str(value))

    def republish(engine: db.Engine, agency: uuid.UUID) -> Iterator[int]:
        for number in (1, 2):
            with db.begin(engine, agency=agency) as tx:
                for case in range(number):
                    fact = ledger.single(agency, uuid.UUID(int=case), number)
                    tx.publish(fact, case_id=uuid.UUID(int=case))
            yield tx.published

    program = commands.Program(
        service="agreement",
        description="The ledger.",
        main_file=str(tmp_path / "ledger" / "__main__.py"),
        settings=Settings,
        api=lambda settings, engine: pytest.fail("nobody serves"),
        work=lambda settings, engine: commands.Work(worker=ledger.LedgerWorker, wiring={}),
        republish=republish,
        commands=[
            commands.Command(
                name="greet",
                help="say the name",
                arguments=_greeting,
                run=_greet,
            )
        ],
    )
    return Operator(made, program, capsys)


def _greeting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True)


def _greet(settings: Any, engine: db.Engine, chosen: Any) -> int:
    if chosen.name == "nobody":
        raise ledger.CaseRefused("there is nobody", case="none")
    commands.say(f"hello {chosen.name} of {settings.service}")
    if chosen.name == "process 1":
        os.kill(os.getpid(), signal.SIGTERM)
    return 3


def test_a_command_that_is_told_to_end_ends_also_as_process_1(operator: Operator) -> None:
    """Which has no default for SIGTERM: here it is not, and the code says who ended it."""
    assert operator.run("greet", "--name", "process 1")[0] == 128 + signal.SIGTERM


def test_a_service_has_commands_of_its_own(operator: Operator) -> None:
    assert operator.run("greet", "--name", "Ana") == (3, "hello Ana of agreement\n")
    assert operator.run("greet", "--name", "nobody") == (1, "CASE_REFUSED: there is nobody, case none")
    code, said = operator.run("--help")
    assert code == 0
    names = (
        "doctor",
        "pause",
        "resume",
        "paused",
        "replay",
        "republish",
        "accept-lost-range",
        "raise-versions",
    )
    for name in (*names, "greet"):
        assert re.search(rf"^    {name}\b", said, re.MULTILINE), said


# ---- pause, resume ----------------------------------------------------------------------------------------------


def test_pausing_says_what_and_for_how_long_and_resuming_what_is_left(operator: Operator) -> None:
    code, said = operator.run("pause", CASES, "tick", "--reason", "the bank is away", "--by", "Ana")
    assert (code, said.splitlines()) == (
        0,
        [
            f"paused {CASES}",
            "paused tick",
            "Workers rest within 3 seconds, each after the transaction or act in hand.",
            "Kafka keeps the facts for 7 days: resume before.",
        ],
    )
    code, said = operator.run("pause", "tick", "--reason", "again")
    assert code == 0
    assert re.match(
        r"tick was paused already, since \d{4}-\d\d-\d\d \d\d:\d\d UTC by Ana: the bank is away", said
    )
    code, said = operator.run("paused")
    assert code == 0
    assert re.search(rf"{CASES}\n    since .* UTC by Ana: the bank is away\ntick\n", said), said
    assert said.endswith(f"can be paused: {CASES}, tick, or '*' for all\n")
    assert operator.run("resume", "tick") == (0, f"resumed tick\nstill paused: {CASES}\n")
    assert operator.run("resume", "tick") == (1, f"tick was not paused\nstill paused: {CASES}\n")
    assert operator.run("resume", "--all") == (0, f"resumed {CASES}\n")
    assert operator.run("resume", "--all") == (0, "nothing was paused\n")
    assert operator.run("paused")[1].startswith("nothing is paused\n")


def test_a_name_that_is_not_there_pauses_nothing(operator: Operator) -> None:
    code, said = operator.run("pause", "tick", "tock", "--reason", "a slip")
    assert code == 1
    assert "no topic or timer tock; nothing was paused" in said
    assert f"  {CASES}\n  tick" in said
    assert operator.run("paused")[1].startswith("nothing is paused\n")
    assert operator.run("pause", "tick")[0] == 2  # a reason is asked for
    code, said = operator.run("pause", "*", "--reason", "all of it")
    assert code == 0
    assert said.startswith("paused *\n")


# ---- replay, republish, lost ranges -----------------------------------------------------------------------------


def park(made: Any, agency: uuid.UUID, case: uuid.UUID, number: int) -> None:
    fact = ledger.single(agency, case, number)
    fact.fact_id = ids.new().bytes
    error = None if number > 1 else ledger.CaseRefused("told to", case=case)
    with db.begin(made.engine, agency=None) as tx:
        inbox.park(
            tx, fact, topic=CASES, partition=3, offset=number, case_id=case, traceparent="", error=error
        )


def test_replay_says_what_was_refused_again_and_what_is_left(operator: Operator) -> None:
    assert operator.run("replay") == (
        0,
        "0 facts are parked\napplied 0, refused again 0, still parked 0\n",
    )
    agency, good, bad = ids.new(), ids.new(), ids.new()
    for number in (1, 2):
        park(operator.made, agency, good, number)
        park(operator.made, agency, bad, number)
    ledger.turn(operator.made.engine, f"refuse:{bad}", 1)
    code, said = operator.run("replay")
    assert code == 1
    assert said.startswith("4 facts are parked\n")
    assert f"refused again: contact_recorded of case {bad} ({CASES}): CASE_REFUSED\n" in said
    assert "applied 2, refused again 1, still parked 2\n" in said
    ledger.turn(operator.made.engine, f"refuse:{bad}", None)
    code, said = operator.run("replay", "--case", str(bad))
    assert (code, said.splitlines()) == (
        0,
        [f"2 facts are parked; trying those of case {bad}", "applied 2, refused again 0, still parked 0"],
    )
    assert ledger.numbers(operator.made.owner) == {good: [1, 2], bad: [1, 2]}


def test_republish_says_how_much_it_sent(operator: Operator) -> None:
    assert operator.run("republish") == (
        0,
        "no agency is known here: there is nothing to send\n",
    )
    agencies = sorted([ids.new(), ids.new()])
    for agency in agencies:
        with db.begin(operator.made.engine, agency=agency) as tx:
            clock.store(tx, agency_clock(agency))
    code, said = operator.run("republish")
    assert (code, said.splitlines()) == (
        0,
        [
            *(f"agency {agency}: 3 facts in 2 transactions" for agency in agencies),
            "6 facts are written; the relay of a running worker sends them (doctor: outbox)",
        ],
    )
    assert operator.run("republish", "--agency", str(agencies[0]))[1].count("3 facts") == 2
    code, said = operator.run("republish", "--agency", str(uuid.UUID(int=7)))
    assert code == 1
    assert said == f"AGENCY_CLOCK_UNKNOWN: the agency is not known here, agency {uuid.UUID(int=7)}"


def agency_clock(agency: uuid.UUID, **fields: Any) -> clock.AgencyClock:
    return clock.AgencyClock(
        agency=agency,
        time_zone="America/Sao_Paulo",
        business_date=datetime.date(2026, 11, 23),
        version=1,
        **fields,
    )


def test_a_lost_range_is_shown_first_and_accepted_only_while_no_worker_runs(operator: Operator) -> None:
    assert operator.run("accept-lost-range", "--yes") == (
        0,
        "nothing is lost: Kafka has every stored offset\n",
    )
    inbox.restart(operator.made.engine, {(CASES, 0): 0, (CASES, 5): 900})
    code, said = operator.run("accept-lost-range")
    assert code == 1
    assert said.splitlines()[0] == f"{CASES}/5: stored offset 900 is gone, Kafka begins at 0"
    assert "  python -m case_service republish\n" in said
    operator.change("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'agreement_worker')")
    code, said = operator.run("accept-lost-range", "--yes")
    assert code == 1
    assert "1 workers of agreement run" in said
    assert inbox.positions(operator.made.engine) == {(CASES, 0): 0, (CASES, 5): 900}
    operator.change("DELETE FROM workers")
    code, said = operator.run("accept-lost-range", "--yes")
    assert (code, said.splitlines()[1:]) == (0, [f"{CASES}/5: is read on from 0", "Start the workers again."])
    assert inbox.positions(operator.made.engine) == {(CASES, 0): 0, (CASES, 5): 0}


def test_what_is_away_is_said_in_a_line(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox.restart(operator.made.engine, {(CASES, 0): 0})
    monkeypatch.setenv("RECUPERA_KAFKA", f"127.0.0.1:{closed_port()}")
    code, said = operator.run("accept-lost-range")
    assert code == 1
    assert said.startswith("Kafka did not answer")
    monkeypatch.setenv(
        "RECUPERA_DATABASE_URL_AGREEMENT", f"postgresql://a:secret@127.0.0.1:{closed_port()}/x"
    )
    assert operator.run("resume", "--all") == (
        1,
        "The database did not answer; nothing was done since. Look with `doctor`.",
    )
    monkeypatch.delenv("RECUPERA_JWKS_FILE")
    code, said = operator.run("paused")
    assert code == 1
    assert "RECUPERA_JWKS_FILE" in said


def closed_port() -> int:
    """One where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# ---- doctor -----------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_where_all_is_well(operator: Operator) -> None:
    code, said = operator.run("doctor")
    assert code == 0
    checks = [line.split()[1] for line in said.splitlines() if line.startswith(("ok ", "warn "))]
    assert list(dict.fromkeys(checks)) == [
        *("database", "role", "schema", "clock", "kafka", "topics", "lag", "workers", "outbox", "parked"),
        *("paused", "keys", "certificates"),
    ]
    assert "no fact is applied" in said  # the one thing: no worker runs
    assert said.endswith("\n0 failed, 1 to look at\n")
    assert operator.wrong() == []
    operator.change("INSERT INTO workers (id, name) VALUES (gen_random_uuid(), 'agreement_worker')")
    assert operator.run("doctor")[1].endswith("\nall is well\n")
    assert max(map(len, said.splitlines())) <= 120


def test_doctor_wants_three_copies_of_which_two_in_production(operator: Operator) -> None:
    assert operator.wrong(
        "--production"
    ) == [  # the topics that agreement writes or reads, and the dead letters
        f"fail topics 1 copies, not 3, min.insync.replicas 1, not 2: {CASES}, {AGREEMENTS}, recupera.imports.v1,"
        " recupera.dead-letters.v1"
    ]


def test_doctor_looks_at_the_role_and_the_schema(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert operator.wrong() == []
    monkeypatch.setenv("RECUPERA_DATABASE_URL_AGREEMENT", operator.made.database.administrator_url)
    (wrong,) = operator.wrong()
    assert re.match(r"fail role \w+ is a superuser, has BYPASSRLS.*: row-level security does not hold", wrong)
    monkeypatch.setenv("RECUPERA_DATABASE_URL_AGREEMENT", operator.made.database.owner_url)
    (wrong,) = operator.wrong()
    assert re.match(r"fail role recupera_agreement_owner owns \d+ tables", wrong)
    monkeypatch.setenv("RECUPERA_DATABASE_URL_AGREEMENT", operator.made.database.url)

    operator.change("ALTER TABLE acts DISABLE ROW LEVEL SECURITY")
    assert operator.wrong() == ["fail role no row-level security on acts"]
    operator.change("ALTER TABLE acts ENABLE ROW LEVEL SECURITY")
    operator.change("UPDATE alembic_version SET version_num = '0001'")
    assert operator.wrong() == ["fail schema at 0001, this release needs 0003"]
    operator.change("UPDATE alembic_version SET version_num = '0009'")
    assert operator.wrong() == ["warn schema at 0009, which this release does not know (its newest is 0003)"]


def test_doctor_compares_the_clocks(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.machine_now
    monkeypatch.setattr(clock, "machine_now", lambda: now() + datetime.timedelta(seconds=4))
    (wrong,) = operator.wrong()
    assert re.match(r"warn clock this machine is [34]\.\d\d s ahead of the database", wrong)
    monkeypatch.setattr(clock, "machine_now", lambda: now() - datetime.timedelta(minutes=4))
    (wrong,) = operator.wrong()
    assert re.match(r"fail clock this machine is 2\d\d\.\d\d s behind the database", wrong)
    monkeypatch.setattr(clock, "machine_now", now)
    agency = ids.new()
    with db.begin(operator.made.engine, agency=agency) as tx:
        clock.store(tx, agency_clock(agency, simulated=True, base_machine=now(), base_agency=now()))
    assert operator.wrong() == ["warn clock 1 agencies have a simulated clock"]
    assert "fail clock 1 agencies have a simulated clock" in operator.wrong("--production")


def test_doctor_looks_at_each_topic(operator: Operator, broker: Any, topics: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.delete_topics([catalog.on_wire(AGREEMENTS)])
    missing = f"fail topics missing: {AGREEMENTS}"
    waiting.until(lambda: missing in operator.wrong(), timeout=60, what="the topic is gone")
    admin.create_topics({catalog.on_wire(AGREEMENTS): {"num_partitions": 3, "replication_factor": 1}})
    admin.close()
    waiting.until(lambda: missing not in operator.wrong(), timeout=60, what="the topic is there")
    wrong = operator.wrong()
    assert f"fail topics 3 partitions, expected 24: {AGREEMENTS}" in wrong
    assert any(re.match(f"warn topics max.message.bytes is .*: {AGREEMENTS}$", one) for one in wrong)


def test_doctor_sees_facts_that_wait_and_facts_that_are_lost(operator: Operator, broker: Any) -> None:
    producer = kafka.Producer(broker.bootstrap, client_id="test")
    sent = [producer.send(topic=CASES, partition=2, key=b"", value=b"x", headers=[]) for _ in range(5)]
    producer.settle(sent)
    producer.close()
    inbox.restart(operator.made.engine, {(CASES, 2): 1})
    assert operator.wrong() == [f"warn lag {CASES}: 4 records not yet applied, none in 3 s"]
    operator.run("pause", CASES, "--reason", "a test", "--by", "Ana")
    (wrong,) = operator.wrong()  # that it does not move needs no words then
    assert re.match(rf"warn paused {CASES} for \d+ s, by Ana: a test", wrong)
    operator.change("UPDATE paused SET paused_at = now() - interval '4 days'")
    (wrong,) = operator.wrong()
    assert wrong.startswith(f"fail paused {CASES} for 4 d")
    operator.run("resume", "--all")
    inbox.restart(operator.made.engine, {(CASES, 2): 77})
    assert operator.wrong() == [
        f"fail lag {CASES}: facts that were not applied are no longer in Kafka (partitions 2)"
    ]


def test_doctor_sees_what_is_parked_and_what_is_not_sent(operator: Operator) -> None:
    park(operator.made, ids.new(), ids.new(), 1)
    (wrong,) = operator.wrong()
    assert re.match(rf"warn parked 1 facts of {CASES}, the oldest for \d+ s", wrong)
    operator.change("DELETE FROM parked")
    with db.begin(operator.made.engine, agency=ids.new()) as tx:
        assert tx.agency is not None
        tx.publish(ledger.single(tx.agency, ids.new(), 1), partition=0)
    assert operator.wrong() == []  # it may be on its way
    operator.change("UPDATE outbox SET created_at = now() - interval '3 minutes'")
    assert operator.wrong() == ["warn outbox 1 facts wait for Kafka, the oldest for 3 min"]
    operator.change("UPDATE outbox SET created_at = now() - interval '3 hours'")
    assert operator.wrong() == ["fail outbox 1 facts wait for Kafka, the oldest for 3 h"]


def test_doctor_looks_at_the_keys(operator: Operator, tmp_path: Path) -> None:
    other = auth.generate_key(auth.SERVICE_ISSUER + "agreement")
    auth.write_jwks(tmp_path / "jwks.json", [other, auth.generate_key()])
    (wrong,) = operator.wrong()
    assert wrong.startswith("fail keys the service's own key ")
    assert wrong.endswith(" is not in the JWKS: other services refuse its calls")
    auth.write_jwks(tmp_path / "jwks.json", [auth.read_key(tmp_path / "agreement.json")])
    assert operator.wrong() == ["fail keys the JWKS has no key of 'recupera': nobody's token is believed"]
    stranger = auth.generate_key(auth.SERVICE_ISSUER + "case")
    auth.write_key(tmp_path / "agreement.json", stranger)
    auth.write_jwks(tmp_path / "jwks.json", [stranger, auth.generate_key()])
    assert operator.wrong() == ["fail keys the key is of 'recupera/case', not of 'recupera/agreement'"]
    (tmp_path / "jwks.json").write_text("{}")
    (wrong,) = operator.wrong()
    assert "is not a JWKS" in wrong


def test_doctor_goes_on_where_the_database_or_kafka_is_away(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECUPERA_KAFKA", f"127.0.0.1:{closed_port()}")
    wrong = operator.wrong()
    assert re.match(r"fail kafka not reachable: 127\.0\.0\.1:\d+: ", wrong[0])
    assert wrong[1:] == ["warn lag not looked at: kafka away"]
    monkeypatch.setenv(
        "RECUPERA_DATABASE_URL_AGREEMENT", f"postgresql://a:secret@127.0.0.1:{closed_port()}/x"
    )
    code, said = operator.run("doctor")
    assert code == 1
    assert "fail  database     not reachable: OperationalError" in said
    assert "ok    keys" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (90, []),
        (20, ["warn certificates {}: until {:%Y-%m-%d}, 19 days"]),
        (2, ["fail certificates {}: until {:%Y-%m-%d}, 1 days"]),
        (-1, ["fail certificates {}: expired on {:%Y-%m-%d %H:%M} UTC"]),
    ],
)
def test_doctor_reads_the_certificates_in_files(
    operator: Operator, tmp_path: Path, days: int, expected: list[str]
) -> None:
    authority = certificates.Authority(tmp_path / "ca")
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    file = authority.sign("client", until=until).certificate

    @dataclasses.dataclass(frozen=True)
    class More:
        client_certificate: Path = file
        a_folder: Path = tmp_path
        not_there: Path | None = None

    operator._program = dataclasses.replace(operator._program, more_settings=lambda _: [More()])
    assert operator.wrong() == [
        text.format("client.crt (client_certificate), client", until) for text in expected
    ]


def test_doctor_looks_at_the_certificates_that_servers_show(operator: Operator, tmp_path: Path) -> None:
    authority = certificates.Authority(tmp_path / "ca")
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=12)
    signed = authority.sign("server", "127.0.0.1", until=until)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue  # the client did not like the certificate

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()

        @dataclasses.dataclass(frozen=True)
        class Bank:
            bank_url: str = f"https://127.0.0.1:{port}/api"
            bank_ca_file: Path | None = authority.file

        operator._program = dataclasses.replace(operator._program, more_settings=lambda _: [Bank()])
        shown = [one for one in operator.wrong() if str(port) in one]  # the authority's file is over tomorrow
        assert shown == [f"warn certificates 127.0.0.1:{port}: until {until:%Y-%m-%d}, 11 days"]
        unknown = Bank(bank_ca_file=None)
        operator._program = dataclasses.replace(operator._program, more_settings=lambda _: [unknown])
        (wrong,) = operator.wrong()
        assert wrong.startswith(f"fail certificates 127.0.0.1:{port} shows a certificate that is not good: ")
        listening.shutdown(socket.SHUT_RDWR)
    (wrong,) = operator.wrong()
    assert wrong.startswith(f"warn certificates 127.0.0.1:{port} did not show its certificate")


def test_a_check_that_breaks_does_not_keep_the_others_from_being_made(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(patient: doctor.Patient) -> Iterator[doctor.Finding]:
        yield doctor.Finding("broken", doctor.Level.OK, "so far")
        raise ZeroDivisionError("postgresql://user:secret@host/name is not what it was")

    whole = doctor._CHECKS
    monkeypatch.setattr(doctor, "_CHECKS", (("broken", frozenset(), broken), *whole))
    code, findings = operator.doctor()
    assert code == 1
    assert [one["level"] for one in findings[:2]] == ["ok", "fail"]
    assert findings[1]["text"].startswith(
        "could not be looked at: ZeroDivisionError: postgresql://***@host/name"
    )
    assert {one["check"] for one in findings} == {"broken", "topics", *(name for name, _, _ in whole)}
