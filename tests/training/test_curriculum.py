"""A curriculum grows when its loss is low, and draws the same examples when a run is resumed."""

import copy
from itertools import islice
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch

from memnet.training import Curriculum
from memnet.training.cli import MemnetCLI
from tasks import AssociativeRecall, Copy, NGrams, SequenceBatch
from tests.training.standins import assert_same

STANDINS = "tests.training.standins"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


def begun(curriculum, task):
    trainer = Mock(spec=pl.Trainer)
    trainer.datamodule, trainer.strategy = task, SimpleNamespace(reduce=lambda x, reduce_op: x)
    curriculum.setup(trainer, Mock(spec=pl.LightningModule), "fit")
    return trainer


def train(curriculum, trainer, batches, nats_per_bit):
    """Batches of four vectors in all, with a loss of so many nats for each target bit."""
    mask = torch.zeros(2, 5, dtype=torch.bool)
    mask[0, 2:5] = mask[1, 4] = True
    batch = SequenceBatch(torch.zeros(2, 5, 4), torch.zeros(2, 5, 3), mask, torch.tensor([5, 5]))
    for _ in range(batches):
        loss = torch.tensor(nats_per_bit * 4 * 3 / 2)
        curriculum.on_train_batch_end(trainer, Mock(spec=pl.LightningModule), {"loss": loss}, batch, 0)


def test_the_length_doubles_once_the_loss_of_a_bit_is_below_the_bound():
    curriculum, task = Curriculum(start=3, stop=10, bound=0.1, num_batches=4), Copy(max_length=10)
    trainer = begun(curriculum, task)
    train(curriculum, trainer, 8, 0.101)
    assert curriculum.growth.longest == {0: 3}
    train(curriculum, trainer, 3, 0.099)
    assert curriculum.growth.longest == {0: 3}
    train(curriculum, trainer, 1, 0.099)
    # 12 batches are over, number 12 may have been drawn: the first with longer examples is number 13.
    assert curriculum.growth.longest == {0: 3, 13: 6}
    train(curriculum, trainer, 4, 0.0)  # number 12 does not count
    assert curriculum.growth.longest == {0: 3, 13: 6}
    train(curriculum, trainer, 20, 0.0)
    assert curriculum.growth.longest == {0: 3, 13: 6, 18: 10}  # no farther than it shall


@pytest.mark.parametrize("kind", [Copy, AssociativeRecall])
def test_examples_are_as_long_as_the_curriculum_says(kind):
    limit = {"max_length": 20} if kind is Copy else {"max_items": 20}
    task, curriculum = kind(batch_size=16, **limit), Curriculum(start=2, stop=20)
    begun(curriculum, task)
    stream = iter(task.train_dataloader())
    drawn = [next(stream)]
    curriculum.growth.longest |= {3: 4, 5: 20}  # heeded by a stream that is under way
    drawn += islice(stream, 11)
    steps = [int(batch.lengths.max()) for batch in drawn]
    most = [(each - 1) // 2 if kind is Copy else (each - 9) // 4 for each in steps]
    assert max(most[:3]) <= 2 < max(most[3:5]) <= 4
    assert 10 < max(most[5:]) <= 20
    task.batches_consumed = 4
    resumed = task.train_dataloader()
    for batch, again in zip(drawn[4:], resumed, strict=False):
        assert all(torch.equal(one, other) for one, other in zip(batch, again, strict=True))
    with pytest.raises(TypeError, match="endless"):
        len(resumed)


def test_validation_is_that_of_the_whole_task():
    task = Copy(max_length=20, num_val=64)
    before = next(iter(task.val_dataloader()))
    begun(Curriculum(start=1, stop=20), task)
    after = next(iter(task.val_dataloader()))
    assert torch.equal(before.inputs, after.inputs)


@pytest.mark.parametrize("step", [2, 3, 5, 8])
def test_resumed_equals_uninterrupted(step, tiny, write, exit_code):
    tiny["data"]["init_args"]["max_length"] = 7
    tiny["trainer"] |= {"max_steps": 12, "val_check_interval": 5}
    # Every loss is low enough.
    init_args = {"start": 1, "stop": 7, "bound": 10.0, "num_batches": 2}
    tiny["trainer"]["callbacks"] = [{"class_path": "memnet.training.Curriculum", "init_args": init_args}]
    assert exit_code("fit", "--config", write(tiny, "whole")) is None
    broken = copy.deepcopy(tiny)
    signal = {"class_path": f"{STANDINS}.SignalAt", "init_args": {"step": step, "name": "SIGTERM"}}
    broken["trainer"]["callbacks"].append(signal)
    assert exit_code("fit", "--config", write(broken, "broken")) == 143
    last = "runs/broken/version_0/checkpoints/last.ckpt"
    assert exit_code("fit", "--config", write(tiny, "again"), "--ckpt_path", last) is None
    one, other = (
        torch.load(f"runs/{run}/version_0/checkpoints/last.ckpt", weights_only=True) for run in ("whole", "again")
    )
    for part in ("state_dict", "optimizer_states", "global_step", "sequences"):
        assert_same(one[part], other[part])
    (curriculum,) = (state for name, state in one["callbacks"].items() if "Curriculum" in name)
    assert curriculum["longest"] == {0: 1, 3: 2, 6: 4, 9: 7}


def test_what_cannot_work_is_refused():
    for settings, message in [
        ({"start": 0, "stop": 4}, "start is 0"),
        ({"start": 5, "stop": 4}, "start is 5, but must not be larger than stop, which is 4"),
        ({"start": 1, "stop": 4, "bound": 0.0}, "bound is 0.0"),
        ({"start": 1, "stop": 4, "num_batches": 0}, "num_batches is 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            Curriculum(**settings)
    with pytest.raises(ValueError, match="the examples of NGrams cannot be limited in length"):
        begun(Curriculum(start=1, stop=4), NGrams())
