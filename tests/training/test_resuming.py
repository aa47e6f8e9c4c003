"""Every experiment resumes to the bit, and no checkpoint is lost to a full disk or an ill-timed kill."""

import itertools
import os
import resource
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from memnet.training.cli import MemnetCLI
from memnet.training.runs import RunFolder, newest_checkpoint, read_metrics
from memnet.training.writing import write_whole
from tests.test_configs import CONFIGS, few
from tests.training.standins import assert_same
from tests.training.test_interrupts import STANDINS, rows_without_time

# One of each kind: averaged weights; dropout and a schedule; batches of their own sizes; sampled slots.
QUICK = {"ntm_ff_ngrams", "transformer_date", "attention_translation", "hard_attention_date"}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[] if path.stem in QUICK else pytest.mark.slow, id=path.stem) for path in CONFIGS],
)
def test_an_experiment_resumes_to_the_bit(path, write, exit_code, tmp_path):
    config = yaml.safe_load(path.read_text())
    keep = {"class_path": f"{STANDINS}.KeepLastAt", "init_args": {"step": 3, "path": "kept.ckpt"}}
    config["trainer"]["log_every_n_steps"] = 1
    again = write(config, "again")
    config["trainer"]["callbacks"] = [*config["trainer"].get("callbacks", []), keep]
    flags = ["--name", "tiny", *few(path, tmp_path), "--trainer.max_steps", "4"]
    assert exit_code("fit", "--config", write(config), *flags) is None
    kept = torch.load("kept.ckpt", weights_only=True)
    assert kept["global_step"] == 2
    assert exit_code("fit", "--config", again, *flags, "--ckpt_path", "kept.ckpt") is None
    one, other = (
        torch.load(f"runs/tiny/version_{number}/checkpoints/last.ckpt", weights_only=True) for number in (0, 1)
    )
    assert not all(map(torch.equal, kept["state_dict"].values(), one["state_dict"].values()))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "sequences"):
        assert_same(one[part], other[part])
    assert one.keys() == other.keys()
    if "training_weights" in one:
        assert_same(one["training_weights"], other["training_weights"])
    whole, resumed = (rows_without_time(f"runs/tiny/version_{number}") for number in (0, 1))
    assert resumed == [row for row in whole if row["step"] > 2]


def test_last_is_that_of_the_newest_run(tiny, write, exit_code, capsys):
    config = write(tiny)
    flags = ["fit", "--config", config, "--ckpt_path", "last"]
    assert exit_code(*flags) is None  # nothing there yet: a job that is queued again needs no second command
    assert "training starts from the beginning" in capsys.readouterr().err
    assert exit_code(*flags, "--trainer.max_steps", "10") is None
    assert exit_code("fit", "--config", config, "--ckpt_path=last", "--trainer.max_steps=12") is None
    steps = [
        torch.load(f"runs/tiny/version_{number}/checkpoints/last.ckpt", weights_only=True)["global_step"]
        for number in range(3)
    ]
    assert steps == [8, 10, 12]
    assert [row["step"] for row in read_metrics("runs/tiny/version_2/metrics.csv")][-1] == 12
    Path("runs/tiny/version_3").mkdir()  # of a run that was killed before it saved anything
    assert newest_checkpoint(Path("runs/tiny")) == Path("runs/tiny/version_2/checkpoints/last.ckpt")
    capsys.readouterr()
    assert exit_code("test", "--config", config, "--ckpt_path", "best") is None
    assert exit_code("test", "--config", config, "--ckpt_path", "best", "--name", "other") == 2
    assert "no run in runs/other has a best.ckpt" in capsys.readouterr().err


def test_a_full_disk_costs_that_checkpoint_only(tiny, write, exit_code, capsys):
    """Files may not grow beyond 8 kB between two steps, as on a disk without room."""
    tiny["trainer"] |= {"max_steps": 12, "val_check_interval": 2}
    plain = exit_code("fit", "--config", write(tiny, "plain"))
    tiny["trainer"]["callbacks"] = [{"class_path": "tests.training.test_resuming.NoRoom"}]
    assert plain is exit_code("fit", "--config", write(tiny)) is None
    said = capsys.readouterr().err
    assert "last.ckpt was not written" in said and "Traceback" not in said
    one, other = (
        torch.load(f"runs/{name}/version_0/checkpoints/last.ckpt", weights_only=True) for name in ("plain", "tiny")
    )
    assert_same(one["state_dict"], other["state_dict"])
    assert rows_without_time("runs/plain/version_0") == rows_without_time("runs/tiny/version_0")
    # What the missing checkpoint had to be compared with was kept, so a later one is the best.
    best = [torch.load(f"runs/{name}/version_0/checkpoints/best.ckpt")["global_step"] for name in ("plain", "tiny")]
    assert best[0] == best[1] > 8
    assert {path.name for path in Path("runs/tiny/version_0/checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_of_validations_that_are_equally_good_the_last_one_counts(tiny, write, exit_code, unchecked):
    tiny["model"]["optimizer"]["init_args"]["lr"] = 0.0
    tiny["trainer"] |= {"max_steps": 6, "val_check_interval": 2}
    assert exit_code("fit", "--config", write(tiny)) is None
    assert torch.load("runs/tiny/version_0/checkpoints/best.ckpt")["global_step"] == 6


class NoRoom(pl.Callback):
    """From the fourth step to the eighth there is no room; what is there by then stays readable."""

    def on_train_batch_end(self, trainer, *arguments):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if trainer.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))
        if trainer.global_step == 9:
            last = torch.load(Path(trainer.default_root_dir, "checkpoints", "last.ckpt"), weights_only=True)
            assert last["global_step"] == 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def teardown(self, *arguments, **keywords):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_a_kill_amid_writing_leaves_the_old_file(tmp_path):
    """Processes that do nothing but write are killed; at every moment the file is one of those they wrote."""
    path = tmp_path / "file"
    size = 300_000
    write_whole(path, b"\0" * size)

    def is_whole():
        content = path.read_bytes()
        return len(content) == size and len(set(content)) == 1

    for kill in range(5):
        child = os.fork()
        if child == 0:
            for number in itertools.count(kill):
                write_whole(path, bytes([number % 251]) * size)
        try:
            for _ in range(20 + kill):
                assert is_whole()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert is_whole()


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError):
            write_whole(path, b"new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_versions_are_numbers(tmp_path):
    for number in (9, 10):
        run = RunFolder(tmp_path / f"version_{number}")
        run.checkpoints.mkdir(parents=True)
        run.last.touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "version_10/checkpoints/last.ckpt"
    assert newest_checkpoint(tmp_path, "best") is None
