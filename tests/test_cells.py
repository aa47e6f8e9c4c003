"""Controllers and the memory cell. What holds for every cell is in test_conformance.py."""

import torch
from reference.paper import paper_ntm

from memnet import NTM, FeedForwardController, LSTMController


def test_lstm_controller_is_torchs_lstm():
    """Two layers over time against torch's own, with the same weights and a start that is not 0."""
    controller = LSTMController(3, hidden_size=4, num_layers=2).double()
    reference = torch.nn.LSTM(3, 4, num_layers=2, batch_first=True).double()
    with torch.no_grad():
        for layer, cell in enumerate(controller.layers):
            for name, parameter in cell.named_parameters():
                getattr(reference, f"{name}_l{layer}").copy_(parameter)
        controller.initial_hidden.normal_()
        controller.initial_cell.normal_()
    inputs = torch.randn(2, 5, 3, dtype=torch.float64)
    state = controller.init_state(2)
    expected, (hidden, cell) = reference(inputs, (state.hidden.transpose(0, 1).contiguous(),
                                                  state.cell.transpose(0, 1).contiguous()))  # fmt: skip
    for step in range(5):
        output, state = controller(inputs[:, step], state)
        torch.testing.assert_close(output, expected[:, step])
    torch.testing.assert_close(state.hidden, hidden.transpose(0, 1))
    torch.testing.assert_close(state.cell, cell.transpose(0, 1))


def test_feed_forward_controller_remembers_nothing():
    controller = FeedForwardController(3, hidden_size=4, num_layers=2).double()
    x = torch.randn(2, 3, dtype=torch.float64)
    first, second = controller.layers
    expected = torch.tanh(torch.tanh(x @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    output, state = controller(x, controller.init_state(2))
    torch.testing.assert_close(output, expected)
    assert state is None


def test_the_start_of_every_sequence_is_learned():
    """Controller state, reads and both sides' weights get gradients from one step (Graves et al. 2014, sec. 4)."""
    model = paper_ntm(3, 2, num_slots=5, slot_size=4, num_read_heads=2)
    outputs, _ = model(torch.randn(2, 1, 3))
    outputs.square().sum().backward()
    cell = model.cell
    learned = [cell.initial_reads, cell.controller.initial_hidden, cell.controller.initial_cell]
    learned += [cell.access.read_addressing.start.logits, cell.access.write_addressing.start.logits]
    for parameter in learned:
        assert parameter.grad.any()
    assert cell.initial_reads.shape == (2, 4)


def test_the_output_sees_the_controller_and_what_is_read_in_the_same_step():
    cell = NTM(3, 2, num_slots=5, slot_size=4, num_read_heads=2).cell
    x, start = torch.randn(2, 3), cell.init_state(2)
    output, state = cell(x, start)
    control, _ = cell.controller(torch.cat([x, start.reads.flatten(1)], -1), start.controller)
    torch.testing.assert_close(output, cell.output(torch.cat([control, state.reads.flatten(1)], -1)))
