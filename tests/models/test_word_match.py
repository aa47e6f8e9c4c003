"""What sentences share, against a count by hand."""

import pytest
import torch

from memnet.models.word_match import QuestionMatch, WordMatch

IDS = torch.tensor([[[3, 4, 5], [6, 4, 0], [3, 3, 4], [0, 0, 0]]])


def test_shared_words_are_weighed_and_a_sentence_shares_nothing_with_itself():
    match = WordMatch(vocab_size=7, num_heads=3)
    assert match.salience.tolist() == [1] * 6 and match.gains.tolist() == [1, 1, 0]
    with torch.no_grad():
        match.salience.copy_(torch.tensor([1.0, 2, 30, 400, 5000, 60000]))  # of words 1 to 6
        match.gains.copy_(torch.tensor([1.0, -2, 0]))
    shared = torch.tensor([[0.0, 400, 430, 0], [400, 0, 400, 0], [430, 400, 0, 0], [0, 0, 0, 0]])
    expected = torch.stack([shared, -2 * shared, 0 * shared])
    torch.testing.assert_close(match(IDS), expected[None])


def test_both_parameters_learn():
    match = WordMatch(vocab_size=7, num_heads=2)
    match(IDS).sum().backward()
    # Word 3 is shared by one pair, in both directions and by the head that cares; word 4 by three pairs.
    assert match.salience.grad.tolist() == [0, 0, 2, 6, 0, 0]
    assert match.gains.grad.tolist() == [8, 8]


@pytest.mark.parametrize("settings", [{"vocab_size": 0, "num_heads": 1}, {"vocab_size": 2, "num_heads": 0}])
def test_bad_arguments(settings):
    with pytest.raises(ValueError, match="is 0, but must be"):
        WordMatch(**settings)


def test_words_of_the_question_are_marked_with_where_they_stand_there():
    match = QuestionMatch(vocab_size=7, embedding_size=2, num_words=4)
    assert match.salience.tolist() == [1] * 6
    with torch.no_grad():
        match.salience.copy_(torch.tensor([1.0, 1, 30, 1, 1, 600]))  # of words 1 to 6
        match.places.copy_(torch.tensor([[1.0, 0.1], [2, 0.2], [4, 0.4], [8, 0.8]]))
    marks = match(torch.tensor([[3, 4, 3], [6, 5, 0]]), torch.tensor([[3, 5, 3, 0], [5, 5, 6, 0]]))
    expected = [[[150.0, 15], [0, 0], [150, 15]], [[2400, 240], [3, 0.3], [0, 0]]]  # the null word is nobody's
    torch.testing.assert_close(marks, torch.tensor(expected))
    marks.sum().backward()
    assert match.salience.grad.bool().tolist() == [False, False, True, False, True, True]
    assert match.places.grad[:, 0].tolist() == [61, 1, 660, 0]


@pytest.mark.parametrize("wrong", ["vocab_size", "embedding_size", "num_words"])
def test_bad_arguments_of_the_question(wrong):
    with pytest.raises(ValueError, match=f"{wrong} is 0, but must be"):
        QuestionMatch(**{"vocab_size": 2, "embedding_size": 2, "num_words": 2} | {wrong: 0})
