"""What a command line leaves unsaid, and how it differs from the configuration in a checkpoint."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import DefaultHelpFormatter

from memnet.loading import read_checkpoint
from memnet.training.runs import newest_checkpoint
from tasks.base import Task


class UsageError(ValueError):
    """The command line or the configuration is at fault, not what it asks for."""

    exit_code = 2


class HelpFormatter(DefaultHelpFormatter):
    """Names the classes that fit an option only where they are the project's own: of modules there are hundreds."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = super()._get_help_string(action)
        head, known, names = text.partition(", known subclasses: ")
        own = [name for name in names.rstrip(")").split(", ") if name.startswith(("memnet.", "tasks."))]
        few = 0 < len(own) <= 12
        return f"{head}, such as {', '.join(own)})" if few else f"{head})" if known else text


def complete(arguments: list[str]) -> list[str]:
    """Adds to a command line what can be known without being said.

    The run's name is that of the configuration file, and a command on a checkpoint needs no configuration.

    Args:
        arguments: a command and its flags.

    Raises:
        UsageError: there are several configuration files.
    """
    command, *flags = arguments
    configs = _values(flags, "--config", "-c")
    checkpoints = _values(flags, "--ckpt_path")
    if len(configs) > 1:
        raise UsageError(
            f"--config is given {len(configs)} times, but an experiment is one file: arguments of the first would "
            "leak into classes that the second swaps in."
        )
    if configs:
        stored = _stored(configs[0])
        name = stored.get("name") or Path(configs[0]).stem
        if checkpoints and checkpoints[-1] in ("last", "best"):
            names, folders = _values(flags, "--name"), _values(flags, "--run_dir")
            parent = Path([stored.get("run_dir") or "runs", *folders][-1], [name, *names][-1])
            flags = _with_newest(command, flags, parent, checkpoints[-1])
        return [command, "--name", name, *flags]
    if any("help" in flag or flag == "-h" for flag in flags):
        return arguments
    if command != "fit" and not checkpoints:
        raise UsageError(f"memnet {command} needs --ckpt_path, a checkpoint that memnet fit has written.")
    if command != "fit" and checkpoints:
        config = stored_config(read_checkpoint(checkpoints[-1]))
        missing = {"model", "data"} - config.keys()
        if missing:
            raise UsageError(
                f"{checkpoints[-1]} does not say what its {' and '.join(sorted(missing))} was; give its --config."
            )
        return [command, "--config", yaml.safe_dump(config), *flags]
    return arguments


def differences(stored: Any, given: Any, key: str) -> list[str]:
    """Sentences on the settings in which two configurations differ.

    Args:
        stored: the checkpoint's.
        given: what the command line and its configuration file say.
        key: the name of both.
    """
    if stored == given:
        return []
    if isinstance(stored, dict) and isinstance(given, dict):
        # A key that only one of them has belongs to another version of the class, or comes with a changed class_path.
        shared = [name for name in stored if name in given]
        return [line for name in shared for line in differences(stored[name], given[name], f"{key}.{name}")]
    return [f"{key} is {given} here, but the checkpoint was trained with {stored}"]


def _values(flags: list[str], *names: str) -> list[str]:
    found = []
    for index, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in names:
            found.append(value if equals else flags[index + 1] if index + 1 < len(flags) else "")
    return found


def _stored(config: str) -> dict[str, Any]:
    """What a configuration file says; nothing where it cannot be read, and then the parser will say what is wrong."""
    try:
        content = yaml.safe_load(Path(config).read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _with_newest(command: str, flags: list[str], parent: Path, kind: str) -> list[str]:
    """The flags with ``last`` or ``best`` replaced by that checkpoint of the newest run that has one."""
    kept: list[str] = []
    skip = False
    for flag in flags:
        name, equals, _ = flag.partition("=")
        if not skip and name != "--ckpt_path":
            kept.append(flag)
        skip = name == "--ckpt_path" and not equals
    newest = newest_checkpoint(parent, kind)
    if newest is not None:
        return [*kept, "--ckpt_path", str(newest)]
    if command != "fit":
        raise UsageError(f"ckpt_path is {kind}, but no run in {parent} has a {kind}.ckpt.")
    print(f"note: no run in {parent} has a {kind}.ckpt yet, so training starts from the beginning", file=sys.stderr)
    return kept


def stored_config(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The model and data sections of the configuration that a checkpoint was trained with, as far as it holds them.

    Args:
        checkpoint: what ``read_checkpoint`` returned.
    """
    config: dict[str, Any] = {}
    model = _plain(checkpoint.get("hyper_parameters"))
    if model:
        config["model"] = model
    data = _plain(checkpoint.get("datamodule_hyper_parameters"))
    if "_class_path" in data:
        config["data"] = {"class_path": data.pop("_class_path"), "init_args": data}
    return config


def restore_task(task: Task, checkpoint: dict[str, Any]) -> None:
    """Gives a task back what a checkpoint keeps of it, such as its vocabulary, as Lightning does in its own commands.

    Args:
        task: changed in place.
        checkpoint: what ``read_checkpoint`` returned.
    """
    if kept := checkpoint.get(type(task).__qualname__):
        task.load_state_dict(kept)


def _plain(parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in (parameters or {}).items() if name != "_instantiator"}
