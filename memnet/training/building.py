"""An experiment for Python users, whose checkpoints are as good as the command line's."""

from pathlib import Path
from typing import Any

import yaml

from memnet.training.experiment import Experiment
from tasks.base import Task


def experiment_from_config(config: str | Path | dict[str, Any]) -> tuple[Experiment, Task]:
    """The experiment and the task of a configuration, for a trainer of one's own.

    Built in this way their checkpoints hold class paths and arguments and no pickled code, so that ``memnet.load``,
    ``memnet test`` and ``memnet plot`` take them.

    >>> experiment, task = experiment_from_config({
    ...     "model": {"network": {"class_path": "memnet.NTM", "init_args": {"input_size": 9, "output_size": 8}}},
    ...     "data": {"class_path": "tasks.Copy", "init_args": {"batch_size": 16}},
    ... })
    >>> type(experiment.network).__name__, type(task).__name__
    ('NTM', 'Copy')

    Args:
        config: a configuration file as ``memnet fit`` takes, or its content. The trainer's part is not used.

    Raises:
        ValueError: the configuration does not parse, or network and task do not fit; one sentence says why.
        OSError: the file cannot be read.
    """
    from memnet.training.cli import build  # the parser costs more to import than the rest

    content = config if isinstance(config, dict) else yaml.safe_load(Path(config).read_text())
    cli = build(content, run=False)
    return cli.model, cli.datamodule
