"""Recurrent decoders: plain, peeky, and with attention. They write a target from what an encoder hands on."""

import abc
from typing import Any, NamedTuple

import torch
from einops import repeat
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from memnet.access import ReadAccess, ReadState
from memnet.addressing import Addressing, SampledSlots
from memnet.checks import check_fraction, check_positive, check_size
from memnet.decoding import PAD
from memnet.functional import read
from memnet.models.encoders import Encoded
from memnet.models.recurrent import RecurrentStack, RecurrentState, Unit


class Decoder(nn.Module, abc.ABC):
    """Writes target symbols. A concrete one says how some steps go on from a state: ``init_state`` and ``advance``.

    Teacher forcing and decoding symbol by symbol are the same ``advance``, over all steps or over one.

    Args:
        vocab_size: how many target symbols there are.
        embedding_size: width of a symbol's vector.
        hidden_size: width of the states.
        feature_size: width of what the output layer sees.
        num_layers: how many layers have a state.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
        dropout: chance of each number of the embeddings and of what the output layer sees to be dropped in training.

    Attributes:
        steps_at_once: whether ``advance`` takes several steps in one call.
        memory_size: width of the encoder's outputs that it reads; None if it reads none.
        alignment_names: names of the addressings whose slots are source positions.

    Raises:
        ValueError: a size is not positive, or ``dropout`` is not in [0, 1).
    """

    steps_at_once: bool = True
    memory_size: int | None = None
    alignment_names: tuple[str, ...] = ()

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        feature_size: int,
        num_layers: int,
        unit: Unit,
        dropout: float,
    ):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.hidden_size = check_positive("hidden_size", hidden_size)
        self.num_layers = check_positive("num_layers", num_layers)
        self.unit = unit
        self.embedding = nn.Embedding(vocab_size, check_positive("embedding_size", embedding_size), padding_idx=PAD)
        self.dropout = nn.Dropout(check_fraction("dropout", dropout))
        self.output = nn.Linear(feature_size, vocab_size)

    @abc.abstractmethod
    def init_state(self, encoded: Encoded) -> Any:
        """The state before the first step.

        Args:
            encoded: the source; its state has this decoder's layers and width.
        """

    @abc.abstractmethod
    def advance(
        self, x: Float[Tensor, "batch time embedding"], state: Any
    ) -> tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch time source"] | None, Any]:
        """Some steps, or one where not ``steps_at_once``.

        Args:
            x: the last symbols' vectors.
            state: what ``init_state`` or the last steps returned.

        Returns:
            What the output layer sees; the weights over the source, None from a decoder that has none; the state.
        """

    def forward(
        self, target_in: Int64[Tensor, "batch time"], state: Any
    ) -> tuple[Float[Tensor, "batch time vocab"], SampledSlots | None]:
        """Logits for all steps, given the symbols before each, and the slots that were sampled on the way if any were.

        Args:
            target_in: BOS and the target's symbols but for the last.
            state: what ``init_state`` returned.
        """
        x = self.dropout(self.embedding(target_in))
        features, samples = [], []
        for some in [x] if self.steps_at_once else x.split(1, dim=1):
            feature, _, state = self.advance(some, state)
            features.append(feature)
            samples.extend(_samples(state))
        logits = self.output(self.dropout(features[0] if len(features) == 1 else torch.cat(features, 1)))
        if not samples:
            return logits, None
        return logits, SampledSlots(*(torch.cat(parts, 1) for parts in zip(*samples, strict=True)))

    def step(
        self, tokens: Int64[Tensor, " batch"], state: Any
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch source"] | None, Any]:
        """One step: logits for the next symbol, the weights over the source, the state."""
        x = self.dropout(self.embedding(tokens.unsqueeze(1)))
        features, weights, state = self.advance(x, state)
        logits = self.output(self.dropout(features)).squeeze(1)
        return logits, None if weights is None else weights.squeeze(1), state


def _samples(state: Any) -> list[SampledSlots]:
    leaves = tree_leaves(state, is_leaf=lambda part: isinstance(part, SampledSlots))
    return [leaf for leaf in leaves if isinstance(leaf, SampledSlots)]


class PlainDecoder(Decoder):
    """Knows of the source only what it starts from: the encoder's last state (Sutskever, Vinyals and Le 2014).

    Args:
        vocab_size: how many target symbols there are.
        embedding_size: width of a symbol's vector.
        hidden_size: width of each layer.
        num_layers: how many layers.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
        residual: whether what goes into a layer is added to what comes out, from the second layer on.
        dropout: chance of each number of the embeddings, between two layers and before the output layer to be dropped
            in training, in [0, 1).

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
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(vocab_size, embedding_size, hidden_size, hidden_size, num_layers, unit, dropout)
        self.stack = RecurrentStack(embedding_size, hidden_size, num_layers, unit, residual=residual, dropout=dropout)

    def init_state(self, encoded: Encoded) -> RecurrentState:
        return encoded.state

    def advance(
        self, x: Float[Tensor, "batch time embedding"], state: RecurrentState
    ) -> tuple[Float[Tensor, "batch time feature"], None, RecurrentState]:
        hidden, state = self.stack(x, state)
        return hidden, None, state


class PeekyState(NamedTuple):
    """The decoder's own state, and what it peeks at: the encoder's last hidden state."""

    rnn: RecurrentState
    source: Float[Tensor, "batch hidden"]


class PeekyDecoder(Decoder):
    """Sees the encoder's last hidden state at every step, in the first layer and in the output layer.

    That is the peeky decoder of Saito, "Deep Learning from Scratch 2", section 7.4.2, after Cho et al. 2014.

    Args:
        vocab_size: how many target symbols there are.
        embedding_size: width of a symbol's vector.
        hidden_size: width of each layer.
        num_layers: how many layers.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
        residual: whether what goes into a layer is added to what comes out, from the second layer on.
        dropout: chance of each number of the embeddings, between two layers and before the output layer to be dropped
            in training, in [0, 1).

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
        residual: bool = False,
        dropout: float = 0.0,
    ):
        super().__init__(vocab_size, embedding_size, hidden_size, 2 * hidden_size, num_layers, unit, dropout)
        self.stack = RecurrentStack(
            embedding_size + hidden_size, hidden_size, num_layers, unit, residual=residual, dropout=dropout
        )

    def init_state(self, encoded: Encoded) -> PeekyState:
        return PeekyState(encoded.state, encoded.state.hidden[:, -1])

    def advance(
        self, x: Float[Tensor, "batch time embedding"], state: PeekyState
    ) -> tuple[Float[Tensor, "batch time feature"], None, PeekyState]:
        source = repeat(state.source, "batch hidden -> batch time hidden", time=x.shape[1])
        hidden, rnn = self.stack(torch.cat([x, source], -1), state.rnn)
        return torch.cat([hidden, source], -1), None, state._replace(rnn=rnn)


class AttentionState(NamedTuple):
    """The decoder's own state, the source with its keys projected, and what was read last where that is fed on."""

    rnn: RecurrentState
    access: ReadState
    context: Float[Tensor, "batch memory"] | None


class AttentionDecoder(Decoder):
    """Reads the encoder's outputs by any addressing, asked for by the hidden state of its last layer.

    The output layer sees the hidden state h and the context c that was read for it (Luong, Pham and Manning 2015,
    sec. 3; with a dot score and softmax also Saito, "Deep Learning from Scratch 2", chapter 8). Where no step depends
    on what the last one read, all target positions ask at once.

    Args:
        vocab_size: how many target symbols there are.
        addressing: how source positions are found.
        memory_size: width of the encoder's outputs.
        embedding_size: width of a symbol's vector.
        hidden_size: width of each layer.
        num_layers: how many layers.
        unit: ``torch.nn.LSTM`` or ``torch.nn.GRU``.
        key_size: width of keys that a learned matrix makes of the encoder's outputs, once for each source, as an
            additive score wants them (Bahdanau, Cho and Bengio 2015, A.1.2). None: the outputs themselves are the keys.
        project_query: whether a learned linear map makes what the addressing is asked from the hidden state, as where
            it asks for more than a query. If not, it is the hidden state itself.
        attention_size: width of a layer tanh(W [h; c]) between what is read and the output layer (Luong et al. 2015,
            eq. 5); None for no such layer.
        input_feeding: whether the context is also part of the next step's input (after Luong et al. 2015, sec. 3.3,
            who feed the layer of eq. 5). Steps must then be taken one by one.
        residual: whether what goes into a layer is added to what comes out, from the second layer on.
        dropout: chance of each number of the embeddings, between two layers and before the output layer to be dropped
            in training, in [0, 1).

    Raises:
        ValueError: a size is not positive, ``unit`` is another class, ``dropout`` is out of range, or the addressing
            does not fit the sizes.
    """

    alignment_names = ("access.addressing",)

    def __init__(
        self,
        vocab_size: int,
        addressing: Addressing,
        memory_size: int = 256,
        embedding_size: int = 256,
        hidden_size: int = 256,
        num_layers: int = 1,
        unit: Unit = nn.LSTM,
        key_size: int | None = None,
        project_query: bool = False,
        attention_size: int | None = None,
        input_feeding: bool = False,
        residual: bool = False,
        dropout: float = 0.0,
    ):
        check_positive("memory_size", memory_size)
        read_size = hidden_size + memory_size
        feature_size = read_size if attention_size is None else check_positive("attention_size", attention_size)
        super().__init__(vocab_size, embedding_size, hidden_size, feature_size, num_layers, unit, dropout)
        self.memory_size = memory_size
        self.input_feeding = input_feeding
        self.steps_at_once = addressing.steps_at_once and not input_feeding
        self.stack = RecurrentStack(
            embedding_size + (memory_size if input_feeding else 0),
            hidden_size,
            num_layers,
            unit,
            residual=residual,
            dropout=dropout,
        )
        self.access = ReadAccess(addressing, memory_size, control_size=hidden_size if project_query else None)
        self.keys = None
        if key_size is not None:
            self.keys = nn.Linear(memory_size, check_positive("key_size", key_size), bias=False)
        self.attention = None if attention_size is None else nn.Linear(read_size, attention_size, bias=False)
        check_fits(self.access, memory_size if key_size is None else key_size, hidden_size)

    def init_state(self, encoded: Encoded) -> AttentionState:
        keys = encoded.outputs if self.keys is None else self.keys(encoded.outputs)
        context = encoded.outputs.new_zeros(*encoded.outputs.shape[::2]) if self.input_feeding else None
        return AttentionState(encoded.state, self.access.init_state(keys, encoded.outputs, encoded.mask), context)

    def advance(
        self, x: Float[Tensor, "batch time embedding"], state: AttentionState
    ) -> tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch time source"], AttentionState]:
        if state.context is not None:
            x = torch.cat([x, state.context.unsqueeze(1)], -1)
        hidden, rnn = self.stack(x, state.rnn)
        weights, access = self.access.address(hidden, state.access)
        context = read(access.values, weights)
        features = torch.cat([hidden, context], -1)
        if self.attention is not None:
            features = self.attention(features).tanh()
        last = None if state.context is None else context.squeeze(1)
        return features, weights, AttentionState(rnn, access, last)


def check_fits(access: ReadAccess, key_size: int, hidden_size: int) -> None:
    """Tries an access on an empty memory, so that an addressing that does not fit is refused where it is built.

    Raises:
        ValueError: the addressing asks for another width than the decoder's state has, or refuses the memory.
    """
    if access.interface is None:
        check_size("addressing.emit_size", access.addressing.emit_size, "hidden_size", hidden_size)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        keys, values = torch.zeros(1, 3, key_size), torch.zeros(1, 3, access.slot_size)
        try:
            access.address(torch.zeros(1, hidden_size), access.init_state(keys, values))
        except ValueError as error:
            raise ValueError(f"addressing does not fit this decoder: {error}") from error
