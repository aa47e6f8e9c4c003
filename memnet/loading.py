"""A trained network from a checkpoint, with neither Lightning nor pickled code."""

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# The network is this attribute of the LightningModule that trained it.
_PREFIX = "network."


def load(checkpoint: str | Path) -> nn.Module:
    """The network that ``memnet fit`` trained, on the CPU and in eval mode.

    The file is read with ``weights_only=True``. The classes that it names must be importable; their code is the
    installed one.

    Args:
        checkpoint: a ``best.ckpt`` or ``last.ckpt`` of a run.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is truncated, not memnet's, names a class that cannot be imported or does not take the arguments,
            or its weights do not fit the network.
    """
    content = read_checkpoint(checkpoint)
    _warn_of_versions(content, checkpoint)
    network = build_network(content, checkpoint)
    check_fits(network, content, checkpoint)
    network.load_state_dict(_weights(content))
    return network.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint file holds.

    Args:
        path: the file.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is truncated or not a checkpoint of memnet.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"checkpoint {path} does not exist.")
    if not Path(path).is_file():
        raise IsADirectoryError(f"checkpoint {path} is not a file; a run keeps its own in checkpoints/best.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    # What torch.load says to a file that is cut short depends on where it was cut.
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise ValueError(f"checkpoint {path} is truncated or not a checkpoint of memnet.") from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not any(str(name).startswith(_PREFIX) for name in weights):
        raise ValueError(f"checkpoint {path} is not a checkpoint of memnet: it holds no network.")
    return content


def build_network(content: dict[str, Any], path: str | Path) -> nn.Module:
    """The untrained network that a checkpoint describes.

    Args:
        content: what ``read_checkpoint`` returned.
        path: where it was read, for messages.

    Raises:
        ValueError: the description is missing, or a class cannot be imported or does not take its arguments.
    """
    from jsonargparse import ArgumentParser  # costs more than most programs that import memnet want to pay

    recipe = content.get("hyper_parameters", {}).get("network")
    if not isinstance(recipe, dict) or "class_path" not in recipe:
        raise ValueError(
            f"checkpoint {path} does not say how its network was built; train from a configuration, or in Python with "
            "memnet.training.experiment_from_config."
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=nn.Module)
    try:
        config = parser.parse_object({"network": recipe})
    except Exception as error:  # jsonargparse's own errors derive from nothing narrower
        reason = " ".join(str(error).split())
        raise ValueError(f"checkpoint {path} holds a {recipe['class_path']} that cannot be built: {reason}.") from error
    return parser.instantiate_classes(config).network


def check_fits(network: nn.Module, content: dict[str, Any], path: str | Path) -> None:
    """Refuses a checkpoint whose weights are of another network.

    Args:
        network: the network that shall get the weights.
        content: what ``read_checkpoint`` returned.
        path: where it was read, for messages.

    Raises:
        ValueError: a tensor is missing, left over or of another shape; the message names the first such tensor.
    """
    expected, found = network.state_dict(), _weights(content)
    about = f"checkpoint {path} is of another network than this {type(network).__name__}"
    for name in expected.keys() | found.keys():
        if name not in found:
            raise ValueError(f"{about}: it has no {name}.")
        if name not in expected:
            raise ValueError(f"{about}: it has a {name}, which this one lacks.")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(f"{about}: {name} is {tuple(found[name].shape)} there and {tuple(tensor.shape)} here.")


def _warn_of_versions(content: dict[str, Any], path: str | Path) -> None:
    written = content.get("provenance", {}).get("versions", {}) if isinstance(content.get("provenance"), dict) else {}
    # Python shows a warning of one text from one place once.
    if written.get("torch", str(torch.__version__)) != str(torch.__version__):
        warnings.warn(
            f"checkpoint {path} was written with torch {written['torch']}, and this is {torch.__version__}; its "
            "numbers may differ in their last digits.",
            stacklevel=3,
        )


def _weights(content: dict[str, Any]) -> dict[str, Tensor]:
    weights = content["state_dict"]
    return {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items() if name.startswith(_PREFIX)}
