"""Where things are in a clone: the repository, the state folder, and what `make setup` fetched."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
"""The clone this module is imported from (the distribution is installed in editable form only)."""

PROTOS = REPO / "protos"
RELEASED = PROTOS / "released.binpb"
GENERATED = PROTOS / "gen"
DESCRIPTOR = GENERATED / "recupera" / "descriptor.pb"
TOPICS_FILE = REPO / "deploy" / "topics.yaml"
KAFKA_LIBS = REPO / ".local" / "lib" / "kafka"
"""The broker's jars, written by `make setup`."""


def local() -> Path:
    """Where state is kept between runs, git-ignored: `.local`, or RECUPERA_LOCAL_DIR (another disk, say)."""
    configured = os.environ.get("RECUPERA_LOCAL_DIR")
    return Path(configured).resolve() if configured else REPO / ".local"
