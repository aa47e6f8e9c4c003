"""Ways of doing the same work, and what comes out of comparing them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from memnet.bench.floors import Part
from memnet.bench.timing import Clock, take_turns, wall_clock

AGREEMENT = 1e-3
"""How far the ways' results may lie apart, relative to the largest number of a tensor.

Float32 rounding over some hundred time steps makes about a hundredth of this, another equation far more. How exact the
kernels are is for the tests to say; this is only about comparing the times of the same work.
"""


class DifferentResultsError(ValueError):
    """Two ways that should do the same work do not, so their times are not to be compared."""


@dataclass(frozen=True)
class Way:
    """One way of doing the work.

    Attributes:
        name: what it is called in tables.
        run: does the work once.
        results: what the last ``run`` has computed, by name; the same for all ways that have this.
        apart: whether it is other work, only listed beside: it is compared with nothing.
    """

    name: str
    run: Callable[[], Any]
    results: Callable[[], Mapping[str, Tensor]] | None = None
    apart: bool = False


@dataclass(frozen=True)
class Row:
    """What was measured of one way.

    Attributes:
        way: its name.
        samples: the measurements, turn by turn.
        times_less: how many times less its median is than the first way's; None where they are not compared.
        times_floor: how many times the floor its median is; None where there is no floor.
        extra: further numbers, by the title of their column.
    """

    way: str
    samples: tuple[float, ...]
    times_less: float | None = None
    times_floor: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the measurements."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the measurements lies below the first, a quarter above the second number."""
        if len(self.samples) == 1:
            return self.samples[0], self.samples[0]
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Comparison:
    """One piece of work, done in several ways.

    Attributes:
        work: what is done.
        rows: one for each way, and for a floor and its parts if there is one.
        unit: of the measurements: ``s``, ``B`` for bytes, or nothing.
        notes: sentences for the reader.
        difference: by how much the ways' results differ at most, relative to the largest number of a tensor; None where
            nothing was compared.
    """

    work: str
    rows: tuple[Row, ...]
    unit: str = "s"
    notes: tuple[str, ...] = ()
    difference: float | None = None


def compare(
    work: str,
    ways: Sequence[Way],
    seconds: float,
    clock: Clock = wall_clock,
    floor: Sequence[Part] = (),
    notes: Sequence[str] = (),
) -> Comparison:
    """Makes sure that the ways agree, and times them and the parts of the floor in turns.

    Args:
        work: what is done.
        ways: at least one; the first is what the others are compared with.
        seconds: how long to measure, about.
        clock: how a call is timed.
        floor: parts whose times add up to the least that the work needs.
        notes: sentences for the reader.

    Raises:
        DifferentResultsError: two ways do not compute the same.
    """
    difference = check_agreement(ways)
    runs = [way.run for way in ways] + [run for part in floor for run in (part.run, part.empty)]
    times = take_turns(runs, seconds, clock)
    rows = rows_of(ways, times[: len(ways)], _floor_times(floor, times[len(ways) :]))
    return Comparison(work, rows, notes=tuple(notes), difference=difference)


def rows_of(
    ways: Sequence[Way], times: Sequence[Sequence[float]], floor: Mapping[str, Sequence[float]]
) -> tuple[Row, ...]:
    """Rows with their ratios.

    Args:
        ways: the ways; the first is what the others are compared with.
        times: the measurements of each.
        floor: the measurements of the floor's parts, and of the floor itself as the last.
    """
    first = statistics.median(times[0])
    least = statistics.median(list(floor.values())[-1]) if floor else 0.0
    rows = []
    for way, own in zip(ways, times, strict=True):
        median = statistics.median(own)
        compared = not way.apart
        rows.append(
            Row(
                way.name,
                tuple(own),
                first / median if compared and median > 0 else None,
                median / least if compared and least > 0 else None,
            )
        )
    return (*rows, *(Row(name, tuple(own)) for name, own in floor.items()))


def check_agreement(ways: Sequence[Way]) -> float | None:
    """Runs the ways that have results and compares these with the first one's.

    Args:
        ways: the ways.

    Returns:
        The largest difference, relative to the largest number of a tensor; None where there is nothing to compare.

    Raises:
        DifferentResultsError: a result is missing, not finite, or off by more than ``AGREEMENT``.
    """
    checked = [way for way in ways if way.results is not None]
    if len(checked) < 2:
        return None
    first, *others = checked
    expected = _results(first)
    largest = 0.0
    for way in others:
        got = _results(way)
        if got.keys() != expected.keys():
            odd = ", ".join(sorted(got.keys() ^ expected.keys()))
            raise DifferentResultsError(f"{way.name} and {first.name} do not both compute {odd}.")
        for name, right in expected.items():
            off = _distance(got[name], right)
            if not off <= AGREEMENT:
                raise DifferentResultsError(
                    f"{way.name} does not compute what {first.name} does: {name} is off by {off:.1e} of its largest "
                    f"number, but may be by {AGREEMENT:.0e}."
                )
            largest = max(largest, off)
    return largest


def _results(way: Way) -> dict[str, Tensor]:
    assert way.results is not None
    way.run()
    return {name: tensor.detach().clone() for name, tensor in way.results().items()}


def _distance(got: Tensor, right: Tensor) -> float:
    scale = right.abs().max().clamp_min(torch.finfo(right.dtype).tiny)
    return float((got - right).abs().max() / scale)


def _floor_times(floor: Sequence[Part], times: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Turn by turn what the parts take without the cost of calling, and their sum."""
    parts = {}
    for part, full, empty in zip(floor, times[::2], times[1::2], strict=True):
        calling = statistics.median(empty)
        parts[part.name] = [max(0.0, (each - calling) * part.scale) for each in full]
    if len(parts) < 2:
        return {f"floor ({name})": own for name, own in parts.items()}
    return parts | {"floor": [sum(turn) for turn in zip(*parts.values(), strict=False)]}
