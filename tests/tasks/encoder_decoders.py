"""Small models for the tests of tasks on pairs."""

from typing import NamedTuple

import torch
from torch import nn

from memnet import ContentAddressing, DotScore
from memnet.models.encoder_decoder import EncoderDecoder


class Keys(NamedTuple):
    """What the decoder looks at."""

    keys: torch.Tensor
    mask: torch.Tensor


class Small(EncoderDecoder):
    """Each target symbol asks by its own vector; all heads see the same.

    Args:
        source_vocab_size: how many source symbols.
        target_vocab_size: how many target symbols.
        one_by_one: whether the decoder takes its steps one after the other.
        num_heads: how many heads ask, as rows of the batch or, one by one, as heads.
    """

    alignment_names = ("addressing",)

    def __init__(self, source_vocab_size, target_vocab_size, one_by_one=False, num_heads=1):
        super().__init__()
        self.source_vocab_size, self.target_vocab_size = source_vocab_size, target_vocab_size
        self.one_by_one, self.num_heads = one_by_one, num_heads
        self.source = nn.Embedding(source_vocab_size, 8)
        self.target = nn.Embedding(target_vocab_size, 8)
        self.addressing = ContentAddressing(DotScore(8))
        self.output = nn.Linear(16, target_vocab_size)
        self.sampled = None
        self.generations = []

    def encode(self, source, source_lengths=None):
        assert source_lengths is None or source_lengths.device.type == "cpu"
        mask = torch.ones_like(source, dtype=torch.bool)
        if source_lengths is not None:
            mask = torch.arange(source.shape[1]) < source_lengths[:, None]
        return Keys(self.source(source), mask)

    def _look(self, asking, state):
        return self.addressing(asking, state.keys, None, state.mask)[0]

    def decode(self, target_in, state):
        asking = self.target(target_in)
        if self.one_by_one:
            steps = [self._look(asking[:, [t]].expand(-1, self.num_heads, -1), state) for t in range(asking.shape[1])]
            weights = torch.stack(steps, 1)[:, :, 0]
        else:
            heads = [part.repeat_interleave(self.num_heads, 0) for part in (asking, *state)]
            weights = self._look(heads[0], Keys(*heads[1:]))[:: self.num_heads]
        return self.output(torch.cat([asking, weights @ state.keys], -1)), self.sampled

    def step(self, tokens, state):
        logits, _ = self.decode(tokens[:, None], state)
        return logits[:, 0], self._look(self.target(tokens)[:, None], state)[:, 0], state

    def generate(self, *arguments, **settings):
        self.generations.append(settings)
        return super().generate(*arguments, **settings)


class Script(NamedTuple):
    """What is still to be written."""

    tokens: torch.Tensor


class Scripted(EncoderDecoder):
    """Writes what it was told to, whatever the source.

    Args:
        vocab_size: how many symbols.
        script: the symbols, one row for each sequence.
    """

    def __init__(self, vocab_size, script):
        super().__init__()
        self.source_vocab_size = self.target_vocab_size = vocab_size
        self.script = script

    def _logits(self, tokens):
        return 20.0 * nn.functional.one_hot(tokens, self.target_vocab_size).float()

    def encode(self, source, source_lengths=None):
        return Script(self.script)

    def decode(self, target_in, state):
        return self._logits(state.tokens[:, : target_in.shape[1]]), None

    def step(self, tokens, state):
        return self._logits(state.tokens[:, 0]), None, Script(torch.roll(state.tokens, -1, 1))
