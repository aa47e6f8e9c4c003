"""Google's neural machine translation system: Wu et al. 2016, https://arxiv.org/abs/1609.08144."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.access import ReadAccess, ReadState
from memnet.addressing import Addressing, ContentAddressing, SampledSlots
from memnet.checks import check_positive
from memnet.decoding import PAD
from memnet.functional import read
from memnet.models.decoders import Decoder, check_fits
from memnet.models.encoder_decoder import EncoderDecoder
from memnet.models.encoders import Encoded, Encoder
from memnet.models.recurrent import Padding, RecurrentStack, RecurrentState
from memnet.models.seq2seq import Seq2Seq
from memnet.scores import AdditiveScore


class GNMT(EncoderDecoder):
    """Deep LSTMs with residual connections and an attention that all decoder layers share (Wu et al. 2016, sec. 3).

    Encoder: a bidirectional layer, then layers of one direction, with residual connections from the third on. Decoder:
    the first layer asks, and what is read goes into every layer above it, with residual connections from the third on.

    Two things the paper leaves open or does otherwise. The first layer asks with its state of this step, not of the one
    before, so that a whole target is a few calls. Each decoder layer starts from the encoder layer of the same depth,
    the first one from the direction that ends at the source's beginning.

    Args:
        source_vocab_size: how many source symbols there are.
        target_vocab_size: how many target symbols there are.
        hidden_size: width of the embeddings, of each layer, and of each direction of the first one.
        num_layers: layers of the encoder, and of the decoder, at least 2.
        dropout: chance of each number of the embeddings, between two layers and before the output layer to be dropped
            in training, in [0, 1).
        addressing: how source positions are found, asked by a state and with keys ``hidden_size`` wide; by default an
            additive score and softmax (eq. 4).
        max_source_length: the longest source that is taken; None for any.

    Raises:
        ValueError: a size is not positive, ``num_layers`` is below 2, ``dropout`` is out of range, or the addressing
            does not fit.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        hidden_size: int = 1024,
        num_layers: int = 8,
        dropout: float = 0.2,
        addressing: Addressing | None = None,
        max_source_length: int | None = None,
    ):
        super().__init__()
        self.source_vocab_size = check_positive("source_vocab_size", source_vocab_size)
        self.target_vocab_size = check_positive("target_vocab_size", target_vocab_size)
        check_positive("hidden_size", hidden_size)
        if check_positive("num_layers", num_layers) < 2:
            raise ValueError(f"num_layers is {num_layers}, but must be at least 2: the first layer is of another kind.")
        if addressing is None:
            addressing = ContentAddressing(AdditiveScore(hidden_size, hidden_size))
        self.model = Seq2Seq(
            _GNMTEncoder(source_vocab_size, hidden_size, num_layers, dropout),
            _GNMTDecoder(target_vocab_size, hidden_size, num_layers, dropout, addressing),
            max_source_length,
        )
        self.max_source_length = max_source_length
        self.alignment_names = tuple(f"model.{name}" for name in self.model.alignment_names)

    def encode(
        self, source: Int64[Tensor, "batch source"], source_lengths: Int64[Tensor, " batch"] | None = None
    ) -> Any:
        return self.model.encode(source, source_lengths)

    def decode(
        self, target_in: Int64[Tensor, "batch time"], state: Any
    ) -> tuple[Float[Tensor, "batch time vocab"], SampledSlots | None]:
        return self.model.decode(target_in, state)

    def step(
        self, tokens: Int64[Tensor, " batch"], state: Any
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch source"] | None, Any]:
        return self.model.step(tokens, state)


class _GNMTEncoder(Encoder):
    """A bidirectional layer, then layers of one direction."""

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, dropout: float):
        super().__init__()
        self.vocab_size = vocab_size
        self.output_size = hidden_size
        self.num_layers = num_layers
        self.unit = nn.LSTM
        self.embedding = nn.Embedding(vocab_size, hidden_size, padding_idx=PAD)
        self.dropout = nn.Dropout(dropout)
        self.first = RecurrentStack(hidden_size, hidden_size, bidirectional=True)
        self.others = RecurrentStack(2 * hidden_size, hidden_size, num_layers - 1, residual=True, dropout=dropout)

    def forward(self, source: Int64[Tensor, "batch source"], lengths: Int64[Tensor, " batch"] | None = None) -> Encoded:
        padding = Padding.of(lengths, source.shape[1], source.device)
        x, first = self.first(self.dropout(self.embedding(source)), padding=padding)
        x, others = self.others(self.dropout(x), padding=padding)
        backward = RecurrentState(*(part.chunk(2, -1)[1] for part in first))
        state = RecurrentState.stack([backward, others])
        return Encoded(x, state, None if padding is None else padding.is_real)


class _GNMTState(NamedTuple):
    """The state of all decoder layers, and the source with its keys projected."""

    rnn: RecurrentState
    access: ReadState


class _GNMTDecoder(Decoder):
    """The first layer asks; the layers above see what was read."""

    alignment_names = ("access.addressing",)

    def __init__(self, vocab_size: int, hidden_size: int, num_layers: int, dropout: float, addressing: Addressing):
        super().__init__(vocab_size, hidden_size, hidden_size, hidden_size, num_layers, nn.LSTM, dropout)
        self.memory_size = hidden_size
        self.steps_at_once = addressing.steps_at_once
        self.first = RecurrentStack(hidden_size, hidden_size)
        self.others = nn.ModuleList(RecurrentStack(2 * hidden_size, hidden_size) for _ in range(num_layers - 1))
        self.keys = nn.Linear(hidden_size, hidden_size, bias=False)
        self.access = ReadAccess(addressing, hidden_size)
        check_fits(self.access, hidden_size, hidden_size)

    def init_state(self, encoded: Encoded) -> _GNMTState:
        access = self.access.init_state(self.keys(encoded.outputs), encoded.outputs, encoded.mask)
        return _GNMTState(encoded.state, access)

    def advance(
        self, x: Float[Tensor, "batch time embedding"], state: _GNMTState
    ) -> tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch time source"], _GNMTState]:
        first, *others = state.rnn.layers()
        x, end = self.first(x, first)
        ends = [end]
        weights, access = self.access.address(x, state.access)
        context = read(access.values, weights)
        for layer, (stack, start) in enumerate(zip(self.others, others, strict=True)):
            outputs, end = stack(torch.cat([self.dropout(x), context], -1), start)
            x = outputs + x if layer else outputs
            ends.append(end)
        return x, weights, _GNMTState(RecurrentState.stack(ends), access)
