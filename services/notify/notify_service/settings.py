"""Settings of notify: RECUPERA_* variables, read once at start (servicekit.settings)."""

import dataclasses
from typing import Annotated, ClassVar

from servicekit import settings
from servicekit.settings import Setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.ServiceSettings):
    """Beside what every service needs."""

    service: ClassVar[str] = "notify"

    case_address: Annotated[str, Setting(help="host:port of the case service's gRPC")]
    agreement_address: Annotated[str, Setting(help="host:port of the agreement service's gRPC")]
    smtp_address: Annotated[str, Setting(help="host:port of the mail server that takes our mail")]
    smtp_sender: Annotated[
        str,
        Setting(help="address in From; its domain carries Message-ID, bounce and unsubscribe addresses"),
    ] = "no-reply@recupera.example"
    smtp_sender_name: Annotated[str, Setting(help="name in From")] = ""
    smtp_starttls: Annotated[
        bool, Setting(help="1 asks the mail server for TLS, and sends nothing without")
    ] = False
    smtp_username: Annotated[str | None, Setting(help="user at the mail server; unset: no login")] = None
    smtp_password: Annotated[str | None, Setting(help="password at the mail server")] = dataclasses.field(
        default=None, repr=False
    )
    public_url: Annotated[
        str | None,
        Setting(help="base of the unsubscribe link, https://..; unset: unsubscribing by mail only"),
    ] = None
    notify_slice: Annotated[
        int, Setting(help="messages claimed and asked about together", minimum=1, maximum=500)
    ] = 200
    notify_acts_in_flight: Annotated[
        int,
        Setting(
            help="messages committed as acting together: so many are UNKNOWN at most after a kill",
            minimum=1,
            maximum=100,
        ),
    ] = 10
    notify_attempts: Annotated[
        int, Setting(help="transient refusals after which a message is FAILED", minimum=1, maximum=20)
    ] = 5
    notify_validity_days: Annotated[
        int, Setting(help="days after its date on which a message may still leave", minimum=0, maximum=60)
    ] = 7
    notify_evidence_days: Annotated[
        int, Setting(help="days for which the rendered text of a message is kept", minimum=1)
    ] = 1_825
