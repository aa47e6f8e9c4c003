"""Stories of different lengths side by side in rows, so that hardly any slot of a row is padding."""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Int64
from torch import Tensor

from memnet.story_sharing import NULL, SharedStories

ROW = 64
"""Slots of a row, unless a story needs more. Attention costs more the longer a row, and short rows leave more padding:
of 32 to 128 this is the fastest on a CPU for all tasks at once, by a tenth and more."""


class Slots(NamedTuple):
    """What stands in each slot of each row.

    Attributes:
        story: the story that a sentence is from, or that a question is about; slots of different ones do not see each
            other. -1 for none.
        said_before: how many sentences of the story were said before.
        is_sentence: whether there is a sentence, which others may look at.
    """

    story: Int64[Tensor, "row slot"]
    said_before: Int64[Tensor, "row slot"]
    is_sentence: Bool[Tensor, "row slot"]

    def visible(self, bidirectional: bool = False) -> Bool[Tensor, "row asker slot"]:
        """What each may look at: its story's sentences said before it, and itself, so that there is something.

        Args:
            bidirectional: also at its story's sentences that were said after it. No other question must be asked then
                in the course of a story.
        """
        same, earlier = (rearrange(x, "row slot -> row 1 slot") for x in (self.story, self.said_before))
        seen = same == rearrange(self.story, "row asker -> row asker 1")
        if not bidirectional:
            seen = seen & (earlier < rearrange(self.said_before, "row asker -> row asker 1"))
        itself = torch.eye(self.story.shape[1], dtype=torch.bool, device=seen.device)
        return seen & rearrange(self.is_sentence, "row slot -> row 1 slot") | itself


class Packed(NamedTuple):
    """Shared stories, packed.

    Attributes:
        slots: what stands where.
        sentences: the words of every sentence.
        sentence_at: the row and the slot of each of them.
        question_at: the same of each question of the batch.
    """

    slots: Slots
    sentences: Int64[Tensor, "sentence word"]
    sentence_at: tuple[Int64[Tensor, " sentence"], Int64[Tensor, " sentence"]]
    question_at: tuple[Int64[Tensor, " batch"], Int64[Tensor, " batch"]]


def pack(shared: SharedStories, row: int = ROW) -> Packed:
    """Puts each story's sentences and, after them, its questions into slots of one row.

    Args:
        shared: the stories of a batch.
        row: slots of a row, if no story has more sentences and questions together.
    """
    present = (shared.stories != NULL).any(-1)
    num_sentences, num_questions = present.sum(1), torch.bincount(shared.row, minlength=len(present))
    rows, starts = _fill((num_sentences + num_questions).tolist(), row)
    row_of, start_of = (x.to(present.device) for x in (rows, starts))
    story, place = present.nonzero(as_tuple=True)
    sentence_at = (row_of[story], start_of[story] + place)
    question_at = (row_of[shared.row], (start_of + num_sentences)[shared.row] + shared.place)
    shape = int(rows.max()) + 1, int(torch.cat([sentence_at[1], question_at[1]]).max()) + 1
    slots = Slots(
        torch.full(shape, -1, device=present.device),
        torch.zeros(shape, dtype=torch.int64, device=present.device),
        torch.zeros(shape, dtype=torch.bool, device=present.device),
    )
    slots.story[sentence_at], slots.story[question_at] = story, shared.row
    slots.said_before[sentence_at], slots.said_before[question_at] = place, shared.counts
    slots.is_sentence[sentence_at] = True
    return Packed(slots, shared.stories[story, place], sentence_at, question_at)


def _fill(sizes: list[int], row: int) -> tuple[Int64[Tensor, " story"], Int64[Tensor, " story"]]:
    """The row of each story and where in it the story starts: the longest first, each into the first row with room."""
    capacity = max(row, *sizes) if sizes else row
    used: list[int] = []
    rows, starts = [0] * len(sizes), [0] * len(sizes)
    for story in sorted(range(len(sizes)), key=lambda story: -sizes[story]):
        place = next((place for place, full in enumerate(used) if full + sizes[story] <= capacity), len(used))
        if place == len(used):
            used.append(0)
        rows[story], starts[story] = place, used[place]
        used[place] += sizes[story]
    return torch.tensor(rows), torch.tensor(starts)
