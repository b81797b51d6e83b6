"""Settings of the case service, from RECUPERA_* variables."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from servicekit import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """What ``serve`` and ``worker`` need."""

    service: ClassVar[str] = "case"

    import_address: Annotated[
        str, settings.Setting(help="host:port of the import service's gRPC server, where slices of files are")
    ]
    late_slice_minutes: Annotated[
        int, settings.Setting(help="a slice of the daily run later than this raises an alarm", minimum=1)
    ] = 10
    day_opens_hour: Annotated[
        int,
        settings.Setting(
            help="hour of an agency's own day from which the worker opens its business day",
            minimum=0,
            maximum=23,
        ),
    ] = 0
