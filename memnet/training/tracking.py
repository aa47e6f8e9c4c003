"""Weights & Biases, by one flag."""

import netrc
import os
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import Logger, WandbLogger

from memnet.training.runs import RunFolder


def wandb_logger(run: RunFolder) -> Logger:
    """A logger into the run's own folder; offline where there is no key, unless ``WANDB_MODE`` says otherwise.

    Args:
        run: the run that is logged.
    """
    offline = "WANDB_MODE" not in os.environ and not _has_key()
    return WandbLogger(
        project="memnet",
        name=f"{run.path.parent.name}/{run.path.name}",
        group=run.path.parent.name,
        save_dir=str(run.path),
        offline=offline,
    )


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


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
