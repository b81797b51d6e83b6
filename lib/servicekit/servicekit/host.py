"""The nameko host of a worker process: entrypoints for facts and timers (architecture §2, §6).

    class CaseWorker(host.Worker):
        name = "case_worker"

        @host.consume("recupera.imports.v1", prepare="fetch_slices")
        def import_facts(self, tx, facts, prepared): ...

        @host.timer(interval=0.5)
        def send_due(self): ...

    host.run(CaseWorker, wiring=Wiring(...), settings=settings, engine=engine)

nameko's container owns the life of the process: one managed green thread polls Kafka, and each partition's
records become a worker whose work runs on a native thread (eventlet.tpool), so the hub never blocks and
nothing is monkey-patched. While a worker works, polling goes on paused, so a long handler does not cost its
group membership. The outbox relay and the heartbeat are native threads beside the hub.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol, TypeVar

import sqlalchemy as sa

with warnings.catch_warnings():
    warnings.simplefilter(
        "ignore"
    )  # eventlet says at import that it is deprecated; it is behind this module only
    import eventlet
    import eventlet.event
    import eventlet.tpool
    from nameko.containers import ServiceContainer
    from nameko.extensions import DependencyProvider, Entrypoint, SharedExtension, register_entrypoint

from servicekit import (
    acts,
    blobs,
    clock,
    db,
    delivery,
    gauges,
    idempotency,
    inbox,
    kafka,
    leases,
    pausing,
    relay,
    telemetry,
    topics,
)

F = TypeVar("F", bound=Callable[..., Any])

POLL_MS = 200
PATIENCE = 1.0
"""Seconds after which polling goes on, paused, beside a handler that still works."""
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
RESTS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds for which a timer leaves an agency alone after a failure there, by failures in a row; no more than the third
where it is the failure of somebody who will be back.
"""
HOUSEKEEPING = 600.0
PAUSED_LOOK = 0.5
"""Seconds at most between two looks whether a paused timer was resumed."""

LOOKS = "recupera_looks"

logger = logging.getLogger("recupera.host")

_retries = telemetry.counter(
    "recupera.facts.retries", "{retry}", "Runs tried again in place, nothing being wrong with the facts"
)
_timer_failures = telemetry.counter("recupera.timer.failures", "{failure}", "Timer ticks that failed")
_timer_seconds = telemetry.histogram("recupera.timer.tick", "s", "Time of a timer's tick")


class GivenUp(Exception):
    """The database or a remote stayed away longer than ``Options.retry_limit``: the process ends, to be
    started anew.
    """


class WorkerSettings(Protocol):
    """The part of ServiceSettings that the host reads."""

    @property
    def kafka(self) -> kafka.Where: ...
    @property
    def ready_file(self) -> pathlib.Path | None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What tests and operators may change."""

    retry_limit: float = 300.0
    """Seconds of failing in place before the process ends."""
    parked_limit: int = 100
    """Facts refused in a row before the process ends."""
    max_poll_records: int = delivery.MAX_RECORDS
    session_timeout_ms: int = 10_000
    max_poll_interval_ms: int = 300_000
    relay: bool = True
    gauges_every: float = gauges.EVERY


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Context:
    engine: sa.Engine
    wiring: Any
    bootstrap: kafka.Where
    group: str
    options: Options
    ready: Callable[[], None]
    progress: gauges.Progress
    is_paused: Callable[[str], bool]


def _context(extension: Any) -> _Context:
    found = extension.container.config["recupera"]
    assert isinstance(found, _Context)
    return found


class _Wiring(DependencyProvider):  # type: ignore[misc]
    def get_dependency(self, worker_ctx: Any) -> Any:
        return _context(self).wiring


class _Engine(DependencyProvider):  # type: ignore[misc]
    def get_dependency(self, worker_ctx: Any) -> sa.Engine:
        return _context(self).engine


class Worker:
    """Base of a service's nameko class. ``self.wiring`` is what __main__ built, ``self.engine`` the service's
    engine.
    """

    name: ClassVar[str]
    wiring: Any = _Wiring()
    engine: Any = _Engine()

    def _deliver(self, job: _Job) -> Exception | None:
        """nameko calls it on a green thread; the work happens on a native one."""
        result: Exception | None = eventlet.tpool.execute(job.work, self)
        return result

    def _tick(self, method: str, is_paused: Callable[[str], bool]) -> None:
        eventlet.tpool.execute(_tick, self, method, is_paused)


def consume(
    topic: str,
    *,
    prepare: str | None = None,
    max_records: int = delivery.MAX_RECORDS,
    max_rows: int = delivery.MAX_ROWS,
) -> Callable[[F], F]:
    """Method ``(self, tx, facts)`` applies facts of a topic inside the transaction that records them as
    consumed.

    ``facts`` are messages of one agency and one partition, in order, none seen before. The method raises a
    ``ServiceError`` for a fact that its rules refuse: it is then called again for each fact alone (a chunk:
    each case alone) and what is refused is parked. ``prepare`` names a method ``(self, facts) -> Any`` that
    runs before the transaction, for remote calls; then the method is ``(self, tx, facts, prepared)``.
    ``max_records`` and ``max_rows`` limit one transaction, which must commit within 10 seconds.
    """

    def register(method: F) -> F:
        handler = delivery.Handler(
            topic=topic, method=method.__name__, prepare=prepare, max_records=max_records, max_rows=max_rows
        )
        setattr(method, delivery.ATTRIBUTE, handler)
        register_entrypoint(method, _Consume(topic))
        return method

    return register


def timer(*, interval: float, eager: bool = False) -> Callable[[F], F]:
    """Method ``(self)`` runs every ``interval`` seconds (machine time) on a native thread, in every replica,
    never beside itself in one process. ``eager`` runs it at start too. A failing tick is logged and counted;
    the next one comes.
    """

    def register(method: F) -> F:
        register_entrypoint(method, _Timer(interval, eager))
        return method

    return register


def looks_at(*shown: telemetry.Gauge) -> Callable[[F], F]:
    """Method ``(self)`` reads from the database what these gauges show, and shows it; the thread of the gauges calls it
    in one replica. It must be cheap however large the tables are.
    """

    def register(method: F) -> F:
        setattr(method, LOOKS, shown)
        return method

    return register


class _Consume(Entrypoint):  # type: ignore[misc]
    """One consumed topic. All share one loop, which owns the consumer."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.loop = _Loop()
        super().__init__()

    def bind(self, container: Any, method_name: str) -> Any:
        instance = super().bind(container, method_name)
        instance.method_name = "_deliver"
        return instance

    def setup(self) -> None:
        self.loop.entrypoints[self.topic] = self

    def stop(self) -> None:
        self.loop.drain()


class _Timer(Entrypoint):  # type: ignore[misc]
    def __init__(self, interval: float, eager: bool) -> None:
        self.interval = interval
        self.eager = eager
        self._stop = eventlet.event.Event()
        self._thread: Any = None
        self._ticked = ""
        super().__init__()

    def bind(self, container: Any, method_name: str) -> Any:
        instance = super().bind(container, method_name)
        instance._ticked = method_name
        instance.method_name = "_tick"
        return instance

    def start(self) -> None:
        self._thread = self.container.spawn_managed_thread(self._run, identifier=self._ticked)

    def stop(self) -> None:
        if not self._stop.ready():
            self._stop.send()
        self._thread.wait()

    def _run(self) -> None:
        is_paused = _context(self).is_paused
        if not self.eager:
            _wait(self._stop, self.interval)
        while not self._stop.ready():
            if is_paused(self._ticked):
                _wait(self._stop, min(self.interval, PAUSED_LOOK))
                continue
            done = eventlet.event.Event()

            def finished(_context: Any, result: Any, exc_info: Any, done: Any = done) -> Any:
                done.send()
                return result, exc_info

            self.container.spawn_worker(self, (self._ticked, is_paused), {}, handle_result=finished)
            done.wait()
            _wait(self._stop, self.interval)


def _tick(worker: Any, method: str, is_paused: Callable[[str], bool]) -> None:
    _in_hand.is_to_end = lambda: is_paused(method)
    _in_hand.timer = method
    started = time.perf_counter()
    try:
        with telemetry.span("timer", timer=method):
            getattr(worker, method)()
    # Also a library's panic: leaving the native thread, it would be waited for for ever.
    except BaseException as error:
        _timer_failures.add(1, {"timer": method})
        logger.log(_level(error), "timer failed", exc_info=error, extra={"timer": method})
    finally:
        del _in_hand.is_to_end, _in_hand.timer
    _timer_seconds.record(time.perf_counter() - started, {"timer": method})


def _level(error: BaseException) -> int:
    return logging.WARNING if delivery.is_transient(error) else logging.ERROR


def _wait(event: Any, seconds: float) -> bool:
    """Wait for an event on a green thread; True when it came."""
    with eventlet.Timeout(seconds, False):
        event.wait()
    return bool(event.ready())


class _Job:
    """The records of one partition from one poll, and how far they are applied."""

    def __init__(
        self,
        *,
        context: _Context,
        handler: delivery.Handler,
        partition: kafka.Partition,
        position: int,
        records: list[delivery.Record],
        streak: delivery.Streak,
        stop: Callable[[], bool],
    ) -> None:
        self._context = context
        self._handler = handler
        self._partition = partition
        self._records = records
        self._streak = streak
        self._stop = stop
        self._batch: delivery.Batch | None = None
        self.topic = partition.topic
        self.position = position

    @property
    def done(self) -> bool:
        """True when no record is left."""
        return self._batch is not None and self._batch.done

    def work(self, worker: Worker) -> Exception | None:
        """On a native thread: apply what is left; the exception that stopped it, if one did."""
        try:
            if self._batch is None:
                self._batch = delivery.Batch(
                    handler=self._handler,
                    partition=self._partition.partition,
                    position=self.position,
                    records=[record for record in self._records if record.offset >= self.position],
                    consumer=self._context.group,
                )
            try:
                delivery.deliver(self._context.engine, worker, self._batch, self._streak, self._stop)
            finally:
                self.position = self._batch.position
        except Exception as error:
            return error
        # A library's panic: leaving the native thread, it would be waited for for ever.
        except BaseException as error:
            panic = RuntimeError("a handler left with what is no Exception")
            panic.__cause__ = error
            return panic
        return None


class _Loop(SharedExtension):  # type: ignore[misc]
    """The one green thread that owns the consumer; its calls run on native threads, one after another."""

    def __init__(self) -> None:
        self.entrypoints: dict[str, _Consume] = {}
        self._positions: dict[kafka.Partition, int] = {}
        self._reported: dict[kafka.Partition, int] = {}
        self._reported_at = 0.0
        self._stopping = False
        self._ready = False
        self._thread: Any = None
        self._failing_since: float | None = None
        self._failures = 0
        super().__init__()

    def setup(self) -> None:
        context = _context(self)
        self._context = context
        self._handlers = delivery.handlers(self.container.service_cls)
        self._streak = delivery.Streak(context.options.parked_limit)

    def start(self) -> None:
        self._thread = self.container.spawn_managed_thread(self._run, identifier="consumer")

    def drain(self) -> None:
        """Finish the transaction in hand, leave the group."""
        self._stopping = True
        if self._thread is not None:
            self._thread.wait()

    def _run(self) -> None:
        consumer: kafka.Consumer | None = None
        try:
            while not self._stopping:
                if consumer is None:
                    consumer = self._connected()
                    continue
                try:
                    self._round(consumer)
                except kafka.NotAdmitted as error:  # a client that was refused does not try again
                    self._failed(error)
                    eventlet.tpool.execute(consumer.close)
                    consumer = None
        except kafka.RangeLost as error:
            self._alarm(error)
            raise
        except delivery.TooManyParked as error:
            logger.critical(
                "consumer stopped: too many facts in a row were refused; "
                "look at table parked, mend, then `replay`",
                extra={"limit": self._context.options.parked_limit, "group": self._context.group},
                exc_info=error,
            )
            raise
        finally:
            if consumer is not None:
                if self._stopping:
                    self._report(consumer)
                eventlet.tpool.execute(consumer.close)

    def _connected(self) -> kafka.Consumer | None:
        """A consumer; None after a while when there is none yet."""
        try:
            consumer: kafka.Consumer = eventlet.tpool.execute(self._consumer)
        except (kafka.Unavailable, kafka.TopicMissing) as error:
            self._failed(error)
            eventlet.sleep(BACKOFF[2])
            return None
        self._failing_since = None
        return consumer

    def _consumer(self) -> kafka.Consumer:
        options = self._context.options
        return kafka.Consumer(
            self._context.bootstrap,
            group=self._context.group,
            client_id=f"{self._context.group}-{acts.worker_id()}",
            subscribe=sorted(self._handlers),
            max_poll_records=options.max_poll_records,
            session_timeout_ms=options.session_timeout_ms,
            max_poll_interval_ms=options.max_poll_interval_ms,
        )

    def _paused(self, topic: str) -> bool:
        return self._context.is_paused(topic)

    def _round(self, consumer: kafka.Consumer) -> None:
        eventlet.tpool.execute(consumer.hold, {name for name in self._handlers if self._paused(name)})
        polled = eventlet.tpool.execute(consumer.poll, POLL_MS)
        self._position(consumer)
        if not self._ready and consumer.is_ready():
            self._ready = True
            self._context.ready()
        for partition, records in polled.items():
            if self._stopping:
                return
            if consumer.is_positioned(partition):
                self._handle(consumer, partition, records)
        if time.monotonic() - self._reported_at > 1.0:
            self._report(consumer)

    def _position(self, consumer: kafka.Consumer) -> None:
        """Partitions that came to us are read from the stored offset on; never read before, from the
        oldest.
        """
        waiting = consumer.unpositioned()
        if not waiting:
            return
        try:
            stored = eventlet.tpool.execute(_stored, self._context.engine, consumer, waiting)
        except Exception as error:
            if not delivery.is_transient(error) and not isinstance(error, kafka.Unavailable):
                raise
            self._failed(error)
            return
        self._failing_since = None
        for partition in waiting:
            self._positions[partition] = stored[partition]
            self._reported.pop(partition, None)  # who had it meanwhile may have told less than we did
            consumer.seek(partition, stored[partition])
        logger.info("partitions assigned", extra={"partitions": len(waiting), "group": self._context.group})

    def _handle(
        self, consumer: kafka.Consumer, partition: kafka.Partition, records: list[delivery.Record]
    ) -> None:
        job = _Job(
            context=self._context,
            handler=self._handlers[partition.topic],
            partition=partition,
            position=self._positions[partition],
            records=records,
            streak=self._streak,
            stop=lambda: self._stopping or self._paused(partition.topic),
        )
        while not self._stopping and consumer.is_positioned(partition):
            if self._paused(partition.topic):
                consumer.forget(partition)  # what is left of these records is read again after `resume`
                self._failing_since = None
                return
            error = self._work(consumer, job)
            self._positions[partition] = job.position
            if error is None:
                self._failing_since = None
                if job.done:
                    return
                continue
            if isinstance(error, inbox.PartitionLost):
                logger.info("partition read on by another consumer", extra=partition._asdict())
                consumer.forget(partition)
                return
            if not delivery.is_transient(error):
                raise error
            _retries.add(1, {"topic": partition.topic})
            self._failed(error)
            self._pause(consumer)

    def _work(self, consumer: kafka.Consumer, job: _Job) -> Exception | None:
        """Run a job in a nameko worker; beside a long one keep polling, paused."""
        done = eventlet.event.Event()

        def finished(_worker: Any, result: Any, exc_info: Any) -> Any:
            done.send(result if exc_info is None else exc_info[1])
            return result, exc_info

        self.container.spawn_worker(self.entrypoints[job.topic], (job,), {}, handle_result=finished)
        paused = False
        while not _wait(done, PATIENCE):
            if not paused:
                eventlet.tpool.execute(consumer.pause)
                paused = True
            self._poll_paused(consumer)
        if paused:
            eventlet.tpool.execute(consumer.resume)
        result: Exception | None = done.wait()
        return result

    def _pause(self, consumer: kafka.Consumer) -> None:
        """Before trying again in place: wait, polling paused."""
        eventlet.tpool.execute(consumer.pause)
        until = time.monotonic() + BACKOFF[min(self._failures, len(BACKOFF)) - 1]
        while not self._stopping and (left := until - time.monotonic()) > 0:
            self._poll_paused(consumer)
            eventlet.sleep(min(left, 0.2))
        eventlet.tpool.execute(consumer.resume)

    def _poll_paused(self, consumer: kafka.Consumer) -> None:
        for partition in eventlet.tpool.execute(consumer.poll, 0):
            consumer.forget(partition)  # came in spite of the pause: read it again from the stored offset

    def _failed(self, error: Exception) -> None:
        """Note a failure that may pass; raises ``GivenUp`` when it has lasted too long."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            self._failures = 0
        self._failures += 1
        lasted = now - self._failing_since
        logger.warning(
            "retried in place",
            exc_info=error,
            extra={"failures": self._failures, "seconds": round(lasted, 1), "group": self._context.group},
        )
        if lasted > self._context.options.retry_limit:
            raise GivenUp(f"failing for {lasted:.0f} s") from error

    def _report(self, consumer: kafka.Consumer) -> None:
        """Tell Kafka how far we are (lag, scaling)."""
        self._reported_at = time.monotonic()
        held = {p: offset for p, offset in self._positions.items() if consumer.is_positioned(p)}
        self._context.progress.held = held
        changed = {p: o for p, o in held.items() if self._reported.get(p) != o}
        if changed and eventlet.tpool.execute(consumer.commit, changed):
            self._reported.update(changed)

    def _alarm(self, error: kafka.RangeLost) -> None:
        producers = sorted({topics.catalog()[partition.topic].producer for partition in error.partitions})
        logger.critical(
            "consumer stopped: facts it has not applied are no longer in Kafka; run "
            "`python -m <producer>_service republish` at the producers named here, then accept the lost "
            "range here, and start again",
            extra={
                "group": self._context.group,
                "republish": producers,
                "lost": [f"{p.topic}/{p.partition}@{offset}" for p, offset in error.partitions.items()],
            },
        )


def _stored(
    engine: sa.Engine, consumer: kafka.Consumer, waiting: list[kafka.Partition]
) -> dict[kafka.Partition, int]:
    stored = inbox.positions(engine)
    if new := [partition for partition in waiting if tuple(partition) not in stored]:
        inbox.start(
            engine, {(p.topic, p.partition): offset for p, offset in consumer.beginnings(new).items()}
        )
        stored = inbox.positions(engine)
    return {partition: stored[partition] for partition in waiting}


def lost_ranges(engine: sa.Engine, bootstrap: kafka.Where) -> dict[kafka.Partition, tuple[int, int]]:
    """Partitions whose stored offset Kafka no longer has: that offset, and the oldest that is there."""
    stored = {kafka.Partition(*place): offset for place, offset in inbox.positions(engine).items()}
    first = kafka.beginnings(bootstrap, list(stored))
    last = kafka.ends(bootstrap, list(stored))
    return {p: (offset, first[p]) for p, offset in stored.items() if not first[p] <= offset <= last[p]}


def accept_lost_range(engine: sa.Engine, bootstrap: kafka.Where) -> dict[kafka.Partition, int]:
    """After ``republish``: read partitions whose stored offset Kafka no longer has from the oldest record on.

    Returns where they begin now. To be run while no worker of the service runs.
    """
    lost = {partition: first for partition, (_, first) in lost_ranges(engine, bootstrap).items()}
    inbox.restart(engine, {(p.topic, p.partition): offset for p, offset in lost.items()})
    return lost


def pausable(worker: type[Worker]) -> list[str]:
    """The names that an operator may pause: topics, then timers."""
    return [*sorted(delivery.handlers(worker)), *_timers(worker)]


def check(worker: type[Worker]) -> None:
    """Raise ValueError where topics.yaml does not list the worker's service as a consumer of what it
    consumes.
    """
    catalog = topics.catalog()
    for name in delivery.handlers(worker):
        if service_of(worker) not in catalog[name].consumers:
            raise ValueError(f"topics.yaml does not list {service_of(worker)} as a consumer of {name}")


def begin_counters(worker: type[Worker]) -> None:
    """What alerts read is there before anything happens, for each topic and timer of the worker."""
    for counter in (_retries, *delivery.RARE):
        telemetry.begin(counter, {"topic": delivery.handlers(worker)})
    telemetry.begin(_timer_failures, {"timer": _timers(worker)})


def service_of(worker: type[Worker]) -> str:
    """``case_worker`` -> ``case``."""
    return worker.name.removesuffix("_worker")


class _Housekeeping:
    """A thread that deletes what is kept only for a time, in one replica."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        pause = 60.0
        while not self._stop.wait(pause):
            pause = HOUSEKEEPING
            try:
                if leases.hold(self._engine, "housekeeping"):
                    housekeep(self._engine)
            except Exception as error:
                logger.warning("housekeeping failed", exc_info=error)


def housekeep(engine: sa.Engine) -> None:
    """Delete inbox rows and answers past their time, rows of dead workers, and blobs past their retention."""
    inbox.purge(engine, topics.catalog())
    acts.forget_dead(engine)
    for agency in clock.agencies(engine):
        with db.begin(engine, agency=agency) as tx:
            idempotency.purge(tx)
        with db.begin(engine, agency=agency) as tx:
            blobs.expire(tx, clock.read(tx, agency).now())


class _Ending:
    """Whether this process was asked to stop. No Event: a second signal while its lock is held would wait for ever."""

    asked = False


_in_hand = threading.local()
_rests: dict[tuple[str, uuid.UUID], tuple[int, float]] = {}


def draining() -> bool:
    """True once this process was asked to stop, or the timer that asks was paused: a long timer ends at the next
    point from which it can go on.
    """
    return _Ending.asked or getattr(_in_hand, "is_to_end", bool)()


def each(agencies: Iterable[uuid.UUID], work: Callable[[uuid.UUID], object]) -> None:
    """In a timer: ``work`` for each agency in turn, until ``draining``.

    One that fails keeps no other waiting: it is logged and rests (``RESTS``), and the tick fails at its end with the
    last failure. A database that is away ends the tick at once.
    """
    timer: str = getattr(_in_hand, "timer", "")
    failure: Exception | None = None
    for agency in agencies:
        if draining():
            break
        failures, until = _rests.get((timer, agency), (0, 0.0))
        if time.monotonic() < until:
            continue
        try:
            work(agency)
        except Exception as error:
            rests = RESTS[:3] if delivery.is_transient(error) else RESTS
            rest = rests[min(failures, len(rests) - 1)]
            if timer:
                _rests[timer, agency] = (failures + 1, time.monotonic() + rest)
            logger.log(
                _level(error),
                "the work of an agency failed",
                exc_info=error,
                extra={"timer": timer, "agency": str(agency), "failures": failures + 1, "again_in": rest},
            )
            failure = error
            if db.is_unavailable(error):
                break
        else:
            _rests.pop((timer, agency), None)
    if failure is not None:
        raise failure


def run(
    worker: type[Worker],
    *,
    wiring: Any,
    settings: WorkerSettings,
    engine: sa.Engine,
    options: Options | None = None,
) -> None:
    """Run a worker process until SIGTERM or SIGINT; then finish what is in hand, and return.

    ``settings.ready_file`` is there while the worker has its partitions and is not draining.
    Raises SystemExit(1), with a critical log line, when it cannot go on (``GivenUp``, a lost range of facts,
    too many facts refused in a row, a bug). Killed at any point it loses nothing and applies nothing twice.
    """
    options = options or Options()
    check(worker)
    begin_counters(worker)
    kafka.require_crc32c()
    service = service_of(worker)
    watch = pausing.Watch(engine)
    context = _Context(
        engine=engine,
        wiring=wiring,
        bootstrap=settings.kafka,
        group=f"recupera.{service}",
        options=options,
        ready=lambda: _touch(settings.ready_file),
        progress=gauges.Progress(),
        is_paused=watch.is_paused,
    )
    eventlet.tpool.QUIET = True
    eventlet.tpool.set_num_threads(4 + len(_timers(worker)))
    container = ServiceContainer(
        worker, config={"recupera": context, "max_workers": 4 + len(_timers(worker))}
    )

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(_Ending, "asked", True))

    def await_end() -> None:
        while not _Ending.asked:
            eventlet.sleep(0.1)
        logger.info("draining")
        _remove(settings.ready_file)
        container.stop()

    heartbeat = acts.Heartbeat(engine, worker.name)
    sender = relay.Relay(engine, settings.kafka, source=service)
    housekeeping = _Housekeeping(engine)
    names = sorted(delivery.handlers(worker))
    lag = gauges.Lag(settings.kafka, names, context.progress)
    sampler = gauges.Sampler(
        engine,
        own=[lag.look()] if names else [],
        shared=[*gauges.of_tables(engine, names), *_looks(worker, engine, wiring)],
        every=options.gauges_every,
    )
    failed = False
    try:
        _await_database(heartbeat.start)
        if options.relay:
            sender.start()
        housekeeping.start()
        sampler.start()
        watch.start()
        container.start()
        eventlet.spawn(await_end)  # not before: what is stopped while it starts is waited for for ever
        logger.info("working", extra={"worker": worker.name, "topics": sorted(delivery.handlers(worker))})
        if not delivery.handlers(worker):
            context.ready()
        container.wait()
    except Exception as error:
        failed = True
        logger.critical("worker stopped", exc_info=error)
    finally:
        # Whatever ended it: a timer that acts is not to go on when the heartbeat has stopped.
        _Ending.asked = True
        _remove(settings.ready_file)
        housekeeping.stop()
        sampler.stop()
        lag.close()
        watch.stop()
        if options.relay:
            sender.stop()
        heartbeat.stop()
        engine.dispose()
    if failed:
        raise SystemExit(1)


def _await_database(begin: Callable[[], None]) -> None:
    """``begin``, again and again while the database is away and nobody asks to stop."""
    for pause in itertools.chain(BACKOFF, itertools.repeat(BACKOFF[-1])):
        try:
            begin()
            return
        except Exception as error:
            if not db.is_unavailable(error):
                raise
            logger.warning("the database is away: waiting for it", exc_info=error)
        until = time.monotonic() + pause
        while time.monotonic() < until:
            if _Ending.asked:
                return
            time.sleep(0.1)


def _looks(worker: type[Worker], engine: sa.Engine, wiring: Any) -> list[gauges.Look]:
    """The service's own."""
    instance = delivery.instance(worker, engine=engine, wiring=wiring)
    methods = {name: getattr(worker, name) for name in dir(worker)}
    return [
        gauges.Look(name, getattr(method, LOOKS), getattr(instance, name))
        for name, method in methods.items()
        if hasattr(method, LOOKS)
    ]


def _touch(ready_file: pathlib.Path | None) -> None:
    if ready_file is not None:
        ready_file.touch()


def _remove(ready_file: pathlib.Path | None) -> None:
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)


def _timers(worker: type[Worker]) -> list[str]:
    return [
        name
        for name in dir(worker)
        if any(isinstance(one, _Timer) for one in getattr(getattr(worker, name), "nameko_entrypoints", ()))
    ]
