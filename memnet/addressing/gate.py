"""A gate for each slot by itself: the recurrent entity network (Henaff, Weston, Szlam, Bordes and LeCun 2017)."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memnet.addressing.base import Addressing
from memnet.checks import check_positive, check_size
from memnet.functional import SlotMask, per_head
from memnet.scores import Score


class SlotGate(Addressing[None]):
    """w(i) = sigmoid(score(emission, key_i) + b_i): every slot opens or closes by itself, whatever the others do.

    With a dot score, a sentence s as the emission and w_j + h_j as the keys this is the entity network's gate,
    g_j = sigmoid(s^T h_j + s^T w_j) (https://arxiv.org/abs/1612.03969, eq. 2). Any number of slots may be open at once,
    hence not ``normalized``.

    Args:
        score: compares the emission with each key.
        num_slots: a learned bias b_i, first 0, is added for each of so many slots, as in the authors' program; None for
            none, as in the paper, and for any number of slots.

    Raises:
        ValueError: ``num_slots`` is not positive; in forward, if the memory has another number of slots.
    """

    normalized: ClassVar[bool] = False

    def __init__(self, score: Score, num_slots: int | None = None):
        super().__init__()
        self.score = score
        self.bias = None
        if num_slots is not None:
            self.bias = nn.Parameter(torch.zeros(check_positive("num_slots", num_slots)))

    @property
    def emit_size(self) -> int:
        return self.score.emit_size

    @property
    def emission_start(self) -> tuple[float, ...]:
        return self.score.emission_start

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: None,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], None]:
        scores = self.score(emission, keys)
        if self.bias is not None:
            check_size("num_slots", len(self.bias), "the memory's number of slots", keys.shape[1])
            scores = scores + self.bias
        gates = scores.sigmoid()
        return gates if mask is None else gates * per_head(mask), None
