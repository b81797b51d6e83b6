"""docs/features.md and the tests' markers say the same: what "works" is proven, what is proven is not "not yet"."""

import ast
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[2]
ROW = re.compile(r"^\| (S[1-5]-\d\d) \| (.+) \| ([a-z]+) \| (works|partly|not yet) \|$")


def table() -> dict[str, str]:
    rows = {}
    for line in (ROOT / "docs/features.md").read_text().splitlines():
        if line.startswith("| S"):
            match = ROW.match(line)
            assert match, f"not a row of the table: {line}"
            assert match[1] not in rows, f"{match[1]} stands twice"
            rows[match[1]] = match[4]
    return rows


def markers() -> Iterator[tuple[str, str]]:
    """(feature id, test file) of every `@pytest.mark.feature("..")` and `pytestmark = pytest.mark.feature("..")`."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "feature"
                and isinstance(node.func.value, ast.Attribute)
                and node.func.value.attr == "mark"
            ):
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), (
                        f"{path}: a feature marker takes the id as text"
                    )
                    yield str(argument.value), str(path.relative_to(ROOT))


def test_every_feature_that_works_has_a_test_that_names_it() -> None:
    proven = {feature for feature, _ in markers()}
    unproven = {feature for feature, state in table().items() if state == "works"} - proven
    assert not unproven, (
        f"docs/features.md says these work, and no test is marked with them: {sorted(unproven)}"
    )


def test_every_marker_names_a_feature_that_the_table_does_not_deny() -> None:
    states = table()
    for feature, path in markers():
        assert feature in states, f"{path} is marked with {feature}, which docs/features.md does not know"
        assert states[feature] != "not yet", (
            f"{path} proves {feature}, which docs/features.md calls 'not yet'"
        )


def test_the_table_is_whole() -> None:
    counts = {"S1": 34, "S2": 48, "S3": 32, "S4": 20, "S5": 30}
    found = table()
    for source, count in counts.items():
        assert {f"{source}-{n:02d}" for n in range(1, count + 1)} == {
            f for f in found if f.startswith(source)
        }
