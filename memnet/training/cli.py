"""``memnet fit | validate | test | predict``: an experiment is one YAML file and any flags that change it."""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import SIGTERMException

from memnet.loading import check_fits, load, read_checkpoint
from memnet.training.arguments import HelpFormatter, UsageError, complete, differences, restore_task, stored_config
from memnet.training.callbacks import Checkpoints, CleanInterrupt, ResumeExactly, StopWhenSolved
from memnet.training.errors import one_sentence
from memnet.training.experiment import Experiment
from memnet.training.health import NumericalHealth
from memnet.training.progress import Progress
from memnet.training.provenance import changes, provenance
from memnet.training.report import print_examples, print_metrics, print_summary, write_table
from memnet.training.runs import MetricsFile, RunFolder
from memnet.training.telemetry import Telemetry
from memnet.training.tracking import finish, log_checkpoint, log_pictures, log_table, run_id_of, wandb_logger
from tasks.base import Task

# Sizes and steps are the experiment's; these hold for every one.
TRAINER_DEFAULTS = {
    "accelerator": "auto",
    "devices": 1,
    "enable_model_summary": False,
    "enable_progress_bar": True,
    "log_every_n_steps": 50,
    "num_sanity_val_steps": 1,
    "val_check_interval": 1000,
}

DESCRIPTIONS = {
    "fit": "Trains a network on a task, as a configuration file says.",
    "validate": "Measures a checkpoint on its task's validation set.",
    "test": "Measures a checkpoint on its task's test sets, beside the published numbers.",
    "predict": "Prints examples and the answers of a checkpoint to them.",
}

NEEDS = {"fit": "--config FILE"} | dict.fromkeys(["validate", "test", "predict"], "--ckpt_path FILE")
# 128 + the signal's number, as shells have it.
INTERRUPTED, TERMINATED = 130, 143


class Unprofiled(PassThroughProfiler):
    """Measures nothing, and faster than Lightning's: that one starts some fifty generators a step to do so."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        """Nothing.

        Args:
            action_name: what Lightning is about to do.
        """
        return self._nothing


class MemnetCLI(LightningCLI):
    """Lightning's command line with run folders, exact resuming and checkpoints that carry their own configuration."""

    run_folder: RunFolder | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The commands, and the arguments of the trainer's methods, all of which they see to themselves."""
        ours = {"model", "datamodule", "dataloaders", "ckpt_path", "weights_only", "verbose", "return_predictions"}
        return dict.fromkeys(DESCRIPTIONS, ours | {"train_dataloaders", "val_dataloaders"})

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the seed. There is always one: Lightning's own ``True`` is 0 with a warning."""
        parser.add_argument("--seed_everything", type=int, default=1, help="Seed of the network's first weights.")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument("--examples", type=int, default=4, help="How many examples are printed.")
            parser.add_argument(
                "--input", type=str | None, default=None, help="Text to answer in place of the task's examples."
            )
        return parser

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds network, task and trainer, the long list of the trainer's options at the end."""
        parser.add_lightning_class_args(Experiment, "model")
        parser.add_lightning_class_args(Task, "data", subclass_mode=True)
        parser.add_lightning_class_args(pl.Trainer, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what concerns the run as a whole."""
        parser.add_argument("--run_dir", type=str, default="runs", help="Folder of all runs.")
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="Folder of this experiment's runs; the config's name if unset.",
        )
        parser.add_argument(
            "--solved_at",
            type=float | None,
            default=None,
            help="Training ends once the task's validation metric (bits) is this low.",
        )
        parser.add_argument("--solved_for", type=int, default=1, help="At so many validations in a row.")
        parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to start from.")
        parser.add_argument(
            "--health",
            type=Literal["stop", "roll_back", "off"],
            default="stop",
            help="What to do when a loss or gradient is NaN or explodes: stop, or go back to last.ckpt.",
        )
        parser.add_argument("--wandb", type=bool, default=False, help="Log to Weights & Biases as well.")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses what was given, never ``sys.argv`` behind the caller's back."""
        try:
            self.config = parser.parse_object(args) if isinstance(args, dict) else parser.parse_args(args)
        except argparse.ArgumentError as error:
            ours = parser if isinstance(args, dict) else self._subcommand_parsers.get(args[0], parser)
            known = [key for key in ours.get_defaults(skip_validation=True).keys() if key != "config"]  # noqa: SIM118
            raise UsageError(one_sentence(str(error), known)) from error

    def _parse_ckpt_path(self) -> None:
        # Lightning lets the checkpoint's arguments silently override the flags; here a difference is refused or said.
        self.checkpoint: dict[str, Any] | None = None
        command = self.config.get("subcommand")
        if command is None:
            return
        given = self.config[command]
        if given.ckpt_path is None:
            if command != "fit":
                raise UsageError(f"memnet {command} needs --ckpt_path, a checkpoint that memnet fit has written.")
            return
        self.checkpoint = read_checkpoint(given.ckpt_path)
        self._dump_config()
        changes = [
            change
            for key, section in stored_config(self.checkpoint).items()
            for change in differences(section, self.config_dump[key], key)
        ]
        if command == "fit":
            if "optimizer_states" not in self.checkpoint:
                raise UsageError(
                    f"ckpt_path is {given.ckpt_path}, which has no optimiser state; resume from last.ckpt."
                )
            refused = [change for change in changes if change.startswith("model.")]
            if refused:
                raise UsageError(
                    f"{refused[0]}; a resumed run keeps its model, so start a new one (no --ckpt_path) to change it."
                )
        for change in changes:
            print(f"note: {change}", file=sys.stderr)

    def instantiate_classes(self) -> None:
        """Builds network, task and trainer."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if " Union subtypes" not in str(error):
                raise
            raise ValueError(one_sentence(str(error))) from error  # the class's own words, out of the parser's

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Refuses what does not fit, makes the run folder, then the trainer."""
        task, experiment = self.datamodule, self.model
        task.check_model(experiment.network)
        task._log_hyperparams = False  # every logger gets the whole configuration instead
        if self.subcommand is None:
            return None  # built for Python users, who bring a trainer of their own
        if self.checkpoint is not None:
            check_fits(experiment.network, self.checkpoint, self._get(self.config, "ckpt_path"))
        trainer_config = self._get(self.config_init, "trainer")
        if self.subcommand != "fit":
            return super().instantiate_trainer(logger=False, enable_progress_bar=False)
        self.solved_at = self._get(self.config, "solved_at")
        endless = trainer_config.max_steps < 0 and trainer_config.max_epochs is None and trainer_config.max_time is None
        if endless and self.solved_at is None:
            raise UsageError("nothing says when training ends: give trainer.max_steps or solved_at.")
        steps = self.checkpoint["global_step"] if self.checkpoint is not None else 0
        if 0 <= trainer_config.max_steps <= steps:
            raise UsageError(f"trainer.max_steps is {trainer_config.max_steps}, but training begins at step {steps}.")
        interval = trainer_config.val_check_interval
        if isinstance(interval, int | float) and not interval > 0:
            raise UsageError(f"trainer.val_check_interval is {interval}, but must be greater than 0.")
        if str(trainer_config.strategy).endswith(("_fork", "_spawn", "_notebook")):
            raise UsageError(
                f"trainer.strategy is {trainer_config.strategy}, whose processes keep what they learn to themselves; "
                "use ddp."
            )
        experiment.run_name = self._get(self.config, "name") or "run"
        experiment.provenance = provenance(self._get(self.config, "seed_everything"), task)
        if self.checkpoint is not None:
            for change in changes(self.checkpoint.get("provenance"), experiment.provenance):
                print(f"note: {change}", file=sys.stderr)
        self.run_folder = RunFolder.create(self._get(self.config, "run_dir"), experiment.run_name)
        try:
            return self._fit_trainer(self.run_folder, trainer_config)
        except BaseException:
            self.run_folder.discard_if_unused()
            raise

    def _fit_trainer(self, run: RunFolder, trainer_config: Any) -> pl.Trainer:
        self.stop = StopWhenSolved(self.solved_at, self._get(self.config, "solved_for"))
        self.interrupt = CleanInterrupt()
        self.checkpoints = Checkpoints(run)
        own = _as_list(trainer_config.callbacks)
        health = self._get(self.config, "health")
        if health != "off" and not any(isinstance(each, NumericalHealth) for each in own):
            own.append(NumericalHealth(health))
        # Resuming comes first, as it puts right what the others look at.
        callbacks = [ResumeExactly(), *own, self.stop, self.interrupt, self.checkpoints]
        if trainer_config.enable_progress_bar is not False:
            callbacks.append(Progress())
        loggers: list[Logger] = [MetricsFile(run), *_as_list(trainer_config.logger)]
        if trainer_config.logger is False:
            loggers = []
        if self._get(self.config, "wandb"):
            tracked = wandb_logger(run, run_id_of(self.checkpoint))
            self.model.provenance["wandb"] = tracked.version
            loggers.append(tracked)
            callbacks.append(Telemetry())
        trainer = super().instantiate_trainer(
            logger=loggers,
            callbacks=callbacks,
            default_root_dir=str(run.path),
            profiler=trainer_config.profiler or Unprofiled(),
        )
        if trainer.is_global_zero:
            run.config.write_text(yaml.safe_dump(self.config_dump, sort_keys=False))
            if self.checkpoint is not None:
                self._carry_over(loggers)
        for each in loggers:
            each.log_hyperparams(self.config_dump | {"provenance": self.model.provenance})
        return trainer

    def _carry_over(self, loggers: list[Logger]) -> None:
        assert self.checkpoint is not None
        path = Path(self._get(self.config, "ckpt_path"))
        self.checkpoints.carry_over(path)
        earlier = RunFolder.of_checkpoint(path)
        for logger in loggers:
            if earlier is not None and isinstance(logger, MetricsFile):
                logger.carry_over(earlier.metrics, self.checkpoint["global_step"])

    def fit(self, **kwargs: Any) -> None:
        """Trains, draws the pictures and says what to do next."""
        run = self.run_folder
        assert run is not None
        try:
            self.trainer.fit(**kwargs, ckpt_path=self._get(self.config, "ckpt_path"))
        except BaseException as error:
            finish(self.trainer.loggers, exit_code=1)
            if run.last.is_file() and self.trainer.is_global_zero:
                print(f"to go on: memnet fit --config {run.config} --ckpt_path {run.last}", file=sys.stderr)
            if self.interrupt.interrupted:
                raise SystemExit(INTERRUPTED) from error
            _exit_as_told(error)
            raise
        pictures: dict[str, Path] = {}
        if self.trainer.is_global_zero:
            try:
                pictures = self._draw(run)
            finally:
                print_summary(self.model, run, self.stop, self.checkpoints, list(pictures.values()))
        log_pictures(self.trainer.loggers, pictures)
        log_checkpoint(self.trainer.loggers, run.best, {"config": self.config_dump} | self.model.provenance)
        finish(self.trainer.loggers)

    def _draw(self, run: RunFolder) -> dict[str, Path]:
        from memnet.training import plotting  # matplotlib is not needed before

        content = read_checkpoint(run.best)
        names = self.datamodule.test_names[:1]
        figures = plotting.draw_all(load(run.best), self.datamodule, run, plotting.title_of(content), names)
        return plotting.save_all(figures, run.plots, refresh=True)

    def validate(self, **kwargs: Any) -> None:
        """Prints the validation metrics."""
        self._evaluate(self.trainer.validate, kwargs | {"verbose": False})
        print_metrics(self.trainer.callback_metrics)

    def test(self, **kwargs: Any) -> None:
        """Prints the table of the test sets and writes it beside the checkpoint."""
        self._evaluate(self.trainer.test, kwargs | {"verbose": False})
        path = Path(self._get(self.config, "ckpt_path"))
        rows = write_table(self.trainer.callback_metrics, self.datamodule, path)
        run = RunFolder.of_checkpoint(path)
        if self._get(self.config, "wandb") and run is not None:
            log_table(run, run_id_of(self.checkpoint), rows)

    def predict(self, **kwargs: Any) -> None:
        """Prints the examples, or the answer to what was typed."""
        text = self._get(self.config, "input")
        if text is not None:
            assert self.checkpoint is not None
            restore_task(self.datamodule, self.checkpoint)
            batch = self.datamodule.batch_of(text)
            network = load(self._get(self.config, "ckpt_path"))
            with torch.no_grad():
                evaluation = self.datamodule.evaluate(network, batch)
            print(self.datamodule.describe(batch, evaluation.outputs, 0))
            return
        print_examples(self._evaluate(self.trainer.predict, kwargs), self._get(self.config, "examples"))

    def _evaluate(self, method: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        try:
            result = method(**kwargs, ckpt_path=self._get(self.config, "ckpt_path"))
        except SystemExit as error:
            _exit_as_told(error)
            raise
        if self.trainer.received_sigterm:
            raise SystemExit(TERMINATED)
        return result


def _exit_as_told(error: BaseException) -> None:
    """Says that a signal ended the run, where Lightning would exit with 0 or 1."""
    if isinstance(error, SIGTERMException):
        raise SystemExit(TERMINATED) from error
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
        raise SystemExit(INTERRUPTED) from error


def run(arguments: Sequence[str]) -> None:
    """Runs one command.

    Args:
        arguments: the command line without the program's name: a command and its flags.

    Raises:
        argparse.ArgumentError: the command line or configuration does not parse.
        ValueError: something in it does not fit.
        OSError: a file cannot be read or written.
        SystemExit: the run was interrupted.
    """
    quieten()
    build(complete(list(arguments)))


def build(args: list[str] | dict[str, Any], run: bool = True) -> MemnetCLI:
    """Parses and, when told so, runs.

    Args:
        args: a command line, or a configuration as a dictionary.
        run: whether ``args`` starts with a command, to be run.
    """
    settings: dict[str, Any] = {"exit_on_error": False, "formatter_class": HelpFormatter}
    usages = {
        name: settings | {"description": text, "usage": f"memnet {name} {NEEDS[name]} [--key value ...]"}
        for name, text in DESCRIPTIONS.items()
    }
    return MemnetCLI(
        Experiment,
        Task,
        subclass_mode_data=True,
        save_config_callback=None,
        auto_configure_optimizers=False,
        parser_kwargs=settings | usages if run else settings,
        args=args,
        run=run,
    )


def _as_list(value: Any) -> list[Any]:
    if value is None or value is True:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def quieten() -> None:
    """Silences Lightning's advertisements and the advice that does not hold here."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # samples are drawn, not loaded
        ".*callbacks used to create the checkpoint need to be provided.*",  # those of fit are nothing to test
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
    ):
        warnings.filterwarnings("ignore", message=message)
