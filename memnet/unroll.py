"""The loop over time, for any cell."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from memnet import kernels
from memnet.cells import Cell
from memnet.checkpointing import checkpoint
from memnet.checks import check_inputs, check_lengths, check_positive
from memnet.recording import has_hooks


def unroll(
    cell: Cell,
    inputs: Float[Tensor, "batch time inp"],
    state: Any = None,
    lengths: Int64[Tensor, " batch"] | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Float[Tensor, "batch time out"], Any]:
    """Runs a cell over sequences.

    A sequence cut into chunks, each begun with the state the last one returned, gives what the whole one gives.
    The standard Neural Turing Machine runs in a kernel of its own where one fits (see ``memnet.kernels``).

    Args:
        cell: what happens in one step.
        inputs: at least one step; padded at the end where ``lengths`` are given.
        state: where to begin; the cell's initial state if None.
        lengths: how many steps of each sequence are real, best on the CPU (the loop looks at the shortest). Outputs
            beyond a sequence's length are 0, and its state stays that of its last real step.
        checkpoint_every: keep only every so many-th state for the backward pass and compute the steps between once
            more. Peak memory is least near the square root of the number of steps. None: keep all. A kernel takes
            checkpoints of the memory of its own and has no use for this.

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
    if kernel is not None:
        return kernel(cell, inputs, state, lengths)

    steps = inputs.unbind(1)
    alive = _alive(lengths, time, inputs.device)
    if checkpoint_every is None or not torch.is_grad_enabled() or has_hooks(cell):  # hooks would fire twice
        outputs, state = _loop(cell, steps, alive, state)
        return torch.stack(outputs, 1), state
    some_steps, parts = _SomeSteps(cell), []
    for start in range(0, time, checkpoint_every):
        chunk = slice(start, start + checkpoint_every)
        outputs, state = checkpoint(some_steps, inputs[:, chunk], alive[chunk], state)
        parts.append(outputs)
    return torch.cat(parts, 1), state


class _SomeSteps(nn.Module):
    """A part of the loop, with the cell's parameters as its own."""

    def __init__(self, cell: Cell):
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor, alive: Sequence[Tensor | None], state: Any) -> tuple[Tensor, Any]:
        outputs, state = _loop(self.cell, inputs.unbind(1), alive, state)
        return torch.stack(outputs, 1), state


def _loop(cell: Cell, steps: Sequence[Tensor], alive: Sequence[Tensor | None], state: Any) -> tuple[list[Tensor], Any]:
    outputs = []
    for x, keep in zip(steps, alive, strict=True):
        output, new_state = cell(x, state)
        if keep is not None:
            output = _select(keep, output, torch.zeros_like(output))
            new_state = tree_map(lambda new, old, keep=keep: _select(keep, new, old), new_state, state)
        outputs.append(output)
        state = new_state
    return outputs, state


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
