"""An addressing scheme from outside the package: by content, but slots fade the longer ago they were written."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memnet import Addressing, Score
from memnet.functional import masked_softmax


class RecencyState(NamedTuple):
    age: Tensor  # (batch, slot): steps since the slot was written


class RecencyAddressing(Addressing[RecencyState]):
    """w = softmax(score - decay age), with a learned decay = softplus(.) and content compared by ``score``."""

    def __init__(self, score: Score):
        super().__init__()
        self.score = score
        self.decay = nn.Parameter(torch.zeros(()))

    @property
    def emit_size(self) -> int:
        return self.score.emit_size

    def init_state(self, keys, num_heads):
        return RecencyState(keys.new_zeros(keys.shape[:2]))

    def forward(self, emission, keys, state, mask=None):
        fading = F.softplus(self.decay) * state.age
        return masked_softmax(self.score(emission, keys) - fading[:, None], mask), state

    def after_write(self, weights, state):
        return RecencyState((state.age + 1) * (1 - weights).prod(1))
