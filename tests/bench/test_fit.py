"""What ``memnet fit`` adds to the bare loop: all ways train the same."""

import os
import signal
import time
import warnings

import pytest
import torch

from memnet.bench.benchmarks import fit
from memnet.bench.benchmarks.fit import FitWork, StopWatch

WAYS = [
    "bare loop",
    "+ data path",
    "+ metrics",
    "+ Lightning",
    "+ metrics.csv",
    "+ progress bar",
    "+ checkpoints, resuming, Ctrl-C",
]


@pytest.fixture
def ways(tmp_path):
    with warnings.catch_warnings():
        yield {way.name: way for way in fit.ways_of(FitWork(batch=2, steps=5), torch.device("cpu"), tmp_path)}


def test_every_way_trains_the_same(settings, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    (measured,) = fit.run(settings, [FitWork(batch=2, steps=5)])
    assert [row.way for row in measured.rows] == WAYS
    assert measured.difference == 0
    bare, *others = measured.rows
    assert bare.extra["sequences/s"] == pytest.approx(2 / bare.median)
    assert bare.extra["adds %"] == 0
    total = 100 * (others[-1].median - bare.median) / bare.median
    assert sum(row.extra["adds %"] for row in others) == pytest.approx(total)
    assert measured.notes[-1] == f"batch 2, 1 thread: together {total:.1f}% of the bare loop's step"
    printed = capsys.readouterr()
    assert printed.out == "" and "batch 2" in printed.err
    assert "FORCE_COLOR" not in os.environ


def test_they_learn_and_begin_at_the_same_place_every_time(ways):
    way = ways["bare loop"]
    way.run()
    first = {name: x.detach().clone() for name, x in way.results().items()}
    assert any(not torch.equal(x, way.run.start.get_parameter(name.split()[1])) for name, x in first.items())
    way.run()
    assert all(torch.equal(x, first[name]) for name, x in way.results().items())


def test_the_last_way_leaves_what_a_run_leaves(ways, tmp_path):
    ways["+ checkpoints, resuming, Ctrl-C"].run()
    ways["+ Lightning"].run()
    whole, bare = tmp_path / "fit/version_0", tmp_path / "fit/version_1"
    assert {path.name for path in whole.rglob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert list(bare.iterdir()) == []


def test_metrics_are_written_where_the_log_is_on(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "LOG_EVERY", 2)
    with warnings.catch_warnings():
        ways = {way.name: way for way in fit.ways_of(FitWork(batch=2, steps=5), torch.device("cpu"), tmp_path)}
        ways["+ metrics.csv"].run()
    rows = (tmp_path / "fit/version_0/metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 and "train/bits" in rows[0]


@pytest.fixture
def heeded():
    """Ctrl-C as in a terminal: whoever starts the tests in the background may have them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", WAYS)
def test_ctrl_c_ends_each(ways, monkeypatch, name, heeded):
    class Pressed(StopWatch):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                if number == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.01)  # the signal is seen between two of Python's instructions
                yield batch

    monkeypatch.setattr(fit, "StopWatch", Pressed)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ways[name].run()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_watch_counts_from_the_third_step_on(monkeypatch):
    times = iter([0.0, 10.0, 20.0, 21.0, 22.0, 26.0])
    monkeypatch.setattr(fit, "perf_counter", lambda: next(times))
    watch = StopWatch([1, 2, 3, 4, 5])
    assert list(watch) == [1, 2, 3, 4, 5]
    assert watch.seconds() == (26 - 20) / 3


def test_a_loss_that_is_not_finite_ends_the_loop_with_metrics(ways):
    way = ways["+ metrics"]
    with torch.no_grad():
        way.run.start.get_parameter("cell.output.bias").fill_(float("nan"))
    with pytest.raises(ValueError, match="the training loss became nan at step 0"):
        way.run()
