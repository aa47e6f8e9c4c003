"""Recurrent entity networks, on any device: stories without padding, and a backward pass by hand.

A step of the plain loop is a dozen operations on arrays as large as the memory, and torch's backward pass through it
takes twice as many again. Here most of them work in place, padding is left out, and a story of which several questions
of a batch know a part is read once. On the CPU, in float32, ``entity_cpu`` does all that and the rest of the network.
"""

import itertools
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from memnet.addressing.gate import SlotGate
from memnet.functional import in_full_precision
from memnet.functional_entity import UNIT_EPS
from memnet.kernels import entity_cpu
from memnet.kernels.ntm_cell import is_plain_call, is_watched
from memnet.scores import DotScore
from memnet.story_sharing import longest_with_this_beginning, without_gaps


def fits(model: Any) -> bool:
    """Whether ``run`` computes what the plain loop would.

    Not for a subclass or another gate, whose equations may be others, nor where somebody watches or follows single
    operations.
    """
    from memnet.models.entity_network import EntityNetwork  # which imports this package

    return (
        type(model) is EntityNetwork
        and type(model.gate) is SlotGate
        and type(model.gate.score) is DotScore
        and is_plain_call()
        and not any(map(is_watched, model.modules()))
    )


def run(
    model: Any, story: Int64[Tensor, "batch sentence word"], question: Int64[Tensor, "batch asked"]
) -> Float[Tensor, "batch answer"]:
    """``forward`` of a network that ``fits``, for inputs that it does not refuse.

    Args:
        model: a ``memnet.EntityNetwork``.
        story: as for its ``forward``.
        question: as for its ``forward``.
    """
    logits = entity_cpu.run(model, story, question)
    if logits is None:
        packed = pack(story)
        told = model.encode_sentences(packed.words)
        logits = model.answer(_memories(model, told, packed), question)
    return logits


@in_full_precision
def _memories(model: Any, told: Float[Tensor, "told emb"], packed: "Packed") -> Float[Tensor, "batch slot emb"]:
    scores = F.linear(told, model.keys, model.gate.bias)
    from_keys = F.linear(model.keys, model.from_keys, model.bias)
    from_told = F.linear(told, model.from_sentence)
    memories: Tensor = _Recurrence.apply(
        model.keys, told, scores, from_keys, from_told, model.from_memory, model.slopes, packed
    )
    return memories


class Packed(NamedTuple):
    """The sentences of different stories without padding, step by step.

    Attributes:
        words: of all first sentences, all second ones and so on, each time of fewer stories: the longest come first.
        sizes: how many stories there are, and how many have a first, a second, ... sentence.
        ends: for each question where the memory that it is asked of stands among those of all steps; the first ones are
            the memories before the first sentence.
    """

    words: Int64[Tensor, "told word"]
    sizes: list[int]
    ends: Int64[Tensor, " batch"]


def pack(story: Int64[Tensor, "batch sentence word"]) -> Packed:
    """Leaves out padding, and every story that is the beginning of another one.

    Args:
        story: as for ``memnet.EntityNetwork``.
    """
    story, present = without_gaps(story)
    counts = present.sum(1)
    whole = longest_with_this_beginning(story, present, counts)
    own = (whole == torch.arange(len(story), device=story.device)).nonzero().flatten()
    own = own[counts[own].argsort(descending=True, stable=True)]
    place = torch.empty_like(whole)
    place[own] = torch.arange(len(own), device=own.device)
    told = rearrange(present[own], "story sentence -> sentence story")
    sizes = F.pad(told.sum(1), (1, 0), value=len(own))
    words = rearrange(story[own], "story sentence word -> sentence story word")[told]
    first = F.pad(sizes.cumsum(0), (1, 0))
    return Packed(words, [size for size in sizes.tolist() if size], first[counts] + place[whole])


class _Recurrence(torch.autograd.Function):
    """h_j <- unit(h_j + sigmoid(s . h_j + scores_j) phi(U h_j + from_keys_j + from_told)) for each sentence s."""

    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor,
        told: Tensor,
        scores: Tensor,
        from_keys: Tensor,
        from_told: Tensor,
        recurrent: Tensor,
        slopes: Tensor,
        packed: Packed,
    ) -> Tensor:
        slots, width = start.shape
        total = sum(packed.sizes)
        memories = start.new_empty(total, slots, width)
        inner = start.new_empty(len(told), slots, width)  # what phi is applied to
        gates = start.new_empty(len(told), slots)
        scales = start.new_empty(len(told), slots)
        memories[: packed.sizes[0]] = start
        turned = recurrent.T.contiguous()
        for before, now, step in _steps(packed.sizes):
            memory, new, x = memories[before], memories[now], inner[step]
            torch.mm(memory.flatten(0, 1), turned, out=x.view(-1, width))
            x += from_keys
            x += from_told[step].unsqueeze(1)
            torch.mul(memory, told[step].unsqueeze(1), out=new)
            gate = torch.sum(new, 2, out=gates[step]).add_(scores[step]).sigmoid_()
            torch.mul(F.prelu(x.view(-1, width), slopes).view_as(x), gate.unsqueeze(2), out=new)
            new += memory
            scale = torch.sum(new.square(), 2, out=scales[step]).add_(UNIT_EPS).rsqrt_()
            new *= scale.unsqueeze(2)
        ctx.packed = packed
        ctx.save_for_backward(told, recurrent, slopes, memories, inner, gates, scales)
        return memories[packed.ends]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_end: Tensor) -> tuple[Tensor | None, ...]:
        told, recurrent, slopes, memories, inner, gates, scales = ctx.saved_tensors
        packed, width = ctx.packed, inner.shape[2]
        by_memory = torch.zeros_like(memories).index_add_(0, packed.ends, by_end)
        by_told, by_from_told = torch.empty_like(told), torch.empty_like(told)
        by_scores = torch.empty_like(gates)
        by_from_keys = inner.new_zeros(inner.shape[1:])
        by_recurrent = torch.zeros_like(recurrent)
        by_slopes = torch.zeros_like(slopes)
        for before, now, step in reversed(_steps(packed.sizes)):
            memory, by_before = memories[before], by_memory[before]
            new, by_new = memories[now], by_memory[now]
            gate, x = gates[step], inner[step]
            # Through the division by the length, which takes away what points along the memory.
            along = (by_new * new).sum(2, keepdim=True)
            by_written = torch.addcmul(by_new, new, along, value=-1).mul_(scales[step].unsqueeze(2))
            slope = (x > 0).to(x.dtype).mul_(1 - slopes).add_(slopes)
            by_gate = (x * slope).mul_(by_written).sum(2)
            by_score = torch.mul(by_gate, gate * (1 - gate), out=by_scores[step]).unsqueeze(2)
            by_added = by_written * gate.unsqueeze(2)
            by_slopes += x.clamp(max=0).mul_(by_added).sum((0, 1))
            by_x = by_added.mul_(slope)
            by_before += by_written
            by_before += torch.mul(by_score, told[step].unsqueeze(1), out=slope)
            by_x_rows = by_x.view(-1, width)
            by_before.view(-1, width).addmm_(by_x_rows, recurrent)
            by_recurrent.addmm_(by_x_rows.T, memory.view(-1, width))
            by_from_keys += by_x.sum(0)
            torch.sum(by_x, 1, out=by_from_told[step])
            torch.sum(torch.mul(memory, by_score, out=slope), 1, out=by_told[step])
        by_start = by_memory[: packed.sizes[0]].sum(0)
        return by_start, by_told, by_scores, by_from_keys, by_from_told, by_recurrent, by_slopes, None


def _steps(sizes: list[int]) -> list[tuple[slice, slice, slice]]:
    """For each step where the memories before and after it stand among all memories, and where its sentences do."""
    steps, first = [], 0
    for size, following in itertools.pairwise(sizes):
        after = first + size
        steps.append((slice(first, first + following), slice(after, after + following)))
        first = after
    return [(before, now, slice(now.start - sizes[0], now.stop - sizes[0])) for before, now in steps]
