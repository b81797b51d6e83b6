"""A process that runs the loop of campaigns as the worker does, to be killed. Its argument is a JSON of options.

`stop_at`: [place, count]: kill -9 of this process itself the count-th time it is at the place: "asking" (calls are
queued, permission not asked yet), "asked" (permission was given, not committed), "committed" (calls are DIALING, the
exchange not asked yet), "dialled" (the exchange has dialled, the outcome is not committed). Each call dialled is a
line of the file `acts`.
"""

import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from dialer_service import domain, providers, worker
from servicekit import auth, client, db


class Killer:
    """Ends the process when a place is reached often enough."""

    def __init__(self, stop_at: Sequence[object] | None) -> None:
        self._place, count = stop_at or ("", 0)
        self._left = int(str(count))

    def at(self, place: str) -> None:
        if place == self._place:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Exchange:
    """The simulated exchange, with a memory in a file: it knows only the keys that it was asked to dial."""

    def __init__(self, acts: Path, killer: Killer) -> None:
        self._acts = acts
        self._killer = killer
        self._simulated = providers.SimulatedExchange()

    def originate(self, key: str, number: str) -> domain.Outcome | None:
        self._killer.at("committed")
        assert number.startswith("+")
        with self._acts.open("a") as file:
            file.write(f"{os.getpid()} {key}\n")
        self._killer.at("dialled")
        return self._simulated.originate(key, number)

    def ask(self, key: str) -> domain.Outcome | None:
        known = self._acts.read_text() if self._acts.exists() else ""
        if f" {key}\n" not in known:
            raise providers.CallNotKnown("never dialled")
        return self._simulated.ask(key)


class Permission:
    """Asks the case service."""

    def __init__(self, asked: providers.Permission, killer: Killer) -> None:
        self._asked = asked
        self._killer = killer

    def reserve(self, agency: UUID, asks: Sequence[providers.Ask]) -> Sequence[domain.Answer]:
        self._killer.at("asking")
        answers = self._asked.reserve(agency, asks)
        self._killer.at("asked")
        return answers


def main() -> None:
    options = json.loads(sys.argv[1])
    killer = Killer(options.get("stop_at"))
    if lease := options.get("lease_seconds"):
        worker.LEASE = datetime.timedelta(seconds=lease)
        worker.RENEW = lease / 5
    channel = client.Channel(options["case_address"], auth.Signer("dialer", Path(options["key_file"])))
    wiring = worker.Wiring(
        exchange=Exchange(Path(options["acts"]), killer),
        permission=Permission(providers.CasePermission(channel, timeout=5), killer),
        handling=datetime.timedelta(minutes=15),
        allow_simulated_clock=True,
    )
    engine = db.create_engine(options["database_url"], application_name="dialling child")
    print("ready", flush=True)
    while True:
        worker.run_campaigns(engine, wiring)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
