"""Stacks of recurrent layers: against loops, padded against alone, and what they refuse."""

import numpy as np
import pytest
import torch
from reference import seq2seq as slow
from torch import nn

from memnet import LSTM
from memnet.models import recurrent
from memnet.models.encoders import reverse_within
from memnet.models.recurrent import Padding, RecurrentStack, RecurrentState

UNITS = {"LSTM": nn.LSTM, "GRU": nn.GRU}
BATCH, TIME, INPUT, HIDDEN = 4, 6, 3, 5
LENGTHS = torch.tensor([4, 6, 1, 5])


@pytest.fixture(params=UNITS)
def unit(request):
    return UNITS[request.param]


def in_loops(stack, x):
    """A sequence's outputs and last hidden states by the reference, with the stack's options."""
    parameters = {name: value.detach().numpy() for name, value in stack.named_parameters()}
    num_parts = 2 if isinstance(stack.units[0], nn.LSTM) else 1
    rows, ends = list(x.numpy()), []
    for layer, unit in enumerate(stack.units):
        prefix = f"units.{layer}"
        start = slow.zeros(parameters, prefix, num_parts)
        outputs, end = slow.run_layer(rows, start, slow.layer_weights(parameters, prefix))
        if unit.bidirectional:
            weights = slow.layer_weights(parameters, prefix, "_reverse")
            backward, backward_end = slow.run_layer(rows[::-1], start, weights)
            merge = {
                "concatenate": lambda x, y: np.concatenate([x, y]),
                "sum": lambda x, y: x + y,
                "mean": lambda x, y: (x + y) / 2,
            }[stack.merge]
            outputs = [merge(x, y) for x, y in zip(outputs, backward[::-1], strict=True)]
            end = tuple(merge(x, y) for x, y in zip(end, backward_end, strict=True))
        if stack.residual and layer:
            outputs = [x + y for x, y in zip(outputs, rows, strict=True)]
        rows = outputs
        ends.append(end)
    return np.array(rows), [np.array(part) for part in zip(*ends, strict=True)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3},
        {"num_layers": 3, "residual": True},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "merge": "sum"},
        {"num_layers": 3, "bidirectional": True, "merge": "mean", "residual": True},
        {"num_layers": 3, "bidirectional": True, "merge": "concatenate", "residual": True},
    ],
    ids=str,
)
def test_a_stack_is_its_layers_in_loops(unit, options):
    stack = RecurrentStack(INPUT, HIDDEN, unit=unit, **options).double()
    x = torch.randn(2, TIME, INPUT, dtype=torch.float64)
    outputs, state = stack(x)
    assert outputs.shape == (2, TIME, stack.output_size)
    for item in range(2):
        expected, ends = in_loops(stack, x[item])
        torch.testing.assert_close(outputs[item], torch.from_numpy(expected))
        parts = [part for part in state if part is not None]
        assert len(parts) == (2 if unit is nn.LSTM else 1)
        for part, end in zip(parts, ends, strict=True):
            torch.testing.assert_close(part[item], torch.from_numpy(end))


@pytest.mark.parametrize("run", [recurrent._run_held, recurrent._run_packed], ids=lambda run: run.__name__)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_padded_equals_alone(unit, run, bidirectional, dtype, monkeypatch):
    """Outputs, last states and gradients, by both ways of running padded batches, whatever stands in the padding."""
    monkeypatch.setattr(recurrent, "_run_held", run)
    options = {"num_layers": 2, "unit": unit, "bidirectional": bidirectional, "residual": True}
    stack = RecurrentStack(INPUT, HIDDEN, **options).to(dtype)
    x = torch.randn(BATCH, TIME, INPUT, dtype=dtype)
    padding = Padding.of(LENGTHS, TIME, x.device)
    x[~padding.is_real] *= 100
    x.requires_grad_()
    outputs, state = stack(x, padding=padding)
    sources = [x, *stack.parameters()]
    # float32 rounds in another order when alone: some 1e-7 for each of the hundred terms of a sum.
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    for item, length in enumerate(LENGTHS.tolist()):
        alone, end = stack(x[item : item + 1, :length])
        torch.testing.assert_close(outputs[item : item + 1, :length], alone, **close)
        loss, loss_alone = outputs[item, :length].sin().sum(), alone.sin().sum()
        for part, part_alone in zip(state, end, strict=True):
            if part is not None:
                torch.testing.assert_close(part[item : item + 1], part_alone, **close)
                loss, loss_alone = loss + part[item].cos().sum(), loss_alone + part_alone.cos().sum()
        for together, apart in zip(
            torch.autograd.grad(loss, sources, retain_graph=True),
            torch.autograd.grad(loss_alone, sources),
            strict=True,
        ):
            torch.testing.assert_close(together, apart, **close)


def test_a_padded_batch_goes_on_from_a_state(unit):
    stack = RecurrentStack(INPUT, HIDDEN, 2, unit).double()
    x = torch.randn(BATCH, TIME, INPUT, dtype=torch.float64)
    _, start = stack(x)
    outputs, end = stack(x, start, Padding.of(LENGTHS, TIME, x.device))
    for item, length in enumerate(LENGTHS.tolist()):
        alone_start = RecurrentState(*(None if part is None else part[item : item + 1] for part in start))
        alone, alone_end = stack(x[item : item + 1, :length], alone_start)
        torch.testing.assert_close(outputs[item : item + 1, :length], alone)
        for part, part_alone in zip(end, alone_end, strict=True):
            assert (part is None) == (part_alone is None)
            if part is not None:
                torch.testing.assert_close(part[item : item + 1], part_alone)


def test_chunked_equals_whole(unit):
    stack = RecurrentStack(INPUT, HIDDEN, 2, unit, residual=True).double()
    x = torch.randn(BATCH, TIME, INPUT, dtype=torch.float64)
    whole, _ = stack(x)
    head, state = stack(x[:, :2])
    tail, _ = stack(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole)


def test_padded_batches_run_under_autocast(unit):
    stack = RecurrentStack(INPUT, HIDDEN, 2, unit, bidirectional=True)
    x, padding = torch.randn(BATCH, TIME, INPUT), Padding.of(LENGTHS, TIME, torch.device("cpu"))
    expected, _ = stack(x, padding=padding)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = stack(x, padding=padding)
    outputs.float().sum().backward()
    # bfloat16 has 8 bits: outputs of at most 1 are off by some 2^-9 for each of a few layers and steps.
    torch.testing.assert_close(outputs.float()[padding.is_real], expected[padding.is_real], rtol=0, atol=0.05)
    assert all(torch.isfinite(parameter.grad).all() for parameter in stack.parameters())


@pytest.mark.parametrize("network", ["stack", "LSTM"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_where_the_processor_has_no_half_precision_an_lstm_stays_in_float32(network, dtype, monkeypatch):
    """PyTorch's fused LSTM does not look and ends in an error."""
    monkeypatch.setattr(recurrent, "_fused_lstm_takes", lambda dtype: False)
    x, lengths = torch.randn(BATCH, TIME, INPUT), LENGTHS
    if network == "stack":
        stack, padding = RecurrentStack(INPUT, HIDDEN, 2), Padding.of(lengths, TIME, torch.device("cpu"))

        def run():
            outputs, state = stack(x, padding=padding)
            return outputs[padding.is_real], stack(x[:, :2], state)[0]
    else:
        model = LSTM(INPUT, 3, hidden_size=HIDDEN, num_layers=2)

        def run():
            outputs, state = model(x, lengths=lengths)
            return outputs, model(x[:, :2], state)[0]

    expected = run()
    with torch.autocast("cpu", dtype):
        got = run()
    for ours, theirs in zip(got, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_full_batches_have_no_padding():
    assert Padding.of(None, TIME, torch.device("cpu")) is None
    assert Padding.of(torch.tensor([TIME, TIME]), TIME, torch.device("cpu")) is None
    padding = Padding.of(torch.tensor([1, 3]), 3, torch.device("cpu"))
    assert padding.is_real.tolist() == [[True, False, False], [True, True, True]]


def test_reversal_stays_within_the_lengths():
    source = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 0], [5, 0, 0, 0]])
    padding = Padding.of(torch.tensor([4, 3, 1]), 4, source.device)
    reversed_ = torch.tensor([[8, 7, 6, 5], [7, 6, 5, 0], [5, 0, 0, 0]])
    assert torch.equal(reverse_within(source, padding), reversed_)
    assert torch.equal(reverse_within(source, None), source.flip(1))
    vectors = torch.randn(3, 4, 2)
    assert torch.equal(reverse_within(vectors, padding)[1], vectors[1, [2, 1, 0, 3]])


def test_dropout_is_between_layers_and_in_training_only():
    stack = RecurrentStack(INPUT, HIDDEN, 2, dropout=0.5)
    x = torch.randn(2, TIME, INPUT)
    first, second = stack(x), stack(x)
    torch.testing.assert_close(first[1].hidden[:, 0], second[1].hidden[:, 0])
    assert not torch.equal(first[0], second[0])
    stack.eval()
    assert torch.equal(stack(x)[0], stack(x)[0])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden_size": 0}, "hidden_size is 0, but must be a whole number of at least 1."),
        ({"num_layers": 0}, "num_layers is 0, but must be a whole number of at least 1."),
        ({"unit": nn.RNN}, "unit is RNN, but must be torch.nn.LSTM or torch.nn.GRU."),
        ({"merge": "max"}, "merge is 'max', but must be 'concatenate', 'sum' or 'mean'."),
        ({"dropout": 1.0}, "dropout is 1.0, but must be at least 0 and less than 1."),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refusals(unchecked, options, sentence):
    with pytest.raises(ValueError) as error:
        RecurrentStack(**{"input_size": INPUT, "hidden_size": HIDDEN, **options})
    assert str(error.value) == sentence
