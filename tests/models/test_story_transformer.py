"""The Transformer over sentences against its equations in plain loops, and the ways through it against one another."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from memnet import Ensemble, StoryTransformer, record
from memnet.models import story_packing, story_transformer
from tasks import Babi
from tasks.babi import NUM_ANSWERS, VOCAB_SIZE
from tests.models.stories import QUESTION, STORIES, STORY, asked, error_after, padded
from tests.reference import story_transformer as reference

VOCABULARY, WIDTH, HEADS, STEPS = 12, 8, 2, 3
WEIGHTS = "layer.attention.addressing"


def make(**settings):
    """A network whose weights, all of them, are large enough for every part to matter."""
    settings = {"num_answers": 7, "feed_forward_size": 10, "dropout": 0.0, "num_words": 6} | settings
    model = StoryTransformer(VOCABULARY, model_size=WIDTH, num_heads=HEADS, num_steps=STEPS, **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


either = pytest.mark.parametrize("bidirectional", [False, True], ids=["forwards", "bidirectional"])


@either
@pytest.mark.parametrize("length", range(len(STORY) + 1))
def test_the_network_is_its_equations(length, bidirectional):
    model, story = make(bidirectional=bidirectional), STORY[:length]
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    right, looks = reference.run(p, story, QUESTION, HEADS, bidirectional)
    batch = padded([story], sentences=max(length, 1), words=4)
    np.testing.assert_allclose(model(batch, asked(1))[0].detach(), right, rtol=1e-9)
    with record(model) as trace:
        recorded = model(batch, asked(1))
    np.testing.assert_allclose(recorded[0].detach(), right, rtol=1e-9)
    if length:
        np.testing.assert_allclose(trace[WEIGHTS].transpose(0, 1), looks, atol=1e-12)


GAPS = {"gaps": [STORY, [STORY[0], [], STORY[1]], [[], STORY[0]], [[], [5], [], [6]]]}


def both(model, calls):
    """Logits and gradients of all parameters, from the calls' logits one below the other."""
    logits = torch.cat([model(*call) for call in calls])
    weights = torch.linspace(-1, 2, logits.numel()).view_as(logits)
    return [logits, *torch.autograd.grad((logits * weights).sum(), [*model.parameters()])]


@either
@pytest.mark.parametrize("stories", [*STORIES.values(), *GAPS.values()], ids=[*STORIES, *GAPS])
def test_together_questions_get_what_they_get_alone(stories, bidirectional):
    """Logits and gradients; and, recorded, when each story is read for each question."""
    model = make(bidirectional=bidirectional)
    story = padded(stories, sentences=5, words=4)
    question = torch.randint(1, VOCABULARY, (len(stories), 3))
    together = both(model, [(story, question)])
    alone = both(model, zip(story.split(1), question.split(1), strict=True))
    with record(model) as trace:
        recorded = both(model, [(story, question)])
    assert trace[WEIGHTS].shape == (len(stories) * HEADS, STEPS, 6, 6)
    for x, y, z in zip(together, alone, recorded, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(x, z, rtol=1e-9, atol=1e-11)


@either
def test_a_story_is_read_once(monkeypatch, bidirectional):
    """Five questions about two stories, three of them about the longer one, in one row without padding.

    Where sentences see later ones a story that goes on is another story.
    """
    shapes = []

    def spy(packed_slots, *how, original=story_packing.Slots.visible):
        shapes.append(tuple(packed_slots.story.shape))
        return original(packed_slots, *how)

    monkeypatch.setattr(story_packing.Slots, "visible", spy)
    stories = [STORY[:2], STORY, STORY[:1], [STORY[1]], [STORY[1]]]
    make(bidirectional=bidirectional)(padded(stories, sentences=9), asked(5))
    assert shapes == [(1, (4 + 1) + (2 + 1) + (1 + 1) + (1 + 2) if bidirectional else (4 + 3) + (1 + 2))]


@either
@pytest.mark.parametrize("row", [1, 5, 9])
def test_it_does_not_matter_how_stories_are_packed(monkeypatch, row, bidirectional):
    stories = [story for stories in STORIES.values() for story in stories]
    model = make(bidirectional=bidirectional)
    call = padded(stories, 4, 4), torch.randint(1, VOCABULARY, (len(stories), 3))
    one_row = both(model, [call])
    monkeypatch.setattr(story_transformer, "pack", partial(story_packing.pack, row=row))
    for x, y in zip(both(model, [call]), one_row, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_padding_changes_nothing():
    model = make()
    tight = model(padded([STORY]), asked(1))
    wide = model(padded([STORY], sentences=9, words=6), torch.tensor([[*QUESTION, 0, 0]]))
    torch.testing.assert_close(wide, tight)
    between = padded([[STORY[0], [], STORY[1], [], [], *STORY[2:]]])
    torch.testing.assert_close(model(between, asked(1)), tight)
    together = model(padded([STORY, STORY[:1], [[2]]]), asked(3))
    torch.testing.assert_close(together[:1], tight)
    torch.testing.assert_close(together[2:], model(padded([[[2]]]), asked(1)))


def test_an_empty_question_is_answered():
    model = make()
    logits = model(padded([STORY, STORY]), torch.tensor([QUESTION, [0, 0, 0]]))
    assert logits.isfinite().all() and not torch.equal(logits[0], logits[1])


def test_later_sentences_change_no_earlier_answer():
    """As positions of one row: the question after two sentences, in stories that go on in different ways."""
    model = make()
    earlier = [model(padded([STORY[:2], [*STORY[:2], *rest]]), asked(2))[0] for rest in ([[1]], STORY[2:], STORY)]
    torch.testing.assert_close(earlier[0], earlier[1])
    torch.testing.assert_close(earlier[0], earlier[2])
    with record(model) as trace:
        model(padded([STORY]), asked(1))
    future = ~torch.ones(5, 5, dtype=torch.bool).tril()
    assert not trace[WEIGHTS][:, :, future].any()  # exactly


def test_a_bidirectional_network_asks_all_sentences_and_no_sentence_asks_the_question():
    model = make(bidirectional=True)
    with record(model) as trace:
        model(padded([STORY]), asked(1))
    assert trace[WEIGHTS][:, :, :, :4].all() and trace[WEIGHTS][:, :, 4, 4].all()
    assert not trace[WEIGHTS][:, :, :4, 4].any()  # exactly


@either
def test_missing_sentences_have_weights_of_exactly_zero(bidirectional):
    model = make(bidirectional=bidirectional)
    with record(model) as trace:
        model(padded([[STORY[0], [], STORY[1], []]]), asked(1))
    weights = trace[WEIGHTS]
    if bidirectional:
        assert weights[:, :, 0, 2].all() and not weights[:, :, 0, [1, 3, 4]].any()
    assert not weights[:, :, 2:, 1].any() and not weights[:, :, 4:, 3].any() and weights[:, :, 4, [0, 2, 4]].all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_the_order_of_sentences_and_words_matters():
    model = make()
    logits = model(padded([STORY, STORY[::-1], [STORY[0][::-1], *STORY[1:]]]), asked(3))
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    assert (logits[0] - logits[2]).abs().max() > 1e-3


def test_sentences_are_no_bags_of_words_at_first_and_steps_are_alike():
    model = StoryTransformer(VOCABULARY)
    assert (model.sentence_encoding.masks - 1).std().item() == pytest.approx(0.3, rel=0.1)
    assert not torch.equal(model.sentence_encoding.masks, model.question_encoding.masks)
    assert not model.steps.any() and model.steps.shape == (4, 128)
    assert model.layer.feed_forward.inner.out_features == 256 and model.num_answers == VOCABULARY
    assert model.layer.attention.num_heads == 4


def test_dropout_drops_while_training():
    model = make(dropout=0.5)
    first, second = (model(padded([STORY]), asked(1)) for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    first, second = (model(padded([STORY]), asked(1)) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1.0, 1e4])
def test_it_stays_finite(scale):
    model = make().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    logits = model(padded([STORY, STORY[:1], []]), asked(3))
    F.cross_entropy(logits, torch.tensor([1, 2, 0])).backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_under_autocast_it_differs_by_rounding_only():
    model = make().float()
    story, question = padded([*STORIES["beginnings"], []]), asked(6)
    right = model(story, question)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(story, question)
    logits.float().square().sum().backward()
    # bfloat16 has 8 bits; three steps follow one another.
    torch.testing.assert_close(logits.float(), right, rtol=0.05, atol=0.05 * right.abs().max().item())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no batching rule for the fused kernel
def test_an_ensembles_members_are_the_models():
    ensemble = Ensemble(lambda: make().float(), num_members=2, seed=5)
    story = torch.stack([padded(stories, 4, 4) for stories in ([STORY, STORY[:2]], [STORY[:3], []])])
    question = torch.randint(1, VOCABULARY, (2, 2, 3))
    logits = ensemble(story, question)
    for number in range(2):
        own = ensemble.member(number)(story[number], question[number])
        torch.testing.assert_close(logits[number], own, rtol=1e-4, atol=1e-5)


def refused(call):
    with pytest.raises(ValueError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["vocab_size", "num_answers", "model_size", "num_heads", "num_steps", "feed_forward_size", "num_words"]
)
def test_sizes_must_be_positive(name):
    message = refused(lambda: StoryTransformer(**({"vocab_size": 5} | {name: 0})))
    assert message.startswith(f"{name} is 0, but must be a whole number of at least 1")


def test_settings_that_do_not_fit_are_refused():
    assert "num_answers is 6, but there are only 5 words" in refused(lambda: StoryTransformer(5, num_answers=6))
    assert "dropout is 1.0" in refused(lambda: StoryTransformer(5, dropout=1.0))
    for heads in (3, 4):  # 12 is a multiple of 4, but 3 is odd
        message = refused(lambda heads=heads: StoryTransformer(5, model_size=16 - heads, num_heads=heads))
        assert f"num_heads is {heads}, but must divide model_size, which is {16 - heads}, into even widths" in message


@pytest.mark.parametrize(
    "story, question, message",
    [
        (torch.ones(2, 3, dtype=torch.int64), asked(2), "story has shape (2, 3) and question (2, 3)"),
        (torch.ones(2, 3, 4, dtype=torch.int64), asked(3), "story has shape (2, 3, 4) and question (3, 3)"),
        (torch.ones(1, 0, 4, dtype=torch.int64), asked(1), "none of them 0"),
        (torch.ones(1, 3, 7, dtype=torch.int64), asked(1), "a sentence has 7 words, but the model's num_words is 6"),
        (torch.ones(1, 3, 4, dtype=torch.int64), torch.ones(1, 7, dtype=torch.int64), "7 words"),
        (torch.full((1, 3, 4), VOCABULARY), asked(1), "story holds word 12, but must hold numbers from 0 to 11"),
        (torch.ones(1, 3, 4, dtype=torch.int64), torch.tensor([[-1]]), "question holds word -1"),
    ],
)
def test_what_cannot_be_read_is_refused(story, question, message):
    try:
        make()(story, question)
    except ValueError as error:
        assert message in str(error)
    except Exception as error:  # the annotations, checked while the tests run, refuse some of these before the network
        assert type(error).__name__ == "TypeCheckError"
    else:
        pytest.fail("it was read")


@pytest.mark.slow
def test_it_learns_to_follow_people_in_two_epochs():
    """bAbI task 1; by guessing two in three answers are wrong and more."""
    task = Babi(tasks=1, size="10k", by_story=True)
    torch.manual_seed(1)
    model = StoryTransformer(VOCAB_SIZE, NUM_ANSWERS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98))
    assert error_after(2 * task.epoch_size // task.batch_size, model, task, optimizer, clip=1) < 2
