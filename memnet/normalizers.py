"""Normalizers: from scores to a weighting over slots. The second half of content addressing."""

import abc

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from memnet.checks import check_positive
from memnet.functional import in_full_precision, masked_softmax


class Normalizer(nn.Module, abc.ABC):
    """Turns scores into weights: at least 0, sum 1 over the slots that ``mask`` leaves (sum 0 if it leaves none)."""

    @abc.abstractmethod
    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None = None
    ) -> Float[Tensor, "batch head slot"]:
        """Weights of the same shape as ``scores``; exactly 0 where ``mask`` is false."""


class Softmax(Normalizer):
    """exp(s_i) / sum_j exp(s_j) (NTM eq. 5)."""

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None = None
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
        self, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None = None
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
        self, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None = None
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
        self, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None = None
    ) -> Float[Tensor, "batch head slot"]:
        scores = _fill_masked(scores, mask)
        best = scores.topk(min(self.k, scores.shape[-1]), dim=-1)
        weights = torch.zeros_like(scores).scatter(-1, best.indices, best.values.softmax(-1))
        return weights if mask is None else weights * rearrange(mask, "batch slot -> batch 1 slot")


class Hard(Normalizer):
    """All weight on the slot with the highest score; backward as by softmax (straight-through, Bengio et al. 2013)."""

    def forward(
        self, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None = None
    ) -> Float[Tensor, "batch head slot"]:
        soft = masked_softmax(scores, mask)
        best = _fill_masked(scores, mask).argmax(-1, keepdim=True)
        hard = torch.zeros_like(soft).scatter(-1, best, 1.0)
        if mask is not None:
            hard = hard * rearrange(mask, "batch slot -> batch 1 slot")
        # soft - soft is exactly 0 forward, so the weights stay exactly one-hot.
        return hard + (soft - soft.detach())


def _fill_masked(
    scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None
) -> Float[Tensor, "batch head slot"]:
    if mask is None:
        return scores
    return scores.masked_fill(~rearrange(mask, "batch slot -> batch 1 slot"), torch.finfo(scores.dtype).min)


@in_full_precision
def _over_unmasked(
    normalize, scores: Float[Tensor, "batch head slot"], mask: Bool[Tensor, "batch slot"] | None
) -> Float[Tensor, "batch head slot"]:
    if mask is None:
        return normalize(scores, dim=-1)
    # Both supports end at a finite distance below the best score (1 for sparsemax, 2 for 1.5-entmax), so a masked slot
    # need not lie far below it; the lowest float would make the projection's sums lose everything else. The best score
    # is taken away first, because far from 0 rounding would lose a distance of 10.
    best = _fill_masked(scores, mask).amax(-1, keepdim=True).detach()
    mask = rearrange(mask, "batch slot -> batch 1 slot")
    return normalize(torch.where(mask, scores - best, -10.0), dim=-1) * mask


def _entmax():
    try:
        import entmax
    except ImportError as error:
        raise ImportError("This normalizer needs the entmax package: pip install 'memnet[sparse]'.") from error
    return entmax
