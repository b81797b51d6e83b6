"""The development agencies of agencies.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import yaml


@dataclass(frozen=True)
class Agency:
    """A development agency. `currency` is ISO 4217, `time_zone` an IANA name."""

    key: str
    id: UUID
    name: str
    currency: str
    time_zone: str


def all_agencies() -> Mapping[str, Agency]:
    """Every development agency by its key."""
    table = yaml.safe_load(Path(__file__).with_name("agencies.yaml").read_text())
    return {
        key: Agency(key, UUID(row["id"]), row["name"], row["currency"], row["time_zone"])
        for key, row in table.items()
    }


def demo() -> Agency:
    """The agency of the demo (BRL, America/Sao_Paulo)."""
    return all_agencies()["demo"]
