"""Sparse access memory against a dense one, by slots.

Time for one time step of a training step (forward and backward), and by how much a process grows during one of 100 time
steps, in the plain loop and in the kernel. From an empty memory only the slots in use are searched; a full one is
searched exactly and, where the extra ``ann`` is installed, approximately. The dense memory is measured as long as it
fits, above 16,384 slots over 10 time steps. Takes minutes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from memnet.bench.measuring import Comparison, Row, Way, compare, rows_of
from memnet.bench.settings import Settings
from memnet.bench.sparse import (
    APPROXIMATE,
    DENSE,
    EMPTY,
    EMPTY_KERNEL,
    FULL,
    FULL_KERNEL,
    KERNELS,
    SparseWork,
    approximate_search_is_there,
    kernel_is_there,
    peak_bytes,
)
from memnet.bench.timing import own_clock

SLOTS = (1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576)
STEPS = 100
DENSE_SLOTS, DENSE_STEPS_BEYOND, DENSE_WHOLE_SLOTS = 65_536, 10, 16_384


def run(
    settings: Settings, slots: Sequence[int] = SLOTS, steps: int = STEPS, beyond: int = 32_768
) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
        slots: sizes of the memory, ascending.
        steps: time steps of a sequence.
        beyond: slots from which on the approximate search is tried.
    """
    there, kernel = approximate_search_is_there(), kernel_is_there(settings.device)
    notes = []
    if not there:
        notes.append("without the extra ann there is no approximate search")
    if not kernel:
        notes.append("no kernel fits here, so there is only the plain loop")
    for number in slots:
        with settings.with_threads() as threads:
            settings.say(f"  {number:,} slots")
            works = [work for work in _works(number, steps, beyond, there) if kernel or work.way not in KERNELS]
            ways = [Way(work.way, work.prepare(settings.device)) for work in works]
            measured = compare(f"{number:,} slots, time of a step", ways, settings.seconds, own_clock, notes=notes)
            yield replace(measured, rows=_against_dense(measured.rows))
            peaks, notes_here = {}, list(notes)
            for work in works:
                if work.steps == steps:
                    try:
                        peaks[work.way] = peak_bytes(work, threads, settings.device)
                    except ChildProcessError as error:
                        notes_here.append(str(error))
        rows = rows_of([_way(way) for way in peaks], [[float(peak)] for peak in peaks.values()], {}) if peaks else ()
        yield Comparison(f"{number:,} slots, memory of {steps} steps", _against_dense(rows), "B", tuple(notes_here))


def _works(slots: int, steps: int, beyond: int, approximate: bool) -> list[SparseWork]:
    works = [SparseWork(way, slots, steps) for way in (EMPTY, EMPTY_KERNEL, FULL, FULL_KERNEL)]
    if slots <= DENSE_SLOTS:
        dense_steps = steps if slots <= DENSE_WHOLE_SLOTS else min(steps, DENSE_STEPS_BEYOND)
        works.insert(0, SparseWork(DENSE, slots, dense_steps))
    if approximate and slots > beyond:
        works.append(SparseWork(APPROXIMATE, slots, steps, beyond))
    return works


def _against_dense(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Without the dense memory there is nothing to compare with."""
    if rows and rows[0].way == DENSE:
        return tuple(rows)
    return tuple(replace(row, times_less=None) for row in rows)


def _way(name: str) -> Way:
    return Way(name, lambda: None)
