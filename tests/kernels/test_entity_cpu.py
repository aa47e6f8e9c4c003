"""The entity network's kernel on the CPU: the numbers of the plain loop, and when it is taken."""

import copy

import pytest
import torch
from torch.nn import functional as F

from memnet import EntityNetwork, kernels
from memnet.kernels import build, entity_cpu, entity_network
from tests.models.stories import STORIES, padded

pytestmark = pytest.mark.skipif(build.load(entity_cpu.SOURCE) is None, reason="there is no C++ compiler here")

VOCABULARY = 12
TOLERANCE = 2e-5
"""Of the largest number of a tensor: some hundred roundings of 6e-8."""


def make(slots=4, width=5):
    """A network whose weights, all of them, are large enough for every part to matter."""
    model = EntityNetwork(VOCABULARY, num_slots=slots, embedding_size=width, num_words=6, num_answers=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter) / width**0.5
    return model


def long_stories(number=9, sentences=40):
    """Stories of different lengths, and for some of them a question after a part of them."""
    story = torch.randint(1, VOCABULARY, (number, sentences, 4))
    story[1::3] = story[::3][: len(story[1::3])]
    return story * (torch.arange(sentences) < torch.randint(1, sentences + 1, (number, 1)))[..., None]


def results(model, story, question):
    logits = model(story, question)
    weights = torch.linspace(-1, 2, logits.numel()).view_as(logits).to(logits)
    return [logits, *torch.autograd.grad((logits * weights).sum(), [*model.parameters()])]


def compare(model, story):
    """Logits and gradients are those of the plain loop in double precision."""
    question = torch.randint(1, VOCABULARY, (len(story), 3))
    ours = results(model, story, question)
    with kernels.disabled():
        rights = results(copy.deepcopy(model).double(), story, question)
    for fast, right in zip(ours, rights, strict=True):
        assert torch.isfinite(fast).all()
        assert (fast - right).abs().max() <= TOLERANCE * right.abs().max() + 1e-6


@pytest.fixture(autouse=True)
def taken(monkeypatch):
    """How often the kernel has been run."""
    calls = []
    run = entity_cpu.run
    monkeypatch.setattr(entity_cpu, "run", lambda *arguments: calls.append(1) or run(*arguments))
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


@pytest.mark.parametrize("number", [1, 17, 40])  # more stories than parts that are added up
def test_all_numbers_of_stories(number):
    compare(make(), long_stories(number, sentences=6))


def test_threads_change_nothing():
    model, story, question = make(20, 100), long_stories(40), torch.randint(1, VOCABULARY, (40, 3))
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            packed = entity_network.pack(story)
            tensors = [torch.randn(size, generator=torch.Generator().manual_seed(1)) for size in sizes(packed)]
            for tensor in tensors:
                tensor.requires_grad_()
            memories = entity_cpu.run(*tensors, packed)
            seen.append([memories, *torch.autograd.grad(memories.square().sum() + memories[3].sum(), tensors)])
    finally:
        torch.set_num_threads(before)
    for others in seen[1:]:
        assert all(map(torch.equal, seen[0], others))
    assert model(story, question).isfinite().all()


def sizes(packed, slots=20, width=100):
    told = len(packed.words)
    return (slots, width), (told, width), (told, slots), (slots, width), (told, width), (width, width), (width,)


def test_without_gradients_nothing_is_kept_and_nothing_changes(monkeypatch):
    model, story, question = make(20, 100), long_stories(), torch.randint(1, VOCABULARY, (9, 3))
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
    model, story, question = make(), long_stories(), torch.randint(1, VOCABULARY, (9, 3))
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
    model, story, question = make(20, 100), long_stories(4), torch.randint(1, VOCABULARY, (4, 3))
    with torch.no_grad():
        model.from_memory[7, 3] = float("nan")
    logits = model(story, question)
    assert logits.isnan().all()
    F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)).backward()
    assert model.keys.grad.isnan().all()


def test_it_is_taken_for_plain_float32_only(taken):
    story, question = long_stories(), torch.randint(1, VOCABULARY, (9, 3))
    make().double()(story, question)
    with kernels.disabled():
        make()(story, question)
    assert not taken
    make()(story, question)
    with torch.autocast("cpu", torch.bfloat16):  # the memory stays in float32
        make()(story, question)
    assert len(taken) == 2
