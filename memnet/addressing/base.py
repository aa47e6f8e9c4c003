"""The one interface that every way of addressing a memory implements."""

import abc
from typing import Any, ClassVar, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from memnet.functional import SlotMask

StateT = TypeVar("StateT")


class Addressing(nn.Module, abc.ABC, Generic[StateT]):
    """Turns what the heads ask for into a weighting over memory slots.

    A new scheme implements ``emit_size`` and ``forward``, and ``init_state`` if it remembers anything. Whatever it
    remembers between steps is a NamedTuple of tensors (or None) with the batch first, passed in and returned, never
    kept on the module: that is what lets a sequence be cut into chunks, checkpointed, vmapped or handed to a kernel.

    One step of a memory calls, in this order: ``before_step`` of the write and the read addressing; ``forward`` of the
    write addressing; the write, into what its ``kept`` leaves of the memory; ``after_write`` of both; ``forward`` of
    the read addressing over the written memory; the read; ``after_read`` of both.

    ``memnet.testing.check_addressing`` checks a scheme against everything said here.
    """

    normalized: ClassVar[bool] = True
    """Each head's weights sum to 1 over the slots that are not masked; if False each weight lies in [0, 1]."""

    @property
    @abc.abstractmethod
    def emit_size(self) -> int:
        """How many numbers the controller emits for one head, at each step."""

    @property
    def emission_start(self) -> tuple[float, ...]:
        """What an untrained head's emission lies around, ``emit_size`` numbers; zeros by default.

        A memory adds it to the bias of the layer that emits, if that has one.
        """
        return (0.0,) * self.emit_size

    @property
    def shared_emit_size(self) -> int:
        """How many numbers the controller emits for all heads together.

        For what belongs to the memory and not to one of the heads that address it: the DNC's free gates come one for
        each *read* head but move the usage that all *write* heads allocate by (Graves et al. 2016, "Dynamic memory
        allocation"), so its allocation asks for them here, and receives them once a step in ``before_step``.
        """
        return 0

    @property
    def steps_at_once(self) -> bool:
        """Whether the heads of one call may be steps that follow one another, with the same weights as one by one.

        Then all target positions of a decoder ask in one call. Default: only a scheme that remembers nothing.
        """
        return type(self).init_state is Addressing.init_state

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> StateT:
        """The state before the first step; None for a scheme that remembers nothing."""
        return None  # type: ignore[return-value]

    def before_step(self, shared_emission: Float[Tensor, "batch shared"], state: StateT) -> StateT:
        """Called once a step, before any head addresses. Default: unchanged."""
        return state

    def kept(self, state: StateT) -> Float[Tensor, "batch slot"] | None:
        """How much of what each slot holds is left when this step's write begins, from 0 to 1. Default: None, for all.

        For a writer that lets go of slots: the memory is multiplied by it (de-allocation, Csordas and Schmidhuber
        2019). Asked of the write addressing alone, with the state that its ``forward`` has returned.
        """
        return None

    @abc.abstractmethod
    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: StateT,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], StateT]:
        """One step.

        Args:
            emission: what the controller emits, ``emit_size`` real numbers for each head.
            keys: what each slot is compared by.
            state: what ``init_state`` or the last step returned.
            mask: which slots may get weight, the same for all heads or for each head its own; None for all. Where no
                slot is left, the weights are all 0.

        Returns:
            The weights, and the state for the next step.
        """

    def after_write(self, weights: Float[Tensor, "batch head slot"], state: StateT) -> StateT:
        """Receives this step's write weights (of the write heads). Default: unchanged."""
        return state

    def after_read(self, weights: Float[Tensor, "batch head slot"], state: StateT) -> StateT:
        """Receives this step's read weights (of the read heads). Default: unchanged."""
        return state

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, StateT]:
        return super().__call__(*args, **kwargs)
