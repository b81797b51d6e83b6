"""A broker that encrypts, asks who we are and allows only what topics.yaml says: a real one, and real processes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from kafka.admin import KafkaAdminClient

from recupera_local import ports
from servicekit import acls, auth, db, ids, kafka, settings, topics
from support import certificates, databases, ledger, secure_kafka, waiting

PASSWORD = "correct horse"
AGREEMENT = "recupera.agreement.v1"
CASE = "recupera.case.v1"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[secure_kafka.SecureKafka]:
    """The broker, with a user for each service, the topics job and the scaler, each with its rights and no more."""
    folder = tmp_path_factory.mktemp("secure")
    running = secure_kafka.SecureKafka(folder)
    try:
        running.start()
        for user, rules in acls.all_users().items():
            running.set_password(user, PASSWORD)
            running.allow(user, rules)
        waiting.until(lambda: granted(running), timeout=60, what="the rules to be in force")
        yield running
    finally:
        running.server.process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def granted(broker: secure_kafka.SecureKafka) -> bool:
    """Whether the topics job, whose rules came among the last, may do its work."""
    try:
        kafka.create_missing(broker.with_password(acls.TOPICS_JOB, PASSWORD))
        return len(kafka.ends(broker.with_password("import", PASSWORD), [kafka.Partition(AGREEMENT, 0)])) == 1
    except kafka.Unavailable:
        return False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot connect gives up soon."""
    monkeypatch.setattr(kafka, "BOOTSTRAP_MS", 4_000)


def produce(brokers: kafka.Where, topic: str, value: bytes = b"x", partition: int = 0) -> Exception | None:
    """Send one record; what Kafka answers to it."""
    producer = kafka.Producer(brokers, client_id="test")
    try:
        future = producer.send(topic=topic, partition=partition, key=b"", value=value, headers=[])
        producer.settle([future])
        found: Exception | None = future.exception
        return found
    except kafka.Unavailable as error:
        return error
    finally:
        producer.close()


def consume(brokers: kafka.Where, group: str, *names: str) -> list[bytes]:
    """Join a group, read the first partition of the topics from the oldest record on, and say how far it came."""
    consumer = kafka.Consumer(
        brokers, group=group, client_id="test", subscribe=sorted(names), max_poll_records=100
    )
    found: list[bytes] = []
    wanted = [kafka.Partition(name, 0) for name in names]

    def came() -> bool:
        polled = consumer.poll(200)
        for partition in consumer.unpositioned():
            consumer.seek(partition, 0)
        for partition in wanted:
            found.extend(record.value for record in polled.get(partition, []))
        return consumer.is_ready() and len(found) >= len(wanted)

    try:
        waiting.until(came, timeout=60, what="a record of each topic")
        consumer.commit({wanted[0]: 1})
    finally:
        consumer.close()
    return found


def kind(error: Exception | None) -> str:
    """The name of what Kafka's client raised."""
    return type(error).__name__


ENTRANCES: dict[str, Callable[[secure_kafka.SecureKafka], settings.Brokers]] = {
    "certificate": lambda broker: broker.with_certificate(broker.authority.sign("case")),
    "SCRAM-SHA-512": lambda broker: broker.with_password("case", PASSWORD),
    "SCRAM-SHA-256": lambda broker: broker.with_password("case", PASSWORD, mechanism="SCRAM-SHA-256"),
    "not encrypted": lambda broker: settings.Brokers(
        bootstrap=broker.address("clear"), security="SASL_PLAINTEXT", user="case", password=PASSWORD
    ),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
def test_each_way_to_show_who_we_are(secure: secure_kafka.SecureKafka, entrance: str) -> None:
    assert produce(ENTRANCES[entrance](secure), CASE) is None


def test_a_plain_password(secure: secure_kafka.SecureKafka) -> None:
    catalog = topics.catalog()
    brokers = secure.with_password(secure_kafka.PLAIN_USER, secure_kafka.PLAIN_PASSWORD, mechanism="PLAIN")
    assert kafka.drift(brokers, catalog) == sorted(f"{name}: missing" for name in catalog.by_name)


REFUSED: dict[str, tuple[Callable[[secure_kafka.SecureKafka, Path], kafka.Where], str]] = {
    "a wrong password": (
        lambda broker, _: broker.with_password("case", "wrong"),
        "SaslAuthenticationFailedError",
    ),
    "somebody else's broker": (
        lambda broker, folder: dataclasses.replace(
            broker.with_password("case", PASSWORD), ca_file=certificates.Authority(folder).file
        ),
        "CERTIFICATE_VERIFY_FAILED",
    ),
    "a broker of another name": (
        lambda broker, _: dataclasses.replace(
            broker.with_password("case", PASSWORD), bootstrap=broker.address("sasl", "localhost")
        ),
        "certificate is not valid for 'localhost'",
    ),
    "no certificate of ours": (
        lambda broker, _: dataclasses.replace(broker.administrator, certificate_file=None, key_file=None),
        "SSL: ",
    ),
    "a certificate of a stranger": (
        lambda broker, folder: broker.with_certificate(certificates.Authority(folder).sign("admin")),
        "SSL: ",
    ),
    "what is not encrypted": (lambda broker, _: broker.address("sasl"), "127.0.0.1"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("impatient")
def test_what_is_not_right_does_not_connect_and_says_why(
    secure: secure_kafka.SecureKafka, tmp_path: Path, case: str
) -> None:
    made, said = REFUSED[case]
    brokers = made(secure, tmp_path)

    def told() -> bool:
        with pytest.raises(kafka.Unreachable) as refused:
            kafka.drift(brokers)
        assert PASSWORD not in str(refused.value)
        return said in str(refused.value)

    # kafka-python loses an answer that it reads together with the end of the connection, which follows it.
    waiting.until(told, timeout=60, what=said)


@pytest.mark.parametrize("service", ports.SERVICES)
def test_a_service_may_do_its_work_and_nothing_else(secure: secure_kafka.SecureKafka, service: str) -> None:
    catalog = topics.catalog()
    brokers = secure.with_password(service, PASSWORD)
    consumed = [topic.name for topic in catalog.by_name.values() if service in topic.consumers]
    produced = [topic.name for topic in catalog.by_name.values() if topic.producer in (service, topics.ANY)]
    for name in consumed:
        assert produce(secure.administrator, name) is None
    assert len(consume(brokers, f"recupera.{service}", *consumed)) >= len(consumed)
    assert committed(secure, f"recupera.{service}", consumed[0]) == 1
    assert {name: produce(brokers, name) for name in produced} == dict.fromkeys(produced)
    assert kafka.drift(brokers, catalog.used_by(service)) == []

    others = sorted(set(catalog.by_name) - set(produced))
    assert {kind(produce(brokers, name)) for name in others} == {"TopicAuthorizationFailedError"}
    unread = sorted(set(catalog.by_name) - set(consumed))
    assert {reads(brokers, service, name) for name in unread} <= {
        "TopicMissing",
        "TopicAuthorizationFailedError",
    }
    neighbour = next(other for other in ports.SERVICES if other != service)
    with pytest.raises(kafka.Unavailable, match="GroupAuthorizationFailedError"):
        consume(brokers, f"recupera.{neighbour}", *consumed)
    with pytest.raises(kafka.Unavailable, match="AuthorizationFailedError"):
        kafka.create_missing(
            brokers, topics.Catalog([dataclasses.replace(catalog[CASE], name="recupera.other.v1")])
        )


def reads(brokers: settings.Brokers, service: str, name: str) -> str:
    """What comes of reading a topic."""
    try:
        consume(brokers, f"recupera.{service}", name)
    except (kafka.Unavailable, kafka.TopicMissing) as error:
        return kind(error)
    return "read"


def committed(secure: secure_kafka.SecureKafka, group: str, topic: str, *, user: str = "") -> int:
    """How far a group came in the first partition, as KEDA asks for it."""
    client = (
        KafkaAdminClient(
            bootstrap_servers=secure.address("sasl"),
            security_protocol="SASL_SSL",
            ssl_cafile=str(secure.authority.file),
            sasl_mechanism="SCRAM-SHA-512",
            sasl_plain_username=user,
            sasl_plain_password=PASSWORD,
        )
        if user
        else secure.client()
    )
    try:
        offsets = client.list_group_offsets({group: None})[group]
        return next(
            found.offset for place, found in offsets.items() if (place.topic, place.partition) == (topic, 0)
        )
    finally:
        client.close()


def test_the_scaler_sees_the_lag_and_changes_nothing(secure: secure_kafka.SecureKafka) -> None:
    assert produce(secure.administrator, AGREEMENT) is None
    consume(secure.with_password("case", PASSWORD), "recupera.case", AGREEMENT)
    scaler = secure.with_password(acls.SCALER, PASSWORD)
    assert committed(secure, "recupera.case", AGREEMENT, user=acls.SCALER) == 1
    [end] = kafka.ends(scaler, [kafka.Partition(AGREEMENT, 0)]).values()
    assert end >= 1
    assert "AuthorizationFailedError" in str(produce(scaler, AGREEMENT))
    with pytest.raises(kafka.Unavailable, match="AuthorizationFailedError"):
        consume(scaler, "recupera.case", AGREEMENT)


def test_the_topics_job_creates_and_neither_reads_nor_writes(secure: secure_kafka.SecureKafka) -> None:
    job = secure.with_password(acls.TOPICS_JOB, PASSWORD)
    answer = subprocess.run(
        [sys.executable, "-m", "servicekit", "topics", "--check"],
        env=os.environ | secure_kafka.environment(job),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (0, "topics are as topics.yaml says\n"), answer.stderr
    assert "AuthorizationFailedError" in str(produce(job, CASE))

    def told() -> bool:
        refused = subprocess.run(
            [sys.executable, "-m", "servicekit", "topics"],
            env=os.environ | secure_kafka.environment(dataclasses.replace(job, password="wrong")),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert refused.returncode == 1
        last = refused.stderr.splitlines()[-1]
        assert last.startswith(f"Kafka at {job.bootstrap}: ")
        return "SaslAuthenticationFailedError" in last

    waiting.until(told, timeout=60, what="the broker's answer")  # lost now and then: see the refusals above


@dataclasses.dataclass
class Running:
    """A worker process."""

    child: subprocess.Popen[bytes]
    ready: Path
    log: Path
    environment: dict[str, str]

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            assert self.child.poll() is None, self.log.read_text()[-3000:]
            return self.ready.exists()

        waiting.until(is_ready, timeout=120, what="the worker to be ready")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a process with a broker's settings."""
    started: list[subprocess.Popen[bytes]] = []

    def make(name: str, *command: str, brokers: settings.Brokers, **variables: str) -> Running:
        ready, log = tmp_path / f"{name}.ready", tmp_path / f"{name}.log"
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(ledger.__file__).parents[1]),
            "PYTHONWARNINGS": "ignore",
            "RECUPERA_READY_FILE": str(ready),
            **secure_kafka.environment(brokers),
            **variables,
        }
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stderr=output, stdout=output
            )
        started.append(child)
        return Running(child, ready, log, environment)

    yield make
    for child in started:
        child.kill()
        child.wait()


@pytest.mark.parametrize("service", ports.SERVICES)
def test_the_worker_of_each_service_runs_with_its_rights(
    secure: secure_kafka.SecureKafka,
    database: Callable[..., databases.Database],
    engine: Callable[..., sa.Engine],
    start: Callable[..., Running],
    tmp_path: Path,
    service: str,
) -> None:
    made = database(service)
    key = auth.generate_key(auth.SERVICE_ISSUER + service)
    auth.write_key(tmp_path / "key.json", key)
    auth.write_jwks(tmp_path / "jwks.json", [key])
    running = start(
        service,
        f"{service}_service",
        "worker",
        brokers=secure.with_password(service, PASSWORD),
        RECUPERA_RPC_PORT="0",
        RECUPERA_JWKS_FILE=str(tmp_path / "jwks.json"),
        RECUPERA_SERVICE_KEY_FILE=str(tmp_path / "key.json"),
        RECUPERA_SMTP_ADDRESS="127.0.0.1:1",
        RECUPERA_SMTP_SENDER="office@example.com",
        **{f"RECUPERA_DATABASE_URL_{service.upper()}": made.url},
        **{f"RECUPERA_{other.upper()}_ADDRESS": "127.0.0.1:1" for other in ports.SERVICES},
    )
    running.wait_ready()
    [topic] = [topic for topic in topics.catalog().by_name.values() if topic.producer == service]
    package, _, message = topic.message.rpartition(".")
    module = importlib.import_module(f"{package}.{package.split('.')[1]}_facts_pb2")
    before = sum(ends_of(secure, topic.name))
    agency = ids.new()
    fact = getattr(module, message)(agency=agency.bytes)
    getattr(fact, fact.DESCRIPTOR.oneofs_by_name["fact"].fields[0].name).SetInParent()
    with db.begin(engine(made), agency=agency) as tx:
        tx.publish(fact, partition=0)
    waiting.until(
        lambda: databases.rows(made.administrator_url, "SELECT 1 FROM outbox") == [],
        timeout=60,
        what="the outbox to be sent",
    )
    assert sum(ends_of(secure, topic.name)) > before
    assert "AuthorizationFailed" not in running.log.read_text()
    asked = subprocess.run(
        [sys.executable, "-m", f"{service}_service", "doctor", "--json"],
        env=running.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    findings = [
        one for one in json.loads(asked.stdout)["findings"] if one["check"] in ("kafka", "topics", "lag")
    ]
    assert {one["check"] for one in findings} == {"kafka", "topics", "lag"}
    assert not [one for one in findings if "Authorization" in one["text"] or "may not" in one["text"]]


def ends_of(secure: secure_kafka.SecureKafka, topic: str) -> list[int]:
    """Where its partitions end."""
    partitions = [kafka.Partition(topic, number) for number in range(topics.catalog()[topic].partitions)]
    return list(kafka.ends(secure.administrator, partitions).values())


def test_what_is_changed_on_disk_is_used_by_the_next_connection(
    tmp_path: Path,
    store: Callable[[str], Any],
    start: Callable[..., Running],
) -> None:
    """A broker comes back with a certificate of another CA and asks for another password: a running worker goes on."""
    secure = secure_kafka.SecureKafka(tmp_path / "broker")
    try:
        secure.start()
        secure.set_password("agreement", PASSWORD)
        secure.allow("agreement", acls.of_service("agreement"))
        kafka.create_missing(secure.administrator)
        trusted, password = tmp_path / "ca.crt", tmp_path / "password"
        trusted.write_text(secure.authority.file.read_text())
        password.write_text(PASSWORD + "\n")
        brokers = dataclasses.replace(
            secure.with_password("agreement", PASSWORD),
            ca_file=trusted,
            password=None,
            password_file=password,
        )
        made = store("agreement")
        running = start("ledger", "support.ledger", brokers=brokers, LEDGER_DATABASE_URL=made.database.url)
        running.wait_ready()
        agency, case = ids.new(), ids.new()
        apply(secure.administrator, made, agency, case, 1)

        secure.set_password("agreement", "another")
        secure.server.process.stop()
        renewed = certificates.Authority(tmp_path / "renewed")
        secure.start(renewed)
        # The broker is there, and neither is right: the worker is refused, says so, and does not end.
        waiting.until(
            lambda: "CERTIFICATE_VERIFY_FAILED" in running.log.read_text(), timeout=60, what="the refusal"
        )
        trusted.write_text(renewed.file.read_text())
        waiting.until(
            lambda: "SaslAuthenticationFailedError" in running.log.read_text(),
            timeout=60,
            what="the password to be refused",
        )
        password.write_text("another\n")
        apply(secure.with_certificate_of(renewed), made, agency, case, 2)
        assert running.child.poll() is None
        assert PASSWORD not in running.log.read_text()
    finally:
        secure.server.process.kill()


def apply(brokers: settings.Brokers, made: Any, agency: uuid.UUID, case: uuid.UUID, number: int) -> None:
    """Send a fact, and wait until the ledger has it."""
    fact = ledger.single(agency, case, number)
    fact.fact_id = ids.new().bytes
    assert produce(brokers, CASE, fact.SerializeToString(), topics.partition_of(case, 24)) is None
    waiting.until(
        lambda: ledger.numbers(made.owner).get(case, [])[-1:] == [number],
        timeout=120,
        what=f"fact {number} to be applied",
    )
