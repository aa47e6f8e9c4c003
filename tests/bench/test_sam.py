"""The sparse memory's benchmark on small memories."""

import pytest
import torch

from memnet import MANN, SAM
from memnet.bench import sparse
from memnet.bench.benchmarks import sam
from memnet.bench.sparse import DENSE, EMPTY, EMPTY_KERNEL, FULL, FULL_KERNEL, KERNELS, SparseWork
from memnet.kernels import build, sam_cpu

CPU = torch.device("cpu")
SPARSE = [EMPTY, EMPTY_KERNEL, FULL, FULL_KERNEL] if build.load(sam_cpu.SOURCE) is not None else [EMPTY, FULL]


def test_each_size_has_its_times_and_its_memory(settings, monkeypatch):
    monkeypatch.setattr(sam, "peak_bytes", lambda work, threads, device: 1000 if work.way == DENSE else 10)
    monkeypatch.setattr(sam, "DENSE_SLOTS", 64)
    small, small_bytes, large, large_bytes = sam.run(settings, slots=(64, 128), steps=3)
    assert [row.way for row in small.rows] == [row.way for row in small_bytes.rows] == [DENSE, *SPARSE]
    assert all(row.times_less is not None and row.median > 0 for row in small.rows)
    assert [row.times_less for row in small_bytes.rows] == [1] + [100] * len(SPARSE) and small_bytes.unit == "B"
    # Where the dense memory does not fit there is nothing to compare with.
    for measured in (large, large_bytes):
        assert [(row.way, row.times_less) for row in measured.rows] == [(way, None) for way in SPARSE]
    assert large.work == "128 slots, time of a step" and large_bytes.work == "128 slots, memory of 3 steps"


def test_a_process_that_fails_is_noted(settings, monkeypatch):
    def fail(work, threads, device):
        if work.way == DENSE:
            raise ChildProcessError("it was killed")
        return 10

    monkeypatch.setattr(sam, "peak_bytes", fail)
    _, measured = sam.run(settings, slots=(64,), steps=3)
    assert [row.way for row in measured.rows] == SPARSE and "it was killed" in measured.notes
    assert all(row.times_less is None for row in measured.rows)


@pytest.mark.parametrize("way", [DENSE, *SPARSE])
def test_a_step_is_a_training_step_of_the_model_it_says(way, monkeypatch):
    made = []
    for kind in (MANN, SAM):
        monkeypatch.setattr(
            sparse, kind.__name__, lambda *sizes, kind=kind, **more: made.append(kind(*sizes, **more)) or made[-1]
        )
    step = SparseWork(way, 32, 4).prepare(CPU)
    for _ in range(2):
        assert step() > 0
    (model,) = made
    assert type(model) is (MANN if way == DENSE else SAM)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_full_memory_is_searched_as_a_whole(monkeypatch):
    widths = []
    searched = sparse.SAM.open

    def spy(self, state):
        opened = searched(self, state)
        nearest = opened.access._nearest.nearest

        def watch(query, num_nearest, in_use):
            widths.append(in_use.tolist())
            return nearest(query, num_nearest, in_use)

        opened.access._nearest.nearest = watch
        return opened

    monkeypatch.setattr(sparse.SAM, "open", spy)
    SparseWork(FULL, 64, 3).prepare(CPU)()
    assert widths == [[64]] * 3
    widths.clear()
    SparseWork(EMPTY, 64, 3).prepare(CPU)()
    assert all(used <= 4 for (used,) in widths)


def test_the_sparse_memory_grows_less_than_the_dense_one():
    dense, *empty = (
        sparse.peak_bytes(SparseWork(way, 8192, 20), 1, CPU)
        for way in (DENSE, *SPARSE)
        if way not in (FULL, FULL_KERNEL)
    )
    # A dense step keeps at least one copy of the memory.
    assert dense > 20 * 8192 * sparse.SLOT_SIZE * 4
    assert all(0 <= each < dense / 4 for each in empty)


def test_only_the_kernel_s_ways_take_the_kernel(monkeypatch):
    runs, run = [], sam_cpu.run
    monkeypatch.setattr(sam_cpu, "run", lambda *arguments: runs.append(arguments) or run(*arguments))
    for way in SPARSE:
        runs.clear()
        SparseWork(way, 32, 3).prepare(CPU)()
        assert len(runs) == (way in KERNELS), way


def test_without_a_compiler_there_is_no_kernel_to_measure(settings, monkeypatch):
    monkeypatch.setattr(build, "load", lambda source: None)
    monkeypatch.setattr(sam, "peak_bytes", lambda work, threads, device: 10)
    with pytest.raises(RuntimeError, match="no kernel"):
        SparseWork(EMPTY_KERNEL, 32, 3).prepare(CPU)
    measured, _ = sam.run(settings, slots=(64,), steps=3)
    assert [row.way for row in measured.rows] == [DENSE, EMPTY, FULL]
    assert "no kernel fits here, so there is only the plain loop" in measured.notes
