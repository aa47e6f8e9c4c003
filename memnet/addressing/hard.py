"""Hard attention: each head looks at one slot, sampled in training and the best one at test."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from memnet.addressing.base import Addressing
from memnet.functional import SlotMask, best_slot, gumbel_noise, masked_log_softmax
from memnet.scores import Score


class SampledSlots(NamedTuple):
    """What the loss must know of the slots that one call has sampled (see ``memnet.reinforce_loss``).

    Attributes:
        log_prob: log p(s), the log-probability of the sampled slot; 0 where there was no slot to sample.
        entropy: H[s] of the distribution it was sampled from, in nats; 0 where there was no slot.
        baseline: b, the reward that the head itself expects.
    """

    log_prob: Float[Tensor, "batch head"]
    entropy: Float[Tensor, "batch head"]
    baseline: Float[Tensor, "batch head"]


class HardAddressing(Addressing[SampledSlots | None]):
    """One slot for each head: s ~ softmax(score) in training, argmax of the score at test (Xu et al. 2015, sec. 4.1).

    The weights are exactly one-hot and carry no gradient; scores learn from ``memnet.reinforce_loss``, which needs the
    state of each call in training: the samples of that call alone, None in evaluation. Who calls step by step collects
    them. For gradients through the weights see ``memnet.GumbelStraightThrough``.

    A head emits what ``score`` asks for, then its baseline b, the reward it expects: a baseline that depends on the
    input and is learned (Mnih and Gregor 2014, sec. 2.3) instead of a running mean, which would have to be kept.

    Args:
        score: compares the emission with each key.
    """

    def __init__(self, score: Score):
        super().__init__()
        self.score = score

    @property
    def emit_size(self) -> int:
        return self.score.emit_size + 1

    @property
    def emission_start(self) -> tuple[float, ...]:
        return (*self.score.emission_start, 0.0)

    @property
    def steps_at_once(self) -> bool:
        return True  # what it remembers is for the loss alone

    def init_state(self, keys: Float[Tensor, "batch slot key"], num_heads: int) -> SampledSlots | None:
        if not self.training:
            return None
        nothing = keys.new_zeros(keys.shape[0], num_heads)
        return SampledSlots(nothing, nothing, nothing)

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: SampledSlots | None,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], SampledSlots | None]:
        query, baseline = emission.split([self.score.emit_size, 1], dim=-1)
        scores = self.score(query, keys)
        if not self.training:
            return best_slot(scores, mask), None
        # The best of scores with Gumbel noise is a sample of their softmax (Jang et al. 2017, eq. 1).
        weights = best_slot(scores + gumbel_noise(scores), mask)
        log_probs = masked_log_softmax(scores, mask)
        log_prob = (weights * log_probs).sum(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return weights, SampledSlots(log_prob, entropy, baseline.squeeze(-1).to(log_prob.dtype))
