"""Normalizers: from scores to a weighting over slots. The second half of content addressing."""

import abc

import torch
from jaxtyping import Float
from torch import Tensor, nn

from memnet.checks import check_greater_than_zero, check_positive
from memnet.functional import (
    SlotMask,
    best_slot,
    fill_masked,
    gumbel_noise,
    in_full_precision,
    masked_softmax,
    per_head,
)


class Normalizer(nn.Module, abc.ABC):
    """Turns scores into weights: at least 0, sum 1 over the slots that ``mask`` leaves (sum 0 if it leaves none)."""

    @abc.abstractmethod
    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        """Weights of the same shape as ``scores``; exactly 0 where ``mask`` is false."""


class Softmax(Normalizer):
    """exp(s_i) / sum_j exp(s_j) (NTM eq. 5)."""

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        return masked_softmax(scores, mask)


class Sparsemax(Normalizer):
    """The Euclidean projection of the scores on the simplex (Martins and Astudillo 2016); most slots get exactly 0.

    Raises:
        ImportError: the ``sparse`` extra is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sparsemax = _entmax().sparsemax

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        return _over_unmasked(self.sparsemax, scores, mask)


class Entmax15(Normalizer):
    """1.5-entmax, between softmax and sparsemax (Peters, Niculae and Martins 2019).

    Raises:
        ImportError: the ``sparse`` extra is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.entmax15 = _entmax().entmax15

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        return _over_unmasked(self.entmax15, scores, mask)


class TopK(Normalizer):
    """Softmax over the ``k`` highest scores, 0 elsewhere (the read of sparse access memory, Rae et al. 2016, sec. 3.1).

    Args:
        k: how many slots keep weight; all of them when there are fewer.

    Raises:
        ValueError: ``k`` is not positive.
    """

    def __init__(self, k: int):
        super().__init__()
        self.k = check_positive("k", k)

    @in_full_precision
    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        scores = fill_masked(scores, mask)
        best = scores.topk(min(self.k, scores.shape[-1]), dim=-1)
        weights = torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1))
        return weights if mask is None else weights * per_head(mask)


class Hard(Normalizer):
    """All weight on the slot with the highest score; backward as by softmax (straight-through, Bengio et al. 2013)."""

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        return _straight_through(best_slot(scores, mask), masked_softmax(scores, mask))


class GumbelStraightThrough(Normalizer):
    """All weight on one slot, in training on one sampled from softmax(scores) (Jang, Gu and Poole 2017, sec. 2.2).

    In training, Gumbel noise is added to the scores, forward the highest gets all the weight, and backward it is
    softmax((scores + g) / temperature). At test there is no noise: the highest score gets all, as with ``Hard``.

    Args:
        temperature: tau, greater than 0. Lower is nearer to the sample that is used, but with gradients that vary more.

    Raises:
        ValueError: ``temperature`` is not a finite number greater than 0.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = check_greater_than_zero("temperature", temperature)

    @in_full_precision
    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None = None
    ) -> Float[Tensor, "batch head slot"]:
        if self.training:
            scores = scores + gumbel_noise(scores)
        return _straight_through(best_slot(scores, mask), masked_softmax(scores / self.temperature, mask))


def _straight_through(
    hard: Float[Tensor, "batch head slot"], soft: Float[Tensor, "batch head slot"]
) -> Float[Tensor, "batch head slot"]:
    """``hard`` with the gradient of ``soft``."""
    # soft - soft is exactly 0 forward, so the weights stay exactly one-hot.
    return hard + (soft - soft.detach())


@in_full_precision
def _over_unmasked(
    normalize, scores: Float[Tensor, "batch head slot"], mask: SlotMask | None
) -> Float[Tensor, "batch head slot"]:
    if mask is None:
        return normalize(scores, dim=-1)
    # Both supports end at a finite distance below the best score (1 for sparsemax, 2 for 1.5-entmax), so a masked slot
    # need not lie far below it; the lowest float would make the projection's sums lose everything else. The best score
    # is taken away first, because far from 0 rounding would lose a distance of 10.
    best = fill_masked(scores, mask).amax(-1, keepdim=True).detach()
    mask = per_head(mask)
    return normalize(torch.where(mask, scores - best, -10.0), dim=-1) * mask


def _entmax():
    try:
        import entmax
    except ImportError as error:
        raise ImportError("This normalizer needs the entmax package: pip install 'memnet[sparse]'.") from error
    return entmax
