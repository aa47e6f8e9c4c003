"""The memory-augmented network with least recently used access: Santoro et al. 2016, https://arxiv.org/abs/1605.06065."""

from collections.abc import Callable

from memnet.access import ReadWriteAccess
from memnet.addressing import ContentAddressing, LeastUsedAddressing
from memnet.cells import MAX_GRADIENT, Cell, LSTMController, MemoryCell
from memnet.checks import check_positive
from memnet.models.unrolled import UnrolledModel
from memnet.scores import CosineScore
from memnet.starts import MemoryStart


class MANN(UnrolledModel):
    """A controller with a memory that is read by content and written where it was read last or is used least.

    Called like ``torch.nn.LSTM`` with ``batch_first=True``; its outputs are logits. Each head reads and writes. In the
    paper a head writes the very key that it reads by; here, as in the Neural Turing Machine, what it writes is emitted
    for itself, and so is what it erases first.

    >>> import torch
    >>> model = MANN(input_size=9, output_size=8)
    >>> outputs, state = model(torch.zeros(2, 5, 9))
    >>> outputs.shape
    torch.Size([2, 5, 8])

    Args:
        input_size: width of the input.
        output_size: width of the output.
        num_slots: N, rows of the memory.
        slot_size: W, width of a row.
        num_heads: how many heads read, and how many write; 4 in the paper.
        usage_decay: gamma in [0, 1); see ``LeastUsedAddressing``.
        controller: makes the controller from the width of its input; ``LSTMController`` by default.
        memory_start: the memory at the beginning of a sequence; constant 1e-6 by default.
        checkpoint_every: see ``memnet.unroll``; for sequences too long for memory.
        max_gradient: see ``memnet.MemoryCell``; 1e6 by default, which only gradients about to overflow exceed.
        compile_steps: see ``memnet.unroll``; several times faster after a minute of compiling.

    Raises:
        ValueError: a size or ``max_gradient`` is not positive, ``usage_decay`` is not in [0, 1), or the controller or
            the memory's start does not fit.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        num_slots: int = 128,
        slot_size: int = 40,
        num_heads: int = 4,
        usage_decay: float = 0.99,
        controller: Callable[[int], Cell] | None = None,
        memory_start: MemoryStart | None = None,
        checkpoint_every: int | None = None,
        max_gradient: float | None = MAX_GRADIENT,
        compile_steps: bool = False,
    ):
        check_positive("input_size", input_size)
        check_positive("output_size", output_size)
        check_positive("slot_size", slot_size)
        check_positive("num_heads", num_heads)
        make_controller = controller if controller is not None else LSTMController
        controller_cell = make_controller(input_size + num_heads * slot_size)
        access = ReadWriteAccess(
            controller_cell.output_size,
            ContentAddressing(CosineScore(slot_size)),
            LeastUsedAddressing(usage_decay),
            num_slots,
            slot_size,
            num_heads,
            num_heads,
            memory_start,
        )
        cell = MemoryCell(controller_cell, access, input_size, output_size, max_gradient)
        super().__init__(cell, checkpoint_every, compile_steps)
