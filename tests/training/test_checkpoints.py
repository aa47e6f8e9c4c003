"""``memnet.load``, and checkpoints of experiments that were built in Python."""

import pytest
import pytorch_lightning as pl
import torch

import memnet
import tasks
from memnet.training import Experiment, experiment_from_config


@pytest.fixture
def checkpoint(trained):
    return trained / "checkpoints/best.ckpt"


def test_load_gives_the_trained_network(checkpoint):
    network = memnet.load(checkpoint)
    assert type(network) is memnet.NTM and not network.training
    again = Experiment.load_from_checkpoint(checkpoint, weights_only=True).network.eval()
    inputs = torch.rand(2, 5, 4)
    assert torch.equal(network(inputs)[0], again(inputs)[0])
    torch.manual_seed(1)
    assert not torch.equal(network(inputs)[0], memnet.NTM(4, 3, 6, 4)(inputs)[0])


def edited(checkpoint, path, change):
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_what_is_no_checkpoint(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt does not exist"):
        memnet.load(tmp_path / "none.ckpt")
    with pytest.raises(IsADirectoryError, match=r"is not a file.*checkpoints/best\.ckpt"):
        memnet.load(tmp_path)
    cut = tmp_path / "cut.ckpt"
    for size in (0, 10, 1000, checkpoint.stat().st_size - 100):
        cut.write_bytes(checkpoint.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"cut\.ckpt is truncated or not a checkpoint"):
            memnet.load(cut)
    other = tmp_path / "other.ckpt"
    for content in ({"weights": 1}, [1, 2], {"state_dict": {"layer.weight": torch.zeros(2)}}):
        torch.save(content, other)
        with pytest.raises(ValueError, match=r"other\.ckpt is not a checkpoint of memnet"):
            memnet.load(other)


class Payload:
    """Pickled code: what a checkpoint must never be able to run."""

    ran = False

    def __reduce__(self):
        return (setattr, (Payload, "ran", True))


def test_pickled_code_is_not_run(checkpoint, tmp_path):
    path = edited(checkpoint, tmp_path / "evil.ckpt", lambda content: content.update(extra=Payload()))
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        memnet.load(path)
    assert not Payload.ran


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda content: content["hyper_parameters"]["network"]["init_args"].update(slot_size=5),
            r"of another network than this NTM: cell\S+ is \(.*4\) there and \(.*5\) here",
        ),
        (
            lambda content: content["state_dict"].pop(next(iter(content["state_dict"]))),
            r"of another network.*it has no",
        ),
        (lambda content: content["state_dict"].update({"network.more": torch.zeros(1)}), r"it has a more, which"),
        (lambda content: content["hyper_parameters"]["network"].update(class_path="memnet.Gone"), r"memnet\.Gone"),
        (lambda content: content["hyper_parameters"]["network"].update(class_path="torch.optim.Adam"), r"optim\.Adam"),
        (lambda content: content.pop("hyper_parameters"), r"does not say how its network was built"),
    ],
)
def test_a_checkpoint_of_another_model(checkpoint, tmp_path, change, says):
    path = edited(checkpoint, tmp_path / "changed.ckpt", change)
    with pytest.raises(ValueError, match=says) as caught:
        memnet.load(path)
    assert "\n" not in str(caught.value) and "changed.ckpt" in str(caught.value)


def test_python_users_get_whole_checkpoints(tiny, tmp_path):
    experiment, task = experiment_from_config({"model": tiny["model"], "data": tiny["data"]})
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, **QUIET)
    trainer.fit(experiment, datamodule=task)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    network = memnet.load(tmp_path / "mine.ckpt")
    inputs = torch.rand(2, 5, 4)
    assert torch.equal(network(inputs)[0], experiment.network.eval()(inputs)[0])


def test_an_experiment_built_by_hand_pickles_nothing(tmp_path):
    experiment = Experiment(memnet.NTM(4, 3, num_slots=6, slot_size=4))
    task = tasks.Copy(num_bits=3, max_length=2, num_val=2)
    trainer = pl.Trainer(max_steps=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, **QUIET)
    trainer.fit(experiment, datamodule=task)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert torch.load(tmp_path / "mine.ckpt", weights_only=True)["global_step"] == 2
    with pytest.raises(ValueError, match=r"does not say how its network was built.*experiment_from_config"):
        memnet.load(tmp_path / "mine.ckpt")


QUIET = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}


def test_an_experiment_needs_a_task_that_fits(tmp_path):
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="input_size 4"):
        trainer.fit(Experiment(memnet.NTM(4, 3)), datamodule=tasks.Copy())
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, **QUIET)
    loader = torch.utils.data.DataLoader(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"datamodule is NoneType, but an Experiment needs a tasks\.Task"):
        trainer.fit(Experiment(memnet.NTM(4, 3)), train_dataloaders=loader)
