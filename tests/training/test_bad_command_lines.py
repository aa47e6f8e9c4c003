"""Every mistake gets one sentence that names it and what would be right, and no run folder."""

from pathlib import Path

import pytest
import torch

from memnet.training.experiment import Experiment

NETWORK = "model network init_args"
CONFIGS = Path(__file__).parents[2] / "configs"


def change(config, keys, value):
    *parents, last = keys.split()
    for key in parents:
        config = config[key]
    config[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "code", "says"),
    [
        ("model network class_path", "memnet.NTMX", 2, ["model.network", "memnet has no NTMX", "memnet.NTM?"]),
        ("model network class_path", "nowhere.NTM", 2, ["model.network", "no module nowhere"]),
        ("model network class_path", "torch.optim.Adam", 2, ["model.network", "torch.optim.Adam is not a Module"]),
        (f"{NETWORK} num_slotz", 3, 2, ["memnet.NTM has no argument num_slotz", "num_slots?"]),
        (f"{NETWORK} num_slots", "many", 2, ["model.network.num_slots", "many is not of type int"]),
        (
            f"{NETWORK} read_addressing",
            {"class_path": "memnet.DotScore"},
            2,
            ["model.network.read_addressing", "memnet.DotScore is not an Addressing", "memnet.ContentAddressing"],
        ),
        (
            f"{NETWORK} controller",
            {"class_path": "torch.nn.Linear"},
            2,
            ["model.network.controller", "torch.nn.Linear is not a Cell", "memnet.LSTMController"],
        ),
        (
            f"{NETWORK} controller init_args hidden",
            3,
            2,
            ["memnet.LSTMController has no argument hidden", "hidden_size"],
        ),
        ("model optimizer class_path", "torch.optim.Adamm", 2, ["model.optimizer", "torch.optim.Adam?"]),
        ("model optimizer init_args lr", "fast", 2, ["model.optimizer.lr", "fast is not of type float"]),
        ("model optimizer init_args lr", -1, 1, ["model.optimizer cannot be made", "Invalid learning rate: -1"]),
        ("model optimizer init_args lr", 1e38, 1, ["model.optimizer.lr is 1e+38, but must be at most 1e+30"]),
        ("model optimizer init_args", {"learning": 1}, 2, ["torch.optim.Adam has no argument learning"]),
        ("data class_path", "memnet.NTM", 2, ["data", "memnet.NTM is not a Task", "tasks.Copy"]),
        ("data class_path", "tasks.Coppy", 2, ["data", "tasks has no Coppy", "tasks.Copy?"]),
        ("data init_args batchsize", 3, 2, ["tasks.Copy has no argument batchsize", "batch_size?"]),
        ("data", {"init_args": {}}, 2, ["class_path that names a Task", "tasks.Copy"]),
        ("trainer max_stepz", 3, 2, ["no key trainer.max_stepz", "trainer.max_steps?"]),
        ("trainer max_steps", "soon", 2, ["trainer.max_steps", "soon is not of type int"]),
        ("model sheduler", None, 2, ["no key model.sheduler", "model.scheduler?"]),
        ("solve_at", 0.1, 2, ["no key solve_at", "solved_at?"]),
        ("trainer", {}, 2, ["trainer.max_steps"]),
        (f"{NETWORK} num_slots", -2, 1, ["num_slots is -2"]),
        (f"{NETWORK} num_shifts", 2, 1, ["num_shifts is 2", "odd"]),
        (f"{NETWORK} input_size", 7, 1, ["input_size 7", "needs input_size 4"]),
        ("data init_args batch_size", 0, 1, ["batch_size is 0"]),
        ("trainer accelerator", "abacus", 1, ["abacus"]),
        ("name", "a/b", 1, ["name is 'a/b'"]),
    ],
)
def test_a_wrong_setting(tiny, write, exit_code, capsys, unchecked, keys, value, code, says):
    change(tiny, keys, value)
    assert exit_code("fit", "--config", write(tiny)) == code
    assert_one_sentence(capsys.readouterr().err, says)
    assert not list(Path().glob("runs/*/*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["fitt"], 2, ["no command fitt", "fit?"]),
        (["fit"], 2, ["model.network", "--config FILE"]),
        (["fit", "--config", "none.yaml"], 2, ["none.yaml does not exist"]),
        (["fit", "--config", "a.yaml", "--config", "b.yaml"], 2, ["2 times", "one file"]),
        (["fit", "--config", "{tiny}", "--tainer.max_steps", "3"], 2, ["no key tainer.max_steps"]),
        (["fit", "--config", "{tiny}", "--run_dir", "{tiny}"], 1, ["cannot make a run folder", "--run_dir"]),
        (["fit", "--config", "{tiny}", "--ckpt_path", "none.ckpt"], 1, ["none.ckpt does not exist"]),
        (["test"], 2, ["--ckpt_path"]),
        (["test", "--config", "{tiny}"], 2, ["--ckpt_path"]),
        (["test", "--ckpt_path", "none.ckpt"], 1, ["none.ckpt does not exist"]),
        (["test", "--ckpt_path", "{tiny}"], 1, ["not a checkpoint of memnet"]),
        (["fit", "--config", "{tiny}", "--trainer.max_steps", "0"], 2, ["trainer.max_steps is 0"]),
        (["fit", "--config", "{tiny}", "--trainer.val_check_interval", "0"], 2, ["trainer.val_check_interval is 0"]),
        (["plot", "none.ckpt"], 1, ["none.ckpt does not exist"]),
    ],
)
def test_a_wrong_command_line(tiny, write, exit_code, capsys, arguments, code, says):
    config = write(tiny)
    assert exit_code(*(each.replace("{tiny}", config) for each in arguments)) == code
    assert_one_sentence(capsys.readouterr().err, says)


@pytest.mark.parametrize(
    ("repeats", "says"),
    [
        ("{17:2}", ["a mapping lacks the space after a colon", "'{17: 2}'"]),
        ("{17: 0}", ["repeats of task 17 is 0"]),
        ("{2: 3}", ["task 2 is none of the tasks", "[17]"]),
        ("4", ["data.repeats", "4 is not of type dict"]),
    ],
)
def test_a_wrong_mapping(exit_code, capsys, repeats, says):
    words = ["--data.tasks", "17", "--data.repeats", repeats]
    assert exit_code("fit", "--config", str(CONFIGS / "best_babi.yaml"), *words) in (1, 2)
    assert_one_sentence(capsys.readouterr().err, says)


@pytest.mark.parametrize("content", ["model: [a, b\n x: {", "", "hello", "[1, 2]"])
def test_a_config_that_is_none(write, exit_code, capsys, content):
    assert exit_code("fit", "--config", write(content)) == 2
    assert_one_sentence(capsys.readouterr().err, ["configuration"])


def assert_one_sentence(error, says):
    lines = [line for line in error.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("memnet: ") and len(lines[0]) < 320, error
    for each in says:
        assert each in lines[0]


def test_debug_shows_where(tiny, write, exit_code):
    change(tiny, "data init_args batch_size", 0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        exit_code("fit", "--config", write(tiny), "--debug")


def test_a_defect_is_not_dressed_up_as_a_mistake_of_the_user(tiny, write, exit_code, monkeypatch):
    from memnet.training import cli

    def broken(*arguments):
        raise KeyError("a defect")

    monkeypatch.setattr(cli, "complete", broken)
    with pytest.raises(KeyError):
        exit_code("fit", "--config", write(tiny))


@pytest.mark.parametrize(
    ("section", "class_path", "says"),
    [
        ("network", "tests.training.standins.Diverging", ["loss became", "at step 5 (16 sequences)"]),
        ("data", "tests.training.standins.SpoiltCopy", ["batch holds NaN", "at step 5 (16 sequences)"]),
    ],
)
def test_nan_stops_training_and_spoils_no_checkpoint(tiny, write, exit_code, capsys, section, class_path, says):
    if section == "network":
        init_args = {"input_size": 4, "output_size": 3}
        tiny["model"]["network"] = {"class_path": class_path, "init_args": init_args}
    else:
        tiny["data"]["class_path"] = class_path
    assert exit_code("fit", "--config", write(tiny)) == 1
    error = capsys.readouterr().err
    assert all(each in error for each in says)
    last = torch.load("runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_nan_where_the_loss_is_only_read_to_be_logged(tiny, write, exit_code, capsys, monkeypatch):
    """On an accelerator, where reading it at every step would cost as much as the step."""
    start = Experiment.on_train_start

    def as_on_an_accelerator(self):
        start(self)
        self._check_every_step = False

    monkeypatch.setattr(Experiment, "on_train_start", as_on_an_accelerator)
    init_args = {"input_size": 4, "output_size": 3}
    tiny["model"]["network"] = {"class_path": "tests.training.standins.Diverging", "init_args": init_args}
    assert exit_code("fit", "--config", write(tiny), "--health", "off") == 1
    assert "loss became" in (error := capsys.readouterr().err) and "at step 6 (24 sequences)" in error
    last = torch.load("runs/tiny/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder in which not even root can write")
def test_a_folder_that_cannot_be_written(tiny, write, exit_code, capsys):
    assert exit_code("fit", "--config", write(tiny), "--run_dir", "/proc/runs") == 1
    assert_one_sentence(capsys.readouterr().err, ["cannot make a run folder in /proc/runs"])
