"""Which of a batch's questions are asked in the course of one story, so that it can be read once for all of them."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional as F

NULL = 0
"""The null word: it pads sentences and stories, and its embedding is zero."""


class SharedStories(NamedTuple):
    """The stories of a batch, each once, and the questions about them.

    Attributes:
        stories: the longest ones, without empty sentences before others.
        row: which of the stories each question of the batch is about.
        place: which of the story's questions it is.
        counts: after how many of the story's sentences it is asked.
    """

    stories: Int64[Tensor, "story sentence word"]
    row: Int64[Tensor, " batch"]
    place: Int64[Tensor, " batch"]
    counts: Int64[Tensor, " batch"]


def share(story: Int64[Tensor, "batch sentence word"], beginnings: bool = True) -> SharedStories:
    """The stories of a batch, each once.

    Args:
        story: the words of each sentence of each question's story, words and sentences padded with 0.
        beginnings: whether a story that is the beginning of another one is left out, too, and not only a story that is
            another one.
    """
    story, present = without_gaps(story)
    counts = present.sum(1)
    whole = longest_with_this_beginning(story, present, counts, beginnings)
    own, row = torch.unique(whole, return_inverse=True)
    sizes = torch.bincount(row, minlength=len(own))
    order = row.argsort(stable=True)
    place = torch.empty_like(row)
    place[order] = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[row[order]]
    return SharedStories(story[own, : int(counts.max())], row, place, counts)


def without_gaps(
    story: Int64[Tensor, "batch sentence word"],
) -> tuple[Int64[Tensor, "batch sentence word"], Bool[Tensor, "batch sentence"]]:
    """The stories with all empty sentences at the end, and which sentences there are.

    Args:
        story: the words of each sentence, words and sentences padded with 0.
    """
    present = (story != NULL).any(-1)
    if not bool((present[:, 1:] <= present[:, :-1]).all()):  # an empty sentence within a story
        order = present.to(torch.int8).argsort(dim=1, descending=True, stable=True)
        story = story.take_along_dim(rearrange(order, "batch sentence -> batch sentence 1"), dim=1)
        present = present.take_along_dim(order, dim=1)
    return story, present


def longest_with_this_beginning(
    story: Int64[Tensor, "batch sentence word"],
    present: Bool[Tensor, "batch sentence"],
    counts: Int64[Tensor, " batch"],
    beginnings: bool = True,
) -> Int64[Tensor, " batch"]:
    """For each story the longest one that begins with it, the first of equals.

    Beginnings are known by checksums, and what seems to be the same is compared.

    Args:
        story: stories without empty sentences before others.
        present: which sentences there are.
        counts: how many.
        beginnings: False for the first story that is the same one.
    """
    generator = torch.Generator().manual_seed(1)
    weights = torch.randint(-(2**62), 2**62, story.shape[1:], generator=generator).to(story.device)
    # By story and number of sentences. Integers that overflow wrap around.
    sums = F.pad((story * weights).sum(2).cumsum(1), (1, 0))
    own = sums.gather(1, rearrange(counts, "batch -> batch 1"))
    longer = rearrange(counts, "longer -> longer 1")
    begins = sums[:, counts] == rearrange(own, "batch 1 -> 1 batch")
    begins &= longer >= counts if beginnings else longer == counts
    whole = torch.where(begins, longer, -1).argmax(0)
    same = ((story == story[whole]).all(2) | ~present).all(1)
    return torch.where(same, whole, torch.arange(len(story), device=story.device))
