"""One step of a memory: address over keys, read over values, and where the memory can be written, write first."""

import abc
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memnet.addressing.base import Addressing
from memnet.checks import check_positive, check_size
from memnet.functional import erase_and_add, read
from memnet.starts import ConstantMemory, MemoryStart


class Access(nn.Module, abc.ABC):
    """How a controller uses a memory during one time step."""

    num_read_heads: int
    slot_size: int

    @abc.abstractmethod
    def init_state(self, *args: Any, **kwargs: Any) -> Any:
        """The memory before the first step: from a batch size, or from what the memory is to hold."""

    @abc.abstractmethod
    def forward(self, control: Float[Tensor, "batch ctrl"], state: Any) -> tuple[Float[Tensor, "batch head val"], Any]:
        """One step: what each read head reads, and the state for the next step."""


class ReadState(NamedTuple):
    """A memory that is only read: what slots are compared by, what they hold, which of them exist."""

    keys: Float[Tensor, "batch slot key"]
    values: Float[Tensor, "batch slot val"]
    mask: Bool[Tensor, "batch slot"] | None
    read: Any


class ReadAccess(Access):
    """Reads a memory that somebody else has filled: soft attention over encoder states, a memory network's hop.

    Args:
        addressing: how the heads find their slots.
        slot_size: width of the values.
        num_read_heads: how many heads read at once.
        control_size: width of the controller's output, from which a learned linear map makes the emissions. None: the
            control itself is the emission, as when a decoder's state is compared with encoder states directly.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(
        self, addressing: Addressing, slot_size: int, num_read_heads: int = 1, control_size: int | None = None
    ):
        super().__init__()
        self.slot_size = check_positive("slot_size", slot_size)
        self.num_read_heads = check_positive("num_read_heads", num_read_heads)
        self.addressing = addressing
        self.interface = None
        if control_size is not None:
            emit_size = num_read_heads * addressing.emit_size
            self.interface = nn.Linear(check_positive("control_size", control_size), emit_size)
            _begin_around(self.interface, addressing.emission_start * num_read_heads)

    def init_state(
        self,
        keys: Float[Tensor, "batch slot key"],
        values: Float[Tensor, "batch slot val"] | None = None,
        mask: Bool[Tensor, "batch slot"] | None = None,
    ) -> ReadState:
        """Fills the memory.

        Args:
            keys: what slots are compared by, already projected.
            values: what is read; the keys if None.
            mask: which slots exist; None for all.

        Raises:
            ValueError: the values' width is not ``slot_size``.
        """
        values = keys if values is None else values
        check_size("slot_size", self.slot_size, "the values' width", values.shape[-1])
        return ReadState(keys, values, mask, self.addressing.init_state(keys, self.num_read_heads))

    def address(
        self, control: Float[Tensor, "batch *asker ctrl"], state: ReadState
    ) -> tuple[Float[Tensor, "batch head slot"], ReadState]:
        """Where the heads look: a step without its read.

        Args:
            control: ``(batch, ctrl)``, or ``(batch, asker, ctrl)`` where several ask at once, such as all target
                positions of a decoder that is told the target. Then the heads of all askers are the head axis, asker
                by asker.
            state: what ``init_state`` or the last step returned.

        Raises:
            ValueError: several ask at once, but the addressing takes steps one by one.
        """
        if control.dim() == 3 and control.shape[1] > 1 and not self.addressing.steps_at_once:
            raise ValueError(
                f"control holds {control.shape[1]} askers at once, but {type(self.addressing).__name__} remembers from "
                "step to step: they must ask one by one."
            )
        emission = control if self.interface is None else self.interface(control)
        emission = rearrange(emission, "batch ... (head emit) -> batch (... head) emit", head=self.num_read_heads)
        weights, read_state = self.addressing(emission, state.keys, state.read, state.mask)
        return weights, state._replace(read=self.addressing.after_read(weights, read_state))

    def forward(
        self, control: Float[Tensor, "batch *asker ctrl"], state: ReadState
    ) -> tuple[Float[Tensor, "batch head val"], ReadState]:
        """One step, or several at once. See ``address``."""
        weights, state = self.address(control, state)
        return read(state.values, weights), state


class ReadWriteState(NamedTuple):
    """A memory that is written: its contents, and what the addressing of its heads remembers."""

    memory: Float[Tensor, "batch slot val"]
    write: Any
    read: Any


class ReadWriteAccess(Access):
    """Writes, then reads: the memory of the Neural Turing Machine and of what came after it.

    One linear map turns the control into everything the heads need. Write heads address the memory as it was, then all
    erase, then all add; read heads address and read the written memory M_t, as the time index in NTM eq. 2 says.

    Args:
        control_size: width of the controller's output.
        read_addressing: how read heads find slots. A module of its own: schemes may hold parameters and start weights.
        write_addressing: how write heads find slots.
        num_slots: N.
        slot_size: W.
        num_read_heads: how many heads read.
        num_write_heads: how many heads write.
        memory_start: the memory before the first step; constant 1e-6 by default.

    Raises:
        ValueError: a size is not positive, or an addressing or the start does not fit this memory (its own sentence
            says how).
    """

    def __init__(
        self,
        control_size: int,
        read_addressing: Addressing,
        write_addressing: Addressing,
        num_slots: int = 128,
        slot_size: int = 20,
        num_read_heads: int = 1,
        num_write_heads: int = 1,
        memory_start: MemoryStart | None = None,
    ):
        super().__init__()
        self.num_slots = check_positive("num_slots", num_slots)
        self.slot_size = check_positive("slot_size", slot_size)
        self.num_read_heads = check_positive("num_read_heads", num_read_heads)
        self.num_write_heads = check_positive("num_write_heads", num_write_heads)
        if read_addressing is write_addressing:
            raise ValueError("read_addressing is the same module as write_addressing, but each needs one of its own.")
        self.read_addressing = read_addressing
        self.write_addressing = write_addressing
        self.memory_start = memory_start if memory_start is not None else ConstantMemory()
        self.interface = nn.Linear(check_positive("control_size", control_size), sum(self._emission_sizes()))
        _check_fits("write_addressing", write_addressing, num_slots, slot_size, num_write_heads, num_read_heads)
        _check_fits("read_addressing", read_addressing, num_slots, slot_size, num_read_heads, num_write_heads)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.memory_start(1, num_slots, slot_size, like=self.interface.weight)  # refuses a memory of another size
        write_start = write_addressing.emission_start * num_write_heads
        _begin_around(self.interface, write_start + read_addressing.emission_start * num_read_heads)

    def _emission_sizes(self) -> list[int]:
        return [
            self.num_write_heads * self.write_addressing.emit_size,
            self.num_read_heads * self.read_addressing.emit_size,
            self.num_write_heads * self.slot_size,
            self.num_write_heads * self.slot_size,
            self.write_addressing.shared_emit_size,
            self.read_addressing.shared_emit_size,
        ]

    def init_state(self, batch_size: int) -> ReadWriteState:
        memory = self.memory_start(batch_size, self.num_slots, self.slot_size, like=self.interface.weight)
        return ReadWriteState(
            memory,
            self.write_addressing.init_state(memory, self.num_write_heads),
            self.read_addressing.init_state(memory, self.num_read_heads),
        )

    def forward(
        self, control: Float[Tensor, "batch ctrl"], state: ReadWriteState
    ) -> tuple[Float[Tensor, "batch head val"], ReadWriteState]:
        memory, write_state, read_state = state
        # The memory and all addressing stay in float32 when the controller runs in half precision.
        emissions = self.interface(control).to(memory.dtype)
        write_emission, read_emission, erase, add, write_shared, read_shared = emissions.split(
            self._emission_sizes(), dim=-1
        )
        write_emission = rearrange(write_emission, "batch (head emit) -> batch head emit", head=self.num_write_heads)
        read_emission = rearrange(read_emission, "batch (head emit) -> batch head emit", head=self.num_read_heads)
        erase = rearrange(erase, "batch (head val) -> batch head val", head=self.num_write_heads).sigmoid()  # e_t
        add = rearrange(add, "batch (head val) -> batch head val", head=self.num_write_heads).tanh()  # a_t

        write_state = self.write_addressing.before_step(write_shared, write_state)
        read_state = self.read_addressing.before_step(read_shared, read_state)

        write_weights, write_state = self.write_addressing(write_emission, memory, write_state)
        kept = self.write_addressing.kept(write_state)
        if kept is not None:
            memory = memory * rearrange(kept, "batch slot -> batch slot 1")
        memory = erase_and_add(memory, write_weights, erase, add)
        write_state = self.write_addressing.after_write(write_weights, write_state)
        read_state = self.read_addressing.after_write(write_weights, read_state)

        read_weights, read_state = self.read_addressing(read_emission, memory, read_state)
        reads = read(memory, read_weights)
        write_state = self.write_addressing.after_read(read_weights, write_state)
        read_state = self.read_addressing.after_read(read_weights, read_state)
        return reads, ReadWriteState(memory, write_state, read_state)


def _begin_around(interface: nn.Linear, start: tuple[float, ...]) -> None:
    """Adds to the biases of the emissions that come first what they are to lie around before training."""
    with torch.no_grad():
        interface.bias[: len(start)] += interface.bias.new_tensor(start)


def _check_fits(
    name: str, addressing: Addressing, num_slots: int, slot_size: int, num_heads: int, num_other_heads: int
) -> None:
    """Tries an addressing on an empty memory, so that one that does not fit is refused where it is built.

    A scheme's own ValueError (sizes of its score or start) passes through with the argument's name before it.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        keys = torch.zeros(1, num_slots, slot_size)
        emission = torch.zeros(1, num_heads, addressing.emit_size)
        try:
            state = addressing.init_state(keys, num_heads)
            state = addressing.before_step(torch.zeros(1, addressing.shared_emit_size), state)
            weights, state = addressing(emission, keys, state)
            others = torch.zeros(1, num_other_heads, num_slots)
            if name == "write_addressing":
                addressing.after_read(others, state)
            else:
                addressing.after_write(others, state)
        except ValueError as error:
            raise ValueError(f"{name} does not fit this memory: {error}") from error
    if weights.shape != (1, num_heads, num_slots):
        raise ValueError(
            f"{name} returned weights of shape {tuple(weights.shape)}, but {num_heads} heads over {num_slots} slots "
            f"need (batch, head, slot) = (1, {num_heads}, {num_slots})."
        )
