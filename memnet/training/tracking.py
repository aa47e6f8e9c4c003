"""Weights & Biases, by one flag."""

import netrc
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

from memnet.training.runs import RunFolder


def wandb_logger(run: RunFolder, run_id: str | None = None) -> WandbLogger:
    """A logger into the run's own folder; offline where there is no key, unless ``WANDB_MODE`` says otherwise.

    Args:
        run: the run that is logged.
        run_id: of the run in Weights & Biases that is gone on with; a new one if None.
    """
    offline = "WANDB_MODE" not in os.environ and not _has_key()
    return WandbLogger(
        project="memnet",
        name=f"{run.path.parent.name}/{run.path.name}",
        group=run.path.parent.name,
        save_dir=str(run.path),
        offline=offline,
        id=run_id or secrets.token_hex(4),
        resume="allow",
    )


def run_id_of(checkpoint: dict[str, Any] | None) -> str | None:
    """The run in Weights & Biases that a checkpoint was written in, or None.

    Args:
        checkpoint: what ``read_checkpoint`` returned, or None.
    """
    found = ((checkpoint or {}).get("provenance") or {}).get("wandb")
    return found if isinstance(found, str) else None


def log_checkpoint(loggers: list[Logger], checkpoint: Path, about: dict[str, Any]) -> None:
    """Sends a checkpoint as an artifact to Weights & Biases when it is on.

    Args:
        loggers: the trainer's loggers.
        checkpoint: the file.
        about: what is said of it.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger) and checkpoint.is_file():
            artifact = wandb.Artifact(f"checkpoint-{logger.version}", type="model", metadata=about)
            artifact.add_file(str(checkpoint))
            logger.experiment.log_artifact(artifact)


def log_table(run: RunFolder, run_id: str | None, rows: list[dict[str, Any]]) -> None:
    """Sends the table of the test sets to the run of Weights & Biases that was trained in.

    Args:
        run: the run's folder.
        run_id: that run's id, from ``run_id_of``.
        rows: at least one; all with the same keys.
    """
    logger = wandb_logger(run, run_id)
    logger.log_table("test", columns=list(rows[0]), data=[[_cell(value) for value in row.values()] for row in rows])
    numbers = {
        f"test/{row['test']}/{name}": value for row in rows for name, value in row.items() if isinstance(value, float)
    }
    logger.experiment.summary.update(numbers)
    finish([logger])


def finish(loggers: list[Logger], exit_code: int = 0) -> None:
    """Closes what was opened, so that a second run in the same process is a second run.

    Args:
        loggers: the trainer's loggers.
        exit_code: 0 when training finished.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=exit_code)


def log_pictures(loggers: list[Logger], pictures: dict[str, Any]) -> None:
    """Sends pictures to Weights & Biases when it is on.

    Args:
        loggers: the trainer's loggers.
        pictures: name to the path of a PNG.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, path in pictures.items():
                logger.log_image(key=f"pictures/{name}", images=[str(path)])


def _cell(value: Any) -> str:
    # A column of a table has one type, and some rows have no number.
    return value if isinstance(value, str) else f"{value:.6g}"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
