"""A run that is interrupted says so by its exit code, and resumed ends as if it never had been."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from memnet.__main__ import main
from memnet.training.cli import MemnetCLI
from memnet.training.runs import read_metrics
from tests.training.conftest import TINY
from tests.training.standins import assert_same

STANDINS = "tests.training.standins"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take longer than all else here, and other tests look at them."""
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


def with_dropout(config):
    """Twelve steps of a network with dropout and a schedule: they end alike only if everything is restored."""
    init_args = {"input_size": 4, "output_size": 3}
    config["model"]["network"] = {"class_path": f"{STANDINS}.Dropping", "init_args": init_args}
    config["model"]["scheduler"] = {
        "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
        "init_args": {"T_max": 12},
    }
    config["trainer"] |= {"max_steps": 12, "val_check_interval": 5, "log_every_n_steps": 3}
    # Lightning's own logging goes by a count of Lightning's own.
    config["trainer"]["callbacks"] = [{"class_path": "pytorch_lightning.callbacks.LearningRateMonitor"}]
    return config


@pytest.fixture
def random_experiment(tiny):
    return with_dropout(tiny)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of that experiment which nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    config = folder / "whole.yaml"
    config.write_text(yaml.safe_dump(with_dropout(copy.deepcopy(TINY))))
    main(["fit", "--config", str(config), "--run_dir", str(folder)])
    return folder / "whole" / "version_0"


def callback(name, /, **arguments):
    return {"class_path": f"{STANDINS}.{name}", "init_args": arguments}


def assert_same_run(one, other):
    """Weights, optimiser, schedule, counters and metrics of two finished runs are equal."""
    left, right = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (one, other))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "sequences", "random_state"):
        assert_same(left[part], right[part])
    assert rows_without_time(one) == rows_without_time(other)


def rows_without_time(run):
    rows = read_metrics(Path(run) / "metrics.csv")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (callback("SignalAt", step=7, name="SIGTERM"), 143),
        (callback("SignalAt", step=7, name="SIGINT"), 130),
        # At a step with validation, and at one where metrics are written.
        (callback("SignalAt", step=5, name="SIGTERM"), 143),
        (callback("SignalAt", step=9, name="SIGINT"), 130),
    ],
)
def test_resumed_equals_uninterrupted(whole, random_experiment, write, exit_code, stop, code):
    broken = copy.deepcopy(random_experiment)
    broken["trainer"]["callbacks"].append(stop)
    assert exit_code("fit", "--config", write(broken, "broken")) == code
    last = Path("runs/broken/version_0/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == stop["init_args"]["step"]

    assert exit_code("fit", "--config", write(random_experiment, "broken"), "--ckpt_path", str(last)) is None
    assert_same_run(whole, Path("runs/broken/version_1"))


def test_resumed_from_what_a_killed_run_leaves(whole, random_experiment, write, exit_code, tmp_path):
    kept = tmp_path / "kept" / "checkpoints" / "last.ckpt"
    kept.parent.mkdir(parents=True)
    keeping = copy.deepcopy(random_experiment)
    keeping["trainer"]["callbacks"].append(callback("KeepLastAt", step=8, path=str(kept)))
    assert exit_code("fit", "--config", write(keeping)) is None
    assert torch.load(kept, weights_only=True)["global_step"] == 5  # saved after validation
    for name in ("config.yaml", "metrics.csv"):
        (tmp_path / "kept" / name).write_bytes(Path("runs/tiny/version_0", name).read_bytes())
    assert exit_code("fit", "--config", write(random_experiment), "--ckpt_path", str(kept)) is None
    assert_same_run(whole, Path("runs/tiny/version_0"))
    assert_same_run(whole, Path("runs/tiny/version_1"))


def test_a_failed_step_is_taken_again(tiny, write, exit_code, capsys):
    tiny["trainer"]["check_val_every_n_epoch"] = None  # then Lightning goes by its count of batches begun
    assert exit_code("fit", "--config", write(tiny, "whole")) is None
    broken = tiny | {"trainer": tiny["trainer"] | {"callbacks": [callback("FailAt", step=6)]}}
    assert exit_code("fit", "--config", write(broken, "broken")) == 1
    assert "failed as it was told" in capsys.readouterr().err
    last = "runs/broken/version_0/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 6
    assert exit_code("fit", "--config", write(tiny, "broken"), "--ckpt_path", last) is None
    # Without dropout nothing hangs on the random numbers that the failed step has used up.
    one, other = (torch.load(f"runs/{run}/checkpoints/last.ckpt") for run in ("whole/version_0", "broken/version_1"))
    for part in ("state_dict", "optimizer_states", "sequences"):
        assert_same(one[part], other[part])
    assert rows_without_time("runs/whole/version_0") == rows_without_time("runs/broken/version_1")


def test_resuming_keeps_the_better_checkpoint(tiny, write, exit_code):
    assert exit_code("fit", "--config", write(tiny)) is None
    first = Path("runs/tiny/version_0/checkpoints")
    last = torch.load(first / "last.ckpt", weights_only=True)
    last["callbacks"]["memnet.Checkpoints"]["best_value"] = -1.0
    torch.save(last, first / "last.ckpt")
    assert (
        exit_code("fit", "--config", write(tiny), "--ckpt_path", str(first / "last.ckpt"), "--trainer.max_steps=9")
        is None
    )
    assert Path("runs/tiny/version_1/checkpoints/best.ckpt").read_bytes() == (first / "best.ckpt").read_bytes()


def test_the_second_ctrl_c_stops_amid_the_step_and_saves_nothing(tiny, write, exit_code):
    for version, (times, saved) in enumerate([(1, 6), (2, 4)]):
        tiny["trainer"]["callbacks"] = [callback("SignalAmid", step=5, name="SIGINT", times=times)]
        assert exit_code("fit", "--config", write(tiny)) == 130
        last = torch.load(f"runs/tiny/version_{version}/checkpoints/last.ckpt", weights_only=True)
        assert last["global_step"] == saved


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_exit_codes_of_the_real_process(tiny, write, number, code):
    tiny["trainer"] |= {"max_steps": 1_000_000}
    command = [sys.executable, "-m", "memnet", "fit", "--config", write(tiny)]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        last = Path("runs/tiny/version_0/checkpoints/last.ckpt")
        deadline = time.monotonic() + 60
        while not last.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, error
    assert "Traceback" not in error and f"--ckpt_path {last}" in error
