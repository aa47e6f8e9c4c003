"""The baseline without a memory: the deep LSTM that the Neural Turing Machine is compared with."""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.cells import LSTMState
from memnet.checks import check_inputs, check_lengths, check_positive
from memnet.models.recurrent import needs_float32


class LSTM(nn.Module):
    """Stacked LSTM layers, learned initial state, linear output (Graves et al. 2014, sec. 4: three layers).

    Called like ``NTM``; its outputs are logits.

    Args:
        input_size: width of the input.
        output_size: width of the output.
        hidden_size: width of each layer.
        num_layers: how many layers.

    Raises:
        ValueError: a size is not positive.
    """

    def __init__(self, input_size: int, output_size: int, hidden_size: int = 256, num_layers: int = 3):
        super().__init__()
        self.input_size = check_positive("input_size", input_size)
        self.output_size = check_positive("output_size", output_size)
        check_positive("hidden_size", hidden_size)
        check_positive("num_layers", num_layers)
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers, batch_first=True)
        self.output = nn.Linear(hidden_size, output_size)
        self.initial_hidden = nn.Parameter(torch.zeros(num_layers, hidden_size))
        self.initial_cell = nn.Parameter(torch.zeros(num_layers, hidden_size))

    def forward(
        self,
        inputs: Float[Tensor, "batch time inp"],
        state: LSTMState | None = None,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time out"], LSTMState]:
        """Logits for every step (0 beyond a sequence's length), and the state after each sequence's last step.

        Raises:
            ValueError: the inputs are not three-dimensional, empty, of another width or (looked at on the CPU only) not
                finite; lengths do not fit the inputs.
        """
        check_inputs(inputs, self.input_size)
        if needs_float32(self.lstm, inputs.device):
            wide = None if state is None else LSTMState(*(x.float() for x in state))
            with torch.autocast("cpu", enabled=False):
                return self.forward(inputs.float(), wide, lengths)
        batch_size, time, _ = inputs.shape
        if state is None:
            state = LSTMState(
                repeat(self.initial_hidden.tanh(), "layer hidden -> batch layer hidden", batch=batch_size),
                repeat(self.initial_cell, "layer hidden -> batch layer hidden", batch=batch_size),
            )
        start = tuple(rearrange(x, "batch layer hidden -> layer batch hidden").contiguous() for x in state)
        if lengths is None:
            features, end = self.lstm(inputs, start)
            outputs = self.output(features)
        else:
            check_lengths(lengths, batch_size, time)
            packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
            packed_features, end = self.lstm(packed, start)
            features, _ = nn.utils.rnn.pad_packed_sequence(packed_features, batch_first=True, total_length=time)
            steps = torch.arange(time, device=inputs.device)
            real = rearrange(steps, "time -> 1 time 1") < rearrange(lengths.to(inputs.device), "batch -> batch 1 1")
            outputs = self.output(features) * real
        return outputs, LSTMState(*(rearrange(x, "layer batch hidden -> batch layer hidden") for x in end))
