"""The short form of ``python -m tests.long.finite``, which trains every experiment and looks for NaN."""

import pytest
import yaml

from memnet.training.cli import MemnetCLI
from tests.long.finite import experiments, flags, train


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


@pytest.fixture
def config(tiny, tmp_path):
    """Writes the tiny experiment with changes to its optimiser; returns its command line."""

    def write(**optimizer):
        tiny["model"]["optimizer"]["init_args"] |= optimizer
        tiny["trainer"] |= {"max_steps": 3, "val_check_interval": 3}
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(tiny))
        return ["--config", str(path)]

    return write


def test_a_training_without_nan_is_finite(config, tmp_path, unchecked):
    assert train("tiny", config(), tmp_path) == (3, None)


def test_a_training_that_breaks_is_told(config, tmp_path, unchecked):
    steps, said = train("tiny", config(lr=1e30), tmp_path)
    assert steps == 0
    assert "nan" in said.lower() or "inf" in said.lower()


def test_every_experiment_but_multi30k_is_trained_without_its_files():
    names = [name for name, _, _ in experiments(None)]
    assert len(names) >= 40
    assert [name for name, _, _ in experiments("multi30k") if name not in names] == [
        "attention_multi30k",
        "transformer_multi30k",
    ]


def test_ten_times_the_rate_reaches_the_schedule_and_clips():
    for name, config, _ in experiments("multi30k"):
        words = flags(config, 1, 10)
        rate = float(words[words.index("--model.optimizer.lr") + 1])
        assert rate == pytest.approx(10 * config["model"]["optimizer"]["init_args"]["lr"]), name
        peak = config["model"].get("scheduler", {}).get("init_args", {}).get("max_lr")
        assert ("--model.scheduler.max_lr" in words) == (peak is not None), name
        clips = "--trainer.gradient_clip_val" in words or "gradient_clip_val" in config["trainer"]
        assert clips or "ClippedSGD" in config["model"]["optimizer"]["class_path"], name
