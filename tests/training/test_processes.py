"""Two processes learn what one learns, resume to the bit, and stop together."""

import contextlib
import copy
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from memnet.training import NumericalHealth, experiment_from_config
from memnet.training.callbacks import Checkpoints, ResumeExactly
from memnet.training.runs import MetricsFile, RunFolder, read_metrics
from tests.training.standins import KeepLastAt, Spoil, assert_same
from tests.training.test_interrupts import STANDINS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="processes are forked, which a GPU's driver forbids")
SECONDS = 120.0


def within_time(function, *arguments):
    """Calls it in a process group that is killed when it takes too long: processes that wait for each other hang."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        pytest.fail(f"it did not end within {SECONDS} s")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def train(config, folder, devices, callbacks=(), resume=None):
    """What the command does, with processes that are forked, as importing everything anew takes half a minute."""
    pl.seed_everything(1)
    experiment, task = experiment_from_config({key: config[key] for key in ("model", "data")})
    run = RunFolder(folder)
    run.path.mkdir(parents=True)
    settings = config["trainer"] | {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto"}
    trainer = pl.Trainer(
        **settings,
        callbacks=[ResumeExactly(), *callbacks, NumericalHealth(), Checkpoints(run)],
        logger=MetricsFile(run),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(experiment, datamodule=task, ckpt_path=resume, weights_only=True)


def last(folder):
    return torch.load(Path(folder, "checkpoints/last.ckpt"), weights_only=True)


def close(one, other):
    """The rows of two runs agree but for the order of summation."""
    left, right = (read_metrics(Path(each, "metrics.csv")) for each in (one, other))
    assert len(left) == len(right) > 3
    for row, twin in zip(left, right, strict=True):
        assert row.keys() == twin.keys()
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(twin[name], rel=2e-5, abs=1e-6), (name, row, twin)
    return left


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def translation():
    """Sentences of different lengths, so the processes have different numbers of symbols, and of sentences."""
    network = yaml.safe_load((Path(__file__).parents[2] / "configs/transformer_translation.yaml").read_text())
    settings = network["model"]["network"]["init_args"] | {"model_size": 8, "num_heads": 2, "feed_forward_size": 8}
    settings |= {"num_encoder_layers": 1, "num_decoder_layers": 1, "dropout": 0.0}
    data = {"num_train": 2000, "num_val": 7, "num_test": 1, "max_tokens": 128, "max_length": 5, "eval_batch_size": 4}
    return {
        "model": {
            "network": {"class_path": "memnet.Transformer", "init_args": settings},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        },
        "data": {"class_path": "tasks.Translation", "init_args": data},
        "trainer": {"max_steps": 6, "val_check_interval": 3, "log_every_n_steps": 1, "accelerator": "cpu"},
    }


@pytest.mark.parametrize("task", ["copy", "translation"])
def test_two_processes_learn_what_one_learns(tiny, folder, task):
    config = tiny if task == "copy" else translation()
    config["trainer"]["gradient_clip_val"] = 1.0
    assert within_time(train, config, folder / "one", 1) == 0
    assert within_time(train, config, folder / "two", 2) == 0
    one, two = last(folder / "one"), last(folder / "two")
    rows = close(folder / "one", folder / "two")
    assert rows[0]["train/loss"] != rows[-2]["train/loss"]
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-4, atol=1e-5)


def test_two_processes_resume_to_the_bit(tiny, folder):
    config = copy.deepcopy(tiny)
    init_args = {"input_size": 4, "output_size": 3}
    config["model"]["network"] = {"class_path": f"{STANDINS}.Dropping", "init_args": init_args}
    kept = folder / "kept.ckpt"
    assert within_time(train, config, folder / "whole", 2, [KeepLastAt(6, str(kept))]) == 0
    states = torch.load(kept, weights_only=True)["random_states"]
    assert len(states) == 2 and not torch.equal(states[0]["torch"], states[1]["torch"])
    assert within_time(train, config, folder / "again", 2, [], str(kept)) == 0
    one, other = last(folder / "whole"), last(folder / "again")
    for part in ("state_dict", "optimizer_states", "random_states", "sequences"):
        assert_same(one[part], other[part])


@pytest.mark.parametrize("where", ["batch", "gradient"])
def test_a_nan_in_one_process_stops_both(tiny, folder, capfd, where):
    init_args = {"input_size": 4, "output_size": 3}
    tiny["model"]["network"] = {"class_path": f"{STANDINS}.Dropping", "init_args": init_args}
    assert within_time(train, tiny, folder / "run", 2, [Spoil(where, 5, rank=1)]) == 1
    error = capfd.readouterr().err
    assert "at step 5 (16 sequences)" in error
    if where == "batch":
        assert "in process 1; it began in its inputs" in error
    assert last(folder / "run")["global_step"] == 4
    assert torch.load(folder / "run/health/step_5.pt", weights_only=True)["step"] == 5
    shutil.rmtree(folder / "run")
