"""The short form of ``python -m tests.long.kills``."""

import os
import random
import sys

import pytest
import torch

from memnet.__main__ import main
from memnet.training.cli import MemnetCLI
from tests.long.kills import survive_often
from tests.training.test_interrupts import STANDINS


def fork(words):
    """Starts memnet without importing everything anew."""
    child = os.fork()
    if child == 0:
        os.setsid()
        code = 1
        try:
            main(words)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


@pytest.mark.skipif(torch.cuda.is_available(), reason="processes are forked, which a GPU's driver forbids")
def test_killed_runs_end_with_the_same_weights(tiny, write, monkeypatch, tmp_path):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})
    init_args = {"input_size": 4, "output_size": 3}
    tiny["model"]["network"] = {"class_path": f"{STANDINS}.Dropping", "init_args": init_args}
    tiny["trainer"] |= {"max_steps": 60, "val_check_interval": 3, "enable_progress_bar": False}
    outcome = survive_often(["fit", "--config", write(tiny)], tmp_path / "runs", 3, random.Random(3), fork)
    assert outcome.kills >= 3 and outcome.resumed >= 1
