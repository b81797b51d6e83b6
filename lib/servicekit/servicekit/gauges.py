"""Gauges that a worker looks up now and then, on one thread (docs/telemetry.md).

What is seen from the process itself is looked up in every replica. What is read from the database, and would be the
same from each, is looked up by the one that holds the lease ``gauges``; the others show nothing. A look that fails, or
a lease that is lost, hides its gauges: no value is better than an old one.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from servicekit import db, kafka, leases, parked, pausing, relay, telemetry

EVERY = 15.0
"""Seconds between looks, and more where they take long: at most a fiftieth of the time goes into looking."""
REST = 50
LONGEST = 45.0
LEASE = datetime.timedelta(seconds=60)

logger = logging.getLogger("recupera.gauges")

_lag = telemetry.gauge(
    "recupera.consumer.lag", "{record}", "Records not yet applied in the partitions this worker has"
)
_partitions = telemetry.gauge("recupera.consumer.partitions", "{partition}", "Partitions this worker has")
_paused = telemetry.gauge("recupera.consumer.paused", "{pause}", "1 for each topic or timer that is paused")
_outbox_rows = telemetry.gauge(
    "recupera.outbox.rows", "{row}", f"Records that wait for the relay, counted up to {relay.COUNTED}"
)
_outbox_age = telemetry.gauge("recupera.outbox.age", "s", "Age of the oldest record that waits for the relay")
_parked_rows = telemetry.gauge("recupera.parked.rows", "{row}", "Parked facts")
_parked_age = telemetry.gauge("recupera.parked.age", "s", "Time since the oldest parked fact was parked")


@dataclasses.dataclass(frozen=True)
class Look:
    """A function that shows its gauges; which ones, so that they can be hidden."""

    name: str
    gauges: Sequence[telemetry.Gauge]
    run: Callable[[], None]

    def hide(self) -> None:
        """Show nothing."""
        for gauge in self.gauges:
            gauge.hide()


class Progress:
    """How far a consumer is: written by its loop, read by the thread of the gauges."""

    def __init__(self) -> None:
        self.held: Mapping[kafka.Partition, int] = {}
        """The next offset to apply of each partition it has. Replaced, never changed."""


class Lag:
    """The consumer's lag, over a connection to Kafka of its own: also while the consumer's loop is busy or stuck."""

    def __init__(self, bootstrap: kafka.Where, topics: Sequence[str], progress: Progress) -> None:
        self._bootstrap = bootstrap
        self._topics = topics
        self._progress = progress
        self._ends: kafka.Ends | None = None

    def look(self) -> Look:
        """As a look."""
        return Look("consumer", (_lag, _partitions), self._run)

    def close(self) -> None:
        """Drop the connection."""
        if self._ends is not None:
            self._ends.close()
            self._ends = None

    def _run(self) -> None:
        held = self._progress.held
        partitions = dict.fromkeys(self._topics, 0)
        for partition in held:
            partitions[partition.topic] += 1
        _partitions.show(partitions, by="topic")
        try:
            if self._ends is None:
                self._ends = kafka.Ends(self._bootstrap)
            ends = self._ends.of(held)
        except kafka.Unavailable:
            self.close()
            raise
        behind = dict.fromkeys(self._topics, 0)
        for partition, position in held.items():
            behind[partition.topic] += max(ends[partition] - position, 0)
        _lag.show(behind, by="topic")


def of_tables(engine: db.Engine, topics: Sequence[str]) -> list[Look]:
    """Looks at servicekit's own tables, for a service that consumes these topics."""

    def look_at_outbox() -> None:
        rows, age = relay.waiting(engine)
        _outbox_rows.show([(rows, {})])
        _outbox_age.show([(age, {})])

    def look_at_parked() -> None:
        found = parked.waiting(engine)
        _parked_rows.show(
            dict.fromkeys(topics, 0) | {topic: rows for topic, (rows, _) in found.items()}, by="topic"
        )
        _parked_age.show(
            dict.fromkeys(topics, 0.0) | {topic: age for topic, (_, age) in found.items()}, by="topic"
        )

    def look_at_paused() -> None:
        _paused.show({one.name: 1 for one in pausing.paused(engine)}, by="name")

    return [
        Look("paused", (_paused,), look_at_paused),
        Look("outbox", (_outbox_rows, _outbox_age), look_at_outbox),
        Look("parked", (_parked_rows, _parked_age), look_at_parked),
    ]


class Sampler:
    """The thread. ``own`` looks are made in every replica, ``shared`` ones in one."""

    def __init__(
        self, engine: db.Engine, *, own: Sequence[Look], shared: Sequence[Look], every: float = EVERY
    ) -> None:
        self._engine = engine
        self._own = own
        self._shared = shared
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gauges", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End, and leave the lease to another replica."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        pause = 1.0  # the consumer has its partitions by then
        while not self._stop.wait(pause):
            started = time.monotonic()
            for look in self._own:
                self._make(look)
            try:
                holds = leases.hold(self._engine, "gauges", lease=LEASE)
            except Exception as error:
                logger.warning("gauges of the database are not known", exc_info=error)
                holds = False
            for look in self._shared:
                if holds:
                    self._make(look)
                else:
                    look.hide()
            pause = min(max(self._every, REST * (time.monotonic() - started)), LONGEST)
        try:
            leases.release(self._engine, "gauges")
        except Exception as error:
            logger.warning("lease runs out by itself", exc_info=error)

    def _make(self, look: Look) -> None:
        if self._stop.is_set():
            return
        try:
            look.run()
        except Exception as error:
            look.hide()
            logger.warning("gauges are not known", exc_info=error, extra={"look": look.name})
