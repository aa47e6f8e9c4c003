"""An ensemble is its members trained one by one, whatever path its products take."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from memnet import BagOfWords, ClippedSGD, Ensemble, LateSoftmax, LayerwiseTying, MemN2N, kernels
from memnet.kernels import build, memn2n_cpu

MEMBERS, BATCH, SENTENCES, WORDS, VOCABULARY = 4, 6, 5, 4, 12
SEED = 7


def stories(steps=1):
    """For every step each member's own questions: story, question, answer, with padding of every kind."""
    draw = torch.Generator().manual_seed(1)

    def numbers(*shape, low=1, high=VOCABULARY):
        return torch.randint(low, high, shape, generator=draw)

    story = numbers(steps, MEMBERS, BATCH, SENTENCES, WORDS)
    lengths = numbers(steps, MEMBERS, BATCH, SENTENCES, low=1, high=WORDS + 1)
    counts = numbers(steps, MEMBERS, BATCH, low=0, high=SENTENCES + 1)
    story = story * (torch.arange(WORDS) < lengths[..., None])
    story = story * (torch.arange(SENTENCES) < counts[..., None])[..., None]
    return story, numbers(steps, MEMBERS, BATCH, 3), numbers(steps, MEMBERS, BATCH)


NETWORKS = {
    "position encoding": lambda: MemN2N(VOCABULARY, num_sentences=8, empty_memories=0.5),
    "linear": lambda: MemN2N(VOCABULARY, num_sentences=5, normalizer=LateSoftmax()),
    "layer-wise": lambda: MemN2N(
        VOCABULARY, num_sentences=8, embedding_size=7, tying=LayerwiseTying(), activation=nn.ReLU()
    ),
    "bag of words": lambda: MemN2N(VOCABULARY, num_sentences=8, sentence_encoding=BagOfWords(), empty_memories=0.0),
}


@pytest.fixture(params=["plain", "kernel"])
def path(request):
    if request.param == "plain":
        with kernels.disabled():
            yield request.param
    elif build.load(memn2n_cpu.SOURCE) is None:
        pytest.skip("there is no C++ compiler here")
    else:
        yield request.param


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_members_are_models_trained_one_by_one_from_the_same_seeds(network, path):
    steps = 6
    story, question, answer = stories(steps)
    ensemble = Ensemble(network, MEMBERS, seed=SEED)
    optimizer = ClippedSGD(ensemble.parameters(), lr=0.1, max_norm=2.0, num_members=MEMBERS)
    for step in range(steps):
        optimizer.zero_grad()
        logits = ensemble(story[step], question[step])
        F.cross_entropy(logits.flatten(0, 1), answer[step].flatten(), reduction="sum").backward()
        optimizer.step()
    for number in range(MEMBERS):
        torch.manual_seed(SEED + number)
        model = network()
        start = copy.deepcopy(model.state_dict())
        alone = ClippedSGD(model.parameters(), lr=0.1, max_norm=2.0)
        for step in range(steps):
            alone.zero_grad()
            own = model(story[step, number], question[step, number])
            F.cross_entropy(own, answer[step, number], reduction="sum").backward()
            alone.step()
        for name, value in ensemble.member(number).state_dict().items():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)
        assert any((start[name] != value).any() for name, value in model.named_parameters())


def test_members_begin_with_weights_of_their_own():
    ensemble = Ensemble(NETWORKS["linear"], MEMBERS, seed=SEED)
    torch.manual_seed(SEED + 2)
    expected = NETWORKS["linear"]().state_dict()
    for name, value in ensemble.member(2).state_dict().items():
        assert torch.equal(value, expected[name])
    assert not torch.equal(ensemble.member(0).words[0], ensemble.member(1).words[0])
    state = torch.get_rng_state()
    Ensemble(NETWORKS["linear"], MEMBERS)
    ensemble.member(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_members_loss_has_no_gradient_for_another(path):
    ensemble = Ensemble(NETWORKS["layer-wise"], MEMBERS)
    story, question, _ = (part[0] for part in stories())
    logits = ensemble(story, question)
    assert logits.shape == (MEMBERS, BATCH, VOCABULARY)
    gradients = torch.autograd.grad(logits[1].square().sum(), list(ensemble.parameters()))
    for gradient in gradients:
        assert gradient[1].any()
        assert not gradient[[0, 2, 3]].any()


def test_members_draw_noise_of_their_own():
    ensemble = Ensemble(lambda: MemN2N(VOCABULARY, num_sentences=50), MEMBERS)
    noise = ensemble._draw(*(part[0] for part in stories()[:2]))
    assert noise.shape == (MEMBERS, BATCH, 6)
    assert len(noise.flatten(1).unique(dim=0)) == MEMBERS


def test_there_is_no_noise_in_evaluation():
    ensemble = Ensemble(NETWORKS["position encoding"], MEMBERS)
    story, question, _ = (part[0] for part in stories())
    noisy = [ensemble(story, question) for _ in range(2)]
    assert not torch.equal(*noisy)
    ensemble.eval()
    calm = ensemble(story, question)
    assert torch.equal(ensemble(story, question), calm)
    for number in range(MEMBERS):
        member = ensemble.member(number)
        assert not member.training
        torch.testing.assert_close(member(story[number], question[number]), calm[number], rtol=1e-4, atol=1e-5)


def test_a_softmax_comes_in_for_each_member_by_itself(path):
    ensemble = Ensemble(NETWORKS["linear"], MEMBERS).eval()
    story, question, _ = (part[0] for part in stories())
    before = ensemble(story, question)
    softmax = ensemble.network.hops[0].addressing.normalizer
    softmax.insert(torch.tensor([False, True, False, True]))
    after = ensemble(story, question)
    changed = (after - before).abs().flatten(1).amax(1) > 1e-4
    assert changed.tolist() == [False, True, False, True]
    assert [bool(ensemble.member(n).hops[0].addressing.normalizer.inserted) for n in range(MEMBERS)] == changed.tolist()


def test_state_goes_on_where_it_was_saved():
    story, question, _ = (part[0] for part in stories())
    ensemble = Ensemble(NETWORKS["position encoding"], MEMBERS, seed=SEED)
    ensemble(story, question)
    saved = copy.deepcopy(ensemble.state_dict())
    expected = [ensemble(story, question) for _ in range(3)]
    other = Ensemble(NETWORKS["position encoding"], MEMBERS, seed=99)
    other.load_state_dict(saved)
    for logits in expected:
        assert torch.equal(other(story, question), logits)
    twin = copy.deepcopy(other)
    assert torch.equal(twin(story, question), other(story, question))


class Dropping(nn.Module):
    """A network with everything that stacking must keep: a shared module, a shared matrix, a buffer, dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.third = nn.Linear(3, 3, bias=False)
        self.third.weight = self.first.weight
        self.register_buffer("shift", torch.randn(3))
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.third(self.second(self.first(x)).tanh()) + self.shift)


def test_any_network_will_do():
    ensemble = Ensemble(Dropping, MEMBERS, seed=SEED)
    assert len(list(ensemble.parameters())) == 2  # what is shared is one parameter
    x = torch.randn(MEMBERS, 5, 3)
    dropped = ensemble(x)
    assert not torch.equal(dropped[0].eq(0), dropped[1].eq(0))
    ensemble.eval()
    y = ensemble(x)
    for number in range(MEMBERS):
        torch.manual_seed(SEED + number)
        torch.testing.assert_close(y[number], Dropping().eval()(x[number]))
        torch.testing.assert_close(y[number], ensemble.member(number)(x[number]))
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in ensemble.parameters())
    assert all(not tensor.requires_grad or tensor.is_leaf for tensor in ensemble.stacked().values())
    assert ensemble.network.third.weight is ensemble.network.first.weight


def test_parts_that_a_maker_gives_to_all_networks_are_not_shared():
    softmax = LateSoftmax()
    ensemble = Ensemble(lambda: MemN2N(VOCABULARY, normalizer=softmax), 2)
    assert ensemble.network.hops[0].addressing.normalizer.inserted.shape == (2,)
    assert softmax.inserted.shape == ()
    assert ensemble.member(1).hops[0].addressing.normalizer.inserted.shape == ()


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="num_members is 0"):
        Ensemble(Dropping, 0)
    ensemble = Ensemble(NETWORKS["linear"], MEMBERS)
    story, question, _ = (part[0] for part in stories())
    with pytest.raises(ValueError, match=r"shape \(3, 6, 5, 4\), but must have one entry for each of the 4 members"):
        ensemble(story[:3], question)
    with pytest.raises(ValueError, match="story holds word 12, but"):
        ensemble(story.clamp(min=VOCABULARY), question)
    with pytest.raises(ValueError, match=r"holds 6 sentences, but .* num_sentences is 5"):
        ensemble(torch.ones(MEMBERS, BATCH, 6, WORDS, dtype=torch.int64), question)
    with pytest.raises(ValueError, match="number is 4, but the members are numbered 0 to 3"):
        ensemble.member(4)
