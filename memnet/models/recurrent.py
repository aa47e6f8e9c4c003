"""Stacks of PyTorch's recurrent layers over whole sequences: what recurrent encoders and decoders are made of.

A layer over all its steps is one call of PyTorch; nothing here runs step by step.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from memnet.checks import check_fraction, check_positive

Unit = type[nn.LSTM] | type[nn.GRU]

Merge = Literal["concatenate", "sum", "mean"]


class RecurrentState(NamedTuple):
    """Hidden state of every layer and, of an LSTM, its cell state."""

    hidden: Float[Tensor, "batch layer hidden"]
    cell: Float[Tensor, "batch layer hidden"] | None

    def layers(self) -> "Iterator[RecurrentState]":
        """The states of the single layers."""
        for layer in range(self.hidden.shape[1]):
            one = slice(layer, layer + 1)
            yield RecurrentState(self.hidden[:, one], None if self.cell is None else self.cell[:, one])

    @staticmethod
    def stack(layers: "list[RecurrentState]") -> "RecurrentState":
        """The state of all layers from those of the single ones."""
        if len(layers) == 1:
            return layers[0]
        hidden = torch.cat([layer.hidden for layer in layers], 1)
        cells = [layer.cell for layer in layers if layer.cell is not None]
        return RecurrentState(hidden, torch.cat(cells, 1) if cells else None)


class Padding(NamedTuple):
    """Which steps of a batch do not exist."""

    lengths: Int64[Tensor, " batch"]  # on the CPU
    is_real: Bool[Tensor, "batch time"]

    @staticmethod
    def of(lengths: Int64[Tensor, " batch"] | None, time: int, device: torch.device) -> "Padding | None":
        """The padding of sequences of these lengths; None if there is none."""
        if lengths is None or int(lengths.min()) == time:
            return None
        steps = torch.arange(time, device=device)
        return Padding(lengths.cpu(), steps < rearrange(lengths.to(device), "batch -> batch 1"))


class RecurrentStack(nn.Module):
    """Recurrent layers, each over the whole sequence before the next begins.

    Args:
        input_size: width of the input.
        hidden_size: width of each layer, and of each of its directions.
        num_layers: how many layers.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
        bidirectional: whether every layer also runs from the end to the beginning.
        merge: what becomes of a step's two directions (and of their last states): both side by side, their sum or their
            mean.
        residual: whether what goes into a layer is added to what comes out, from the second layer on.
        dropout: chance of each number between two layers to be dropped in training, in [0, 1).

    Attributes:
        output_size: width of the output and of the states that are returned.

    Raises:
        ValueError: a size is not positive, ``unit`` is another class, or ``dropout`` is out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        unit: Unit = nn.LSTM,
        bidirectional: bool = False,
        merge: Merge = "concatenate",
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_positive("input_size", input_size)
        check_positive("hidden_size", hidden_size)
        check_positive("num_layers", num_layers)
        if unit not in _KINDS:
            raise ValueError(f"unit is {getattr(unit, '__name__', unit)}, but must be torch.nn.LSTM or torch.nn.GRU.")
        if merge not in ("concatenate", "sum", "mean"):
            raise ValueError(f"merge is {merge!r}, but must be 'concatenate', 'sum' or 'mean'.")
        self.merge: Merge = merge if bidirectional else "concatenate"
        self.output_size = 2 * hidden_size if bidirectional and merge == "concatenate" else hidden_size
        self.residual = residual
        self.dropout = nn.Dropout(check_fraction("dropout", dropout))
        self.units = nn.ModuleList(
            unit(
                input_size if layer == 0 else self.output_size,
                hidden_size,
                batch_first=True,
                bidirectional=bidirectional,
            )
            for layer in range(num_layers)
        )

    def forward(
        self, x: Float[Tensor, "batch time inp"], state: RecurrentState | None = None, padding: Padding | None = None
    ) -> tuple[Float[Tensor, "batch time out"], RecurrentState]:
        """Outputs of the last layer, and every layer's state after each sequence's last step.

        Args:
            x: the inputs.
            state: where to begin, for layers of one direction; zeros if None.
            padding: which steps do not exist; None for none. Outputs there mean nothing.
        """
        starts = [None] * len(self.units) if state is None else state.layers()
        ends = []
        for layer, (unit, start) in enumerate(zip(self.units, starts, strict=True)):
            assert isinstance(unit, nn.RNNBase)
            outputs, end = _run(unit, self.dropout(x) if layer else x, start, padding)
            if self.merge == "concatenate":
                end = [rearrange(part, "direction batch hidden -> batch 1 (direction hidden)") for part in end]
            else:
                outputs = reduce(outputs, "batch time (direction hidden) -> batch time hidden", self.merge, direction=2)
                end = [reduce(part, "direction batch hidden -> batch 1 hidden", self.merge) for part in end]
            x = outputs + x if self.residual and layer else outputs
            ends.append(RecurrentState(end[0], end[1] if len(end) == 2 else None))
        return x, RecurrentState.stack(ends)


class _Kind(NamedTuple):
    run: Callable[..., Any]
    hold: tuple[float, ...]  # what, added to a unit's gates in PyTorch's order, makes it keep its state


# With so much added, the sigmoid of a gate is 1 (or 0, taken away), whatever else goes into it.
_OPEN = 1e4
_KINDS: dict[type[nn.RNNBase], _Kind] = {
    nn.LSTM: _Kind(torch.lstm, (-_OPEN, _OPEN, 0.0, 0.0)),  # input, forget, candidate, output
    nn.GRU: _Kind(torch.gru, (0.0, _OPEN, 0.0)),  # reset, update, candidate
}


def needs_float32(unit: nn.RNNBase, device: torch.device) -> bool:
    """Whether autocast would hand PyTorch's fused LSTM a type that it has no instructions for on this processor.

    It does not ask before: bfloat16 where there is no AVX-512 ends in an error of oneDNN's.

    Args:
        unit: the layers.
        device: where they run.
    """
    if type(unit) is not nn.LSTM or device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return not _fused_lstm_takes(torch.get_autocast_dtype("cpu"))


@cache
def _fused_lstm_takes(dtype: torch.dtype) -> bool:
    supported = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return not torch.backends.mkldnn.is_available() or dtype not in supported or bool(supported[dtype]())


def _run(
    unit: nn.RNNBase, x: Tensor, start: RecurrentState | None, padding: Padding | None
) -> tuple[Tensor, list[Tensor]]:
    """A layer's outputs, and its last states, each (direction batch hidden)."""
    if needs_float32(unit, x.device):
        if start is not None:
            start = RecurrentState(start.hidden.float(), None if start.cell is None else start.cell.float())
        with torch.autocast("cpu", enabled=False):
            return _run(unit, x.float(), start, padding)
    begin: Any = None
    if start is not None:
        parts = [rearrange(part, "batch 1 hidden -> 1 batch hidden") for part in start if part is not None]
        begin = _as_unit_takes_it([part.contiguous() for part in parts])
    if padding is None:
        outputs, end = unit(x, begin)
        return outputs, _as_list(end)
    return (_run_held if x.device.type == "cpu" else _run_packed)(unit, x, begin, padding)


def _run_packed(unit: nn.RNNBase, x: Tensor, begin: Any, padding: Padding) -> tuple[Tensor, list[Tensor]]:
    packed = pack_padded_sequence(x, padding.lengths, batch_first=True, enforce_sorted=False)
    outputs, end = unit(packed, begin)
    return pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])[0], _as_list(end)


def _run_held(unit: nn.RNNBase, x: Tensor, begin: Any, padding: Padding) -> tuple[Tensor, list[Tensor]]:
    """What ``_run_packed`` gives, in half its time on the CPU, where PyTorch's fused LSTM takes no packed sequences.

    One more input, 1 at steps that do not exist, opens and shuts gates so that the state stays what it is. So a layer
    that runs backwards comes to its first real step with the zeros that it began with, and no gradient comes from
    padding: that of a sigmoid is 0 where it is 0 or 1.
    """
    kind = _KINDS[type(unit)]
    held = rearrange(~padding.is_real, "batch time -> batch time 1").to(x.dtype)
    gates = repeat(x.new_tensor(kind.hold), "gate -> (gate hidden) 1", hidden=unit.hidden_size)
    weights = []
    for input_weight, *others in unit.all_weights:
        weights += [torch.cat([input_weight, gates], 1), *others]
    if begin is None:
        zeros = x.new_zeros(len(unit.all_weights), x.shape[0], unit.hidden_size)
        begin = _as_unit_takes_it([zeros] * (2 if type(unit) is nn.LSTM else 1))
    inputs = torch.cat([x, held], -1)
    outputs, hidden, *cell = kind.run(inputs, begin, weights, True, 1, 0.0, unit.training, unit.bidirectional, True)
    # An LSTM that keeps its cell state still changes what it shows of it, so the last output is looked up.
    items = torch.arange(x.shape[0])
    last = outputs[items, padding.lengths - 1, : unit.hidden_size]
    return outputs, [torch.cat([rearrange(last, "batch hidden -> 1 batch hidden"), hidden[1:]]), *cell]


def _as_unit_takes_it(parts: list[Tensor]) -> Any:
    """An LSTM takes and returns a pair, a GRU its hidden state."""
    return tuple(parts) if len(parts) == 2 else parts[0]


def _as_list(end: Any) -> list[Tensor]:
    return list(end) if isinstance(end, tuple) else [end]
