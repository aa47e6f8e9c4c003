"""The Neural Turing Machine: Graves, Wayne and Danihelka 2014, https://arxiv.org/abs/1410.5401."""

from collections.abc import Callable

from memnet.access import ReadWriteAccess
from memnet.addressing import Addressing, ContentAddressing, LocationAddressing
from memnet.cells import MAX_GRADIENT, Cell, LSTMController, MemoryCell
from memnet.checks import check_positive
from memnet.models.unrolled import UnrolledModel
from memnet.scores import CosineScore
from memnet.starts import MemoryStart


class NTM(UnrolledModel):
    """A controller with a memory that it reads and writes by content and by location.

    Called like ``torch.nn.LSTM`` with ``batch_first=True``; its outputs are logits.

    >>> import torch
    >>> model = NTM(input_size=9, output_size=8)
    >>> outputs, state = model(torch.zeros(2, 5, 9))
    >>> outputs.shape
    torch.Size([2, 5, 8])

    Args:
        input_size: width of the input.
        output_size: width of the output.
        num_slots: N, rows of the memory.
        slot_size: W, width of a row.
        num_read_heads: how many heads read.
        num_write_heads: how many heads write.
        num_shifts: how far the default addressing shifts, odd; 3 means -1, 0 and 1.
        controller: makes the controller from the width of its input, e.g. ``LSTMController`` (the default, 100 units)
            or ``functools.partial(FeedForwardController, hidden_size=512)``.
        read_addressing: how read heads find slots; by default content, gate, shift and sharpening, from slot 0.
        write_addressing: how write heads find slots; by default the same, with parameters of its own.
        memory_start: the memory at the beginning of a sequence; constant 1e-6 by default.
        checkpoint_every: see ``memnet.unroll``; for sequences too long for memory.
        max_gradient: see ``memnet.MemoryCell``; 1e6 by default, which only gradients about to overflow exceed.
        compile_steps: see ``memnet.unroll``; for addressing or controllers of your own, which no kernel knows.

    Raises:
        ValueError: a size or ``max_gradient`` is not positive, ``num_shifts`` is even, or an addressing or controller
            does not fit.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        num_slots: int = 128,
        slot_size: int = 20,
        num_read_heads: int = 1,
        num_write_heads: int = 1,
        num_shifts: int = 3,
        controller: Callable[[int], Cell] | None = None,
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

        def by_content_and_location() -> Addressing:
            return LocationAddressing(ContentAddressing(CosineScore(slot_size)), num_shifts)

        make_controller = controller if controller is not None else LSTMController
        controller_cell = make_controller(input_size + num_read_heads * slot_size)
        access = ReadWriteAccess(
            controller_cell.output_size,
            read_addressing if read_addressing is not None else by_content_and_location(),
            write_addressing if write_addressing is not None else by_content_and_location(),
            num_slots,
            slot_size,
            num_read_heads,
            num_write_heads,
            memory_start,
        )
        cell = MemoryCell(controller_cell, access, input_size, output_size, max_gradient)
        super().__init__(cell, checkpoint_every, compile_steps)
