"""The Neural Turing Machine's benchmarks, on works that take no time."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from memnet import kernels, unroll
from memnet.bench.benchmarks import ntm, ntm_slots
from memnet.bench.copying import CopyWork, measure
from memnet.bench.measuring import DifferentResultsError
from memnet.kernels import build, ntm_cpu
from tasks import Copy

SMALL = CopyWork(batch=2, length=2, slots=6)
FLOOR = ["matrix products", "memory passes", "floor"]

needs_library = pytest.mark.skipif(build.load(ntm_cpu.SOURCE) is None, reason="there is no C++ compiler here")


@needs_library
def test_the_ways_do_the_same_work_and_stand_beside_the_floor(settings, capsys):
    (measured,) = ntm.run(settings, [SMALL])
    assert measured.work == "batch 2, length 2, 6 slots, 1 thread"
    assert measured.work in capsys.readouterr().err
    assert [row.way for row in measured.rows] == ["plain loop", "kernel", "optimizer step", *FLOOR]
    plain, kernel, optimizer, *floor = measured.rows
    assert plain.times_less == 1
    assert kernel.times_less == pytest.approx(plain.median / kernel.median)
    # On a busy machine so little work may seem to take no longer than calling it.
    least = floor[-1].median
    assert kernel.times_floor == (pytest.approx(kernel.median / least) if least > 0 else None)
    assert all(row.times_less is None and row.times_floor is None for row in (optimizer, *floor))
    assert 0 < measured.difference < 1e-4  # they round differently
    assert all(min(row.samples) > 0 for row in (plain, kernel, optimizer))


def test_without_a_kernel_it_says_so(settings, monkeypatch):
    monkeypatch.setenv("MEMNET_KERNELS", "0")
    measured = measure(SMALL, settings)
    assert [row.way for row in measured.rows] == ["plain loop", "optimizer step", *FLOOR]
    assert measured.notes == ("no kernel fits here, so there is only the plain loop",)
    assert measured.difference is None


def test_a_kernel_that_computes_something_else_is_not_timed(settings, monkeypatch):
    def wrong(cell, inputs, state, lengths):
        with kernels.disabled():
            outputs, state = unroll(cell, inputs, state, lengths)
        return 1.01 * outputs, state

    def find(cell, inputs, state):
        return None if kernels._switched_off.get() else wrong

    monkeypatch.setattr(kernels, "find", find)
    with pytest.raises(DifferentResultsError, match="kernel does not compute what plain loop does"):
        measure(SMALL, settings)


def test_weights_are_what_they_were_however_often_it_is_measured(settings, monkeypatch):
    """The optimiser's step is taken many times over."""
    made = []
    original = torch.nn.Module.zero_grad
    monkeypatch.setattr(
        torch.nn.Module, "zero_grad", lambda self, *a, **k: (made.append(self), original(self, *a, **k))
    )
    measure(SMALL, settings)
    first = {name: x.detach().clone() for name, x in made[0].named_parameters()}
    measure(SMALL, dataclasses.replace(settings, seconds=0.2))
    for model in made:
        assert all(torch.equal(x, first[name]) for name, x in model.named_parameters())


def test_what_is_learned_is_the_copy_task():
    task = Copy(min_length=3, max_length=3, batch_size=4)
    batch = next(iter(task.train_dataloader()))
    inputs, targets = CopyWork(batch=4, length=3).draw(torch.device("cpu"))
    assert inputs.shape == batch.inputs.shape
    for ours, theirs in [(inputs, targets), (batch.inputs, batch.targets[:, 4:])]:
        assert torch.equal(ours[:, :3, :8], theirs)
        assert torch.equal(ours[:, 3], torch.eye(9)[8].expand(4, 9))
        assert not ours[:, 4:].any()
    assert 0.2 < targets.mean() < 0.8


def test_the_table_is_the_one_that_was_asked_for():
    assert [(work.batch, work.length, work.threads) for work in ntm.WORKS] == [
        (1, 20, 1),
        (32, 20, 1),
        (256, 20, 2),
        (32, 100, 1),
        (32, 500, 1),
    ]
    assert {(work.batch, work.length) for work in ntm.GPU_WORKS} >= {(32, 20), (512, 20)}
    assert [work.slots for work in ntm_slots.WORKS] == [128, 512, 2048, 8192]
    assert len({(work.batch, work.length) for work in ntm_slots.WORKS}) == 1


def test_slots_are_those_asked_for(settings):
    first, second = ntm_slots.run(settings, [SMALL, CopyWork(2, 2, slots=128)])
    assert (first.work, second.work) == ("batch 2, length 2, 6 slots, 1 thread", "batch 2, length 2, 1 thread")


def test_a_cell_that_cannot_be_compiled_is_said_and_left_out(settings, monkeypatch):
    def refuse(self, *args, **kwargs):
        def fail(*args, **kwargs):
            raise RuntimeError("no compiler\nand a long story")

        self._compiled_call_impl = fail

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    measured = measure(SMALL, dataclasses.replace(settings, compiled=True))
    assert "compiled cell" not in [row.way for row in measured.rows]
    assert "the cell could not be compiled: no compiler" in measured.notes


@pytest.mark.slow
def test_the_compiled_cell_does_the_same_work():
    """In a process of its own, without the shape annotations that torch.compile cannot look through."""
    code = """
from memnet.bench import Settings
from memnet.bench.copying import CopyWork, measure
measured = measure(CopyWork(2, 2, slots=6), Settings(seconds=0.01, threads=1, compiled=True))
print(*measured.notes, *(row.way for row in measured.rows), sep="|")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "compiled cell" in done.stdout or "could not be compiled" in done.stdout


def test_random_numbers_of_the_caller_are_left_alone(settings):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    np.random.seed(5)
    ntm_numbers = measure(SMALL, settings)
    assert torch.rand(1) == expected and ntm_numbers.rows
