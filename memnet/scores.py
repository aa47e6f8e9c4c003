"""Scores: how well what a head asks for matches each slot. The first half of content addressing."""

import abc
import math

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_greater_than_zero, check_positive, check_size
from memnet.functional import NORM_EPS, cosine_similarity, in_full_precision
from memnet.functional_dnc import masked_cosine_similarity


class Score(nn.Module, abc.ABC):
    """Compares each head's emission with each slot's key. A new score implements ``compare``.

    A key here is what the memory holds: whoever fills a memory projects its keys once (keys = W h), so that no step
    projects the whole memory again.

    Args:
        key_size: width of the keys.

    Raises:
        ValueError: ``key_size`` is not positive; in forward, if the keys have another width.
    """

    def __init__(self, key_size: int):
        super().__init__()
        self.key_size = check_positive("key_size", key_size)

    @property
    def emit_size(self) -> int:
        """How many numbers the controller emits for one head; those of a key by default."""
        return self.key_size

    @property
    def emission_start(self) -> tuple[float, ...]:
        """What an untrained head's emission lies around, ``emit_size`` numbers; zeros by default."""
        return (0.0,) * self.emit_size

    def forward(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        """Any real score, higher for a better match."""
        check_size("key_size", self.key_size, "the memory's key width", keys.shape[-1])
        return self.compare(emission, keys)

    @abc.abstractmethod
    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        """The score, of keys of the right width."""


class DotScore(Score):
    """q . k (Luong, Pham and Manning 2015, eq. 8, "dot").

    Args:
        key_size: width of queries and keys.

    Raises:
        ValueError: ``key_size`` is not positive; in forward, if the keys have another width.
    """

    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        return _dot(emission, keys)


class ScaledDotScore(Score):
    """q . k / sqrt(key_size) (Vaswani et al. 2017, eq. 1).

    Args:
        key_size: width of queries and keys.

    Raises:
        ValueError: ``key_size`` is not positive; in forward, if the keys have another width.
    """

    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        return _dot(emission / math.sqrt(self.key_size), keys)


class GeneralScore(Score):
    """q^T W k (Luong, Pham and Manning 2015, eq. 8, "general"). W acts on the query, one vector, not on every slot.

    Args:
        query_size: width of what a head emits.
        key_size: width of the keys.

    Raises:
        ValueError: a size is not positive; in forward, if the keys have another width.
    """

    def __init__(self, query_size: int, key_size: int):
        super().__init__(key_size)
        self.query_size = check_positive("query_size", query_size)
        self.projection = nn.Linear(query_size, key_size, bias=False)

    @property
    def emit_size(self) -> int:
        return self.query_size

    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        return _dot(self.projection(emission), keys)


class AdditiveScore(Score):
    """v . tanh(W q + k) with keys k = U h projected by whoever fills the memory (Bahdanau, Cho and Bengio 2015, A.1.2).

    Args:
        query_size: width of what a head emits.
        key_size: width of the projected keys, the paper's alignment units.

    Raises:
        ValueError: a size is not positive; in forward, if the keys have another width.
    """

    def __init__(self, query_size: int, key_size: int):
        super().__init__(key_size)
        self.query_size = check_positive("query_size", query_size)
        self.projection = nn.Linear(query_size, key_size)
        self.direction = nn.Parameter(torch.empty(key_size).uniform_(-(key_size**-0.5), key_size**-0.5))

    @property
    def emit_size(self) -> int:
        return self.query_size

    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        return _additive(self.projection(emission), keys, self.direction)


class CosineScore(Score):
    """beta K[k, M(i)]: cosine similarity times a strength (NTM eq. 5 and 6).

    A head emits its key k, bounded by tanh, and one number for its key strength beta = softplus(.) > 0
    (both as in Collier and Beel 2018).

    Args:
        key_size: width of a memory slot.
        eps: added to squared norms, > 0; slots much shorter than its root are similar to nothing.
        start_strength: the strength around which heads begin, > 0. With the default, softplus(0), an untrained head's
            softmax over a hundred slots is all but flat, and so hardly learns what a key would find.

    Raises:
        ValueError: ``key_size`` is not positive, ``eps`` or ``start_strength`` is not a finite number greater than 0;
            in forward, if the keys have another width.
    """

    def __init__(self, key_size: int, eps: float = NORM_EPS, start_strength: float = math.log(2)):
        super().__init__(key_size)
        self.eps = check_greater_than_zero("eps", eps)
        self.start_strength = check_greater_than_zero("start_strength", start_strength)

    @property
    def emit_size(self) -> int:
        return self.key_size + 1

    @property
    def emission_start(self) -> tuple[float, ...]:
        """Zeros, and what softplus makes the starting strength of."""
        strength = self.start_strength + math.log(-math.expm1(-self.start_strength))
        return (*[0.0] * self.key_size, strength)

    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        query, key_strength = emission.split([self.key_size, 1], dim=-1)
        return F.softplus(key_strength) * cosine_similarity(query.tanh(), keys, self.eps)


class MaskedCosineScore(Score):
    """beta D(k o m, M(i) o m): cosine similarity over the parts of a slot that the head wants to compare.

    Without a mask a head that looks for some of what a slot holds must know the rest as well, for that counts too
    (Csordas and Schmidhuber 2019, "Masking"). A head emits what ``CosineScore`` wants, then the mask m = sigmoid(.).

    Args:
        key_size: width of a memory slot.
        eps: added to squared norms, > 0; slots much shorter than its root are similar to nothing.

    Raises:
        ValueError: ``key_size`` is not positive, or ``eps`` is not a finite number greater than 0; in forward, if the
            keys have another width.
    """

    def __init__(self, key_size: int, eps: float = NORM_EPS):
        super().__init__(key_size)
        self.eps = check_greater_than_zero("eps", eps)

    @property
    def emit_size(self) -> int:
        return 2 * self.key_size + 1

    def compare(
        self, emission: Float[Tensor, "batch head emit"], keys: Float[Tensor, "batch slot key"]
    ) -> Float[Tensor, "batch head slot"]:
        query, key_strength, mask = emission.split([self.key_size, 1, self.key_size], dim=-1)
        return F.softplus(key_strength) * masked_cosine_similarity(query.tanh(), mask.sigmoid(), keys, self.eps)


@in_full_precision
def _dot(
    queries: Float[Tensor, "batch head key"], keys: Float[Tensor, "batch slot key"]
) -> Float[Tensor, "batch head slot"]:
    return einsum(queries, keys, "batch head key, batch slot key -> batch head slot")


@in_full_precision
def _additive(
    queries: Float[Tensor, "batch head key"], keys: Float[Tensor, "batch slot key"], direction: Float[Tensor, " key"]
) -> Float[Tensor, "batch head slot"]:
    queries = rearrange(queries, "batch head key -> batch head 1 key")
    matches = torch.tanh(queries + rearrange(keys, "batch slot key -> batch 1 slot key"))
    return einsum(matches, direction, "batch head slot key, key -> batch head slot")
