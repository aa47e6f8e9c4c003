"""GNMT: its layers against the same layers put together by hand, what the context reaches, and its habits."""

import numpy as np
import pytest
import torch
from reference import seq2seq as slow
from torch import nn

from memnet import GNMT, ContentAddressing, DotScore, MonotonicLocalAddressing, record

BATCH, SOURCE, TARGET, HIDDEN, LAYERS = 3, 7, 5, 6, 4
LENGTHS = torch.tensor([4, 7, 1])


def gnmt(**options):
    return GNMT(11, 9, **{"hidden_size": HIDDEN, "num_layers": LAYERS} | options)


@pytest.fixture
def model():
    return gnmt().double().eval()


def batch():
    return torch.randint(4, 11, (BATCH, SOURCE)), torch.randint(4, 9, (BATCH, TARGET))


def in_loops(parameters, source, target_in):
    """Logits of one pair, by Wu et al. 2016, section 3, and the weights over the source."""

    def layer(rows, state, prefix, suffix=""):
        return slow.run_layer(rows, state, slow.layer_weights(parameters, prefix, suffix))

    start = (np.zeros(HIDDEN),) * 2
    rows = [parameters["encoder.embedding.weight"][symbol] for symbol in source]
    forward, _ = layer(rows, start, "encoder.first.units.0")
    backward, end = layer(rows[::-1], start, "encoder.first.units.0", "_reverse")
    rows = [np.concatenate(pair) for pair in zip(forward, backward[::-1], strict=True)]
    states = [end]
    for number in range(LAYERS - 1):
        outputs, end = layer(rows, start, f"encoder.others.units.{number}")
        rows = [x + y for x, y in zip(outputs, rows, strict=True)] if number else outputs
        states.append(end)

    keys = [parameters["decoder.keys.weight"] @ row for row in rows]
    matrix, bias, direction = (
        parameters[f"decoder.access.addressing.score.{name}"]
        for name in ("projection.weight", "projection.bias", "direction")
    )
    logits, alignment = [], []
    for symbol in target_in:
        (x,), states[0] = layer([parameters["decoder.embedding.weight"][symbol]], states[0], "decoder.first.units.0")
        weights = slow.softmax(np.array([direction @ np.tanh(matrix @ x + bias + key) for key in keys]))
        context = sum(weight * row for weight, row in zip(weights, rows, strict=True))
        for number in range(LAYERS - 1):
            inputs = np.concatenate([x, context])
            (y,), states[number + 1] = layer([inputs], states[number + 1], f"decoder.others.{number}.units.0")
            x = x + y if number else y
        logits.append(parameters["decoder.output.weight"] @ x + parameters["decoder.output.bias"])
        alignment.append(weights)
    return torch.from_numpy(np.array(logits)), torch.from_numpy(np.array(alignment))


def test_it_is_its_layers_in_loops(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 3  # so that weights are far from uniform
    parameters = {name.removeprefix("model."): value.detach().numpy() for name, value in model.named_parameters()}
    source, target_in = batch()
    with record(model) as trace:
        logits = model(source, target_in, LENGTHS)
    (weights,) = trace.values()
    for item, length in enumerate(LENGTHS.tolist()):
        expected, alignment = in_loops(parameters, source[item, :length].tolist(), target_in[item].tolist())
        torch.testing.assert_close(logits[item], expected)
        torch.testing.assert_close(weights[item, 0, :, :length], alignment)
        assert not weights[item, 0, :, length:].any()


def test_the_context_reaches_every_layer_above_the_first(model):
    """Each by weights of its own, and the first by none: it is the one that asks."""
    decoder = model.model.decoder
    source, target_in = batch()
    model(source, target_in).sin().sum().backward()
    assert decoder.first.units[0].weight_ih_l0.shape[1] == HIDDEN
    assert len(decoder.others) == LAYERS - 1
    for stack in decoder.others:
        weight = stack.units[0].weight_ih_l0
        assert weight.shape[1] == 2 * HIDDEN
        assert weight.grad[:, HIDDEN:].abs().min() > 0
    changes = []
    state = model.encode(source)
    logits, _ = model.decode(target_in, state)
    for stack in decoder.others:
        kept = stack.units[0].weight_ih_l0.detach().clone()
        with torch.no_grad():
            stack.units[0].weight_ih_l0[:, HIDDEN:] = 0
            changes.append((model.decode(target_in, state)[0] - logits).abs().max())
            stack.units[0].weight_ih_l0.copy_(kept)
    assert min(changes) > 1e-6


def test_only_the_first_encoder_layer_is_bidirectional(model):
    encoder = model.model.encoder
    assert [unit.bidirectional for unit in (*encoder.first.units, *encoder.others.units)] == [True] + [False] * 3


def test_teacher_forced_equals_step_by_step(model):
    source, target_in = batch()
    state = model.encode(source, LENGTHS)
    logits, sampled = model.decode(target_in, state)
    assert sampled is None
    for step, tokens in enumerate(target_in.unbind(1)):
        row, weights, state = model.step(tokens, state)
        torch.testing.assert_close(row, logits[:, step])
        assert weights.shape == (BATCH, SOURCE)


def test_padded_equals_unpadded(model):
    source, target_in = batch()
    logits = model(source, target_in, LENGTHS)
    for item, length in enumerate(LENGTHS.tolist()):
        one = slice(item, item + 1)
        alone = model(source[one, :length], target_in[one])
        torch.testing.assert_close(logits[one], alone)
        together, apart = (torch.autograd.grad(x.sin().sum(), model.parameters(), retain_graph=True)
                           for x in (logits[one], alone))  # fmt: skip
        for x, y in zip(together, apart, strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("num_layers", [2, 8])
def test_any_depth_from_two(num_layers):
    model = gnmt(num_layers=num_layers)
    source, target_in = batch()
    logits = model(source, target_in, LENGTHS)
    assert logits.shape == (BATCH, TARGET, 9)
    logits.sum().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []
    assert (model.source_vocab_size, model.target_vocab_size, model.max_source_length) == (11, 9, None)


def test_another_addressing():
    """Local attention with a dot score: only slots near the target position get weight."""
    model = gnmt(addressing=MonotonicLocalAddressing(ContentAddressing(DotScore(HIDDEN)), 1)).eval()
    source, target_in = batch()
    with record(model) as trace:
        model(source, target_in)
    weights = trace["model.decoder.access.addressing"][:, 0]
    near = (torch.arange(SOURCE) - torch.arange(TARGET)[:, None]).abs() <= 1
    assert ((weights > 0) == near).all()
    assert model.alignment_names == ("model.decoder.access.addressing",)


def test_dropout_is_for_training():
    model = gnmt(dropout=0.5)
    source, target_in = batch()
    assert not torch.equal(model(source, target_in), model(source, target_in))
    model.eval()
    assert torch.equal(model(source, target_in), model(source, target_in))


def test_a_source_longer_than_it_is_built_for_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"^source holds 7 symbols, but the model's max_source_length is 6\.$"):
        gnmt(max_source_length=6).encode(batch()[0])


def test_it_learns_its_targets_by_heart(unchecked):
    model = gnmt(hidden_size=32, num_layers=3, dropout=0.0)
    source, target = torch.randint(4, 11, (4, SOURCE)), torch.randint(4, 9, (4, TARGET))
    target[:, 0], target[:, -1] = 1, 2
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten()).backward()
        optimizer.step()
    tokens, weights = model.eval().generate(source, max_length=8)
    assert torch.equal(tokens, target[:, 1:])
    assert weights.shape == (4, TARGET - 1, SOURCE)
