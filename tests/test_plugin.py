"""A scheme from outside the package: named by its path, trained, saved, loaded. Conformance: test_conformance.py."""

from pathlib import Path

import plugin_example
import pytest
import pytorch_lightning as pl
import torch
from plugin_example import RecencyAddressing

import memnet
from memnet import CosineScore, kernels
from memnet.training import experiment_from_config


def recency(key_size):
    score = {"class_path": "memnet.CosineScore", "init_args": {"key_size": key_size}}
    return {"class_path": "plugin_example.RecencyAddressing", "init_args": {"score": score}}


def config(read_addressing):
    network = {
        "class_path": "memnet.NTM",
        "init_args": {
            "input_size": 4,
            "output_size": 3,
            "num_slots": 6,
            "slot_size": 5,
            "controller": {"class_path": "memnet.LSTMController", "init_args": {"hidden_size": 8}},
            "read_addressing": read_addressing,
            "write_addressing": {"class_path": "memnet.LocationAddressing", "init_args": {"inner": recency(5)}},
        },
    }
    data = {"class_path": "tasks.Copy", "init_args": {"num_bits": 3, "max_length": 3, "batch_size": 4}}
    return {"model": {"network": network}, "data": data}


def test_it_is_short():
    assert len(Path(plugin_example.__file__).read_text().splitlines()) < 40


def test_train_save_and_load(tmp_path):
    experiment, task = experiment_from_config(config(recency(5)))
    addressings = experiment.network.cell.access.read_addressing, experiment.network.cell.access.write_addressing.inner
    assert all(type(addressing) is RecencyAddressing for addressing in addressings)
    before = [addressing.decay.item() for addressing in addressings]

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = pl.Trainer(max_steps=3, accelerator="cpu", limit_val_batches=0, **quiet)
    trainer.fit(experiment, task)
    trained = [addressing.decay.item() for addressing in addressings]
    assert all(x != y for x, y in zip(before, trained, strict=True))

    trainer.save_checkpoint(tmp_path / "plugin.ckpt")
    loaded = memnet.load(tmp_path / "plugin.ckpt")
    inputs = torch.randn(2, 5, 4)
    assert type(loaded.cell.access.read_addressing) is RecencyAddressing
    assert torch.equal(loaded(inputs)[0], experiment.network(inputs)[0])


def test_it_is_seen_by_a_recording():
    addressings = {f"{side}_addressing": RecencyAddressing(CosineScore(4)) for side in ("read", "write")}
    model = memnet.NTM(3, 2, num_slots=6, slot_size=4, **addressings)
    with memnet.record(model) as trace:
        model(torch.randn(2, 5, 3))
    assert trace["cell.access.read_addressing"].shape == (2, 5, 1, 6)


def test_no_kernel_takes_its_place():
    addressings = {f"{side}_addressing": RecencyAddressing(CosineScore(4)) for side in ("read", "write")}
    cell = memnet.NTM(3, 2, num_slots=6, slot_size=4, **addressings).cell
    assert kernels.find(cell, torch.randn(2, 5, 3), cell.init_state(2)) is None


def test_what_it_does():
    """Of slots that hold the same, the one written last gets the most."""
    addressing = RecencyAddressing(CosineScore(4))
    keys, emission = torch.ones(1, 3, 4), torch.zeros(1, 1, 5)
    state = addressing.init_state(keys, 1)
    for slot in (0, 2, 1):
        state = addressing.after_write(torch.nn.functional.one_hot(torch.tensor([[slot]]), 3).float(), state)
    assert state.age.tolist() == [[2, 0, 1]]
    weights, _ = addressing(emission, keys, state)
    decay = torch.nn.functional.softplus(addressing.decay)
    torch.testing.assert_close(weights[0, 0], (-decay * torch.tensor([2.0, 0.0, 1.0])).softmax(0))


@pytest.mark.parametrize(
    ("addressing", "parts"),
    [
        ({"class_path": "plugin_example.NoSuchAddressing"}, ["NoSuchAddressing"]),
        ({"class_path": "no_such_module.Addressing"}, ["no_such_module"]),
        ({"class_path": "memnet.CosineScore", "init_args": {"key_size": 5}}, ["memnet.CosineScore", "Addressing"]),
        (recency(7), ["read_addressing", "key_size is 7", "is 5"]),
    ],
    ids=["unknown class", "unknown module", "wrong base class", "another key width"],
)
def test_what_does_not_fit_is_refused(addressing, parts):
    with pytest.raises(
        Exception
    ) as caught:  # the parser's own error or a ValueError: both are one sentence to the user
        experiment_from_config(config(addressing))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
