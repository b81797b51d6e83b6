"""The table of the chart's values in its README, from values.yaml and the comments above its keys:
`python -m recupera_local.values_table` writes it, a test says when it is old."""

import re
import sys
from collections.abc import Iterator

from recupera_local import paths

CHART = paths.REPO / "deploy" / "helm" / "recupera"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"
_KEY = re.compile(r"( *)([A-Za-z]\w*): ?(.*)")
_OTHERS = ("agreement", "dialer", "notify", "import")


def rows() -> Iterator[tuple[str, str, str]]:
    """(key, default, meaning) of each value that stands on a line of values.yaml. The five services have the same
    keys: `case` stands for all."""
    path: list[str] = []
    comment: list[str] = []
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip(" #"))
            continue
        found = _KEY.fullmatch(line)
        if found is None:
            comment = []
            continue
        path = [*path[: len(found[1]) // 2], found[2]]
        default = re.sub(r"^&\w+ ?", "", found[3])
        meaning, comment = " ".join(comment), []
        if path[0] == "services" and len(path) > 1:
            if path[1] in _OTHERS:
                continue
            path = ["services", "case", *path[2:]]
        if default or meaning:
            key = ".".join(path).replace("services.case", "services.SERVICE")
            yield key, default, meaning


def table() -> str:
    """The table in Markdown."""
    lines = ["| value | default | what it says |\n", "|---|---|---|\n"]
    for key, default, meaning in rows():
        shown = f"`{default}`" if default else ""
        lines.append(
            "| `{}` | {} | {} |\n".format(key, shown.replace("|", "\\|"), meaning.replace("|", "\\|"))
        )
    return "".join(lines)


def readme(text: str) -> str:
    """The README with the table of today. Raises ValueError where it has no place for it."""
    head, _, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not end:
        raise ValueError(f"the chart's README has no {BEGIN.strip()} .. {END.strip()}")
    return head + BEGIN + table() + END + tail


if __name__ == "__main__":
    place = CHART / "README.md"
    place.write_text(readme(place.read_text()))
    sys.stdout.write(f"{place.relative_to(paths.REPO)}: the table of values is as values.yaml says\n")
