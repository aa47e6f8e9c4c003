"""Many heads over one memory (Vaswani et al. 2017, sec. 3.2, https://arxiv.org/abs/1706.03762)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from memnet.addressing import Addressing, ContentAddressing
from memnet.checks import check_positive
from memnet.functional import SlotMask, per_head, read
from memnet.normalizers import Softmax
from memnet.recording import has_hooks
from memnet.scores import ScaledDotScore


class BiasedContentAddressing(ContentAddressing):
    """w = normalize(score(emission, keys) + bias): what a head emits may end in a number for each slot, the bias."""

    def forward(
        self,
        emission: Float[Tensor, "batch head emit"],
        keys: Float[Tensor, "batch slot key"],
        state: None,
        mask: SlotMask | None = None,
    ) -> tuple[Float[Tensor, "batch head slot"], None]:
        emission, bias = emission[..., : self.emit_size], emission[..., self.emit_size :]
        scores = self.score(emission, keys)
        return self.normalizer(scores + bias if bias.shape[-1] else scores, mask), None


class MultiHeadRead(nn.Module):
    """head_i = read(V W_i^V, address(Q W_i^Q, K W_i^K)), and then [head_1, ..., head_h] W^O (sec. 3.2.2).

    All positions of a sequence ask at once: they are the addressing's head axis, and the heads themselves are folded
    into the batch. The default, scaled dot product and softmax, runs in PyTorch's fused kernel unless somebody listens
    in on the addressing, as ``memnet.record`` does.

    Args:
        model_size: width of what asks, of what fills the memory, and of what is read.
        num_heads: h.
        addressing: makes the addressing from the width of a head's keys, ``model_size / num_heads``; by default
            ``ContentAddressing(ScaledDotScore(width))``. It must not remember anything from step to step.

    Raises:
        ValueError: a size is not positive, ``num_heads`` does not divide ``model_size``, or the addressing has a state.
    """

    def __init__(self, model_size: int, num_heads: int, addressing: Callable[[int], Addressing] | None = None):
        super().__init__()
        check_positive("model_size", model_size)
        self.num_heads = check_positive("num_heads", num_heads)
        if model_size % num_heads:
            raise ValueError(f"num_heads is {num_heads}, but must divide model_size, which is {model_size}.")
        key_size = model_size // num_heads
        self.addressing = (addressing if addressing is not None else _scaled_dot)(key_size)
        has_state = self.addressing.init_state(torch.zeros(1, 1, key_size), 1) is not None
        if has_state or self.addressing.shared_emit_size:
            raise ValueError(
                f"addressing makes a {type(self.addressing).__name__}, which remembers something from step to step, "
                "but must make a scheme that does not, such as a ContentAddressing."
            )
        # W^Q, W^K and W^V, one below the other: where all are asked for, they are one product.
        self._rows = (num_heads * self.addressing.emit_size, model_size, model_size)
        self.projection = nn.Linear(model_size, sum(self._rows), bias=False)
        self.output = nn.Linear(model_size, model_size, bias=False)
        for weight in (*self.projection.weight.split(self._rows), self.output.weight):
            nn.init.xavier_uniform_(weight)

    def ask(self, askers: Float[Tensor, "batch asker model"]) -> Float[Tensor, "batch head asker emit"]:
        """What each head of each asker emits."""
        return self._by_head(F.linear(askers, self.projection.weight[: self._rows[0]]))

    def fill(
        self, contents: Float[Tensor, "batch slot model"]
    ) -> tuple[Float[Tensor, "batch head slot key"], Float[Tensor, "batch head slot key"]]:
        """The memory's keys and values, projected once for all who will ask."""
        projected = F.linear(contents, self.projection.weight[self._rows[0] :])
        keys, values = projected.split(self._rows[1:], dim=-1)
        return self._by_head(keys), self._by_head(values)

    def ask_and_fill(
        self, contents: Float[Tensor, "batch slot model"]
    ) -> tuple[
        Float[Tensor, "batch head slot emit"],
        Float[Tensor, "batch head slot key"],
        Float[Tensor, "batch head slot key"],
    ]:
        """Both at once, where a sequence is the memory of its own positions."""
        emission, keys, values = self.projection(contents).split(self._rows, dim=-1)
        return self._by_head(emission), self._by_head(keys), self._by_head(values)

    def forward(
        self,
        emission: Float[Tensor, "batch head asker emit"],
        keys: Float[Tensor, "batch head slot key"],
        values: Float[Tensor, "batch head slot key"],
        mask: Bool[Tensor, "batch slot"] | Bool[Tensor, "batch asker slot"] | None = None,
        causal: bool = False,
        bias: Float[Tensor, "batch head asker slot"] | None = None,
    ) -> Float[Tensor, "batch asker model"]:
        """What each asker reads.

        Args:
            emission: from ``ask``.
            keys: from ``fill``.
            values: from ``fill``.
            mask: which slots exist, or, for each asker its own, which it may look at; None for all.
            causal: asker t sees slots 0 to t only. Not together with a mask.
            bias: added to the scores, -inf for a slot that an asker may not look at. Not together with a mask or
                causal, and only where the addressing is a ``BiasedContentAddressing``.
        """
        if not self._is_fusible():
            return self.read_with_weights(emission, keys, values, mask, causal, bias)[0]
        if bias is not None:
            assert mask is None and not causal
            return self.output(_read_biased(emission, keys, values, bias))
        slots = None if mask is None else rearrange(per_head(mask), "batch asker slot -> batch 1 asker slot")
        with _fastest(emission):
            reads = F.scaled_dot_product_attention(emission, keys, values, attn_mask=slots, is_causal=causal)
        return self.output(rearrange(reads, "batch head asker val -> batch asker (head val)"))

    def read_with_weights(
        self,
        emission: Float[Tensor, "batch head asker emit"],
        keys: Float[Tensor, "batch head slot key"],
        values: Float[Tensor, "batch head slot key"],
        mask: Bool[Tensor, "batch slot"] | Bool[Tensor, "batch asker slot"] | None = None,
        causal: bool = False,
        bias: Float[Tensor, "batch head asker slot"] | None = None,
    ) -> tuple[Float[Tensor, "batch asker model"], Float[Tensor, "batch head asker slot"]]:
        """The same by way of the addressing, and each head's weights."""
        assert (causal, mask is not None, bias is not None).count(True) <= 1
        if bias is not None:
            emission = torch.cat([emission, bias], -1)
        emission, keys, values = (rearrange(x, "batch head ... -> (batch head) ...") for x in (emission, keys, values))
        if causal:
            seen = torch.ones(emission.shape[1], keys.shape[1], dtype=torch.bool, device=keys.device).tril()
            mask = seen.expand(keys.shape[0], -1, -1)
        elif mask is not None:
            mask = repeat(mask, "batch ... -> (batch head) ...", head=self.num_heads)
        weights, _ = self.addressing(emission, keys, None, mask)
        reads = rearrange(
            read(values, weights), "(batch head) asker val -> batch asker (head val)", head=self.num_heads
        )
        by_head = rearrange(weights, "(batch head) asker slot -> batch head asker slot", head=self.num_heads)
        return self.output(reads), by_head

    def _by_head(self, x: Tensor) -> Tensor:
        return rearrange(x, "batch slot (head width) -> batch head slot width", head=self.num_heads)

    def _is_fusible(self) -> bool:
        addressing = self.addressing
        return (
            type(addressing) in (ContentAddressing, BiasedContentAddressing)
            and type(addressing.score) is ScaledDotScore
            and type(addressing.normalizer) is Softmax
            and not has_hooks(addressing)
        )


def _read_biased(
    emission: Float[Tensor, "batch head asker key"],
    keys: Float[Tensor, "batch head slot key"],
    values: Float[Tensor, "batch head slot val"],
    bias: Float[Tensor, "batch head asker slot"],
) -> Float[Tensor, "batch asker head_val"]:
    """PyTorch's fused kernels for the CPU give a bias no gradient, and its plain one looks for askers without slots."""
    size = emission.shape[1], emission.shape[3]
    emission, keys, values, bias = (
        rearrange(x, "batch head ... -> (batch head) ...") for x in (emission, keys, values, bias)
    )
    weights = torch.baddbmm(bias, emission, keys.transpose(1, 2), alpha=size[1] ** -0.5).softmax(-1)
    return rearrange(weights @ values, "(batch head) asker val -> batch asker (head val)", head=size[0])


def _fastest(emission: Tensor) -> AbstractContextManager[None]:
    """Has torch choose among its kernels, but on the CPU, where the backward pass of the fused one for half precision
    takes three to nine times as long as that of the plain one (sequences of 15 to 60)."""
    if emission.device.type == "cpu" and emission.dtype in (torch.bfloat16, torch.float16):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def _scaled_dot(key_size: int) -> Addressing:
    return ContentAddressing(ScaledDotScore(key_size))
