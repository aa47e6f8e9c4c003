"""Damages configurations, data files and checkpoints at random; each must give a run or one clear sentence.

    python -m tests.long.fuzz --mutations 1000 --folder FOLDER

Prints what did neither: a traceback, a hang, a run that was written over. Ends with exit code 1 if there was any.
"""

import argparse
import contextlib
import copy
import hashlib
import io
import random
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from memnet.__main__ import main

# A command hangs when it has had so much of the processor, or waits for something for so long.
PROCESSOR_SECONDS, SECONDS = 120, 600
# What people and broken programs write in place of a value. No huge sizes: those are runs, and long ones.
VALUES: list[Any] = [
    None, True, 0, 1, -1, 3, 0.5, -0.0, float("nan"), float("inf"), "", "x", "0", "1e-3", "../..", "\0", "ä漢", "last",
    [], [1], ["a", None], {}, {"class_path": "os.system"}, {"class_path": "memnet.NTM"}, {"init_args": {}},
    {"class_path": "builtins.eval", "init_args": {"source": "1"}}, "memnet.NTM", "tasks.Copy", "torch.nn.Linear",
]  # fmt: skip
# Where a value changes nothing but how long it takes.
LEFT_ALONE = {"max_steps", "max_epochs", "max_time", "limit_val_batches"}


def damaged_config(config: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy with one to three values replaced, removed, renamed or added.

    Args:
        config: the whole one.
        chance: what decides.
    """
    config = copy.deepcopy(config)
    for _ in range(chance.randint(1, 3)):
        places = [place for place in _places(config) if place[1] not in LEFT_ALONE]
        if not places:
            break
        holder, key = chance.choice(places)
        kind = chance.randrange(4)
        if kind < 2:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        elif kind == 2 or not isinstance(holder, dict):
            del holder[key]
        else:
            holder[f"{key}{chance.choice('sx_')}"] = holder.pop(key)
    return config


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts):
        yield value, key
        yield from _places(part)


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """A copy with bytes flipped, cut out, doubled or put in, or cut short.

    Args:
        content: the whole one.
        chance: what decides.
    """
    found = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        at = chance.randrange(len(found)) if found else 0
        length = chance.choice([1, 2, 16, 256])
        kind = chance.randrange(5)
        if kind == 0 and found:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[at : at + length]
        elif kind == 2:
            found[at:at] = found[at : at + length]
        elif kind == 3:
            found[at:at] = chance.randbytes(length)
        else:
            del found[at:]
    return bytes(found)


def outcome(words: list[str]) -> str | None:
    """What is wrong with how a command ended, or None: it ran, or said in one line why not.

    Args:
        words: the command line.
    """

    def too_long(*arguments: Any) -> None:
        raise TimeoutError("hangs")

    error = io.StringIO()
    clocks = {signal.SIGALRM: (signal.ITIMER_REAL, SECONDS), signal.SIGPROF: (signal.ITIMER_PROF, PROCESSOR_SECONDS)}
    previous = {each: signal.signal(each, too_long) for each in clocks}
    for clock, seconds in clocks.values():
        signal.setitimer(clock, seconds)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
            main(words)
        return None
    except SystemExit as ended:
        lines = [line for line in error.getvalue().splitlines() if line.startswith("memnet: ")]
        if ended.code in (None, 0) or (ended.code in (1, 2) and len(lines) == 1 and "hangs" not in lines[0]):
            return None
        return f"exit code {ended.code}: {error.getvalue()[-500:]}"
    except BaseException:
        return traceback.format_exc(limit=-4)
    finally:
        for each, (clock, _) in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(each, previous[each])


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fuzz(config: dict[str, Any], run: Path, folder: Path, mutations: int, seed: int) -> list[str]:
    """What went wrong in so many mutations of each kind, one text for each.

    Args:
        config: a tiny experiment.
        run: a finished run of it, with the name of a run that the mutations could write over.
        folder: for everything that is written.
        mutations: of each kind.
        seed: of the mutations.
    """
    wrong = []
    before = contents(run)
    folder.mkdir(parents=True, exist_ok=True)
    where = ["--run_dir", str(run.parent.parent), "--trainer.enable_progress_bar", "false"]
    dates = yaml.safe_load(DATES)
    for number in range(mutations):
        chance = random.Random(f"{seed} {number}")
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(damaged_config(config, chance), allow_unicode=True))
        cases = {"config": ["fit", "--config", str(path), "--name", run.parent.name, *where]}
        checkpoint = folder / "damaged.ckpt"
        checkpoint.write_bytes(damaged_bytes((run / "checkpoints/last.ckpt").read_bytes(), chance))
        cases["checkpoint"] = ["validate", "--ckpt_path", str(checkpoint)]
        data = folder / "dates.txt"
        data.write_bytes(damaged_bytes(PAIRS, chance))
        dates["data"]["init_args"]["file"] = str(data)
        (folder / "dates.yaml").write_text(yaml.safe_dump(dates))
        cases["data"] = ["fit", "--config", str(folder / "dates.yaml"), *where]
        for kind, words in cases.items():
            said = outcome(words)
            if said is not None:
                wrong.append(f"{kind} {number}: {said}")
        if contents(run) != before:
            wrong.append(f"{number}: the finished run was written over")
            before = contents(run)
    return wrong


PAIRS = "".join(f"january {day}, 1999_1999-01-{day:02d}\n" for day in range(1, 29)).encode()
DATES = """
model:
  network:
    class_path: memnet.Seq2Seq
    init_args:
      encoder: {class_path: memnet.RecurrentEncoder, init_args: {vocab_size: 63, hidden_size: 4}}
      decoder: {class_path: memnet.PlainDecoder, init_args: {vocab_size: 63, hidden_size: 4}}
data: {class_path: tasks.Date, init_args: {num_train: 20, num_val: 4, num_test: 4, batch_size: 4}}
trainer: {max_steps: 2, val_check_interval: 2, num_sanity_val_steps: 0, accelerator: cpu}
"""


def _main() -> None:
    from tests.training.conftest import TINY

    parser = argparse.ArgumentParser("python -m tests.long.fuzz")
    parser.add_argument("--mutations", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    config = copy.deepcopy(TINY)
    config["trainer"]["max_steps"] = 4
    (given.folder / "whole.yaml").write_text(yaml.safe_dump(config))
    main(["fit", "--config", str(given.folder / "whole.yaml"), "--run_dir", str(given.folder / "runs")])
    run = given.folder / "runs/whole/version_0"
    wrong = fuzz(config, run, given.folder / "damaged", given.mutations, given.seed)
    print("\n\n".join(wrong))
    print(f"{3 * given.mutations} mutations, {len(wrong)} of them ended in something else than a run or a sentence")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    _main()
