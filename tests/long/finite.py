"""Trains every experiment for a while, at its own learning rate and at ten times that, and says which ones met a NaN.

    python -m tests.long.finite --steps 2000 --seeds 3 --folder FOLDER

With ten times the rate gradients are clipped by their norm. Without ``--multi30k FOLDER`` its two experiments are left
out. ``--seconds`` ends each training earlier; ``--batch_size`` makes steps quicker, and gradients noisier, than the
experiment's own. Prints a line for each; ends with exit code 1 if a number was not finite.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from memnet.__main__ import main
from memnet.loading import read_checkpoint
from memnet.training.runs import newest_checkpoint

CONFIGS = Path("configs")
FASTER = 10
STOPPED = (130, 143)
"""What a training ends with that somebody has stopped, by Ctrl-C or a signal: so that this ends, too."""

WORDS = 16
"""How many words a sentence of a translation is counted as, where a batch is so many words."""


class Training(NamedTuple):
    """How a training ended.

    Attributes:
        steps: how many it took.
        said: what is wrong with it, or None.
    """

    steps: int
    said: str | None


def flags(config: dict[str, Any], seed: int, times: int) -> list[str]:
    """What an experiment's command line needs for other seeds and another learning rate.

    Args:
        config: the experiment's.
        seed: of the first weights and of the data.
        times: what the learning rate is multiplied by; if it is not 1, gradients are clipped.
    """
    data, model = config["data"]["init_args"], config["model"]
    words = ["--seed_everything", str(seed), "--data.babi.seed" if "babi" in data else "--data.seed", str(seed)]
    if times == 1:
        return words
    words += ["--model.optimizer.lr", str(times * model["optimizer"]["init_args"]["lr"])]
    highest = model.get("scheduler", {}).get("init_args", {}).get("max_lr")
    if highest is not None:
        words += ["--model.scheduler.max_lr", str(times * highest)]
    if config["trainer"].get("gradient_clip_val") is None and "ClippedSGD" not in model["optimizer"]["class_path"]:
        words += ["--trainer.gradient_clip_val", "10"]
    return words


def smaller(config: dict[str, Any], batch_size: int) -> list[str]:
    """What the command line needs for smaller batches.

    Args:
        config: the experiment's.
        batch_size: how many sequences.
    """
    if "max_tokens" in config["data"]["init_args"]:
        return ["--data.max_tokens", str(WORDS * batch_size)]
    return ["--data.babi.batch_size" if "babi" in config["data"]["init_args"] else "--data.batch_size", str(batch_size)]


def train(name: str, words: list[str], folder: Path) -> Training:
    """Trains an experiment; every step of it is watched by ``memnet.training.NumericalHealth``.

    Args:
        name: of the run.
        words: the command line, but for where the run goes.
        folder: of the runs.
    """
    told = io.StringIO()
    quiet = ["--trainer.enable_progress_bar", "false", "--run_dir", str(folder), "--name", name]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            main(["fit", *words, *quiet])
    except SystemExit as ended:
        if ended.code in STOPPED:
            raise
        if ended.code not in (None, 0):
            lines = [line for line in told.getvalue().splitlines() if line.startswith("memnet: ")]
            return Training(0, " ".join(lines) or f"exit code {ended.code}: {told.getvalue()[-300:]}")
    found = newest_checkpoint(folder / name)
    assert found is not None
    checkpoint = read_checkpoint(found)
    wrong = [key for key, x in checkpoint["state_dict"].items() if not bool(torch.isfinite(x).all())]
    return Training(checkpoint["global_step"], f"not finite: {', '.join(wrong)}" if wrong else None)


def experiments(multi30k: str | None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """The name, the content and the command line of each."""
    for path in sorted(CONFIGS.glob("*.yaml")):
        config = yaml.safe_load(path.read_text())
        words = ["--config", str(path)]
        if "multi30k" in path.stem:
            if multi30k is None:
                continue
            words += ["--data.folder", multi30k]
        yield path.stem, config, words


def _main() -> None:
    parser = argparse.ArgumentParser("python -m tests.long.finite")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3600, help="of each training at most")
    parser.add_argument("--batch_size", type=int, help="in place of the experiment's")
    parser.add_argument("--multi30k", help="folder of its files")
    parser.add_argument("--only", nargs="*", help="names of experiments")
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    wrong = 0
    for name, config, words in experiments(given.multi30k):
        if given.only and name not in given.only:
            continue
        most = min(given.steps, config["trainer"].get("max_steps", given.steps))
        ends = ["--trainer.max_steps", str(most), "--trainer.val_check_interval", str(most)]
        ends += ["--trainer.limit_val_batches", "1", "--trainer.max_time", json.dumps({"seconds": given.seconds})]
        if given.batch_size:
            words += smaller(config, given.batch_size)
        for times in (1, FASTER):
            for seed in range(1, given.seeds + 1):
                run = f"{name}-{times}-{seed}"
                result = train(run, [*words, *ends, *flags(config, seed, times)], given.folder)
                wrong += result.said is not None
                print(
                    f"{name}, rate x {times}, seed {seed}: {result.steps:,} steps, {result.said or 'finite'}",
                    flush=True,
                )
    print(f"{wrong} trainings met a number that is not finite")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    _main()
