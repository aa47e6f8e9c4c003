"""What all models with a memory that is written have in common: a cell that is run over sequences."""

import abc
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.cells import Cell
from memnet.checks import check_positive
from memnet.unroll import unroll


class UnrolledModel(nn.Module, abc.ABC):
    """Called like ``torch.nn.LSTM`` with ``batch_first=True``; its outputs are logits.

    Args:
        cell: one step.
        checkpoint_every: see ``memnet.unroll``.
        compile_steps: see ``memnet.unroll``.

    Raises:
        ValueError: ``checkpoint_every`` is not positive.
    """

    def __init__(self, cell: Cell, checkpoint_every: int | None = None, compile_steps: bool = False):
        super().__init__()
        self.input_size = cell.input_size
        self.output_size = cell.output_size
        self.cell = cell
        self.checkpoint_every = (
            None if checkpoint_every is None else check_positive("checkpoint_every", checkpoint_every)
        )
        self.compile_steps = compile_steps

    def forward(
        self,
        inputs: Float[Tensor, "batch time inp"],
        state: Any = None,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time out"], Any]:
        """Logits for every step, and the state after each sequence's last step (see ``memnet.unroll``)."""
        return unroll(self.cell, inputs, state, lengths, self.checkpoint_every, self.compile_steps)
