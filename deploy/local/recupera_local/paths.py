"""Where things are in a clone: the repository, the state folder, and what `make setup` fetched."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
"""The clone this module is imported from (the distribution is installed in editable form only)."""

PROTOS = REPO / "protos"
GENERATED = PROTOS / "gen"
DESCRIPTOR = GENERATED / "descriptor.pb"
TOPICS_FILE = REPO / "deploy" / "topics.yaml"
GATEWAY = REPO / "deploy" / "gateway"
KAFKA_POM = REPO / "deploy" / "local" / "kafka" / "pom.xml"


def local() -> Path:
    """The working files' place, git-ignored: `.local`, or RECUPERA_LOCAL_DIR."""
    configured = os.environ.get("RECUPERA_LOCAL_DIR")
    return Path(configured).resolve() if configured else REPO / ".local"


def kafka_libs() -> Path:
    """The broker's jars, written by `make setup`."""
    return local() / "kafka" / "libs"
