"""Whole models: the Neural Turing Machine against the paper in loops, the baseline, and their habits."""

from functools import partial

import numpy as np
import pytest
import torch
from reference import ntm as slow
from reference.paper import paper_ntm

from memnet import (
    LSTM,
    NTM,
    Addressing,
    ConstantMemory,
    ContentAddressing,
    DotScore,
    FeedForwardController,
    LearnedMemory,
    LSTMController,
    RandomMemory,
    record,
)
from memnet.functional import NORM_EPS, SHARPEN_EPS

BATCH, TIME = 2, 5
CONTROLLERS = {
    "LSTM": partial(LSTMController, hidden_size=6),
    "two LSTM layers": partial(LSTMController, hidden_size=6, num_layers=2),
    "feed-forward": partial(FeedForwardController, hidden_size=6),
    "two feed-forward layers": partial(FeedForwardController, hidden_size=6, num_layers=2),
}
SIZES = {
    "one head": slow.Sizes(num_slots=6, slot_size=4, num_read_heads=1, num_write_heads=1, num_shifts=3),
    "several heads": slow.Sizes(num_slots=5, slot_size=3, num_read_heads=2, num_write_heads=3, num_shifts=5),
}


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("sizes", SIZES)
def test_ntm_is_the_papers(controller, sizes):
    """Outputs, weights of all heads and the final memory over several steps, by the module's own parameters."""
    sizes = SIZES[sizes]
    start = LearnedMemory(sizes.num_slots, sizes.slot_size, std=1.0)
    model = paper_ntm(3, 2, **sizes._asdict(), controller=CONTROLLERS[controller], memory_start=start).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)  # so that no start is 0 and no gate is half open
    parameters = {name: x.numpy() for name, x in model.state_dict().items()}
    inputs = torch.randn(BATCH, TIME, 3, dtype=torch.float64)
    with record(model) as trace:
        outputs, state = model(inputs)
    for item in range(BATCH):
        expected, weights, memory = slow.run(
            parameters, inputs[item].numpy(), sizes, start.memory.detach().numpy(), NORM_EPS, SHARPEN_EPS
        )
        torch.testing.assert_close(outputs[item], torch.from_numpy(expected))
        for side in ("read", "write"):
            recorded = trace[f"cell.access.{side}_addressing"][item]
            torch.testing.assert_close(recorded, torch.from_numpy(weights[side]))
        torch.testing.assert_close(state.access.memory[item], torch.from_numpy(memory))


def test_the_stabilising_constants_hardly_change_the_paper():
    """With a small eps the model is that of eps = 0, as the paper writes it, where the memory starts at about 1.

    Where it starts near 0 the cosine's eps is meant to make a difference (see ``NORM_EPS``).
    """
    sizes = SIZES["several heads"]
    start = LearnedMemory(sizes.num_slots, sizes.slot_size, std=1.0)
    settings = {"controller": CONTROLLERS["LSTM"], "memory_start": start}
    model = paper_ntm(3, 2, **sizes._asdict(), norm_eps=1e-6, **settings).double()
    parameters = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    inputs = torch.randn(1, TIME, 3, dtype=torch.float64)
    exact, _, _ = slow.run(parameters, inputs[0].numpy(), sizes, start.memory.detach().numpy(), 0.0, 0.0)
    # Squared norms are about 1, so that each of five steps adds a relative error of about 1e-6.
    np.testing.assert_allclose(model(inputs)[0][0].detach().numpy(), exact, rtol=0, atol=5e-6)


@pytest.mark.parametrize("controller", ["LSTM", "feed-forward"])
def test_gradient_of_a_whole_ntm(controller):
    """By finite differences in every parameter and input of a tiny model with several heads."""
    sizes = slow.Sizes(num_slots=3, slot_size=2, num_read_heads=1, num_write_heads=2, num_shifts=3)
    make = partial(CONTROLLERS[controller].func, hidden_size=2)
    model = NTM(1, 1, **sizes._asdict(), controller=make, memory_start=ConstantMemory(0.1)).double()
    inputs = torch.randn(1, 3, 1, dtype=torch.float64, requires_grad=True)
    names, values = zip(*model.named_parameters(), strict=True)

    def run(inputs, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (inputs,))[0]

    assert torch.autograd.gradcheck(run, (inputs, *values))


def test_memory_starts():
    sizes = {"num_slots": 6, "slot_size": 4}
    constant = NTM(3, 2, **sizes).cell.init_state(BATCH).access.memory
    assert torch.equal(constant, torch.full((BATCH, 6, 4), 1e-6))
    start = LearnedMemory(6, 4)
    learned = NTM(3, 2, **sizes, memory_start=start).cell.init_state(BATCH).access.memory
    assert torch.equal(learned, start.memory.expand(BATCH, 6, 4))
    cell = NTM(3, 2, **sizes, memory_start=RandomMemory(std=0.5)).cell
    random = torch.stack([cell.init_state(1000).access.memory for _ in range(2)])
    assert not torch.equal(random[0, 0], random[0, 1]) and not torch.equal(random[0], random[1])
    torch.testing.assert_close(random.std(), torch.tensor(0.5), rtol=0.02, atol=0)  # 48,000 draws: 0.3% is one sigma


class Drawn(Addressing[None]):
    """Looks anywhere at random."""

    emit_size = 1

    def forward(self, emission, keys, state, mask=None):
        return torch.rand(*emission.shape[:2], keys.shape[1]).softmax(-1), None


def test_trying_whether_the_parts_fit_takes_nothing_from_the_random_numbers_of_a_seed():
    """A model of stochastic parts must start from the parameters that the seed gives without them."""
    linear = []
    for stochastic in (False, True):
        parts = {"read_addressing": Drawn() if stochastic else ContentAddressing(DotScore(1))}
        parts["memory_start"] = RandomMemory() if stochastic else ConstantMemory()
        torch.manual_seed(3)
        linear.append(NTM(3, 2, num_slots=6, slot_size=1, **parts).cell.output.weight)
    assert torch.equal(*linear)


MODELS = {
    "NTM": lambda: NTM(3, 2, num_slots=6, slot_size=4, controller=CONTROLLERS["LSTM"]),
    "LSTM": lambda: LSTM(3, 2, hidden_size=4, num_layers=2),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().double()


def test_padded_equals_unpadded(model):
    inputs, lengths = torch.randn(3, 6, 3, dtype=torch.float64), torch.tensor([4, 6, 1])
    outputs, state = model(inputs, lengths=lengths)
    for item, length in enumerate(lengths):
        alone, end = model(inputs[item : item + 1, :length])
        torch.testing.assert_close(outputs[item : item + 1, :length], alone)
        assert not outputs[item, length:].any()
        for x, y in zip(leaves(state), leaves(end), strict=True):
            torch.testing.assert_close(x[item : item + 1], y)


def test_chunked_equals_whole(model):
    inputs = torch.randn(3, 6, 3, dtype=torch.float64)
    whole, end = model(inputs)
    head, state = model(inputs[:, :2])
    tail, chunked_end = model(inputs[:, 2:], state)
    torch.testing.assert_close(torch.cat([head, tail], 1), whole)
    for x, y in zip(leaves(chunked_end), leaves(end), strict=True):
        torch.testing.assert_close(x, y)


def leaves(state):
    return [x for x in torch.utils._pytree.tree_leaves(state) if x is not None]


def test_every_parameter_of_a_model_learns(model):
    model(torch.randn(3, 6, 3, dtype=torch.float64))[0].square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_outputs_are_logits(model):
    """Not squeezed into (0, 1): a large bias goes straight through."""
    output = model.cell.output if isinstance(model, NTM) else model.output
    with torch.no_grad():
        output.bias.fill_(100.0)
    assert (model(torch.zeros(1, 2, 3, dtype=torch.float64))[0] > 50).all()


def test_lstm_baseline_is_the_lstm_controller_with_a_linear_output():
    model = MODELS["LSTM"]().double()
    cell = LSTMController(3, hidden_size=4, num_layers=2).double()
    with torch.no_grad():
        for layer, part in enumerate(cell.layers):
            for name, parameter in part.named_parameters():
                parameter.copy_(getattr(model.lstm, f"{name}_l{layer}"))
        for name in ("initial_hidden", "initial_cell"):
            getattr(cell, name).copy_(getattr(model, name).normal_())
    inputs, state = torch.randn(2, 4, 3, dtype=torch.float64), cell.init_state(2)
    outputs, _ = model(inputs)
    for step in range(4):
        hidden, state = cell(inputs[:, step], state)
        torch.testing.assert_close(outputs[:, step], model.output(hidden))
