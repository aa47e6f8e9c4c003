"""Peak memory of training on long sequences, by their length.

The standard Neural Turing Machine of ``ntm`` on one sequence: the plain loop, which keeps every step; the plain loop
with a checkpoint every sqrt(T) steps; the kernel, which keeps the memory of every sqrt(T)-th step and a few kilobytes
of each step; and the kernel with checkpoints. Each case runs once, in a process of its own, and what counts is by how
much that grows. Takes minutes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from memnet.bench.measuring import Comparison, Way, rows_of
from memnet.bench.peak import WAYS, peak_bytes
from memnet.bench.settings import Settings

LENGTHS = (100, 300, 1_000, 3_000, 10_000)


def run(settings: Settings, lengths: Sequence[int] = LENGTHS, batch: int = 1) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how; each case is run once, however many seconds are given.
        lengths: numbers of time steps, ascending.
        batch: how many sequences.
    """
    peaks: dict[str, dict[int, int]] = {way: {} for way in WAYS}
    for steps in lengths:
        notes = []
        for way, measured in peaks.items():
            settings.say(f"  {steps:,} steps, {way}")
            with settings.with_threads() as threads:
                try:
                    measured[steps] = peak_bytes(way, steps, batch, threads, settings.device)
                except ChildProcessError as error:
                    notes.append(str(error))
        there = [way for way in WAYS if steps in peaks[way]]
        if there:
            rows = rows_of([_way(way) for way in there], [[float(peaks[way][steps])] for way in there], {})
            # Without the plain loop there is nothing to compare with.
            rows = rows if there[0] == WAYS[0] else tuple(replace(row, times_less=None) for row in rows)
            yield Comparison(f"{steps:,} steps", rows, "B", tuple(notes))
    longer = lengths[len(lengths) // 2 :]
    exponents = {
        way: growth_exponent({steps: own[steps] for steps in longer if steps in own}) for way, own in peaks.items()
    }
    ways = [way for way, exponent in exponents.items() if exponent is not None]
    if ways:
        rows = rows_of([_way(way, apart=True) for way in ways], [[exponents[way] or 0.0] for way in ways], {})
        note = f"growth exponent: p where memory grows like T^p, from {longer[0]:,} steps on"
        yield Comparison("growth exponent", rows, "", (note,))


def growth_exponent(peaks: Mapping[int, int | float]) -> float | None:
    """The p of the T^p that fits best: the slope of a line through the logarithms.

    Args:
        peaks: number of steps to bytes.

    Returns:
        None where fewer than two peaks are positive.
    """
    points = [(math.log(steps), math.log(peak)) for steps, peak in peaks.items() if peak > 0]
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(numbers) / len(points) for numbers in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def _way(name: str, apart: bool = False) -> Way:
    return Way(name, lambda: None, apart=apart)
