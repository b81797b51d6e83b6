"""`doctor`: looks at everything a service needs, and says what to do (docs/operations.md).

Nothing is changed. Each check gives lines ok, warn or fail; what stands in one check's way does not keep the others
from being made. Kafka tells nobody its time, so that clocks are compared with the database's alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import ipaddress
import json
import re
import socket
import ssl
import struct
import textwrap
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from cryptography import x509

from servicekit import acts, auth, clock, db, inbox, kafka, migrations, parked, pausing, relay, topics
from servicekit import settings as settings_module

WANTED = kafka.Durability(replication=3, min_insync=2)
"""How safely Kafka has to keep facts in production."""
LAG = 10_000
OUTBOX_AGE = datetime.timedelta(minutes=1)
OUTBOX_STUCK = datetime.timedelta(minutes=15)
CLOCK_WARN, CLOCK_FAIL = 1.0, 15.0
"""Seconds. Service tokens are good for 60, a lease for 15."""
EXPIRY_WARN, EXPIRY_FAIL = datetime.timedelta(days=30), datetime.timedelta(days=3)
SECOND_LOOK = 3.0
TIMEOUT = 5.0


class Level(enum.StrEnum):
    """How bad it is: nothing, somebody should look, it does not work or will not for long."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line. ``todo`` says what to do where the level is not ok."""

    check: str
    level: Level
    text: str
    todo: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """What is looked at. ``settings`` are all dataclasses of settings in use: files and addresses are found there."""

    service: str
    settings: Sequence[Any]
    engine: sa.Engine
    kafka: kafka.Where
    jwks_file: Path
    key_file: Path
    migrations: Path
    production: bool

    @property
    def catalog(self) -> topics.Catalog:
        """Those that the service writes or reads."""
        return topics.catalog().used_by(self.service)

    @property
    def consumed(self) -> list[topics.Topic]:
        """Those that it reads."""
        return [one for one in self.catalog.by_name.values() if self.service in one.consumers]


Check = Callable[[Patient], Iterator[Finding]]


def examine(patient: Patient) -> Iterator[Finding]:
    """Every check in turn. Those that need the database or Kafka are left out where it is away."""
    away: set[str] = set()
    for name, needs, check in _CHECKS:
        if missing := sorted(away & needs):
            yield Finding(name, Level.WARN, f"not looked at: {' and '.join(missing)} away")
            continue
        try:
            for found in check(patient):
                if found.level is Level.FAIL and found.check in ("database", "kafka"):
                    away.add(found.check)
                yield found
        except sa.exc.ProgrammingError as error:
            yield Finding(name, Level.WARN, f"not looked at: the schema is not there ({_told(error)})")
        except Exception as error:
            todo = "do the lines above say why?"
            yield Finding(name, Level.FAIL, f"could not be looked at: {_told(error)}", todo)


def as_text(patient: Patient, findings: Sequence[Finding]) -> str:
    """For people: a line a finding, what to do below it, the sum last."""
    now = datetime.datetime.now(datetime.UTC)
    lines = [f"{patient.service} at {now:%Y-%m-%d %H:%M:%S} UTC", ""]
    for one in findings:
        lines += _wrapped(f"{one.level:<5} {one.check:<12} ", one.text)
        if one.level is not Level.OK and one.todo:
            lines += _wrapped(f"{'':<18} -> ", one.todo)
    failed = sum(one.level is Level.FAIL for one in findings)
    warned = sum(one.level is Level.WARN for one in findings)
    lines += ["", f"{failed} failed, {warned} to look at" if failed or warned else "all is well"]
    return "\n".join(lines)


def as_json(patient: Patient, findings: Sequence[Finding]) -> str:
    """For machines."""
    return json.dumps(
        {
            "service": patient.service,
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "level": max((one.level for one in findings), key=list(Level).index, default=Level.OK),
            "findings": [dataclasses.asdict(one) for one in findings],
        },
        indent=2,
    )


def _wrapped(before: str, text: str) -> list[str]:
    return textwrap.wrap(
        before + text,
        width=120,
        subsequent_indent=" " * len(before),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )


# ---- the database ---------------------------------------------------------------------------------------------


def _database(patient: Patient) -> Iterator[Finding]:
    started = time.perf_counter()
    try:
        with db.connect(patient.engine) as connection:
            version = connection.execute(sa.text("SHOW server_version")).scalar_one()
            driver = db.driver_connection(connection)
            found, encrypted = driver.info, driver.pgconn.ssl_in_use
    except Exception as error:
        if not db.is_unavailable(error):
            raise
        yield Finding(
            "database",
            Level.FAIL,
            f"not reachable: {_told(error)}",
            f"is the server up, and are address, password and certificates of"
            f" RECUPERA_DATABASE_URL_{patient.service.upper()} right?",
        )
        return
    took = (time.perf_counter() - started) * 1_000
    where = f"PostgreSQL {version} at {found.host}:{found.port} answers in {took:.0f} ms"
    parameters = found.get_parameters()
    mode = parameters.get("sslmode", "prefer")
    if encrypted and mode == "verify-full":
        yield Finding("database", Level.OK, f"{where}, TLS with a checked certificate")
    elif encrypted:
        yield Finding(
            "database",
            Level.WARN,
            f"{where}, TLS with an unchecked certificate (sslmode={mode})",
            "anybody between could answer: sslmode=verify-full and the authority's certificate",
        )
    elif _is_here(found.host):
        yield Finding("database", Level.OK, f"{where}, without TLS on this machine")
    else:
        yield Finding(
            "database",
            Level.WARN,
            f"{where}, without TLS",
            "sslmode=verify-full and the authority's certificate, unless the network encrypts",
        )
    if encrypted:
        yield from _endpoint(
            "certificates",
            found.host,
            int(found.port),
            ca_file=_root(parameters) if mode in ("verify-full", "verify-ca") else None,
            verify=mode in ("verify-full", "verify-ca"),
            greet=_ask_postgres,
        )


def _role(patient: Patient) -> Iterator[Finding]:
    (row,) = db.read(patient.engine, agency=None, statement=_ROLE)
    wrong = [
        text
        for is_so, text in (
            (row.rolsuper, "is a superuser"),
            (row.rolbypassrls, "has BYPASSRLS"),
            (row.owns, f"owns {row.owns} tables"),
            (row.member and not row.rolsuper, "can become the owner of the tables"),
        )
        if is_so
    ]
    if wrong:
        yield Finding(
            "role",
            Level.FAIL,
            f"{row.name} {', '.join(wrong)}: row-level security does not hold",
            "connect as the service's role, which owns nothing and is no superuser; see deploy/helm/recupera",
        )
    else:
        yield Finding("role", Level.OK, f"{row.name} owns nothing, no superuser, no BYPASSRLS")
    if open_tables := [one.name for one in db.read(patient.engine, agency=None, statement=_WITHOUT_POLICY)]:
        yield Finding(
            "role",
            Level.FAIL,
            f"no row-level security on {', '.join(open_tables)}",
            "somebody changed the schema by hand: compare with the migrations",
        )


def _schema(patient: Patient) -> Iterator[Finding]:
    try:
        found = [row.version_num for row in db.read(patient.engine, agency=None, statement=_VERSION)]
    except sa.exc.ProgrammingError:
        found = []
    known = migrations.revisions(patient.migrations)
    if found == known[:1]:
        yield Finding("schema", Level.OK, f"at the newest migration, {known[0]}")
    elif not found or found[0] in known:
        yield Finding(
            "schema",
            Level.FAIL,
            f"at {found[0] if found else 'nothing'}, this release needs {known[0]}",
            f"run the migration job, or `python -m {patient.service}_service migrate` with the owner's address",
        )
    else:
        yield Finding(
            "schema",
            Level.WARN,
            f"at {', '.join(found)}, which this release does not know (its newest is {known[0]})",
            "right after a rollback by one release; else a newer release is being installed",
        )


def _clocks(patient: Patient) -> Iterator[Finding]:
    apart = min((_difference(patient.engine) for _ in range(3)), key=abs)
    text = f"this machine is {abs(apart):.2f} s {'ahead of' if apart > 0 else 'behind'} the database"
    if abs(apart) < CLOCK_WARN:
        yield Finding("clock", Level.OK, text)
    else:
        yield Finding(
            "clock",
            Level.FAIL if abs(apart) >= CLOCK_FAIL else Level.WARN,
            text,
            "look at NTP of both machines: tokens, leases and due times go by these clocks",
        )
    simulated = db.read(patient.engine, agency=None, statement=_SIMULATED)[0].agencies
    if simulated:
        yield Finding(
            "clock",
            Level.FAIL if patient.production else Level.WARN,
            f"{simulated} agencies have a simulated clock",
            "for demos and tests only: give them a real one (SetClock), without RECUPERA_ALLOW_SIMULATED_CLOCK",
        )


def _difference(engine: sa.Engine) -> float:
    """Seconds by which this machine is ahead of the database, to within half a round trip."""
    before = clock.machine_now()
    (row,) = db.read(engine, agency=None, statement=_NOW)
    after = clock.machine_now()
    return float((before + (after - before) / 2 - row.now).total_seconds())


# ---- Kafka ------------------------------------------------------------------------------------------------------


def _topics(patient: Patient) -> Iterator[Finding]:
    wanted = patient.catalog
    started = time.perf_counter()
    try:
        found = kafka.kept(patient.kafka, wanted)
    except kafka.Unavailable as error:
        if "Authorization" in type(error).__name__:
            yield Finding(
                "topics",
                Level.WARN,
                f"may not be looked at: {_told(error)}",
                "let the service's Kafka user Describe and DescribeConfigs its topics",
            )
        else:
            yield Finding(
                "kafka",
                Level.FAIL,
                f"not reachable: {_told(error)}",
                "are the brokers up, and are RECUPERA_KAFKA and its certificates and password right?",
            )
        return
    took = (time.perf_counter() - started) * 1_000
    security = getattr(patient.kafka, "security", "PLAINTEXT")
    yield Finding("kafka", Level.OK, f"answers in {took:.0f} ms, {security}")
    well = []
    alike: dict[Finding, list[str]] = {}
    for name, topic in wanted.by_name.items():
        if name not in found:
            todo = "run `python -m servicekit topics`, the topics job"
            alike.setdefault(Finding("topics", Level.FAIL, "missing", todo), []).append(name)
            continue
        lines = list(_of_topic(topic, found[name], production=patient.production))
        for line in lines:
            alike.setdefault(line, []).append(name)
        if not lines:
            well.append(found[name])
    for line, names in alike.items():
        yield dataclasses.replace(line, text=f"{line.text}: {', '.join(names)}")
    if well:
        copies = "/".join(str(one) for one in sorted({one.copies for one in well}))
        insync = "/".join(str(one) for one in sorted({one.min_insync for one in well}))
        yield Finding(
            "topics",
            Level.OK,
            f"{len(well)} as topics.yaml says; replication {copies}, min.insync.replicas {insync}, no unclean election",
        )


def _of_topic(topic: topics.Topic, found: kafka.Kept, *, production: bool) -> Iterator[Finding]:
    """What is not right with one topic; said once for all of which it is true."""
    for line in kafka.differences(topic, found, None):
        if "partitions" in line:
            todo = "the number is part of the contract: growth is a new topic, see ADR 0005"
            yield Finding("topics", Level.FAIL, line, todo)
        else:
            todo = "set it with Kafka's tools (kafka-configs --alter), or change topics.yaml"
            yield Finding("topics", Level.WARN, line, todo)
    if found.leaderless:
        yield Finding(
            "topics", Level.FAIL, f"{found.leaderless} partitions without a leader", "look at the brokers"
        )
    elif found.lagging:
        text = f"{found.lagging} partitions with a copy that is not in sync"
        yield Finding("topics", Level.WARN, text, "look at the brokers: one is away or slow")
    unsafe = [
        text
        for is_so, text in (
            (found.copies < WANTED.replication, f"{found.copies} copies, not {WANTED.replication}"),
            (
                found.min_insync < WANTED.min_insync,
                f"min.insync.replicas {found.min_insync}, not {WANTED.min_insync}",
            ),
            (found.unclean, "unclean leader election"),
        )
        if is_so
    ]
    if unsafe and production:
        todo = (
            "facts are lost with a broker: kafka-reassign-partitions for copies, kafka-configs for the rest"
        )
        yield Finding("topics", Level.FAIL, ", ".join(unsafe), todo)
    elif found.unclean:
        yield Finding("topics", Level.WARN, "unclean leader election", "unclean.leader.election.enable=false")


def _lag(patient: Patient) -> Iterator[Finding]:
    there = kafka.kept(patient.kafka, patient.catalog)
    names = [
        one.name
        for one in patient.consumed
        if one.name in there and there[one.name].partitions == one.partitions
    ]
    held = {one.name for one in pausing.paused(patient.engine)}
    before = _behind(patient, names)
    if any(behind for _, behind, _ in before.values()):
        time.sleep(SECOND_LOOK)  # whether it moves
    after = _behind(patient, names)
    for name in names:
        _, behind, lost = after[name]
        if lost:
            producer = topics.catalog()[name].producer
            yield Finding(
                "lag",
                Level.FAIL,
                f"{name}: facts that were not applied are no longer in Kafka (partitions {_list(lost)})",
                f"`python -m {producer}_service republish`, then `accept-lost-range` here",
            )
            continue
        still = behind and after[name][0] == before[name][0]
        text = f"{name}: {behind} records not yet applied"
        if still and not held & {name, pausing.ALL}:
            yield Finding(
                "lag",
                Level.WARN,
                f"{text}, none in {SECOND_LOOK:.0f} s",
                "is a worker running (below)? What does its log say?",
            )
        elif behind > LAG:
            yield Finding(
                "lag",
                Level.WARN,
                text,
                "it moves; more worker replicas, up to the partitions, move it faster",
            )
        elif behind:
            yield Finding("lag", Level.OK, text)
    if idle := [name for name in names if not after[name][1] and not after[name][2]]:
        yield Finding("lag", Level.OK, f"nothing waits in {', '.join(idle)}")


def _behind(patient: Patient, names: Sequence[str]) -> Mapping[str, tuple[int, int, list[int]]]:
    """By topic: the sum of the stored offsets, records behind them, and partitions whose offset is no longer there."""
    stored = inbox.positions(patient.engine)
    every = [
        kafka.Partition(name, number) for name in names for number in range(topics.catalog()[name].partitions)
    ]
    first, last = kafka.beginnings(patient.kafka, every), kafka.ends(patient.kafka, every)
    found: dict[str, tuple[int, int, list[int]]] = {}
    for name in names:
        ours = [one for one in every if one.topic == name]
        at = {one: stored.get((one.topic, one.partition), first[one]) for one in ours}
        lost = [one.partition for one in ours if not first[one] <= at[one] <= last[one]]
        found[name] = (sum(at.values()), sum(max(last[one] - at[one], 0) for one in ours), lost)
    return found


# ---- the service's own tables -----------------------------------------------------------------------------------


def _workers(patient: Patient) -> Iterator[Finding]:
    alive = acts.alive(patient.engine)
    if alive:
        yield Finding("workers", Level.OK, f"{alive} alive")
    else:
        yield Finding(
            "workers",
            Level.WARN,
            f"none had a heartbeat in the last {acts.DEAD_AFTER.seconds} s: no fact is applied or sent, no timer ticks",
            f"start {patient.service}-worker, or look why it ends",
        )


def _parked(patient: Patient) -> Iterator[Finding]:
    waiting = parked.waiting(patient.engine)
    for topic, (rows, age) in sorted(waiting.items()):
        yield Finding(
            "parked",
            Level.WARN,
            f"{rows} facts of {topic}, the oldest for {_span(age)}",
            f"read `reason` in table parked, mend the cause, `python -m {patient.service}_service replay`",
        )
    if not waiting:
        yield Finding("parked", Level.OK, "no facts")


def _outbox(patient: Patient) -> Iterator[Finding]:
    rows, age = relay.waiting(patient.engine)
    text = f"{rows} facts wait for Kafka, the oldest for {_span(age)}" if rows else "empty"
    if age >= OUTBOX_AGE.total_seconds():
        yield Finding(
            "outbox",
            Level.FAIL if age >= OUTBOX_STUCK.total_seconds() else Level.WARN,
            text,
            "is a worker alive, does Kafka answer? Nothing is lost; the worker's log says why the relay starts again",
        )
    else:
        yield Finding("outbox", Level.OK, text)


def _paused(patient: Patient) -> Iterator[Finding]:
    found = pausing.paused(patient.engine)
    now = db.read(patient.engine, agency=None, statement=_NOW)[0].now
    for one in found:
        age = (now - one.paused_at).total_seconds()
        kept = min(
            (
                topic.retention_ms / 1_000
                for topic in patient.consumed
                if one.name in (topic.name, pausing.ALL)
            ),
            default=None,
        )
        text = f"{one.name} for {_span(age)}, by {one.paused_by}: {one.reason}"
        name = "'*'" if one.name == pausing.ALL else one.name
        todo = f"`python -m {patient.service}_service resume {name}`"
        if kept is not None and age > kept / 2:
            yield Finding("paused", Level.FAIL, text, f"Kafka deletes its facts after {_span(kept)}: {todo}")
        else:
            yield Finding("paused", Level.WARN, text, f"when the reason is gone: {todo}")
    if not found:
        yield Finding("paused", Level.OK, "nothing")


# ---- keys and certificates ---------------------------------------------------------------------------------------


def _keys(patient: Patient) -> Iterator[Finding]:
    try:
        known = auth.read_jwks(patient.jwks_file)
        own = auth.read_key(patient.key_file)
    except settings_module.SettingsError as error:
        yield Finding(
            "keys", Level.FAIL, str(error), "mount the secret that `python -m servicekit keys` made"
        )
        return
    if own.issuer != auth.SERVICE_ISSUER + patient.service:
        yield Finding(
            "keys",
            Level.FAIL,
            f"the key is of {own.issuer!r}, not of {auth.SERVICE_ISSUER + patient.service!r}",
            "RECUPERA_SERVICE_KEY_FILE: give the service its own key",
        )
    elif known.get(own.kid) != (own.issuer, own.private.public_key()):
        yield Finding(
            "keys",
            Level.FAIL,
            f"the service's own key {own.kid} is not in the JWKS: other services refuse its calls",
            "mount the JWKS and the key of the same set; after a new key the JWKS goes out first",
        )
    else:
        yield Finding("keys", Level.OK, f"own key {own.kid} is one of {len(known)} in the JWKS")
    if not any(issuer == auth.ISSUER for issuer, _ in known.values()):
        yield Finding(
            "keys",
            Level.FAIL,
            f"the JWKS has no key of {auth.ISSUER!r}: nobody's token is believed",
            "add the public key that signs people's and systems' tokens",
        )


def _certificates(patient: Patient) -> Iterator[Finding]:
    looked = False
    for variable, file in _files(patient):
        for certificate in _read(file):
            looked = True
            yield _expiry(f"{file.name} ({variable}), {_name(certificate)}", certificate)
    found = patient.kafka
    if isinstance(found, settings_module.Brokers) and found.encrypted:
        for server in kafka.bootstrap_servers(found):
            looked = True
            host, _, port = server.rpartition(":")
            yield from _endpoint("certificates", host, int(port), ca_file=found.ca_file, ours=_ours(found))
    for variable, url in _addresses(patient):
        looked = True
        parts = urllib.parse.urlsplit(url)
        yield from _endpoint(
            "certificates", parts.hostname or "", parts.port or 443, ca_file=_ca_beside(patient, variable)
        )
    if not looked:
        yield Finding("certificates", Level.OK, "none is in use beside the database's")


def _files(patient: Patient) -> Iterator[tuple[str, Path]]:
    """Files of certificates among the settings, once each."""
    seen = set()
    for settings in patient.settings:
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if isinstance(value, Path) and value not in seen and value.is_file():
                seen.add(value)
                if b"-----BEGIN CERTIFICATE" in value.read_bytes():
                    yield field.name, value


def _addresses(patient: Patient) -> Iterator[tuple[str, str]]:
    """https addresses among the settings that the service calls, one for each host."""
    seen = set()
    for settings in patient.settings:
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if isinstance(value, str) and value.startswith("https://") and field.name not in _NOT_CALLED:
                place = urllib.parse.urlsplit(value).netloc
                if place not in seen:
                    seen.add(place)
                    yield field.name, value


_NOT_CALLED = frozenset({"public_url"})
"""Addresses for others, which the service itself does not call."""


def _ca_beside(patient: Patient, variable: str) -> Path | None:
    """The authority's file of the same group of settings (`pix_url`, `pix_ca_file`); else whom the system trusts."""
    beside = f"{variable.partition('_')[0]}_ca_file"
    for settings in patient.settings:
        if isinstance(found := getattr(settings, beside, None), Path):
            return found
    return None


def _ours(brokers: settings_module.Brokers) -> tuple[Path, Path] | None:
    if brokers.certificate_file is None or brokers.key_file is None:
        return None
    return brokers.certificate_file, brokers.key_file


def _endpoint(
    check: str,
    host: str,
    port: int,
    *,
    ca_file: Path | None,
    verify: bool = True,
    ours: tuple[Path, Path] | None = None,
    greet: Callable[[socket.socket], None] = lambda connection: None,
) -> Iterator[Finding]:
    """The certificate that a server shows."""
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        if not verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if ours is not None:
            context.load_cert_chain(*map(str, ours))
        with socket.create_connection((host, port), timeout=TIMEOUT) as plain:
            greet(plain)
            with context.wrap_socket(plain, server_hostname=host) as connection:
                shown = connection.getpeercert(binary_form=True)
        assert shown is not None
        yield _expiry(f"{host}:{port}", x509.load_der_x509_certificate(shown), check)
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            check,
            Level.FAIL,
            f"{host}:{port} shows a certificate that is not good: {error.verify_message}",
            "renew it, or give the service the authority that signed it",
        )
    except OSError as error:
        yield Finding(
            check,
            Level.WARN,
            f"{host}:{port} did not show its certificate: {_told(error)}",
            "does it speak TLS?",
        )


def _ask_postgres(connection: socket.socket) -> None:
    """PostgreSQL speaks TLS after it was asked."""
    connection.sendall(struct.pack("!ii", 8, 80877103))
    if connection.recv(1) != b"S":
        raise ConnectionError("the server speaks no TLS")


def _expiry(what: str, certificate: x509.Certificate, check: str = "certificates") -> Finding:
    until = certificate.not_valid_after_utc
    left = until - datetime.datetime.now(datetime.UTC)
    if left <= datetime.timedelta(0):
        return Finding(check, Level.FAIL, f"{what}: expired on {until:%Y-%m-%d %H:%M} UTC", "renew it now")
    text = f"{what}: until {until:%Y-%m-%d}, {left.days} days"
    if left < EXPIRY_FAIL:
        return Finding(check, Level.FAIL, text, "renew it now")
    if left < EXPIRY_WARN:
        return Finding(check, Level.WARN, text, "renew it; where that is done by itself, see why it was not")
    return Finding(check, Level.OK, text)


def _read(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string() or "no name"


def _root(parameters: Mapping[str, str]) -> Path | None:
    given = parameters.get("sslrootcert", "")
    return Path(given) if given and given != "system" else None


# ---- words --------------------------------------------------------------------------------------------------------


def _told(error: BaseException) -> str:
    """An error's first line, without the passwords that an address may have."""
    error = getattr(error, "orig", None) or error
    text = (str(error).strip().splitlines() or [""])[0]
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    name = type(error).__name__
    return (
        text.removeprefix("Unreachable: ") if text.startswith(name) else f"{name}: {text}".removesuffix(": ")
    )


def _span(seconds: float) -> str:
    for size, word in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(one) for one in numbers)


def _is_here(host: str) -> bool:
    if host.startswith("/") or host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


_ROLE = sa.text(
    """
    SELECT current_user::text AS name, rolsuper, rolbypassrls,
           (SELECT count(*) FROM pg_class WHERE relowner = pg_roles.oid AND relkind IN ('r', 'p')
              AND relnamespace = 'public'::regnamespace) AS owns,
           EXISTS (SELECT FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
              AND pg_has_role(current_user, relowner, 'MEMBER')) AS member
    FROM pg_roles WHERE rolname = current_user
    """
)
_WITHOUT_POLICY = sa.text(
    """
    SELECT relname::text AS name FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
    WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND attname = 'agency'
      AND NOT attisdropped AND NOT relrowsecurity AND relname <> ALL ('{parked, blobs, agency_clock}')
    ORDER BY relname
    """
)
_VERSION = sa.text("SELECT version_num FROM alembic_version")
_NOW = sa.text("SELECT clock_timestamp() AS now")
_SIMULATED = sa.text("SELECT count(*) AS agencies FROM agency_clock WHERE simulated")
_CHECKS: tuple[tuple[str, frozenset[str], Check], ...] = (
    ("database", frozenset(), _database),
    ("role", frozenset({"database"}), _role),
    ("schema", frozenset({"database"}), _schema),
    ("clock", frozenset({"database"}), _clocks),
    ("kafka", frozenset(), _topics),
    ("lag", frozenset({"database", "kafka"}), _lag),
    ("workers", frozenset({"database"}), _workers),
    ("outbox", frozenset({"database"}), _outbox),
    ("parked", frozenset({"database"}), _parked),
    ("paused", frozenset({"database"}), _paused),
    ("keys", frozenset(), _keys),
    ("certificates", frozenset(), _certificates),
)
