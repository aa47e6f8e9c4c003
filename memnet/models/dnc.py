"""The Differentiable Neural Computer: Graves et al., "Hybrid computing using a neural network with dynamic external
memory", Nature 538 (2016), https://www.nature.com/articles/nature20101."""

from collections.abc import Callable

from memnet.access import ReadWriteAccess
from memnet.addressing import Addressing, AllocationAddressing, ContentAddressing, LinkAddressing
from memnet.cells import MAX_GRADIENT, Cell, LSTMController, MemoryCell
from memnet.checks import check_positive
from memnet.models.unrolled import UnrolledModel
from memnet.scores import CosineScore, MaskedCosineScore
from memnet.starts import ConstantMemory, MemoryStart


class DNC(UnrolledModel):
    """A controller with a memory that it writes where there is room and reads in the order of writing, or by content.

    Called like ``torch.nn.LSTM`` with ``batch_first=True``; its outputs are logits. As in ``NTM`` keys and what is
    written go through tanh and the cosine ignores slots that are nearly empty, which the paper leaves open or does
    otherwise. The memory starts empty.

    Memory that is full stays as it is: a sequence with more to remember than there are slots is run as any other, but
    allocation then gives next to no weight (see ``AllocationAddressing``).

    >>> import torch
    >>> model = DNC(input_size=9, output_size=8, num_slots=16)
    >>> outputs, state = model(torch.zeros(2, 5, 9))
    >>> outputs.shape
    torch.Size([2, 5, 8])

    Args:
        input_size: width of the input.
        output_size: width of the output.
        num_slots: N, rows of the memory.
        slot_size: W, width of a row.
        num_read_heads: R, how many heads read.
        num_write_heads: how many heads write; 1 in the paper.
        controller: makes the controller from the width of its input, e.g. ``LSTMController`` (the default, 100 units)
            or ``NormalizedController``, ADNC's.
        mask_content: whether heads compare with the parts of a slot that they ask for (``MaskedCosineScore``).
        erase_freed: whether freed slots are erased (``AllocationAddressing``).
        sharpen_links: whether forward and backward weights are sharpened (``LinkAddressing``).
        bypass_dropout: the part of the controller's output that is hidden from the output layer in training (ADNC).
        read_addressing: how read heads find slots; by default content and temporal links.
        write_addressing: how write heads find slots; by default content and allocation.
        memory_start: the memory at the beginning of a sequence; zeros by default.
        checkpoint_every: see ``memnet.unroll``; for sequences too long for memory.
        max_gradient: see ``memnet.MemoryCell``; 1e6 by default, which only gradients about to overflow exceed.
        compile_steps: see ``memnet.unroll``; for long trainings.

    Raises:
        ValueError: a size or ``max_gradient`` is not positive, ``bypass_dropout`` is not in [0, 1), or an addressing or
            controller does not fit.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        num_slots: int = 128,
        slot_size: int = 20,
        num_read_heads: int = 4,
        num_write_heads: int = 1,
        controller: Callable[[int], Cell] | None = None,
        mask_content: bool = False,
        erase_freed: bool = False,
        sharpen_links: bool = False,
        bypass_dropout: float = 0.0,
        read_addressing: Addressing | None = None,
        write_addressing: Addressing | None = None,
        memory_start: MemoryStart | None = None,
        checkpoint_every: int | None = None,
        max_gradient: float | None = MAX_GRADIENT,
        compile_steps: bool = False,
    ):
        check_positive("input_size", input_size)
        check_positive("output_size", output_size)
        for name, size in [
            ("num_slots", num_slots),
            ("slot_size", slot_size),
            ("num_read_heads", num_read_heads),
            ("num_write_heads", num_write_heads),
        ]:
            check_positive(name, size)

        def by_content() -> Addressing:
            return ContentAddressing(MaskedCosineScore(slot_size) if mask_content else CosineScore(slot_size))

        if read_addressing is None:
            read_addressing = LinkAddressing(by_content(), num_write_heads, sharpen_links)
        if write_addressing is None:
            write_addressing = AllocationAddressing(by_content(), num_read_heads, erase_freed)
        make_controller = controller if controller is not None else LSTMController
        controller_cell = make_controller(input_size + num_read_heads * slot_size)
        access = ReadWriteAccess(
            controller_cell.output_size,
            read_addressing,
            write_addressing,
            num_slots,
            slot_size,
            num_read_heads,
            num_write_heads,
            memory_start if memory_start is not None else ConstantMemory(0.0),
        )
        cell = MemoryCell(controller_cell, access, input_size, output_size, max_gradient, bypass_dropout)
        super().__init__(cell, checkpoint_every, compile_steps)
