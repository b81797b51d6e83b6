"""The local Kafka: Apache's broker from Maven's jars, one node, as a child of the runner, with its own state folder."""

import base64
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from recupera_local import paths, processes

HEAP = ("-Xms96m", "-Xmx384m")
JAVA_OPTIONS = (
    *HEAP,
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # a broker of a development machine is started more often than it is warm
    "-XX:MaxDirectMemorySize=128m",
    "-Xshare:auto",
)


class JarsMissing(processes.PlatformFailed):
    """`make setup` has not fetched the broker's jars."""


class JavaMissing(processes.PlatformFailed):
    """There is no `java` on the PATH."""


class Kafka:
    """A broker in `folder`, on 127.0.0.1:`port`, with its controller on `controller_port`."""

    def __init__(
        self,
        *,
        folder: Path,
        port: int,
        controller_port: int,
        log: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = port
        self._controller_port = controller_port
        self._settings = dict(settings or {})
        self.process = processes.Process(
            name="kafka",
            command=[*_java(), "kafka.Kafka", str(self._properties)],
            log=log,
            environ={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            ready=self.ready,
        )

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port}"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def prepare(self) -> None:
        """Write the configuration, and format the state folder when it is new (2 s)."""
        if shutil.which("java") is None:
            raise JavaMissing(
                "no `java` found, Kafka needs 17 or newer (Debian: apt install openjdk-17-jre-headless)"
            )
        if not any(paths.KAFKA_LIBS.glob("kafka_2.13-*.jar")):
            raise JarsMissing(f"Kafka's jars are not in {paths.KAFKA_LIBS}: run `make setup` (it needs mvn)")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            "".join(f"{name}={value}\n" for name, value in self._configuration().items())
        )
        if (self._data / "meta.properties").exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        # a random 128-bit id whose first bit is 0: one that begins with "-" would be read as an option
        cluster = base64.urlsafe_b64encode(bytes([secrets.randbelow(128)]) + secrets.token_bytes(15))
        formatted = subprocess.run(
            [
                *_java(),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                cluster.decode().rstrip("="),
                "-c",
                str(self._properties),
                "--standalone",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if formatted.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise processes.ProcessFailed(
                f"Kafka's folder could not be formatted.\n{formatted.stdout}{formatted.stderr}"
            )

    def _configuration(self) -> Mapping[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._data),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "8",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.num.partitions": "8",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # A killed broker may register again only when its former session is over.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
            # One controller: no need to wait whether another one wants to lead.
            "controller.quorum.election.timeout.ms": "200",
            "controller.quorum.election.backoff.max.ms": "100",
            "controller.quorum.fetch.timeout.ms": "400",
            "auto.create.topics.enable": "false",
            "log.index.size.max.bytes": "1048576",
            "log.cleaner.dedupe.buffer.size": "16777216",
            "num.network.threads": "2",
            "num.io.threads": "4",
        } | self._settings

    def ready(self) -> bool:
        """Whether the broker accepts connections (it listens only after it has joined its controller)."""
        return processes.listening(self.port)

    def start(self) -> None:
        """Prepare, start and wait until it accepts connections (5 s when new, then 3 s)."""
        self.prepare()
        self.process.start()
        self.process.wait_ready()


def _java() -> list[str]:
    log4j = f"-Dlog4j2.configurationFile={paths.REPO / 'deploy' / 'local' / 'kafka' / 'log4j2.xml'}"
    return ["java", *JAVA_OPTIONS, log4j, "-classpath", f"{paths.KAFKA_LIBS}/*"]
