"""How much memory a training step needs at most: run as ``python -m memnet.bench.peak``, in a process of its own."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from memnet import NTM, kernels
from memnet.bench import children

PLAIN, CHECKPOINTS, KERNEL, BOTH = "plain loop", "checkpoints", "kernel", "kernel, checkpoints"
WAYS = (PLAIN, CHECKPOINTS, KERNEL, BOTH)

_STATUS = Path("/proc/self/status")


def peak_bytes(way: str, steps: int, batch: int, threads: int, device: torch.device) -> int:
    """Runs a training step in a process of its own.

    Args:
        way: one of ``WAYS``.
        steps: how many time steps.
        batch: how many sequences.
        threads: how many the work gets.
        device: where.

    Returns:
        By how many bytes the process grew, at the highest, over what it had after a first step on a short sequence.

    Raises:
        ChildProcessError: the process failed, as when there is not enough memory.
    """
    arguments = [way, str(steps), str(batch), str(threads), device.type]
    return int(children.python(["-m", "memnet.bench.peak", *arguments]).splitlines()[-1])


def main(arguments: Sequence[str]) -> None:
    """What the process of its own does.

    Args:
        arguments: those of ``peak_bytes``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    for name in ("steps", "batch", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("device", type=torch.device)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    every = round(given.steps**0.5) if given.way in (CHECKPOINTS, BOTH) else None
    model = NTM(9, 8, checkpoint_every=every).to(given.device)
    inputs = torch.randint(2, (given.batch, given.steps, 9)).float().to(given.device)
    fast = given.way in (KERNEL, BOTH)
    with contextlib.nullcontext() if fast else kernels.disabled():
        if fast and kernels.find(model.cell, inputs, model.cell.init_state(given.batch)) is None:
            raise SystemExit("no kernel fits here")
        _train(model, inputs[:, :3])  # libraries are loaded and compiled
        print(peak_of(lambda: _train(model, inputs), given.device))


def peak_of(run: Callable[[], object], device: torch.device) -> int:
    """By how many bytes this process grows, at the highest, while something runs.

    Args:
        run: is called once.
        device: whose memory counts.
    """
    before = _start_counting(device)
    run()
    return _peak(device) - before


def _train(model: NTM, inputs: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    outputs, _ = model(inputs)
    outputs.square().mean().backward()


def _start_counting(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    # Sets Linux's high-water mark to what is used now; where that cannot be done, the mark so far is the start.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    if _STATUS.exists():
        # getrusage would start from the parent's size, which a child inherits.
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(sys.argv[1:])
