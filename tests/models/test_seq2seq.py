"""Recurrent encoder-decoders: against the textbook in loops, padded and step by step, and what they learn."""

from functools import partial

import pytest
import torch
from reference import seq2seq as slow
from torch import nn

from memnet import (
    AdditiveScore,
    AttentionDecoder,
    ContentAddressing,
    CosineScore,
    DotScore,
    Entmax15,
    GeneralScore,
    GumbelStraightThrough,
    Hard,
    HardAddressing,
    LocationAddressing,
    MonotonicLocalAddressing,
    PeekyDecoder,
    PlainDecoder,
    PredictiveLocalAddressing,
    RecurrentEncoder,
    SampledSlots,
    ScaledDotScore,
    Seq2Seq,
    Softmax,
    Sparsemax,
    TopK,
    record,
)
from memnet.decoding import BOS, EOS

BATCH, SOURCE, TARGET = 3, 7, 5
SOURCE_VOCAB, TARGET_VOCAB, EMBEDDING, HIDDEN = 11, 9, 4, 6
LENGTHS = torch.tensor([4, 7, 1])


def encoder(**options):
    return RecurrentEncoder(
        **{"vocab_size": SOURCE_VOCAB, "embedding_size": EMBEDDING, "hidden_size": HIDDEN} | options
    )


def decoder(kind=PlainDecoder, **options):
    return kind(**{"vocab_size": TARGET_VOCAB, "embedding_size": EMBEDDING, "hidden_size": HIDDEN} | options)


def attention(addressing=None, **options):
    if addressing is None:
        addressing = ContentAddressing(DotScore(HIDDEN))
    return decoder(AttentionDecoder, addressing=addressing, **{"memory_size": HIDDEN} | options)


def additive(**options):
    return attention(ContentAddressing(AdditiveScore(HIDDEN, 5)), key_size=5, **options)


def deep():
    options = {"num_layers": 3, "residual": True}
    return Seq2Seq(
        encoder(bidirectional=True, merge="mean", **options), additive(attention_size=5, input_feeding=True, **options)
    )


MODELS = {
    "plain": lambda: Seq2Seq(encoder(), decoder()),
    "plain, reversed": lambda: Seq2Seq(encoder(reverse=True), decoder()),
    "peeky": lambda: Seq2Seq(encoder(reverse=True), decoder(PeekyDecoder)),
    "peeky, GRU": lambda: Seq2Seq(encoder(unit=nn.GRU), decoder(PeekyDecoder, unit=nn.GRU)),
    "attention": lambda: Seq2Seq(encoder(), attention()),
    "attention, reversed": lambda: Seq2Seq(encoder(reverse=True), attention()),
    "attention, GRU": lambda: Seq2Seq(encoder(unit=nn.GRU), attention(unit=nn.GRU)),
    "bidirectional": lambda: Seq2Seq(encoder(bidirectional=True), additive(memory_size=2 * HIDDEN)),
    "bidirectional, sum": lambda: Seq2Seq(encoder(bidirectional=True, merge="sum"), attention()),
    "bidirectional, mean": lambda: Seq2Seq(encoder(bidirectional=True, merge="mean"), attention()),
    "attentional layer": lambda: Seq2Seq(encoder(), attention(attention_size=5)),
    "feeding": lambda: Seq2Seq(encoder(), attention(input_feeding=True)),
    "other layers": lambda: Seq2Seq(encoder(num_layers=2), attention(num_layers=3)),
    "other layers, GRU": lambda: Seq2Seq(encoder(unit=nn.GRU, num_layers=2), attention(unit=nn.GRU)),
    "location": lambda: Seq2Seq(
        encoder(), attention(LocationAddressing(ContentAddressing(CosineScore(HIDDEN))), project_query=True)
    ),
    "local-m": lambda: Seq2Seq(encoder(), attention(MonotonicLocalAddressing(ContentAddressing(DotScore(HIDDEN)), 2))),
    "local-p": lambda: Seq2Seq(encoder(), attention(PredictiveLocalAddressing(ContentAddressing(DotScore(HIDDEN)), 2))),
    "hard": lambda: Seq2Seq(encoder(), attention(HardAddressing(DotScore(HIDDEN)), project_query=True)),
    "deep": deep,
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().double().eval()


def batch():
    return torch.randint(4, SOURCE_VOCAB, (BATCH, SOURCE)), torch.randint(4, TARGET_VOCAB, (BATCH, TARGET))


def step_by_step(model, target_in, state):
    logits, weights = [], []
    for tokens in target_in.unbind(1):
        row, looked, state = model.step(tokens, state)
        logits.append(row)
        weights.append(looked)
    return torch.stack(logits, 1), weights


@pytest.mark.parametrize("unit", [nn.LSTM, nn.GRU], ids=["LSTM", "GRU"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("plain", decoder),
        ("peeky", partial(decoder, PeekyDecoder)),
        ("attention", attention),
        ("feeding", partial(attention, input_feeding=True)),
    ],
    ids=["plain", "peeky", "attention", "feeding"],
)
def test_the_textbooks_models(unit, reverse, kind, make):
    """Logits and weights by the module's own parameters; attention is softmax(hs . h) and the weighted sum of hs."""
    model = Seq2Seq(encoder(unit=unit, reverse=reverse), make(unit=unit)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 4  # so that weights are far from uniform
    parameters = {name: value.detach().numpy() for name, value in model.named_parameters()}
    source, target_in = batch()
    logits = model(source, target_in)
    _, weights = step_by_step(model, target_in, model.encode(source))
    for item in range(BATCH):
        hs, state = slow.encode(parameters, source[item].tolist(), 2 if unit is nn.LSTM else 1, reverse)
        expected, alignment = slow.decode(parameters, target_in[item].tolist(), hs, state, kind)
        torch.testing.assert_close(logits[item], torch.from_numpy(expected))
        if kind in ("plain", "peeky"):
            assert weights == [None] * TARGET
        else:
            assert alignment.max() - alignment.min() > 0.02
            looked = torch.stack(weights, 1)[item]
            torch.testing.assert_close(looked, torch.from_numpy(alignment))


def test_teacher_forced_equals_step_by_step(model):
    source, target_in = batch()
    state = model.encode(source, LENGTHS)
    logits, _ = model.decode(target_in, state)
    torch.testing.assert_close(step_by_step(model, target_in, state)[0], logits)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "location"])  # whose circle is all slots
def test_padded_equals_unpadded(name):
    """Logits, weights and gradients, whatever symbols stand in the padding."""
    model = MODELS[name]().double().eval()
    source, target_in = batch()
    logits = model(source, target_in, LENGTHS)
    _, weights = step_by_step(model, target_in, model.encode(source, LENGTHS))
    parameters = list(model.parameters())
    for item, length in enumerate(LENGTHS.tolist()):
        one = slice(item, item + 1)
        alone = model(source[one, :length], target_in[one])
        torch.testing.assert_close(logits[one], alone)
        _, looked = step_by_step(model, target_in[one], model.encode(source[one, :length]))
        if weights[0] is not None:
            torch.testing.assert_close(torch.stack(weights, 1)[one, :, :length], torch.stack(looked, 1))
            assert not torch.stack(weights, 1)[item, :, length:].any()
        grads = [
            torch.autograd.grad(x.sin().sum(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for x in (logits[one], alone)
        ]
        for together, apart in zip(*grads, strict=True):
            torch.testing.assert_close(together, apart)


def test_lengths_of_full_sources_change_nothing(model):
    source, target_in = batch()
    full = torch.full((BATCH,), SOURCE)
    assert torch.equal(model(source, target_in, full), model(source, target_in))


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_learns(name):
    torch.manual_seed(1)
    model = MODELS[name]().double()
    source, target_in = batch()
    logits, sampled = model.decode(target_in, model.encode(source, LENGTHS))
    loss = logits.sin().sum()
    if sampled is not None:
        loss = loss + sampled.log_prob.sum() + sampled.baseline.square().sum()
    loss.backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


SCORES = {
    "dot": lambda: DotScore(HIDDEN),
    "scaled dot": lambda: ScaledDotScore(HIDDEN),
    "general": lambda: GeneralScore(HIDDEN, HIDDEN),
    "additive": lambda: AdditiveScore(HIDDEN, HIDDEN),
    "cosine": lambda: CosineScore(HIDDEN),
}
NORMALIZERS = {
    "softmax": Softmax,
    "sparsemax": Sparsemax,
    "entmax": Entmax15,
    "top-k": partial(TopK, 2),
    "hard": Hard,
    "Gumbel": GumbelStraightThrough,
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("input_feeding", [False, True], ids=["", "feeding"])
def test_every_score_with_every_normalizer_trains(score, normalizer, input_feeding):
    addressing = ContentAddressing(SCORES[score](), NORMALIZERS[normalizer]())
    project = score == "cosine"  # which is asked for a strength as well
    model = Seq2Seq(
        encoder(), attention(addressing, project_query=project, key_size=HIDDEN, input_feeding=input_feeding)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    source, target_in = batch()
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        logits = model(source, target_in, LENGTHS)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target_in.flatten())
        loss.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name]().alignment_names])
def test_recorded_equals_unrecorded(name):
    """And what is recorded is what ``step`` returns: in one call where the target positions ask at once."""
    model = MODELS[name]().double().eval()
    source, target_in = batch()
    logits = model(source, target_in, LENGTHS)
    with record(model) as trace:
        recorded = model(source, target_in, LENGTHS)
    assert torch.equal(recorded, logits)
    (name,) = model.alignment_names
    weights = trace[name]
    shape = (1, TARGET) if model.decoder.steps_at_once else (TARGET, 1)
    assert weights.shape == (BATCH, *shape, SOURCE)
    _, looked = step_by_step(model, target_in, model.encode(source, LENGTHS))
    torch.testing.assert_close(weights.reshape(BATCH, TARGET, SOURCE), torch.stack(looked, 1))


def test_steps_are_taken_one_by_one_only_where_they_must_be():
    at_once = {name for name in MODELS if MODELS[name]().decoder.steps_at_once}
    assert set(MODELS) - at_once == {"feeding", "location", "deep"}


@pytest.mark.parametrize("input_feeding", [False, True], ids=["at once", "feeding"])
@pytest.mark.parametrize("local", [False, True], ids=["global", "local"])
def test_sampled_slots_come_out_for_every_target_position(input_feeding, local):
    """In training only; their log-probabilities lead to the parameters that chose them."""
    addressing = HardAddressing(DotScore(HIDDEN))
    if local:
        addressing = MonotonicLocalAddressing(addressing, 2)
    model = Seq2Seq(encoder(), attention(addressing, project_query=True, input_feeding=input_feeding))
    source, target_in = batch()
    _, sampled = model.decode(target_in, model.encode(source, LENGTHS))
    assert isinstance(sampled, SampledSlots)
    assert [part.shape for part in sampled] == [(BATCH, TARGET)] * 3
    assert (sampled.log_prob[2] == 0).all()  # one slot, so it was certain
    assert (sampled.log_prob[:2, :2] < 0).all()
    sampled.log_prob.sum().backward()
    assert model.decoder.access.interface.weight.grad.any() and model.encoder.embedding.weight.grad.any()
    model.eval()
    assert model.decode(target_in, model.encode(source, LENGTHS))[1] is None


def test_models_that_sample_nothing_hand_nothing_to_the_loss():
    source, target_in = batch()
    for model in [MODELS[name]() for name in MODELS if name != "hard"]:
        assert model.decode(target_in, model.encode(source))[1] is None


def test_keys_are_projected_once_a_source():
    model = MODELS["bidirectional"]()
    calls = []
    model.decoder.keys.register_forward_hook(lambda *arguments: calls.append(arguments))
    source, _ = batch()
    model.generate(source, LENGTHS, max_length=4, beam_size=2)
    assert len(calls) == 1


def test_values_are_the_encoders_outputs_and_keys_are_projected():
    model = MODELS["bidirectional"]().double()
    source, _ = batch()
    encoded, access = model.encoder(source, LENGTHS), model.encode(source, LENGTHS).access
    torch.testing.assert_close(access.values, encoded.outputs)
    torch.testing.assert_close(access.keys, encoded.outputs @ model.decoder.keys.weight.T)
    assert access.mask.sum(1).tolist() == LENGTHS.tolist()


def test_a_decoder_starts_from_the_encoders_last_state():
    source, _ = batch()
    for options in ({}, {"unit": nn.GRU}, {"num_layers": 2}):
        model = Seq2Seq(encoder(**options), decoder(**options))
        assert model.bridge is None
        for last, first in zip(model.encoder(source).state, model.encode(source), strict=True):
            assert last is first or torch.equal(last, first)


def test_where_sizes_differ_a_learned_map_of_all_last_states_makes_the_first():
    model = Seq2Seq(encoder(num_layers=2, bidirectional=True), decoder(num_layers=3, hidden_size=5)).double()
    source, _ = batch()
    state, start = model.encoder(source).state, model.encode(source)
    for item in range(BATCH):
        flat = [torch.cat(list(part[item])) for part in state]
        hidden = (model.bridge.hidden.weight @ flat[0] + model.bridge.hidden.bias).tanh()
        cell = model.bridge.cell.weight @ flat[1] + model.bridge.cell.bias
        torch.testing.assert_close(torch.cat(list(start.hidden[item])), hidden)
        torch.testing.assert_close(torch.cat(list(start.cell[item])), cell)


def test_states_have_the_batch_first(model):
    source, _ = batch()
    leaves = torch.utils._pytree.tree_leaves(model.encode(source, LENGTHS))
    tensors = [leaf for leaf in leaves if leaf is not None]
    assert tensors and all(tensor.shape[0] == BATCH for tensor in tensors)


def test_a_peek_reaches_input_and_output_at_every_step():
    model = MODELS["peeky"]().double()
    source, target_in = batch()
    state = model.encode(source)
    without = state._replace(source=torch.zeros_like(state.source))
    change = model.decode(target_in, state)[0] - model.decode(target_in, without)[0]
    assert (change.abs().amax(-1) > 0).all()
    size = model.decoder.stack.units[0].weight_ih_l0.shape[1], model.decoder.output.in_features
    assert size == (EMBEDDING + HIDDEN, 2 * HIDDEN)


def test_dropout_is_for_training():
    options = {"dropout": 0.5, "num_layers": 2}
    model = Seq2Seq(encoder(**options), attention(**options))
    source, target_in = batch()
    assert not torch.equal(model(source, target_in), model(source, target_in))
    model.eval()
    assert torch.equal(model(source, target_in), model(source, target_in))


@pytest.mark.parametrize("name", ["peeky", "attention", "feeding"])
def test_a_tiny_overfitted_model_writes_its_targets(unchecked, name):
    """Four pairs with sources of different lengths, learned by heart and written without being told."""
    torch.manual_seed(2)
    options = {"embedding_size": 16, "hidden_size": 32}
    if name == "peeky":
        writer = decoder(PeekyDecoder, **options)
    else:
        addressing, feeding = ContentAddressing(DotScore(32)), name == "feeding"
        writer = attention(addressing, memory_size=32, input_feeding=feeding, **options)
    model = Seq2Seq(encoder(reverse=True, **options), writer)
    source = torch.randint(4, SOURCE_VOCAB, (4, SOURCE))
    lengths = torch.tensor([7, 3, 5, 7])
    target = torch.tensor([[4, 5, 6, 7, EOS], [8, 8, EOS, 0, 0], [5, EOS, 0, 0, 0], [7, 6, 5, EOS, 0]])
    target_in = torch.cat([torch.full((4, 1), BOS), target[:, :-1]], 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(120):
        optimizer.zero_grad()
        logits = model(source, target_in, lengths)
        nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=0).backward()
        optimizer.step()
    model.eval()
    for beam_size in (1, 3):
        tokens, weights = model.generate(source, lengths, max_length=8, beam_size=beam_size)
        assert torch.equal(tokens, target)
        if model.alignment_names:
            assert weights.shape == (4, 5, SOURCE)
            assert not weights[1, :, 3:].any()
        else:
            assert weights is None


def test_trying_whether_an_addressing_fits_takes_nothing_from_the_random_numbers_of_a_seed():
    weights = []
    for normalizer in (Softmax(), GumbelStraightThrough()):
        torch.manual_seed(3)
        attention(ContentAddressing(DotScore(HIDDEN), normalizer))
        weights.append(torch.rand(3))
    assert torch.equal(*weights)


@pytest.mark.parametrize("name", MODELS)
def test_models_run_under_autocast(name):
    model = MODELS[name]().eval()
    source, target_in = batch()
    expected = model(source, target_in, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(source, target_in, LENGTHS)
        assert model.generate(source, LENGTHS, max_length=3, beam_size=2).tokens.shape[0] == BATCH
    logits.float().sin().sum().backward()
    # bfloat16 has 8 bits: logits of at most 1 are off by some 2^-9 for each of a few layers and steps.
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.05)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
