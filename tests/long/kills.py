"""Kills runs with SIGKILL at random moments, goes on from ``last``, and compares the end with that of a run left alone.

    python -m tests.long.kills --kills 50

Needs a checkout as the working folder. Ends with exit code 1 at the first weight that differs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from memnet.loading import read_checkpoint
from memnet.training.runs import newest_checkpoint

# Of RESULTS.md, cut short; a checkpoint every few steps.
EXPERIMENTS = {
    "ntm_copy": ["--trainer.max_steps", "400", "--trainer.val_check_interval", "20", "--data.num_val", "16"],
    "attention_date": ["--trainer.max_steps", "120", "--trainer.val_check_interval", "10", "--data.num_val", "16",
                       "--data.num_train", "2000", "--data.batch_size", "8"],
    "memn2n_babi": ["--trainer.max_steps", "400", "--trainer.val_check_interval", "20"],
}  # fmt: skip


class Outcome(NamedTuple):
    """What came of one experiment.

    Attributes:
        kills: how many of its processes were killed before they had come to their end.
        resumed: how many of them left a checkpoint to go on from.
    """

    kills: int
    resumed: int


def command(words: list[str]) -> int:
    """Starts memnet in a process group of its own; returns its number."""
    return subprocess.Popen(
        [sys.executable, "-m", "memnet", *words], start_new_session=True, stdout=subprocess.DEVNULL
    ).pid


def survive(
    words: list[str], folder: Path, kills: int, chance: random.Random, start: Callable[[list[str]], int] = command
) -> Outcome:
    """Runs an experiment undisturbed, then once more with kills, and compares the two.

    Args:
        words: the command line, without ``--name`` and ``--ckpt_path``.
        folder: of the runs.
        kills: at most so many.
        chance: says when.
        start: starts memnet as the leader of a process group; returns its number.

    Raises:
        AssertionError: a checkpoint cannot be read, a process fails, or a weight differs.
    """
    whole, broken = folder / "whole", folder / "broken"
    words = [*words, "--run_dir", str(folder)]
    began = time.monotonic()
    assert _wait(start([*words, "--name", "whole"]), None) == 0, "the undisturbed run failed"
    longest = time.monotonic() - began
    done = resumed = 0
    while True:
        again = [*words, "--name", "broken", "--ckpt_path", "last"]
        code = _wait(start(again), chance.uniform(0, longest) if done < kills else None)
        last = newest_checkpoint(broken)
        if last is not None:
            read_checkpoint(last)  # never half a file
        if code == -signal.SIGKILL:
            done += 1
            resumed += last is not None
            continue
        # 2: it was killed after its last step was saved, so nothing is left to do.
        assert code == 0 or (code == 2 and done), f"a run ended with exit code {code}"
        break
    one, other = (read_checkpoint(newest_checkpoint(each) or each)["state_dict"] for each in (whole, broken))
    different = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert one.keys() == other.keys() and not different, f"{different} differ after {done} kills"
    return Outcome(done, resumed)


def survive_often(
    words: list[str], folder: Path, kills: int, chance: random.Random, start: Callable[[list[str]], int] = command
) -> Outcome:
    """Runs an experiment as often as it takes: one may be over before its next kill, or die without a checkpoint.

    Args:
        words: as for ``survive``, and so are the others.
        folder: of the runs' folders.
        kills: so many at least, one of which at least leaves a checkpoint to go on from.
        chance: says when.
        start: starts memnet.

    Raises:
        AssertionError: ``survive`` raises it, or ten undisturbed runs were not enough.
    """
    done = resumed = attempts = 0
    while done < kills or not resumed:
        assert attempts < 10, f"{done} of {kills} kills hit in {attempts} runs, and {resumed} left a checkpoint"
        outcome = survive(words, folder / str(attempts), max(1, kills - done), chance, start)
        done, resumed, attempts = done + outcome.kills, resumed + outcome.resumed, attempts + 1
    return Outcome(done, resumed)


def _wait(process: int, seconds: float | None) -> int:
    """The exit code, or minus the signal's number; killed with its whole group after so many seconds."""
    deadline = time.monotonic() + (seconds if seconds is not None else 3600)
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return -signal.SIGKILL
        time.sleep(0.005)


def main() -> None:
    """Reads the command line and prints a table row for each experiment and number of processes."""
    parser = argparse.ArgumentParser("python -m tests.long.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="how many in all")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which they happen")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    cases = [(name, processes) for name in EXPERIMENTS for processes in (1, 2)]
    cases = [case for case in cases if Path(f"configs/{case[0]}.yaml").is_file()]
    left = given.kills
    with tempfile.TemporaryDirectory() as parent:
        for number, (name, processes) in enumerate(cases):
            if left <= 0:  # fewer kills than cases
                break
            wanted = -(-left // (len(cases) - number))
            words = ["fit", "--config", f"configs/{name}.yaml", *EXPERIMENTS[name]]
            words += ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
            if processes > 1:
                words += ["--trainer.devices", str(processes), "--trainer.strategy", "ddp"]
            kills, resumed = survive_often(words, Path(parent, f"{name}_{processes}"), wanted, chance)
            left -= kills
            print(f"| `{name}` | {processes} | {kills} | {resumed} | identical |", flush=True)
    print(f"{given.kills - left} kills survived")


if __name__ == "__main__":
    main()
