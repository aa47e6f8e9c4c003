"""Ratios, floors, and that only the same work is compared."""

import statistics

import pytest
import torch

from memnet.bench import measuring
from memnet.bench.floors import Part
from memnet.bench.measuring import DifferentResultsError, Row, Way, check_agreement, compare


def way(name, values, apart=False):
    return Way(name, lambda: None, lambda: {key: torch.tensor(value) for key, value in values.items()}, apart)


def test_median_and_quartiles():
    row = Row("a", (4.0, 1.0, 100.0, 3.0, 2.0))
    assert (row.median, row.quartiles) == (3.0, (2.0, 4.0))
    assert Row("a", (5.0,)).quartiles == (5.0, 5.0)


def measured(monkeypatch, times):
    """What comes out where the clock says ``times``, for the ways and then for each part with and without its work."""
    monkeypatch.setattr(measuring, "take_turns", lambda runs, seconds, clock: times[: len(runs)])
    ways = [Way("first", lambda: None), Way("second", lambda: None), Way("beside", lambda: None, apart=True)]
    floor = [Part(f"part {number}", lambda: None, lambda: None, scale) for number, scale in enumerate((1.0, 2.0))]
    return {row.way: row for row in compare("work", ways, 1.0, floor=floor[: (len(times) - 3) // 2]).rows}


def test_ratios_are_those_of_the_medians(monkeypatch):
    rows = measured(monkeypatch, [[8.0, 9.0, 7.0], [2.0, 20.0, 1.0], [5.0] * 3])
    assert [row.times_less for row in rows.values()] == [1.0, 4.0, None]
    assert all(row.times_floor is None for row in rows.values())
    assert rows["second"].samples == (2.0, 20.0, 1.0)


def test_a_floor_is_the_sum_of_its_parts_without_the_cost_of_calling(monkeypatch):
    parts = [[1.5, 2.0, 1.5], [0.5, 0.5, 9.0], [1.25, 1.25, 0.5], [1.0] * 3]
    rows = measured(monkeypatch, [[8.0] * 3, [2.0] * 3, [5.0] * 3, *parts])
    assert rows["part 0"].samples == (1.0, 1.5, 1.0)
    assert rows["part 1"].samples == (0.5, 0.5, 0.0)  # twice the difference, and never less than nothing
    assert rows["floor"].samples == (1.5, 2.0, 1.0)
    assert rows["floor"].median == statistics.median([1.5, 2.0, 1.0])
    assert [row.times_floor for row in rows.values()][:3] == [8 / 1.5, 2 / 1.5, None]


def test_a_floor_of_one_part_is_that_part(monkeypatch):
    rows = measured(monkeypatch, [[8.0] * 3, [2.0] * 3, [5.0] * 3, [3.0] * 3, [1.0] * 3])
    assert list(rows) == ["first", "second", "beside", "floor (part 0)"]
    assert rows["second"].times_floor == 1.0


def test_a_floor_of_nothing_is_no_floor(monkeypatch):
    rows = measured(monkeypatch, [[8.0] * 3, [2.0] * 3, [5.0] * 3, [1.0] * 3, [1.0] * 3])
    assert rows["second"].times_floor is None


def test_the_same_results_agree():
    first = way("first", {"loss": [2.0], "gradient of a": [4.0, 0.0]})
    assert check_agreement([first]) is None
    assert check_agreement([first, Way("other", lambda: None)]) is None
    second = way("second", {"loss": [2.0], "gradient of a": [4.0, 0.001]})
    assert check_agreement([first, second]) == pytest.approx(0.00025)
    nothing = way("nothing", {"loss": [0.0]})
    assert check_agreement([nothing, nothing]) == 0.0


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({"loss": [2.1], "gradient of a": [4.0]}, "loss is off by 5.0e-02"),
        ({"loss": [2.0], "gradient of a": [float("nan")]}, "gradient of a is off by nan"),
        ({"loss": [2.0]}, "do not both compute gradient of a"),
    ],
)
def test_other_results_are_refused(results, says):
    first = way("first", {"loss": [2.0], "gradient of a": [4.0]})
    with pytest.raises(DifferentResultsError, match=says) as raised:
        compare("work", [first, way("second", results)], 1e-9)
    assert "first" in str(raised.value) and "second" in str(raised.value)


def test_results_are_looked_at_after_each_way_has_run():
    """Ways may share a model, whose gradients the next one overwrites."""
    shared = torch.zeros(1)
    ways = [Way(str(value), lambda value=value: shared.fill_(value), lambda: {"loss": shared}) for value in (1.0, 2.0)]
    with pytest.raises(DifferentResultsError):
        check_agreement(ways)
