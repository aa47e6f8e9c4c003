"""The kernel of the end-to-end memory network: the numbers of its plain operations, and when it is taken."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memnet import (
    AdjacentTying,
    BagOfWords,
    Ensemble,
    GeneralScore,
    LateSoftmax,
    LayerwiseTying,
    MemN2N,
    PositionEncoding,
    Sparsemax,
    Tying,
    kernels,
)
from memnet.kernels import build, memn2n_cpu
from memnet.models.memn2n import Layout

pytestmark = pytest.mark.skipif(build.load(memn2n_cpu.SOURCE) is None, reason="there is no C++ compiler here")

VOCABULARY = 30
TOLERANCE = 2e-5
"""Of the largest number of a tensor: some hundred roundings of 6e-8."""


class Untied(Tying):
    """Nothing is shared but the answers' matrix with the second hop's keys: a layout that no class of memnet has."""

    def layout(self, num_hops: int) -> Layout:
        keys, values = tuple(range(0, 2 * num_hops, 2)), tuple(range(1, 2 * num_hops, 2))
        return Layout(2 * num_hops + 1, 2 * num_hops, keys, values, keys[-1], True)


def questions(batch: int = 5, sentences: int = 7, words: int = 6) -> tuple[Tensor, Tensor]:
    story = torch.randint(1, VOCABULARY, (batch, sentences, words))
    story *= torch.arange(words) < torch.randint(1, words + 1, (batch, sentences, 1))
    story *= (torch.arange(sentences) < torch.randint(0, sentences + 1, (batch, 1)))[..., None]
    return story, torch.randint(1, VOCABULARY, (batch, 4)) * (torch.arange(4) < torch.randint(1, 5, (batch, 1)))


def compare(model: MemN2N, story: Tensor, question: Tensor) -> None:
    """Logits and gradients are those of the plain network in double precision."""
    noise = model.draw(story, question)
    double = copy.deepcopy(model).double()
    assert kernels.find_memory_network(model, story, question) is not None
    assert kernels.find_memory_network(double, story, question) is None
    logits = model(story, question, noise)
    right = double(story, question, noise)
    direction = torch.randn_like(logits)
    gradients = torch.autograd.grad((logits * direction).sum(), list(model.parameters()))
    rights = torch.autograd.grad((right * direction).sum(), list(double.parameters()))
    for ours, theirs in zip((logits, *gradients), (right, *rights), strict=True):
        assert ours.shape == theirs.shape
        assert torch.isfinite(ours).all()
        assert (ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max() + 1e-6


SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    **{
        f"width {width}": lambda width=width: {"embedding_size": width}
        for width in (1, 5, 16, 20, 33, 50, 64, 100, 150)
    },
    **{f"{hops} hops": lambda hops=hops: {"num_hops": hops} for hops in (1, 2, 6)},
    "layer-wise": lambda: {"tying": LayerwiseTying()},
    "layer-wise, rectified": lambda: {"tying": LayerwiseTying(), "activation": nn.ReLU(), "num_hops": 5},
    "rectified": lambda: {"activation": nn.ReLU()},
    "untied": lambda: {"tying": Untied()},
    "bag of words": lambda: {"sentence_encoding": BagOfWords()},
    "the paper's position encoding": lambda: {"sentence_encoding": PositionEncoding(1.0)},
    "linear": lambda: {"normalizer": LateSoftmax(), "init_std": 0.1},
    "few answers": lambda: {"num_answers": 3},
    "as many slots as sentences": lambda: {"num_sentences": 7},
    "without noise": lambda: {"empty_memories": 0.0},
    "much noise": lambda: {"empty_memories": 1.0},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_numbers_are_the_plain_networks(settings):
    chosen = {"num_sentences": 12, "init_std": 0.3, "empty_memories": 0.4, "tying": AdjacentTying()} | settings()
    compare(MemN2N(VOCABULARY, **chosen), *questions())


@pytest.mark.parametrize(("sentences", "words"), [(1, 1), (16, 1), (17, 9), (50, 12)])
def test_stories_of_any_size(sentences, words):
    compare(MemN2N(VOCABULARY, num_sentences=50), *questions(3, sentences, words))


def test_words_may_stand_after_a_null_word():
    story, question = questions()
    compare(MemN2N(VOCABULARY), story.flip(2), question.flip(1))
    compare(MemN2N(VOCABULARY), story.flip(1), question)


def test_large_scores_do_not_overflow():
    compare(MemN2N(VOCABULARY, init_std=3.0, num_hops=1), *questions())


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    """200 questions of a single model are shared out forwards; members are, both ways."""
    story, question = questions(200)
    model = MemN2N(VOCABULARY).eval()
    expected = model(story, question)
    ensemble = Ensemble(lambda: MemN2N(VOCABULARY, empty_memories=0.0), 5)
    stories, asked = story.unflatten(0, (5, 40)), question.unflatten(0, (5, 40))
    gradients = torch.autograd.grad(ensemble(stories, asked).square().sum(), list(ensemble.parameters()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(model(story, question), expected)
        again = torch.autograd.grad(ensemble(stories, asked).square().sum(), list(ensemble.parameters()))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(gradients, again, strict=True):
        assert torch.equal(one, other)


def test_inputs_need_not_be_contiguous():
    model = MemN2N(VOCABULARY).eval()
    story, question = questions()
    expected = model(story, question)
    sideways = story.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(model(sideways, question.t().contiguous().t()), expected)
    d = torch.randn(VOCABULARY, 5).t()
    first = torch.autograd.grad(model(story, question), list(model.parameters()), d)
    second = torch.autograd.grad(model(story, question), list(model.parameters()), d.contiguous())
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_what_is_changed_after_the_forward_pass_does_not_matter_backward():
    model = MemN2N(VOCABULARY, normalizer=LateSoftmax())
    story, question = questions()
    noise = model.draw(story, question)
    expected = torch.autograd.grad(model(story, question, noise).sum(), list(model.parameters()))
    logits = model(story, question, noise)
    model.hops[0].addressing.normalizer.insert()
    again = torch.autograd.grad(logits.sum(), list(model.parameters()))
    assert all(torch.equal(*pair) for pair in zip(expected, again, strict=True))


def test_changed_weights_are_noticed_backward():
    model = MemN2N(VOCABULARY)
    logits = model(*questions())
    with torch.no_grad():
        model.words[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        logits.sum().backward()


def test_nothing_is_hidden_that_is_not_a_number():
    for activation in (None, nn.ReLU()):
        model = MemN2N(VOCABULARY, activation=activation)
        with torch.no_grad():
            model.words[1].fill_(torch.nan)
        assert model(torch.ones(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64)).isnan().any()


def _subclass(path: str) -> Callable[[MemN2N], None]:
    def change(model: MemN2N) -> None:
        module = model.get_submodule(path)
        module.__class__ = type("Other", (type(module),), {})

    return change


def _other_score(model: MemN2N) -> None:
    model.hops[1].addressing.score = GeneralScore(20, 20)


def _other_normalizer(model: MemN2N) -> None:
    model.hops[2].addressing.normalizer = Sparsemax()


def _own_normalizer(model: MemN2N) -> None:
    model.hops[2].addressing.normalizer = LateSoftmax()


def _activation(model: MemN2N) -> None:
    model.activation = nn.Tanh()


def _other_shape(model: MemN2N) -> None:
    model.words[1] = nn.Parameter(torch.zeros(VOCABULARY, 20))


def _sideways(model: MemN2N) -> None:
    model.words[1] = nn.Parameter(torch.zeros(20, VOCABULARY - 1).t())


CHANGES = {
    **{
        f"subclass of {path or 'the network'}": _subclass(path)
        for path in ("", "sentence_encoding", "hops.0", "hops.2.addressing", "hops.1.addressing.score")
    },
    "other score": _other_score,
    "other normalizer": _other_normalizer,
    "two normalizers": _own_normalizer,
    "other activation": _activation,
    "other shape": _other_shape,
    "transposed": _sideways,
    "hook": lambda model: model.hops[0].addressing.register_forward_hook(lambda *arguments: None),
    "double": lambda model: model.double(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_steps_aside_for_another_network(change):
    model = MemN2N(VOCABULARY)
    assert kernels.find_memory_network(model, *questions()) is not None
    change(model)
    assert kernels.find_memory_network(model, *questions()) is None


def test_it_steps_aside_where_somebody_looks_at_the_operations(monkeypatch):
    model = MemN2N(VOCABULARY)
    story, question = questions()
    assert kernels.find_memory_network(nn.Linear(2, 2), torch.zeros(3, 2)) is None
    with torch.autocast("cpu"):
        assert kernels.find_memory_network(model, story, question) is None
    with kernels.disabled():
        assert kernels.find_memory_network(model, story, question) is None
    seen = []
    torch.func.vmap(lambda q: seen.append(kernels.find_memory_network(model, story, q)) or q)(question[None])
    assert seen == [None]
    monkeypatch.setenv("MEMNET_KERNELS", "0")
    assert kernels.find_memory_network(model, story, question) is None
