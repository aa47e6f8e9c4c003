"""``memnet reproduce NAME``: trains and tests a row of RESULTS.md again, and says whether it holds."""

import argparse
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from memnet.training.arguments import UsageError
from memnet.training.report import duration, print_table
from memnet.training.runs import RunFolder

ROWS = Path("configs/results/rows.yaml")


class Check(NamedTuple):
    """What a row claims.

    Attributes:
        test: a test set.
        metric: a column of its table.
        expected: the median over seeds.
        tolerance: how far from it the median may be, absolute.
        better: which way a median may be as far off as it likes.
    """

    test: str
    metric: str
    expected: float
    tolerance: float
    better: Literal["lower", "higher", "neither"] = "neither"

    def holds(self, median: float) -> bool:
        """Whether a median is what it should be.

        Args:
            median: over seeds; not a number if there is none.
        """
        off = median - self.expected
        if (self.better == "lower" and off < 0) or (self.better == "higher" and off > 0):
            return True
        return abs(off) <= self.tolerance


class Row(NamedTuple):
    """A row of results and how it is made.

    Attributes:
        config: the experiment's file.
        seeds: of the network's first weights and of the data.
        minutes: about how long all seeds take, one after the other.
        checks: what is claimed of them.
        flags: further flags of ``memnet fit``.
    """

    config: str
    seeds: list[int]
    minutes: float
    checks: list[Check]
    flags: list[str]


def read_rows(path: Path | str) -> dict[str, Row]:
    """The rows in a file.

    Args:
        path: a YAML file (see ``configs/results/rows.yaml``).

    Raises:
        OSError: it cannot be read.
        ValueError: it is not as it should be; the message names the row.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping from names to rows.")
    rows = {}
    for name, row in content.items():
        try:
            checks = [Check(**check) for check in row["checks"]]
            seeds = [int(seed) for seed in row["seeds"]]
            flags = [str(flag) for flag in row.get("flags", [])]
            rows[str(name)] = Row(str(row["config"]), seeds, float(row["minutes"]), checks, flags)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{path}: row {name} must have config, seeds, minutes and checks, each of those with test, metric, "
                f"expected and tolerance ({type(error).__name__}: {error})."
            ) from error
        if not checks or not seeds:
            raise ValueError(f"{path}: row {name} must have at least one seed and one check.")
    return rows


def run(arguments: Sequence[str]) -> None:
    """Runs the command.

    Args:
        arguments: ``reproduce``, a name or ``--list``, and flags.

    Raises:
        UsageError: there is no such row.
        SystemExit: with 1 when the row does not hold.
    """
    parser = argparse.ArgumentParser("memnet reproduce", description="Trains and tests a row of RESULTS.md again.")
    parser.add_argument("name", nargs="?", help="which row")
    parser.add_argument("--list", action="store_true", help="show the rows and how long they take")
    parser.add_argument("--rows", default=str(ROWS), help=f"the file of rows ({ROWS})")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these seeds")
    parser.add_argument("--run_dir", default="runs/reproduced", help="folder of the runs (runs/reproduced)")
    given = parser.parse_args(list(arguments[1:]))
    if not Path(given.rows).is_file():
        raise UsageError(f"there is no {given.rows}; run from a checkout of memnet, or say where it is with --rows.")
    rows = read_rows(given.rows)
    if given.list or given.name is None:
        print_table([_described(name, row) for name, row in rows.items()])
        return
    if given.name not in rows:
        raise UsageError(f"there is no row {given.name}; there are {', '.join(rows)}.")
    row = rows[given.name]
    if not reproduce(given.name, row._replace(seeds=given.seeds or row.seeds), Path(given.run_dir)):
        sys.exit(1)


def reproduce(name: str, row: Row, run_dir: Path, command: Callable[[list[str]], None] | None = None) -> bool:
    """Trains and tests each seed, prints what came of it, and returns whether all checks hold.

    Args:
        name: the row's name.
        row: the row.
        run_dir: the folder of the runs.
        command: runs a command line of memnet; a process of its own for each by default.

    Raises:
        ValueError: a command failed, or a test set or metric is not there.
    """
    command = command or _in_a_process
    started = time.monotonic()
    found: dict[int, dict[tuple[str, str], float]] = {}
    for seed in row.seeds:
        print(f"{name}, seed {seed}: {len(found) + 1} of {len(row.seeds)}", flush=True)
        own = f"{name}_seed_{seed}"
        before = set((run_dir / own).glob("version_*"))
        seeds = ["--seed_everything", str(seed), "--data.seed", str(seed)]
        command(["fit", "--config", row.config, *seeds, "--run_dir", str(run_dir), "--name", own, *row.flags])
        (made,) = set((run_dir / own).glob("version_*")) - before
        command(["test", "--ckpt_path", str(RunFolder(made).best)])
        found[seed] = _tested(made / "test_0.csv")
    print_table([_outcome(check, found) for check in row.checks])
    holds = all(check.holds(_median(check, found)) for check in row.checks)
    verdict = "holds" if holds else "does not hold"
    print(f"{name} {verdict}, {len(found)} seeds in {duration(time.monotonic() - started)}")
    return holds


def _in_a_process(words: list[str]) -> None:
    code = subprocess.run([sys.executable, "-m", "memnet", *words]).returncode
    if code:
        raise ValueError(f"memnet {' '.join(words)} ended with exit code {code}.")


def _tested(path: Path) -> dict[tuple[str, str], float]:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        for metric, cell in row.items():
            if metric not in ("test", "checkpoint") and cell:
                found[row["test"], metric] = float(cell)
    return found


def _values(check: Check, found: Mapping[int, dict[tuple[str, str], float]]) -> list[float]:
    key = (check.test, check.metric)
    for values in found.values():
        if key not in values:
            known = ", ".join(f"{test} / {metric}" for test, metric in values)
            raise ValueError(f"no test set {check.test!r} has a metric {check.metric!r}; there are {known}.")
    return [values[key] for values in found.values()]


def _median(check: Check, found: Mapping[int, dict[tuple[str, str], float]]) -> float:
    return statistics.median(_values(check, found))


def _outcome(check: Check, found: Mapping[int, dict[tuple[str, str], float]]) -> dict[str, Any]:
    median = _median(check, found)
    return {
        "test": check.test,
        "metric": check.metric,
        **{f"seed {seed}": value for seed, value in zip(found, _values(check, found), strict=True)},
        "median": median,
        "expected": check.expected,
        "tolerance": check.tolerance,
        "holds": "yes" if check.holds(median) else "no",
    }


def _described(name: str, row: Row) -> dict[str, Any]:
    claims = "; ".join(f"{each.test}: {each.metric} {each.expected:g} ± {each.tolerance:g}" for each in row.checks)
    return {"name": name, "seeds": " ".join(map(str, row.seeds)), "minutes": row.minutes, "median of": claims}
