"""Averaged weights are what is validated, saved as best and loaded; training itself never sees them."""

import copy
from pathlib import Path

import pytest
import torch

import memnet
from memnet.training import AveragedWeights
from memnet.training.cli import MemnetCLI
from tests.training.standins import assert_same
from tests.training.test_interrupts import STANDINS, rows_without_time, with_dropout

AVERAGING = {"class_path": "memnet.training.AveragedWeights", "init_args": {"decay": 0.5}}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


@pytest.fixture
def experiment(tiny):
    config = with_dropout(tiny)
    config["trainer"]["callbacks"] = [AVERAGING, {"class_path": f"{STANDINS}.KeepWeights"}]
    return config


def weights(checkpoint, part="state_dict"):
    return torch.load(checkpoint, weights_only=True)[part]


def test_the_average_is_of_the_weights_after_every_step(experiment, write, exit_code):
    experiment["trainer"] |= {"max_steps": 3, "val_check_interval": 3}
    assert exit_code("fit", "--config", write(experiment)) is None
    steps = torch.load("weights.pt", weights_only=True)
    assert len(steps) == 3
    expected = {name: steps[0][name] for name in steps[0]}
    for step in steps[1:]:
        expected = {name: 0.5 * expected[name] + 0.5 * step[name] for name in expected}
    checkpoints = Path("runs/tiny/version_0/checkpoints")
    for name, value in weights(checkpoints / "best.ckpt").items():
        torch.testing.assert_close(value, expected[name])
        assert torch.equal(weights(checkpoints / "last.ckpt")[name], value)
        assert torch.equal(weights(checkpoints / "last.ckpt", "training_weights")[name], steps[-1][name])
    loaded = memnet.load(checkpoints / "best.ckpt").state_dict()
    torch.testing.assert_close(loaded, {name.removeprefix("network."): value for name, value in expected.items()})


def test_training_is_what_it_is_without(experiment, tiny, write, exit_code):
    without = copy.deepcopy(experiment)
    without["trainer"]["callbacks"] = without["trainer"]["callbacks"][1:]
    assert exit_code("fit", "--config", write(experiment, "average")) is None
    averaged = torch.load("weights.pt", weights_only=True)
    assert exit_code("fit", "--config", write(without, "plain")) is None
    assert_same(averaged, torch.load("weights.pt", weights_only=True))


@pytest.mark.parametrize(("step", "name", "code"), [(7, "SIGTERM", 143), (5, "SIGINT", 130)])
def test_resumed_equals_uninterrupted(experiment, write, exit_code, step, name, code):
    assert exit_code("fit", "--config", write(experiment, "whole")) is None
    broken = copy.deepcopy(experiment)
    broken["trainer"]["callbacks"].append(
        {"class_path": f"{STANDINS}.SignalAt", "init_args": {"step": step, "name": name}}
    )
    assert exit_code("fit", "--config", write(broken, "broken")) == code
    last = "runs/broken/version_0/checkpoints/last.ckpt"
    assert exit_code("fit", "--config", write(experiment, "again"), "--ckpt_path", last) is None
    one, other = (
        torch.load(f"runs/{run}/version_0/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "again")
    )
    for part in ("state_dict", "training_weights", "optimizer_states", "global_step", "random_state"):
        assert_same(one[part], other[part])
    assert rows_without_time("runs/whole/version_0") == rows_without_time("runs/again/version_0")


def test_a_failure_in_validation_leaves_trainings_own_weights(experiment, write, exit_code):
    experiment["trainer"]["callbacks"].append({"class_path": f"{STANDINS}.FailInValidation"})
    assert exit_code("fit", "--config", write(experiment)) == 1
    steps = torch.load("weights.pt", weights_only=True)
    last = weights("runs/tiny/version_0/checkpoints/last.ckpt", "training_weights")
    assert_same(last, steps[-1])
    assert not torch.equal(
        next(iter(weights("runs/tiny/version_0/checkpoints/last.ckpt").values())), next(iter(last.values()))
    )


def test_a_decay_out_of_range_is_refused():
    for decay in (-0.1, 1.0, 2.0):
        with pytest.raises(ValueError, match=rf"decay is {decay}, but must be at least 0 and less than 1"):
            AveragedWeights(decay)
