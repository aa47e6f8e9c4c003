"""Addressing by content: soft attention, memory networks, and the first step of the Neural Turing Machine."""

from jaxtyping import Float
from torch import Tensor

from memnet.addressing.base import Addressing
from memnet.functional import SlotMask
from memnet.normalizers import Normalizer, Softmax
from memnet.scores import Score


class ContentAddressing(Addressing[None]):
    """w = normalize(score(emission, keys)): its two halves are injected.

    With a cosine score and softmax this is NTM eq. 5 and 6; with a dot score, Luong attention and the memory network's
    hop; with an additive score, Bahdanau attention.

    Args:
        score: compares the emission with each key.
        normalizer: turns the scores into weights; softmax by default.
    """

    def __init__(self, score: Score, normalizer: Normalizer | None = None):
        super().__init__()
        self.score = score
        self.normalizer = normalizer if normalizer is not None else Softmax()

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
        return self.normalizer(self.score(emission, keys), mask), None
