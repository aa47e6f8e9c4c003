"""What sentences share, against a count by hand."""

import pytest
import torch

from memnet.models.word_match import WordMatch

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
