"""The Differentiable Neural Computer's benchmark, on works that take no time."""

import pytest

from memnet import DNC
from memnet.bench.benchmarks import dnc
from memnet.bench.copying import CopyWork
from memnet.kernels import build, dnc_cpu

SMALL = CopyWork(batch=2, length=2, slots=6)
FLOOR = ["matrix products", "memory passes", "floor"]


@pytest.mark.skipif(build.load(dnc_cpu.SOURCE) is None, reason="there is no C++ compiler here")
def test_the_ways_do_the_same_work_and_stand_beside_the_floor(settings, capsys):
    (measured,) = dnc.run(settings, [SMALL])
    assert measured.work == "batch 2, length 2, 6 slots"
    assert measured.work in capsys.readouterr().err
    assert [row.way for row in measured.rows] == ["plain loop", "kernel", *FLOOR]
    assert 0 < measured.difference < 1e-4  # they round differently


def test_without_a_kernel_it_says_so(settings, monkeypatch):
    monkeypatch.setenv("MEMNET_KERNELS", "0")
    (measured,) = dnc.run(settings, [SMALL])
    assert [row.way for row in measured.rows] == ["plain loop", *FLOOR]
    assert measured.notes == ("no kernel fits here, so there is only the plain loop",)


def test_what_was_published_is_among_the_works():
    assert (32, 41, 128, 1) in [(work.batch, work.time, work.slots, work.threads) for work in dnc.WORKS]


def test_the_floor_is_of_the_model_that_is_measured():
    model = DNC(9, 8, num_slots=6, slot_size=dnc.WIDTH, num_read_heads=1)
    assert model.cell.access.interface.out_features == dnc.EMITTED
    assert model.cell.controller.output_size == dnc.HIDDEN
