"""A process that cannot start says which variable is wrong, and what to do."""

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from servicekit import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """Every kind of setting."""

    service: ClassVar[str] = "case"

    url: Annotated[str, settings.Setting(variable="URL_{SERVICE}", help="where it is")]
    retries: Annotated[int, settings.Setting(minimum=0, maximum=9)] = 3
    ratio: float = 0.5
    fee: Annotated[Decimal, settings.Setting(minimum=Decimal("0.01"))] = Decimal("1.10")
    strict: bool = False
    folder: Path = Path("somewhere")
    port: int | None
    level: Annotated[str, settings.Setting(choices=("LOW", "HIGH"))] = "LOW"
    keys: Annotated[Path | None, settings.Setting(file=True, help="write it first")] = None


def test_defaults_and_values() -> None:
    assert settings.load(Example, {"RECUPERA_URL_CASE": "x", "RECUPERA_RATIO": " "}) == Example(
        url="x", port=None
    )
    loaded = settings.load(
        Example,
        {
            "RECUPERA_URL_CASE": "x",
            "RECUPERA_RETRIES": "9",
            "RECUPERA_RATIO": "0.25",
            "RECUPERA_FEE": "2.345",
            "RECUPERA_STRICT": "Yes",
            "RECUPERA_FOLDER": "/tmp/a",
            "RECUPERA_PORT": "7000",
            "RECUPERA_LEVEL": "HIGH",
            "RECUPERA_KEYS": __file__,
        },
    )
    assert loaded == Example(
        url="x",
        retries=9,
        ratio=0.25,
        fee=Decimal("2.345"),
        strict=True,
        folder=Path("/tmp/a"),
        port=7000,
        level="HIGH",
        keys=Path(__file__),
    )


def test_all_missing_variables_are_named_with_what_they_are_for() -> None:
    with pytest.raises(settings.SettingMissing) as caught:
        settings.load(settings.ServiceSettings, {"RECUPERA_KAFKA": "  "}, service="agreement")
    assert caught.value.variables == (
        "RECUPERA_DATABASE_URL_AGREEMENT",
        "RECUPERA_KAFKA",
        "RECUPERA_RPC_PORT",
        "RECUPERA_JWKS_FILE",
        "RECUPERA_SERVICE_KEY_FILE",
    )
    assert "RECUPERA_KAFKA: bootstrap servers of Kafka" in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("RECUPERA_RETRIES", "many", "'many' is not a whole number"),
        ("RECUPERA_RETRIES", "-1", "'-1' is less than 0"),
        ("RECUPERA_RETRIES", "10", "'10' is more than 9"),
        ("RECUPERA_RATIO", "nan", "'nan' is not a number"),
        ("RECUPERA_FEE", "1,10", "'1,10' is not a decimal number"),
        ("RECUPERA_FEE", "0", "'0' is less than 0.01"),
        ("RECUPERA_STRICT", "maybe", "'maybe' is not 1 or 0"),
        ("RECUPERA_LEVEL", "MID", "'MID' is not one of LOW, HIGH"),
        ("RECUPERA_KEYS", "/no/such/file", "does not exist or cannot be read (write it first)"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, value: str, problem: str) -> None:
    with pytest.raises(settings.SettingInvalid) as caught:
        settings.load(Example, {"RECUPERA_URL_CASE": "x", variable: value})
    assert caught.value.variables == (variable,)
    assert str(caught.value).startswith(f"{variable}: ")
    assert problem in str(caught.value)


def test_secrets_are_not_shown() -> None:
    loaded = settings.load(
        settings.MigrationSettings,
        {"RECUPERA_OWNER_DATABASE_URL_CASE": "postgresql://u:secret@h/d"},
        service="case",
    )
    assert loaded.owner_database_url == "postgresql://u:secret@h/d"
    assert "secret" not in repr(loaded)


def brokers(**variables: str) -> settings.Brokers:
    """Kafka's settings, from variables without their common beginning."""
    told = {f"RECUPERA_KAFKA_{name}": value for name, value in variables.items()}
    return settings.load(settings.Brokers, {"RECUPERA_KAFKA": "one:9092,two:9092", **told})


def test_kafka_is_talked_to_in_plaintext_unless_something_is_said() -> None:
    found = brokers()
    assert found == settings.Brokers(bootstrap="one:9092,two:9092", security="PLAINTEXT")
    assert not found.encrypted
    assert not found.authenticates


def test_kafkas_password_is_in_a_variable_or_in_a_file_that_may_change(tmp_path: Path) -> None:
    found = brokers(SECURITY="SASL_SSL", USER="case", PASSWORD="secret")
    assert (found.secret(), found.mechanism) == ("secret", "SCRAM-SHA-512")
    assert "secret" not in repr(found)
    file = tmp_path / "password"
    file.write_text("first\n")
    found = brokers(SECURITY="SASL_SSL", USER="case", PASSWORD_FILE=str(file))
    assert found.secret() == "first"
    file.write_text("second")
    assert found.secret() == "second"


@pytest.mark.parametrize(
    ("variables", "variable", "problem"),
    [
        ({"SECURITY": "TLS"}, "SECURITY", "is not one of PLAINTEXT, SSL"),
        ({"CA_FILE": __file__}, "CA_FILE", "PLAINTEXT does not use it (set RECUPERA_KAFKA_SECURITY"),
        ({"SECURITY": "SASL_PLAINTEXT", "CA_FILE": __file__}, "CA_FILE", "does not use it"),
        ({"PASSWORD": "secret"}, "PASSWORD", "PLAINTEXT does not use it"),
        ({"SECURITY": "SSL", "USER": "case"}, "USER", "SSL does not use it"),
        ({"SECURITY": "SSL", "CERTIFICATE_FILE": __file__}, "KEY_FILE", "together"),
        ({"SECURITY": "SSL", "CA_FILE": "/no/such/file"}, "CA_FILE", "does not exist"),
        ({"SECURITY": "SASL_SSL", "PASSWORD": "secret"}, "USER", "SASL_SSL needs it"),
        ({"SECURITY": "SASL_SSL", "USER": "case"}, "PASSWORD", "needs one of"),
        (
            {"SECURITY": "SASL_SSL", "USER": "case", "PASSWORD": "secret", "PASSWORD_FILE": __file__},
            "PASSWORD_FILE",
            "needs one of",
        ),
        (
            {"SECURITY": "SASL_SSL", "USER": "case", "PASSWORD": "secret", "MECHANISM": "MD5"},
            "MECHANISM",
            "MD5",
        ),
    ],
)
def test_what_does_not_fit_is_refused(variables: dict[str, str], variable: str, problem: str) -> None:
    with pytest.raises(settings.SettingsError) as refused:
        brokers(**variables)
    assert f"RECUPERA_KAFKA_{variable}" in refused.value.variables
    assert problem in str(refused.value)
    assert "secret" not in str(refused.value)
