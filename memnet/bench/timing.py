"""Clocks, and taking turns with them."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch

Run = Callable[[], Any]
Clock = Callable[[Run, int], float]
"""Makes so many calls one after the other and returns the seconds that one of them took on average."""

BLOCK_SECONDS = 0.01
"""A way that takes less is called several times a turn: then cold caches, which the others leave, matter little."""

MIN_TURNS, MAX_TURNS, MAX_CALLS = 3, 200, 1000


def wall_clock(run: Run, calls: int) -> float:
    """For work of this process, or of a child that it waits for."""
    begin = perf_counter()
    for _ in range(calls):
        run()
    return (perf_counter() - begin) / calls


def cuda_clock(run: Run, calls: int) -> float:
    """For work on a GPU, by its own events."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000 / calls


def own_clock(run: Run, calls: int) -> float:
    """For work that has to be set up anew each time: ``run`` itself returns the seconds that count."""
    return sum(run() for _ in range(calls)) / calls


def clock_for(device: torch.device) -> Clock:
    """The clock of a device."""
    return cuda_clock if device.type == "cuda" else wall_clock


def take_turns(runs: Sequence[Run], seconds: float, clock: Clock = wall_clock) -> list[list[float]]:
    """Times several runs in turns: A B C A B C ...

    So a machine that is busy for a while is busy for all of them. Every run is called once or twice beforehand, which
    fills caches and tells how long it takes.

    Args:
        runs: what to time.
        seconds: how long to go on, about. There are at least three turns, but a run that alone would take longer than
            this takes part in the first one only.
        clock: how a call is timed.

    Returns:
        For each run, the seconds of a call, turn by turn.
    """
    blocks, slow = [], []
    for run in runs:
        needed = _estimate(run, seconds, clock)
        calls = min(MAX_CALLS, max(1, math.ceil(BLOCK_SECONDS / max(needed, 1e-9))))
        blocks.append((calls, calls * needed))
        slow.append(MIN_TURNS * calls * needed > seconds)
    turn = sum(needed for (_, needed), once in zip(blocks, slow, strict=True) if not once)
    turns = min(MAX_TURNS, max(MIN_TURNS, int(seconds / max(turn, 1e-9)))) if not all(slow) else 1
    times: list[list[float]] = [[] for _ in runs]
    with _no_garbage_collection():
        for number in range(turns):
            for run, (calls, _), once, own in zip(runs, blocks, slow, times, strict=True):
                if number == 0 or not once:
                    own.append(clock(run, calls))
    return times


def _estimate(run: Run, seconds: float, clock: Clock) -> float:
    """How long a call takes in all, by the wall: its own clock may count only part of it."""
    for _ in range(2):
        begin = perf_counter()
        clock(run, 1)
        needed = perf_counter() - begin
        if needed > seconds:
            break  # the first call does more than later ones, but a slow one is not repeated for that
    return needed


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """As ``timeit`` does: a collection would hit whoever's turn it is."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
