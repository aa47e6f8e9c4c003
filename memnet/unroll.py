"""The loop over time, for any cell."""

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memnet import kernels
from memnet.cells import Cell
from memnet.checkpointing import checkpoint
from memnet.checks import check_inputs, check_lengths, check_positive
from memnet.recording import has_forward_hooks


def unroll(
    cell: Cell,
    inputs: Float[Tensor, "batch time inp"],
    state: Any = None,
    lengths: Int64[Tensor, " batch"] | None = None,
    checkpoint_every: int | None = None,
    compile_steps: bool = False,
) -> tuple[Float[Tensor, "batch time out"], Any]:
    """Runs a cell over sequences.

    A sequence cut into chunks, each begun with the state the last one returned, gives what the whole one gives.
    The standard Neural Turing Machine, Differentiable Neural Computer and sparse access memory run in kernels of their
    own where one fits (see ``memnet.kernels``).

    Args:
        cell: what happens in one step.
        inputs: at least one step; padded at the end where ``lengths`` are given.
        state: where to begin; the cell's initial state if None.
        lengths: how many steps of each sequence are real, best on the CPU (the loop looks at the shortest). Outputs
            beyond a sequence's length are 0, and its state stays that of its last real step.
        checkpoint_every: keep only every so many-th state for the backward pass and compute the steps between once
            more. Peak memory is least near the square root of the number of steps. None: keep all. (A kernel keeps a
            few kilobytes for each step and sequence, and takes a third longer with this.)
        compile_steps: where no kernel fits, compile the cell's step with ``torch.compile`` and run the sequence as one
            node of autograd: the same numbers, several times faster; on a GPU the step is replayed as a CUDA graph. The
            first call takes a minute, and so does the first one in another mode (training or not), for each other batch
            size, or with sequences that end early; lengths make no difference. A step must be free of side effects, as
            ``Cell`` asks. The plain loop is taken while somebody watches the steps (``memnet.record``, hooks,
            ``torch.func``), under autocast, and after one warning where the step cannot be compiled, as without a C++
            compiler or on a PyTorch that does not tell whether a step changes its cell.

    Returns:
        The outputs, and the state after each sequence's last step.

    Raises:
        ValueError: the inputs are not three-dimensional, empty, of another width than the cell's or not finite (checked
            on the CPU only, where looking costs nothing); lengths do not fit the inputs; ``checkpoint_every`` is not
            positive.
    """
    check_inputs(inputs, cell.input_size)
    batch_size, time, _ = inputs.shape
    if lengths is not None:
        check_lengths(lengths, batch_size, time)
    if checkpoint_every is not None:
        check_positive("checkpoint_every", checkpoint_every)
    if state is None:
        state = cell.init_state(batch_size)

    kernel = kernels.find(cell, inputs, state)
    run: _Run = kernel if kernel is not None else _compiled_loop if compile_steps else _loop
    if checkpoint_every is None or not torch.is_grad_enabled() or has_forward_hooks(cell):  # they would fire twice
        return run(cell, inputs, state, lengths)
    some_steps, parts = _SomeSteps(cell, run), []
    for start, chunk in zip(range(0, time, checkpoint_every), inputs.split(checkpoint_every, 1), strict=True):
        left = None if lengths is None else (lengths - start).clamp(0, chunk.shape[1])
        outputs, state = checkpoint(some_steps, chunk, state, left)
        parts.append(outputs)
    return torch.cat(parts, 1), state


_Run = Callable[[Cell, Tensor, Any, Tensor | None], tuple[Tensor, Any]]


class _SomeSteps(nn.Module):
    """A part of the loop, with the cell's parameters as its own."""

    def __init__(self, cell: Cell, run: _Run):
        super().__init__()
        self.cell = cell
        self.run = run

    def forward(self, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        return self.run(self.cell, inputs, state, lengths)


def _compiled_loop(cell: Cell, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    compiling = _compiler()
    if compiling is not None and compiling.fits(cell, inputs, state):
        alive = _alive(lengths, inputs.shape[1], inputs.device)
        done = compiling.run(cell, inputs, state, alive)
        if done is not None:
            return done
    return _loop(cell, inputs, state, lengths)


@cache
def _compiler() -> Any:
    """``memnet.compiling``, which takes a second to load; None, after a warning, where torch has not what it needs."""
    try:
        return importlib.import_module("memnet.compiling")
    except ImportError as error:
        warnings.warn(
            f"memnet cannot compile steps with PyTorch {torch.__version__} and takes the plain loop, which is slower: "
            f"{error}.",
            stacklevel=3,
        )
        return None


def _loop(cell: Cell, inputs: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
    outputs = []
    for x, keep in zip(inputs.unbind(1), _alive(lengths, inputs.shape[1], inputs.device), strict=True):
        output, new_state = cell(x, state)
        if keep is not None:
            output = _select(keep, output, torch.zeros_like(output))
            new_state = tree_map(lambda new, old, keep=keep: _select(keep, new, old), new_state, state)
        outputs.append(output)
        state = new_state
    return torch.stack(outputs, 1), state


def _select(keep: Tensor, new: Any, old: Any) -> Any:
    if not isinstance(new, Tensor):
        return new
    return torch.where(keep.reshape(-1, *[1] * (new.dim() - 1)), new, old)


def _alive(lengths: Tensor | None, time: int, device: torch.device) -> list[Tensor | None]:
    """For each step, which sequences have not ended; None while none has, so that full batches cost nothing."""
    if lengths is None:
        return [None] * time
    shortest = int(lengths.min())
    lengths = lengths.to(device)
    return [None if step < shortest else lengths > step for step in range(time)]
