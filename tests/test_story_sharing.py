"""The stories of a batch, each once."""

import torch

from memnet.story_sharing import longest_with_this_beginning, share, without_gaps

A, B, C = [1, 2], [3, 0], [4, 5]
NONE = [0, 0]


def test_sentences_move_up_into_gaps():
    story = torch.tensor([[A, NONE, B], [NONE, NONE, C], [A, B, NONE]])
    closed, present = without_gaps(story)
    assert closed.tolist() == [[A, B, NONE], [C, NONE, NONE], [A, B, NONE]]
    assert present.tolist() == [[True, True, False], [True, False, False], [True, True, False]]


def test_the_longest_story_with_a_beginning_is_found():
    story = torch.tensor([[A, NONE, NONE], [B, A, NONE], [A, B, NONE], [A, B, C], [NONE] * 3, [A, B, C]])
    counts = torch.tensor([1, 2, 2, 3, 0, 3])
    assert longest_with_this_beginning(story, (story != 0).any(-1), counts).tolist() == [3, 1, 3, 3, 3, 3]


def test_questions_about_one_story_come_together():
    story = torch.tensor([[A, NONE, NONE, NONE], [B, NONE, A, NONE], [A, C, NONE, NONE], [NONE] * 4])
    question = torch.tensor([[6], [7], [8], [9]])
    shared = share(story)
    assert shared.stories.tolist() == [[B, A], [A, C]]
    # The story without a sentence begins both; it went to the first of the longest.
    at = shared.row, shared.place
    assert question.new_zeros(2, 2, 1).index_put(at, question).tolist() == [[[7], [9]], [[6], [8]]]
    assert question.new_zeros(2, 2).index_put(at, shared.counts).tolist() == [[2, 0], [1, 2]]
    assert (shared.row.tolist(), shared.place.tolist()) == ([1, 0, 1, 0], [0, 0, 1, 1])


def test_where_beginnings_do_not_count_only_equal_stories_come_together():
    story = torch.tensor([[A, NONE, NONE], [A, B, NONE], [NONE, A, B], [A, NONE, NONE], [NONE] * 3])
    shared = share(story, beginnings=False)
    assert shared.stories.tolist() == [[A, NONE], [A, B], [NONE, NONE]]
    assert (shared.row.tolist(), shared.place.tolist()) == ([0, 1, 1, 0, 2], [0, 0, 1, 1, 0])
    assert shared.counts.tolist() == [1, 2, 2, 1, 0]


def test_equal_checksums_alone_do_not_make_stories_equal(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda low, high, size, generator: torch.ones(size, dtype=torch.int64))
    shared = share(torch.tensor([[[1, 2]], [[2, 1]]]))
    assert shared.stories.tolist() == [[[1, 2]], [[2, 1]]]
