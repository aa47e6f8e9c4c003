"""Time to start: commands, and training to its first step.

Each is a process of its own, started once beforehand, so that files are cached and kernels compiled. They are given ten
times the seconds of other benchmarks.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from memnet.bench import children
from memnet.bench.floors import Part
from memnet.bench.measuring import Comparison, Way, compare
from memnet.bench.settings import Settings

CONFIG = Path(__file__).parents[3] / "configs" / "ntm_copy.yaml"

# Ends the process as soon as the first training step is done.
FIRST_STEP = """
import os, sys
from memnet.__main__ import main
from memnet.training.experiment import Experiment
Experiment.on_train_batch_end = lambda *_: os._exit(0)
main(sys.argv[1:])
sys.exit("training ended without a step")
"""


def run(settings: Settings) -> Iterator[Comparison]:
    """Measures.

    Args:
        settings: how.
    """
    settings.say("  commands")
    with tempfile.TemporaryDirectory(prefix="memnet-bench-") as folder:

        def start(name: str, *arguments: str) -> Way:
            return Way(name, partial(children.python, arguments, folder))

        ways = [
            start("python -c 'import memnet'", "-c", "import memnet"),
            start("memnet --version", "-m", "memnet", "--version"),
            start("memnet --help", "-m", "memnet", "--help"),
            start("memnet fit --help", "-m", "memnet", "fit", "--help"),
        ]
        notes = []
        if CONFIG.is_file():
            options = ["--config", str(CONFIG), "--run_dir", folder, "--trainer.accelerator", settings.device.type]
            ways.append(start("memnet fit, to the first step", "-c", FIRST_STEP, "fit", *options))
        else:
            notes.append("nothing is trained, as there is no configs/ntm_copy.yaml, which belongs to a checkout")
        torch_alone = partial(children.python, ("-c", "import torch"), folder)
        floor = [Part("import torch", torch_alone, lambda: None)]
        measured = compare("start", ways, 10 * settings.seconds, floor=floor, notes=notes)
        # No command does the same as another.
        yield replace(measured, rows=tuple(replace(row, times_less=None) for row in measured.rows))
