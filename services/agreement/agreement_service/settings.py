"""Settings of the agreement service, from RECUPERA_* variables."""

import dataclasses
from typing import Annotated, ClassVar

from servicekit import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """What `serve` and `worker` need."""

    service: ClassVar[str] = "agreement"

    case_address: Annotated[str, settings.Setting(help="host:port of the case service's gRPC server")]
    import_address: Annotated[str, settings.Setting(help="host:port of the import service's gRPC server")]
    bank_provider: Annotated[
        str, settings.Setting(help="bank that registers instruments", choices=("offline",))
    ] = "offline"
