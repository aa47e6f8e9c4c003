"""The end-to-end memory network against the paper's equations in plain loops, and what it refuses."""

import copy
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from memnet import (
    AdjacentTying,
    BagOfWords,
    ClippedSGD,
    LateSoftmax,
    LayerwiseTying,
    MemN2N,
    PositionEncoding,
    Softmax,
    kernels,
    record,
)
from memnet.kernels import build, memn2n_cpu
from memnet.models.story_encoding import add_empty, ages, num_empty
from tests.models.stories import padded
from tests.reference import memn2n as reference

STORY = [[3, 5, 7, 2], [4, 4], [9, 1, 3], [2, 8, 6, 5, 1]]
QUESTION = [6, 3, 9]
VOCABULARY, SLOTS = 10, 6


def make(**settings):
    """A network whose weights are large enough for every part to matter."""
    settings = {"num_sentences": SLOTS, "embedding_size": 5, "init_std": 0.6, "empty_memories": 0.3} | settings
    return MemN2N(VOCABULARY, **settings).eval()


def matrices(model):
    """Each embedding matrix with its row for the null word, in double precision."""
    return [np.vstack([np.zeros(model.embedding_size), words.detach().double().numpy()]) for words in model.words]


def expected(model, story, question, keys, values, question_matrix, answers, **settings):
    """The reference's answer; keys and values are numbers of the model's matrices."""
    words = matrices(model)
    times = [matrix.detach().double().numpy() for matrix in model.times]
    return reference.answer(
        story,
        question,
        words[question_matrix],
        [(words[key], times[key]) for key in keys],
        [(words[value], times[value]) for value in values],
        words[answers] if isinstance(answers, int) else answers.detach().double().numpy(),
        model.num_sentences,
        **settings,
    )


CASES = {
    "position encoding": ({}, {"gain": 2.0}),
    "the paper's own position encoding": ({"sentence_encoding": PositionEncoding(1.0)}, {"gain": 1.0}),
    "bag of words": ({"sentence_encoding": BagOfWords()}, {}),
    "no softmax yet": ({"normalizer": LateSoftmax()}, {"gain": 2.0, "linear": True}),
    "rectified": ({"activation": nn.ReLU()}, {"gain": 2.0, "rectify": True}),
}


@pytest.fixture(params=["plain", "kernel"])
def path(request):
    """Once with torch's operations, once with the kernel."""
    if request.param == "plain":
        with kernels.disabled():
            yield request.param
    elif build.load(memn2n_cpu.SOURCE) is None:
        pytest.skip("there is no C++ compiler here")
    else:
        yield request.param


def run(model, path, story, question):
    """The logits of one question, and that they came by the path that was meant."""
    assert (kernels.find_memory_network(model, story, question) is None) == (path == "plain")
    return model(story, question)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_adjacent_hops_are_the_papers(case, hops, path):
    settings, told = CASES[case]
    model = make(num_hops=hops, **settings)
    right, looks = expected(model, STORY, QUESTION, range(hops), range(1, hops + 1), 0, hops, **told)
    logits = run(model, path, padded([STORY]), torch.tensor([QUESTION]))
    np.testing.assert_allclose(logits[0].detach(), right, rtol=1e-4, atol=1e-4 * np.abs(right).max())
    with record(model) as trace:
        model(padded([STORY]), torch.tensor([QUESTION]))
    for hop in range(hops):
        np.testing.assert_allclose(trace[f"hops.{hop}.addressing"][0, 0, 0], looks[hop], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_layerwise_hops_are_the_papers(case, path):
    settings, told = CASES[case]
    model = make(num_hops=3, tying=LayerwiseTying(), num_answers=4, **settings)
    linear_map = model.linear_map.detach().double().numpy()
    right, _ = expected(model, STORY, QUESTION, [0] * 3, [1] * 3, 2, model.answers, linear_map=linear_map, **told)
    logits = run(model, path, padded([STORY]), torch.tensor([QUESTION]))
    assert logits.shape == (1, 4)
    np.testing.assert_allclose(logits[0].detach(), right, rtol=1e-4, atol=1e-4 * np.abs(right).max())


def test_position_encoding_is_the_papers_formula():
    # d = 2 and J = 4: l_1j = (1 - j/4) - (1 - j/2)/2 = 1/2 and l_2j = (1 - j/4) - (1 - j/2) = j/4.
    weights = PositionEncoding(gain=1.0).weights(num_words=5, embedding_size=2)
    np.testing.assert_allclose(weights[4, :4], [[0.5, 0.25], [0.5, 0.5], [0.5, 0.75], [0.5, 1.0]])
    np.testing.assert_allclose(weights[4, 4], [0, 0])
    np.testing.assert_allclose(PositionEncoding().weights(5, 2), 2 * weights)
    # As long as a bag of words on average: (1/d) sum_k l_kj averaged over k = 0.5 .. and j.
    assert PositionEncoding().weights(7, 40)[7].mean() == pytest.approx(1, abs=0.1)


def test_sentences_of_a_batch_have_their_own_number_of_words():
    model = make()
    stories = [STORY, [[1, 2]], [[5], [3, 3, 3, 3, 3]]]
    together = model(padded(stories), torch.tensor([QUESTION] * 3))
    for story, logits in zip(stories, together, strict=True):
        torch.testing.assert_close(model(padded([story]), torch.tensor([QUESTION]))[0], logits)


def test_padding_changes_nothing(path):
    model = make()
    tight = run(model, path, padded([STORY]), torch.tensor([QUESTION]))
    wide = run(model, path, padded([STORY], sentences=SLOTS, words=9), torch.tensor([[*QUESTION, 0, 0]]))
    torch.testing.assert_close(wide, tight, rtol=1e-5, atol=1e-6)


def test_slots_that_no_sentence_fills_take_part_in_the_softmax():
    model = make(num_hops=1)
    nn.init.zeros_(model.words[0])  # so that all scores are 0 but for the times'
    nn.init.zeros_(model.times[0])
    with record(model) as trace:
        model(padded([STORY]), torch.tensor([QUESTION]))
    torch.testing.assert_close(trace["hops.0.addressing"], torch.full((1, 1, 1, SLOTS), 1 / SLOTS))


def test_an_empty_story_reads_nothing():
    model = make(num_hops=2)
    empty = model(torch.zeros(1, 3, 4, dtype=torch.int64), torch.tensor([QUESTION]))
    question = reference.encode(QUESTION, matrices(model)[0], 2.0)
    np.testing.assert_allclose(empty[0].detach(), matrices(model)[-1] @ question, rtol=1e-4, atol=1e-4)


def test_adjacent_tying_shares_storage_and_trains_as_one():
    model = make(num_hops=3).train()
    layout = model.layout
    assert layout == AdjacentTying().layout(3)
    for hop in range(2):
        assert model.words[layout.keys[hop + 1]].data_ptr() == model.words[layout.values[hop]].data_ptr()
    assert layout.question == layout.keys[0]
    assert model.answer_matrix().shape == (VOCABULARY, 5)
    torch.testing.assert_close(model.answer_matrix()[1:], model.words[layout.values[-1]])
    assert sum(parameter.numel() for parameter in model.parameters()) == 4 * (VOCABULARY - 1 + SLOTS) * 5
    # A step on a loss that sees the last values only through the answers moves what the story is read by.
    before = model.words[3].detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.zeros(1, 1, 1, dtype=torch.int64), torch.tensor([QUESTION])).sum().backward()
    optimizer.step()
    assert (model.words[3] != before).any()
    torch.testing.assert_close(model.answer_matrix()[1:], model.words[3])


def test_layerwise_tying_has_two_memories_for_all_hops():
    model = make(num_hops=6, tying=LayerwiseTying())
    width, words, times = 5, 3 * (VOCABULARY - 1) * 5, 2 * SLOTS * 5
    assert sum(p.numel() for p in model.parameters()) == words + times + width**2 + VOCABULARY * width


@pytest.mark.parametrize("tying", [AdjacentTying(), LayerwiseTying()])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
        lambda p: ClippedSGD(p, lr=0.1),
    ],
)
def test_the_null_word_stays_zero(tying, optimizer):
    """As a word that pads, and as an answer: otherwise padding would begin to mean something."""
    model = make(tying=tying).train()
    steps = optimizer(model.parameters())
    for _ in range(5):
        steps.zero_grad()
        logits = model(padded([STORY]), torch.tensor([QUESTION]))
        F.cross_entropy(logits, torch.tensor([0])).backward()
        steps.step()
    model.eval()
    tight = model(padded([STORY]), torch.tensor([QUESTION]))
    wide = model(padded([STORY], sentences=SLOTS, words=9), torch.tensor([[*QUESTION, 0, 0]]))
    torch.testing.assert_close(wide, tight, rtol=1e-5, atol=1e-5)
    if isinstance(tying, AdjacentTying):
        assert tight[0, 0] == 0
        assert model.answer_matrix()[0].eq(0).all()


def test_late_softmax_is_none_until_it_is_inserted_and_then_for_good():
    model = make(normalizer=LateSoftmax())
    story, question = padded([STORY]), torch.tensor([QUESTION])
    with record(model) as before:
        model(story, question)
    assert before["hops.0.addressing"].abs().sum() > 2  # no weighting, but the scores
    model.hops[0].addressing.normalizer.insert()
    with record(model) as after:
        model(story, question)
    for name in ("hops.0.addressing", "hops.1.addressing", "hops.2.addressing"):
        torch.testing.assert_close(after[name].sum(-1), torch.ones(1, 1, 1))
    torch.testing.assert_close(after["hops.0.addressing"], before["hops.0.addressing"].softmax(-1))
    softmax = make()
    softmax.load_state_dict(dict(model.named_parameters()))
    torch.testing.assert_close(model(story, question), softmax(story, question))
    model.hops[0].addressing.normalizer.insert()
    torch.testing.assert_close(model(story, question), softmax(story, question))
    again = make(normalizer=LateSoftmax())
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(story, question), softmax(story, question))


def test_without_softmax_a_network_is_linear_in_its_last_values():
    """Scaling all memories' values scales what a hop reads; no weight depends on it."""
    model = make(normalizer=LateSoftmax(), num_hops=1, tying=LayerwiseTying())
    story, question = padded([STORY]), torch.tensor([QUESTION])
    nn.init.zeros_(model.linear_map)
    once = model(story, question)
    with torch.no_grad():
        model.words[0].mul_(3)
        model.times[0].mul_(3)
    torch.testing.assert_close(model(story, question), 3 * once, rtol=1e-4, atol=1e-4)


def test_the_newest_sentence_has_age_one():
    present = torch.tensor([[True, True, True, False], [True, False, False, False], [False] * 4])
    assert ages(present).tolist() == [[3, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_only_a_sentences_age_tells_equal_sentences_apart():
    model = make(num_hops=1)
    with record(model) as trace:
        model(padded([[[3, 5]] * 4]), torch.tensor([QUESTION]))
    weights = trace["hops.0.addressing"][0, 0, 0]
    scores = weights[:4].log()
    own = torch.stack([model.times[0][age - 1] for age in (4, 3, 2, 1)]) @ torch.tensor(
        reference.encode(QUESTION, matrices(model)[0], 2.0), dtype=torch.float32
    )
    torch.testing.assert_close(scores - scores[0], own - own[0], rtol=1e-3, atol=1e-4)


def test_how_many_empty_memories_there_are_at_most():
    assert num_empty(0.1, 31)[:2] == [0, 1]
    assert [num_empty(0.1, 50)[count] for count in (10, 11, 20, 30, 31, 50)] == [1, 2, 2, 3, 4, 5]
    assert num_empty(0.0, 3) == [0, 0, 0, 0]


def test_every_way_to_put_empty_memories_is_as_likely():
    """Three sentences and at most two empty ones: each number 1/3, each arrangement of a number alike."""
    count = 60_000
    most = torch.tensor([0, 0, 0, 2])
    start = ages(torch.ones(count, 3, dtype=torch.bool))
    drawn = Counter(map(tuple, add_empty(start, torch.rand(count, 3), most).tolist()))
    expected: Counter = Counter()
    for empty in range(3):
        places = list(itertools.combinations(range(1, 4 + empty), 3))
        for place in places:
            expected[tuple(reversed(place))] += count / 3 / len(places)
    assert drawn.keys() == expected.keys()
    for arrangement, number in expected.items():
        assert abs(drawn[arrangement] - number) < 5 * number**0.5  # five standard deviations


def test_noise_makes_sentences_older_in_training_only():
    model = make(num_sentences=50)
    story, question = padded([STORY] * 64), torch.tensor([QUESTION] * 64)
    calm = model(story, question)
    assert calm.eq(calm[0]).all()
    torch.testing.assert_close(model(story, question), calm)
    model.train()
    noisy = model(story, question)
    assert len(noisy.unique(dim=0)) > 3
    without = make(num_sentences=50, empty_memories=0.0).train()(story, question)
    assert without.eq(without[0]).all()


def test_noise_comes_from_torchs_generator():
    model = make().train()
    story, question = padded([STORY] * 8), torch.tensor([QUESTION] * 8)
    torch.manual_seed(5)
    first, second = model(story, question), model(story, question)
    torch.manual_seed(5)
    assert torch.equal(model(story, question), first)
    assert not torch.equal(first, second)


def test_noise_never_makes_a_sentence_older_than_the_memory():
    model = make(num_sentences=4, empty_memories=1.0).train()
    for _ in range(20):
        assert model(padded([STORY] * 8), torch.tensor([QUESTION] * 8)).isfinite().all()
    draws = torch.full((1, 5), 0.999)
    oldest = add_empty(ages(torch.ones(1, 4, dtype=torch.bool)), draws, torch.tensor(model.most_empty))
    # The gaps drawn are those before the oldest sentence: nothing changes.
    assert oldest.tolist() == [[4, 3, 2, 1]]
    youngest = torch.cat([torch.tensor([[0.999]]), torch.zeros(1, 4)], 1)
    assert add_empty(ages(torch.ones(1, 4, dtype=torch.bool)), youngest, torch.tensor([0, 1, 2, 3, 4])).tolist() == [
        [8, 7, 6, 5]
    ]


BAD = {
    "word": (lambda: (padded([[[3, VOCABULARY]]]), torch.tensor([QUESTION])), "story holds word 10, but .* 0 to 9"),
    "negative word": (lambda: (padded([[[3]]]), torch.tensor([[-1]])), "question holds word -1, but .* 0 to 9"),
    "long story": (lambda: (padded([[[3]] * 7]), torch.tensor([QUESTION])), "7 sentences, but .* num_sentences is 6"),
    "dtype": (lambda: (padded([[[3]]]).int(), torch.tensor([QUESTION])), "story has dtype torch.int32"),
    "axes": (lambda: (padded([[[3]]])[0], torch.tensor([QUESTION])), r"story has shape \(1, 1\)"),
    "batch": (lambda: (padded([[[3]]]), torch.tensor([QUESTION] * 2)), r"question \(2, 3\)"),
    "no words": (lambda: (padded([[[3]]]), torch.zeros(1, 0, dtype=torch.int64)), r"question \(1, 0\)"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_what_it_cannot_read_is_refused(case):
    inputs, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        make()(*inputs())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_answers": 11}, "num_answers is 11, but there are only 10 words"),
        ({"num_hops": 0}, "num_hops is 0"),
        ({"embedding_size": 0}, "embedding_size is 0"),
        ({"num_sentences": 0}, "num_sentences is 0"),
        ({"empty_memories": 1.5}, "empty_memories is 1.5, but must lie between 0 and 1"),
        ({"init_std": 0.0}, "init_std is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        MemN2N(**{"vocab_size": VOCABULARY} | settings)


def test_a_position_encoding_without_weight_is_refused():
    with pytest.raises(ValueError, match=r"gain is 0\.0"):
        PositionEncoding(0.0)


def test_first_weights_have_the_papers_spread():
    model = MemN2N(400, embedding_size=50)
    for parameter in model.parameters():
        assert float(parameter.detach().std()) == pytest.approx(0.1, rel=0.1)
        assert abs(float(parameter.detach().mean())) < 0.01


def test_it_learns_where_somebody_is():
    """Two people walk among four rooms; where one is now needs the newest of one's sentences."""
    draw = np.random.default_rng(0)
    places = draw.integers(0, 4, (600, 6))
    people = draw.integers(0, 2, (600, 6))
    people[:, 0], people[:, 1] = 0, 1
    asked = draw.integers(0, 2, 600)
    story = torch.from_numpy(np.stack([people + 1, places + 3], -1))
    question = torch.from_numpy(asked + 1)[:, None]
    last = 5 - np.argmax((people == asked[:, None])[:, ::-1], 1)
    answer = torch.from_numpy(places[np.arange(600), last] + 3)
    model = MemN2N(7, num_sentences=6, num_hops=2)
    steps = ClippedSGD(model.parameters(), lr=0.005)
    for step in range(300):
        part = torch.arange(32 * step, 32 * step + 32) % 500
        steps.zero_grad()
        F.cross_entropy(model(story[part], question[part]), answer[part], reduction="sum").backward()
        steps.step()
    model.eval()
    assert (model(story[500:], question[500:]).argmax(1) == answer[500:]).float().mean() > 0.97


def test_copies_and_state_dictionaries_are_whole():
    model = make(normalizer=Softmax())
    other = make()
    other.load_state_dict(copy.deepcopy(model).state_dict())
    story, question = padded([STORY]), torch.tensor([QUESTION])
    assert torch.equal(other(story, question), model(story, question))
