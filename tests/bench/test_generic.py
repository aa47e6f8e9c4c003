"""The benchmark of compiled steps: a cell that no kernel knows, and one row less where it cannot be compiled."""

import pytest
import torch

from memnet import kernels, unroll
from memnet.bench.benchmarks import generic
from memnet.bench.copying import CopyWork
from memnet.compiling import capture

SMALL = CopyWork(2, 2, slots=6)


def test_no_kernel_knows_the_cell():
    plain, compiled = (way.run.model for way in generic.ways_of(SMALL, torch.device("cpu")))
    inputs, _ = SMALL.draw(torch.device("cpu"))
    assert kernels.find(plain.cell, inputs, plain.cell.init_state(2)) is None
    assert compiled.compile_steps and not plain.compile_steps
    assert torch.equal(unroll(plain.cell, inputs)[0], unroll(compiled.cell, inputs)[0])


def test_a_step_that_cannot_be_compiled_is_said_and_left_out(settings, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(capture, "build", refuse)
    (measured,) = generic.run(settings, [SMALL])
    assert measured.work == "batch 2, length 2, 1 thread"
    assert [row.way for row in measured.rows] == ["plain loop"]
    assert len(measured.notes) == 1 and measured.notes[0].endswith("slower: no compiler")


@pytest.mark.slow
def test_both_ways_do_the_same_work(settings):
    (measured,) = generic.run(settings, [SMALL])
    assert [row.way for row in measured.rows] == ["plain loop", "compiled steps"]
    assert measured.difference < 1e-4 and not measured.notes
