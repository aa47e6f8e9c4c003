"""Sequence to sequence with recurrent networks: an encoder and a decoder of one's choice."""

from typing import Any

from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.addressing import SampledSlots
from memnet.checks import check_positive, check_size, check_source, check_symbols
from memnet.models.decoders import Decoder
from memnet.models.encoder_decoder import EncoderDecoder
from memnet.models.encoders import Encoder
from memnet.models.recurrent import RecurrentState


class Seq2Seq(EncoderDecoder):
    """A recurrent encoder and a recurrent decoder that starts from its last state.

    Where layers or width of the two differ, a learned linear map of all the encoder's last states makes what the
    decoder starts from (h_0 = tanh(W h + b), after Bahdanau, Cho and Bengio 2015, A.2.2).

    >>> import torch
    >>> from memnet import AttentionDecoder, ContentAddressing, DotScore, RecurrentEncoder
    >>> decoder = AttentionDecoder(13, ContentAddressing(DotScore(32)), memory_size=32, hidden_size=32)
    >>> model = Seq2Seq(RecurrentEncoder(59, hidden_size=32), decoder)
    >>> model(torch.randint(4, 59, (2, 29)), torch.randint(4, 13, (2, 11))).shape
    torch.Size([2, 11, 13])

    Args:
        encoder: reads the source.
        decoder: writes the target.
        max_source_length: the longest source that is taken; None for any.

    Raises:
        ValueError: encoder and decoder do not fit each other, or ``max_source_length`` is not positive.
    """

    def __init__(self, encoder: Encoder, decoder: Decoder, max_source_length: int | None = None):
        super().__init__()
        if encoder.unit is not decoder.unit:
            raise ValueError(
                f"encoder.unit is {encoder.unit.__name__}, but decoder.unit is {decoder.unit.__name__}: they must be "
                "the same, because the decoder starts from the encoder's last state."
            )
        if decoder.memory_size is not None:
            check_size("decoder.memory_size", decoder.memory_size, "encoder.output_size", encoder.output_size)
        if max_source_length is not None:
            check_positive("max_source_length", max_source_length)
        self.source_vocab_size = encoder.vocab_size
        self.target_vocab_size = decoder.vocab_size
        self.max_source_length = max_source_length
        self.alignment_names = tuple(f"decoder.{name}" for name in decoder.alignment_names)
        self.encoder = encoder
        self.decoder = decoder
        last, first = (encoder.num_layers, encoder.output_size), (decoder.num_layers, decoder.hidden_size)
        self.bridge = None if last == first else _Bridge(*last, *first, has_cell=encoder.unit is nn.LSTM)

    def encode(
        self, source: Int64[Tensor, "batch source"], source_lengths: Int64[Tensor, " batch"] | None = None
    ) -> Any:
        check_source(source, source_lengths, self.source_vocab_size, self.max_source_length)
        encoded = self.encoder(source, source_lengths)
        if self.bridge is not None:
            encoded = encoded._replace(state=self.bridge(encoded.state))
        return self.decoder.init_state(encoded)

    def decode(
        self, target_in: Int64[Tensor, "batch time"], state: Any
    ) -> tuple[Float[Tensor, "batch time vocab"], SampledSlots | None]:
        check_symbols("target_in", target_in, self.target_vocab_size)
        return self.decoder(target_in, state)

    def step(
        self, tokens: Int64[Tensor, " batch"], state: Any
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch source"] | None, Any]:
        return self.decoder.step(tokens, state)


class _Bridge(nn.Module):
    """From the last states of some layers to first states of another number of layers or another width."""

    def __init__(self, num_layers: int, size: int, new_num_layers: int, new_size: int, has_cell: bool):
        super().__init__()
        self.num_layers = new_num_layers
        self.hidden = nn.Linear(num_layers * size, new_num_layers * new_size)
        self.cell = nn.Linear(num_layers * size, new_num_layers * new_size) if has_cell else None

    def forward(self, state: RecurrentState) -> RecurrentState:
        hidden = self._map(self.hidden, state.hidden).tanh()
        if self.cell is None or state.cell is None:
            return RecurrentState(hidden, None)
        return RecurrentState(hidden, self._map(self.cell, state.cell))

    def _map(self, linear: nn.Linear, state: Tensor) -> Tensor:
        new = linear(rearrange(state, "batch layer hidden -> batch (layer hidden)"))
        return rearrange(new, "batch (layer hidden) -> batch layer hidden", layer=self.num_layers)
