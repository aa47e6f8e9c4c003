"""A linear start ends once, for each member by its own validation loss, and survives an interruption."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import memnet
from memnet import ClippedSGD, Ensemble, HalvingLR, LateSoftmax, MemN2N
from memnet.training import Experiment, LinearStart
from memnet.training.cli import MemnetCLI
from tasks import Evaluation
from tests.training.standins import assert_same

STANDINS = "tests.training.standins"
NETWORK = {
    "class_path": "memnet.MemN2N",
    "init_args": {
        "vocab_size": 178,
        "embedding_size": 4,
        "num_hops": 1,
        "num_sentences": 10,
        "normalizer": {"class_path": "memnet.LateSoftmax"},
    },
}
BABI = {
    "class_path": "tasks.Babi",
    "init_args": {"tasks": 1, "num_train": 40, "num_val": 8, "num_test": 10, "num_sentences": 10, "batch_size": 8},
}
MANY: dict[str, Any] = {
    "model": {
        "network": {"class_path": "memnet.Ensemble", "init_args": {"num_members": 3, "network": NETWORK}},
        "optimizer": {"class_path": "memnet.ClippedSGD", "init_args": {"lr": 0.02, "num_members": 3}},
        "scheduler": {"class_path": "memnet.HalvingLR", "init_args": {"every": 4}},
    },
    "data": {"class_path": "tasks.BabiEnsemble", "init_args": {"restarts": 3, "babi": BABI}},
    "trainer": {
        "max_steps": 20,
        "val_check_interval": 2,
        "log_every_n_steps": 4,
        "accelerator": "cpu",
        "callbacks": [
            {"class_path": "memnet.training.LinearStart", "init_args": {"patience": 1, "longest": 6}},
            {"class_path": "tests.training.test_linear_start.KeepStarts"},
        ],
    },
}
ONE = copy.deepcopy(MANY)
ONE["model"] |= {"network": NETWORK, "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02}}}
ONE["data"] = BABI


class KeepStarts(pl.Callback):
    """Writes after each validation which members have their softmax, and the schedule, to ``starts.pt``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            softmax = next(module for module in pl_module.modules() if isinstance(module, LateSoftmax))
            schedule = trainer.lr_scheduler_configs[0].scheduler
            row = {"in": softmax.inserted.reshape(-1), "counts": schedule.counts, "lr": schedule.get_last_lr()}
            self.rows.append(copy.deepcopy(row))
            torch.save(self.rows, "starts.pt")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


def starts():
    return torch.load("starts.pt", weights_only=True)


@pytest.mark.parametrize("config", [MANY, ONE], ids=["ensemble", "one model"])
def test_a_start_ends_once_and_the_schedule_begins_with_it(config, write, exit_code):
    assert exit_code("fit", "--config", write(config)) is None
    rows = starts()
    assert len(rows) == 10
    inserted = torch.stack([row["in"] for row in rows])
    assert not inserted[0].any()  # the first validation is the lowest so far
    assert inserted[5:].all()  # the sixth is the last
    assert (inserted[1:] >= inserted[:-1]).all()  # never taken out again
    at = inserted.int().argmax(0)
    for validation, row in enumerate(rows):
        steps = 2 * (validation - at).clamp(min=0)  # since it came in
        assert row["counts"].tolist() == steps.tolist()
    best = Path("runs/tiny/version_0/checkpoints/last.ckpt")
    network = memnet.load(best)
    member = network.member(1) if isinstance(network, Ensemble) else network
    assert member.hops[0].addressing.normalizer.inserted


@pytest.mark.parametrize("config", [MANY, ONE], ids=["ensemble", "one model"])
@pytest.mark.parametrize("step", [3, 8, 15])
def test_resumed_equals_uninterrupted(config, step, write, exit_code):
    assert exit_code("fit", "--config", write(config, "whole")) is None
    expected = starts()
    broken = copy.deepcopy(config)
    broken["trainer"]["callbacks"].append(
        {"class_path": f"{STANDINS}.SignalAt", "init_args": {"step": step, "name": "SIGTERM"}}
    )
    assert exit_code("fit", "--config", write(broken, "broken")) == 143
    last = "runs/broken/version_0/checkpoints/last.ckpt"
    assert exit_code("fit", "--config", write(config, "again"), "--ckpt_path", last) is None
    one, other = (
        torch.load(f"runs/{run}/version_0/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "again")
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "random_state"):
        assert_same(one[part], other[part])
    assert_same(expected[-1], starts()[-1])


def validate(callback, trainer, experiment, losses, sanity=False):
    """One validation in two batches, with each member's loss."""
    trainer.sanity_checking = sanity
    callback.on_validation_start(trainer, experiment)
    for part in (0.25, 0.75):
        nats = part * torch.tensor(losses).repeat_interleave(2) / 2
        evaluation = Evaluation(torch.tensor(0.0), {"nats": nats}, torch.zeros(0))
        callback.on_validation_batch_end(trainer, experiment, evaluation, None, 0)
    callback.on_validation_end(trainer, experiment)
    softmax = experiment.network.network.hops[0].addressing.normalizer
    return softmax.inserted.tolist()


def made(members=2):
    experiment = Experiment(Ensemble(lambda: MemN2N(5, normalizer=LateSoftmax()), members))
    optimizer = ClippedSGD(experiment.parameters(), lr=0.8, num_members=members)
    schedule = HalvingLR(optimizer, every=1)
    trainer = Mock(spec=pl.Trainer)
    trainer.state = SimpleNamespace(fn="fit")
    trainer.strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    trainer.lr_scheduler_configs = [SimpleNamespace(scheduler=schedule)]
    return experiment, trainer, schedule


def test_each_member_waits_for_its_own_loss():
    experiment, trainer, schedule = made()
    callback = LinearStart(patience=2, longest=5)
    callback.on_train_start(trainer, experiment)
    assert validate(callback, trainer, experiment, [0.0, 0.0], sanity=True) == [False, False]
    assert validate(callback, trainer, experiment, [3.0, 3.0]) == [False, False]
    assert validate(callback, trainer, experiment, [3.0, 2.0]) == [False, False]
    schedule.optimizer.step()
    schedule.step()
    assert schedule.counts.tolist() == [0, 0]
    # Equal is no improvement; the second member has waited once only.
    assert validate(callback, trainer, experiment, [3.5, 2.5]) == [True, False]
    schedule.optimizer.step()
    schedule.step()
    assert schedule.counts.tolist() == [1, 0]
    assert schedule.optimizer.param_groups[0]["member_lrs"].tolist() == pytest.approx([0.4, 0.8])
    assert validate(callback, trainer, experiment, [9.0, 1.0]) == [True, False]
    assert validate(callback, trainer, experiment, [1.0, 0.5]) == [True, True]  # the longest is over
    # The first member's schedule is not started again.
    assert schedule.counts.tolist() == [1, 0]


def test_a_loss_that_is_no_number_is_no_improvement():
    experiment, trainer, _ = made()
    callback = LinearStart(patience=1, longest=None)
    callback.on_train_start(trainer, experiment)
    assert validate(callback, trainer, experiment, [float("nan"), 1.0]) == [True, False]


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="patience is 0"):
        LinearStart(patience=0)
    with pytest.raises(ValueError, match="longest is 0"):
        LinearStart(longest=0)
    experiment, trainer, _ = made()
    with pytest.raises(ValueError, match="monitor is 'bits', but the task's metrics are nats"):
        validate(LinearStart(monitor="bits"), trainer, experiment, [1.0, 1.0])
    with pytest.raises(ValueError, match="the Linear has no LateSoftmax"):
        LinearStart().on_train_start(trainer, Experiment(nn.Linear(2, 2)))
