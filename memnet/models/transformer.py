"""The Transformer (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762), normalised before each sub-layer.

Every position is a slot of a memory, and every position asks: the encoder's and the decoder's own positions as well as
the encoder's seen from the decoder are content addressing with many heads.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from memnet.addressing import Addressing
from memnet.checks import check_fraction, check_positive, check_source, check_symbols
from memnet.models.encoder_decoder import EncoderDecoder
from memnet.models.multihead import MultiHeadRead
from memnet.models.rotary import rotate


class LayerState(NamedTuple):
    """What a decoder layer reads: the target's positions so far, and the source's, both projected once."""

    past_keys: Float[Tensor, "batch head past key"]
    past_values: Float[Tensor, "batch head past key"]
    source_keys: Float[Tensor, "batch head source key"]
    source_values: Float[Tensor, "batch head source key"]


class TransformerState(NamedTuple):
    """The state of the decoder; the mask says which source positions exist, None if all do."""

    layers: tuple[LayerState, ...]
    source_mask: Bool[Tensor, "batch source"] | None


def position_encoding(
    positions: Int64[Tensor, " time"], size: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "time model"]:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d_model)), PE(pos, 2i + 1) = cos of the same (Vaswani et al. 2017, sec. 3.5).

    Computed where it is needed, so that no table has to end anywhere.

    Args:
        positions: pos, counted from 0.
        size: d_model.
        dtype: of the result; it is computed in at least float32.
    """
    precise = torch.promote_types(dtype, torch.float32)
    even = torch.arange(0, size, 2, dtype=precise, device=positions.device)
    angles = torch.outer(positions.to(precise), torch.exp(even * (-math.log(10000.0) / size)))
    waves = rearrange([angles.sin(), angles.cos()], "wave time frequency -> time (frequency wave)")
    return waves[:, :size].to(dtype)


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2, for each position by itself (Vaswani et al. 2017, eq. 2).

    Args:
        model_size: d_model, width of a position.
        hidden_size: d_ff.
    """

    def __init__(self, model_size: int, hidden_size: int):
        super().__init__()
        self.inner = nn.Linear(model_size, hidden_size)
        self.outer = nn.Linear(hidden_size, model_size)
        for linear in (self.inner, self.outer):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "batch time model"]) -> Float[Tensor, "batch time model"]:
        return self.outer(self.inner(x).relu())


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward network.

    Args:
        model_size: width of a position.
        attention: of all positions to all positions.
        feed_forward: of each position by itself.
        dropout: of the output of either.
    """

    def __init__(self, model_size: int, attention: MultiHeadRead, feed_forward: FeedForward, dropout: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(model_size)
        self.attention = attention
        self.feed_forward_norm = nn.LayerNorm(model_size)
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "batch source model"],
        mask: Bool[Tensor, "batch source"] | Bool[Tensor, "batch source source"] | None,
        rotation: Float[Tensor, "wave batch source half"] | None = None,
        bias: Float[Tensor, "batch head source source"] | None = None,
    ) -> Float[Tensor, "batch source model"]:
        """All positions at once.

        Args:
            x: the positions.
            mask: which of them exist, or, for each its own, which it may look at; None for all.
            rotation: where each of them stands, from ``rotary_encoding``; None if ``x`` says that.
            bias: added to the scores of attention, not together with a mask (see ``MultiHeadRead``).
        """
        emission, keys, values = self.attention.ask_and_fill(self.attention_norm(x))
        if rotation is not None:
            emission, keys = rotate(emission, rotation), rotate(keys, rotation)
        x = x + self.dropout(self.attention(emission, keys, values, mask, bias=bias))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class DecoderLayer(nn.Module):
    """Attention to the target so far, attention to the source, then a feed-forward network.

    Args:
        model_size: width of a position.
        target_attention: of each target position to those before it and itself.
        source_attention: of each target position to all source positions.
        feed_forward: of each position by itself.
        dropout: of the output of each.
    """

    def __init__(
        self,
        model_size: int,
        target_attention: MultiHeadRead,
        source_attention: MultiHeadRead,
        feed_forward: FeedForward,
        dropout: float,
    ):
        super().__init__()
        self.target_norm = nn.LayerNorm(model_size)
        self.target_attention = target_attention
        self.source_norm = nn.LayerNorm(model_size)
        self.source_attention = source_attention
        self.feed_forward_norm = nn.LayerNorm(model_size)
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def init_state(self, memory: Float[Tensor, "batch source model"]) -> LayerState:
        """No target position yet, and the source's keys and values."""
        keys, values = self.source_attention.fill(memory)
        return LayerState(keys[:, :, :0], values[:, :, :0], keys, values)

    def forward(
        self, x: Float[Tensor, "batch time model"], state: LayerState, mask: Bool[Tensor, "batch source"] | None
    ) -> Float[Tensor, "batch time model"]:
        """All target positions at once, from the first on."""
        emission, keys, values = self.target_attention.ask_and_fill(self.target_norm(x))
        x = x + self.dropout(self.target_attention(emission, keys, values, causal=True))
        emission = self.source_attention.ask(self.source_norm(x))
        x = x + self.dropout(self.source_attention(emission, state.source_keys, state.source_values, mask))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))

    def step(
        self,
        x: Float[Tensor, "batch 1 model"],
        state: LayerState,
        mask: Bool[Tensor, "batch source"] | None,
        with_weights: bool,
    ) -> tuple[Float[Tensor, "batch 1 model"], Float[Tensor, "batch source"] | None, LayerState]:
        """The next target position; if asked for, also its weights over the source, the mean over heads."""
        emission, keys, values = self.target_attention.ask_and_fill(self.target_norm(x))
        keys, values = torch.cat([state.past_keys, keys], 2), torch.cat([state.past_values, values], 2)
        x = x + self.dropout(self.target_attention(emission, keys, values))
        question = self.source_attention.ask(self.source_norm(x)), state.source_keys, state.source_values, mask
        weights = None
        if with_weights:
            read, by_head = self.source_attention.read_with_weights(*question)
            weights = reduce(by_head, "batch head 1 source -> batch source", "mean")
        else:
            read = self.source_attention(*question)
        x = x + self.dropout(read)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x, weights, state._replace(past_keys=keys, past_values=values)


class Transformer(EncoderDecoder):
    """An encoder and a decoder of attention and feed-forward layers.

    Differs from the paper in where it normalises: x + sublayer(norm(x)), and once more at the end of either stack,
    which trains without a warm-up (Xiong et al. 2020). Dropout is the paper's: of embeddings and of every sub-layer's
    output.

    >>> import torch
    >>> model = Transformer(source_vocab_size=20, target_vocab_size=10, model_size=8, num_heads=2)
    >>> source, target_in = torch.tensor([[5, 6, 7]]), torch.tensor([[1, 4]])
    >>> model(source, target_in).shape
    torch.Size([1, 2, 10])

    Args:
        source_vocab_size: how many source symbols there are, the four reserved ones included.
        target_vocab_size: how many target symbols there are, the four reserved ones included.
        model_size: d_model, width of every position.
        num_heads: h, must divide ``model_size``.
        num_encoder_layers: N of the encoder.
        num_decoder_layers: N of the decoder.
        feed_forward_size: d_ff, units between the two linear maps of a position; 4 ``model_size`` by default, as in the
            paper.
        dropout: P_drop, in [0, 1).
        tie_embeddings: the output's matrix is the target embedding (sec. 3.4).
        share_vocabulary: the source embedding is the target embedding; for a vocabulary of both languages.
        addressing: makes the addressing of each attention from the width of a head's keys, e.g. ``lambda size:
            ContentAddressing(ScaledDotScore(size), Entmax15())`` (in a config: the import path of such a function); by
            default scaled dot product and softmax. It must not remember anything from step to step.
        max_source_length: the longest source to accept; None for any.

    Raises:
        ValueError: a size is not positive, ``num_heads`` does not divide ``model_size``, ``dropout`` is out of range,
            the vocabularies to be shared differ in size, or the addressing remembers something from step to step.
    """

    def __init__(
        self,
        source_vocab_size: int,
        target_vocab_size: int,
        model_size: int = 256,
        num_heads: int = 4,
        num_encoder_layers: int = 3,
        num_decoder_layers: int = 3,
        feed_forward_size: int | None = None,
        dropout: float = 0.1,
        tie_embeddings: bool = True,
        share_vocabulary: bool = False,
        addressing: Callable[[int], Addressing] | None = None,
        max_source_length: int | None = None,
    ):
        super().__init__()
        self.source_vocab_size = check_positive("source_vocab_size", source_vocab_size)
        self.target_vocab_size = check_positive("target_vocab_size", target_vocab_size)
        self.model_size = check_positive("model_size", model_size)
        check_positive("num_encoder_layers", num_encoder_layers)
        check_positive("num_decoder_layers", num_decoder_layers)
        feed_forward_size = 4 * model_size if feed_forward_size is None else feed_forward_size
        check_positive("feed_forward_size", feed_forward_size)
        check_fraction("dropout", dropout)
        if share_vocabulary and source_vocab_size != target_vocab_size:
            raise ValueError(
                f"share_vocabulary is True, but source_vocab_size is {source_vocab_size} and target_vocab_size is "
                f"{target_vocab_size}: they must be equal."
            )
        if max_source_length is not None:
            check_positive("max_source_length", max_source_length)
        self.max_source_length = max_source_length

        def attention() -> MultiHeadRead:
            return MultiHeadRead(model_size, num_heads, addressing)

        def feed_forward() -> FeedForward:
            return FeedForward(model_size, feed_forward_size)

        self.target_embedding = _embedding(target_vocab_size, model_size)
        self.source_embedding = self.target_embedding if share_vocabulary else _embedding(source_vocab_size, model_size)
        self.output = nn.Linear(model_size, target_vocab_size, bias=False)
        if tie_embeddings:
            self.output.weight = self.target_embedding.weight
        else:
            nn.init.xavier_uniform_(self.output.weight)
        self.dropout = nn.Dropout(dropout)
        self.encoder_layers = nn.ModuleList(
            EncoderLayer(model_size, attention(), feed_forward(), dropout) for _ in range(num_encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(model_size)
        self.decoder_layers = nn.ModuleList(
            DecoderLayer(model_size, attention(), attention(), feed_forward(), dropout)
            for _ in range(num_decoder_layers)
        )
        self.decoder_norm = nn.LayerNorm(model_size)
        self.alignment_names = tuple(
            f"decoder_layers.{layer}.source_attention.addressing" for layer in range(num_decoder_layers)
        )

    def encode(
        self, source: Int64[Tensor, "batch source"], source_lengths: Int64[Tensor, " batch"] | None = None
    ) -> TransformerState:
        check_source(source, source_lengths, self.source_vocab_size, self.max_source_length)
        mask = None
        if source_lengths is not None and int(source_lengths.min()) < source.shape[1]:
            places = torch.arange(source.shape[1], device=source.device)
            mask = places < rearrange(source_lengths.to(source.device), "batch -> batch 1")
        x = self._embed(self.source_embedding, source)
        for layer in self.encoder_layers:
            x = layer(x, mask)
        memory = self.encoder_norm(x)
        return TransformerState(tuple(layer.init_state(memory) for layer in self._decoder()), mask)

    def decode(
        self, target_in: Int64[Tensor, "batch time"], state: TransformerState
    ) -> tuple[Float[Tensor, "batch time vocab"], None]:
        check_symbols("target_in", target_in, self.target_vocab_size)
        x = self._embed(self.target_embedding, target_in)
        for layer, layer_state in zip(self._decoder(), state.layers, strict=True):
            x = layer(x, layer_state, state.source_mask)
        return self.output(self.decoder_norm(x)), None

    def step(
        self, tokens: Int64[Tensor, " batch"], state: TransformerState
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch source"] | None, TransformerState]:
        position = state.layers[0].past_keys.shape[2]
        x = self._embed(self.target_embedding, rearrange(tokens, "batch -> batch 1"), position)
        weights, layer_states = None, []
        for layer, layer_state in zip(self._decoder(), state.layers, strict=True):
            asked_for = layer is self.decoder_layers[-1]
            x, weights, layer_state = layer.step(x, layer_state, state.source_mask, with_weights=asked_for)
            layer_states.append(layer_state)
        logits = rearrange(self.output(self.decoder_norm(x)), "batch 1 vocab -> batch vocab")
        return logits, weights, state._replace(layers=tuple(layer_states))

    def _decoder(self) -> Iterable[DecoderLayer]:
        return cast(Iterable[DecoderLayer], self.decoder_layers)

    def _embed(
        self, embedding: nn.Embedding, symbols: Int64[Tensor, "batch time"], position: int = 0
    ) -> Float[Tensor, "batch time model"]:
        x = embedding(symbols) * math.sqrt(self.model_size)
        places = torch.arange(position, position + symbols.shape[1], device=x.device)
        return self.dropout(x + position_encoding(places, self.model_size, x.dtype))


def _embedding(vocab_size: int, model_size: int) -> nn.Embedding:
    """Of length 1, which the factor sqrt(d_model) makes as large as the position encoding; right for a tied output."""
    embedding = nn.Embedding(vocab_size, model_size)
    nn.init.normal_(embedding.weight, std=model_size**-0.5)
    return embedding
