"""The whole local platform as one object: `make run`, the demo, the bench and the fault tests start it from here.

    platform = Platform(state_dir=folder, ports=ports.free())
    platform.start()
    platform.kill("case.worker")
    platform.start_process("case.worker")
    platform.stop()

Processes: postgres, kafka, envoy, mailbox, migrate (a step), and <service>.serve and <service>.worker of each service.
Each starts when what it needs is ready; all die with the process that made the Platform, whatever ends that.
"""

import collections
import concurrent.futures
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import recupera_gateway
from recupera_local import agencies, gateway, kafka, paths, postgres, processes, tokens
from recupera_local import ports as ports_module
from recupera_local.processes import PlatformFailed, Process

__all__ = ["Platform", "PlatformFailed"]

FREE_DISK = 1_000_000_000
"""Bytes: PostgreSQL's and Kafka's files of an empty platform take a quarter of this."""
RESTARTS = 5
RESTARTS_WITHIN = 60.0
TOKEN_SECONDS = 6 * 3600.0

log = logging.getLogger(__name__)


class DiskFull(PlatformFailed):
    """There is not enough room for the state folder."""


class Platform:
    """A platform with its state in `state_dir` (kept by `stop`), on `ports`.

    `environ` is added to every service's variables. Where it has RECUPERA_KAFKA, that broker is used and none is
    started; where it has RECUPERA_DATABASE_URL_<SERVICE> and RECUPERA_OWNER_DATABASE_URL_<SERVICE> of all
    services, those databases are. `durable`: commits survive the death of the machine, not only that of any process.
    """

    def __init__(
        self,
        *,
        state_dir: Path,
        ports: ports_module.Ports,
        services: Sequence[str] = ports_module.SERVICES,
        environ: Mapping[str, str] | None = None,
        durable: bool = False,
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.ports = ports
        self.services = tuple(services)
        self._environ = dict(environ or {})
        self._keys = self.state_dir / "keys"
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._supervisor: threading.Thread | None = None
        self._deaths: dict[str, collections.deque[float]] = collections.defaultdict(collections.deque)
        self._token = ("", 0.0)
        self.failure: str | None = None
        """Why the supervisor gave up, None while all is well."""
        self._postgres = postgres.Postgres(
            folder=self.state_dir / "postgres",
            port=ports["postgres"],
            log=self._log("postgres"),
            durable=durable,
        )
        self._kafka = kafka.Kafka(
            folder=self.state_dir / "kafka",
            port=ports["kafka"],
            controller_port=ports["kafka.controller"],
            log=self._log("kafka"),
        )
        self._gateway = gateway.Gateway(
            folder=self.state_dir / "gateway",
            log=self._log("envoy"),
            settings=recupera_gateway.Settings(
                port=ports["gateway"],
                admin_port=ports["gateway.admin"],
                addresses={service: self.address(service) for service in self.services},
                jwks=tokens.jwks_file(self._keys),
            ),
        )
        self._processes: dict[str, Process] = {}

    # ---- what it offers -----------------------------------------------------------------------------------------

    @property
    def gateway_url(self) -> str:
        """The one address that clients need: gRPC, gRPC-Web and JSON."""
        return f"http://127.0.0.1:{self.ports['gateway']}"

    @property
    def mailbox_url(self) -> str:
        """The mailbox's page and JSON (recupera_local/mailbox.py)."""
        return f"http://127.0.0.1:{self.ports['mailbox']}"

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self._environ.get("RECUPERA_KAFKA", self._kafka.bootstrap)

    @property
    def agency(self) -> str:
        """The demo agency's id."""
        return str(agencies.demo().id)

    def address(self, service: str) -> str:
        """host:port of a service's own gRPC server, behind the gateway."""
        return f"127.0.0.1:{self.ports[f'{service}.rpc']}"

    def token(self) -> str:
        """A token for the demo agency with all scopes, good for hours; made again when it gets old."""
        token, made = self._token
        if time.monotonic() - made > TOKEN_SECONDS or not token:
            token = tokens.issue(self._keys, agency=agencies.demo().id)
            self._token = (token, time.monotonic())
        return token

    def url(self, service: str) -> str:
        """A service's database, for the service's role."""
        return self._environ.get(f"RECUPERA_DATABASE_URL_{service.upper()}") or self._postgres.url(
            f"recupera_{service}", f"recupera_{service}"
        )

    def owner_url(self, service: str) -> str:
        """A service's database, for the owner of its tables."""
        return self._environ.get(f"RECUPERA_OWNER_DATABASE_URL_{service.upper()}") or self._postgres.url(
            f"recupera_{service}", f"recupera_{service}_owner"
        )

    @property
    def administrator_url(self) -> str:
        """The platform's own PostgreSQL, for its superuser."""
        return self._postgres.url()

    def service_environ(self, service: str) -> Mapping[str, str]:
        """The variables of a service's processes, but for those that differ between `serve` and `worker`."""
        return {
            **_inherited(),
            "PYTHONUNBUFFERED": "1",
            "MALLOC_ARENA_MAX": "2",  # without it each thread's memory stays with the thread
            "POLARS_MAX_THREADS": "2",
            f"RECUPERA_DATABASE_URL_{service.upper()}": self.url(service),
            "RECUPERA_KAFKA": self.bootstrap,
            "RECUPERA_TOPICS_FILE": str(paths.TOPICS_FILE),
            "RECUPERA_RPC_PORT": str(self.ports[f"{service}.rpc"]),
            "RECUPERA_JWKS_FILE": str(tokens.jwks_file(self._keys)),
            "RECUPERA_SERVICE_KEY_FILE": str(tokens.key_file(self._keys, service)),
            "RECUPERA_DRAIN_DELAY": "0",
            "RECUPERA_ALLOW_SIMULATED_CLOCK": "1",
            "RECUPERA_SMTP_ADDRESS": f"127.0.0.1:{self.ports['smtp']}",
            **{f"RECUPERA_{other.upper()}_ADDRESS": self.address(other) for other in ports_module.SERVICES},
            **self._environ,
        }

    def processes(self) -> Mapping[str, Process]:
        """Every process that was started, by name."""
        return dict(self._processes)

    def memory_pss(self) -> Mapping[str, int]:
        """Bytes of each running process (PSS: shared pages divided among those who share them)."""
        return {name: process.memory_pss() for name, process in self._processes.items() if process.alive}

    # ---- starting and stopping ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start everything and return when all of it is ready. Raises PlatformFailed, with nothing left running."""
        self._stopping.clear()
        self._deaths.clear()
        self.failure = None
        try:
            self._prepare()
            self._start_all()
        except BaseException:
            self.stop()
            raise
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._supervisor.start()

    def stop(self) -> None:
        """Stop everything in good order; may be called twice."""
        self._stopping.set()
        if self._supervisor is not None:
            self._supervisor.join()
            self._supervisor = None
        with self._lock:
            processes.stop_all(list(self._processes.values()))

    def kill(self, name: str) -> None:
        """End a process with SIGKILL; it stays dead until `start_process`."""
        with self._lock:
            self._named(name).kill()

    def start_process(self, name: str, *, wait: bool = False) -> None:
        """Start a process that was killed. `wait`: return when it is ready."""
        with self._lock:
            process = self._named(name)
            process.start()
        if wait:
            process.wait_ready()

    def start_second_worker(self, service: str) -> str:
        """Start one more worker beside those that run; its name, for `kill`."""
        with self._lock:
            number = 2 + sum(name.startswith(f"{service}.worker.") for name in self._processes)
            process = self._worker(service, f"{service}.worker.{number}", ports_module.free_ports(1)[0])
            self._processes[process.name] = process
            process.start()
        return process.name

    # ---- inside -------------------------------------------------------------------------------------------------

    @property
    def _own_kafka(self) -> bool:
        return "RECUPERA_KAFKA" not in self._environ

    @property
    def _own_postgres(self) -> bool:
        return not self.services or not all(
            f"RECUPERA_{kind}_URL_{service.upper()}" in self._environ
            for service in self.services
            for kind in ("DATABASE", "OWNER_DATABASE")
        )

    def _own_ports(self) -> ports_module.Ports:
        """The ports on which this platform is going to listen."""
        own = {"kafka": self._own_kafka, "postgres": self._own_postgres}
        return ports_module.Ports(
            {name: port for name, port in self.ports.by_name.items() if own.get(name.split(".")[0], True)}
        )

    def _named(self, name: str) -> Process:
        try:
            return self._processes[name]
        except KeyError:
            raise ValueError(f"no process {name!r}; there are {', '.join(self._processes)}") from None

    def _log(self, name: str) -> Path:
        return self.state_dir / "log" / f"{name}.log"

    def _prepare(self) -> None:
        """Everything before the first process: room, ports, keys, state folders, configuration."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.state_dir).free
        if free < FREE_DISK:
            raise DiskFull(
                f"only {free // 1_000_000} MB are free for {self.state_dir}, about {FREE_DISK // 1_000_000} MB"
                " are needed: free some space, or name a folder on another disk with RECUPERA_LOCAL_DIR"
            )
        ports_module.check_free(self._own_ports())
        shutil.rmtree(self.state_dir / "log", ignore_errors=True)
        shutil.rmtree(self.state_dir / "ready", ignore_errors=True)
        (self.state_dir / "ready").mkdir()
        tokens.ensure(self._keys)
        self._gateway.prepare()
        wanted: list[Callable[[], None]] = []
        if self._own_postgres:
            wanted.append(self._postgres.prepare)
        if self._own_kafka:
            wanted.append(self._kafka.prepare)
        with concurrent.futures.ThreadPoolExecutor() as side_by_side:
            for done in [side_by_side.submit(prepare) for prepare in wanted]:
                done.result()

    def _start_all(self) -> None:
        own = [self._postgres.process] if self._own_postgres else []
        first = [
            *own,
            *([self._kafka.process] if self._own_kafka else []),
            self._gateway.process,
            self._mailbox(),
        ]
        self._add(first)
        for process in first:
            process.start()
        if self._own_postgres:
            self._postgres.process.wait_ready()
            self._postgres.create_service_databases(self.services)
        migrate = self._migrate()
        serve = [self._serve(service) for service in self.services]
        self._add([migrate, *serve])
        processes.start_all([*first, migrate, *serve])
        self._wait_for_gateway()
        workers = [
            self._worker(service, f"{service}.worker", self.ports[f"{service}.worker.metrics"])
            for service in self.services
        ]
        self._add(workers)
        processes.start_all([*first, migrate, *serve, *workers])

    def _wait_for_gateway(self) -> None:
        """Until Envoy sees every service as healthy: each has answered a health check with SERVING."""
        end = time.monotonic() + 120
        while not self._gateway.healthy():
            if time.monotonic() > end:
                raise PlatformFailed(f"the services do not get healthy.\n{self._gateway.process.tail()}")
            for process in self._processes.values():
                process.check()
            time.sleep(0.05)

    def _add(self, made: Sequence[Process]) -> None:
        self._processes.update({process.name: process for process in made})

    def _mailbox(self) -> Process:
        listen = ["--smtp", str(self.ports["smtp"]), "--http", str(self.ports["mailbox"])]
        folder = str(self.state_dir / "mailbox")
        return Process(
            name="mailbox",
            command=[sys.executable, "-m", "recupera_local.mailbox", *listen, "--folder", folder],
            log=self._log("mailbox"),
            environ=_inherited(),
            ready=lambda: (
                processes.listening(self.ports["mailbox"]) and processes.listening(self.ports["smtp"])
            ),
        )

    def _migrate(self) -> Process:
        owners = {
            f"RECUPERA_OWNER_DATABASE_URL_{service.upper()}": self.owner_url(service)
            for service in self.services
        }
        topics = {"RECUPERA_KAFKA": self.bootstrap, "RECUPERA_TOPICS_FILE": str(paths.TOPICS_FILE)}
        return Process(
            name="migrate",
            command=[sys.executable, "-m", "recupera_local.migrate"],
            log=self._log("migrate"),
            environ={**_inherited(), **topics, **self._environ, **owners},
            after=["postgres"],  # waits for Kafka itself, with its imports and the migrations done meanwhile
        )

    def _serve(self, service: str) -> Process:
        name = f"{service}.serve"
        return Process(
            name=name,
            command=[sys.executable, "-m", f"{service}_service", "serve"],
            log=self._log(name),
            environ={
                **self.service_environ(service),
                "RECUPERA_METRICS_PORT": str(self.ports[f"{service}.serve.metrics"]),
            },
            ready=lambda: processes.listening(self.ports[f"{service}.rpc"]),
            after=["migrate", "postgres", "kafka"],
        )

    def _worker(self, service: str, name: str, metrics_port: int) -> Process:
        ready = self.state_dir / "ready" / name
        return Process(
            name=name,
            command=[sys.executable, "-m", f"{service}_service", "worker"],
            log=self._log(name),
            environ={
                **self.service_environ(service),
                "RECUPERA_METRICS_PORT": str(metrics_port),
                "RECUPERA_READY_FILE": str(ready),
            },
            before=lambda: ready.unlink(missing_ok=True),
            ready=ready.exists,
            after=["kafka", "postgres", *(f"{other}.serve" for other in self.services)],
        )

    def _supervise(self) -> None:
        """Start again what died by itself, later each time; give up when it keeps dying."""
        again: dict[str, float] = {}
        while not self._stopping.wait(0.2):
            with self._lock:
                for name, process in self._processes.items():
                    if process.ready is None or not process.started or process.alive:
                        again.pop(name, None)
                        continue
                    now = time.monotonic()
                    if name not in again:
                        again[name] = now + self._note_death(name, process)
                    elif now >= again[name] and self.failure is None:
                        process.start()
                        log.warning("%s is started again", name)

    def _note_death(self, name: str, process: Process) -> float:
        """Report it; the seconds to wait before it is started again."""
        deaths = self._deaths[name]
        deaths.append(time.monotonic())
        while deaths[0] < time.monotonic() - RESTARTS_WITHIN:
            deaths.popleft()
        log.warning("%s ended with %s (log: %s)", name, process.ending, process.log)
        if len(deaths) > RESTARTS:
            self.failure = f"{name} keeps ending, {len(deaths)} times within a minute.\n{process.tail()}"
        return float(2 ** (len(deaths) - 1)) / 2


def _inherited() -> Mapping[str, str]:
    """The runner's own variables, without settings that were meant for other processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RECUPERA_")}
