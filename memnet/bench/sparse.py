"""A training step of sparse access memory and of the dense one beside it, by the number of slots."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from memnet import MANN, SAM, ApproximateSearch, kernels
from memnet.bench import children
from memnet.bench.peak import peak_of
from memnet.sparse_search import Search

INPUTS, OUTPUTS, SLOT_SIZE = 9, 8, 32
DENSE = "dense"
EMPTY, EMPTY_KERNEL = "SAM, empty memory, plain loop", "SAM, empty memory, kernel"
FULL, FULL_KERNEL = "SAM, full memory, plain loop", "SAM, full memory, kernel"
APPROXIMATE = "SAM, full memory, approximate"
WAYS = (DENSE, EMPTY, EMPTY_KERNEL, FULL, FULL_KERNEL, APPROXIMATE)
KERNELS = (EMPTY_KERNEL, FULL_KERNEL)


@dataclass(frozen=True)
class SparseWork:
    """A sequence for a controller of 100 LSTM units and one head, which reads 4 slots where the memory is sparse.

    Attributes:
        way: one of ``WAYS``; the dense memory is ``memnet.MANN``'s.
        slots: of the memory.
        steps: time steps.
        beyond: slots in use from which on the approximate search is approximate.
    """

    way: str
    slots: int
    steps: int
    beyond: int = 32_768

    def prepare(self, device: torch.device) -> Callable[[], float]:
        """Makes model and memory.

        Returns:
            Does a training step and returns the seconds of one of its time steps. Copying a full memory at its
            beginning, and sorting it into the cells of the approximate search, are not among them; but the kernel's
            copy is, which is part of its call.

        Raises:
            RuntimeError: no kernel runs here, and this is one of ``KERNELS``.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            inputs = torch.randint(2, (1, self.steps, INPUTS)).float().to(device)
            if self.way == DENSE:
                return _dense(MANN(INPUTS, OUTPUTS, self.slots, SLOT_SIZE, num_heads=1).to(device), inputs)
            search: Search | None = ApproximateSearch(beyond=self.beyond) if self.way == APPROXIMATE else None
            model = SAM(INPUTS, OUTPUTS, self.slots, SLOT_SIZE, search=search).to(device)
            state = model.cell.init_state(1)
            if self.way not in (EMPTY, EMPTY_KERNEL):
                state = _filled(state)
            if self.way not in KERNELS:
                return _sparse(model, inputs, state)
            if kernels.find(model.cell, inputs, state) is None:
                raise RuntimeError(f"no kernel runs sparse access memory on {device}.")
            return _with_kernel(model, inputs, state)


def _filled(state: Any) -> Any:
    """All slots hold something, and were accessed in the order of their index."""
    access = state.access
    memory = torch.randn_like(access.memory)
    slots = access.last_access.shape[1]
    times = torch.arange(1, slots + 1, device=memory.device)[None]
    full = torch.full_like(access.in_use, slots)
    return state._replace(access=access._replace(memory=memory, last_access=times, in_use=full, time=full))


def _dense(model: MANN, inputs: Tensor) -> Callable[[], float]:
    def run() -> float:
        model.zero_grad(set_to_none=True)
        begin = perf_counter()
        with kernels.disabled():
            outputs, _ = model(inputs)
            outputs.square().mean().backward()
        return _seconds_since(begin, inputs)

    return run


def _sparse(model: SAM, inputs: Tensor, state: Any) -> Callable[[], float]:
    def run() -> float:
        model.zero_grad(set_to_none=True)
        fresh = model.cell.init_state(1)  # the starts that are learned, in a graph of its own
        opened = model.open(fresh._replace(access=state.access))
        begin = perf_counter()
        outputs, _ = model.run(inputs, opened)
        outputs.square().mean().backward()
        seconds = _seconds_since(begin, inputs)
        opened.access.close()
        return seconds

    return run


def _with_kernel(model: SAM, inputs: Tensor, state: Any) -> Callable[[], float]:
    def run() -> float:
        model.zero_grad(set_to_none=True)
        fresh = model.cell.init_state(1)._replace(access=state.access)
        begin = perf_counter()
        outputs, _ = model(inputs, fresh)
        outputs.square().mean().backward()
        return _seconds_since(begin, inputs)

    return run


def _seconds_since(begin: float, inputs: Tensor) -> float:
    if inputs.is_cuda:
        torch.cuda.synchronize()
    return (perf_counter() - begin) / inputs.shape[1]


def peak_bytes(work: SparseWork, threads: int, device: torch.device) -> int:
    """By how much a process of its own grows during a training step, at the highest. A full memory is not counted.

    Args:
        work: what it does, after the same on three time steps.
        threads: how many it gets.
        device: where.

    Raises:
        ChildProcessError: the process failed, as when there is not enough memory.
    """
    arguments = [work.way, str(work.slots), str(work.steps), str(threads), device.type]
    return int(children.python(["-m", "memnet.bench.sparse", *arguments]).splitlines()[-1])


def main(arguments: Sequence[str]) -> None:
    """What the process of its own does.

    Args:
        arguments: those of ``peak_bytes``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    for name in ("slots", "steps", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("device", type=torch.device)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    SparseWork(given.way, min(given.slots, 1024), 3).prepare(given.device)()  # libraries are loaded
    step = SparseWork(given.way, given.slots, given.steps).prepare(given.device)
    print(peak_of(step, given.device))


def kernel_is_there(device: torch.device) -> bool:
    """Whether the kernel runs on a device.

    Args:
        device: where.
    """
    try:
        SparseWork(EMPTY_KERNEL, 8, 1).prepare(device)
    except RuntimeError:
        return False
    return True


def approximate_search_is_there() -> bool:
    """Whether the extra ``ann`` is installed."""
    with contextlib.suppress(ImportError):
        ApproximateSearch()
        return True
    return False


if __name__ == "__main__":
    main(sys.argv[1:])
