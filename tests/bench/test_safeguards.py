"""What the safeguards cost: with each of them the same is trained."""

import warnings

import pytest
import torch

from memnet.bench.benchmarks import safeguards
from memnet.bench.benchmarks.fit import CLIP, FitWork
from memnet.bench.measuring import Comparison, Row
from memnet.training.callbacks import Checkpoints
from memnet.training.health import NumericalHealth

WAYS = ["none", "numerical health", "exact resume", "Ctrl-C, SIGTERM", "a checkpoint every 50 steps"]


def test_with_each_the_same_is_trained(settings, capsys):
    clipped, free = safeguards.run(settings, [FitWork(batch=2, steps=5)])
    assert [row.way for row in clipped.rows] == WAYS and [row.way for row in free.rows] == WAYS[:2]
    assert clipped.difference == free.difference == 0
    for measured in (clipped, free):
        assert measured.rows[0].extra == {"adds %": 0, "adds us": 0}
        assert all(row.times_less is None and set(row.extra) == {"adds %", "adds us"} for row in measured.rows)
    assert clipped.work == "batch 2, 1 thread, gradients clipped by norm"
    assert free.work == "batch 2, 1 thread, gradients not clipped"
    assert capsys.readouterr().out == ""


def test_what_is_tried_is_at_work(tmp_path, monkeypatch):
    """Health looks at every step, and checkpoints are written."""
    looks, saves = [], []
    look, save = NumericalHealth.on_before_optimizer_step, Checkpoints.save_last
    monkeypatch.setattr(NumericalHealth, "on_before_optimizer_step", lambda *a: (looks.append(1), look(*a)))
    monkeypatch.setattr(Checkpoints, "save_last", lambda *a: (saves.append(1), save(*a)))
    monkeypatch.setattr(safeguards, "SAVE_EVERY", 2)
    with warnings.catch_warnings():
        ways = {way.name: way for way in safeguards.ways_of(FitWork(2, 5), torch.device("cpu"), tmp_path, CLIP)}
        ways["numerical health"].run()
        assert (len(looks), len(saves)) == (5, 0)
        ways["none"].run()
        assert (len(looks), len(saves)) == (5, 0)
        ways["a checkpoint every 2 steps"].run()
    assert (len(looks), len(saves)) == (5, 2 + 1)  # one at the end
    assert len([*tmp_path.rglob("last.ckpt")]) == 1


def test_percents_compare_measurements_of_one_turn():
    rows = (Row("none", (1.0, 2.0, 4.0)), Row("numerical health", (1.1, 2.2, 4.0)))
    measured = safeguards._with_percents(Comparison("work", rows))
    assert measured.rows[1].extra["adds %"] == pytest.approx(10)
    assert measured.rows[1].extra["adds us"] == pytest.approx(0.2e6)
