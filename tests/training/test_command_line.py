"""``memnet fit, validate, test, predict`` and what they leave behind."""

import csv
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch
import yaml

import memnet
from memnet.training import progress
from memnet.training.callbacks import StopWhenSolved
from memnet.training.experiment import Experiment
from memnet.training.runs import RunFolder, read_metrics


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_fit_fills_the_run_folder_and_a_second_one_leaves_it_alone(tiny, write, exit_code, capsys):
    config = write(tiny)
    assert exit_code("fit", "--config", config) is None
    printed = capsys.readouterr().out
    first = Path("runs/tiny/version_0")
    before = files_of(first)
    assert before.keys() == {
        "config.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "plots/example_length_10.png",
        "plots/weights_length_10.png",
        "plots/learning_curve.png",
    }
    for name, content in before.items():
        if name.endswith(".png"):
            assert content[:4] == b"\x89PNG" and len(content) > 5_000
    # Without a terminal, a line for each of the two validations; at the end, what to type next.
    assert printed.count("val/bits") == 3 and "sequences/s" in printed
    assert f"memnet test --ckpt_path {first}/checkpoints/best.ckpt" in printed

    assert exit_code("fit", "--config", config) is None
    assert files_of(first) == before
    assert sorted(path.name for path in first.parent.iterdir()) == ["version_0", "version_1"]


def test_metrics_count_sequences_and_are_means_over_them(trained):
    rows = read_metrics(trained / "metrics.csv")
    assert [row["step"] for row in rows if "train/bits" in row] == [2, 4, 6, 8]
    assert [row["step"] for row in rows if "val/bits" in row] == [4, 8]
    assert all(row["sequences"] == 4 * row["step"] for row in rows)
    network = memnet.load(trained / "checkpoints/last.ckpt")
    _, task = memnet_task(trained)
    (batch,) = list(task.val_dataloader())
    bits = task.evaluate(network, batch).metrics["bits"].mean()
    assert rows[-1]["val/bits"] == pytest.approx(float(bits), rel=1e-5)  # float32 printed and read again


def memnet_task(run: Path):
    from memnet.training import experiment_from_config

    return experiment_from_config(run / "config.yaml")


def test_accumulated_batches_count_as_one_step(tiny, write, exit_code):
    tiny["trainer"]["accumulate_grad_batches"] = 3
    assert exit_code("fit", "--config", write(tiny), "--trainer.max_steps", "4") is None
    rows = [row for row in read_metrics("runs/tiny/version_0/metrics.csv") if "train/bits" in row]
    assert [(row["step"], row["sequences"]) for row in rows] == [(2, 24), (4, 48)]


def test_a_saved_config_is_a_config(trained, write, tiny, exit_code):
    write(tiny)
    assert exit_code("fit", "--config", str(trained / "config.yaml"), "--run_dir", "again") is None
    assert [path.name for path in Path("again").iterdir()] == ["shared"]  # not named after config.yaml
    assert (
        read_metrics("again/shared/version_0/metrics.csv")[0]["train/bits"]
        == (read_metrics(trained / "metrics.csv")[0]["train/bits"])
    )


def test_fit_stops_when_solved(tiny, write, exit_code, capsys):
    assert exit_code("fit", "--config", write(tiny | {"solved_at": 1000.0}), "--trainer.max_steps", "400") is None
    printed = capsys.readouterr().out
    assert "solved: val/bits" in printed and "<= 1000 after 16 sequences" in printed
    assert read_metrics("runs/tiny/version_0/metrics.csv")[-1]["step"] == 4
    assert exit_code("fit", "--config", write(tiny | {"solved_at": -1.0})) is None
    assert "not solved (-1): best val/bits" in capsys.readouterr().out


def test_solved_means_several_validations_in_a_row():
    stop = StopWhenSolved(0.5, validations=2)
    trainer, module = Mock(spec=pl.Trainer, sanity_checking=False, should_stop=False), Mock(spec=Experiment)
    trainer.state = Mock(fn="fit")
    module.task.monitor = "bits"
    for value, ended in [(0.4, False), (0.6, False), (0.5, False), (0.3, True)]:
        trainer.callback_metrics = {"val/bits": value}
        stop.on_validation_end(trainer, module)
        assert trainer.should_stop is ended
    resumed = StopWhenSolved(0.5, validations=3)
    resumed.load_state_dict(stop.state_dict())
    assert resumed.reached == 2 and not resumed.solved
    with pytest.raises(ValueError, match="solved_for is 0"):
        StopWhenSolved(0.5, validations=0)


def test_best_is_the_lowest_validation_and_has_no_optimiser(trained):
    best = torch.load(trained / "checkpoints/best.ckpt", weights_only=True)
    last = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    rows = {row["step"]: row["val/bits"] for row in read_metrics(trained / "metrics.csv") if "val/bits" in row}
    assert best["global_step"] == min(rows, key=rows.__getitem__)
    assert "optimizer_states" not in best and len(last["optimizer_states"]) == 1
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_test_needs_no_config_and_never_overwrites(trained, exit_code, capsys):
    checkpoint = str(trained / "checkpoints/best.ckpt")
    before = files_of(trained)
    assert exit_code("test", "--ckpt_path", checkpoint) is None
    first = capsys.readouterr().out
    assert exit_code("test", "--ckpt_path", checkpoint) is None
    assert first.replace("test_0", "test_1") == capsys.readouterr().out
    names = ["length 10", "length 20", "length 30", "length 50", "length 120"]
    assert all(name in first for name in names)
    after = files_of(trained)
    assert after["test_0.csv"] == after["test_1.csv"]
    assert before == {name: content for name, content in after.items() if not name.startswith("test_")}
    rows = list(csv.DictReader((trained / "test_0.csv").read_text().splitlines()))
    assert [row["test"] for row in rows] == names

    network = memnet.load(checkpoint)
    _, task = memnet_task(trained)
    bits = [task.evaluate(network, next(iter(loader))).metrics["bits"].mean() for loader in task.test_dataloader()]
    assert [float(row["bits"]) for row in rows] == pytest.approx([float(each) for each in bits], rel=1e-5)


def test_published_numbers_stand_beside_ours(tiny, write, exit_code, capsys):
    tiny["model"]["network"] = {"class_path": "memnet.LSTM", "init_args": {"input_size": 8, "output_size": 6}}
    tiny["model"]["network"]["init_args"] |= {"hidden_size": 4, "num_layers": 1}
    tiny["data"] = {"class_path": "tasks.AssociativeRecall", "init_args": {"num_val": 2, "num_test": 2}}
    assert exit_code("fit", "--config", write(tiny), "--trainer.max_steps", "2") is None
    plots = Path("runs/tiny/version_0/plots")
    # There is no memory to look into.
    assert {path.name for path in plots.iterdir()} == {"example_6_items.png", "learning_curve.png"}
    assert exit_code("test", "--ckpt_path", "runs/tiny/version_0/checkpoints/last.ckpt") is None
    header, *rows = capsys.readouterr().out.split("test ")[-1].split("\n")
    assert "paper NTM-LSTM" in header
    assert next(row for row in rows if "15 items" in row).split("│")[-3].strip() == "4.7"


def test_validate_and_predict_need_no_config(trained, exit_code, capsys):
    checkpoint = str(trained / "checkpoints/best.ckpt")
    assert exit_code("validate", "--ckpt_path", checkpoint) is None
    rows = [row["val/bits"] for row in read_metrics(trained / "metrics.csv") if "val/bits" in row]
    assert f"{min(rows):.4g}" in capsys.readouterr().out
    assert exit_code("predict", "--ckpt_path", checkpoint, "--examples", "3") is None
    assert capsys.readouterr().out.count("target") == 3


def test_flags_beside_a_checkpoint_are_announced_or_refused(trained, exit_code, capsys):
    checkpoint = str(trained / "checkpoints/last.ckpt")
    assert exit_code("validate", "--ckpt_path", checkpoint, "--data.init_args.num_val", "4") is None
    assert "data.init_args.num_val is 4 here, but the checkpoint was trained with 8" in capsys.readouterr().err

    resume = ["fit", "--config", str(trained / "config.yaml"), "--ckpt_path", checkpoint]
    before = files_of(trained.parent)
    assert exit_code(*resume, "--model.optimizer.init_args.lr", "0.5") == 2
    assert "model.optimizer.init_args.lr is 0.5 here, but the checkpoint was trained" in capsys.readouterr().err
    assert exit_code(*resume[:-1], str(trained / "checkpoints/best.ckpt")) == 2
    assert "no optimiser state" in capsys.readouterr().err
    assert exit_code("test", "--ckpt_path", checkpoint, "--model.network.init_args.slot_size", "5") == 1
    assert "(1, 4) there and (1, 5) here" in capsys.readouterr().err
    assert files_of(trained.parent) == before


def test_checkpoints_of_the_paper_s_copy_model_are_small(tiny, write, exit_code):
    tiny["model"]["network"] = {"class_path": "memnet.NTM", "init_args": {"input_size": 9, "output_size": 8}}
    tiny["data"]["init_args"] |= {"num_bits": 8, "num_val": 1, "batch_size": 1}
    assert exit_code("fit", "--config", write(tiny), "--trainer.max_steps", "1") is None
    sizes = {path.name: path.stat().st_size for path in Path("runs/tiny/version_0/checkpoints").iterdir()}
    assert max(sizes.values()) < 1_000_000
    assert sizes["best.ckpt"] < 400_000


def test_wandb_is_one_flag_and_offline_without_a_key(tiny, write, exit_code, monkeypatch, tmp_path):
    config = write(tiny)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert exit_code("fit", "--config", config, "--wandb", "true") is None
    (logged,) = Path("runs/tiny/version_0/wandb").glob("offline-run-*")
    # The leet command reads the run's own records, which are what a later `wandb sync` sends.
    command = ["wandb", "leet", "inspect", "--summary", "--json", str(logged)]
    summary = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert summary["config"]["model"]["network"]["class_path"] == "memnet.NTM"
    come_from = summary["config"].pop("provenance")
    assert come_from["versions"]["torch"] == str(torch.__version__) and come_from["seed"] == 1
    assert summary["config"] == yaml.safe_load(Path("runs/tiny/version_0/config.yaml").read_text())
    last = read_metrics("runs/tiny/version_0/metrics.csv")[-1]
    assert last["val/bits"] == pytest.approx(summary["summary"]["val/bits"])
    pictures = {path.name.rsplit("_", 2)[0] for path in logged.rglob("*.png")}
    assert pictures >= {"example_length_10", "weights_length_10", "learning_curve"}
    validation = {path.name.rsplit("_", 2)[0] for path in (logged / "files/media/images/validation").glob("*.png")}
    assert validation == {"example", "weights"}
    found = summary["summary"]
    assert found["gradient_norm"] > 0 and found["lr"] == 0.01 and found["memory/host"] > 10
    for head in ("read", "write"):
        name = f"heads/cell.access.{head}_addressing/0"
        assert 0 < found[f"{name}/entropy"] < math.log(6) and 1 / 6 < found[f"{name}/sharpness"] < 1
    # Going on and testing are in the same run.
    run_id = logged.name.rpartition("-")[2]
    last = "runs/tiny/version_0/checkpoints/last.ckpt"
    resumed = ["--ckpt_path", last, "--wandb", "true", "--trainer.max_steps", "9"]
    assert exit_code("fit", "--config", config, *resumed) is None
    assert [path.name.rpartition("-")[2] for path in Path("runs/tiny/version_1/wandb").glob("offline-run-*")] == [
        run_id
    ]
    assert exit_code("test", "--ckpt_path", last, "--wandb", "true") is None
    tested = {path.name.rpartition("-")[2] for path in Path("runs/tiny/version_0/wandb").glob("offline-run-*")}
    assert tested == {run_id}
    assert list(Path("runs/tiny/version_0/wandb").rglob("test_*.table.json"))
    assert b"checkpoint-" + run_id.encode() in next(logged.glob("*.wandb")).read_bytes()


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path):
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(RunFolder.create(tmp_path, "x").path)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name for path in made} == {f"version_{number}" for number in range(16)}


def test_a_terminal_gets_a_live_line(tiny, write, exit_code, monkeypatch, tmp_path):
    from rich.console import Console

    with open(tmp_path / "screen", "w") as screen:
        monkeypatch.setattr(progress, "Console", lambda: Console(file=screen, force_terminal=True, width=110))
        assert exit_code("fit", "--config", write(tiny)) is None
    last = (tmp_path / "screen").read_text().split("\r")[-1]
    assert "8/8" in last and "bits" in last and "val/bits" in last and "sequences/s" in last


def test_help_and_version_need_neither_lightning_nor_wandb():
    code = (
        "import sys, memnet; from memnet.__main__ import main; main(['--version']); main(['--help']);"
        "loaded = {'pytorch_lightning', 'lightning', 'wandb', 'matplotlib', 'rich'} & sys.modules.keys();"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"memnet {memnet.__version__}\nusage: memnet")


def test_help_fits_eighty_columns(exit_code, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code("--help") is None
    for command in ("fit", "validate", "test", "predict", "plot"):
        assert exit_code(command, "--help") == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "--solved_at" in printed and "torch.nn.Linear" not in printed
