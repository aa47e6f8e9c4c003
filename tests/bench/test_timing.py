"""Taking turns, on a clock that the test moves."""

import gc
from collections.abc import Callable

import pytest

from memnet.bench import timing
from memnet.bench.timing import MAX_CALLS, own_clock, take_turns, wall_clock


class World:
    """Time that passes only where somebody works, and who worked when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order = ""

    def work(self, name: str, seconds: float) -> Callable[[], float]:
        def run() -> float:
            self.now += seconds
            self.order += name
            return seconds / 2

        return run


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(timing, "perf_counter", lambda: made.now)
    return made


def test_ways_take_turns(world):
    runs = [world.work("a", 0.125), world.work("b", 0.25), world.work("c", 0.5)]
    times = take_turns(runs, seconds=3.5)
    assert world.order == "aabbcc" + 4 * "abc"
    assert times == [[0.125] * 4, [0.25] * 4, [0.5] * 4]


def test_a_fast_one_is_called_several_times_a_turn(world):
    times = take_turns([world.work("a", 1 / 256), world.work("b", 0.5)], seconds=1.53)
    assert world.order == "aabb" + 3 * "aaab"  # three calls of 4 ms make a block of 10 ms
    assert times[0] == [1 / 256] * 3


def test_one_that_takes_no_time_at_all_ends(world):
    take_turns([world.work("a", 0.0)], seconds=1.0)
    assert len(world.order) == 2 + timing.MAX_TURNS * MAX_CALLS


def test_there_are_three_turns_at_least(world):
    take_turns([world.work("a", 0.25), world.work("b", 0.25)], seconds=0.76)
    assert world.order == "aabb" + 3 * "ab"


def test_a_slow_one_is_measured_once_and_holds_up_nobody(world):
    times = take_turns([world.work("a", 8.0), world.work("b", 0.25)], seconds=1.0)
    assert world.order == "a" + "bb" + "ab" + 3 * "b"
    assert times == [[8.0], [0.25] * 4]


def test_where_all_are_slow_each_is_measured_once(world):
    assert take_turns([world.work("a", 8.0), world.work("b", 4.0)], seconds=1.0) == [[8.0], [4.0]]
    assert world.order == "abab"


def test_a_way_with_a_clock_of_its_own_still_takes_its_time(world):
    """It says that half of its time counts; the number of turns follows from all of it."""
    times = take_turns([world.work("a", 0.5)], seconds=2.0, clock=own_clock)
    assert times == [[0.25] * 4]


def test_the_wall_clock_gives_the_mean_of_a_call(world):
    assert wall_clock(world.work("a", 0.5), 4) == 0.5
    assert world.order == "aaaa"


def test_no_garbage_is_collected_meanwhile_and_afterwards_it_is_again(world):
    assert gc.isenabled()
    seen = []
    take_turns([lambda: seen.append(gc.isenabled())], seconds=0.0)
    assert seen[-1] is False and gc.isenabled()

    def fail() -> None:
        if not gc.isenabled():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        take_turns([fail], seconds=0.0)
    assert gc.isenabled()
