"""What every model that turns one sequence of symbols into another has in common, and nothing of how it does it."""

import abc
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.decoding import Generation, search


class EncoderDecoder(nn.Module, abc.ABC):
    """An encoder fills a memory, a decoder reads it while it writes the target.

    Symbols are numbers below the vocabulary's size; 0 to 3 are ``memnet.decoding``'s PAD, BOS, EOS and UNK. The
    decoder's state is a NamedTuple (nested, if need be) of tensors with the batch first, or None: it holds the memory,
    projected once for each source, and is passed in and returned, so that beams are a gather.

    Attributes:
        source_vocab_size: how many source symbols there are.
        target_vocab_size: how many target symbols there are.
        max_source_length: the longest source the model is built for; None for any.
        alignment_names: names (as in ``named_modules``) of the addressings whose slots are source positions.
    """

    source_vocab_size: int
    target_vocab_size: int
    max_source_length: int | None = None
    alignment_names: tuple[str, ...] = ()

    @abc.abstractmethod
    def encode(
        self, source: Int64[Tensor, "batch source"], source_lengths: Int64[Tensor, " batch"] | None = None
    ) -> Any:
        """The decoder's state before its first step.

        Args:
            source: symbols, padded at the end where ``source_lengths`` are given.
            source_lengths: how many symbols of each source are real, best on the CPU; all if None.

        Raises:
            ValueError: no source symbol, lengths that do not fit, a symbol outside the vocabulary, or a source longer
                than ``max_source_length``.
        """

    @abc.abstractmethod
    def decode(
        self, target_in: Int64[Tensor, "batch time"], state: Any
    ) -> tuple[Float[Tensor, "batch time vocab"], Any]:
        """Logits for every next symbol, given the true ones before it (teacher forcing), for all steps at once.

        Args:
            target_in: BOS and the target's symbols but for the last.
            state: what ``encode`` returned.

        Returns:
            The logits, and what the addressing's state holds for the loss: a ``SampledSlots`` where slots were sampled,
            else None.
        """

    @abc.abstractmethod
    def step(
        self, tokens: Int64[Tensor, " batch"], state: Any
    ) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch source"] | None, Any]:
        """One step of decoding.

        Args:
            tokens: the last symbols, BOS at first.
            state: what ``encode`` or the last step returned.

        Returns:
            Logits for the next symbol; the weights over the source (the mean over heads where there are several, of the
            last layer that looks there), None where the model has none; the state for the next step.
        """

    def forward(
        self,
        source: Int64[Tensor, "batch source"],
        target_in: Int64[Tensor, "batch time"],
        source_lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        """Logits for every next target symbol, given the true ones before it. See ``encode`` and ``decode``."""
        return self.decode(target_in, self.encode(source, source_lengths))[0]

    @torch.no_grad()
    def generate(
        self,
        source: Int64[Tensor, "batch source"],
        source_lengths: Int64[Tensor, " batch"] | None = None,
        max_length: int = 100,
        beam_size: int = 1,
        length_penalty: float = 1.0,
    ) -> Generation:
        """Writes targets: greedily, or the best of a beam search. See ``memnet.decoding.search``."""
        return search(
            self.step,
            self.encode(source, source_lengths),
            source.shape[0],
            self.target_vocab_size,
            device=source.device,
            max_length=max_length,
            beam_size=beam_size,
            length_penalty=length_penalty,
        )
