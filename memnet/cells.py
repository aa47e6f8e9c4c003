"""Cells: one time step of a recurrent network. Controllers are cells, and so is a controller with a memory."""

import abc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from memnet.access import Access
from memnet.checks import check_fraction, check_greater_than_zero, check_positive, check_size
from memnet.functional import bound_gradient

MAX_GRADIENT = 1e6
"""Where models with a memory clip the gradient of their state: far above what training that goes well meets, and low
enough that one step cannot take what is below it past float32.
"""


class Cell(nn.Module, abc.ABC):
    """One step of a recurrent network: ``output, state = cell(x, state)``.

    The state is a NamedTuple (nested, if need be) of tensors with the batch first, or None where there is nothing to
    remember; it is passed in and returned, never kept on the module.
    """

    input_size: int
    output_size: int

    @abc.abstractmethod
    def init_state(self, batch_size: int) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def forward(self, x: Float[Tensor, "batch inp"], state: Any) -> tuple[Float[Tensor, "batch out"], Any]:
        """One step."""


class LSTMState(NamedTuple):
    """Hidden and cell state of every layer."""

    hidden: Float[Tensor, "batch layer hidden"]
    cell: Float[Tensor, "batch layer hidden"]


class LSTMController(Cell):
    """A stack of LSTM layers with a learned initial state; its output is the last layer's hidden state.

    Args:
        input_size: width of the input; NTM supplies it (its input and what its heads read).
        hidden_size: width of each layer.
        num_layers: how many layers.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, input_size: int, hidden_size: int = 100, num_layers: int = 1):
        super().__init__()
        self.input_size = check_positive("input_size", input_size)
        self.output_size = self.hidden_size = check_positive("hidden_size", hidden_size)
        self.num_layers = check_positive("num_layers", num_layers)
        self.layers = nn.ModuleList(
            nn.LSTMCell(input_size if layer == 0 else hidden_size, hidden_size) for layer in range(num_layers)
        )
        self.initial_hidden = nn.Parameter(torch.zeros(num_layers, hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(num_layers, hidden_size))

    def init_state(self, batch_size: int) -> LSTMState:
        return LSTMState(
            repeat(self.initial_hidden.tanh(), "layer hidden -> batch layer hidden", batch=batch_size),
            repeat(self.initial_cell, "layer hidden -> batch layer hidden", batch=batch_size),
        )

    def forward(self, x: Float[Tensor, "batch inp"], state: LSTMState) -> tuple[Float[Tensor, "batch out"], LSTMState]:
        hiddens, cells = [], []
        for layer, hidden, cell in zip(self.layers, state.hidden.unbind(1), state.cell.unbind(1), strict=True):
            x, cell = layer(x, (hidden, cell))
            hiddens.append(x)
            cells.append(cell)
        return x, LSTMState(torch.stack(hiddens, 1), torch.stack(cells, 1))


class FeedForwardController(Cell):
    """Fully connected tanh layers without any memory of their own: all that is remembered must be in the memory.

    Args:
        input_size: width of the input; NTM supplies it (its input and what its heads read).
        hidden_size: width of each layer.
        num_layers: how many layers.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, input_size: int, hidden_size: int = 100, num_layers: int = 1):
        super().__init__()
        self.input_size = check_positive("input_size", input_size)
        self.output_size = self.hidden_size = check_positive("hidden_size", hidden_size)
        self.num_layers = check_positive("num_layers", num_layers)
        self.layers = nn.ModuleList(
            nn.Linear(input_size if layer == 0 else hidden_size, hidden_size) for layer in range(num_layers)
        )

    def init_state(self, batch_size: int) -> None:
        return None

    def forward(self, x: Float[Tensor, "batch inp"], state: None) -> tuple[Float[Tensor, "batch out"], None]:
        for layer in self.layers:
            x = layer(x).tanh()
        return x, None


class NormalizedController(Cell):
    """Any controller, its output brought to mean 0 and variance 1 (ADNC, Franke et al. 2018).

    Ba et al. 2016, eq. 4, with learned gain and bias. What the controller itself remembers stays as it is.

    Args:
        input_size: width of the input; the network supplies it.
        controller: makes the controller from the width of its input; ``LSTMController`` by default.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, input_size: int, controller: Callable[[int], Cell] | None = None):
        super().__init__()
        make_controller = controller if controller is not None else LSTMController
        self.controller = make_controller(check_positive("input_size", input_size))
        self.input_size = input_size
        self.output_size = self.controller.output_size
        self.norm = nn.LayerNorm(self.output_size)

    def init_state(self, batch_size: int) -> Any:
        return self.controller.init_state(batch_size)

    def forward(self, x: Float[Tensor, "batch inp"], state: Any) -> tuple[Float[Tensor, "batch out"], Any]:
        output, state = self.controller(x, state)
        return self.norm(output), state


class BypassedOutput(nn.Linear):
    """A linear map of the controller's output and of what was read, where dropout hides the former alone.

    So the answer has to come from the memory (bypass dropout; ADNC, Franke, Niehues and Waibel 2018, https://arxiv.org/abs/1807.02658).

    Args:
        control_size: width of the controller's output, which comes first.
        read_size: width of what was read.
        output_size: width of the output.
        dropout: the part of the controller's output that is hidden in training, in [0, 1).

    Raises:
        ValueError: ``dropout`` is out of its range.
    """

    def __init__(self, control_size: int, read_size: int, output_size: int, dropout: float):
        super().__init__(control_size + read_size, output_size)
        self.control_size = control_size
        self.dropout = check_fraction("dropout", dropout)

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch out"]:
        if not self.training:
            return super().forward(x)
        control, reads = x.tensor_split([self.control_size], -1)
        return super().forward(torch.cat([F.dropout(control, self.dropout), reads], -1))


class MemoryState(NamedTuple):
    """State of a controller with a memory: the controller's, the memory's, and what was read last."""

    controller: Any
    access: Any
    reads: Float[Tensor, "batch head val"]


class MemoryCell(Cell):
    """A controller that uses a memory.

    At each step the controller sees the input and what was read last, the access turns its output into what is read
    now, and a linear map of both is the output: y_t = W [h_t, r_t] + b (logits).

    Args:
        controller: a cell for inputs of width ``input_size + num_read_heads * slot_size``.
        access: one step of the memory.
        input_size: width of the input.
        output_size: width of the output.
        max_gradient: greater than 0; on their way back through time, elements of the state's gradient that are larger
            are clipped at every step (Graves 2013, sec. 2.1). Sharpening and reading by content can magnify gradients
            at each step, and over tens of steps past what float32 holds. None clips nothing.
        bypass_dropout: see ``BypassedOutput``; 0 for none.

    Raises:
        ValueError: a size or ``max_gradient`` is not positive, ``bypass_dropout`` is not in [0, 1), or the controller
            is for inputs of another width.
    """

    def __init__(
        self,
        controller: Cell,
        access: Access,
        input_size: int,
        output_size: int,
        max_gradient: float | None = None,
        bypass_dropout: float = 0.0,
    ):
        super().__init__()
        self.max_gradient = max_gradient
        if max_gradient is not None:
            check_greater_than_zero("max_gradient", max_gradient)
        self.input_size = check_positive("input_size", input_size)
        self.output_size = check_positive("output_size", output_size)
        read_size = access.num_read_heads * access.slot_size
        check_size("controller.input_size", controller.input_size, "inputs and reads together", input_size + read_size)
        self.controller = controller
        self.access = access
        if check_fraction("bypass_dropout", bypass_dropout):
            self.output: nn.Linear = BypassedOutput(controller.output_size, read_size, output_size, bypass_dropout)
        else:
            self.output = nn.Linear(controller.output_size + read_size, output_size)
        self.initial_reads = nn.Parameter(torch.zeros(access.num_read_heads, access.slot_size))

    def init_state(self, batch_size: int) -> MemoryState:
        reads = repeat(self.initial_reads.tanh(), "head val -> batch head val", batch=batch_size)
        return MemoryState(self.controller.init_state(batch_size), self.access.init_state(batch_size), reads)

    def forward(
        self, x: Float[Tensor, "batch inp"], state: MemoryState
    ) -> tuple[Float[Tensor, "batch out"], MemoryState]:
        if self.max_gradient is not None:
            state = tree_map_only(Tensor, partial(bound_gradient, max_gradient=self.max_gradient), state)
        prev_reads = rearrange(state.reads, "batch head val -> batch (head val)")
        control, controller_state = self.controller(torch.cat([x, prev_reads], -1), state.controller)
        reads, access_state = self.access(control, state.access)
        output = self.output(torch.cat([control, rearrange(reads, "batch head val -> batch (head val)")], -1))
        return output, MemoryState(controller_state, access_state, reads)
