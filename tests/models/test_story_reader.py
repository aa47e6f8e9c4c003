"""Stories read word by word: what reaches the network and when, padding, the answer's place, refusals."""

import copy
import re

import pytest
import torch
from torch import nn

from memnet import LSTM, NTM, StoryReader
from tasks import Babi

STORY = torch.tensor([[[3, 4, 5], [6, 4, 0]], [[5, 0, 0], [0, 0, 0]]])
QUESTION = torch.tensor([[7, 3, 0], [3, 8, 9]])
IN_A_ROW = [[3, 4, 5, 6, 4, 7, 3], [5, 3, 8, 9]]
FULL_STOP, ASKED = 12, 13
WITH_MARKS = [[3, 4, 5, FULL_STOP, 6, 4, FULL_STOP, 7, 3, ASKED], [5, FULL_STOP, 3, 8, 9, ASKED]]


class Counts(nn.Module):
    """Hears its inputs; at each step its outputs are the step's number and then the input's last number."""

    input_size, output_size = 2, 3

    def forward(self, inputs):
        self.heard = inputs
        steps = torch.arange(inputs.shape[1]).float().expand(len(inputs), -1)
        return torch.stack([steps, 10 * steps, inputs[..., -1]], -1), None


def reader(**settings):
    return StoryReader(LSTM(4, 6, hidden_size=5, num_layers=1), vocab_size=12, **settings)


@pytest.mark.parametrize(("marks", "expected"), [(False, IN_A_ROW), (True, WITH_MARKS)])
def test_words_come_in_their_order_without_padding_and_the_answer_is_at_the_end(marks, expected):
    model = StoryReader(Counts(), vocab_size=12, marks=marks)
    with torch.no_grad():
        model.words.weight[:, -1] = torch.arange(len(model.words.weight))  # tells which word it is
    answers = model(STORY, QUESTION)
    inputs = model.network.heard
    assert inputs.shape[1] == max(map(len, expected))
    for item, words in enumerate(expected):
        assert inputs[item, : len(words), -1].tolist() == words
        assert not inputs[item, len(words) :].any()
        assert answers[item].tolist() == [len(words) - 1, 10 * (len(words) - 1), words[-1]]


@pytest.mark.parametrize("marks", [False, True])
@pytest.mark.parametrize("network", [LSTM(4, 6, 5, 2), NTM(4, 6, num_slots=5, slot_size=3)], ids=["LSTM", "NTM"])
def test_padding_changes_nothing(network, marks):
    model = StoryReader(copy.deepcopy(network), vocab_size=12, marks=marks).double()
    together = model(STORY, QUESTION)
    alone = torch.cat([model(STORY[:1], QUESTION[:1, :2]), model(STORY[1:, :1, :1], QUESTION[1:])])
    torch.testing.assert_close(together, alone)
    padded = model(nn.functional.pad(STORY, (1, 2, 1, 3)), nn.functional.pad(QUESTION, (2, 1)))
    torch.testing.assert_close(padded, together)


def test_marks_tell_sentences_apart():
    one, two = torch.tensor([[[3, 4, 5, 6]]]), torch.tensor([[[3, 4], [5, 6]]])
    question = torch.tensor([[7]])
    for marks in (False, True):
        model = reader(marks=marks)
        assert torch.equal(model(one, question), model(two, question)) == (not marks)


def test_every_parameter_learns_and_the_null_word_stays_zero():
    model = reader()
    model(STORY, QUESTION).square().sum().backward()
    assert all(x.grad.any() for x in model.parameters())
    rows = model.words.weight.grad.any(1)
    assert rows.nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8, 9, FULL_STOP, ASKED]
    assert not model.words.weight[0].any()


def test_it_fits_the_task():
    task = Babi(num_train=4, num_val=2, num_test=2, batch_size=2, eval_batch_size=2)
    model = StoryReader(LSTM(4, 178, hidden_size=5), vocab_size=178)
    task.check_model(model)
    batch = next(iter(task.train_dataloader()))
    evaluation = task.evaluate(model, batch)
    assert evaluation.outputs.logits.shape == (2, 178)
    assert evaluation.metrics["error_percent"].shape == (2,)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("story", "question", "sentence"),
    [
        (STORY[0], QUESTION, "story has shape (2, 3) and question (2, 3), but they must be (batch, sentence, word)"),
        (STORY[:1], QUESTION, "story has shape (1, 2, 3) and question (2, 3)"),
        (STORY, QUESTION[:, :0], "story has shape (2, 2, 3) and question (2, 0)"),
        (STORY + 9, QUESTION, "story holds word 15, but must hold numbers from 0 to 11 only."),
        (STORY, QUESTION - 1, "question holds word -1, but must hold numbers from 0 to 11 only."),
        (STORY.float(), QUESTION, "story has dtype torch.float32, but must hold"),
        (STORY, QUESTION * torch.tensor([[1], [0]]), "question 1 has no word, but needs at least one."),
    ],
)
def test_refusals(story, question, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        reader()(story, question)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"vocab_size": 0}, "vocab_size is 0, but must be a whole number of at least 1."),
        ({"vocab_size": 5}, "the network's output_size is 6, but there are only 5 words (vocab_size)."),
        ({"network": nn.Linear(4, 6)}, "network is a Linear without input_size, but must be a recurrent network"),
    ],
)
def test_settings_that_do_not_fit(settings, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        StoryReader(**{"network": LSTM(4, 6, 5), "vocab_size": 12} | settings)
