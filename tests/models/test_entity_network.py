"""The recurrent entity network against the paper's equations in plain loops, and what it refuses."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from memnet import (
    BagOfWords,
    DotScore,
    Ensemble,
    EntityNetwork,
    LearnedMask,
    MemN2N,
    ScaledDotScore,
    SlotGate,
    kernels,
    record,
)
from memnet.kernels.entity_network import pack
from tasks import Babi
from tasks.babi import NUM_ANSWERS, VOCAB_SIZE
from tests.models.stories import QUESTION, STORIES, STORY, asked, error_after, padded
from tests.reference import entity_network as reference

VOCABULARY, SLOTS, WIDTH = 12, 4, 5


def make(**settings):
    """A network whose weights, all of them, are large enough for every part to matter."""
    settings = {"num_slots": SLOTS, "embedding_size": WIDTH, "num_words": 6, "num_answers": 7} | settings
    model = EntityNetwork(VOCABULARY, **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn_like(parameter)
    return model


@pytest.fixture(params=["plain", "kernel"])
def path(request):
    """Once by the plain loop, once as a whole."""
    if request.param == "plain":
        with kernels.disabled():
            yield request.param
    else:
        yield request.param


def test_the_network_is_the_papers(path):
    model = make()
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    words = np.vstack([np.zeros(WIDTH), p["words"]])
    contents, gates = p["keys"], []
    for sentence in STORY:
        s = reference.encode(sentence, words, p["sentence_encoding.masks"])
        contents, opened = reference.step(
            *(contents, p["keys"], s, p["from_memory"], p["from_keys"], p["from_sentence"]),
            *(p["bias"], p["slopes"], p["gate.bias"]),
        )
        gates.append(opened)
    q = reference.encode(QUESTION, words, p["question_encoding.masks"])
    right, looks = reference.answer(contents, q, p["from_read"], p["answers"], p["slopes"])

    assert (kernels.find_entity_network(model) is None) == (path == "plain")
    logits = model(padded([STORY]), asked(1))
    np.testing.assert_allclose(logits[0].detach(), right, rtol=1e-7)
    with record(model) as trace:
        model(padded([STORY]), asked(1))
    np.testing.assert_allclose(trace["gate"][0, :, 0], gates, rtol=1e-7)
    np.testing.assert_allclose(trace["output.addressing"][0, 0, 0], looks, rtol=1e-7)


def test_a_step_worked_out_by_hand(path):
    """Two slots of width 2, one word. Slot 0 is about the word, slot 1 is not."""
    model = EntityNetwork(3, num_slots=2, embedding_size=2, num_words=1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.words.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        model.sentence_encoding.masks.fill_(1.5)
        model.question_encoding.masks.fill_(1.0)
        model.keys.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        model.from_sentence.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))  # the word goes to the other place
        model.slopes.fill_(0.5)
        model.answers.copy_(torch.eye(3, 2))
        model.from_read.copy_(torch.eye(2))
    # s = 1.5 (2, 0) = (3, 0). Slot 0: g = sigmoid(3 + 3), adds g (0, 3). Slot 1: g = sigmoid(0), adds (0, 1.5).
    gate = 1 / (1 + np.exp(-6))
    first = np.array([1, 3 * gate]) / np.hypot(1, 3 * gate)
    # q = (0, 1): the slots' second places decide. Slot 1 is (0, 2.5), brought back to (0, 1).
    looks = np.exp([first[1], 1]) / np.exp([first[1], 1]).sum()
    read = looks[0] * first + looks[1] * np.array([0, 1])
    logits = model(torch.tensor([[[1]]]), torch.tensor([[2]]))
    np.testing.assert_allclose(logits[0].detach(), [read[0], 1 + read[1], 0], rtol=1e-7)


@pytest.mark.parametrize("stories", STORIES.values(), ids=STORIES)
def test_the_kernel_and_its_gradients_are_those_of_the_plain_loop(stories):
    model = make()
    story = padded(stories, sentences=5, words=4)
    question = torch.randint(1, VOCABULARY, (len(stories), 3))
    results = []
    for choice in (kernels.disabled, torch.enable_grad):
        with choice():
            logits = model(story, question)
            weights = torch.linspace(-1, 2, logits.numel()).view_as(logits)
            results.append([logits, *torch.autograd.grad((logits * weights).sum(), [*model.parameters()])])
    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


def test_gradients_agree_with_finite_differences():
    model = make(num_slots=2, embedding_size=3)
    names = [name for name, _ in model.named_parameters()]
    story, question = padded(STORIES["beginnings"]), asked(5)

    def logits(*parameters):
        with kernels.disabled():
            return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (story, question))

    assert torch.autograd.gradcheck(logits, tuple(model.parameters()), fast_mode=True)


def test_beginnings_of_a_story_are_read_once():
    packed = pack(padded(STORIES["beginnings"]))
    assert packed.sizes == [2, 2, 1, 1, 1]  # two stories, both with a first sentence, one with a fourth
    assert packed.words[[0, 2, 3, 4]].tolist() == padded([STORY])[0].tolist()
    memories = list(range(sum(packed.sizes)))  # 0 and 1 before the first sentence, 2 and 3 after it, 4, 5, 6
    assert [memories[end] for end in packed.ends] == [4, 6, 2, 4, 3]
    nothing = pack(padded(STORIES["nothing was said"], sentences=2, words=3))
    assert nothing.sizes == [1] and nothing.words.shape == (0, 3) and nothing.ends.tolist() == [0, 0, 0]


def test_equal_checksums_alone_do_not_make_stories_equal(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda low, high, size, generator: torch.ones(size, dtype=torch.int64))
    turned = [[1, 2]], [[2, 1]], [[2, 1], [3, 3]]
    packed = pack(padded(turned))
    assert packed.sizes == [2, 2, 1]
    assert packed.ends.tolist() == [3, 2, 4]


def test_the_kernel_steps_aside_for_other_equations_and_for_listeners():
    class Other(EntityNetwork):
        pass

    assert kernels.find_entity_network(make()) is not None
    assert kernels.find_entity_network(Other(VOCABULARY)) is None
    model = make()
    with record(model):
        assert kernels.find_entity_network(model) is None
    model.gate.register_full_backward_hook(lambda *_: None)
    assert kernels.find_entity_network(model) is None
    model = make()
    model.gate.score = ScaledDotScore(WIDTH)
    assert kernels.find_entity_network(model) is None


def test_padding_changes_nothing(path):
    model = make()
    tight = model(padded([STORY]), asked(1))
    wide = model(padded([STORY], sentences=9, words=6), torch.tensor([[*QUESTION, 0, 0]]))
    torch.testing.assert_close(wide, tight)
    between = padded([[STORY[0], [], STORY[1], [], [], *STORY[2:]]])
    torch.testing.assert_close(model(between, asked(1)), tight)
    together = model(padded([STORY, STORY[:1], [[2]]]), asked(3))
    torch.testing.assert_close(together[:1], tight)
    torch.testing.assert_close(together[2:], model(padded([[[2]]]), asked(1)))


def test_before_anything_is_said_contents_are_the_keys(path):
    model = make()
    asked_of_keys = model(torch.zeros(1, 3, 2, dtype=torch.int64), asked(1))
    with record(model) as trace:
        model(torch.zeros(1, 3, 2, dtype=torch.int64), asked(1))
    assert not trace["gate"].any()
    q = F.pad(model.words, (0, 0, 1, 0))[QUESTION] * model.question_encoding.masks[:3]
    q = q.sum(0)
    read = (model.keys @ q).softmax(0) @ model.keys
    x = q + model.from_read @ read
    right = model.answers @ torch.where(x > 0, x, model.slopes * x)
    torch.testing.assert_close(asked_of_keys[0], right)


def test_the_order_of_sentences_and_words_matters(path):
    model = make()
    logits = model(padded([STORY, STORY[::-1], [STORY[0][::-1], *STORY[1:]]]), asked(3))
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    assert (logits[0] - logits[2]).abs().max() > 1e-3


def test_it_starts_as_a_bag_of_words_without_a_bend():
    model = EntityNetwork(VOCABULARY, num_words=6)
    vectors, present = torch.randn(3, 6, 100), torch.ones(3, 6, dtype=torch.bool)
    torch.testing.assert_close(model.sentence_encoding(vectors, present), BagOfWords()(vectors, present))
    assert (model.slopes == 1).all() and not model.gate.bias.any() and not model.bias.any()
    assert model.num_slots == 20 and model.embedding_size == 100 and model.num_answers == VOCABULARY
    assert model.keys.std().item() == pytest.approx(0.1, rel=0.1)


def told_first_and_last(identity_start):
    """How much of a slot that was opened wide is left of the first of ten sentences, compared with the last one."""
    torch.manual_seed(1)
    model = EntityNetwork(40, num_words=4, identity_start=identity_start)
    words = 1 + torch.arange(20).view(1, 10, 2)
    sentences = model.encode_sentences(words)
    from_sentences = sentences @ model.from_sentence.T
    with torch.no_grad():
        model.gate.bias.fill_(9)  # every slot hears everything
        memory = model._read(words)
    told = F.cosine_similarity(memory[0, :, None], from_sentences, dim=-1).mean(0)
    return told[0] / told[-1]


def test_the_identity_start_keeps_what_it_is_told():
    assert told_first_and_last(identity_start=False) < 0.2
    assert told_first_and_last(identity_start=True) > 0.4
    torch.manual_seed(1)
    model = EntityNetwork(40, identity_start=True)
    assert model.words.std().item() == pytest.approx(0.4, rel=0.1)
    assert model.keys.std().item() == pytest.approx(0.05, rel=0.1)
    assert torch.equal(model.from_sentence, torch.eye(100) / 16)
    assert not model.from_memory.any() and not model.from_keys.any() and (model.gate.bias == -4).all()


@pytest.mark.parametrize("scale", [0.0, 1e-5, 1.0, 1e4])
def test_it_stays_finite(scale, path):
    model = make().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    logits = model(padded([STORY, STORY[:1]]), asked(2))
    F.cross_entropy(logits, torch.tensor([1, 2])).backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_memory_stays_in_full_precision_under_autocast(path):
    model = make().float()
    right = model(padded([STORY]), asked(1))
    with torch.autocast("cpu", torch.bfloat16), record(model) as trace:
        model(padded([STORY]), asked(1))
    assert trace["gate"].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(padded([STORY]), asked(1))
    # The question and the output are in bfloat16, of 8 bits; four sentences in it would cost much more.
    torch.testing.assert_close(logits.float(), right, rtol=0.02, atol=0.02 * right.abs().max().item())


def test_an_ensembles_members_are_the_models():
    ensemble = Ensemble(lambda: make().float(), num_members=3, seed=5)
    story = torch.stack([padded(stories, 4, 4) for stories in ([STORY, STORY[:2]], [STORY[:3]] * 2, [[[1]], []])])
    question = torch.randint(1, VOCABULARY, (3, 2, 3))
    logits = ensemble(story, question)
    logits.square().sum().backward()
    for number in range(3):
        member = ensemble.member(number)
        own = member(story[number], question[number])
        torch.testing.assert_close(logits[number], own, rtol=1e-5, atol=1e-5)
        own.square().sum().backward()
        for name, parameter in member.named_parameters():
            stacked = ensemble.network.get_parameter(name).grad[number]
            torch.testing.assert_close(stacked, parameter.grad, rtol=1e-3, atol=1e-4 * (1 + parameter.grad.abs().max()))


def test_other_networks_can_encode_by_learned_masks():
    model = MemN2N(VOCABULARY, num_sentences=5, sentence_encoding=LearnedMask(4, 20))
    assert model(padded([STORY]), asked(1)).shape == (1, VOCABULARY)


def test_a_gate_without_a_bias_is_the_papers():
    emission, keys = torch.randn(2, 3, WIDTH), torch.randn(2, 7, WIDTH)
    weights, state = SlotGate(DotScore(WIDTH))(emission, keys, None)
    assert state is None
    torch.testing.assert_close(weights, (emission @ keys.mT).sigmoid())
    biased = SlotGate(DotScore(WIDTH), num_slots=7)
    with torch.no_grad():
        biased.bias.copy_(torch.linspace(-3, 3, 7))
    shifted, _ = biased(emission, keys, None)
    torch.testing.assert_close(shifted, (emission @ keys.mT + torch.linspace(-3, 3, 7)).sigmoid())


def refused(call):
    with pytest.raises(ValueError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("name", ["vocab_size", "num_answers", "num_slots", "embedding_size", "num_words"])
def test_sizes_must_be_positive(name):
    message = refused(lambda: EntityNetwork(**({"vocab_size": 5} | {name: 0})))
    assert message.startswith(f"{name} is 0, but must be a whole number of at least 1")


def test_more_answers_than_words_are_refused():
    assert "num_answers is 6, but there are only 5 words" in refused(lambda: EntityNetwork(5, num_answers=6))
    assert "init_std is 0" in refused(lambda: EntityNetwork(5, init_std=0.0))


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
        (torch.ones(1, 3, 4, dtype=torch.int32), asked(1), "story has dtype torch.int32"),
    ],
)
def test_what_cannot_be_read_is_refused(story, question, message, path):
    try:
        make()(story, question)
    except ValueError as error:
        assert message in str(error)
    except Exception as error:  # the annotations, checked while the tests run, refuse some of these before the network
        assert type(error).__name__ == "TypeCheckError"
    else:
        pytest.fail("it was read")


def test_a_gate_for_another_number_of_slots_is_refused():
    gate = SlotGate(DotScore(WIDTH), num_slots=7)
    message = refused(lambda: gate(torch.randn(1, 1, WIDTH), torch.randn(1, 6, WIDTH), None))
    assert "num_slots is 7, but the memory's number of slots is 6" in message
    assert "num_slots is 0" in refused(lambda: SlotGate(DotScore(WIDTH), num_slots=0))


@pytest.mark.slow
def test_it_learns_to_follow_people_in_three_epochs():
    """bAbI task 1, the paper's recipe; by guessing two in three answers are wrong and more."""
    task = Babi(tasks=1, size="10k", by_story=True)
    torch.manual_seed(1)
    model = EntityNetwork(VOCAB_SIZE, NUM_ANSWERS)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    assert error_after(3 * task.epoch_size // task.batch_size, model, task, optimizer, clip=40) < 2


@pytest.mark.slow
def test_the_identity_start_learns_of_two_facts_far_apart_in_four_epochs():
    """bAbI task 2, 11.7% when this was written; with the paper's start and rate it was 35."""
    task = Babi(tasks=2, size="10k", num_sentences=70, by_story=True, exchange=True)
    torch.manual_seed(1)
    model = EntityNetwork(VOCAB_SIZE, NUM_ANSWERS, identity_start=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    assert error_after(4 * task.epoch_size // task.batch_size, model, task, optimizer, clip=40) < 20


def test_masks_may_begin_as_more_than_a_bag_of_words():
    assert torch.equal(LearnedMask(3, 4).masks, torch.ones(3, 4))
    torch.manual_seed(1)
    masks = LearnedMask(30, 100, init_std=0.3).masks
    assert abs(float(masks.mean()) - 1) < 0.02 and abs(float(masks.std()) - 0.3) < 0.02
    with pytest.raises(ValueError, match=r"init_std is -0\.1, but must be at least 0"):
        LearnedMask(3, 4, init_std=-0.1)
