"""Where a run comes from: versions, commit, machine, seeds and a fingerprint of its data."""

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from memnet.bench.machine import processor
from memnet.training.diagnosis import plain
from tasks.base import Task

_PACKAGES = ("memnet", "torch", "pytorch-lightning", "numpy", "jsonargparse", "wandb")
_ROOT = Path(__file__).parents[2]


def versions() -> dict[str, str]:
    """The versions of Python, of memnet and of what its results depend on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found.setdefault("memnet", "0")
    found["torch"] = str(torch.__version__)  # with what it was built for
    return found


def commit() -> str | None:
    """The commit of the checkout that memnet is run from, ``-dirty`` where files were changed; None if installed."""
    if not (_ROOT / ".git").exists():
        return None
    try:
        said = subprocess.run(
            ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None if said.returncode == 0 else None


def machine() -> dict[str, Any]:
    """What computes: operating system, processor, accelerators, threads. No names of hosts or users."""
    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "accelerators": accelerators,
    }


def fingerprint(task: Task) -> str:
    """16 hexadecimal digits of the first batches of training and validation: other data have others.

    Args:
        task: not yet in training, so that no other process has a part of the batches.
    """
    start, task.batches_consumed = task.batches_consumed, 0
    try:
        batches = [next(iter(task.train_dataloader())), next(iter(task.val_dataloader()))]
    finally:
        task.batches_consumed = start
    digest = hashlib.sha256()
    for batch in batches:
        _update(digest, plain(batch))
    return digest.hexdigest()[:16]


def provenance(seed: int, task: Task) -> dict[str, Any]:
    """All of it, in values that ``torch.load(..., weights_only=True)`` takes.

    Args:
        seed: of the network's first weights.
        task: see ``fingerprint``.
    """
    return {
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
        "seed": seed,
        "data": fingerprint(task),
    }


def changes(stored: dict[str, Any] | None, now: dict[str, Any]) -> list[str]:
    """Sentences on what is no longer as it was when a checkpoint was written.

    Args:
        stored: the checkpoint's provenance; None in one that is older than this.
        now: this run's.
    """
    if not stored:
        return []
    before, after = stored.get("versions", {}), now["versions"]
    said = [
        f"the checkpoint was written with {name} {version}, and this is {after[name]}; numbers may differ"
        for name, version in before.items()
        if name in ("memnet", "torch", "pytorch-lightning", "numpy") and after.get(name, version) != version
    ]
    if stored.get("data", now["data"]) != now["data"]:
        said.append("the data are others than those that the checkpoint was trained on")
    return said


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for name, part in value.items():
            digest.update(name.encode())
            _update(digest, part)
    elif isinstance(value, list):
        for part in value:
            _update(digest, part)
    else:
        digest.update(repr(value).encode())
