"""promtool and Prometheus: the machine's, or out of Debian's package into `.local/lib/prometheus`.

For the tests of the alert rules, by themselves and against real pods.
No other registry that `make setup` uses has it, and compiling it takes minutes. apt checks the package's signature;
nothing is installed, and where the machine has no package lists they are fetched into a folder of our own.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from recupera_local import paths, processes

FOLDER = paths.REPO / ".local" / "lib" / "prometheus"
PROGRAMS = ("promtool", "prometheus")


class PromtoolMissing(processes.PlatformFailed):
    """There is no promtool (or Prometheus), and it cannot be fetched here. The text says what to do."""


def binary(name: str = "promtool") -> Path:
    """The program, of PROGRAMS. Raises PromtoolMissing."""
    if (fetched := FOLDER / name).exists():
        return fetched
    if found := shutil.which(name):
        return Path(found)
    raise PromtoolMissing(f"there is no {name}: run `make setup`")


def fetch() -> None:
    """Take the programs out of the package `prometheus`, once, unless the machine has them already."""
    wanted = [name for name in PROGRAMS if not shutil.which(name) and not (FOLDER / name).exists()]
    if not wanted:
        return
    if not shutil.which("apt-get"):
        raise PromtoolMissing(
            "no 'promtool' and 'prometheus' found, they test the alert rules: put those of 2.42 or newer on PATH"
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        package = _download(Path(scratch))
        archive = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=True
        )
        paths_in_it = [f"./usr/bin/{name}" for name in wanted]
        subprocess.run(["tar", "-xf", "-", "-C", scratch, *paths_in_it], input=archive.stdout, check=True)
        for name in wanted:
            (Path(scratch) / "usr/bin" / name).rename(FOLDER / name)


def _download(folder: Path) -> Path:
    """The package, by the machine's lists, or by lists that are fetched for this."""
    own = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (own / name).mkdir(parents=True)
    elsewhere = ["-o", f"Dir::State::lists={own}/lists", "-o", f"Dir::Cache={own}/cache"]
    answer = _apt(folder, "download", "prometheus")
    if answer.returncode != 0:
        _apt(folder, *elsewhere, "update")
        answer = _apt(folder, *elsewhere, "download", "prometheus")
    found = next(folder.glob("prometheus_*.deb"), None)
    if found is None:
        raise PromtoolMissing(
            f"apt-get cannot download the package prometheus, which has promtool: {answer.stderr.strip()}"
        )
    return found


def _apt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # as root apt would become the user _apt, who cannot write here
    command: Sequence[str] = ["apt-get", "-qq", "-o", "APT::Sandbox::User=", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )


if __name__ == "__main__":
    fetch()
