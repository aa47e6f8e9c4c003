"""Stories side by side in rows."""

import torch

from memnet.models.story_packing import pack
from memnet.story_sharing import share

A, B, C, NONE = [1, 2], [3, 0], [4, 5], [0, 0]
STORIES = torch.tensor([[A, B, C], [A, B, NONE], [B, NONE, NONE], [C, A, NONE], [NONE] * 3])


def packed_in(row, count=5):
    return pack(share(STORIES[:count]), row=row)


def test_the_longest_story_comes_first_and_each_goes_where_there_is_room():
    slots = packed_in(row=6).slots
    # The story of three sentences has three questions: its own, that after two of them, and the one without a story.
    assert slots.story.tolist() == [[0, 0, 0, 0, 0, 0], [2, 2, 2, 1, 1, -1]]
    assert slots.is_sentence.tolist() == [[True] * 3 + [False] * 3, [True, True, False, True, False, False]]
    assert slots.said_before.tolist() == [[0, 1, 2, 3, 2, 0], [0, 1, 2, 0, 1, 0]]


def test_a_question_sees_its_own_storys_sentences_so_far():
    packed = packed_in(row=6)
    words = torch.zeros(*packed.slots.story.shape, 2, dtype=torch.int64)
    words[packed.sentence_at] = packed.sentences
    visible = packed.slots.visible()
    for question, (row, slot) in enumerate(zip(*(x.tolist() for x in packed.question_at), strict=True)):
        seen = visible[row, slot].clone()
        assert seen[slot]
        seen[slot] = False
        told = STORIES[question][(STORIES[question] != 0).any(-1)]
        assert words[row, seen].tolist() == told.tolist()


def test_slots_of_padding_see_themselves_and_nobody_sees_them():
    slots = packed_in(row=6).slots
    padding, visible = slots.story == -1, slots.visible()
    itself = torch.eye(slots.story.shape[1], dtype=torch.bool)
    assert padding.any()
    assert torch.equal(visible[padding], itself.expand_as(visible)[padding])
    assert not (visible & ~itself).transpose(1, 2)[padding].any()


def test_a_row_is_as_long_as_the_longest_story():
    slots = packed_in(row=2, count=1).slots
    assert slots.story.tolist() == [[0, 0, 0, 0]]
    assert slots.is_sentence.tolist() == [[True, True, True, False]]
