"""Checkpoints say what they were made with and on; others are announced."""

import re
import warnings
from pathlib import Path

import pytest
import torch

import memnet
import tasks
from memnet.training.provenance import changes, fingerprint, provenance, versions

LAST = "checkpoints/last.ckpt"


def test_a_checkpoint_says_where_it_comes_from(trained):
    kept = torch.load(trained / LAST, weights_only=True)["provenance"]
    assert kept["versions"] == versions() and kept["versions"]["torch"] == str(torch.__version__)
    assert kept["seed"] == 1 and kept["machine"]["threads"] >= 1
    assert kept["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", kept["commit"])
    assert re.fullmatch(r"[0-9a-f]{16}", kept["data"])
    assert torch.load(trained / "checkpoints/best.ckpt", weights_only=True)["provenance"] == kept


def test_the_fingerprint_is_that_of_the_data():
    def of(**arguments):
        return fingerprint(
            tasks.Copy(num_bits=3, max_length=3, num_val=4) if not arguments else tasks.Copy(**arguments)
        )

    same = {"num_bits": 3, "max_length": 3, "num_val": 4}
    assert of(**same) == of(**same) == of()
    for change in ({"seed": 2}, {"max_length": 4}, {"num_val": 5}, {"batch_size": 3}):
        assert of(**(same | change)) != of(**same)
    task = tasks.Copy(**same)
    task.batches_consumed = 7
    assert fingerprint(task) == of(**same) and task.batches_consumed == 7


def test_what_has_changed_is_said():
    now = provenance(1, tasks.Copy(num_val=1))
    assert changes(now, now) == changes(None, now) == []
    before = now | {"versions": now["versions"] | {"torch": "2.0.1"}, "data": "0" * 16}
    other_version, other_data = changes(before, now)
    assert "written with torch 2.0.1, and this is" in other_version and "the data are others" in other_data


def test_resuming_and_loading_announce_another_version(trained, tmp_path, exit_code, capsys):
    content = torch.load(trained / LAST, weights_only=True)
    content["provenance"]["versions"]["torch"] = "2.0.1"
    path = tmp_path / "old.ckpt"
    torch.save(content, path)
    config = ["--config", str(trained / "config.yaml"), "--run_dir", str(tmp_path), "--trainer.max_steps", "9"]
    assert exit_code("fit", *config, "--ckpt_path", str(path)) is None
    assert capsys.readouterr().err.count("written with torch 2.0.1") == 1
    with pytest.warns(UserWarning, match=r"written with torch 2\.0\.1") as caught:
        memnet.load(path)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memnet.load(Path(trained / LAST))
