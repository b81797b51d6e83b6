"""What the bench makes of what it measured."""

import json
from pathlib import Path

import pytest

from recupera_local.bench import figures


def figure(ours: float, baseline: float, goal: float | None, *, at_most: bool = True) -> figures.Figure:
    return figures.Figure(name="import", unit="s", ours=ours, baseline=baseline, goal=goal, at_most=at_most)


def test_a_time_holds_up_to_its_goal_and_a_rate_from_its_goal_on() -> None:
    assert figure(20, 10, 2).holds is True
    assert figure(20.1, 10, 2).holds is False
    assert figure(400, 1000, 0.4, at_most=False).holds is True
    assert figure(399, 1000, 0.4, at_most=False).holds is False
    assert figure(20, 1, None).holds is None


def test_a_limit_is_a_ratio_of_one() -> None:
    assert figures.limit("memory", "MB", 400, at_most=400).holds is True
    assert figures.limit("memory", "MB", 401, at_most=400).holds is False


@pytest.mark.parametrize("power", [0.5, 1.0, 1.1, 2.0])
def test_the_exponent_is_the_power_of_the_size(power: float) -> None:
    points = [(size, 3e-4 * size**power) for size in (20_000, 200_000, 1_000_000)]
    assert figures.exponent(points) == pytest.approx(power)


def test_percentiles() -> None:
    values = list(range(1, 101))
    assert figures.percentile(values, 0.99) == 99
    assert figures.percentile(values, 0.5) == 50
    assert figures.percentile([7.0], 0.99) == 7.0


def test_the_table_says_which_goal_is_missed() -> None:
    text = figures.table([figure(20, 10, 2), figure(30, 10, 2), figure(5, 1, None)])
    lines = text.splitlines()
    assert lines[2].endswith("yes")
    assert lines[3].endswith("NO")
    assert "<= 2" in lines[2]
    assert "<=" not in lines[4]


def test_a_part_that_was_not_measured_again_stays_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "local" / "bench.json"
    calls = figures.Figure(name="calls", unit="calls/s", ours=500, baseline=1000, goal=0.4, at_most=False)
    figures.store(file, [figure(20, 10, 2), calls])
    figures.store(file, [figure(15, 10, 2)])
    entries = {entry["name"]: entry for entry in json.loads(file.read_text())}
    assert entries["import"]["ratio"] == 1.5
    assert entries["calls"]["ratio"] == 0.5
    assert {"name", "ours", "baseline", "ratio", "goal", "holds"} <= entries["calls"].keys()
