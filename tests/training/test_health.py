"""Every planted NaN is reported where and when it was planted, the good checkpoints stay, the batch is on the disk."""

import copy
from pathlib import Path

import pytest
import torch

import memnet
from memnet.training import NumericalHealth
from memnet.training.cli import MemnetCLI
from memnet.training.health import quick_norm, wide_norm
from memnet.training.runs import read_metrics
from tests.training.standins import assert_same

STANDINS = "tests.training.standins"
RUN = Path("runs/tiny/version_0")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


@pytest.fixture
def spoilt(tiny):
    """The tiny experiment on a plain network, with something planted into step 5, after the validation at step 4."""

    def make(where=None, network="Dropping", health=None, **arguments):
        config = copy.deepcopy(tiny)
        init_args = {"input_size": 4, "output_size": 3} | (arguments if where is None else {})
        config["model"]["network"] = {"class_path": f"{STANDINS}.{network}", "init_args": init_args}
        callbacks = []
        if where is not None:
            planted = {"where": where, "step": 5} | arguments
            callbacks.append({"class_path": f"{STANDINS}.Spoil", "init_args": planted})
        if health is not None:
            callbacks.append({"class_path": "memnet.training.NumericalHealth", "init_args": health})
        config["trainer"] |= {"callbacks": callbacks, "max_steps": 12}
        return config

    return make


def last_checkpoint():
    last = torch.load(RUN / "checkpoints/last.ckpt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())
    return last


@pytest.mark.parametrize(
    ("where", "arguments", "says"),
    [
        ("parameter", {}, ["loss became nan", "it began in answer.bias, which holds NaN"]),
        ("parameter", {"value": float("inf")}, ["loss became", "answer.bias, which holds infinity"]),
        ("gradient", {}, ["norm became nan", "the gradient of answer.bias"]),
        (
            "gradient",
            {"value": float("inf"), "name": "recurrent"},
            ["norm became inf", "gradient of recurrent.bias_hh"],
        ),
        ("batch", {}, ["the training batch holds NaN", "its inputs"]),
        (None, {"network": "Overflowing"}, ["loss became", "what middle (Middle) gives out"]),
        (None, {"network": "Overflowing", "backwards": True}, ["norm became nan", "gradient that comes back to drop"]),
    ],
)
def test_what_is_planted_is_found(spoilt, write, exit_code, capsys, where, arguments, says):
    config = spoilt(where, **arguments)
    config["trainer"]["gradient_clip_val"] = 10.0
    assert exit_code("fit", "--config", write(config)) == 1
    error = capsys.readouterr().err
    for each in [*says, "at step 5 (16 sequences)", "health/step_5.pt"]:
        assert each in error
    assert error.count("memnet: ") == 1 and "Traceback" not in error
    assert last_checkpoint()["global_step"] == 4
    kept = torch.load(RUN / "health/step_5.pt", weights_only=True)
    assert kept["step"] == 5 and kept["finding"] in error
    assert kept["batch"]["inputs"].shape[0] == 4
    assert bool(kept["batch"]["inputs"].isnan().any()) == (where == "batch")


def test_it_is_found_in_a_turing_machine(spoilt, tiny, write, exit_code, capsys):
    config = spoilt("parameter", name="access")
    config["model"] = tiny["model"]
    assert exit_code("fit", "--config", write(config)) == 1
    error = capsys.readouterr().err
    assert "it began in cell.access" in error and "which holds NaN" in error


def test_what_the_network_refuses_is_said_in_its_words(spoilt, tiny, write, exit_code, capsys):
    """Minus infinity alone is no fault of a batch: a mask may hold it."""
    config = spoilt("batch", value=-float("inf"), name="access")
    config["model"] = tiny["model"]
    assert exit_code("fit", "--config", write(config)) == 1
    error = capsys.readouterr().err
    assert "loss became nan at step 5" in error
    assert "it began in what the network refuses: inputs holds -inf at (batch, time, inp) = (0, 0, 0)" in error


def test_a_loss_that_explodes(spoilt, write, exit_code, capsys):
    config = spoilt("parameter", step=120, value=1e9, health={"loss_growth": 1000.0})
    config["trainer"] |= {"max_steps": 130, "val_check_interval": 50}
    assert exit_code("fit", "--config", write(config)) == 1
    error = capsys.readouterr().err
    assert "loss exploded to" in error and "at step 120" in error
    assert last_checkpoint()["global_step"] == 100


def test_gradients_that_explode(spoilt, write, exit_code, capsys):
    assert exit_code("fit", "--config", write(spoilt("gradient", value=1e9, health={"max_gradient_norm": 1e6}))) == 1
    assert "norm became 1e+09 at step 5" in capsys.readouterr().err


@pytest.mark.parametrize("every", [None, 3])
def test_gradients_too_large_to_be_squared_are_clipped_like_any_other(spoilt, write, exit_code, every):
    config = spoilt("gradient", value=1e30, health={"every": every})
    config["trainer"]["gradient_clip_val"] = 10.0
    assert exit_code("fit", "--config", write(config)) is None
    assert last_checkpoint()["global_step"] == 12


def test_without_clipping_they_end_training(spoilt, write, exit_code, capsys):
    assert exit_code("fit", "--config", write(spoilt("gradient", value=1e30))) == 1
    error = capsys.readouterr().err
    assert "norm became inf at step 5" in error and "finite, but too large" in error and "answer.bias" in error


def test_the_norm_is_that_of_all_numbers():
    gradients = [torch.randn(3, 4), torch.randn(5)]
    expected = torch.cat([each.flatten() for each in gradients]).double().norm()
    torch.testing.assert_close(wide_norm(gradients), expected)
    torch.testing.assert_close(wide_norm([1e30 * each for each in gradients]) / 1e30, expected)


@pytest.mark.parametrize("sizes", [[3], [(2, 5), (), (7,)], [(300, 500), (4,)]], ids=["one", "few", "many"])
def test_the_quick_norm_is_the_norm(sizes):
    gradients = [torch.randn(size) for size in sizes]
    expected = torch.cat([each.flatten() for each in gradients]).double().norm().float()
    torch.testing.assert_close(quick_norm(gradients), expected)
    gradients[-1].view(-1)[-1] = torch.nan
    assert quick_norm(gradients).isnan()
    gradients[-1].view(-1)[-1] = -torch.inf
    assert quick_norm(gradients).isinf()


def test_without_gradients_the_norm_is_0():
    assert quick_norm([]) == 0


@pytest.mark.parametrize("every", [None, 3])
@pytest.mark.parametrize("where", ["parameter", "gradient"])
def test_rolling_back(spoilt, write, exit_code, capsys, where, every):
    health = {"then": "roll_back", "every": every}
    assert exit_code("fit", "--config", write(spoilt(where, health=health))) is None
    printed = capsys.readouterr().out
    assert "at step 5" in printed and "going back to the weights of step 4" in printed
    last = last_checkpoint()
    assert last["global_step"] == 12
    assert last["callbacks"]["NumericalHealth"]["rollbacks"] == 1
    assert all(
        row["train/loss"] == row["train/loss"] for row in read_metrics(RUN / "metrics.csv") if "train/loss" in row
    )


def test_a_bad_batch_is_left_out_and_nothing_else(spoilt, write, exit_code, capsys):
    assert exit_code("fit", "--config", write(spoilt("batch")), "--health", "roll_back") is None
    assert "the batch is left out" in capsys.readouterr().out
    last = last_checkpoint()
    assert last["global_step"] == 12 and last["sequences"] == 11 * 4
    (state,) = {int(each["step"]) for each in last["optimizer_states"][0]["state"].values()}
    assert state == 11  # the optimiser did not take that step


def test_going_back_comes_to_an_end(spoilt, write, exit_code, capsys):
    config = spoilt(None, network="Overflowing")
    assert exit_code("fit", "--config", write(config), "--health", "roll_back") == 1
    assert "training went back 5 times before" in capsys.readouterr().err
    assert last_checkpoint()["global_step"] <= 8


@pytest.mark.parametrize("where", ["parameter", "gradient", "batch"])
def test_numbers_that_are_read_now_and_then(spoilt, write, exit_code, capsys, where):
    """As on an accelerator: the step is the right one all the same, and nothing bad is saved."""
    assert exit_code("fit", "--config", write(spoilt(where, health={"every": 3}))) == 1
    assert "at step 5 (16 sequences)" in capsys.readouterr().err
    assert last_checkpoint()["global_step"] == 4
    assert (RUN / "health/step_5.pt").is_file()


def test_training_is_the_same_to_the_bit_with_and_without(spoilt, write, exit_code):
    config = spoilt()
    for name, clip in (("clip", 0.1), ("plain", None)):
        config["trainer"]["gradient_clip_val"] = clip
        for health in ("stop", "off"):
            assert exit_code("fit", "--config", write(config, f"{name}_{health}"), "--health", health) is None
        on, off = (
            torch.load(f"runs/{name}_{each}/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
            for each in ("stop", "off")
        )
        assert_same(on, off)


def test_settings_out_of_range_are_refused(unchecked):
    for name, value in {"then": "go_on", "loss_growth": 0.5, "max_gradient_norm": 0.0, "every": 0}.items():
        with pytest.raises(ValueError, match=rf"{name} is .* but must be"):
            NumericalHealth(**{name: value})


def test_the_good_network_loads(spoilt, write, exit_code):
    assert exit_code("fit", "--config", write(spoilt("parameter"))) == 1
    network = memnet.load(RUN / "checkpoints/best.ckpt")
    assert network(torch.zeros(1, 2, 4))[0].isfinite().all()
