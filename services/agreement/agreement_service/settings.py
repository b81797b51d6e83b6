"""Settings of the agreement service, from RECUPERA_* variables."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from servicekit import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """What `serve` and `worker` need."""

    service: ClassVar[str] = "agreement"

    case_address: Annotated[str, settings.Setting(help="host:port of the case service's gRPC server")]
    import_address: Annotated[str, settings.Setting(help="host:port of the import service's gRPC server")]
    bank_provider: Annotated[
        str, settings.Setting(help="bank that registers instruments", choices=("offline", "pix-api"))
    ] = "offline"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixSettings:
    """What the bank `pix-api` needs besides; read only where it is chosen."""

    pix_url: Annotated[
        str, settings.Setting(help="address of the Pix API, e.g. https://pix.example.com/api/v2")
    ]
    pix_token_url: Annotated[str, settings.Setting(help="address that gives OAuth2 tokens")]
    pix_client_id: Annotated[str, settings.Setting(help="our client at the bank")]
    pix_client_secret_file: Annotated[Path, settings.Setting(file=True, help="file with the client's secret")]
    pix_certificate_file: Annotated[
        Path, settings.Setting(file=True, help="our client certificate (PEM), as the bank knows it")
    ]
    pix_private_key_file: Annotated[
        Path, settings.Setting(file=True, help="private key (PEM) of the certificate")
    ]
    pix_ca_file: Annotated[
        Path, settings.Setting(file=True, help="authorities (PEM) that the bank's certificate is of")
    ]
    pix_key: Annotated[str, settings.Setting(help="Pix key that receives")]
    pix_name: Annotated[str, settings.Setting(help="holder of the key as the BR Code says it")]
    pix_city: Annotated[str, settings.Setting(help="city of the holder")]
