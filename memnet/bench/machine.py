"""On what a measurement was made."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from memnet.bench.settings import Settings, cores


def describe(settings: Settings) -> dict[str, Any]:
    """The machine, the versions and the moment.

    Args:
        settings: what was asked for.
    """
    import memnet

    described: dict[str, Any] = {
        "processor": processor(),
        "cores": cores(),
        "threads": "as each benchmark says" if settings.threads is None else settings.threads,
        "device": settings.device.type,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "memnet": memnet.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": [round(number, 2) for number in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }
    if settings.device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(settings.device)
        described["cuda"] = torch.version.cuda
    return described


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit that memnet runs from, with ``+`` where files have been changed since; None outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None  # git would go on looking further up, and find somebody else's
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
