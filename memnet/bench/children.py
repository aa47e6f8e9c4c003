"""Processes of their own, for what can be measured in a fresh one only."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def python(arguments: Sequence[str], folder: str | Path | None = None) -> str:
    """Runs this Python, which finds memnet where this process has found it.

    Args:
        arguments: its command line.
        folder: the working folder; this process's own if None.

    Returns:
        What it printed.

    Raises:
        ChildProcessError: it failed; the message is the last line of its complaint.
    """
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    if done.returncode == 0:
        return done.stdout
    killed = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    reason = (done.stderr.strip().splitlines() or [""])[-1]
    raise ChildProcessError(f"python {' '.join(arguments)[:60]} ... failed with {killed}: {reason}")
