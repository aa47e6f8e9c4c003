"""Every experiment in ``configs/`` parses, trains for a few steps, tests and loads."""

from pathlib import Path

import pytest
import torch
import yaml

import memnet
from memnet.__main__ import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def test_the_experiments_of_the_paper_are_there():
    tasks = ("copy", "repeat_copy", "associative_recall", "ngrams", "priority_sort")
    expected = {f"{network}_{task}" for network in ("ntm", "ntm_ff") for task in tasks}
    assert {path.stem for path in CONFIGS} >= expected | {"lstm_copy", "lstm_priority_sort"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_and_loads(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.num_sanity_val_steps", "0"]
    few += ["--data.num_val", "2", "--data.num_test", "2", "--data.eval_batch_size", "2"]
    main(["fit", "--config", str(config), *few])
    run = tmp_path / "runs" / config.stem / "version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    network = memnet.load(run / "checkpoints" / "best.ckpt")
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    outputs, _ = network(torch.zeros(1, 2, network.input_size))
    assert outputs.shape == (1, 2, network.output_size)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_how_it_is_run_and_what_to_expect(config):
    """Its header: the command, and a result or why there is none. And it is whole, for one task and one network."""
    text = config.read_text()
    header = text[: text.index("seed_everything")]
    assert f"memnet fit --config configs/{config.name}" in header
    assert "Expect" in header
    content = yaml.safe_load(text)
    assert content.keys() >= {"seed_everything", "model", "data", "trainer"}
    assert content["model"].keys() >= {"network", "optimizer"}
