"""Settings of the import service, from RECUPERA_* variables."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Annotated, ClassVar

from servicekit import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """What `serve` and `worker` need."""

    service: ClassVar[str] = "import"

    case_address: Annotated[str, settings.Setting(help="host:port of the case service's gRPC server")]
    agreement_address: Annotated[
        str, settings.Setting(help="host:port of the agreement service's gRPC server")
    ]
    max_file_bytes: Annotated[
        int, settings.Setting(help="largest file that an upload may bring", minimum=1, maximum=8 * 1024**3)
    ] = 2 * 1024**3
    max_error_percent: Annotated[
        Decimal,
        settings.Setting(
            help="a batch with a larger share of refused rows waits for approval",
            minimum=Decimal(0),
            maximum=100,
        ),
    ] = Decimal(5)
    file_retention_days: Annotated[
        int, settings.Setting(help="uploaded files are erased after this many days", minimum=1)
    ] = 90
    slice_retention_days: Annotated[
        int, settings.Setting(help="slices of good rows are erased after this many days", minimum=1)
    ] = 30
