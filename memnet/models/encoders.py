"""Recurrent encoders: from a source sequence to what a decoder starts from and reads."""

import abc
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from memnet.checks import check_fraction, check_positive
from memnet.decoding import PAD
from memnet.models.recurrent import Merge, Padding, RecurrentStack, RecurrentState, Unit


class Encoded(NamedTuple):
    """A source as an encoder hands it on.

    Attributes:
        outputs: one vector for each source position, in the source's order: the memory that a decoder reads.
        state: every layer's last state.
        mask: which source positions exist; None for all.
    """

    outputs: Float[Tensor, "batch source out"]
    state: RecurrentState
    mask: Bool[Tensor, "batch source"] | None


class Encoder(nn.Module, abc.ABC):
    """Reads source symbols.

    Attributes:
        vocab_size: how many source symbols there are.
        output_size: width of the outputs, and of the last states.
        num_layers: how many layers have a last state.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
    """

    vocab_size: int
    output_size: int
    num_layers: int
    unit: Unit

    @abc.abstractmethod
    def forward(self, source: Int64[Tensor, "batch source"], lengths: Int64[Tensor, " batch"] | None = None) -> Encoded:
        """Encodes a batch.

        Args:
            source: symbols, padded at the end.
            lengths: how many symbols of each source are real; all if None.
        """


class RecurrentEncoder(Encoder):
    """A stack of LSTM or GRU layers (Sutskever, Vinyals and Le 2014; bidirectional: Bahdanau, Cho and Bengio 2015).

    Args:
        vocab_size: how many source symbols there are.
        embedding_size: width of a symbol's vector.
        hidden_size: width of each layer, and of each of its directions.
        num_layers: how many layers.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
        bidirectional: whether every layer also reads from the end to the beginning.
        merge: what becomes of a position's two directions (and of their last states): both side by side, their sum or
            their mean.
        residual: whether what goes into a layer is added to what comes out, from the second layer on.
        reverse: whether the source is read from its end to its beginning (Sutskever et al. 2014, sec. 3.3). The outputs
            stay in the order of the source.
        dropout: chance of each number of the embeddings and between two layers to be dropped in training, in [0, 1).

    Raises:
        ValueError: a size is not positive, ``unit`` is another class, or ``dropout`` is out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        unit: Unit = nn.LSTM,
        bidirectional: bool = False,
        merge: Merge = "concatenate",
        residual: bool = False,
        reverse: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.num_layers = check_positive("num_layers", num_layers)
        self.unit = unit
        self.reverse = reverse
        self.embedding = nn.Embedding(vocab_size, check_positive("embedding_size", embedding_size), padding_idx=PAD)
        self.stack = RecurrentStack(
            embedding_size, hidden_size, num_layers, unit, bidirectional, merge, residual, dropout
        )
        self.output_size = self.stack.output_size
        self.dropout = nn.Dropout(check_fraction("dropout", dropout))

    def forward(self, source: Int64[Tensor, "batch source"], lengths: Int64[Tensor, " batch"] | None = None) -> Encoded:
        padding = Padding.of(lengths, source.shape[1], source.device)
        if self.reverse:
            source = reverse_within(source, padding)
        outputs, state = self.stack(self.dropout(self.embedding(source)), padding=padding)
        if self.reverse:
            outputs = reverse_within(outputs, padding)
        return Encoded(outputs, state, None if padding is None else padding.is_real)


def reverse_within(
    sequences: Shaped[Tensor, "batch time *feature"], padding: Padding | None
) -> Shaped[Tensor, "batch time *feature"]:
    """Each sequence from its end to its beginning. Padding stays where it is."""
    if padding is None:
        return sequences.flip(1)
    time = torch.arange(sequences.shape[1], device=sequences.device)
    lengths = rearrange(padding.is_real.sum(1), "batch -> batch 1")
    mirrored = torch.where(padding.is_real, lengths - 1 - time, time)
    return sequences.gather(1, mirrored.reshape(*mirrored.shape, *[1] * (sequences.dim() - 2)).expand_as(sequences))
