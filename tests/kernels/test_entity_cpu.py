"""The entity network's kernel on the CPU: the numbers of the plain loop, and when it is taken."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from memnet import BagOfWords, DotScore, EntityNetwork, ScaledDotScore, SlotGate, kernels
from memnet.kernels import build, entity_cpu
from tests.models.stories import STORIES, padded

pytestmark = pytest.mark.skipif(build.load(entity_cpu.SOURCE) is None, reason="there is no C++ compiler here")

VOCABULARY = 12
TOLERANCE = 2e-5
"""Of the largest number of a tensor: some hundred roundings of 6e-8."""


def make(slots=4, width=5, **settings):
    """A network whose weights, all of them, are large enough for every part to matter."""
    settings = {"num_words": 6, "num_answers": 7} | settings
    model = EntityNetwork(VOCABULARY, num_slots=slots, embedding_size=width, **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter) / width**0.5
    return model


def words(*shape):
    """Sentences of different lengths, at least a word, padded with 0."""
    return torch.randint(1, VOCABULARY, shape) * (
        torch.arange(shape[-1]) < torch.randint(1, shape[-1] + 1, shape)[..., :1]
    )


def long_stories(number=9, sentences=40):
    """Stories of different lengths, and for some of them a question after a part of them."""
    story = words(number, sentences, 4)
    story[1::3] = story[::3][: len(story[1::3])]
    return story * (torch.arange(sentences) < torch.randint(1, sentences + 1, (number, 1)))[..., None]


def results(model, story, question):
    logits = model(story, question)
    weights = torch.linspace(-1, 2, logits.numel()).view_as(logits).to(logits)
    return [logits, *torch.autograd.grad((logits * weights).sum(), [*model.parameters()])]


def compare(model, story, question=None):
    """Logits and gradients are those of the plain loop in double precision."""
    question = words(len(story), 3) if question is None else question
    ours = results(model, story, question)
    with kernels.disabled():
        rights = results(copy.deepcopy(model).double(), story, question)
    for fast, right in zip(ours, rights, strict=True):
        assert fast.shape == right.shape
        assert torch.isfinite(fast).all()
        assert (fast - right).abs().max() <= TOLERANCE * right.abs().max() + 1e-6


@pytest.fixture(autouse=True)
def taken(monkeypatch):
    """How often the kernel has been run."""
    calls = []
    apply = entity_cpu._Questions.apply
    monkeypatch.setattr(entity_cpu._Questions, "apply", lambda *arguments: calls.append(1) or apply(*arguments))
    return calls


@pytest.mark.parametrize("width", [1, 5, 16, 33, 50, 100, 104, 150])
def test_all_widths(width, taken):
    compare(make(width=width), long_stories())
    assert len(taken) == 1


# Beyond 120 slots a sentence's rows of U's gradient come in several parts, below it several sentences' in one.
@pytest.mark.parametrize("slots", [1, 3, 20, 60, 61, 120, 121, 250])
def test_all_numbers_of_slots(slots):
    compare(make(slots, width=17), long_stories(sentences=14))


@pytest.mark.parametrize("stories", STORIES.values(), ids=STORIES)
def test_all_kinds_of_stories(stories):
    compare(make(), padded(stories, sentences=5, words=4))


@pytest.mark.parametrize("number", [1, 17, 40, 130])  # more stories than parts that are added up, questions than groups
def test_all_numbers_of_stories(number):
    compare(make(), long_stories(number, sentences=6))


@pytest.mark.parametrize("answers", [1, 8, 9, VOCABULARY])
def test_all_numbers_of_answers(answers):
    compare(make(num_answers=answers), long_stories(sentences=6))


@pytest.mark.parametrize("longest", [1, 4, 6])
def test_sentences_and_questions_of_all_lengths(longest):
    compare(make(), words(9, 5, longest), words(9, 7 - longest))


def test_no_words_at_all():
    compare(make(), torch.zeros(3, 2, 4, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))


def test_empty_sentences_and_words_between_others():
    story = long_stories()
    story[:, ::3] = 0
    story[:, :, 1] = 0
    question = words(9, 3)
    question[:, 0] = 0
    compare(make(), story, question)


def test_stories_that_begin_others_are_not_read():
    story = torch.randint(0, 3, (200, 6, 2))
    sizes = entity_cpu._Sizes(batch=200, sentences=6, words=2)
    numbers = iter(entity_cpu._plan(sizes, story)[0].tolist())

    def take(count):
        return [next(numbers) for _ in range(count)]

    (stories,) = take(1)
    first, of, heard, lines = take(201), take(200), take(200), take(1200)
    told = [[sentence for sentence in one if any(sentence)] for one in story.tolist()]
    read = [[told_of(story, line) for line in lines[first[i] : first[i + 1]]] for i in range(stories)]
    assert [read[i][:count] for i, count in zip(of, heard, strict=True)] == told
    begun = [own for own in told if not any(own == other[: len(own)] and own != other for other in told)]
    assert sorted(read) == sorted({str(own): own for own in begun}.values())
    assert [len(one) for one in read] == sorted(map(len, read), reverse=True)


def told_of(story, line):
    return story.flatten(0, 1)[line].tolist()


def test_threads_change_nothing():
    model, story, question = make(20, 100), long_stories(40), words(40, 3)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            seen.append(results(model, story, question))
    finally:
        torch.set_num_threads(before)
    for others in seen[1:]:
        assert all(map(torch.equal, seen[0], others))


def test_without_gradients_nothing_is_kept_and_nothing_changes(monkeypatch):
    model, story, question = make(20, 100), long_stories(), words(9, 3)
    right = model(story, question)
    asked_for = []
    floats = entity_cpu.workspace.floats
    monkeypatch.setattr(entity_cpu.workspace, "floats", lambda count: asked_for.append(count) or floats(count))
    with torch.no_grad():
        assert torch.equal(model(story, question), right)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert torch.equal(frozen(story, question), right)
    assert asked_for == [0, 0]
    model(story, question)
    assert asked_for[-1] > 0


def test_a_part_of_the_network_may_be_frozen():
    model, story, question = make(), long_stories(), words(9, 3)
    right = results(model, story, question)[1:]
    names = [name for name, _ in model.named_parameters()]
    model.from_memory.requires_grad_(False)
    model.keys.requires_grad_(False)
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad]
    logits = model(story, question)
    weights = torch.linspace(-1, 2, logits.numel()).view_as(logits)
    gradients = iter(torch.autograd.grad((logits * weights).sum(), rest))
    for name, theirs in zip(names, right, strict=True):
        if name not in ("from_memory", "keys"):
            torch.testing.assert_close(next(gradients), theirs)


def test_what_is_not_a_number_stays_so():
    model, story, question = make(20, 100), long_stories(4), words(4, 3)
    with torch.no_grad():
        model.from_memory[7, 3] = float("nan")
    logits = model(story, question)
    assert logits.isnan().all()
    F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)).backward()
    assert model.keys.grad.isnan().all()


def test_keys_may_be_any_tensor(taken):
    """As where they are some of the words' vectors."""
    tied, story, question = make(), long_stories(), words(9, 3)
    del tied.keys
    tied.keys = tied.words[2:6]
    ours = torch.autograd.grad(tied(story, question).square().sum(), [*tied.parameters()])
    assert len(taken) == 1
    with kernels.disabled():
        tied.keys = tied.words[2:6]
        rights = torch.autograd.grad(tied(story, question).square().sum(), [*tied.parameters()])
    for fast, right in zip(ours, rights, strict=True):
        torch.testing.assert_close(fast, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())


def test_it_is_taken_for_plain_float32_only(taken):
    story, question = long_stories(), words(9, 3)
    make().double()(story, question)
    with kernels.disabled():
        make()(story, question)
    with torch.autocast("cpu", torch.bfloat16):
        make()(story, question)
    assert not taken
    make()(story, question)
    assert len(taken) == 1


class Doubled(DotScore):
    def compare(self, emission, keys):
        return 2 * super().compare(emission, keys)


OTHERS = {
    "a backward hook": lambda model: model.gate.register_full_backward_hook(lambda *_: None),
    "another encoding": lambda model: setattr(model, "sentence_encoding", BagOfWords()),
    "another question": lambda model: setattr(model, "question_encoding", BagOfWords()),
    "another reading": lambda model: setattr(model.output.addressing, "score", ScaledDotScore(5)),
    "another gate": lambda model: setattr(model.gate, "score", Doubled(5)),
    "no bias": lambda model: setattr(model, "gate", SlotGate(DotScore(5))),
    "other numbers": lambda model: setattr(model, "answers", nn.Parameter(model.answers.detach()[:3])),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_it_is_not_taken_for_other_networks(change, taken):
    model, story, question = make(), long_stories(), words(9, 3)
    change(model)
    ours = results(model, story, question)
    assert not taken
    with kernels.disabled():
        rights = results(model, story, question)
    for fast, right in zip(ours, rights, strict=True):
        torch.testing.assert_close(fast, right, rtol=1e-4, atol=1e-4 * right.abs().max().item())


@pytest.mark.parametrize("sentence, asked", [(7, 3), (4, 7)])
def test_sentences_that_are_too_long_are_refused(sentence, asked, taken):
    with pytest.raises(ValueError, match="a sentence has 7 words, but the model's num_words is 6"):
        make()(words(2, 3, sentence), words(2, asked))
    assert not taken


def test_words_changed_before_the_backward_pass_are_noticed():
    model, story, question = make(), long_stories(), words(9, 3)
    loss = model(story, question).sum()
    story[0, 0, 0] = 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
