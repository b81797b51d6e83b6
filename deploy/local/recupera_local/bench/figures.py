"""What a benchmark says: one figure beside its baseline, judged against its goal; the table and the JSON of all."""

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One line. `ours` and `baseline` in `unit`; `ratio` is ours / baseline. A figure without a baseline (an exponent,
    megabytes, seconds) has its limit as baseline. `at_most`: the ratio must not be above `goal`; else not below.
    `goal` None: told for comparison, nothing to hold.
    """

    name: str
    unit: str
    ours: float
    baseline: float
    goal: float | None
    at_most: bool = True

    @property
    def ratio(self) -> float:
        """ours / baseline."""
        return self.ours / self.baseline

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def as_json(self) -> dict[str, object]:
        """The entry in .local/bench.json."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": round(self.ours, 4),
            "baseline": round(self.baseline, 4),
            "ratio": round(self.ratio, 4),
            "goal": self.goal,
            "at_most": self.at_most,
            "holds": self.holds,
        }


def limit(name: str, unit: str, ours: float, *, at_most: float) -> Figure:
    """A figure that has a limit and no baseline: the limit is its baseline, the goal a ratio of 1."""
    return Figure(name=name, unit=unit, ours=ours, baseline=at_most, goal=1.0)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of log(seconds) over log(size), least squares: 1 is linear growth. Needs two sizes."""
    sizes = [math.log(size) for size, _ in points]
    seconds = [math.log(taken) for _, taken in points]
    return statistics.linear_regression(sizes, seconds).slope


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(found: Sequence[Figure]) -> str:
    """The figures as text, a line each."""
    rows = [("", "ours", "baseline", "unit", "ratio", "goal", "holds")]
    for figure in found:
        sign = "<=" if figure.at_most else ">="
        rows.append(
            (
                figure.name,
                _number(figure.ours),
                _number(figure.baseline),
                figure.unit,
                f"{figure.ratio:.2f}",
                "" if figure.goal is None else f"{sign} {figure.goal:g}",
                {True: "yes", False: "NO", None: ""}[figure.holds],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, 3, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"


def store(file: Path, found: Sequence[Figure]) -> None:
    """Write .local/bench.json: these figures; figures of an earlier run that were not measured again stay."""
    entries = {figure.name: figure.as_json() for figure in found}
    if file.exists():
        for entry in json.loads(file.read_text()):
            entries.setdefault(entry["name"], entry)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(list(entries.values()), indent=2) + "\n")
