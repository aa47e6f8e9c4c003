"""Writing a sequence symbol by symbol: greedily, or by beam search. For any model that can take one step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from memnet.checks import check_positive, check_size

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Symbols reserved in every vocabulary: padding, begin and end of a sequence, unknown."""

Step = Callable[[Tensor, Any], tuple[Tensor, Tensor | None, Any]]


class Generation(NamedTuple):
    """What was written, and where the model looked for each symbol.

    Attributes:
        tokens: without BOS; ends with EOS (unless it was cut off at the greatest length), PAD after that.
        weights: over the source, all 0 after the end; None from a model that has none.
    """

    tokens: Int64[Tensor, "batch time"]
    weights: Float[Tensor, "batch time source"] | None


@torch.no_grad()
def search(
    step: Step,
    state: Any,
    batch_size: int,
    vocab_size: int,
    *,
    device: torch.device | str,
    max_length: int = 100,
    beam_size: int = 1,
    length_penalty: float = 1.0,
) -> Generation:
    """The best sequence that a greedy or a beam search finds for each item of a batch.

    With a beam, each step extends the ``beam_size`` best unfinished sequences. Those that end among the best
    ``beam_size`` extensions are finished and rated log P(Y) / ((5 + |Y|) / 6)^alpha (Wu et al. 2016, eq. 14, without
    the coverage term), where the length |Y| counts EOS. An item is done when ``beam_size`` sequences have finished, or
    when no unfinished one can come to a better rating any more. At the greatest length, unfinished sequences are rated
    as they are. No gradients are kept.

    Args:
        step: ``step(tokens (batch,), state) -> (logits (batch, vocab), weights (batch, source) or None, state)``. Must
            not change the state's tensors in place.
        state: before the first step; any nesting of tuples, lists and dicts of tensors with the batch first, and None.
        batch_size: how many sequences to write.
        vocab_size: how many symbols there are, the four reserved ones included. PAD and BOS are never written.
        device: where the symbols are made.
        max_length: the greatest number of symbols, EOS counted; what has not ended there is returned as it is.
        beam_size: how many sequences are followed at once; 1 is greedy.
        length_penalty: alpha >= 0, how much longer sequences are favoured; 0 for not at all.

    Raises:
        ValueError: a size or ``max_length`` is not a positive whole number, ``vocab_size`` is below 4, ``beam_size`` is
            greater than it, ``length_penalty`` is negative or not finite, or the logits are not for ``vocab_size``
            symbols.
    """
    check_positive("batch_size", batch_size)
    check_positive("max_length", max_length)
    check_positive("beam_size", beam_size)
    if check_positive("vocab_size", vocab_size) <= UNK:
        raise ValueError(f"vocab_size is {vocab_size}, but must be at least 4: PAD, BOS, EOS and UNK are always there.")
    if beam_size > vocab_size:
        raise ValueError(f"beam_size is {beam_size}, but must be at most the size of the vocabulary, {vocab_size}.")
    if not 0 <= length_penalty < float("inf"):
        raise ValueError(f"length_penalty is {length_penalty}, but must be a finite number of at least 0.")

    def checked_step(tokens: Tensor, state: Any) -> tuple[Tensor, Tensor | None, Any]:
        logits, weights, state = step(tokens, state)
        check_size("vocab_size", vocab_size, "the logits' width", logits.shape[-1])
        return logits, weights, state

    if beam_size == 1:
        return _greedy(checked_step, state, torch.full((batch_size,), BOS, device=device), max_length)
    begin = torch.full((batch_size, beam_size), BOS, device=device)
    return _beam(checked_step, state, begin, max_length, length_penalty)


def _greedy(step: Step, state: Any, tokens: Int64[Tensor, " batch"], max_length: int) -> Generation:
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    all_tokens, all_weights = [], []
    for _ in range(max_length):
        logits, weights, state = step(tokens, state)
        tokens = (logits[:, EOS:].argmax(-1) + EOS).masked_fill(ended, PAD)
        all_tokens.append(tokens)
        if weights is not None:
            all_weights.append(weights.masked_fill(rearrange(ended, "batch -> batch 1"), 0))
        ended = ended | (tokens == EOS)
        if ended.all():
            break
    return Generation(torch.stack(all_tokens, 1), torch.stack(all_weights, 1) if all_weights else None)


class _Link(NamedTuple):
    """One step of a beam search: which row of the step before each row continues, and by which symbol."""

    parents: Int64[Tensor, " row"]
    tokens: Int64[Tensor, " row"]
    weights: Float[Tensor, "parent source"] | None


class _Finished(NamedTuple):
    """The best sequence that has finished for each item: its rating, the row and the step it ended at."""

    rating: Float[Tensor, " batch"]
    row: Int64[Tensor, " batch"]
    time: Int64[Tensor, " batch"]
    num_finished: Int64[Tensor, " batch"]
    done: Bool[Tensor, " batch"]


def _beam(
    step: Step, state: Any, begin: Int64[Tensor, "batch beam"], max_length: int, length_penalty: float
) -> Generation:
    """The rows of ``step`` are (batch beam), the best beam first."""
    batch_size, beam_size = begin.shape
    item = torch.arange(batch_size, device=begin.device)
    first_rows = item * beam_size
    expanded = repeat(item, "batch -> (batch beam)", beam=beam_size)
    state = initial = tree_map(lambda x: x.index_select(0, expanded) if isinstance(x, Tensor) else x, state)
    # What a step hands on untouched (the memory, mostly) is the same for all beams of an item: no need to gather it.
    untouched = {id(x) for x in tree_leaves(initial)}

    tokens = rearrange(begin, "batch beam -> (batch beam)")
    # At first all beams are the same, and only one may count.
    scores = torch.full(begin.shape, -torch.inf, device=begin.device)
    scores[:, 0] = 0
    nothing = torch.zeros_like(item)
    finished = _Finished(scores.new_full((batch_size,), -torch.inf), nothing, nothing, nothing, nothing.bool())
    links: list[_Link] = []
    for time in range(max_length):
        logits, weights, state = step(tokens, state)
        log_probs = rearrange(_log_probs(logits), "(batch beam) vocab -> batch beam vocab", beam=beam_size)
        candidates = rearrange(scores, "batch beam -> batch beam 1") + log_probs
        # Each beam can end in one way only, so of twice as many candidates at least half go on.
        top_scores, top = rearrange(candidates, "batch beam vocab -> batch (beam vocab)").topk(2 * beam_size)
        top_rows = rearrange(first_rows, "batch -> batch 1") + top // log_probs.shape[-1]
        top_tokens = top % log_probs.shape[-1] + EOS
        ends = top_tokens == EOS

        going_on = ends.sort(dim=-1, stable=True).indices[:, :beam_size]
        scores = top_scores.gather(1, going_on)
        rows = rearrange(top_rows.gather(1, going_on), "batch beam -> (batch beam)")
        tokens = rearrange(top_tokens.gather(1, going_on), "batch beam -> (batch beam)")
        links.append(_Link(rows, tokens, weights))

        ending = top_scores.masked_fill(~ends, -torch.inf)[:, :beam_size]
        # The most that an unfinished sequence can come to: nothing more to pay, at the greatest length.
        within_reach = scores[:, 0] / _length_norm(max_length, length_penalty)
        finished = _finish(finished, time, ending / _length_norm(time + 1, length_penalty), top_rows, within_reach)
        if time + 1 == max_length or finished.done.all():
            break
        state = tree_map(
            lambda x, rows=rows: x.index_select(0, rows) if isinstance(x, Tensor) and id(x) not in untouched else x,
            state,
        )
    return _trace_back(links, finished, first_rows)


def _log_probs(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row candidate"]:
    """Of all symbols but PAD and BOS. A row after which nothing is possible (all -inf) dies alone, without a NaN."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(-1)[:, EOS:].nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def _length_norm(length: int, length_penalty: float) -> float:
    """lp(Y) = ((5 + |Y|) / 6)^alpha (Wu et al. 2016, eq. 14)."""
    return ((5 + length) / 6) ** length_penalty


def _finish(
    finished: _Finished,
    time: int,
    ratings: Float[Tensor, "batch beam"],
    rows: Int64[Tensor, "batch candidate"],
    within_reach: Float[Tensor, " batch"],
) -> _Finished:
    """Takes in what ends at this step, rated above -inf, of items that are not done."""
    ratings = ratings.masked_fill(rearrange(finished.done, "batch -> batch 1"), -torch.inf)
    rating, rank = ratings.max(-1)
    better = rating > finished.rating
    row = rows.gather(1, rearrange(rank, "batch -> batch 1")).squeeze(1)
    num_finished = finished.num_finished + (ratings > -torch.inf).sum(-1)
    rating = torch.maximum(rating, finished.rating)
    settled = (num_finished > 0) & (rating >= within_reach)
    return _Finished(
        rating,
        torch.where(better, row, finished.row),
        finished.time.masked_fill(better, time),
        num_finished,
        finished.done | settled | (num_finished >= ratings.shape[1]),
    )


def _trace_back(links: list[_Link], finished: _Finished, first_rows: Int64[Tensor, " batch"]) -> Generation:
    """Follows each answer back to BOS from its end, or from the best row of the last step if it was cut off."""
    cut_off = ~finished.done
    row = first_rows
    all_tokens, all_weights = [], []
    for time, (parents, tokens, weights) in reversed(list(enumerate(links))):
        ends_here = ~cut_off & (finished.time == time)
        after = ~cut_off & (finished.time < time)
        all_tokens.append(tokens[row].masked_fill(ends_here, EOS).masked_fill(after, PAD))
        row = torch.where(ends_here, finished.row, parents[row])
        if weights is not None:
            all_weights.append(weights[row].masked_fill(rearrange(after, "batch -> batch 1"), 0))
    length = int(torch.where(cut_off, len(links), finished.time + 1).max())
    tokens = torch.stack(all_tokens[::-1][:length], 1)
    return Generation(tokens, torch.stack(all_weights[::-1][:length], 1) if all_weights else None)
