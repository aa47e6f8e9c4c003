"""A tiny whole experiment, and a way to run the command in this process."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from memnet.__main__ import main

TINY: dict[str, Any] = {
    "model": {
        "network": {
            "class_path": "memnet.NTM",
            "init_args": {
                "input_size": 4,
                "output_size": 3,
                "num_slots": 6,
                "slot_size": 4,
                "controller": {"class_path": "memnet.LSTMController", "init_args": {"hidden_size": 8}},
            },
        },
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    },
    "data": {
        "class_path": "tasks.Copy",
        "init_args": {
            "num_bits": 3,
            "max_length": 3,
            "batch_size": 4,
            "num_val": 8,
            "num_test": 2,
            "eval_batch_size": 8,
        },
    },
    "trainer": {"max_steps": 8, "val_check_interval": 4, "log_every_n_steps": 2, "accelerator": "cpu"},
}


@pytest.fixture
def tiny() -> dict[str, Any]:
    """The experiment, for the test to change."""
    return copy.deepcopy(TINY)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes an experiment as ``<name>.yaml`` into an empty folder, which is the working folder; returns its path."""
    monkeypatch.chdir(tmp_path)

    def to_file(config: Any, name: str = "tiny") -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
        return str(path)

    return to_file


@pytest.fixture
def exit_code() -> Callable[..., Any]:
    """Runs the command; returns None when it came to its end, else its exit code."""

    def run(*arguments: str) -> Any:
        try:
            return main(list(arguments))
        except SystemExit as error:
            return error.code

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("trained")
    config = folder / "shared.yaml"
    config.write_text(yaml.safe_dump(TINY))
    main(["fit", "--config", str(config), "--run_dir", str(folder / "runs")])
    return folder / "runs" / "shared" / "version_0"
