"""Settings of the dialer, from RECUPERA_* variables."""

import dataclasses
from typing import Annotated, ClassVar

from servicekit import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """What `serve` and `worker` of the dialer need."""

    service: ClassVar[str] = "dialer"

    case_address: Annotated[str, settings.Setting(help="address of the case service: host:port")]
    exchange: Annotated[
        str,
        settings.Setting(
            help="telephony driver; `simulated` draws outcomes from the campaign's seed",
            choices=("simulated",),
        ),
    ] = "simulated"
    promise_max_days: Annotated[
        int,
        settings.Setting(
            help="latest date of a promise to pay, in days after the business date", minimum=0, maximum=366
        ),
    ] = 30
    handling_seconds: Annotated[
        int,
        settings.Setting(
            help="agency-clock seconds until a connected call without disposition shows in WRAP_UP",
            minimum=1,
        ),
    ] = 900
    permission_timeout: Annotated[
        float,
        settings.Setting(help="seconds to wait for the case service's permission", minimum=0.1, maximum=60),
    ] = 5.0
