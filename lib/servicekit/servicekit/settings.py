"""Settings: frozen dataclasses read once at start from RECUPERA_* variables.

A field `smtp_host: str` is read from RECUPERA_SMTP_HOST. `Annotated[..., Setting(...)]` adds what to do when
it is missing, another variable name, or limits. A variable that is set but empty counts as not set.
"""

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

PREFIX = "RECUPERA_"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})

T = TypeVar("T")


class SettingsError(Exception):
    """The process cannot start with the settings it was given; `variables` names the ones to look at."""

    def __init__(self, message: str, *variables: str) -> None:
        super().__init__(message)
        self.variables = variables


class SettingMissing(SettingsError):
    """One or more required variables are not set; all of them are named at once."""


class SettingInvalid(SettingsError):
    """A variable is set to something that cannot be used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """How a field is read. `variable` is without prefix; `{SERVICE}` in it becomes the service's name.

    `file` asks that the path is a readable file when the process starts.
    """

    help: str = ""
    variable: str | None = None
    minimum: int | float | Decimal | None = None
    maximum: int | float | Decimal | None = None
    choices: tuple[str, ...] = ()
    file: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brokers:
    """Where Kafka is, and how to talk to it: passed whole to whatever talks to it.

    Files are read again at each new connection (``kafka``): certificates and a password that are changed on disk are
    used from then on. Raises SettingInvalid or SettingMissing where the parts do not fit: what was to be encrypted
    is never sent in the clear.
    """

    bootstrap: Annotated[
        str,
        Setting(variable="KAFKA", help="bootstrap servers of Kafka: host:port, several separated by a comma"),
    ]
    security: Annotated[
        str,
        Setting(
            variable="KAFKA_SECURITY",
            help="how the brokers' port is talked to",
            choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        ),
    ] = "PLAINTEXT"
    ca_file: Annotated[
        Path | None,
        Setting(
            variable="KAFKA_CA_FILE",
            file=True,
            help="PEM of who signed the brokers' certificates; unset means whom the system trusts",
        ),
    ] = None
    certificate_file: Annotated[
        Path | None,
        Setting(
            variable="KAFKA_CERTIFICATE_FILE", file=True, help="PEM of our own certificate, with its chain"
        ),
    ] = None
    key_file: Annotated[
        Path | None,
        Setting(variable="KAFKA_KEY_FILE", file=True, help="PEM of the private key of our own certificate"),
    ] = None
    mechanism: Annotated[
        str,
        Setting(
            variable="KAFKA_MECHANISM",
            help="how SASL shows the password",
            choices=("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"),
        ),
    ] = "SCRAM-SHA-512"
    user: Annotated[str | None, Setting(variable="KAFKA_USER", help="who we are for SASL")] = None
    password: Annotated[str | None, Setting(variable="KAFKA_PASSWORD", help="the SASL user's password")] = (
        dataclasses.field(default=None, repr=False)
    )
    password_file: Annotated[
        Path | None,
        Setting(variable="KAFKA_PASSWORD_FILE", file=True, help="file with the SASL user's password"),
    ] = None

    def __post_init__(self) -> None:
        files = {
            "CA_FILE": self.ca_file,
            "CERTIFICATE_FILE": self.certificate_file,
            "KEY_FILE": self.key_file,
        }
        passwords: dict[str, object] = {"PASSWORD": self.password, "PASSWORD_FILE": self.password_file}
        if not self.encrypted:
            self._refuse(files, "SSL or SASL_SSL")
        if not self.authenticates:
            self._refuse({"USER": self.user} | passwords, "SASL_SSL or SASL_PLAINTEXT")
        elif self.user is None:
            raise SettingMissing(
                f"RECUPERA_KAFKA_USER is not set: {self.security} needs it", "RECUPERA_KAFKA_USER"
            )
        elif sum(value is not None for value in passwords.values()) != 1:
            names = [f"{PREFIX}KAFKA_{name}" for name in passwords]
            raise SettingMissing(f"{self.security} needs one of {' and '.join(names)}", *names)
        if (self.certificate_file is None) != (self.key_file is None):
            names = [f"{PREFIX}KAFKA_{name}" for name in ("CERTIFICATE_FILE", "KEY_FILE")]
            raise SettingMissing(f"expected {' and '.join(names)} together", *names)

    def _refuse(self, given: Mapping[str, object], fitting: str) -> None:
        for name, value in given.items():
            if value is not None:
                raise SettingInvalid(
                    f"{PREFIX}KAFKA_{name}: {self.security} does not use it "
                    f"(set {PREFIX}KAFKA_SECURITY to {fitting}, or unset it)",
                    f"{PREFIX}KAFKA_{name}",
                    f"{PREFIX}KAFKA_SECURITY",
                )

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken, and the brokers' names are checked."""
        return self.security in ("SSL", "SASL_SSL")

    @property
    def authenticates(self) -> bool:
        """Whether a user and a password are shown."""
        return self.security in ("SASL_PLAINTEXT", "SASL_SSL")

    def secret(self) -> str:
        """The password as it is now."""
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")
        return self.password or ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What every service's `serve` and `worker` need; each service adds its own fields in a subclass."""

    service: ClassVar[str] = ""

    database_url: Annotated[
        str,
        Setting(
            variable="DATABASE_URL_{SERVICE}",
            help="address of the service's own database for its service role: postgresql://user:password@host:port/name",
        ),
    ] = dataclasses.field(repr=False)
    kafka: Brokers
    rpc_port: Annotated[
        int, Setting(help="port of the gRPC server; 0 takes any free port", minimum=0, maximum=65535)
    ]
    jwks_file: Annotated[
        Path,
        Setting(
            file=True,
            help="JWKS file with the public keys that may sign tokens; `make run` writes one under .local/",
        ),
    ]
    service_key_file: Annotated[
        Path,
        Setting(
            file=True,
            help="private key (JWK) with which the service signs its calls to others; `make run` writes one",
        ),
    ]
    listen_host: Annotated[str, Setting(help="address on which the gRPC and metrics ports listen")] = (
        "127.0.0.1"
    )
    metrics_port: Annotated[
        int | None,
        Setting(
            help="port on which Prometheus reads /metrics, and probes /live and /ready; unset means none",
            minimum=0,
            maximum=65535,
        ),
    ] = None
    otlp_endpoint: Annotated[
        str | None,
        Setting(
            help="OTLP/gRPC collector for traces and metrics, e.g. http://127.0.0.1:4317; unset means none"
        ),
    ] = None
    trace_ratio: Annotated[
        float,
        Setting(help="share of calls traced when the caller did not decide, 0 to 1", minimum=0, maximum=1),
    ] = 1.0
    ready_file: Annotated[
        Path | None,
        Setting(
            help="file that the worker makes when it is ready and removes when it drains; what /ready says"
        ),
    ] = None
    drain_delay: Annotated[
        float,
        Setting(
            help="seconds between NOT_SERVING and refusing new calls, so that load balancers see it",
            minimum=0,
            maximum=60,
        ),
    ] = 1.0
    allow_simulated_clock: Annotated[bool, Setting(help="1 lets agencies have a simulated clock")] = False
    log_level: Annotated[
        str, Setting(help="least level written", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    ] = "INFO"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MigrationSettings:
    """What `migrate` needs: read with `load(MigrationSettings, service="case")`."""

    owner_database_url: Annotated[
        str,
        Setting(
            variable="OWNER_DATABASE_URL_{SERVICE}",
            help="address of the service's database for the role that owns the tables",
        ),
    ] = dataclasses.field(repr=False)
    log_level: Annotated[
        str, Setting(help="least level written", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    ] = "INFO"


def load(cls: type[T], environ: Mapping[str, str] = os.environ, *, service: str | None = None) -> T:
    """Read the dataclass `cls` from `environ`.

    `service` fills `{SERVICE}` in variable names; default is the class attribute `service`.
    Field types: str, int, float, bool, Decimal, Path and each of them `| None`; a dataclass of such fields, read alike.
    Raises SettingMissing naming every required variable that is not set, SettingInvalid naming a bad one.
    """
    name_of_service = (service if service is not None else str(getattr(cls, "service", ""))).upper()
    missing: list[tuple[str, str]] = []
    values = _values(cls, environ, name_of_service, missing)
    if missing:
        lines = [f"  {variable}" + (f": {text}" if text else "") for variable, text in missing]
        raise SettingMissing(
            "These environment variables are not set:\n" + "\n".join(lines),
            *(variable for variable, _ in missing),
        )
    return cls(**values)


def _values(
    cls: Any, environ: Mapping[str, str], service: str, missing: list[tuple[str, str]]
) -> dict[str, Any]:
    """The fields that are set; those that should be and are not are added to ``missing``."""
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        kind, setting = _describe(hints[field.name])
        if dataclasses.is_dataclass(kind):
            before = len(missing)
            inner = _values(kind, environ, service, missing)
            if len(missing) == before:
                values[field.name] = kind(**inner)  # type: ignore[operator] # a dataclass, as asked above
            continue
        variable = PREFIX + (setting.variable or field.name.upper()).format(SERVICE=service)
        text = environ.get(variable, "").strip()
        if text:
            values[field.name] = _read(variable, text, kind, setting)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if _optional(kind):
                values[field.name] = None
            else:
                missing.append((variable, setting.help))
    return values


def _describe(hint: Any) -> tuple[Any, Setting]:
    if typing.get_origin(hint) is Annotated:
        kind, *extras = typing.get_args(hint)
        return kind, next((extra for extra in extras if isinstance(extra, Setting)), Setting())
    return hint, Setting()


def _optional(kind: Any) -> bool:
    return typing.get_origin(kind) in (types.UnionType, typing.Union) and type(None) in typing.get_args(kind)


def _read(variable: str, text: str, kind: Any, setting: Setting) -> Any:
    if _optional(kind):
        kind = next(arg for arg in typing.get_args(kind) if arg is not type(None))
    try:
        value = _convert(text, kind)
    except (ValueError, InvalidOperation):
        raise _invalid(variable, text, f"is not {_expected(kind)}", setting) from None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if setting.minimum is not None and value < setting.minimum:
            raise _invalid(variable, text, f"is less than {setting.minimum}", setting)
        if setting.maximum is not None and value > setting.maximum:
            raise _invalid(variable, text, f"is more than {setting.maximum}", setting)
    if setting.choices and value not in setting.choices:
        raise _invalid(variable, text, f"is not one of {', '.join(setting.choices)}", setting)
    if setting.file and not os.access(value, os.R_OK):
        raise _invalid(variable, text, "names a file that does not exist or cannot be read", setting)
    return value


def _convert(text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() in TRUE:
            return True
        if text.lower() in FALSE:
            return False
        raise ValueError(text)
    if kind in (str, int, float, Decimal, Path):
        value = kind(text)
        if isinstance(value, float | Decimal) and not Decimal(value).is_finite():
            raise ValueError(text)
        return value
    raise TypeError(f"settings of type {kind!r} are not supported")


def _expected(kind: Any) -> str:
    return {bool: "1 or 0", int: "a whole number", float: "a number", Decimal: "a decimal number"}.get(
        kind, "usable"
    )


def _invalid(variable: str, text: str, problem: str, setting: Setting) -> SettingInvalid:
    shown = "its value" if "URL" in variable or "KEY" in variable or "PASSWORD" in variable else repr(text)
    hint = f" ({setting.help})" if setting.help else ""
    return SettingInvalid(f"{variable}: {shown} {problem}{hint}", variable)
