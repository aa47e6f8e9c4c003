"""The run folder: ``<run_dir>/<name>/version_<N>/`` with config, metrics, checkpoints and pictures."""

import contextlib
import csv
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

# How the processes that Lightning starts for further devices learn the folder that the first one made.
_FOLDER_VARIABLE = "MEMNET_RUN_FOLDER"


class RunFolder:
    """The files of one run.

    Args:
        path: the run's folder, ``.../version_<N>``.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.plots = self.path / "plots"

    @classmethod
    def create(cls, root: Path | str, name: str) -> "RunFolder":
        """Makes the next free ``version_<N>``; two runs that start at once get two folders.

        Args:
            root: the folder of all runs.
            name: the experiment's name.

        Raises:
            ValueError: the name is not a plain file name.
            OSError: the folder cannot be made.
        """
        if not name or Path(name).name != name:
            raise ValueError(f"name is {name!r}, but it must be a plain folder name.")
        parent = Path(root) / name
        if getattr(rank_zero_only, "rank", 0) != 0:
            return cls(os.environ.get(_FOLDER_VARIABLE, parent / "version_of_rank_0"))
        try:
            parent.mkdir(parents=True, exist_ok=True)
            versions = [int(digits) for digits in _versions(parent)]
            number = max(versions, default=-1) + 1
            while True:
                run = cls(parent / f"version_{number}")
                try:
                    run.path.mkdir()  # fails when it exists, so only one run can have it
                    break
                except FileExistsError:
                    number += 1
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"cannot make a run folder in {parent}: {reason}; choose another with --run_dir.") from error
        os.environ[_FOLDER_VARIABLE] = str(run.path)
        return run

    @classmethod
    def of_checkpoint(cls, checkpoint: Path | str) -> "RunFolder | None":
        """The run that a checkpoint lies in, or None when it was moved out of one.

        Args:
            checkpoint: path of the checkpoint.
        """
        folder = Path(checkpoint).absolute().parent
        run = cls(folder.parent)
        return run if folder.name == "checkpoints" and run.config.is_file() else None

    def discard_if_unused(self) -> None:
        """Removes the folder again if nothing was written to it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


def newest_checkpoint(parent: Path, kind: str = "last") -> Path | None:
    """The checkpoint of the newest run of an experiment that has one, or None.

    Args:
        parent: the folder of the experiment's runs, ``<run_dir>/<name>``.
        kind: ``last`` or ``best``.
    """
    for number in sorted((int(digits) for digits in _versions(parent)), reverse=True):
        found = parent / f"version_{number}" / "checkpoints" / f"{kind}.ckpt"
        if found.is_file():
            return found
    return None


def _versions(parent: Path) -> Iterable[str]:
    names = (path.name.removeprefix("version_") for path in parent.glob("version_*"))
    return (name for name in names if name.isdecimal())


class MetricsFile(CSVLogger):
    """Lightning's CSV logger on a folder that exists, without a second copy of the configuration in it.

    Args:
        run: where ``metrics.csv`` goes.
    """

    def __init__(self, run: RunFolder):
        super().__init__(save_dir=run.path.parent.parent, name=run.path.parent.name, version=run.path.name)
        self.run_metrics = run.metrics
        self._complained = False
        _ = self.experiment  # made while the folder is empty: of files in it Lightning warns that it will delete them

    def log_hyperparams(self, params: Any = None) -> None:
        """Nothing: the run's ``config.yaml`` holds them."""

    @rank_zero_only
    def save(self) -> None:
        """Writes what was logged; on a disk that is full it is kept until there is room."""
        path = self.run_metrics
        size = path.stat().st_size if path.is_file() else 0
        try:
            super().save()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(path, size)  # half a row would spoil those after it
            if not self._complained:
                self._complained = True
                reason = error.strerror or error
                print(f"note: {path} could not be written ({reason}); it is tried again", file=sys.stderr)

    @rank_zero_only
    def carry_over(self, metrics: Path, last_step: int) -> None:
        """Starts the file with the rows of the run that is resumed, so that its curve is whole.

        Args:
            metrics: the resumed run's ``metrics.csv``; nothing happens when it is missing.
            last_step: the step that training goes on from; rows after it are left out.
        """
        rows = read_metrics(metrics)
        # What callbacks log has Lightning's step, which begins at 0: only rows that count sequences say when they are.
        known = [number for number, row in enumerate(rows) if "sequences" in row and row["step"] <= last_step]
        for row in rows[: max(known, default=-1) + 1]:
            whole = {name: int(value) if value.is_integer() else value for name, value in row.items()}
            self.experiment.log_metrics(whole, int(whole.pop("step")))
        self.save()


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``, without their empty cells; none when there is no such file.

    Args:
        path: the file.
    """
    if not Path(path).is_file():
        return []
    with open(path, newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
